"""A node below Python, as Python holds it: what the engine and the simulator have in common."""

from collections.abc import Sequence
from typing import Literal, NoReturn, TypeAlias, TypedDict

from typing_extensions import disjoint_base

from paxos._files import Files
from paxos._scrub import SegmentScrub

__test__: dict[str, str]

# (0, group, instance, chain checksum behind it, runs, settled).
# runs: (machine, values) for adjacent chunks of one state machine; none for an
# instance without values. settled: (seq, run, start, count) says which of them this process handed in.
_Chosen: TypeAlias = tuple[Literal[0], int, int, int, list[tuple[int, list[bytes]]], list[tuple[int, int, int, int]]]
# (1, seq, code): a submission that will not be seen here. 1 not available and 2 overloaded are certain, 3 is unknown.
_Settled: TypeAlias = tuple[Literal[1], int, int]
# (2, group, master id (0: none known), ballot round, established)
_Master: TypeAlias = tuple[Literal[2], int, int, int, bool]
# (3, level as in logging, text, kind of the alarm that it is, if it is one)
_Log: TypeAlias = tuple[Literal[3], int, str, Literal["disk-full", "log-lost"] | None]
_Formed: TypeAlias = tuple[Literal[4]]
# (5, group, instance, node id): the chain checksum of that node differs from this one's
_Diverged: TypeAlias = tuple[Literal[5], int, int, int]
# (6, group, instance): what this process has handed in stands in an instance that its state machine says it has had before
_Ahead: TypeAlias = tuple[Literal[6], int, int]
# (7, group, first_kept, node id (0: this one)): instances below first_kept are deleted there, and wanted here
_Behind: TypeAlias = tuple[Literal[7], int, int, int]
# (8, group, node id, bytes): what that node has handed to send()
_Carry: TypeAlias = tuple[Literal[8], int, int, bytes]
# (9, group, version): the members are others now; it may come several times for one change
_Membership: TypeAlias = tuple[Literal[9], int, int]
# (10, group, instance, chain checksum behind it): what ask_chain() asked for; 0: it is not known here
_Chain: TypeAlias = tuple[Literal[10], int, int, int]
# (11, group, index, token): the read that was asked for under `token` may be answered where everything below `index` is applied
_Readable: TypeAlias = tuple[Literal[11], int, int, int]
# (12, group, node, version, lease in ns): by what is chosen that node is the master
_Mastership: TypeAlias = tuple[Literal[12], int, int, int, int]
_Event: TypeAlias = (
    _Chosen
    | _Settled
    | _Master
    | _Log
    | _Formed
    | _Diverged
    | _Ahead
    | _Behind
    | _Carry
    | _Membership
    | _Chain
    | _Readable
    | _Mastership
)

class _Status(TypedDict):
    """A node at one moment; counters count from this start on. ``commits``: values chosen, from instance 0 on."""

    node_id: int
    boot: int
    incarnation: str
    signature: str
    formed: bool
    role: str
    master_id: int
    master_round: int
    established: bool
    chosen: int
    heard_chosen: int
    chain: int
    delivered: int
    first_kept: int
    log_segments: int
    disk_full: bool
    segment_bytes: int
    outsider: bool
    votes: bool
    replaced: bool
    disowned: list[int]
    membership_version: int
    mastership: tuple[int, int]
    lease_ns: int
    commits: int
    log_mode: str
    fsyncs: int
    log_writes: int
    log_bytes: int
    log_records: int
    log_ns: int
    frames_sent: int
    frames_received: int
    bytes_sent: int
    bytes_received: int
    frames_dropped: int
    frames_refused: dict[str, int]
    core_refused: int
    read_rounds: int
    rounds: int
    proposed_values: int
    elections: int
    quarantined: str | None
    damage: str | None
    pending_chunks: int
    pending_bytes: int
    peers: dict[int, bool]

@disjoint_base
class Handle:
    """Times in ns of the node's own clock, sizes in bytes."""

    def submit(self, machine: int, values: Sequence[bytes | bytearray | memoryview], deadline_ns: int) -> int:
        """Hands values to state machine ``machine`` in as one chunk, which is chosen as a whole, and returns its number.

        Its fate comes out of drain(), once: in ``settled`` of a Chosen event, or as a Settled event after ``deadline_ns``
        (CLOCK_BOOTTIME). Raises Overloaded, ValueTooLarge, DiskFull, NodeClosed: then it is certainly not executed.
        """
    def now(self) -> int:
        """CLOCK_BOOTTIME in ns: what deadlines are counted in."""
    def admit(self) -> None:
        """Raises Overloaded where a proposal would be refused now, whatever is in it. On any thread."""
    def drain(self, max_values: int) -> list[_Event]:
        """What happened, in order: events until ``max_values`` values are reached. Never blocks. Where more is left, fileno()
        stays readable. Every call is a sign of life: without one for ``stuck_limit_ns`` the node leaves the mastership."""
    def found(self) -> tuple[bool, str, int, int]:
        """Before start(): what the log holds, as (formed, signature, first instance kept, instances known chosen)."""
    @property
    def alone(self) -> bool:
        """Whether the cluster has no other node."""
    def log_used(self) -> int:
        """Bytes of the segments in use, as of the last round."""
    def files(self) -> Files:
        """The files of the checkpoints beside this node's log."""
    def base(self, instance: int) -> None:
        """A checkpoint of everything below ``instance`` is durable here: the log below it may go."""
    def log_span(self) -> tuple[int, int, int]:
        """(oldest segment, the one being written, up to which offset that is durable). Segments older than the first may be gone;
        no other is. (0 for the second before the first round.)"""
    def scrub(self, segment: int) -> SegmentScrub:
        """Reads a segment of the log again, piece by piece."""
    def drop(self, segment: int) -> None:
        """This segment is damaged on the disk: it, and those before it, go as soon as a checkpoint holds what is in them."""
    def ask_chain(self, instance: int) -> None:
        """The chain checksum behind an instance is wanted: it comes as an event, 0 where it is not known here."""
    def ask_read(self, token: int) -> None:
        """A read waits, under ``token`` (not 0), which takes the place of an older one: from which instance on it may be answered
        comes as an event, or never."""
    def lease(self) -> int:
        """The chosen watermark, if this node holds the lease at this moment; else -1. On any thread."""
    def transfer(self, node: int) -> None:
        """The mastership is to go to a node; 0: to whom it suits best. What comes of it shows as events."""
    def set_lease(self, lease_ns: int) -> None:
        """Leases are to last so long; 0: there are to be none. What comes of it shows as an event."""
    def part(self) -> None:
        """This node has no part any more in what the others decide: it gives the mastership up, and neither votes nor answers."""
    def salvage_after(self, instance: int) -> None:
        """Before start(): a checkpoint of everything below ``instance`` is going to be installed. What the log that was set aside
        has is wanted from there on."""
    def distrust(self, first: int, why: str) -> None:
        """Durably: the next start sets the log aside, and every checkpoint that holds instance ``first``. On any thread."""
    def making(self, on: bool) -> None:
        """A checkpoint is being made, or is not any more. While one is, a master does not let the log outgrow its budget."""
    def install(self, instance: int, chain: int, membership: bytes) -> None:
        """A checkpoint that came from elsewhere is durable here, and the state machines have it. StorageError where the
        membership is not one of this cluster's nodes."""
    def membership(self) -> bytes:
        """The present membership, for the manifest of a checkpoint."""
    def change(self, table: bytes) -> None:
        """A table of members, as it stands in a value that changes them, is to be chosen in place of the version that it names.
        Nothing comes of it where that is not the present one, or this node is not the master; else the members change."""
    def send(self, node: int, data: bytes) -> bool:
        """Hands bytes to the Python side of another node, unless they are lost on the way. False: too much waits already."""
    def poke(self) -> None:
        """Has drain() called soon. On any thread."""
    def resign(self, may_lead: bool) -> None:
        """False: gives the mastership up, and stands for no election until True is said."""
    def status(self) -> _Status:
        """As of the end of the engine's last round; pending_* as of now."""
    def __reduce__(self) -> NoReturn:
        """TypeError: an engine is threads and sockets, not data."""
