# cython: language_level=3
"""Reads that cost no log write: from which instance on a state machine may answer them (design rule 20).

A read has come to the master. Is it the master still? It was, when a round of heartbeats that was sent *after* the read came is
answered by a quorum: whoever had chosen something under a higher ballot by then had the promise of a quorum, one of which would
have refused. So everything acknowledged before the read came is below the chosen watermark that the master had when it sent
the round, once it has chosen an instance of its own ballot; and whoever has applied that far may answer. (The same idea for
Raft: Ongaro, "Consensus: Bridging Theory and Practice", 2014, section 6.4.)

One round serves all reads that came before it, of all nodes. A node has one read under way, which stands for all that its Python
side had when it asked; another token takes its place. Nothing is kept for long: who hears nothing asks again.

While a change of the membership is not in force here, who came in by it does not count: what is left is a quorum of the members
before the change and of those behind it. From where it is in force on, nothing is confirmed before the new ones have promised the
ballot and what they reported is chosen: another master of theirs, under a lower ballot, may have gone on without this one's knowing.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from paxos._codec cimport out_effect
from paxos._membership cimport membership_led
from paxos._replica cimport Asked, ROLE_MASTER, Replica, frame_begin, frame_end, remote_master
from paxos._types cimport (
    EFFECT_READABLE, Effect, FRAME_READ, FRAME_READABLE, HeartbeatReply, PLACES, Read, Readable, bit, is_quorum_of_all, life_of,
)


cdef void reader_ask(Replica *r, uint64_t token) noexcept nogil:
    r.read_token = token
    r.read_due = r.now


cdef void reader_asked(Replica *r, uint32_t index, const Read *body) noexcept nogil:
    cdef Asked *asked = &r.asked_reads[index]
    if r.role != ROLE_MASTER:
        return
    # (Numbers begin again with each start of that node, hence all three.)
    if body.boot == asked.read.boot and body.life == asked.read.life and body.token <= asked.read.token:
        if body.token == asked.read.token and asked.answered:
            _tell_member(r, index)  # the answer was lost
        return                      # under way; or of before
    asked.read = body[0]
    asked.round = 0
    asked.answered = False


cdef void reader_elected(Replica *r) noexcept nogil:
    """What was answered under an earlier ballot says nothing about this one."""
    memset(r.answered, 0, PLACES * sizeof(uint64_t))


cdef void reader_step_down(Replica *r) noexcept nogil:
    memset(r.asked_reads, 0, PLACES * sizeof(Asked))
    r.read_due = r.now


cdef bint _answered(const Replica *r, uint64_t round, uint64_t index) noexcept nogil:
    """Whether a quorum has answered a round, of the members that count at `index`."""
    cdef uint32_t i, mask = bit(r.self)
    for i in range(r.members.count):
        if r.answered[i] >= round and r.members.since[i] <= index:
            mask |= bit(i)
    return is_quorum_of_all(&r.members, index, mask)


cdef inline bint _passed(const Replica *r, const Asked *asked) noexcept nogil:
    """Whether a change has come in force since the round was sent: who had to answer it is not known any more."""
    return asked.round != 0 and asked.index < r.members.in_force <= r.chosen


cdef bint _wants_round(const Replica *r, const Asked *asked) noexcept nogil:
    """... for the first time; or once more, where a quorum has answered and was none, for a change was not in force at that index.
    (An answer that is lost comes with the next heartbeat.)"""
    if asked.read.token == 0 or asked.answered:
        return False
    if asked.round == 0:
        return True
    return <uint64_t>r.now >= asked.round + <uint64_t>r.options.resend and _answered(r, asked.round, r.chosen)


cdef bint reader_due(const Replica *r) noexcept nogil:
    cdef uint32_t i
    if r.role != ROLE_MASTER or not r.master_settled or not membership_led(r):
        return False
    if r.read_token != 0 and r.read_token != r.asked_reads[r.self].read.token:
        return True
    for i in range(r.members.count):
        if _wants_round(r, &r.asked_reads[i]):
            return True
    return False


cdef void reader_begin(Replica *r) noexcept nogil:
    cdef Asked *asked
    cdef uint32_t i
    if r.read_token != 0 and r.read_token != r.asked_reads[r.self].read.token:
        asked = &r.asked_reads[r.self]
        asked.read.token = r.read_token
        asked.round = 0
        asked.answered = False
    for i in range(r.members.count):
        asked = &r.asked_reads[i]
        if _wants_round(r, asked):
            asked.round = r.round
            asked.index = r.chosen


cdef void _tell(Replica *r, uint64_t token, uint64_t index) noexcept nogil:
    cdef Effect *e = out_effect(&r.out, EFFECT_READABLE)
    e.instance = index
    e.after = token
    r.read_token = 0


cdef void _tell_member(Replica *r, uint32_t index) noexcept nogil:
    cdef Readable *body = <Readable *>frame_begin(r, FRAME_READABLE, bit(index), 0, sizeof(Readable))
    body.read = r.asked_reads[index].read
    body.index = r.asked_reads[index].index
    frame_end(r, NULL)


cdef void _answer(Replica *r) noexcept nogil:
    cdef Asked *asked
    cdef uint32_t i
    for i in range(r.members.count):
        asked = &r.asked_reads[i]
        if asked.read.token == 0 or asked.answered or asked.round == 0 or _passed(r, asked) or not _answered(r, asked.round, asked.index):
            continue
        asked.answered = True
        if i == r.self:
            _tell(r, asked.read.token, asked.index)
        else:
            _tell_member(r, i)


cdef void reader_answered(Replica *r, uint32_t index, const HeartbeatReply *body) noexcept nogil:
    if body.sent_at > r.answered[index] and body.sent_at <= r.round:
        r.answered[index] = body.sent_at
        _answer(r)


cdef void reader_readable(Replica *r, const Readable *body) noexcept nogil:
    if (r.read_token != 0 and body.read.token == r.read_token and body.read.boot == r.boot
            and body.read.life == life_of(r.inc_lo)):
        _tell(r, r.read_token, body.index)


cdef void reader_pump(Replica *r) noexcept nogil:
    cdef Read *body
    cdef int index
    if r.role == ROLE_MASTER:
        if is_quorum_of_all(&r.members, r.chosen, bit(r.self)):
            _answer(r)              # nobody else has to
        return
    if r.read_token == 0 or r.now < r.read_due:
        return
    index = remote_master(r)
    if index >= 0:
        body = <Read *>frame_begin(r, FRAME_READ, bit(<uint32_t>index), 0, sizeof(Read))
        body.token = r.read_token
        body.boot = r.boot
        body.life = life_of(r.inc_lo)
        frame_end(r, NULL)
        r.read_due = r.now + r.options.resend


cdef int64_t reader_deadline(const Replica *r) noexcept nogil:
    if r.read_token != 0 and remote_master(r) >= 0:
        return r.read_due
    return 0x7FFFFFFFFFFFFFFF
