"""Writing a checkpoint of state machines that stand still meanwhile."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from paxos.checkpoint import CheckpointStore
from paxos.manifest import Manifest
from paxos.statemachine import StateMachine, has_files

__all__ = ["inline_maker", "restore_machine", "write_checkpoint"]


def write_checkpoint(
    store: CheckpointStore,
    machines: Mapping[int, StateMachine],
    instance: int,
    chain: int,
    signature: bytes,
    membership: bytes,
) -> Manifest:
    """A durable checkpoint of what the machines have now, which is everything below ``instance``. Raises what they raise."""
    with store.begin(instance, chain, signature, membership) as writer:
        for id_, machine in machines.items():
            if not has_files(machine):
                with writer.stream(id_) as stream:
                    machine.snapshot(stream)
                continue
            with tempfile.TemporaryDirectory() as directory:
                top = Path(directory)
                machine.snapshot_files(top)
                for path in sorted(path for path in top.rglob("*") if path.is_file()):
                    writer.add_file(id_, path.relative_to(top).as_posix(), path)
        return writer.commit()


def restore_machine(store: CheckpointStore, manifest: Manifest, id_: int, machine: StateMachine) -> None:
    """Gives a state machine what a checkpoint has of it."""
    if not has_files(machine):
        with store.open_stream(manifest, id_) as reader:
            machine.restore(reader)
        return
    with tempfile.TemporaryDirectory() as directory:
        store.extract(manifest, id_, directory)
        machine.restore_files(Path(directory))


def inline_maker(
    store: CheckpointStore, machines: Mapping[int, StateMachine]
) -> Callable[[int, int, bytes, bytes, Callable[[Manifest | None, BaseException | None], object]], None]:
    """Makes checkpoints on the applying thread, which waits meanwhile."""

    def make(
        instance: int,
        chain: int,
        signature: bytes,
        membership: bytes,
        done: Callable[[Manifest | None, BaseException | None], object],
    ) -> None:
        try:
            manifest = write_checkpoint(store, machines, instance, chain, signature, membership)
            store.verify(manifest)
        except Exception as error:
            done(None, error)
            return
        done(manifest, None)

    return make
