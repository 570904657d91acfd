"""The simulated world and the nodes in it. Times are ns; ``index`` counts nodes from 0. One thread; closed with ``close()``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from paxos._handle import Handle
from paxos.testing._simdisk import SimFolder

__test__: dict[str, str]
FRAME_NAMES: dict[int, str]

class Violation(AssertionError):
    """Something that must always hold did not."""

@final
class World:
    """Virtual time, network, disks. Everything that happens follows from ``seed`` and what is called here."""

    on_python: Callable[[int], None] | None
    on_ended: Callable[[int, bool], None] | None
    configured: list[int]
    """The nodes that one which starts is told of, besides itself."""
    def __new__(cls, nodes: int, seed: int, first: int | None = None) -> World:
        """``first``: how many of the nodes, those with the lowest ids, form the cluster."""
    def close(self) -> None:
        """Ends all processes and lets go of everything."""
    @property
    def now(self) -> int:
        """Simulated time. It begins at 1,000 s."""
    def local(self, index: int) -> int:
        """What the clock of a node says."""
    def call_at(self, at: int, call: Callable[[], None]) -> None:
        """Calls back at a time."""
    def run(self, until: int, stop: Callable[[], bool] | None = None) -> bool:
        """Goes on to a time, or until ``stop`` is true (asked after each step that reaches Python; that is the answer).
        Raises :class:`Violation` as soon as a judge finds something."""
    def crash(self, index: int, *, power: bool = False, within: int = -1) -> None:
        """Ends the process of a node: at once, or in the call to its disk that comes after ``within`` others. With
        ``power`` all that was not synced may go, in whole or in part; without, the page cache stays."""
    def votes(self, index: int) -> bool:
        """Whether a node runs, is a member, and knows enough to vote."""
    def incarnation(self, index: int) -> tuple[int, int]:
        """Of the last start."""
    def up(self, index: int) -> bool: ...
    def life(self, index: int) -> int: ...
    def pause(self, index: int, duration: int) -> None:
        """The whole process stands still (SIGSTOP)."""
    def pause_python(self, index: int, paused: bool) -> None:
        """Only its Python side does (a hogged GIL)."""
    def stand(self, index: int) -> None:
        """The node stands for election now, and is told that all the others agree (safety must not depend on whether they do)."""
    def clock(self, index: int, *, ppm: int | None = None, jump: int = 0) -> None:
        """Sets the drift of a node's clock in millionths, and lets it jump ahead (a suspend)."""
    def disk(
        self,
        index: int,
        *,
        low: int | None = None,
        high: int | None = None,
        hang: int | None = None,
        fails: bool | None = None,
        full: bool | None = None,
        room: int = 0,
        direct: bool | None = None,
        read_fails: bool | None = None,
        directory_fails: bool | None = None,
    ) -> None:
        """Time of a log write, from ``low`` to ``high``; ``hang``: no write ends for so long; ``fails``: the next sync does;
        ``read_fails``, ``directory_fails``: the next read, or sync of the directory, does;
        ``full``: files may grow by ``room`` bytes together and no more; ``direct``: whether O_DIRECT is to be had (looked at
        when the log is opened)."""  # fmt: skip
    def python(self, index: int, *, low: int, high: int) -> None:
        """How long it takes until a node's Python side gets its turn."""
    def flip(self, index: int, within: int = 0) -> tuple[int, int] | None:
        """Flips a bit of what a running node had made durable before its newest write (what may be lost without a
        trace is that last one alone), of segment ``within`` if given. (segment, offset), or None where there is nothing yet."""
    def spare(self, index: int) -> None:
        """The node's preparer makes a spare segment, if one is wanted."""
    def network(
        self,
        *,
        delay: tuple[int, int] | None = None,
        loss: float | None = None,
        duplicate: float | None = None,
        corrupt: float | None = None,
        late: tuple[float, int] | None = None,
    ) -> None:
        """Delay of a frame, shares of frames that are lost, doubled, and damaged; ``late``: the share that takes up to so
        much longer, and so is overtaken."""  # fmt: skip
    def picky(self, shares: Mapping[int, float]) -> None:
        """By type of frame (see FRAME_NAMES), the share that is lost; all other types are not."""
    def sleepy(self, share: float, longest: int) -> None:
        """The share of rounds that begin up to so much later than they could, with frames arriving meanwhile."""
    def reset(self, source: int, target: int) -> None:
        """The connection from ``source`` to ``target`` breaks, and is made anew."""
    def unjudged(self) -> None:
        """No judge of the world says anything from now on: for scenarios of what must never be."""
    def log_bytes(self, index: int) -> list[tuple[int, bytes]]:
        """The segments of a node's log as they lie on its disk now: (number, bytes)."""
    def sealed(self, index: int) -> bool:
        """Whether the newest durable write of a node is one that seals what is before it."""
    def wipe(self, index: int) -> None:
        """A node that does not run gets an empty disk."""
    def forge(self, index: int, source: int, type: int, body: bytes, own: bool, header: Mapping[str, int]) -> bool:
        """A frame arrives at a node as if from ``source``, with a right checksum; see ``paxos.testing.forged``. False: it
        cannot now."""
    def folder(self, index: int) -> SimFolder:
        """The disk of a node that does not run."""
    def cut(self, source: int, target: int) -> None:
        """Frames from ``source`` to ``target`` are dropped from now on."""
    def heal(self) -> None: ...
    def cuts(self) -> int: ...
    def acknowledged(self, instance: int) -> None:
        """Says that somebody was told of a value in this instance: it must be durable on a majority."""
    @property
    def chosen(self) -> int:
        """Instances that some node has known chosen."""
    @property
    def ballots(self) -> int:
        """Ballots that nodes have stood for."""
    @property
    def hash(self) -> int:
        """Of everything that happened, in order: equal for equal runs."""
    def counts(self) -> dict[str, Any]: ...
    def record(self, on: bool = True) -> None:
        """Keeps the timeline from now on."""
    def timeline(self) -> Sequence[tuple[int, int, int, int, int, int, int]]:
        """(begin, end, kind, node, other node, a, b); see MARK_ and EVENT_ in _world.pxd."""

@final
class SimHandle(Handle):
    """A process of a simulated node: the same object to Python as the engine. Recovers the log at once; raises as the engine
    does, and OSError or StorageError where the process ends in it."""

    def __init__(
        self,
        world: World,
        index: int,
        *,
        window: int = 8,
        batch_bytes: int = ...,
        batch_values: int = 4096,
        heartbeat_ns: int = 50_000_000,
        election_min_ns: int = 300_000_000,
        election_max_ns: int = 600_000_000,
        stuck_limit_ns: int = 10_000_000_000,
        max_value: int = ...,
        segment_size: int = ...,
        max_pending: int = 16384,
        max_pending_bytes: int = ...,
        log_budget: int = ...,
        log_hold: int = 0,
        quarantine: bool = True,
        max_wait_ns: int = 0,
    ) -> None: ...
    def start(self, applied: int) -> int: ...
    def stop(self) -> None:
        """Asks the node to stop in good order; it does so at its next round."""
    def leave(self) -> None: ...
