"""State machines that a child process imports, for the tests of the mirror."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import paxos


class Journal(paxos.StateMachine):
    """Keeps every value; knows how many instances this very object has applied."""

    def __init__(self, tag: bytes = b"") -> None:
        self.values: list[bytes] = []
        self.tag = tag
        self.applied_here = 0
        self.applied_before = 0

    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        self.applied_here += 1
        self.values += values
        return values

    def snapshot(self, writer: paxos.SnapshotWriter) -> None:
        writer.write(self.applied_here.to_bytes(8, "little") + len(self.tag).to_bytes(8, "little") + self.tag)
        for value in self.values:
            writer.write(len(value).to_bytes(8, "little") + value)

    def restore(self, reader: paxos.SnapshotReader) -> None:
        self.applied_before = int.from_bytes(reader.read(8), "little")
        self.tag = reader.read(int.from_bytes(reader.read(8), "little"))
        self.values = []
        while head := reader.read(8):
            self.values.append(reader.read(int.from_bytes(head, "little")))


class Filed(Journal):
    """One file for each value, in a directory of its own, and below it one with how many there are."""

    snapshot = paxos.StateMachine.snapshot
    restore = paxos.StateMachine.restore

    def snapshot_files(self, directory: Path) -> None:
        assert list(directory.iterdir()) == []
        for number, value in enumerate(self.values):
            (directory / f"{number}.value").write_bytes(value)
        if self.values:
            (directory / "deep" / "er").mkdir(parents=True)
            (directory / "deep" / "er" / "count").write_bytes(b"%d" % len(self.values))

    def restore_files(self, directory: Path) -> None:
        self.values = []
        if not (directory / "deep").exists():
            return
        for number in range(int((directory / "deep" / "er" / "count").read_bytes())):
            file = directory / f"{number}.value"
            self.values.append(file.read_bytes())
            file.unlink()  # it is ours


class Linked(Filed):
    """Leaves what is no plain file."""

    def snapshot_files(self, directory: Path) -> None:
        (directory / "link").symlink_to("elsewhere")


class Durable(Journal):
    """As if all it did were on a disk of its own."""

    def last_applied(self) -> int:
        return 3


class Poisoned(Journal):
    """Cannot apply one value."""

    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        if b"poison" in values:
            raise ValueError("that was the poison")
        return super().apply_batch(instance, values)


class Bare(paxos.StateMachine):
    """Has no snapshot."""

    def apply(self, instance: int, value: bytes) -> None:
        return None


class Half(Bare):
    def snapshot(self, writer: paxos.SnapshotWriter) -> None:
        return None


class Stuck(Journal):
    """In a child process it says who it is, and then it stays where it is for good: in ``apply`` or in ``snapshot``."""

    def __init__(self, file: str, parent: int, where: str = "apply") -> None:
        super().__init__()
        self.file = file
        self.parent = parent
        self.where = where

    def stay(self, where: str) -> None:
        if os.getpid() != self.parent and where == self.where:
            made = Path(self.file + ".new")
            made.write_text(f"{os.getpid()} {os.nice(0)}")
            made.rename(self.file)
            time.sleep(3600)

    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        self.stay("apply")
        return super().apply_batch(instance, values)

    def snapshot(self, writer: paxos.SnapshotWriter) -> None:
        writer.write(os.urandom(3 << 20))
        self.stay("snapshot")


class Killed(Journal):
    """In a child process it dies as if there were no memory left."""

    def __init__(self, parent: int) -> None:
        super().__init__()
        if os.getpid() != parent:
            os.kill(os.getpid(), 9)


def make(tag: bytes) -> Journal:
    return Journal(tag)


class Counted(Journal):
    """Answers with bytes: how many values came before, and the value."""

    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        first = len(self.values)
        super().apply_batch(instance, values)
        return [b"%d %b" % (number, value) for number, value in enumerate(values, first)]
