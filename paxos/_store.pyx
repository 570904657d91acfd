# cython: language_level=3
"""The store: one aligned durable write at a time into the current segment, rotation, reading back, recycling; the index.

Belongs to one thread, and needs no GIL. After the first failed write or sync every further one fails with the same errno:
what the file then holds is not known, and only recovery may judge it.
"""
from libc.errno cimport EBADMSG, EINVAL, EMSGSIZE, ENOENT, ENOMEM, EOVERFLOW
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset

from paxos._disk cimport DISK_DIRECT, DISK_WRITE
from paxos._log cimport (
    LOG_END, RECORD_HEAD, WRITE_HEAD, log_aligned, log_append, log_begin, log_blocks, log_check_record, log_close_write,
    log_fits, log_seed, log_segment_header, log_writer_at, log_written,
)
from paxos._spares cimport (
    NAME, segment_name, spare_name, spares_full, spares_give, spares_no_room, spares_take,
)
from paxos._types cimport BLOCK, FORMAT_VERSION, Record, xrealloc

cdef enum:
    INDEX_GAP = 16777216            # instances; see index_set


# ---- durable writes ----

cdef int store_write(Store *s, int fd, const uint8_t *data, size_t size, uint64_t offset) noexcept nogil:
    cdef Files *f = <Files *>s.files
    cdef int64_t begin
    cdef int error
    if f.failed:
        return f.failed
    begin = s.disk.now(s.disk)
    error = s.disk.write(s.disk, fd, data, size, offset, s.direct)
    if error == 0 and not s.direct:
        error = s.disk.sync(s.disk, fd)
    if error:
        f.failed = error
        return error
    s.time += s.disk.now(s.disk) - begin
    s.syncs += 1
    s.writes += 1
    s.bytes += size
    return 0


cdef int store_open_segment(Store *s, const char *name, int *fd) noexcept nogil:
    return s.disk.open(s.disk, name, DISK_WRITE | (DISK_DIRECT if s.direct else 0), fd)


cdef int store_begin_segment(Store *s, uint64_t number, int *fd) noexcept nogil:
    cdef Files *f = <Files *>s.files
    cdef uint64_t spare = 0
    cdef int error = spares_take(&f.spares, &spare, &f.made_here)
    return error if error else _become_segment(s, spare, number, fd)


cdef int _become_segment(Store *s, uint64_t spare, uint64_t number, int *fd) noexcept nogil:
    """Makes a spare segment `number`: header durable, then the name, then the directory. 0 or an errno."""
    cdef Files *f = <Files *>s.files
    cdef char spare_file[NAME]
    cdef char name[NAME]
    cdef int error
    spare_name(spare_file, spare)
    segment_name(name, number)
    error = store_open_segment(s, spare_file, fd)
    if error:
        return error
    log_segment_header(f.block, &s.writer, number, s.node)
    error = store_write(s, fd[0], f.block, BLOCK, 0)
    if error == 0:
        error = s.disk.rename(s.disk, spare_file, name)
    if error == 0:
        error = s.disk.sync_directory(s.disk)
    if error:
        s.disk.close(s.disk, fd[0])               # the error that counts is the one before
        fd[0] = -1
    return error


cdef int store_rotate(Store *s) noexcept nogil:
    """Ends the current segment, with what is pending, and goes on in the next one. See _log for why in this order."""
    cdef Files *f = <Files *>s.files
    cdef uint64_t number = s.writer.segment + 1, spare = 0
    cdef size_t length
    cdef int fd = -1, error
    if f.failed:
        return f.failed
    error = spares_take(&f.spares, &spare, &f.made_here)
    if spares_no_room(error):
        return STORE_NO_ROOM        # before anything is closed: what is pending still fits, and is written like any other
    if error:
        f.failed = error
        return error
    log_begin(&s.writer)
    s.writer.flags |= LOG_END
    length = log_close_write(&s.writer)
    error = _become_segment(s, spare, number, &fd)
    if error == 0:
        error = store_write(s, s.current, s.writer.buffer, length, s.writer.offset)
        if error:
            s.disk.close(s.disk, fd)
    if error:
        f.failed = error            # the write is closed and the chain has moved on: there is no way back
        return error
    s.records += s.writer.records
    log_written(&s.writer)
    error = s.disk.close(s.disk, s.current)
    s.current = fd
    log_writer_at(&s.writer, number, BLOCK, s.writer.previous, number * s.writer.segment_size + BLOCK)
    if error:
        f.failed = error
    return error


cdef uint64_t store_append(Store *s, uint8_t type, uint32_t group, uint64_t instance, const void *head, size_t head_size,
                           const void *rest, size_t rest_size, int *error) noexcept nogil:
    cdef Files *f = <Files *>s.files
    cdef size_t size = head_size + rest_size
    error[0] = f.failed
    if error[0]:
        return 0
    if size > s.writer.segment_size or log_blocks(WRITE_HEAD + RECORD_HEAD + log_aligned(size)) + 2 * BLOCK > s.writer.segment_size:
        error[0] = EMSGSIZE         # no segment would ever hold it
        return 0
    if not log_fits(&s.writer, size):
        error[0] = store_rotate(s)
        if error[0]:
            return 0
    return log_append(&s.writer, type, group, instance, head, head_size, rest, rest_size)


cdef int store_flush(Store *s) noexcept nogil:
    cdef Files *f = <Files *>s.files
    cdef size_t length
    cdef int error
    if f.failed:
        return f.failed
    length = log_close_write(&s.writer)
    if length == 0:
        return 0
    if s.writer.offset + length + BLOCK > s.writer.segment_size:
        f.failed = EOVERFLOW        # the last block is for LOG_END: log_fits() was not asked
        return EOVERFLOW
    error = store_write(s, s.current, s.writer.buffer, length, s.writer.offset)
    if error:
        return error
    s.records += s.writer.records
    log_written(&s.writer)
    return 0


cdef bint store_pending(const Store *s) noexcept nogil:
    return s.writer.used > 0


cdef int store_full(Store *s) noexcept nogil:
    return spares_full(&(<Files *>s.files).spares)


# ---- reading back ----

cdef int _cached(Store *s, uint64_t segment, int *fd) noexcept nogil:
    """An open, buffered descriptor of a segment. 0 or an errno."""
    cdef Files *f = <Files *>s.files
    cdef char name[NAME]
    cdef Cached *oldest = &f.cache[0]
    cdef int i, error
    f.uses += 1
    for i in range(CACHED):
        if f.cache[i].segment == segment:
            f.cache[i].used = f.uses
            fd[0] = f.cache[i].fd
            return 0
        if f.cache[i].used < oldest.used:
            oldest = &f.cache[i]
    segment_name(name, segment)
    error = s.disk.open(s.disk, name, 0, fd)
    if error:
        return error
    if oldest.segment:
        s.disk.close(s.disk, oldest.fd)           # was open for reading only: nothing can be lost
    oldest.segment = segment
    oldest.used = f.uses
    oldest.fd = fd[0]
    return 0


cdef void store_forget(Store *s, uint64_t segment) noexcept nogil:
    cdef Files *f = <Files *>s.files
    cdef int i
    for i in range(CACHED):
        if f.cache[i].segment == segment and segment:
            s.disk.close(s.disk, f.cache[i].fd)
            f.cache[i].segment = 0
            f.cache[i].used = 0


cdef uint8_t *store_record(Disk *disk, int fd, uint64_t offset, uint64_t end, uint32_t seed, uint32_t *size,
                           int *error) noexcept nogil:
    cdef size_t first, whole
    cdef uint8_t near[BLOCK]
    cdef Record r
    cdef uint8_t *out
    # Positions are multiples of 8 below a multiple of BLOCK, but a header may need more than is left.
    if end - offset < RECORD_HEAD:
        error[0] = EBADMSG
        return NULL
    first = <size_t>min(<uint64_t>BLOCK, end - offset)
    error[0] = disk.read(disk, fd, near, first, offset)
    if error[0]:
        return NULL
    memcpy(&r, near, RECORD_HEAD)
    if r.size > end - offset - RECORD_HEAD:
        error[0] = EBADMSG
        return NULL
    whole = RECORD_HEAD + <size_t>r.size
    out = <uint8_t *>malloc(whole)
    if out == NULL:
        error[0] = ENOMEM
        return NULL
    if whole <= first:
        memcpy(out, near, whole)
    else:
        memcpy(out, near, first)
        error[0] = disk.read(disk, fd, out + first, whole - first, offset + first)
    if error[0] == 0 and log_check_record(out, whole, seed) != 0:
        error[0] = EBADMSG
    if error[0]:
        free(out)
        return NULL
    size[0] = <uint32_t>whole
    return out


cdef uint8_t *store_read(Store *s, uint64_t position, uint32_t *size, int *error) noexcept nogil:
    cdef uint64_t segment = position / s.writer.segment_size
    cdef uint64_t offset = position % s.writer.segment_size
    cdef uint64_t end = s.writer.segment_size
    cdef size_t whole, at
    cdef Record r
    cdef uint8_t *out
    cdef int fd = -1
    size[0] = 0
    error[0] = ENOENT
    if segment < s.writer.oldest or segment > s.writer.segment or offset < BLOCK or offset % 8 != 0:
        return NULL
    if segment == s.writer.segment:
        if offset >= s.writer.offset:
            # Not written yet: from the buffer, where the position is one that log_append gave.
            at = <size_t>(offset - s.writer.offset)
            if at < WRITE_HEAD or s.writer.used < RECORD_HEAD or at > s.writer.used - RECORD_HEAD:
                return NULL
            memcpy(&r, s.writer.buffer + at, RECORD_HEAD)
            if r.version != FORMAT_VERSION or r.size > s.writer.used - RECORD_HEAD - at:
                return NULL
            whole = RECORD_HEAD + <size_t>r.size
            out = <uint8_t *>malloc(whole)
            if out == NULL:
                error[0] = ENOMEM
                return NULL
            memcpy(out, s.writer.buffer + at, whole)
            size[0] = <uint32_t>whole
            error[0] = 0
            return out
        end = s.writer.offset
    error[0] = _cached(s, segment, &fd)
    if error[0]:
        return NULL
    return store_record(s.disk, fd, offset, end, log_seed(s.writer.inc_hi, s.writer.inc_lo, segment), size, error)


cdef int store_recycle(Store *s, uint64_t segment) noexcept nogil:
    cdef Files *f = <Files *>s.files
    cdef int error
    if f.failed:
        return f.failed
    if segment != s.writer.oldest or segment >= s.writer.segment:
        return EINVAL
    # A log whose first segment is gone must be able to tell that it was given up from that it was lost.
    s.writer.oldest = segment + 1
    if s.writer.used == 0 and s.writer.offset + 2 * BLOCK > s.writer.segment_size:
        error = store_rotate(s)
    else:
        log_begin(&s.writer)
        error = store_flush(s)
    if error == STORE_NO_ROOM:
        s.writer.oldest = segment   # not said yet
    if error:
        return error
    store_forget(s, segment)
    return spares_give(&f.spares, segment)


# ---- index ----

cdef void index_set(Index *x, uint64_t instance, uint64_t position) noexcept nogil:
    cdef uint64_t need, capacity, shift
    if x.count == 0:
        x.first = instance
    if instance < x.first:
        # Acceptances come in nearly in order; one that is far below what is kept is not worth the memory between.
        shift = x.first - instance
        if shift > INDEX_GAP:
            return
    else:
        shift = 0
        if instance - x.first > x.count and instance - x.first - x.count > INDEX_GAP:
            x.first = instance      # the node has jumped (a checkpoint): nothing in between will be asked of it
            x.count = 0
    need = x.count + shift if shift else max(x.count, instance - x.first + 1)
    if need > x.capacity:
        capacity = x.capacity if x.capacity else 1024
        while capacity < need:
            capacity *= 2
        x.positions = <uint64_t *>xrealloc(x.positions, capacity * sizeof(uint64_t))
        x.chains = <uint32_t *>xrealloc(x.chains, capacity * sizeof(uint32_t))
        x.capacity = capacity
    if shift:
        memmove(x.positions + shift, x.positions, x.count * sizeof(uint64_t))
        memset(x.positions, 0, shift * sizeof(uint64_t))
        memmove(x.chains + shift, x.chains, x.count * sizeof(uint32_t))
        memset(x.chains, 0, shift * sizeof(uint32_t))
        x.first = instance
    elif need > x.count:
        memset(x.positions + x.count, 0, (need - x.count) * sizeof(uint64_t))
        memset(x.chains + x.count, 0, (need - x.count) * sizeof(uint32_t))
    x.count = need
    x.positions[instance - x.first] = position


cdef uint64_t index_get(const Index *x, uint64_t instance) noexcept nogil:
    if instance < x.first or instance - x.first >= x.count:
        return 0
    return x.positions[instance - x.first]


cdef void index_set_chain(Index *x, uint64_t instance, uint32_t chain) noexcept nogil:
    if instance >= x.first and instance - x.first < x.count:
        x.chains[instance - x.first] = chain


cdef uint32_t index_chain(const Index *x, uint64_t instance) noexcept nogil:
    if instance < x.first or instance - x.first >= x.count:
        return 0
    return x.chains[instance - x.first]


cdef void index_trim(Index *x, uint64_t first) noexcept nogil:
    cdef uint64_t gone
    if first <= x.first:
        return
    gone = min(first - x.first, x.count)
    x.count -= gone
    if x.count:                     # (with nothing left the arrays may be NULL)
        memmove(x.positions, x.positions + gone, x.count * sizeof(uint64_t))
        memmove(x.chains, x.chains + gone, x.count * sizeof(uint32_t))
    x.first = first


cdef void index_free(Index *x) noexcept nogil:
    free(x.positions)
    free(x.chains)
    memset(x, 0, sizeof(Index))


# ---- what pins a segment ----

cdef void highs_note(Highs *x, uint64_t segment, uint64_t instance) noexcept nogil:
    cdef uint64_t at
    if x.count == 0:
        x.first = segment
    at = segment - x.first          # segments are written in order
    if at >= x.capacity:
        x.capacity = max(<size_t>16, 2 * <size_t>at)
        x.highs = <uint64_t *>xrealloc(x.highs, x.capacity * sizeof(uint64_t))
    if at >= x.count:
        memset(x.highs + x.count, 0, (at + 1 - x.count) * sizeof(uint64_t))
        x.count = at + 1
    x.highs[at] = max(x.highs[at], instance + 1)


cdef bint highs_below(Highs *x, uint64_t segment, uint64_t first) noexcept nogil:
    while x.count and x.first < segment:
        x.count -= 1
        memmove(x.highs, x.highs + 1, x.count * sizeof(uint64_t))
        x.first += 1
    return x.count == 0 or x.first > segment or x.highs[0] <= first


cdef uint64_t highs_at(const Highs *x, uint64_t segment) noexcept nogil:
    return x.highs[segment - x.first] if segment >= x.first and segment - x.first < x.count else 0


cdef void highs_free(Highs *x) noexcept nogil:
    free(x.highs)
    memset(x, 0, sizeof(Highs))


cdef class PositionIndex:
    """The index for Python: instance -> position of its record. One thread at a time."""
    cdef Index index

    def __dealloc__(self):
        index_free(&self.index)

    def set(self, uint64_t instance, uint64_t position):
        """Notes where the value of an instance lies; the last note counts."""
        index_set(&self.index, instance, position)

    def get(self, uint64_t instance):
        """The position, 0 where none is known."""
        return index_get(&self.index, instance)

    def trim(self, uint64_t first):
        """Forgets every instance below ``first``."""
        index_trim(&self.index, first)

    @property
    def count(self):
        """How many instances there is room for between the first and the last one known."""
        return self.index.count
