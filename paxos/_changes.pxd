# cython: language_level=3
"""Which change of the membership a master proposes next."""
from libc.stdint cimport uint32_t, uint64_t
from paxos._replica cimport Replica
from paxos._types cimport Membership

# A table is to be chosen in place of the one whose version it has. False: this node is not the master, or it is not free to, or that
# table does not follow on the present one.
cdef bint changes_ask(Replica *r, const Membership *next) noexcept nogil
# A node with the id of that member, but another incarnation, asks to take its place.
cdef void changes_join(Replica *r, uint32_t index, uint64_t inc_hi, uint64_t inc_lo) noexcept nogil
# With every heartbeat: has a learner become level?
cdef void changes_tick(Replica *r) noexcept nogil
# Whether one is to be proposed now; it stands in *next. Asked before anything new is.
cdef bint changes_due(Replica *r, Membership *next) noexcept nogil
cdef void changes_forget(Replica *r) noexcept nogil         # this node is not the master, or not yet
