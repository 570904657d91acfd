"""The log on real files: agreement with the pure layout, recovery, rotation, recycling, locks and failures."""

from __future__ import annotations

import os
import resource
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos._log import Layout
from paxos._recovery import recover
from paxos._segments import LogStore
from paxos._store import PositionIndex
from paxos.errors import DamagedLog, DirectoryInUse, StorageError, WrongDirectory

BLOCK = 4096
SIZE = 65536
ACCEPT = 6
DEADLINE = 60.0


def open_store(path: Path, node: int = 1, *, size: int = SIZE, direct: bool = True) -> LogStore:
    return LogStore(path, node, segment_size=size, direct=direct)


def segments(path: Path) -> dict[int, bytes]:
    return {int(file.stem, 16): file.read_bytes() for file in sorted((path / "log").glob("*.seg"))}


def values(store: LogStore) -> list[tuple[int, bytes]]:
    return [(instance, body) for _, kind, _, instance, body in store.replay if kind == ACCEPT]


def body(i: int) -> bytes:
    return bytes([i % 251]) * (i * 37 % 5000)


def fill(store: LogStore, count: int, first: int = 0) -> list[int]:
    positions = []
    for i in range(first, first + count):
        positions.append(store.append(ACCEPT, 1, i, body(i)))
        if i % 3 == 0:
            store.flush()
    store.flush()
    return positions


def open_files(path: Path) -> list[str]:
    """What this process has open below a path."""
    names = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.lexists(entry.path)]
    return [name for name in names if name.startswith(str(path))]


def fill_segment(store: LogStore) -> int:
    """Appends values of body(0), body(1) … until the log has gone on in the next segment; how many."""
    number, i = store.position[0], 0
    while store.position[0] == number:
        fill(store, 1, i)
        i += 1
    return i


@pytest.fixture(params=[True, False], ids=["direct", "buffered"])
def direct(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_what_was_flushed_is_there_after_reopening(tmp_path: Path, direct: bool) -> None:
    with open_store(tmp_path, direct=direct) as store:
        assert (store.outcome, store.boot, store.replay) == ("empty", 1, [])
        incarnation = store.incarnation_hi, store.incarnation_lo
        fill(store, 100)
        assert store.position[0] > 3
    with open_store(tmp_path, direct=direct) as store:
        assert store.outcome == "good"
        assert (store.boot, (store.incarnation_hi, store.incarnation_lo)) == (2, incarnation)
        assert values(store) == [(i, body(i)) for i in range(100)]
        fill(store, 5, 100)
    with open_store(tmp_path, direct=not direct) as store:
        assert store.boot == 3
        assert values(store) == [(i, body(i)) for i in range(105)]
        store.release_replay()
        assert store.replay == []


def test_the_mode_is_told(tmp_path: Path) -> None:
    with open_store(tmp_path, direct=False) as store:
        assert store.mode.startswith("pwrite + fdatasync")
    with open_store(tmp_path) as store:
        assert store.mode == "O_DIRECT|O_DSYNC" or "refuses" in store.mode


def test_two_new_directories_have_different_incarnations(tmp_path: Path) -> None:
    with open_store(tmp_path / "a") as a, open_store(tmp_path / "b") as b:
        assert (a.incarnation_hi, a.incarnation_lo) != (b.incarnation_hi, b.incarnation_lo)


def test_real_files_agree_with_the_pure_layout(tmp_path: Path, direct: bool) -> None:
    with open_store(tmp_path, node=9, direct=direct) as store:
        incarnation = store.incarnation_hi, store.incarnation_lo
        log = Layout(SIZE, node=9, incarnation=incarnation, boot=1)
        files = {1: bytearray(log.header(1) + bytes(SIZE - BLOCK))}

        def close(end: bool = False) -> None:
            before = log.position
            _, data = log.close_write(end=end)
            if end:
                files[before[0] + 1] = bytearray(log.header(before[0] + 1) + bytes(SIZE - BLOCK))
            files[before[0]][before[1] : before[1] + len(data)] = data
            log.written()

        log.append(2, 0, 0, struct.pack("<QQII", *incarnation, 9, 1))
        close()
        for i in range(60):
            position = store.append(ACCEPT, 4, i, body(i))
            if not log.fits(len(body(i))):
                close(end=True)
                log.next_segment()
            assert log.append(ACCEPT, 4, i, body(i)) == position
            if i % 3 == 0:
                store.flush()
                close()
        store.flush()
        close()
        assert store.position == log.position
        assert segments(tmp_path) == files
        assert len(files) > 2


def test_read_back_from_disk_and_from_the_pending_write(tmp_path: Path, direct: bool) -> None:
    with open_store(tmp_path, direct=direct) as store:
        positions = fill(store, 200)
        assert store.position[0] > 9  # more segments than descriptors are kept
        for i in [*range(200), *range(199, -1, -1)]:
            assert store.read(positions[i]) == (ACCEPT, 1, i, body(i))
        position = store.append(ACCEPT, 2, 7, b"pending")
        assert store.pending
        assert store.read(position) == (ACCEPT, 2, 7, b"pending")
        store.flush()
        assert not store.pending
        assert store.read(position) == (ACCEPT, 2, 7, b"pending")


def test_read_where_no_record_is(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        position = fill(store, 1)[0]
        store.append(ACCEPT, 0, 1, b"")
        end = store.position[0] * SIZE + store.position[1]
        near = [position + 1, position + 8, end - 8, end, end + 8, end + 4096]
        for wrong in [0, 1, SIZE, 2 * SIZE - 8, 2**63, 2**64 - 8, *near]:
            with pytest.raises(StorageError):
                store.read(wrong)


def test_a_damaged_record_is_not_read_back(tmp_path: Path, direct: bool) -> None:
    with open_store(tmp_path, direct=direct) as store:
        positions = fill(store, 60)
        for i in range(8):
            place = positions[i] % SIZE + i * 4 + (0 if i < 3 else 1)
            with open(tmp_path / "log" / f"{positions[i] // SIZE:016x}.seg", "r+b") as file:
                file.seek(place)
                byte = file.read(1)
                file.seek(place)
                file.write(bytes([byte[0] ^ 0xFF]))
            with pytest.raises(StorageError, match="reading the record"):
                store.read(positions[i])
        assert store.read(positions[20]) == (ACCEPT, 1, 20, body(20))


def test_a_record_no_segment_can_hold_is_refused_and_nothing_else_harmed(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        largest = SIZE - 2 * BLOCK - 56 - 32
        for size in (10 * SIZE, SIZE, SIZE - 2 * BLOCK, largest + 1):
            with pytest.raises(StorageError, match="appending"):
                store.append(ACCEPT, 0, 0, bytes(size))
        store.append(ACCEPT, 0, 1, b"\x01" * largest)
        store.flush()
        store.append(ACCEPT, 0, 2, b"\x02" * largest)
        store.flush()
    with open_store(tmp_path) as store:
        assert [len(value) for _, value in values(store)] == [largest, largest]


def test_a_recycled_segment_is_used_again_and_shows_nothing_old(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        positions = fill(store, 60)
        last = store.position[0]
        store.read(positions[0])
        assert str(tmp_path / "log" / f"{1:016x}.seg") in open_files(tmp_path)
        assert store.wait_for_spare(DEADLINE)
        for wrong in (0, 2, last, last + 1):
            with pytest.raises(StorageError, match="recycling"):
                store.recycle(wrong)
        for number in range(1, last):
            store.recycle(number)
            assert store.counters()["segments"] == last - number
        with pytest.raises(StorageError):
            store.read(positions[0])
        assert not [name for name in open_files(tmp_path) if "spare" in name]
        used = os.listdir(tmp_path / "log")
        assert sum(name.startswith("spare-") for name in used) >= 2
        fill(store, 60, 60)
        assert store.counters()["spares_late"] <= last
    with open_store(tmp_path) as store:
        kept = values(store)
        assert kept == [(i, body(i)) for i in range(kept[0][0], 120)]
        assert 0 < kept[0][0] < 60
        fill(store, 30, 120)
        assert store.counters()["segments"] > 3


def test_a_lost_oldest_segment_is_damage_though_recycled_ones_are_not(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        fill(store, 60)
        store.recycle(1)
    with open_store(tmp_path) as store:
        assert values(store)[-1][0] == 59
    (tmp_path / "log" / f"{2:016x}.seg").unlink()
    with pytest.raises(DamagedLog, match="0000000000000002"):
        open_store(tmp_path)


@pytest.mark.parametrize("which", [1, 3, -1])
def test_a_lost_segment_is_damage(tmp_path: Path, which: int) -> None:
    with open_store(tmp_path) as store:
        fill(store, 60)
        store.flush()
    numbers = sorted(segments(tmp_path))
    lost = tmp_path / "log" / f"{numbers[which] if which < 0 else which:016x}.seg"
    lost.unlink()
    with pytest.raises(DamagedLog, match="missing") as caught:
        open_store(tmp_path)
    assert lost.name in str(caught.value)
    assert "must not vote with this log" in str(caught.value)


def test_damage_names_file_and_offset_and_changes_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        position = store.append(ACCEPT, 0, 0, b"first")
        store.flush()
        store.append(ACCEPT, 0, 1, b"second")
        store.flush()
    path = tmp_path / "log" / f"{1:016x}.seg"
    data = bytearray(path.read_bytes())
    data[position % SIZE + 33] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedLog) as caught:
        open_store(tmp_path)
    assert str(path) in str(caught.value)
    assert f"offset {position % SIZE - 56}" in str(caught.value)
    assert path.read_bytes() == data


def test_a_torn_tail_is_cut_erased_and_gone_on_from(tmp_path: Path, direct: bool) -> None:
    with open_store(tmp_path, direct=direct) as store:
        fill(store, 4)
        _, offset = store.position
        lost = [store.append(ACCEPT, 0, 90 + i, b"\xee" * 3000) for i in range(4)]
        store.flush()
        _, end = store.position
    path = tmp_path / "log" / f"{1:016x}.seg"
    data = bytearray(path.read_bytes())
    data[offset : offset + 512] = bytes(512)
    path.write_bytes(data)
    with open_store(tmp_path, direct=direct) as store:
        assert store.outcome == "torn"
        assert values(store) == [(i, body(i)) for i in range(4)]
        assert store.counters()["erased_bytes"] == end - offset
        assert path.read_bytes()[offset + BLOCK :] == bytes(SIZE - offset - BLOCK)
        with pytest.raises(StorageError):
            store.read(lost[2])
        store.append(ACCEPT, 0, 4, body(4))
        store.flush()
    with open_store(tmp_path, direct=direct) as store:
        assert store.outcome == "good"
        assert values(store) == [(i, body(i)) for i in range(5)]


def test_an_unproven_tail_is_written_again(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        fill(store, 4)
        before = store.position[1]
        store.append(ACCEPT, 0, 4, b"\x01" * 5000)
        store.flush()
        length = store.position[1] - before
    with open_store(tmp_path) as store:
        counters = store.counters()
        assert (counters["rewritten_bytes"], counters["erased_bytes"]) == (length, 0)
        assert counters["syncs"] == 2  # the tail, the identity


def test_a_change_of_segments_that_was_not_finished(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        fill(store, 5)
        incarnation = store.incarnation_hi, store.incarnation_lo
    found = recover(list(segments(tmp_path).items()))
    assert found.cut is not None
    log = Layout(SIZE, node=1, incarnation=incarnation)
    log.resume(*found.cut, found.previous, found.boot, found.oldest)
    log.close_write(end=True)
    (tmp_path / "log" / f"{2:016x}.seg").write_bytes(log.header(2) + bytes(SIZE - BLOCK))
    with open_store(tmp_path) as store:
        assert store.outcome == "torn"
        assert sorted(segments(tmp_path)) == [1]
        fill(store, 40, 5)
    with open_store(tmp_path) as store:
        assert values(store) == [(i, body(i)) for i in range(45)]


def test_leftover_spares_are_used_or_removed(tmp_path: Path) -> None:
    with open_store(tmp_path):
        pass
    log = tmp_path / "log"
    for file in log.glob("spare-*"):
        file.unlink()
    (log / "spare-41.tmp").write_bytes(b"\xff" * SIZE)
    (log / "spare-42.tmp").write_bytes(b"\xff" * 100)
    (log / "spare-xx.tmp").write_bytes(b"\xff" * SIZE)
    (log / "probe.tmp").write_bytes(b"")
    with open_store(tmp_path) as store:
        left = set(os.listdir(log))  # beside what the preparer makes meanwhile
        assert "spare-41.tmp" in left
        assert not left & {"spare-42.tmp", "spare-xx.tmp", "probe.tmp"}
        count = fill_segment(store)
        assert store.counters()["spares_late"] == 0
    with open_store(tmp_path) as store:
        assert values(store) == [(i, body(i)) for i in range(count)]


def test_the_preparer_makes_spares_of_zeros(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        assert store.wait_for_spare(DEADLINE)
        spares = list((tmp_path / "log").glob("spare-*.tmp"))
        assert [file.read_bytes() for file in spares] == [bytes(SIZE)] * 2  # one to go on in, one in reserve
        late = store.counters()["spares_late"]
        fill_segment(store)
        assert store.counters()["spares_late"] == late
        assert sum(file.exists() for file in spares) == 1
        assert store.wait_for_spare(DEADLINE)


def test_closing_does_not_wait_for_a_spare_to_be_filled(tmp_path: Path) -> None:
    """The preparer is told to stop in the midst of a large spare, and leaves nothing behind."""
    store = open_store(tmp_path, size=256 << 20)
    store.close()
    store.close()
    assert all(file.stat().st_size == 256 << 20 for file in (tmp_path / "log").iterdir())
    with pytest.raises(StorageError, match="closed"):
        store.flush()


def test_an_existing_log_keeps_its_segment_size(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        fill(store, 3)
    with open_store(tmp_path, size=SIZE * 2) as store:
        fill(store, 20, 3)
        assert {len(data) for data in segments(tmp_path).values()} == {SIZE}


@pytest.mark.parametrize("size", [0, 4096, SIZE + 1, 2**31])
def test_a_segment_size_out_of_bounds_is_refused_and_the_directory_given_up(tmp_path: Path, size: int) -> None:
    with pytest.raises(StorageError, match="segment_size"):
        open_store(tmp_path, size=size)
    open_store(tmp_path).close()


def test_a_directory_is_used_by_one_at_a_time(tmp_path: Path) -> None:
    with open_store(tmp_path), pytest.raises(DirectoryInUse, match=f"pid {os.getpid()}"):
        open_store(tmp_path)
    open_store(tmp_path).close()


def test_a_directory_of_another_node(tmp_path: Path) -> None:
    with open_store(tmp_path, 1):
        pass
    before = segments(tmp_path)
    with pytest.raises(WrongDirectory, match="node 1, not to node 2"):
        open_store(tmp_path, 2)
    assert segments(tmp_path) == before
    open_store(tmp_path, 1).close()


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        open_store(tmp_path / "file" / "data")


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Writes beyond `limit` bytes of a file fail with EFBIG (Python ignores the signal)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failed_write_is_final(tmp_path: Path, direct: bool) -> None:
    with open_store(tmp_path, direct=direct) as store:
        assert store.wait_for_spare(DEADLINE)
        fill(store, 3)
        store.append(ACCEPT, 0, 3, b"not durable")
        with file_size_limit(store.position[1]), pytest.raises(StorageError, match="writing") as caught:
            store.flush()
        assert isinstance(caught.value.__cause__, OSError)
        with pytest.raises(StorageError):
            store.flush()  # the disk would take it again, the store does not
        with pytest.raises(StorageError):
            store.append(ACCEPT, 0, 4, b"")
        with pytest.raises(StorageError):
            store.recycle(1)
        assert store.counters()["failed_errno"] != 0
    with open_store(tmp_path, direct=direct) as store:
        assert values(store) == [(i, body(i)) for i in range(3)]


def test_the_counters_count(tmp_path: Path, direct: bool) -> None:
    with open_store(tmp_path, direct=direct) as store:
        before = store.counters()
        for i in range(10):
            for _ in range(5):
                store.append(ACCEPT, 0, i, b"x")
            store.flush()
        store.flush()  # nothing pending: no write
        after = store.counters()
    assert {key: after[key] - before[key] for key in ("syncs", "writes", "bytes", "records")} == {
        "syncs": 10, "writes": 10, "bytes": 10 * BLOCK, "records": 50,
    }  # fmt: skip
    assert after["time_ns"] > before["time_ns"]


@given(st.integers(0, 2**64 - 3000), st.lists(st.tuples(st.sampled_from("sssst"), st.integers(0, 2500)), max_size=60))
def test_the_index_agrees_with_a_dict(base: int, steps: list[tuple[str, int]]) -> None:
    index, model = PositionIndex(), dict[int, int]()
    for number, (step, at) in enumerate(steps, 1):
        if step == "s":
            index.set(base + at, number)
            model[base + at] = number
        else:
            index.trim(base + at)
            model = {instance: position for instance, position in model.items() if instance >= base + at}
        assert all(index.get(instance) == position for instance, position in model.items())
    for instance in range(base, base + 2501):
        assert index.get(instance) == model.get(instance, 0)
    assert index.get(0) == model.get(0, 0)
    assert index.get(2**64 - 1) == 0


def test_a_leap_of_the_index_costs_no_memory() -> None:
    index = PositionIndex()
    index.set(5, 1)
    index.set(2**60, 2)
    assert (index.get(5), index.get(2**60), index.count) == (0, 2, 1)
    index.set(7, 3)
    assert (index.get(7), index.get(2**60), index.count) == (0, 2, 1)


CHILD = """
import sys
from paxos._segments import LogStore
from paxos._store import PositionIndex
store = LogStore(sys.argv[1], 1, segment_size=65536)
i = len([1 for record in store.replay if record[1] == 6])
store.release_replay()
print("open", flush=True)
while True:
    store.append(6, 0, i, bytes([i % 251]) * (i * 37 % 5000))
    store.flush()
    print(i, flush=True)
    i += 1
"""


def test_kill_at_any_moment_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    acknowledged = -1
    for round_number in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "open\n"
            with pytest.raises(DirectoryInUse, match=f"pid {child.pid}"):
                open_store(tmp_path)
            for _ in range(7 + 20 * round_number):
                acknowledged = int(child.stdout.readline())
        finally:
            child.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *(int(line) for line in child.stdout.read().split("\n")[:-1] if line)])
            child.stdout.close()
            child.wait()
        with open_store(tmp_path) as store:
            found = values(store)
            assert len(found) > acknowledged
            assert found == [(i, body(i)) for i in range(len(found))]
