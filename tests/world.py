"""A small world for cores: a network that loses, delays, duplicates and reorders, disks that keep only what was synced.

Time is virtual and every choice comes from one seeded generator, so a seed replays exactly. After every step the world checks
what must always hold: one value per instance over all nodes and all time, equal chain checksums, and that nothing left a node
before the record it stands on was durable.
"""

from __future__ import annotations

import heapq
import random
from typing import Any

from paxos._core import Core, encode_learned

MS = 1_000_000
ACCEPT, ACCEPTED, PROMISE, PREPARE = 22, 23, 20, 18


class Host:
    """One node: a core, a disk, and what the user has seen applied."""

    def __init__(self, world: World, node: int) -> None:
        self.world = world
        self.node = node
        self.boot = 0
        self.disk: list[tuple[int, int, bytes]] = []  # what a restart finds
        self.up = False
        self.boot_up()

    def boot_up(self) -> None:
        self.boot += 1
        self.up = True
        self.core = Core(
            self.node,
            self.world.members,
            boot=self.boot,
            seed=self.world.random.getrandbits(63) | 1,
            window=self.world.window,
        )
        for kind, instance, body in self.disk:
            assert self.core.restore(kind, instance, body), "a log written by the core itself must be restored"
        self.written: list[tuple[int, int, int, bytes]] = []  # (number, ...) handed to the disk, not durable
        self.held: list[tuple[int, int, bytes]] = []
        self.durable = 0
        self.seq = 0
        self.known: list[tuple[int, int, bytes]] = list(self.world.chosen[: self.core.state()["chosen"]])
        self.outcomes: dict[int, object] = {}
        self.writing = False
        self.take(self.core.start(self.world.now))

    def crash(self) -> None:
        """Loses what was not durable, except that any prefix of the write under way may have reached the disk."""
        keep = self.world.random.randint(0, len(self.written))
        self.disk += [record[1:] for record in self.written[:keep]]
        self.up = False

    def take(self, effects: list[tuple[Any, ...]]) -> None:
        world = self.world
        for effect in effects:
            kind = effect[0]
            if kind == "send":
                _, peers, after, frame = effect
                if after <= self.durable:
                    world.send(self, peers, frame)
                else:
                    self.held.append((after, peers, frame))
            elif kind == "log":
                self.written.append(effect[1:])
                if not self.writing:
                    self.writing = True
                    world.at(world.random.randint(*world.disk) * MS // 10, self.synced, self.boot)
            elif kind == "chosen":
                _, instance, vkind, count, value = effect
                assert instance == len(self.known), "values are delivered in order, without a gap"
                self.known.append((vkind, count, value))
                world.on_chosen(self, instance, (vkind, count, value))
            elif kind == "read":
                _, peers, first, end, limit = effect
                values: list[tuple[int, int, bytes]] = []
                size = 0
                for value in self.known[first:end]:
                    size += len(value[2])
                    if values and size > limit:
                        break
                    values.append(value)
                world.send(self, peers, encode_learned(self.core, first, values))
            elif kind == "settled":
                self.outcomes[effect[1]] = effect[2]
                world.on_settled(self, effect[1], effect[2])
            elif kind == "diverged":
                raise AssertionError(f"node {self.node}: chain checksum at {effect[1]} differs from node {effect[2]}")

    def synced(self, boot: int) -> None:
        if boot != self.boot or not self.up:
            return
        # One write in flight: all that was ready becomes durable together.
        done, self.written = self.written, []
        self.writing = False
        self.disk += [record[1:] for record in done]
        self.durable = done[-1][0]
        ready = [h for h in self.held if h[0] <= self.durable]
        self.held = [h for h in self.held if h[0] > self.durable]
        for _, peers, frame in ready:
            self.world.send(self, peers, frame)
        self.step(self.core.durable(self.world.now, self.durable))

    def step(self, effects: list[tuple[Any, ...]]) -> None:
        self.take(effects)
        self.take(self.core.pump(self.world.now))

    def propose(self, value: bytes, timeout: int = 2000 * MS) -> int:
        self.seq += 1
        self.world.on_proposed(self, self.seq, value)
        self.step(self.core.submit(self.world.now, self.seq, [value], self.world.now + timeout))
        return self.seq


class World:
    def __init__(
        self,
        seed: int,
        nodes: int = 3,
        *,
        window: int = 8,
        loss: float = 0.0,
        duplicate: float = 0.0,
        delay: tuple[int, int] = (1, 3),
        disk: tuple[int, int] = (1, 3),
    ) -> None:
        """``delay`` of a message in half milliseconds, ``disk``: of a write in tenths of a millisecond."""
        self.random = random.Random(seed)
        self.now = 1000 * MS
        self.window = window
        self.disk = disk
        self.loss, self.duplicate, self.delay = loss, duplicate, delay
        self.members = [(i, i * 7, i * 11) for i in range(1, nodes + 1)]
        self.events: list[tuple[int, int, Any, tuple[Any, ...]]] = []
        self.count = 0
        self.chosen: list[tuple[int, int, bytes]] = []
        self.cut: set[tuple[int, int]] = set()
        self.proposed: dict[tuple[int, int, int], bytes] = {}
        self.settled: dict[tuple[int, int, int], int] = {}
        self.sent: dict[int, int] = {}
        self.hosts = {i: Host(self, i) for i in range(1, nodes + 1)}
        for host in self.hosts.values():
            self.at(MS, self.tick, host)

    # -- scheduling

    def at(self, delay: int, call: Any, *args: Any) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now + delay, self.count, call, args))

    def tick(self, host: Host) -> None:
        self.at(2 * MS, self.tick, host)
        if host.up and host.core.deadline() <= self.now:
            host.step(host.core.tick(self.now))

    def run(self, ms: int) -> None:
        end = self.now + ms * MS
        while self.events and self.events[0][0] <= end:
            self.now, _, call, args = heapq.heappop(self.events)
            call(*args)
        self.now = end

    def run_until(self, condition: Any, ms: int) -> bool:
        """Whether the condition came true within so many simulated milliseconds."""
        end = self.now + ms * MS
        while not condition():
            if self.now >= end:
                return False
            self.run(1)
        return True

    # -- network

    def send(self, host: Host, peers: int, frame: bytes) -> None:
        self.sent[frame[13]] = self.sent.get(frame[13], 0) + 1
        for index, (node, _, _) in enumerate(self.members):
            if not peers & (1 << index) or (host.node, node) in self.cut:
                continue
            copies = 2 if self.random.random() < self.duplicate else 1
            for _ in range(copies):
                if self.random.random() >= self.loss:
                    self.at(self.random.randint(*self.delay) * MS // 2, self.deliver, node, frame)

    def deliver(self, node: int, frame: bytes) -> None:
        host = self.hosts[node]
        if host.up:
            host.step(host.core.receive(self.now, frame))

    # -- judges

    def on_proposed(self, host: Host, seq: int, value: bytes) -> None:
        self.proposed[(host.node, host.boot, seq)] = value

    def on_settled(self, host: Host, seq: int, code: int) -> None:
        self.settled[(host.node, host.boot, seq)] = code

    def on_chosen(self, host: Host, instance: int, value: tuple[int, int, bytes]) -> None:
        if instance < len(self.chosen):
            assert self.chosen[instance] == value, f"instance {instance}: two values chosen"
            return
        assert instance == len(self.chosen)
        self.chosen.append(value)

    def chunks(self) -> list[tuple[int, int, int]]:
        """(origin, boot, seq) of every chunk chosen, in order."""
        found = []
        for kind, _, data in self.chosen:
            at = 0
            while kind == 1 and at < len(data):
                size = int.from_bytes(data[at : at + 4], "little")
                origin = int.from_bytes(data[at + 8 : at + 12], "little")
                boot = int.from_bytes(data[at + 12 : at + 16], "little")
                found.append((origin, boot, int.from_bytes(data[at + 16 : at + 24], "little")))
                at += 32 + size
        return found

    def master(self) -> Host | None:
        for host in self.hosts.values():
            if host.up and host.core.state()["role"] == "master" and host.core.state()["settled"]:
                return host
        return None

    def check(self) -> None:
        chunks = self.chunks()
        assert len(chunks) == len(set(chunks)), "a proposal was chosen twice"
        assert set(chunks) <= set(self.proposed), "a value was chosen that nobody proposed"
        refused = {key for key, code in self.settled.items() if code in (1, 2)}
        assert not refused & set(chunks), "a proposal that was refused for certain was chosen"
