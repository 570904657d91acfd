# cython: language_level=3
"""What the engine and the simulator have in common as Python objects: options, opening and replaying the log, and the calls that
only touch the queues between a node and Python."""
import logging

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from paxos._delivery cimport (
    ORDER_BASE, ORDER_CARRY, ORDER_CHAIN, ORDER_CHANGE, ORDER_DROP, ORDER_INSTALL, ORDER_LEASE, ORDER_LEAVE, ORDER_MAKING, ORDER_READ,
    ORDER_TRANSFER, REASONS, Status, clock_now, delivery_command, delivery_disk_full, delivery_leased, delivery_members,
    delivery_membership, delivery_order, delivery_poke, delivery_status,
)
from paxos._formation cimport STATE_FORMED, formation_init
from paxos._log cimport RecordRef
from paxos._membership cimport MEMBERSHIP_MAX, membership_read, membership_rows, membership_size, membership_write
from paxos._round cimport host_free, host_restore, host_restore_first, host_restored
from paxos._folder cimport Folder
from paxos._salvage cimport Salvage
from paxos._segments cimport LogStore
from paxos._state cimport TAIL, Group, Host
from paxos._store cimport index_chain
from paxos._tickets cimport tickets_admit, tickets_drain, tickets_submit
from paxos._types cimport ALPHA, CHUNK_WINDOW, MAX_MEMBERS, ChunkHead, Membership, Value, popcount, value_new, xzalloc

from paxos._distrust import distrusted, mark, set_aside
from paxos._scrub import SegmentScrub
from paxos.errors import ConfigError, DamagedLog, DiskFull, NodeClosed, StorageError

logger = logging.getLogger("paxos")

cdef tuple ROLES = ("follower", "asking", "preparing", "master")
cdef tuple REASON_NAMES = (
    "magic", "version", "length", "crc", "type", "body", "not_for_me", "other_cluster", "not_member",
    "other_incarnation", "other_config", "no_hello", "sender", "not_admitted", "direction", "group", "too_many", "piece",
)
if len(REASON_NAMES) != REASONS:
    raise ImportError("paxos: names and numbers of the reasons for refusing differ")

cdef enum:
    FRAME_ROOM = 1114112            # what a frame may hold beside its largest value: 1 MiB of others, and heads
    CARRY_MAX = 1110016             # bytes for another node's Python side; every node takes such a frame
    RECORD_ROOM = 65536             # what a segment holds beside its largest record


cdef int in_bounds(str name, object value, object low, object high) except -1:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
    return 0


cdef class Handle:
    """See _engine.pyi for what the methods say."""

    cdef int configure(self, object node_id, object nodes, object window, object batch_bytes, object batch_values,
                       object heartbeat_ns, object election_min_ns, object election_max_ns, object stuck_limit_ns,
                       object max_value, object segment_size, object max_pending, object max_pending_bytes, object log_budget,
                       object log_hold) except -1:
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
        in_bounds("log_budget", log_budget, 1, 1 << 62)
        in_bounds("log_hold", log_hold, 0, 1 << 62)
        h.budget = log_budget
        h.hold = log_hold
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
        h.options.priority = 1
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

    cdef int recover(self, object directory, object segment_size, bint direct, bint quarantine, uint64_t seed, uint64_t fresh_hi,
                     uint64_t fresh_lo) except -1:
        cdef Host *h = self.host
        folder = directory if isinstance(directory, Folder) else Folder(directory)
        try:
            self.open_log(folder, segment_size, direct)
            marked = distrusted(self.log.files())
            if marked is not None:
                raise DamagedLog(marked[1])
            self.replay(seed, fresh_hi, fresh_lo)
            return 0
        except DamagedLog as error:
            why = str(error)
            if self.log is not None:
                self.log.close()
                self.log = None
            h.store = NULL
            host_free(h)
            h.pruning = False
            h.formation_segment = 0
            if not quarantine or self.configured.count == 1:
                alone = "no other node has the data: restore a backup, or repair the disk" if self.configured.count == 1 else (
                    "with the option quarantine=True the log is set aside, and the node gets well from the others")
                raise DamagedLog(f"{why}. Nothing was changed on disk; {alone}") from error
        try:
            kept = self.put_aside(folder, why)
        except OSError as error:
            raise StorageError(f"{why}. The log could not be set aside: {error}") from error
        self.damage = why
        self.open_log(folder, segment_size, direct)
        self.replay(seed, fresh_hi, fresh_lo)
        if kept is not None:
            (<Salvage>kept).hand_over(h)
        return 0

    cdef object put_aside(self, Folder folder, str why):
        """Sets the damaged log aside; what can be kept of it, or None."""
        folder.open()
        try:
            segments = folder.segments()
            marked = distrusted(folder.files())
            self.quarantined = folder.quarantine(why)
            set_aside(folder.files())
            end = (1 << 64) - 1         # no instance comes so far, whatever a mark says
            return self.salvage(folder, segments, min(marked[0], end) if marked is not None else end)
        finally:
            folder.close()

    cdef object salvage(self, Folder folder, list segments, uint64_t below):
        """What can be kept of the log that was set aside; None: nothing. No error in here ends a start: what is not kept is fetched."""
        nothing = "nothing is kept of the log that was set aside, and all is fetched: %s"
        try:
            kept = Salvage(folder, segments, self.host.options.node, below)
        except Exception as error:
            logger.warning(nothing, f"{type(error).__name__}: {error}", exc_info=True)
            return None
        if kept.why:
            logger.warning(nothing, kept.why)
            return None
        return kept

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
        self.directory = self.log.directory
        self.segment_bytes = kept
        return 0

    cdef int replay(self, uint64_t seed, uint64_t fresh_hi, uint64_t fresh_lo) except -1:
        cdef Host *h = self.host
        cdef Group *g
        cdef size_t n
        h.store = self.log.store
        h.boot = self.log.boot
        h.delivery.oldest_segment = h.store.writer.oldest
        h.delivery.boot = self.log.boot
        h.delivery.inc_hi = self.log.incarnation_hi
        h.delivery.inc_lo = self.log.incarnation_lo
        h.seed = seed
        h.groups = <Group *>xzalloc(sizeof(Group))
        h.group_count = 1
        g = &h.groups[0]
        g.tail = <Value **>xzalloc(TAIL * sizeof(Value *))
        formation_init(&h.formation, h.options.node, self.log.incarnation_hi, self.log.incarnation_lo, h.boot, &self.configured,
                       fresh_hi, fresh_lo, self.log.lived())
        for n in range(self.log.record_count):
            self.restore_one(n, &self.log.records[n], 0)
        for n in range(self.log.record_count):      # the newest first
            self.restore_one(self.log.record_count - 1 - n, &self.log.records[self.log.record_count - 1 - n], 1)
        for n in range(self.log.record_count):
            self.restore_one(n, &self.log.records[n], 2)
        self.log.release_replay()
        host_restored(h)
        if h.formation.state == STATE_FORMED:
            self.configured = h.formation.members       # the log's ids count from here on
            delivery_members(&h.delivery, &h.formation.members)
        return 0

    cdef int restore_one(self, size_t n, const RecordRef *r, int go) except -1:
        cdef int bad
        if go == 2:
            bad = host_restore(self.host, r.type, r.group, r.instance, r.body, r.size, r.position)
        else:
            bad = host_restore_first(self.host, r.type, r.group, r.instance, r.body, r.size, r.position, go == 1)
        if bad:
            raise DamagedLog(
                f"the log in {self.log.directory} contradicts itself: the record at position {r.position} (type {r.type}, "
                f"instance {r.instance}) does not fit what came before")
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
        if delivery_disk_full(&self.host.delivery):
            raise DiskFull(f"the disk of {self.directory} is full: this node takes no proposals until there is room. Make some, or "
                           "propose at another node")
        return tickets_submit(&self.host.delivery, machine, values, deadline_ns)

    def admit(self):
        """Raises Overloaded where a proposal would be refused now, whatever is in it: before it is looked at, which is work."""
        tickets_admit(&self.host.delivery, clock_now(&self.host.delivery.clock))

    def drain(self, Py_ssize_t max_values):
        return tickets_drain(&self.host.delivery, max_values)

    # -- for catch-up and checkpoints

    def salvage_after(self, uint64_t instance):
        """Before start(): a checkpoint of everything below ``instance`` is going to be installed. What the log that was set aside
        has is wanted from there on."""
        if self.host.salvage != NULL:
            self.host.salvage.after = instance

    def found(self):
        """Before start(): what the log holds, as (formed, signature, first_kept, chosen)."""
        cdef Host *h = self.host
        cdef bint there = h.groups[0].replica != NULL
        return (h.formation.state == STATE_FORMED, f"{h.formation.sig_hi:016x}{h.formation.sig_lo:016x}",
                h.groups[0].replica.first_kept if there else 0, h.groups[0].replica.chosen if there else 0)

    @property
    def alone(self):
        """Whether the cluster has no other node."""
        return popcount(self.host.formation.members.present) == 1

    def log_used(self):
        """Bytes of the segments in use, as of the last round."""
        cdef Status s
        delivery_status(&self.host.delivery, &s)
        return s.segments * self.segment_bytes

    def files(self):
        """The files of the checkpoints beside this node's log."""
        return self.log.files()

    def base(self, uint64_t instance):
        """A checkpoint of everything below ``instance`` is durable here: the log below it may go."""
        if self.stopped:
            raise NodeClosed("this node has been closed")
        delivery_order(&self.host.delivery, ORDER_BASE, 0, instance, 0, NULL)

    def log_span(self):
        """(oldest segment, the one being written, up to which offset that is durable); older ones than the first may be gone."""
        cdef Status s
        delivery_status(&self.host.delivery, &s)
        return s.oldest, s.segment, s.segment_used

    def scrub(self, uint64_t segment):
        """Reads a segment of the log again, piece by piece."""
        return SegmentScrub(self.log._folder, segment, self.segment_bytes, self.host.options.node,
                            (self.log.incarnation_hi, self.log.incarnation_lo))

    def drop(self, uint64_t segment):
        """This segment is damaged on the disk: it, and those before it, go as soon as a checkpoint holds what is in them."""
        if not self.stopped:
            delivery_order(&self.host.delivery, ORDER_DROP, 0, segment, 0, NULL)

    def ask_chain(self, uint64_t instance):
        """The chain checksum behind an instance is wanted: it comes as an event, 0 where it is not known here."""
        if not self.stopped:
            delivery_order(&self.host.delivery, ORDER_CHAIN, 0, instance, 0, NULL)

    def ask_read(self, uint64_t token):
        """A read waits, under ``token`` (not 0), which takes the place of an older one: from which instance on it may be answered
        comes as an event, or never."""
        if not self.stopped:
            delivery_order(&self.host.delivery, ORDER_READ, 0, token, 0, NULL)

    def lease(self):
        """The chosen watermark, if this node holds the lease at this moment; else -1. On any thread."""
        return delivery_leased(&self.host.delivery)

    def transfer(self, uint32_t node):
        """The mastership is to go to a node; 0: to whom it suits best. What comes of it shows as events."""
        if self.stopped:
            raise NodeClosed("this node has been closed")
        delivery_order(&self.host.delivery, ORDER_TRANSFER, node, 0, 0, NULL)

    def set_lease(self, uint64_t lease_ns):
        """Leases are to last so long; 0: there are to be none. What comes of it shows as an event."""
        if self.stopped:
            raise NodeClosed("this node has been closed")
        delivery_order(&self.host.delivery, ORDER_LEASE, 0, lease_ns, 0, NULL)

    def part(self):
        """This node has no part any more in what the others decide: it gives the mastership up, and neither votes nor answers."""
        if not self.stopped:
            delivery_order(&self.host.delivery, ORDER_LEAVE, 0, 0, 0, NULL)

    def distrust(self, uint64_t first, str why not None):
        """Durably: the next start sets the log aside, and every checkpoint that holds instance ``first``. On any thread."""
        mark(self.log.files(), first, why)

    def making(self, bint on):
        """A checkpoint is being made, or is not any more. While one is, a master does not let the log outgrow its budget."""
        if not self.stopped:
            delivery_order(&self.host.delivery, ORDER_MAKING, 0, on, 0, NULL)

    def install(self, uint64_t instance, uint32_t chain, bytes membership not None):
        """A checkpoint that came from another node is durable here, and the state machines have it."""
        cdef Membership m
        cdef Value *value
        memset(&m, 0, sizeof(Membership))
        if self.stopped:
            raise NodeClosed("this node has been closed")
        if membership_read(&m, <const uint8_t *><const char *>membership, len(membership)) != 0:
            raise StorageError(f"the membership in the checkpoint of instance {instance} is malformed")
        value = value_new(0, 0, <uint32_t>len(membership))
        memcpy(value.data, <const char *>membership, len(membership))
        delivery_order(&self.host.delivery, ORDER_INSTALL, 0, instance, chain, value)

    def membership(self):
        """The present membership, as bytes for a checkpoint's manifest."""
        cdef Membership m
        cdef uint8_t out[MEMBERSHIP_MAX]
        delivery_membership(&self.host.delivery, &m)
        membership_write(&m, out)
        return (<const char *>out)[:membership_size(&m)]

    def change(self, bytes table not None):
        """A table of members, as it stands in a value that changes the membership, is to be chosen in place of the one whose version it
        names. Nothing comes of it where that is not the present one, or this node is not the master; else the membership changes."""
        cdef Membership m
        cdef Value *value
        memset(&m, 0, sizeof(Membership))
        if self.stopped:
            raise NodeClosed("this node has been closed")
        if membership_rows(&m, <const uint8_t *><const char *>table, len(table)) != 0:
            raise ConfigError("this is no table of members")
        value = value_new(0, 0, <uint32_t>len(table))
        memcpy(value.data, <const char *>table, len(table))
        delivery_order(&self.host.delivery, ORDER_CHANGE, 0, 0, 0, value)

    def send(self, uint32_t node, const uint8_t[::1] data not None):
        """Hands bytes to the Python side of another node, unless they are lost. False: too much is waiting already."""
        cdef Value *value
        cdef size_t size = data.shape[0]
        if self.stopped:
            raise NodeClosed("this node has been closed")
        if size > CARRY_MAX:
            raise ValueError(f"{size} bytes: at most {CARRY_MAX} are carried at once")
        value = value_new(0, 0, <uint32_t>size)
        if size:
            memcpy(value.data, &data[0], size)
        return bool(delivery_order(&self.host.delivery, ORDER_CARRY, node, 0, 0, value))

    def poke(self):
        """Has drain() called soon. On any thread."""
        delivery_poke(&self.host.delivery)

    def resign(self, bint may_lead):
        if self.stopped:
            raise NodeClosed("this node has been closed")
        delivery_command(&self.host.delivery, 1 if may_lead else 2, False)

    def status(self):
        cdef Status s
        cdef Membership m
        cdef Host *h = self.host
        cdef uint32_t i
        delivery_status(&h.delivery, &s)
        delivery_membership(&h.delivery, &m)
        return {
            "node_id": h.options.node, "boot": h.boot,
            "incarnation": f"{h.delivery.inc_hi:016x}{h.delivery.inc_lo:016x}",
            "signature": f"{s.sig_hi:016x}{s.sig_lo:016x}",
            "formed": bool(s.formed), "role": ROLES[s.role], "master_id": s.master, "master_round": s.master_round,
            "established": bool(s.established), "chosen": s.chosen, "heard_chosen": s.heard_chosen,
            "chain": s.chain, "delivered": s.delivered,
            "first_kept": s.first_kept, "log_segments": s.segments, "disk_full": bool(s.disk_full), "segment_bytes": self.segment_bytes, "outsider": bool(s.outsider), "votes": bool(s.votes), "replaced": bool(s.replaced),
            "disowned": [s.nodes[i] for i in range(s.members) if s.disowned >> i & 1],
            "membership_version": m.version, "mastership": (m.master, m.mastership), "lease_ns": m.lease,
            "commits": s.chosen_values, "log_mode": self.log_mode, "fsyncs": s.syncs, "log_writes": s.writes,
            "log_bytes": s.log_bytes, "log_records": s.log_records, "log_ns": s.log_time,
            "frames_sent": s.frames_sent, "frames_received": s.frames_received, "bytes_sent": s.bytes_sent,
            "bytes_received": s.bytes_received, "frames_dropped": s.frames_dropped,
            "frames_refused": {REASON_NAMES[i]: s.refused[i] for i in range(REASONS)},
            "core_refused": s.core_refused, "read_rounds": s.read_rounds, "rounds": s.rounds, "proposed_values": s.proposed_values,
            "elections": s.elections, "quarantined": self.quarantined, "damage": self.damage, "pending_chunks": h.delivery.pending_chunks,
            "pending_bytes": h.delivery.pending_bytes,
            "peers": {s.nodes[i]: bool(s.connected >> i & 1) for i in range(s.members) if s.nodes[i] not in (0, h.options.node)},
        }
