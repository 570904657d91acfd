# cython: language_level=3
"""What the engine and the simulator have in common as Python objects: options, opening and replaying the log, and the calls that
only touch the queues between a node and Python."""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset
from paxos._delivery cimport (
    REASONS, Status, clock_now, delivery_command, delivery_drain, delivery_status, delivery_submit,
)
from paxos._formation cimport formation_init
from paxos._round cimport host_free, host_restore, host_restored
from paxos._segments cimport LogStore
from paxos._state cimport TAIL, Group, Host
from paxos._store cimport index_chain
from paxos._types cimport ALPHA, CHUNK_WINDOW, MAX_MEMBERS, ChunkHead, Value, xzalloc

from paxos.errors import ConfigError, DamagedLog, NodeClosed

cdef tuple ROLES = ("follower", "asking", "preparing", "master")
cdef tuple REASON_NAMES = (
    "magic", "version", "length", "crc", "type", "body", "not_for_me", "other_cluster", "not_member",
    "other_incarnation", "other_config", "no_hello", "sender", "not_admitted", "direction", "group", "too_many", "piece",
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


cdef class Handle:
    """See _engine.pyi for what the methods say."""

    cdef int configure(self, object node_id, object nodes, object window, object batch_bytes, object batch_values,
                       object heartbeat_ns, object election_min_ns, object election_max_ns, object stuck_limit_ns,
                       object max_value, object segment_size, object max_pending, object max_pending_bytes) except -1:
        cdef Host *h = self.host
        cdef uint64_t largest
        in_bounds("node_id", node_id, 1, 0xFFFFFFFE)
        in_bounds("window", window, 1, ALPHA)
        in_bounds("batch_bytes", batch_bytes, 1, 1 << 30)
        in_bounds("batch_values", batch_values, 1, 1 << 24)
        in_bounds("heartbeat_ns", heartbeat_ns, 1_000_000, 60_000_000_000)
        in_bounds("election_min_ns", election_min_ns, 2 * heartbeat_ns, 600_000_000_000)
        in_bounds("election_max_ns", election_max_ns, election_min_ns + 1, 1_200_000_000_000)
        in_bounds("stuck_limit_ns", stuck_limit_ns, 100_000_000, 1 << 62)
        in_bounds("max_value", max_value, 1, 64 << 20)
        in_bounds("max_pending", max_pending, 1, CHUNK_WINDOW - 2)
        in_bounds("max_pending_bytes", max_pending_bytes, 1, 1 << 40)
        if not 1 <= len(nodes) <= MAX_MEMBERS:
            raise ConfigError(f"a cluster has 1 to {MAX_MEMBERS} nodes, not {len(nodes)}")
        if node_id not in nodes:
            raise ConfigError(f"cluster= does not name node {node_id} itself, only {sorted(nodes)}")
        largest = max(batch_bytes, max_value + 4) + sizeof(ChunkHead)
        in_bounds("segment_size", segment_size, largest + RECORD_ROOM, 1 << 40)
        memset(&self.configured, 0, sizeof(Membership))
        for node in sorted(nodes):
            in_bounds("a node id", node, 1, 0xFFFFFFFE)
            self.configured.members[self.configured.count].node = node
            self.configured.count += 1
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
        return 0

    cdef int open_log(self, object directory, object segment_size, bint direct) except -1:
        cdef uint64_t largest = self.host.delivery.max_chunk + sizeof(ChunkHead)
        self.log = LogStore(directory, self.host.options.node, segment_size=segment_size, direct=direct)
        kept = self.log.store.writer.segment_size
        if kept < largest + RECORD_ROOM:
            # A record that fits no segment would end this process, and every other node that is sent it.
            raise ConfigError(f"the log in {directory} was made with segments of {kept} bytes, which it keeps; they hold "
                              f"values of {kept - RECORD_ROOM - sizeof(ChunkHead) - 4} bytes at most: lower max_value and "
                              "batch_bytes to that")
        self.log_mode = self.log.mode
        return 0

    cdef int replay(self, uint64_t seed, uint64_t fresh_hi, uint64_t fresh_lo) except -1:
        cdef Host *h = self.host
        cdef Group *g
        cdef size_t n
        h.store = self.log.store
        h.boot = self.log.boot
        h.delivery.boot = self.log.boot
        h.delivery.inc_hi = self.log.incarnation_hi
        h.delivery.inc_lo = self.log.incarnation_lo
        h.seed = seed
        h.groups = <Group *>xzalloc(sizeof(Group))
        h.group_count = 1
        g = &h.groups[0]
        g.tail = <Value **>xzalloc(TAIL * sizeof(Value *))
        formation_init(&h.formation, h.options.node, self.log.incarnation_hi, self.log.incarnation_lo, h.boot, &self.configured,
                       fresh_hi, fresh_lo)
        for n in range(self.log.record_count):
            if host_restore(h, self.log.records[n].type, self.log.records[n].group, self.log.records[n].instance,
                            self.log.records[n].body, self.log.records[n].size, self.log.records[n].position) != 0:
                raise DamagedLog(
                    f"the log in {self.log.directory} contradicts itself: the record at position "
                    f"{self.log.records[n].position} (type {self.log.records[n].type}, instance "
                    f"{self.log.records[n].instance}) does not fit what came before. Keep the "
                    "directory for analysis, and start the node again from an empty one")
        self.log.release_replay()
        host_restored(h)
        return 0

    cdef object set_applied(self, int64_t applied):
        if applied < -1:
            raise ValueError("applied is -1 or the last instance that the state machine has")
        self.host.delivery.last_drain = clock_now(&self.host.delivery.clock)
        self.host.groups[0].cursor = <uint64_t>(applied + 1)
        return index_chain(&self.host.groups[0].index, <uint64_t>applied) if applied >= 0 else 0

    cdef void release(self) noexcept:
        host_free(self.host)
        if self.log is not None:
            log = self.log
            self.log = None
            self.host.store = NULL
            log.close()

    def __reduce__(self):
        raise TypeError("an Engine cannot be copied or pickled: it is a thread, sockets and a log")

    def now(self):
        return clock_now(&self.host.delivery.clock)

    def submit(self, uint32_t machine, values not None, int64_t deadline_ns):
        if self.stopped:
            raise NodeClosed("this node has been closed")
        return delivery_submit(&self.host.delivery, machine, values, deadline_ns)

    def drain(self, Py_ssize_t max_values):
        return delivery_drain(&self.host.delivery, max_values)

    def resign(self, bint may_lead):
        if self.stopped:
            raise NodeClosed("this node has been closed")
        delivery_command(&self.host.delivery, 1 if may_lead else 2, False)

    def status(self):
        cdef Status s
        cdef Host *h = self.host
        cdef uint32_t i
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
