"""Checkpoints made by a copy of the state machine in a child process, and those that the node makes itself."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mirror_machines as machines
import paxos
from nodes import cluster, until
from paxos._folder import Folder
from paxos._logreader import LogReader
from paxos.checkpoint import CheckpointStore, Manifest
from paxos.errors import CheckpointFailed, ConfigError, StorageError
from paxos.mirror import Mirror, MirrorJob, obstacle
from paxos.sessions import SESSIONS, SessionTable
from paxos.snapshot import Cut, Writing, has_checkpoints, make_machines, restore_machines
from ports import free_port

DEADLINE = 60.0


def job_of(node: paxos.Node, path: Path, factory: Any, **options: Any) -> MirrorJob:
    """What the node has applied by now."""
    status = node._engine.status()  # type: ignore[attr-defined]
    applied, chain = node._group.applied + 1, node._group.checksum
    cut = Cut(applied, chain, bytes.fromhex(status["signature"]), b"members")
    return MirrorJob(str(path), status["node_id"], status["incarnation"], cut, factory, **options)


def make_checkpoint(job: MirrorJob) -> Manifest:
    return Mirror(job).run()


def make_inline(machines: Any, store: CheckpointStore, cut: Cut, work: Path) -> Manifest:
    with Writing(store, cut, work) as writing:
        writing.take(machines)
        return writing.commit()


def machine_of(node: paxos.Node, id_: int = 0) -> Any:
    return node._group._machines[id_]


class Checkpoints:
    """Those in a data directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = Folder(path)
        self.store = CheckpointStore(self.folder.files())

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception: object) -> None:
        self.folder.close()

    def restored(self, manifest: Manifest, factory: Any) -> Any:
        made = make_machines(factory)
        there = any(entry.machine == SESSIONS for entry in manifest.entries)  # a node has made it
        machines = {**made, SESSIONS: SessionTable()} if there else made
        restore_machines(self.store, manifest, machines, self.path / "snapshot")
        return made


BEFORE: set[int] = set()
"""Children that other tests have left to this process (a pool's server, say)."""


@pytest.fixture(autouse=True)
def _only_its_own() -> None:
    BEFORE.clear()
    BEFORE.update(children())


def children() -> list[int]:
    while True:
        found = []
        try:
            for task in Path("/proc/self/task").iterdir():
                found += [int(pid) for pid in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread has ended meanwhile, and its children are another's now
        break
    return [pid for pid in found if pid not in BEFORE]


def descriptors() -> Counter[str]:
    """What this process has open, but for the files of logs: new segments are made at any time."""
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return Counter(name for link in links if os.path.lexists(link) and "/log/" not in (name := os.readlink(link)))


def nothing_left(path: Path, *instances: int) -> None:
    """No process, no temporary file, and of checkpoints only these."""
    assert children() == []
    assert not (path / "snapshot").exists()
    names = sorted(os.listdir(path / "checkpoints"))
    assert {name for name in names if name.endswith(".manifest")} == {f"{i:016x}.manifest" for i in instances}
    assert {name[:16] for name in names} == {f"{i:016x}" for i in instances}


async def written(nodes: dict[int, paxos.Node], count: int, size: int = 100, machine: int = 0) -> None:
    dice = random.Random(count)
    for i in range(count):
        await nodes[1 + i % len(nodes)].propose(dice.randbytes(size), timeout=DEADLINE, machine=machine)


async def level(nodes: dict[int, paxos.Node]) -> None:
    await until(lambda: len({(n.status().applied, n.status().chosen) for n in nodes.values()}) == 1, "all nodes level")


def run(story: Any) -> None:
    asyncio.run(story)


def test_a_mirror_makes_what_the_node_has(tmp_path: Path) -> None:
    """On every node, while values go on; the second begins with the first."""

    async def story() -> None:
        async with cluster(tmp_path, machine=machines.Journal) as nodes:
            await written(nodes, 50)
            await level(nodes)
            before = descriptors()
            for i, node in nodes.items():
                path = tmp_path / str(i)
                first = job_of(node, path, machines.Journal)
                values = list(machine_of(node).values)
                writing = asyncio.create_task(written(nodes, 30))
                manifest = await asyncio.to_thread(make_checkpoint, first)
                await writing
                assert (manifest.instance, manifest.chain, manifest.signature, manifest.membership) == (
                    first.cut.instance, first.cut.chain, first.cut.signature, b"members"
                )  # fmt: skip
                with Checkpoints(path) as checkpoints:
                    assert checkpoints.store.list() == [manifest]
                    copy = checkpoints.restored(manifest, machines.Journal)[0]
                    assert copy.values == values
                    assert copy.applied_before == first.cut.instance
                await level(nodes)
                second = job_of(node, path, machines.Journal)
                manifest = await asyncio.to_thread(make_checkpoint, second)
                with Checkpoints(path) as checkpoints:
                    copy = checkpoints.restored(manifest, machines.Journal)[0]
                    assert copy.values == machine_of(node).values
                    # Only what was new was applied.
                    assert copy.applied_before == second.cut.instance - first.cut.instance
                nothing_left(path, first.cut.instance, second.cut.instance)
            assert not descriptors() - before

    run(story())


def test_several_state_machines_with_streams_and_files(tmp_path: Path) -> None:
    factory = {0: machines.Journal, 7: functools.partial(machines.make, b"tag"), 9: machines.Filed, 10: machines.Filed}

    async def story() -> None:
        async with cluster(tmp_path, 1, machine=factory) as nodes:
            for id_ in (0, 7, 9, 0, 9):
                await written(nodes, 5, machine=id_)
            path = tmp_path / "1"
            for _ in range(2):
                manifest = await asyncio.to_thread(make_checkpoint, job_of(nodes[1], path, factory))
                with Checkpoints(path) as checkpoints:
                    copies = checkpoints.restored(manifest, factory)
                assert {id_: copy.values for id_, copy in copies.items()} == {
                    id_: machine_of(nodes[1], id_).values for id_ in factory
                }
                assert copies[7].tag == b"tag"
                assert len(copies[9].values) == 10
                assert copies[10].values == []
                await written(nodes, 1)
            assert not (path / "snapshot").exists()

    run(story())


def test_the_newest_checkpoint_that_verifies_is_begun_with(tmp_path: Path) -> None:
    """One damaged is passed over, one of another cluster or above the cut too; with none it begins at the begin of the log."""

    async def story() -> None:
        async with cluster(tmp_path, 1, machine=machines.Journal) as nodes:
            path = tmp_path / "1"
            made = []
            for _ in range(4):
                await written(nodes, 10, 2000)
                made.append(job_of(nodes[1], path, machines.Journal))
            old, damaged, foreign, last = made
            await asyncio.to_thread(make_checkpoint, old)
            await asyncio.to_thread(make_checkpoint, damaged)
            file = path / "checkpoints" / f"{damaged.cut.instance:016x}-0.data"
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
            with Checkpoints(path) as checkpoints:
                make_inline(
                    {0: machines.Journal(b"foreign")}, checkpoints.store,
                    Cut(foreign.cut.instance, foreign.cut.chain, bytes(16), b""), path / "snapshot",
                )  # fmt: skip
                make_inline(
                    {0: machines.Journal(b"above")}, checkpoints.store,
                    Cut(last.cut.instance + 1, 0, last.cut.signature, b""), path / "snapshot",
                )  # fmt: skip
            manifest = await asyncio.to_thread(make_checkpoint, last)
            with Checkpoints(path) as checkpoints:
                copy = checkpoints.restored(manifest, machines.Journal)[0]
            assert copy.values == machine_of(nodes[1]).values
            assert copy.applied_before == last.cut.instance - old.cut.instance

    run(story())


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (machines.Poisoned, "ValueError: that was the poison"),
        (machines.Durable, "begins with what it has applied up to instance 3.*in the node's own process"),
        (machines.Bare, "Bare cannot be put into a checkpoint"),
        (machines.Half, r"Half has snapshot\(\) but no restore\(\)"),
        (machines.Linked, "neither a plain file nor a directory"),
        (functools.partial(machines.Killed, os.getpid()), "SIGKILL"),
        ({1: machines.Journal}, "has values for state machine 0"),
    ],
)
def test_what_goes_wrong_in_the_child_is_told(tmp_path: Path, factory: Any, message: str) -> None:
    async def story() -> None:
        async with cluster(tmp_path, 1, machine=machines.Journal) as nodes:
            await written(nodes, 5)
            await nodes[1].propose(b"poison")
            before = descriptors()
            job = job_of(nodes[1], tmp_path / "1", factory)
            with pytest.raises(CheckpointFailed, match=message) as caught:
                await asyncio.to_thread(make_checkpoint, job)
            assert f"instance {job.cut.instance}" in str(caught.value)
            assert "SIGKILL" in message or "Traceback" in caught.value.__notes__[0]
            nothing_left(tmp_path / "1")
            assert not descriptors() - before
            # And the next one works.
            await asyncio.to_thread(make_checkpoint, job_of(nodes[1], tmp_path / "1", machines.Journal))
            nothing_left(tmp_path / "1", job.cut.instance)
            with pytest.raises(CheckpointFailed, match="is there already"):
                await asyncio.to_thread(make_checkpoint, job_of(nodes[1], tmp_path / "1", machines.Journal))
            nothing_left(tmp_path / "1", job.cut.instance)

    run(story())


def test_a_wrong_checksum_makes_no_checkpoint(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, 1, machine=machines.Journal) as nodes:
            await written(nodes, 5)
            right = job_of(nodes[1], tmp_path / "1", machines.Journal)
            await written(nodes, 5)
            cut = Cut(right.cut.instance, right.cut.chain ^ 1, right.cut.signature, b"")
            wrong = MirrorJob(right.directory, right.node_id, right.incarnation, cut, machines.Journal)
            with pytest.raises(CheckpointFailed, match="chain checksum at instance"):
                await asyncio.to_thread(make_checkpoint, wrong)
            nothing_left(tmp_path / "1")

    run(story())


async def appeared(file: Path) -> tuple[int, int]:
    """The process id and the niceness that a Stuck state machine has written down."""
    await until(file.exists, "the child is at work")
    pid, nice = file.read_text().split()
    return int(pid), int(nice)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that only waits to be reaped has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("where", ["apply", "snapshot"])
def test_cancelling(tmp_path: Path, where: str) -> None:
    """Ends a child in the midst of its work, at once and without a trace. One that has not begun never does."""
    file = tmp_path / "stuck"
    factory = {5: machines.Filed, 0: functools.partial(machines.Stuck, str(file), os.getpid(), where)}

    async def story() -> None:
        async with cluster(tmp_path, 1, machine=machines.Journal) as nodes:
            await written(nodes, 5)
            before = descriptors()
            mirror = Mirror(job_of(nodes[1], tmp_path / "1", factory))
            running = asyncio.create_task(asyncio.to_thread(mirror.run))
            try:
                pid, nice = await appeared(file)
                assert nice == min(19, os.nice(0) + 10)
                assert pid in children()
                if where == "snapshot":
                    assert (tmp_path / "1" / "snapshot").exists()
                    assert os.listdir(tmp_path / "1" / "checkpoints")
            finally:
                mirror.cancel()
            with pytest.raises(CheckpointFailed, match="cancelled"):
                await asyncio.wait_for(running, DEADLINE)
            assert gone(pid)
            nothing_left(tmp_path / "1")
            assert not descriptors() - before
            mirror = Mirror(job_of(nodes[1], tmp_path / "1", factory))
            mirror.cancel()
            with pytest.raises(CheckpointFailed, match="cancelled"):
                mirror.run()
            nothing_left(tmp_path / "1")

    run(story())


def script(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "service.py"
    file.write_text(textwrap.dedent(text))
    return file


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


SERVICE = """
    import asyncio, functools, os, sys, time
    from pathlib import Path
    import paxos
    import mirror_machines as machines
    from test_mirror import job_of, make_checkpoint

    class Mine(machines.Journal):
        pass

    async def main(factory, port):
        async with await paxos.Node.open("data", node_id=1, cluster={{1: f"127.0.0.1:{{port}}"}}, state_machine=factory) as node:
            for i in range(5):
                await node.propose(b"%d" % i, timeout=30)
            try:
                manifest = await asyncio.to_thread(make_checkpoint, job_of(node, Path("data"), factory))
                print("made", manifest.instance, flush=True)
            except paxos.CheckpointFailed as error:
                print("failed", error, flush=True)

    {guard}asyncio.run(main({factory}, {port}))
"""


def serve(tmp_path: Path, guard: str, factory: str) -> str:
    file = script(tmp_path, SERVICE.format(guard=guard, factory=factory, port=free_port()))
    done = subprocess.run(
        [sys.executable, file],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


GUARD = 'if __name__ == "__main__": '


def test_a_state_machine_of_a_script(tmp_path: Path) -> None:
    assert serve(tmp_path, GUARD, "Mine").startswith("made ")
    assert (tmp_path / "data" / "checkpoints").exists()


def test_a_script_without_a_guard(tmp_path: Path) -> None:
    """An error that says what to do; none where the state machine comes from elsewhere: the script is not imported then."""
    said = serve(tmp_path, "", "Mine")
    assert said.startswith("failed ")
    assert GUARD.strip(" :") in said
    assert "a node was opened in the process that makes checkpoints" in said
    assert serve(tmp_path, "", "machines.Journal").startswith("made ")


def test_a_script_that_ends_or_hangs_as_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    monkeypatch.setattr("paxos.mirror.BEGIN_LIMIT", 3.0)
    main = types.ModuleType("__main__")
    file = tmp_path / "main.py"
    main.__file__ = str(file)
    exec("import mirror_machines\nclass Mine(mirror_machines.Journal): pass", main.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", main)
    cut = Cut(1, 0, bytes(16), b"")
    for text, message in [
        ("import sys; sys.exit(7)", "status 7.*if __name__"),
        ("import os; os._exit(7)", "status 7.*If the script.*if __name__"),
        ("import time; time.sleep(3600)", "within 3 s.*if __name__"),
        ("x = 1", "AttributeError"),
    ]:
        file.write_text(text)
        with pytest.raises(CheckpointFailed, match=message):
            make_checkpoint(MirrorJob(str(tmp_path / "data"), 1, "0" * 32, cut, main.__dict__["Mine"]))
        nothing_left(tmp_path / "data")


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    """Even where the parent is killed, and the child does not look."""
    factory = 'functools.partial(machines.Stuck, "stuck", os.getpid())'
    file = script(tmp_path, SERVICE.format(guard=GUARD, factory=factory, port=free_port()))
    with subprocess.Popen([sys.executable, file], cwd=tmp_path, env=environment()) as parent:
        try:

            async def story() -> None:
                pid, _ = await appeared(tmp_path / "stuck")
                assert not gone(pid)
                parent.send_signal(signal.SIGKILL)
                await until(lambda: gone(pid), "the child has died")

            run(story())
        finally:
            parent.kill()


def test_the_rate_bounds_the_writing(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, 1, machine=machines.Journal) as nodes:
            await written(nodes, 8, 1 << 19)
            begin = time.monotonic()
            await asyncio.to_thread(make_checkpoint, job_of(nodes[1], tmp_path / "1", machines.Journal, rate=8 << 20))
            assert time.monotonic() - begin > 0.4  # 4 MiB

    run(story())


def test_which_factories_can_be_mirrored() -> None:
    def local() -> machines.Journal:
        return machines.Journal()

    good: list[Any] = [
        machines.Journal,
        machines.make,
        functools.partial(machines.make, b"x"),
        functools.partial(functools.partial(machines.make), tag=b"x"),
        {0: machines.Journal, 1: functools.partial(machines.Journal, b"y")},
        paxos.StateMachine,
    ]
    for factory in good:
        assert obstacle(factory) is None
    bad: list[tuple[Any, str]] = [
        (local, "neither a class nor a function at the top of a module"),
        (lambda: machines.Journal(), "neither a class nor a function"),
        (machines.Journal(b"bound").snapshot, "something else than"),
        (functools.partial(machines.Journal, threading.Lock()), "cannot be handed to another process"),
        (functools.partial(local), "neither a class nor a function"),
        ({0: machines.Journal, 5: local}, r"neither a class nor a function.*state machine 5"),
    ]
    for factory, message in bad:
        with pytest.raises(ConfigError, match=message):
            Mirror(MirrorJob("x", 1, "0" * 32, Cut(1, 0, bytes(16), b""), factory))


def test_a_main_module_without_a_file_cannot_be_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    main = types.ModuleType("__main__")
    exec("import mirror_machines\nclass Mine(mirror_machines.Journal): pass", main.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", main)
    why = obstacle(main.__dict__["Mine"])
    assert why is not None
    assert "has no file" in why


def test_a_log_that_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from paxos import mirror

    async def story() -> None:
        async with cluster(tmp_path, 1, machine=machines.Journal) as nodes:
            await written(nodes, 5)
            job = job_of(nodes[1], tmp_path / "1", machines.Journal)
            monkeypatch.setattr(mirror, "LOG_LIMIT", 0.2)
            with LogReader(
                job.directory, 1, job.incarnation, first=0, chain=0, end=job.cut.instance + 5, end_chain=0
            ) as log, pytest.raises(StorageError, match=r"nothing whole is at segment 1, offset .* its disk hangs"):  # fmt: skip
                mirror._replay(log, {0: machines.Journal()}, job.cut.instance + 5)

    run(story())


# -- in the node's own process


@pytest.fixture
def checkpoints(tmp_path: Path) -> Any:
    with Checkpoints(tmp_path) as found:
        yield found


CUT = Cut(5, 77, bytes(range(16)), b"members")


def test_inline(checkpoints: Checkpoints, tmp_path: Path) -> None:
    made: dict[int, Any] = {0: machines.Journal(b"t"), 3: machines.Filed()}
    made[0].values = [b"a", b""]
    made[3].values = [b"x" * 100, b"y"]
    manifest = make_inline(made, checkpoints.store, CUT, tmp_path / "snapshot")
    assert checkpoints.store.list() == [manifest]
    assert (manifest.instance, manifest.chain, manifest.signature, manifest.membership) == (
        5,
        77,
        CUT.signature,
        b"members",
    )
    copies = checkpoints.restored(manifest, {0: machines.Journal, 3: machines.Filed})
    assert {id_: copy.values for id_, copy in copies.items()} == {0: [b"a", b""], 3: [b"x" * 100, b"y"]}
    nothing_left(tmp_path, 5)


def test_the_machines_go_on_between_take_and_commit(checkpoints: Checkpoints, tmp_path: Path) -> None:
    made: dict[int, Any] = {0: machines.Journal(), 3: machines.Filed()}
    for machine in made.values():
        machine.values = [b"before"]
    with Writing(checkpoints.store, CUT, tmp_path / "snapshot") as writing:
        writing.take(made)
        for machine in made.values():
            machine.values = [b"after", b"it"]
        manifest = writing.commit()
    copies = checkpoints.restored(manifest, {0: machines.Journal, 3: machines.Filed})
    assert [copy.values for copy in copies.values()] == [[b"before"], [b"before"]]
    nothing_left(tmp_path, 5)


def failing(error: type[Exception]) -> Callable[[Any], None]:
    def fail(_: Any) -> None:
        raise error("on purpose")

    return fail


def test_what_fails_inline_leaves_nothing(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = machines.Filed()
    good.values = [b"x"]
    for bad, method in ((machines.Journal(), "snapshot"), (machines.Filed(), "snapshot_files")):
        monkeypatch.setattr(bad, method, failing(RuntimeError))
        with pytest.raises(RuntimeError, match="on purpose"):
            make_inline({0: good, 1: bad}, checkpoints.store, CUT, tmp_path / "snapshot")
        nothing_left(tmp_path)
    with pytest.raises(StorageError, match="neither a plain file"):
        make_inline({0: good, 1: machines.Linked()}, checkpoints.store, CUT, tmp_path / "snapshot")
    nothing_left(tmp_path)
    # What a process that was killed has left there does no harm.
    (tmp_path / "snapshot" / "taken-0" / "old").mkdir(parents=True)
    manifest = make_inline({0: good}, checkpoints.store, CUT, tmp_path / "snapshot")
    assert checkpoints.restored(manifest, machines.Filed)[0].values == [b"x"]


def test_a_checkpoint_of_other_state_machines_is_refused(checkpoints: Checkpoints, tmp_path: Path) -> None:
    made: dict[int, Any] = {0: machines.Journal(), 3: machines.Filed()}
    made[3].values = [b"x"]
    manifest = make_inline(made, checkpoints.store, CUT, tmp_path / "snapshot")
    for factory, message in [
        (machines.Journal, "state machine 3, which this node does not have"),
        ({0: machines.Journal, 3: machines.Filed, 4: machines.Journal}, r"no restore_files\(\)"),
        ({0: machines.Filed, 3: machines.Filed}, r"no restore\(\)"),
        ({0: machines.Journal, 3: machines.Journal}, r"no restore_files\(\)"),
        ({0: machines.Half, 3: machines.Filed}, "define both"),
    ]:
        with pytest.raises(ConfigError, match=message):
            checkpoints.restored(manifest, factory)
        assert not (tmp_path / "snapshot").exists()


def test_who_has_checkpoints() -> None:
    assert has_checkpoints({0: machines.Journal(), 1: machines.Filed()})
    assert not has_checkpoints({0: machines.Journal(), 1: machines.Bare()})
    with pytest.raises(ConfigError, match="define both"):
        has_checkpoints({0: machines.Bare(), 1: machines.Half()})
    with pytest.raises(ConfigError, match="empty mapping"):
        make_machines({})
    with pytest.raises(ConfigError, match="made a bytes"):
        make_machines(bytes)  # type: ignore[arg-type]
