# cython: language_level=3, overflowcheck=False
"""One node as the explorer sees it: a core, what its host keeps, and its disk.

A node is saved as a string and loaded from it again, so three cores serve for all states. What a single event must not do,
whatever the other nodes are, is judged here.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from paxos._codec cimport chain_next, out_clear, value_head
from paxos._core cimport (
    replica_change, replica_durable, replica_free, replica_members, replica_new, replica_pump, replica_receive,
    replica_resign, replica_restore, replica_start, replica_submit, replica_tick,
)
from paxos._membership cimport (
    membership_derive, membership_read, membership_remove, membership_size, membership_write, votes,
)
from paxos._replica cimport Options, ROLE_FOLLOWER, ROLE_MASTER, ROLE_PREPARING, Replica
from paxos._types cimport (
    life_of, Accept, Accepted, Ballot, ChunkHead, EFFECT_CHOSEN, EFFECT_DIVERGED, EFFECT_LOG, EFFECT_MEMBERSHIP,
    EFFECT_READ, EFFECT_SEND, EFFECT_SETTLED, Effect, FRAME_ACCEPT, FRAME_ACCEPTED, FRAME_FORWARD, FRAME_HEARTBEAT,
    FRAME_LEARNED, FRAME_MEMBERS, FRAME_PREPARE, FRAME_PREVOTE, FRAME_PREVOTE_REPLY, FRAME_PROMISE, FRAME_PROMISE_VALUE,
    FRAME_REJECT, Frame, Learned, MEMBER_FOLLOWER, MEMBER_VOTER, Member, Membership, MembershipHead, PrevoteReply, Promise,
    PromiseValue, RECORD_ACCEPT, RecordAccept, Reject, SETTLE_UNKNOWN, VALUE_BATCH, Value, ValueHead, ballot_compare, bit,
    value_new, value_unref,
)
from paxos.testing._book cimport (
    Book, DEEPEST, NODES, RecordStart, ballot_number, ballot_of, chunk_number, fact_number, message_number, record_number,
    value_number, vote_number,
)
from paxos.testing._saved cimport FAR, NOW, Tape, forget_roles, get, get64, get_core, put, put64, put_core
from paxos.testing._tables cimport Strings, strings_data, strings_number, strings_size


# ---- a node as a string ----


cdef bint _idle(const Host *h) noexcept nogil:
    """Nobody's master and no candidate, now and for ever: only acceptor and learner can still do something. (A node that was
    master still answers what is forwarded to it.)"""
    return (not h.scope.plain and h.core.role == ROLE_FOLLOWER and h.elections == h.scope.elections[h.index]
            and h.values == h.scope.values[h.index] and h.core.pending_first == h.core.pending_end
            and (h.core.ballot.round == 0 or not h.scope.carried & bit(FRAME_FORWARD - FRAME_PREVOTE)))


cdef uint32_t host_save(Host *h, Strings *saved, About *about) noexcept nogil:
    cdef Tape t
    cdef uint32_t i
    cdef bint idle = _idle(h)
    about.ballot = ballot_number(h.book, &h.core.ballot)
    if idle:
        forget_roles(h.core)
    _sort_held(h)
    t.at, t.full = 0, False
    put(&t, h.index)
    put(&t, h.elections)
    put(&t, h.values)
    put(&t, h.expiries)
    put(&t, h.crashes)
    put(&t, h.changes)
    put(&t, h.losses)
    put64(&t, h.votes)
    put64(&t, h.votes_lost)
    put(&t, h.promised_lost)
    put64(&t, h.refused)
    put(&t, h.known_count)
    for i in range(h.known_count):
        put(&t, h.known[i])
    put(&t, h.written_count)
    for i in range(h.written_count):
        put(&t, h.written[i])
    put(&t, h.held_count)
    for i in range(h.held_count):
        put(&t, h.held[i].after - h.core.durable)
        put(&t, h.held[i].message)
    put_core(&t, h.book, h.core)
    put_core(&t, h.book, h.disk)
    if t.full:
        h.book.full = True
    about.refused, about.facts, about.life = h.refused, 0, h.losses
    about.votes[0], about.votes[1] = h.votes, 0
    if h.losses:
        about.votes[0], about.votes[1] = h.votes_lost, h.votes
    for i in range(h.known_count):
        about.facts |= <uint64_t>1 << fact_number(h.book, i, h.known[i])
    about.crashes, about.written = h.crashes, h.written_count
    about.may_stand = h.elections < h.scope.elections[h.index] and votes(h.core)
    about.may_submit = h.values < h.scope.values[h.index]
    about.may_expire = h.expiries < h.scope.expiries[h.index] and h.core.pending_first < h.core.pending_end
    about.may_crash = h.crashes < h.scope.crashes[h.index]
    about.may_change = h.changes < h.scope.changes[h.index] and h.core.role == ROLE_MASTER
    about.may_lose = h.losses < h.scope.losses[h.index]
    about.role, about.idle, about.attempt = h.core.role, idle, h.core.attempt
    about.collects = h.core.role == ROLE_PREPARING or (h.core.role == ROLE_MASTER and h.core.extending)
    about.chosen[0], about.promised[0] = <uint32_t>h.core.chosen, ballot_number(h.book, &h.core.promised)
    about.chosen[1], about.promised[1] = <uint32_t>h.disk.chosen, ballot_number(h.book, &h.disk.promised)
    about.promised_by[0] = h.promised_lost if h.losses else about.promised[1]
    about.promised_by[1] = about.promised[1] if h.losses else 0
    about.version[0], about.version[1] = h.core.members.version, h.disk.members.version
    return strings_number(saved, t.cells, t.at * sizeof(uint16_t))


cdef void _sort_held(Host *h) noexcept nogil:
    """By message, each once: which way a frame came to be held back twice makes no difference."""
    cdef uint32_t i, j, at, count = 0
    cdef Held one
    for i in range(h.held_count):
        one = h.held[i]
        at = count
        while at > 0 and h.held[at - 1].message > one.message:
            at -= 1
        if at > 0 and h.held[at - 1].message == one.message:
            if one.after < h.held[at - 1].after:
                h.held[at - 1].after = one.after
            continue
        count += 1
        j = count - 1
        while j > at:
            h.held[j] = h.held[j - 1]
            j -= 1
        h.held[at] = one
    h.held_count = count


cdef void _name(Host *h) noexcept nogil:
    """Which incarnation it is, and which of its lives. (Where it has lost its disk the boots go on: so no two chunks are one.)"""
    h.core.inc_hi = h.disk.inc_hi = high_of(h.index, h.losses)
    h.core.inc_lo = h.disk.inc_lo = low_of(h.index, h.losses)
    h.core.boot = h.crashes + h.losses + 1


cdef void host_load(Host *h, const Strings *saved, uint32_t number) noexcept nogil:
    cdef Tape t
    cdef uint32_t i
    t.at = 0
    memcpy(t.cells, strings_data(saved, number), strings_size(saved, number))
    h.index = get(&t)
    h.elections = get(&t)
    h.values = get(&t)
    h.expiries = get(&t)
    h.crashes = get(&t)
    h.changes = get(&t)
    h.losses = get(&t)
    h.votes = get64(&t)
    h.votes_lost = get64(&t)
    h.promised_lost = get(&t)
    h.refused = get64(&t)
    h.known_count = get(&t)
    for i in range(h.known_count):
        h.known[i] = <uint16_t>get(&t)
    h.written_count = get(&t)
    for i in range(h.written_count):
        h.written[i] = <uint16_t>get(&t)
    h.held_count = get(&t)
    for i in range(h.held_count):
        h.held[i].after = <uint16_t>get(&t)
        h.held[i].message = <uint16_t>get(&t)
    _name(h)
    get_core(&t, h.book, h.core)
    get_core(&t, h.book, h.disk)
    h.core.logged = h.written_count
    h.sent_count = 0
    h.wrong = RIGHT


cdef bint host_is_deaf(Book *b, const Scope *scope, const About *about, uint32_t message, bint crashes) noexcept nogil:
    """Whether a message that changes nothing at a node now will not do so later either. `crashes`: it may crash again."""
    cdef const Frame *frame = <const Frame *>(strings_data(&b.messages, message) + 8)
    cdef const uint8_t *body = <const uint8_t *>frame + sizeof(Frame)
    cdef const Ballot *ballot = <const Ballot *>body
    # What neither goes down nor is lost, not even in a crash.
    cdef uint64_t chosen = about.chosen[crashes]
    cdef Ballot promised = ballot_of(b, about.promised[crashes])
    cdef Ballot own = ballot_of(b, about.ballot)
    # What is refused has one effect more: the refusal names the promise, and that may be a higher one next time.
    cdef bint low = ballot_compare(ballot, &promised) < 0 and not scope.carried & bit(FRAME_REJECT - FRAME_PREVOTE)
    if about.may_lose:
        return False
    if frame.type == FRAME_PROMISE or frame.type == FRAME_PROMISE_VALUE:
        if about.idle:
            return True
        # (Each attempt has a number of its own. Who collects for none now waits for no more promises of this one.)
        return about.role >= ROLE_PREPARING and (not about.collects or ballot_compare(ballot, &own) != 0 or about.attempt != (
            (<const Promise *>body).attempt if frame.type == FRAME_PROMISE else (<const PromiseValue *>body).attempt))
    if frame.type == FRAME_ACCEPTED:
        return about.idle or (<const Accepted *>body).last < chosen or (
            about.role >= ROLE_PREPARING and ballot_compare(ballot, &own) != 0)
    if frame.type == FRAME_PREPARE:
        return low
    if frame.type == FRAME_ACCEPT:
        return low or (about.idle and (<const Accept *>body).instance < chosen and frame.chosen <= chosen)
    if frame.type == FRAME_HEARTBEAT:
        return low or (about.idle and frame.chosen <= chosen)
    if frame.type == FRAME_LEARNED:
        return (<const Learned *>body).first < chosen
    if frame.type == FRAME_MEMBERS:
        return (<const MembershipHead *>body).version <= about.version[crashes]
    return frame.type == FRAME_REJECT and about.idle


# ---- judges of what leaves a node ----

cdef void _judge(Host *h, const Frame *frame) noexcept nogil:
    """A frame leaves only when a crash at this moment would leave on the disk what it stands on (rules 1 and 2)."""
    cdef const uint8_t *body = <const uint8_t *>frame + sizeof(Frame)
    cdef const Ballot *ballot = <const Ballot *>body        # the first field of every body that is judged
    cdef const PromiseValue *report = <const PromiseValue *>body
    cdef const Accepted *accepted = <const Accepted *>body
    cdef bint durable = ballot_compare(ballot, &h.disk.promised) <= 0
    if frame.type in (FRAME_PREPARE, FRAME_ACCEPT, FRAME_HEARTBEAT):
        if ballot.node != frame.sender:
            h.wrong = WRONG_OWNER
        elif not durable:
            h.wrong = WRONG_PREPARE
    elif frame.type == FRAME_PROMISE:
        if not durable:
            h.wrong = WRONG_PROMISE
    elif frame.type == FRAME_PROMISE_VALUE:
        if not _voted(h, <uint32_t>report.instance, ballot_number(h.book, &report.accepted)):
            h.wrong = WRONG_REPORT
    elif frame.type == FRAME_ACCEPTED:
        if not _voted(h, <uint32_t>accepted.first, ballot_number(h.book, ballot)):
            h.wrong = WRONG_ACCEPTED
    elif frame.type == FRAME_REJECT:
        if ballot_compare(&(<const Reject *>body).promised, &h.disk.promised) > 0:
            h.wrong = WRONG_REJECT


cdef bint _voted(Host *h, uint32_t instance, uint32_t ballot) noexcept nogil:
    cdef uint32_t i
    for i in range(h.book.vote_count):
        if h.votes >> i & 1 and h.book.votes[i].instance == instance and h.book.votes[i].ballot == ballot:
            return True
    return False


# ---- the host ----

cdef void _leave(Host *h, uint32_t message) noexcept nogil:
    _judge(h, <const Frame *>(strings_data(&h.book.messages, message) + 8))
    if h.sent_count == ROOM:
        h.book.full = True
        return
    h.sent[h.sent_count] = <uint16_t>message
    h.sent_count += 1


cdef void _send(Host *h, uint32_t peers, uint64_t after, const uint8_t *head, uint32_t size, const Value *value) noexcept nogil:
    cdef const Frame *frame = <const Frame *>head
    cdef uint32_t to, message
    if frame.type >= FRAME_PREVOTE and not h.scope.carried & bit(frame.type - FRAME_PREVOTE):
        return
    if frame.type == FRAME_ACCEPT and (<const Accept *>(head + sizeof(Frame))).instance >= h.scope.instances:
        return
    for to in range(NODES):
        if peers & bit(to):
            message = message_number(h.book, to, head, size, value)
            if after <= h.core.durable:
                _leave(h, message)
            elif h.held_count == ROOM:
                h.book.full = True
            else:
                h.held[h.held_count].after = <uint16_t>after
                h.held[h.held_count].message = <uint16_t>message
                h.held_count += 1


cdef void _learned(Host *h, uint32_t instance, const Value *value, uint32_t chain) noexcept nogil:
    """What this node answers to whom it may concern. Others may ask at any time: so the answer is on its way at once."""
    cdef uint8_t text[256]
    cdef Frame *frame = <Frame *>text
    cdef Learned *body = <Learned *>(text + sizeof(Frame))
    memset(text, 0, sizeof(Frame) + sizeof(Learned))
    frame.type = FRAME_LEARNED
    frame.sender = h.core.options.node
    frame.chosen = instance + 1
    frame.chain = chain
    body.first, body.count = instance, 1
    value_head(<ValueHead *>(text + sizeof(Frame) + sizeof(Learned)), value)
    _send(h, ~bit(h.index), 0, text, sizeof(Frame) + sizeof(Learned) + sizeof(ValueHead), value)


cdef void _tell_members(Host *h) noexcept nogil:
    """To whoever knows an older table, if this node knows what its own one is the outcome of."""
    cdef uint8_t text[512]
    cdef Frame *frame = <Frame *>text
    cdef Membership m = h.core.members
    if not h.scope.tables or m.version == 0 or h.core.chosen < m.as_of:
        return
    m.mastership, m.mastered, m.master = 0, 0, 0        # (nothing here reads them)
    memset(text, 0, sizeof(Frame))
    frame.type = FRAME_MEMBERS
    frame.sender = h.core.options.node
    membership_write(&m, text + sizeof(Frame))
    _send(h, ~bit(h.index), 0, text, sizeof(Frame) + <uint32_t>membership_size(&m), NULL)


cdef void _told(Host *h, const Effect *e, uint32_t chain) noexcept nogil:
    """`chain`: the checksum up to this instance."""
    cdef uint32_t number = value_number(h.book, e.value)
    if e.instance != h.known_count or h.known_count == DEEPEST:
        h.wrong = WRONG_ORDER
        return
    if chain_next(chain, e.instance, e.value) != <uint32_t>e.after:
        h.wrong = WRONG_CHAIN
    h.known[h.known_count] = <uint16_t>number
    h.known_count += 1


cdef uint32_t _chain_known(Host *h) noexcept nogil:
    cdef uint32_t i, chain = 0
    for i in range(h.known_count):
        chain = chain_next(chain, i, h.book.copies[h.known[i]])
    return chain


cdef void _take(Host *h) noexcept nogil:
    """Does what the effects of a step say."""
    cdef Replica *r = h.core
    cdef size_t i
    cdef Effect *e
    cdef bint moved = False
    for i in range(r.out.count):
        e = &r.out.effects[i]
        if e.type == EFFECT_SEND:
            _send(h, e.peers, e.after, r.out.arena + e.head, e.head_size, e.value)
        elif e.type == EFFECT_LOG:
            if h.written_count == ROOM:
                h.book.full = True
                return
            h.written[h.written_count] = <uint16_t>record_number(
                h.book, <uint8_t>e.code, e.instance, r.out.arena + e.head, e.head_size, e.value)
            h.written_count += 1
        elif e.type == EFFECT_CHOSEN:
            _told(h, e, _chain_known(h))
            _learned(h, <uint32_t>e.instance, e.value, <uint32_t>e.after)
        elif e.type == EFFECT_READ:
            if e.instance >= e.end or e.end > r.chosen:
                h.wrong = WRONG_READ
        elif e.type == EFFECT_SETTLED:
            if e.code != SETTLE_UNKNOWN:
                h.refused |= <uint64_t>1 << chunk_number(h.book, r.options.node, r.boot, e.instance)
        elif e.type == EFFECT_MEMBERSHIP:
            moved = True
        elif e.type == EFFECT_DIVERGED:
            h.wrong = WRONG_DIVERGED
    out_clear(&r.out)
    if moved:
        _tell_members(h)


cdef void _restore(Host *h, Replica *r, uint32_t record) noexcept nogil:
    """One more record into a core that is being restored."""
    cdef RecordStart start
    cdef uint8_t body[1024]
    memcpy(&start, strings_data(&h.book.records, record), sizeof(RecordStart))
    memcpy(body, strings_data(&h.book.records, record) + sizeof(RecordStart), start.size)
    if replica_restore(r, <uint8_t>start.type, start.instance, body, start.size) != 0:
        h.wrong = WRONG_RESTORE


cdef void _to_disk(Host *h, uint32_t record) noexcept nogil:
    """The next record is durable. What it tells the disk to be chosen must be what this node was told."""
    cdef const RecordStart *start = <const RecordStart *>strings_data(&h.book.records, record)
    cdef const RecordAccept *accept = <const RecordAccept *>(start + 1)
    cdef Ballot ballot
    cdef uint32_t i, instance
    cdef Effect *e
    cdef Value *value
    if start.type == RECORD_ACCEPT:
        ballot = accept.ballot
        instance = <uint32_t>start.instance
        value = value_new(accept.value.kind, accept.value.count, accept.value.size)
        memcpy(value.data, accept + 1, accept.value.size)
        h.votes |= <uint64_t>1 << vote_number(h.book, instance, ballot_number(h.book, &ballot), value_number(h.book, value))
        value_unref(value)
    _restore(h, h.disk, record)
    for i in range(h.disk.out.count):
        e = &h.disk.out.effects[i]
        if e.type == EFFECT_CHOSEN and (
                e.instance >= h.known_count or value_number(h.book, e.value) != h.known[e.instance]):
            h.wrong = WRONG_RESTART
    out_clear(&h.disk.out)


cdef void _durable(Host *h, uint32_t count) noexcept nogil:
    cdef uint32_t i, kept = 0
    cdef Held one
    for i in range(count):
        _to_disk(h, h.written[i])
    h.written_count -= count
    for i in range(h.written_count):
        h.written[i] = h.written[i + count]
    for i in range(h.held_count):
        one = h.held[i]
        if one.after <= count:
            _leave(h, one.message)
        else:
            h.held[kept] = one
            kept += 1
    h.held_count = kept
    replica_durable(h.core, NOW, count)


cdef void _crash(Host *h, uint32_t count) noexcept nogil:
    """The core is what replay makes of the disk; then it starts. The disk stays as it is: records are read, not written."""
    cdef Tape t
    cdef uint32_t i
    for i in range(count):
        _to_disk(h, h.written[i])
    h.written_count, h.held_count = 0, 0
    t.at, t.full = 0, False
    put_core(&t, h.book, h.disk)
    if t.full:
        h.book.full = True
    t.at = 0
    get_core(&t, h.book, h.core)
    h.crashes += 1
    _name(h)
    h.core.logged = 0
    h.known_count = <uint32_t>h.core.chosen
    replica_start(h.core, NOW)


cdef void _lose(Host *h) noexcept nogil:
    """It begins anew, with an empty log. The members it is told are those of the beginning: it is none of them yet."""
    h.votes_lost, h.votes = h.votes, 0
    h.promised_lost = ballot_number(h.book, &h.disk.promised)
    h.losses += 1
    _name(h)
    h.fresh.at = 0
    get_core(&h.fresh, h.book, h.core)
    h.fresh.at = 0
    get_core(&h.fresh, h.book, h.disk)
    h.written_count, h.held_count, h.known_count, h.core.logged = 0, 0, 0, 0
    replica_start(h.core, NOW)


cdef void _stand(Host *h) noexcept nogil:
    """Whatever it hears or does not hear, and whatever the others think of it: an election that is asked for is agreed to."""
    cdef uint8_t text[256]
    cdef Frame *frame = <Frame *>text
    cdef PrevoteReply *reply = <PrevoteReply *>(text + sizeof(Frame))
    cdef Replica *r = h.core
    cdef uint32_t i
    h.elections += 1
    if r.role == ROLE_MASTER:           # something is wrong with it for a moment
        replica_resign(r, NOW, False)
        _take(h)
        replica_resign(r, NOW, True)
    r.election_deadline = NOW
    replica_tick(r, NOW)
    _take(h)
    memset(text, 0, sizeof(Frame) + sizeof(PrevoteReply))
    frame.type = FRAME_PREVOTE_REPLY
    reply.ballot = r.asked
    reply.granted = True
    for i in range(1, NODES):
        frame.sender = r.members.members[(h.index + i) % NODES].node
        frame.inc_hi = r.members.members[(h.index + i) % NODES].inc_hi
        frame.inc_lo = r.members.members[(h.index + i) % NODES].inc_lo
        replica_receive(r, NOW, frame)
    if ballot_compare(&r.ballot, &h.disk.promised) <= 0:
        h.wrong = WRONG_REUSE           # it may have been used in an earlier life, or promised to another


cdef void _submit(Host *h) noexcept nogil:
    cdef Replica *r = h.core
    cdef ChunkHead head
    cdef Value *chunk = value_new(VALUE_BATCH, 1, sizeof(ChunkHead) + 4)
    h.values += 1
    memset(&head, 0, sizeof(ChunkHead))
    head.size, head.count, head.origin, head.boot, head.seq = 4, 1, r.options.node, r.boot, r.pending_end
    head.life = life_of(r.inc_lo)
    memcpy(chunk.data, &head, sizeof(ChunkHead))
    memset(chunk.data + sizeof(ChunkHead), 0, 4)            # one value, of no bytes: its chunk's head tells it from others
    replica_submit(r, NOW, r.pending_end, chunk, FAR)


cdef void _expire(Host *h) noexcept nogil:
    cdef Replica *r = h.core
    cdef uint64_t i
    h.expiries += 1
    for i in range(r.pending_first, r.pending_end):
        r.pending[i].deadline = NOW
    r.expire_due = NOW
    replica_tick(r, NOW)


cdef void _change(Host *h) noexcept nogil:
    """Who is to vote no more is removed, who votes newly was a follower, or another incarnation."""
    cdef Replica *r = h.core
    cdef uint32_t wanted = h.scope.wanted[h.index][h.changes]
    cdef Membership next = r.members
    cdef Member *m
    cdef uint32_t i, life
    for i in range(NODES):
        m = &next.members[i]
        life = 1 if wanted & bit(8 + i) else 0
        if wanted & bit(i):
            m.node, m.role, m.inc_hi, m.inc_lo = i + 1, MEMBER_VOTER, high_of(i, life), low_of(i, life)
        elif m.role == MEMBER_VOTER and m.node != 0:
            membership_remove(&next, i)
    membership_derive(&next)
    h.changes += replica_change(r, NOW, &next)


cdef void host_event(Host *h, uint32_t event) noexcept nogil:
    """What happened is in h.sent and h.wrong, and the node is to be saved."""
    cdef Replica *r = h.core
    cdef Ballot before = r.promised
    cdef uint8_t text[1024]
    cdef size_t size
    cdef Membership members
    if event < FIRST_EVENT:
        size = strings_size(&h.book.messages, event) - 8
        memcpy(text, strings_data(&h.book.messages, event) + 8, size)
        if (<const Frame *>text).type == FRAME_MEMBERS:
            members = r.members
            if membership_read(&members, text + sizeof(Frame), size - sizeof(Frame)) != 0:
                h.wrong = WRONG_RESTORE
            replica_members(r, NOW, &members)
        else:
            replica_receive(r, NOW, <const Frame *>text)
    elif event < EVENT_CRASH:
        _durable(h, event - EVENT_DURABLE)
    elif event < EVENT_STAND:
        _crash(h, event - EVENT_CRASH)
        before = h.disk.promised
    elif event < EVENT_SUBMIT:
        _stand(h)
    elif event < EVENT_EXPIRE:
        _submit(h)
    elif event < EVENT_CHANGE:
        _expire(h)
    elif event < EVENT_LOSE:
        _change(h)
    else:
        _lose(h)
        before = h.disk.promised
    _take(h)
    replica_pump(r, NOW)
    _take(h)
    if r.notice_due != 0:               # news of chosen instances go out at once; an Accept that follows has them too
        r.notice_due = NOW
        replica_pump(r, NOW)
        _take(h)
    if ballot_compare(&r.promised, &before) < 0:
        h.wrong = WRONG_LOWERED


cdef void host_init(Host *h, Book *book, const Scope *scope, uint32_t index) noexcept nogil:
    """A node that has just started for the first time."""
    cdef Options options
    cdef Membership members
    cdef uint32_t i
    memset(h, 0, sizeof(Host))
    memset(&options, 0, sizeof(Options))
    memset(&members, 0, sizeof(Membership))
    members.count = NODES
    for i in range(NODES):
        members.members[i].node, members.members[i].inc_hi, members.members[i].inc_lo = i + 1, high_of(i, 0), low_of(i, 0)
        members.members[i].role = MEMBER_VOTER if scope.voters & bit(i) else MEMBER_FOLLOWER
    options.node, options.window, options.batch_bytes, options.batch_values = index + 1, scope.window, 1 << 20, 4096
    options.queue_bytes = 1 << 20
    options.priority = 1
    options.heartbeat, options.election_min, options.election_max, options.resend = 1000, 10000, 20000, 10000
    h.book, h.scope, h.index = book, scope, index
    h.core = replica_new(&options, &members, 1, high_of(index, 0), low_of(index, 0), 1, 1)
    h.disk = replica_new(&options, &members, 1, high_of(index, 0), low_of(index, 0), 1, 1)
    h.core.alpha = h.disk.alpha = scope.alpha
    put_core(&h.fresh, book, h.core)
    replica_start(h.core, NOW)
    out_clear(&h.core.out)


cdef void host_free(Host *h) noexcept nogil:
    replica_free(h.core)
    replica_free(h.disk)
