# cython: language_level=3
"""Membership: a new incarnation in the place of one whose disk is lost (design rules 7, 8 and 10).

Node ids and their number stay; what changes is which incarnation speaks for an id. The change is a value like any other. Chosen
at instance c it is in force from e = c + ALPHA, and e is noted as the `since` of its member:

- The old incarnation is not listened to from the moment that the change is known. Instances below e that still lack a quorum
  get it from the others.
- The new one votes when its own watermark has reached e: it then holds all that is below, and cannot speak of it. Where its
  promise counts, the candidate's watermark is not below its own, so the promise is used for instances from e on only.
- A ballot that the old incarnation has promised has one promise less. A master that has no quorum without it steps down, before
  it has proposed anything at or above e: alpha keeps it from that. Its next ballot is promised by the new membership (rule 8).

A change names the version it was based on and the incarnation it puts aside, and is void where either is not the present one;
so to apply one twice, behind a checkpoint that knows it already, does no harm.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from paxos._codec cimport out_effect
from paxos._replica cimport Replica, member_index
from paxos._types cimport (
    ALPHA, CHUNK_WINDOW, Change, EFFECT_MASTERSHIP, EFFECT_MEMBERSHIP, Effect, LEASE_MAX, MAX_MEMBERS, Member, Membership, MembershipHead, MembershipRow, Value, bit,
)


cdef bint votes(const Replica *r) noexcept nogil:
    return not r.outsider and r.chosen >= r.members.since[r.self]


cdef void _replaced(Replica *r, uint32_t index) noexcept nogil:
    """The member with this index is another incarnation now: what the old one said is forgotten where it could count again."""
    cdef const Member *m = &r.members.members[index]
    cdef Effect *e
    r.heard[index] = 0
    r.promises &= ~bit(index)
    r.granted &= ~bit(index)
    r.answered[index] = 0
    r.granted_until[index] = 0
    r.priority[index] = 0
    r.asked_reads[index].read.token = 0
    r.promise_wanted[index] = 0
    r.promise_got[index] = 0
    r.origins[index].boot = 0       # it counts from 1 again
    r.origins[index].high = 0
    if r.origins[index].bits != NULL:
        memset(r.origins[index].bits, 0, CHUNK_WINDOW // 8)
    if index == r.self:
        r.outsider = m.inc_hi != r.inc_hi or m.inc_lo != r.inc_lo
        r.was_member = r.was_member or not r.outsider
    e = out_effect(&r.out, EFFECT_MEMBERSHIP)
    e.code = index
    e.instance = r.members.since[index]


cdef void membership_chosen(Replica *r, uint64_t instance, const Value *value) noexcept nogil:
    cdef Change change
    cdef Member *m
    cdef int index
    memcpy(&change, value.data, sizeof(Change))
    index = member_index(r, change.node)
    if index < 0 or change.version != r.members.version:
        return
    m = &r.members.members[index]
    if m.inc_hi != change.old_hi or m.inc_lo != change.old_lo:
        return
    m.inc_hi = change.new_hi
    m.inc_lo = change.new_lo
    r.members.version += 1
    r.members.since[index] = instance + ALPHA
    _replaced(r, <uint32_t>index)


cdef void membership_install(Replica *r, const Membership *m) noexcept nogil:
    cdef uint32_t i
    cdef Effect *e
    # Where it comes from more was known than here, or the same.
    if m.mastered > r.members.mastered:
        r.members.mastership = m.mastership
        r.members.mastered = m.mastered
        r.members.lease = m.lease
        r.members.master = m.master
        e = out_effect(&r.out, EFFECT_MASTERSHIP)
        e.code = m.master
        e.instance = m.mastership
        e.end = m.lease
    if m.version <= r.members.version:
        return
    r.members.version = m.version
    for i in range(m.count):
        if (r.members.members[i].inc_hi != m.members[i].inc_hi or r.members.members[i].inc_lo != m.members[i].inc_lo
                or r.members.since[i] != m.since[i]):
            r.members.members[i] = m.members[i]
            r.members.since[i] = m.since[i]
            _replaced(r, i)


cdef uint64_t membership_settled(const Replica *r) noexcept nogil:
    cdef uint64_t last = 0
    cdef uint32_t i
    for i in range(r.members.count):
        if r.members.since[i] > last:
            last = r.members.since[i]
    return last


# ---- as bytes ----

cdef size_t membership_size(const Membership *m) noexcept nogil:
    return sizeof(MembershipHead) + m.count * sizeof(MembershipRow)


cdef void membership_write(const Membership *m, uint8_t *out) noexcept nogil:
    cdef MembershipHead head
    cdef MembershipRow row
    cdef uint32_t i
    memset(&head, 0, sizeof(head))
    head.version = m.version
    head.count = m.count
    head.mastership = m.mastership
    head.mastered = m.mastered
    head.lease = m.lease
    head.master = m.master
    memcpy(out, &head, sizeof(head))
    for i in range(m.count):
        memset(&row, 0, sizeof(row))
        row.node = m.members[i].node
        row.inc_hi = m.members[i].inc_hi
        row.inc_lo = m.members[i].inc_lo
        row.since = m.since[i]
        memcpy(out + sizeof(head) + i * sizeof(row), &row, sizeof(row))


cdef int membership_read(Membership *m, const uint8_t *data, size_t size) noexcept nogil:
    cdef MembershipHead head
    cdef MembershipRow row
    cdef uint32_t i
    if size < sizeof(head):
        return -1
    memcpy(&head, data, sizeof(head))
    if (head.count != m.count or head.count > MAX_MEMBERS or size != sizeof(head) + head.count * sizeof(row)
            or head.zero != 0 or head.lease > LEASE_MAX):
        return -1
    for i in range(head.count):
        memcpy(&row, data + sizeof(head) + i * sizeof(row), sizeof(row))
        if row.node != m.members[i].node or row.zero != 0:
            return -1
        m.members[i].inc_hi = row.inc_hi
        m.members[i].inc_lo = row.inc_lo
        m.since[i] = row.since
    m.version = head.version
    m.mastership = head.mastership
    m.mastered = head.mastered
    m.lease = head.lease
    m.master = head.master
    return 0
