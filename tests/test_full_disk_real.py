"""A full disk, and one that hangs (mission row B8), under real processes: made so by the shim, and by a small file system."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import mounts
import shim
from cluster import wait_until
from ports import free_port
from worker import Worker

pytestmark = pytest.mark.processes

SEGMENT = 1 << 17
VALUE = 8000
LIMITS = {"segment_bytes": SEGMENT, "max_value": 1 << 13, "batch_bytes": 1 << 13, "log_budget": 1 << 30}


class Trio:
    """Three nodes in processes of their own."""

    def __init__(
        self,
        base: Path,
        environment: Callable[[int], Mapping[str, str]] = lambda node: {},
        prefix: Callable[[int], Sequence[str]] = lambda node: (),
    ) -> None:
        self.base = base
        self.environment = environment
        self.prefix = prefix
        self.addresses = {i: f"127.0.0.1:{free_port()}" for i in (1, 2, 3)}
        self.workers: dict[int, Worker] = {}
        for node in self.addresses:
            self.data(node).mkdir(parents=True)
        for node in self.addresses:
            self.start(node)

    def data(self, node: int) -> Path:
        return self.base / str(node)

    def start(self, node: int) -> None:
        self.workers[node] = Worker(
            self.data(node),
            node,
            self.addresses,
            prefix=self.prefix(node),
            environment=self.environment(node),
            **LIMITS,
        )

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()

    def status(self, node: int) -> dict[str, Any]:
        status: dict[str, Any] = self.workers[node].call("status")
        return status

    def propose(self, node: int, timeout: float = 5.0) -> str:
        """Empty, or the type of the error."""
        return str(self.workers[node].call("try", [timeout, VALUE])[0])

    def others(self, node: int) -> list[int]:
        return [other for other in self.addresses if other != node]

    def master(self, among: Sequence[int] | None = None) -> int:
        """The master that these (all) take for it, if it is one of them; else 0."""
        among = among or list(self.addresses)
        seen = {self.status(node)["master_id"] for node in among}
        return seen.pop() if len(seen) == 1 and seen <= set(among) else 0

    def level(self) -> bool:
        states = [self.status(node) for node in self.addresses]
        return len({(s["chosen"], s["applied"], s["checksum"]) for s in states}) == 1

    def write(self, node: int, until: Callable[[], bool], what: str) -> int:
        """Proposes there until something is so; how many were answered."""
        answered = 0

        def step() -> bool:
            nonlocal answered
            if until():
                return True
            answered += self.propose(node) == ""
            return False

        wait_until(step, what)
        return answered


@contextmanager
def trio(base: Path, **options: Any) -> Iterator[Trio]:
    made = Trio(base, **options)
    try:
        for worker in made.workers.values():
            worker.call("ready", 60)
        yield made
    finally:
        made.close()


def check_full_disk(nodes: Trio, full: int, fill: Callable[[], None], free: Callable[[], None], restart: bool) -> None:
    """The disk of node `full`, the master, fills up and gets room again."""
    one, other = nodes.others(full)
    fill()
    nodes.write(one, lambda: bool(nodes.status(full)["disk_full"]), "the node notices that its disk is full")
    wait_until(lambda: nodes.master([one, other]), "another node takes over")
    error, text = nodes.workers[full].call("try", [5.0, VALUE])
    assert error == "DiskFull"
    assert str(nodes.data(full)) in text
    # It applies, and accepts, what the others choose.
    records = nodes.status(full)["log_records"]
    assert nodes.propose(one) == ""
    wait_until(nodes.level, "the node with the full disk follows")
    assert nodes.status(full)["log_records"] > records
    # ... until its reserve is used up. Then it does nothing, and lives.
    assert nodes.write(
        one, lambda: nodes.status(full)["chosen"] + 20 < nodes.status(one)["chosen"], "its reserve is used up"
    )
    assert nodes.workers[full].process.poll() is None
    if restart:
        nodes.workers[full].close()
        free()
        nodes.start(full)
        nodes.workers[full].call("ready", 60)
    else:
        free()
    wait_until(lambda: not nodes.status(full)["disk_full"], "the node notices that there is room")
    assert nodes.propose(full) == ""
    wait_until(nodes.level, "all are level")


@pytest.mark.parametrize("restart", [False, True])
def test_a_disk_fills_up_and_gets_room_again(tmp_path: Path, shim_library: Path, restart: bool) -> None:
    def environment(node: int) -> Mapping[str, str]:
        return shim.environment(shim_library, tmp_path / "data" / str(node), full=tmp_path / f"full{node}")

    with trio(tmp_path / "data", environment=environment) as nodes:
        full = wait_until(nodes.master, "a master")
        mood = tmp_path / f"full{full}"
        check_full_disk(nodes, full, mood.touch, mood.unlink, restart)


@pytest.mark.mounts
def test_a_small_file_system_fills_up_and_gets_room_again(tmp_path: Path) -> None:
    """No shim: each node has a file system of 8 MiB, in a mount namespace of its own, and somebody else's file eats it up."""

    def prefix(node: int) -> Sequence[str]:
        return mounts.prefix("8m", tmp_path / "data" / str(node))

    with trio(tmp_path / "data", prefix=prefix) as nodes:
        full = wait_until(nodes.master, "a master")
        ballast = mounts.inside(nodes.workers[full].process.pid, nodes.data(full)) / "ballast"

        def fill() -> None:
            with pytest.raises(OSError, match="No space left"):
                shutil.copyfile("/dev/zero", ballast)

        check_full_disk(nodes, full, fill, ballast.unlink, restart=False)


def test_a_disk_hangs_and_goes_on(tmp_path: Path, shim_library: Path) -> None:
    def environment(node: int) -> Mapping[str, str]:
        return shim.environment(shim_library, tmp_path / "data" / str(node), hang=tmp_path / f"hang{node}")

    with trio(tmp_path / "data", environment=environment) as nodes:
        hung = wait_until(nodes.master, "a master")
        one, other = nodes.others(hung)
        mood = tmp_path / f"hang{hung}"
        mood.touch()
        nodes.propose(one, 1.0)  # it is chosen by the others, or nobody knows; but now the hung one is in its write
        wait_until(lambda: nodes.master([one, other]), "another node takes over")
        before = nodes.status(hung)["log_records"]
        for _ in range(20):
            assert nodes.propose(other) == ""
        assert nodes.status(hung)["log_records"] == before
        mood.unlink()
        wait_until(lambda: nodes.status(hung)["role"] == "follower", "the old master steps down")
        wait_until(nodes.level, "all are level")
        assert nodes.propose(hung) == ""
        assert nodes.workers[hung].process.poll() is None
