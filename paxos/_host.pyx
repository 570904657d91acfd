# cython: language_level=3
"""The engine's loop: the real network around the rounds of _round. One native thread, without the GIL."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport fflush, fprintf, snprintf, stderr
from libc.string cimport memcpy, memset, strerror, strlen
from paxos._codec cimport crc32c
from paxos._conn cimport (
    CONN_HANDSHAKE, CONN_OPEN, MAX_ACCEPTED, NO_PEER, REASON_NOT_MEMBER, REASON_DIRECTION, REASON_GROUP, REASON_LENGTH, REASON_NOT_ADMITTED,
    REASON_NOT_FOR_ME, REASON_NO_HELLO, REASON_SENDER, Conn, Net, conn_held,
)
from paxos._delivery cimport Status, clock_now, delivery_sleep
from paxos._formation cimport (
    REFUSE_NONE, REFUSE_NOT_FOR_ME, REFUSE_NOT_MEMBER, REFUSE_OTHER_CLUSTER, REFUSE_OTHER_CONFIG, REFUSE_OTHER_INCARNATION,
    HELLO_NEWER, MEMBERS_FRAME, Refuse, formation_hello, formation_members,
)
from paxos._history cimport frame_head
from paxos._net cimport (
    net_connected, net_deadline, net_flush, net_frame, net_members, net_more, net_opened, net_poll, net_read, net_refuse, net_send,
    net_start, net_stranger, net_sweep, net_tick,
)
from paxos._pieces cimport transfer_under_way
from paxos._round cimport (
    ROUND_NOT_ADMITTED, ROUND_NO_GROUP, ROUND_TOO_LARGE, round_arriving, round_begin, round_deadline, round_end, round_frame, round_hello,
    round_peer, round_start, round_steps, round_write, round_writes,
)
from paxos._state cimport Host
from paxos._types cimport FRAME_HELLO, FRAME_MEMBERS, FRAME_PIECE, FRAME_REFUSE, Frame, Membership, PromiseValue, Value, bit

cdef extern from "<unistd.h>" nogil:
    void _exit(int status)

cdef enum:
    MILLISECOND = 1000000
    ROUND_BYTES = 1048576           # read from one connection in one round
    HELLO_SIZE = 96
    EXIT_LOG = 74                   # EX_IOERR: see fatal()


# ---- what a Host stands on ----

cdef void fatal(Host *h, const char *what, int error) noexcept nogil:
    """The log failed, or lies. Going on could break a promise, and after a failed sync not even a retry can be trusted."""
    fprintf(stderr, "paxos: node %u: %s: %s (errno %d). What was logged behind position %llu is not trusted: it was neither "
            "acknowledged nor promised to anybody. The process stops with status %d; check the disk, then start the node again.\n",
            h.options.node, what, strerror(error), error, <unsigned long long>h.store.writer.durable, <int>EXIT_LOG)
    fflush(stderr)
    _exit(EXIT_LOG)


cdef void _send(void *context, uint32_t peers, const uint8_t *head, size_t size, Value *value) noexcept nogil:
    net_send(<Net *>context, peers, head, size, value)


cdef void _flush(void *context, int64_t now) noexcept nogil:
    (<Net *>context).now = now
    net_flush(<Net *>context)


cdef uint32_t _connected(void *context) noexcept nogil:
    return net_connected(<Net *>context)


cdef int64_t _waiting(void *context, uint32_t index) noexcept nogil:
    cdef Net *net = <Net *>context
    return <int64_t>net.peers[index].out.bytes if net.peers[index].greeted else -1


cdef void _report(void *context, Status *s) noexcept nogil:
    cdef Net *net = <Net *>context
    cdef uint32_t i
    for i in range(net.peer_count):
        # (Whose connection is kept, though it has turned this node away before, does not do so any more.)
        if net.peers[i].disowned and (net.peers[i].dialled == NULL or not conn_held(net, net.peers[i].dialled)):
            s.disowned |= bit(i)
    s.frames_sent = net.frames_sent
    s.frames_received = net.frames_received
    s.bytes_sent = net.bytes_sent
    s.bytes_received = net.bytes_received
    s.frames_dropped = net.dropped
    memcpy(s.refused, net.refused, sizeof(s.refused))


cdef void _members(void *context, const Membership *m) noexcept nogil:
    net_members(<Net *>context, m)


cdef void native_init(Native *n) noexcept nogil:
    n.host.outside.fatal = fatal
    n.host.link.context = &n.net
    n.host.link.send = _send
    n.host.link.flush = _flush
    n.host.link.connected = _connected
    n.host.link.waiting = _waiting
    n.host.link.report = _report
    n.host.link.members = _members


# ---- what comes in ----

cdef void refuse(Native *n, Conn *conn, int reason, const Frame *hello) noexcept nogil:
    cdef Host *h = &n.host
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
    net_refuse(&n.net, conn, reason - REFUSE_NOT_FOR_ME + REASON_NOT_FOR_ME, out, size)


cdef int member_of(const Native *n, uint32_t node) noexcept nogil:
    cdef uint32_t i
    for i in range(n.net.peer_count):
        if n.net.peers[i].node == node and node != 0:
            return <int>i
    return -1


cdef void receive(Native *n, Conn *conn, const Frame *frame) noexcept nogil:
    cdef Host *h = &n.host
    cdef Net *net = &n.net
    cdef int reason, taken
    cdef int index
    if frame.type == FRAME_HELLO:
        reason = round_hello(h, frame)
        if reason == HELLO_NEWER:
            if conn.state == CONN_HANDSHAKE:
                net_stranger(net, conn, frame.sender)
                return
            reason = REFUSE_NOT_MEMBER          # it has said so before, and not yet told who they are
        index = member_of(n, frame.sender)
        if reason == REFUSE_NONE and (index < 0 or <uint32_t>index == h.formation.self):
            reason = REFUSE_NOT_MEMBER
        if reason != REFUSE_NONE:
            refuse(n, conn, reason, frame)
        elif conn.state == CONN_OPEN and conn.node != frame.sender:
            net_refuse(net, conn, REASON_SENDER, NULL, 0)
        elif conn.state == CONN_HANDSHAKE:
            net_opened(net, conn, <uint32_t>index)
        return
    if conn.state == CONN_HANDSHAKE:
        net_refuse(net, conn, REASON_NO_HELLO, NULL, 0)
        return
    if frame.sender != conn.node:
        net_refuse(net, conn, REASON_SENDER, NULL, 0)
        return
    if frame.type == FRAME_REFUSE:
        net_refuse(net, conn, REASON_DIRECTION, NULL, 0)
        return
    if conn.peer == NO_PEER:
        # A stranger: nothing is taken of him but who the members are, of whom he must be one.
        if frame.type == FRAME_MEMBERS:
            round_frame(h, frame)
        index = member_of(n, frame.sender)
        if index < 0 or frame.type == FRAME_PIECE:
            net_refuse(net, conn, REASON_NOT_MEMBER, NULL, 0)
            return
        net_opened(net, conn, <uint32_t>index)
        if frame.type == FRAME_MEMBERS:
            return
    taken = round_frame(h, frame)
    if taken == ROUND_NOT_ADMITTED:
        net_refuse(net, conn, REASON_NOT_ADMITTED, NULL, 0)
    elif taken == ROUND_NO_GROUP:
        net_refuse(net, conn, REASON_GROUP, NULL, 0)
    elif taken == ROUND_TOO_LARGE:
        net_refuse(net, conn, REASON_LENGTH, NULL, 0)


cdef void read_connection(Native *n, Conn *conn) noexcept nogil:
    cdef uint64_t begun = n.net.bytes_received
    cdef const Frame *frame
    cdef const Frame *arriving
    while conn.more and n.net.bytes_received - begun < ROUND_BYTES:
        net_read(&n.net, conn)
        while True:
            frame = net_frame(&n.net, conn)
            # Before a small frame that overtook it: else the replica would ask for what is on its way.
            arriving = transfer_under_way(&conn.transfer, sizeof(Frame) + sizeof(PromiseValue))
            if arriving != NULL:
                round_arriving(&n.host, arriving)
            if frame == NULL:
                break
            receive(n, conn, frame)


cdef void greet(Native *n) noexcept nogil:
    """Connections that came and went: HELLO first on the new ones, and the hints to the replicas."""
    cdef uint8_t hello[HELLO_SIZE]
    cdef uint8_t members[MEMBERS_FRAME]
    cdef size_t size = 0
    cdef uint32_t up = n.net.came_up
    cdef uint32_t down = n.net.went_down
    cdef uint32_t i
    if not up and not down:
        return
    n.net.came_up = 0
    n.net.went_down = 0
    for i in range(n.net.peer_count):
        if up & bit(i):
            formation_hello(&n.host.formation, i, hello)
            n.net.peers[i].greeted = True
            net_send(&n.net, bit(i), hello, HELLO_SIZE, NULL)
            if size == 0:
                size = formation_members(&n.host.formation, members)
            if size != 0:
                net_send(&n.net, bit(i), members, size, NULL)
        if down & bit(i):
            round_peer(&n.host, i, False)
        if up & bit(i):
            round_peer(&n.host, i, True)


# ---- the loop ----

cdef int wait_time(Native *n) noexcept nogil:
    """Milliseconds until something is due, rounded up; 0: there is work."""
    cdef int64_t when = round_deadline(&n.host)
    if net_more(&n.net):
        return 0
    when = min(when, net_deadline(&n.net))
    if when <= n.host.now:
        return 0
    if not delivery_sleep(&n.host.delivery):
        return 0
    return <int>((when - n.host.now + MILLISECOND - 1) // MILLISECOND)


cdef void native_run(Native *n) noexcept nogil:
    cdef Conn *readable[MAX_ACCEPTED]
    cdef int timeout = 0
    cdef int count
    cdef int i
    cdef int64_t now = clock_now(&n.host.delivery.clock)
    net_start(&n.net, now)
    round_start(&n.host, now)
    while True:
        count = net_poll(&n.net, timeout, readable)
        round_begin(&n.host, n.net.now)
        greet(n)
        for i in range(count):
            read_connection(n, readable[i])
        net_tick(&n.net)
        greet(n)
        if round_steps(&n.host):
            return
        if round_writes(&n.host):
            round_write(&n.host)
        round_end(&n.host)
        net_sweep(&n.net)
        timeout = wait_time(n)
