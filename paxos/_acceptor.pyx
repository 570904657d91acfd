# cython: language_level=3
"""Acceptor: promises and acceptances of one group ("Paxos Made Simple", section 2.2, phases 1b and 2b).

A ballot is promised for all instances from some instance on. State: the highest ballot promised, and for every instance
above the chosen watermark the value accepted under the highest ballot. Each answer waits for the record it stands on
(design rule 1): `after` of its frame is the number of that record.
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp

from paxos._codec cimport out_effect, value_head
from paxos._membership cimport votes
from paxos._replica cimport (
    Replica, Slot, accept_here, frame_begin, frame_end, in_ring, promise_here, send_reject, slot_of, slot_take,
)
from paxos._types cimport (
    Accept, Accepted, EFFECT_READ, Effect, FRAME_ACCEPTED, FRAME_PROMISE, FRAME_PROMISE_VALUE, Prepare, Promise,
    PromiseValue, RING, Value, ballot_compare, bit,
)


cdef void acceptor_prepare(Replica *r, uint32_t index, const Prepare *p) noexcept nogil:
    cdef PromiseValue *report
    cdef Promise *promise
    cdef Slot *s
    cdef uint64_t i, first
    cdef uint32_t count = 0
    cdef int order = ballot_compare(&p.ballot, &r.promised)
    if not votes(r):
        r.owed = bit(index)         # rule 10; it is waited for where this is a new voter, who will know in a moment all that it must
        r.owed_prepare = p[0]
        return
    r.owed = 0
    if order < 0:
        send_reject(r, index, &p.ballot)
        return
    if order > 0:
        promise_here(r, &p.ballot)
    # Below the own watermark everything is chosen: the candidate sees the watermark in the frame and learns it (rule 3).
    first = p.first if p.first > r.chosen else r.chosen
    for i in range(first, r.chosen + RING):
        s = slot_of(r, i)
        if s == NULL or s.ballot.round == 0:
            continue
        report = <PromiseValue *>frame_begin(r, FRAME_PROMISE_VALUE, bit(index), r.logged, sizeof(PromiseValue))
        report.ballot = p.ballot
        report.accepted = s.ballot
        report.instance = i
        report.attempt = p.attempt
        value_head(&report.value, s.value)
        frame_end(r, s.value)
        count += 1
    promise = <Promise *>frame_begin(r, FRAME_PROMISE, bit(index), r.logged, sizeof(Promise))
    promise.ballot = p.ballot
    promise.first_kept = r.first_kept
    promise.attempt = p.attempt
    promise.count = count
    frame_end(r, NULL)


cdef bint acceptor_accept(Replica *r, uint32_t index, const Accept *a, Value *value) noexcept nogil:
    cdef Slot *s
    cdef Effect *e
    cdef Accepted *body
    if ballot_compare(&a.ballot, &r.promised) < 0:
        send_reject(r, index, &a.ballot)
        return False
    if a.instance < r.chosen:
        # Known chosen here: the proposer gets the chosen value, not a vote (rule 3).
        e = out_effect(&r.out, EFFECT_READ)
        e.peers = bit(index)
        e.instance = a.instance
        e.end = a.instance + 1
        return True
    # (From chosen + alpha on it does not know who votes, perhaps since a change that it has not heard of yet.)
    if r.chosen < r.members.in_force <= a.instance or a.instance >= r.chosen + r.alpha:
        r.late = bit(index)     # _membership: this node learns first, and then says so
        r.late_at = a.instance
        return True
    if not in_ring(r, a.instance) or not votes(r):
        return True             # too far ahead to keep, or not yet to be voted on (rule 10): this node learns first
    s = slot_take(r, a.instance)
    if ballot_compare(&s.ballot, &a.ballot) != 0:
        accept_here(r, s, &a.ballot, value)
    elif s.value.size != value.size or memcmp(s.value.data, value.data, value.size) != 0:
        return True             # two values under one ballot: no correct proposer does that, and there is no vote for it
    body = <Accepted *>frame_begin(r, FRAME_ACCEPTED, bit(index), s.record, sizeof(Accepted))
    body.ballot = a.ballot
    body.first = a.instance
    body.last = a.instance
    frame_end(r, NULL)
    return True
