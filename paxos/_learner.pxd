# cython: language_level=3
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from paxos._replica cimport Replica
from paxos._types cimport Accept, Ballot, Frame, Kept, Learn, Membership, Value

cdef void learner_notice(Replica *r, const Ballot *ballot, uint64_t own_from, uint64_t chosen) noexcept nogil
cdef void learner_advance(Replica *r) noexcept nogil            # over slots marked chosen
cdef void learner_watermark(Replica *r) noexcept nogil          # into the log
cdef void learner_heard(Replica *r, uint32_t index, const Frame *frame) noexcept nogil
# A large frame is coming in, piece by piece: it is not asked for a second time.
cdef void learner_accept_arriving(Replica *r, uint32_t index, const Accept *a, uint32_t size) noexcept nogil
cdef void learner_learned_arriving(Replica *r, uint32_t index, uint32_t size) noexcept nogil
cdef void learner_serve(Replica *r, uint32_t index, const Learn *body) noexcept nogil
cdef void learner_serve_expected(Replica *r) noexcept nogil     # what somebody has asked for too early, and is chosen now
cdef void learner_kept(Replica *r, uint32_t index, const Kept *body) noexcept nogil
cdef void learner_learned(Replica *r, const Frame *frame) noexcept nogil
# The value of the next instance, from a log that was set aside. What was asked for is not asked for again for a while.
cdef void learner_known(Replica *r, Value *value) noexcept nogil
cdef void learner_ask(Replica *r) noexcept nogil                # asks, if something is missing and no question is out
# Nobody has told this node anything for long, and it cannot find out by standing for election: it asks one after the other.
cdef void learner_wonder(Replica *r) noexcept nogil
cdef void learner_tick(Replica *r) noexcept nogil
# Recovery: the watermark recorded in the log, checked against the values. 0, or -1: they do not agree.
cdef int learner_restore(Replica *r, uint64_t chosen, uint32_t chain) noexcept nogil
cdef int learner_restore_value(Replica *r, uint64_t instance, Value *value) noexcept nogil
# A checkpoint that was installed: instances below `instance` are chosen. Only upwards.
cdef void learner_install(Replica *r, uint64_t instance, uint32_t chain, const Membership *members) noexcept nogil
# The log is about to begin at `first`, behind whose predecessor the chain checksum is `chain`.
cdef void learner_base(Replica *r, uint64_t first, uint32_t chain) noexcept nogil
# Recovery: the newest RECORD_BASE, before any other record. 0, or -1: malformed.
cdef int learner_restore_base(Replica *r, uint64_t first, const uint8_t *body, uint32_t size) noexcept nogil
