"""Checking bytes from the wire: crc, and whole frames with the values in them."""

from __future__ import annotations

import json
import random

import pytest
import zstandard
from bench_cores import Trio, check_frame, checksum, frames
from pytest_benchmark.fixture import BenchmarkFixture

SIZES = {"100B": 100, "4KiB": 4096, "1MiB": 1 << 20}
ACCEPT = 22
BAD_CRC = 5
SMALL = 10  # bytes of a small value; 4 more say so


def accept_frame(values: list[bytes]) -> bytes:
    """The Accept that a master sends for these values."""
    trio = Trio()
    since = len(trio.effects[1])
    trio.propose(values)
    (frame,) = frames(trio, 1, ACCEPT, since)
    return frame


def throughput(benchmark: BenchmarkFixture, size: int) -> None:
    if benchmark.stats is not None:
        benchmark.extra_info["gb_per_s"] = size / benchmark.stats.stats.median / 1e9


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_crc(benchmark: BenchmarkFixture, size: int) -> None:
    """crc32c over so many bytes, called from Python."""
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    benchmark.group = "crc"
    result = benchmark(checksum, data)
    assert result == checksum(data[size // 2 :], checksum(data[: size // 2])), "a checksum can be continued"
    throughput(benchmark, size)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_frame(benchmark: BenchmarkFixture, size: int) -> None:
    """All that is verified of an Accept with one value of so many bytes: header, crc, and the value to the byte."""
    frame = accept_frame([b"v" * size])
    benchmark.group = "frame"
    assert benchmark(check_frame, frame) == (0, len(frame))
    throughput(benchmark, len(frame))


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_value(benchmark: BenchmarkFixture, size: int) -> None:
    """The same bytes as many small values. What it takes longer than one value is the check of each one's length."""
    values = [b"v" * SMALL] * max(size // (SMALL + 4), 1)
    frame = accept_frame(values)
    benchmark.group = "frame"
    benchmark.extra_info["values"] = len(values)
    assert benchmark(check_frame, frame) == (0, len(frame))
    throughput(benchmark, len(frame))


def test_flipped_bit(benchmark: BenchmarkFixture) -> None:
    """4 KiB with a flipped bit at the end: read to the end, then refused."""
    frame = bytearray(accept_frame([b"v" * 4096]))
    frame[-1] ^= 1
    benchmark.group = "frame"
    code, _ = benchmark(check_frame, bytes(frame))
    assert code == BAD_CRC


def _values(kind: str) -> bytes:
    """A MiB as a node that is behind would be sent it."""
    draw = random.Random(1)
    if kind == "random":
        return draw.randbytes(1 << 20)
    out = bytearray()
    while len(out) < 1 << 20:
        if kind == "json":
            name = f"user{draw.randrange(10**6)}"
            out += json.dumps({"user": draw.randrange(10**6), "name": name, "balance": draw.random()}).encode()
        else:
            out += b"SET key:%012d value:%032x\n" % (draw.randrange(10**9), draw.getrandbits(128))
    return bytes(out[: 1 << 20])


@pytest.mark.parametrize("kind", ["json", "hexadecimal", "random"])
def test_zstd(benchmark: BenchmarkFixture, kind: str) -> None:
    """What it would cost to compress the values of the log on their way, which is not done; docs/benchmarks.md says why."""
    data = _values(kind)
    compressor = zstandard.ZstdCompressor(level=1)
    benchmark.group = "zstd"
    small = benchmark(compressor.compress, data)
    assert zstandard.ZstdDecompressor().decompress(small) == data
    benchmark.extra_info["shrinks"] = round(len(data) / len(small), 1)
    throughput(benchmark, len(data))
