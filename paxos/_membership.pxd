# cython: language_level=3
"""Who counts as whom: the members' incarnations, and the change by which another incarnation takes a member's place."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from paxos._replica cimport Replica
from paxos._types cimport Membership, Value

cdef enum:
    MEMBERSHIP_MAX = 1032           # bytes that a membership takes at most: 40 + 31 * 32

# Whether this node may promise, accept and stand: a member, which knows everything chosen before its votes count.
cdef bint votes(const Replica *r) noexcept nogil
# A change was chosen. What it means now stands in r.members; void where it is stale.
cdef void membership_chosen(Replica *r, uint64_t instance, const Value *value) noexcept nogil
# The membership that came with a checkpoint.
cdef void membership_install(Replica *r, const Membership *m) noexcept nogil
# The last instance from which some member's votes count; an idle group is carried there by no-ops.
cdef uint64_t membership_settled(const Replica *r) noexcept nogil

cdef size_t membership_size(const Membership *m) noexcept nogil
cdef void membership_write(const Membership *m, uint8_t *out) noexcept nogil
# 0, or -1 where these bytes are no membership of the node ids that *m has.
cdef int membership_read(Membership *m, const uint8_t *data, size_t size) noexcept nogil
