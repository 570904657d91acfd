# cython: language_level=3
"""The store: appends, durable writes, reading back, recycling; and the index of values. For one thread; needs no GIL."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from paxos._disk cimport Disk
from paxos._log cimport LogWriter
from paxos._spares cimport Spares

cdef enum:
    CACHED = 8                      # open files of old segments
    STORE_NO_ROOM = -1              # like an errno, of a call that has changed nothing: a new segment is wanted, and the disk is full

cdef struct Cached:
    uint64_t segment                # 0: free
    uint64_t used
    int fd

cdef struct Files:                  # what Store.files points to
    int failed                      # errno of the first failed durable write
    uint8_t *block                  # one BLOCK, aligned: headers
    uint64_t uses
    Cached cache[8]
    uint64_t made_here              # spares that were not ready when they were wanted
    Spares spares

cdef struct Index:                  # instance -> position of the record that holds its value (0: none)
    uint64_t first                  # instance of positions[0]
    uint64_t count
    uint64_t capacity
    uint64_t *positions
    uint32_t *chains                # chain checksum behind each instance that is chosen

cdef struct Highs:                  # segment -> one past the highest instance with a value in it
    uint64_t first                  # segment of highs[0]
    size_t count
    size_t capacity
    uint64_t *highs

cdef struct Store:
    LogWriter writer
    Disk *disk                      # the directory that holds the segments
    int current                     # fd of the segment being written
    bint direct                     # O_DIRECT|O_DSYNC, else pwrite + fdatasync
    uint32_t node
    const char *where               # the data directory, for messages
    # counters
    uint64_t syncs
    uint64_t writes
    uint64_t bytes
    uint64_t records
    int64_t time                    # ns spent in durable writes
    void *files                     # private to _segments

# Appends to the pending write; where the segment is full, makes the pending write durable first and goes on in a
# prepared one. Returns the record's position, or 0 on an I/O error (errno in *error) or STORE_NO_ROOM (then it may be called again).
cdef uint64_t store_append(Store *s, uint8_t type, uint32_t group, uint64_t instance, const void *head, size_t head_size,
                           const void *rest, size_t rest_size, int *error) noexcept nogil
# Makes everything appended durable: one aligned write and one sync. 0, or an errno; after an error nothing may be sent.
cdef int store_flush(Store *s) noexcept nogil
cdef bint store_pending(const Store *s) noexcept nogil
# Why no segment can be made ahead (ENOSPC or EDQUOT); 0: the disk is not full, as far as is known.
cdef int store_full(Store *s) noexcept nogil
# Reads and verifies the record at position: returns a malloc'ed copy (header + body) and its size, NULL where it does
# not verify or is not there (errno in *error; EBADMSG: damaged). The caller frees it.
cdef uint8_t *store_read(Store *s, uint64_t position, uint32_t *size, int *error) noexcept nogil
# The same of an open segment, whose bytes end at `end` and whose crcs begin with `seed`.
cdef uint8_t *store_record(Disk *disk, int fd, uint64_t offset, uint64_t end, uint32_t seed, uint32_t *size,
                           int *error) noexcept nogil
# Gives a whole segment back for reuse: the oldest one, never the current one (else EINVAL). Makes what is pending durable,
# with the note that the segment is no longer part of the log, before it is taken away. 0, an errno, or STORE_NO_ROOM: the note would be
# the first write of a new segment.
cdef int store_recycle(Store *s, uint64_t segment) noexcept nogil

# Ends the current segment, with what is pending, and goes on in the next one. 0 or an errno.
cdef int store_rotate(Store *s) noexcept nogil

cdef void index_set(Index *x, uint64_t instance, uint64_t position) noexcept nogil
cdef uint64_t index_get(const Index *x, uint64_t instance) noexcept nogil
# The chain checksum behind an instance that has a position; 0 where nothing is known.
cdef void index_set_chain(Index *x, uint64_t instance, uint32_t chain) noexcept nogil
cdef uint32_t index_chain(const Index *x, uint64_t instance) noexcept nogil
cdef void index_trim(Index *x, uint64_t first) noexcept nogil      # forgets every instance below first
cdef void index_free(Index *x) noexcept nogil

cdef void highs_note(Highs *x, uint64_t segment, uint64_t instance) noexcept nogil
# Whether every value in that segment, and in those before it, is of an instance below `first`. Forgets what is before it.
cdef bint highs_below(Highs *x, uint64_t segment, uint64_t first) noexcept nogil
# One past the highest instance with a value in that segment; 0: none is known.
cdef uint64_t highs_at(const Highs *x, uint64_t segment) noexcept nogil
cdef void highs_free(Highs *x) noexcept nogil

# For LogStore. One durable write into an open segment; the file of a name, opened as the mode wants it; a spare made
# segment `number` (header durable, then the name, then the directory); the cached descriptor of a segment closed.
cdef int store_write(Store *s, int fd, const uint8_t *data, size_t size, uint64_t offset) noexcept nogil
cdef int store_open_segment(Store *s, const char *name, int *fd) noexcept nogil
cdef int store_begin_segment(Store *s, uint64_t number, int *fd) noexcept nogil
cdef void store_forget(Store *s, uint64_t segment) noexcept nogil
