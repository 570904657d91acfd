# cython: language_level=3
"""Sockets of the engine: accepting within a bound, framing, and what to do with garbage. Dialling is in _dial.

Whatever comes in is refused on the first byte that is wrong, counted by reason, and logged at most once a second for
each reason. Before the handshake a connection may hold one page of memory and a few seconds of time, after it a buffer and
the largest frame, which comes in pieces. What goes out to a peer is bounded too: frames beyond the bound are dropped and
counted; the protocol stands loss. Large frames leave in pieces, between which small ones pass.
"""
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM, EPROTO, ETIMEDOUT, errno
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from libc.string cimport memcpy, memmove, memset, strcmp, strerror
from paxos._codec cimport FRAME_BAD_MAGIC, FRAME_OK, FRAME_SHORT, frame_check
from paxos._conn cimport (
    BACKOFF_HIGH, BACKOFF_LOW, CONN_ACCEPTED, CONN_CLOSED, CONN_CONNECTING, CONN_DIALLED, CONN_HANDSHAKE, CONN_LINGER, CONN_OPEN,
    MAX_ACCEPTED, NO_PEER, REASON_DIRECTION, REASON_LENGTH, REASON_MAGIC, REASON_NO_HELLO, REASON_PIECE, REASON_TOO_MANY, Address,
    Peer, complain, conn_free, conn_new, drop, note, options, watch,
)
from paxos._delivery cimport Delivery, boottime, delivery_log
from paxos._dial cimport connected, dial_due, dial_failed, dial_to
from paxos._formation cimport REFUSE_NOT_MEMBER, Refuse
from paxos._outqueue cimport out_consume, out_drop, out_holds, out_iovecs, out_push
from paxos._pieces cimport TRANSFER_MORE, TRANSFER_WHOLE, transfer_done, transfer_take
from paxos._sockets cimport (
    EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, MSG_NOSIGNAL, SHUT_WR, SOCK_CLOEXEC,
    SOCK_NONBLOCK, accept4, address_pointer, address_room, close, epoll_create1, epoll_ctl, epoll_event, epoll_wait, iovec, msghdr,
    read, recv, send, sendmsg, shutdown,
)
from paxos._types cimport FRAME_PIECE, FRAME_REFUSE, FRAME_WHOLE, Frame, Membership, Value, bit, xrealloc

cdef enum:
    SECOND = 1000000000
    MILLISECOND = 1000000
    HELLO_TIMEOUT = 5               # s
    LINGER_TIMEOUT = 1              # s
    COMPLAIN_EVERY = 60             # s
    SMALL_BUFFER = 4096             # before the handshake, and all that a REFUSE needs
    BUFFER = 262144
    FLUSH_BYTES = 16777216          # sent to one peer in one go, if the network takes as much
    OUT_RESERVE = 4194304           # of the bytes that may wait for one peer, those that large frames leave to small ones
    IOVECS = 128
    EVENTS = 128

# ---- accepting ----

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


cdef uint32_t limit(const Conn *conn) noexcept nogil:
    return FRAME_WHOLE if conn.state == CONN_OPEN and conn.kind == CONN_ACCEPTED else SMALL_BUFFER


cdef void net_read(Net *net, Conn *conn) noexcept nogil:
    cdef size_t need = 0
    cdef size_t room
    cdef ssize_t n
    if conn.state == CONN_CLOSED:
        return
    if conn.state == CONN_LINGER:
        conn.start = 0
        conn.end = 0
    elif conn.end > conn.start and frame_check(conn.buffer + conn.start, conn.end - conn.start, limit(conn),
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


cdef const Frame *next_frame(Net *net, Conn *conn) noexcept nogil:
    """The next frame as it lies in the buffer, be it a piece."""
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
    code = frame_check(data, available, limit(conn), &need)
    if code == FRAME_SHORT and size == conn.end - conn.start:
        return NULL
    if code != FRAME_OK:
        note(net, REASON_LENGTH if code == FRAME_SHORT else code - FRAME_BAD_MAGIC + REASON_MAGIC, conn)
        drop(net, conn)
        return NULL
    conn.start += need
    return <const Frame *>data


cdef const Frame *net_frame(Net *net, Conn *conn) noexcept nogil:
    cdef const Frame *frame
    cdef int state
    cdef int error = 0
    transfer_done(&conn.transfer)
    while True:
        frame = next_frame(net, conn)
        if frame == NULL:
            return NULL
        # Elsewhere, and of a stranger, a piece is a frame like others, and refused like them.
        if frame.type != FRAME_PIECE or conn.state != CONN_OPEN or conn.kind != CONN_ACCEPTED or conn.peer == NO_PEER:
            net.frames_received += 1
            return frame
        state = transfer_take(&conn.transfer, frame, net.max_frame, &error)
        if state == TRANSFER_MORE:
            continue
        if state == TRANSFER_WHOLE:
            net.frames_received += 1
            return <const Frame *>conn.transfer.data
        note(net, REASON_PIECE if error == FRAME_OK else error - FRAME_BAD_MAGIC + REASON_MAGIC, conn)
        drop(net, conn)
        return NULL


cdef void net_opened(Net *net, Conn *conn, uint32_t peer) noexcept nogil:
    cdef Peer *p = &net.peers[peer]
    if p.accepted != NULL and p.accepted != conn:
        drop(net, p.accepted)       # the peer dialled anew: what came before is dead
    p.accepted = conn
    p.disowned = False
    conn.peer = peer
    conn.node = p.node
    conn.state = CONN_OPEN
    conn.deadline = INT64_MAX
    # It is alive, then: no reason to wait for the back-off to run out.
    if p.known and p.dialled == NULL:
        p.backoff = BACKOFF_LOW * MILLISECOND
        p.next_dial = net.now


cdef void net_stranger(Net *net, Conn *conn, uint32_t node) noexcept nogil:
    conn.node = node
    conn.state = CONN_OPEN


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
        net.peers[conn.peer].disowned = net.peers[conn.peer].refused_reason == REFUSE_NOT_MEMBER    # (however long that took)
        return


cdef void flush_peer(Net *net, Peer *p) noexcept nogil:
    cdef iovec iov[IOVECS]
    cdef msghdr message
    cdef ssize_t n
    cdef int64_t left = FLUSH_BYTES
    while p.out.bytes and left > 0 and p.dialled != NULL and not p.dialled.blocked:
        memset(&message, 0, sizeof(message))
        message.msg_iov = iov
        message.msg_iovlen = out_iovecs(&p.out, iov, IOVECS)
        n = sendmsg(p.dialled.fd, &message, MSG_NOSIGNAL)
        if n >= 0:
            net.bytes_sent += n
            left -= n
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


# ---- the round ----

cdef int net_init(Net *net, Delivery *delivery, uint32_t node, uint32_t max_frame, uint64_t max_out, int listening,
                  uint64_t seed) noexcept nogil:
    cdef epoll_event e
    memset(net, 0, sizeof(Net))
    net.listening = listening
    net.delivery = delivery
    net.node = node
    net.max_frame = max_frame
    net.max_out = max_out + OUT_RESERVE
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


cdef const char *_address(const Net *net, const Membership *m, uint32_t place) noexcept nogil:
    """Where a member is to be found: where the membership says, else where this node was told. "": nobody knows."""
    cdef uint32_t i
    if m.address[place][0]:
        return m.address[place]
    for i in range(net.configured_count):
        if net.configured[i].node == m.members[place].node:     # (0, where nobody is, none is called)
            return net.configured[i].text
    return ""


cdef bint _inside(const Net *net, const Membership *m) noexcept nogil:
    cdef uint32_t i
    for i in range(m.count):
        if m.members[i].node == net.node:
            return m.members[i].inc_hi == net.inc_hi and m.members[i].inc_lo == net.inc_lo
    return False


cdef void net_members(Net *net, const Membership *m) noexcept nogil:
    cdef const char *text
    cdef Conn *accepted
    cdef uint32_t i
    cdef Peer *p
    cdef bint inside
    if net.delivery == NULL:
        return                      # the log is read; there is no network yet
    for i in range(max(net.peer_count, m.count)):
        p = &net.peers[i]
        text = _address(net, m, i)
        if p.node == m.members[i].node and strcmp(p.text, text) == 0:
            continue
        # Who has moved says so himself, by dialling: what he has dialled before is still his.
        accepted = p.accepted if p.node == m.members[i].node else NULL
        if p.accepted != accepted:
            drop(net, p.accepted)
        flush_peer(net, p)          # who goes is to hear of it
        if p.dialled != NULL:
            drop(net, p.dialled)
        out_drop(&p.out)
        memset(p, 0, sizeof(Peer))
        net.came_up &= ~bit(i)
        p.node = m.members[i].node
        p.accepted = accepted
        dial_to(net, i, text)
    net.peer_count = m.count
    inside = _inside(net, m)
    if inside and not net.inside:
        # Who has turned this node away before it was a member was right: that says nothing of now.
        for i in range(m.count):
            net.peers[i].disowned = False
    net.inside = inside


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
    cdef size_t whole = size + (value.size if value != NULL else 0)
    cdef bint large = whole > FRAME_WHOLE
    for i in range(net.peer_count):
        if not peers & bit(i):
            continue
        p = &net.peers[i]
        if p.dialled == NULL or not p.greeted:
            continue                # not connected: lost, as on any network
        if large and out_holds(&p.out, head, size, value):
            continue                # sent again, but it has not even left: once is enough
        if p.out.bytes + whole > net.max_out - (<uint64_t>OUT_RESERVE if large else 0):
            net.dropped += 1
            continue
        out_push(&p.out, head, size, value)
        net.frames_sent += 1


cdef void net_flush(Net *net) noexcept nogil:
    cdef uint32_t i
    for i in range(net.peer_count):
        flush_peer(net, &net.peers[i])


cdef void net_tick(Net *net) noexcept nogil:
    cdef uint32_t i
    cdef Peer *p
    cdef Conn *conn
    if net.accept_again and net.now >= net.accept_again:
        net.accept_again = 0
        listen_for(net, EPOLLIN)
    for i in range(net.peer_count):
        p = &net.peers[i]
        if p.known and p.dialled == NULL and (p.asked or net.now >= p.next_dial):
            dial_due(net, i)
        elif p.dialled != NULL and net.now >= p.dialled.deadline:
            dial_failed(net, i, strerror(ETIMEDOUT))
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
            when = min(when, net.peers[i].asked if net.peers[i].asked else net.peers[i].next_dial)
        else:
            when = min(when, net.peers[i].dialled.deadline)
    for i in range(net.accepted_count):
        when = min(when, net.accepted[i].deadline)
    return when


cdef void net_sweep(Net *net) noexcept nogil:
    cdef size_t i
    for i in range(net.dead_count):
        conn_free(net.dead[i])
    net.dead_count = 0


cdef uint32_t net_connected(const Net *net) noexcept nogil:
    cdef uint32_t mask = 0
    cdef uint32_t i
    for i in range(net.peer_count):
        if net.peers[i].dialled != NULL and net.peers[i].dialled.state == CONN_OPEN:
            mask |= bit(i)
    return mask


cdef bint net_more(const Net *net) noexcept nogil:
    """Whether bytes may wait that this round's budgets left unread or unsent."""
    cdef uint32_t i
    for i in range(net.accepted_count):
        if net.accepted[i].more:
            return True
    for i in range(net.peer_count):
        if net.peers[i].out.bytes and net.peers[i].dialled != NULL and not net.peers[i].dialled.blocked:
            return True
    return False
