# cython: language_level=3
"""Log layout: pure functions over bytes. docs/formats-log.md has the picture; _segments does the I/O.

A segment is a file of `segment_size` bytes: one header block, then writes. A write starts on a BLOCK boundary with a
RECORD_WRITE record, holds the records of every group that became ready, and is padded with zeros to the next boundary.
A position is segment_number * segment_size + offset; it only grows.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from paxos._types cimport FORMAT_VERSION, BLOCK, Record, RECORD_BASE, RECORD_WRITE

cdef extern from *:
    """
    typedef struct {
        uint32_t magic, crc;                     /* crc32c of bytes 8..BLOCK */
        uint32_t version, node;
        uint64_t number, size;
        uint64_t inc_hi, inc_lo;
        uint64_t durable;                        /* where the END write of the segment before was going to begin */
        uint64_t oldest;                         /* number of the oldest segment kept when this one was begun */
        uint32_t previous, zero;                 /* crc of the record before the first one of this segment */
    } px_segment;                                /* 72 bytes; the rest of the block is zero */
    """
    ctypedef struct Segment "px_segment":
        uint32_t magic
        uint32_t crc
        uint32_t version
        uint32_t node
        uint64_t number
        uint64_t size
        uint64_t inc_hi
        uint64_t inc_lo
        uint64_t durable
        uint64_t oldest
        uint32_t previous
        uint32_t zero

cdef enum:
    RECORD_HEAD = 32                # sizeof(Record)
    WRITE_HEAD = 56                 # the RECORD_WRITE record at the start of every write
    LOG_END = 1                     # flag of a RECORD_WRITE: the log goes on in the next segment
    SEGMENT_MIN = 65536
    SEGMENT_MAX = 1073741824

cdef struct RecordRef:              # a record found by recovery
    uint64_t position
    const uint8_t *body             # into the bytes recovery was given
    uint64_t instance
    uint32_t size
    uint32_t group
    uint8_t type

cdef struct LogWriter:
    uint64_t segment_size
    uint64_t segment                # number of the segment being written
    uint64_t offset                 # where the next write goes in it (BLOCK-aligned)
    uint32_t seed                   # crc seed of this segment: crc32c(incarnation || segment number)
    uint32_t previous               # crc of the last record laid out
    uint32_t boot
    uint64_t inc_hi
    uint64_t inc_lo
    uint64_t durable                # position up to which everything is durable
    uint8_t *buffer                 # BLOCK-aligned; the write being laid out
    size_t used
    size_t capacity
    uint32_t records
    uint64_t oldest                 # number of the oldest segment that is kept
    uint16_t flags                  # of the pending write: 0 or LOG_END

cdef int log_writer_init(LogWriter *w, uint64_t segment_size, uint64_t inc_hi, uint64_t inc_lo, uint32_t boot) noexcept nogil
cdef void log_writer_free(LogWriter *w) noexcept nogil
cdef void log_writer_at(LogWriter *w, uint64_t segment, uint64_t offset, uint32_t previous, uint64_t durable) noexcept nogil
# Bytes the pending write would have with one more body of `size` bytes, padding included.
cdef size_t log_write_size(const LogWriter *w, size_t size) noexcept nogil
# Whether one more record of `size` body bytes still fits into the current segment behind what is pending.
cdef bint log_fits(const LogWriter *w, size_t size) noexcept nogil
# Begins a write where none is pending: an empty write seals what is before it, or ends the segment.
cdef void log_begin(LogWriter *w) noexcept nogil
# Appends a record to the pending write; body = head (+ rest). Returns the position of the record. The caller checked log_fits.
cdef uint64_t log_append(LogWriter *w, uint8_t type, uint32_t group, uint64_t instance, const void *head, size_t head_size,
                         const void *rest, size_t rest_size) noexcept nogil
# Closes the pending write: RECORD_WRITE filled in, crcs chained, zero padding. Returns its length (0: nothing pending).
# Once a write: the chain goes on from here.
cdef size_t log_close_write(LogWriter *w) noexcept nogil
# The write is durable: advances offset and durable position, empties the buffer.
cdef void log_written(LogWriter *w) noexcept nogil
# Lays out the header block of segment `number` into out[0:BLOCK].
cdef void log_segment_header(uint8_t *out, const LogWriter *w, uint64_t number, uint32_t node) noexcept nogil
# Verifies the record at data[0:size] as one of this segment: 0, or -1.
cdef int log_check_record(const uint8_t *data, size_t size, uint32_t seed) noexcept nogil
cdef uint32_t log_seed(uint64_t inc_hi, uint64_t inc_lo, uint64_t segment) noexcept nogil
# The same for any version and type; *r gets a copy of the record's header (data may be unaligned).
cdef bint log_crc_right(const uint8_t *data, size_t size, uint32_t seed, Record *r) noexcept nogil

cdef inline size_t log_aligned(size_t size) noexcept nogil:
    return (size + 7) & ~(<size_t>7)

cdef inline size_t log_blocks(size_t size) noexcept nogil:
    return (size + (BLOCK - 1)) & ~(<size_t>(BLOCK - 1))

cdef inline bint log_known(const Record *r) noexcept nogil:
    return r.version == FORMAT_VERSION and RECORD_WRITE <= r.type <= RECORD_BASE
