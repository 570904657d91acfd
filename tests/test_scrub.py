"""Log and checkpoints are read again while a node runs; what has rotted is found, and heals."""

from __future__ import annotations

import asyncio
import functools
import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import paxos
from calls import Call, master_of
from nodes import DEADLINE, until
from paxos._recovery import recover
from paxos._scrub import SegmentScrub
from paxos._segments import LogStore
from paxos.alarm import Alarms
from paxos.errors import DamagedLog
from paxos.manifest import Manifest
from paxos.scrub import Scrub
from paxos.testing._simdisk import MemoryDisk, SimFolder
from paxos.testing.cluster import Cluster, Replica
from paxos.testing.workload import Registers, Workload
from test_getting_well import Cluster as RealCluster
from test_getting_well import flip, run

SIZE = 1 << 17
ACCEPT = 6


class Log:
    """A log of two segments on a disk in memory, closed."""

    def __init__(self, sizes: list[int]) -> None:
        self.disk = MemoryDisk(1)
        with LogStore(self.disk.folder(), 7, segment_size=SIZE) as log:
            self.incarnation = log.incarnation_hi, log.incarnation_lo
            for number, size in enumerate(sizes):
                log.append(ACCEPT, 0, number, bytes([number % 251]) * size)
                log.flush()
            self.segment, self.offset = log.position
        self.folder = self.disk.folder()
        self.folder.open()

    def scrub(self, number: int, folder: SimFolder | None = None) -> SegmentScrub:
        return SegmentScrub(folder or self.folder, number, SIZE, 7, self.incarnation)

    def bytes_of(self, number: int) -> bytes:
        return bytes(memoryview(self.folder.view(f"{number:016x}.seg")))

    def writes(self, number: int) -> list[tuple[int, int]]:
        """(offset, length) of every write in a segment."""
        data, found, at = self.bytes_of(number), [], 4096
        while at < SIZE and (length := struct.unpack_from("<I", data, at + 44)[0]):
            found.append((at, length))
            at += length
        return found


def read(scrub: SegmentScrub, end: int, size: int) -> int:
    total = 0
    while not scrub.ended and scrub.offset < end:
        total += scrub.step(end, size)
    return total


@pytest.mark.parametrize("size", [1, 4096, 10_000, 1 << 20])
def test_a_whole_segment_verifies_piece_by_piece(size: int) -> None:
    log = Log([5000, 100, 30_000, 20_000, 60_000, 200, 9])
    assert log.segment == 2
    first = log.scrub(1)
    read(first, SIZE, size)
    assert first.ended, "up to the write that ends the segment"
    assert first.offset == sum(log.writes(1)[-1])
    current = log.scrub(2)
    assert read(current, log.offset, size) >= log.offset
    assert not current.ended
    assert current.offset == log.offset


def test_any_bit_of_a_write_that_is_flipped_is_found_where_the_write_begins() -> None:
    log = Log([5000, 100, 30_000, 20_000, 60_000, 200, 9])
    tried = 0
    for number in (1, 2):
        for begin, length in log.writes(number):
            for at in (begin, begin + 4, begin + 44, begin + 60, begin + length // 2, begin + length - 1):
                assert log.disk.flip(number, at, 3)
                with pytest.raises(DamagedLog, match=f"{number:016x}.seg, offset {begin}:"):
                    read(log.scrub(number), SIZE if number == 1 else log.offset, 1 << 14)
                assert log.disk.flip(number, at, 3)
                tried += 1
        assert log.disk.flip(number, 40, 0)
        with pytest.raises(DamagedLog, match="offset 0: the segment's header"):
            log.scrub(number).step(SIZE, 1 << 14)
        assert log.disk.flip(number, 40, 0)
    assert tried > 40
    read(log.scrub(1), SIZE, 1 << 14)


def test_nothing_is_asked_of_what_is_not_durable_yet() -> None:
    log = Log([100, 100, 100])
    writes = log.writes(1)
    begin, _ = writes[-1]
    assert log.disk.flip(1, begin + 70, 1)
    scrub = log.scrub(1)
    read(scrub, begin, 1 << 14)
    assert scrub.offset == begin
    with pytest.raises(DamagedLog, match="no write verifies"):
        read(log.scrub(1), begin - 4096 + 1024, 1 << 14)


def test_a_segment_that_is_not_there_or_cannot_be_read_is_damage() -> None:
    log = Log([100])
    with pytest.raises(DamagedLog, match="the file is missing"):
        log.scrub(9).step(SIZE, 4096)
    log.disk.fail(read=True)
    with pytest.raises(DamagedLog, match="the disk cannot read it"):
        log.scrub(1).step(SIZE, 4096)
    with pytest.raises(ValueError, match="does not reach"):
        log.scrub(1).step(SIZE + 1, 4096)


class Recycled:
    """A segment that is taken from under its reader, and an engine that says so."""

    ended, offset = False, 4096

    def __init__(self, oldest: int) -> None:
        self.oldest, self.after = 1, oldest
        self.dropped: list[int] = []

    def status(self) -> dict[str, int]:
        return {"segment_bytes": SIZE}

    def log_span(self) -> tuple[int, int, int]:
        return self.oldest, 2, 8192

    def scrub(self, segment: int) -> Recycled:
        return self

    def step(self, end: int, size: int) -> int:
        self.oldest = self.after
        raise DamagedLog("something else stands there")

    def drop(self, segment: int) -> None:
        self.dropped.append(segment)

    # ... and a background in which work is done at once, and time stands still
    def later(self, seconds: float, call: Callable[[], object]) -> None:
        self.call = call

    def run(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]) -> None:
        try:
            result = work()
        except DamagedLog as error:
            done(None, error)
        else:
            done(result, None)

    # ... and a keeper whose state machine has failed
    def stopped(self) -> bool:
        return True


@pytest.mark.parametrize("oldest", [1, 2])
def test_what_does_not_verify_is_damage_only_while_it_is_part_of_the_log(oldest: int) -> None:
    stub: Any = Recycled(oldest)
    scrub = Scrub(stub, stub, stub, stub, 1000, Alarms(1))
    stub.call()
    assert scrub.damage == (oldest == 1)
    assert stub.dropped == [1] * (oldest == 1)


# ---- whole nodes, simulated ----


class Life:
    """Three nodes with a master, and values in their logs."""

    def __init__(self, seed: int = 1, budget: int = 1 << 24, rate: int = 1 << 22) -> None:
        import random

        self.cluster = Cluster(
            lambda node, before: Registers(), seed=seed, segment_size=1 << 17, max_value=1 << 12, batch_bytes=1 << 12,
            log_budget=budget, scrub_rate=rate,
        )  # fmt: skip
        self.workload = Workload(self.cluster, random.Random(seed), clients=2, keys=2, rate=100)
        assert self.cluster.run_until(lambda: self.cluster.master() is not None, 10)
        self.workload.start()

    def write(self, segments: int) -> None:
        assert self.cluster.run_until(
            lambda: all(r.status()["log_segments"] >= segments for r in self.cluster.replicas), 120
        )

    def idle(self) -> None:
        self.workload.stop()
        assert self.cluster.run_until(self.cluster.level, 30)
        self.cluster.run(1.0)

    def outcome(self, replica: Replica) -> str:
        return recover(self.cluster.world.log_bytes(replica.index)).outcome

    def damage(self, replica: Replica, segment: int) -> None:
        """Flips bits of a segment until the next start would call the log damaged."""
        while self.outcome(replica) != "damaged":
            assert self.cluster.world.flip(replica.index, segment) is not None


@pytest.mark.parametrize("which", ["sealed", "current"])
@pytest.mark.parametrize("busy", [True, False])
def test_a_bit_that_flips_under_a_running_node_is_found_and_the_log_is_whole_again(which: str, busy: bool) -> None:
    life = Life()
    try:
        life.write(3 if which == "sealed" else 1)
        life.cluster.run(5.0)
        if not busy:
            life.idle()
        hurt = life.cluster.replicas[1]
        assert hurt.handle is not None
        assert hurt.group is not None
        oldest, current, _ = hurt.handle.log_span()
        assert oldest < current or which == "current"
        life.damage(hurt, oldest if which == "sealed" else current)
        incarnation, starts = life.cluster.world.incarnation(1), hurt.starts
        group = hurt.group
        assert life.cluster.run_until(lambda: group.status().scrub_damage == 1, 30)
        assert life.cluster.run_until(lambda: life.outcome(hurt) != "damaged", 60)
        assert hurt.starts == starts
        assert life.cluster.world.incarnation(1) == incarnation
        assert life.cluster.world.votes(1)
        assert [r.group.status().scrub_damage for r in life.cluster.replicas if r.group is not None] == [0, 1, 0]
        # What the others would learn from it, and its own next start, stand on the log that is left.
        life.cluster.crash(hurt)
        assert hurt.start()
        assert hurt.status()["damage"] is None
        assert life.cluster.world.incarnation(1) == incarnation
        life.idle()
    finally:
        life.cluster.close()


def test_without_a_scrub_nobody_notices_until_the_next_start() -> None:
    life = Life(rate=0)
    try:
        life.write(2)
        life.idle()
        hurt = life.cluster.replicas[1]
        life.damage(hurt, 1)
        life.cluster.run(30.0)
        assert life.outcome(hurt) == "damaged"
        life.cluster.crash(hurt)
        assert hurt.start()
        assert hurt.status()["damage"] is not None
    finally:
        life.cluster.close()


def test_segments_that_are_recycled_under_the_scrub_are_no_damage() -> None:
    life = Life(budget=1 << 19, rate=1 << 17)
    try:
        life.cluster.run(120.0)
        for replica in life.cluster.replicas:
            assert replica.group is not None
            status = replica.group.status()
            assert status.first_kept > 0
            assert status.scrubbed_bytes > 1 << 20
            assert status.scrub_damage == 0
    finally:
        life.cluster.close()


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 4, 5, 6, None])
def test_a_checkpoint_that_could_not_be_read_for_a_moment_is_not_given_up(calls: int | None) -> None:
    """Of three nodes one was away when a value was chosen, and one lost its disk: the value is in the checkpoint of the third and
    nowhere else. A read of that failed, once; it was removed for another to be made, and the power failed ``calls`` calls to the
    disk later. (Seed 6100223.)"""
    life = Life()
    cluster = life.cluster
    try:
        life.idle()
        keeps = master_of(cluster)
        away, lost = (replica for replica in cluster.replicas if replica is not keeps)
        cluster.cut([away], [keeps, lost])
        call = Call(keeps, b"add:k:1:")
        assert cluster.run_until(call.done, 10)
        assert call.error is None
        group = keeps.group
        assert group is not None
        made = group.applied + 1
        group.keeper.make(lambda manifest, error: None)
        assert cluster.run_until(lambda: keeps.status()["first_kept"] == made, 10)
        cluster.crash(lost)
        cluster.world.wipe(lost.index)
        store = group.keeper._store
        read = store.piece

        def piece(manifest: Manifest, entry: int, index: int) -> bytes:
            store.piece = read  # type: ignore[method-assign]
            cluster.world.disk(keeps.index, read_fails=True)
            if calls is not None:
                cluster.crash(keeps, power=True, within=calls)
            return read(manifest, entry, index)

        store.piece = piece  # type: ignore[method-assign]
        cluster.run(5.0)
        assert store.piece == read, "the scrub has come by"
        if keeps.up:
            assert (group.keeper.newest, group.keeper._server.newest) == (made, made), "it stays, and is offered again"
            assert group.status().scrub_damage == 1
            cluster.crash(keeps, power=True)
        assert keeps.start()
        assert lost.start()
        cluster.world.heal()
        assert cluster.run_until(lambda: all(map(cluster.world.votes, range(3))) and cluster.level(), 30)
    finally:
        cluster.close()


# ---- real nodes ----


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass right behind the other."""
    monkeypatch.setattr("paxos.node.Scrub", functools.partial(Scrub, pause=0.05))


@pytest.mark.usefixtures("eager")
def test_a_checkpoint_that_rots_is_replaced_by_a_new_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[paxos.Alarm] = []

    async def story(c: RealCluster) -> None:
        await c.write(1000)
        node = c.nodes[1]
        made = await node.checkpoint()
        assert node._group.keeper.newest == made
        (file,) = (tmp_path / "1" / "checkpoints").glob("*-0.data")
        with caplog.at_level(logging.CRITICAL, "paxos"):
            flip(file, file.stat().st_size // 2)
            await until(lambda: node.status().scrub_damage == 1, "the damage is found")
            assert f"checkpoint of instance {made} does not verify" in caplog.text
            await until(lambda: node.status().checkpoint >= made, "there is another one")
        await until(lambda: bool(heard), "the owner has been told")
        assert [(alarm.kind, alarm.node_id, alarm.instance) for alarm in heard] == [("checkpoint-damaged", 1, made)]
        store = node._group.keeper._store
        for manifest in store.list():
            store.verify(manifest)
        await c.write(10)
        await c.level()

    run(tmp_path, story, count=3, on_alarm=heard.append)


@pytest.mark.usefixtures("eager")
def test_a_log_that_rots_on_a_real_disk_heals_in_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(c: RealCluster) -> None:
        await c.write(3000)
        await c.level()
        hurt = next(id_ for id_ in c.nodes if not c.nodes[id_].is_master())
        node = c.nodes[hurt]
        await until(lambda: node.status().scrubbed_bytes > 1 << 20, "a pass is over")
        assert node.status().scrub_damage == 0
        first = min((tmp_path / str(hurt) / "log").glob("*.seg"))
        with caplog.at_level(logging.WARNING, "paxos"):
            flip(first, 9000)
            await until(lambda: node.status().scrub_damage > 0, "the damage is found")
            await until(lambda: "whole again" in caplog.text, "the segment is gone")
        assert f"{first.name}, offset 8192" in caplog.text
        assert node.status().first_kept > 0
        await c.write(10)
        await c.level()
        await c.stop(hurt)
        await c.start(hurt)
        assert c.nodes[hurt]._engine.status()["damage"] is None  # type: ignore[attr-defined]
        await c.level()

    run(tmp_path, story)


def test_the_rate_is_kept(tmp_path: Path) -> None:
    """4 KiB a second: the first megabyte of the log would take minutes."""

    async def main() -> None:
        async with RealCluster(tmp_path, scrub_rate=0) as c:
            await c.write(3000)
            assert all(node.status().scrubbed_bytes == 0 for node in c.nodes.values())
            await c.stop(1)
            await c.start(1, scrub_rate=4096)
            node = c.nodes[1]
            await until(lambda: node.status().scrubbed_bytes > 0, "it has begun")
            read_ = node.status().scrubbed_bytes
            await asyncio.sleep(0)
            await node.propose(b"v", timeout=DEADLINE)
            assert node.status().scrubbed_bytes == read_ <= (1 << 20) + 4096

    asyncio.run(main())


def test_an_option_out_of_range_is_refused() -> None:
    with pytest.raises(paxos.ConfigError, match="scrub_rate"):
        paxos.Options(scrub_rate=-1)


def test_a_log_that_begins_between_formation_and_formed_is_whole() -> None:
    """The two are written again beside a BASE, and a segment may end between them: it goes, and the second of them is left."""
    formation_, formed, watermark = 3, 4, 8
    life = Life()
    try:
        life.idle()
        replica = life.cluster.replicas[1]
        incarnation = life.cluster.world.incarnation(1)
        life.cluster.world.unjudged()  # what this node has promised is lost here
        life.cluster.crash(replica)
        with LogStore(life.cluster.world.folder(1), 2) as log:
            (body, *_) = [body for _, kind, _, _, body in log.replay if kind == formation_]
            log.release_replay()
            while log.position[0] == 1:
                log.append(watermark, 0, 0, bytes(16))
                log.flush()
            for kind, data in ((formed, b""), (formation_, body), (formed, b"")):
                log.append(kind, 0, 0, data)
            log.flush()
            log.recycle(1)
        assert replica.start()
        assert replica.status()["damage"] is None
        assert life.cluster.world.incarnation(1) == incarnation
    finally:
        life.cluster.close()
