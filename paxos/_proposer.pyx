# cython: language_level=3
"""Proposer: phase 2 for a master, and the way of a proposal there.

A chunk is what one call of propose or propose_many handed in; it is the unit that is queued, forwarded, refused and settled.
Chunks of this node are kept in `pending` until they are seen chosen or their deadline passes:

    QUEUED ---this node is master: packed into an instance---> PROPOSED --+
      | ^                                                                 +--> seen chosen, or settled as unknown
      | +--refused for certain--+                                         |
      +---another is master---> FORWARDED --------------------------------+

Only QUEUED chunks may be refused as certainly not executed: all others have left this node or stand in its log. A forwarded
chunk names the ballot that it is meant for (design rule 6): that master takes it at most once, and a refusal, too, is
remembered, so that a late copy of a refused chunk is not taken after all.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from paxos._changes cimport changes_due, changes_forget, changes_tick
from paxos._codec cimport out_effect, value_head
from paxos._mastership cimport mastership_begin, mastership_tell, mastership_tick, mastership_value
from paxos._membership cimport membership_covers, membership_settled, membership_value
from paxos._replica cimport (
    CHUNK_FORWARDED, CHUNK_FREE, CHUNK_PROPOSED, CHUNK_QUEUED, Chunk, Origin, Pending, ROLE_MASTER, Replica, Slot,
    accept_here, frame_begin, frame_end, member_index, others, patience, pending_at, remote_master, set_master, slot_of, slot_take,
)
from paxos._types cimport (
    Accept, Accepted, Ballot, CHUNK_WINDOW, ChunkHead, EFFECT_SETTLED, Effect, FRAME_ACCEPT, FRAME_FORWARD,
    FRAME_FORWARD_REFUSED, FRAME_HEARTBEAT, Forward, ForwardRefused, Frame, Heartbeat, Membership, RING, SETTLE_NOT_AVAILABLE,
    SETTLE_OVERLOADED, SETTLE_UNKNOWN, VALUE_BATCH, VALUE_NOOP, Value, ballot_compare, bit, is_quorum, life_of, value_new, value_ref,
    value_unref, voters_at, xalloc, xzalloc,
)

cdef enum:
    FORWARD_BYTES = 1048576         # of chunks in one Forward frame, unless a single one is larger
    EXPIRE_EVERY = 10000000         # ns
    NOTICE_DELAY = 1000000          # ns that news of chosen instances may wait for an Accept to ride on


# ---- the queue of a master ----

cdef void _enqueue(Replica *r, uint32_t origin, uint32_t boot, uint64_t seq, Value *bytes) noexcept nogil:
    cdef Chunk *c = <Chunk *>xalloc(sizeof(Chunk))
    c.origin = origin
    c.boot = boot
    c.seq = seq
    c.count = bytes.count
    c.bytes = value_ref(bytes)
    c.next = NULL
    if r.queue_tail == NULL:
        r.queue_head = c
    else:
        r.queue_tail.next = c
    r.queue_tail = c
    r.queue_bytes += bytes.size
    r.queue_values += bytes.count


cdef Chunk *_dequeue(Replica *r) noexcept nogil:
    cdef Chunk *c = r.queue_head
    r.queue_head = c.next
    if r.queue_head == NULL:
        r.queue_tail = NULL
    r.queue_bytes -= c.bytes.size
    r.queue_values -= c.count
    return c


cdef void _drop(Chunk *c) noexcept nogil:
    value_unref(c.bytes)
    free(c)


cdef bint _stale(Replica *r, Chunk *c) noexcept nogil:
    """A chunk of this node that was refused at its deadline must not be proposed any more."""
    cdef Pending *p
    if c.origin != r.options.node or c.boot != r.boot:
        return False
    p = pending_at(r, c.seq)
    return p == NULL or p.state != CHUNK_QUEUED


# ---- proposing ----

cdef void _send_accept(Replica *r, Slot *s, uint32_t to) noexcept nogil:
    cdef Accept *body
    if to == 0:
        return
    # It stands on the ballot, which is durable, not on the own acceptance: it may leave before the own write (rule 1).
    body = <Accept *>frame_begin(r, FRAME_ACCEPT, to, r.promise_record, sizeof(Accept))
    body.ballot = r.ballot
    body.instance = s.instance
    body.own_from = r.own_from
    value_head(&body.value, s.value)
    frame_end(r, s.value)
    s.sent = r.now
    r.noticed = r.chosen
    r.notice_due = 0


cdef inline uint32_t _acceptors(const Replica *r, uint64_t instance) noexcept nogil:
    return voters_at(&r.members, instance) & ~bit(r.self)


cdef void _propose(Replica *r, uint64_t instance, Value *value) noexcept nogil:
    cdef Slot *s = slot_take(r, instance)
    # The Accept before the record: a host that takes effects in order sends before it writes.
    value_ref(value)
    value_unref(s.value)
    s.value = value
    _send_accept(r, s, _acceptors(r, instance))
    accept_here(r, s, &r.ballot, value)
    s.own = True
    s.rounds = 1
    s.sent = r.now
    value_unref(s.report_value)
    s.report_value = NULL
    s.report_ballot.round = 0


cdef void _propose_reported(Replica *r, uint64_t instance) noexcept nogil:
    """Rule 4: the value of the highest ballot among the quorum's reports, the own acceptance being one; else a no-op."""
    cdef Slot *s = slot_of(r, instance)
    cdef Value *value = NULL
    if s != NULL:
        if s.ballot.round != 0:
            value = s.value
        if s.report_value != NULL and (value == NULL or ballot_compare(&s.report_ballot, &s.ballot) > 0):
            value = s.report_value
    value = value_ref(value) if value != NULL else value_new(VALUE_NOOP, 0, 0)
    _propose(r, instance, value)
    value_unref(value)


cdef void _propose_batch(Replica *r) noexcept nogil:
    """Packs what waits into the next instance."""
    cdef Chunk *c
    cdef Chunk *last
    cdef Value *value
    cdef Pending *p
    cdef uint64_t size = 0, count = 0, at = 0
    cdef Chunk *picked = NULL
    cdef Chunk *tail = NULL
    while r.queue_head != NULL:
        c = r.queue_head
        if _stale(r, c):
            _drop(_dequeue(r))
            continue
        if picked != NULL and (size + c.bytes.size > r.options.batch_bytes or count + c.count > r.options.batch_values):
            break
        _dequeue(r)
        size += c.bytes.size
        count += c.count
        c.next = NULL
        if tail == NULL:
            picked = c
        else:
            tail.next = c
        tail = c
    if picked == NULL:
        return
    if picked.next == NULL:
        value = value_ref(picked.bytes)         # one chunk is a batch by itself: no copy
    else:
        value = value_new(VALUE_BATCH, <uint32_t>count, <uint32_t>size)
    c = picked
    while c != NULL:
        if picked.next != NULL:
            memcpy(value.data + at, c.bytes.data, c.bytes.size)
            at += c.bytes.size
        if c.origin == r.options.node and c.boot == r.boot:
            p = pending_at(r, c.seq)
            p.state = CHUNK_PROPOSED
            p.ballot = r.ballot
        c = c.next
    while picked != NULL:
        last = picked
        picked = picked.next
        _drop(last)
    _propose(r, r.next_instance, value)
    value_unref(value)
    r.next_instance += 1


cdef void proposer_elected(Replica *r) noexcept nogil:
    cdef uint64_t i
    cdef Slot *s
    cdef Pending *p
    r.role = ROLE_MASTER
    r.elected_at = r.now
    r.own_from = r.chosen
    r.next_instance = r.chosen
    r.takeover_end = r.chosen
    r.change_at = 0
    r.joiner = 0
    r.extending = False
    mastership_begin(r)
    for i in range(r.chosen, r.chosen + RING):
        s = slot_of(r, i)
        if s != NULL:
            s.own = False
            s.chosen = False
            if s.ballot.round != 0 or s.report_value != NULL:
                r.takeover_end = i + 1
    for i in range(r.members.count):
        if r.origins[i].bits != NULL:
            memset(r.origins[i].bits, 0, CHUNK_WINDOW // 8)
        r.origins[i].high = 0
        r.heard[i] = r.now                      # a grace of one period to be heard from
    r.heartbeat_due = r.now
    set_master(r, r.options.node, &r.ballot, False)
    for i in range(r.pending_first, r.pending_end):
        p = pending_at(r, i)
        if p != NULL and p.state == CHUNK_QUEUED:
            _enqueue(r, r.options.node, r.boot, i, p.bytes)
    r.pending_scan = r.pending_end


cdef void _propose_change(Replica *r) noexcept nogil:
    cdef Membership next
    cdef Value *value
    if changes_due(r, &next):
        value = membership_value(&next)
        _propose(r, r.next_instance, value)
        value_unref(value)
        r.next_instance += 1
        r.change_at = r.next_instance


cdef void _propose_waiting(Replica *r) noexcept nogil:
    """Take-over values, then one that says who is master now, then batches; never at or above chosen + alpha (design rule 7)."""
    cdef Value *value
    cdef uint64_t end = min(r.chosen + r.alpha, membership_covers(r))
    while r.next_instance <= r.takeover_end and r.next_instance < end:
        if r.next_instance < r.takeover_end:
            _propose_reported(r, r.next_instance)
        else:
            value = mastership_value(r, True, 0)
            _propose(r, r.next_instance, value)
            value_unref(value)
        r.next_instance += 1
    if r.next_instance <= r.takeover_end or r.hand_to != 0:
        return
    if r.next_instance == r.members.in_force and r.next_instance < end:
        # The last that those hear who leave: from here on nothing is sent to them.
        proposer_heartbeat(r, others(r) & ~r.members.voters, False)
    # First of all that is new: behind values it could wait for ever, where the window is always full.
    end = min(end, r.chosen + r.options.window)
    if (r.wanted != NULL or r.joiner) and r.next_instance < end:
        _propose_change(r)
    if r.lease_wanted and r.master_settled and r.next_instance < end:
        value = mastership_value(r, False, r.lease_wanted - 1)
        _propose(r, r.next_instance, value)
        value_unref(value)
        r.next_instance += 1
        r.lease_wanted = 0
    while r.queue_head != NULL and not r.throttled and r.next_instance < end:
        _propose_batch(r)
    # An idle group is carried on to where the newest change of its membership is in force (rule 7).
    while r.next_instance < membership_settled(r) and r.next_instance < end:
        value = value_new(VALUE_NOOP, 0, 0)
        _propose(r, r.next_instance, value)
        value_unref(value)
        r.next_instance += 1


cdef void _count(Replica *r, Slot *s, uint32_t index) noexcept nogil:
    s.acks |= bit(index)
    if not s.chosen and is_quorum(&r.members, s.instance, s.acks):
        s.chosen = True


cdef void proposer_accepted(Replica *r, uint32_t index, const Accepted *body) noexcept nogil:
    cdef uint64_t i
    cdef Slot *s
    if r.role != ROLE_MASTER or ballot_compare(&body.ballot, &r.ballot) != 0:
        return
    i = body.first if body.first > r.chosen else r.chosen
    while i <= body.last and i < r.next_instance:
        s = slot_of(r, i)
        if s != NULL and s.own:
            _count(r, s, index)
        i += 1


cdef void proposer_durable(Replica *r) noexcept nogil:
    cdef uint64_t i
    cdef Slot *s
    if r.role != ROLE_MASTER:
        return
    for i in range(r.chosen, r.next_instance):
        s = slot_of(r, i)
        if s != NULL and s.own and s.record <= r.durable:
            _count(r, s, r.self)


cdef void proposer_resend(Replica *r, uint32_t to, int64_t age) noexcept nogil:
    cdef uint64_t i
    cdef uint32_t missing
    cdef Slot *s
    for i in range(r.chosen, r.next_instance):
        s = slot_of(r, i)
        if s == NULL or not s.own or s.chosen:
            continue
        missing = to & _acceptors(r, i) & ~s.acks
        if missing != 0 and (age == 0 or r.now - s.sent >= age + patience(s.value.size)):
            _send_accept(r, s, missing)
            s.rounds += 1


cdef void proposer_heartbeat(Replica *r, uint32_t to, bint wants_reply) noexcept nogil:
    cdef Heartbeat *body
    if wants_reply:
        r.round = max(<uint64_t>r.now, r.round + 1)
    if to == 0:
        return
    body = <Heartbeat *>frame_begin(r, FRAME_HEARTBEAT, to, r.promise_record, sizeof(Heartbeat))
    body.ballot = r.ballot
    body.own_from = r.own_from
    body.settled = r.takeover_end + 1 if r.master_settled else 0
    if wants_reply:
        body.sent_at = r.round
    frame_end(r, NULL)


cdef void proposer_step_down(Replica *r) noexcept nogil:
    """Forgets the queue: own chunks stay pending as QUEUED, those of others are handed back as certainly not proposed."""
    cdef uint64_t i
    cdef Slot *s
    cdef Chunk *c
    cdef ForwardRefused *body
    cdef int index
    for i in range(r.chosen, r.chosen + RING):
        s = slot_of(r, i)
        if s != NULL:
            s.own = False
            s.chosen = False
            s.acks = 0
    while r.queue_head != NULL:
        c = _dequeue(r)
        index = member_index(r, c.origin)
        if c.origin != r.options.node and index >= 0:
            body = <ForwardRefused *>frame_begin(r, FRAME_FORWARD_REFUSED, bit(<uint32_t>index), 0,
                                                 sizeof(ForwardRefused) + 8)
            body.ballot = r.ballot
            body.boot = c.boot
            body.life = (<const ChunkHead *>c.bytes.data).life
            body.reason = SETTLE_NOT_AVAILABLE
            body.count = 1
            memcpy(<uint8_t *>body + sizeof(ForwardRefused), &c.seq, 8)
            frame_end(r, NULL)
        _drop(c)
    r.pending_scan = r.pending_first
    r.extending = False
    changes_forget(r)


# ---- chunks of this node ----

cdef void proposer_submit(Replica *r, uint64_t seq, Value *chunk, int64_t deadline) noexcept nogil:
    cdef Pending *p = &r.pending[seq % CHUNK_WINDOW]
    p.seq = seq
    p.state = CHUNK_QUEUED
    p.deadline = deadline
    memset(&p.ballot, 0, sizeof(Ballot))
    p.bytes = chunk
    p.chosen = 0
    r.pending_end = seq + 1
    if r.role == ROLE_MASTER:
        _enqueue(r, r.options.node, r.boot, seq, chunk)
        if r.pending_scan == seq:
            r.pending_scan = seq + 1
    if r.expire_due == 0:
        r.expire_due = r.now + EXPIRE_EVERY


cdef void _settle(Replica *r, Pending *p, uint32_t code) noexcept nogil:
    cdef Effect *e = out_effect(&r.out, EFFECT_SETTLED)
    e.instance = p.seq
    e.code = code
    value_unref(p.bytes)
    p.bytes = NULL
    p.state = CHUNK_FREE


cdef uint64_t _forward(Replica *r, uint64_t first, uint64_t end, int state) noexcept nogil:
    """Sends the chunks in [first, end) that are in `state` and meant for the present master, in frames of some size. How many
    bytes."""
    cdef uint64_t i = first, size, count, from_seq, sent = 0
    cdef Pending *p
    cdef Forward *body
    cdef uint8_t *at
    cdef int index = member_index(r, r.master)
    cdef int same
    while i < end:
        size = 0
        count = 0
        from_seq = i
        while i < end:
            p = pending_at(r, i)
            if p != NULL and p.state == state:
                same = ballot_compare(&p.ballot, &r.master_ballot) == 0
                # QUEUED under this very ballot: its master refused it, and would take a second copy for a duplicate.
                if same == (state == CHUNK_FORWARDED):
                    if count != 0 and size + p.bytes.size > FORWARD_BYTES:
                        break
                    size += p.bytes.size
                    count += 1
            i += 1
        if count == 0:
            break
        sent += size
        body = <Forward *>frame_begin(r, FRAME_FORWARD, bit(<uint32_t>index), 0, sizeof(Forward) + size)
        body.ballot = r.master_ballot
        body.boot = r.boot
        body.count = <uint32_t>count
        at = <uint8_t *>body + sizeof(Forward)
        while count != 0:
            p = pending_at(r, from_seq)
            if p != NULL and p.state == state:
                same = ballot_compare(&p.ballot, &r.master_ballot) == 0
                if same == (state == CHUNK_FORWARDED):
                    memcpy(at, p.bytes.data, p.bytes.size)
                    at += p.bytes.size
                    p.state = CHUNK_FORWARDED
                    p.ballot = r.master_ballot
                    count -= 1
            from_seq += 1
        frame_end(r, NULL)
    return sent


cdef void proposer_forward_again(Replica *r) noexcept nogil:
    if remote_master(r) >= 0:
        r.forward_due = r.now + r.options.resend * 4 + patience(
            _forward(r, r.pending_first, r.pending_end, CHUNK_FORWARDED))


cdef void proposer_pump(Replica *r) noexcept nogil:
    cdef uint64_t sent
    while r.pending_first < r.pending_end and pending_at(r, r.pending_first) == NULL:
        r.pending_first += 1
    if r.pending_scan < r.pending_first:
        r.pending_scan = r.pending_first
    if r.role == ROLE_MASTER:
        _propose_waiting(r)
        if r.hand_to != 0 and not r.handed and r.chosen == r.next_instance:
            mastership_tell(r)
        if r.noticed < r.chosen and r.notice_due == 0:
            r.notice_due = r.now + NOTICE_DELAY
        if r.notice_due != 0 and r.now >= r.notice_due:
            proposer_heartbeat(r, others(r), False)
            r.noticed = r.chosen
            r.notice_due = 0
    elif remote_master(r) >= 0 and r.pending_scan < r.pending_end:
        # (What cannot reach him had better stay here, where it is certainly not executed.)
        sent = _forward(r, r.pending_scan, r.pending_end, CHUNK_QUEUED)
        r.pending_scan = r.pending_end
        if r.forward_due == 0:
            r.forward_due = r.now + r.options.resend * 4
        r.forward_due += patience(sent)


cdef void _expire(Replica *r) noexcept nogil:
    cdef uint64_t i
    cdef Pending *p
    for i in range(r.pending_first, r.pending_end):
        p = pending_at(r, i)
        if p != NULL and r.now >= p.deadline:
            _settle(r, p, SETTLE_NOT_AVAILABLE if p.state == CHUNK_QUEUED else SETTLE_UNKNOWN)


cdef bint _there(const Replica *r, uint32_t node) noexcept nogil:
    cdef int index = member_index(r, node)
    return index >= 0 and <uint32_t>index != r.self and not r.down & bit(<uint32_t>index)


cdef void proposer_settle_old(Replica *r, bint wait) noexcept nogil:
    """What was forwarded or proposed under an older ballot and survives stands below the take-over's end. The rest will
    probably never be chosen, but may (an acceptor outside the quorum can hold it): unknown, told soon and not at the deadline.

    A master that handed over has had everything chosen that it took, and refuses the rest. While it is there that is waited for."""
    cdef uint64_t i
    cdef Pending *p
    r.settle_due = 0
    for i in range(r.pending_first, r.pending_end):
        p = pending_at(r, i)
        if p == NULL or p.state == CHUNK_QUEUED or ballot_compare(&p.ballot, &r.master_ballot) >= 0:
            continue
        if wait and p.state == CHUNK_FORWARDED and _there(r, p.ballot.node):
            r.settle_due = r.now + r.options.election_min
        else:
            _settle(r, p, SETTLE_UNKNOWN)


cdef void proposer_tick(Replica *r) noexcept nogil:
    if r.expire_due != 0 and r.now >= r.expire_due:
        _expire(r)
        r.expire_due = r.now + EXPIRE_EVERY if r.pending_first < r.pending_end else 0
    if r.settle_due != 0 and r.now >= r.settle_due:
        proposer_settle_old(r, False)
    if r.forward_due != 0 and r.now >= r.forward_due:
        r.forward_due = 0
        if r.pending_first < r.pending_end:
            proposer_forward_again(r)
    if r.role == ROLE_MASTER and r.now >= r.heartbeat_due:
        proposer_resend(r, others(r), r.options.resend)
        proposer_heartbeat(r, others(r), True)
        r.noticed = r.chosen
        r.notice_due = 0
        r.heartbeat_due = r.now + r.options.heartbeat
        mastership_tick(r)
        changes_tick(r)


cdef int64_t proposer_deadline(Replica *r) noexcept nogil:
    cdef int64_t due = 0x7FFFFFFFFFFFFFFF
    if r.expire_due != 0:
        due = r.expire_due
    if r.forward_due != 0 and r.forward_due < due:
        due = r.forward_due
    if r.settle_due != 0 and r.settle_due < due:
        due = r.settle_due
    if r.role == ROLE_MASTER:
        if r.heartbeat_due < due:
            due = r.heartbeat_due
        if r.notice_due != 0 and r.notice_due < due:
            due = r.notice_due
        if r.hand_to != 0 and r.hand_until < due:
            due = r.hand_until
    return due


# ---- chunks of others ----

cdef bint _take(Replica *r, Origin *o, uint64_t seq) noexcept nogil:
    """Marks a chunk as seen under the own ballot. False: it was seen before, or is too old to tell."""
    cdef uint64_t i, gap
    if o.bits == NULL:
        o.bits = <uint64_t *>xzalloc(CHUNK_WINDOW // 8)
    if seq > o.high:
        gap = seq - o.high
        if gap >= CHUNK_WINDOW:
            memset(o.bits, 0, CHUNK_WINDOW // 8)
        else:
            for i in range(o.high + 1, seq + 1):
                o.bits[(i % CHUNK_WINDOW) // 64] &= ~(<uint64_t>1 << (i % 64))
        o.high = seq
    elif o.high - seq >= CHUNK_WINDOW:
        return False
    i = <uint64_t>1 << (seq % 64)
    if o.bits[(seq % CHUNK_WINDOW) // 64] & i:
        return False
    o.bits[(seq % CHUNK_WINDOW) // 64] |= i
    return True


cdef void proposer_forwarded(Replica *r, uint32_t index, const Frame *frame) noexcept nogil:
    cdef const uint8_t *data = <const uint8_t *>frame + sizeof(Frame)
    cdef Forward body
    cdef ChunkHead head
    cdef size_t at = sizeof(Forward), end = frame.length - sizeof(Frame)
    cdef Origin *o = &r.origins[index]
    cdef ForwardRefused *refusal
    cdef uint64_t *refused
    cdef uint32_t count = 0, reason
    cdef Value *bytes
    memcpy(&body, data, sizeof(Forward))
    # Meant for another ballot than the last own one: whether a first copy of it was taken cannot be told, so say nothing.
    if ballot_compare(&body.ballot, &r.ballot) != 0 or r.ballot.round == 0 or body.boot < o.boot:
        return
    if body.boot > o.boot:
        o.boot = body.boot
        o.high = 0
        if o.bits != NULL:
            memset(o.bits, 0, CHUNK_WINDOW // 8)
    refused = <uint64_t *>xalloc(body.count * <size_t>8)
    reason = SETTLE_OVERLOADED if r.role == ROLE_MASTER else SETTLE_NOT_AVAILABLE
    while at < end:
        memcpy(&head, data + at, sizeof(ChunkHead))
        if head.origin != frame.sender or head.boot != body.boot or head.life != life_of(frame.inc_lo):
            r.counters.refused_frames += 1
            break
        if _take(r, o, head.seq):
            if r.role == ROLE_MASTER and r.queue_bytes + head.size <= r.options.queue_bytes:
                bytes = value_new(VALUE_BATCH, head.count, <uint32_t>sizeof(ChunkHead) + head.size)
                memcpy(bytes.data, data + at, sizeof(ChunkHead) + head.size)
                _enqueue(r, head.origin, head.boot, head.seq, bytes)
                value_unref(bytes)
            else:
                refused[count] = head.seq
                count += 1
        at += sizeof(ChunkHead) + head.size
    if count != 0:
        refusal = <ForwardRefused *>frame_begin(r, FRAME_FORWARD_REFUSED, bit(index), 0,
                                                sizeof(ForwardRefused) + count * <size_t>8)
        refusal.ballot = r.ballot
        refusal.boot = body.boot
        refusal.life = life_of(frame.inc_lo)
        refusal.reason = reason
        refusal.count = count
        memcpy(<uint8_t *>refusal + sizeof(ForwardRefused), refused, count * <size_t>8)
        frame_end(r, NULL)
    free(refused)


cdef void proposer_forward_refused(Replica *r, const Frame *frame) noexcept nogil:
    cdef const uint8_t *data = <const uint8_t *>frame + sizeof(Frame)
    cdef ForwardRefused body
    cdef uint64_t seq
    cdef uint32_t i
    cdef Pending *p
    memcpy(&body, data, sizeof(ForwardRefused))
    if body.boot != r.boot or body.life != life_of(r.inc_lo):
        return
    for i in range(body.count):
        memcpy(&seq, data + sizeof(ForwardRefused) + i * <size_t>8, 8)
        p = pending_at(r, seq)
        if p == NULL or p.state != CHUNK_FORWARDED or ballot_compare(&p.ballot, &body.ballot) != 0:
            continue
        if body.reason == SETTLE_OVERLOADED:
            _settle(r, p, SETTLE_OVERLOADED)
        else:
            p.state = CHUNK_QUEUED          # certain: it may go to the next master
            if seq < r.pending_scan:
                r.pending_scan = seq
            if r.role == ROLE_MASTER:
                _enqueue(r, r.options.node, r.boot, seq, p.bytes)
