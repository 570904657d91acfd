"""A node that is none: it applies at once in this process, or fails as it is told. For the tests of the service."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import paxos
from paxos.kv import KvStateMachine


@dataclass
class FakeStatus:
    node_id: int = 1
    role: str = "master"
    master_id: int = 1
    members_version: int = 0
    member_role: str = "voter"
    formed: bool = True
    chosen: int = 0
    applied: int = 0
    commits: int = 0
    checksum: int = 12345
    fsyncs: int = 7
    log_writes: int = 8
    log_bytes: int = 9
    log_records: int = 10
    log_mode: str = "direct"
    log_segments: int = 3
    first_kept: int = 40
    checkpoint: int = 50
    votes: bool = True
    disk_full: bool = False
    elections: int = 1
    reads: int = 60
    read_rounds: int = 6
    pending: int = 0
    peers: Mapping[int, bool] = field(default_factory=lambda: {2: True, 3: False})
    state_machine_error: str | None = None
    alarms: Mapping[str, int] = field(default_factory=lambda: {"log-damaged": 1, "disk-full": 2})


class FakeNode:
    """One instance a call. ``error`` is raised instead of applying; ``hold`` keeps outcomes back until released."""

    def __init__(self) -> None:
        self.machine = KvStateMachine()
        self.error: Exception | None = None
        self.calls: list[list[bytes]] = []
        self.reads: list[tuple[str, list[bytes]]] = []
        self.held: list[asyncio.Future[None]] = []
        self.hold = False
        self.changes: list[tuple[object, ...]] = []
        self.table = paxos.Members(
            3,
            (
                paxos.Member(1, "voter", "10.0.0.1:7101", "ab" * 16, None),
                paxos.Member(4, "learner", "10.0.0.4:7101", "", 1),
            ),
            True,
        )

    async def checkpoint(self) -> int:
        if self.hold:
            gate = asyncio.get_running_loop().create_future()
            self.held.append(gate)
            await gate
        if self.error is not None:
            raise self.error
        return len(self.calls)

    def members(self) -> paxos.Members:
        return self.table

    async def _changed(self, *call: object) -> paxos.Members:
        self.changes.append(call)
        if self.error is not None:
            raise self.error
        return self.table

    async def add(self, node_id: int, address: str, *, follower: bool = False, timeout: float = 10.0) -> paxos.Members:
        return await self._changed("add", node_id, address, follower, timeout)

    async def remove(self, node_id: int, *, force: bool = False, timeout: float = 10.0) -> paxos.Members:
        return await self._changed("remove", node_id, force, timeout)

    async def replace(self, old: int, new: int, address: str, *, timeout: float = 10.0) -> paxos.Members:
        return await self._changed("replace", old, new, address, timeout)

    async def promote(self, node_id: int, *, timeout: float = 10.0) -> paxos.Members:
        return await self._changed("promote", node_id, timeout)

    async def move(self, node_id: int, address: str, *, timeout: float = 10.0) -> paxos.Members:
        return await self._changed("move", node_id, address, timeout)

    def status(self) -> FakeStatus:
        return FakeStatus(chosen=len(self.calls), applied=len(self.calls), commits=sum(map(len, self.calls)))

    async def propose_many(self, values: Sequence[bytes], *, timeout: float = 5.0) -> Sequence[object]:
        self.calls.append(list(values))
        instance = len(self.calls) - 1
        if self.hold:
            gate = asyncio.get_running_loop().create_future()
            self.held.append(gate)
            await gate
        if self.error is not None:
            raise self.error
        return self.machine.apply_batch(instance, values)

    async def read_many(
        self, queries: Sequence[bytes], *, consistency: str = "linearizable", timeout: float = 5.0
    ) -> Sequence[object]:
        self.reads.append((consistency, list(queries)))
        if self.hold:
            gate = asyncio.get_running_loop().create_future()
            self.held.append(gate)
            await gate
        if self.error is not None:
            raise self.error
        return self.machine.read_batch(queries)

    def release(self) -> None:
        """Let everything that is held go on, and hold no more."""
        self.hold = False
        held, self.held = self.held, []
        for gate in held:
            if not gate.done():
                gate.set_result(None)
