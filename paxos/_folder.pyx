# cython: language_level=3
"""A data directory on a real file system: made durably, locked, listed, read.

    LOCK                  held with flock while the log is open; holds the pid of its holder
    log/                  the segments and their spares
    quarantine/<number>/  logs that were found damaged, whole, with a note
    checkpoints/          checkpoints, and what is on its way to become one
"""
import fcntl
import mmap
import os
import errno
from concurrent.futures import ThreadPoolExecutor

cimport cython
from paxos._disk cimport Disk, disk_real
from paxos._files cimport files_on
from paxos._spares cimport CHUNK
from paxos._types cimport BLOCK

from paxos.errors import DamagedLog, DirectoryInUse

cdef enum:
    READERS = 4                         # of segments, at the start


def segment_number(name):
    """The number of the segment that lies in a file of this name, or None: it is none. Nothing else decides what belongs to a log."""
    stem, _, ending = name.rpartition(".")
    return int(stem, 16) if ending == "seg" and len(stem) == 16 and set(stem) <= set("0123456789abcdef") else None


def damage(path, offset, why):
    """What is said of data that was acknowledged and does not verify."""
    return (f"{path}, offset {offset}: {why}. Data that this node had made durable is damaged or missing, so it may have "
            "forgotten what it promised and must not vote with this log")


def _fsync_path(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _make_directory(path):
    """Makes a directory, and those above it, so that a loss of power does not take any of them away again."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for path in reversed(missing):
        os.makedirs(path, exist_ok=True)    # another node of this machine may be making the same parents
        _fsync_path(os.path.dirname(path))


def _flock(fd, how, directory):
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise DirectoryInUse(f"{directory} is in use by the process with pid {pid}: stop that process, or name another "
                             "data directory") from None


def _lock(directory):
    path = os.path.join(directory, "LOCK")
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _flock(fd, fcntl.LOCK_EX, directory)
        text = f"{os.getpid()}\n".encode()
        os.pwrite(fd, text, 0)      # over what is there: cut to nothing first, it would find no room on a full disk
        os.ftruncate(fd, len(text))
    except BaseException:
        os.close(fd)
        raise
    return fd


cdef class Folder:
    """The data directory ``path``. ``open()`` first; ``close()`` gives the lock up. Names are those of files in ``log/``.

    Everything raises ``OSError`` where the system refuses, ``open()`` also :class:`~paxos.errors.DirectoryInUse`, and ``view()``
    :class:`~paxos.errors.DamagedLog` where the disk cannot read. Used by one thread at a time.
    """

    def __init__(self, path):
        self.path = os.path.abspath(os.fspath(path))
        self.log = os.path.join(self.path, "log")
        self.threads = True
        self.lock = -1
        self.disk.directory = -1

    def open(self):
        """Makes what is missing, durably, and takes the lock."""
        _make_directory(self.path)
        self.lock = _lock(self.path)
        _make_directory(self.log)
        # What a crash left was seen here (a directory made, a segment renamed): from now on it is durable.
        _fsync_path(self.path)
        _fsync_path(self.log)
        disk_real(&self.disk, os.open(self.log, os.O_RDONLY | os.O_DIRECTORY))

    def quarantine(self, str why not None):
        """Sets the whole log aside, durably, with a note that says why; an empty one takes its place. Nothing is deleted. Where it
        is now, for messages."""
        top = os.path.join(self.path, "quarantine")
        _make_directory(top)
        number = 1 + max((int(name) for name in os.listdir(top) if name.isdecimal()), default=0)
        place = os.path.join(top, f"{number:03d}")
        with open(os.path.join(self.log, "why.txt"), "w", encoding="utf-8") as note:
            note.write(why + "\n")
            note.flush()
            os.fsync(note.fileno())
        _fsync_path(self.log)
        os.rename(self.log, place)
        self.place = place
        _fsync_path(top)
        os.close(self.disk.directory)
        self.disk.directory = -1
        _make_directory(self.log)
        _fsync_path(self.path)
        disk_real(&self.disk, os.open(self.log, os.O_RDONLY | os.O_DIRECTORY))
        return place

    cdef bytes aside(self, Disk *out):
        """After quarantine(): a Disk on what was set aside, for the caller to close its directory; the printf() format by which the
        segments are named there."""
        disk_real(out, os.open(self.place, os.O_RDONLY | os.O_DIRECTORY))
        return b"%016llx.seg"

    def lived(self):
        """Whether there is more here than a log: one that was set aside, or checkpoints."""
        top = os.path.join(self.path, "quarantine")
        checkpoints = os.path.join(self.path, "checkpoints")
        return (os.path.isdir(top) and bool(os.listdir(top))
                or os.path.isdir(checkpoints) and any(".manifest" in name for name in os.listdir(checkpoints)))

    def files(self):
        """The files in ``checkpoints/``, which is made durably. Needs no ``open()``: a child process that writes a checkpoint for
        the holder of the lock has a Folder of its own."""
        cdef Disk disk
        if self.checkpoints is None:
            path = os.path.join(self.path, "checkpoints")
            _make_directory(path)
            # What a crash left was seen here: from now on it is durable.
            _fsync_path(self.path)
            _fsync_path(path)
            disk_real(&disk, os.open(path, os.O_RDONLY | os.O_DIRECTORY))
            self.checkpoints = files_on(&disk, path, None, None)
        return self.checkpoints

    cdef int close_files(self) except -1:
        files, self.checkpoints = self.checkpoints, None
        if files is not None:
            files.close()
        return 0

    def close(self):
        """Closes what is open, and gives the lock up; the file stays, or another process could lock one that is unlinked. May be called again."""
        self.close_files()
        if self.disk.directory >= 0:
            os.close(self.disk.directory)
            self.disk.directory = -1
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def where(self, name):
        """A file's path, for messages."""
        return os.path.join(self.log, name)

    def names(self):
        """Every file."""
        return os.listdir(self.log)

    def segments(self):
        """The numbers of the segments that are there, in order."""
        return sorted(number for number in map(segment_number, self.names()) if number is not None)

    def size(self, name):
        """Bytes of a file."""
        return os.path.getsize(self.where(name))

    def views(self, names):
        """The bytes of some files. Several are read at a time: a log is written past the page cache, so a start waits for the disk,
        which one reader does not keep busy."""
        if not self.threads:
            return [self.view(name) for name in names]
        with ThreadPoolExecutor(READERS, thread_name_prefix="paxos-log-reader") as readers:
            return list(readers.map(self.view, names))

    def view(self, name):
        """The bytes of a file. They are read once first, so that a bad sector is an error here and not a signal later."""
        path = self.where(name)
        fd = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(fd).st_size
            offset = 0
            chunk = bytearray(min(size, CHUNK))
            try:
                while offset < size:
                    n = os.preadv(fd, [chunk], offset)
                    if n == 0:
                        break
                    offset += n
            except OSError as error:
                raise DamagedLog(damage(path, offset // BLOCK * BLOCK, f"the disk cannot read it ({error.strerror})")) from error
            return mmap.mmap(fd, size, access=mmap.ACCESS_READ) if size else b""
        finally:
            os.close(fd)

    def settle(self, name):
        """Makes what a file holds durable."""
        fd = os.open(self.where(name), os.O_RDWR)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def remove(self, name):
        """Removes a file."""
        os.unlink(self.where(name))

    def entropy(self, size_t size):
        """Random bytes."""
        return os.urandom(size)


@cython.final
cdef class StoppedFolder(Folder):
    """The data directory of a node that is stopped, to be looked at: nothing in it is made or changed. While it is open no node starts
    here. ``log``: where the segments lie, if they are those of a log that was set aside."""

    def __init__(self, path, log=None):
        Folder.__init__(self, path)
        if log is not None:
            self.log = os.path.abspath(os.fspath(log))

    def open(self):
        """Takes part in the lock, where there is one. :class:`~paxos.errors.DirectoryInUse` where a process holds it."""
        if not os.path.isdir(self.log):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.log)
        try:
            self.lock = os.open(os.path.join(self.path, "LOCK"), os.O_RDONLY)
        except FileNotFoundError:
            return                      # a copy, or what is left of a directory: nobody can be using it under a lock
        try:
            _flock(self.lock, fcntl.LOCK_SH, self.path)
        except BaseException:
            self.close()
            raise

    def files(self):
        """The files in ``checkpoints/``; FileNotFoundError where there is no such directory."""
        cdef Disk disk
        if self.checkpoints is None:
            path = os.path.join(self.path, "checkpoints")
            disk_real(&disk, os.open(path, os.O_RDONLY | os.O_DIRECTORY))
            self.checkpoints = files_on(&disk, path, None, None)
        return self.checkpoints

    def quarantine(self, str why not None):
        """Never: nothing is changed."""
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), self.path)

    def settle(self, name):
        """Never: nothing is changed."""
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), self.where(name))

    def remove(self, name):
        """Never: nothing is changed."""
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), self.where(name))
