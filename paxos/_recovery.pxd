# cython: language_level=3
"""Judges the bytes of a log: what it holds, where it ends, whether it is damaged. See recover()."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from paxos._log cimport RecordRef, Segment
from paxos._types cimport Record, RecordWrite

cdef enum Reason:                   # why there is no whole write at a place
    OK = 0
    NO_WRITE = 1
    STALE_CHAIN = 2
    RECORD_BAD = 3
    RECORD_CHAIN = 4
    PADDING = 5
    # what has the right crc and chain, and still cannot be
    CONTRADICTION = 16
    IMPOSSIBLE_WRITE = 16
    IMPOSSIBLE_RECORD = 17
    OTHER_IDENTITY = 18
    # written by a later version
    UNKNOWN = 32

cdef struct RecordTable:
    RecordRef *refs
    size_t count
    size_t capacity

cdef struct Walk:                   # how far recovery has come through the log
    uint64_t segment_size
    uint64_t inc_hi
    uint64_t inc_lo
    uint32_t node
    uint32_t chain                  # crc of the last record that verified
    uint32_t boot                   # highest of any valid RECORD_WRITE
    uint64_t durable                # highest of any valid RECORD_WRITE or header
    uint64_t oldest                 # highest of any valid RECORD_WRITE or header
    uint64_t last                   # position of the last whole write
    uint64_t offset                 # in the segment being walked
    bint ended                      # that segment ended with LOG_END
    RecordTable table

# What a log that is in use, or was set aside, is read with, too; see _logreader, _salvage.
# The header block: 0 good, -1 does not verify, 1 verifies but is of an unknown version.
cdef int recovery_header(const uint8_t *data, size_t size, Segment *h) noexcept nogil
# The RECORD_WRITE at data, judged by itself. `room`: bytes to the end of the segment. A Reason.
cdef int recovery_write(const uint8_t *data, size_t room, uint64_t position, uint32_t seed, Record *r,
                        RecordWrite *write) noexcept nogil
# The records of the write at data, into k.table; the caller takes the table back to where it was on failure. A Reason.
cdef int recovery_records(Walk *k, const uint8_t *data, uint64_t position, uint32_t seed, const RecordWrite *write,
                          uint32_t *chain) noexcept nogil
# The writes of one segment, from k.offset on, up to LOG_END (OK) or the first that is not whole; their records into k.table.
cdef int recovery_walk(Walk *k, const uint8_t *data, uint64_t number) noexcept nogil

cdef class Recovered:
    """What recover() found out; see there."""
    cdef Walk walk
    cdef void *views                # Py_buffer[view_count]
    cdef size_t view_count
    cdef uint64_t *numbers
    cdef readonly str outcome
    cdef readonly int row
    cdef readonly size_t legible    # records before the cut, or before the damage
    cdef readonly object cut
    cdef readonly object where
    cdef readonly str why
    cdef readonly list erase
    cdef readonly list rewrite
    cdef readonly list drop

    cdef _take(self, segments)
    cdef _judge(self)
    cdef _bad(self, int row, uint64_t number, uint64_t offset, str why)
    cdef _list_erase(self, const uint8_t *data, uint64_t number, uint64_t offset)
    cdef uint64_t _length(self, size_t view, uint64_t offset) noexcept
