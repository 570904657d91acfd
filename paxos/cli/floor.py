"""The floor under any durable replication on this machine: a bare disk write, and a bare round trip.

The write: 4 KiB, direct and synchronous, over space that was written before, while as many processes as the cluster has
nodes do the same. The round trip: 100 bytes over loopback TCP and back, between two processes that wait in epoll.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import select
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paxos import PaxosError

from .bench_load import percentile

_WRITE: Final = 4096
_SPACE: Final = 16 * 1024 * 1024
_MESSAGE: Final = 100
_SECONDS: Final = 1.5
#: Messages before the measured ones.
_WARM: Final = 200
_ROUNDS: Final = 10_000


class FloorFailed(PaxosError):
    """The floor could not be measured."""


@dataclass(frozen=True)
class Floor:
    """Medians, ms. ``floor_write_mode``: ``direct``, or ``sync`` where the file system refuses direct writes."""

    floor_write_ms: float
    floor_rtt_ms: float
    floor_write_mode: str


async def measure_floor(directory: Path, writers: int) -> Floor:
    """Measure both, one after the other. Files are made in ``directory``. Raises :class:`FloorFailed`."""
    start = time.time() + 0.5  # the writers write at the same time, whoever is ready first
    texts = await asyncio.gather(
        *(_child("write", str(directory / f"floor{number}"), str(start)) for number in range(writers))
    )
    writes = [text.split() for text in texts]
    rtt = float(await _child("rtt"))
    middle = percentile(sorted(float(text) for text, _ in writes), 0.5)
    mode = "direct" if all(mode == "direct" for _, mode in writes) else "sync"
    return Floor(middle * 1000, rtt * 1000, mode)


async def _child(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paxos.cli.floor", *arguments), stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise FloorFailed(f"measuring the floor ({arguments[0]}) failed with status {process.returncode}")
    return output.decode()


def _open(path: str) -> tuple[int, str]:
    flags = os.O_RDWR | os.O_CREAT | os.O_DSYNC
    try:
        return os.open(path, flags | os.O_DIRECT, 0o600), "direct"
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags, 0o600), "sync"


def time_writes(path: str, start: float) -> tuple[float, str]:
    """The median of one write, seconds, and how it was made; from the wall-clock time ``start`` on."""
    descriptor, mode = _open(path)
    try:
        # Memory from mmap is aligned, as direct writes want it.
        with mmap.mmap(-1, 1 << 20) as zeros:
            for offset in range(0, _SPACE, len(zeros)):
                if os.pwritev(descriptor, [zeros], offset) != len(zeros):
                    raise OSError(errno.EIO, "short write", path)
        samples = []
        with mmap.mmap(-1, _WRITE) as block:
            block[:] = b"x" * _WRITE
            time.sleep(max(start - time.time(), 0))
            end = time.perf_counter() + _SECONDS
            offset = 0
            while (began := time.perf_counter()) < end:
                if os.pwritev(descriptor, [block], offset) != _WRITE:
                    raise OSError(errno.EIO, "short write", path)
                samples.append(time.perf_counter() - began)
                offset = (offset + _WRITE) % _SPACE
    finally:
        os.close(descriptor)
        os.unlink(path)
    return percentile(sorted(samples), 0.5), mode


def _receive(poll: select.epoll, sock: socket.socket) -> bytes:
    """One message; empty when the peer has ended."""
    data = b""
    while len(data) < _MESSAGE:
        poll.poll()
        part = sock.recv(_MESSAGE - len(data))
        if not part:
            return b""
        data += part
    return data


def _echo(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as sock, select.epoll() as poll:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(sock.fileno(), select.EPOLLIN)
        while data := _receive(poll, sock):
            sock.sendall(data)


def time_round_trips() -> float:
    """The median of one round trip, seconds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _echo(server.getsockname())
                status = 0
            finally:
                os._exit(status)
        connection, _ = server.accept()
    samples = []
    with connection, select.epoll() as poll:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(connection.fileno(), select.EPOLLIN)
        message = b"x" * _MESSAGE
        for _ in range(_WARM + _ROUNDS):
            began = time.perf_counter()
            connection.sendall(message)
            if not _receive(poll, connection):
                raise FloorFailed("the peer of the round trips has ended")
            samples.append(time.perf_counter() - began)
    _, status = os.waitpid(child, 0)
    if status:
        raise FloorFailed(f"the peer of the round trips ended with status {status}")
    return percentile(sorted(samples[_WARM:]), 0.5)


def main() -> None:
    """``write PATH START`` or ``rtt``: print the median in seconds."""
    if sys.argv[1] == "write":
        median, mode = time_writes(sys.argv[2], float(sys.argv[3]))
        print(median, mode)
    else:
        print(time_round_trips())


if __name__ == "__main__":
    main()
