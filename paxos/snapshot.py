"""State machines into a checkpoint, and out of it: what a mirror in a child process and the node itself have in common."""

from __future__ import annotations

import os
import shutil
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from paxos.checkpoint import CheckpointStore, Manifest
from paxos.errors import ConfigError, StorageError
from paxos.sessions import RESERVED, SESSIONS, SessionTable
from paxos.statemachine import StateMachine, StateMachineFactory, has_files, has_snapshot

__all__ = ["Cut", "Writing", "has_checkpoints", "make_machines", "restore_machines"]


@dataclass(frozen=True, slots=True)
class Cut:
    """The place in a group's history that a checkpoint holds the state of, and what else its manifest says."""

    instance: int
    """Instances 0 to ``instance - 1`` are in it."""
    chain: int
    """Chain checksum there."""
    signature: bytes
    """Of the cluster, 16 bytes."""
    membership: bytes
    """As the core writes it."""


def make_machines(factory: StateMachineFactory) -> dict[int, StateMachine]:
    """The state machines of a factory, by id. ConfigError where it makes something else."""
    makers = {0: factory} if callable(factory) else dict(factory)
    if not makers:
        raise ConfigError("state_machine= is an empty mapping; give a class, a factory, or {id: factory}")
    if reserved := [id_ for id_ in makers if id_ >= RESERVED]:
        raise ConfigError(
            f"state_machine= has the id {reserved[0]}; ids from {RESERVED} on belong to the library: take a smaller one"
        )
    machines = {id_: make() for id_, make in makers.items()}
    for id_, machine in machines.items():
        if not isinstance(machine, StateMachine):
            raise ConfigError(
                f"state_machine= made a {type(machine).__name__} for id {id_}; it must be a paxos.StateMachine"
            )
    return machines


def has_checkpoints(machines: Mapping[int, StateMachine]) -> bool:
    """Whether all of them can be put into a checkpoint. ConfigError where one has only half of what that takes."""
    return all([has_files(machine) or has_snapshot(machine) for machine in machines.values()])


class Writing:
    """A checkpoint of state machines in the making: ``take()``, then ``commit()``. Leaving the ``with`` without that removes it.

    ``take`` is called where the state machines are, at the moment of the cut; they may go on as soon as it returns. ``commit``
    may run in another thread. ``work`` is a directory for the files of state machines; it is made where it is needed, on the
    file system of the data directory, and is gone afterwards.
    """

    def __init__(self, store: CheckpointStore, cut: Cut, work: Path) -> None:
        self._work = work
        self._taken: list[tuple[int, Path]] = []
        self._writer = store.begin(cut.instance, cut.chain, cut.signature, cut.membership)

    def take(self, machines: Mapping[int, StateMachine]) -> None:
        """Has every state machine give its state."""
        for id_, machine in machines.items():
            if has_files(machine):
                directory = self._work / f"taken-{id_}"
                _make_empty(directory)
                self._taken.append((id_, directory))
                machine.snapshot_files(directory)
            elif has_snapshot(machine):
                with self._writer.stream(id_) as stream:
                    machine.snapshot(stream)
            else:
                raise ConfigError(
                    f"{type(machine).__name__} cannot be put into a checkpoint: it has neither snapshot() nor snapshot_files()"
                )

    def commit(self) -> Manifest:
        """Copies the files that were left in directories, and makes the checkpoint. It is durable when this returns."""
        for id_, directory in self._taken:
            for path in _files_below(directory):
                self._writer.add_file(id_, path.relative_to(directory).as_posix(), path)
        manifest = self._writer.commit()
        self._clear()
        return manifest

    def abort(self) -> None:
        """Removes what there is. Does nothing behind ``commit()``."""
        self._writer.abort()
        self._clear()

    def _clear(self) -> None:
        for _, directory in self._taken:
            shutil.rmtree(directory)
        if self._taken:
            self._work.rmdir()
        self._taken = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


def restore_machines(
    store: CheckpointStore,
    manifest: Manifest,
    machines: Mapping[int, StateMachine],
    work: Path,
    only: Container[int] | None = None,
) -> None:
    """Puts the state of a checkpoint into state machines, all or some. Where it raises, none of these may be used any more.

    :raises DamagedCheckpoint: bytes of it do not verify. :raises ConfigError: it is of other state machines than these.
    """
    inside = {entry.machine for entry in manifest.entries}
    streams = {entry.machine for entry in manifest.entries if not entry.path}
    if SESSIONS in inside and SESSIONS not in machines:
        raise ConfigError(
            f"checkpoint {manifest.instance} has sessions, and this node was opened with sessions=False: all nodes of a cluster "
            "must have them"
        )
    if unknown := sorted(inside - set(machines)):
        raise ConfigError(
            f"checkpoint {manifest.instance} has the state of state machine {unknown[0]}, which this node does not have; "
            f"it has {sorted(set(machines) - {SESSIONS})}"
        )
    for id_, machine in machines.items():
        name = type(machine).__name__
        if only is not None and id_ not in only:
            continue
        if id_ in streams:
            if not has_snapshot(machine):
                raise ConfigError(
                    f"{name} has no restore(), and checkpoint {manifest.instance} has its state as a stream"
                )
            stream = store.open_stream(manifest, id_)
            try:
                machine.restore(stream)
            finally:
                stream.close()
        elif isinstance(machine, SessionTable):
            # An empty table has an entry, too: what was done under tokens is not known where there is none.
            raise ConfigError(
                f"checkpoint {manifest.instance} was made by a node with sessions=False, and this one has sessions: all nodes of "
                "a cluster must have them, or none, from its beginning on"
            )
        elif has_files(machine):  # with no entry at all it had no files
            directory = work / f"restored-{id_}"
            _make_empty(directory)
            try:
                store.extract(manifest, id_, directory)
                machine.restore_files(directory)
            finally:
                if directory.exists():  # it may have been moved away
                    shutil.rmtree(directory)
                work.rmdir()
        else:
            raise ConfigError(
                f"{name} has no restore_files(), and checkpoint {manifest.instance} has its state as files, or none"
            )


def _make_empty(directory: Path) -> None:
    """An empty directory, whatever a process that was killed has left there."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)


def _files_below(directory: Path) -> Iterator[Path]:
    """Every file, in the order of names."""
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(path)
        elif entry.is_file(follow_symlinks=False):
            yield path
        else:
            raise StorageError(f"snapshot_files() left {path}, which is neither a plain file nor a directory")
