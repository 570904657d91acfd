"""What a data directory holds while no node runs on it: log, checkpoints, what is wrong with either. Nothing is changed."""

from paxos.offline.log import Place, Segment, StoppedNode, System, Write
from paxos.offline.records import TYPES, WITH_INSTANCE, Record, Value
from paxos.offline.verify import Checked, Finding, Report, newest_checkpoint, verify

__all__ = [
    "TYPES",
    "WITH_INSTANCE",
    "Checked",
    "Finding",
    "Place",
    "Record",
    "Report",
    "Segment",
    "StoppedNode",
    "System",
    "Value",
    "Write",
    "newest_checkpoint",
    "verify",
]
