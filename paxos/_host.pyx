# cython: language_level=3
"""The engine's loop: sockets, timers and the log around the replicas, without the GIL.

A round: read what came and step the replicas with it; take what Python submitted; tick; let the replicas propose; send.
Only then write the log, so that an Accept is on its way while the disk works. What the written records allowed to leave is
sent, and what arrived meanwhile is the next round, hence the next write: group commit without a timer.

Each decision is the replica's or the formation's. What is decided here is order: effects are taken before the next
step; a send that stands on records waits until they are durable; Python gets each instance once, in order, from
memory where it can be and from the log where Python was behind.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from libc.string cimport memcpy, memset, strlen
from paxos._codec cimport crc32c, out_clear
from paxos._core cimport (
    replica_deadline, replica_durable, replica_free, replica_peer, replica_pump, replica_receive, replica_resign,
    replica_restore, replica_seal, replica_tick,
)
from paxos._delivery cimport (
    Status, Submission, boottime, delivery_log, delivery_ping, delivery_publish, delivery_room, delivery_sleep,
    delivery_take,
)
from paxos._effects cimport begin, expire, held_free, held_release, make_replica, submit, take
from paxos._formation cimport (
    REFUSE_NONE, REFUSE_NOT_FOR_ME, REFUSE_NOT_MEMBER, REFUSE_OTHER_CLUSTER, REFUSE_OTHER_CONFIG,
    REFUSE_OTHER_INCARNATION, STATE_EMPTY, STATE_FORMED, Refuse, formation_admits, formation_durable, formation_free,
    formation_hello, formation_receive, formation_restore, formation_start, formation_tick,
)
from paxos._history cimport fatal, frame_head, history_behind, history_free, history_refill, history_serve
from paxos._net cimport (
    CONN_HANDSHAKE, CONN_OPEN, MAX_ACCEPTED, REASON_DIRECTION, REASON_GROUP, REASON_LENGTH, REASON_NOT_ADMITTED,
    REASON_NOT_FOR_ME, REASON_NO_HELLO, REASON_SENDER, Conn, net_connected, net_deadline, net_flush, net_frame, net_more, net_opened,
    net_poll, net_read, net_refuse, net_send, net_start, net_sweep, net_tick,
)
from paxos._state cimport PEER_BACKLOG, Group, Host
from paxos._store cimport index_free, index_set, index_set_chain, store_flush, store_pending
from paxos._types cimport (
    BLOCK, FRAME_ACCEPT, FRAME_FORWARD, FRAME_HELLO, FRAME_LEARNED, FRAME_PREVOTE, FRAME_PROMISE_VALUE, FRAME_REFUSE,
    RECORD_ACCEPT, RECORD_FORMATION, RECORD_FORMED, RECORD_IDENTITY, RECORD_LEARN, Accept, ChunkHead, Forward, Frame, Learned,
    PromiseValue, ValueHead, bit, value_unref,
)

cdef enum:
    SECOND = 1000000000
    MILLISECOND = 1000000
    FORMATION_TICK = 100            # ms
    SEAL_AFTER = 100                # ms without a write
    PING_AFTER = 1                  # s without a drain(): Python is asked for a sign of life
    GAP = 3                         # s without a round: the thread itself was stopped, so nothing is Python's fault
    ROUND_BYTES = 1048576           # read from one connection in one round
    HELLO_SIZE = 96


# ---- what comes in ----

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
             "may have lost what it promised, so it neither votes nor takes proposals, and waits. If its own directory still exists, start it with that one")
    delivery_log(&h.delivery, 50, text)


cdef bint fits_log(const Host *h, const Frame *frame) noexcept nogil:
    """Whether the log's segments hold every value of a frame. They may be smaller than those of a node that was given larger
    limits, and a record that fits no segment would end this process."""
    cdef size_t room = h.store.writer.segment_size - 4 * BLOCK
    cdef const uint8_t *data = <const uint8_t *>frame
    cdef size_t at = sizeof(Frame)
    cdef ValueHead head
    cdef ChunkHead chunk
    if frame.length <= room:
        return True
    if frame.type == FRAME_ACCEPT or frame.type == FRAME_PROMISE_VALUE:
        at += sizeof(Accept) if frame.type == FRAME_ACCEPT else sizeof(PromiseValue)
        memcpy(&head, data + at - sizeof(ValueHead), sizeof(ValueHead))
        return head.size <= room
    if frame.type == FRAME_LEARNED:
        at += sizeof(Learned)
        while at < frame.length:
            memcpy(&head, data + at, sizeof(ValueHead))
            if head.size > room:
                return False
            at += sizeof(ValueHead) + head.size
    elif frame.type == FRAME_FORWARD:
        at += sizeof(Forward)
        while at < frame.length:
            memcpy(&chunk, data + at, sizeof(ChunkHead))
            if sizeof(ChunkHead) + chunk.size > room:
                return False
            at += sizeof(ChunkHead) + chunk.size
    return True


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
    if not fits_log(h, frame):
        net_refuse(&h.net, conn, REASON_LENGTH, NULL, 0)
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
    for i in range(h.group_count):
        g = &h.groups[i]
        if g.replica != NULL and g.appended > g.reported:
            g.reported = g.appended
            replica_durable(g.replica, h.now, g.reported)
            held_release(h, &g.held, g.replica.durable)
            take(h, &g.replica.out, g)
    # Last: it may bring the groups to life, and what they log then is not part of the write just made.
    if h.formation_appended > h.formation_reported:
        h.formation_reported = h.formation_appended
        formation_durable(&h.formation, h.now, h.formation_reported)
        held_release(h, &h.formation_held, h.formation_reported)
        take(h, &h.formation.out, NULL)


cdef void write_log(Host *h) noexcept nogil:
    if store_pending(h.store):
        flush(h)
        h.seal_due = h.now + SEAL_AFTER * <int64_t>MILLISECOND
        pump(h)
        net_flush(&h.net)
        return
    if h.seal_due != 0 and h.now >= h.seal_due:
        seal(h)


cdef void seal(Host *h) noexcept nogil:
    """The log has fallen idle, or is closed: a last write says that the one before it is durable (design rule 13)."""
    cdef uint32_t i
    cdef Group *g
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
        s.heard_chosen = max(g.replica.heard_chosen, g.replica.chosen)
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
        if history_behind(g) and delivery_room(&h.delivery):
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
            if h.seal_due:
                seal(h)
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
            # Python works while the disk does. The status goes along: it must never be older than the events.
            fill_status(h, &status)
            delivery_publish(&h.delivery, &status, False)
        write_log(h)
        blocked = False
        for k in range(h.group_count):
            g = &h.groups[k]
            if g.replica == NULL:
                continue
            if g.cursor < g.replica.chosen:
                history_refill(h, g)
                if g.cursor < g.replica.chosen:
                    blocked = True
            for member in range(h.net.peer_count):
                if g.reads[member].active and history_serve(h, g, member):
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
    cdef size_t i
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
    if type == RECORD_ACCEPT or type == RECORD_LEARN:
        index_set(&g.index, instance, position)
    for i in range(g.replica.out.count):
        index_set_chain(&g.index, g.replica.out.effects[i].instance, <uint32_t>g.replica.out.effects[i].after)
    out_clear(&g.replica.out)
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
        history_free(g)
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
