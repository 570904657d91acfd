# cython: language_level=3
"""What waits to be sent to one peer. Heads are copied; large values are shared by all peers, not copied."""
from libc.stdint cimport uint8_t, uint64_t
from paxos._sockets cimport iovec
from paxos._types cimport Value

cdef struct OutItem:
    size_t head                     # offset into the arena
    size_t head_size
    Value *value

cdef struct OutQueue:               # frames on their way to one peer; large values are shared, not copied
    OutItem *items
    size_t first
    size_t count                    # items[first:count] wait
    size_t capacity
    uint8_t *arena
    size_t used
    size_t size
    size_t sent                     # bytes of items[first] that are gone already
    uint64_t bytes

cdef void out_reset(OutQueue *q) noexcept nogil                 # forgets everything; keeps the memory
cdef void out_drop(OutQueue *q) noexcept nogil                  # and gives that back too
cdef void out_push(OutQueue *q, const uint8_t *head, size_t size, Value *value) noexcept nogil
# Describes the front of the queue in up to `room` pieces; how many.
cdef int out_iovecs(OutQueue *q, iovec *iov, int room) noexcept nogil
cdef void out_consume(OutQueue *q, size_t size) noexcept nogil  # so many bytes are sent
