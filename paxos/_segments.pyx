# cython: language_level=3
"""The log of a data directory: opened, locked, recovered, brought in order, and closed.

    log/<16 hex>.seg      a segment
    log/spare-<n>.tmp     zero-filled or recycled, of the size of a segment, not part of the log

The files themselves are _folder's business. What is written where is _log's business, what found bytes mean is _recovery's, and _store does the work of a running log.
"""
import mmap
import os
import threading

from libc.errno cimport EINVAL, ENOENT, ENOSPC
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from paxos._disk cimport DISK_CREATE, DISK_DIRECT, DISK_WRITE, Disk
from paxos._folder cimport Folder
from paxos._log cimport RECORD_HEAD, log_writer_at, log_writer_free, log_writer_init
from paxos._recovery cimport Recovered
from paxos._spares cimport (
    CHUNK, NAME, SPARES_MAX, SPARES_WANTED, pthread_mutex_lock, pthread_mutex_unlock, segment_name, spares_free, spares_give,
    spares_init, spares_make, spares_no_room, spares_prepare, spares_stop,
)
from paxos._store cimport (
    CACHED, STORE_NO_ROOM, Files, store_begin_segment, store_forget, store_open_segment, store_write,
)
from paxos._types cimport BLOCK, Record, RECORD_IDENTITY, RecordIdentity

from paxos._folder import damage
from paxos._recovery import recover
from paxos.errors import DamagedLog, StorageError, WrongDirectory

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **out, size_t alignment, size_t size)

DEFAULT_SEGMENT_SIZE = 64 * 1024 * 1024


class _Private:
    """What LogStore holds in Python objects."""

    def __init__(self):
        self.thread = None
        self.where = b""           # what Store.where points to
        self.recovered = None
        self.first = 1              # number of the first segment that was found
        self.maps = []
        self.cut = ""               # what recovery did, in words
        self.erased = 0
        self.rewritten = 0


def _raise(int error, str what):
    """An errno of a storage call as StorageError, with the OSError as its cause."""
    cause = OSError(error, os.strerror(error))
    raise StorageError(f"{what}: {cause.strerror} (errno {error})") from cause


cdef class LogStore:
    """The log of the data directory ``directory`` (a path, or a :class:`~paxos._folder.Folder`), opened, recovered, and held locked until :meth:`close`.

    ``node_id``       whose log it is; :class:`~paxos.errors.WrongDirectory` where it is another node's
    ``segment_size``  bytes, for a new log: a multiple of 4096 from 64 KiB to 1 GiB; an existing log keeps its own
    ``direct``        ``False``: do not try O_DIRECT|O_DSYNC

    After the constructor returns everything recovery kept is durable, and so is this start's identity record. Raises
    :class:`~paxos.errors.DamagedLog`, :class:`~paxos.errors.DirectoryInUse`, :class:`~paxos.errors.WrongDirectory`, or
    :class:`~paxos.errors.StorageError` (with an ``OSError`` as its cause where the system refused something).

    Used by one thread at a time; the C functions of this module need no GIL.
    """

    def __init__(self, directory, uint32_t node_id, *, uint64_t segment_size=DEFAULT_SEGMENT_SIZE, bint direct=True):
        if self._private is not None:
            raise StorageError("a LogStore is opened once")
        self._folder = directory if isinstance(directory, Folder) else Folder(directory)
        self.directory = self._folder.path
        self._private = _Private()
        try:
            self._open(node_id, segment_size, direct)
        except OSError as error:
            self._release()
            raise StorageError(
                f"the data directory {self.directory} cannot be used: {error.filename or self.directory}: {error.strerror}. "
                "See that it can be made and written by this user, and that the disk has room") from error
        except BaseException:
            self._release()
            raise

    cdef _open(self, uint32_t node_id, uint64_t segment_size, bint direct):
        cdef Recovered found
        self._folder.open()
        numbers = self._folder.segments()
        spares = sorted(name for name in self._folder.names() if name.endswith(".tmp") and name != "probe.tmp")
        self._private.maps = self._folder.views([f"{n:016x}.seg" for n in numbers])
        found = recover(list(zip(numbers, self._private.maps)))
        if found.outcome in ("damaged", "unsupported"):
            number, offset = found.where
            if found.outcome == "unsupported":
                raise StorageError(f"{self._path(number)}, offset {offset}: {found.why}. Use the version that wrote it, or a later one")
            if found.node not in (0, node_id):
                # Nobody may set aside, and take the place of, what is another node's.
                raise WrongDirectory(f"{self.directory} belongs to node {found.node}, not to node {node_id}, and is damaged besides: "
                                     f"name this node's own data directory. {damage(self._path(number), offset, found.why)}")
            raise DamagedLog(damage(self._path(number), offset, found.why))
        if found.outcome != "empty":
            if found.node != node_id:
                raise WrongDirectory(f"{self.directory} belongs to node {found.node}, not to node {node_id}: name this node's "
                                     "own data directory")
            segment_size = found.segment_size
        self._private.recovered = found
        self._private.first = numbers[0] if numbers else 1
        self._allocate(node_id, segment_size, found, direct)
        self._adopt_spares(spares)
        if found.outcome == "empty":
            self._check(store_begin_segment(self.store, 1, &self.store.current), "making the first segment")
        else:
            self._repair(found)
        self._identify()
        self.records = found.walk.table.refs
        self.record_count = found.walk.table.count
        if self._folder.threads:
            self._private.thread = threading.Thread(target=self._run_preparer, name="paxos-log-preparer", daemon=True)
            self._private.thread.start()

    def _path(self, number):
        return self._folder.where(f"{number:016x}.seg")

    cdef _check(self, int error, str what):
        if error:
            if error == STORE_NO_ROOM:
                what = f"{what} (it takes another segment of {self.store.writer.segment_size} bytes: make room for one)"
                error = ENOSPC
            _raise(error, f"{self._folder.log}: {what} failed")

    cdef _allocate(self, uint32_t node_id, uint64_t segment_size, found, bint direct):
        cdef Files *f
        cdef void *memory = NULL
        cdef int error
        cdef bytes fresh
        if found.outcome == "empty":
            fresh = self._folder.entropy(16)
            self.incarnation_hi = int.from_bytes(fresh[:8], "little")
            self.incarnation_lo = int.from_bytes(fresh[8:], "little")
        else:
            self.incarnation_hi, self.incarnation_lo = found.incarnation
        if found.boot == 0xFFFFFFFF:
            raise StorageError(f"{self.directory}: the boot number is used up; replace the node")
        self.boot = found.boot + 1
        self.store = <Store *>calloc(1, sizeof(Store))
        if self.store == NULL:
            raise MemoryError
        self.store.disk = &self._folder.disk
        self.store.current = -1
        self._private.where = os.fsencode(self.directory)
        self.store.where = self._private.where
        f = <Files *>calloc(1, sizeof(Files))
        if f == NULL:
            raise MemoryError
        self.store.files = f
        if posix_memalign(&memory, BLOCK, BLOCK) != 0:
            raise MemoryError
        f.block = <uint8_t *>memory
        error = log_writer_init(&self.store.writer, segment_size, self.incarnation_hi, self.incarnation_lo, self.boot)
        if error == EINVAL:
            raise StorageError(f"segment_size {segment_size}: a multiple of {BLOCK} from 65536 to 1073741824 is wanted")
        if error:
            raise MemoryError
        self.store.node = node_id
        error = spares_init(&f.spares, self.store.disk, segment_size)
        if error:
            _raise(error, "preparing for spare segments")
        self._probe(direct)

    cdef _probe(self, bint direct):
        """Finds out with a file of its own whether this file system takes aligned direct writes."""
        cdef Files *f = <Files *>self.store.files
        cdef Disk *d = self.store.disk
        cdef int fd = -1, error, other
        self.store.direct = False
        if not direct:
            self.mode = "pwrite + fdatasync (O_DIRECT was not asked for)"
            return
        memset(f.block, 0, BLOCK)
        error = d.open(d, b"probe.tmp", DISK_WRITE | DISK_CREATE | DISK_DIRECT, &fd)
        if error == 0:
            error = d.write(d, fd, f.block, BLOCK, 0, True)
            other = d.close(d, fd)
            error = error if error else other
        other = d.unlink(d, b"probe.tmp")
        if other != ENOENT:
            self._check(other, "removing probe.tmp")
        if spares_no_room(error):
            self.mode = "pwrite + fdatasync (the disk was full when the log was opened: O_DIRECT could not be tried)"
            return
        if error == EINVAL:
            self.mode = "pwrite + fdatasync (this file system refuses O_DIRECT)"
            return
        self._check(error, "a test write")
        self.store.direct = True
        self.mode = "O_DIRECT|O_DSYNC"

    cdef _adopt_spares(self, names):
        """Whole spares are used again, whatever is in them; what a crash left unfinished is removed."""
        cdef Files *f = <Files *>self.store.files
        cdef uint64_t number
        for name in names:
            digits = name[len("spare-"):-len(".tmp")] if name.startswith("spare-") else ""
            whole = digits.isascii() and digits.isdigit() and len(digits) < 19 and self._folder.size(name) == f.spares.segment_size
            if not whole or f.spares.ready >= SPARES_MAX:
                self._folder.remove(name)
                continue
            number = int(digits)
            self._folder.settle(name)
            f.spares.numbers[f.spares.ready] = number
            f.spares.ready += 1
            f.spares.next_spare = max(f.spares.next_spare, number + 1)

    cdef _repair(self, found):
        """Brings the disk to what recovery decided: unused segments away, old bytes erased, the unproven tail written again."""
        cdef Files *f = <Files *>self.store.files
        cdef Store *s = self.store
        cdef char name[NAME]
        cdef uint64_t segment, offset, length, done
        cdef size_t size
        cdef uint8_t *copy = NULL
        cdef void *memory = NULL
        cdef bytes piece
        cdef int fd, error, other
        # Erased first: erasing can be torn, too, and may leave of a torn write just what makes it whole. If that is the write
        # which ends its segment, the next segment must still be there.
        for segment, offset, length in found.erase:
            segment_name(name, segment)
            fd = -1
            error = store_open_segment(s, name, &fd)
            done = 0
            while error == 0 and done < length:
                size = <size_t>min(<uint64_t>CHUNK, length - done)
                error = store_write(s, fd, f.spares.zeros, size, offset + done)
                done += size
            if fd >= 0:
                other = s.disk.close(s.disk, fd)
                error = error if error else other
            self._check(error, "erasing what is behind the end of the log")
            self._private.erased += length
        for segment in found.drop:
            self._check(spares_give(&f.spares, segment), "giving back an unused segment")
        for segment, offset, length in found.rewrite:
            piece = self._private.maps[segment - self._private.first][offset:offset + length]
            if posix_memalign(&memory, BLOCK, length) != 0:
                raise MemoryError
            copy = <uint8_t *>memory
            memcpy(copy, <const char *>piece, length)
            segment_name(name, segment)
            fd = -1
            error = store_open_segment(s, name, &fd)
            if error == 0:
                error = store_write(s, fd, copy, length, offset)
                other = s.disk.close(s.disk, fd)
                error = error if error else other
            free(copy)
            self._check(error, "writing the end of the log again")
            self._private.rewritten += length
        segment, offset = found.cut
        segment_name(name, segment)
        self._check(store_open_segment(s, name, &s.current), "opening the last segment")
        s.writer.oldest = self._private.first
        log_writer_at(&s.writer, segment, offset, found.previous, segment * s.writer.segment_size + offset)

    cdef _identify(self):
        cdef RecordIdentity identity
        cdef int error = 0
        memset(&identity, 0, sizeof(identity))
        identity.inc_hi = self.incarnation_hi
        identity.inc_lo = self.incarnation_lo
        identity.node = self.store.node
        identity.boot = self.boot
        if store_append(self.store, RECORD_IDENTITY, 0, 0, &identity, sizeof(identity), NULL, 0, &error) != 0:
            error = store_flush(self.store)
        self._check(error, "writing the identity record")

    def _run_preparer(self):
        cdef Files *f = <Files *>self.store.files
        with nogil:
            spares_prepare(&f.spares)

    def lived(self):
        """Whether the data directory holds more than this log: what was set aside, or checkpoints."""
        return self._folder.lived()

    def files(self):
        """The files of the checkpoints beside this log."""
        return self._folder.files()

    def make_spare(self):
        """Makes a spare if one is wanted, as the preparer thread would. Whether it did."""
        return bool(spares_make(&(<Files *>self._opened().files).spares, False))

    def release_replay(self):
        """Lets go of the mapped segments: ``records`` and the bodies they point to are gone after this. May be called twice."""
        self.records = NULL
        self.record_count = 0
        private = self._private
        if private is None or private.recovered is None:
            return
        private.recovered = None
        maps, private.maps = private.maps, []
        for data in maps:
            if isinstance(data, mmap.mmap):
                data.close()

    def close(self):
        """Stops the preparer, closes every file and gives up the lock. What was appended and not flushed is dropped; it was
        never durable. May be called twice. No other thread may be using the store."""
        self._release()

    def abandon(self):
        """In a forked child: closes its copies of the descriptors, and forgets the rest. The log is the parent's, and the lock
        must end with the parent. Files are not touched."""
        cdef Store *s = self.store
        cdef Files *f
        cdef int i
        private, self._private = self._private, None
        self.store = NULL           # leaked: the parent's threads may have been in the midst of a change
        self.records = NULL
        self.record_count = 0
        if private is None:
            return
        if s != NULL:
            f = <Files *>s.files
            for i in range(CACHED if f != NULL else 0):
                if f.cache[i].segment:
                    s.disk.close(s.disk, f.cache[i].fd)
            s.disk.close(s.disk, s.current)
        self._folder.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    cdef _release(self):
        cdef Store *s = self.store
        cdef Files *f
        cdef int i
        private = self._private
        if private is None:
            return
        if s != NULL:
            f = <Files *>s.files
            if f != NULL:
                spares_stop(&f.spares)
                if private.thread is not None:
                    private.thread.join()
                    private.thread = None
                for i in range(CACHED):
                    store_forget(s, f.cache[i].segment)
                spares_free(&f.spares)
                free(f.block)
                free(f)
            if s.current >= 0:
                s.disk.close(s.disk, s.current)   # every write to it was synced, or said to have failed
            log_writer_free(&s.writer)
            free(s)
            self.store = NULL
        self.release_replay()
        self._folder.close()

    cdef Store *_opened(self) except NULL:
        if self.store == NULL:
            raise StorageError("the log is closed")
        return self.store

    # -- what the engine does in C, for tests and tools

    @property
    def replay(self):
        """[(position, type, group, instance, body)] that recovery found, in log order; [] after release_replay()."""
        return [] if self._private is None or self._private.recovered is None else self._private.recovered.records

    @property
    def outcome(self):
        """What recovery found: "empty", "good" or "torn"; None after release_replay()."""
        return None if self._private is None or self._private.recovered is None else self._private.recovered.outcome

    @property
    def position(self):
        """(segment, offset) where the next write goes."""
        cdef Store *s = self._opened()
        return s.writer.segment, s.writer.offset

    @property
    def pending(self):
        """Whether something was appended that is not durable yet."""
        return store_pending(self._opened())

    def append(self, uint8_t type, uint32_t group, uint64_t instance, const uint8_t[::1] body not None):
        """Appends a record to the pending write and returns its position."""
        cdef Store *s = self._opened()
        cdef size_t size = body.shape[0]
        cdef const uint8_t *data = &body[0] if size else NULL
        cdef int error = 0
        cdef uint64_t position
        with nogil:
            position = store_append(s, type, group, instance, data, size, NULL, 0, &error)
        self._check(error, "appending to the log")
        return position

    def flush(self):
        """Makes everything that was appended durable."""
        cdef Store *s = self._opened()
        cdef int error
        with nogil:
            error = store_flush(s)
        self._check(error, "writing to the log")

    def read(self, uint64_t position):
        """(type, group, instance, body) of the record at a position; StorageError where it is not there or does not verify."""
        cdef Store *s = self._opened()
        cdef uint32_t size = 0
        cdef int error = 0
        cdef uint8_t *data
        cdef Record r
        with nogil:
            data = store_read(s, position, &size, &error)
        if data == NULL:
            self._check(error, f"reading the record at segment {position // s.writer.segment_size}, offset "
                        f"{position % s.writer.segment_size}")
        try:
            memcpy(&r, data, RECORD_HEAD)
            return r.type, r.group, r.instance, <bytes>(<char *>data)[RECORD_HEAD:size]
        finally:
            free(data)

    def recycle(self, uint64_t segment):
        """Gives the oldest segment back for reuse."""
        cdef Store *s = self._opened()
        cdef int error
        with nogil:
            error = store_recycle(s, segment)
        self._check(error, f"recycling segment {segment}")

    def wait_for_spare(self, double timeout):
        """Waits until the preparer has made as many spares as it is to keep ready, at most so many seconds; whether it has."""
        cdef Files *f = <Files *>self._opened().files
        wait = threading.Event()
        deadline = self.store.disk.now(self.store.disk) + <int64_t>(timeout * 1e9)
        while True:
            pthread_mutex_lock(&f.spares.mutex)
            ready = f.spares.ready
            pthread_mutex_unlock(&f.spares.mutex)
            if ready >= SPARES_WANTED or self.store.disk.now(self.store.disk) >= deadline:
                return ready >= SPARES_WANTED
            wait.wait(0.005)

    def counters(self):
        """Counts since this start. ``full_errno``: why no spare can be made, if so. ``time_ns`` is the time spent in durable writes, ``spares_late`` how often none was ready."""
        cdef Store *s = self._opened()
        cdef Files *f = <Files *>s.files
        pthread_mutex_lock(&f.spares.mutex)
        spares, preparer_error, full = f.spares.ready, f.spares.preparer_error, f.spares.full
        pthread_mutex_unlock(&f.spares.mutex)
        return {
            "syncs": s.syncs, "writes": s.writes, "bytes": s.bytes, "records": s.records, "time_ns": s.time,
            "segments": s.writer.segment - s.writer.oldest + 1, "spares": spares, "spares_late": f.made_here,
            "preparer_errno": preparer_error, "full_errno": full, "failed_errno": f.failed, "erased_bytes": self._private.erased,
            "rewritten_bytes": self._private.rewritten,
        }
