# cython: language_level=3
"""The newest chosen values are kept in memory until Python has them; where Python was behind for longer, and where a peer
asks for what it missed, the log is read back by the index of instances. Each record read is checked again: a log that
gives back something else than was written ends the process, as a failed write does."""
from libc.errno cimport EBADMSG, EINVAL
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset
from paxos._codec cimport crc32c, value_check, value_copy
from paxos._delivery cimport EVENT_AHEAD, delivery_chosen, delivery_event, delivery_room
from paxos._state cimport PEER_BACKLOG, TAIL, ReadJob
from paxos._store cimport index_chain, index_get, store_read
from paxos._types cimport (
    FORMAT_VERSION, FRAME_LEARNED, FRAME_MAGIC, RECORD_ACCEPT, RECORD_LEARN, ChunkHead, Frame, Learned, Record, RecordAccept,
    RecordLearn, VALUE_BATCH, Value, ValueHead, bit, life_of, value_ref, value_unref, xrealloc,
)
from paxos._unlogged cimport NOT_LOGGED

cdef enum:
    LEARNED_BYTES = 1048576         # values in one LEARNED frame, and sent from the log in one round
    SCRATCH_KEPT = 4194304          # the memory of one large value is not kept for ever
    REFILL = 256                    # instances read back for Python in one round
    REFILL_BYTES = 4194304
    TAIL_BYTES = 16777216           # of the newest chosen values kept in memory for Python


cdef void frame_head(Host *h, Frame *f, uint8_t type, size_t length) noexcept nogil:
    memset(f, 0, sizeof(Frame))
    f.magic = FRAME_MAGIC
    f.length = <uint32_t>length
    f.version = FORMAT_VERSION
    f.type = type
    f.sender = h.options.node
    f.signature = h.formation.sig_lo
    f.inc_hi = h.formation.inc_hi
    f.inc_lo = h.formation.inc_lo


# ---- to Python ----

cdef void tail_pop(Group *g) noexcept nogil:
    cdef Value *v = g.tail[g.tail_first & (TAIL - 1)]
    g.tail_bytes -= v.size
    g.tail_first += 1
    g.tail_count -= 1
    value_unref(v)


cdef void deliver(Host *h, Group *g) noexcept nogil:
    while g.tail_count:
        if g.tail_first > g.cursor:
            return                  # Python is behind what memory holds: refill() reads the log
        if g.tail_first == g.cursor:
            if not delivery_room(&h.delivery):
                return
            delivery_chosen(&h.delivery, g.id, g.cursor, index_chain(&g.index, g.cursor), g.tail[g.tail_first & (TAIL - 1)])
            g.cursor += 1
        tail_pop(g)


cdef void history_jump(Host *h, Group *g, uint64_t instance) noexcept nogil:
    g.cursor = instance
    # What is chosen next may not follow what is in memory.
    while g.tail_count and g.tail_first < instance:
        tail_pop(g)


cdef bint handed_in_here(const Host *h, const Value *value) noexcept nogil:
    """Whether a chunk of this process is in it."""
    cdef ChunkHead head
    cdef size_t at = 0
    while at < value.size:
        memcpy(&head, value.data + at, sizeof(ChunkHead))
        if head.origin == h.options.node and head.boot == h.boot and head.life == life_of(h.formation.inc_lo):
            return True
        at += sizeof(ChunkHead) + head.size
    return False


cdef void history_chosen(Host *h, Group *g, uint64_t instance, Value *value) noexcept nogil:
    if instance < g.cursor:
        # The state machine has it already, from before this process began. What was handed in since cannot be among it.
        if value.kind == VALUE_BATCH and handed_in_here(h, value):
            delivery_event(&h.delivery, EVENT_AHEAD, g.id).instance = instance
        return
    if g.tail_count == 0:
        g.tail_first = instance
    if instance != g.tail_first + g.tail_count:
        h.outside.fatal(h, "an instance does not follow those that wait for the state machine", EINVAL)
    while g.tail_count == TAIL or (g.tail_count and g.tail_bytes + value.size > TAIL_BYTES):
        tail_pop(g)
        if g.tail_count == 0:
            g.tail_first = instance
    g.tail[instance & (TAIL - 1)] = value_ref(value)
    g.tail_count += 1
    g.tail_bytes += value.size
    deliver(h, g)


cdef bint value_in(const uint8_t *record, uint32_t size, uint32_t group, uint64_t instance, ValueHead *head,
                   const uint8_t **data) noexcept nogil:
    cdef const Record *r = <const Record *>record
    cdef size_t before
    if size < sizeof(Record) or r.group != group or r.instance != instance:
        return False
    if r.type == RECORD_ACCEPT:
        before = sizeof(Record) + sizeof(RecordAccept)
    elif r.type == RECORD_LEARN:
        before = sizeof(Record) + sizeof(RecordLearn)
    else:
        return False
    if size < before:
        return False
    memcpy(head, record + before - sizeof(ValueHead), sizeof(ValueHead))
    data[0] = record + before
    return value_check(head, data[0], size - before) == 0


cdef uint8_t *read_value(Host *h, Group *g, uint64_t instance, uint64_t position, ValueHead *head,
                         const uint8_t **data) noexcept nogil:
    """The record that holds the value of an instance: malloc'ed, checked, value at *data. Never NULL."""
    cdef uint32_t size = 0
    cdef int error = 0
    cdef uint8_t *record = store_read(h.store, position, &size, &error)
    if record == NULL:
        h.outside.fatal(h, "reading the log failed", error)
    if not value_in(record, size, g.id, instance, head, data):
        h.outside.fatal(h, "the log holds another record than was written", EBADMSG)
    return record


cdef bint history_behind(const Group *g) noexcept nogil:
    """Whether Python's next instance is chosen but no longer in memory. (One that is deleted comes with a checkpoint or
    never; one that waits for room in the log, when there is some.)"""
    return (g.replica != NULL and g.cursor < g.replica.chosen and g.cursor >= g.replica.first_kept
            and (g.tail_count == 0 or g.cursor < g.tail_first) and index_get(&g.index, g.cursor) != NOT_LOGGED)


cdef void history_refill(Host *h, Group *g) noexcept nogil:
    cdef uint64_t position
    cdef ValueHead head
    cdef const uint8_t *data = NULL
    cdef uint8_t *record
    cdef Value *value
    cdef int n
    cdef size_t read = 0
    for n in range(REFILL):
        if not history_behind(g) or not delivery_room(&h.delivery) or read > REFILL_BYTES:
            break
        position = index_get(&g.index, g.cursor)
        if position == 0:
            h.outside.fatal(h, "a chosen value is missing in the log", EBADMSG)
        if position >= h.store.writer.durable:
            break                   # part of the next write
        record = read_value(h, g, g.cursor, position, &head, &data)
        value = value_copy(&head, data)
        free(record)
        delivery_chosen(&h.delivery, g.id, g.cursor, index_chain(&g.index, g.cursor), value)
        value_unref(value)
        read += head.size
        g.cursor += 1
    deliver(h, g)


# ---- to peers ----

cdef bint history_serve(Host *h, Group *g, uint32_t index) noexcept nogil:
    """One LEARNED frame for a peer's request. Whether something was sent."""
    cdef ReadJob *job = &g.reads[index]
    cdef uint64_t limit = job.left if job.left < LEARNED_BYTES else <uint64_t>LEARNED_BYTES
    cdef uint64_t position
    cdef uint64_t first = job.next
    cdef uint8_t out[80]
    cdef Frame f
    cdef Learned body
    cdef ValueHead head
    cdef const uint8_t *data = NULL
    cdef uint8_t *record
    cdef size_t used = 0
    cdef size_t size
    cdef Value *payload
    cdef int64_t waiting
    memset(&body, 0, sizeof(body))
    waiting = h.link.waiting(h.link.context, index)
    if waiting < 0:
        job.active = False          # he will ask again when he is back
        return False
    if waiting > PEER_BACKLOG:
        return False
    while job.next < job.end:
        position = index_get(&g.index, job.next)
        if position == 0 or position == NOT_LOGGED:
            job.end = job.next      # not kept here, or not yet written: the request ends, and what lacks is asked for anew
            break
        if position >= h.store.writer.durable:
            break                   # part of the next write
        record = read_value(h, g, job.next, position, &head, &data)
        size = sizeof(ValueHead) + head.size
        if used + size > limit and (used or job.begun):
            free(record)
            if used == 0 or job.left < used + size:
                job.end = job.next  # he asked for no more than that
            break
        if used + size > h.scratch_size:
            h.scratch_size = max((used + size), <size_t>2 * LEARNED_BYTES)
            h.scratch = <uint8_t *>xrealloc(h.scratch, h.scratch_size)
        memcpy(h.scratch + used, &head, sizeof(ValueHead))
        memcpy(h.scratch + used + sizeof(ValueHead), data, head.size)
        free(record)
        used += size
        body.count += 1
        job.next += 1
    if body.count:
        body.first = first
        payload = value_from(h.scratch, used)
        frame_head(h, &f, FRAME_LEARNED, sizeof(out) + used)
        f.group = g.id
        f.signature = g.replica.signature
        f.chosen = g.replica.chosen
        f.chain = g.replica.chain
        memcpy(out, &f, sizeof(Frame))
        memcpy(out + sizeof(Frame), &body, sizeof(Learned))
        f.crc = crc32c(crc32c(0, out + 12, sizeof(out) - 12), payload.data, used)
        memcpy(out, &f, sizeof(Frame))
        h.link.send(h.link.context, bit(index), out, sizeof(out), payload)
        value_unref(payload)
        if h.scratch_size > SCRATCH_KEPT:
            free(h.scratch)
            h.scratch = NULL
            h.scratch_size = 0
        job.begun = True
        job.left = job.left - used if job.left > used else 0
    if job.next >= job.end or job.left == 0:
        job.active = False
    return body.count > 0


cdef Value *value_from(const uint8_t *data, size_t size) noexcept nogil:
    cdef ValueHead head
    memset(&head, 0, sizeof(head))
    head.size = <uint32_t>size
    return value_copy(&head, data)


cdef void history_free(Group *g) noexcept nogil:
    while g.tail_count:
        tail_pop(g)
    free(g.tail)
    g.tail = NULL
