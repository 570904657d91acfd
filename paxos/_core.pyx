# cython: language_level=3
"""The door to the core: the replica of one group as a step function, and what Python sees of it.

Every step works on one event and ends in _finish, which is where the roles meet: a won election makes the proposer take over,
chosen slots move the watermark, what is missing is asked for. No role calls another. Nothing here blocks, reads a clock,
allocates without a bound, or touches a socket or file: the host does, on the effects in replica.out.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from paxos._acceptor cimport acceptor_accept, acceptor_prepare
from paxos._codec cimport FRAME_OK, frame_check, out_clear, out_free, value_check, value_copy
from paxos._election cimport (
    election_has_quorum, election_master_heard, election_master_lost, election_prevote, election_prevote_reply,
    election_promise, election_promise_value, election_report_arriving, election_start, election_tick, election_won,
)
from paxos._learner cimport (
    learner_accept_arriving, learner_advance, learner_ask, learner_base, learner_heard, learner_install, learner_kept,
    learner_known, learner_learned, learner_learned_arriving, learner_notice, learner_restore, learner_restore_base,
    learner_restore_value, learner_serve, learner_tick,
)
from paxos._proposer cimport (
    proposer_accepted, proposer_deadline, proposer_durable, proposer_elected, proposer_forward_again,
    proposer_forward_refused, proposer_forwarded, proposer_heartbeat, proposer_pump, proposer_replace, proposer_resend,
    proposer_settle_old,
    proposer_step_down, proposer_submit, proposer_tick,
)
from paxos._replica cimport (
    Chunk, Options, Origin, Pending, ROLE_FOLLOWER, ROLE_MASTER, ROLE_PREPARING, Replica, Slot, frame_begin, frame_end, in_ring,
    member_index, record_add, send_reject, set_master, slot_free, slot_of, slot_take,
)
from paxos._types cimport (
    ALPHA, Accept, Accepted, Ballot, CHUNK_WINDOW, ChunkHead, EFFECT_BEHIND, EFFECT_CHOSEN, EFFECT_DIVERGED, EFFECT_FORMED, EFFECT_INSTALLED,
    EFFECT_LOG, EFFECT_MASTER, EFFECT_MEMBERSHIP, EFFECT_READ, EFFECT_SEND, EFFECT_SETTLED, Effect, FRAME_ACCEPT, FRAME_ACCEPTED, FRAME_FORWARD, FRAME_FORWARD_REFUSED,
    FRAME_HEARTBEAT, FRAME_HEARTBEAT_REPLY, FRAME_KEPT, FRAME_LEARN, FRAME_LEARNED, FRAME_PREPARE, FRAME_PREVOTE, FRAME_PREVOTE_REPLY,
    FRAME_PROMISE, FRAME_PROMISE_VALUE, FRAME_REJECT, Frame, Heartbeat, HeartbeatReply, Kept, Learn, Learned, MAX_MEMBERS, Membership, Outbox,
    Prepare, Prevote, PrevoteReply, Promise, PromiseValue, RECORD_ACCEPT, RECORD_BASE, RECORD_LEARN, RECORD_PROMISE, RECORD_WATERMARK,
    RING, RecordAccept, RecordLearn, RecordPromise, RecordWatermark, Reject, VALUE_BATCH, Value, ValueHead, ballot_compare, bit, is_quorum,
    life_of, value_new, value_ref, value_unref, xzalloc,
)


# ---- life ----

cdef Replica *replica_new(const Options *options, const Membership *members, uint64_t signature, uint64_t inc_hi,
                          uint64_t inc_lo, uint32_t boot, uint64_t seed) noexcept nogil:
    cdef Replica *r = <Replica *>xzalloc(sizeof(Replica))
    cdef uint32_t n = members.count
    r.options = options[0]
    r.members = members[0]
    r.self = <uint32_t>member_index(r, options.node)
    r.signature = signature
    r.inc_hi = inc_hi
    r.inc_lo = inc_lo
    r.boot = boot
    r.outsider = r.members.members[r.self].inc_hi != inc_hi or r.members.members[r.self].inc_lo != inc_lo
    r.was_member = not r.outsider
    r.may_lead = True
    r.random = seed if seed != 0 else 0x9E3779B97F4A7C15
    r.slots = <Slot *>xzalloc(RING * sizeof(Slot))
    r.pending = <Pending *>xzalloc(CHUNK_WINDOW * sizeof(Pending))
    r.pending_first = 1
    r.pending_end = 1
    r.pending_scan = 1
    r.heard = <int64_t *>xzalloc(n * sizeof(int64_t))
    r.known = <uint64_t *>xzalloc(n * sizeof(uint64_t))
    r.kept = <uint64_t *>xzalloc(n * sizeof(uint64_t))
    r.promise_wanted = <uint32_t *>xzalloc(n * sizeof(uint32_t))
    r.promise_got = <uint32_t *>xzalloc(n * sizeof(uint32_t))
    r.origins = <Origin *>xzalloc(n * sizeof(Origin))
    return r


cdef void replica_free(Replica *r) noexcept nogil:
    cdef uint64_t i
    cdef Chunk *c
    if r == NULL:
        return
    for i in range(RING):
        slot_free(&r.slots[i])
    for i in range(r.pending_first, r.pending_end):
        value_unref(r.pending[i % CHUNK_WINDOW].bytes)
    while r.queue_head != NULL:
        c = r.queue_head
        r.queue_head = c.next
        value_unref(c.bytes)
        free(c)
    for i in range(r.members.count):
        free(r.origins[i].bits)
    out_free(&r.out)
    free(r.slots)
    free(r.pending)
    free(r.heard)
    free(r.known)
    free(r.kept)
    free(r.promise_wanted)
    free(r.promise_got)
    free(r.origins)
    free(r)


# ---- where the roles meet ----

cdef void _step_down(Replica *r) noexcept nogil:
    cdef Ballot none
    cdef bint was_master = r.role == ROLE_MASTER
    r.role = ROLE_FOLLOWER
    if was_master:
        proposer_step_down(r)
        memset(&none, 0, sizeof(Ballot))
        set_master(r, 0, &none, False)


cdef void _follow(Replica *r, const Ballot *ballot, bint settled) noexcept nogil:
    """A message of the master of a ballot not below the promise."""
    cdef bint changed = ballot_compare(&r.master_ballot, ballot) != 0 or r.master != ballot.node
    if r.role != ROLE_FOLLOWER:
        _step_down(r)
    if changed:
        r.pending_scan = r.pending_first    # what an older master refused may go to this one
        r.settle_old = True
    set_master(r, ballot.node, ballot, settled or (r.master_settled and not changed))
    election_master_heard(r, ballot)


cdef void _finish(Replica *r) noexcept nogil:
    learner_advance(r)
    # Who was replaced stands for nothing any more. A ballot that lacks the promise of a quorum without an incarnation that
    # was replaced must not be used where the new one counts (rule 8); alpha has kept it from that so far.
    if r.role != ROLE_FOLLOWER and (r.outsider or (r.role == ROLE_MASTER and not is_quorum(&r.members, r.promises | bit(r.self)))):
        _step_down(r)
        r.election_deadline = r.now + r.options.heartbeat
    if r.role == ROLE_MASTER:
        if r.next_instance < r.chosen:
            r.next_instance = r.chosen      # others knew more chosen than the quorum that promised
            if r.takeover_end < r.chosen:
                r.takeover_end = r.chosen
        # Strictly above own_from: an instance proposed under the own ballot is chosen, not only fetched from others.
        if r.chosen > r.takeover_end and r.chosen > r.own_from and not r.master_settled:
            set_master(r, r.options.node, &r.ballot, True)
            r.master_settled_at = r.takeover_end + 1
            proposer_heartbeat(r, (bit(r.members.count) - 1) & ~bit(r.self), True)
    learner_ask(r)
    if election_won(r):
        proposer_elected(r)
        r.settle_old = True
    if r.settle_old and r.master_settled and r.chosen >= r.master_settled_at:
        r.settle_old = False
        proposer_settle_old(r)


# ---- steps ----

cdef void replica_start(Replica *r, int64_t now) noexcept nogil:
    r.now = now
    r.highest_round = r.promised.round
    election_start(r)


cdef void _receive_accept(Replica *r, uint32_t index, const Frame *frame, const uint8_t *data) noexcept nogil:
    cdef const Accept *body = <const Accept *>data
    cdef Value *value
    # A proposer speaks under its own ballots only.
    if body.ballot.node != frame.sender or body.ballot.inc_hi != frame.inc_hi or body.ballot.inc_lo != frame.inc_lo:
        r.counters.refused_frames += 1
        return
    value = value_copy(&body.value, data + sizeof(Accept))
    if acceptor_accept(r, index, body, value):
        _follow(r, &body.ballot, False)
        learner_notice(r, &body.ballot, body.own_from, frame.chosen)
    value_unref(value)


cdef void _receive_heartbeat(Replica *r, uint32_t index, const Frame *frame, const Heartbeat *body) noexcept nogil:
    cdef HeartbeatReply *reply
    if body.ballot.node != frame.sender or body.ballot.inc_hi != frame.inc_hi or body.ballot.inc_lo != frame.inc_lo:
        r.counters.refused_frames += 1
        return
    if ballot_compare(&body.ballot, &r.promised) < 0:
        send_reject(r, index, &body.ballot)
        return
    _follow(r, &body.ballot, body.settled != 0)
    if body.settled != 0:
        r.master_settled_at = body.settled
    learner_notice(r, &body.ballot, body.own_from, frame.chosen)
    if body.sent_at != 0:
        reply = <HeartbeatReply *>frame_begin(r, FRAME_HEARTBEAT_REPLY, bit(index), 0, sizeof(HeartbeatReply))
        reply.ballot = body.ballot
        reply.sent_at = body.sent_at
        frame_end(r, NULL)


cdef void _receive_reject(Replica *r, const Reject *body) noexcept nogil:
    if body.promised.round > r.highest_round:
        r.highest_round = body.promised.round
    if r.role >= ROLE_PREPARING and ballot_compare(&body.ballot, &r.ballot) == 0:
        _step_down(r)


cdef void replica_receive(Replica *r, int64_t now, const Frame *frame) noexcept nogil:
    cdef const uint8_t *data = <const uint8_t *>frame + sizeof(Frame)
    cdef int member = member_index(r, frame.sender)
    cdef uint32_t index
    cdef Value *value
    cdef const Prepare *prepare
    r.now = now
    if member < 0 or <uint32_t>member == r.self:
        r.counters.refused_frames += 1
        return
    index = <uint32_t>member
    if frame.inc_hi == r.members.members[index].inc_hi and frame.inc_lo == r.members.members[index].inc_lo:
        r.heard[index] = now
        r.down &= ~bit(index)
    elif frame.type != FRAME_LEARN and frame.type != FRAME_LEARNED and frame.type != FRAME_KEPT:
        # No member, as far as is known here: it has no say (rule 10). But what it knows chosen is chosen, and can be asked for:
        # perhaps it is this node that does not know the members yet.
        r.counters.refused_frames += 1
        learner_heard(r, index, frame)
        _finish(r)
        return
    if frame.type == FRAME_ACCEPT:
        _receive_accept(r, index, frame, data)
    elif frame.type == FRAME_ACCEPTED:
        proposer_accepted(r, index, <const Accepted *>data)
    elif frame.type == FRAME_HEARTBEAT:
        _receive_heartbeat(r, index, frame, <const Heartbeat *>data)
    elif frame.type == FRAME_FORWARD:
        proposer_forwarded(r, index, frame)
    elif frame.type == FRAME_FORWARD_REFUSED:
        proposer_forward_refused(r, frame)
    elif frame.type == FRAME_LEARN:
        learner_serve(r, index, <const Learn *>data)
    elif frame.type == FRAME_LEARNED:
        learner_learned(r, frame)
    elif frame.type == FRAME_KEPT:
        learner_kept(r, index, <const Kept *>data)
    elif frame.type == FRAME_PREVOTE:
        election_prevote(r, index, frame, <const Prevote *>data)
        if r.role == ROLE_MASTER:
            proposer_heartbeat(r, bit(index), False)        # it has not heard of this master, or not lately
    elif frame.type == FRAME_PREVOTE_REPLY:
        election_prevote_reply(r, index, <const PrevoteReply *>data)
    elif frame.type == FRAME_PREPARE:
        prepare = <const Prepare *>data
        if prepare.ballot.node != frame.sender or prepare.ballot.inc_hi != frame.inc_hi or prepare.ballot.inc_lo != frame.inc_lo:
            r.counters.refused_frames += 1
            return
        if ballot_compare(&prepare.ballot, &r.promised) > 0:
            _step_down(r)
            r.election_deadline = now + r.options.election_max      # the candidate gets its time
        acceptor_prepare(r, index, prepare)
    elif frame.type == FRAME_PROMISE_VALUE:
        value = value_copy(&(<const PromiseValue *>data).value, data + sizeof(PromiseValue))
        election_promise_value(r, index, <const PromiseValue *>data, value)
        value_unref(value)
    elif frame.type == FRAME_PROMISE:
        election_promise(r, index, frame, <const Promise *>data)
    elif frame.type == FRAME_REJECT:
        _receive_reject(r, <const Reject *>data)
    learner_heard(r, index, frame)
    _finish(r)


cdef void replica_arriving(Replica *r, int64_t now, const Frame *frame) noexcept nogil:
    cdef const uint8_t *data = <const uint8_t *>frame + sizeof(Frame)
    cdef int member = member_index(r, frame.sender)
    r.now = now
    if member < 0 or <uint32_t>member == r.self:
        return
    if frame.type == FRAME_LEARNED:
        learner_learned_arriving(r, <uint32_t>member, frame.length)
    elif frame.inc_hi != r.members.members[member].inc_hi or frame.inc_lo != r.members.members[member].inc_lo:
        return                      # it will have no say
    elif frame.type == FRAME_ACCEPT:
        learner_accept_arriving(r, <uint32_t>member, (<const Accept *>data).instance, frame.length)
    elif frame.type == FRAME_PROMISE_VALUE:
        election_report_arriving(r, &(<const PromiseValue *>data).ballot, frame.length)


cdef void replica_submit(Replica *r, int64_t now, uint64_t seq, Value *chunk, int64_t deadline) noexcept nogil:
    r.now = now
    proposer_submit(r, seq, chunk, deadline)


cdef void replica_pump(Replica *r, int64_t now) noexcept nogil:
    r.now = now
    proposer_pump(r)


cdef void replica_durable(Replica *r, int64_t now, uint64_t logged) noexcept nogil:
    r.now = now
    if logged > r.durable:
        r.durable = logged
    proposer_durable(r)
    _finish(r)


cdef void replica_tick(Replica *r, int64_t now) noexcept nogil:
    r.now = now
    if r.role == ROLE_MASTER and now >= r.heartbeat_due and not election_has_quorum(r):
        _step_down(r)
        election_start(r)
    election_tick(r)
    proposer_tick(r)
    learner_tick(r)
    _finish(r)


cdef int64_t replica_deadline(Replica *r) noexcept nogil:
    cdef int64_t due = proposer_deadline(r)
    if r.role != ROLE_MASTER and r.election_deadline < due:
        due = r.election_deadline
    if r.role == ROLE_PREPARING and r.prepare_sent + r.options.resend < due:
        due = r.prepare_sent + r.options.resend
    if r.learning and r.learn_deadline < due:
        due = r.learn_deadline
    return due


cdef void replica_peer(Replica *r, int64_t now, uint32_t index, bint up) noexcept nogil:
    r.now = now
    if not up:
        r.down |= bit(index)
        election_master_lost(r, index)
        _finish(r)
        return
    r.down &= ~bit(index)
    if r.role == ROLE_MASTER:
        proposer_resend(r, bit(index), 0)
        proposer_heartbeat(r, bit(index), True)
    elif r.master == r.members.members[index].node:
        proposer_forward_again(r)
    _finish(r)


cdef void replica_resign(Replica *r, int64_t now, bint may_lead) noexcept nogil:
    r.now = now
    r.may_lead = may_lead
    if not may_lead and r.role != ROLE_FOLLOWER:
        _step_down(r)
        r.election_deadline = now + r.options.election_max
    _finish(r)


cdef void replica_seal(Replica *r) noexcept nogil:
    cdef RecordWatermark *record = <RecordWatermark *>record_add(r, RECORD_WATERMARK, 0, sizeof(RecordWatermark), NULL)
    record.chosen = r.chosen
    record.chain = r.chain


cdef void replica_replace(Replica *r, int64_t now, uint32_t node, uint64_t inc_hi, uint64_t inc_lo) noexcept nogil:
    cdef int index = member_index(r, node)
    r.now = now
    if index >= 0:
        proposer_replace(r, <uint32_t>index, inc_hi, inc_lo)
    _finish(r)


cdef void replica_install(Replica *r, int64_t now, uint64_t instance, uint32_t chain, const Membership *members) noexcept nogil:
    r.now = now
    if instance <= r.chosen:
        return
    if r.role == ROLE_MASTER:
        _step_down(r)               # of long ago: others have gone on without it
    learner_install(r, instance, chain, members)
    learner_base(r, instance, chain)
    _finish(r)


cdef void replica_known(Replica *r, int64_t now, Value *value) noexcept nogil:
    r.now = now
    learner_known(r, value)
    _finish(r)


cdef void replica_base(Replica *r, int64_t now, uint64_t first, uint32_t chain) noexcept nogil:
    r.now = now
    if r.first_kept < first <= r.chosen:
        learner_base(r, first, chain)


cdef bint replica_base_again(Replica *r, int64_t now) noexcept nogil:
    r.now = now
    if r.first_kept == 0 or r.first_kept != r.chosen:
        return False
    learner_base(r, r.chosen, r.chain)
    return True


# ---- recovery ----

cdef int replica_restore_base(Replica *r, uint64_t first, const uint8_t *body, uint32_t size) noexcept nogil:
    cdef int result = learner_restore_base(r, first, body, size)
    out_clear(&r.out)
    return result


cdef int replica_restore(Replica *r, uint8_t type, uint64_t instance, const uint8_t *body, uint32_t size) noexcept nogil:
    cdef const RecordAccept *accept = <const RecordAccept *>body
    cdef const RecordLearn *learn = <const RecordLearn *>body
    cdef const RecordPromise *promise = <const RecordPromise *>body
    cdef const RecordWatermark *watermark = <const RecordWatermark *>body
    cdef Value *value
    cdef Slot *s
    cdef int result = 0
    if type == RECORD_BASE:
        if not r.before_base and instance != r.first_kept:
            return -1               # the newest one should have been taken first (replica_restore_base)
        if instance == r.first_kept:
            r.before_base = False   # (of two of one instance nothing was chosen in between; see replica_base_again)
        return 0
    if type == RECORD_PROMISE:
        if size != sizeof(RecordPromise):
            return -1
        if ballot_compare(&promise.ballot, &r.promised) > 0:
            r.promised = promise.ballot
    elif type == RECORD_WATERMARK:
        if size != sizeof(RecordWatermark):
            return -1
        return learner_restore(r, watermark.chosen, watermark.chain)
    elif type == RECORD_ACCEPT:
        if size < sizeof(RecordAccept) or accept.value.size != size - sizeof(RecordAccept) or accept.ballot.round == 0:
            return -1
        if value_check(&accept.value, body + sizeof(RecordAccept), accept.value.size) < 0:
            return -1
        if learner_restore(r, accept.chosen, accept.chain) < 0:
            return -1
        if ballot_compare(&accept.ballot, &r.promised) > 0:
            r.promised = accept.ballot
        if r.before_base and instance < r.first_kept:
            return 0
        if not in_ring(r, instance):
            return -1
        s = slot_take(r, instance)
        if ballot_compare(&accept.ballot, &s.ballot) >= 0:      # the highest ballot wins, not the last record (rule 14)
            value_unref(s.value)
            s.value = value_copy(&accept.value, body + sizeof(RecordAccept))
            s.ballot = accept.ballot
    elif type == RECORD_LEARN:
        if size < sizeof(RecordLearn) or learn.value.size != size - sizeof(RecordLearn):
            return -1
        if value_check(&learn.value, body + sizeof(RecordLearn), learn.value.size) < 0:
            return -1
        if learner_restore(r, learn.chosen, learn.chain) < 0:
            return -1
        value = value_copy(&learn.value, body + sizeof(RecordLearn))
        result = learner_restore_value(r, instance, value)
        value_unref(value)
    else:
        return -1
    return result


# ---- what Python sees: for tests, the simulator and the explorer. The engine calls the functions above from C. ----

cdef tuple _ballot(const Ballot *b):
    return (b.round, b.node, b.inc_hi, b.inc_lo)


cdef list _effects(Outbox *out):
    """The effects of a step as tuples, and an empty box. Bodies are copied."""
    cdef Effect *e
    cdef size_t i
    cdef bytes body
    cdef list result = []
    for i in range(out.count):
        e = &out.effects[i]
        body = (<const char *>(out.arena + e.head))[:e.head_size] if e.head_size else b""
        if e.value != NULL:
            body += (<const char *>e.value.data)[:e.value.size]
        if e.type == EFFECT_SEND:
            if e.peers:
                result.append(("send", e.peers, e.after, body))
        elif e.type == EFFECT_LOG:
            result.append(("log", e.after, e.code, e.instance, body))
        elif e.type == EFFECT_CHOSEN:
            result.append(("chosen", e.instance, e.value.kind, e.value.count, body))
        elif e.type == EFFECT_READ:
            result.append(("read", e.peers, e.instance, e.end, e.after))
        elif e.type == EFFECT_SETTLED:
            result.append(("settled", e.instance, e.code))
        elif e.type == EFFECT_MASTER:
            result.append(("master", e.code, e.instance, bool(e.end)))
        elif e.type == EFFECT_DIVERGED:
            result.append(("diverged", e.instance, e.code))
        elif e.type == EFFECT_FORMED:
            result.append(("formed",))
        elif e.type == EFFECT_MEMBERSHIP:
            result.append(("membership", e.code, e.instance))
        elif e.type == EFFECT_BEHIND:
            result.append(("behind", e.instance, e.code))
        elif e.type == EFFECT_INSTALLED:
            result.append(("installed", e.instance, e.after))
        else:
            raise AssertionError(f"unknown effect {e.type}")
    out_clear(out)
    return result


cdef int _membership(Membership *m, object members) except -1:
    cdef uint32_t i
    rows = sorted(members)
    if not 0 < len(rows) <= MAX_MEMBERS or len({row[0] for row in rows}) != len(rows):
        raise ValueError(f"a group has 1 to {MAX_MEMBERS} members with different ids, not {members!r}")
    memset(m, 0, sizeof(Membership))
    m.count = <uint32_t>len(rows)
    for i in range(m.count):
        m.members[i].node, m.members[i].inc_hi, m.members[i].inc_lo = rows[i]
    return 0


def encode_chunk(uint32_t origin, uint32_t boot, uint64_t seq, values, uint32_t machine=0, uint32_t life=0):
    """The bytes of a chunk: a header and each value behind its length."""
    cdef ChunkHead head
    body = b"".join([len(v).to_bytes(4, "little") + v for v in values])
    memset(&head, 0, sizeof(ChunkHead))
    head.size = <uint32_t>len(body)
    head.count = <uint32_t>len(values)
    head.origin = origin
    head.boot = boot
    head.seq = seq
    head.machine = machine
    head.life = life
    return (<const char *>&head)[:sizeof(ChunkHead)] + body


def encode_learned(Core core not None, uint64_t first, list values):
    """A LEARNED frame with chosen values [(kind, count, bytes), ...] from instance `first` on: what a host answers to
    a "read" effect."""
    cdef Learned *body
    cdef Replica *r = core.replica
    cdef ValueHead head
    cdef bytearray rest = bytearray()
    for kind, count, data in values:
        head.size, head.count, head.kind, head.zero = len(data), count, kind, 0
        rest += (<const char *>&head)[:sizeof(ValueHead)]
        rest += data
    body = <Learned *>frame_begin(r, FRAME_LEARNED, 0, 0, sizeof(Learned) + len(rest))
    body.first = first
    body.count = <uint32_t>len(values)
    memcpy(<uint8_t *>body + sizeof(Learned), <const char *>rest, len(rest))
    frame_end(r, NULL)
    e = &r.out.effects[r.out.count - 1]
    frame = (<const char *>(r.out.arena + e.head))[:e.head_size]
    r.out.count -= 1
    return frame


cdef class Core:
    """One group's replica, stepped by hand; ``incarnation`` (high, low) where it is not the member's. Every step returns its effects, in order, as tuples:

    ``("send", peers, after, frame)``, ``("log", number, type, instance, body)``, ``("chosen", instance, kind, count, value)``,
    ``("read", peers, first, end, max_bytes)``, ``("settled", seq, code)``, ``("master", node, round, settled)``,
    ``("diverged", instance, node)``, ``("membership", member, since)``, ``("behind", first_kept, node)``,
    ``("installed", instance, chain)``. ``peers`` is a bit mask over the members sorted by id; a frame may leave once record
    number ``after`` is durable. Times are integers in nanoseconds. Not thread-safe.
    """
    cdef Replica *replica

    def __cinit__(self, uint32_t node, members, *, uint32_t group=0, uint64_t signature=1, uint32_t boot=1, uint64_t seed=1,
                  uint32_t window=8, uint32_t batch_bytes=1 << 20, uint32_t batch_values=4096,
                  int64_t heartbeat=50_000_000, int64_t election_min=300_000_000, int64_t election_max=600_000_000,
                  int64_t resend=100_000_000, uint64_t queue_bytes=1 << 27, incarnation=None):
        cdef Options options
        cdef Membership m
        cdef uint32_t i
        cdef int found = -1
        _membership(&m, members)
        for i in range(m.count):
            if m.members[i].node == node:
                found = <int>i
        if found < 0:
            raise ValueError(f"node {node} is none of the members {members!r}")
        if not 0 < window <= ALPHA:
            raise ValueError(f"window {window}: from 1 to {ALPHA} instances may be in flight")
        memset(&options, 0, sizeof(Options))
        options.group, options.node, options.window = group, node, window
        options.batch_bytes, options.batch_values, options.queue_bytes = batch_bytes, batch_values, queue_bytes
        options.heartbeat, options.election_min, options.election_max = heartbeat, election_min, election_max
        options.resend = resend
        hi, lo = (m.members[found].inc_hi, m.members[found].inc_lo) if incarnation is None else incarnation
        self.replica = replica_new(&options, &m, signature, hi, lo, boot, seed)

    def __dealloc__(self):
        replica_free(self.replica)

    def restore(self, uint8_t type, uint64_t instance, bytes body not None):
        """Feeds a record found in the log. False: it contradicts what came before, that is, the log is damaged."""
        cdef int result = replica_restore(self.replica, type, instance, <const uint8_t *><const char *>body, <uint32_t>len(body))
        out_clear(&self.replica.out)        # what it recognises as chosen; the host has it in the log already
        return result == 0

    def restore_base(self, uint64_t first, bytes body not None):
        """Feeds the newest RECORD_BASE of the log, before any other record. False: it is malformed."""
        return replica_restore_base(self.replica, first, <const uint8_t *><const char *>body, <uint32_t>len(body)) == 0

    def start(self, int64_t now):
        replica_start(self.replica, now)
        return _effects(&self.replica.out)

    def receive(self, int64_t now, bytes frame not None):
        """A frame from the network. Bytes that are no valid frame raise ValueError and change nothing."""
        cdef size_t need = 0
        cdef const uint8_t *data = <const uint8_t *><const char *>frame
        cdef int code = frame_check(data, len(frame), 0xFFFFFFFF, &need)
        if code != FRAME_OK or need != <size_t>len(frame):
            raise ValueError(f"not one whole valid frame: check says {code}")
        replica_receive(self.replica, now, <const Frame *>data)
        return _effects(&self.replica.out)

    def arriving(self, int64_t now, bytes frame not None):
        """The first bytes of a large frame, of which the rest is on its way: at least its head and the fixed part of its body."""
        if len(frame) < sizeof(Frame) + sizeof(PromiseValue):
            raise ValueError(f"{len(frame)} bytes may not hold the fixed part of a frame")
        replica_arriving(self.replica, now, <const Frame *><const char *>frame)

    def submit(self, int64_t now, uint64_t seq, values, int64_t deadline, uint32_t machine=0):
        """A proposal of this node. ``seq`` counts up from 1 without a gap."""
        cdef bytes chunk = encode_chunk(self.replica.options.node, self.replica.boot, seq, values, machine,
                                        life_of(self.replica.inc_lo))
        cdef Value *value
        if seq != self.replica.pending_end:
            raise ValueError(f"seq {seq} is not the next one, {self.replica.pending_end}")
        value = value_new(VALUE_BATCH, <uint32_t>len(values), <uint32_t>len(chunk))
        memcpy(value.data, <const char *>chunk, len(chunk))
        replica_submit(self.replica, now, seq, value, deadline)
        return _effects(&self.replica.out)

    def pump(self, int64_t now):
        replica_pump(self.replica, now)
        return _effects(&self.replica.out)

    def durable(self, int64_t now, uint64_t logged):
        replica_durable(self.replica, now, logged)
        return _effects(&self.replica.out)

    def tick(self, int64_t now):
        replica_tick(self.replica, now)
        return _effects(&self.replica.out)

    def deadline(self):
        return replica_deadline(self.replica)

    def peer(self, int64_t now, uint32_t index, bint up):
        replica_peer(self.replica, now, index, up)
        return _effects(&self.replica.out)

    def resign(self, int64_t now, bint may_lead):
        replica_resign(self.replica, now, may_lead)
        return _effects(&self.replica.out)

    def replace(self, int64_t now, uint32_t node, incarnation):
        """Another incarnation (high, low) asks for the place of a member."""
        replica_replace(self.replica, now, node, incarnation[0], incarnation[1])
        return _effects(&self.replica.out)

    def base(self, int64_t now, uint64_t first, uint32_t chain):
        """The log is to begin at instance ``first``, behind which the chain checksum is ``chain``."""
        replica_base(self.replica, now, first, chain)
        return _effects(&self.replica.out)

    def install(self, int64_t now, uint64_t instance, uint32_t chain, members=None, uint32_t version=0):
        """A checkpoint of everything below ``instance``; its membership, if it is not the present one."""
        cdef Membership m = self.replica.members
        if members is not None:
            _membership(&m, [row[:3] for row in members])
            m.version = version
            for i, row in enumerate(sorted(members)):
                m.since[i] = row[3]
        replica_install(self.replica, now, instance, chain, &m)
        return _effects(&self.replica.out)

    def seal(self):
        replica_seal(self.replica)
        return _effects(&self.replica.out)

    def state(self):
        """What the replica knows, as a dict of plain values (for judges and golden scripts)."""
        cdef Replica *r = self.replica
        cdef uint64_t i
        cdef Slot *s
        accepted = []
        for i in range(r.chosen, r.chosen + RING):
            s = slot_of(r, i)
            if s != NULL and s.ballot.round != 0:
                accepted.append((i, _ballot(&s.ballot), (<const char *>s.value.data)[:s.value.size]))
        return {
            "role": ("follower", "asking", "preparing", "master")[r.role], "master": r.master, "settled": bool(r.master_settled),
            "promised": _ballot(&r.promised), "ballot": _ballot(&r.ballot), "chosen": r.chosen, "chain": r.chain,
            "accepted": accepted, "next": r.next_instance, "logged": r.logged, "durable": r.durable,
            "queued": r.queue_values, "rounds": r.counters.rounds, "proposed": r.counters.proposed_values,
            "first_kept": r.first_kept, "outsider": bool(r.outsider), "version": r.members.version,
            "members": [(r.members.members[i].node, r.members.members[i].inc_hi, r.members.members[i].inc_lo, r.members.since[i])
                        for i in range(r.members.count)],
            "elections": r.counters.elections, "refused": r.counters.refused_frames, "chosen_values": r.counters.chosen_values,
        }
