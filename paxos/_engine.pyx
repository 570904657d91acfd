# cython: language_level=3
"""The native host of a node as Python sees it: open, start, submit, drain, stop. The loop itself is in _host."""
import os
import socket
import threading
import weakref

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset
from paxos._delivery cimport (
    REASONS, Status, boottime, delivery_command, delivery_drain, delivery_free, delivery_init, delivery_log,
    delivery_status, delivery_submit,
)
from paxos._formation cimport formation_init
from paxos._host cimport host_free, host_restore, host_restored, host_run
from paxos._net cimport net_abandon, net_free, net_init
from paxos._segments cimport LogStore
from paxos._store cimport index_chain
from paxos._sockets cimport Address, address_set
from paxos._state cimport TAIL, Group, Host
from paxos._types cimport ALPHA, CHUNK_WINDOW, MAX_MEMBERS, ChunkHead, Membership, Value, xzalloc

from paxos.errors import ConfigError, DamagedLog, NodeClosed

EVENT_CHOSEN = 0
EVENT_SETTLED = 1
EVENT_MASTER = 2
EVENT_LOG = 3
EVENT_FORMED = 4
EVENT_DIVERGED = 5

cdef tuple ROLES = ("follower", "asking", "preparing", "master")
cdef tuple REASON_NAMES = (
    "magic", "version", "length", "crc", "type", "body", "not_for_me", "other_cluster", "not_member",
    "other_incarnation", "other_config", "no_hello", "sender", "not_admitted", "direction", "group", "too_many",
)
if len(REASON_NAMES) != REASONS:
    raise ImportError("paxos: names and numbers of the reasons for refusing differ")

cdef enum:
    FRAME_ROOM = 1114112            # what a frame may hold beside its largest value: 1 MiB of others, and heads
    RECORD_ROOM = 65536             # what a segment holds beside its largest record


cdef int in_bounds(str name, object value, object low, object high) except -1:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
    return 0


cdef Address resolve(object node, object address) except *:
    cdef Address result
    try:
        host, port = address
        raw = str(host).encode("ascii")
        number = int(port)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the address of node {node} must be (host, port), not {address!r}") from error
    if not 1 <= number <= 65535:
        raise ConfigError(f"the port of node {node} must be from 1 to 65535, not {port!r}")
    if address_set(&result, raw, <unsigned int>number) != 0:
        raise ConfigError(f"the host of node {node} must be a numeric IP address, not {host!r}")
    return result


cdef object listen(object node, object address):
    """The listening socket, or ConfigError with the way out."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        # A port whose old connections are in TIME_WAIT may be taken again; one with a listener may not.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise ConfigError(f"node {node} cannot listen on {host}:{port}: {error.strerror}. Stop the process that uses this "
                          "address, or give the node another one in cluster= (on all nodes)") from error
    return sock


_engines = weakref.WeakSet()


def _after_fork():
    for engine in list(_engines):
        (<Engine>engine).abandon()


os.register_at_fork(after_in_child=_after_fork)


cdef class Engine:
    """One node: its log, its connections and its replica, run by one native thread. See _engine.pyi."""
    cdef Host *host
    cdef LogStore log
    cdef object thread
    cdef object guard               # start() and stop() exclude one another
    cdef object __weakref__
    cdef bint ready                 # the network part is set up
    cdef bint started
    cdef bint stopped
    cdef bint foreign               # this process was forked from the one that the engine runs in
    cdef str log_mode

    def __cinit__(self):
        self.host = <Host *>xzalloc(sizeof(Host))
        self.guard = threading.Lock()
        _engines.add(self)
        if delivery_init(&self.host.delivery, 0) != 0:
            raise OSError("no eventfd or mutex can be made")

    def __init__(self, directory, node_id, addresses, *, window=8, batch_bytes=1 << 20, batch_values=4096,
                 heartbeat_ns=50_000_000, election_min_ns=300_000_000, election_max_ns=600_000_000,
                 stuck_limit_ns=10_000_000_000, max_value=10 << 20, segment_size=64 << 20, direct=True,
                 max_pending=16384, max_pending_bytes=128 << 20):
        cdef Host *h = self.host
        cdef Membership configured
        cdef uint64_t largest
        if self.log is not None or self.stopped:
            raise RuntimeError("an Engine is opened once")
        in_bounds("node_id", node_id, 1, 0xFFFFFFFE)
        in_bounds("window", window, 1, ALPHA)
        in_bounds("batch_bytes", batch_bytes, 1, 1 << 30)
        in_bounds("batch_values", batch_values, 1, 1 << 24)
        in_bounds("heartbeat_ns", heartbeat_ns, 1_000_000, 60_000_000_000)
        in_bounds("election_min_ns", election_min_ns, 2 * heartbeat_ns, 600_000_000_000)
        in_bounds("election_max_ns", election_max_ns, election_min_ns + 1, 1_200_000_000_000)
        in_bounds("stuck_limit_ns", stuck_limit_ns, 100_000_000, 1 << 62)
        in_bounds("max_value", max_value, 1, 1 << 30)
        in_bounds("max_pending", max_pending, 1, CHUNK_WINDOW - 2)
        in_bounds("max_pending_bytes", max_pending_bytes, 1, 1 << 40)
        if not 1 <= len(addresses) <= MAX_MEMBERS:
            raise ConfigError(f"a cluster has 1 to {MAX_MEMBERS} nodes, not {len(addresses)}")
        if node_id not in addresses:
            raise ConfigError(f"cluster= does not name node {node_id} itself, only {sorted(addresses)}")
        largest = max(batch_bytes, max_value + 4) + sizeof(ChunkHead)
        in_bounds("segment_size", segment_size, largest + RECORD_ROOM, 1 << 40)

        memset(&configured, 0, sizeof(configured))
        for node in sorted(addresses):
            in_bounds("a node id", node, 1, 0xFFFFFFFE)
            resolve(node, addresses[node])
            configured.members[configured.count].node = node
            configured.count += 1
        h.options.node = node_id
        h.options.window = window
        h.options.batch_bytes = batch_bytes
        h.options.batch_values = batch_values
        h.options.heartbeat = heartbeat_ns
        h.options.election_min = election_min_ns
        h.options.election_max = election_max_ns
        h.options.resend = 2 * heartbeat_ns
        h.options.queue_bytes = max_pending_bytes
        h.options.max_frame = <uint32_t>(largest + FRAME_ROOM)
        h.delivery.node = node_id
        h.delivery.max_pending = max_pending
        h.delivery.max_pending_bytes = max_pending_bytes
        h.delivery.max_value = max_value
        h.delivery.max_chunk = largest - sizeof(ChunkHead)
        h.stuck_limit = stuck_limit_ns
        h.may_lead = True

        sock = None
        self.log = LogStore(directory, node_id, segment_size=segment_size, direct=bool(direct))
        try:
            kept = self.log.store.writer.segment_size
            if kept < largest + RECORD_ROOM:
                # A record that fits no segment would end this process, and every other node that is sent it.
                raise ConfigError(f"the log in {directory} was made with segments of {kept} bytes, which it keeps; they hold "
                                  f"values of {kept - RECORD_ROOM - sizeof(ChunkHead) - 4} bytes at most: lower max_value and "
                                  "batch_bytes to that")
            sock = listen(node_id, addresses[node_id])
            self.log_mode = self.log.mode
            self.open_host(addresses, &configured, sock)
        except BaseException:
            self.release()
            if sock is not None:
                sock.close()
            self.stopped = True
            raise

    cdef int open_host(self, object addresses, const Membership *configured, object sock) except -1:
        cdef Host *h = self.host
        cdef Group *g
        cdef uint32_t i
        cdef size_t n
        cdef int error
        h.store = self.log.store
        h.boot = self.log.boot
        h.delivery.boot = self.log.boot
        h.delivery.inc_hi = self.log.incarnation_hi
        h.delivery.inc_lo = self.log.incarnation_lo
        h.seed = int.from_bytes(os.urandom(8), "little")
        h.groups = <Group *>xzalloc(sizeof(Group))
        h.group_count = 1
        g = &h.groups[0]
        g.tail = <Value **>xzalloc(TAIL * sizeof(Value *))
        formation_init(&h.formation, h.options.node, self.log.incarnation_hi, self.log.incarnation_lo, h.boot, configured,
                       int.from_bytes(os.urandom(8), "little"), int.from_bytes(os.urandom(8), "little"))
        for n in range(self.log.record_count):
            if host_restore(h, self.log.records[n].type, self.log.records[n].group, self.log.records[n].instance,
                            self.log.records[n].body, self.log.records[n].size, self.log.records[n].position) != 0:
                raise DamagedLog(
                    f"the log in {self.log.directory} contradicts itself: the record at position "
                    f"{self.log.records[n].position} (type {self.log.records[n].type}, instance "
                    f"{self.log.records[n].instance}) does not fit what came before. Nothing has been changed; keep the "
                    "directory for analysis, and start the node again from an empty one")
        self.log.release_replay()
        host_restored(h)
        error = net_init(&h.net, &h.delivery, h.options.node, h.options.max_frame, sock.fileno(), h.seed)
        self.ready = True
        sock.detach()               # closed by net_free from here on
        if error:
            raise OSError(error, os.strerror(error))
        h.net.peer_count = h.formation.members.count
        for i in range(h.net.peer_count):
            h.net.peers[i].node = h.formation.members.members[i].node
            if h.net.peers[i].node != h.options.node and h.net.peers[i].node in addresses:
                h.net.peers[i].address = resolve(h.net.peers[i].node, addresses[h.net.peers[i].node])
                h.net.peers[i].known = True
        members = [h.net.peers[i].node for i in range(h.net.peer_count)]
        if members != sorted(addresses):
            # The thread is not running yet, so this may be written from here.
            text = (f"the cluster was formed by the nodes {members}, which counts; cluster= now names "
                    f"{sorted(addresses)}, which is used for addresses only").encode()
            delivery_log(&h.delivery, 30, text)
        return 0

    def __dealloc__(self):
        # The thread holds a reference to this object, so it is not running.
        if self.host != NULL and not self.foreign:
            self.release()
            delivery_free(&self.host.delivery)
            free(self.host)
            self.host = NULL

    def __reduce__(self):
        raise TypeError("an Engine cannot be copied or pickled: it is a thread, sockets and a log")

    cdef void release(self) noexcept:
        if self.ready:
            net_free(&self.host.net)
            self.ready = False
        host_free(self.host)
        if self.log is not None:
            log = self.log
            self.log = None
            self.host.store = NULL
            log.close()

    cdef abandon(self):
        """In a forked child, where the thread does not run: lets go of port, peers and lock, which would outlive the parent."""
        self.stopped = self.foreign = True
        self.thread = None
        if self.ready:
            net_abandon(&self.host.net)
        log, self.log = self.log, None
        if log is not None:
            log.abandon()

    def start(self, int64_t applied):
        if applied < -1:
            raise ValueError("applied is -1 or the last instance that the state machine has")
        with self.guard:
            if self.stopped:
                raise NodeClosed("this node has been closed")
            if self.started:
                raise RuntimeError("an Engine is started once")
            if self.log is None:
                raise RuntimeError("the Engine has not been opened")
            self.host.delivery.last_drain = boottime()
            self.host.groups[0].cursor = <uint64_t>(applied + 1)
            chain = index_chain(&self.host.groups[0].index, <uint64_t>applied) if applied >= 0 else 0
            # A daemon: a program that ends without close() must not hang on it; what is durable is durable.
            thread = threading.Thread(target=self._run, name=f"paxos-{self.host.options.node}", daemon=True)
            self.started = True
            try:
                thread.start()
            except BaseException:
                self.started = False        # no thread can be had: stop() must not wait for one
                raise
            self.thread = thread
            return chain

    def _run(self):
        with nogil:
            host_run(self.host)

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

    def fileno(self):
        return self.host.delivery.wake_python

    def now(self):
        return boottime()

    def submit(self, uint32_t machine, values not None, int64_t deadline_ns):
        if self.stopped:
            raise NodeClosed("this node has been closed")
        return delivery_submit(&self.host.delivery, machine, values, deadline_ns)

    def drain(self, Py_ssize_t max_values):
        if self.foreign:
            return []               # what is there is the parent's
        return delivery_drain(&self.host.delivery, max_values)

    def resign(self, bint may_lead):
        if self.stopped:
            raise NodeClosed("this node has been closed")
        delivery_command(&self.host.delivery, 1 if may_lead else 2, False)

    def status(self):
        cdef Status s
        cdef Host *h = self.host
        cdef uint32_t i
        if self.foreign:
            raise NodeClosed("this node runs in the process that opened it, from which this one was forked")
        delivery_status(&h.delivery, &s)
        return {
            "node_id": h.options.node, "boot": h.boot,
            "incarnation": f"{h.delivery.inc_hi:016x}{h.delivery.inc_lo:016x}",
            "signature": f"{s.sig_hi:016x}{s.sig_lo:016x}",
            "formed": bool(s.formed), "role": ROLES[s.role], "master_id": s.master, "master_round": s.master_round,
            "established": bool(s.established), "chosen": s.chosen, "heard_chosen": s.heard_chosen,
            "chain": s.chain, "delivered": s.delivered,
            "commits": s.chosen_values, "log_mode": self.log_mode, "fsyncs": s.syncs, "log_writes": s.writes,
            "log_bytes": s.log_bytes, "log_records": s.log_records, "log_ns": s.log_time,
            "frames_sent": s.frames_sent, "frames_received": s.frames_received, "bytes_sent": s.bytes_sent,
            "bytes_received": s.bytes_received, "frames_dropped": s.frames_dropped,
            "frames_refused": {REASON_NAMES[i]: s.refused[i] for i in range(REASONS)},
            "core_refused": s.core_refused, "rounds": s.rounds, "proposed_values": s.proposed_values,
            "elections": s.elections, "pending_chunks": h.delivery.pending_chunks,
            "pending_bytes": h.delivery.pending_bytes,
            "peers": {s.nodes[i]: bool(s.connected >> i & 1) for i in range(s.members) if s.nodes[i] != h.options.node},
        }
