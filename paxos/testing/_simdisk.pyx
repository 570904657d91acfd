# cython: language_level=3
"""A disk in memory for log and checkpoints: what was written is seen at once, and survives only when it was synced.

A direct write is durable when it returns, and torn by sectors if the process dies in it. Any other write is kept beside what
it overwrote until its file is synced; a loss of power takes it back, sector by sector, as the dice fall. Names likewise: a
file that was made, renamed or removed is so for good when the directory is synced, and a loss of power undoes a row of the
newest changes. A sync that fails leaves what it was for in the page cache and never on the disk (ATC 2020, "Can
Applications Recover from fsync Failures?").
"""
from libc.errno cimport EBADF, EBADMSG, EEXIST, EINVAL, EIO, EMFILE, ENOENT, ENOSPC
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from libc.string cimport memcpy, memset, strcmp, strncpy

from paxos._disk cimport DISK_CREATE, DISK_DIRECT, DISK_NEW, Disk
from paxos._files cimport files_on
from paxos._types cimport xalloc, xrealloc, xzalloc
from paxos.testing._random cimport random_between, random_chance, random_next


cdef SimFile *find(SimDisk *d, const char *name) noexcept nogil:
    cdef size_t i
    for i in range(d.file_count):
        if d.files[i].linked and strcmp(d.files[i].name, name) == 0:
            return d.files[i]
    return NULL


cdef bint dies(SimDisk *d) noexcept nogil:
    """Whether the process ends in this very call."""
    if d.dead:
        return True
    if d.dies_in < 0:
        return False
    if d.dies_in == 0:
        d.dead = True
        return True
    d.dies_in -= 1
    return False


cdef void changed(SimDisk *d, int kind, SimFile *file, SimFile *replaced, const char *old) noexcept nogil:
    cdef Change *c
    if d.change_count == d.change_size:
        d.change_size = d.change_size * 2 if d.change_size else 16
        d.changes = <Change *>xrealloc(d.changes, d.change_size * sizeof(Change))
    c = &d.changes[d.change_count]
    d.change_count += 1
    c.kind = kind
    c.file = file
    c.replaced = replaced
    memset(c.old, 0, NAME_SIZE)
    if old != NULL:
        strncpy(c.old, old, NAME_SIZE - 1)


cdef inline int descriptor(const SimDisk *d, int i) noexcept nogil:
    """Another one in each life, so that what a dead process left behind cannot reach into the files of the next."""
    return <int>(d.life & 0xFFFFFF) * MAX_OPEN + i


cdef SimFile *opened(SimDisk *d, int fd) noexcept nogil:
    return d.open[fd % MAX_OPEN] if fd >= 0 and descriptor(d, fd % MAX_OPEN) == fd else NULL


cdef int _open(Disk *disk, const char *name, int flags, int *fd) noexcept nogil:
    cdef SimDisk *d = <SimDisk *>disk.context
    cdef SimFile *f = find(d, name)
    cdef int i
    if flags & DISK_DIRECT and d.refuses_direct:
        return EINVAL
    if f != NULL and flags & DISK_NEW:
        return EEXIST
    if f == NULL:
        if not flags & DISK_CREATE:
            return ENOENT
        if dies(d):
            return EIO
        if d.full and d.room == 0:
            return ENOSPC
        f = <SimFile *>xzalloc(sizeof(SimFile))
        strncpy(f.name, name, NAME_SIZE - 1)
        f.linked = True
        if d.file_count == d.file_size:
            d.file_size = d.file_size * 2 if d.file_size else 16
            d.files = <SimFile **>xrealloc(d.files, d.file_size * sizeof(SimFile *))
        d.files[d.file_count] = f
        d.file_count += 1
        changed(d, CHANGE_CREATE, f, NULL, NULL)
    for i in range(MAX_OPEN):
        if d.open[i] == NULL:
            d.open[i] = f
            d.direct[i] = flags & DISK_DIRECT
            fd[0] = descriptor(d, i)
            return 0
    return EMFILE


cdef int _close(Disk *disk, int fd) noexcept nogil:
    cdef SimDisk *d = <SimDisk *>disk.context
    if opened(d, fd) == NULL:
        return EBADF
    d.open[fd % MAX_OPEN] = NULL
    return 0


cdef void grow(SimFile *f, uint64_t size) noexcept nogil:
    if size <= f.size:
        return
    if size > f.capacity:
        f.capacity = max(size, f.capacity * 2)
        f.data = <uint8_t *>xrealloc(f.data, f.capacity)
    memset(f.data + f.size, 0, size - f.size)
    f.size = size


cdef void put(SimDisk *d, SimFile *f, const uint8_t *data, uint64_t size, uint64_t offset, bint torn) noexcept nogil:
    """Writes; a torn write leaves out sectors: those behind some place, those before it, or any."""
    cdef uint64_t at = 0, n, place
    cdef int64_t how
    cdef double kept
    grow(f, offset + size)
    if not torn:
        memcpy(f.data + offset, data, size)
        return
    d.torn += 1
    how = random_between(&d.random, 0, 2)
    place = <uint64_t>random_between(&d.random, 0, <int64_t>(size // SECTOR)) * SECTOR
    kept = <double>random_between(&d.random, 0, 4) / 4
    while at < size:
        n = min(<uint64_t>SECTOR, size - at)
        if (how == 0 and at < place) or (how == 1 and at >= place) or (how == 2 and random_chance(&d.random, kept)):
            memcpy(f.data + offset + at, data + at, n)
        at += n


cdef void settle_older(SimFile *f, size_t count, uint64_t offset, uint64_t size) noexcept nogil:
    """What is durable in this range now is no longer lost with the first so many unsynced writes, nor with a failed sync."""
    cdef size_t i
    cdef uint64_t begin, end
    f.synced_size = max(f.synced_size, offset + size)
    for i in range(count):
        begin = max(f.unsynced[i].offset, offset)
        end = min(f.unsynced[i].offset + f.unsynced[i].size, offset + size)
        if begin < end:
            memcpy(f.unsynced[i].old + (begin - f.unsynced[i].offset), f.data + begin, end - begin)


cdef int _write(Disk *disk, int fd, const uint8_t *data, size_t size, uint64_t offset, bint direct) noexcept nogil:
    cdef SimDisk *d = <SimDisk *>disk.context
    cdef SimFile *f = opened(d, fd)
    cdef Unsynced *u
    cdef bint gone = d.dead
    cdef bint ends
    cdef uint64_t there
    if f == NULL:
        return EBADF
    ends = dies(d)
    if gone:
        return EIO
    if d.full and offset + size > f.size:
        if offset + size - f.size > d.room:
            return ENOSPC
        d.room -= offset + size - f.size
    if not direct:
        # What it overwrites is kept, so that it can be lost.
        if f.unsynced_count == f.unsynced_size:
            f.unsynced_size = f.unsynced_size * 2 if f.unsynced_size else 4
            f.unsynced = <Unsynced *>xrealloc(f.unsynced, f.unsynced_size * sizeof(Unsynced))
        u = &f.unsynced[f.unsynced_count]
        f.unsynced_count += 1
        u.offset = offset
        u.size = size
        u.old_size = f.size
        u.old = <uint8_t *>xzalloc(size)
        u.lost = False
        there = min(<uint64_t>size, f.size - offset) if offset < f.size else 0
        if there:
            memcpy(u.old, f.data + offset, there)
    elif d.fails and not ends:
        d.fails = False
        put(d, f, data, size, offset, True)
        return EIO
    put(d, f, data, size, offset, ends)
    if ends:
        return EIO
    if direct:
        d.synced += 1
        settle_older(f, f.unsynced_count, offset, size)
        if d.persisted != NULL:
            d.persisted(d.context, f.name, offset, data, size)
    return 0


cdef int _read(Disk *disk, int fd, uint8_t *out, size_t size, uint64_t offset) noexcept nogil:
    cdef SimDisk *d = <SimDisk *>disk.context
    cdef SimFile *f = opened(d, fd)
    if f == NULL:
        return EBADF
    if d.read_fails:
        d.read_fails = False
        return EIO
    if offset + size > f.size:
        return EBADMSG
    memcpy(out, f.data + offset, size)
    return 0


cdef int _size(Disk *disk, int fd, uint64_t *out) noexcept nogil:
    cdef SimFile *f = opened(<SimDisk *>disk.context, fd)
    if f == NULL:
        return EBADF
    out[0] = f.size
    return 0


cdef int _sync(Disk *disk, int fd) noexcept nogil:
    cdef SimDisk *d = <SimDisk *>disk.context
    cdef SimFile *f = opened(d, fd)
    cdef Unsynced *u
    cdef size_t i, kept = 0
    if f == NULL:
        return EBADF
    if dies(d):
        return EIO
    if d.fails:
        d.fails = False
        for i in range(f.unsynced_count):
            f.unsynced[i].lost = True
        return EIO
    for i in range(f.unsynced_count):
        u = &f.unsynced[i]
        if u.lost:
            f.unsynced[kept] = u[0]
            kept += 1
            continue
        d.synced += 1
        settle_older(f, kept, u.offset, u.size)
        if d.persisted != NULL:
            d.persisted(d.context, f.name, u.offset, f.data + u.offset, u.size)
        free(u.old)
    f.unsynced_count = kept
    return 0


cdef int _sync_directory(Disk *disk) noexcept nogil:
    cdef SimDisk *d = <SimDisk *>disk.context
    if dies(d):
        return EIO
    if d.directory_fails:
        d.directory_fails = False
        return EIO
    d.change_count = 0
    sweep(d)
    return 0


cdef int _rename(Disk *disk, const char *old, const char *new) noexcept nogil:
    cdef SimDisk *d = <SimDisk *>disk.context
    cdef SimFile *f = find(d, old)
    cdef SimFile *other = find(d, new)
    if f == NULL:
        return ENOENT
    if dies(d):
        return EIO
    if other == f:
        return 0
    if other != NULL:
        other.linked = False
    changed(d, CHANGE_RENAME, f, other, old)
    memset(f.name, 0, NAME_SIZE)
    strncpy(f.name, new, NAME_SIZE - 1)
    return 0


cdef int _unlink(Disk *disk, const char *name) noexcept nogil:
    cdef SimDisk *d = <SimDisk *>disk.context
    cdef SimFile *f = find(d, name)
    if f == NULL:
        return ENOENT
    if dies(d):
        return EIO
    f.linked = False
    d.room += f.size                # (looked at only where it is full)
    changed(d, CHANGE_UNLINK, f, NULL, NULL)
    return 0


cdef void _uncache(Disk *disk, int fd) noexcept nogil:
    pass


cdef int64_t _now(Disk *disk) noexcept nogil:
    return (<SimDisk *>disk.context).now[0]


# ---- life ----

cdef void simdisk_init(SimDisk *d, uint64_t seed, const int64_t *now) noexcept nogil:
    memset(d, 0, sizeof(SimDisk))
    d.random = seed
    d.now = now
    d.dies_in = -1
    d.disk.context = d
    d.disk.open = _open
    d.disk.close = _close
    d.disk.write = _write
    d.disk.read = _read
    d.disk.size = _size
    d.disk.sync = _sync
    d.disk.sync_directory = _sync_directory
    d.disk.rename = _rename
    d.disk.unlink = _unlink
    d.disk.uncache = _uncache
    d.disk.now = _now


cdef void free_file(SimFile *f) noexcept nogil:
    cdef size_t i
    for i in range(f.unsynced_count):
        free(f.unsynced[i].old)
    free(f.unsynced)
    free(f.data)
    free(f)


cdef void sweep(SimDisk *d) noexcept nogil:
    """Files without a name that nobody has open, and that no change could bring back, are gone."""
    cdef size_t i, kept = 0
    cdef int k
    cdef bint used
    for i in range(d.file_count):
        used = d.files[i].linked or d.change_count > 0
        for k in range(MAX_OPEN):
            used = used or d.open[k] == d.files[i]
        if used:
            d.files[kept] = d.files[i]
            kept += 1
        else:
            free_file(d.files[i])
    d.file_count = kept


cdef void simdisk_free(SimDisk *d) noexcept nogil:
    cdef size_t i
    for i in range(d.file_count):
        free_file(d.files[i])
    free(d.files)
    free(d.changes)
    memset(d, 0, sizeof(SimDisk))


cdef void undo_change(Change *c) noexcept nogil:
    if c.kind == CHANGE_CREATE:
        c.file.linked = False
    elif c.kind == CHANGE_UNLINK:
        c.file.linked = True
    else:
        memcpy(c.file.name, c.old, NAME_SIZE)
        if c.replaced != NULL:
            c.replaced.linked = True


cdef void undo_write(SimDisk *d, SimFile *f, Unsynced *u, double lost) noexcept nogil:
    cdef uint64_t at = 0, n
    cdef uint64_t kept = 0
    while at < u.size:
        n = min(<uint64_t>SECTOR, u.size - at)
        if random_chance(&d.random, lost) or u.lost:
            memcpy(f.data + u.offset + at, u.old + at, n)
        else:
            kept += n
        at += n
    if kept < u.size:
        d.dropped += 1
    if kept == 0 and u.offset + u.size == f.size and u.old_size < f.size:
        f.size = max(u.old_size, f.synced_size)


cdef void simdisk_process_ended(SimDisk *d, bint power) noexcept nogil:
    cdef size_t i, k
    cdef SimFile *f
    cdef uint64_t keep
    cdef double lost = <double>random_between(&d.random, 0, 4) / 4
    memset(d.open, 0, sizeof(d.open))
    d.life += 1
    d.dies_in = -1
    d.dead = False
    d.fails = False
    d.read_fails = False
    d.directory_fails = False
    if not power:
        return                      # the page cache outlives the process
    for i in range(d.file_count):
        f = d.files[i]
        k = f.unsynced_count
        while k > 0:
            k -= 1
            undo_write(d, f, &f.unsynced[k], lost)
            free(f.unsynced[k].old)
        f.unsynced_count = 0
    keep = <uint64_t>random_between(&d.random, 0, <int64_t>d.change_count)
    while d.change_count > keep:
        d.change_count -= 1
        undo_change(&d.changes[d.change_count])
    d.change_count = 0
    sweep(d)


cdef int simdisk_flip(SimDisk *d, uint64_t segment, uint64_t offset, int which) noexcept nogil:
    cdef char name[NAME_SIZE]
    cdef SimFile *f
    snprintf(name, NAME_SIZE, "%016llx.seg", <unsigned long long>segment)
    f = find(d, name)
    if f == NULL or offset >= f.size:
        return -1
    f.data[offset] ^= <uint8_t>(1 << which)
    return 0


cdef void simdisk_wipe(SimDisk *d) noexcept nogil:
    cdef size_t i
    for i in range(d.file_count):
        free_file(d.files[i])
    d.file_count = 0
    d.change_count = 0
    memset(d.open, 0, sizeof(d.open))


cdef class SimFolder(Folder):
    """The data directory of a simulated node: the same files, on a :class:`SimDisk`. Made by the simulator."""

    def __init__(self, path):
        self.path = path
        self.log = path + "/log"
        self.threads = False
        self.lock = -1

    def open(self):
        """Lets the log at the disk; what the directory shows now is durable, as in a real one."""
        self.disk = self.sim.disk
        if self.disk.sync_directory(&self.disk) != 0:
            raise OSError(EIO, "the process ended", self.path)

    def close(self):
        """Closes the files of checkpoints; nothing else is held."""
        self.close_files()

    def quarantine(self, str why not None):
        """Sets the segments aside, under other names."""
        cdef bytes old, new
        cdef int error = 0
        number = 0
        while any(name.startswith(f"q{number:03d}-") for name in self.names()):
            number += 1
        self.place = f"q{number:03d}-"
        for segment in self.segments():
            old, new = f"{segment:016x}.seg".encode(), f"{self.place}{segment:016x}.old".encode()
            error = error or self.disk.rename(&self.disk, old, new)
        error = error or self.disk.sync_directory(&self.disk)
        if error:
            raise OSError(error, "the process ended", self.path)
        return f"{self.path}/quarantine/{number:03d}"

    cdef bytes aside(self, Disk *out):
        """Where quarantine() has put the segments: on the same disk."""
        out[0] = self.sim.disk
        out.directory = -1
        return self.place.encode() + b"%016llx.old"

    def lived(self):
        """Whether there is more here than a log: one that was set aside, or checkpoints."""
        return any(name.startswith("q") or ".manifest" in name for name in self.names())

    def files(self):
        """The files of checkpoints. They lie beside those of the log."""
        cdef Disk disk
        if self.checkpoints is None:
            disk = self.sim.disk
            disk.directory = -1
            self.checkpoints = files_on(&disk, self.path + "/checkpoints", self.names, self.owner)
        return self.checkpoints

    def names(self):
        """Every file."""
        cdef size_t i
        return [self.sim.files[i].name.decode() for i in range(self.sim.file_count) if self.sim.files[i].linked]

    cdef SimFile *file(self, name) except NULL:
        cdef bytes raw = name.encode()
        cdef SimFile *f = find(self.sim, raw)
        if f == NULL:
            raise FileNotFoundError(ENOENT, "no such file", name)
        return f

    def size(self, name):
        """Bytes of a file."""
        return self.file(name).size

    def view(self, name):
        """A copy of the bytes of a file."""
        cdef SimFile *f = self.file(name)
        return (<const char *>f.data)[:f.size] if f.size else b""

    def settle(self, name):
        """Makes what a file holds durable."""
        cdef bytes raw = name.encode()
        cdef int fd = -1
        cdef int error = self.disk.open(&self.disk, raw, 0, &fd)
        if error == 0:
            error = self.disk.sync(&self.disk, fd)
            self.disk.close(&self.disk, fd)
        if error:
            raise OSError(error, "the process ended, or the sync failed", name)

    def remove(self, name):
        """Removes a file."""
        cdef bytes raw = name.encode()
        cdef int error = self.disk.unlink(&self.disk, raw)
        if error:
            raise OSError(error, "the process ended", name)

    def replace(self, name, data, *, bint damaged=False):
        """Puts other bytes, all durable, into a file that nobody has open; None: the file is gone. Nobody is told of
        what is written to this disk from then on, unless it was only damaged."""
        cdef SimFile *f = self.file(name)
        cdef size_t i
        if not damaged:
            self.sim.persisted = NULL       # who reads what is written, and believes it, can no longer
        if data is None:
            f.linked = False
            return
        for i in range(f.unsynced_count):
            free(f.unsynced[i].old)
        f.unsynced_count = 0
        f.size = 0
        grow(f, len(data))
        f.synced_size = f.size
        if f.size:
            memcpy(f.data, <const char *><bytes>data, f.size)

    def entropy(self, size_t size):
        """Bytes from the seed."""
        return b"".join((random_next(&self.sim.random)).to_bytes(8, "little") for _ in range((size + 7) // 8))[:size]


cdef class MemoryDisk:
    """A disk of its own, for lives of a log without a cluster; see _simdisk.pyi."""
    cdef SimDisk *disk
    cdef int64_t now

    def __cinit__(self, seed, *, direct=True):
        self.disk = <SimDisk *>xzalloc(sizeof(SimDisk))
        simdisk_init(self.disk, seed & 0xFFFFFFFFFFFFFFFF, &self.now)
        self.disk.refuses_direct = not direct

    def __dealloc__(self):
        if self.disk != NULL:
            simdisk_free(self.disk)
            free(self.disk)

    def folder(self):
        cdef SimFolder folder = SimFolder.__new__(SimFolder)
        folder.sim = self.disk
        folder.owner = self
        folder.__init__("memory")
        return folder

    def die(self, int64_t within):
        self.disk.dies_in = within

    @property
    def dead(self):
        return self.disk.dead

    def ended(self, bint power):
        simdisk_process_ended(self.disk, power)

    def fail(self, bint directory=False, *, bint read=False):
        if directory:
            self.disk.directory_fails = True
        elif read:
            self.disk.read_fails = True
        else:
            self.disk.fails = True

    def fill(self, bint full, uint64_t room=0):
        self.disk.full, self.disk.room = full, room

    def flip(self, uint64_t segment, uint64_t offset, int which):
        return simdisk_flip(self.disk, segment, offset, which) == 0
