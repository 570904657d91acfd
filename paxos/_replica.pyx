# cython: language_level=3
"""What all roles need of a replica: slots, frames, records, randomness. No rule of the protocol is decided here."""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from paxos._codec cimport crc32c, out_effect, out_head, value_head
from paxos._types cimport (
    Ballot, EFFECT_LOG, EFFECT_MASTER, EFFECT_SEND, Effect, FORMAT_VERSION, FRAME_KEPT, FRAME_LEARN, FRAME_LEARNED, FRAME_MAGIC,
    FRAME_REJECT, Frame,
    RECORD_ACCEPT, RECORD_PROMISE, RecordAccept, RecordPromise, Reject, Value, ballot_compare, bit, value_ref, value_unref,
)


cdef Slot *slot_take(Replica *r, uint64_t instance) noexcept nogil:
    cdef Slot *s = slot_at(r, instance)
    if not s.used or s.instance != instance:
        slot_free(s)
        s.used = True
        s.instance = instance
    return s


cdef void slot_free(Slot *s) noexcept nogil:
    value_unref(s.value)
    value_unref(s.report_value)
    memset(s, 0, sizeof(Slot))


@cython.overflowcheck(False)     # wraps, on purpose
cdef int64_t draw(Replica *r, int64_t low, int64_t high) noexcept nogil:
    """Uniform enough in [low, high): xorshift64*, seeded by the host, so that a simulation repeats."""
    r.random ^= r.random >> 12
    r.random ^= r.random << 25
    r.random ^= r.random >> 27
    if high <= low:
        return low
    return low + <int64_t>((r.random * <uint64_t>0x2545F4914F6CDD1D >> 16) % <uint64_t>(high - low))


cdef uint32_t others(const Replica *r) noexcept nogil:
    return r.members.present & ~bit(r.self)


cdef int member_index(const Replica *r, uint32_t node) noexcept nogil:
    cdef uint32_t i
    for i in range(r.members.count):
        if r.members.members[i].node == node and node != 0:
            return <int>i
    return -1


cdef int remote_master(const Replica *r) noexcept nogil:
    cdef int index = member_index(r, r.master)
    if (r.outsider or r.role == ROLE_MASTER or r.master == 0 or index < 0 or <uint32_t>index == r.self
            or r.down & bit(<uint32_t>index)):
        return -1
    return index


cdef void *frame_begin(Replica *r, uint8_t type, uint32_t peers, uint64_t after, size_t body) noexcept nogil:
    cdef Effect *e = out_effect(&r.out, EFFECT_SEND)
    cdef Frame *frame = <Frame *>out_head(&r.out, e, sizeof(Frame) + body)
    # Who is no member asks for chosen values and hands them on; in all else it has no say, and is not listened to.
    if not r.outsider or type == FRAME_LEARN or type == FRAME_LEARNED or type == FRAME_KEPT:
        e.peers = peers
    e.after = after
    frame.magic = FRAME_MAGIC
    frame.version = FORMAT_VERSION
    frame.type = type
    frame.group = r.options.group
    frame.sender = r.options.node
    frame.signature = r.signature
    frame.inc_hi = r.inc_hi
    frame.inc_lo = r.inc_lo
    frame.chosen = r.chosen
    frame.chain = r.chain
    return <uint8_t *>frame + sizeof(Frame)


cdef void frame_end(Replica *r, Value *value) noexcept nogil:
    cdef Effect *e = &r.out.effects[r.out.count - 1]
    cdef Frame *frame = <Frame *>(r.out.arena + e.head)
    frame.length = e.head_size + (value.size if value != NULL else 0)
    frame.crc = crc32c(0, <uint8_t *>frame + 12, e.head_size - 12)
    if value != NULL:
        e.value = value_ref(value)
        frame.crc = crc32c(frame.crc, value.data, value.size)


cdef void *record_add(Replica *r, uint8_t type, uint64_t instance, size_t body, Value *value) noexcept nogil:
    cdef Effect *e = out_effect(&r.out, EFFECT_LOG)
    r.logged += 1
    e.code = type
    e.instance = instance
    e.after = r.logged
    e.value = value_ref(value)
    return out_head(&r.out, e, body)


cdef void send_reject(Replica *r, uint32_t index, const Ballot *ballot) noexcept nogil:
    """Tells a proposer that its ballot is behind. The promise named must be durable first: it may be all he hears of it."""
    cdef Reject *body = <Reject *>frame_begin(r, FRAME_REJECT, bit(index), r.promise_record, sizeof(Reject))
    body.ballot = ballot[0]
    body.promised = r.promised
    frame_end(r, NULL)


cdef void set_master(Replica *r, uint32_t node, const Ballot *ballot, bint settled) noexcept nogil:
    """Notes whom this replica takes for the master, and tells the host where that changed."""
    cdef Effect *e
    if r.master == node and ballot_compare(&r.master_ballot, ballot) == 0 and r.master_settled == settled:
        return
    r.master = node
    r.master_ballot = ballot[0]
    r.master_settled = settled
    e = out_effect(&r.out, EFFECT_MASTER)
    e.code = node
    e.instance = ballot.round
    e.end = settled


cdef void promise_here(Replica *r, const Ballot *ballot) noexcept nogil:
    """Promises a ballot above the one promised: one record, on which all stands that tells of it (design rule 1)."""
    cdef RecordPromise *record = <RecordPromise *>record_add(r, RECORD_PROMISE, 0, sizeof(RecordPromise), NULL)
    record.ballot = ballot[0]
    r.promised = ballot[0]
    r.promise_record = r.logged


cdef void accept_here(Replica *r, Slot *s, const Ballot *ballot, Value *value) noexcept nogil:
    """Accepts a value under a ballot not below the promise: one record, which implies the promise (design, section 3)."""
    cdef RecordAccept *record
    value_ref(value)
    value_unref(s.value)
    s.value = value
    s.ballot = ballot[0]
    s.own = False
    s.acks = 0
    record = <RecordAccept *>record_add(r, RECORD_ACCEPT, s.instance, sizeof(RecordAccept), value)
    record.ballot = ballot[0]
    record.chosen = r.chosen
    record.chain = r.chain
    value_head(&record.value, value)
    s.record = r.logged
    if ballot_compare(ballot, &r.promised) > 0:
        r.promised = ballot[0]
        r.promise_record = r.logged
