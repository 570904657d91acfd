# cython: language_level=3
"""Connections of the engine, their state and their end, and what is said of those that are refused: counted by reason, and
logged at most every ten seconds for each reason."""
cimport cython
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from libc.string cimport memset, strerror
from paxos._delivery cimport delivery_log
from paxos._outqueue cimport out_reset
from paxos._pieces cimport transfer_free
from paxos._sockets cimport (
    IPPROTO_TCP, TCP_NODELAY, TCP_NOTSENT_LOWAT, TCP_USER_TIMEOUT, address_text, close, epoll_ctl, epoll_event, setsockopt,
)
from paxos._types cimport bit, xrealloc, xzalloc

cdef enum:
    SECOND = 1000000000
    MILLISECOND = 1000000
    UNACKNOWLEDGED = 5000           # ms that sent bytes may stay unacknowledged before the connection is given up
    UNSENT = 131072                 # bytes that the kernel takes ahead of what the network does
    NOTE_EVERY = 10                 # s between two log lines of one reason to refuse

cdef const char **REASON_TEXT = [
    "it does not speak this protocol (bad magic)",
    "it speaks another version of the protocol",
    "a frame's length is out of bounds",
    "a frame's checksum is wrong",
    "a frame is of an unknown type",
    "a frame's body is malformed",
    "it looks for another node at this address; compare the cluster= settings",
    "it belongs to another cluster",
    "its node id is no member of this cluster",
    "its node id belongs to another incarnation (its data directory was wiped, or two processes use one id)",
    "it was given other members than this node; compare the cluster= settings",
    "it did not introduce itself in time",
    "a frame names another sender than the handshake did",
    "a frame comes from another cluster or incarnation",
    "something other than a refusal came back on an outgoing connection",
    "a frame is for a group that does not exist here",
    "too many connections are open",
    "a piece of a large frame does not fit what came before",
]


cdef void note(Net *net, int reason, const Conn *conn) noexcept nogil:
    """Counts a refusal and logs it, at most every ten seconds for each reason."""
    cdef char text[512]
    cdef char address[80]
    net.refused[reason] += 1
    if net.logged_at[reason] and net.now - net.logged_at[reason] < NOTE_EVERY * <int64_t>SECOND:
        net.unlogged[reason] += 1
        return
    address_text(&conn.address, address, sizeof(address))
    if net.unlogged[reason]:
        snprintf(text, sizeof(text), "closed the connection with %s: %s (and %llu more for this reason since the last message)",
                 address, REASON_TEXT[reason], <unsigned long long>net.unlogged[reason])
    else:
        snprintf(text, sizeof(text), "closed the connection with %s: %s", address, REASON_TEXT[reason])
    net.logged_at[reason] = net.now
    net.unlogged[reason] = 0
    delivery_log(net.delivery, 30, text)


cdef void complain(Net *net, const char *what, int error) noexcept nogil:
    cdef char text[256]
    snprintf(text, sizeof(text), "%s: %s (errno %d)", what, strerror(error), error)
    delivery_log(net.delivery, 40, text)


@cython.overflowcheck(False)     # meant to wrap
cdef uint64_t draw(Net *net) noexcept nogil:
    # splitmix64: jitter of the back-off only, nothing of the protocol hangs on it
    cdef uint64_t z
    net.random += <uint64_t>0x9E3779B97F4A7C15
    z = net.random
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


# ---- connections ----

cdef Conn *conn_new(int fd, int kind, int state, int64_t now, int64_t deadline, const Address *address) noexcept nogil:
    cdef Conn *c = <Conn *>xzalloc(sizeof(Conn))
    c.fd = fd
    c.kind = kind
    c.state = state
    c.peer = NO_PEER
    c.opened = now
    c.deadline = deadline
    c.address = address[0]
    return c


cdef void conn_free(Conn *conn) noexcept nogil:
    transfer_free(&conn.transfer)
    free(conn.buffer)
    free(conn)


cdef int watch(Net *net, Conn *conn, int operation, unsigned int events) noexcept nogil:
    cdef epoll_event e
    memset(&e, 0, sizeof(e))
    e.events = events
    e.data.ptr = conn
    return epoll_ctl(net.epoll, operation, conn.fd, &e)


cdef void back_off(Net *net, Peer *p) noexcept nogil:
    cdef int64_t wait = p.backoff // 2 + <int64_t>(draw(net) % <uint64_t>(p.backoff // 2 + 1))
    p.next_dial = net.now + wait
    p.backoff = min(p.backoff * 2, <int64_t>BACKOFF_HIGH * MILLISECOND)


cdef bint conn_held(const Net *net, const Conn *conn) noexcept nogil:
    return conn.state == CONN_OPEN and net.now - conn.opened >= SECOND


cdef void drop(Net *net, Conn *conn) noexcept nogil:
    """Closes a connection. It is freed at the end of the round: an event may still name it."""
    cdef Peer *p
    cdef uint32_t i
    if conn.state == CONN_CLOSED:
        return
    # What a failing close of a socket could tell is of no use: everything on it may be lost anyway.
    if close(conn.fd) != 0:
        complain(net, "closing a socket failed", errno)
    if conn.kind == CONN_DIALLED:
        p = &net.peers[conn.peer]
        p.dialled = NULL
        p.greeted = False
        out_reset(&p.out)
        # Only a connection that held is a success: a peer that takes it and hangs up must not be dialled in a loop.
        p.turn = not conn_held(net, conn)
        if not p.turn:
            p.backoff = BACKOFF_LOW * MILLISECOND
            p.disowned = False
        back_off(net, p)
        net.came_up &= ~bit(conn.peer)
        net.went_down |= bit(conn.peer)
    else:
        for i in range(net.accepted_count):
            if net.accepted[i] == conn:
                net.accepted_count -= 1
                net.accepted[i] = net.accepted[net.accepted_count]
                break
        if conn.peer != NO_PEER and net.peers[conn.peer].accepted == conn:
            net.peers[conn.peer].accepted = NULL
            net.went_down |= bit(conn.peer)
    conn.state = CONN_CLOSED
    conn.fd = -1
    conn.more = False
    if net.dead_count == net.dead_size:
        net.dead_size = net.dead_size * 2 if net.dead_size else 16
        net.dead = <Conn **>xrealloc(net.dead, net.dead_size * sizeof(Conn *))
    net.dead[net.dead_count] = conn
    net.dead_count += 1


cdef int options(Net *net, int fd) noexcept nogil:
    cdef int one = 1
    cdef unsigned int unacknowledged = UNACKNOWLEDGED
    cdef unsigned int unsent = UNSENT
    if setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0:
        return errno
    # A peer that lost its power acknowledges nothing: without this the connection would hang for a quarter of an hour.
    if setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged, sizeof(unacknowledged)) != 0:
        return errno
    # What the kernel has taken no heartbeat can overtake any more; by itself it would take megabytes.
    if setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent)) != 0:
        return errno
    return 0
