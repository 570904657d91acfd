"""The replica of one group, stepped by hand: for tests, the simulator and the explorer."""

from collections.abc import Iterable, Sequence
from typing import Any, Self, TypeAlias, final

_Effect: TypeAlias = tuple[Any, ...]

def encode_chunk(origin: int, boot: int, seq: int, values: Sequence[bytes], machine: int = 0, life: int = 0) -> bytes:
    """The bytes of a chunk: a header and each value behind its length."""

def encode_learned(core: Core, first: int, values: list[tuple[int, int, bytes]]) -> bytes:
    """A LEARNED frame with chosen values [(kind, count, bytes), ...] from instance ``first`` on."""

@final
class Core:
    """One group's replica; ``members``: rows (node, incarnation high, low[, role]), or a membership as bytes. Every step returns
    its effects, in order, as tuples. Times in ns. Not thread-safe."""

    def __new__(
        cls,
        node: int,
        members: Iterable[tuple[int, int, int]] | Iterable[tuple[int, int, int, int]] | bytes,
        *,
        group: int = 0,
        signature: int = 1,
        boot: int = 1,
        seed: int = 1,
        window: int = 8,
        batch_bytes: int = ...,
        batch_values: int = 4096,
        heartbeat: int = 50_000_000,
        election_min: int = 300_000_000,
        election_max: int = 600_000_000,
        resend: int = 100_000_000,
        queue_bytes: int = ...,
        priority: int = 1,
        incarnation: tuple[int, int] | None = None,
    ) -> Self: ...
    def restore(self, type: int, instance: int, body: bytes) -> bool: ...
    def restore_base(self, first: int, body: bytes) -> bool: ...
    def start(self, now: int) -> list[_Effect]: ...
    def receive(self, now: int, frame: bytes) -> list[_Effect]: ...
    def arriving(self, now: int, frame: bytes) -> None: ...
    def submit(self, now: int, seq: int, values: Sequence[bytes], deadline: int, machine: int = 0) -> list[_Effect]: ...
    def pump(self, now: int) -> list[_Effect]: ...
    def read(self, now: int, token: int) -> list[_Effect]:
        """A read of this node waits, under a number of its own, not 0; the next pump sends for it."""
    def durable(self, now: int, logged: int) -> list[_Effect]: ...
    def tick(self, now: int) -> list[_Effect]: ...
    def deadline(self) -> int: ...
    def peer(self, now: int, index: int, up: bool) -> list[_Effect]: ...
    def transfer(self, now: int, node: int = 0) -> tuple[bool, list[_Effect]]:
        """Hands the mastership over; (whether it begins to, effects)."""
    def lease(self, now: int, lease: int) -> tuple[bool, list[_Effect]]:
        """Has the length of leases chosen, in ns; (whether this node is the master, effects)."""
    def resign(self, now: int, may_lead: bool) -> list[_Effect]: ...
    def change(
        self, now: int, table: Sequence[tuple[Any, ...]], version: int | None = None
    ) -> tuple[bool, list[_Effect]]:
        """Has a table of members chosen: rows (node, incarnation high, low, role[, instead[, address]]) by place."""
    def replace(self, now: int, node: int, incarnation: tuple[int, int]) -> list[_Effect]: ...
    def told(self, now: int, membership: bytes) -> list[tuple[object, ...]]:
        """Somebody who knows more says who the members are."""
    def base(self, now: int, first: int, chain: int) -> list[_Effect]: ...
    def install(
        self,
        now: int,
        instance: int,
        chain: int,
        members: Iterable[tuple[int, int, int, int]] | None = None,
        version: int = 0,
        mastership: tuple[int, int, int, int] | None = None,
        as_of: int = 0,
    ) -> list[_Effect]: ...
    def seal(self) -> list[_Effect]: ...
    def state(self) -> dict[str, Any]: ...
    def membership(self) -> bytes: ...
