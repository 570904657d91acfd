"""State that survives its machines: Multi-Paxos as a library.

Every node applies the same values in the same order; an acknowledged value is on the disks of a majority before the caller
hears of it. Start with :class:`Node` (asyncio) or :class:`SyncNode` (threads) and a :class:`StateMachine` of your own.
"""

from paxos.alarm import Alarm
from paxos.config import Options, parse_address
from paxos.errors import (
    CheckpointFailed,
    ConfigError,
    DamagedCheckpoint,
    DamagedLog,
    DirectoryInUse,
    DiskFull,
    Diverged,
    Fenced,
    MembershipRefused,
    NodeClosed,
    NotAvailable,
    OutcomeUnknown,
    Overloaded,
    PartialOutcome,
    PaxosError,
    RecoveryRefused,
    Refused,
    ResultNotKept,
    SessionExpired,
    StateMachineFailed,
    StorageError,
    ValueTooLarge,
    WrongDirectory,
)
from paxos.mastership import Master
from paxos.membership import Member, Members
from paxos.node import Node
from paxos.reads import Consistency
from paxos.statemachine import SnapshotReader, SnapshotWriter, StateMachine
from paxos.status import NodeStatus
from paxos.sync import SyncNode
from paxos.tokens import Outcome, Session, Token

__version__ = "0.1.0"

__all__ = [
    "Alarm",
    "CheckpointFailed",
    "ConfigError",
    "Consistency",
    "DamagedCheckpoint",
    "DamagedLog",
    "DirectoryInUse",
    "DiskFull",
    "Diverged",
    "Fenced",
    "Master",
    "Member",
    "Members",
    "MembershipRefused",
    "Node",
    "NodeClosed",
    "NodeStatus",
    "NotAvailable",
    "Options",
    "Outcome",
    "OutcomeUnknown",
    "Overloaded",
    "PartialOutcome",
    "PaxosError",
    "RecoveryRefused",
    "Refused",
    "ResultNotKept",
    "Session",
    "SessionExpired",
    "SnapshotReader",
    "SnapshotWriter",
    "StateMachine",
    "StateMachineFailed",
    "StorageError",
    "SyncNode",
    "Token",
    "ValueTooLarge",
    "WrongDirectory",
    "parse_address",
]
