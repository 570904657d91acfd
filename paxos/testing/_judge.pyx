# cython: language_level=3
"""Judges of every step.

- One value per instance, and one chain checksum behind it, whoever takes it for chosen, whenever (S1, S3).
- A value is taken for chosen only when a majority has accepted it durably under one ballot (rule 5); nobody is told before (S7),
  and no frame names a watermark above what is chosen.
- A Promise, Accepted, Reject, Prepare or Accept leaves only when what it stands on is durable at its sender (rules 1 and 2).
- A ballot is used for values only when a majority has durably promised it (rule 8).
- Nothing is promised or accepted below a durable promise (rule 1).
- A node that lost its log does not vote until it is chosen as another incarnation, and knows all that is chosen below the
  instance from which on that counts (rule 10); from there on a ballot stands on no promise that was lost (rule 8).
- Where a log begins, and what a checkpoint is taken for, agrees with what was chosen (rules 15 and 19).
- A restart brings back every durable promise and acceptance (rule 14), and uses no ballot of an earlier life (rule 1).
- A ballot belongs to one life of one node, and names one value per instance (rules 1 and 4).
- No instance is proposed that is not within alpha of what its proposer knows chosen (rule 7).
- Master, version and length of leases are what the instances chosen make them, on every node, behind checkpoints and restarts, too.
- No two nodes hold a lease at one moment, each by its own clock (rule 21; looked at in _world). Who holds one promises to nobody,
  hands nothing over, and tells nobody of an instance that its reads do not know.

What is durable is read from the bytes that reached the simulated disk for good, not from what the code believes. Each finding is
kept in `why`; the first one counts.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

from paxos._codec cimport crc32c
from paxos._formation cimport Form
from paxos._log cimport RECORD_HEAD, log_aligned
from paxos._replica cimport Replica, Slot, slot_of
from paxos._types cimport (
    ALPHA, Accept, Accepted, Ballot, FRAME_ACCEPT, FRAME_ACCEPTED, Change, FRAME_HEARTBEAT, FRAME_PREPARE, FRAME_PROMISE, FRAME_PROMISE_VALUE,
    FRAME_REJECT, FRAME_TRANSFER, Frame, Heartbeat, Mastership, Prepare, Promise,
    MEMBER_VOTER, Member, MembershipRow, RECORD_BASE, RECORD_FORMATION, RecordBase, VALUE_CHANGE, VALUE_MASTER, RECORD_ACCEPT, RECORD_LEARN, RECORD_PROMISE, RECORD_WATERMARK, RECORD_WRITE, Record, RecordAccept, RecordLearn, RecordPromise, RecordWrite,
    Reject, Value, ballot_compare, bit, popcount, value_ref, value_unref, xrealloc,
)


cdef void judge_init(Judge *j, uint32_t nodes, uint32_t voters) noexcept nogil:
    memset(j, 0, sizeof(Judge))
    j.nodes = nodes
    _epoch(j, 0, voters)


cdef void _epoch(Judge *j, uint64_t first, uint32_t voters) noexcept nogil:
    if j.epoch_count == j.epoch_size:
        j.epoch_size = j.epoch_size * 2 if j.epoch_size else 8
        j.epochs = <Epoch *>xrealloc(j.epochs, j.epoch_size * sizeof(Epoch))
    j.epochs[j.epoch_count].first = first
    j.epochs[j.epoch_count].voters = voters
    j.epoch_count += 1


cdef uint32_t judge_voters(const Judge *j, uint64_t instance) noexcept nogil:
    cdef uint32_t i = j.epoch_count
    while j.epochs[i - 1].first > instance:
        i -= 1
    return j.epochs[i - 1].voters


cdef inline bint majority(uint32_t voters, uint32_t mask) noexcept nogil:
    return 2 * popcount(voters & mask) > popcount(voters)


cdef void judge_free(Judge *j) noexcept nogil:
    cdef uint64_t i
    for i in range(j.chosen_count):
        value_unref(j.chosen[i])
    free(j.chosen)
    free(j.chains)
    free(j.reigns)
    free(j.named)
    free(j.epochs)
    for i in range(j.nodes):
        free(j.ledgers[i].votes)
    memset(j, 0, sizeof(Judge))


cdef void judge_found(Judge *j, const char *what, uint32_t index, uint64_t instance) noexcept nogil:
    if j.failed or j.off:
        return
    j.failed = True
    snprintf(j.why, sizeof(j.why), "%s (node %u, instance %llu)", what, index + 1, <unsigned long long>instance)


cdef Vote *vote_at(Ledger *l, uint64_t instance) noexcept nogil:
    cdef uint64_t size
    if instance >= l.vote_size:
        size = l.vote_size * 2 if l.vote_size else 256
        while size <= instance:
            size *= 2
        l.votes = <Vote *>xrealloc(l.votes, size * sizeof(Vote))
        l.vote_size = size
    if instance >= l.vote_count:
        memset(l.votes + l.vote_count, 0, (instance + 1 - l.vote_count) * sizeof(Vote))
        l.vote_count = instance + 1
    return &l.votes[instance]


cdef uint32_t fingerprint(uint32_t kind, const uint8_t *data, size_t size) noexcept nogil:
    return crc32c(kind, data, size)


# ---- what reaches a disk ----

cdef void accepted(Vote *v, const Ballot *ballot, uint32_t crc) noexcept nogil:
    v.ballots[v.count % KEPT] = ballot[0]
    v.crcs[v.count % KEPT] = crc
    v.count += 1
    if ballot_compare(ballot, &v.ballot) >= 0:
        v.ballot = ballot[0]
        v.crc = crc
        v.there = True


cdef void persisted_record(Judge *j, uint32_t index, bint again, const Record *r, const uint8_t *body) noexcept nogil:
    cdef Ledger *l = &j.ledgers[index]
    cdef RecordPromise promise
    cdef RecordAccept accept
    cdef RecordLearn learn
    cdef RecordBase base
    cdef Form form
    cdef Member member
    cdef uint32_t i
    cdef Vote *v
    if r.type == RECORD_BASE:
        memcpy(&base, body, sizeof(base))
        if ballot_compare(&base.promised, &l.promised) < 0 and not again:
            judge_found(j, "the log was to begin with a promise below one that had been made", index, r.instance)
        elif ballot_compare(&base.promised, &l.promised) > 0:
            l.promised = base.promised
        if r.instance > j.chosen_count or (r.instance > 0 and base.chain != j.chains[r.instance - 1]):
            judge_found(j, "the log was to begin behind another series than was chosen", index, r.instance)
    elif r.type == RECORD_FORMATION:
        memcpy(&form, body, sizeof(form))
        for i in range(form.count):
            memcpy(&member, body + sizeof(form) + i * sizeof(member), sizeof(member))
            if not j.ledgers[member.node - 1].named:
                j.ledgers[member.node - 1].named = True
                j.ledgers[member.node - 1].inc_hi = member.inc_hi
                j.ledgers[member.node - 1].inc_lo = member.inc_lo
    elif r.type == RECORD_PROMISE:
        memcpy(&promise, body, sizeof(promise))
        if ballot_compare(&promise.ballot, &l.promised) > 0:
            l.promised = promise.ballot
        elif ballot_compare(&promise.ballot, &l.promised) < 0 and not again:
            judge_found(j, "a ballot was promised below one that had been", index, 0)
    elif r.type == RECORD_ACCEPT:
        memcpy(&accept, body, sizeof(accept))
        if ballot_compare(&accept.ballot, &l.promised) > 0:
            l.promised = accept.ballot
        elif ballot_compare(&accept.ballot, &l.promised) < 0 and not again:
            judge_found(j, "a value was accepted below the promise", index, r.instance)
        accepted(vote_at(l, r.instance), &accept.ballot,
                 fingerprint(accept.value.kind, body + sizeof(accept), accept.value.size))
    elif r.type == RECORD_LEARN:
        memcpy(&learn, body, sizeof(learn))
        v = vote_at(l, r.instance)
        v.crc = fingerprint(learn.value.kind, body + sizeof(learn), learn.value.size)
        v.there = True


cdef void judge_persisted(Judge *j, uint32_t index, uint64_t place, const uint8_t *data, size_t size) noexcept nogil:
    cdef Ledger *l = &j.ledgers[index]
    cdef bint again = place < l.end
    cdef Record r
    cdef RecordWrite write
    cdef size_t at = 0
    cdef uint32_t i
    if size < RECORD_HEAD + sizeof(RecordWrite):
        return
    memcpy(&r, data, RECORD_HEAD)
    if r.type != RECORD_WRITE or r.size != sizeof(RecordWrite):
        return                      # a header, or zeros
    memcpy(&write, data + RECORD_HEAD, sizeof(write))
    at = RECORD_HEAD + log_aligned(r.size)
    l.end = max(l.end, place + write.length)
    l.sealed = True
    for i in range(write.records):
        if at + RECORD_HEAD > size:
            return
        memcpy(&r, data + at, RECORD_HEAD)
        if at + RECORD_HEAD + r.size > size:
            return
        l.sealed = l.sealed and r.type == RECORD_WATERMARK
        persisted_record(j, index, again, &r, data + at + RECORD_HEAD)
        at += RECORD_HEAD + log_aligned(r.size)


cdef void judge_restored(Judge *j, uint32_t index, const Replica *r) noexcept nogil:
    cdef Ledger *l = &j.ledgers[index]
    cdef Slot *s
    cdef uint64_t i
    if r == NULL:
        if l.promised.round != 0:
            judge_found(j, "a restart forgot the cluster", index, 0)
        return
    if ballot_compare(&r.promised, &l.promised) < 0:
        judge_found(j, "a restart forgot a durable promise", index, 0)
    if r.chosen > j.chosen_count or (r.chosen > 0 and r.chain != j.chains[r.chosen - 1]):
        judge_found(j, "a restart brought back another series than was chosen", index, r.chosen)
    elif r.chosen > 0:
        # (Where the log begins, it was perhaps written what the mastership had become later.)
        l.at = max(r.chosen, r.members.mastered) - 1
        l.ahead = False
        judge_mastership(j, index, r.members.master, r.members.mastership, r.members.lease)
    for i in range(r.chosen, l.vote_count):
        if l.votes[i].ballot.round == 0:
            continue
        s = slot_of(<Replica *>r, i)
        if s == NULL or ballot_compare(&s.ballot, &l.votes[i].ballot) < 0:
            judge_found(j, "a restart forgot a durable acceptance", index, i)
            return
        if (ballot_compare(&s.ballot, &l.votes[i].ballot) == 0
                and fingerprint(s.value.kind, s.value.data, s.value.size) != l.votes[i].crc):
            judge_found(j, "a restart brought back another value than was accepted", index, i)


# ---- what leaves a node ----

cdef void own_ballot(Judge *j, uint32_t index, uint32_t life, const Ballot *ballot, uint64_t instance) noexcept nogil:
    cdef Ledger *l = &j.ledgers[index]
    cdef int order = ballot_compare(ballot, &l.prepared)
    if ballot_compare(&l.promised, ballot) < 0:
        judge_found(j, "a ballot left its node before it was durable there", index, instance)
    if order > 0:
        l.prepared = ballot[0]
        j.ballots += 1
        l.prepared_life = life
    elif l.prepared_life != life:
        judge_found(j, "a ballot was used again after a restart" if order == 0 else "a ballot of an earlier life was used", index, instance)


cdef void accept_sent(Judge *j, uint32_t index, const Accept *a, Value *value, const uint8_t *rest) noexcept nogil:
    cdef uint64_t size
    cdef Named *n
    cdef uint32_t crc
    if value != NULL:
        rest = value.data
    crc = fingerprint(a.value.kind, rest, a.value.size)
    if a.instance >= j.named_size:
        size = j.named_size * 2 if j.named_size else 256
        while size <= a.instance:
            size *= 2
        j.named = <Named *>xrealloc(j.named, size * sizeof(Named))
        j.named_size = size
    if a.instance >= j.named_count:
        memset(j.named + j.named_count, 0, (a.instance + 1 - j.named_count) * sizeof(Named))
        j.named_count = a.instance + 1
    n = &j.named[a.instance]
    if ballot_compare(&a.ballot, &n.ballot) == 0:
        if n.crc != crc:
            judge_found(j, "one ballot was given two values for an instance", index, a.instance)
    elif ballot_compare(&a.ballot, &n.ballot) > 0:
        n.ballot = a.ballot
        n.crc = crc


cdef uint32_t promisers(const Judge *j, const Ballot *ballot, uint64_t instance) noexcept nogil:
    """Nodes that have durably promised this ballot or a higher one, as an incarnation that counts at that instance."""
    cdef uint32_t i, mask = 0
    for i in range(j.nodes):
        if ballot_compare(&j.ledgers[i].promised, ballot) >= 0:
            mask |= bit(i)
        elif ballot_compare(&j.ledgers[i].promised_before, ballot) >= 0 and (not j.ledgers[i].since or instance < j.ledgers[i].since):
            mask |= bit(i)
    return mask


cdef void judge_sent(Judge *j, uint32_t index, uint32_t life, const uint8_t *frame, size_t head, Value *value) noexcept nogil:
    cdef const Frame *f = <const Frame *>frame
    cdef const uint8_t *body = frame + sizeof(Frame)
    cdef Ledger *l = &j.ledgers[index]
    cdef const Accepted *accepted
    cdef uint64_t i
    if f.chosen > j.chosen_count:
        judge_found(j, "a frame names a watermark above what anybody knows chosen", index, f.chosen)
    if (l.lost and FRAME_PREPARE <= f.type <= FRAME_HEARTBEAT
            and (f.inc_hi != l.inc_hi or f.inc_lo != l.inc_lo or f.chosen < l.since)):
        judge_found(j, "a node that lost its log took part in votes before it was taken in, or knew enough (rule 10)", index, f.chosen)
    # (The last of a master that leaves tells what it knows chosen, and asks for nothing.)
    if (FRAME_PREPARE <= f.type <= FRAME_HEARTBEAT and f.type != FRAME_REJECT and f.chosen <= j.chosen_count
            and (f.type != FRAME_HEARTBEAT or (<const Heartbeat *>body).sent_at != 0) and not judge_voters(j, f.chosen) & bit(index)):
        judge_found(j, "a node took part in votes that has none there (rules 7 and 10)", index, f.chosen)
    if f.type == FRAME_PROMISE:
        if ballot_compare(&l.promised, &(<const Promise *>body).ballot) < 0:
            judge_found(j, "a promise left before it was durable", index, 0)
    elif f.type == FRAME_REJECT:
        if ballot_compare(&l.promised, &(<const Reject *>body).promised) < 0:
            judge_found(j, "a refusal named a promise that was not durable", index, 0)
    elif f.type == FRAME_ACCEPTED:
        accepted = <const Accepted *>body
        for i in range(accepted.first, accepted.last + 1):
            if i >= l.vote_count or ballot_compare(&l.votes[i].ballot, &accepted.ballot) < 0:
                judge_found(j, "an acceptance left before it was durable", index, i)
                return
    elif f.type == FRAME_PREPARE:
        own_ballot(j, index, life, &(<const Prepare *>body).ballot, (<const Prepare *>body).first)
    elif f.type == FRAME_ACCEPT:
        own_ballot(j, index, life, &(<const Accept *>body).ballot, (<const Accept *>body).instance)
        if not majority(judge_voters(j, (<const Accept *>body).instance),
                        promisers(j, &(<const Accept *>body).ballot, (<const Accept *>body).instance)):
            judge_found(j, "a ballot was used that no majority has promised durably", index, (<const Accept *>body).instance)
        accept_sent(j, index, <const Accept *>body, value, body + sizeof(Accept))
        if (<const Accept *>body).instance >= f.chosen + ALPHA:
            judge_found(j, "an instance was proposed further ahead than alpha", index, (<const Accept *>body).instance)


# ---- what is taken for chosen ----

cdef uint32_t holders(const Judge *j, uint64_t instance) noexcept nogil:
    """Nodes that hold the chosen value of an instance durably."""
    cdef Value *value = j.chosen[instance]
    cdef uint32_t crc = fingerprint(value.kind, value.data, value.size)
    cdef uint32_t i, mask = 0
    for i in range(j.nodes):
        if instance < j.ledgers[i].vote_count and j.ledgers[i].votes[instance].there and j.ledgers[i].votes[instance].crc == crc:
            mask |= bit(i)
    return mask


cdef bint by_quorum(const Judge *j, uint64_t instance) noexcept nogil:
    """Whether a majority has accepted the chosen value of an instance durably, under one ballot."""
    cdef Value *value = j.chosen[instance]
    cdef uint32_t crc = fingerprint(value.kind, value.data, value.size)
    cdef uint32_t i, k, n, m, mask
    cdef uint32_t voters = judge_voters(j, instance)
    cdef const Vote *v
    cdef const Vote *other
    for i in range(j.nodes):
        if instance >= j.ledgers[i].vote_count:
            continue
        v = &j.ledgers[i].votes[instance]
        for k in range(min(v.count, <uint32_t>KEPT)):
            mask = 0
            for n in range(j.nodes):
                if instance >= j.ledgers[n].vote_count or v.crcs[k] != crc:
                    continue
                other = &j.ledgers[n].votes[instance]
                for m in range(min(other.count, <uint32_t>KEPT)):
                    if other.crcs[m] == crc and ballot_compare(&other.ballots[m], &v.ballots[k]) == 0:
                        mask |= bit(n)
                        break
            if majority(voters, mask):
                return True
    return False


cdef void changed(Judge *j, uint64_t instance, const Value *value) noexcept nogil:
    """A change of the membership. (Ids of simulated nodes are 1, 2, …)"""
    cdef Change change
    cdef MembershipRow row
    cdef Ledger *l
    cdef size_t at = sizeof(change)
    cdef const Epoch *now = &j.epochs[j.epoch_count - 1]
    cdef uint32_t voters = 0, i
    cdef bint others = False
    memcpy(&change, value.data, sizeof(change))
    if change.version != j.changes or (now.first and instance <= now.first):
        return
    j.changes += 1
    for i in range(change.count):
        memcpy(&row, value.data + at, sizeof(row))
        at += sizeof(row) + row.address
        if row.node == 0:
            continue
        if row.node > j.nodes:
            judge_found(j, "a change of the membership names a node that is none", 0, instance)
            return
        l = &j.ledgers[row.node - 1]
        if row.role == MEMBER_VOTER:
            voters |= bit(row.node - 1)
            others = others or (l.named and (l.inc_hi != row.inc_hi or l.inc_lo != row.inc_lo))
            # (Who has lost its log may be a voter later for a second time, and vote in between.)
            if l.named and (l.inc_hi != row.inc_hi or l.inc_lo != row.inc_lo) or (
                    l.lost and l.since == 0 and (l.gone_hi != row.inc_hi or l.gone_lo != row.inc_lo)):
                l.since = instance + ALPHA
        l.named = True
        l.inc_hi = row.inc_hi
        l.inc_lo = row.inc_lo
    if others or voters != now.voters:
        _epoch(j, instance + ALPHA, voters)


cdef void reigned(Judge *j, uint64_t instance, const Value *value) noexcept nogil:
    """What an instance makes of the mastership."""
    cdef Reign *r = &j.reigns[instance]
    cdef Mastership body
    if instance > 0:
        r[0] = j.reigns[instance - 1]
    else:
        memset(r, 0, sizeof(Reign))
    if value.kind != VALUE_MASTER:
        return
    memcpy(&body, value.data, sizeof(body))
    if body.takeover:
        r.version += 1
        r.master = body.node
    else:
        r.lease = body.lease


cdef void judge_mastership(Judge *j, uint32_t index, uint32_t master, uint64_t version, uint64_t lease) noexcept nogil:
    cdef uint64_t at = j.ledgers[index].at
    cdef const Reign *r
    if at >= j.chosen_count:
        return                      # (that has been found already)
    r = &j.reigns[at]
    while j.ledgers[index].ahead and at + 1 < j.chosen_count and (r.version != version or r.master != master or r.lease != lease):
        at += 1
        r = &j.reigns[at]
    if r.version != version or r.master != master:
        judge_found(j, "a version of the mastership that is not the one of its master, or another than was chosen", index, at)
    elif r.lease != lease:
        judge_found(j, "another length of leases than was chosen", index, at)


cdef void judge_leased(Judge *j, uint32_t index, uint64_t known, const uint8_t *frame) noexcept nogil:
    cdef const Frame *f = <const Frame *>frame
    if f.type == FRAME_PROMISE or f.type == FRAME_PROMISE_VALUE or f.type == FRAME_TRANSFER:
        judge_found(j, "a node promised, or handed over, before it had given its lease up (rule 21)", index, f.chosen)
    elif f.chosen > known:
        judge_found(j, "a node told of an instance before those who read there under its lease would see it (rule 21)", index, f.chosen)


cdef void judge_chosen(Judge *j, uint32_t index, uint64_t instance, uint32_t chain, Value *value) noexcept nogil:
    cdef Value *known
    j.ledgers[index].at = instance
    j.ledgers[index].ahead = False
    if instance < j.chosen_count:
        known = j.chosen[instance]
        if (known.size != value.size or known.kind != value.kind or known.count != value.count
                or memcmp(known.data, value.data, value.size) != 0):
            judge_found(j, "two values were taken for chosen", index, instance)
        elif j.chains[instance] != chain:
            judge_found(j, "two chain checksums behind one instance", index, instance)
        return
    if instance > j.chosen_count:
        judge_found(j, "an instance was taken for chosen with a gap before it", index, instance)
        return
    if j.chosen_count == j.chosen_size:
        j.chosen_size = j.chosen_size * 2 if j.chosen_size else 256
        j.chosen = <Value **>xrealloc(j.chosen, j.chosen_size * sizeof(Value *))
        j.chains = <uint32_t *>xrealloc(j.chains, j.chosen_size * sizeof(uint32_t))
        j.reigns = <Reign *>xrealloc(j.reigns, j.chosen_size * sizeof(Reign))
    j.chosen[instance] = value_ref(value)
    j.chains[instance] = chain
    j.chosen_count += 1
    reigned(j, instance, value)
    if value.kind == VALUE_CHANGE:
        changed(j, instance, value)
    if not by_quorum(j, instance):
        judge_found(j, "a value was taken for chosen that no majority has durably accepted under one ballot", index, instance)


cdef void judge_lost(Judge *j, uint32_t index, uint64_t inc_hi, uint64_t inc_lo) noexcept nogil:
    cdef Ledger *l = &j.ledgers[index]
    cdef uint64_t i
    l.lost = True
    l.gone_hi = inc_hi
    l.gone_lo = inc_lo
    if ballot_compare(&l.promised, &l.promised_before) > 0:
        l.promised_before = l.promised
    memset(&l.promised, 0, sizeof(Ballot))
    memset(&l.prepared, 0, sizeof(Ballot))
    l.end = 0
    l.since = 0
    # What it accepted has counted, and may have made a value chosen; but nobody expects it to know of that.
    for i in range(l.vote_count):
        memset(&l.votes[i].ballot, 0, sizeof(Ballot))


cdef void judge_installed(Judge *j, uint32_t index, uint64_t instance, uint32_t chain) noexcept nogil:
    if instance > j.chosen_count or chain != j.chains[instance - 1]:
        judge_found(j, "a checkpoint of another series than was chosen was installed", index, instance)
    j.ledgers[index].at = instance - 1
    j.ledgers[index].ahead = True


cdef void judge_acknowledged(Judge *j, uint64_t instance) noexcept nogil:
    if instance >= j.chosen_count:
        judge_found(j, "a proposal was acknowledged in an instance that nobody knows chosen", 0, instance)
    elif not majority(judge_voters(j, instance), holders(j, instance)):
        judge_found(j, "a proposal was acknowledged before a majority held it durably", 0, instance)
