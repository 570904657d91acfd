"""Three nodes, each in a network namespace whose link sends at a given rate (``tc``): large values from one client, small ones
from four, all at the master. Needs root, ``ip`` and ``tc``.

    python benchmarks/slow_links.py DIRECTORY RATE [MIB] [SECONDS]      RATE as tc writes it: 400mbit
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import paxos
from paxos.cli.bench_load import percentile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from netns import Network

PORT = 7101


class Length(paxos.StateMachine):
    """Does nothing with what it gets."""

    def apply(self, instance: int, value: bytes) -> int:
        """The length of the value."""
        return len(value)


async def node(told: dict[str, Any]) -> None:
    """One node; the master makes the load and says what it saw, then each says how it stands."""
    size, seconds = told["size"], told["seconds"]
    cluster = {int(number): address for number, address in told["cluster"].items()}
    opened = await paxos.Node.open(
        told["data"], node_id=told["node"], cluster=cluster, state_machine=Length, max_value=size,
        segment_bytes=max(64 << 20, 2 * size),
    )  # fmt: skip
    await opened.wait_ready(30)
    await asyncio.sleep(1)
    large: list[float] = []
    small: list[float] = []
    failed = 0
    end = time.perf_counter() + seconds

    async def client(value: bytes, took: list[float]) -> None:
        nonlocal failed
        while time.perf_counter() < end:
            began = time.perf_counter()
            try:
                await opened.propose(value, timeout=60)
            except paxos.PaxosError:
                failed += 1
                await asyncio.sleep(0.01)
            else:
                took.append(time.perf_counter() - began)

    if opened.is_master():
        before = opened.status().bytes_sent
        await asyncio.gather(client(os.urandom(size), large), *(client(bytes(100), small) for _ in range(4)))
        print(json.dumps({
            "large": len(large), "large_p50_s": round(percentile(sorted(large), 0.5), 3), "small": len(small),
            "small_p99_s": round(percentile(sorted(small), 0.99), 3), "failed": failed,
            "sent_mib": round((opened.status().bytes_sent - before) / 2**20),
        }))  # fmt: skip
    else:
        await asyncio.sleep(seconds + 3)
    status = opened.status()
    print(json.dumps({"node": told["node"], "elections": status.elections, "chosen": status.chosen}), flush=True)
    await asyncio.sleep(max(0, end + 6 - time.perf_counter()))  # nobody goes before all have what is chosen
    await opened.close()


def main(directory: Path, rate: str, size: int, seconds: float) -> None:
    """Runs the nodes, and prints what they say."""
    with Network(3) as network, tempfile.TemporaryDirectory(dir=directory) as folder:
        for name in (network.names[number] for number in network.hosts):
            shape = f"tc qdisc add dev up0 root tbf rate {rate} burst 64kb latency 100ms"
            subprocess.run(["ip", "netns", "exec", name, *shape.split()], check=True)
        cluster = {number: f"{host}:{PORT}" for number, host in network.hosts.items()}
        running = []
        for number in cluster:
            told = {"node": number, "cluster": cluster, "data": f"{folder}/{number}", "size": size, "seconds": seconds}
            running.append(subprocess.Popen([*network.prefixes[number], sys.executable, __file__, json.dumps(told)]))
        for process in running:
            process.wait(seconds + 120)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        asyncio.run(node(json.loads(sys.argv[1])))
    else:
        given = [*sys.argv[3:], *("10", "6")[len(sys.argv) - 3 :]]
        main(Path(sys.argv[1]), sys.argv[2], int(float(given[0]) * 2**20), float(given[1]))
