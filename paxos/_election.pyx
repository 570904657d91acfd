# cython: language_level=3
"""Election: when to stand, asking before a ballot is raised, and collecting promises (phase 1 for all instances at once).

    FOLLOWER --deadline--> ASKING --majority agrees--> PREPARING --quorum promised--> MASTER
        ^                    |  deadline: ask again        |  deadline, or a higher ballot seen
        +--------------------+-----------------------------+

ASKING raises no ballot, so a node that comes back from a pause, or that is cut off, disturbs nobody: others refuse while they
hear a master. (A node that has proposals, a majority and no master goes on all the same after a while.) PREPARING: the ballot is durable before any Prepare leaves and before the own promise counts (design rule 1;
both stand on promise_record). A promise counts only if its sender's chosen watermark is not above the candidate's: else the
candidate learns first and asks again from there (rule 3), with a new attempt number so that reports are not mixed.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from paxos._mastership cimport mastership_bound, mastership_fit
from paxos._membership cimport electors, votes
from paxos._replica cimport (
    ROLE_ASKING, ROLE_FOLLOWER, ROLE_MASTER, ROLE_PREPARING, Replica, Slot, draw, frame_begin, frame_end, in_ring, others,
    patience, promise_here, remote_master, set_master, slot_of, slot_take,
)
from paxos._types cimport (
    Ballot, FRAME_PREPARE, FRAME_PREVOTE, FRAME_PREVOTE_REPLY, FRAME_RELIEVE, Frame, Prepare, Prevote, PrevoteReply, Promise, PromiseValue,
    PLACES, RING, Relieve, Transfer, Value, ballot_compare, bit, is_majority, is_quorum, popcount, value_ref, value_unref,
)


cdef enum:
    FORCED_MAX = 5                  # 64 times the longest election timeout


cdef void _set_deadline(Replica *r) noexcept nogil:
    r.election_deadline = r.now + draw(r, r.options.election_min, r.options.election_max)


cdef void election_start(Replica *r) noexcept nogil:
    """A node that starts waits a little for a master that may be there, less than one that lost its master."""
    r.election_deadline = r.now + draw(r, r.options.heartbeat, r.options.heartbeat * 3)


cdef void _forget_master(Replica *r) noexcept nogil:
    """From here on this node looks for another, and asks in vain."""
    cdef Ballot none
    if r.master != 0:
        memset(&none, 0, sizeof(Ballot))
        set_master(r, 0, &none, False)
    if r.role == ROLE_FOLLOWER:
        r.heard_master = r.now
    r.asked.node = r.options.node
    r.asked.inc_hi = r.inc_hi
    r.asked.inc_lo = r.inc_lo


cdef bint _wants_master(const Replica *r) noexcept nogil:
    """Something waits here that only a master can see to."""
    return r.pending_first < r.pending_end or r.read_token != 0


cdef void _ask(Replica *r) noexcept nogil:
    cdef Prevote *body
    # The others have answered, and not agreed: they hear a master that this node does not hear.
    cdef bint cut_off = r.role == ROLE_ASKING and is_quorum(&r.members, r.chosen, r.promises) and _wants_master(r)
    _forget_master(r)
    r.role = ROLE_ASKING
    r.granted = bit(r.self)
    r.promises = bit(r.self)    # while asking: who answered at all
    if r.promised.round > r.highest_round:
        r.highest_round = r.promised.round
    r.asked.round = r.highest_round + 1
    memset(&r.released_by, 0, sizeof(Ballot))
    _set_deadline(r)
    body = <Prevote *>frame_begin(r, FRAME_PREVOTE, electors(r), 0, sizeof(Prevote))
    body.ballot = r.asked
    body.cut_off = cut_off
    frame_end(r, NULL)


cdef void _send_prepare(Replica *r) noexcept nogil:
    """Also sent again, with the same attempt number: an answer that takes longer than the resend time still counts."""
    cdef Prepare *body = <Prepare *>frame_begin(r, FRAME_PREPARE, electors(r) & ~r.promises, r.promise_record, sizeof(Prepare))
    body.ballot = r.ballot
    body.released = r.released_by
    body.first = r.prepare_from
    body.attempt = r.attempt
    frame_end(r, NULL)
    r.prepare_sent = r.now


cdef void _begin_attempt(Replica *r) noexcept nogil:
    """Prepare from the own watermark on. Reports of earlier attempts are forgotten."""
    cdef Slot *s
    cdef uint64_t i
    r.attempt += 1
    r.prepare_from = r.chosen
    r.promises = 0
    memset(r.promise_wanted, 0, PLACES * sizeof(uint32_t))
    memset(r.promise_got, 0, PLACES * sizeof(uint32_t))
    for i in range(r.chosen, r.chosen + RING):
        s = slot_of(r, i)
        if s != NULL:
            value_unref(s.report_value)
            s.report_value = NULL
            s.report_ballot.round = 0
            s.reported = 0
    _send_prepare(r)


cdef void _raise(Replica *r) noexcept nogil:
    if r.promised.round > r.highest_round:
        r.highest_round = r.promised.round
    r.highest_round += 1
    r.ballot = r.asked
    r.ballot.round = r.highest_round
    promise_here(r, &r.ballot)
    r.role = ROLE_PREPARING
    r.report_until = 0
    r.counters.elections += 1
    _set_deadline(r)
    _begin_attempt(r)


cdef bint _bound(const Replica *r) noexcept nogil:
    """Whether this node has granted a lease that still lasts to another node, which did not release it."""
    cdef Ballot own
    memset(&own, 0, sizeof(Ballot))
    own.node = r.options.node
    own.inc_hi = r.inc_hi
    own.inc_lo = r.inc_lo
    return mastership_bound(r, &own, &r.released_by)


cdef void election_tick(Replica *r) noexcept nogil:
    if r.role == ROLE_MASTER or r.now < r.election_deadline:
        if r.role == ROLE_PREPARING and r.now - r.prepare_sent >= r.options.resend:
            _send_prepare(r)
    elif not r.may_lead or r.options.priority == 0 or not votes(r):
        r.role = ROLE_FOLLOWER
        _set_deadline(r)
    elif r.role == ROLE_FOLLOWER and _bound(r):
        r.election_deadline = r.grant_until     # the own promise would break the lease, too
    else:
        _ask(r)
        if is_quorum(&r.members, r.chosen, r.granted):
            _raise(r)


cdef void _probe(Replica *r) noexcept nogil:
    """Has everybody answer who can. The question is one that they refuse, for they hear a master."""
    cdef Prevote *body = <Prevote *>frame_begin(r, FRAME_PREVOTE, others(r), 0, sizeof(Prevote))
    body.ballot = r.promised
    body.ballot.node = r.options.node
    body.ballot.inc_hi = r.inc_hi
    body.ballot.inc_lo = r.inc_lo
    frame_end(r, NULL)


cdef void election_prevote(Replica *r, uint32_t index, const Frame *frame, const Prevote *body) noexcept nogil:
    cdef PrevoteReply *reply
    cdef bint hears_master = r.role == ROLE_MASTER or (
        r.master != 0 and r.members.members[index].node != r.master and r.heard_master + r.options.election_min > r.now) or (
        r.role == ROLE_PREPARING and r.now < r.report_until)
    cdef Relieve *relieve
    cdef Ballot none
    if not votes(r) and frame.chosen >= r.chosen:
        return                      # (to who knows less it tells at least that)
    memset(&none, 0, sizeof(Ballot))
    hears_master = hears_master or mastership_bound(r, &body.ballot, &none)
    reply = <PrevoteReply *>frame_begin(r, FRAME_PREVOTE_REPLY, bit(index), 0, sizeof(PrevoteReply))
    reply.ballot = body.ballot
    reply.promised = r.promised
    # Who would have to fetch a checkpoint first is no candidate: until it has, nothing could be proposed.
    reply.granted = votes(r) and not hears_master and frame.chosen >= r.first_kept
    frame_end(r, NULL)
    if body.cut_off and votes(r) and r.role == ROLE_FOLLOWER and remote_master(r) >= 0:
        # (Whom it hears a follower must ask for: by itself only the master speaks to it. It counts the next time.)
        _probe(r)
        # This node hears both. The master may be better off where it can be heard by more: that moves it once, while he who is cut
        # off would raise his ballot against it again and again.
        relieve = <Relieve *>frame_begin(r, FRAME_RELIEVE, bit(<uint32_t>remote_master(r)), 0, sizeof(Relieve))
        relieve.ballot = r.master_ballot
        relieve.heard = election_heard(r)
        frame_end(r, NULL)


cdef void election_prevote_reply(Replica *r, uint32_t index, const PrevoteReply *body) noexcept nogil:
    if body.promised.round > r.highest_round:
        r.highest_round = body.promised.round
    if r.role != ROLE_ASKING or ballot_compare(&body.ballot, &r.asked) != 0:
        return
    r.promises |= bit(index)
    if body.granted:
        r.granted |= bit(index)
    # The second case: others hear a master that this node does not hear, and there are proposals that it cannot hand over.
    # Who reaches a majority but not the master proposes, that is elects, by himself (design rule 6).
    if is_quorum(&r.members, r.chosen, r.granted) or (
            is_quorum(&r.members, r.chosen, r.promises) and _wants_master(r)
            and r.now - r.heard_master >= r.options.election_max << (r.forced + 1)):
        if not _bound(r):
            if not is_quorum(&r.members, r.chosen, r.granted):
                r.forced = min(r.forced + 1, <uint32_t>FORCED_MAX)
                r.forced_at = r.now
            _raise(r)


cdef void election_transferred(Replica *r, uint32_t index, const Transfer *body) noexcept nogil:
    """The master hands over: nobody is asked whether that is wanted. But it can give up no lease of another's: where a change has come
    in force that it has not been elected for, one under a lower ballot may hold one, by a grant of this very node."""
    if (r.role != ROLE_FOLLOWER or not r.may_lead or r.options.priority == 0 or not votes(r)
            or r.members.members[index].node != r.master or ballot_compare(&body.ballot, &r.master_ballot) != 0):
        return
    r.released_by = body.ballot
    if _bound(r):
        return
    _forget_master(r)
    _raise(r)


cdef inline bint _collects(const Replica *r) noexcept nogil:
    return r.role == ROLE_PREPARING or (r.role == ROLE_MASTER and r.extending)


cdef void election_promise_value(Replica *r, uint32_t index, const PromiseValue *body, Value *value) noexcept nogil:
    cdef Slot *s
    if not _collects(r) or ballot_compare(&body.ballot, &r.ballot) != 0 or body.attempt != r.attempt:
        return
    if body.accepted.round == 0 or not in_ring(r, body.instance):
        return
    s = slot_take(r, body.instance)
    if s.reported & bit(index):
        return                  # a duplicate is not a second report
    s.reported |= bit(index)
    r.promise_got[index] += 1
    if ballot_compare(&body.accepted, &s.report_ballot) > 0:
        value_ref(value)
        value_unref(s.report_value)
        s.report_value = value
        s.report_ballot = body.accepted


cdef void election_report_arriving(Replica *r, const Ballot *ballot, uint32_t size) noexcept nogil:
    """The candidate waits for it, and agrees to no other meanwhile: that one would ask for the same large values again."""
    if not _collects(r) or ballot_compare(ballot, &r.ballot) != 0:
        return
    r.report_until = r.now + r.options.resend + patience(size)
    if r.election_deadline < r.report_until:
        r.election_deadline = r.report_until


cdef void election_promise(Replica *r, uint32_t index, const Frame *frame, const Promise *body) noexcept nogil:
    if not _collects(r) or ballot_compare(&body.ballot, &r.ballot) != 0 or body.attempt != r.attempt:
        return
    if frame.chosen > r.chosen:
        return                  # learn what it knows first; election_won asks again from there
    r.promise_wanted[index] = body.count + 1


cdef void _close_promises(Replica *r) noexcept nogil:
    cdef uint32_t i
    for i in range(r.members.count):
        if r.promise_wanted[i] != 0 and r.promise_got[i] == r.promise_wanted[i] - 1:
            r.promises |= bit(i)


cdef bint election_won(Replica *r) noexcept nogil:
    cdef uint32_t mask
    if r.role != ROLE_PREPARING:
        return False
    if r.chosen != r.prepare_from:
        _begin_attempt(r)
    _close_promises(r)
    mask = r.promises
    if r.durable >= r.promise_record:
        mask |= bit(r.self)     # the own promise counts like any other: when its record is durable
    return is_quorum(&r.members, r.chosen, mask)


# ---- the ballot of a master, and new voters (rule 8) ----

cdef void election_extend(Replica *r) noexcept nogil:
    """What is in the slots stays: it comes from promises of this very ballot, which hold."""
    cdef uint64_t first = max(r.members.in_force, r.chosen)
    cdef uint64_t last = 0, i
    cdef Slot *s
    if is_majority(r.members.voters, r.promises | bit(r.self)):
        r.extending = False
        return
    if not r.extending or r.prepare_from != first:
        r.extending = True
        r.attempt += 1
        r.prepare_from = first
        memset(r.promise_wanted, 0, PLACES * sizeof(uint32_t))
        memset(r.promise_got, 0, PLACES * sizeof(uint32_t))
        for i in range(r.chosen, r.chosen + RING):
            s = slot_of(r, i)
            if s != NULL:
                s.reported = 0
        _send_prepare(r)
    _close_promises(r)
    if not is_majority(r.members.voters, r.promises | bit(r.self)):
        return
    r.extending = False
    # What they have reported is proposed before anything new (rule 4), and so is what was reported to the candidate.
    for i in range(first, r.chosen + RING):
        s = slot_of(r, i)
        if s != NULL and not s.own and (s.report_value != NULL or s.ballot.round != 0):
            last = i + 1
    if last > r.takeover_end:
        r.takeover_end = last


cdef void election_extend_tick(Replica *r) noexcept nogil:
    if r.role == ROLE_MASTER and r.extending and r.now - r.prepare_sent >= r.options.resend:
        _send_prepare(r)


cdef void election_master_heard(Replica *r, const Ballot *ballot) noexcept nogil:
    r.heard_master = r.now
    if r.forced and r.now - r.forced_at >= r.options.election_max << (FORCED_MAX + 2):
        r.forced = 0
    if ballot.round > r.highest_round:
        r.highest_round = ballot.round
    _set_deadline(r)


cdef void election_master_lost(Replica *r, uint32_t index) noexcept nogil:
    """The connection from the master is gone: no need to wait for the deadline to ask the others what they see."""
    if r.role == ROLE_FOLLOWER and r.master != 0 and r.members.members[index].node == r.master:
        r.heard_master = r.now - r.options.election_min
        r.election_deadline = r.now + draw(r, r.options.heartbeat // 5, r.options.heartbeat)


cdef uint32_t election_heard(const Replica *r) noexcept nogil:
    cdef uint32_t i, mask = bit(r.self)
    for i in range(r.members.count):
        if i != r.self and r.heard[i] != 0 and r.now - r.heard[i] < r.options.election_max:
            mask |= bit(i)
    return mask


cdef bint election_has_quorum(const Replica *r) noexcept nogil:
    return is_quorum(&r.members, r.chosen, election_heard(r))


cdef void election_give_up(Replica *r) noexcept nogil:
    """Those that hear it had waited for their timeout only now: of five in a star the one in the middle, who can lead, does."""
    cdef Relieve *body = <Relieve *>frame_begin(r, FRAME_RELIEVE, others(r), 0, sizeof(Relieve))
    body.ballot = r.ballot
    frame_end(r, NULL)


cdef bint election_relieved(const Replica *r, uint32_t index, const Relieve *body) noexcept nogil:
    """Whether that member had better be master: it hears more, or as many and is the one of two who may (so that this ends)."""
    cdef int his, mine
    if (r.role != ROLE_MASTER or not r.master_settled or r.hand_to != 0 or ballot_compare(&body.ballot, &r.ballot) != 0
            or not mastership_fit(r, index)):
        return False
    his = popcount(body.heard & r.members.voters)
    mine = popcount(election_heard(r) & r.members.voters)
    return his > mine or (his == mine and index > r.self)
