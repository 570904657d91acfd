# cython: language_level=3
"""The log on disk: segment files, zero-filled ahead and recycled, one aligned durable write at a time.
Used by one thread (the engine's); only the preparer thread runs beside it."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from paxos._log cimport LogWriter, RecordRef

cdef struct Index:                  # instance -> position of the record that holds its value (0: none)
    uint64_t first                  # instance of positions[0]
    uint64_t count
    uint64_t capacity
    uint64_t *positions

cdef struct Store:
    LogWriter writer
    int directory                   # fd of the directory that holds the segments
    int current                     # fd of the segment being written
    bint direct                     # O_DIRECT|O_DSYNC, else pwrite + fdatasync
    uint32_t node
    # counters
    uint64_t syncs
    uint64_t writes
    uint64_t bytes
    uint64_t records
    int64_t time                    # ns spent in durable writes
    void *files                     # private to _segments

# Appends to the pending write; where the segment is full, makes the pending write durable first and goes on in a
# prepared one. Returns the record's position, or 0 on an I/O error (errno in *error).
cdef uint64_t store_append(Store *s, uint8_t type, uint32_t group, uint64_t instance, const void *head, size_t head_size,
                           const void *rest, size_t rest_size, int *error) noexcept nogil
# Makes everything appended durable: one aligned write and one sync. 0, or an errno; after an error nothing may be sent.
cdef int store_flush(Store *s) noexcept nogil
cdef bint store_pending(const Store *s) noexcept nogil
# Reads and verifies the record at position: returns a malloc'ed copy (header + body) and its size, NULL where it does
# not verify or is not there (errno in *error; EBADMSG: damaged). The caller frees it.
cdef uint8_t *store_read(Store *s, uint64_t position, uint32_t *size, int *error) noexcept nogil
# Gives a whole segment back for reuse: the oldest one, never the current one (else EINVAL). Makes what is pending durable,
# with the note that the segment is no longer part of the log, before it is taken away. 0 or an errno.
cdef int store_recycle(Store *s, uint64_t segment) noexcept nogil

cdef void index_set(Index *x, uint64_t instance, uint64_t position) noexcept nogil
cdef uint64_t index_get(const Index *x, uint64_t instance) noexcept nogil
cdef void index_trim(Index *x, uint64_t first) noexcept nogil      # forgets every instance below first
cdef void index_free(Index *x) noexcept nogil

cdef class LogStore:
    """Opens (or makes) the log of a data directory, recovers it, and holds it open and locked until close()."""
    cdef Store *store
    cdef RecordRef *records         # what recovery found, in log order, without RECORD_WRITE; see release_replay()
    cdef size_t record_count
    cdef readonly uint64_t incarnation_hi
    cdef readonly uint64_t incarnation_lo
    cdef readonly uint32_t boot     # this start's number, already durable
    cdef readonly str mode          # how writes are made durable, in words
    cdef readonly str directory
    cdef object _private            # Python-side state of _segments (mappings, lock file, preparer thread)

    cdef _open(self, uint32_t node_id, uint64_t segment_size, bint direct)
    cdef _allocate(self, uint32_t node_id, uint64_t segment_size, found, bint direct)
    cdef _check(self, int error, str what)
    cdef _probe(self, bint direct)
    cdef _adopt_spares(self, log, names)
    cdef _repair(self, found)
    cdef _identify(self)
    cdef _release(self)
    cdef Store *_opened(self) except NULL
