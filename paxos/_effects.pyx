# cython: language_level=3
"""Effects are taken before the next step, in order. A send that stands on records that are not durable yet is held until
they are; a record goes to the log (_unlogged)."""
cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset
from paxos._codec cimport out_clear
from paxos._core cimport replica_new, replica_peer, replica_resign, replica_restore, replica_start, replica_submit
from paxos._delivery cimport (
    EVENT_BEHIND, EVENT_DIVERGED, EVENT_FORMED, EVENT_MASTER, EVENT_MASTERSHIP, EVENT_MEMBERSHIP, EVENT_READABLE, EVENT_SETTLED, Event, Submission, delivery_event, delivery_lease, delivery_members, delivery_token,
    delivery_wire,
)
from paxos._history cimport history_chosen
from paxos._mastership cimport mastership_lease
from paxos._state cimport HeldSend, ReadJob, may_stand
from paxos._store cimport highs_note, index_set, index_set_chain
from paxos._types cimport (
    EFFECT_BEHIND, EFFECT_CHOSEN, EFFECT_DIVERGED, EFFECT_FORMED, EFFECT_LOG, EFFECT_MASTER, EFFECT_MASTERSHIP,
    EFFECT_MEMBERSHIP, EFFECT_READ, EFFECT_READABLE, EFFECT_SEND, EFFECT_SETTLED, SETTLE_NOT_AVAILABLE, ChunkHead, Effect,
    Outbox, bit, value_ref, value_unref, xrealloc, RECORD_ACCEPT, RECORD_LEARN,
)
from paxos._unlogged cimport log_record


# ---- sends that wait ----

cdef void hold(HeldQueue *q, const Effect *e, const uint8_t *head) noexcept nogil:
    cdef HeldSend *s
    if q.count == q.capacity:
        q.capacity = q.capacity * 2 if q.capacity else 64
        q.items = <HeldSend *>xrealloc(q.items, q.capacity * sizeof(HeldSend))
    if q.used + e.head_size > q.size:
        q.size = (q.used + e.head_size) * 2
        q.arena = <uint8_t *>xrealloc(q.arena, q.size)
    s = &q.items[q.count]
    q.count += 1
    s.after = e.after
    s.peers = e.peers
    s.head = q.used
    s.size = e.head_size
    s.value = value_ref(e.value)
    memcpy(q.arena + q.used, head, e.head_size)
    q.used += e.head_size


cdef void held_release(Host *h, HeldQueue *q, uint64_t durable) noexcept nogil:
    cdef size_t i
    cdef size_t kept = 0
    cdef HeldSend *s
    for i in range(q.count):
        s = &q.items[i]
        if s.after > durable:
            q.items[kept] = s[0]
            kept += 1
            continue
        h.link.send(h.link.context, s.peers, q.arena + s.head, s.size, s.value)
        value_unref(s.value)
    q.count = kept
    if kept == 0:
        q.used = 0


cdef void held_free(HeldQueue *q) noexcept nogil:
    cdef size_t i
    for i in range(q.count):
        value_unref(q.items[i].value)
    free(q.items)
    free(q.arena)
    memset(q, 0, sizeof(HeldQueue))


# ---- effects ----

cdef void take(Host *h, Outbox *out, Group *g) noexcept nogil:
    """Carries out the effects of the step just made; g is NULL for the formation's."""
    cdef size_t i
    cdef Effect *e
    cdef Event *event
    cdef ReadJob *job
    cdef uint32_t k
    cdef uint32_t group = g.id if g != NULL else 0
    cdef uint64_t durable = g.replica.durable if g != NULL else h.formation_reported
    cdef HeldQueue *held = &g.held if g != NULL else &h.formation_held
    if out.count == 0:
        return
    if g != NULL and (g.replica.members.lease or h.delivery.leased_until):
        # Before anything of this step leaves: whoever hears that an instance is chosen, or is promised something, may be faster than
        # a read here.
        delivery_lease(&h.delivery, g.replica.chosen, mastership_lease(g.replica))
    for i in range(out.count):
        e = &out.effects[i]
        if h.outside.watch != NULL:
            h.outside.watch(h.outside.context, h, g, e)
        if e.type == EFFECT_SEND:
            if e.after <= durable:
                h.link.send(h.link.context, e.peers, out.arena + e.head, e.head_size, e.value)
            else:
                hold(held, e, out.arena + e.head)
        elif e.type == EFFECT_LOG:
            log_record(h, group, e, out.arena + e.head, g)
        elif e.type == EFFECT_CHOSEN:
            index_set_chain(&g.index, e.instance, <uint32_t>e.after)
            history_chosen(h, g, e.instance, e.value)
        elif e.type == EFFECT_READ:
            for k in range(h.formation.members.count):
                if e.peers & bit(k):
                    job = &g.reads[k]
                    job.active = True
                    job.begun = False
                    job.next = e.instance
                    job.end = e.end
                    job.left = e.after
        elif e.type == EFFECT_SETTLED:
            event = delivery_event(&h.delivery, EVENT_SETTLED, group)
            event.instance = delivery_token(&h.delivery, e.instance)
            event.a = e.code
        elif e.type == EFFECT_MASTER:
            event = delivery_event(&h.delivery, EVENT_MASTER, group)
            event.a = e.code
            event.instance = e.instance
            event.b = e.end
        elif e.type == EFFECT_DIVERGED:
            event = delivery_event(&h.delivery, EVENT_DIVERGED, group)
            event.instance = e.instance
            event.a = e.code
        elif e.type == EFFECT_MEMBERSHIP:
            members_changed(h, g)
            event = delivery_event(&h.delivery, EVENT_MEMBERSHIP, group)
            event.a = g.replica.members.version
        elif e.type == EFFECT_BEHIND:
            event = delivery_event(&h.delivery, EVENT_BEHIND, group)
            event.instance = e.instance
            event.a = e.code
        elif e.type == EFFECT_MASTERSHIP:
            members_changed(h, g)
            event = delivery_event(&h.delivery, EVENT_MASTERSHIP, group)
            event.a = e.code
            event.b = e.instance
            event.instance = e.end
        elif e.type == EFFECT_READABLE:
            event = delivery_event(&h.delivery, EVENT_READABLE, group)
            event.instance = e.instance
            event.a = e.after
        elif e.type == EFFECT_FORMED:
            h.link.members(h.link.context, &h.formation.members)
            delivery_event(&h.delivery, EVENT_FORMED, 0)
            form(h)
    out_clear(out)


cdef void members_changed(Host *h, Group *g) noexcept nogil:
    """Node, network and replica mean the same by a place."""
    h.formation.members = g.replica.members
    h.formation.self = g.replica.self
    h.formation.was_member = g.replica.was_member
    delivery_members(&h.delivery, &g.replica.members)
    h.link.members(h.link.context, &h.formation.members)


@cython.overflowcheck(False)     # meant to wrap
cdef uint64_t next_seed(uint64_t seed) noexcept nogil:
    return seed * <uint64_t>6364136223846793005 + <uint64_t>1442695040888963407


cdef void make_replica(Host *h, Group *g) noexcept nogil:
    h.options.group = g.id
    h.seed = next_seed(h.seed)
    g.replica = replica_new(&h.options, &h.formation.first, h.formation.sig_lo, h.formation.inc_hi, h.formation.inc_lo,
                            h.boot, h.seed if h.seed else 1)


cdef int restore_record(Group *g, uint8_t type, uint64_t instance, const uint8_t *body, uint32_t size, uint64_t position,
                        uint64_t segment) noexcept nogil:
    cdef size_t i
    if replica_restore(g.replica, type, instance, body, size) != 0:
        return -1
    if (type == RECORD_ACCEPT or type == RECORD_LEARN) and instance >= g.replica.first_kept:
        index_set(&g.index, instance, position)
        highs_note(&g.highs, segment, instance)
    for i in range(g.replica.out.count):
        if g.replica.out.effects[i].type == EFFECT_CHOSEN:
            index_set_chain(&g.index, g.replica.out.effects[i].instance, <uint32_t>g.replica.out.effects[i].after)
    out_clear(&g.replica.out)
    return 0


cdef void begin(Host *h, Group *g) noexcept nogil:
    """First steps of a replica: it starts, hears who is connected, and gets what was submitted before it was there."""
    cdef uint32_t i
    cdef uint32_t up = h.link.connected(h.link.context)
    cdef Event *event
    if g.begun:
        return
    g.begun = True
    members_changed(h, g)
    g.appended = g.replica.logged
    g.reported = g.replica.durable
    if g.replica.members.mastered:
        # What the log has told already: the master may well be the same still, and then nothing else would say so.
        event = delivery_event(&h.delivery, EVENT_MASTERSHIP, g.id)
        event.a = g.replica.members.master
        event.b = g.replica.members.mastership
        event.instance = g.replica.members.lease
    replica_start(g.replica, h.now)
    take(h, &g.replica.out, g)
    if g.cursor < g.replica.first_kept:
        delivery_event(&h.delivery, EVENT_BEHIND, g.id).instance = g.replica.first_kept
    if not may_stand(h):
        replica_resign(g.replica, h.now, False)
        take(h, &g.replica.out, g)
    for i in range(h.formation.members.count):
        if up & bit(i):
            replica_peer(g.replica, h.now, i, True)
            take(h, &g.replica.out, g)


cdef void form(Host *h) noexcept nogil:
    cdef uint32_t i
    cdef size_t n
    for i in range(h.group_count):
        if h.groups[i].replica == NULL:
            make_replica(h, &h.groups[i])
        begin(h, &h.groups[i])
    for n in range(h.waiting_count):
        submit(h, &h.waiting[n])
    h.waiting_count = 0


cdef void submit(Host *h, const Submission *s) noexcept nogil:
    cdef Group *g = &h.groups[0]
    if g.replica == NULL:
        if h.waiting_count == h.waiting_size:
            h.waiting_size = h.waiting_size * 2 if h.waiting_size else 64
            h.waiting = <Submission *>xrealloc(h.waiting, h.waiting_size * sizeof(Submission))
        h.waiting[h.waiting_count] = s[0]
        h.waiting_count += 1
        return
    g.seq += 1
    (<ChunkHead *>s.chunk.data).seq = g.seq
    delivery_wire(&h.delivery, g.seq, s.token)
    replica_submit(g.replica, h.now, g.seq, s.chunk, s.deadline)
    take(h, &g.replica.out, g)


cdef void expire(Host *h) noexcept nogil:
    """Submissions whose time is up before there is a cluster: certainly not executed."""
    cdef size_t i
    cdef size_t kept = 0
    cdef Event *event
    for i in range(h.waiting_count):
        if h.waiting[i].deadline > h.now:
            h.waiting[kept] = h.waiting[i]
            kept += 1
            continue
        value_unref(h.waiting[i].chunk)
        event = delivery_event(&h.delivery, EVENT_SETTLED, 0)
        event.instance = h.waiting[i].token
        event.a = SETTLE_NOT_AVAILABLE
    h.waiting_count = kept
