# cython: language_level=3
"""What log and checkpoints ask of a disk: a table of calls on the files of one directory. The real one makes system calls, retried and
completed; the simulated one forgets, tears and fails. Every answer is 0 or an errno, unless said otherwise."""
from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef enum DiskFlag:
    DISK_WRITE = 1                  # else for reading only
    DISK_CREATE = 2                 # made, if it is not there
    DISK_NEW = 4                    # with DISK_CREATE: it must not be there yet
    DISK_DIRECT = 8                 # each write is durable when it returns; EINVAL where that cannot be

cdef struct Disk:
    void *context
    int directory                   # the real one's descriptor
    int (*open)(Disk *d, const char *name, int flags, int *fd) noexcept nogil
    int (*close)(Disk *d, int fd) noexcept nogil
    # All of it. `direct`: the file was opened with DISK_DIRECT, and data, size and offset are multiples of BLOCK.
    int (*write)(Disk *d, int fd, const uint8_t *data, size_t size, uint64_t offset, bint direct) noexcept nogil
    int (*read)(Disk *d, int fd, uint8_t *out, size_t size, uint64_t offset) noexcept nogil     # EBADMSG: the file is shorter
    int (*size)(Disk *d, int fd, uint64_t *out) noexcept nogil
    int (*sync)(Disk *d, int fd) noexcept nogil
    int (*sync_directory)(Disk *d) noexcept nogil
    int (*rename)(Disk *d, const char *old, const char *new) noexcept nogil
    int (*unlink)(Disk *d, const char *name) noexcept nogil
    void (*uncache)(Disk *d, int fd) noexcept nogil         # advice: what was written will not be read soon
    int64_t (*now)(Disk *d) noexcept nogil                  # ns, for counters

cdef void disk_real(Disk *d, int directory) noexcept nogil
