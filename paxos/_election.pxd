# cython: language_level=3
from libc.stdint cimport uint32_t
from paxos._replica cimport Replica
from paxos._types cimport Ballot, Frame, Prevote, PrevoteReply, Promise, PromiseValue, Relieve, Transfer, Value

cdef void election_start(Replica *r) noexcept nogil
cdef void election_tick(Replica *r) noexcept nogil
cdef void election_prevote(Replica *r, uint32_t index, const Frame *frame, const Prevote *body) noexcept nogil
cdef void election_prevote_reply(Replica *r, uint32_t index, const PrevoteReply *body) noexcept nogil
cdef void election_transferred(Replica *r, uint32_t index, const Transfer *body) noexcept nogil
cdef void election_promise_value(Replica *r, uint32_t index, const PromiseValue *body, Value *value) noexcept nogil
cdef void election_promise(Replica *r, uint32_t index, const Frame *frame, const Promise *body) noexcept nogil
# Called at the end of every step: closes promises whose reports are all in, starts over where the watermark moved.
# True while this replica prepares and a quorum has promised its ballot: it is the master.
cdef void election_report_arriving(Replica *r, const Ballot *ballot, uint32_t size) noexcept nogil    # a large one, in pieces
cdef bint election_won(Replica *r) noexcept nogil
# A master's ballot, where new voters have not promised it: has them asked, and is called until they have. Its instances from the
# change on wait for that.
cdef void election_extend(Replica *r) noexcept nogil
cdef void election_extend_tick(Replica *r) noexcept nogil
cdef void election_master_heard(Replica *r, const Ballot *ballot) noexcept nogil
cdef void election_master_lost(Replica *r, uint32_t index) noexcept nogil
cdef uint32_t election_heard(const Replica *r) noexcept nogil      # members heard from lately, and the own
cdef bint election_has_quorum(const Replica *r) noexcept nogil     # a master's view: that is a quorum
cdef void election_give_up(Replica *r) noexcept nogil              # a master that does not: whoever still hears it may look for another
cdef bint election_relieved(const Replica *r, uint32_t index, const Relieve *body) noexcept nogil
