# cython: language_level=3
"""What a host does about members: who asks for a place, who tells of others, who is alive under an id."""
from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from paxos._core cimport replica_change, replica_members, replica_replace
from paxos._effects cimport take
from paxos._formation cimport formation_newer
from paxos._membership cimport membership_place, membership_rows
from paxos._replica cimport Replica
from paxos._types cimport Change, Member, Membership, NOWHERE


cdef void members_join(Host *h, const Frame *frame) noexcept nogil:
    cdef uint32_t k
    cdef Group *g
    for k in range(h.group_count):
        g = &h.groups[k]
        if g.replica != NULL:
            replica_replace(g.replica, h.now, frame.sender, frame.inc_hi, frame.inc_lo)
            take(h, &g.replica.out, g)


cdef void members_told(Host *h, const Frame *frame) noexcept nogil:
    """This node was away for so long that none of the members it knows may be left."""
    cdef Membership members
    cdef uint32_t k
    cdef Group *g
    if formation_newer(&h.formation, frame, &members):
        for k in range(h.group_count):
            g = &h.groups[k]
            if g.replica != NULL:
                replica_members(g.replica, h.now, &members)
                take(h, &g.replica.out, g)


cdef bint members_heard(const Host *h, const Frame *frame) noexcept nogil:
    cdef const Replica *r = h.groups[0].replica
    cdef const Member *m
    cdef uint32_t place
    if r == NULL:
        return False
    place = membership_place(&r.members, frame.sender)
    m = &r.members.members[place]
    return (place != NOWHERE and (m.inc_hi != frame.inc_hi or m.inc_lo != frame.inc_lo)
            and r.heard[place] != 0 and h.now - r.heard[place] < h.options.election_max)


cdef void members_change(Host *h, Group *g, const Value *value) noexcept nogil:
    cdef Membership next
    cdef Change head
    if g.replica == NULL:
        return
    next = g.replica.members
    memcpy(&head, value.data, sizeof(Change))           # (Python has checked it)
    if membership_rows(&next, value.data, value.size) == 0 and head.version == next.version:
        replica_change(g.replica, h.now, &next)
