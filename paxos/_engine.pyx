# cython: language_level=3
"""The native host of a node as Python sees it: open, start, submit, drain, stop. The loop itself is in _host."""
import errno
import logging
import os
import socket
import struct
import threading
import weakref

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy
from paxos._conn cimport Net
from paxos._delivery cimport clock_now, delivery_command, delivery_free, delivery_init, delivery_log
from paxos._handle cimport Handle
from paxos._host cimport Native, native_init, native_run
from paxos._net cimport net_abandon, net_free, net_init, net_members
from paxos._resolver cimport Resolver
from paxos._state cimport Host
from paxos._types cimport xzalloc

from paxos.errors import ConfigError, NodeClosed
from paxos.hosts import host_text

logger = logging.getLogger("paxos")

cdef enum:
    MAX_HOST = 247                  # with brackets, colon and port: what a membership has room for
    SECOND = 1000000000
    COMPLAIN_EVERY = 60             # s
    MAX_OUT = 67108864              # bytes that may wait for one peer, if the largest values need no more

EVENT_CHOSEN = 0
EVENT_SETTLED = 1
EVENT_MASTER = 2
EVENT_LOG = 3
EVENT_FORMED = 4
EVENT_DIVERGED = 5
EVENT_AHEAD = 6
EVENT_BEHIND = 7
EVENT_CARRY = 8
EVENT_MEMBERSHIP = 9
EVENT_CHAIN = 10
EVENT_READABLE = 11
EVENT_MASTERSHIP = 12

cdef tuple parts(object what, object address):
    """Host, as ASCII, and port."""
    try:
        host, port = address
        host = host_text(str(host))
        number = int(port)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the address of {what} must be (host, port), not {address!r}") from error
    if not 1 <= number <= 65535:
        raise ConfigError(f"the port of {what} must be from 1 to 65535, not {port!r}")
    if not host or len(host) > MAX_HOST or not host.isprintable() or " " in host:
        raise ConfigError(f"the host of {what} must be an IP address or a name of at most {MAX_HOST} characters, not {host!r}")
    return host, number


cdef str address_of(object node, object address):
    """HOST:PORT, as it stands in a membership."""
    host, port = parts(f"node {node}", address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


cdef list own(object what, object address):
    """Where to listen: what the name or address stands for, as socket.getaddrinfo() has it."""
    host, port = parts(what, address)
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{what}: the name {host!r} does not resolve ({getattr(error, 'strerror', None) or error}); give an IP "
                          "address or mend the name") from error


cdef object listen(object node, object where, object option):
    """The listening socket, or ConfigError with the way out."""
    problem = None
    for family, kind, protocol, _, address in where:
        sock = None
        try:
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
            # A port whose old connections are in TIME_WAIT may be taken again; one with a listener may not.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(128)
            return sock
        except OSError as error:
            if sock is not None:
                sock.close()
            problem = problem or (error, address)
            # This machine may lack one family of those that a name has; a port in use is in use.
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                break
    error, address = problem
    raise ConfigError(f"node {node} cannot listen on {address[0]}:{address[1]}: {error.strerror}. Stop the process that uses this "
                      f"address, or give the node another one in {option}") from error


_engines = weakref.WeakSet()


def _after_fork():
    for engine in list(_engines):
        (<Engine>engine).abandon()


os.register_at_fork(after_in_child=_after_fork)


cdef class Engine(Handle):
    """One node: its log, its connections and its replica, run by one native thread. See _engine.pyi."""
    cdef Native *native             # host is &native.host
    cdef object thread
    cdef Resolver resolver          # of peers' names
    cdef object guard               # start() and stop() exclude one another
    cdef object __weakref__
    cdef bint ready                 # the network part is set up
    cdef bint started
    cdef int64_t unresolved         # when it was last said that no names can be resolved; 0: never
    cdef bint foreign               # this process was forked from the one that the engine runs in

    def __cinit__(self):
        self.native = <Native *>xzalloc(sizeof(Native))
        self.host = &self.native.host
        native_init(self.native)
        self.resolver = Resolver()
        self.guard = threading.Lock()
        _engines.add(self)
        if delivery_init(&self.host.delivery, True) != 0:
            raise OSError("no eventfd or mutex can be made")

    def __init__(self, directory, node_id, addresses, *, bind=None, window=8, batch_bytes=1 << 20, batch_values=4096,
                 heartbeat_ns=50_000_000, election_min_ns=300_000_000, election_max_ns=600_000_000,
                 stuck_limit_ns=10_000_000_000, max_value=10 << 20, segment_size=64 << 20, direct=True,
                 max_pending=16384, max_pending_bytes=128 << 20, log_budget=1 << 30, log_hold=0, quarantine=True, priority=1,
                 max_wait_ns=0, follow=()):
        if self.log is not None or self.stopped:
            raise RuntimeError("an Engine is opened once")
        self.configure(node_id, addresses, window, batch_bytes, batch_values, heartbeat_ns, election_min_ns, election_max_ns,
                       stuck_limit_ns, max_value, segment_size, max_pending, max_pending_bytes, log_budget, log_hold)
        self.host.options.priority = priority
        for node in follow:
            self.host.options.follow[self.host.options.follow_count] = node
            self.host.options.follow_count += 1
        self.host.delivery.admission.max_wait = max_wait_ns
        book = {node: address_of(node, addresses[node]) for node in sorted(addresses)}
        where = own("bind=", bind) if bind is not None else own(f"node {node_id} in cluster=", addresses[node_id])
        sock = None
        try:
            seed, fresh_hi, fresh_lo = struct.unpack("<3Q", os.urandom(24))
            self.recover(directory, segment_size, bool(direct), bool(quarantine), seed, fresh_hi, fresh_lo)
            sock = listen(node_id, where, "bind=" if bind is not None else "cluster= (on all nodes)")
            self.open_net(book, sock)
        except BaseException:
            self.release()
            if sock is not None:
                sock.close()
            self.stopped = True
            raise

    cdef int open_net(self, dict book, object sock) except -1:
        cdef Host *h = self.host
        cdef Net *net = &self.native.net
        cdef uint32_t i
        # One window of the largest values: those of the master's Accepts are in memory anyway.
        cdef uint64_t most = max(<uint64_t>MAX_OUT, h.options.window * <uint64_t>h.options.max_frame)
        cdef int error = net_init(net, &h.delivery, h.options.node, h.options.max_frame, most, sock.fileno(), h.seed)
        self.ready = True
        sock.detach()               # closed by net_free from here on
        if error:
            raise OSError(error, os.strerror(error))
        net.names = self.resolver.names
        net.inc_hi = h.delivery.inc_hi
        net.inc_lo = h.delivery.inc_lo
        for node, address in book.items():
            text = address.encode("ascii")
            net.configured[net.configured_count].node = node
            memcpy(net.configured[net.configured_count].text, <const char *>text, len(text))
            net.configured_count += 1
        net_members(net, &h.formation.members)
        members = sorted([net.peers[i].node for i in range(net.peer_count) if net.peers[i].node != 0])
        # The thread is not running yet, so this may be written from here.
        if members != list(book):
            # (Whoever names some of them has all that it takes.)
            text = (f"the members are the nodes {members}, which counts; cluster= names {list(book)}, which is used for "
                    "addresses only").encode()
            delivery_log(&h.delivery, 20 if set(book) <= set(members) else 30, text)
        for i in range(h.formation.members.count):
            node = h.formation.members.members[i].node
            address = (<bytes>h.formation.members.address[i]).decode("ascii")
            if node in book and address and address != book[node]:
                text = (f"the membership has {address} as the address of node {node}, which counts; cluster= now names "
                        f"{book[node]}").encode()
                delivery_log(&h.delivery, 30, text)
        return 0

    cdef int resolve(self) except -1:
        """Starts the thread that resolves names, once there are some. With the guard held."""
        if self.started and not self.stopped and self.resolver.due():
            self.resolver.start(f"paxos-{self.host.options.node}-names", self.host.delivery.wake_engine)
        return 0

    def __dealloc__(self):
        # The thread holds a reference to this object, so it is not running.
        if self.native != NULL and not self.foreign:
            self.release()
            delivery_free(&self.host.delivery)
            free(self.native)
            self.native = NULL
            self.host = NULL

    cdef void release(self) noexcept:
        if self.resolver is not None:
            self.resolver.end()
        if self.ready:
            net_free(&self.native.net)
            self.ready = False
        Handle.release(self)

    cdef abandon(self):
        """In a forked child, where the thread does not run: lets go of port, peers and lock, which would outlive the parent."""
        self.stopped = self.foreign = True
        self.thread = None
        if self.ready:
            net_abandon(&self.native.net)
        log, self.log = self.log, None
        if log is not None:
            log.abandon()

    def start(self, int64_t applied):
        with self.guard:
            if self.stopped:
                raise NodeClosed("this node has been closed")
            if self.started:
                raise RuntimeError("an Engine is started once")
            if self.log is None:
                raise RuntimeError("the Engine has not been opened")
            chain = self.set_applied(applied)
            # A daemon: a program that ends without close() must not hang on it; what is durable is durable.
            thread = threading.Thread(target=self._run, name=f"paxos-{self.host.options.node}", daemon=True)
            self.started = True
            try:
                thread.start()
            except BaseException:
                self.started = False        # no thread can be had: stop() must not wait for one
                raise
            self.thread = thread
            self.resolve()
            return chain

    def _run(self):
        with nogil:
            native_run(self.native)

    def stop(self):
        if self.foreign:
            return
        with self.guard:
            if self.stopped:
                return
            self.stopped = True
            if self.thread is not None:
                delivery_command(&self.host.delivery, 0, True)
                self.thread.join()
                self.thread = None
            self.release()
            self.resolver.join()

    def fileno(self):
        return self.host.delivery.wake_python

    def poke(self):
        # A thread may be at it still when the engine has been stopped; its descriptors live as long as this object.
        if not self.foreign:
            Handle.poke(self)

    def drain(self, Py_ssize_t max_values):
        cdef int64_t now
        # In a forked child what is there is the parent's.
        if self.foreign:
            return []
        if self.resolver.due() and self.guard.acquire(False):
            try:
                self.resolve()
            except RuntimeError as error:       # no thread can be had; the next call tries again
                now = clock_now(&self.host.delivery.clock)
                if self.unresolved == 0 or now - self.unresolved >= COMPLAIN_EVERY * <int64_t>SECOND:
                    self.unresolved = now
                    logger.error("node %d: names of other nodes cannot be resolved: %s; trying again", self.host.options.node, error)
            finally:
                self.guard.release()
        return Handle.drain(self, max_values)

    def status(self):
        if self.foreign:
            raise NodeClosed("this node runs in the process that opened it, from which this one was forked")
        return Handle.status(self)
