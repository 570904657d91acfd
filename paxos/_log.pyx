# cython: language_level=3
"""Log layout: pure functions over bytes. docs/formats-log.md shows every byte; _recovery judges them, _segments does the I/O."""
from libc.errno cimport EINVAL, ENOMEM
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from paxos._codec cimport crc32c
from paxos._types cimport (
    BLOCK, FORMAT_VERSION, Record, RECORD_WRITE, RecordWrite, SEGMENT_MAGIC, xrealloc,
)

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **out, size_t alignment, size_t size)

if sizeof(Segment) != 72:
    raise ImportError(f"paxos: the segment header has {sizeof(Segment)} bytes on this platform, the format says 72")


cdef uint32_t log_seed(uint64_t inc_hi, uint64_t inc_lo, uint64_t segment) noexcept nogil:
    cdef uint64_t words[3]
    words[0] = inc_hi
    words[1] = inc_lo
    words[2] = segment
    return crc32c(0, words, sizeof(words))


cdef int _reserve(LogWriter *w, size_t need) noexcept nogil:
    """Room for `need` bytes in a buffer that direct I/O can take. 0 or an errno."""
    cdef void *bigger = NULL
    cdef size_t capacity = w.capacity
    if need <= capacity:
        return 0
    if need > SEGMENT_MAX:
        return ENOMEM
    while capacity < need:
        capacity = capacity * 2 if capacity else 16 * BLOCK
    if posix_memalign(&bigger, BLOCK, capacity) != 0:
        return ENOMEM
    if w.used:
        memcpy(bigger, w.buffer, w.used)
    free(w.buffer)
    w.buffer = <uint8_t *>bigger
    w.capacity = capacity
    return 0


cdef int log_writer_init(LogWriter *w, uint64_t segment_size, uint64_t inc_hi, uint64_t inc_lo, uint32_t boot) noexcept nogil:
    memset(w, 0, sizeof(LogWriter))
    if segment_size < SEGMENT_MIN or segment_size > SEGMENT_MAX or segment_size % BLOCK != 0:
        return EINVAL
    w.segment_size = segment_size
    w.inc_hi = inc_hi
    w.inc_lo = inc_lo
    w.boot = boot
    w.oldest = 1
    log_writer_at(w, 1, BLOCK, 0, segment_size + BLOCK)
    return _reserve(w, 16 * BLOCK)


cdef void log_writer_free(LogWriter *w) noexcept nogil:
    free(w.buffer)
    memset(w, 0, sizeof(LogWriter))


cdef void log_writer_at(LogWriter *w, uint64_t segment, uint64_t offset, uint32_t previous, uint64_t durable) noexcept nogil:
    w.segment = segment
    w.offset = offset
    w.seed = log_seed(w.inc_hi, w.inc_lo, segment)
    w.previous = previous
    w.durable = durable
    w.used = 0
    w.records = 0
    w.flags = 0


cdef size_t log_write_size(const LogWriter *w, size_t size) noexcept nogil:
    if size > SEGMENT_MAX:
        return <size_t>-1           # more than any segment holds
    return log_blocks((w.used if w.used else WRITE_HEAD) + RECORD_HEAD + log_aligned(size))


cdef bint log_fits(const LogWriter *w, size_t size) noexcept nogil:
    # The last block is left for LOG_END, so that a segment can always be ended.
    if size > SEGMENT_MAX:
        return False
    return w.offset + log_write_size(w, size) + BLOCK <= w.segment_size


cdef void log_begin(LogWriter *w) noexcept nogil:
    if w.used == 0:
        memset(w.buffer, 0, WRITE_HEAD)
        w.used = WRITE_HEAD


cdef uint64_t log_append(LogWriter *w, uint8_t type, uint32_t group, uint64_t instance, const void *head, size_t head_size,
                         const void *rest, size_t rest_size) noexcept nogil:
    cdef size_t size = head_size + rest_size
    cdef size_t at, end
    cdef Record *r
    if _reserve(w, log_write_size(w, size)) != 0:
        xrealloc(NULL, <size_t>-1 >> 1)     # says so and ends the process, as every allocation of the core does
    log_begin(w)
    at = w.used
    end = at + RECORD_HEAD + log_aligned(size)
    r = <Record *>(w.buffer + at)
    memset(r, 0, RECORD_HEAD)
    r.size = <uint32_t>size
    r.version = FORMAT_VERSION
    r.type = type
    r.group = group
    r.instance = instance
    if head_size:
        memcpy(w.buffer + at + RECORD_HEAD, head, head_size)
    if rest_size:
        memcpy(w.buffer + at + RECORD_HEAD + head_size, rest, rest_size)
    memset(w.buffer + at + RECORD_HEAD + size, 0, end - at - RECORD_HEAD - size)
    w.used = end
    w.records += 1
    return w.segment * w.segment_size + w.offset + at


cdef size_t log_close_write(LogWriter *w) noexcept nogil:
    cdef size_t length, at = 0
    cdef uint32_t chain = w.previous
    cdef Record *r = <Record *>w.buffer
    cdef RecordWrite *write = <RecordWrite *>(w.buffer + RECORD_HEAD)
    if w.used == 0:
        return 0
    length = log_blocks(w.used)
    memset(w.buffer + w.used, 0, length - w.used)
    r.size = sizeof(RecordWrite)
    r.version = FORMAT_VERSION
    r.type = RECORD_WRITE
    r.flags = w.flags
    r.instance = w.segment * w.segment_size + w.offset
    write.durable = w.durable
    write.boot = w.boot
    write.length = <uint32_t>length
    write.records = w.records
    write.oldest = <uint32_t>w.oldest
    while at < w.used:
        r = <Record *>(w.buffer + at)
        r.previous = chain
        r.crc = crc32c(w.seed, w.buffer + at + 4, RECORD_HEAD - 4 + <size_t>r.size)
        chain = r.crc
        at += RECORD_HEAD + log_aligned(r.size)
    w.previous = chain
    return length


cdef void log_written(LogWriter *w) noexcept nogil:
    w.offset += log_blocks(w.used)
    w.durable = w.segment * w.segment_size + w.offset
    w.used = 0
    w.records = 0
    w.flags = 0


cdef void log_segment_header(uint8_t *out, const LogWriter *w, uint64_t number, uint32_t node) noexcept nogil:
    cdef Segment *h = <Segment *>out
    memset(out, 0, BLOCK)
    h.magic = SEGMENT_MAGIC
    h.version = FORMAT_VERSION
    h.node = node
    h.number = number
    h.size = w.segment_size
    h.inc_hi = w.inc_hi
    h.inc_lo = w.inc_lo
    h.durable = w.durable
    h.oldest = w.oldest
    h.previous = w.previous
    h.crc = crc32c(0, out + 8, BLOCK - 8)


cdef bint log_crc_right(const uint8_t *data, size_t size, uint32_t seed, Record *r) noexcept nogil:
    """Whether a record's bytes lie at data[0:size] with the right crc; the header is copied, data may be unaligned."""
    if size < RECORD_HEAD:
        return False
    memcpy(r, data, RECORD_HEAD)
    if r.size > size - RECORD_HEAD:
        return False
    return crc32c(seed, data + 4, RECORD_HEAD - 4 + <size_t>r.size) == r.crc


cdef int log_check_record(const uint8_t *data, size_t size, uint32_t seed) noexcept nogil:
    cdef Record r
    if not log_crc_right(data, size, seed, &r) or not log_known(&r):
        return -1
    return 0


cdef class Layout:
    """The writer's layout for Python: tests and simulated disks. Positions, sizes and lengths are bytes.

    One object is used by one thread at a time. Nothing is durable until the caller made it so and called
    :meth:`written`.
    """
    cdef LogWriter writer
    cdef readonly uint32_t node
    cdef bint closed

    def __cinit__(self, uint64_t segment_size, *, uint32_t node=1, incarnation=(1, 2), uint32_t boot=1):
        cdef int error = log_writer_init(&self.writer, segment_size, incarnation[0], incarnation[1], boot)
        if error == EINVAL:
            raise ValueError(f"segment_size {segment_size}: a multiple of {BLOCK} from {SEGMENT_MIN} to {SEGMENT_MAX} is wanted")
        if error:
            raise MemoryError
        self.node = node

    def __dealloc__(self):
        log_writer_free(&self.writer)

    @property
    def position(self):
        """(segment, offset) where the next write goes."""
        return self.writer.segment, self.writer.offset

    @property
    def previous(self):
        """crc of the last record laid out."""
        return self.writer.previous

    @property
    def durable(self):
        """Position up to which everything is durable."""
        return self.writer.durable

    def resume(self, uint64_t segment, uint64_t offset, uint32_t previous, uint32_t boot, uint64_t oldest):
        """Goes on at (segment, offset), where recovery cut the log."""
        self.writer.boot = boot
        self.writer.oldest = oldest
        log_writer_at(&self.writer, segment, offset, previous, segment * self.writer.segment_size + offset)

    def keep_from(self, uint64_t segment):
        """The log begins at that segment from the next write on."""
        self.writer.oldest = segment

    def header(self, uint64_t number):
        """The header block of segment ``number``."""
        cdef uint8_t block[4096]
        log_segment_header(block, &self.writer, number, self.node)
        return <bytes>(<char *>block)[:BLOCK]

    def fits(self, size_t size):
        """Whether a record with a body of ``size`` bytes still fits into the segment."""
        return log_fits(&self.writer, size)

    def append(self, uint8_t type, uint32_t group, uint64_t instance, const uint8_t[::1] body not None):
        """Adds a record to the pending write; returns its position. ``ValueError`` where it does not fit."""
        cdef size_t size = body.shape[0]
        if self.closed:
            raise ValueError("the write is closed: call written() first")
        if not log_fits(&self.writer, size):
            raise ValueError(f"a body of {size} bytes does not fit into what is left of the segment")
        return log_append(&self.writer, type, group, instance, &body[0] if size else NULL, size, NULL, 0)

    def close_write(self, bint end=False, bint empty=False):
        """Closes the pending write: (position, bytes). ``end``: it ends the segment. ``empty``: even with no record in it.

        (position, b"") where there is nothing to write.
        """
        cdef size_t length
        if self.closed:
            raise ValueError("the write is closed: call written() first")
        position = self.writer.segment * self.writer.segment_size + self.writer.offset
        if empty and not end and self.writer.used == 0 and self.writer.offset + 2 * BLOCK > self.writer.segment_size:
            raise ValueError("the last block of a segment is left for the write that ends it")
        if end or empty:
            log_begin(&self.writer)
        if end:
            self.writer.flags |= LOG_END
        length = log_close_write(&self.writer)
        self.closed = length > 0
        return position, <bytes>(<char *>self.writer.buffer)[:length]

    def written(self):
        """The write that was closed is durable."""
        if not self.closed:
            raise ValueError("no write is closed")
        log_written(&self.writer)
        self.closed = False

    def next_segment(self):
        """Goes on at the begin of the next segment; the one before it was ended and its last write is durable."""
        cdef uint64_t number = self.writer.segment + 1
        log_writer_at(&self.writer, number, BLOCK, self.writer.previous, number * self.writer.segment_size + BLOCK)
