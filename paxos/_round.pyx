# cython: language_level=3
"""A round of a node: what came in, what is due, one log write, what it allowed. Without the GIL, without a socket or a clock.

The engine and the simulator call the same parts in this order, with frames and peers as they come before them:

    round_steps   takes what Python submitted; ticks; lets the replicas propose; sends
    round_writes  hands over to Python what it has, if the disk will be busy now
    round_write   only then the log, so that an Accept is on its way while the disk works; then what that allowed to leave
    round_end     hands over to Python, and to peers what they missed
    round_deadline   when the next round is due, if nothing comes before

What arrives during the write is the next round, hence the next write: group commit without a timer. Each decision is the
replica's or the formation's. What is decided here is order: effects are taken before the next step; a send that stands on
records waits until they are durable; Python gets each instance once, in order, from memory where it can be and from the
log where Python was behind.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from libc.string cimport memcpy, memset, strerror
from paxos._codec cimport crc32c
from paxos._core cimport (
    replica_arriving, replica_deadline, replica_lease, replica_durable, replica_free, replica_peer, replica_pump, replica_read,
    replica_receive, replica_resign, replica_restore_base, replica_seal, replica_tick,
    replica_transfer,
)
from paxos._delivery cimport (
    ALARM_DISK_FULL, ALARM_LOG_LOST, EVENT_CHAIN, ORDER_BASE, ORDER_CARRY, ORDER_CHAIN, ORDER_CHANGE, ORDER_DROP, ORDER_LEASE, ORDER_LEAVE, ORDER_MAKING, ORDER_READ, ORDER_TRANSFER, Event, Order,
    Status, Submission, clock_now, delivery_alarm, delivery_carry, delivery_event, delivery_lease, delivery_log, delivery_oldest, delivery_orders, delivery_ping,
    delivery_publish, delivery_room, delivery_take,
)
from paxos._effects cimport begin, expire, held_free, held_release, make_replica, members_changed, restore_record, submit, take
from paxos._formation cimport (
    HELLO_NEWER, REFUSE_NONE, REFUSE_OTHER_INCARNATION, STATE_EMPTY, STATE_FORMED, formation_admits, formation_durable, formation_free,
    formation_outside, formation_receive, formation_restore, formation_start, formation_tick,
)
from paxos._history cimport frame_head, history_behind, history_free, history_refill, history_serve
from paxos._mastership cimport mastership_best, mastership_lease
from paxos._members cimport members_change, members_heard, members_join, members_told
from paxos._membership cimport membership_read, votes
from paxos._prune cimport prune_base, prune_full, prune_install, prune_next, prune_rotates
from paxos._salvage cimport salvage_feed, salvage_free, salvage_waits
from paxos._state cimport PEER_BACKLOG, Group, Host, may_stand
from paxos._replica cimport ROLE_MASTER, Replica
from paxos._store cimport (
    STORE_NO_ROOM, highs_free, index_chain, index_free, store_flush, store_full,
    store_pending, store_recycle, store_rotate,
)
from paxos._types cimport (
    BLOCK, FRAME_ACCEPT, FRAME_CARRY, FRAME_FORWARD, FRAME_JOIN, FRAME_LEARN, FRAME_LEARNED, FRAME_MEMBERS, FRAME_PREVOTE, FRAME_PROMISE_VALUE,
    FRAME_READABLE, RECORD_BASE, RECORD_FORMATION, RECORD_FORMED, RECORD_IDENTITY,
    Accept, Carry, ChunkHead, Forward,
    Frame, Learned, Membership, PromiseValue,
    Value, ValueHead, bit, value_new, value_unref,
)
from paxos._unlogged cimport log_unlogged, unlogged_free

cdef enum:
    SECOND = 1000000000
    MILLISECOND = 1000000
    FORMATION_TICK = 100            # ms
    SEAL_AFTER = 100                # ms without a write
    STAYS = 500                     # ms that a master which is to stop waits at most for the next one
    PING_AFTER = 1                  # s without a drain(): Python is asked for a sign of life
    GAP = 3                         # s without a round: the thread itself was stopped, so nothing is Python's fault


# ---- what comes in ----

cdef bint fits_log(const Host *h, const Frame *frame) noexcept nogil:
    """Whether the log's segments hold every value of a frame. They may be smaller than those of a node that was given larger
    limits, and a record that fits no segment would end this process."""
    cdef size_t room = h.store.writer.segment_size - 4 * BLOCK
    cdef const uint8_t *data = <const uint8_t *>frame
    cdef size_t at = sizeof(Frame)
    cdef ValueHead head
    cdef ChunkHead chunk
    if frame.length <= room:
        return True
    if frame.type == FRAME_ACCEPT or frame.type == FRAME_PROMISE_VALUE:
        at += sizeof(Accept) if frame.type == FRAME_ACCEPT else sizeof(PromiseValue)
        memcpy(&head, data + at - sizeof(ValueHead), sizeof(ValueHead))
        return head.size <= room
    if frame.type == FRAME_LEARNED:
        at += sizeof(Learned)
        while at < frame.length:
            memcpy(&head, data + at, sizeof(ValueHead))
            if head.size > room:
                return False
            at += sizeof(ValueHead) + head.size
    elif frame.type == FRAME_FORWARD:
        at += sizeof(Forward)
        while at < frame.length:
            memcpy(&chunk, data + at, sizeof(ChunkHead))
            if sizeof(ChunkHead) + chunk.size > room:
                return False
            at += sizeof(ChunkHead) + chunk.size
    return True


cdef void carried(Host *h, const Frame *frame) noexcept nogil:
    """For Python. Dropped while it is behind: who wants an answer asks again."""
    cdef size_t before = sizeof(Frame) + sizeof(Carry)
    cdef Value *bytes
    if not delivery_room(&h.delivery):
        return
    bytes = value_new(0, 0, <uint32_t>(frame.length - before))
    memcpy(bytes.data, <const uint8_t *>frame + before, frame.length - before)
    delivery_carry(&h.delivery, frame.group, frame.sender, bytes)
    value_unref(bytes)


cdef int round_frame(Host *h, const Frame *frame) noexcept nogil:
    cdef Group *g
    if h.left and frame.type != FRAME_CARRY:
        return ROUND_TAKEN
    if frame.type == FRAME_MEMBERS:
        members_told(h, frame)
        return ROUND_TAKEN
    if frame.type < FRAME_PREVOTE:
        formation_receive(&h.formation, h.now, frame)
        take(h, &h.formation.out, NULL)
        if frame.type == FRAME_JOIN and frame.signature != 0 and formation_admits(&h.formation, frame):
            members_join(h, frame)
        return ROUND_TAKEN
    if h.formation.state != STATE_FORMED:
        return ROUND_TAKEN          # the others know already that the cluster is formed; the news is on its way here
    if not formation_admits(&h.formation, frame):
        return ROUND_NOT_ADMITTED
    if frame.group >= h.group_count:
        return ROUND_NO_GROUP
    if not fits_log(h, frame):
        return ROUND_TOO_LARGE
    g = &h.groups[frame.group]
    if frame.type == FRAME_CARRY:
        carried(h, frame)
        return ROUND_TAKEN
    if h.unlogged.count and frame.type != FRAME_LEARN and frame.type != FRAME_READABLE:
        return ROUND_TAKEN          # silent, as a node whose disk hangs: others must not count on it. What it has it still gives
    replica_receive(g.replica, h.now, frame)
    take(h, &g.replica.out, g)
    return ROUND_TAKEN


cdef void round_arriving(Host *h, const Frame *frame) noexcept nogil:
    if (formation_admits(&h.formation, frame) and frame.group < h.group_count
            and h.groups[frame.group].replica != NULL):
        replica_arriving(h.groups[frame.group].replica, h.now, frame)


cdef int round_hello(Host *h, const Frame *frame) noexcept nogil:
    cdef char text[256]
    cdef int reason = formation_receive(&h.formation, h.now, frame)
    take(h, &h.formation.out, NULL)
    if reason == HELLO_NEWER:
        return reason
    if reason == REFUSE_NONE and members_heard(h, frame):
        return REFUSE_OTHER_INCARNATION
    if h.formation.state == STATE_EMPTY and h.formation.met_formed and not h.met_formed:
        h.met_formed = h.formation.met_formed
        snprintf(text, sizeof(text), "this node has an empty data directory, and the others belong to a cluster that is formed: it "
                 "asks to be taken in as a new incarnation of node %u, and votes only when it has learned everything", h.options.node)
        delivery_alarm(&h.delivery, ALARM_LOG_LOST, 50, text)
    return reason


cdef void round_peer(Host *h, uint32_t index, bint up) noexcept nogil:
    cdef uint32_t k
    cdef Group *g
    for k in range(h.group_count):
        g = &h.groups[k]
        if g.replica != NULL:
            replica_peer(g.replica, h.now, index, up)
            take(h, &g.replica.out, g)


cdef void resign(Host *h, bint may_lead) noexcept nogil:
    cdef uint32_t i
    cdef Group *g
    for i in range(h.group_count):
        g = &h.groups[i]
        if g.replica != NULL:
            replica_resign(g.replica, h.now, may_lead)
            take(h, &g.replica.out, g)


cdef void watch_python(Host *h) noexcept nogil:
    """Is somebody there to take the chosen values? A master nobody listens to must make room (design row B14)."""
    cdef char text[256]
    cdef int64_t last = h.delivery.seen_drain
    if h.stuck_since:
        if not h.delivery.seen_signalled or last > h.stuck_since:
            h.stuck_since = 0
            delivery_log(&h.delivery, 30, "the Python side takes chosen values again")
            if may_stand(h):
                resign(h, True)
        return
    if not h.delivery.seen_signalled:
        if h.now - last >= PING_AFTER * <int64_t>SECOND:
            delivery_ping(&h.delivery)
        return
    if last < h.awake:
        last = h.awake
    if h.now - last < h.stuck_limit:
        return
    h.stuck_since = h.now
    snprintf(text, sizeof(text), "the Python side has taken nothing for %.1f s (stuck_limit): this node gives the mastership "
             "up, and stands for no election until it goes on", <double>(h.now - last) / SECOND)
    delivery_log(&h.delivery, 40, text)
    resign(h, False)


cdef void watch_disk(Host *h) noexcept nogil:
    """Is there room? Who cannot go on in a next segment must not be the one whom the others wait for. It votes and logs as long
    as what was made ahead lasts, and is silent behind that, until there is room."""
    cdef char text[768]
    cdef int error
    if h.unlogged.count:
        log_unlogged(h)
    error = store_full(h.store)
    if error and not h.disk_full:
        h.disk_full = True
        snprintf(text, sizeof(text), "the disk of %.400s has no room for another segment of %llu bytes (%s): this node gives the "
                 "mastership up and takes no proposals. It goes on by itself when there is room; until then it votes as long as the "
                 "segments it has last", h.store.where, <unsigned long long>h.store.writer.segment_size, strerror(error))
        delivery_alarm(&h.delivery, ALARM_DISK_FULL, 40, text)
        resign(h, False)
    elif h.disk_full and not error:
        h.disk_full = False
        h.pruning = True
        snprintf(text, sizeof(text), "the disk of %.400s has room again", h.store.where)
        delivery_log(&h.delivery, 40, text)
        if may_stand(h):
            resign(h, True)
    if h.unlogged.count and not h.silent:
        snprintf(text, sizeof(text), "the log in %.400s has no room for a record: until there is some, this node does not even vote",
                 h.store.where)
        delivery_alarm(&h.delivery, ALARM_DISK_FULL, 40, text)
    h.silent = h.unlogged.count > 0


# ---- the log ----

cdef void pump(Host *h) noexcept nogil:
    cdef uint32_t i
    cdef Group *g
    for i in range(h.group_count):
        g = &h.groups[i]
        if g.replica != NULL:
            g.replica.throttled = h.making and prune_full(h)
            replica_pump(g.replica, h.now)
            take(h, &g.replica.out, g)


cdef void flush(Host *h) noexcept nogil:
    """One durable write for everything logged, and the steps that were waiting for it."""
    cdef uint32_t i
    cdef Group *g
    cdef uint64_t oldest = prune_next(h)
    cdef int error
    if prune_rotates(h):
        error = store_rotate(h.store)
    elif oldest:
        delivery_oldest(&h.delivery, oldest + 1)
        error = store_recycle(h.store, oldest)
    else:
        error = store_flush(h.store)
    if error == STORE_NO_ROOM:
        h.pruning = False           # until there is room for the note that goes with it
        delivery_oldest(&h.delivery, h.store.writer.oldest)
        error = store_flush(h.store)
    if error:
        h.outside.fatal(h, "writing the log failed", error)
    h.now = clock_now(&h.delivery.clock)
    for i in range(h.group_count):
        g = &h.groups[i]
        if g.replica != NULL and g.appended > g.reported:
            g.reported = g.appended
            replica_durable(g.replica, h.now, g.reported)
            held_release(h, &g.held, g.replica.durable)
            take(h, &g.replica.out, g)
    # Last: it may bring the groups to life, and what they log then is not part of the write just made.
    if h.formation_appended > h.formation_reported:
        h.formation_reported = h.formation_appended
        formation_durable(&h.formation, h.now, h.formation_reported)
        held_release(h, &h.formation_held, h.formation_reported)
        take(h, &h.formation.out, NULL)


cdef void seal(Host *h) noexcept nogil:
    """The log has fallen idle, or is closed: a last write says that the one before it is durable (design rule 13)."""
    cdef uint32_t i
    cdef Group *g
    h.seal_due = 0
    for i in range(h.group_count):
        g = &h.groups[i]
        if g.replica != NULL and g.unsealed:
            replica_seal(g.replica)
            take(h, &g.replica.out, g)
            g.unsealed = False      # what is logged from now on, be it by the steps behind this write, wants a seal of its own
    h.sealing = store_pending(h.store)


cdef bint round_writes(Host *h) noexcept nogil:
    cdef Status status
    # Where nothing else is due, a write of its own says where the log begins.
    if not store_pending(h.store) and not prune_next(h) and not prune_rotates(h):
        return False
    if h.delivery.fresh_count:
        # Python works while the disk does. The status goes along: it must never be older than the events.
        fill_status(h, &status)
        delivery_publish(&h.delivery, &status, False)
    return True


cdef void round_write(Host *h) noexcept nogil:
    flush(h)
    if h.sealing:
        h.sealing = False
    else:
        h.seal_due = h.now + SEAL_AFTER * <int64_t>MILLISECOND
    pump(h)
    h.link.flush(h.link.context, h.now)


# ---- the round ----

cdef void fill_status(Host *h, Status *s) noexcept nogil:
    cdef Group *g = &h.groups[0]
    cdef uint32_t i
    memset(s, 0, sizeof(Status))
    s.formed = h.formation.state == STATE_FORMED
    s.sig_hi = h.formation.sig_hi
    s.sig_lo = h.formation.sig_lo
    s.delivered = g.cursor
    if g.replica != NULL:
        s.role = g.replica.role
        s.master = g.replica.master
        s.master_round = g.replica.master_ballot.round
        s.established = g.replica.master_settled
        s.chosen = g.replica.chosen
        s.heard_chosen = max(g.replica.heard_chosen, g.replica.chosen)
        s.chain = g.replica.chain
        s.chosen_values = g.replica.counters.chosen_values
        s.rounds = g.replica.counters.rounds
        s.proposed_values = g.replica.counters.proposed_values
        s.elections = g.replica.counters.elections
        s.core_refused = g.replica.counters.refused_frames
        s.read_rounds = g.replica.counters.read_rounds
        s.first_kept = g.replica.first_kept
        s.outsider = g.replica.outsider
        s.votes = votes(g.replica)
        s.replaced = g.replica.outsider and g.replica.was_member
    s.syncs = h.store.syncs
    s.writes = h.store.writes
    s.log_bytes = h.store.bytes
    s.log_records = h.store.records
    s.log_time = h.store.time
    s.segments = h.store.writer.segment - h.store.writer.oldest + 1
    s.segment = h.store.writer.segment
    s.segment_used = h.store.writer.offset
    s.disk_full = h.disk_full
    s.members = h.formation.members.count         # (a node 0 is none)
    for i in range(s.members):
        s.nodes[i] = h.formation.members.members[i].node
    s.connected = h.link.connected(h.link.context)
    h.link.report(h.link.context, s)


cdef void round_begin(Host *h, int64_t now) noexcept nogil:
    if now - h.now > GAP * <int64_t>SECOND:
        h.awake = now
    h.now = now


cdef void carry(Host *h, uint32_t node, Value *bytes) noexcept nogil:
    cdef uint8_t out[72]
    cdef Frame f
    cdef uint32_t i
    cdef int64_t waiting
    frame_head(h, &f, FRAME_CARRY, sizeof(out) + bytes.size)
    memset(out, 0, sizeof(out))
    memcpy(out, &f, sizeof(Frame))
    f.crc = crc32c(crc32c(0, out + 12, sizeof(out) - 12), bytes.data, bytes.size)
    memcpy(out, &f, sizeof(Frame))
    for i in range(h.formation.members.count):
        waiting = h.link.waiting(h.link.context, i)
        if h.formation.members.members[i].node == node and 0 <= waiting <= PEER_BACKLOG:
            h.link.send(h.link.context, bit(i), out, sizeof(out), bytes)


cdef void tell_chain(Host *h, Group *g, uint64_t instance) noexcept nogil:
    cdef Event *event = delivery_event(&h.delivery, EVENT_CHAIN, g.id)
    event.instance = instance
    if g.replica != NULL and instance < g.replica.chosen:
        event.a = index_chain(&g.index, instance)


cdef void obey(Host *h) noexcept nogil:
    """What Python's side of catch-up and checkpoints has ordered."""
    cdef Order *orders = NULL
    cdef Order *o
    cdef Membership members
    cdef Group *g = &h.groups[0]
    cdef size_t n
    for n in range(delivery_orders(&h.delivery, &orders)):
        o = &orders[n]
        if o.type == ORDER_CARRY:
            if h.formation.state == STATE_FORMED:
                carry(h, o.node, o.value)
        elif o.type == ORDER_MAKING:
            h.making = o.instance != 0
        elif o.type == ORDER_BASE:
            prune_base(h, g, o.instance)
        elif o.type == ORDER_DROP:
            h.drop = max(h.drop, o.instance)
        elif o.type == ORDER_CHAIN:
            tell_chain(h, g, o.instance)
        elif o.type == ORDER_LEAVE:
            h.may_lead = False
            resign(h, False)
            h.link.flush(h.link.context, h.now)
            h.left = True
        elif o.type == ORDER_READ:
            # (Before the cluster is formed nothing can be confirmed: the read waits for its time to be up.)
            if g.replica != NULL:
                replica_read(g.replica, h.now, o.instance)
        elif o.type == ORDER_TRANSFER:
            # (Where it cannot begin, nothing changes, and who waits for it hears so when his time is up.)
            if g.replica != NULL:
                replica_transfer(g.replica, h.now, o.node)
        elif o.type == ORDER_LEASE:
            if g.replica != NULL:
                replica_lease(g.replica, h.now, o.instance)
        elif o.type == ORDER_CHANGE:
            # (The same: who wants it looks at what comes about.)
            members_change(h, g, o.value)
        elif g.replica != NULL:
            members = g.replica.members
            if membership_read(&members, o.value.data, o.value.size) == 0:      # (Python has checked it)
                prune_install(h, g, o.instance, o.chain, &members)
        value_unref(o.value)


cdef void stopping(Host *h) noexcept nogil:
    """A master hands over first, to whom it suits best, so that nobody has to find out that it is gone. It stays until the other
    one leads, to vote for it, and a little longer, to refuse what was on its way here: else nobody would know what became of that."""
    cdef uint32_t i
    cdef const Replica *r
    h.stop_at = h.now
    for i in range(h.group_count):
        r = h.groups[i].replica
        if r != NULL and r.role == ROLE_MASTER and r.master_settled and mastership_best(r) >= 0:
            h.stop_at = h.now + min(h.options.election_min, STAYS * <int64_t>MILLISECOND)
    h.may_lead = False
    resign(h, False)


cdef bint stopped(Host *h) noexcept nogil:
    cdef const Replica *r = h.groups[0].replica
    if not h.succeeded and r != NULL and r.master != 0 and r.master != h.options.node and r.master_settled:
        h.succeeded = True
        h.stop_at = min(h.stop_at, h.now + h.options.heartbeat)
    return h.now >= h.stop_at


cdef bint round_steps(Host *h) noexcept nogil:
    cdef Submission *taken = NULL
    cdef Group *g
    cdef int command = 0
    cdef bint stop = False
    cdef size_t n, submitted
    cdef uint32_t k
    submitted = delivery_take(&h.delivery, &taken, &command, &stop)
    if h.delivery.seen_orders:
        obey(h)
    for n in range(submitted):
        submit(h, &taken[n])
    if stop and h.stop_at == 0:
        stopping(h)
    if h.stop_at != 0 and stopped(h):
        h.link.flush(h.link.context, h.now)
        if h.seal_due:
            seal(h)
            if store_pending(h.store):
                round_write(h)
        return True
    if command and h.stop_at == 0:
        h.may_lead = command == 1
        resign(h, may_stand(h))
    watch_python(h)
    watch_disk(h)
    expire(h)
    if (h.formation.state != STATE_FORMED or formation_outside(&h.formation)) and h.now >= h.formation_due:
        h.formation_due = h.now + FORMATION_TICK * <int64_t>MILLISECOND
        formation_tick(&h.formation, h.now)
        take(h, &h.formation.out, NULL)
    for k in range(h.group_count):
        g = &h.groups[k]
        if g.replica != NULL and h.now >= replica_deadline(g.replica):
            replica_tick(g.replica, h.now)
            take(h, &g.replica.out, g)
    salvage_feed(h)
    pump(h)
    h.link.flush(h.link.context, h.now)
    if h.seal_due != 0 and h.now >= h.seal_due and not store_pending(h.store):
        seal(h)
    return False


cdef void round_end(Host *h) noexcept nogil:
    cdef Status status
    cdef Group *g
    cdef bint blocked = False
    cdef uint32_t k, member
    for k in range(h.group_count):
        g = &h.groups[k]
        if g.replica == NULL:
            continue
        if g.cursor < g.replica.chosen:
            history_refill(h, g)
            if g.cursor < g.replica.chosen:
                blocked = True
        for member in range(h.formation.members.count):
            if g.reads[member].active and history_serve(h, g, member):
                h.link.flush(h.link.context, h.now)
                break               # one frame a round: what serves the living must not wait for it
    g = &h.groups[0]
    if g.replica != NULL and g.replica.members.lease:
        delivery_lease(&h.delivery, g.replica.chosen, mastership_lease(g.replica))      # it lasts longer now, perhaps
    fill_status(h, &status)
    delivery_publish(&h.delivery, &status, blocked)


cdef int64_t round_deadline(Host *h) noexcept nogil:
    cdef int64_t when = h.now + PING_AFTER * <int64_t>SECOND
    cdef int64_t waiting
    cdef uint32_t i, k
    cdef size_t n
    cdef Group *g
    if store_pending(h.store):
        return h.now
    if h.formation.state != STATE_FORMED or formation_outside(&h.formation):
        when = min(when, h.formation_due)
    if salvage_waits(h) or (h.pruning or prune_rotates(h)) and h.unlogged.count == 0:
        return h.now
    if h.seal_due:
        when = min(when, h.seal_due)
    if h.stop_at:
        when = min(when, h.stop_at)
    for n in range(h.waiting_count):
        when = min(when, h.waiting[n].deadline)
    for i in range(h.group_count):
        g = &h.groups[i]
        if g.replica == NULL:
            continue
        when = min(when, replica_deadline(g.replica))
        if history_behind(g) and delivery_room(&h.delivery):
            return h.now
        for k in range(h.formation.members.count):
            if g.reads[k].active:
                waiting = h.link.waiting(h.link.context, k)
                if waiting <= PEER_BACKLOG:
                    return h.now
    return when


# ---- start and end ----

cdef int host_restore_first(Host *h, uint8_t type, uint32_t group, uint64_t instance, const uint8_t *body, uint32_t size,
                            uint64_t position, bint newest) noexcept nogil:
    """The formation, wherever it stands; and then (`newest`) the newest RECORD_BASE of a group."""
    cdef Group *g
    cdef uint64_t segment = position / h.store.writer.segment_size
    if not newest:
        if type != RECORD_FORMATION and type != RECORD_FORMED:
            return 0
        if type == RECORD_FORMED and h.formation.state == STATE_EMPTY and h.store.writer.oldest > 1:
            return 0                # its FORMATION was the last record of a segment that is gone; both stand further on again
        h.formation_segment = segment
        return formation_restore(&h.formation, type, body, size)
    if type != RECORD_BASE:
        return 0
    if group >= h.group_count or h.formation.state != STATE_FORMED:
        return -1
    g = &h.groups[group]
    if g.replica != NULL:
        return 0
    make_replica(h, g)
    g.base_segment = segment
    h.pruning = True                # what a crash left undone
    return replica_restore_base(g.replica, instance, body, size)


cdef int host_restore(Host *h, uint8_t type, uint32_t group, uint64_t instance, const uint8_t *body, uint32_t size,
                      uint64_t position) noexcept nogil:
    cdef Group *g
    if type == RECORD_IDENTITY:
        return 0                    # the log's own; it has checked it
    if type == RECORD_FORMATION or type == RECORD_FORMED:
        return 0                    # host_restore_first has been there
    if group >= h.group_count or h.formation.state != STATE_FORMED:
        return -1
    g = &h.groups[group]
    if g.replica == NULL:
        make_replica(h, g)
    return restore_record(g, type, instance, body, size, position, position / h.store.writer.segment_size)


cdef void host_restored(Host *h) noexcept nogil:
    cdef uint32_t i
    if h.formation.state != STATE_FORMED:
        return
    for i in range(h.group_count):
        if h.groups[i].replica == NULL:
            make_replica(h, &h.groups[i])
        members_changed(h, &h.groups[i])


cdef void round_start(Host *h, int64_t now) noexcept nogil:
    cdef uint32_t k
    h.now = now
    h.awake = now
    h.formation_due = now + FORMATION_TICK * <int64_t>MILLISECOND
    h.delivery.seen_drain = now
    h.seal_due = now + SEAL_AFTER * <int64_t>MILLISECOND       # this start's own records, if nothing follows
    formation_start(&h.formation, now)
    take(h, &h.formation.out, NULL)
    for k in range(h.group_count):
        if h.groups[k].replica != NULL:
            h.groups[k].unsealed = True
            begin(h, &h.groups[k])


cdef void host_free(Host *h) noexcept nogil:
    cdef uint32_t i
    cdef size_t n
    cdef Group *g
    for i in range(h.group_count):
        g = &h.groups[i]
        history_free(g)
        held_free(&g.held)
        index_free(&g.index)
        highs_free(&g.highs)
        if g.replica != NULL:
            replica_free(g.replica)
    free(h.groups)
    h.groups = NULL
    h.group_count = 0
    unlogged_free(h)
    salvage_free(h)
    held_free(&h.formation_held)
    formation_free(&h.formation)
    for n in range(h.waiting_count):
        value_unref(h.waiting[n].chunk)
    free(h.waiting)
    h.waiting = NULL
    h.waiting_count = 0
    free(h.scratch)
    h.scratch = NULL
