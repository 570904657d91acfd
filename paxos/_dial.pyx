# cython: language_level=3
"""Dialling of peers with back-off. A name is resolved anew for each attempt, by a thread that may hang (_resolver): where it has no
answer in time, or a bad one, the last good one is used. Each attempt tries the next of the addresses that a name has."""
from libc.errno cimport EINPROGRESS, errno
from libc.stdint cimport INT64_MAX, int64_t, uint32_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, strerror
from paxos._conn cimport BACKOFF_LOW, CONN_CONNECTING, CONN_DIALLED, CONN_OPEN, Conn, Net, Peer, back_off, conn_new, drop, options, watch
from paxos._delivery cimport delivery_log, delivery_ping
from paxos._resolver cimport Question, names_answer, names_ask, names_asked, names_forget, names_want
from paxos._sockets cimport (
    EPOLLIN, EPOLLOUT, EPOLL_CTL_ADD, EPOLL_CTL_MOD, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET, SO_ERROR, address_equal,
    address_family, address_pointer, address_set, address_size, address_split, address_text, connect, getsockopt, socket, socklen_t,
)
from paxos._types cimport bit

cdef enum:
    SECOND = 1000000000
    MILLISECOND = 1000000
    CONNECT_TIMEOUT = 2             # s
    ANSWER_TIMEOUT = 1              # s that a name may take to resolve
    SLOW_LOW = 5                    # s that one which took longer is not asked for, at first
    SLOW_HIGH = 60                  # ... and at last
    COMPLAIN_AFTER = 2              # s that a peer cannot be reached before that is said
    COMPLAIN_EVERY = 60             # s


cdef void dial_to(Net *net, uint32_t index, const char *text) noexcept nogil:
    cdef char said[160]
    cdef Peer *p = &net.peers[index]
    names_forget(net.names, index)
    snprintf(p.text, sizeof(p.text), "%s", text)
    p.backoff = BACKOFF_LOW * MILLISECOND
    p.next_dial = net.now
    if p.node == 0 or p.node == net.node:
        return
    if p.text[0] == 0:
        snprintf(said, sizeof(said), "node %u has no address, neither in the membership nor in cluster= of this node: it cannot be "
                 "reached from here", p.node)
        delivery_log(net.delivery, 30, said)
        return
    p.known = True
    if address_split(p.text, p.host, &p.port) != 0:
        p.host[0] = 0
        snprintf(p.why, sizeof(p.why), "its address is not HOST:PORT")
    elif address_set(&p.found[0], p.host, p.port) == 0:
        p.found_count = 1
    else:
        p.named = True
        names_want(net.names)
        delivery_ping(net.delivery)             # Python starts the thread, if there is none


cdef void dial_failed(Net *net, uint32_t index, const char *why) noexcept nogil:
    """Said when a row of failures has lasted, and again every minute: nodes that start one after the other, and a peer that
    has been down for long, are no news."""
    cdef char text[768]
    cdef char address[80]
    cdef Peer *p = &net.peers[index]
    if not p.failing:
        p.failing = True
        p.complained = net.now - (COMPLAIN_EVERY - COMPLAIN_AFTER) * <int64_t>SECOND
    if net.now - p.complained < COMPLAIN_EVERY * <int64_t>SECOND:
        return
    p.complained = net.now
    if p.named and why != p.why:
        address_text(&p.address, address, sizeof(address))
        snprintf(text, sizeof(text), "node %u at %s (%s) cannot be reached: %s%s%s; trying again", p.node, p.text, address, why,
                 "; " if p.why[0] else "", p.why)
    else:
        snprintf(text, sizeof(text), "node %u at %s cannot be reached: %s; trying again", p.node, p.text, why)
    delivery_log(net.delivery, 30, text)


cdef void choose(Peer *p) noexcept nogil:
    """The address that held last, or the one behind the one that did not."""
    cdef uint32_t i
    for i in range(p.found_count):
        if address_equal(&p.found[i], &p.address):
            p.address = p.found[(i + p.turn) % p.found_count]
            return
    p.address = p.found[0]


cdef void dial(Net *net, uint32_t index) noexcept nogil:
    cdef Peer *p = &net.peers[index]
    cdef Conn *conn
    cdef int error = 0
    cdef int fd
    choose(p)
    fd = socket(address_family(&p.address), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        error = errno
        p.turn = True
        p.next_dial = net.now + SECOND
        dial_failed(net, index, strerror(error))
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
        dial_failed(net, index, strerror(error))
        drop(net, conn)


cdef bint resolved(Net *net, uint32_t index) noexcept nogil:
    """Asks where a name is to be found, and looks for the answer. True: it is there, or is not waited for any more."""
    cdef Question answer
    cdef Peer *p = &net.peers[index]
    cdef bint waiting = p.asked != 0
    cdef bint answered = names_answer(net.names, index, &answer)
    if answered and answer.count:               # (even where it comes too late for the last attempt)
        memcpy(p.found, answer.found, sizeof(p.found))
        p.found_count = answer.count
        p.why[0] = 0
    elif answered:
        snprintf(p.why, sizeof(p.why), "the name does not resolve (%s)", answer.why)
    if answered and p.late:
        # One thread asks for all names, one after the other: who takes long has his turn less often.
        p.slow = min(max(2 * p.slow, SLOW_LOW * <int64_t>SECOND), SLOW_HIGH * <int64_t>SECOND)
        p.ask_again = net.now + p.slow
        p.late = False
    elif answered:
        p.slow = 0
    if not waiting:
        if not names_asked(net.names, index):
            if net.now < p.ask_again:
                return True                     # by what it was the last time
            names_ask(net.names, index, p.host, p.port)
        p.asked = net.now + ANSWER_TIMEOUT * <int64_t>SECOND
        return False
    if not answered:
        if net.now < p.asked:
            return False
        p.late = True
        snprintf(p.why, sizeof(p.why), "the name does not resolve (no answer within %d s)", <int>ANSWER_TIMEOUT)
    p.asked = 0
    return True


cdef void dial_due(Net *net, uint32_t index) noexcept nogil:
    cdef Peer *p = &net.peers[index]
    if p.named and not resolved(net, index):
        return
    if p.found_count:
        dial(net, index)
        return
    dial_failed(net, index, p.why)
    back_off(net, p)


cdef void connected(Net *net, Conn *conn) noexcept nogil:
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    if getsockopt(conn.fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0:
        error = errno
    if error == 0 and watch(net, conn, EPOLL_CTL_MOD, EPOLLIN) != 0:
        error = errno
    if error:
        dial_failed(net, conn.peer, strerror(error))
        drop(net, conn)
        return
    conn.state = CONN_OPEN
    conn.opened = net.now
    conn.deadline = INT64_MAX
    net.peers[conn.peer].failing = False
    net.came_up |= bit(conn.peer)
