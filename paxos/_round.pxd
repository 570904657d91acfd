# cython: language_level=3
"""A round of a node, in parts; see _round.pyx for their order, and _state for what they work on."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from paxos._state cimport Host
from paxos._types cimport Frame

cdef enum RoundFrame:               # what became of a frame
    ROUND_TAKEN = 0
    ROUND_NOT_ADMITTED = 1          # of another cluster or incarnation
    ROUND_NO_GROUP = 2
    ROUND_TOO_LARGE = 3             # a value in it fits no segment of this log

# -- before the first round. 0, or -1: the record contradicts what came before.
# Recovery, in two goes: first the formation (oldest first) and the newest RECORD_BASE of each group, then every record in log order.
cdef int host_restore_first(Host *h, uint8_t type, uint32_t group, uint64_t instance, const uint8_t *body, uint32_t size,
                            uint64_t position, bint newest) noexcept nogil
cdef int host_restore(Host *h, uint8_t type, uint32_t group, uint64_t instance, const uint8_t *body, uint32_t size,
                      uint64_t position) noexcept nogil
cdef void host_restored(Host *h) noexcept nogil                 # behind the last record
cdef void round_start(Host *h, int64_t now) noexcept nogil
cdef void host_free(Host *h) noexcept nogil                     # all but the delivery

# -- a round
cdef void round_begin(Host *h, int64_t now) noexcept nogil
cdef int round_hello(Host *h, const Frame *frame) noexcept nogil        # RefuseReason: whether its sender may go on
cdef int round_frame(Host *h, const Frame *frame) noexcept nogil        # any other checked frame; RoundFrame
# A large frame of which only the head and the fixed part of the body (room for a PromiseValue) are there yet.
cdef void round_arriving(Host *h, const Frame *frame) noexcept nogil
cdef void round_peer(Host *h, uint32_t index, bint up) noexcept nogil   # a connection to a member came or went
cdef bint round_steps(Host *h) noexcept nogil                   # True: the node is to stop; its log is sealed
cdef bint round_writes(Host *h) noexcept nogil                  # whether round_write is next: something was logged
cdef void round_write(Host *h) noexcept nogil                   # blocks for the disk
cdef void round_end(Host *h) noexcept nogil
cdef int64_t round_deadline(Host *h) noexcept nogil             # at or below h.now: there is work
