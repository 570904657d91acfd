# cython: language_level=3
"""Membership: who votes, who only learns, and the changes from one set to another (design rules 7, 8 and 10).

The table is replicated state. Each member has a place in it, its index everywhere in the core, for as long as it is one. A change is a
value like any other: the whole table as it is to be. Chosen at instance c it is in force from e = c + alpha (64). Below e the voters of
before count, from e on the new ones, whatever the two sets have in common. One change at a time: until e itself is chosen, another one
is void. What asks for less than a vote (a learner, an address) counts at once.

- Who votes no more after the change goes on voting below e. A member that is removed keeps its place until e is chosen.
- Nobody accepts at e or above who does not know everything below. So when e is chosen a majority of the new voters holds all that the
  old ones have chosen, durably and known as such (the record of the acceptance names the watermark): those who left may be destroyed.
- Who votes newly, be it another incarnation of a member whose disk is lost, does so when its own watermark has reached e: it then
  holds all that is below, and cannot speak of it. Where its promise counts, the candidate's watermark is not below its own, so the
  promise is used for instances from e on only. The incarnation in whose place it comes is not listened to from the moment that the
  change is known; instances below e that still lack a quorum get it from the others.
- A ballot is used at an instance from e on only when a quorum of the new voters has promised it (_election).

A table may be newer than what its node knows chosen: it came with a checkpoint, or with the WELCOME to a new node. What held
below `as_of` it does not tell, so until the watermark is there the node does not vote, and does not stand. (In the log that never lasts: a
record of the watermark stands behind each change.)

A change names the version it was based on, and is void where that is not the present one; so to apply one twice, behind a
checkpoint that knows it already, does no harm.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strcmp, strlen

from paxos._codec cimport members_check, out_effect, rows_check
from paxos._replica cimport Replica
from paxos._types cimport (
    CHUNK_WINDOW, Change, EFFECT_MASTERSHIP, EFFECT_MEMBERSHIP, Effect, MEMBER_LEAVING, MEMBER_VOTER, Member,
    Membership, MembershipHead, MembershipRow, NOWHERE, VALUE_CHANGE, Value, bit, is_majority, value_new, voters_at,
)


cdef bint votes(const Replica *r) noexcept nogil:
    return (not r.outsider and r.chosen >= r.members.since[r.self] and r.chosen >= r.members.as_of
            and (voters_at(&r.members, r.chosen) & bit(r.self)) != 0)


cdef uint32_t electors(const Replica *r) noexcept nogil:
    return (r.members.voters | voters_at(&r.members, r.chosen)) & ~bit(r.self)


cdef uint64_t membership_covers(const Replica *r) noexcept nogil:
    if r.chosen < r.members.in_force:
        return r.members.in_force
    if is_majority(r.members.voters, r.promises | bit(r.self)):
        return 0xFFFFFFFFFFFFFFFF
    return r.members.in_force


cdef bint membership_led(const Replica *r) noexcept nogil:
    # (Below in_force nobody else can be further: what is chosen there is by those who elected this master.)
    return r.chosen < r.members.in_force or (membership_covers(r) > r.chosen and r.chosen >= r.takeover_end)


# ---- the table ----

cdef uint32_t membership_place(const Membership *m, uint32_t node) noexcept nogil:
    cdef uint32_t i
    for i in range(m.count):
        if m.members[i].node == node and node != 0:
            return i
    return NOWHERE


cdef void membership_derive(Membership *m) noexcept nogil:
    cdef uint32_t i
    m.present = 0
    m.voters = 0
    for i in range(m.count):
        if m.members[i].node != 0:
            m.present |= bit(i)
            if m.members[i].role == MEMBER_VOTER:
                m.voters |= bit(i)


cdef void membership_first(Membership *m) noexcept nogil:
    membership_derive(m)
    m.before = m.voters
    m.in_force = 0
    m.as_of = 0


cdef inline bint _same(const Member *a, const Member *b) noexcept nogil:
    return a.node == b.node and a.inc_hi == b.inc_hi and a.inc_lo == b.inc_lo


cdef bint membership_follows(const Membership *m, const Membership *old) noexcept nogil:
    """Nobody loses a place in which he has a vote that still counts, and only such a one leaves; nobody votes before he has said which
    incarnation he is (where the vote of such a one is needed, no change could be chosen that says it)."""
    cdef uint32_t i
    if m.count < old.count:
        return False
    for i in range(m.count):
        if m.voters & bit(i) and m.members[i].inc_hi == 0 and m.members[i].inc_lo == 0:
            return False
        if i < old.count and old.voters & bit(i):
            if m.members[i].node != old.members[i].node:
                return False
            if m.members[i].role == MEMBER_LEAVING and not _same(&m.members[i], &old.members[i]):
                return False
        elif m.members[i].role == MEMBER_LEAVING:
            return False
    return m.voters != 0


cdef void _vacate(Membership *m, uint32_t index) noexcept nogil:
    memset(&m.members[index], 0, sizeof(Member))
    m.since[index] = 0
    m.instead[index] = 0
    memset(m.address[index], 0, sizeof(m.address[index]))


cdef void membership_remove(Membership *m, uint32_t index) noexcept nogil:
    if m.members[index].role == MEMBER_VOTER:
        m.members[index].role = MEMBER_LEAVING
        m.instead[index] = 0
    else:
        _vacate(m, index)
    membership_derive(m)


# ---- changes ----

cdef void _changed(Replica *r, uint32_t index) noexcept nogil:
    cdef Effect *e = out_effect(&r.out, EFFECT_MEMBERSHIP)
    e.code = index
    e.instance = r.members.since[index]


cdef void _replaced(Replica *r, uint32_t index) noexcept nogil:
    """The place belongs to somebody else now, or to nobody: what was said from there is forgotten where it could count again."""
    cdef uint32_t others = ~bit(index)
    r.heard[index] = 0
    r.known[index] = 0
    r.kept[index] = 0
    r.promises &= others
    r.granted &= others
    r.down &= others
    r.owed &= others
    r.late &= others
    r.shunned &= others
    r.expecting &= others
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
    if r.joiner == index + 1:
        r.joiner = 0
    if r.prefer == index + 1:
        r.prefer = 0
    if r.hand_to == index + 1:
        r.hand_until = r.now        # it will not take over


cdef void _take(Replica *r, const Membership *next) noexcept nogil:
    """The table is this one from now on."""
    cdef uint32_t moved = 0, changed = 0
    cdef uint32_t i
    for i in range(max(r.members.count, next.count)):
        if not _same(&r.members.members[i], &next.members[i]):
            moved |= bit(i)
        elif r.members.members[i].role != next.members[i].role or strcmp(r.members.address[i], next.address[i]) != 0:
            changed |= bit(i)
    r.members.count = next.count
    r.members.version = next.version
    r.members.before = next.before
    r.members.in_force = next.in_force
    r.members.as_of = next.as_of
    memcpy(r.members.members, next.members, sizeof(next.members))
    memcpy(r.members.since, next.since, sizeof(next.since))
    memcpy(r.members.instead, next.instead, sizeof(next.instead))
    memcpy(r.members.address, next.address, sizeof(next.address))
    membership_derive(&r.members)
    membership_self(r)
    for i in range(r.members.count):
        if moved & bit(i):
            _replaced(r, i)
        if (moved | changed) & bit(i):
            _changed(r, i)
    if not moved | changed:
        _changed(r, NOWHERE)        # of the version and what is pending the host has to know all the same


cdef void membership_self(Replica *r) noexcept nogil:
    cdef const Member *m
    r.self = membership_place(&r.members, r.options.node)
    m = &r.members.members[r.self]
    r.outsider = r.self == NOWHERE or m.inc_hi != r.inc_hi or m.inc_lo != r.inc_lo
    r.was_member = r.was_member or not r.outsider


cdef void membership_chosen(Replica *r, uint64_t instance, const Value *value) noexcept nogil:
    cdef Change change
    cdef Membership next
    cdef bint others = False
    cdef uint32_t i
    memcpy(&change, value.data, sizeof(Change))
    if change.version != r.members.version or instance < membership_settled(r):
        return
    next = r.members
    if membership_rows(&next, value.data, value.size) != 0 or not membership_follows(&next, &r.members):
        return
    next.version += 1
    next.as_of = instance + 1
    for i in range(next.count):
        if next.members[i].node == 0:
            next.since[i] = 0
        elif not next.voters & bit(i):
            # (Who leaves, or gives up its vote, still has it below e.)
            next.since[i] = r.members.since[i] if _same(&next.members[i], &r.members.members[i]) else instance + r.alpha
        elif r.members.voters & bit(i) and _same(&next.members[i], &r.members.members[i]):
            next.since[i] = r.members.since[i]
        else:
            next.since[i] = instance + r.alpha
            others = True
    if others or next.voters != r.members.voters:
        next.before = r.members.voters
        next.in_force = instance + r.alpha
    _take(r, &next)


cdef void membership_advance(Replica *r) noexcept nogil:
    cdef Membership next
    cdef uint32_t i
    if r.chosen < membership_settled(r) or r.members.before == r.members.voters:
        return
    next = r.members
    next.before = next.voters
    next.as_of = next.in_force + 1
    for i in range(next.count):
        if next.members[i].role == MEMBER_LEAVING:
            _vacate(&next, i)
    membership_derive(&next)
    _take(r, &next)


cdef void membership_install(Replica *r, const Membership *m) noexcept nogil:
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
    if m.version > r.members.version:
        _take(r, m)


cdef uint64_t membership_settled(const Replica *r) noexcept nogil:
    return r.members.in_force + 1 if r.members.in_force else 0


# ---- as bytes ----

cdef size_t _rows_size(const Membership *m) noexcept nogil:
    cdef size_t size = 0
    cdef uint32_t i
    for i in range(m.count):
        size += sizeof(MembershipRow) + strlen(m.address[i])
    return size


cdef void _write_rows(const Membership *m, uint8_t *at) noexcept nogil:
    cdef MembershipRow row
    cdef uint32_t i
    for i in range(m.count):
        memset(&row, 0, sizeof(row))
        row.node = m.members[i].node
        row.role = m.members[i].role
        row.inc_hi = m.members[i].inc_hi
        row.inc_lo = m.members[i].inc_lo
        row.since = m.since[i]
        row.instead = m.instead[i]
        row.address = <uint32_t>strlen(m.address[i])
        memcpy(at, &row, sizeof(row))
        memcpy(at + sizeof(row), m.address[i], row.address)
        at += sizeof(row) + row.address


cdef void _read_rows(Membership *m, const uint8_t *at, uint32_t count) noexcept nogil:
    """They have been checked."""
    cdef MembershipRow row
    cdef uint32_t i
    m.count = count
    memset(m.members, 0, sizeof(m.members))
    memset(m.since, 0, sizeof(m.since))
    memset(m.instead, 0, sizeof(m.instead))
    memset(m.address, 0, sizeof(m.address))
    for i in range(count):
        memcpy(&row, at, sizeof(row))
        m.members[i].node = row.node
        m.members[i].role = row.role
        m.members[i].inc_hi = row.inc_hi
        m.members[i].inc_lo = row.inc_lo
        m.since[i] = row.since
        m.instead[i] = row.instead
        memcpy(m.address[i], at + sizeof(row), row.address)
        at += sizeof(row) + row.address
    membership_derive(m)


cdef Value *membership_value(const Membership *m) noexcept nogil:
    cdef Change change
    cdef Value *value = value_new(VALUE_CHANGE, 0, <uint32_t>(sizeof(Change) + _rows_size(m)))
    change.version = m.version
    change.count = m.count
    memcpy(value.data, &change, sizeof(change))
    _write_rows(m, value.data + sizeof(change))
    return value


cdef int membership_rows(Membership *m, const uint8_t *data, size_t size) noexcept nogil:
    cdef Change change
    if size < sizeof(Change):
        return -1
    memcpy(&change, data, sizeof(Change))
    if rows_check(data + sizeof(Change), size - sizeof(Change), change.count) != 0:
        return -1
    _read_rows(m, data + sizeof(Change), change.count)
    return 0


cdef size_t membership_size(const Membership *m) noexcept nogil:
    return sizeof(MembershipHead) + _rows_size(m)


cdef void membership_write(const Membership *m, uint8_t *out) noexcept nogil:
    cdef MembershipHead head
    memset(&head, 0, sizeof(head))
    head.version = m.version
    head.count = m.count
    head.mastership = m.mastership
    head.mastered = m.mastered
    head.lease = m.lease
    head.in_force = m.in_force
    head.as_of = m.as_of
    head.master = m.master
    head.before = m.before
    memcpy(out, &head, sizeof(head))
    _write_rows(m, out + sizeof(head))


cdef int membership_read(Membership *m, const uint8_t *data, size_t size) noexcept nogil:
    cdef MembershipHead head
    if members_check(data, size) != 0:
        return -1
    memcpy(&head, data, sizeof(head))
    _read_rows(m, data + sizeof(head), head.count)
    m.version = head.version
    m.mastership = head.mastership
    m.mastered = head.mastered
    m.lease = head.lease
    m.in_force = head.in_force
    m.as_of = head.as_of
    m.master = head.master
    m.before = head.before
    return 0
