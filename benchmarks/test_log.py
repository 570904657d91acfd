"""Group commit: what becomes ready during a write goes into the next one, so waiting writers share a sync.

A round is what the engine does when so many writers wait: append a record of each, then one durable write. In steady state
all of them have their next record ready when it returns. ``bare`` is the disk alone: the same bytes written over space
that was written before, in the same way.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from paxos._segments import LogStore

RECORD_ACCEPT = 6
RECORD_HEAD, WRITE_HEAD, BLOCK = 32, 56, 4096
BODY = bytes(64) + b"v" * 136  # an acceptance: a fixed part, a chunk's head, and a value of 100 bytes
SEGMENT = 32 << 20
WRITERS = [1, 8, 64, 512]
MODES = {"direct": True, "fdatasync": False}


def write_size(writers: int) -> int:
    """Bytes of one write with a record of each writer."""
    used = WRITE_HEAD + writers * (RECORD_HEAD + len(BODY))
    return -(-used // BLOCK) * BLOCK


def rounds_for(writers: int, tiny: bool) -> int:
    """As many as fit one segment, so that every write is one of the steady state."""
    return 3 if tiny else min(1000, SEGMENT * 3 // 4 // write_size(writers))


@pytest.mark.parametrize("direct", MODES.values(), ids=MODES)
@pytest.mark.parametrize("writers", WRITERS)
def test_waiting_writers(benchmark: BenchmarkFixture, tmp_path: Path, tiny: bool, writers: int, direct: bool) -> None:
    rounds = rounds_for(writers, tiny)
    with LogStore(tmp_path, 1, segment_size=1 << 20 if tiny else SEGMENT, direct=direct) as log:
        # The background filling of the next segment would share the disk with the first rounds.
        assert log.wait_for_spare(60.0), "no spare segment was made ready"
        instance = 0

        def write() -> None:
            nonlocal instance
            for _ in range(writers):
                log.append(RECORD_ACCEPT, 0, instance, BODY)
                instance += 1
            log.flush()

        before = log.counters()
        benchmark.group = f"log, {writers} waiting"
        benchmark.pedantic(write, rounds=rounds, iterations=1)
        after = log.counters()
        assert not log.pending, "what a flush leaves behind is not durable"
        mode = log.mode
    done = instance // writers
    counts = {name: after[name] - before[name] for name in ("syncs", "writes", "records", "bytes", "time_ns")}
    assert counts["syncs"] == counts["writes"] == done, "one write and one sync for all that waited"
    assert counts["bytes"] == done * write_size(writers), (
        "nothing is written but records, a head, and padding to a block"
    )
    benchmark.extra_info.update(
        mode=mode,
        syncs_per_record=counts["syncs"] / instance,
        bytes_per_record=counts["bytes"] / instance,
        share_in_sync=counts["time_ns"] / (benchmark.stats.stats.total * 1e9) if benchmark.stats is not None else 0.0,
    )
    if benchmark.stats is not None:
        benchmark.extra_info["records_per_s"] = writers / benchmark.stats.stats.median


@pytest.mark.parametrize("direct", MODES.values(), ids=MODES)
@pytest.mark.parametrize("writers", WRITERS)
def test_bare(benchmark: BenchmarkFixture, tmp_path: Path, tiny: bool, writers: int, direct: bool) -> None:
    """The floor: a write of as many bytes, without a log."""
    size, rounds = write_size(writers), rounds_for(writers, tiny)
    path = tmp_path / "bare"
    with path.open("wb") as file:
        for _ in range(rounds):
            file.write(bytes(size))
        file.flush()
        os.fsync(file.fileno())
    flags, mode = os.O_RDWR, "fdatasync"
    descriptor = -1
    if direct:
        try:
            descriptor = os.open(path, flags | os.O_DIRECT | os.O_DSYNC)
            mode = "direct"
        except OSError:
            mode = "fdatasync (no direct writes here)"
    if descriptor < 0:
        descriptor = os.open(path, flags)
    at = 0
    try:
        with mmap.mmap(-1, size) as block:  # aligned, as direct writes want it
            block[:] = b"x" * size

            def write() -> None:
                nonlocal at
                assert os.pwritev(descriptor, [block], at) == size
                if mode != "direct":
                    os.fdatasync(descriptor)
                at += size

            benchmark.group = f"log, {writers} waiting"
            benchmark.pedantic(write, rounds=rounds, iterations=1)
    finally:
        os.close(descriptor)
    benchmark.extra_info["mode"] = mode
