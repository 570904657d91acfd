# cython: language_level=3
"""The two queues between the engine's thread and Python.

To the engine: chunks and commands, taken all at once at the start of a round. Whoever puts something in writes the
engine's eventfd only if the engine said that it is going to sleep; so a burst costs one system call, and a busy engine
none. To Python: events, handed over in bulk at the end of a round, or just before the thread goes into a log write; the
eventfd is written only when it is not readable yet, and drain() reads it only when it has emptied the queue.
"""
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort, free, malloc
from libc.string cimport memcpy, memset, strlen
from paxos._types cimport CHUNK_WINDOW, Value, value_ref, value_unref, xalloc, xrealloc, xzalloc

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

cdef void delivery_put(Delivery *d, uint64_t token, int64_t deadline, Value *chunk) noexcept nogil:
    cdef Submission *s
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


cdef size_t delivery_pop(Delivery *d, int64_t now, size_t most, Event **events) noexcept nogil:
    cdef Event *e
    cdef size_t count = 0, values = 0
    cdef size_t capacity
    cdef bint wake = False
    lock(d)
    d.last_drain = now
    capacity = min(d.tail - d.head, most)
    events[0] = <Event *>xalloc(capacity * sizeof(Event))
    while count < capacity and values < most:
        e = &d.ring[d.head & (d.ring_size - 1)]
        d.head += 1
        events[0][count] = e[0]
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
    return count
