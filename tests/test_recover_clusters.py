"""``paxos recover`` with real clusters: written to, ended, robbed of their majority, recovered, and met by their former nodes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import mounts
import paxos
import shim
from cluster import DEADLINE, Load, MakeCluster
from leftovers import digest, flip
from nodes import Journal, book, cluster, master_of, until
from paxos.cli import main
from paxos.kv import KvStateMachine
from paxos.kv import values as v
from paxos.offline import Recovery, StoppedNode, make_cluster
from ports import free_port

OPTIONS: dict[str, Any] = {"segment_bytes": 1 << 20, "max_value": 1 << 16, "batch_bytes": 1 << 16, "mirror": False}


@contextlib.asynccontextmanager
async def started(
    path: Path, addresses: dict[int, str], ids: Sequence[int], machine: Any = Journal
) -> AsyncIterator[dict[int, paxos.Node]]:
    nodes: dict[int, paxos.Node] = {}
    try:
        for id_ in ids:
            nodes[id_] = await paxos.Node.open(
                path / str(id_), node_id=id_, cluster=addresses, state_machine=machine, **OPTIONS
            )
        yield nodes
    finally:
        for node in nodes.values():
            await node.close()


def journal(node: paxos.Node) -> list[bytes]:
    machine = node._group.machines[0]
    assert isinstance(machine, Journal)
    return machine.values


async def live(path: Path, count: int = 3, writes: int = 50) -> dict[int, str]:
    """A cluster that has acknowledged values, all of them applied on all of its nodes; its addresses."""
    addresses = book(count)
    async with cluster(path, count, addresses=addresses, **OPTIONS) as nodes:
        for number in range(writes):
            await nodes[1 + number % count].propose(b"%d" % number)
        await until(lambda: all(len(journal(node)) == writes for node in nodes.values()), "all is applied")
    return addresses


def test_a_cluster_goes_on_and_its_old_nodes_are_kept_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        addresses = await live(tmp_path / "old")
        before = digest(tmp_path / "old")
        with Recovery([tmp_path / "old" / "2"]) as recovery:
            make_cluster(recovery, tmp_path / "new", [1, 2, 3])
            older = max(survivor.system.mastership for survivor in recovery.survivors)
        assert older > 0
        assert digest(tmp_path / "old") == before
        async with started(tmp_path / "new", addresses, [2, 3]) as nodes:
            for node in nodes.values():
                await node.wait_ready(DEADLINE)
            assert await nodes[3].propose(b"more") == 50
            # A fencing token of the old cluster is never given out again, whatever its lost nodes did.
            _, version = nodes[3]._engine.status()["mastership"]
            assert version > older + (1 << 32)
            # The lost node 1 comes back after all: with the address that it had, which is that of the new one.
            async with started(tmp_path / "old", addresses, [1]) as old:
                await until(
                    lambda: all(n.status().frames_refused["other_cluster"] for n in [old[1], *nodes.values()]),
                    "both sides refuse",
                )  # fmt: skip
                with pytest.raises(paxos.NotAvailable):
                    await old[1].propose(b"to the old cluster", timeout=1)
                assert not any(node.status().peers[1] for node in nodes.values())
                assert await nodes[2].propose(b"and more") == 51
            words = [record.getMessage() for record in caplog.records if "another cluster" in record.getMessage()]
            assert any("node 1 " in word for word in words), words
            assert any("node 2 " in word or "node 3 " in word for word in words), words
            async with started(tmp_path / "new", addresses, [1]) as late:
                await late[1].wait_ready(DEADLINE)
                await until(lambda: len(journal(late[1])) == 52, "the new node 1 learns")
                assert journal(late[1])[:50] == [b"%d" % number for number in range(50)]
                assert len({node.status().checksum for node in [late[1], *nodes.values()]}) == 1

    with caplog.at_level(logging.INFO):
        asyncio.run(story())


def test_a_checkpoint_and_a_replaced_member(tmp_path: Path) -> None:
    """The log holds a change of the old membership, and begins at a checkpoint. The new cluster is one node, then it restarts."""

    async def put(node: paxos.Node, *numbers: int) -> None:
        for number in numbers:
            await node.propose(v.encode_set(b"key%d" % number, b"value", 0))

    async def story() -> None:
        addresses = book(3)
        options = {**OPTIONS, "log_hold": 0, "election_timeout": 0.2, "heartbeat": 0.02}
        async with cluster(tmp_path / "old", 3, addresses=addresses, machine=KvStateMachine, **options) as nodes:
            await put(nodes[1], *range(10))
            lost = next(id_ for id_ in (2, 3) if not nodes[id_].is_master())
            await nodes.pop(lost).close()
            nodes[lost] = await paxos.Node.open(
                tmp_path / "old" / f"{lost}again",
                node_id=lost,
                cluster=addresses,
                state_machine=KvStateMachine,
                **options,
            )
            await until(lambda: nodes[lost].status().votes, "it was taken in anew")
            master = master_of(nodes)
            await master.checkpoint()
            await until(lambda: master.status().first_kept > 0, "the log begins at the checkpoint")
            await put(master, *range(10, 15))
            left = master.status().node_id
            chosen = master.status().chosen
        # The directory of the incarnation that was replaced is no second member; what it holds may serve all the same.
        with Recovery([tmp_path / "old" / str(left), tmp_path / "old" / str(lost)]) as recovery:
            assert recovery.report.lost == [id_ for id_ in (1, 2, 3) if id_ != left]
            assert "another one took its place" in recovery.report.members[lost - 1].why
            assert recovery.report.kept >= chosen
            assert recovery.report.checkpoint > 0
            make_cluster(recovery, tmp_path / "new", [5])
        for restart in range(2):
            alone = {5: f"127.0.0.1:{free_port()}"}
            async with started(tmp_path / "new", alone, [5], KvStateMachine) as fresh:
                await fresh[5].wait_ready(DEADLINE)
                await put(fresh[5], 99)
                machine = fresh[5]._group.machines[0]
                assert isinstance(machine, KvStateMachine)
                assert sorted(machine._data) == sorted(b"key%d" % number for number in [*range(15), 99]), restart
                await fresh[5].checkpoint()

    asyncio.run(story())


def test_a_change_in_the_log_is_void_in_the_new_cluster(tmp_path: Path) -> None:
    """As above, but without a checkpoint: the change itself is replayed."""

    async def story() -> None:
        addresses = book(3)
        options = {**OPTIONS, "election_timeout": 0.2, "heartbeat": 0.02}
        async with cluster(tmp_path / "old", 3, addresses=addresses, **options) as nodes:
            await nodes[1].propose(b"first")
            lost = next(id_ for id_ in (2, 3) if not nodes[id_].is_master())
            await nodes.pop(lost).close()
            nodes[lost] = await paxos.Node.open(
                tmp_path / "old" / f"{lost}again", node_id=lost, cluster=addresses, state_machine=Journal, **options
            )
            await until(lambda: nodes[lost].status().votes, "it was taken in anew")
            left = master_of(nodes).status().node_id
            await nodes[left].propose(b"last")
        with StoppedNode(tmp_path / "old" / str(left)) as node:
            assert node.system().membership_version == 1
        with Recovery([tmp_path / "old" / str(left)]) as recovery:
            make_cluster(recovery, tmp_path / "new", [1, 2, 3])
        async with started(tmp_path / "new", book(3), [1, 2, 3]) as fresh:
            for node in fresh.values():
                await node.wait_ready(DEADLINE)
            assert await fresh[1].propose(b"more") == 2
            assert all(node.status().votes for node in fresh.values())
            await until(lambda: all(journal(n) == [b"first", b"last", b"more"] for n in fresh.values()), "all have it")

    asyncio.run(story())


def test_a_damaged_survivor(tmp_path: Path) -> None:
    """What stands before the damage is there; what stood behind it may be lost, and the report says so."""

    async def story() -> None:
        await live(tmp_path / "old")
        with StoppedNode(tmp_path / "old" / "2") as node:
            place = next(node.place(r.position) for r in node.records() if r.type == "accept" and r.instance == 30)
        flip(tmp_path / "old" / "2" / "log" / f"{place[0]:016x}.seg", place[1] + 50)
        with Recovery([tmp_path / "old" / "2"]) as recovery:
            certain = recovery.report.certain
            assert 20 < certain <= 30
            assert recovery.report.may_be_lost_from == certain
            kept = recovery.report.kept
            make_cluster(recovery, tmp_path / "new", [1])
        async with started(tmp_path / "new", {1: f"127.0.0.1:{free_port()}"}, [1]) as fresh:
            await fresh[1].wait_ready(DEADLINE)
            await fresh[1].propose(b"more")
            applied = journal(fresh[1])
            assert applied[:-1] == [b"%d" % number for number in range(len(applied) - 1)]
            assert len(applied) - 1 == kept - 1, "one instance is the no-op of the election"

    asyncio.run(story())


@pytest.mark.processes
def test_killed_processes_and_the_command(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """All nodes of a service die at once, two of three for good. What was acknowledged before is served by the new one."""
    old = make_cluster()
    old.wait_ready()
    load = Load(old)
    load.start()
    load.wait(300)
    load.stop()
    old.wait_level()
    running = subprocess.run(command(old.nodes[2].data), capture_output=True, text=True, check=False)
    assert running.returncode == 2
    assert "is in use by the process with pid" in running.stderr
    old.kill_all()
    made = subprocess.run(
        command(old.nodes[2].data, "--new-cluster", "--to", tmp_path / "new", "--yes", "--json"),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    report = json.loads(made.stdout)
    assert (report["lost"], report["certainly_lost"]) == ([1, 3], None)
    fresh = make_cluster(start=False)
    for node in fresh:
        node.data = tmp_path / "new" / str(node.id)
    fresh.start()
    fresh.wait_ready()
    load.check(fresh.nodes[1])
    load.check(fresh.nodes[3])
    with contextlib.closing(fresh.nodes[2].client()) as client:
        assert client.set("after", "all")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "paxos", "recover", *map(str, arguments)]


def environment(added: Mapping[str, str]) -> dict[str, str]:
    top = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, **added, "PYTHONPATH": os.pathsep.join(filter(None, [top, os.environ.get("PYTHONPATH", "")]))}


# -- full disks, and sudden deaths


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """The directory of one of three nodes."""
    asyncio.run(live(tmp_path / "old"))
    return tmp_path / "old" / "1"


def recovered(path: Path) -> None:
    """The new cluster of one node in there has it all."""

    async def story() -> None:
        async with started(path, {1: f"127.0.0.1:{free_port()}"}, [1]) as nodes:
            await nodes[1].wait_ready(DEADLINE)
            assert await nodes[1].propose(b"more") == 50

    asyncio.run(story())


@pytest.mark.processes
def test_a_full_disk(left: Path, tmp_path: Path, shim_library: Path) -> None:
    full, place = tmp_path / "full", tmp_path / "place"
    place.mkdir()
    full.touch()
    added = shim.environment(shim_library, place, full=full)
    arguments = command(left, "--new-cluster", "--to", place / "new", "--yes", "--nodes", "1")
    run = subprocess.run(arguments, env=environment(added), capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "No space left on device" in run.stderr
    assert run.stderr.count("\n") == 1
    assert list(place.iterdir()) == []
    full.unlink()
    subprocess.run(arguments, env=environment(added), capture_output=True, check=True)
    recovered(place / "new")


@pytest.mark.mounts
@pytest.mark.processes
@pytest.mark.parametrize("room", ["1m", "2500k"])
def test_a_disk_that_fills_up_in_the_midst(left: Path, tmp_path: Path, room: str) -> None:
    """A file system with room for less than the logs of three nodes; one that has room shows that this is the reason."""
    place = tmp_path / "place"
    place.mkdir()
    script = 'ls -A "$0" && shift 0; "$@"; status=$?; ls -A "$0"; exit $status'
    arguments = command(left, "--new-cluster", "--to", place / "new", "--yes")
    for size, status in ((room, 1), ("40m", 0)):
        run = subprocess.run(
            [*mounts.prefix(size, place), "sh", "-c", script, str(place), *arguments],
            env=environment({}), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == status, run.stderr
        assert ("No space left on device" in run.stderr) == bool(status)
        assert run.stdout.endswith("new\n") == (not status)
        assert "unfinished" not in run.stdout


DYING = """
import os, signal, sys
from paxos.offline import Recovery, make_cluster
calls = 0
def progress(what, done, of):
    global calls
    calls += 1
    if calls == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
with Recovery([sys.argv[1]]) as recovery:
    make_cluster(recovery, sys.argv[2], [1, 2], progress=progress)
"""


@pytest.mark.processes
def test_killed_in_the_midst_and_begun_again(left: Path, tmp_path: Path) -> None:
    before = digest(tmp_path / "old")
    deaths = 0
    for death in range(1, 100):
        run = subprocess.run(
            [sys.executable, "-c", DYING, left, tmp_path / "new", str(death)], env=environment({}), check=False
        )
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGKILL
        deaths += 1
        assert not (tmp_path / "new").exists()
        assert (tmp_path / "new.unfinished").exists()
    assert deaths > 3
    assert digest(tmp_path / "old") == before
    assert not (tmp_path / "new.unfinished").exists()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["1", "2", "recovered.json"]


@pytest.mark.parametrize("step", ["_checkpoint", "_values", "_form"])
def test_a_log_that_is_not_finished_is_no_log(
    left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Whoever starts a node on what a crash has left in the midst is refused: the formation comes last."""

    def broken_off(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("paxos.offline.newcluster._remove", lambda folder: None)
    monkeypatch.setattr(f"paxos.offline.newcluster._Maker.{step}", broken_off)
    with Recovery([left]) as recovery, pytest.raises(KeyboardInterrupt):
        make_cluster(recovery, tmp_path / "new", [1])
    path = tmp_path / "new.unfinished" / "1"
    with StoppedNode(path) as node:
        assert not node.system().formed

    async def story() -> None:
        with pytest.raises(paxos.DamagedLog, match="contradicts itself"):
            await paxos.Node.open(path, node_id=1, cluster=book(1), state_machine=Journal, **OPTIONS)

    asyncio.run(story())


@pytest.mark.processes
def test_ctrl_c(
    left: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(tmp_path / "old")

    def interrupted(self: object, *arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("paxos.offline.newcluster._Maker._tidy", interrupted)
    assert main(["recover", str(left), "--new-cluster", "--to", str(tmp_path / "new"), "--yes"]) == 130
    assert capsys.readouterr().err.strip() == "paxos: interrupted"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]
    assert digest(tmp_path / "old") == before
