# cython: language_level=3
"""The large frame that comes in pieces over one connection: one at a time, in memory that grows as its bytes arrive."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from paxos._types cimport Frame

cdef enum TransferState:
    TRANSFER_MORE = 0               # taken; the frame is not whole yet
    TRANSFER_WHOLE = 1              # a whole, checked frame is at `data`, until transfer_done
    TRANSFER_WRONG = 2              # *error: a FrameError, or FRAME_OK where the piece does not fit what came before

cdef struct Transfer:
    uint8_t *data
    size_t size                     # bytes so far
    size_t capacity
    uint32_t total                  # of the frame under way; 0: none is
    uint64_t number                 # of the last transfer of this connection that was begun; they count from 1

# A checked FRAME_PIECE.
cdef int transfer_take(Transfer *t, const Frame *frame, uint32_t max_frame, int *error) noexcept nogil
# What is under way as far as it is there, if that is `least` bytes; else NULL.
cdef const Frame *transfer_under_way(const Transfer *t, size_t least) noexcept nogil
# The frame that transfer_take gave is used up: the memory of a large one is not kept for ever.
cdef void transfer_done(Transfer *t) noexcept nogil
cdef void transfer_free(Transfer *t) noexcept nogil
