# cython: language_level=3
"""Learner: which instances are chosen, in order; asking others for what is missing.

The watermark `chosen` = n says that instances 0..n-1 are chosen and their values known here. It moves in three ways only:
over a slot that this node, as master, saw accepted by a quorum (slot.chosen); by a notice of the master, which names a range
and the ballot under which it was chosen, over values that this node accepted at that ballot or a higher one (design rule 5);
by values fetched from a node that knows them chosen. The chain checksum moves with it (rule 19). A checkpoint sets it, and
with it all that the deleted values would have told: the chain checksum there, and the membership.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from paxos._codec cimport chain_next, out_effect, value_copy, value_head
from paxos._mastership cimport mastership_chosen, mastership_logged
from paxos._membership cimport (
    membership_advance, membership_chosen, membership_install, membership_place, membership_read, membership_size, membership_write, votes,
)
from paxos._replica cimport (
    CHUNK_FREE, Pending, ROLE_MASTER, Replica, Slot, draw, frame_begin, frame_end, others, patience, pending_at, record_add, slot_free, slot_of,
    slot_take,
)
from paxos._types cimport (
    Accept, Ballot, ChunkHead, EFFECT_BEHIND, EFFECT_CHOSEN, EFFECT_DIVERGED, EFFECT_INSTALLED, EFFECT_READ, Effect,
    FRAME_KEPT, FRAME_LEARN, Frame, Kept, Learn, Learned, Membership, RECORD_BASE, RECORD_LEARN, RECORD_WATERMARK, RING, RecordBase, RecordLearn,
    RecordWatermark,
    VALUE_BATCH, VALUE_CHANGE, VALUE_MASTER, Value, ValueHead, ballot_compare, bit, life_of, value_ref, value_unref,
)

cdef enum:
    LEARN_BYTES = 1048576           # asked for at a time


cdef void _settle_chunks(Replica *r, const Value *value) noexcept nogil:
    """Chunks of this node and this boot are settled: the host sees them with the value. Somebody waits for the others at
    another node, so a master does not let the news wait for an Accept to ride on."""
    cdef size_t at = 0
    cdef ChunkHead head
    cdef Pending *p
    while at < value.size:
        memcpy(&head, value.data + at, sizeof(ChunkHead))
        at += sizeof(ChunkHead) + head.size
        if head.origin == r.options.node and head.boot == r.boot and head.life == life_of(r.inc_lo):
            p = pending_at(r, head.seq)
            if p != NULL:
                value_unref(p.bytes)
                p.bytes = NULL
                p.state = CHUNK_FREE
                p.chosen = r.chosen + 1
        elif r.role == ROLE_MASTER:
            r.notice_due = r.now


cdef void _tell(Replica *r, Value *value) noexcept nogil:
    """Instance `chosen`, about to be counted as such, and the chain checksum behind it."""
    cdef Effect *e = out_effect(&r.out, EFFECT_CHOSEN)
    e.instance = r.chosen
    e.after = r.chain
    e.value = value_ref(value)


cdef void learner_watermark(Replica *r) noexcept nogil:
    cdef RecordWatermark *record = <RecordWatermark *>record_add(r, RECORD_WATERMARK, 0, sizeof(RecordWatermark), NULL)
    record.chosen = r.chosen
    record.chain = r.chain


cdef void _state_chosen(Replica *r, uint64_t instance, const Value *value) noexcept nogil:
    """What a value does to the state that all nodes share besides that of the users."""
    if value.kind == VALUE_CHANGE:
        membership_chosen(r, instance, value)
    elif value.kind == VALUE_MASTER:
        mastership_chosen(r, instance, value)


cdef void _choose(Replica *r, Slot *s) noexcept nogil:
    """Instance `chosen` has the value of its slot."""
    cdef Value *value = s.value
    r.chain = chain_next(r.chain, s.instance, value)
    _tell(r, value)
    if value.kind == VALUE_BATCH:
        _settle_chunks(r, value)
    else:
        _state_chosen(r, s.instance, value)
    r.counters.chosen_instances += 1
    r.counters.chosen_values += value.count
    if s.own:
        r.counters.rounds += <uint64_t>s.rounds * value.count
        r.counters.proposed_values += value.count
    r.chosen += 1
    slot_free(s)
    membership_advance(r)
    if r.lease_logged != r.members.lease:
        learner_watermark(r)           # before anything is granted, the log must tell for how long it is
        mastership_logged(r)
    elif r.members.as_of == r.chosen:
        learner_watermark(r)           # the log must never know a table, and not how far it goes


cdef void learner_advance(Replica *r) noexcept nogil:
    cdef Slot *s = slot_of(r, r.chosen)
    while s != NULL and s.chosen:
        _choose(r, s)
        s = slot_of(r, r.chosen)


cdef void learner_notice(Replica *r, const Ballot *ballot, uint64_t own_from, uint64_t chosen) noexcept nogil:
    cdef Slot *s
    while r.chosen < chosen and r.chosen >= own_from:
        s = slot_of(r, r.chosen)
        if s == NULL or s.ballot.round == 0 or ballot_compare(&s.ballot, ballot) < 0:
            return
        _choose(r, s)


cdef void learner_heard(Replica *r, uint32_t index, const Frame *frame) noexcept nogil:
    """Every frame tells how far its sender is, and the chain checksum there."""
    cdef Effect *e
    r.known[index] = frame.chosen
    if frame.chosen > r.heard_chosen or (frame.chosen == r.heard_chosen and frame.chosen > r.chosen and not r.learning):
        r.heard_chosen = frame.chosen
        r.heard_from = index
    if frame.chosen == r.chosen and frame.chain != r.chain and not r.diverged:
        r.diverged = True
        e = out_effect(&r.out, EFFECT_DIVERGED)
        e.instance = r.chosen
        e.code = frame.sender


cdef void learner_accept_arriving(Replica *r, uint32_t index, const Accept *a, uint32_t size) noexcept nogil:
    """News of what is chosen overtakes the large Accepts that it is about. These come in order: when a later one than that
    of the next instance comes, and that one has not come, it is lost. And where the master's word does not reach down to the
    next instance, it tells nothing about it however long it is waited for."""
    cdef Slot *s = slot_of(r, r.chosen)
    if r.master != r.members.members[index].node:
        return
    if a.own_from > r.chosen or (a.instance > r.chosen and (s == NULL or ballot_compare(&s.ballot, &r.master_ballot) != 0)):
        r.accept_until = 0
    else:
        r.accept_from = r.master
        r.accept_until = r.now + r.options.resend + patience(size)


cdef void learner_learned_arriving(Replica *r, uint32_t index, uint32_t size) noexcept nogil:
    if r.learning and r.learn_peer == index:
        r.learn_deadline = r.now + r.options.resend + patience(size)


cdef void learner_serve(Replica *r, uint32_t index, const Learn *body) noexcept nogil:
    cdef Effect *e
    cdef Kept *kept
    if body.end <= body.first:
        return
    if body.first >= r.chosen:
        r.expecting |= bit(index)       # somebody else was faster to hear of it; it comes in a moment
        r.expected[index] = body[0]
        return
    r.expecting &= ~bit(index)
    if body.first < r.first_kept:
        kept = <Kept *>frame_begin(r, FRAME_KEPT, bit(index), 0, sizeof(Kept))
        kept.asked = body.first
        kept.first_kept = r.first_kept
        frame_end(r, NULL)
        return
    e = out_effect(&r.out, EFFECT_READ)
    e.peers = bit(index)
    e.instance = body.first
    e.end = body.end if body.end < r.chosen else r.chosen
    e.after = body.max_bytes


cdef void learner_serve_expected(Replica *r) noexcept nogil:
    cdef uint32_t i
    for i in range(r.members.count):
        if r.expecting & bit(i) and r.expected[i].first < r.chosen:
            learner_serve(r, i, &r.expected[i])


cdef void learner_kept(Replica *r, uint32_t index, const Kept *body) noexcept nogil:
    """That member has deleted what comes next here. Others are asked in turn, and the host knows what else could help."""
    cdef Effect *e
    r.kept[index] = body.first_kept
    if body.asked != r.chosen or body.first_kept <= r.chosen:
        return
    e = out_effect(&r.out, EFFECT_BEHIND)
    e.code = r.members.members[index].node
    e.instance = body.first_kept


cdef void _fetched(Replica *r, Value *value) noexcept nogil:
    """Instance `chosen` is known to be chosen, by somebody else's word."""
    cdef RecordLearn *record = <RecordLearn *>record_add(r, RECORD_LEARN, r.chosen, sizeof(RecordLearn), value)
    cdef Slot *s = slot_take(r, r.chosen)
    record.chosen = r.chosen
    record.chain = r.chain
    value_head(&record.value, value)
    value_unref(s.value)
    s.value = value_ref(value)
    s.own = False
    _choose(r, s)
    # A master that fetches a value does not know under which ballot it was chosen, perhaps under a higher one than its own and
    # against its own proposal: its notices must not name that instance (rule 5).
    if r.own_from < r.chosen:
        r.own_from = r.chosen


cdef void learner_known(Replica *r, Value *value) noexcept nogil:
    _fetched(r, value)
    r.learn_deadline = r.now + r.options.resend     # (whoever was asked for this has been asked in vain)


cdef void learner_learned(Replica *r, const Frame *frame) noexcept nogil:
    cdef const uint8_t *data = <const uint8_t *>frame + sizeof(Frame)
    cdef Learned body
    cdef ValueHead head
    cdef size_t at = sizeof(Learned)
    cdef uint32_t i
    cdef uint64_t before = r.chosen
    cdef Value *value
    memcpy(&body, data, sizeof(Learned))
    # A sender never gives what it does not itself know chosen.
    if body.first > frame.chosen or body.count > frame.chosen - body.first:
        r.counters.refused_frames += 1
        return
    for i in range(body.count):
        memcpy(&head, data + at, sizeof(ValueHead))
        at += sizeof(ValueHead)
        if body.first + i == r.chosen:
            value = value_copy(&head, data + at)
            _fetched(r, value)
            value_unref(value)
        at += head.size
    if r.chosen == before:
        return                  # a late copy: to ask again for it would multiply the questions that are out
    learner_advance(r)
    r.learning = False


cdef uint32_t _source(const Replica *r) noexcept nogil:
    """Whom to ask. Who is far behind leaves the master to its clients, if another knows enough and has it still."""
    cdef uint32_t i, k
    for i in range(r.options.follow_count if not votes(r) else 0):
        k = membership_place(&r.members, r.options.follow[i])
        if others(r) & bit(k) & ~r.down & ~r.shunned and r.kept[k] <= r.chosen:
            return k
    if r.heard_chosen - r.chosen <= RING or r.members.members[r.heard_from].node != r.master:
        return r.heard_from
    for i in range(r.members.count):
        if (i != r.self and i != r.heard_from and not r.down & bit(i) and r.known[i] > r.chosen + RING
                and r.kept[i] <= r.chosen):
            return i
    return r.heard_from


cdef void _send_learn(Replica *r, uint32_t index, uint64_t end) noexcept nogil:
    cdef Learn *body
    r.learn_peer = index
    body = <Learn *>frame_begin(r, FRAME_LEARN, bit(index), 0, sizeof(Learn))
    body.first = r.chosen
    body.end = end
    body.max_bytes = LEARN_BYTES
    frame_end(r, NULL)


cdef void learner_wonder(Replica *r) noexcept nogil:
    if not r.learning and others(r):
        _send_learn(r, _after(r, r.learn_peer), 0xFFFFFFFFFFFFFFFF)


cdef void learner_ask(Replica *r) noexcept nogil:
    if r.shunned and r.now >= r.shunned_until:
        r.shunned = 0
    if r.learning or r.heard_chosen <= r.chosen:
        return
    if r.now < r.accept_until and r.master == r.accept_from:
        return                  # it is on its way, or waits here for the next notice
    r.learning = True
    r.learn_deadline = r.now + r.options.resend + draw(r, 0, r.options.resend // 4)
    _send_learn(r, _source(r), r.heard_chosen)


cdef uint32_t _after(const Replica *r, uint32_t index) noexcept nogil:
    """The next member in turn, of those that have answered lately if there are any; itself, if there is no other."""
    cdef uint32_t i, k
    cdef uint32_t among = others(r) & ~r.shunned if others(r) & ~r.shunned else others(r)
    for i in range(1, r.members.count + 1):
        k = (index + i) % r.members.count
        if among & bit(k):
            return k
    return index


cdef void learner_tick(Replica *r) noexcept nogil:
    if not r.learning or r.now < r.learn_deadline:
        return
    # No answer: ask around. The next member in turn; one that is not that far just does not answer.
    r.learning = False
    r.shunned |= bit(r.learn_peer)
    r.shunned_until = r.now + r.options.election_max * 4
    if r.heard_chosen > r.chosen:
        r.heard_from = _after(r, r.learn_peer)
        learner_ask(r)


cdef int learner_restore(Replica *r, uint64_t chosen, uint32_t chain) noexcept nogil:
    cdef Slot *s
    if r.before_base and chosen < r.first_kept:
        return 0                    # from before the log was cut off there
    if chosen < r.chosen:
        return -1
    while r.chosen < chosen:
        s = slot_of(r, r.chosen)
        if s == NULL or s.value == NULL:
            return -1
        r.chain = chain_next(r.chain, r.chosen, s.value)
        _tell(r, s.value)
        r.counters.chosen_instances += 1
        r.counters.chosen_values += s.value.count
        _state_chosen(r, r.chosen, s.value)
        slot_free(s)
        r.chosen += 1
        membership_advance(r)
    return 0 if r.chain == chain else -1


cdef int learner_restore_value(Replica *r, uint64_t instance, Value *value) noexcept nogil:
    cdef Slot *s
    if r.before_base and instance < r.first_kept:
        return 0
    if instance != r.chosen:
        return -1
    s = slot_take(r, instance)
    value_unref(s.value)
    s.value = value_ref(value)
    r.chain = chain_next(r.chain, instance, value)
    _tell(r, value)
    r.counters.chosen_instances += 1
    r.counters.chosen_values += value.count
    _state_chosen(r, instance, value)
    slot_free(s)
    r.chosen += 1
    membership_advance(r)
    return 0


# ---- where the log begins ----

cdef void learner_install(Replica *r, uint64_t instance, uint32_t chain, const Membership *members) noexcept nogil:
    """Instances below are chosen, and what they did is in a checkpoint. The acceptor keeps what it has from there on (rule 15)."""
    cdef Effect *e
    cdef Slot *s
    cdef uint64_t i
    for i in range(r.chosen, min(instance, r.chosen + RING)):
        s = slot_of(r, i)
        if s != NULL:
            slot_free(s)
    r.chosen = instance
    r.chain = chain
    e = out_effect(&r.out, EFFECT_INSTALLED)
    e.instance = instance
    e.after = chain
    membership_install(r, members)
    membership_advance(r)
    r.learning = False


cdef void learner_base(Replica *r, uint64_t first, uint32_t chain) noexcept nogil:
    """The log may be deleted below `first`: what would be lost with it is written once more (rule 15)."""
    cdef RecordBase *record = <RecordBase *>record_add(r, RECORD_BASE, first, sizeof(RecordBase) + membership_size(&r.members), NULL)
    record.promised = r.promised
    record.chain = chain
    record.was_member = r.was_member
    membership_write(&r.members, <uint8_t *>record + sizeof(RecordBase))
    r.first_kept = first
    mastership_logged(r)


cdef bint _same_nodes(const Membership *a, const Membership *b) noexcept nogil:
    cdef uint32_t i
    for i in range(a.count):
        if a.members[i].node != b.members[i].node:
            return False
    return a.count == b.count


cdef int learner_restore_base(Replica *r, uint64_t first, const uint8_t *body, uint32_t size) noexcept nogil:
    cdef RecordBase base
    cdef Membership members
    if size < sizeof(RecordBase):
        return -1
    memcpy(&base, body, sizeof(RecordBase))
    members = r.members
    if base.was_member > 1 or membership_read(&members, body + sizeof(RecordBase), size - sizeof(RecordBase)) != 0:
        return -1
    if members.version == 0 and not _same_nodes(&members, &r.members):
        return -1                   # of a cluster with other nodes: as long as nothing was changed they are those of the formation
    membership_install(r, &members)
    r.was_member = r.was_member or base.was_member
    r.promised = base.promised
    r.chosen = first
    r.chain = base.chain
    r.first_kept = first
    r.before_base = True
    membership_advance(r)
    return 0
