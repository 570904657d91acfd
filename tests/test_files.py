"""The files of a flat directory: on a real file system and on the simulated disk, which must agree."""

from __future__ import annotations

import errno
import itertools
import os
import struct
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from paxos._files import File, Files
from paxos._folder import Folder
from paxos._segments import LogStore
from paxos.testing._sim import World
from paxos.testing._simdisk import MemoryDisk

DEADLINE = 60.0
SEG_LIKE = ["0000000000000001.seg", "spare-1.tmp"]


@pytest.fixture(params=["real", "simulated"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    with closing(Folder(str(tmp_path / "data")) if request.param == "real" else MemoryDisk(1).folder()) as made:
        made.open()
        yield made


def refused(number: int, name: str, call: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        call()
    assert caught.value.errno == number
    assert str(caught.value.filename).endswith(name)
    assert caught.value.strerror


def test_bytes_go_in_and_come_out(folder: Folder) -> None:
    files = folder.files()
    assert folder.files() is files
    with files.create("a") as file:
        assert (file.name, file.size) == ("a", 0)
        file.append(b"one")
        file.append(memoryview(b"-two-")[1:4])
        file.append(b"")
        file.write(8, array("H", [0x3131]))
        file.append(bytearray(b"end"))
        assert file.read(0, file.size) == b"onetwo\0\x0011end"
        assert file.read(3, 3) == b"two"
        assert file.read(13, 0) == b""
        file.sync()
    with files.open("a", write=True) as file:
        file.append(b"!")
        file.write(0, b"ONE")
    with files.open("a") as file:
        assert file.read(0, 14) == b"ONEtwo\0\x0011end!"
        refused(errno.EBADMSG, "a", lambda: file.read(10, 5))
        refused(errno.EBADMSG, "a", lambda: file.read(15, 0))
        refused(errno.EBADMSG, "a", lambda: file.read(0, 1 << 60))  # no memory is taken for that
        refused(errno.EFBIG, "a", lambda: file.write((1 << 63) - 1, b"xx"))
    files.create("b").close()
    assert sorted(files.names()) == ["a", "b"]
    files.rename("a", "b")
    files.sync_directory()
    assert files.names() == ["b"]
    with files.open("b") as file:
        files.remove("b")
        assert files.names() == []
        assert file.read(0, 3) == b"ONE"


def test_a_listing_has_all_while_another_thread_is_at_one(tmp_path: Path) -> None:
    """Two listings of one open directory share its position: each would have what the other has not."""
    with closing(Folder(str(tmp_path / "data"))) as folder:
        folder.open()
        files = folder.files()
        names = {f"{number:016x}.manifest" for number in range(2000)}
        for name in names:
            files.create(name).close()
        (held,) = [
            int(fd)
            for fd in os.listdir("/proc/self/fd")
            if os.path.lexists(link := f"/proc/self/fd/{fd}")
            and os.readlink(link) == str(tmp_path / "data" / "checkpoints")
        ]
        with os.scandir(held) as other:
            first = [next(other).name for _ in range(1000)]
            assert set(files.names()) == names
            assert set(first) | {entry.name for entry in other} == names


def test_errors_have_a_number_and_a_name(folder: Folder) -> None:
    files = folder.files()
    file = files.create("a")
    refused(errno.EEXIST, "checkpoints/a", lambda: files.create("a"))
    refused(errno.ENOENT, "checkpoints/b", lambda: files.open("b"))
    refused(errno.ENOENT, "checkpoints/b", lambda: files.remove("b"))
    refused(errno.ENOENT, "checkpoints/b", lambda: files.rename("b", "c"))
    file.close()
    file.close()
    for call in (lambda: file.size, lambda: file.read(0, 0), lambda: file.append(b"x"), file.sync):
        refused(errno.EBADF, "checkpoints/a", call)
    with pytest.raises(TypeError):
        files.open("a").append("text")  # type: ignore[arg-type]
    refused(errno.EBADF, "", Files().names)  # what came from nowhere is closed
    refused(errno.EBADF, "None", File().sync)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "n" * 48, "ä", *SEG_LIKE])
def test_names_that_no_disk_or_only_the_log_would_take_are_refused(folder: Folder, name: str) -> None:
    files = folder.files()
    for call in (
        files.create,
        files.open,
        files.remove,
        lambda n: files.rename("a", n),
        lambda n: files.rename(n, "a"),
    ):
        refused(errno.EINVAL, name, lambda call=call: call(name))  # type: ignore[misc]
    files.create("n" * 47).close()
    assert files.names() == ["n" * 47]


def test_closing_the_folder_closes_what_is_open(folder: Folder) -> None:
    files = folder.files()
    file, gone = files.create("a"), files.create("b")
    del gone
    folder.close()
    folder.close()
    refused(errno.EBADF, "a", lambda: file.append(b"x"))
    refused(errno.EBADF, "a", lambda: files.open("a"))
    refused(errno.EBADF, "", files.sync_directory)
    assert [name for name in descriptors() if "checkpoints" in name] == []


def descriptors() -> list[str]:
    return [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.lexists(entry.path)]


def test_no_descriptor_is_kept(tmp_path: Path) -> None:
    before = len(descriptors())
    for number in range(3):
        folder = Folder(str(tmp_path / "data"))  # without open(): a child process writes beside the holder of the lock
        file = folder.files().create(f"{number}")
        with pytest.raises(FileExistsError):
            folder.files().create(f"{number}")
        del folder, file
    assert len(descriptors()) == before


def test_a_forked_child_lets_go_of_them(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "data"))
    log = LogStore(folder, 1, segment_size=65536)
    file = folder.files().create("a")
    assert any("checkpoints" in name for name in descriptors())
    log.abandon()
    refused(errno.EBADF, "a", file.sync)
    assert not any("checkpoints" in name for name in descriptors())


def test_a_call_under_way_ends_before_its_descriptor_is_closed(tmp_path: Path) -> None:
    """Else it might reach a file that has got the number since. The call is an open() of a pipe, which waits for a writer."""
    deadline = time.monotonic() + DEADLINE
    errors: list[OSError] = []
    for attempt in itertools.count():
        assert time.monotonic() < deadline, "the directory is never open while the call is under way"
        folder = Folder(str(tmp_path / f"data{attempt}"))
        files = folder.files()
        os.mkfifo(f"{files.path}/pipe")
        begun = threading.Event()

        def call(files: Files = files, begun: threading.Event = begun) -> None:
            begun.set()
            try:
                files.open("pipe")
            except OSError as error:
                errors.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        assert begun.wait(DEADLINE)
        folder.close()  # which needs the GIL: the call goes without
        if files.path in descriptors():
            break
        thread.join(DEADLINE)  # it had not come to its call yet
    errors.clear()
    with open(f"{files.path}/pipe", "wb"):
        thread.join(DEADLINE)
    assert [error.errno for error in errors] == [errno.EBADF]
    assert not any(files.path in name for name in descriptors())


def test_they_lie_beside_the_log_and_the_log_takes_no_notice() -> None:
    disk = MemoryDisk(1)
    with LogStore(folder := disk.folder(), 1, segment_size=65536) as log:
        with folder.files().create("0000000000000001-0.data") as file:
            file.append(b"x" * 70000)
            file.sync()
        folder.files().sync_directory()
        log.append(6, 1, 0, b"value")
        log.flush()
        assert len(folder.names()) > 1
        assert folder.files().names() == ["0000000000000001-0.data"]
    disk.ended(True)
    with LogStore(folder := disk.folder(), 1, segment_size=65536) as log:
        assert (log.outcome, len(log.replay)) == ("good", 2)
        assert folder.files().names() == ["0000000000000001-0.data"]


def test_the_dead_process_is_an_error_and_reaches_nothing_of_the_next(tmp_path: Path) -> None:
    disk = MemoryDisk(1)
    files = disk.folder().files()
    old = files.create("old")
    disk.die(0)
    refused(errno.EIO, "old", lambda: old.append(b"x"))
    assert disk.dead
    for call in (old.sync, files.sync_directory, lambda: files.create("a"), lambda: files.rename("old", "a")):
        refused(errno.EIO, "", call)
    disk.ended(False)
    new = disk.folder().files().create("new")  # under the descriptor that the dead one had
    refused(errno.EBADF, "old", lambda: old.append(b"x"))
    refused(errno.EBADF, "old", lambda: old.read(0, 0))
    refused(errno.EBADF, "old", old.sync)
    refused(errno.EBADF, "old", old.close)
    new.append(b"new")
    assert new.read(0, 3) == b"new"


def test_what_was_not_synced_is_lost_with_the_power() -> None:
    lost = 0
    for seed in range(20):
        disk = MemoryDisk(seed)
        files = disk.folder().files()
        with files.create("a") as file:
            file.append(b"durable")
            file.sync()
            files.sync_directory()
            file.append(b"x" * 600)
        files.create("b").close()
        disk.ended(True)
        files = disk.folder().files()
        with files.open("a") as file:
            assert file.read(0, 7) == b"durable"
            lost += file.size == 7 and files.names() == ["a"]
    assert 0 < lost < 20


def test_the_judge_takes_no_checkpoint_for_the_log() -> None:
    """Bytes that would be a write of the log, if they stood in a segment."""
    record = struct.pack("<IIIBBHIIQ", 0, 0, 24, 1, 1, 0, 0, 0, 4096) + struct.pack("<QIIII", 4096, 1, 4096, 0, 1)
    world = World(3, 1)
    with world.folder(0).files().create("0000000000000001-0.data") as file:
        file.write(4096, record.ljust(4096, b"\0"))
        file.sync()
    assert not world.sealed(0)
