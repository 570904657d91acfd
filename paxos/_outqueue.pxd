# cython: language_level=3
"""What waits to be sent to one peer: small frames in order, and large ones that leave in pieces whenever no small one waits.
Heads are copied; values are shared by all peers, not copied."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from paxos._sockets cimport iovec
from paxos._types cimport Value

cdef struct OutItem:
    size_t head                     # offset into the arena
    size_t head_size
    Value *value

cdef struct Large:                  # a frame that leaves in pieces
    Large *next
    Value *value                    # or NULL: all of it is in the head
    size_t head_size
    uint8_t head[1]                 # head_size bytes

cdef struct OutQueue:               # frames on their way to one peer
    OutItem *items                  # small ones
    size_t first
    size_t count                    # items[first:count] wait
    size_t capacity
    uint8_t *arena
    size_t used
    size_t size
    size_t sent                     # bytes of items[first] that are gone already
    Large *large                    # the one that is under way, or the next; then the others
    Large *last
    uint32_t offset                 # bytes of `large` that are gone, or in the piece
    uint64_t transfer               # number of the last one begun on this connection
    uint8_t piece[80]               # head of the piece that is next: behind the small frames, before them once it is begun
    size_t piece_size               # with its head; 0: there is none
    size_t piece_sent
    uint64_t bytes                  # of everything that waits

cdef void out_reset(OutQueue *q) noexcept nogil                 # forgets everything; keeps the memory
cdef void out_drop(OutQueue *q) noexcept nogil                  # and gives that back too
cdef void out_push(OutQueue *q, const uint8_t *head, size_t size, Value *value) noexcept nogil
# Whether this very frame waits already, or leaves just now; only its head's watermark may be another. Large ones only.
cdef bint out_holds(const OutQueue *q, const uint8_t *head, size_t size, const Value *value) noexcept nogil
# Describes the front of the queue in up to `room` parts; how many.
cdef int out_iovecs(OutQueue *q, iovec *iov, int room) noexcept nogil
cdef void out_consume(OutQueue *q, size_t size) noexcept nogil  # so many bytes are sent
