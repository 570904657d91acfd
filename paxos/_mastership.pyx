# cython: language_level=3
"""Mastership as replicated state, the lease on it, and handing it over.

**State.** A new master's first own instance says who it is; each such value counts the version up, which so is the same number on all
nodes and serves as a fencing token. The same kind of value changes the length of leases. Values that were counted already, in what
came with a checkpoint or stands in the log's beginning, are not counted twice (`mastered`).

**Lease** (rule 21; only where its length is not 0). With its answer to a heartbeat a node grants the master that it will promise to
nobody else for so long, by its own clock from then on. The master counts from before it asked, and takes a share off for clocks
that do not run alike. It holds the lease while a quorum's grants last, each member counted like in a read (_reader). What the length is
a node must not forget by a crash: it grants only when that is durable, and who starts promises to nobody for as long as a lease lasts.
Nothing here matters for what is chosen: a master without a lease is a master.

**Handing over.** A master stops taking new values up, waits until all its instances are chosen, gives up the lease of its ballot for
good, and tells the other node to stand at once; its Prepare names the ballot that was released.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from paxos._codec cimport out_effect
from paxos._membership cimport membership_led, votes
from paxos._replica cimport ROLE_MASTER, Replica, frame_begin, frame_end, promise_here
from paxos._types cimport (
    Ballot, EFFECT_MASTERSHIP, Effect, FRAME_TRANSFER, Frame, HeartbeatReply, Mastership, Transfer,
    PLACES, VALUE_MASTER, Value, ballot_compare, bit, is_quorum_of_all, value_new,
)

cdef enum:
    DRIFT_SHIFT = 6                 # a lease is 1/64 shorter for its holder: two clocks may differ by 0.7 % each
    PREFERRED_MAX = 9               # 1024 times the longest election timeout, ten minutes, between two hand-overs for a priority
    LEVEL = 1024                    # instances that the one who takes over may lack: it learns them from the others first


# ---- replicated state ----

cdef Value *mastership_value(const Replica *r, bint takeover, uint64_t lease) noexcept nogil:
    cdef Mastership body
    cdef Value *value = value_new(VALUE_MASTER, 0, sizeof(Mastership))
    body.node = r.options.node
    body.takeover = takeover
    body.inc_hi = r.inc_hi
    body.inc_lo = r.inc_lo
    body.lease = lease
    memcpy(value.data, &body, sizeof(Mastership))
    return value


cdef void mastership_chosen(Replica *r, uint64_t instance, const Value *value) noexcept nogil:
    cdef Mastership body
    cdef Effect *e
    if instance < r.members.mastered:
        return
    memcpy(&body, value.data, sizeof(Mastership))
    r.members.mastered = instance + 1
    if body.takeover:
        # (What leases are it leaves alone: perhaps the instance before it, not known chosen when this one was proposed, has changed that.)
        r.members.mastership += 1
        r.members.master = body.node
    else:
        # A granter that starts again knows the new length only. The holder is the first to know it, and counts on nothing older.
        memset(r.granted_until, 0, PLACES * sizeof(int64_t))
        r.members.lease = body.lease
    e = out_effect(&r.out, EFFECT_MASTERSHIP)
    e.code = r.members.master
    e.instance = r.members.mastership
    e.end = r.members.lease


cdef void mastership_logged(Replica *r) noexcept nogil:
    r.lease_logged = r.members.lease
    r.lease_record = r.logged


# ---- the lease: the master's side ----

cdef void mastership_begin(Replica *r) noexcept nogil:
    memset(r.granted_until, 0, PLACES * sizeof(int64_t))
    r.released = False
    r.hand_to = 0
    r.handed = False
    r.told = False
    r.prefer = 0
    r.leaving = False
    r.lease_wanted = 0
    # Whoever is elected has outlived what was granted to others, by himself, too.
    r.grant_until = 0
    r.granting = 0


cdef void mastership_answered(Replica *r, uint32_t index, const Frame *frame, const HeartbeatReply *body) noexcept nogil:
    cdef uint64_t lease = min(body.lease, r.members.lease)
    cdef int64_t until
    r.priority[index] = body.priority
    # Who has not yet got to know the newest change of the length may start again between two, and be silent for neither.
    if body.sent_at == 0 or body.sent_at > r.round or lease == 0 or frame.chosen < r.members.mastered:
        return
    until = <int64_t>(body.sent_at + lease - (lease >> DRIFT_SHIFT))
    if until > r.granted_until[index]:
        r.granted_until[index] = until


cdef int64_t mastership_lease(const Replica *r) noexcept nogil:
    cdef uint32_t i, k, mask
    cdef int64_t until, best = 0
    if r.role != ROLE_MASTER or not r.master_settled or r.released or r.members.lease == 0 or not membership_led(r):
        return 0
    if is_quorum_of_all(&r.members, r.chosen, bit(r.self)):
        return r.now + <int64_t>r.members.lease
    for i in range(r.members.count):
        until = r.granted_until[i]
        if until <= best:
            continue
        mask = bit(r.self)
        for k in range(r.members.count):
            # (Who came in by a change that is not in force here yet does not count, as for a read.)
            if r.granted_until[k] >= until and r.members.since[k] <= r.chosen:
                mask |= bit(k)
        if is_quorum_of_all(&r.members, r.chosen, mask):
            best = until
    return best


# ---- the lease: who grants it ----

cdef uint64_t mastership_grant(Replica *r, const Ballot *ballot) noexcept nogil:
    cdef Ballot none
    memset(&none, 0, sizeof(Ballot))
    if not votes(r) or r.members.lease == 0 or r.durable < r.lease_record:
        return 0
    # Not while another one's lasts: this master may have been elected by the voters before a change, and that one, under a lower
    # ballot, by those behind it.
    if mastership_bound(r, ballot, &none):
        return 0
    # Only who has promised the ballot, durably, grants: no older one is heard from then on, nor after a restart.
    if ballot_compare(&r.promised, ballot) < 0:
        promise_here(r, ballot)
    if r.durable < r.promise_record:
        return 0
    r.grant = ballot[0]
    r.grant_lease = r.members.lease
    r.granting = r.now
    return r.grant_lease


cdef void mastership_now(Replica *r) noexcept nogil:
    # The clock was read before the step in which a grant was given, perhaps long before: the thread may have been stopped in
    # between. So it counts from the next time on.
    if r.granting != 0 and r.now > r.granting:
        r.granting = 0
        r.grant_until = max(r.grant_until, r.now + <int64_t>r.grant_lease)


cdef bint mastership_bound(const Replica *r, const Ballot *ballot, const Ballot *released) noexcept nogil:
    if r.now >= r.grant_until and r.granting == 0:
        return False
    if r.grant.round == 0:
        return True                 # since a start: to whom was promised before is not known
    if ballot.node == r.grant.node and ballot.inc_hi == r.grant.inc_hi and ballot.inc_lo == r.grant.inc_lo:
        return False
    return ballot_compare(released, &r.grant) != 0


cdef void mastership_freed(Replica *r, const Ballot *released) noexcept nogil:
    """A lease was given up for good."""
    if released.round != 0 and ballot_compare(released, &r.grant) == 0:
        r.grant_until = 0
        r.granting = 0


# ---- handing over ----

cdef bint mastership_fit(const Replica *r, uint32_t index) noexcept nogil:
    """Whether a member can take over at once."""
    return (index != r.self and r.members.voters & bit(index) and r.priority[index] != 0 and not r.down & bit(index) and r.heard[index] != 0
            and r.now - r.heard[index] < r.options.election_min and r.members.since[index] <= r.chosen
            and r.known[index] + LEVEL >= r.chosen and r.known[index] >= r.first_kept)


cdef int mastership_best(const Replica *r) noexcept nogil:
    """The highest priority first; of these the one that knows most."""
    cdef uint32_t i
    cdef int best = -1
    for i in range(r.members.count):
        if mastership_fit(r, i) and (best < 0 or r.priority[i] > r.priority[best]
                                     or (r.priority[i] == r.priority[best] and r.known[i] > r.known[best])):
            best = <int>i
    return best


cdef void mastership_hand(Replica *r, uint32_t index) noexcept nogil:
    r.hand_to = index + 1
    r.handed = False
    r.hand_until = r.now + r.options.election_min
    r.released = True


cdef void mastership_tell(Replica *r) noexcept nogil:
    # It stands on what is chosen, and its receiver on the promise of this ballot.
    cdef Transfer *body = <Transfer *>frame_begin(r, FRAME_TRANSFER, bit(r.hand_to - 1), r.promise_record, sizeof(Transfer))
    body.ballot = r.ballot
    frame_end(r, NULL)
    r.handed = True
    r.told = True


cdef void mastership_leave(Replica *r) noexcept nogil:
    """A master that will have no vote hands over while it still has one; once, for to wait in vain keeps others waiting."""
    if not r.leaving and r.master_settled and r.hand_to == 0 and not r.members.voters & bit(r.self):
        r.leaving = True
        if mastership_best(r) >= 0:
            mastership_hand(r, <uint32_t>mastership_best(r))


cdef void mastership_tick(Replica *r) noexcept nogil:
    """With every heartbeat: is there somebody who should rather be master?"""
    cdef int best
    if r.hand_to != 0 or not r.master_settled:
        return
    best = mastership_best(r)
    if best < 0 or r.priority[best] <= r.options.priority:
        r.prefer = 0
    elif r.prefer != <uint32_t>best + 1:
        r.prefer = <uint32_t>best + 1
        r.prefer_since = r.now
    elif r.now - r.prefer_since >= (r.options.election_max * 2) << r.preferred:
        # Each time it takes twice as long: that node may be one that few can hear, and hands over again, or does not take over.
        if r.now - r.preferred_at >= r.options.election_max << (PREFERRED_MAX + 4):
            r.preferred = 0
        r.preferred = min(r.preferred + 1, <uint32_t>PREFERRED_MAX)
        r.preferred_at = r.now
        r.prefer = 0
        mastership_hand(r, <uint32_t>best)
