# cython: language_level=3
"""The engine's loop: sockets, timers and the log around the replicas, without the GIL.

A round: read what came and step the replicas with it; take what Python submitted; tick; let the replicas propose; send.
Only then write the log, so that an Accept is on its way while the disk works. What the written records allowed to leave is
sent, and what arrived meanwhile is the next round, hence the next write: group commit without a timer.

Each decision is the replica's or the formation's. What is decided here is order: effects are taken before the next
step; a send that stands on records waits until they are durable; Python gets each instance once, in order, from
memory where it can be and from the log where Python was behind.
"""
from libc.errno cimport EBADMSG, errno
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport fflush, fprintf, snprintf, stderr
from libc.stdlib cimport free
from libc.string cimport memcpy, memmove, memset, strerror, strlen
from paxos._codec cimport crc32c, out_clear, value_check, value_copy
from paxos._core cimport (
    replica_deadline, replica_durable, replica_free, replica_new, replica_peer, replica_pump, replica_receive,
    replica_resign, replica_restore, replica_seal, replica_start, replica_submit, replica_tick,
)
from paxos._delivery cimport (
    EVENT_DIVERGED, EVENT_FORMED, EVENT_MASTER, EVENT_SETTLED, Event, Status, Submission, boottime, delivery_chosen,
    delivery_event, delivery_log, delivery_ping, delivery_publish, delivery_room, delivery_sleep, delivery_take,
    delivery_token, delivery_wire,
)
from paxos._formation cimport (
    REFUSE_NONE, REFUSE_NOT_FOR_ME, REFUSE_NOT_MEMBER, REFUSE_OTHER_CLUSTER, REFUSE_OTHER_CONFIG,
    REFUSE_OTHER_INCARNATION, STATE_EMPTY, STATE_FORMED, Refuse, formation_admits, formation_durable, formation_free,
    formation_hello, formation_receive, formation_restore, formation_start, formation_tick,
)
from paxos._net cimport (
    CONN_CLOSED, CONN_HANDSHAKE, CONN_OPEN, MAX_ACCEPTED, REASON_GROUP, REASON_NOT_ADMITTED, REASON_NOT_FOR_ME,
    REASON_NO_HELLO, REASON_SENDER, REASON_DIRECTION, Conn, net_connected, net_deadline, net_flush, net_frame, net_free, net_more,
    net_opened, net_poll, net_read, net_refuse, net_send, net_start, net_sweep, net_tick,
)
from paxos._segments cimport index_free, index_get, index_set, store_append, store_flush, store_pending, store_read
from paxos._types cimport (
    EFFECT_CHOSEN, EFFECT_DIVERGED, EFFECT_FORMED, EFFECT_LOG, EFFECT_MASTER, EFFECT_READ, EFFECT_SEND, EFFECT_SETTLED,
    FORMAT_VERSION, FRAME_HELLO, FRAME_LEARNED, FRAME_MAGIC, FRAME_PREVOTE, FRAME_REFUSE, MAX_MEMBERS, RECORD_ACCEPT,
    RECORD_FORMATION, RECORD_FORMED, RECORD_IDENTITY, RECORD_LEARN, SETTLE_NOT_AVAILABLE, ChunkHead, Effect, Frame,
    Learned, Outbox, Record, RecordAccept, RecordLearn, Value, ValueHead, bit, value_ref, value_unref, xalloc, xrealloc,
    xzalloc,
)

cdef extern from "<unistd.h>" nogil:
    void _exit(int status)

cdef enum:
    SECOND = 1000000000
    MILLISECOND = 1000000
    FORMATION_TICK = 100            # ms
    SEAL_AFTER = 100                # ms without a write
    PING_AFTER = 1                  # s without a drain(): Python is asked for a sign of life
    GAP = 3                         # s without a round: the thread itself was stopped, so nothing is Python's fault
    ROUND_BYTES = 1048576           # read from one connection in one round
    LEARNED_BYTES = 1048576         # values in one LEARNED frame, and sent from the log in one round
    PEER_BACKLOG = 4194304          # a peer that has so much waiting gets no more from the log for now
    REFILL = 256                    # instances read back for Python in one round
    REFILL_BYTES = 4194304
    TAIL_BYTES = 16777216           # of the newest chosen values kept in memory for Python
    EXIT_LOG = 74                   # EX_IOERR: see fatal()
    HELLO_SIZE = 96


cdef void fatal(Host *h, const char *what, int error) noexcept nogil:
    """The log failed, or lies. Going on could break a promise, and after a failed sync not even a retry can be trusted."""
    fprintf(stderr, "paxos: node %u: %s: %s (errno %d). What was logged behind position %llu is not trusted: it was neither "
            "acknowledged nor promised to anybody. The process stops with status %d; check the disk, then start the node again.\n",
            h.options.node, what, strerror(error), error, <unsigned long long>h.store.writer.durable, <int>EXIT_LOG)
    fflush(stderr)
    _exit(EXIT_LOG)


# ---- sends that wait ----

cdef void hold(HeldQueue *q, const Effect *e, const uint8_t *head) noexcept nogil:
    cdef HeldSend *s
    if q.count == q.capacity:
        q.capacity = q.capacity * 2 if q.capacity else 64
        q.items = <HeldSend *>xrealloc(q.items, q.capacity * sizeof(HeldSend))
    if q.used + e.head_size > q.size:
        q.size = (q.used + e.head_size) * 2
        q.arena = <uint8_t *>xrealloc(q.arena, q.size)
    s = &q.items[q.count]
    q.count += 1
    s.after = e.after
    s.peers = e.peers
    s.head = q.used
    s.size = e.head_size
    s.value = value_ref(e.value)
    memcpy(q.arena + q.used, head, e.head_size)
    q.used += e.head_size


cdef void release(Host *h, HeldQueue *q, uint64_t durable) noexcept nogil:
    cdef size_t i
    cdef size_t kept = 0
    cdef HeldSend *s
    for i in range(q.count):
        s = &q.items[i]
        if s.after > durable:
            q.items[kept] = s[0]
            kept += 1
            continue
        net_send(&h.net, s.peers, q.arena + s.head, s.size, s.value)
        value_unref(s.value)
    q.count = kept
    if kept == 0:
        q.used = 0


cdef void held_free(HeldQueue *q) noexcept nogil:
    cdef size_t i
    for i in range(q.count):
        value_unref(q.items[i].value)
    free(q.items)
    free(q.arena)
    memset(q, 0, sizeof(HeldQueue))


# ---- chosen values on their way to Python ----

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
            delivery_chosen(&h.delivery, g.id, g.cursor, g.tail[g.tail_first & (TAIL - 1)])
            g.cursor += 1
        tail_pop(g)


cdef void chosen(Host *h, Group *g, uint64_t instance, Value *value) noexcept nogil:
    if instance < g.cursor:
        return                      # the state machine has it already
    if g.tail_count == 0:
        g.tail_first = instance
    while g.tail_count == TAIL or (g.tail_count and g.tail_bytes + value.size > TAIL_BYTES):
        tail_pop(g)
        if g.tail_count == 0:
            g.tail_first = instance
    g.tail[instance & (TAIL - 1)] = value_ref(value)
    g.tail_count += 1
    g.tail_bytes += value.size
    deliver(h, g)


cdef uint8_t *read_value(Host *h, Group *g, uint64_t instance, uint64_t position, ValueHead *head,
                         const uint8_t **data) noexcept nogil:
    """The record that holds the value of an instance: malloc'ed, checked, value at *data. Never NULL."""
    cdef uint32_t size = 0
    cdef int error = 0
    cdef size_t before
    cdef uint8_t *record = store_read(h.store, position, &size, &error)
    cdef Record *r = <Record *>record
    if record == NULL:
        fatal(h, "reading the log failed", error)
    if size < sizeof(Record) or r.group != g.id or r.instance != instance:
        fatal(h, "the log holds another record than was written", EBADMSG)
    if r.type == RECORD_ACCEPT:
        before = sizeof(Record) + sizeof(RecordAccept)
    elif r.type == RECORD_LEARN:
        before = sizeof(Record) + sizeof(RecordLearn)
    else:
        before = 0
        fatal(h, "the log holds a record of another type than was written", EBADMSG)
    if size < before:
        fatal(h, "the log holds a record that is too short", EBADMSG)
    memcpy(head, record + before - sizeof(ValueHead), sizeof(ValueHead))
    data[0] = record + before
    if value_check(head, data[0], size - before) != 0:
        fatal(h, "the log holds a record that is malformed", EBADMSG)
    return record


cdef bint behind(const Group *g) noexcept nogil:
    """Whether Python's next instance is chosen but no longer in memory."""
    return g.replica != NULL and g.cursor < g.replica.chosen and (g.tail_count == 0 or g.cursor < g.tail_first)


cdef void refill(Host *h, Group *g) noexcept nogil:
    cdef uint64_t position
    cdef ValueHead head
    cdef const uint8_t *data = NULL
    cdef uint8_t *record
    cdef Value *value
    cdef int n
    cdef size_t read = 0
    for n in range(REFILL):
        if not behind(g) or not delivery_room(&h.delivery) or read > REFILL_BYTES:
            break
        position = index_get(&g.index, g.cursor)
        if position == 0:
            fatal(h, "a chosen value is missing in the log", EBADMSG)
        if position >= h.store.writer.durable:
            break                   # part of the next write
        record = read_value(h, g, g.cursor, position, &head, &data)
        value = value_copy(&head, data)
        free(record)
        delivery_chosen(&h.delivery, g.id, g.cursor, value)
        value_unref(value)
        read += head.size
        g.cursor += 1
    deliver(h, g)


# ---- frames made here ----

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


cdef void refuse(Host *h, Conn *conn, int reason, const Frame *hello) noexcept nogil:
    cdef uint8_t out[640]
    cdef char text[512]
    cdef Frame f
    cdef Refuse body
    cdef size_t size
    memset(&body, 0, sizeof(body))
    body.reason = <uint32_t>reason
    if reason == REFUSE_NOT_FOR_ME:
        snprintf(text, sizeof(text), "this is node %u: compare the cluster= settings", h.options.node)
    elif reason == REFUSE_OTHER_CLUSTER:
        snprintf(text, sizeof(text), "node %u belongs to another cluster (its signature ends in %016llx)", h.options.node,
                 <unsigned long long>h.formation.sig_lo)
    elif reason == REFUSE_NOT_MEMBER:
        snprintf(text, sizeof(text), "node %u is no member of this cluster", hello.sender)
    elif reason == REFUSE_OTHER_INCARNATION:
        snprintf(text, sizeof(text), "the cluster knows node %u in another incarnation: its data directory was replaced, or "
                 "two processes use this node id", hello.sender)
    elif reason == REFUSE_OTHER_CONFIG:
        snprintf(text, sizeof(text), "node %u was given other members: compare the cluster= settings", h.options.node)
    else:
        snprintf(text, sizeof(text), "the handshake was refused (reason %d)", reason)
    size = sizeof(Frame) + sizeof(Refuse) + strlen(text)
    frame_head(h, &f, FRAME_REFUSE, size)
    memcpy(out, &f, sizeof(Frame))
    memcpy(out + sizeof(Frame), &body, sizeof(Refuse))
    memcpy(out + sizeof(Frame) + sizeof(Refuse), text, strlen(text))
    f.crc = crc32c(0, out + 12, size - 12)
    memcpy(out, &f, sizeof(Frame))
    net_refuse(&h.net, conn, reason - REFUSE_NOT_FOR_ME + REASON_NOT_FOR_ME, out, size)


cdef bint serve(Host *h, Group *g, uint32_t index) noexcept nogil:
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
    memset(&body, 0, sizeof(body))
    if not h.net.peers[index].greeted:
        job.active = False          # he will ask again when he is back
        return False
    if h.net.peers[index].out.bytes > PEER_BACKLOG:
        return False
    while job.next < job.end:
        position = index_get(&g.index, job.next)
        if position == 0:
            job.end = job.next      # not kept here
            break
        if position >= h.store.writer.durable:
            break                   # part of the next write
        record = read_value(h, g, job.next, position, &head, &data)
        size = sizeof(ValueHead) + head.size
        if used + size > limit and (used or job.begun):
            free(record)
            if used == 0 or job.left - used < size:
                job.end = job.next  # he asked for no more than that
            break
        if used + size > h.scratch_size:
            h.scratch_size = (used + size) * 2
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
        net_send(&h.net, bit(index), out, sizeof(out), payload)
        value_unref(payload)
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


# ---- effects ----

cdef void append(Host *h, uint32_t group, const Effect *e, const uint8_t *head, Group *g) noexcept nogil:
    cdef int error = 0
    cdef uint64_t position = store_append(h.store, <uint8_t>e.code, group, e.instance, head, e.head_size,
                                          e.value.data if e.value != NULL else NULL,
                                          e.value.size if e.value != NULL else 0, &error)
    if position == 0:
        fatal(h, "writing the log failed", error)
    if g == NULL:
        h.formation_appended += 1
        return
    g.appended += 1
    g.unsealed = True
    if e.code == RECORD_ACCEPT or e.code == RECORD_LEARN:
        index_set(&g.index, e.instance, position)


cdef void take(Host *h, Outbox *out, Group *g) noexcept nogil:
    """Carries out the effects of the step just made; g is NULL for the formation's."""
    cdef size_t i
    cdef Effect *e
    cdef Event *event
    cdef ReadJob *job
    cdef uint32_t k
    cdef uint32_t group = g.id if g != NULL else 0
    cdef uint64_t durable = g.replica.durable if g != NULL else h.formation_reported
    cdef HeldQueue *held = &g.held if g != NULL else &h.formation_held
    if out.count == 0:
        return
    for i in range(out.count):
        e = &out.effects[i]
        if e.type == EFFECT_SEND:
            if e.after <= durable:
                net_send(&h.net, e.peers, out.arena + e.head, e.head_size, e.value)
            else:
                hold(held, e, out.arena + e.head)
        elif e.type == EFFECT_LOG:
            append(h, group, e, out.arena + e.head, g)
        elif e.type == EFFECT_CHOSEN:
            chosen(h, g, e.instance, e.value)
        elif e.type == EFFECT_READ:
            for k in range(h.net.peer_count):
                if e.peers & bit(k):
                    job = &g.reads[k]
                    job.active = True
                    job.begun = False
                    job.next = e.instance
                    job.end = e.end
                    job.left = e.after
        elif e.type == EFFECT_SETTLED:
            event = delivery_event(&h.delivery, EVENT_SETTLED, group)
            event.instance = delivery_token(&h.delivery, e.instance)
            event.a = e.code
        elif e.type == EFFECT_MASTER:
            event = delivery_event(&h.delivery, EVENT_MASTER, group)
            event.a = e.code
            event.instance = e.instance
            event.b = e.end
        elif e.type == EFFECT_DIVERGED:
            event = delivery_event(&h.delivery, EVENT_DIVERGED, group)
            event.instance = e.instance
            event.a = e.code
        elif e.type == EFFECT_FORMED:
            delivery_event(&h.delivery, EVENT_FORMED, 0)
            form(h)
    out_clear(out)


cdef void make_replica(Host *h, Group *g) noexcept nogil:
    h.options.group = g.id
    h.seed = h.seed * <uint64_t>6364136223846793005 + <uint64_t>1442695040888963407
    g.replica = replica_new(&h.options, &h.formation.members, h.formation.sig_lo, h.formation.inc_hi, h.formation.inc_lo,
                            h.boot, h.seed if h.seed else 1)


cdef void begin(Host *h, Group *g) noexcept nogil:
    """First steps of a replica: it starts, hears who is connected, and gets what was submitted before it was there."""
    cdef uint32_t i
    cdef uint32_t up = net_connected(&h.net)
    g.appended = g.replica.logged
    g.reported = g.replica.durable
    replica_start(g.replica, h.now)
    take(h, &g.replica.out, g)
    if not h.may_lead or h.stuck_since:
        replica_resign(g.replica, h.now, False)
        take(h, &g.replica.out, g)
    for i in range(h.net.peer_count):
        if up & bit(i):
            replica_peer(g.replica, h.now, i, True)
            take(h, &g.replica.out, g)


cdef void form(Host *h) noexcept nogil:
    cdef uint32_t i
    cdef size_t n
    for i in range(h.group_count):
        if h.groups[i].replica == NULL:
            make_replica(h, &h.groups[i])
            begin(h, &h.groups[i])
    for n in range(h.waiting_count):
        submit(h, &h.waiting[n])
    h.waiting_count = 0


# ---- what comes in ----

cdef void submit(Host *h, const Submission *s) noexcept nogil:
    cdef Group *g = &h.groups[0]
    if g.replica == NULL:
        if h.waiting_count == h.waiting_size:
            h.waiting_size = h.waiting_size * 2 if h.waiting_size else 64
            h.waiting = <Submission *>xrealloc(h.waiting, h.waiting_size * sizeof(Submission))
        h.waiting[h.waiting_count] = s[0]
        h.waiting_count += 1
        return
    g.seq += 1
    (<ChunkHead *>s.chunk.data).seq = g.seq
    delivery_wire(&h.delivery, g.seq, s.token)
    replica_submit(g.replica, h.now, g.seq, s.chunk, s.deadline)
    take(h, &g.replica.out, g)


cdef void expire(Host *h) noexcept nogil:
    """Submissions whose time is up before there is a cluster: certainly not executed."""
    cdef size_t i
    cdef size_t kept = 0
    cdef Event *event
    for i in range(h.waiting_count):
        if h.waiting[i].deadline > h.now:
            h.waiting[kept] = h.waiting[i]
            kept += 1
            continue
        value_unref(h.waiting[i].chunk)
        event = delivery_event(&h.delivery, EVENT_SETTLED, 0)
        event.instance = h.waiting[i].token
        event.a = SETTLE_NOT_AVAILABLE
    h.waiting_count = kept


cdef int member_of(const Host *h, uint32_t node) noexcept nogil:
    cdef uint32_t i
    for i in range(h.net.peer_count):
        if h.net.peers[i].node == node:
            return <int>i
    return -1


cdef void say_met(Host *h) noexcept nogil:
    cdef char text[256]
    if h.formation.state != STATE_EMPTY or h.formation.met_formed == h.met_formed:
        return
    h.met_formed = h.formation.met_formed
    snprintf(text, sizeof(text), "this node has an empty data directory, but the others belong to a cluster that is formed: it "
             "may have lost what it promised, so it neither votes nor takes proposals. Give it its data directory back")
    delivery_log(&h.delivery, 50, text)


cdef void receive(Host *h, Conn *conn, const Frame *frame) noexcept nogil:
    cdef int reason
    cdef int index
    cdef Group *g
    if frame.type == FRAME_HELLO:
        index = member_of(h, frame.sender)
        reason = formation_receive(&h.formation, h.now, frame)
        if reason == REFUSE_NONE and (index < 0 or <uint32_t>index == h.formation.self):
            reason = REFUSE_NOT_MEMBER
        if reason != REFUSE_NONE:
            refuse(h, conn, reason, frame)
        elif conn.state == CONN_OPEN and conn.node != frame.sender:
            net_refuse(&h.net, conn, REASON_SENDER, NULL, 0)
        elif conn.state == CONN_HANDSHAKE:
            net_opened(&h.net, conn, <uint32_t>index)
        take(h, &h.formation.out, NULL)
        say_met(h)
        return
    if conn.state == CONN_HANDSHAKE:
        net_refuse(&h.net, conn, REASON_NO_HELLO, NULL, 0)
        return
    if frame.sender != conn.node:
        net_refuse(&h.net, conn, REASON_SENDER, NULL, 0)
        return
    if frame.type < FRAME_PREVOTE:
        if frame.type == FRAME_REFUSE:
            net_refuse(&h.net, conn, REASON_DIRECTION, NULL, 0)
            return
        formation_receive(&h.formation, h.now, frame)
        take(h, &h.formation.out, NULL)
        return
    if h.formation.state != STATE_FORMED:
        return                      # the others know already that the cluster is formed; the news is on its way here
    if not formation_admits(&h.formation, frame):
        net_refuse(&h.net, conn, REASON_NOT_ADMITTED, NULL, 0)
        return
    if frame.group >= h.group_count:
        net_refuse(&h.net, conn, REASON_GROUP, NULL, 0)
        return
    g = &h.groups[frame.group]
    replica_receive(g.replica, h.now, frame)
    take(h, &g.replica.out, g)


cdef void read_connection(Host *h, Conn *conn) noexcept nogil:
    cdef uint64_t begun = h.net.bytes_received
    cdef const Frame *frame
    while conn.more and h.net.bytes_received - begun < ROUND_BYTES:
        net_read(&h.net, conn)
        while True:
            frame = net_frame(&h.net, conn)
            if frame == NULL:
                break
            receive(h, conn, frame)


cdef void greet(Host *h) noexcept nogil:
    """Connections that came and went: HELLO first on the new ones, and the hints to the replicas."""
    cdef uint8_t hello[HELLO_SIZE]
    cdef uint32_t up = h.net.came_up
    cdef uint32_t down = h.net.went_down
    cdef uint32_t i
    cdef uint32_t k
    cdef Group *g
    if not up and not down:
        return
    h.net.came_up = 0
    h.net.went_down = 0
    for i in range(h.net.peer_count):
        if up & bit(i):
            formation_hello(&h.formation, i, hello)
            h.net.peers[i].greeted = True
            net_send(&h.net, bit(i), hello, HELLO_SIZE, NULL)
        for k in range(h.group_count):
            g = &h.groups[k]
            if g.replica == NULL:
                continue
            if down & bit(i):
                replica_peer(g.replica, h.now, i, False)
                take(h, &g.replica.out, g)
            if up & bit(i):
                replica_peer(g.replica, h.now, i, True)
                take(h, &g.replica.out, g)


cdef void resign(Host *h, bint may_lead) noexcept nogil:
    cdef uint32_t i
    cdef Group *g
    for i in range(h.group_count):
        g = &h.groups[i]
        if g.replica != NULL:
            replica_resign(g.replica, h.now, may_lead)
            take(h, &g.replica.out, g)


cdef void watch_python(Host *h) noexcept nogil:
    """Is somebody there to take the chosen values? A master nobody listens to must make room (design row B14)."""
    cdef char text[256]
    cdef int64_t last = h.delivery.seen_drain
    if h.stuck_since:
        if not h.delivery.seen_signalled or last > h.stuck_since:
            h.stuck_since = 0
            delivery_log(&h.delivery, 30, "the Python side takes chosen values again")
            if h.may_lead:
                resign(h, True)
        return
    if not h.delivery.seen_signalled:
        if h.now - last >= PING_AFTER * <int64_t>SECOND:
            delivery_ping(&h.delivery)
        return
    if last < h.awake:
        last = h.awake
    if h.now - last < h.stuck_limit:
        return
    h.stuck_since = h.now
    snprintf(text, sizeof(text), "the Python side has taken nothing for %.1f s (stuck_limit): this node gives the mastership "
             "up, and stands for no election until it goes on", <double>(h.now - last) / SECOND)
    delivery_log(&h.delivery, 40, text)
    resign(h, False)


# ---- the log ----

cdef void pump(Host *h) noexcept nogil:
    cdef uint32_t i
    cdef Group *g
    for i in range(h.group_count):
        g = &h.groups[i]
        if g.replica != NULL:
            replica_pump(g.replica, h.now)
            take(h, &g.replica.out, g)


cdef void flush(Host *h) noexcept nogil:
    """One durable write for everything logged, and the steps that were waiting for it."""
    cdef uint32_t i
    cdef Group *g
    cdef int error = store_flush(h.store)
    if error:
        fatal(h, "writing the log failed", error)
    h.now = boottime()
    h.net.now = h.now
    if h.formation_appended > h.formation_reported:
        h.formation_reported = h.formation_appended
        formation_durable(&h.formation, h.now, h.formation_reported)
        release(h, &h.formation_held, h.formation_reported)
        take(h, &h.formation.out, NULL)
    for i in range(h.group_count):
        g = &h.groups[i]
        if g.replica != NULL and g.appended > g.reported:
            g.reported = g.appended
            replica_durable(g.replica, h.now, g.reported)
            release(h, &g.held, g.replica.durable)
            take(h, &g.replica.out, g)


cdef void write_log(Host *h) noexcept nogil:
    cdef uint32_t i
    cdef Group *g
    if store_pending(h.store):
        flush(h)
        h.seal_due = h.now + SEAL_AFTER * <int64_t>MILLISECOND
        pump(h)
        net_flush(&h.net)
        return
    if h.seal_due == 0 or h.now < h.seal_due:
        return
    # The log has fallen idle: a last write says that the one before it is durable (design rule 13).
    h.seal_due = 0
    for i in range(h.group_count):
        g = &h.groups[i]
        if g.replica != NULL and g.unsealed:
            replica_seal(g.replica)
            take(h, &g.replica.out, g)
            g.unsealed = False
    if store_pending(h.store):
        flush(h)
        for i in range(h.group_count):
            h.groups[i].unsealed = False
        net_flush(&h.net)


# ---- the round ----

cdef void fill_status(Host *h, Status *s) noexcept nogil:
    cdef Group *g = &h.groups[0]
    cdef uint32_t i
    memset(s, 0, sizeof(Status))
    s.formed = h.formation.state == STATE_FORMED
    s.sig_hi = h.formation.sig_hi
    s.sig_lo = h.formation.sig_lo
    s.delivered = g.cursor
    if g.replica != NULL:
        s.role = g.replica.role
        s.master = g.replica.master
        s.master_round = g.replica.master_ballot.round
        s.established = g.replica.master_settled
        s.chosen = g.replica.chosen
        s.chain = g.replica.chain
        s.chosen_values = g.replica.counters.chosen_values
        s.rounds = g.replica.counters.rounds
        s.proposed_values = g.replica.counters.proposed_values
        s.elections = g.replica.counters.elections
        s.core_refused = g.replica.counters.refused_frames
    s.syncs = h.store.syncs
    s.writes = h.store.writes
    s.log_bytes = h.store.bytes
    s.log_records = h.store.records
    s.log_time = h.store.time
    s.frames_sent = h.net.frames_sent
    s.frames_received = h.net.frames_received
    s.bytes_sent = h.net.bytes_sent
    s.bytes_received = h.net.bytes_received
    s.frames_dropped = h.net.dropped
    memcpy(s.refused, h.net.refused, sizeof(s.refused))
    s.members = h.net.peer_count
    for i in range(h.net.peer_count):
        s.nodes[i] = h.net.peers[i].node
    s.connected = net_connected(&h.net)


cdef int wait_time(Host *h) noexcept nogil:
    """Milliseconds until something is due, rounded up; 0: there is work."""
    cdef int64_t when = h.now + PING_AFTER * <int64_t>SECOND
    cdef uint32_t i
    cdef uint32_t k
    cdef size_t n
    cdef Group *g
    if store_pending(h.store) or net_more(&h.net):
        return 0
    when = min(when, net_deadline(&h.net))
    if h.formation.state != STATE_FORMED:
        when = min(when, h.formation_due)
    if h.seal_due:
        when = min(when, h.seal_due)
    for n in range(h.waiting_count):
        when = min(when, h.waiting[n].deadline)
    for i in range(h.group_count):
        g = &h.groups[i]
        if g.replica == NULL:
            continue
        when = min(when, replica_deadline(g.replica))
        if behind(g) and delivery_room(&h.delivery):
            return 0
        for k in range(h.net.peer_count):
            if g.reads[k].active and h.net.peers[k].out.bytes <= PEER_BACKLOG:
                return 0
    if when <= h.now:
        return 0
    if not delivery_sleep(&h.delivery):
        return 0
    return <int>((when - h.now + MILLISECOND - 1) // MILLISECOND)


cdef void host_run(Host *h) noexcept nogil:
    cdef Conn *readable[MAX_ACCEPTED]
    cdef Submission *taken = NULL
    cdef Status status
    cdef Group *g
    cdef int timeout = 0
    cdef int count
    cdef int i
    cdef int command = 0
    cdef bint stop = False
    cdef bint blocked
    cdef size_t n
    cdef size_t submitted
    cdef uint32_t k
    cdef uint32_t member
    h.now = boottime()
    h.awake = h.now
    h.formation_due = h.now + FORMATION_TICK * <int64_t>MILLISECOND
    net_start(&h.net, h.now)
    h.delivery.seen_drain = h.now
    h.delivery.last_drain = h.now
    formation_start(&h.formation, h.now)
    take(h, &h.formation.out, NULL)
    for k in range(h.group_count):
        if h.groups[k].replica != NULL:
            begin(h, &h.groups[k])
    while True:
        count = net_poll(&h.net, timeout, readable)
        if h.net.now - h.now > GAP * <int64_t>SECOND:
            h.awake = h.net.now
        h.now = h.net.now
        greet(h)
        for i in range(count):
            read_connection(h, readable[i])
        submitted = delivery_take(&h.delivery, &taken, &command, &stop)
        for n in range(submitted):
            submit(h, &taken[n])
        if stop:
            return
        if command:
            h.may_lead = command == 1
            resign(h, h.may_lead and not h.stuck_since)
        watch_python(h)
        expire(h)
        net_tick(&h.net)
        greet(h)
        if h.formation.state != STATE_FORMED and h.now >= h.formation_due:
            h.formation_due = h.now + FORMATION_TICK * <int64_t>MILLISECOND
            formation_tick(&h.formation, h.now)
            take(h, &h.formation.out, NULL)
        for k in range(h.group_count):
            g = &h.groups[k]
            if g.replica != NULL and h.now >= replica_deadline(g.replica):
                replica_tick(g.replica, h.now)
                take(h, &g.replica.out, g)
        pump(h)
        net_flush(&h.net)
        if h.delivery.fresh_count and store_pending(h.store):
            delivery_publish(&h.delivery, NULL, False)      # Python works while the disk does
        write_log(h)
        blocked = False
        for k in range(h.group_count):
            g = &h.groups[k]
            if g.replica == NULL:
                continue
            if g.cursor < g.replica.chosen:
                refill(h, g)
                if g.cursor < g.replica.chosen:
                    blocked = True
            for member in range(h.net.peer_count):
                if g.reads[member].active and serve(h, g, member):
                    net_flush(&h.net)
                    break           # one frame a round: what serves the living must not wait for it
        net_sweep(&h.net)
        fill_status(h, &status)
        delivery_publish(&h.delivery, &status, blocked)
        timeout = wait_time(h)


# ---- start and end ----

cdef int host_restore(Host *h, uint8_t type, uint32_t group, uint64_t instance, const uint8_t *body, uint32_t size,
                      uint64_t position) noexcept nogil:
    cdef Group *g
    if type == RECORD_IDENTITY:
        return 0                    # the log's own; it has checked it
    if type == RECORD_FORMATION or type == RECORD_FORMED:
        return formation_restore(&h.formation, type, body, size)
    if group >= h.group_count or h.formation.state != STATE_FORMED:
        return -1
    g = &h.groups[group]
    if g.replica == NULL:
        make_replica(h, g)
    if replica_restore(g.replica, type, instance, body, size) != 0:
        return -1
    out_clear(&g.replica.out)
    if type == RECORD_ACCEPT or type == RECORD_LEARN:
        index_set(&g.index, instance, position)
    return 0


cdef void host_restored(Host *h) noexcept nogil:
    cdef uint32_t i
    if h.formation.state != STATE_FORMED:
        return
    for i in range(h.group_count):
        if h.groups[i].replica == NULL:
            make_replica(h, &h.groups[i])


cdef void host_free(Host *h) noexcept nogil:
    cdef uint32_t i
    cdef size_t n
    cdef Group *g
    for i in range(h.group_count):
        g = &h.groups[i]
        while g.tail_count:
            tail_pop(g)
        free(g.tail)
        held_free(&g.held)
        index_free(&g.index)
        if g.replica != NULL:
            replica_free(g.replica)
    free(h.groups)
    h.groups = NULL
    h.group_count = 0
    held_free(&h.formation_held)
    formation_free(&h.formation)
    for n in range(h.waiting_count):
        value_unref(h.waiting[n].chunk)
    free(h.waiting)
    h.waiting = NULL
    h.waiting_count = 0
    free(h.scratch)
    h.scratch = NULL
