# cython: language_level=3
from libc.stdint cimport int64_t, uint32_t, uint64_t
from paxos._replica cimport Replica
from paxos._types cimport HeartbeatReply, Read, Readable

cdef void reader_ask(Replica *r, uint64_t token) noexcept nogil         # a read of this node
cdef void reader_asked(Replica *r, uint32_t index, const Read *body) noexcept nogil
# A heartbeat of the own ballot was answered.
cdef void reader_answered(Replica *r, uint32_t index, const HeartbeatReply *body) noexcept nogil
cdef void reader_readable(Replica *r, const Readable *body) noexcept nogil
cdef void reader_elected(Replica *r) noexcept nogil
cdef void reader_step_down(Replica *r) noexcept nogil
cdef bint reader_due(const Replica *r) noexcept nogil                   # whether a round of heartbeats is wanted
cdef void reader_begin(Replica *r) noexcept nogil                       # it has just been sent
cdef void reader_pump(Replica *r) noexcept nogil
cdef int64_t reader_deadline(const Replica *r) noexcept nogil
