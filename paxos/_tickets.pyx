# cython: language_level=3
"""Python's side of the hand-over: a ticket for each chunk that it has handed in and has not been told the fate of, and what the
engine tells, as objects. Under the GIL, all of it.

A chunk has two numbers. The token is what submit() returns. The sequence number is what the chunk travels under; the
replica wants these without a gap, and chunks whose deadline passes before the cluster is formed never get one.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy
from paxos._admission cimport admission_begin, admission_done, admission_refuses, admission_settled, admission_take
from paxos._delivery cimport (
    Delivery, EVENT_AHEAD, EVENT_BEHIND, EVENT_CARRY, EVENT_CHAIN, EVENT_CHOSEN, EVENT_DIVERGED, EVENT_FORMED, EVENT_LOG,
    EVENT_MASTER, EVENT_MASTERSHIP, EVENT_MEMBERSHIP, EVENT_READABLE, EVENT_SETTLED, Event, Ticket, clock_now, delivery_pop,
    delivery_put, delivery_token,
)
from paxos._types cimport CHUNK_WINDOW, ChunkHead, VALUE_BATCH, Value, life_of, value_new, value_unref
from paxos._values cimport chunk_head, chunk_values

from paxos.errors import Overloaded, ValueTooLarge

cdef tuple ALARMS = (None, "disk-full", "log-lost")     # by AlarmKind, as paxos.alarm names them


cdef bint settle(Delivery *d, uint64_t token) noexcept nogil:
    """Takes a token off the books. False: it was not on them (told already, or of nobody here)."""
    cdef Ticket *t = &d.tickets[token % CHUNK_WINDOW]
    if token == 0 or t.token != token:
        return False
    t.token = 0
    d.pending_chunks -= 1
    d.pending_bytes -= t.bytes
    admission_settled(&d.admission, t.values, t.bytes)
    while d.oldest < d.next_token and d.tickets[d.oldest % CHUNK_WINDOW].token != d.oldest:
        d.oldest += 1
    return True


cdef int tickets_admit(Delivery *d, int64_t now) except -1:
    cdef int64_t wait
    if d.pending_chunks >= d.max_pending or d.next_token - d.oldest >= CHUNK_WINDOW - 1:
        raise Overloaded(f"{d.pending_chunks} proposals are waiting already: try again later, or propose less at once")
    # Where the last one was kept out for its size, so is the next, before anybody looks at what is in it.
    if d.crowded:
        if d.pending_bytes + d.max_pending_bytes // 8 > d.max_pending_bytes:
            raise Overloaded(f"proposals of {d.pending_bytes} bytes are waiting already: try again later")
        d.crowded = False
    if d.pending_chunks:
        wait = admission_refuses(&d.admission, now, now - d.tickets[d.oldest % CHUNK_WINDOW].at)
        if wait:
            raise Overloaded(f"a proposal made now would wait for about {wait / 1e9:.1f} s, which is longer than max_wait="
                             f"{d.admission.max_wait / 1e9:g} s: try again later, or propose less", wait / 1e9)
    return 0


cdef object tickets_submit(Delivery *d, uint32_t machine, object values, int64_t deadline):
    cdef uint64_t size = 0
    cdef uint64_t n
    cdef uint32_t length
    cdef uint8_t *p
    cdef Value *chunk
    cdef ChunkHead *head
    cdef uint64_t token
    cdef int64_t now
    # A private list: the caller's may change in another thread, and lengths are summed before bytes are copied.
    cdef list items = list(values)
    now = clock_now(&d.clock)
    tickets_admit(d, now)
    if not items:
        raise ValueError("a chunk holds at least one value")
    for i in range(len(items)):
        value = items[i]
        if not PyBytes_CheckExact(value):
            value = items[i] = memoryview(value).tobytes()
        n = <uint64_t>PyBytes_GET_SIZE(value)
        if n > d.max_value:
            raise ValueTooLarge(f"a value of {n} bytes is above the limit of {d.max_value} bytes")
        size += 4 + n
    if size > d.max_chunk:
        raise ValueTooLarge(f"values of {size} bytes together are above the limit of {d.max_chunk} bytes for one "
                            "submission: hand them in in several")
    if d.pending_bytes + size > d.max_pending_bytes:
        d.crowded = True
        raise Overloaded(f"proposals of {d.pending_bytes} bytes are waiting already: try again later")
    chunk = value_new(VALUE_BATCH, <uint32_t>len(items), <uint32_t>(sizeof(ChunkHead) + size))
    head = <ChunkHead *>chunk.data
    p = chunk.data + sizeof(ChunkHead)
    for value in items:
        length = <uint32_t>PyBytes_GET_SIZE(value)
        memcpy(p, &length, 4)
        memcpy(p + 4, PyBytes_AS_STRING(value), length)
        p += 4 + length
    token = d.next_token
    d.next_token += 1
    head.size = <uint32_t>size
    head.count = <uint32_t>len(items)
    head.origin = d.node
    head.boot = d.boot
    head.seq = 0                    # the engine fills it in when the chunk goes to the replica
    head.machine = machine
    head.life = life_of(d.inc_lo)
    d.tickets[token % CHUNK_WINDOW].token = token
    d.tickets[token % CHUNK_WINDOW].bytes = size
    d.tickets[token % CHUNK_WINDOW].values = <uint64_t>len(items)
    d.tickets[token % CHUNK_WINDOW].at = now
    if d.pending_chunks == 0:
        admission_begin(&d.admission, now)
    admission_take(&d.admission, now, <uint64_t>len(items), size)
    d.pending_chunks += 1
    d.pending_bytes += size
    delivery_put(d, token, deadline, chunk)
    return token


# ---- what the engine tells ----

cdef tuple decode(Delivery *d, const Event *e):
    """An instance as runs of values per state machine, and what of it this process had handed in."""
    cdef list runs = []
    cdef list settled = []
    cdef list values = None
    cdef const uint8_t *p
    cdef const uint8_t *end
    cdef ChunkHead head
    cdef uint32_t machine = 0
    cdef Py_ssize_t start
    cdef uint64_t token
    if e.value == NULL or e.value.kind != VALUE_BATCH:
        return (EVENT_CHOSEN, e.group, e.instance, e.a, runs, settled)
    p = e.value.data
    end = p + e.value.size
    while p < end:
        p = chunk_head(&head, p, end, e.instance)
        if values is None or machine != head.machine:
            machine = head.machine
            values = []
            runs.append((machine, values))
        start = len(values)
        p = chunk_values(&head, p, e.instance, values)
        if head.origin == d.node and head.boot == d.boot and head.life == life_of(d.inc_lo):
            token = delivery_token(d, head.seq)
            if settle(d, token):
                admission_done(&d.admission, d.last_drain, d.tickets[token % CHUNK_WINDOW].values,
                               d.tickets[token % CHUNK_WINDOW].bytes)
                settled.append((token, len(runs) - 1, start, head.count))
    return (EVENT_CHOSEN, e.group, e.instance, e.a, runs, settled)


cdef object to_python(Delivery *d, const Event *e):
    if e.type == EVENT_CHOSEN:
        return decode(d, e)
    if e.type == EVENT_SETTLED:
        # None: the chunk was told to be chosen already. A token is settled once.
        return (EVENT_SETTLED, e.instance, e.a) if settle(d, e.instance) else None
    if e.type == EVENT_MASTER:
        return (EVENT_MASTER, e.group, e.a, e.instance, e.b != 0)
    if e.type == EVENT_LOG:
        return (EVENT_LOG, <int>e.a, e.text.decode("utf-8", "replace"), ALARMS[<int>e.b])
    if e.type == EVENT_FORMED:
        return (EVENT_FORMED,)
    if e.type == EVENT_AHEAD:
        return (EVENT_AHEAD, e.group, e.instance)
    if e.type == EVENT_BEHIND:
        return (EVENT_BEHIND, e.group, e.instance, e.a)
    if e.type == EVENT_CARRY:
        return (EVENT_CARRY, e.group, e.a, PyBytes_FromStringAndSize(<const char *>e.value.data, e.value.size))
    if e.type == EVENT_MEMBERSHIP:
        return (EVENT_MEMBERSHIP, e.group, e.a)
    if e.type == EVENT_CHAIN:
        return (EVENT_CHAIN, e.group, e.instance, e.a)
    if e.type == EVENT_MASTERSHIP:
        return (EVENT_MASTERSHIP, e.group, e.a, e.b, e.instance)
    if e.type == EVENT_READABLE:
        return (EVENT_READABLE, e.group, e.instance, e.a)
    return (EVENT_DIVERGED, e.group, e.instance, e.a)


cdef list tickets_drain(Delivery *d, Py_ssize_t max_values):
    cdef list result = []
    cdef Event *events
    cdef size_t count, i
    if max_values < 1:
        raise ValueError("drain() takes at least one value")
    count = delivery_pop(d, clock_now(&d.clock), <size_t>max_values, &events)
    try:
        for i in range(count):
            item = to_python(d, &events[i])
            if item is not None:
                result.append(item)
    finally:
        for i in range(count):
            value_unref(events[i].value)
            free(events[i].text)
        free(events)
    return result
