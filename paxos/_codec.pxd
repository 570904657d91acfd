# cython: language_level=3
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from paxos._types cimport Effect, Frame, Outbox, Value, ValueHead

# crc32c of data, continuing from crc (0 to begin). C library of google-crc32c; no GIL.
cdef uint32_t crc32c(uint32_t crc, const void *data, size_t size) noexcept nogil

cdef enum FrameError:
    FRAME_OK = 0
    FRAME_SHORT = 1                 # not all there yet
    FRAME_BAD_MAGIC = 2
    FRAME_BAD_VERSION = 3
    FRAME_BAD_LENGTH = 4
    FRAME_BAD_CRC = 5
    FRAME_BAD_TYPE = 6
    FRAME_BAD_BODY = 7

# Looks at the first `size` bytes. FRAME_SHORT: read on, *need is how many bytes the frame (or its header) wants.
# FRAME_OK: a whole frame whose crc, type and body lengths are right lies at data[0:*need].
cdef int frame_check(const uint8_t *data, size_t size, uint32_t max_frame, size_t *need) noexcept nogil

# Effects. out_head reserves room for a head in the arena and returns its address (valid until the next call).
cdef Effect *out_effect(Outbox *out, int type) noexcept nogil
cdef void *out_head(Outbox *out, Effect *e, size_t size) noexcept nogil
cdef void out_clear(Outbox *out) noexcept nogil          # drops the value references
cdef void out_free(Outbox *out) noexcept nogil

# chain_i = crc32c(chain_{i-1}, i, kind, size, bytes)
cdef uint32_t chain_next(uint32_t chain, uint64_t instance, const Value *value) noexcept nogil
cdef void value_head(ValueHead *head, const Value *value) noexcept nogil
# 0, or -1 where head and the bytes behind it do not make a value (sizes, kind, chunks, entries)
cdef int value_check(const ValueHead *head, const uint8_t *data, size_t available) noexcept nogil
# 0, or -1 where these bytes are no rows of members, or no membership with its head (sizes, ids that occur once, roles, an address that
# can be printed, somebody who votes)
cdef int rows_check(const uint8_t *data, size_t size, uint32_t count) noexcept nogil
cdef int members_check(const uint8_t *data, size_t size) noexcept nogil
cdef Value *value_copy(const ValueHead *head, const uint8_t *data) noexcept nogil
