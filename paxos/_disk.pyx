# cython: language_level=3
"""System calls of log and checkpoints, retried and completed."""
from libc.errno cimport EBADMSG, EINTR, EIO, errno
from libc.stdint cimport int64_t, uint8_t, uint64_t
from posix.stat cimport fstat, struct_stat
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.types cimport mode_t, off_t

from paxos._types cimport BLOCK

cdef extern from "<fcntl.h>" nogil:
    int O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_CLOEXEC, O_DIRECT, O_DSYNC
    int POSIX_FADV_DONTNEED
    int openat(int directory, const char *name, int flags, ...)
    int posix_fadvise(int fd, off_t offset, off_t length, int advice)

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void *out, size_t size, off_t offset)
    ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
    int fdatasync(int fd)
    int fsync(int fd)
    int close(int fd)
    int unlinkat(int directory, const char *name, int flags)

cdef extern from "<stdio.h>" nogil:
    int renameat(int old_directory, const char *old, int new_directory, const char *new)


cdef int _open(Disk *d, const char *name, int flags, int *fd) noexcept nogil:
    cdef int how = O_CLOEXEC | (O_RDWR if flags & DISK_WRITE else O_RDONLY)
    if flags & DISK_CREATE:
        how |= O_CREAT
    if flags & DISK_NEW:
        how |= O_EXCL
    if flags & DISK_DIRECT:
        how |= O_DIRECT | O_DSYNC
    while True:
        fd[0] = openat(d.directory, name, how, <mode_t>0o644)
        if fd[0] >= 0:
            return 0
        if errno != EINTR:
            return errno


cdef int _close(Disk *d, int fd) noexcept nogil:
    # After EINTR the descriptor is closed on Linux: never again.
    if close(fd) != 0 and errno != EINTR:
        return errno
    return 0


cdef int _write(Disk *d, int fd, const uint8_t *data, size_t size, uint64_t offset, bint direct) noexcept nogil:
    """A direct write that was short goes on at the block it broke off in."""
    cdef size_t done = 0
    cdef ssize_t n
    while done < size:
        n = pwrite(fd, data + done, size - done, <off_t>(offset + done))
        if n < 0:
            if errno == EINTR:
                continue
            return errno
        if direct and n % BLOCK != 0:
            n -= n % BLOCK
            if n == 0:
                return EIO
        if n == 0:
            return EIO
        done += n
    return 0


cdef int _read(Disk *d, int fd, uint8_t *out, size_t size, uint64_t offset) noexcept nogil:
    cdef size_t done = 0
    cdef ssize_t n
    while done < size:
        n = pread(fd, out + done, size - done, <off_t>(offset + done))
        if n < 0:
            if errno == EINTR:
                continue
            return errno
        if n == 0:
            return EBADMSG          # nobody reads beyond what a file should hold
        done += n
    return 0


cdef int _size(Disk *d, int fd, uint64_t *out) noexcept nogil:
    cdef struct_stat st
    if fstat(fd, &st) != 0:
        return errno
    out[0] = <uint64_t>st.st_size
    return 0


cdef int _sync(Disk *d, int fd) noexcept nogil:
    while fdatasync(fd) != 0:
        if errno != EINTR:
            return errno
    return 0


cdef int _sync_directory(Disk *d) noexcept nogil:
    while fsync(d.directory) != 0:
        if errno != EINTR:
            return errno
    return 0


cdef int _rename(Disk *d, const char *old, const char *new) noexcept nogil:
    return errno if renameat(d.directory, old, d.directory, new) != 0 else 0


cdef int _unlink(Disk *d, const char *name) noexcept nogil:
    return errno if unlinkat(d.directory, name, 0) != 0 else 0


cdef void _uncache(Disk *d, int fd) noexcept nogil:
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)


cdef int64_t _now(Disk *d) noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)      # cannot fail: the clock exists and the pointer is good
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


cdef void disk_real(Disk *d, int directory) noexcept nogil:
    d.context = NULL
    d.directory = directory
    d.open = _open
    d.close = _close
    d.write = _write
    d.read = _read
    d.size = _size
    d.sync = _sync
    d.sync_directory = _sync_directory
    d.rename = _rename
    d.unlink = _unlink
    d.uncache = _uncache
    d.now = _now
