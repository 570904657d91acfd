# cython: language_level=3
from libc.stdint cimport int64_t, uint32_t, uint64_t
from paxos._replica cimport Replica
from paxos._types cimport Ballot, Frame, HeartbeatReply, Prepare, Value

# The value by which this node says that it has taken over, or only that leases last `lease` ns from now on. A new reference.
cdef Value *mastership_value(const Replica *r, bint takeover, uint64_t lease) noexcept nogil
cdef void mastership_chosen(Replica *r, uint64_t instance, const Value *value) noexcept nogil
# The log tells of the lease's length (with the record just added, or as it was found): grants may stand on it.
cdef void mastership_logged(Replica *r) noexcept nogil

# -- the master's side
cdef void mastership_begin(Replica *r) noexcept nogil                  # a new own ballot
cdef void mastership_answered(Replica *r, uint32_t index, const Frame *frame, const HeartbeatReply *body) noexcept nogil
cdef int64_t mastership_lease(const Replica *r) noexcept nogil         # until when this node holds the lease; 0: it does not
cdef int mastership_best(const Replica *r) noexcept nogil              # index of the member that had best take over, or -1
cdef bint mastership_fit(const Replica *r, uint32_t index) noexcept nogil
cdef void mastership_hand(Replica *r, uint32_t index) noexcept nogil   # begins to hand over
cdef void mastership_tell(Replica *r) noexcept nogil                   # tells the member that it is to take over
# A Prepare says that the lease of this ballot was given up.
cdef void mastership_freed(Replica *r, const Ballot *released) noexcept nogil
cdef void mastership_leave(Replica *r) noexcept nogil             # hands over, if the own vote is about to go
cdef void mastership_tick(Replica *r) noexcept nogil

# -- of the others
cdef uint64_t mastership_grant(Replica *r, const Ballot *ballot) noexcept nogil     # ns that are granted; 0: nothing
# Called first in every step, which has a time of its own.
cdef void mastership_now(Replica *r) noexcept nogil
# Whether a lease in force, of another node, keeps this one from promising to this ballot.
cdef bint mastership_bound(const Replica *r, const Ballot *ballot, const Ballot *released) noexcept nogil
