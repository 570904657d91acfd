# cython: language_level=3
"""Who belongs to the group, who votes in it, and since when: a table that is replicated state, and the changes of it."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from paxos._replica cimport Replica
from paxos._types cimport Membership, Value

cdef enum:
    MEMBERSHIP_MAX = 9201           # bytes that a membership takes at most: 56 + 31 * (40 + 255)

# Whether this node may promise, accept and stand: its votes count, and it knows everything chosen before they do.
cdef bint votes(const Replica *r) noexcept nogil
# Who votes at the next instance to be chosen, or will soon; and not this node.
cdef uint32_t electors(const Replica *r) noexcept nogil
# A master's view: below this instance its ballot may be used (rule 8), and what is proposed be accepted.
cdef uint64_t membership_covers(const Replica *r) noexcept nogil
# A change was chosen. What it means now stands in r.members; void where it is stale.
cdef void membership_chosen(Replica *r, uint64_t instance, const Value *value) noexcept nogil
# The own place, after r.members was set.
cdef void membership_self(Replica *r) noexcept nogil
# The watermark has moved: who was to leave when it comes here is gone.
cdef void membership_advance(Replica *r) noexcept nogil
# The membership that came with a checkpoint, or stands in the log's beginning.
cdef void membership_install(Replica *r, const Membership *m) noexcept nogil
# Whether the ballot of this master holds at what comes next: who votes there has promised it, and what they reported is chosen.
cdef bint membership_led(const Replica *r) noexcept nogil
# From here on all the changes chosen are in force, and what was chosen before is safe; an idle group is carried there by no-ops.
cdef uint64_t membership_settled(const Replica *r) noexcept nogil

# The index of a node; NOWHERE: it has no place.
cdef uint32_t membership_place(const Membership *m, uint32_t node) noexcept nogil
# Brings present and voters in line with the rows; a first membership is in force from the beginning.
cdef void membership_derive(Membership *m) noexcept nogil
cdef void membership_first(Membership *m) noexcept nogil
# Whether a table can follow on another, in which nothing is pending.
cdef bint membership_follows(const Membership *m, const Membership *old) noexcept nogil
# Takes a member out: at once, or, where it has a vote, when that is in force.
cdef void membership_remove(Membership *m, uint32_t index) noexcept nogil
# The value that has a table chosen, in place of the one whose version that has.
cdef Value *membership_value(const Membership *m) noexcept nogil
# Reads the rows of such a value over those of *m. 0, or -1: malformed.
cdef int membership_rows(Membership *m, const uint8_t *data, size_t size) noexcept nogil

cdef size_t membership_size(const Membership *m) noexcept nogil
cdef void membership_write(const Membership *m, uint8_t *out) noexcept nogil
# 0, or -1 where these bytes are no membership.
cdef int membership_read(Membership *m, const uint8_t *data, size_t size) noexcept nogil
