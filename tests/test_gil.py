"""A Python thread that hogs the GIL costs a healthy node nothing; beyond stuck_limit a master gives up (B14)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster import wait_until
from ports import free_port
from worker import Worker

pytestmark = pytest.mark.processes

HOG = 5.0  # seconds, far above every election timeout


@contextmanager
def workers(path: Path, **options: Any) -> Iterator[tuple[Worker, list[Worker]]]:
    """Three nodes in processes: the master, and the others."""
    cluster = {i: f"127.0.0.1:{free_port()}" for i in (1, 2, 3)}
    started = {i: Worker(path / str(i), i, cluster, **options) for i in cluster}
    try:
        for worker in started.values():
            worker.call("ready", 60)
        master = started[1].call("status")["master_id"]
        yield started[master], [w for i, w in started.items() if i != master]
    finally:
        for worker in started.values():
            worker.close()


def elections(all_of: list[Worker]) -> int:
    return sum(worker.call("status")["elections"] for worker in all_of)


def test_a_hogged_follower_goes_on_voting_and_writes_go_on(tmp_path: Path) -> None:
    with workers(tmp_path) as (master, others):
        before = elections([master, *others])
        stopped = others[1]
        stopped.process.kill()  # from here on the quorum needs the hogged follower
        stopped.process.wait()
        hogged = others[0]
        hogged.send("hog", HOG)
        assert hogged.answer() == "hogging"
        writes = 0
        for _ in range(200):
            assert master.call("propose", 60) == 100
            writes += 1
        # All of these were accepted by a node whose Python has not moved since before the first of them.
        assert hogged.answer() is None
        assert hogged.call("status")["chosen"] >= writes
        assert elections([master, hogged]) == before


def test_a_hogged_master_stays_master_below_the_limit(tmp_path: Path) -> None:
    with workers(tmp_path) as (master, others):
        before = elections([master, *others])
        master.send("hog", HOG)
        assert master.answer() == "hogging"
        assert master.answer() is None
        assert elections([master, *others]) == before
        assert others[0].call("propose", 60) == 100
        assert master.call("status")["role"] == "master"


def test_a_master_stuck_beyond_the_limit_gives_up(tmp_path: Path) -> None:
    with workers(tmp_path, stuck_limit=1.0) as (master, others):
        old = master.call("status")["node_id"]
        master.send("hog", HOG)
        assert master.answer() == "hogging"
        wait_until(lambda: others[0].call("status")["master_id"] not in (0, old), "mastership moves")
        assert others[0].call("propose", 60) == 100, "and writes go on"
        assert master.answer() is None
        wait_until(lambda: master.call("status")["master_id"] not in (0, old), "the old master follows")
