"""What data directories hold while no node runs on them: log, checkpoints, what is wrong with either, and what is left of a
cluster that lost its majority. Nothing in them is changed."""

from paxos.offline.log import Place, Segment, StoppedNode, System, Write
from paxos.offline.newcluster import NewCluster, check_place, make_cluster
from paxos.offline.records import TYPES, WITH_INSTANCE, Record, Value
from paxos.offline.recover import Electorate, Found, Member, Recovery, RecoveryReport, Source
from paxos.offline.verify import Checked, Finding, Report, newest_checkpoint, verify

__all__ = [
    "TYPES",
    "WITH_INSTANCE",
    "Checked",
    "Electorate",
    "Finding",
    "Found",
    "Member",
    "NewCluster",
    "Place",
    "Record",
    "Recovery",
    "RecoveryReport",
    "Report",
    "Segment",
    "Source",
    "StoppedNode",
    "System",
    "Value",
    "Write",
    "check_place",
    "make_cluster",
    "newest_checkpoint",
    "verify",
]
