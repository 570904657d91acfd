# cython: language_level=3
"""The two queues between the engine's thread and Python.

To the engine: chunks and commands, taken all at once at the start of a round. Whoever puts something in writes the
engine's eventfd only if the engine said that it is going to sleep; so a burst costs one system call, and a busy engine
none. To Python: events, handed over in bulk at the end of a round, or just before the thread goes into a log write; the
eventfd is written only when it is not readable yet, and drain() reads it only when it has emptied the queue.

A chunk has two numbers. The token is what submit() returns. The sequence number is what the chunk travels under; the
replica wants these without a gap, and chunks whose deadline passes before the cluster is formed never get one.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort, free, malloc
from libc.string cimport memcpy, memset, strlen
from paxos._admission cimport admission_begin, admission_done, admission_refuses, admission_settled, admission_take
from paxos._values cimport chunk_head, chunk_values
from paxos._types cimport CHUNK_WINDOW, VALUE_BATCH, ChunkHead, Value, life_of, value_new, value_ref, value_unref, xalloc, xrealloc, xzalloc

from paxos.errors import Overloaded, ValueTooLarge

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int initial, int flags)
    int EFD_CLOEXEC
    int EFD_NONBLOCK

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void *data, size_t size)
    ssize_t write(int fd, const void *data, size_t size)
    int close(int fd)

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_BOOTTIME
    int clock_gettime(int clock, timespec *out)

cdef enum:
    QUEUE_BYTES = 67108864          # chosen values that may wait for Python; what is beyond is read from the log again
    EVENT_WEIGHT = 64
    MAX_CONTROL = 65536             # log lines are dropped, and counted, beyond so many queued events
    ORDER_BYTES = 16777216          # for other nodes' Python sides that may wait for the engine
    COALESCE = 4096                 # beyond so many queued events a new master replaces the one that is queued

cdef tuple ALARMS = (None, "disk-full", "log-lost")     # by AlarmKind, as paxos.alarm names them


cdef int64_t boottime() noexcept nogil:
    cdef timespec t
    if clock_gettime(CLOCK_BOOTTIME, &t) != 0:
        # Leases and elections stand on this clock: without it nothing here may go on.
        fprintf(stderr, "paxos: clock_gettime(CLOCK_BOOTTIME) failed (errno %d)\n", errno)
        abort()
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


cdef int64_t _boottime(void *context) noexcept nogil:
    return boottime()


cdef void clock_real(Clock *c) noexcept nogil:
    c.context = NULL
    c.now = _boottime


cdef inline void lock(Delivery *d) noexcept nogil:
    if pthread_mutex_lock(&d.mutex) != 0:
        fprintf(stderr, "paxos: pthread_mutex_lock failed\n")
        abort()


cdef inline void unlock(Delivery *d) noexcept nogil:
    if pthread_mutex_unlock(&d.mutex) != 0:
        fprintf(stderr, "paxos: pthread_mutex_unlock failed\n")
        abort()


cdef void signal(int fd) noexcept nogil:
    cdef uint64_t one = 1
    if fd < 0:
        return
    while write(fd, &one, 8) != 8:
        if errno == EAGAIN:
            return                  # the counter is full: readable already, which is all that is wanted
        if errno != EINTR:
            fprintf(stderr, "paxos: writing an eventfd failed (errno %d)\n", errno)
            abort()


cdef void silence(int fd) noexcept nogil:
    cdef uint64_t count
    if fd < 0:
        return
    while read(fd, &count, 8) != 8:
        if errno == EAGAIN:
            return                  # not readable: nothing to take back
        if errno != EINTR:
            fprintf(stderr, "paxos: reading an eventfd failed (errno %d)\n", errno)
            abort()


cdef int delivery_init(Delivery *d, bint descriptors) noexcept nogil:
    cdef int error
    memset(d, 0, sizeof(Delivery))
    d.wake_engine = -1
    d.wake_python = -1
    error = pthread_mutex_init(&d.mutex, NULL)
    if error:
        return error
    clock_real(&d.clock)
    if descriptors:
        d.wake_engine = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if d.wake_engine < 0:
            return errno
        d.wake_python = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if d.wake_python < 0:
            return errno
    d.ring_size = 1024
    d.ring = <Event *>xalloc(d.ring_size * sizeof(Event))
    d.wires = <Wire *>xzalloc(CHUNK_WINDOW * sizeof(Wire))
    d.tickets = <Ticket *>xzalloc(CHUNK_WINDOW * sizeof(Ticket))
    d.next_token = 1
    d.oldest = 1
    return 0


cdef void delivery_free(Delivery *d) noexcept nogil:
    cdef size_t i
    cdef uint64_t n
    for i in range(d.inbox_count):
        value_unref(d.inbox[i].chunk)
    for i in range(d.order_count):
        value_unref(d.orders[i].value)
    for i in range(d.fresh_count):
        value_unref(d.fresh[i].value)
        free(d.fresh[i].text)
    n = d.head
    while n < d.tail:
        value_unref(d.ring[n & (d.ring_size - 1)].value)
        free(d.ring[n & (d.ring_size - 1)].text)
        n += 1
    free(d.inbox)
    free(d.taken)
    free(d.orders)
    free(d.ordered)
    free(d.fresh)
    free(d.ring)
    free(d.wires)
    free(d.tickets)
    # Nothing can be lost by a failing close of an eventfd: it holds no data.
    if d.wake_engine >= 0 and close(d.wake_engine) != 0:
        fprintf(stderr, "paxos: closing an eventfd failed (errno %d)\n", errno)
    if d.wake_python >= 0 and close(d.wake_python) != 0:
        fprintf(stderr, "paxos: closing an eventfd failed (errno %d)\n", errno)
    pthread_mutex_destroy(&d.mutex)
    memset(d, 0, sizeof(Delivery))
    d.wake_engine = -1
    d.wake_python = -1


# ---- engine's thread ----

cdef Event *delivery_event(Delivery *d, int type, uint32_t group) noexcept nogil:
    cdef Event *e
    if d.fresh_count == d.fresh_size:
        d.fresh_size = d.fresh_size * 2 if d.fresh_size else 256
        d.fresh = <Event *>xrealloc(d.fresh, d.fresh_size * sizeof(Event))
    e = &d.fresh[d.fresh_count]
    d.fresh_count += 1
    memset(e, 0, sizeof(Event))
    e.type = type
    e.group = group
    return e


cdef void delivery_chosen(Delivery *d, uint32_t group, uint64_t instance, uint32_t chain, Value *value) noexcept nogil:
    cdef Event *e = delivery_event(d, EVENT_CHOSEN, group)
    e.instance = instance
    e.a = chain
    e.value = value_ref(value)
    d.fresh_bytes += EVENT_WEIGHT + (value.size if value != NULL else 0)


cdef void delivery_carry(Delivery *d, uint32_t group, uint32_t node, Value *bytes) noexcept nogil:
    cdef Event *e = delivery_event(d, EVENT_CARRY, group)
    e.a = node
    e.value = value_ref(bytes)
    d.fresh_bytes += EVENT_WEIGHT + bytes.size


cdef bint delivery_room(const Delivery *d) noexcept nogil:
    return d.seen_bytes + d.fresh_bytes < QUEUE_BYTES


cdef void delivery_log(Delivery *d, int level, const char *text) noexcept nogil:
    delivery_alarm(d, 0, level, text)


cdef void delivery_alarm(Delivery *d, int kind, int level, const char *text) noexcept nogil:
    cdef Event *e
    cdef size_t size = strlen(text) + 1
    if d.fresh_count >= MAX_CONTROL:
        d.logs_dropped += 1
        return
    e = delivery_event(d, EVENT_LOG, 0)
    e.a = <uint64_t>level
    e.b = <uint64_t>kind
    e.text = <char *>xalloc(size)
    memcpy(e.text, text, size)


cdef void push(Delivery *d, const Event *e) noexcept nogil:
    cdef Event *ring
    cdef uint64_t n
    if e.type == EVENT_LOG and d.tail - d.head >= MAX_CONTROL:
        free(e.text)
        d.logs_dropped += 1
        return
    if e.type == EVENT_MASTER:
        # Elections may go on for days beside a Python side that is stuck: the newest is what counts.
        if d.tail - d.head >= COALESCE and d.master_mark > d.head:
            if d.ring[(d.master_mark - 1) & (d.ring_size - 1)].group == e.group:
                d.ring[(d.master_mark - 1) & (d.ring_size - 1)] = e[0]
                return
        d.master_mark = d.tail + 1
    if d.tail - d.head == d.ring_size:
        ring = <Event *>xalloc(d.ring_size * 2 * sizeof(Event))
        n = d.head
        while n < d.tail:
            ring[n & (d.ring_size * 2 - 1)] = d.ring[n & (d.ring_size - 1)]
            n += 1
        free(d.ring)
        d.ring = ring
        d.ring_size *= 2
    d.ring[d.tail & (d.ring_size - 1)] = e[0]
    d.tail += 1


cdef void handed_over(Delivery *d) noexcept nogil:
    """Gives the mutex back; an engine that sleeps is woken for what it was given."""
    cdef bint wake = d.sleeping
    d.sleeping = False
    unlock(d)
    if wake:
        signal(d.wake_engine)


cdef void look(Delivery *d) noexcept nogil:
    """Copies what the engine wants to know without the mutex."""
    d.seen_bytes = d.bytes
    d.seen_orders = d.order_count > 0
    d.seen_signalled = d.signalled
    d.seen_drain = d.last_drain
    if d.signalled and d.signalled_at > d.last_drain:
        d.seen_drain = d.signalled_at


cdef void delivery_publish(Delivery *d, const Status *status, bint blocked) noexcept nogil:
    cdef size_t i
    cdef bint wake
    lock(d)
    for i in range(d.fresh_count):
        push(d, &d.fresh[i])
    wake = d.fresh_count > 0 and not d.signalled
    if wake:
        d.signalled = True
        d.signalled_at = clock_now(&d.clock)
    d.bytes += d.fresh_bytes
    d.blocked = blocked
    d.status = status[0]
    look(d)
    unlock(d)
    d.fresh_count = 0
    d.fresh_bytes = 0
    if wake:
        signal(d.wake_python)


cdef void delivery_ping(Delivery *d) noexcept nogil:
    cdef bint wake
    lock(d)
    wake = not d.signalled
    if wake:
        d.signalled = True
        d.signalled_at = clock_now(&d.clock)
    look(d)
    unlock(d)
    if wake:
        signal(d.wake_python)


cdef void delivery_oldest(Delivery *d, uint64_t segment) noexcept nogil:
    lock(d)
    d.oldest_segment = segment
    unlock(d)


cdef size_t delivery_take(Delivery *d, Submission **taken, int *resign, bint *stop) noexcept nogil:
    cdef Submission *inbox
    cdef size_t count
    cdef size_t size
    lock(d)
    d.sleeping = False
    inbox = d.inbox
    count = d.inbox_count
    size = d.inbox_size
    d.inbox = d.taken
    d.inbox_size = d.taken_size
    d.inbox_count = 0
    resign[0] = d.resign
    d.resign = 0
    stop[0] = d.stop
    d.stop = False
    look(d)
    unlock(d)
    d.taken = inbox
    d.taken_size = size
    taken[0] = inbox
    return count


cdef size_t delivery_orders(Delivery *d, Order **taken) noexcept nogil:
    cdef Order *orders
    cdef size_t count, size
    lock(d)
    orders = d.orders
    count = d.order_count
    size = d.order_size
    d.orders = d.ordered
    d.order_size = d.ordered_size
    d.order_count = 0
    d.order_bytes = 0
    unlock(d)
    d.ordered = orders
    d.ordered_size = size
    taken[0] = orders
    return count


cdef bint delivery_sleep(Delivery *d) noexcept nogil:
    cdef bint idle
    lock(d)
    # Python may have made room since the engine last looked; then nobody would wake it for what waits in the log.
    idle = (d.inbox_count == 0 and d.order_count == 0 and not d.stop and d.resign == 0
            and (d.seen_bytes < QUEUE_BYTES or d.bytes >= QUEUE_BYTES / 2))
    d.sleeping = idle
    unlock(d)
    return idle


cdef void delivery_wire(Delivery *d, uint64_t seq, uint64_t token) noexcept nogil:
    lock(d)
    d.wires[seq % CHUNK_WINDOW].seq = seq
    d.wires[seq % CHUNK_WINDOW].token = token
    unlock(d)


cdef uint64_t delivery_token(Delivery *d, uint64_t seq) noexcept nogil:
    cdef uint64_t token = 0
    lock(d)
    if d.wires[seq % CHUNK_WINDOW].seq == seq:
        token = d.wires[seq % CHUNK_WINDOW].token
    unlock(d)
    return token


cdef bint delivery_wanted(const Delivery *d) noexcept nogil:
    return d.signalled


# ---- Python's threads ----

cdef bint settle(Delivery *d, uint64_t token) noexcept:
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


cdef int delivery_admit(Delivery *d, int64_t now) except -1:
    cdef int64_t wait
    if d.pending_chunks >= d.max_pending or d.next_token - d.oldest >= CHUNK_WINDOW - 1:
        raise Overloaded(f"{d.pending_chunks} proposals are waiting already: try again later, or propose less at once")
    # Where the last one was kept out for its size, so is the next, before anybody looks at what is in it.
    if d.wanted_bytes:
        if d.pending_bytes + d.wanted_bytes > d.max_pending_bytes:
            raise Overloaded(f"proposals of {d.pending_bytes} bytes are waiting already: try again later")
        d.wanted_bytes = 0
    if d.pending_chunks:
        wait = admission_refuses(&d.admission, now, now - d.tickets[d.oldest % CHUNK_WINDOW].at)
        if wait:
            raise Overloaded(f"a proposal made now would wait for about {wait / 1e9:.1f} s, which is longer than max_wait="
                             f"{d.admission.max_wait / 1e9:g} s: try again later, or propose less", wait / 1e9)
    return 0


cdef object delivery_submit(Delivery *d, uint32_t machine, object values, int64_t deadline):
    cdef Py_buffer view
    cdef uint64_t size = 0
    cdef uint64_t n
    cdef uint32_t length
    cdef uint8_t *p
    cdef uint8_t *end
    cdef Value *chunk
    cdef ChunkHead *head
    cdef Submission *s
    cdef uint64_t token
    cdef int64_t now
    # A private list: the caller's may change in another thread, and lengths are summed before bytes are copied.
    cdef list items = list(values)
    now = clock_now(&d.clock)
    delivery_admit(d, now)
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
        d.wanted_bytes = min(size, d.max_pending_bytes // 8)
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
    admission_take(&d.admission, <uint64_t>len(items), size)
    d.pending_chunks += 1
    d.pending_bytes += size
    lock(d)
    if d.inbox_count == d.inbox_size:
        d.inbox_size = d.inbox_size * 2 if d.inbox_size else 64
        d.inbox = <Submission *>xrealloc(d.inbox, d.inbox_size * sizeof(Submission))
    s = &d.inbox[d.inbox_count]
    d.inbox_count += 1
    s.token = token
    s.deadline = deadline
    s.chunk = chunk
    handed_over(d)
    return token


cdef bint delivery_order(Delivery *d, int type, uint32_t node, uint64_t instance, uint32_t chain, Value *value) noexcept nogil:
    cdef Order *o
    lock(d)
    if type == ORDER_CARRY and d.order_bytes + value.size > ORDER_BYTES:
        unlock(d)
        value_unref(value)
        return False
    if d.order_count == d.order_size:
        d.order_size = d.order_size * 2 if d.order_size else 16
        d.orders = <Order *>xrealloc(d.orders, d.order_size * sizeof(Order))
    o = &d.orders[d.order_count]
    d.order_count += 1
    o.type = type
    o.node = node
    o.instance = instance
    o.chain = chain
    o.value = value
    if value != NULL:
        d.order_bytes += value.size
    handed_over(d)
    return True


cdef void delivery_poke(Delivery *d) noexcept nogil:
    cdef bint wake
    lock(d)
    wake = not d.signalled
    if wake:
        d.signalled = True
        d.signalled_at = clock_now(&d.clock)
    unlock(d)
    if wake:
        signal(d.wake_python)


cdef void delivery_command(Delivery *d, int resign, bint stop) noexcept nogil:
    lock(d)
    if resign:
        d.resign = resign
    if stop:
        d.stop = True
    handed_over(d)


cdef bint delivery_disk_full(Delivery *d) noexcept nogil:
    cdef bint full
    lock(d)
    full = d.status.disk_full
    unlock(d)
    return full


cdef void delivery_lease(Delivery *d, uint64_t chosen, int64_t until) noexcept nogil:
    lock(d)
    d.leased_chosen = chosen
    d.leased_until = until
    unlock(d)


cdef int64_t delivery_leased(Delivery *d) noexcept nogil:
    cdef int64_t chosen = -1
    lock(d)
    if clock_now(&d.clock) < d.leased_until:
        chosen = <int64_t>d.leased_chosen
    unlock(d)
    return chosen


cdef void delivery_members(Delivery *d, const Membership *m) noexcept nogil:
    lock(d)
    d.membership = m[0]
    unlock(d)


cdef void delivery_membership(Delivery *d, Membership *m) noexcept nogil:
    lock(d)
    m[0] = d.membership
    unlock(d)


cdef void delivery_status(Delivery *d, Status *status) noexcept nogil:
    lock(d)
    status[0] = d.status
    status.oldest = d.oldest_segment
    unlock(d)


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


cdef list delivery_drain(Delivery *d, Py_ssize_t max_values):
    cdef list result = []
    cdef Event *batch
    cdef Event *e
    cdef size_t count = 0
    cdef size_t i
    cdef size_t capacity
    cdef Py_ssize_t values = 0
    cdef bint wake = False
    cdef int64_t now = clock_now(&d.clock)
    if max_values < 1:
        raise ValueError("drain() takes at least one value")
    lock(d)
    d.last_drain = now
    capacity = d.tail - d.head
    if capacity > <size_t>max_values:
        capacity = <size_t>max_values
    batch = <Event *>xalloc(capacity * sizeof(Event))
    while count < capacity and values < max_values:
        e = &d.ring[d.head & (d.ring_size - 1)]
        d.head += 1
        batch[count] = e[0]
        count += 1
        if e.type == EVENT_CHOSEN:
            d.bytes -= EVENT_WEIGHT + (e.value.size if e.value != NULL else 0)
            values += e.value.count if e.value != NULL and e.value.count else 1
        elif e.type == EVENT_CARRY:
            d.bytes -= EVENT_WEIGHT + e.value.size
            values += 1
        else:
            values += 1
    if d.head == d.tail and d.signalled:
        d.signalled = False
        silence(d.wake_python)      # under the mutex: a signal that comes after it must not be taken back
    if d.blocked and d.bytes < QUEUE_BYTES / 2:
        d.blocked = False
        wake = d.sleeping
        d.sleeping = False
    unlock(d)
    if wake:
        signal(d.wake_engine)
    try:
        for i in range(count):
            item = to_python(d, &batch[i])
            if item is not None:
                result.append(item)
    finally:
        for i in range(count):
            value_unref(batch[i].value)
            free(batch[i].text)
        free(batch)
    return result
