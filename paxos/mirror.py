"""The mirror: a second copy of the state machines, in a child process, that is fed from the node's log and writes checkpoints.

The child has another core and a GIL of its own, so the node goes on as if nothing were. It begins with the newest checkpoint
that verifies, reads what was chosen since then from the log (see ``_logreader``), applies it, compares the chain checksum
with the node's, writes the state, and ends. It takes no lock, opens no socket, and is killed with its parent.

It is a fresh interpreter and no fork: a fork would take over locks that other threads of the node hold at that moment. What
it needs comes through a connection of ``multiprocessing``; that module's own start of processes is not used, because
it leaves a process behind that watches over resources, imports the main script whether or not it is needed, and refuses
within daemonic processes.
"""

from __future__ import annotations

import ctypes
import logging
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import ForkingPickler
from multiprocessing.spawn import get_executable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from paxos._folder import Folder
from paxos._logreader import LogReader
from paxos.checkpoint import CheckpointStore, Manifest
from paxos.errors import CheckpointFailed, ConfigError, DamagedCheckpoint, StorageError
from paxos.sessions import SESSIONS, SessionTable
from paxos.snapshot import Cut, Writing, make_machines, restore_machines
from paxos.statemachine import StateMachine, StateMachineFactory
from paxos.stored import MANIFEST, file_name

__all__ = ["Mirror", "MirrorJob", "obstacle", "refuse_in_child"]

logger = logging.getLogger("paxos")

NICE: Final = 10
#: Seconds until the child must have imported the state machines; and without a sign of life of the log.
BEGIN_LIMIT = 120.0
LOG_LIMIT = 30.0

GUARD: Final = (
    'if the script that runs the node is at fault, put what starts it below `if __name__ == "__main__":`, or move the state '
    "machine into a module of its own"
)

_BOOT: Final = (
    "import sys; from multiprocessing.connection import Connection; c = Connection(int(sys.argv[1])); "
    "sys.path[:] = c.recv(); from paxos.mirror import _serve; _serve(c)"
)
_PR_SET_PDEATHSIG: Final = 1

_child = False  # whether this process is a mirror


@dataclass(frozen=True, slots=True)
class MirrorJob:
    """One checkpoint to be made."""

    directory: str
    """The data directory of the node, which holds its lock."""
    node_id: int
    incarnation: str
    """32 hexadecimal digits, as in the engine's status."""
    cut: Cut
    """What the node has applied when it says so."""
    factory: StateMachineFactory
    rate: float | None = None
    """Bytes per second that are written at most."""
    group: int = 0
    sessions: bool = True
    """Whether the group has a table of sessions."""

    @property
    def work(self) -> Path:
        """Where directories of state machines lie for a while."""
        return Path(self.directory, "snapshot")


# -- can it work


def obstacle(factory: StateMachineFactory) -> str | None:
    """Why another process cannot make these state machines; None where it can."""
    if isinstance(factory, Mapping):
        found = ((f"{why} (state machine {id_})" if (why := obstacle(make)) else None) for id_, make in factory.items())
        return next((why for why in found if why), None)
    bare: Any = factory
    while isinstance(bare, partial):
        bare = bare.func
    module_name, qualified = getattr(bare, "__module__", None), getattr(bare, "__qualname__", None)
    if not module_name or not qualified or "<" in qualified:
        return f"{bare!r} is neither a class nor a function at the top of a module (nor a functools.partial of one)"
    here: Any = sys.modules.get(module_name)
    for part in qualified.split("."):
        here = getattr(here, part, None)
    if here is not bare:
        return f"{module_name}.{qualified} is something else than {bare!r}"
    try:
        data = bytes(ForkingPickler.dumps(factory))
    except Exception as error:  # whatever the objects in a partial raise
        return f"{factory!r} cannot be handed to another process: {type(error).__name__}: {error}"
    if b"__main__" in data and _main_module() is None:
        return f"{qualified} was made in __main__, which has no file that another process could import"
    return None


def refuse_in_child() -> None:
    """Called before a node is opened: a mirror that opened one, and so on, would never end."""
    if _child:
        raise ConfigError(
            "a node was opened in the process that makes checkpoints, as it imported the state machine: nothing may be started "
            f"by an import; {GUARD}"
        )


def _main_module() -> tuple[str, str] | None:
    """How another process finds the main module: ("name" or "path", what). None where it cannot."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return "name", spec.name
    file = getattr(main, "__file__", None)
    return ("path", os.path.abspath(file)) if file is not None and os.path.exists(file) else None


# -- in the node's process


class Mirror:
    """One run of a mirror. ``run()`` blocks, in a thread of its own; ``cancel()`` may be called by any other."""

    def __init__(self, job: MirrorJob) -> None:
        why = obstacle(job.factory)
        if why is not None:
            raise ConfigError(f"{why}; checkpoints are made in the node's own process then")
        self._job = job
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = False

    def run(self) -> Manifest:
        """Starts the child, waits for it, and returns the manifest of the checkpoint, which is durable.

        :raises CheckpointFailed: there is none, for the reason it names. Nothing is left of the attempt.
        """
        ours, theirs = Pipe()
        process: subprocess.Popen[bytes] | None = None
        try:
            with theirs:
                process = self._start(theirs)
            return self._talk(ours)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            assert process is not None  # only a child can have hung up
            raise self._failure(self._how_it_ended(process)) from None
        finally:
            ours.close()
            if process is not None:
                process.kill()
                process.wait()
            self._clear()

    def cancel(self) -> None:
        """Kills the child, if there is one; ``run()`` then fails, soon. Does not wait."""
        with self._lock:
            self._cancelled = True
            if self._process is not None:
                self._process.kill()

    def _start(self, theirs: Connection) -> subprocess.Popen[bytes]:
        command = [get_executable(), "-P"]
        if sys.flags.optimize:
            command.append("-" + "O" * sys.flags.optimize)
        with self._lock:
            if self._cancelled:
                raise self._failure("it was cancelled")
            try:
                self._process = subprocess.Popen(
                    [*command, "-c", _BOOT, str(theirs.fileno())], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
                )
            except OSError as error:
                raise self._failure(f"the child process could not be started: {error}") from error
            return self._process

    def _talk(self, ours: Connection) -> Manifest:
        job = self._job
        main = _main_module() if b"__main__" in bytes(ForkingPickler.dumps(job.factory)) else None
        ours.send(sys.path)
        ours.send((os.getpid(), sys.argv, main))
        ours.send(job)
        if not ours.poll(BEGIN_LIMIT):
            raise self._failure(
                f"the child process has not imported the state machine within {BEGIN_LIMIT:g} s; {GUARD}"
            )
        kind, what, trace = ours.recv()
        if kind == "begun":
            kind, what, trace = ours.recv()
        if kind != "made":
            error = self._failure(what)
            error.add_note(trace)
            raise error
        return Manifest.decode(what)

    def _how_it_ended(self, process: subprocess.Popen[bytes]) -> str:
        if self._cancelled:
            return "it was cancelled"
        code = process.wait()  # it hangs up only as it ends
        if code < 0:
            name = signal.Signals(-code).name
            return f"the child process was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"the child process ended with status {code} before it was done; see its output. {GUARD[0].upper()}{GUARD[1:]}"

    def _failure(self, why: str) -> CheckpointFailed:
        return CheckpointFailed(f"the checkpoint at instance {self._job.cut.instance} was not made: {why}")

    def _clear(self) -> None:
        """Removes what a child that was killed has left."""
        if self._job.work.exists():
            shutil.rmtree(self._job.work)
        folder = Folder(self._job.directory)
        try:
            files = folder.files()
            if file_name(self._job.cut.instance, MANIFEST) not in files.names():
                CheckpointStore(files).discard(self._job.cut.instance)
        finally:
            folder.close()


# -- in the child


def _serve(connection: Connection) -> None:
    """What the child does. Does not return."""
    global _child
    _child = True
    # Ctrl-C is meant for the parent, which decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent, sys.argv, main = connection.recv()
    if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_PDEATHSIG) failed: this process would outlive its parent")
    if os.getppid() != parent:
        os._exit(1)  # it died before it could be asked for
    os.nice(NICE)
    status = 0
    answer: tuple[str, bytes | str, str]
    try:
        if main is not None:
            _import_main(*main)
        job = connection.recv()
        connection.send(("begun", "", ""))
        answer = ("made", _make(job).encode(), "")
    except BaseException as error:  # SystemExit, too: of a script that ends as it is imported
        status = 1
        answer = ("failed", _in_words(error), traceback.format_exc())
    with suppress(BrokenPipeError, ConnectionResetError):  # nobody listens any more: he has killed this process
        connection.send(answer)
    sys.stdout.flush()
    sys.stderr.flush()
    # Taking a large state apart would be wasted time, and threads that the state machine left do not count.
    os._exit(status)


def _in_words(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the main script ended as the child process imported it (status {error.code}): {GUARD}"
    return f"{type(error).__name__}: {error}"


def _import_main(how: str, what: str) -> None:
    """The main script of the parent under another name, so that what it guards does not run."""
    main = ModuleType("__mp_main__")
    if how == "name":
        main.__dict__.update(runpy.run_module(what, run_name=main.__name__, alter_sys=True))
    else:
        main.__dict__.update(runpy.run_path(what, run_name=main.__name__))
    sys.modules["__main__"] = sys.modules[main.__name__] = main


def _make(job: MirrorJob) -> Manifest:
    folder = Folder(job.directory)
    store = CheckpointStore(folder.files(), rate=job.rate, pause=None if job.rate is None else time.sleep)
    with Writing(store, job.cut, job.work) as writing:
        machines, first, chain = _begin(job, store)
        with LogReader(
            job.directory, job.node_id, job.incarnation, group=job.group, first=first, chain=chain,
            end=job.cut.instance, end_chain=job.cut.chain,
        ) as log:  # fmt: skip
            _replay(log, machines, job.cut.instance)
        writing.take(machines)
        return writing.commit()


def _begin(job: MirrorJob, store: CheckpointStore) -> tuple[dict[int, StateMachine], int, int]:
    """State machines as the newest checkpoint that verifies has them, or fresh ones; the next instance, and the chain there."""
    for manifest in store.list():
        if manifest.instance > job.cut.instance or manifest.signature != job.cut.signature:
            continue
        machines = _fresh(job)
        try:
            restore_machines(store, manifest, machines, job.work)
        except DamagedCheckpoint as error:
            logger.warning("a checkpoint is damaged, and an older one is begun with: %s", error)
            continue
        return machines, manifest.instance, manifest.chain
    return _fresh(job), 0, 0


def _fresh(job: MirrorJob) -> dict[int, StateMachine]:
    machines = make_machines(job.factory)
    for machine in machines.values():
        if (last := machine.last_applied()) != -1:
            raise ConfigError(
                f"{type(machine).__name__} begins with what it has applied up to instance {last}: it keeps its state itself, and "
                "a second copy of it would write over the first. Its checkpoints are to be made in the node's own process"
            )
    if job.sessions:
        machines[SESSIONS] = SessionTable()
    return machines


def _apply(
    machines: Mapping[int, StateMachine], instance: int, runs: list[tuple[int, list[bytes]]]
) -> list[Sequence[object]]:
    """All values of an instance; the results per run."""
    values: dict[int, list[bytes]] = {id_: [] for id_ in machines}
    places = []
    for id_, run in runs:
        if id_ not in values:
            raise ConfigError(f"instance {instance} has values for state machine {id_}, which this node does not have")
        places.append((id_, len(values[id_]), len(run)))
        values[id_] += run
    results = {id_: machines[id_].apply_batch(instance, batch) for id_, batch in values.items()}
    return [results[id_][start : start + count] for id_, start, count in places]


def _replay(log: LogReader, machines: Mapping[int, StateMachine], end: int) -> None:
    table = machines.get(SESSIONS)
    users = {id_: machine for id_, machine in machines.items() if id_ != SESSIONS}
    heard = time.monotonic()
    while not log.done:
        part = log.read()
        for instance, runs in part:
            if isinstance(table, SessionTable) and any(id_ == SESSIONS for id_, _ in runs):
                step = table.unwrap(instance, runs)
                step.wrap(_apply(users, instance, step.runs), users)
            else:
                _apply(users, instance, runs)
        if part:
            heard = time.monotonic()
        elif time.monotonic() - heard > LOG_LIMIT:
            segment, offset = log.place
            raise StorageError(
                f"{log.directory}: nothing whole is at segment {segment}, offset {offset} after {LOG_LIMIT:g} s, and the log "
                f"must hold the instances up to {end - 1}, of which it has {log.chosen}: its disk hangs, or it is damaged there"
            )
        elif not log.done:
            time.sleep(0.01)
