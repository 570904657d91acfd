"""The judge is judged first: what the power-loss library keeps, and what it takes, on small programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import shim


class Box:
    """A directory under the shim, and a way to run Python in it that ends by ``kill -9``."""

    def __init__(self, library: Path, base: Path) -> None:
        self.library = library
        self.data = base / "data"
        self.state = base / "state"
        self.trace = base / "trace"
        self.data.mkdir()
        self.state.mkdir()

    def run(self, code: str, *, lie: bool = False, direct: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs ``code`` in the directory; a helper ``put(path, text, flags)`` writes through a fresh descriptor."""
        prelude = (
            "import os, signal\n"
            "def put(path, text, flags=0, offset=None):\n"
            "    fd = os.open(path, os.O_RDWR | os.O_CREAT | flags)\n"
            "    os.write(fd, text) if offset is None else os.pwrite(fd, text, offset)\n"
            "    return fd\n"
            "def sync(path):\n"
            "    fd = os.open(path, os.O_RDONLY); os.fsync(fd); os.close(fd)\n"
        )
        env = dict(
            os.environ,
            **shim.environment(
                self.library,
                self.data,
                state=self.state,
                trace=self.trace,
                lie=lie,
                direct=direct,
                full=self.data.parent / "full",
                hang=self.data.parent / "hang",
            ),
        )
        script = prelude + code + "\nos.kill(os.getpid(), signal.SIGKILL)\n"
        return subprocess.run(
            [sys.executable, "-c", script], cwd=self.data, env=env, capture_output=True, text=True, check=False
        )

    def lose(self, code: str, *, lie: bool = False, seed: int | None = None) -> shim.Loss:
        run = self.run(code, lie=lie)
        assert run.returncode == -signal.SIGKILL, run.stderr
        return shim.power_loss(self.data, self.state, seed)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.data.iterdir())


@pytest.fixture
def box(shim_library: Path, tmp_path: Path) -> Box:
    return Box(shim_library, tmp_path)


def test_unsynced_write_is_lost(box: Box) -> None:
    (box.data / "a").write_bytes(b"old old old")
    loss = box.lose("put('a', b'new')")
    assert (box.data / "a").read_bytes() == b"old old old"
    assert loss.undone == 1


@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
def test_synced_write_is_kept_and_the_one_behind_it_is_lost(box: Box, call: str) -> None:
    (box.data / "a").write_bytes(b"..........")
    box.lose(f"fd = put('a', b'AAA'); os.{call}(fd); os.pwrite(fd, b'BBB', 1); os.pwrite(fd, b'CCC', 20)")
    assert (box.data / "a").read_bytes() == b"AAA......."


@pytest.mark.parametrize("flag", ["O_DSYNC", "O_SYNC"])
def test_write_through_a_synchronous_descriptor_is_kept(box: Box, flag: str) -> None:
    (box.data / "a").write_bytes(b"..........")
    box.lose(f"put('a', b'AAA', os.{flag}); put('a', b'BBB', 0, 5)")
    assert (box.data / "a").read_bytes() == b"AAA......."


def test_durable_write_over_an_unsynced_one_is_kept(box: Box) -> None:
    (box.data / "a").write_bytes(b"..........")
    box.lose("put('a', b'xxxxxx'); put('a', b'DD', os.O_DSYNC, 2)")
    assert (box.data / "a").read_bytes() == b"..DD......"


def test_vectored_writes(box: Box) -> None:
    (box.data / "a").write_bytes(b"." * 12)
    box.lose(
        "fd = put('a', b'')\n"
        "os.pwritev(fd, [b'AA', b'BB'], 0, os.RWF_DSYNC)\n"
        "os.pwritev(fd, [b'xx', b'yy'], 4)\n"
        "os.lseek(fd, 8, 0); os.writev(fd, [b'z', b'z'])"
    )
    assert (box.data / "a").read_bytes() == b"AABB........"


def test_direct_write(box: Box) -> None:
    (box.data / "a").write_bytes(b"." * 8192)
    box.lose(
        "import mmap\n"
        "m = mmap.mmap(-1, 4096); m.write(b'A' * 4096)\n"
        "fd = os.open('a', os.O_WRONLY | os.O_DIRECT | os.O_DSYNC); os.pwrite(fd, m, 0)\n"
        "fd = os.open('a', os.O_WRONLY | os.O_DIRECT); os.pwrite(fd, m, 4096)\n"
    )
    assert (box.data / "a").read_bytes() == b"A" * 4096 + b"." * 4096


def test_refused_direct(box: Box) -> None:
    run = box.run("os.open('a', os.O_RDWR | os.O_CREAT | os.O_DIRECT)", direct=False)
    assert "Invalid argument" in run.stderr


def test_sync_does_not_cover_another_file(box: Box) -> None:
    (box.data / "a").write_bytes(b"old")
    (box.data / "b").write_bytes(b"old")
    box.lose("fd = put('a', b'new'); put('b', b'new'); os.fsync(fd)")
    assert (box.data / "a").read_bytes() == b"new"
    assert (box.data / "b").read_bytes() == b"old"


def test_new_file_needs_its_directory_synced(box: Box) -> None:
    box.lose("fd = put('a', b'AAA'); os.fsync(fd); sync('.'); fd = put('b', b'BBB'); os.fsync(fd)")
    assert box.names() == ["a"]
    assert (box.data / "a").read_bytes() == b"AAA"


def test_entry_durable_and_data_not(box: Box) -> None:
    box.lose("put('a', b'AAA'); sync('.')")
    assert (box.data / "a").read_bytes() == b""


def test_rename_is_undone_with_what_it_replaced(box: Box) -> None:
    (box.data / "a").write_bytes(b"first")
    box.lose("fd = put('t', b'second'); os.fsync(fd); sync('.'); os.rename('t', 'a')")
    assert box.names() == ["a", "t"]
    assert (box.data / "a").read_bytes() == b"first"
    assert (box.data / "t").read_bytes() == b"second"


def test_synced_rename_is_kept(box: Box) -> None:
    (box.data / "a").write_bytes(b"first")
    box.lose("fd = put('t', b'second'); os.fsync(fd); os.replace('t', 'a'); sync('.')")
    assert box.names() == ["a"]
    assert (box.data / "a").read_bytes() == b"second"


def test_unlink_is_undone(box: Box) -> None:
    (box.data / "a").write_bytes(b"kept")
    (box.data / "b").write_bytes(b"gone")
    box.lose("os.unlink('b'); sync('.'); os.unlink('a')")
    assert box.names() == ["a"]
    assert (box.data / "a").read_bytes() == b"kept"


def test_directories(box: Box) -> None:
    box.lose("os.mkdir('d'); sync('.'); os.mkdir('e'); fd = put('d/x', b'X'); os.fsync(fd)")
    assert box.names() == ["d"]
    assert list((box.data / "d").iterdir()) == []


def test_removed_directory_comes_back_with_its_files(box: Box) -> None:
    (box.data / "d").mkdir()
    (box.data / "d" / "x").write_bytes(b"X")
    box.lose("os.unlink('d/x'); os.rmdir('d')")
    assert (box.data / "d" / "x").read_bytes() == b"X"


@pytest.mark.parametrize(
    "change",
    [
        "os.ftruncate(fd, 2)",
        "os.ftruncate(fd, 50)",
        "os.truncate('a', 3)",
        "os.posix_fallocate(fd, 0, 100)",
        "open('a', 'wb').write(b'q')",
        "open('a', 'ab').write(b'q')",
    ],
)
def test_changes_of_size(box: Box, change: str) -> None:
    (box.data / "a").write_bytes(b"0123456789")
    loss = box.lose(f"fd = os.open('a', os.O_RDWR)\n{change}")
    assert (box.data / "a").read_bytes() == b"0123456789"
    assert loss.undone >= 1
    box.lose(f"fd = os.open('a', os.O_RDWR)\n{change}\nos.fsync(fd)")
    assert (box.data / "a").read_bytes() != b"0123456789"


def test_failed_calls_are_not_undone(box: Box) -> None:
    (box.data / "a").write_bytes(b"A")
    loss = box.lose(
        "import contextlib\n"
        "fd = os.open('a', os.O_RDONLY)\n"
        "calls = [lambda: os.write(fd, b'x'), lambda: os.rename('no', 'b')]\n"
        "calls += [lambda: os.unlink('no'), lambda: os.mkdir('a')]\n"
        "for call in calls:\n"
        "    with contextlib.suppress(OSError): call()\n"
    )
    assert loss.undone == 0
    assert box.names() == ["a"]


def test_a_second_process_before_the_loss(box: Box) -> None:
    """A kill without a power loss keeps the page cache; a later sync by another process covers what it holds."""
    (box.data / "a").write_bytes(b"....")
    box.run("put('a', b'A')")
    box.lose("fd = put('a', b'B', 0, 1); os.fsync(fd); os.pwrite(fd, b'C', 2)")
    assert (box.data / "a").read_bytes() == b"AB.."


def test_loss_is_over_after_it_was_taken(box: Box) -> None:
    (box.data / "a").write_bytes(b"....")
    box.lose("put('a', b'A')")
    box.lose("put('a', b'B', os.O_DSYNC, 1)")
    assert (box.data / "a").read_bytes() == b".B.."


def test_torn_writes_keep_some_sectors(box: Box) -> None:
    sectors = 16
    seen = set()
    for seed in range(24):
        (box.data / "a").write_bytes(b"." * sectors * 512)
        box.lose(f"put('a', b'N' * 512 * {sectors})", seed=seed)
        content = (box.data / "a").read_bytes()
        parts = [content[i * 512 : (i + 1) * 512] for i in range(sectors)]
        assert all(part in (b"." * 512, b"N" * 512) for part in parts)
        seen.add(sum(part[:1] == b"N" for part in parts))
    assert {0, sectors} < seen, "whole, lost and torn writes all come up"


def test_a_lying_disk_keeps_nothing(box: Box) -> None:
    (box.data / "a").write_bytes(b"....")
    box.lose("fd = put('a', b'A', os.O_DSYNC); os.fsync(fd); sync('.')", lie=True)
    assert (box.data / "a").read_bytes() == b"...."


@pytest.mark.parametrize(
    "code",
    [
        "import mmap; fd = put('a', b'x' * 10); mmap.mmap(fd, 10)",
        "fd = put('a', b'x' * 10); os.sendfile(os.open('b', os.O_RDWR | os.O_CREAT), fd, 0, 10)",
        "os.sync()",
    ],
)
def test_what_cannot_be_undone_is_refused_loudly(box: Box, code: str) -> None:
    run = box.run(code)
    assert run.returncode == -signal.SIGABRT
    assert "shim: " in run.stderr


def test_trace_tells_order(box: Box) -> None:
    run = box.run(
        "import socket\n"
        "a, b = socket.socketpair()\n"
        "fd = put('a', b'one', os.O_DSYNC)\n"
        "a.send(b'two')\n"
        "os.fsync(fd)\n"
        "a.sendmsg([b'th', b'ree'])\n"
        "print(os.getpid(), flush=True)\n"
    )
    events = shim.read_trace(box.trace, int(run.stdout))
    assert [event.kind for event in events] == ["wb", "we", "tb", "te", "sb", "se", "tb", "te"]
    assert [event.data for event in events if event.kind in ("wb", "tb")] == [b"one", b"two", b"three"]
    assert [event.size for event in events] == [3, 3, 3, 3, 0, 0, 5, 5]
    assert events[0].durable
    assert [event.time for event in events] == sorted(event.time for event in events)
    assert len({event.ino for event in events if event.kind[0] == "t"}) == 1


def test_a_full_disk_refuses_what_would_grow(box: Box) -> None:
    (box.data / "a").write_bytes(b"....")
    run = box.run(
        "import errno, pathlib\n"
        "def refused(call):\n"
        "    try: call()\n"
        "    except OSError as error: return error.errno == errno.ENOSPC\n"
        "    return False\n"
        "full = pathlib.Path('../full')\n"
        "full.touch()\n"
        "fd = os.open('a', os.O_RDWR | os.O_CREAT)\n"
        "seen = [refused(lambda: os.pwrite(fd, b'AA', 3)), refused(lambda: os.open('b', os.O_RDWR | os.O_CREAT))]\n"
        "os.pwrite(fd, b'AA', 2); os.rename('a', 'c')\n"
        "full.unlink()\n"
        "os.pwrite(fd, b'AA', 4); put('b', b'B')\n"
        "print(seen, flush=True)\n"
    )
    assert run.stdout == "[True, True]\n", run.stderr
    assert (box.data / "c").read_bytes() == b"..AAAA"


def test_a_disk_that_hangs_goes_on_when_it_may(box: Box) -> None:
    run = box.run(
        "import pathlib, threading\n"
        "hang = pathlib.Path('../hang')\n"
        "fd = put('a', b'1')\n"
        "hang.touch()\n"
        "done = []\n"
        "def work(): os.pwrite(fd, b'2', 0); done.append(hang.exists()); os.fsync(fd)\n"
        "thread = threading.Thread(target=work); thread.start()\n"
        "thread.join(0.1); print(thread.is_alive(), done)\n"
        "hang.unlink(); thread.join(); print(done, flush=True)\n"
    )
    assert run.stdout == "True []\n[False]\n", run.stderr
