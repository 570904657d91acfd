# cython: language_level=3
from libc.stdint cimport int64_t, uint32_t, uint64_t
from paxos._replica cimport Replica
from paxos._types cimport Accepted, Ballot, Frame, Value

cdef void proposer_submit(Replica *r, uint64_t seq, Value *chunk, int64_t deadline) noexcept nogil
cdef void proposer_elected(Replica *r) noexcept nogil           # a quorum has promised: take over
cdef void proposer_accepted(Replica *r, uint32_t index, const Accepted *body) noexcept nogil
cdef void proposer_durable(Replica *r) noexcept nogil           # counts own acceptances that became durable
cdef void proposer_step_down(Replica *r) noexcept nogil
cdef void proposer_pump(Replica *r) noexcept nogil
cdef void proposer_tick(Replica *r) noexcept nogil
cdef void proposer_resend(Replica *r, uint32_t to, int64_t age) noexcept nogil    # in-flight Accepts that `to` has not answered
cdef void proposer_heartbeat(Replica *r, uint32_t to, bint wants_reply) noexcept nogil
cdef void proposer_forwarded(Replica *r, uint32_t index, const Frame *frame) noexcept nogil
cdef void proposer_forward_refused(Replica *r, const Frame *frame) noexcept nogil
cdef void proposer_forward_again(Replica *r) noexcept nogil     # what the present master was sent and has not been seen chosen
cdef void proposer_settle_old(Replica *r, bint wait) noexcept nogil        # chunks of older ballots, once a take-over is applied
cdef int64_t proposer_deadline(Replica *r) noexcept nogil
