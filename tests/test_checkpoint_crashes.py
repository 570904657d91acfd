"""The process ends in any call to the disk: a checkpoint is there whole or not at all, and the older ones stay."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from checkpoints import LARGE, MEMBERSHIP, MIB, SIGNATURE, SMALL, Content, check, kinds, noise, write
from paxos.checkpoint import CheckpointStore
from paxos.errors import DamagedCheckpoint, StorageError
from paxos.manifest import Manifest
from paxos.testing._simdisk import MemoryDisk

SEEDS = 2 if os.environ.get("PAXOS_DEBUG") else 6
OLD, NEW = 5, 9


def opened(disk: MemoryDisk) -> CheckpointStore:
    """As a process finds it at its start."""
    folder = disk.folder()
    folder.open()
    return CheckpointStore(folder.files())


class Source:
    """Another node, which has the new checkpoint."""

    def __init__(self, content: Content = LARGE) -> None:
        self.store = opened(MemoryDisk(99))
        self.content = content
        self.manifest = write(self.store, NEW, content)

    def pieces(self) -> Iterator[tuple[int, int, bytes]]:
        for index, entry in enumerate(self.manifest.entries):
            for piece in range(len(entry.pieces)):
                yield index, piece, self.store.piece(self.manifest, index, piece)

    def send(self, store: CheckpointStore) -> Manifest:
        """All that is missing there."""
        with store.incoming(self.manifest) as transfer:
            for entry, piece in transfer.missing():
                transfer.put(entry, piece, self.store.piece(self.manifest, entry, piece))
            assert list(transfer.missing()) == []
            return transfer.finish()


SOURCE = Source()

# ---- what is under way when the process ends: a preparation, which it outlives, and what it does not ----


def nothing(disk: MemoryDisk) -> None:
    pass


def new_is_there(disk: MemoryDisk) -> None:
    write(opened(disk), NEW, LARGE)


def half_received(disk: MemoryDisk) -> None:
    """A transfer that was interrupted by a death which the page cache has outlived."""
    transfer = opened(disk).incoming(SOURCE.manifest)
    for entry, piece, data in list(SOURCE.pieces())[1:]:
        transfer.put(entry, piece, data)
    disk.ended(False)


def nearly_finished(disk: MemoryDisk) -> None:
    """A transfer that was interrupted while its files got their names."""
    half_received(disk)
    transfer = opened(disk).incoming(SOURCE.manifest)
    for entry, piece in transfer.missing():
        transfer.put(entry, piece, SOURCE.store.piece(SOURCE.manifest, entry, piece))
    disk.die(3)
    with pytest.raises(OSError, match="error"):
        transfer.finish()
    disk.ended(False)
    assert "-0.data" in kinds(opened(disk).files, NEW)
    assert "-2.part" in kinds(opened(disk).files, NEW)


def half_written(disk: MemoryDisk) -> None:
    """A checkpoint that was never committed."""
    writer = opened(disk).begin(NEW, 77, SIGNATURE, MEMBERSHIP)
    with writer.stream(1) as stream:
        stream.write(LARGE[1, ""])
    writer.stream(2).write(b"more")


def another_begun(disk: MemoryDisk) -> None:
    """A transfer of a checkpoint of the same instance that is not the same."""
    opened(disk).incoming(replace(SOURCE.manifest, chain=78)).close()


def write_new(store: CheckpointStore) -> None:
    write(store, NEW, LARGE)


def write_and_abort(store: CheckpointStore) -> None:
    with store.begin(NEW, 77, SIGNATURE, MEMBERSHIP) as writer, writer.stream(1) as stream:
        stream.write(noise(1, MIB))


def remove_old(store: CheckpointStore) -> None:
    store.remove(OLD)


def receive(store: CheckpointStore) -> None:
    SOURCE.send(store)


def discard(store: CheckpointStore) -> None:
    store.discard(NEW)


def clean(store: CheckpointStore) -> None:
    store.clean()


#: with the calls that change something: a story in which nobody can die tests nothing
STORIES: list[tuple[Callable[[MemoryDisk], None], Callable[[CheckpointStore], None], int]] = [
    (nothing, write_new, 15),
    (nothing, write_and_abort, 3),
    (new_is_there, remove_old, 6),
    (nothing, receive, 14),
    (half_received, receive, 12),
    (half_received, write_new, 20),
    (half_received, discard, 5),
    (half_received, clean, 0),
    (half_written, clean, 2),
    (nearly_finished, receive, 12),
    (nearly_finished, discard, 5),
    (another_begun, receive, 18),
]


def judge(store: CheckpointStore, *, before: bool, finished: bool, act: Callable[[CheckpointStore], None]) -> None:
    """What must hold after every death."""
    listed = {manifest.instance: manifest for manifest in store.list()}
    assert store.damaged == []
    assert set(listed) <= {OLD, NEW}
    assert OLD in listed or act is remove_old
    assert not (finished and act is remove_old and OLD in listed)
    assert NEW in listed or not (before or (finished and act in (write_new, receive)))
    for instance, manifest in listed.items():
        check(store, manifest, SMALL if instance == OLD else LARGE)


@pytest.mark.parametrize(("prepare", "act", "least"), STORIES, ids=lambda part: getattr(part, "__name__", ""))
def test_a_death_in_every_call(
    prepare: Callable[[MemoryDisk], None], act: Callable[[CheckpointStore], None], least: int
) -> None:
    for power, seed in itertools.product((True, False), range(SEEDS)):
        for call in itertools.count():
            disk = MemoryDisk(seed * 1000 + call)
            write(opened(disk), OLD, SMALL)
            disk.ended(False)
            prepare(disk)
            disk.ended(False)
            before = any(manifest.instance == NEW for manifest in opened(disk).list())
            store = opened(disk)
            disk.die(call)
            try:
                act(store)
            except OSError as error:
                if not disk.dead or error.errno != errno.EIO:
                    raise
            finished = not disk.dead
            disk.ended(power)
            store = opened(disk)
            judge(store, before=before, finished=finished, act=act)
            # What is left over goes; what can be taken up again does not, and comes to its end.
            store.clean()
            after = {manifest.instance for manifest in store.list()}
            assert {int(name[:16], 16) for name in store.files.names()} == after | {
                m.instance for m in store.resumable()
            }
            judge(store, before=before, finished=finished, act=act)
            if NEW not in after:
                (receive if seed % 2 else write_new)(store)
            disk.ended(True)
            store = opened(disk)
            check(store, store.list()[0], LARGE)
            assert store.resumable() == []
            if finished:
                break
        assert call >= least


def test_a_transfer_goes_on_where_it_was() -> None:
    for power in (False, True):
        disk = MemoryDisk(7)
        content = {(1, ""): noise(1, 6 * MIB + 1), (2, "file"): noise(2, 9)}
        source = Source(content)
        transfer = opened(disk).incoming(source.manifest)
        pieces = list(source.pieces())
        assert list(transfer.missing()) == [(entry, piece) for entry, piece, _ in pieces]
        for entry, piece, data in pieces[:5]:
            transfer.put(entry, piece, data)
            transfer.put(entry, piece, data)  # twice does no harm
        with pytest.raises(StorageError, match="3 or more pieces are missing, the first is piece 5 of entry 0"):
            transfer.finish()
        disk.ended(power)
        store = opened(disk)
        assert store.list() == []
        assert store.resumable() == [source.manifest]
        assert store.clean() == []
        with store.incoming(source.manifest) as transfer:
            assert store.resumable() == []
            missing = list(transfer.missing())
            assert set(missing) >= {(0, 5), (0, 6), (1, 0)}
            assert len(missing) <= (4 if power else 3), "4 MiB had been synced"
        assert source.send(store) == source.manifest
        check(store, source.manifest, content)
        assert kinds(store.files, NEW) == ["-0.data", "-1.data", ".manifest"]
        with pytest.raises(StorageError, match="there already"):
            store.incoming(source.manifest)
        with pytest.raises(StorageError, match="is finished"):
            store.discard(NEW)


def test_a_transfer_that_ended_in_finish_lacks_nothing() -> None:
    disk = MemoryDisk(1)
    nearly_finished(disk)
    with opened(disk).incoming(SOURCE.manifest) as transfer:
        assert list(transfer.missing()) == []


def test_only_the_right_pieces_are_taken() -> None:
    store = opened(MemoryDisk(1))
    with store.incoming(SOURCE.manifest) as transfer:
        right = SOURCE.store.piece(SOURCE.manifest, 0, 1)
        for entry, piece, data in (
            (0, 1, right[:-1]),
            (0, 1, right + b"?"),
            (0, 0, right),
            (0, 1, bytes(len(right))),
            (0, 2, right),
            (0, -1, right),
            (3, 0, right),
            (-3, 1, right),
        ):
            with pytest.raises(DamagedCheckpoint, match=r"part"):
                transfer.put(entry, piece, data)
        assert (0, 1) in list(transfer.missing())
        with pytest.raises(StorageError, match="being written, received or removed"):
            store.incoming(SOURCE.manifest)
    with pytest.raises(StorageError, match="closed"):
        transfer.put(0, 1, right)
    store.discard(NEW)
    assert store.files.names() == []


def test_parts_that_are_not_of_this_transfer_are_received_again() -> None:
    """Wrong bytes, and more than there should be."""
    store = opened(MemoryDisk(1))
    with store.incoming(SOURCE.manifest) as transfer:
        for entry, piece, data in SOURCE.pieces():
            transfer.put(entry, piece, data)
    with store.files.open(f"{NEW:016x}-0.part", write=True) as file:
        file.write(5, b"?")
    with store.files.open(f"{NEW:016x}-2.part", write=True) as file:
        file.append(b"?")
    with store.incoming(SOURCE.manifest) as transfer:
        assert list(transfer.missing()) == [(0, 0)]
    SOURCE.send(store)
    check(store, SOURCE.manifest, LARGE)


# ---- syncs that fail, disks that are full ----


def test_what_a_failed_sync_has_left_is_not_believed() -> None:
    """The page cache shows pieces that are not on the disk, and no later sync brings them there."""
    content = {(1, ""): noise(1, 5 * MIB)}
    source = Source(content)
    for killed, seed in itertools.product((False, True), range(6)):
        disk = MemoryDisk(seed)
        store = opened(disk)
        transfer = store.incoming(source.manifest)
        pieces = list(source.pieces())
        for entry, piece, data in pieces[:3]:
            transfer.put(entry, piece, data)
        disk.fail()
        with pytest.raises(OSError, match="error"):
            transfer.put(*pieces[3])
        with pytest.raises(StorageError, match="failed in a sync"):
            transfer.put(*pieces[4])
        with pytest.raises(StorageError, match="failed in a sync"):
            transfer.finish()
        with pytest.raises(StorageError, match="failed in a sync"):
            next(transfer.missing())
        transfer.close()
        if killed:
            disk.ended(False)
            store = opened(disk)
        source.send(store)
        disk.ended(True)
        store = opened(disk)
        assert store.list() == [source.manifest]
        check(store, source.manifest, content)


@pytest.mark.parametrize("directory", [False, True])
def test_a_sync_that_fails_ends_the_writing(directory: bool) -> None:
    disk = MemoryDisk(1)
    store = opened(disk)
    old = write(store, OLD, SMALL)
    with store.begin(NEW, 77, SIGNATURE, MEMBERSHIP) as writer:
        stream = writer.stream(1)
        stream.write(b"state")
        if not directory:
            disk.fail()
            with pytest.raises(OSError, match="error"):
                stream.close()
            with pytest.raises(StorageError, match="has failed"):
                writer.commit()
        else:
            stream.close()
            disk.fail(directory=True)
            with pytest.raises(OSError, match="error"):
                writer.commit()
            assert store.list() == [old]
    assert store.list() == [old]
    assert store.clean() == []
    write(store, NEW, LARGE)
    disk.ended(True)
    store = opened(disk)
    check(store, store.list()[0], LARGE)
    check(store, old, SMALL)


def test_a_checkpoint_whose_name_is_not_durable_is_not_listed() -> None:
    """Only the last sync of the directory fails; somebody who saw it listed would delete the log behind it."""
    disk = MemoryDisk(1)
    folder = disk.folder()
    store = CheckpointStore(folder.files())
    writer = store.begin(NEW, 77, SIGNATURE, MEMBERSHIP)
    disk.die(5)  # create, write, sync, sync_directory, rename
    with pytest.raises(OSError, match="error"):
        writer.commit()
    assert kinds(store.files, NEW) == [".manifest"]
    assert store.list() == []


def test_a_full_disk_leaves_what_was_there() -> None:
    disk = MemoryDisk(1)
    store = opened(disk)
    old = write(store, OLD, SMALL)
    disk.fill(True)
    with pytest.raises(OSError, match="space") as caught:
        write(store, NEW, LARGE)
    assert caught.value.errno == errno.ENOSPC
    disk.fill(False)
    with store.begin(NEW, 77, SIGNATURE, MEMBERSHIP) as writer:
        stream = writer.stream(1)
        stream.write(noise(1, MIB))
        disk.fill(True)
        with pytest.raises(OSError, match="space"):
            stream.write(noise(1, MIB))
        disk.fill(False)
        with pytest.raises(StorageError, match="has failed"):
            stream.write(b"more")
        with pytest.raises(StorageError, match="has failed"):
            writer.commit()
    assert kinds(store.files, NEW) == []
    check(store, old, SMALL)
    disk.fill(False)
    with store.incoming(SOURCE.manifest) as transfer:
        disk.fill(True)
        (first, *rest) = SOURCE.pieces()
        with pytest.raises(OSError, match="space"):
            transfer.put(*first)
        disk.fill(False)
        for piece in (first, *rest):
            transfer.put(*piece)
        disk.fill(True)
        with pytest.raises(OSError, match="space"):
            transfer.finish()
    check(store, old, SMALL)
    disk.fill(False)
    disk.ended(True)
    store = opened(disk)
    assert store.list() == [old]
    SOURCE.send(store)
    check(store, SOURCE.manifest, LARGE)
    assert store.list() == [SOURCE.manifest, old]
