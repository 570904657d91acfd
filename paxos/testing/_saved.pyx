# cython: language_level=3, overflowcheck=False
"""A core as a row of small numbers, and back.

What the row does not hold (times, the random generator, counters, what the learner asks for) is the same after every
get_core: it cannot make two cores with one row behave differently. Of an Accept that came too early (Replica.late) the row
has nothing: all that follows is that its master sends it again, and the set of messages has it. Numbers of records count
from the last durable one.
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from paxos._membership cimport membership_rows, membership_self, membership_value
from paxos._replica cimport Chunk, Pending, Replica, Slot, slot_free
from paxos._types cimport (
    Ballot, CHUNK_WINDOW, Change, ChunkHead, Membership, Prepare, Value, value_ref, value_unref, xalloc, xzalloc,
)
from paxos.testing._book cimport Book, DEEPEST, NODES, ballot_number, ballot_of, table_number, table_read, value_number


cdef void put64(Tape *t, uint64_t number) noexcept nogil:
    cdef int i
    for i in range(4):
        put(t, (number >> (16 * i)) & 0xFFFF)


cdef uint64_t get64(Tape *t) noexcept nogil:
    cdef uint64_t number = 0
    cdef int i
    for i in range(4):
        number |= <uint64_t>get(t) << (16 * i)
    return number


cdef inline uint64_t _pending_number(const Replica *r, uint64_t record) noexcept nogil:
    """The number of a record, counted from the last durable one; 0: durable."""
    return record - r.durable if record > r.durable else 0


cdef void _put_value(Tape *t, Book *b, const Value *value) noexcept nogil:
    put(t, value_number(b, value) + 1 if value != NULL else 0)


cdef Value *_get_value(Tape *t, Book *b) noexcept nogil:
    cdef uint32_t number = get(t)
    return value_ref(b.copies[number - 1]) if number else NULL


cdef void _put_members(Tape *t, Book *b, const Replica *r) noexcept nogil:
    """The table, what waits for it to change, and the change that waits to be proposed."""
    cdef Value *wanted
    put(t, table_number(b, &r.members))
    put(t, r.owed)
    if r.owed:
        put(t, ballot_number(b, &r.owed_prepare.ballot))
        put(t, r.owed_prepare.first)
        put(t, r.owed_prepare.attempt)
    put(t, r.change_at)
    put(t, r.extending)
    wanted = membership_value(r.wanted) if r.wanted != NULL else NULL
    _put_value(t, b, wanted)
    value_unref(wanted)


cdef void _get_members(Tape *t, Book *b, Replica *r) noexcept nogil:
    cdef Value *wanted
    table_read(b, get(t), &r.members)
    membership_self(r)
    r.owed = get(t)
    memset(&r.owed_prepare, 0, sizeof(Prepare))
    if r.owed:
        r.owed_prepare.ballot = ballot_of(b, get(t))
        r.owed_prepare.first = get(t)
        r.owed_prepare.attempt = get(t)
    r.change_at = get(t)
    r.extending = get(t) != 0
    wanted = _get_value(t, b)
    free(r.wanted)
    r.wanted = NULL
    if wanted != NULL:
        r.wanted = <Membership *>xalloc(sizeof(Membership))
        r.wanted[0] = r.members
        if membership_rows(r.wanted, wanted.data, wanted.size) != 0:
            b.full = True
        r.wanted.version = (<const Change *>wanted.data).version
    value_unref(wanted)


cdef void put_core(Tape *t, Book *b, const Replica *r) noexcept nogil:
    cdef uint32_t i, used = 0
    cdef const Slot *s
    cdef const Pending *p
    cdef const Chunk *c
    _put_members(t, b, r)
    put(t, r.role)
    put(t, ballot_number(b, &r.promised))
    put(t, _pending_number(r, r.promise_record))
    put(t, r.chosen)
    put(t, r.chain & 0xFFFF)
    put(t, r.chain >> 16)
    put(t, r.master)
    put(t, ballot_number(b, &r.master_ballot))
    put(t, r.master_settled)
    put(t, r.master_settled_at)
    put(t, r.promises)
    put(t, r.attempt)
    put(t, r.prepare_from)
    put(t, r.highest_round)
    for i in range(NODES):
        put(t, r.promise_wanted[i])
        put(t, r.promise_got[i])
        put(t, r.origins[i].boot)
        put(t, r.origins[i].high)
        put(t, r.origins[i].bits[0] if r.origins[i].bits != NULL else 0)
    put(t, ballot_number(b, &r.ballot))
    put(t, r.own_from)
    put(t, r.takeover_end)
    put(t, r.next_instance)
    put(t, r.noticed)
    put(t, r.settle_old)
    put(t, r.pending_first)
    put(t, r.pending_end)
    put(t, r.pending_scan)
    for i in range(r.pending_first, r.pending_end):
        p = &r.pending[i]
        put(t, p.state)
        if p.state != 0:
            put(t, ballot_number(b, &p.ballot))
            _put_value(t, b, p.bytes)
    c = r.queue_head
    while c != NULL:
        _put_value(t, b, c.bytes)
        c = c.next
    put(t, 0)
    for i in range(DEEPEST):
        s = &r.slots[i]
        if s.used:
            put(t, i + 1)
            put(t, s.chosen | s.own << 1)
            put(t, s.acks)
            put(t, s.reported)
            put(t, _pending_number(r, s.record))
            put(t, ballot_number(b, &s.ballot))
            _put_value(t, b, s.value)
            put(t, ballot_number(b, &s.report_ballot))
            _put_value(t, b, s.report_value)
    put(t, 0)
    if r.chosen >= DEEPEST or r.next_instance >= DEEPEST or r.pending_end >= DEEPEST:
        t.full = True


cdef void _clear_core(Replica *r) noexcept nogil:
    """As replica_new made it, as far as a small scope can have used it."""
    cdef uint32_t i
    cdef Chunk *c
    for i in range(DEEPEST):
        value_unref(r.slots[i].value)
        value_unref(r.slots[i].report_value)
        value_unref(r.pending[i].bytes)
    memset(r.slots, 0, DEEPEST * sizeof(Slot))
    memset(r.pending, 0, DEEPEST * sizeof(Pending))
    while r.queue_head != NULL:
        c = r.queue_head
        r.queue_head = c.next
        value_unref(c.bytes)
        free(c)
    r.queue_tail = NULL
    r.queue_bytes, r.queue_values = 0, 0


cdef void get_core(Tape *t, Book *b, Replica *r) noexcept nogil:
    cdef uint32_t i, flags
    cdef Slot *s
    cdef Pending *p
    cdef Chunk *c
    cdef ChunkHead head
    cdef Value *value
    _clear_core(r)
    r.now, r.random = NOW, 1
    r.durable = 0
    r.heard_chosen, r.heard_from, r.learning, r.learn_deadline, r.learn_peer, r.diverged = 0, 0, False, 0, 0, False
    r.election_deadline, r.heard_master, r.prepare_sent, r.heartbeat_due = FAR, NOW, NOW, FAR
    r.notice_due, r.expire_due, r.forward_due, r.settle_due, r.down = 0, FAR, FAR, FAR, 0
    r.late, r.late_at = 0, 0
    _get_members(t, b, r)
    r.role = <int>get(t)
    r.promised = ballot_of(b, get(t))
    r.promise_record = get(t)
    r.chosen = get(t)
    r.chain = get(t)
    r.chain |= get(t) << 16
    r.master = get(t)
    r.master_ballot = ballot_of(b, get(t))
    r.master_settled = get(t) != 0
    r.master_settled_at = get(t)
    r.promises = get(t)
    r.attempt = get(t)
    r.prepare_from = get(t)
    r.highest_round = get(t)
    for i in range(NODES):
        # (As if everybody were level: nothing is sent again to who was not, for the set of messages has it.)
        r.heard[i], r.known[i], r.kept[i] = 0, DEEPEST, 0
        r.promise_wanted[i] = get(t)
        r.promise_got[i] = get(t)
        r.origins[i].boot = get(t)
        r.origins[i].high = get(t)
        flags = get(t)
        if r.origins[i].bits == NULL and flags:
            r.origins[i].bits = <uint64_t *>xzalloc(CHUNK_WINDOW // 8)
        if r.origins[i].bits != NULL:
            r.origins[i].bits[0] = flags
    r.ballot = ballot_of(b, get(t))
    r.own_from = get(t)
    r.takeover_end = get(t)
    r.next_instance = get(t)
    r.noticed = get(t)
    r.settle_old = get(t) != 0
    r.pending_first = get(t)
    r.pending_end = get(t)
    r.pending_scan = get(t)
    for i in range(r.pending_first, r.pending_end):
        p = &r.pending[i]
        p.state = <int>get(t)
        if p.state != 0:
            p.seq, p.deadline = i, FAR
            p.ballot = ballot_of(b, get(t))
            p.bytes = _get_value(t, b)
    value = _get_value(t, b)
    while value != NULL:
        memcpy(&head, value.data, sizeof(ChunkHead))
        c = <Chunk *>xalloc(sizeof(Chunk))
        c.origin, c.boot, c.seq, c.count, c.bytes, c.next = head.origin, head.boot, head.seq, value.count, value, NULL
        if r.queue_tail == NULL:
            r.queue_head = c
        else:
            r.queue_tail.next = c
        r.queue_tail = c
        r.queue_bytes += value.size
        r.queue_values += value.count
        value = _get_value(t, b)
    i = get(t)
    while i:
        s = &r.slots[i - 1]
        s.used, s.instance, s.rounds, s.sent = True, i - 1, 1, NOW
        flags = get(t)
        s.chosen, s.own = flags & 1, flags >> 1
        s.acks = get(t)
        s.reported = get(t)
        s.record = get(t)
        s.ballot = ballot_of(b, get(t))
        s.value = _get_value(t, b)
        s.report_ballot = ballot_of(b, get(t))
        s.report_value = _get_value(t, b)
        i = get(t)


cdef void forget_roles(Replica *r) noexcept nogil:
    """Of an idle node: what only candidates, masters and those who have values to hand over look at."""
    cdef uint32_t i
    cdef Slot *s
    r.master, r.master_settled, r.master_settled_at = 0, False, 0
    memset(&r.master_ballot, 0, sizeof(Ballot))
    memset(&r.ballot, 0, sizeof(Ballot))
    r.promises, r.attempt, r.prepare_from, r.highest_round = 0, 0, 0, 0
    r.own_from, r.takeover_end, r.next_instance, r.noticed = 0, 0, 0, 0
    r.settle_old, r.pending_first, r.pending_end, r.pending_scan = False, 1, 1, 1
    r.change_at = 0
    for i in range(NODES):
        r.promise_wanted[i], r.promise_got[i] = 0, 0
    for i in range(DEEPEST):
        s = &r.slots[i]
        value_unref(s.report_value)
        s.report_value = NULL
        memset(&s.report_ballot, 0, sizeof(Ballot))
        s.reported, s.acks, s.own = 0, 0, False
        if s.ballot.round == 0:
            slot_free(s)
