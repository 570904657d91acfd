"""The native host of one node. Times are CLOCK_BOOTTIME in ns, sizes bytes."""

from collections.abc import Mapping
from typing import Final, final

from paxos._handle import Handle, _Event, _Status

__test__: dict[str, str]

EVENT_CHOSEN: Final = 0
EVENT_SETTLED: Final = 1
EVENT_MASTER: Final = 2
EVENT_LOG: Final = 3
EVENT_FORMED: Final = 4
EVENT_DIVERGED: Final = 5
EVENT_AHEAD: Final = 6
EVENT_BEHIND: Final = 7
EVENT_CARRY: Final = 8
EVENT_MEMBERSHIP: Final = 9
EVENT_CHAIN: Final = 10
EVENT_READABLE: Final = 11
EVENT_MASTERSHIP: Final = 12

@final
class Engine(Handle):
    """Opens and recovers the log in ``directory`` and listens on ``bind``, or the node's own address in ``addresses``.

    Hosts may be names: those of peers are resolved at each attempt to connect, the one to listen on once, here. Where the
    membership has an address for a node, that one counts.

    Raises ConfigError (an option, an address, a port in use), DirectoryInUse, WrongDirectory, DamagedLog, StorageError.
    A log write that fails later ends the process with status 74 and a message on stderr. All methods may be called from
    any thread; drain() from one at a time.
    """

    def __init__(
        self,
        directory: str,
        node_id: int,
        addresses: Mapping[int, tuple[str, int]],
        *,
        bind: tuple[str, int] | None = None,
        window: int = 8,
        batch_bytes: int = ...,
        batch_values: int = 4096,
        heartbeat_ns: int = 50_000_000,
        election_min_ns: int = 300_000_000,
        election_max_ns: int = 600_000_000,
        stuck_limit_ns: int = 10_000_000_000,
        max_value: int = ...,
        segment_size: int = ...,
        direct: bool = True,
        max_pending: int = 16384,
        max_pending_bytes: int = ...,
        log_budget: int = ...,
        log_hold: int = 0,
        quarantine: bool = True,
        priority: int = 1,
        follow: tuple[int, ...] = (),
        max_wait_ns: int = 0,
    ) -> None: ...
    def start(self, applied: int) -> int:
        """Starts the thread. ``applied``: the last instance that the state machine has, -1 for none; what follows it is
        delivered. Returns the chain checksum behind it (0: not known here). Once; NodeClosed after stop()."""
    def stop(self) -> None:
        """Ends the thread and closes connections and log. What is queued may still be drained. Again: nothing."""
    def fileno(self) -> int:
        """A descriptor that is readable when drain() is wanted: something is there, or a sign of life is asked for (at
        least once a second). Valid as long as the object is."""
    def drain(self, max_values: int) -> list[_Event]:
        """What happened, in order: events until ``max_values`` values are reached. Never blocks. Where more is left, fileno()
        stays readable. Every call is a sign of life: without one for ``stuck_limit_ns`` the node leaves the mastership."""
    def status(self) -> _Status:
        """As of the end of the engine's last round; pending_* as of now."""
