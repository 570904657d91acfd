# cython: language_level=3
"""The door to the core: the replica of one group as a step function.

Every step works on one event and ends in _finish, which is where the roles meet: a won election makes the proposer take over,
chosen slots move the watermark, what is missing is asked for. No role calls another. Nothing here blocks, reads a clock,
allocates without a bound, or touches a socket or file: the host does, on the effects in replica.out.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from paxos._acceptor cimport acceptor_accept, acceptor_prepare
from paxos._changes cimport changes_ask, changes_join
from paxos._codec cimport out_clear, out_free, value_check, value_copy
from paxos._election cimport (
    election_extend, election_extend_tick, election_give_up, election_has_quorum, election_master_heard, election_master_lost, election_prevote, election_prevote_reply,
    election_promise, election_promise_value, election_relieved, election_report_arriving, election_start, election_tick, election_transferred,
    election_won,
)
from paxos._learner cimport (
    learner_accept_arriving, learner_advance, learner_ask, learner_base, learner_heard, learner_install, learner_kept,
    learner_learned, learner_learned_arriving, learner_notice, learner_restore, learner_restore_base, learner_restore_value,
    learner_serve, learner_serve_expected, learner_tick, learner_watermark, learner_known, learner_wonder,
)
from paxos._mastership cimport (
    mastership_answered, mastership_best, mastership_bound, mastership_fit, mastership_freed, mastership_grant, mastership_hand, mastership_now,
    mastership_leave, mastership_tell,
)
from paxos._membership cimport membership_advance, membership_first, membership_install, membership_self, votes
from paxos._proposer cimport (
    proposer_accepted, proposer_deadline, proposer_durable, proposer_elected, proposer_forward_again,
    proposer_forward_refused, proposer_forwarded, proposer_heartbeat, proposer_pump, proposer_resend,
    proposer_settle_old,
    proposer_step_down, proposer_submit, proposer_tick,
)
from paxos._reader cimport (
    reader_answered, reader_ask, reader_asked, reader_begin, reader_deadline, reader_due, reader_elected, reader_pump,
    reader_readable, reader_step_down,
)
from paxos._replica cimport (
    Asked, Chunk, Options, Origin, Pending, ROLE_FOLLOWER, ROLE_MASTER, ROLE_PREPARING, Replica, Slot, frame_begin, frame_end,
    in_ring, member_index, others, send_reject, set_master, slot_free, slot_take,
)
from paxos._types cimport (
    ALPHA, Accept, Accepted, Ballot, CHUNK_WINDOW, FRAME_ACCEPT, FRAME_ACCEPTED, FRAME_FORWARD, FRAME_FORWARD_REFUSED, FRAME_HEARTBEAT,
    FRAME_HEARTBEAT_REPLY, FRAME_KEPT, FRAME_LEARN, FRAME_LEARNED, FRAME_PREPARE, FRAME_PREVOTE, FRAME_PREVOTE_REPLY,
    FRAME_PROMISE, FRAME_PROMISE_VALUE, FRAME_READ, FRAME_READABLE, FRAME_REJECT, FRAME_RELIEVE, FRAME_TRANSFER, Frame, Heartbeat, HeartbeatReply, Kept, Learn,
    LEASE_MAX, Membership, PLACES, Prepare, Prevote, PrevoteReply, Promise, PromiseValue, Read, Readable, RECORD_ACCEPT, RECORD_BASE, RECORD_LEARN,
    RECORD_PROMISE, RECORD_WATERMARK, RING, RecordAccept, RecordLearn, RecordPromise, RecordWatermark, Reject, Relieve, Transfer, Value,
    ballot_compare, bit, value_unref, xzalloc,
)


# ---- life ----

cdef Replica *replica_new(const Options *options, const Membership *members, uint64_t signature, uint64_t inc_hi,
                          uint64_t inc_lo, uint32_t boot, uint64_t seed) noexcept nogil:
    cdef Replica *r = <Replica *>xzalloc(sizeof(Replica))
    r.options = options[0]
    r.members = members[0]
    if r.members.version == 0:
        membership_first(&r.members)
    r.signature = signature
    r.inc_hi = inc_hi
    r.inc_lo = inc_lo
    r.boot = boot
    membership_self(r)
    r.alpha = ALPHA
    r.may_lead = True
    r.random = seed if seed != 0 else 0x9E3779B97F4A7C15
    r.slots = <Slot *>xzalloc(RING * sizeof(Slot))
    r.pending = <Pending *>xzalloc(CHUNK_WINDOW * sizeof(Pending))
    r.pending_first = 1
    r.pending_end = 1
    r.pending_scan = 1
    r.heard = <int64_t *>xzalloc(PLACES * sizeof(int64_t))
    r.known = <uint64_t *>xzalloc(PLACES * sizeof(uint64_t))
    r.kept = <uint64_t *>xzalloc(PLACES * sizeof(uint64_t))
    r.expected = <Learn *>xzalloc(PLACES * sizeof(Learn))
    r.promise_wanted = <uint32_t *>xzalloc(PLACES * sizeof(uint32_t))
    r.promise_got = <uint32_t *>xzalloc(PLACES * sizeof(uint32_t))
    r.origins = <Origin *>xzalloc(PLACES * sizeof(Origin))
    r.answered = <uint64_t *>xzalloc(PLACES * sizeof(uint64_t))
    r.asked_reads = <Asked *>xzalloc(PLACES * sizeof(Asked))
    r.granted_until = <int64_t *>xzalloc(PLACES * sizeof(int64_t))
    r.priority = <uint32_t *>xzalloc(PLACES * sizeof(uint32_t))
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
    for i in range(PLACES):
        free(r.origins[i].bits)
    free(r.wanted)
    out_free(&r.out)
    free(r.slots)
    free(r.pending)
    free(r.heard)
    free(r.known)
    free(r.kept)
    free(r.expected)
    free(r.promise_wanted)
    free(r.promise_got)
    free(r.origins)
    free(r.answered)
    free(r.asked_reads)
    free(r.granted_until)
    free(r.priority)
    free(r)


cdef void _now(Replica *r, int64_t now) noexcept nogil:
    r.now = now
    mastership_now(r)


# ---- where the roles meet ----

cdef void _step_down(Replica *r) noexcept nogil:
    cdef Ballot none
    cdef bint was_master = r.role == ROLE_MASTER
    r.role = ROLE_FOLLOWER
    r.hand_to = 0
    if was_master:
        proposer_step_down(r)
        reader_step_down(r)
        memset(&none, 0, sizeof(Ballot))
        set_master(r, 0, &none, False)


cdef void _follow(Replica *r, const Ballot *ballot, bint settled) noexcept nogil:
    """A message of the master of a ballot not below the promise."""
    cdef bint changed = ballot_compare(&r.master_ballot, ballot) != 0 or r.master != ballot.node
    if r.role != ROLE_FOLLOWER:
        _step_down(r)
    if changed:
        r.pending_scan = r.pending_first    # what an older master refused may go to this one
        r.read_due = r.now
        r.settle_old = True
    set_master(r, ballot.node, ballot, settled or (r.master_settled and not changed))
    election_master_heard(r, ballot)


cdef void _receive_prepare(Replica *r, uint32_t index, const Prepare *body) noexcept nogil:
    if mastership_bound(r, &body.ballot, &body.released):
        return                      # (asked again until the lease has passed)
    mastership_freed(r, &body.released)
    if ballot_compare(&body.ballot, &r.promised) > 0:
        _step_down(r)
        r.election_deadline = r.now + r.options.election_max        # the candidate gets its time
    acceptor_prepare(r, index, body)


cdef void _prepare_owed(Replica *r) noexcept nogil:
    """A new voter has come to know all that it must before it may promise (rule 10): at once, for a master waits for that."""
    cdef Prepare body = r.owed_prepare
    cdef uint32_t i
    for i in range(r.members.count):
        if r.owed & bit(i):
            r.owed = 0
            _receive_prepare(r, i, &body)


cdef void _answer_heartbeat(Replica *r, uint32_t to, const Ballot *ballot, uint64_t sent_at) noexcept nogil:
    cdef uint64_t lease = mastership_grant(r, ballot) if sent_at != 0 else 0
    cdef HeartbeatReply *reply = <HeartbeatReply *>frame_begin(r, FRAME_HEARTBEAT_REPLY, to, 0, sizeof(HeartbeatReply))
    reply.ballot = ballot[0]
    # Who has no vote confirms nothing: what it has not promised might have been promised by its predecessor (rules 10, 20).
    reply.sent_at = sent_at if votes(r) else 0
    reply.lease = lease
    # (Who has granted another one a lease that lasts, or may have before its start, could not take over.)
    reply.priority = r.options.priority if r.may_lead and not mastership_bound(r, ballot, ballot) else 0
    frame_end(r, NULL)


cdef void _finish(Replica *r) noexcept nogil:
    learner_advance(r)
    # Who was replaced or removed stands for nothing any more.
    if r.role != ROLE_FOLLOWER and not votes(r):
        if r.role == ROLE_MASTER:
            proposer_heartbeat(r, others(r), False)     # what it knows chosen the others may need now
        _step_down(r)
        r.election_deadline = r.now + r.options.heartbeat
    if r.owed and votes(r):
        _prepare_owed(r)
    if r.late and r.chosen >= r.members.in_force and r.late_at < r.chosen + r.alpha:
        _answer_heartbeat(r, r.late, &r.master_ballot, 0)
        r.late = 0
    if r.role == ROLE_MASTER:
        election_extend(r)
        mastership_leave(r)
        if r.next_instance < r.chosen:
            r.next_instance = r.chosen      # others knew more chosen than the quorum that promised
            if r.takeover_end < r.chosen:
                r.takeover_end = r.chosen
        # Strictly above own_from: an instance proposed under the own ballot is chosen, not only fetched from others.
        if r.chosen > r.takeover_end and r.chosen > r.own_from and not r.master_settled:
            set_master(r, r.options.node, &r.ballot, True)
            r.master_settled_at = r.takeover_end + 1
            proposer_heartbeat(r, others(r), True)
    if r.expecting:
        learner_serve_expected(r)
    learner_ask(r)
    if election_won(r):
        proposer_elected(r)
        reader_elected(r)
        r.settle_old = True
    if r.settle_old and r.master_settled and r.chosen >= r.master_settled_at:
        r.settle_old = False
        proposer_settle_old(r, True)


# ---- steps ----

cdef void replica_start(Replica *r, int64_t now) noexcept nogil:
    _now(r, now)
    r.highest_round = r.promised.round
    r.lease_logged = r.members.lease
    # What was granted before is not known any more, but to whom, perhaps: a grant is to the ballot promised, and a record of a promise
    # says that none to another one lasted.
    r.grant_lease = r.members.lease
    r.grant_until = now + <int64_t>r.members.lease if r.members.lease else 0
    election_start(r)


cdef void _receive_accept(Replica *r, uint32_t index, const Frame *frame, const uint8_t *data) noexcept nogil:
    cdef const Accept *body = <const Accept *>data
    cdef Value *value
    cdef uint64_t knew
    # A proposer speaks under its own ballots only.
    if body.ballot.node != frame.sender or body.ballot.inc_hi != frame.inc_hi or body.ballot.inc_lo != frame.inc_lo:
        r.counters.refused_frames += 1
        return
    value = value_copy(&body.value, data + sizeof(Accept))
    if acceptor_accept(r, index, body, value):
        _follow(r, &body.ballot, False)
        knew = r.chosen
        learner_notice(r, &body.ballot, body.own_from, frame.chosen)
        if r.late and r.chosen != knew:
            r.late = 0
            acceptor_accept(r, index, body, value)      # this very message has told what was to be known first
    value_unref(value)


cdef void _receive_heartbeat(Replica *r, uint32_t index, const Frame *frame, const Heartbeat *body) noexcept nogil:
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
        _answer_heartbeat(r, bit(index), &body.ballot, body.sent_at)


cdef void _receive_heartbeat_reply(Replica *r, uint32_t index, const Frame *frame, const HeartbeatReply *body) noexcept nogil:
    if r.role == ROLE_MASTER and ballot_compare(&body.ballot, &r.ballot) == 0:
        mastership_answered(r, index, frame, body)
        reader_answered(r, index, body)


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
    cdef bint level
    _now(r, now)
    if member < 0 or <uint32_t>member == r.self:
        r.counters.refused_frames += 1
        return
    index = <uint32_t>member
    if (frame.inc_hi == r.members.members[index].inc_hi and frame.inc_lo == r.members.members[index].inc_lo
            and (frame.inc_hi != 0 or frame.inc_lo != 0)):
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
    elif frame.type == FRAME_HEARTBEAT_REPLY:
        _receive_heartbeat_reply(r, index, frame, <const HeartbeatReply *>data)
    elif frame.type == FRAME_READ:
        reader_asked(r, index, <const Read *>data)
    elif frame.type == FRAME_READABLE:
        reader_readable(r, <const Readable *>data)
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
        _receive_prepare(r, index, prepare)
    elif frame.type == FRAME_PROMISE_VALUE:
        value = value_copy(&(<const PromiseValue *>data).value, data + sizeof(PromiseValue))
        election_promise_value(r, index, <const PromiseValue *>data, value)
        value_unref(value)
    elif frame.type == FRAME_PROMISE:
        election_promise(r, index, frame, <const Promise *>data)
    elif frame.type == FRAME_RELIEVE:
        if election_relieved(r, index, <const Relieve *>data):
            mastership_hand(r, index)
        elif r.members.members[index].node == r.master and ballot_compare(&(<const Relieve *>data).ballot, &r.master_ballot) == 0:
            election_master_lost(r, index)          # it says so itself
    elif frame.type == FRAME_TRANSFER:
        election_transferred(r, index, <const Transfer *>data)
    elif frame.type == FRAME_REJECT:
        _receive_reject(r, <const Reject *>data)
    level = (r.known[index] < r.members.in_force <= frame.chosen
             or (frame.type == FRAME_HEARTBEAT_REPLY and (<const HeartbeatReply *>data).sent_at == 0
                 and r.known[index] + r.alpha < r.next_instance <= frame.chosen + r.alpha))
    learner_heard(r, index, frame)
    _finish(r)
    if level and r.role == ROLE_MASTER:
        proposer_resend(r, bit(index), 0)       # it could not take them before


cdef void replica_arriving(Replica *r, int64_t now, const Frame *frame) noexcept nogil:
    cdef const uint8_t *data = <const uint8_t *>frame + sizeof(Frame)
    cdef int member = member_index(r, frame.sender)
    _now(r, now)
    if member < 0 or <uint32_t>member == r.self:
        return
    if frame.type == FRAME_LEARNED:
        learner_learned_arriving(r, <uint32_t>member, frame.length)
    elif frame.inc_hi != r.members.members[member].inc_hi or frame.inc_lo != r.members.members[member].inc_lo:
        return                      # it will have no say
    elif frame.type == FRAME_ACCEPT:
        learner_accept_arriving(r, <uint32_t>member, <const Accept *>data, frame.length)
    elif frame.type == FRAME_PROMISE_VALUE:
        election_report_arriving(r, &(<const PromiseValue *>data).ballot, frame.length)


cdef void replica_submit(Replica *r, int64_t now, uint64_t seq, Value *chunk, int64_t deadline) noexcept nogil:
    _now(r, now)
    proposer_submit(r, seq, chunk, deadline)


cdef void replica_pump(Replica *r, int64_t now) noexcept nogil:
    _now(r, now)
    proposer_pump(r)
    # One round for all reads that have come since the last one.
    if reader_due(r):
        proposer_heartbeat(r, others(r), True)
        if others(r):
            r.counters.read_rounds += 1
        r.noticed = r.chosen        # it tells that, too
        r.notice_due = 0
        reader_begin(r)
    reader_pump(r)


cdef void replica_read(Replica *r, int64_t now, uint64_t token) noexcept nogil:
    _now(r, now)
    reader_ask(r, token)


cdef void replica_durable(Replica *r, int64_t now, uint64_t logged) noexcept nogil:
    _now(r, now)
    if logged > r.durable:
        r.durable = logged
    proposer_durable(r)
    _finish(r)


cdef void replica_tick(Replica *r, int64_t now) noexcept nogil:
    _now(r, now)
    if r.role == ROLE_MASTER and now >= r.heartbeat_due and not election_has_quorum(r):
        election_give_up(r)
        _step_down(r)
        election_start(r)
    if r.role == ROLE_MASTER and r.hand_to != 0 and now >= r.hand_until:
        # Nobody has taken over. If one was told to, he may yet: the lease of this ballot is gone for good.
        r.hand_to = 0
        r.released = r.told
    if r.role == ROLE_MASTER and r.released and r.hand_to == 0 and r.members.lease != 0:
        _step_down(r)               # so a new ballot is wanted
        r.election_deadline = now
    if r.role == ROLE_FOLLOWER and now >= r.election_deadline and not votes(r):
        learner_wonder(r)
    election_tick(r)
    election_extend_tick(r)
    proposer_tick(r)
    learner_tick(r)
    _finish(r)


cdef int64_t replica_deadline(Replica *r) noexcept nogil:
    cdef int64_t due = proposer_deadline(r)
    if r.role != ROLE_MASTER and r.election_deadline < due:
        due = r.election_deadline
    if (r.role == ROLE_PREPARING or (r.role == ROLE_MASTER and r.extending)) and r.prepare_sent + r.options.resend < due:
        due = r.prepare_sent + r.options.resend
    if r.learning and r.learn_deadline < due:
        due = r.learn_deadline
    if r.granting != 0:
        due = min(due, r.granting + 1)
    return min(due, reader_deadline(r))


cdef void replica_peer(Replica *r, int64_t now, uint32_t index, bint up) noexcept nogil:
    _now(r, now)
    if not up:
        r.down |= bit(index)
        if r.settle_due != 0:
            proposer_settle_old(r, True)        # (of that one nothing is to be expected any more)
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
    _now(r, now)
    r.may_lead = may_lead
    if not may_lead and r.role != ROLE_FOLLOWER:
        if r.role == ROLE_MASTER and r.master_settled and mastership_best(r) >= 0:
            # At once, whatever is in flight: this node must not go on.
            mastership_hand(r, <uint32_t>mastership_best(r))
            mastership_tell(r)
        _step_down(r)
        r.election_deadline = now + r.options.election_max
    _finish(r)


cdef bint replica_transfer(Replica *r, int64_t now, uint32_t node) noexcept nogil:
    cdef int index
    cdef int64_t until
    _now(r, now)
    index = mastership_best(r) if node == 0 else member_index(r, node)
    if r.role != ROLE_MASTER or not r.master_settled or index < 0:
        return False
    if r.hand_to != 0 and (node == 0 or r.hand_to == <uint32_t>index + 1):
        return True
    if not mastership_fit(r, <uint32_t>index):
        return False
    until = r.hand_until if r.hand_to != 0 else 0
    mastership_hand(r, <uint32_t>index)
    if until != 0:
        r.hand_until = until        # new values do not wait for longer because somebody changes his mind
    return True


cdef bint replica_lease(Replica *r, int64_t now, uint64_t lease) noexcept nogil:
    _now(r, now)
    if r.role != ROLE_MASTER or not r.master_settled or lease > LEASE_MAX:
        return False
    r.lease_wanted = lease + 1
    return True


cdef void replica_seal(Replica *r) noexcept nogil:
    learner_watermark(r)


cdef void replica_replace(Replica *r, int64_t now, uint32_t node, uint64_t inc_hi, uint64_t inc_lo) noexcept nogil:
    cdef int index = member_index(r, node)
    _now(r, now)
    if index >= 0:
        changes_join(r, <uint32_t>index, inc_hi, inc_lo)
    _finish(r)


cdef bint replica_change(Replica *r, int64_t now, const Membership *next) noexcept nogil:
    _now(r, now)
    return changes_ask(r, next)


cdef void replica_members(Replica *r, int64_t now, const Membership *m) noexcept nogil:
    _now(r, now)
    if votes(r) and election_has_quorum(r):
        return                      # it is not lost: a table of which it cannot know all would only take its vote away
    membership_install(r, m)
    membership_advance(r)
    _finish(r)


cdef void replica_install(Replica *r, int64_t now, uint64_t instance, uint32_t chain, const Membership *members) noexcept nogil:
    _now(r, now)
    if instance <= r.chosen:
        return
    if r.role == ROLE_MASTER:
        _step_down(r)               # of long ago: others have gone on without it
    learner_install(r, instance, chain, members)
    learner_base(r, instance, chain)
    _finish(r)


cdef void replica_known(Replica *r, int64_t now, Value *value) noexcept nogil:
    _now(r, now)
    learner_known(r, value)
    _finish(r)


cdef void replica_base(Replica *r, int64_t now, uint64_t first, uint32_t chain) noexcept nogil:
    _now(r, now)
    if r.first_kept < first <= r.chosen:
        learner_base(r, first, chain)


cdef bint replica_base_again(Replica *r, int64_t now) noexcept nogil:
    _now(r, now)
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
        if ballot_compare(&promise.ballot, &r.promised) >= 0:
            r.promised = promise.ballot
            r.grant = promise.ballot    # it was given while no lease of another lasted
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
            memset(&r.grant, 0, sizeof(Ballot))     # (this one perhaps not)
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
