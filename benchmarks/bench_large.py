"""Large values beside small ones: what the small ones wait, and how long the master is silent on a link of some speed.

One of three nodes is taken away, and something that only listens takes its place: it reads what the master sends it at a
given rate, which is what a slow link does to the sender, and notes when each heartbeat comes out of the stream. The other two
nodes are a majority. The master proposes large values, the follower small ones.

    python benchmarks/bench_large.py DIRECTORY [MIB_PER_SECOND] [SECONDS]
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench_nodes import STEP, Nodes

from paxos.cli.bench_load import LoadOptions

HEAD: Final = 64
HEARTBEAT: Final = 24
LARGE: Final = 10 << 20
#: Receive buffer of the listener: what is in it has been taken from the sender, but no heartbeat has come out of it.
BUFFER: Final = 1 << 17
SLICE: Final = 1 << 14


class Listener:
    """Takes connections at an address, reads them at ``rate`` bytes a second (0: as fast as it can) and times heartbeats."""

    def __init__(self, address: tuple[str, int], rate: int) -> None:
        self._rate = rate
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if rate:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._socket.bind(address)
        self._socket.listen()
        self._ends = False
        self._threads = [threading.Thread(target=self._accept)]
        self.heartbeats: list[float] = []
        self.bytes = 0
        self._threads[0].start()

    def _accept(self) -> None:
        self._socket.settimeout(0.05)
        while not self._ends:
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            self._threads.append(threading.Thread(target=self._read, args=(connection,)))
            self._threads[-1].start()

    def _read(self, connection: socket.socket) -> None:
        connection.settimeout(0.05)
        stream, skip = b"", 0
        due = time.perf_counter()
        with connection:
            while not self._ends:
                try:
                    data = connection.recv(SLICE if self._rate else 1 << 18)
                except TimeoutError:
                    continue
                except ConnectionResetError:
                    return
                if not data:
                    return
                now = time.perf_counter()
                self.bytes += len(data)
                if skip >= len(data):
                    skip -= len(data)
                else:
                    stream += data[skip:]
                    skip = 0
                    while len(stream) >= HEAD:
                        (length,) = struct.unpack_from("<I", stream, 4)
                        if stream[13] == HEARTBEAT:
                            self.heartbeats.append(now)
                        skip = max(length - len(stream), 0)
                        stream = stream[length:]
                if self._rate:
                    due = max(due, now - 0.01) + len(data) / self._rate
                    if due > now:
                        time.sleep(due - now)

    def close(self) -> None:
        """Ends all threads."""
        self._ends = True
        for thread in self._threads:
            thread.join()
        self._socket.close()


class Pair(Nodes):
    """Three nodes of which one follower makes room for a listener."""

    def measure(self, rate: int, seconds: float, warmup: float = 0.5) -> dict[str, Any]:
        """One window: ``rate`` in bytes a second for the listener, 0 for as fast as loopback is."""
        return self._runner.run(self._measure(rate, seconds, warmup))

    async def _measure(self, rate: int, seconds: float, warmup: float) -> dict[str, Any]:
        master = await self._find_master()
        if len(self._workers) == len(self.cluster):
            await self._workers.pop(next(number for number in self._workers if number != master)).stop()
        (gone,) = self.cluster.keys() - self._workers.keys()
        (small,) = self._workers.keys() - {master}
        host, port = self.cluster[gone].rsplit(":", 1)
        listener = await asyncio.to_thread(Listener, (host, int(port)), rate)
        try:
            loads = {master: LoadOptions(1, LARGE, 1, seconds, warmup), small: LoadOptions(4, 100, 1, seconds, warmup)}
            for number, load in loads.items():
                self._workers[number].tell(do="load", options=asdict(load))
            before = [(await self._workers[n].hear("opened", warmup + STEP))["status"] for n in loads]
            begin, had = time.perf_counter(), listener.bytes
            after = [(await self._workers[n].hear("closed", seconds + STEP))["status"] for n in loads]
            end, has = time.perf_counter(), listener.bytes
            results = [(await self._workers[n].hear("result", STEP))["result"] for n in loads]
        finally:
            await asyncio.to_thread(listener.close)
        times = [begin, *(at for at in listener.heartbeats if begin < at < end), end]
        return {
            "heartbeat_gap_ms": max(b - a for a, b in itertools.pairwise(times)) * 1000,
            "heartbeats_per_s": (len(times) - 2) / (end - begin),
            "small_p50_ms": results[1]["p50_ms"],
            "small_p99_ms": results[1]["p99_ms"],
            "small_per_s": results[1]["values"] / results[1]["seconds"],
            "large_per_s": results[0]["values"] / results[0]["seconds"],
            "large_p50_ms": results[0]["p50_ms"],
            "listener_mib_per_s": (has - had) / (end - begin) / 2**20,
            "elections": sum(b["elections"] - a["elections"] for a, b in zip(before, after, strict=True)),
        }


def main(directory: Path, rate: int, seconds: float) -> None:
    """One window, as a line of JSON."""
    with tempfile.TemporaryDirectory(dir=directory) as folder, Pair(Path(folder)) as pair:
        print(json.dumps({name: round(value, 2) for name, value in pair.measure(rate, seconds).items()}))


if __name__ == "__main__":
    given = [*sys.argv[2:], "0", "4"]
    main(Path(sys.argv[1]), int(float(given[0]) * 2**20), float(given[1] if len(sys.argv) > 3 else 4))
