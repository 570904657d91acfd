# cython: language_level=3, overflowcheck=False
"""Numbers for everything that a state of the explorer speaks of. A number is given once and never changes."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from paxos._codec cimport value_copy
from paxos._membership cimport membership_read, membership_size, membership_write
from paxos._types cimport (
    Accept, Ballot, ChunkHead, FRAME_ACCEPT, FRAME_ACCEPTED, FRAME_FORWARD, FRAME_FORWARD_REFUSED, FRAME_HEARTBEAT,
    FRAME_PREPARE, FRAME_PROMISE_VALUE, FRAME_REJECT, Frame, Heartbeat, Membership, VALUE_BATCH, Value, ValueHead,
    value_unref, xrealloc,
)
from paxos.testing._tables cimport NOTHING, strings_data, strings_free, strings_init, strings_number, strings_size


cdef void book_init(Book *b) noexcept nogil:
    cdef Ballot none
    memset(b, 0, sizeof(Book))
    strings_init(&b.values)
    strings_init(&b.ballots)
    strings_init(&b.records)
    strings_init(&b.tables)
    strings_init(&b.messages)
    strings_init(&b.sets)
    memset(&none, 0, sizeof(Ballot))
    strings_number(&b.ballots, &none, sizeof(Ballot))
    strings_number(&b.sets, &none, 0)


cdef void book_free(Book *b) noexcept nogil:
    cdef uint32_t i
    for i in range(b.copied):
        value_unref(b.copies[i])
    free(b.copies)
    free(b.about)
    strings_free(&b.values)
    strings_free(&b.ballots)
    strings_free(&b.records)
    strings_free(&b.tables)
    strings_free(&b.messages)
    strings_free(&b.sets)


cdef uint32_t value_number(Book *b, const Value *value) noexcept nogil:
    cdef uint8_t text[LONGEST]
    cdef ValueHead head
    cdef uint32_t number
    head.size, head.count, head.kind, head.zero = value.size, value.count, value.kind, 0
    if sizeof(ValueHead) + value.size > LONGEST:
        b.full = True
        return 0
    memcpy(text, &head, sizeof(ValueHead))
    memcpy(text + sizeof(ValueHead), value.data, value.size)
    number = strings_number(&b.values, text, sizeof(ValueHead) + value.size)
    if number == b.copied:
        b.copies = <Value **>xrealloc(b.copies, (number + 1) * sizeof(Value *))
        b.copies[number] = value_copy(&head, value.data)
        b.copied += 1
    return number


cdef uint32_t ballot_number(Book *b, const Ballot *ballot) noexcept nogil:
    return strings_number(&b.ballots, ballot, sizeof(Ballot))


cdef Ballot ballot_of(Book *b, uint32_t number) noexcept nogil:
    cdef Ballot ballot
    memcpy(&ballot, strings_data(&b.ballots, number), sizeof(Ballot))
    return ballot


cdef uint32_t table_number(Book *b, const Membership *m) noexcept nogil:
    cdef uint8_t text[LONGEST]
    if membership_size(m) > LONGEST:
        b.full = True
        return 0
    membership_write(m, text)
    return strings_number(&b.tables, text, membership_size(m))


cdef void table_read(Book *b, uint32_t number, Membership *m) noexcept nogil:
    if table_number(b, m) != number and membership_read(m, strings_data(&b.tables, number), strings_size(&b.tables, number)) != 0:
        b.full = True


cdef uint32_t vote_number(Book *b, uint32_t instance, uint32_t ballot, uint32_t value) noexcept nogil:
    cdef uint32_t i
    cdef Vote *v
    for i in range(b.vote_count):
        v = &b.votes[i]
        if v.instance == instance and v.ballot == ballot and v.value == value:
            return i
    if b.vote_count == MOST or instance >= DEEPEST:
        b.full = True
        return 0
    v = &b.votes[b.vote_count]
    v.instance, v.ballot, v.value = instance, ballot, value
    v.fact = fact_number(b, instance, value)
    b.at[instance] |= <uint64_t>1 << b.vote_count
    b.vote_count += 1
    return b.vote_count - 1


cdef uint64_t _chunks_of(Book *b, const Value *value) noexcept nogil:
    cdef size_t at = 0
    cdef ChunkHead head
    cdef uint64_t mask = 0
    while value.kind == VALUE_BATCH and at < value.size:
        memcpy(&head, value.data + at, sizeof(ChunkHead))
        at += sizeof(ChunkHead) + head.size
        mask |= <uint64_t>1 << chunk_number(b, head.origin, head.boot, head.seq)
    return mask


cdef uint32_t fact_number(Book *b, uint32_t instance, uint32_t value) noexcept nogil:
    cdef uint32_t i
    cdef Fact *f
    for i in range(b.fact_count):
        if b.facts[i].instance == instance and b.facts[i].value == value:
            return i
    if b.fact_count == MOST:
        b.full = True
        return 0
    f = &b.facts[b.fact_count]
    f.instance, f.value, f.against = instance, value, 0
    f.chunks = _chunks_of(b, b.copies[value])
    for i in range(b.fact_count):
        if b.facts[i].instance == instance or b.facts[i].chunks & f.chunks:
            f.against |= <uint64_t>1 << i
            b.facts[i].against |= <uint64_t>1 << b.fact_count
    b.fact_count += 1
    return b.fact_count - 1


cdef uint32_t chunk_number(Book *b, uint32_t origin, uint32_t boot, uint64_t seq) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t key = <uint64_t>origin << 48 | <uint64_t>boot << 32 | seq
    for i in range(b.chunk_count):
        if b.chunks[i] == key:
            return i
    if b.chunk_count == MOST:
        b.full = True
        return 0
    b.chunks[b.chunk_count] = key
    b.chunk_count += 1
    return b.chunk_count - 1


cdef uint32_t record_number(Book *b, uint8_t type, uint64_t instance, const uint8_t *head, uint32_t size,
                            const Value *value) noexcept nogil:
    cdef uint8_t text[LONGEST]
    cdef RecordStart start
    start.type, start.size, start.instance = type, size + (value.size if value != NULL else 0), instance
    if sizeof(RecordStart) + start.size > LONGEST:
        b.full = True
        return 0
    memcpy(text, &start, sizeof(RecordStart))
    memcpy(text + sizeof(RecordStart), head, size)
    if value != NULL:
        memcpy(text + sizeof(RecordStart) + size, value.data, value.size)
    return strings_number(&b.records, text, sizeof(RecordStart) + start.size)


cdef uint32_t message_number(Book *b, uint32_t to, const uint8_t *head, uint32_t size, const Value *value) noexcept nogil:
    cdef uint8_t text[LONGEST]
    cdef Frame *frame = <Frame *>(text + 8)
    cdef Accept *accept = <Accept *>(text + 8 + sizeof(Frame))
    cdef uint64_t first = to
    cdef uint32_t total = 8 + size + (value.size if value != NULL else 0), number
    if total > LONGEST:
        b.full = True
        return 0
    memcpy(text, &first, 8)
    memcpy(text + 8, head, size)
    if value != NULL:
        memcpy(text + 8 + size, value.data, value.size)
    frame.crc = 0
    if frame.type in (FRAME_PREPARE, FRAME_PROMISE_VALUE, FRAME_REJECT, FRAME_ACCEPTED, FRAME_FORWARD, FRAME_FORWARD_REFUSED):
        frame.chosen = 0            # all that it does there is to make the receiver ask
        frame.chain = 0
    if frame.type == FRAME_HEARTBEAT:
        (<Heartbeat *>accept).sent_at = 0
    number = strings_number(&b.messages, text, total)
    if number == b.known:
        if number > 0xFFFF:
            b.full = True
            return 0
        b.about = <Message *>xrealloc(b.about, (number + 1) * sizeof(Message))
        b.about[number].to = to
        b.about[number].vote = NOTHING
        if frame.type == FRAME_ACCEPT:
            b.about[number].vote = vote_number(b, <uint32_t>accept.instance, ballot_number(b, &accept.ballot),
                                               value_number(b, value))
        b.known += 1
    return number


cdef uint32_t set_with(Book *b, uint32_t set, uint32_t message) noexcept nogil:
    """The set with one message more. Sets are sorted."""
    cdef uint16_t members[MESSAGES]
    cdef uint32_t count = <uint32_t>strings_size(&b.sets, set) // 2, at
    memcpy(members, strings_data(&b.sets, set), count * 2)
    if count == MESSAGES:
        b.full = True
        return set
    at = count
    while at > 0 and members[at - 1] >= message:
        if members[at - 1] == message:
            return set
        at -= 1
    memcpy(members, strings_data(&b.sets, set), at * 2)
    members[at] = <uint16_t>message
    memcpy(members + at + 1, strings_data(&b.sets, set) + at * 2, (count - at) * 2)
    return strings_number(&b.sets, members, (count + 1) * 2)
