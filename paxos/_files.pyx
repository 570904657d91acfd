# cython: language_level=3
"""The files of one flat directory, for Python: what checkpoints are written with, on a real disk and on a simulated one.

A descriptor is closed only when no call is under way on it, so that no call can reach a file which has got its number since.
"""
cimport cython
import os
import weakref

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EBADF, EBADMSG, EFBIG, EINVAL
from libc.stdint cimport INT64_MAX, uint8_t, uint64_t

from paxos._disk cimport DISK_CREATE, DISK_NEW, DISK_WRITE

LOG_ENDINGS = (".seg", ".tmp")


def _failed(int error, path):
    if error == EBADMSG:
        return OSError(error, "the file is shorter", path)
    return OSError(error, os.strerror(error), path)


def _listing(int directory):
    # Opened anew: a duplicate would share its position with a listing on another thread, and each would miss names.
    own = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
    try:
        return os.listdir(own)
    finally:
        os.close(own)


def _plain(files, name):
    """A name as the disk takes it."""
    raw = name.encode("ascii", "replace")
    if not 0 < len(raw) < NAME_ROOM or set(raw) & set(b"/\0?") or name in (".", "..") or name.endswith(LOG_ENDINGS):
        raise OSError(EINVAL, f"a file name has 1 to {NAME_ROOM - 1} ASCII characters, none of them / ? or NUL, and does not end in "
                      f"{' or '.join(LOG_ENDINGS)}", files.path + "/" + name)
    return raw


@cython.final
@cython.no_gc_clear                 # an open file needs its disk to the last
cdef class Files:
    """The files of a flat directory; see _files.pyi."""

    def __cinit__(self):
        self.path = ""              # and not alive: only files_on() makes one that can be used

    def __dealloc__(self):
        if self.alive and self.disk.directory >= 0:
            self.disk.close(&self.disk, self.disk.directory)    # only ever read and synced

    cdef str where(self, name):
        return self.path + "/" + name

    cdef int enter(self, name) except -1:
        if not self.alive:
            raise OSError(EBADF, "the directory has been closed", self.where(name))
        self.calls += 1
        return 0

    cdef int leave(self) except -1:
        self.calls -= 1
        if not self.alive and self.calls == 0 and self.disk.directory >= 0:
            os.close(self.disk.directory)
            self.disk.directory = -1
        return 0

    cdef File reach(self, name, int flags):
        cdef bytes raw = _plain(self, name)
        cdef const char *plain = raw
        cdef File file = File.__new__(File)
        cdef int fd = -1, error
        cdef uint64_t size = 0
        self.enter(name)
        with nogil:
            error = self.disk.open(&self.disk, plain, flags, &fd)
            if error == 0:
                error = self.disk.size(&self.disk, fd, &size)
        file.files = self
        file.name = name
        file.fd = fd
        file.end = size
        file.alive = fd >= 0
        self.leave()
        if error:
            raise _failed(error, self.where(name))
        if not self.alive:
            raise OSError(EBADF, "the directory has been closed", self.where(name))
        self.opened.add(file)
        return file

    def names(self):
        self.enter("")
        try:
            names = _listing(self.disk.directory) if self.listing is None else self.listing()
        finally:
            self.leave()
        return [name for name in names if not name.endswith(LOG_ENDINGS)]

    def create(self, str name not None):
        return self.reach(name, DISK_WRITE | DISK_CREATE | DISK_NEW)

    def open(self, str name not None, *, bint write=False):
        return self.reach(name, DISK_WRITE if write else 0)

    def rename(self, str old not None, str new not None):
        cdef bytes raw_old = _plain(self, old)
        cdef bytes raw_new = _plain(self, new)
        cdef const char *plain_old = raw_old
        cdef const char *plain_new = raw_new
        cdef int error
        self.enter(old)
        with nogil:
            error = self.disk.rename(&self.disk, plain_old, plain_new)
        self.leave()
        if error:
            raise _failed(error, self.where(old))

    def remove(self, str name not None):
        cdef bytes raw = _plain(self, name)
        cdef const char *plain = raw
        cdef int error
        self.enter(name)
        with nogil:
            error = self.disk.unlink(&self.disk, plain)
        self.leave()
        if error:
            raise _failed(error, self.where(name))

    def sync_directory(self):
        cdef int error
        self.enter("")
        with nogil:
            error = self.disk.sync_directory(&self.disk)
        self.leave()
        if error:
            raise _failed(error, self.path)

    def close(self):
        cdef File file
        if not self.alive:
            return
        for file in list(self.opened):
            if file.alive:
                file.alive = False
                if file.calls == 0:
                    file.release()      # nobody has asked whether it is whole: whoever does so closes it himself
        self.alive = False
        self.calls += 1
        self.leave()


@cython.final
@cython.no_gc_clear
cdef class File:
    """An open file; see _files.pyi."""

    def __dealloc__(self):
        if self.fd >= 0 and self.files is not None:
            self.release()

    cdef int enter(self) except -1:
        if not self.alive:
            raise OSError(EBADF, "the file has been closed", None if self.files is None else self.files.where(self.name))
        self.calls += 1
        return 0

    cdef int leave(self) except -1:
        self.calls -= 1
        if not self.alive and self.calls == 0:
            self.release()
        return 0

    cdef int release(self) noexcept:
        """Closes the descriptor; 0 or an errno."""
        cdef int fd = self.fd
        self.fd = -1
        self.alive = False
        return self.files.disk.close(&self.files.disk, fd) if fd >= 0 else 0

    cdef int put(self, uint64_t offset, data) except -1:
        cdef Py_buffer view
        cdef int error = 0
        cdef const uint8_t *start
        cdef size_t size
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            start = <const uint8_t *>view.buf
            size = <size_t>view.len
            if offset > INT64_MAX or size > INT64_MAX - offset:
                raise _failed(EFBIG, self.files.where(self.name) if self.files is not None else None)
            self.enter()
            if size:
                with nogil:
                    error = self.files.disk.write(&self.files.disk, self.fd, start, size, offset, False)
            self.leave()
        finally:
            PyBuffer_Release(&view)
        if error:
            raise _failed(error, self.files.where(self.name))
        if size:
            self.end = max(self.end, offset + size)
        return 0

    @property
    def size(self):
        cdef uint64_t size = 0
        cdef int error
        self.enter()
        with nogil:
            error = self.files.disk.size(&self.files.disk, self.fd, &size)
        self.leave()
        if error:
            raise _failed(error, self.files.where(self.name))
        return size

    def append(self, data not None):
        self.put(self.end, data)

    def write(self, uint64_t offset, data not None):
        self.put(offset, data)

    def read(self, uint64_t offset, uint64_t size):
        cdef uint64_t there = 0
        cdef int error
        cdef bytes out
        cdef uint8_t *start
        self.enter()
        error = self.files.disk.size(&self.files.disk, self.fd, &there)
        if error == 0 and (offset > there or size > there - offset):
            error = EBADMSG         # before memory is taken for it
        if error:
            self.leave()
            raise _failed(error, self.files.where(self.name))
        try:
            out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
            start = <uint8_t *>PyBytes_AS_STRING(out)
            if size:
                with nogil:
                    error = self.files.disk.read(&self.files.disk, self.fd, start, size, offset)
        finally:
            self.leave()
        if error:
            raise _failed(error, self.files.where(self.name))
        return out

    def sync(self):
        cdef int error
        self.enter()
        with nogil:
            error = self.files.disk.sync(&self.files.disk, self.fd)
        self.leave()
        if error:
            raise _failed(error, self.files.where(self.name))

    def close(self):
        cdef int error
        if not self.alive:
            return
        self.alive = False
        if self.calls:
            return                  # the call that is under way in another thread closes it
        error = self.release()
        if error:
            raise _failed(error, self.files.where(self.name))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


cdef Files files_on(const Disk *disk, str path, object listing, object keeper):
    cdef Files files = Files.__new__(Files)
    files.disk = disk[0]
    files.path = path
    files.listing = listing
    files.keeper = keeper
    files.opened = weakref.WeakSet()
    files.alive = True
    return files
