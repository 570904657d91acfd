"""Options of a node: what may be set, its default, unit and bounds; and the address book of a cluster."""

from __future__ import annotations

import inspect
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypedDict, Unpack

from paxos.alarm import Alarm
from paxos.errors import ConfigError
from paxos.hosts import host_text

__all__ = ["NodeOptions", "Options", "parse_address", "parse_cluster"]

MAX_MEMBERS = 31
MAX_ID = (1 << 32) - 2  # of a node


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a node, checked. Times in seconds, sizes in bytes."""

    window: int = 8
    """Instances in flight (1 to 64). 1 gives one instance after the other."""
    batch_bytes: int = 1 << 20
    """Values that wait are packed into one instance up to this size."""
    batch_values: int = 4096
    """... and up to this number."""
    heartbeat: float = 0.05
    """Time between two heartbeats of the master."""
    election_timeout: float = 0.3
    """A node that has not heard of a master for this long, and up to twice as long at random, asks for an election."""
    priority: int = 1
    """A master hands over to a node with a higher priority that has been level with it for a while. 0: this node never leads."""
    stuck_limit: float = 10.0
    """A master whose Python side has not taken what was chosen for this long gives the mastership up."""
    max_value: int = 10 << 20
    """Largest value, up to 64 MiB; above it a proposal is refused with ``ValueTooLarge``."""
    segment_bytes: int = 64 << 20
    """Size of a log segment, a multiple of 4096; fixed when the data directory is made."""
    direct_io: bool = True
    """Write the log with O_DIRECT|O_DSYNC where the file system can; else with fdatasync."""
    max_wait: float = 1.0
    """A proposal that would wait longer than this, in seconds, is refused at once with ``Overloaded``, which says how long. What
    is under way here and how fast it is done decide that. (0: none is refused for that reason.)"""
    max_pending: int = 16384
    """Proposals of this node that may be under way; more are refused with ``Overloaded``."""
    max_pending_bytes: int = 128 << 20
    """... and their size."""
    log_budget: int = 1 << 30
    """Bytes that the log may take. At half of it, or a little more, a checkpoint is made by itself, and log below it deleted."""
    log_hold: int = 10_000
    """Instances below a checkpoint that stay in the log, within a quarter of the budget, for nodes that come back from a short
    absence."""
    quarantine: bool = True
    """Set a log that is found damaged at the start aside, and get well from the other nodes as a new incarnation. Otherwise the
    node refuses to start (as it does where it is alone)."""
    checkpoint_instances: int = 0
    """A checkpoint is also made after so many instances (0: not for that reason)."""
    checkpoint_seconds: float = 0.0
    """... and after so much time, if anything was applied (0: not for that reason)."""
    checkpoints_kept: int = 2
    """Checkpoints kept on disk, the newest included; the older ones are the reserve should it not verify."""
    checkpoint_rate: int = 0
    """Bytes a second at which a checkpoint is written, to leave the disk to the log (0: as fast as it goes)."""
    fetch_rate: int = 0
    """Bytes a second at which a checkpoint is fetched from another node (0: as fast as it goes)."""
    scrub_rate: int = 4 << 20
    """Bytes a second at which log and checkpoints are read again from the disk, to find rot in time (0: not at all)."""
    heal_divergence: bool = True
    """A node that finds that its values are not those of the majority stops taking part; with this, its next start sets its log
    aside, and it gets well from the others. Otherwise it starts again with the log that it has."""
    check_results: bool = False
    """Compare the results of ``apply`` (and what ``digest()`` of a state machine says) between nodes, to find state machines that
    are not deterministic. Costs a checksum over each result."""
    mirror: bool = True
    """Make checkpoints in a child process, from a second copy of the state machine, so that applying never waits. Otherwise, and
    where the state machine cannot be made in another process, its ``snapshot()`` is called between two instances."""
    sessions: bool = True
    """Proposals may carry tokens; the same on all nodes. The table of sessions is replayed from the newest checkpoint, or the
    beginning of the log, at each start; without it a state machine that keeps its state itself is fed only what it lacks."""
    when_removed: Literal["idle", "close"] = "idle"
    """What a node does when it finds that it was removed from the cluster: ``"idle"`` goes on without a part in anything;
    ``"close"`` closes itself."""
    follow: Sequence[int] = ()
    """Up to 8 node ids. While this node has no vote (a follower), it learns from the first of them that answers, and from whoever
    is best only when none does. (): from whoever is best."""
    on_alarm: Callable[[Alarm], object] | None = None
    """Is called with each alarm of the node, and must not block. ``Node`` calls it on the thread of its event loop, those of the
    opening before ``open`` returns or raises; ``SyncNode`` on the thread that opens the node, later on the one that applies. What
    it raises is logged, and has no other effect."""

    def __post_init__(self) -> None:
        def check(name: str, low: float, high: float) -> None:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ConfigError(f"option {name}={value!r} is out of range: give a number from {low} to {high}")

        check("window", 1, 64)
        check("batch_bytes", 1, 16 << 20)
        check("batch_values", 1, 1 << 20)
        check("heartbeat", 0.001, 60)
        check("election_timeout", 0.01, 600)
        check("priority", 0, 1000)
        check("stuck_limit", 0.1, 86400)
        check("max_value", 1, 64 << 20)
        check("segment_bytes", 64 << 10, 1 << 30)
        check("max_wait", 0, 3600)
        check("max_pending", 1, 65534)
        check("max_pending_bytes", 1, 1 << 40)
        check("log_budget", 4 * self.segment_bytes, 1 << 50)
        check("log_hold", 0, 1 << 50)
        check("checkpoint_instances", 0, 1 << 50)
        check("checkpoint_seconds", 0, 10**9)
        check("checkpoints_kept", 1, 1000)
        check("checkpoint_rate", 0, 1 << 50)
        check("fetch_rate", 0, 1 << 50)
        check("scrub_rate", 0, 1 << 50)
        if (
            isinstance(self.follow, str | bytes)
            or len(self.follow) > 8
            or not all(
                isinstance(node, int) and not isinstance(node, bool) and 0 < node <= MAX_ID for node in self.follow
            )
        ):
            raise ConfigError(f"option follow={self.follow!r}: give up to 8 node ids, as in (2, 3)")
        if self.when_removed not in ("idle", "close"):
            raise ConfigError(f"option when_removed={self.when_removed!r}: there are 'idle' and 'close'")
        if self.on_alarm is not None and (not callable(self.on_alarm) or inspect.iscoroutinefunction(self.on_alarm)):
            raise ConfigError(
                f"option on_alarm={self.on_alarm!r} must be a plain function: nobody would await a coroutine of it"
            )
        if self.segment_bytes % 4096:
            raise ConfigError(f"option segment_bytes={self.segment_bytes} must be a multiple of 4096")
        if self.election_timeout < 3 * self.heartbeat:
            raise ConfigError(
                f"option election_timeout={self.election_timeout} s must be at least three times heartbeat={self.heartbeat} s, "
                "or nodes stand for election while the master is well"
            )
        least = max(self.batch_bytes, self.max_value) + (68 << 10)  # beside the value: the segment's header, records
        least = (least + 4095) // 4096 * 4096
        if self.segment_bytes < least:
            raise ConfigError(
                f"option segment_bytes={self.segment_bytes} must hold the largest value: make it at least {least}, "
                f"or lower max_value={self.max_value} and batch_bytes={self.batch_bytes}"
            )

    @classmethod
    def make(cls, **options: Unpack[NodeOptions]) -> Options:
        """Options from keyword arguments; an unknown name is a ConfigError that lists the known ones."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ConfigError(f"unknown option {unknown[0]!r}; there are: {', '.join(sorted(known))}")
        return cls(**options)


class NodeOptions(TypedDict, total=False):
    """Keyword arguments of ``Node.open`` and ``SyncNode.open``; meaning and defaults: :class:`Options`."""

    window: int
    batch_bytes: int
    batch_values: int
    heartbeat: float
    election_timeout: float
    priority: int
    stuck_limit: float
    max_value: int
    segment_bytes: int
    direct_io: bool
    max_wait: float
    max_pending: int
    max_pending_bytes: int
    log_budget: int
    log_hold: int
    quarantine: bool
    checkpoint_instances: int
    checkpoint_seconds: float
    checkpoints_kept: int
    checkpoint_rate: int
    fetch_rate: int
    scrub_rate: int
    heal_divergence: bool
    check_results: bool
    mirror: bool
    sessions: bool
    when_removed: Literal["idle", "close"]
    follow: Sequence[int]
    on_alarm: Callable[[Alarm], object] | None


def parse_address(text: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``[IPV6]:PORT`` as (host, port). Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError as error:
            raise ConfigError(f"address {text!r}: {host!r} in brackets is no IPv6 address") from error
    elif ":" in host:
        raise ConfigError(f"address {text!r}: write an IPv6 address in brackets, as in [::1]:7101")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"address {text!r} is not HOST:PORT, as in 127.0.0.1:7101")
    return host, int(port)


def parse_cluster(node_id: int, cluster: Mapping[int, str]) -> dict[int, tuple[str, int]]:
    """The address book of a cluster, checked. Raises ConfigError."""
    if not cluster or len(cluster) > MAX_MEMBERS:
        raise ConfigError(f"cluster= must name 1 to {MAX_MEMBERS} nodes, not {len(cluster)}")
    book = {}
    for node, address in cluster.items():
        if isinstance(node, bool) or not isinstance(node, int) or not 0 < node <= MAX_ID:
            raise ConfigError(f"cluster= has the node id {node!r}; an id is an integer from 1 to {MAX_ID}")
        host, port = parse_address(address)
        try:
            book[node] = host_text(host), port
        except UnicodeError as error:
            raise ConfigError(f"cluster= has {host!r} for node {node}, which is no name: {error}") from error
    if len(set(book.values())) != len(book):
        raise ConfigError(f"cluster= gives two nodes the same address: {dict(cluster)!r}")
    if node_id not in book:
        raise ConfigError(
            f"node_id={node_id} is not in cluster= (which names {sorted(book)}); add it with its own address"
        )
    return book
