# cython: language_level=3
"""Changes of the membership, on the master's side: what was asked for, whose place is to be taken, and learners that are level.

One at a time. While one is not in force, of three members one might have no vote any more and two no vote yet (_membership).
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free

from paxos._mastership cimport mastership_best, mastership_hand
from paxos._membership cimport membership_follows, membership_place, membership_remove, membership_settled
from paxos._replica cimport ROLE_MASTER, Replica
from paxos._types cimport MEMBER_LEARNER, MEMBER_VOTER, Member, Membership, NOWHERE, xalloc

cdef enum:
    LEVEL = 512                     # instances that a learner may lack which becomes a voter


cdef bint _free(const Replica *r) noexcept nogil:
    return r.master_settled and r.change_at <= r.chosen and r.chosen >= membership_settled(r)


cdef bint changes_ask(Replica *r, const Membership *next) noexcept nogil:
    if (r.role != ROLE_MASTER or not _free(r) or next.version != r.members.version
            or not membership_follows(next, &r.members)):
        return False
    if r.wanted == NULL:
        r.wanted = <Membership *>xalloc(sizeof(Membership))
    r.wanted[0] = next[0]
    return True


cdef void changes_join(Replica *r, uint32_t index, uint64_t inc_hi, uint64_t inc_lo) noexcept nogil:
    if r.role == ROLE_MASTER:
        r.joiner = index + 1
        r.joiner_hi = inc_hi
        r.joiner_lo = inc_lo
        r.joiner_until = r.now + r.options.election_max * 4


cdef bint _joins(Replica *r, Membership *next) noexcept nogil:
    """Not while the old incarnation is heard: then two processes go by one id, and the one that is there keeps its place."""
    cdef uint32_t index = r.joiner - 1
    cdef Member *m = &r.members.members[index]
    if (r.now >= r.joiner_until or index == r.self or (m.inc_hi == r.joiner_hi and m.inc_lo == r.joiner_lo)
            or r.now - r.heard[index] < r.options.election_max):
        r.joiner = 0
        return False
    if not _free(r):
        return False
    next[0] = r.members
    next.members[index].inc_hi = r.joiner_hi
    next.members[index].inc_lo = r.joiner_lo
    r.joiner = 0
    return True


cdef void changes_tick(Replica *r) noexcept nogil:
    """A learner that is level becomes a voter; where it comes instead of another node, in the same change."""
    cdef Membership next
    cdef uint32_t i, k
    if not _free(r) or r.wanted != NULL or r.hand_to != 0:
        return
    for i in range(r.members.count):
        # (Since it was elected a master takes everybody for heard from. Who has to fetch a checkpoint first is not level.)
        if (r.members.members[i].node == 0 or r.members.members[i].role != MEMBER_LEARNER or r.heard[i] <= r.elected_at
                or r.now - r.heard[i] >= r.options.election_min or r.known[i] + LEVEL < r.chosen
                or r.known[i] < r.first_kept):
            continue
        k = membership_place(&r.members, r.members.instead[i])
        if k == r.self and mastership_best(r) >= 0:
            mastership_hand(r, <uint32_t>mastership_best(r))    # (whoever takes over goes on with this)
            return
        next = r.members
        next.members[i].role = MEMBER_VOTER
        next.instead[i] = 0
        if k != NOWHERE:
            membership_remove(&next, k)
        changes_ask(r, &next)
        return


cdef bint changes_due(Replica *r, Membership *next) noexcept nogil:
    cdef bint due
    if r.wanted != NULL:
        due = _free(r) and r.wanted.version == r.members.version
        next[0] = r.wanted[0]
        changes_forget(r)
        return due
    return r.joiner != 0 and _joins(r, next)


cdef void changes_forget(Replica *r) noexcept nogil:
    free(r.wanted)
    r.wanted = NULL
