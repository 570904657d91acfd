# cython: language_level=3
"""The replica of one group, stepped by hand: for tests, and for tools that judge a log by it. The engine calls the same functions
from C."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from paxos._codec cimport FRAME_OK, frame_check, out_clear
from paxos._core cimport (
    replica_arriving, replica_base, replica_change, replica_deadline, replica_durable, replica_free, replica_install, replica_new, replica_peer,
    replica_lease, replica_members, replica_pump, replica_read, replica_receive, replica_replace, replica_resign, replica_restore, replica_restore_base,
    replica_seal, replica_start, replica_submit, replica_tick, replica_transfer,
)
from paxos._mastership cimport mastership_lease
from paxos._membership cimport (
    MEMBERSHIP_MAX, membership_derive, membership_first, membership_read, membership_size, membership_write, votes,
)
from paxos._replica cimport Options, Replica, Slot, frame_begin, frame_end, slot_of
from paxos._types cimport (
    ALPHA, Ballot, ChunkHead, EFFECT_BEHIND, EFFECT_CHOSEN, EFFECT_DIVERGED, EFFECT_FORMED, EFFECT_INSTALLED, EFFECT_LOG,
    EFFECT_MASTER, EFFECT_MASTERSHIP, EFFECT_MEMBERSHIP, EFFECT_READ, EFFECT_READABLE, EFFECT_SEND, EFFECT_SETTLED, Effect, FRAME_LEARNED, Frame,
    Learned, MAX_MEMBERS, Membership, Outbox, PromiseValue, RING, VALUE_BATCH, Value, ValueHead, life_of, value_new,
)


cdef tuple _ballot(const Ballot *b):
    return (b.round, b.node, b.inc_hi, b.inc_lo)


cdef list _effects(Outbox *out):
    """The effects of a step as tuples, and an empty box. Bodies are copied."""
    cdef Effect *e
    cdef size_t i
    cdef bytes body
    cdef list result = []
    for i in range(out.count):
        e = &out.effects[i]
        body = (<const char *>(out.arena + e.head))[:e.head_size] if e.head_size else b""
        if e.value != NULL:
            body += (<const char *>e.value.data)[:e.value.size]
        if e.type == EFFECT_SEND:
            if e.peers:
                result.append(("send", e.peers, e.after, body))
        elif e.type == EFFECT_LOG:
            result.append(("log", e.after, e.code, e.instance, body))
        elif e.type == EFFECT_CHOSEN:
            result.append(("chosen", e.instance, e.value.kind, e.value.count, body))
        elif e.type == EFFECT_READ:
            result.append(("read", e.peers, e.instance, e.end, e.after))
        elif e.type == EFFECT_SETTLED:
            result.append(("settled", e.instance, e.code))
        elif e.type == EFFECT_MASTER:
            result.append(("master", e.code, e.instance, bool(e.end)))
        elif e.type == EFFECT_DIVERGED:
            result.append(("diverged", e.instance, e.code))
        elif e.type == EFFECT_FORMED:
            result.append(("formed",))
        elif e.type == EFFECT_MEMBERSHIP:
            result.append(("membership", e.code, e.instance))
        elif e.type == EFFECT_BEHIND:
            result.append(("behind", e.instance, e.code))
        elif e.type == EFFECT_MASTERSHIP:
            result.append(("mastership", e.code, e.instance, e.end))
        elif e.type == EFFECT_READABLE:
            result.append(("readable", e.instance, e.after))
        elif e.type == EFFECT_INSTALLED:
            result.append(("installed", e.instance, e.after))
        else:
            raise AssertionError(f"unknown effect {e.type}")
    out_clear(out)
    return result


cdef int _membership(Membership *m, object members) except -1:
    cdef uint32_t i
    rows = sorted(members)
    if not 0 < len(rows) <= MAX_MEMBERS or len({row[0] for row in rows}) != len(rows):
        raise ValueError(f"a group has 1 to {MAX_MEMBERS} members with different ids, not {members!r}")
    memset(m, 0, sizeof(Membership))
    m.count = <uint32_t>len(rows)
    for i in range(m.count):
        m.members[i].node, m.members[i].inc_hi, m.members[i].inc_lo = rows[i][:3]
        if len(rows[i]) > 3:
            m.members[i].role = rows[i][3]
    membership_first(m)
    return 0


def encode_chunk(uint32_t origin, uint32_t boot, uint64_t seq, values, uint32_t machine=0, uint32_t life=0):
    """The bytes of a chunk: a header and each value behind its length."""
    cdef ChunkHead head
    body = b"".join([len(v).to_bytes(4, "little") + v for v in values])
    memset(&head, 0, sizeof(ChunkHead))
    head.size = <uint32_t>len(body)
    head.count = <uint32_t>len(values)
    head.origin = origin
    head.boot = boot
    head.seq = seq
    head.machine = machine
    head.life = life
    return (<const char *>&head)[:sizeof(ChunkHead)] + body


def encode_learned(Core core not None, uint64_t first, list values):
    """A LEARNED frame with chosen values [(kind, count, bytes), ...] from instance `first` on: what a host answers to
    a "read" effect."""
    cdef Learned *body
    cdef Replica *r = core.replica
    cdef ValueHead head
    cdef bytearray rest = bytearray()
    for kind, count, data in values:
        head.size, head.count, head.kind, head.zero = len(data), count, kind, 0
        rest += (<const char *>&head)[:sizeof(ValueHead)]
        rest += data
    body = <Learned *>frame_begin(r, FRAME_LEARNED, 0, 0, sizeof(Learned) + len(rest))
    body.first = first
    body.count = <uint32_t>len(values)
    memcpy(<uint8_t *>body + sizeof(Learned), <const char *>rest, len(rest))
    frame_end(r, NULL)
    e = &r.out.effects[r.out.count - 1]
    frame = (<const char *>(r.out.arena + e.head))[:e.head_size]
    r.out.count -= 1
    return frame


cdef class Core:
    """One group's replica, stepped by hand; ``incarnation`` (high, low) where it is not the member's; ``members`` as rows, or a membership
    as bytes. Every step returns its effects, in order, as tuples:

    ``("send", peers, after, frame)``, ``("log", number, type, instance, body)``, ``("chosen", instance, kind, count, value)``,
    ``("read", peers, first, end, max_bytes)``, ``("settled", seq, code)``, ``("master", node, round, settled)``,
    ``("diverged", instance, node)``, ``("membership", member, since)``, ``("behind", first_kept, node)``,
    ``("installed", instance, chain)``, ``("readable", instance, token)``, ``("mastership", node, version, lease)``. ``peers`` is a bit mask over the members sorted by id; a frame may leave once record
    number ``after`` is durable. Times are integers in nanoseconds. Not thread-safe.
    """
    cdef Replica *replica

    def __cinit__(self, uint32_t node, members, *, uint32_t group=0, uint64_t signature=1, uint32_t boot=1, uint64_t seed=1,
                  uint32_t window=8, uint32_t batch_bytes=1 << 20, uint32_t batch_values=4096,
                  int64_t heartbeat=50_000_000, int64_t election_min=300_000_000, int64_t election_max=600_000_000,
                  int64_t resend=100_000_000, uint64_t queue_bytes=1 << 27, uint32_t priority=1, incarnation=None, follow=()):
        cdef Options options
        cdef Membership m
        cdef uint32_t i
        cdef int found = -1
        if isinstance(members, bytes):
            memset(&m, 0, sizeof(Membership))
            if membership_read(&m, <const uint8_t *><const char *>members, len(members)) != 0:
                raise ValueError("these bytes are no membership")
        else:
            _membership(&m, members)
        for i in range(m.count):
            if m.members[i].node == node:
                found = <int>i
        if found < 0:
            raise ValueError(f"node {node} is none of the members {members!r}")
        if not 0 < window <= ALPHA:
            raise ValueError(f"window {window}: from 1 to {ALPHA} instances may be in flight")
        memset(&options, 0, sizeof(Options))
        options.group, options.node, options.window = group, node, window
        options.batch_bytes, options.batch_values, options.queue_bytes = batch_bytes, batch_values, queue_bytes
        options.heartbeat, options.election_min, options.election_max = heartbeat, election_min, election_max
        options.resend = resend
        options.priority = priority
        for node_id in follow:
            options.follow[options.follow_count] = node_id
            options.follow_count += 1
        hi, lo = (m.members[found].inc_hi, m.members[found].inc_lo) if incarnation is None else incarnation
        self.replica = replica_new(&options, &m, signature, hi, lo, boot, seed)

    def __dealloc__(self):
        replica_free(self.replica)

    def restore(self, uint8_t type, uint64_t instance, bytes body not None):
        """Feeds a record found in the log. False: it contradicts what came before, that is, the log is damaged."""
        cdef int result = replica_restore(self.replica, type, instance, <const uint8_t *><const char *>body, <uint32_t>len(body))
        out_clear(&self.replica.out)        # what it recognises as chosen; the host has it in the log already
        return result == 0

    def restore_base(self, uint64_t first, bytes body not None):
        """Feeds the newest RECORD_BASE of the log, before any other record. False: it is malformed."""
        return replica_restore_base(self.replica, first, <const uint8_t *><const char *>body, <uint32_t>len(body)) == 0

    def start(self, int64_t now):
        replica_start(self.replica, now)
        return _effects(&self.replica.out)

    def receive(self, int64_t now, bytes frame not None):
        """A frame from the network. Bytes that are no valid frame raise ValueError and change nothing."""
        cdef size_t need = 0
        cdef const uint8_t *data = <const uint8_t *><const char *>frame
        cdef int code = frame_check(data, len(frame), 0xFFFFFFFF, &need)
        if code != FRAME_OK or need != <size_t>len(frame):
            raise ValueError(f"not one whole valid frame: check says {code}")
        replica_receive(self.replica, now, <const Frame *>data)
        return _effects(&self.replica.out)

    def arriving(self, int64_t now, bytes frame not None):
        """The first bytes of a large frame, of which the rest is on its way: at least its head and the fixed part of its body."""
        if len(frame) < sizeof(Frame) + sizeof(PromiseValue):
            raise ValueError(f"{len(frame)} bytes may not hold the fixed part of a frame")
        replica_arriving(self.replica, now, <const Frame *><const char *>frame)

    def submit(self, int64_t now, uint64_t seq, values, int64_t deadline, uint32_t machine=0):
        """A proposal of this node. ``seq`` counts up from 1 without a gap."""
        cdef bytes chunk = encode_chunk(self.replica.options.node, self.replica.boot, seq, values, machine,
                                        life_of(self.replica.inc_lo))
        cdef Value *value
        if seq != self.replica.pending_end:
            raise ValueError(f"seq {seq} is not the next one, {self.replica.pending_end}")
        value = value_new(VALUE_BATCH, <uint32_t>len(values), <uint32_t>len(chunk))
        memcpy(value.data, <const char *>chunk, len(chunk))
        replica_submit(self.replica, now, seq, value, deadline)
        return _effects(&self.replica.out)

    def pump(self, int64_t now):
        replica_pump(self.replica, now)
        return _effects(&self.replica.out)

    def read(self, int64_t now, uint64_t token):
        """A read of this node waits, under a number of its own, not 0; the next pump sends for it."""
        if token == 0:
            raise ValueError("the token of a read is not 0")
        replica_read(self.replica, now, token)
        return _effects(&self.replica.out)

    def durable(self, int64_t now, uint64_t logged):
        replica_durable(self.replica, now, logged)
        return _effects(&self.replica.out)

    def tick(self, int64_t now):
        replica_tick(self.replica, now)
        return _effects(&self.replica.out)

    def deadline(self):
        return replica_deadline(self.replica)

    def peer(self, int64_t now, uint32_t index, bint up):
        replica_peer(self.replica, now, index, up)
        return _effects(&self.replica.out)

    def transfer(self, int64_t now, uint32_t node=0):
        """Hands the mastership over; (whether it begins to, effects)."""
        begun = replica_transfer(self.replica, now, node)
        return bool(begun), _effects(&self.replica.out)

    def lease(self, int64_t now, uint64_t lease):
        """Has the length of leases chosen; (whether this node is the master, effects)."""
        begun = replica_lease(self.replica, now, lease)
        return bool(begun), _effects(&self.replica.out)

    def resign(self, int64_t now, bint may_lead):
        replica_resign(self.replica, now, may_lead)
        return _effects(&self.replica.out)

    def replace(self, int64_t now, uint32_t node, incarnation):
        """Another incarnation (high, low) asks for the place of a member."""
        replica_replace(self.replica, now, node, incarnation[0], incarnation[1])
        return _effects(&self.replica.out)

    def change(self, int64_t now, table, version=None):
        """A table is to be chosen: rows (node, incarnation high, low, role[, instead[, address]]) in the order of their places. (Whether
        this node can have that done, effects)."""
        cdef Membership m = self.replica.members
        cdef uint32_t i
        memset(m.members, 0, sizeof(m.members))
        memset(m.instead, 0, sizeof(m.instead))
        m.count = <uint32_t>len(table)
        if version is not None:
            m.version = version
        for i in range(m.count):
            m.members[i].node, m.members[i].inc_hi, m.members[i].inc_lo, m.members[i].role = table[i][:4]
            m.instead[i] = table[i][4] if len(table[i]) > 4 else 0
            if m.members[i].node == 0:
                m.since[i] = 0
            if len(table[i]) > 5:
                address = table[i][5].encode()
                memset(m.address[i], 0, sizeof(m.address[i]))
                memcpy(m.address[i], <const char *>address, len(address))
        membership_derive(&m)
        done = replica_change(self.replica, now, &m)
        return bool(done), _effects(&self.replica.out)

    def membership(self):
        """The present one, as bytes."""
        cdef uint8_t out[MEMBERSHIP_MAX]
        membership_write(&self.replica.members, out)
        return (<const char *>out)[:membership_size(&self.replica.members)]

    def told(self, int64_t now, bytes membership not None):
        """Somebody who knows more says who the members are."""
        cdef Membership m
        memset(&m, 0, sizeof(Membership))
        if membership_read(&m, <const uint8_t *><const char *>membership, len(membership)) != 0:
            raise ValueError("this is no membership")
        replica_members(self.replica, now, &m)
        return _effects(&self.replica.out)

    def base(self, int64_t now, uint64_t first, uint32_t chain):
        """The log is to begin at instance ``first``, behind which the chain checksum is ``chain``."""
        replica_base(self.replica, now, first, chain)
        return _effects(&self.replica.out)

    def install(self, int64_t now, uint64_t instance, uint32_t chain, members=None, uint32_t version=0, mastership=None,
                uint64_t as_of=0):
        """A checkpoint of everything below ``instance``; its membership, and what it says of the mastership (master, version,
        lease, instances that it counts), if it is not the present one."""
        cdef Membership m = self.replica.members
        if members is not None:
            _membership(&m, [row[:3] for row in members])
            m.version = version
            m.as_of = as_of
            m.in_force = max([row[3] for row in members])
            for i, row in enumerate(sorted(members)):
                m.since[i] = row[3]
        if mastership is not None:
            m.master, m.mastership, m.lease, m.mastered = mastership
        replica_install(self.replica, now, instance, chain, &m)
        return _effects(&self.replica.out)

    def seal(self):
        replica_seal(self.replica)
        return _effects(&self.replica.out)

    def state(self):
        """What the replica knows, as a dict of plain values (for judges and golden scripts)."""
        cdef Replica *r = self.replica
        cdef uint64_t i
        cdef Slot *s
        accepted = []
        for i in range(r.chosen, r.chosen + RING):
            s = slot_of(r, i)
            if s != NULL and s.ballot.round != 0:
                accepted.append((i, _ballot(&s.ballot), (<const char *>s.value.data)[:s.value.size]))
        return {
            "role": ("follower", "asking", "preparing", "master")[r.role], "master": r.master, "settled": bool(r.master_settled),
            "promised": _ballot(&r.promised), "ballot": _ballot(&r.ballot), "chosen": r.chosen, "chain": r.chain,
            "accepted": accepted, "next": r.next_instance, "logged": r.logged, "durable": r.durable,
            "queued": r.queue_values, "rounds": r.counters.rounds, "proposed": r.counters.proposed_values,
            "first_kept": r.first_kept, "outsider": bool(r.outsider), "version": r.members.version,
            "members": [(r.members.members[i].node, r.members.members[i].inc_hi, r.members.members[i].inc_lo, r.members.since[i])
                        for i in range(r.members.count)],
            "roles": [r.members.members[i].role for i in range(r.members.count)], "in_force": r.members.in_force,
            "votes": bool(votes(r)), "extending": bool(r.extending), "attempt": r.attempt,
            "mastership": (r.members.master, r.members.mastership, r.members.lease), "lease_until": mastership_lease(r),
            "elections": r.counters.elections, "refused": r.counters.refused_frames, "chosen_values": r.counters.chosen_values,
        }
