# cython: language_level=3
"""Sockets of the engine: dialling with back-off, accepting within a bound, framing, and what to do with garbage.

Whatever comes in is refused on the first byte that is wrong, counted by reason, and logged at most once a second for
each reason. Before the handshake a connection may hold one page of memory and a few seconds of time, after it the
largest frame. What goes out to a peer is bounded too: frames beyond the bound are dropped and counted; the protocol
stands loss.
"""
cimport cython
from libc.errno cimport EAGAIN, ECONNABORTED, EINPROGRESS, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM, EPROTO, ETIMEDOUT, errno
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from libc.string cimport memcpy, memmove, memset, strerror
from paxos._codec cimport FRAME_BAD_MAGIC, FRAME_OK, FRAME_SHORT, frame_check
from paxos._delivery cimport Delivery, boottime, delivery_log
from paxos._formation cimport Refuse
from paxos._outqueue cimport out_consume, out_drop, out_iovecs, out_push, out_reset
from paxos._sockets cimport (
    EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, IPPROTO_TCP, MSG_NOSIGNAL,
    SHUT_WR, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET, SO_ERROR, TCP_NODELAY, TCP_USER_TIMEOUT, accept4,
    address_family, address_pointer, address_room, address_size, address_text, close, connect, epoll_create1,
    epoll_ctl, epoll_event, epoll_wait, getsockopt, iovec, msghdr, read, recv, send, sendmsg, setsockopt, shutdown,
    socket, socklen_t,
)
from paxos._types cimport FRAME_REFUSE, Frame, Value, bit, xrealloc, xzalloc

cdef enum:
    SECOND = 1000000000
    MILLISECOND = 1000000
    HELLO_TIMEOUT = 5               # s
    CONNECT_TIMEOUT = 2             # s
    LINGER_TIMEOUT = 1              # s
    UNACKNOWLEDGED = 5000           # ms that sent bytes may stay unacknowledged before the connection is given up
    BACKOFF_LOW = 10                # ms
    BACKOFF_HIGH = 1000             # ms
    COMPLAIN_AFTER = 2              # s that a peer cannot be reached before that is said
    COMPLAIN_EVERY = 60             # s
    NOTE_EVERY = 10                 # s between two log lines of one reason to refuse
    SMALL_BUFFER = 4096             # before the handshake, and all that a REFUSE needs
    BUFFER = 262144
    ROUND_BYTES = 1048576           # read from one connection in one round
    MAX_OUT = 67108864              # bytes that wait for one peer
    IOVECS = 128
    EVENTS = 128

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


cdef int watch(Net *net, Conn *conn, int operation, unsigned int events) noexcept nogil:
    cdef epoll_event e
    memset(&e, 0, sizeof(e))
    e.events = events
    e.data.ptr = conn
    return epoll_ctl(net.epoll, operation, conn.fd, &e)


cdef void drop(Net *net, Conn *conn) noexcept nogil:
    """Closes a connection. It is freed at the end of the round: an event may still name it."""
    cdef Peer *p
    cdef uint32_t i
    cdef int64_t wait
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
        if conn.state == CONN_OPEN and net.now - conn.opened >= SECOND:
            p.backoff = BACKOFF_LOW * MILLISECOND
        wait = p.backoff // 2 + <int64_t>(draw(net) % <uint64_t>(p.backoff // 2 + 1))
        p.next_dial = net.now + wait
        p.backoff = min(p.backoff * 2, <int64_t>BACKOFF_HIGH * MILLISECOND)
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
    if setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0:
        return errno
    # A peer that lost its power acknowledges nothing: without this the connection would hang for a quarter of an hour.
    if setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged, sizeof(unacknowledged)) != 0:
        return errno
    return 0


cdef void dial_failed(Net *net, uint32_t index, int error) noexcept nogil:
    """Said when a row of failures has lasted, and again every minute: nodes that start one after the other, and a peer that
    has been down for long, are no news."""
    cdef char text[320]
    cdef char address[80]
    cdef Peer *p = &net.peers[index]
    if not p.failing:
        p.failing = True
        p.complained = net.now - (COMPLAIN_EVERY - COMPLAIN_AFTER) * <int64_t>SECOND
    if net.now - p.complained < COMPLAIN_EVERY * <int64_t>SECOND:
        return
    p.complained = net.now
    address_text(&p.address, address, sizeof(address))
    snprintf(text, sizeof(text), "node %u at %s cannot be reached: %s; trying again", p.node, address, strerror(error))
    delivery_log(net.delivery, 30, text)


cdef void dial(Net *net, uint32_t index) noexcept nogil:
    cdef Peer *p = &net.peers[index]
    cdef Conn *conn
    cdef int error = 0
    cdef int fd = socket(address_family(&p.address), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        error = errno
        p.next_dial = net.now + SECOND
        dial_failed(net, index, error)
        return
    conn = conn_new(fd, CONN_DIALLED, CONN_CONNECTING, net.now, net.now + CONNECT_TIMEOUT * <int64_t>SECOND, &p.address)
    conn.peer = index
    conn.node = p.node
    p.dialled = conn
    error = options(net, fd)
    if error == 0 and connect(fd, address_pointer(&p.address), address_size(&p.address)) != 0 and errno != EINPROGRESS:
        error = errno
    if error == 0 and watch(net, conn, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT) != 0:
        error = errno
    if error:
        dial_failed(net, index, error)
        drop(net, conn)


cdef void connected(Net *net, Conn *conn) noexcept nogil:
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    if getsockopt(conn.fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0:
        error = errno
    if error == 0 and watch(net, conn, EPOLL_CTL_MOD, EPOLLIN) != 0:
        error = errno
    if error:
        dial_failed(net, conn.peer, error)
        drop(net, conn)
        return
    conn.state = CONN_OPEN
    conn.opened = net.now
    conn.deadline = INT64_MAX
    net.peers[conn.peer].failing = False
    net.came_up |= bit(conn.peer)


cdef void listen_for(Net *net, unsigned int events) noexcept nogil:
    cdef epoll_event e
    memset(&e, 0, sizeof(e))
    e.events = events
    e.data.ptr = &net.listening
    if epoll_ctl(net.epoll, EPOLL_CTL_MOD, net.listening, &e) != 0:
        complain(net, "epoll_ctl failed", errno)


cdef void take_connection(Net *net) noexcept nogil:
    cdef Address address
    cdef Conn *conn
    cdef Conn *oldest
    cdef uint32_t i
    cdef int fd
    cdef int n
    cdef int error
    for n in range(16):
        fd = accept4(net.listening, address_pointer(&address), address_room(&address), SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd < 0:
            error = errno
            if error == EAGAIN:
                return
            if error == EINTR or error == ECONNABORTED or error == EPROTO or error == EPERM:
                continue            # that connection is gone; the next may be good
            if error == EMFILE or error == ENFILE or error == ENOBUFS or error == ENOMEM:
                if not net.logged_at[REASON_TOO_MANY] or net.now - net.logged_at[REASON_TOO_MANY] >= SECOND:
                    net.logged_at[REASON_TOO_MANY] = net.now
                    complain(net, "no connection can be accepted", error)
                net.refused[REASON_TOO_MANY] += 1
                listen_for(net, 0)  # or epoll would report the waiting connection without end
                net.accept_again = net.now + 100 * <int64_t>MILLISECOND
                return
            complain(net, "accepting a connection failed", error)
            return
        if net.accepted_count == MAX_ACCEPTED:
            # Strangers must not keep members out: who has not introduced himself for the longest makes room.
            oldest = NULL
            for i in range(net.accepted_count):
                if net.accepted[i].state != CONN_OPEN and (oldest == NULL or net.accepted[i].opened < oldest.opened):
                    oldest = net.accepted[i]
            if oldest == NULL:
                conn = conn_new(fd, CONN_ACCEPTED, CONN_HANDSHAKE, net.now, net.now, &address)
                note(net, REASON_TOO_MANY, conn)
                drop(net, conn)
                continue
            note(net, REASON_TOO_MANY, oldest)
            drop(net, oldest)
        conn = conn_new(fd, CONN_ACCEPTED, CONN_HANDSHAKE, net.now, net.now + HELLO_TIMEOUT * <int64_t>SECOND, &address)
        net.accepted[net.accepted_count] = conn
        net.accepted_count += 1
        error = options(net, fd)
        if error == 0 and watch(net, conn, EPOLL_CTL_ADD, EPOLLIN) != 0:
            error = errno
        if error:
            complain(net, "an accepted connection cannot be used", error)
            drop(net, conn)


# ---- reading ----

cdef void make_room(Conn *conn, size_t need) noexcept nogil:
    """Room for `need` bytes from conn.start on, and in any case for something more."""
    cdef size_t size
    if conn.start == conn.end:
        conn.start = 0
        conn.end = 0
        if conn.capacity > 4 * BUFFER and need <= BUFFER:
            free(conn.buffer)       # the memory of one large frame is not kept for ever
            conn.buffer = NULL
            conn.capacity = 0
    size = SMALL_BUFFER if conn.state != CONN_OPEN or conn.kind == CONN_DIALLED else BUFFER
    if size < need:
        size = need
    if conn.start and conn.capacity - conn.start < size:
        memmove(conn.buffer, conn.buffer + conn.start, conn.end - conn.start)
        conn.end -= conn.start
        conn.start = 0
    if conn.capacity < size:
        conn.buffer = <uint8_t *>xrealloc(conn.buffer, size)
        conn.capacity = size


cdef uint32_t limit(const Net *net, const Conn *conn) noexcept nogil:
    return net.max_frame if conn.state == CONN_OPEN and conn.kind == CONN_ACCEPTED else SMALL_BUFFER


cdef void net_read(Net *net, Conn *conn) noexcept nogil:
    cdef size_t need = 0
    cdef size_t room
    cdef ssize_t n
    if conn.state == CONN_CLOSED:
        return
    if conn.state == CONN_LINGER:
        conn.start = 0
        conn.end = 0
    elif conn.end > conn.start and frame_check(conn.buffer + conn.start, conn.end - conn.start, limit(net, conn),
                                               &need) != FRAME_SHORT:
        need = 0
    make_room(conn, need)
    room = conn.capacity - conn.end
    if room == 0:
        return                      # a whole frame is there: it is taken first
    n = recv(conn.fd, conn.buffer + conn.end, room, 0)
    if n > 0:
        conn.end += n
        net.bytes_received += n
        conn.more = <size_t>n == room
        return
    conn.more = False
    if n == 0:
        drop(net, conn)
        return
    if errno == EINTR:
        conn.more = True
    elif errno != EAGAIN:
        drop(net, conn)             # reset by the peer: a connection that ends is no news, dialling again is logged


cdef const Frame *net_frame(Net *net, Conn *conn) noexcept nogil:
    cdef size_t need = 0
    cdef size_t shift
    cdef size_t available = conn.end - conn.start
    cdef size_t size = available
    cdef uint32_t length
    cdef uint8_t *data
    cdef int code
    if conn.state == CONN_CLOSED or conn.state == CONN_LINGER or available == 0:
        return NULL
    data = conn.buffer + conn.start
    shift = conn.start & 7
    if shift:
        # Frames are read in place, as structs: they must be aligned. What lies before this one is used up.
        if available >= 8:
            memcpy(&length, data + 4, 4)
            size = min(<size_t>length, available)
        memmove(data - shift, data, size)
        data -= shift
        if size == available:
            conn.start -= shift
            conn.end -= shift
        else:
            available = size        # the frame says that it ends here
    code = frame_check(data, available, limit(net, conn), &need)
    if code == FRAME_SHORT and size == conn.end - conn.start:
        return NULL
    if code != FRAME_OK:
        note(net, REASON_LENGTH if code == FRAME_SHORT else code - FRAME_BAD_MAGIC + REASON_MAGIC, conn)
        drop(net, conn)
        return NULL
    conn.start += need
    net.frames_received += 1
    return <const Frame *>data


cdef void net_opened(Net *net, Conn *conn, uint32_t peer) noexcept nogil:
    cdef Peer *p = &net.peers[peer]
    if p.accepted != NULL and p.accepted != conn:
        drop(net, p.accepted)       # the peer dialled anew: what came before is dead
    p.accepted = conn
    conn.peer = peer
    conn.node = p.node
    conn.state = CONN_OPEN
    conn.deadline = INT64_MAX
    # It is alive, then: no reason to wait for the back-off to run out.
    if p.known and p.dialled == NULL:
        p.backoff = BACKOFF_LOW * MILLISECOND
        p.next_dial = net.now


cdef void net_refuse(Net *net, Conn *conn, int reason, const uint8_t *frame, size_t size) noexcept nogil:
    note(net, reason, conn)
    if frame == NULL or conn.state == CONN_CLOSED:
        drop(net, conn)
        return
    # The other side is told why. Closing at once, with its bytes unread, would reset the connection under the answer; so
    # only this direction is shut, and what still comes is thrown away for a moment.
    if send(conn.fd, frame, size, MSG_NOSIGNAL) != <ssize_t>size or shutdown(conn.fd, SHUT_WR) != 0:
        drop(net, conn)
        return
    net.frames_sent += 1
    net.bytes_sent += size
    if conn.peer != NO_PEER and net.peers[conn.peer].accepted == conn:
        net.peers[conn.peer].accepted = NULL
        net.went_down |= bit(conn.peer)
    conn.state = CONN_LINGER
    conn.deadline = net.now + LINGER_TIMEOUT * <int64_t>SECOND


cdef void refused(Net *net, Peer *p, uint32_t reason, const char *why, int size) noexcept nogil:
    """Said when it is news, and again every minute; dialled again no sooner than a peer that is down."""
    cdef char text[1400]
    p.backoff = BACKOFF_HIGH * <int64_t>MILLISECOND
    if p.refused_at != 0 and p.refused_reason == reason and net.now - p.refused_at < COMPLAIN_EVERY * <int64_t>SECOND:
        return
    p.refused_at = net.now
    p.refused_reason = reason
    snprintf(text, sizeof(text), "node %u refused this node: %.*s", p.node, size, why)
    delivery_log(net.delivery, 40, text)


cdef void answered(Net *net, Conn *conn) noexcept nogil:
    """Something on a dialled connection: the refusal, or the end."""
    cdef const Frame *frame
    cdef const uint8_t *body
    cdef int size
    while conn.state == CONN_OPEN:
        net_read(net, conn)
        frame = net_frame(net, conn)
        if frame == NULL:
            if not conn.more:
                return
            continue
        if frame.type != FRAME_REFUSE:
            note(net, REASON_DIRECTION, conn)
            drop(net, conn)
            return
        body = <const uint8_t *>frame + sizeof(Frame) + sizeof(Refuse)
        size = <int>(frame.length - sizeof(Frame) - sizeof(Refuse))
        refused(net, &net.peers[conn.peer], (<const Refuse *>(<const uint8_t *>frame + sizeof(Frame))).reason,
                <const char *>body, size)
        drop(net, conn)
        return


# ---- the round ----

cdef int net_init(Net *net, Delivery *delivery, uint32_t node, uint32_t max_frame, int listening, uint64_t seed) noexcept nogil:
    cdef epoll_event e
    memset(net, 0, sizeof(Net))
    net.listening = listening
    net.delivery = delivery
    net.node = node
    net.max_frame = max_frame
    net.random = seed
    net.epoll = epoll_create1(EPOLL_CLOEXEC)
    if net.epoll < 0:
        return errno
    memset(&e, 0, sizeof(e))
    e.events = EPOLLIN
    e.data.ptr = &net.listening     # an address that is no connection's
    if epoll_ctl(net.epoll, EPOLL_CTL_ADD, listening, &e) != 0:
        return errno
    e.data.ptr = &net.delivery
    if epoll_ctl(net.epoll, EPOLL_CTL_ADD, delivery.wake_engine, &e) != 0:
        return errno
    return 0


cdef void net_start(Net *net, int64_t now) noexcept nogil:
    cdef uint32_t i
    net.now = now
    for i in range(net.peer_count):
        net.peers[i].backoff = BACKOFF_LOW * MILLISECOND
        net.peers[i].next_dial = now


cdef void net_free(Net *net) noexcept nogil:
    cdef uint32_t i
    while net.accepted_count:
        drop(net, net.accepted[0])
    for i in range(net.peer_count):
        if net.peers[i].dialled != NULL:
            drop(net, net.peers[i].dialled)
        out_drop(&net.peers[i].out)
    net_sweep(net)
    free(net.dead)
    if net.listening >= 0 and close(net.listening) != 0:
        complain(net, "closing the listening socket failed", errno)
    if net.epoll >= 0 and close(net.epoll) != 0:
        complain(net, "closing the epoll descriptor failed", errno)
    memset(net, 0, sizeof(Net))
    net.listening = -1
    net.epoll = -1


cdef void net_abandon(const Net *net) noexcept nogil:
    # The parent's thread may have been in the midst of anything: read only, and a descriptor that is gone is no error.
    cdef uint32_t i
    for i in range(net.accepted_count):
        close(net.accepted[i].fd)
    for i in range(net.peer_count):
        if net.peers[i].dialled != NULL:
            close(net.peers[i].dialled.fd)
    close(net.listening)
    close(net.epoll)


cdef int net_poll(Net *net, int timeout_ms, Conn **readable) noexcept nogil:
    cdef epoll_event events[EVENTS]
    cdef int n
    cdef int i
    cdef int count = 0
    cdef uint32_t k
    cdef uint64_t wakes
    cdef Conn *conn
    n = epoll_wait(net.epoll, events, EVENTS, timeout_ms)
    if n < 0:
        if errno != EINTR:
            complain(net, "epoll_wait failed", errno)
        n = 0
    net.now = boottime()
    for i in range(n):
        if events[i].data.ptr == &net.listening:
            take_connection(net)
            continue
        if events[i].data.ptr == &net.delivery:
            if read(net.delivery.wake_engine, &wakes, 8) != 8 and errno != EAGAIN and errno != EINTR:
                complain(net, "reading the eventfd failed", errno)
            continue
        conn = <Conn *>events[i].data.ptr
        if conn.state == CONN_CLOSED:
            continue
        if conn.kind == CONN_ACCEPTED:
            conn.more = True
            continue
        if conn.state == CONN_CONNECTING:
            if events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
                connected(net, conn)
            continue
        if events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP):
            answered(net, conn)
        if events[i].events & EPOLLOUT and conn.state == CONN_OPEN:
            conn.blocked = False
            if watch(net, conn, EPOLL_CTL_MOD, EPOLLIN) != 0:
                complain(net, "epoll_ctl failed", errno)
                drop(net, conn)
    for k in range(net.accepted_count):
        if net.accepted[k].more:
            readable[count] = net.accepted[k]
            count += 1
    return count


cdef void net_send(Net *net, uint32_t peers, const uint8_t *head, size_t size, Value *value) noexcept nogil:
    cdef uint32_t i
    cdef Peer *p
    for i in range(net.peer_count):
        if not peers & bit(i):
            continue
        p = &net.peers[i]
        if p.dialled == NULL or not p.greeted:
            continue                # not connected: lost, as on any network
        if p.out.bytes + size + (value.size if value != NULL else 0) > MAX_OUT:
            net.dropped += 1
            continue
        out_push(&p.out, head, size, value)
        net.frames_sent += 1


cdef void net_flush(Net *net) noexcept nogil:
    cdef uint32_t i
    cdef Peer *p
    cdef iovec iov[IOVECS]
    cdef msghdr message
    cdef ssize_t n
    for i in range(net.peer_count):
        p = &net.peers[i]
        while p.out.bytes and p.dialled != NULL and not p.dialled.blocked:
            memset(&message, 0, sizeof(message))
            message.msg_iov = iov
            message.msg_iovlen = out_iovecs(&p.out, iov, IOVECS)
            n = sendmsg(p.dialled.fd, &message, MSG_NOSIGNAL)
            if n >= 0:
                net.bytes_sent += n
                out_consume(&p.out, n)
                continue
            if errno == EINTR:
                continue
            if errno == EAGAIN:
                p.dialled.blocked = True
                if watch(net, p.dialled, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT) != 0:
                    complain(net, "epoll_ctl failed", errno)
                    drop(net, p.dialled)
            else:
                drop(net, p.dialled)


cdef void net_tick(Net *net) noexcept nogil:
    cdef uint32_t i
    cdef Peer *p
    cdef Conn *conn
    if net.accept_again and net.now >= net.accept_again:
        net.accept_again = 0
        listen_for(net, EPOLLIN)
    for i in range(net.peer_count):
        p = &net.peers[i]
        if p.known and p.dialled == NULL and net.now >= p.next_dial:
            dial(net, i)
        elif p.dialled != NULL and net.now >= p.dialled.deadline:
            dial_failed(net, i, ETIMEDOUT)
            drop(net, p.dialled)
    i = 0
    while i < net.accepted_count:
        conn = net.accepted[i]
        if net.now < conn.deadline:
            i += 1
            continue
        if conn.state == CONN_HANDSHAKE:
            note(net, REASON_NO_HELLO, conn)
        drop(net, conn)             # puts the last in its place


cdef int64_t net_deadline(const Net *net) noexcept nogil:
    cdef int64_t when = net.accept_again if net.accept_again else INT64_MAX
    cdef uint32_t i
    for i in range(net.peer_count):
        if not net.peers[i].known:
            continue
        if net.peers[i].dialled == NULL:
            when = min(when, net.peers[i].next_dial)
        else:
            when = min(when, net.peers[i].dialled.deadline)
    for i in range(net.accepted_count):
        when = min(when, net.accepted[i].deadline)
    return when


cdef void net_sweep(Net *net) noexcept nogil:
    cdef size_t i
    for i in range(net.dead_count):
        free(net.dead[i].buffer)
        free(net.dead[i])
    net.dead_count = 0


cdef uint32_t net_connected(const Net *net) noexcept nogil:
    cdef uint32_t mask = 0
    cdef uint32_t i
    for i in range(net.peer_count):
        if net.peers[i].dialled != NULL and net.peers[i].dialled.state == CONN_OPEN:
            mask |= bit(i)
    return mask


cdef bint net_more(const Net *net) noexcept nogil:
    """Whether bytes may wait that this round's budget left unread."""
    cdef uint32_t i
    for i in range(net.accepted_count):
        if net.accepted[i].more:
            return True
    return False
