# cython: language_level=3
"""Discrete events around the very rounds that run in production (paxos._round).

A node does one round at a time: what came in, what is due, and, where that logged something, a write of its simulated disk,
during which it is deaf, as the real one is. The write happens on the disk when its time is up, call by call, and the process may
end in any of the calls: then the rest of them never happens (see process_end). Frames are lost, delayed, duplicated, reordered
and cut off one by one, which is worse than what TCP does. A connection comes up with HELLO, as in production.
"""
cimport cython
from libc.errno cimport ENOSPC
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, strtoull
from libc.string cimport memcpy, memset, strstr

from paxos._codec cimport FRAME_OK, crc32c, frame_check
from paxos._delivery cimport Status, delivery_wanted
from paxos._formation cimport HELLO_NEWER, MEMBERS_FRAME, REFUSE_NONE, formation_hello, formation_members
from paxos._membership cimport membership_place
from paxos._replica cimport ROLE_ASKING, ROLE_MASTER, Replica
from paxos._round cimport (
    ROUND_TAKEN, round_begin, round_deadline, round_end, round_frame, round_hello, round_peer, round_start, round_steps,
    round_write, round_writes,
)
from paxos._spares cimport SPARES_RETRY, Spares, spares_full, spares_make, spares_wanted
from paxos._state cimport Group, Host
from paxos._store cimport Files
from paxos._types cimport (
    EFFECT_CHOSEN, EFFECT_INSTALLED, EFFECT_LOG, EFFECT_MASTER, EFFECT_MASTERSHIP, Effect, FORMAT_VERSION, FRAME_HELLO, FRAME_MAGIC, FRAME_PREVOTE_REPLY, Frame, Membership, NOWHERE, PrevoteReply,
    RECORD_LEARN, RECORD_PROMISE, Value, bit, xalloc, xrealloc, xzalloc,
)
from paxos.testing._heap cimport heap_pop, heap_push
from paxos.testing._judge cimport (
    judge_chosen, judge_found, judge_free, judge_init, judge_installed, judge_leased, judge_mastership, judge_persisted, judge_restored, judge_sent,
)
from paxos.testing._random cimport random_between, random_chance, random_next
from paxos.testing._simdisk cimport simdisk_free, simdisk_init, simdisk_process_ended

cdef enum:
    HELLO_SIZE = 96
    MICROSECOND = 1000
    MILLISECOND = 1000000
    SECOND = 1000000000


cdef void mark(World *w, int64_t since, int kind, uint32_t node, uint32_t other, uint64_t a, uint64_t b) noexcept nogil:
    cdef Mark *m
    if not w.recording:
        return
    if w.mark_count == w.mark_size:
        w.mark_size = w.mark_size * 2 if w.mark_size else 1024
        w.marks = <Mark *>xrealloc(w.marks, w.mark_size * sizeof(Mark))
    m = &w.marks[w.mark_count]
    w.mark_count += 1
    m.since = since
    m.at = w.now
    m.kind = kind
    m.node = node
    m.other = other
    m.a = a
    m.b = b


@cython.overflowcheck(False)     # meant to wrap
cdef inline void note(World *w, uint64_t what) noexcept nogil:
    w.hash = (w.hash ^ what) * <uint64_t>0x9FB21C651E98DF25
    w.hash ^= w.hash >> 29


# ---- clocks ----

cdef int64_t world_local(const SimNode *n) noexcept nogil:
    cdef int64_t gone = n.world.now - n.clock_since
    return n.clock_base + gone + gone // 1000 * n.clock_ppm // 1000


cdef int64_t local_now(void *context) noexcept nogil:
    return world_local(<SimNode *>context)


cdef inline bint leased(const SimNode *n) noexcept nogil:
    """Whether it would answer a read now, alone. Exactly what delivery_leased says, without a lock."""
    return n.host != NULL and n.host.delivery.leased_until != 0 and world_local(n) < n.host.delivery.leased_until


cdef void look_at_leases(World *w) noexcept nogil:
    """A lease begins with an event; so this is every moment at which there could be one too many."""
    cdef uint32_t i
    cdef bint one = False
    for i in range(w.node_count):
        if leased(&w.nodes[i]):
            if one:
                judge_found(&w.judge, "two nodes hold a lease at one moment (rule 21)", i, 0)
            one = True
    if one:
        w.leased += 1


# ---- the network ----

cdef void post(World *w, uint32_t source, uint32_t target, const uint8_t *head, size_t size, const Value *value) noexcept nogil:
    cdef size_t whole = size + (value.size if value != NULL else 0)
    cdef uint8_t *data
    cdef int64_t delay
    cdef int copies = 1, i
    if (w.cut[source] & bit(target) or random_chance(&w.random, w.loss)
            or random_chance(&w.random, w.picky[(<const Frame *>head).type & 31])):
        w.lost += 1
        return
    if random_chance(&w.random, w.duplicate):
        copies = 2
        w.duplicated += 1
    for i in range(copies):
        data = <uint8_t *>xalloc(whole)
        memcpy(data, head, size)
        if value != NULL:
            memcpy(data + size, value.data, value.size)
        if random_chance(&w.random, w.corrupt):
            data[random_next(&w.random) % whole] ^= <uint8_t>(1 << random_next(&w.random) % 8)
            w.corrupted += 1
        delay = random_between(&w.random, w.delay_low, w.delay_high)
        if random_chance(&w.random, w.late):
            delay += random_between(&w.random, 0, w.late_ns)
            w.late_count += 1
        heap_push(w, w.now + delay, EVENT_FRAME, target, source, 0, data, whole)


cdef inline uint32_t behind(const SimNode *n, uint32_t place) noexcept nogil:
    """The node (ids are 1, 2, …, indices count from 0) that has a place at this one; its own index, if nobody has it."""
    cdef uint32_t node = n.host.formation.members.members[place].node
    return node - 1 if 0 < node <= n.world.node_count else n.index


cdef inline uint32_t place_of(const SimNode *n, uint32_t index) noexcept nogil:
    return membership_place(&n.host.formation.members, index + 1)


cdef void link_send(void *context, uint32_t peers, const uint8_t *head, size_t size, Value *value) noexcept nogil:
    cdef SimNode *n = <SimNode *>context
    cdef World *w = n.world
    cdef uint32_t i
    if not peers & link_connected(n):
        return
    judge_sent(&w.judge, n.index, n.life, head, size, value)
    if leased(n):
        judge_leased(&w.judge, n.index, n.host.delivery.leased_chosen, head)
    for i in range(n.host.formation.members.count):
        if peers & bit(i) and n.connected & bit(behind(n, i)):
            post(w, n.index, behind(n, i), head, size, value)


cdef void link_flush(void *context, int64_t now) noexcept nogil:
    pass                            # a frame is on its way as soon as it is sent


cdef uint32_t link_connected(void *context) noexcept nogil:
    cdef const SimNode *n = <const SimNode *>context
    cdef uint32_t i, mask = 0
    for i in range(n.host.formation.members.count):
        if n.connected & bit(behind(n, i)):
            mask |= bit(i)
    return mask


cdef int64_t link_waiting(void *context, uint32_t index) noexcept nogil:
    return 0 if (<SimNode *>context).connected & bit(behind(<const SimNode *>context, index)) else -1


cdef void link_report(void *context, Status *status) noexcept nogil:
    pass


cdef void link_members(void *context, const Membership *m) noexcept nogil:
    """Connections go with a place: who has another one now, or none, is disconnected, and who has one dialled."""
    cdef SimNode *n = <SimNode *>context
    cdef World *w = n.world
    cdef uint32_t i, place
    for i in range(w.node_count):
        place = membership_place(m, i + 1)
        if i == n.index or place == n.places[i]:
            continue
        n.places[i] = place
        if n.host == NULL:
            continue                # the log is read; it dials all when it starts
        n.connected &= ~bit(i)
        if n.accepted & bit(i):
            n.accepted &= ~bit(i)
            heap_push(w, w.now + w.delay_low, EVENT_DOWN, i, n.index, w.nodes[i].life, NULL, 0)
        if place != NOWHERE:
            heap_push(w, w.now + random_between(&w.random, MICROSECOND, 5 * MILLISECOND), EVENT_DIAL, n.index, i, n.life, NULL, 0)


cdef void dial(World *w, SimNode *n, uint32_t target) noexcept nogil:
    """Connects, or tries again later. What comes up first is the HELLO, which nothing overtakes: frames before it are not taken."""
    cdef uint8_t *hello
    cdef uint8_t members[MEMBERS_FRAME]
    cdef size_t size
    cdef uint32_t place
    if n.host == NULL or n.connected & bit(target):
        return
    place = place_of(n, target)
    if place == NOWHERE:
        return
    if w.nodes[target].host == NULL or w.cut[n.index] & bit(target) or w.cut[target] & bit(n.index):
        heap_push(w, w.now + random_between(&w.random, 10 * MILLISECOND, 300 * MILLISECOND), EVENT_DIAL, n.index, target, n.life,
                   NULL, 0)
        return
    n.connected |= bit(target)
    hello = <uint8_t *>xalloc(HELLO_SIZE)
    formation_hello(&n.host.formation, place, hello)
    heap_push(w, w.now + w.delay_low, EVENT_FRAME, target, n.index, 0, hello, HELLO_SIZE)
    size = formation_members(&n.host.formation, members)
    if size != 0:
        hello = <uint8_t *>xalloc(size)
        memcpy(hello, members, size)
        heap_push(w, w.now + w.delay_low, EVENT_FRAME, target, n.index, 0, hello, size)
    round_peer(n.host, place, True)


cdef void down(World *w, SimNode *n, uint32_t target, bint refused) noexcept nogil:
    """A peer that hung up is dialled again soon, one that refused this node not so soon."""
    cdef int64_t wait = random_between(&w.random, 10 * MILLISECOND, 100 * MILLISECOND)
    if n.host == NULL or not n.connected & bit(target):
        return
    n.connected &= ~bit(target)
    w.nodes[target].accepted &= ~bit(n.index)
    if place_of(n, target) != NOWHERE:
        round_peer(n.host, place_of(n, target), False)
    heap_push(w, w.now + wait * 10 if refused else w.now + wait, EVENT_DIAL, n.index, target, n.life, NULL, 0)


cdef void arrived(SimNode *n, const Event *e) noexcept nogil:
    """A frame, as it comes out of the socket."""
    cdef World *w = n.world
    cdef const Frame *frame = <const Frame *>e.data
    cdef size_t need = 0
    cdef int reason
    cdef bint good = frame_check(e.data, e.size, n.host.options.max_frame, &need) == FRAME_OK
    if good and frame.type == FRAME_HELLO:
        reason = round_hello(n.host, frame)
        good = reason == REFUSE_NONE or reason == HELLO_NEWER
        if good and w.nodes[e.other].connected & bit(n.index):
            n.accepted |= bit(e.other)
    elif good:
        if not n.accepted & bit(e.other):
            w.lost += 1             # of a connection that is no more, or not yet
            return
        good = round_frame(n.host, frame) == ROUND_TAKEN
    if not good:
        # Refused: the connection ends.
        w.refused += 1
        n.accepted &= ~bit(e.other)
        heap_push(w, w.now + random_between(&w.random, w.delay_low, w.delay_high), EVENT_DOWN, e.other, n.index,
                   w.nodes[e.other].life, NULL, 1)
        return
    if frame.type < 32:
        w.frames[frame.type] += 1
    mark(w, e.since, EVENT_FRAME, n.index, e.other, frame.type, e.size)


# ---- what a Host stands on ----

cdef void fatal(Host *h, const char *what, int error) noexcept nogil:
    cdef SimNode *n = <SimNode *>h.outside.context
    if error == ENOSPC:
        # This disk refuses only what makes a file longer, and a log does that nowhere but in a spare.
        judge_found(&n.world.judge, "a full disk ended a node", n.index, 0)
    process_end(&n.exit)


cdef void watch(void *context, Host *h, Group *g, const Effect *e) noexcept nogil:
    cdef SimNode *n = <SimNode *>context
    if e.type == EFFECT_CHOSEN:
        judge_chosen(&n.world.judge, n.index, e.instance, <uint32_t>e.after, e.value)
        mark(n.world, n.world.now, MARK_CHOSEN, n.index, 0, e.instance, e.value.count)
    elif e.type == EFFECT_INSTALLED:
        judge_installed(&n.world.judge, n.index, e.instance, <uint32_t>e.after)
    elif e.type == EFFECT_LOG and n.was_silent and h.unlogged.count and RECORD_PROMISE <= e.code <= RECORD_LEARN:
        judge_found(&n.world.judge, "a node whose log has no room went on to log", n.index, e.instance)
    elif e.type == EFFECT_MASTERSHIP:
        judge_mastership(&n.world.judge, n.index, e.code, e.instance, e.end)
    elif e.type == EFFECT_MASTER:
        mark(n.world, n.world.now, MARK_MASTER, n.index, 0, e.code, e.instance)


cdef void persisted(void *context, const char *name, uint64_t offset, const uint8_t *data, size_t size) noexcept nogil:
    cdef SimNode *n = <SimNode *>context
    if strstr(name, ".seg") != NULL and offset != 0:
        n.last_write = (<uint64_t>strtoull(name, NULL, 16) << 32) | offset
        judge_persisted(&n.world.judge, n.index, n.last_write, data, size)


cdef void world_watch(SimNode *n) noexcept nogil:
    n.disk.persisted = persisted
    n.disk.context = n


cdef void world_host(SimNode *n, Host *h) noexcept nogil:
    h.delivery.clock.context = n
    h.delivery.clock.now = local_now
    h.link.context = n
    h.link.send = link_send
    h.link.flush = link_flush
    h.link.connected = link_connected
    h.link.waiting = link_waiting
    h.link.report = link_report
    h.link.members = link_members
    h.outside.context = n
    h.outside.fatal = fatal
    h.outside.watch = watch


# ---- rounds ----

cdef void clear_inbox(SimNode *n) noexcept nogil:
    cdef size_t i
    for i in range(n.inbox.count):
        free(n.inbox.items[i].data)
    n.inbox.count = 0


cdef void keep(SimNode *n, const Event *e) noexcept nogil:
    if n.inbox.count == n.inbox.size:
        n.inbox.size = n.inbox.size * 2 if n.inbox.size else 16
        n.inbox.items = <Event *>xrealloc(n.inbox.items, n.inbox.size * sizeof(Event))
    n.inbox.items[n.inbox.count] = e[0]
    n.inbox.count += 1


cdef void look_for_python(SimNode *n) noexcept nogil:
    cdef World *w = n.world
    if delivery_wanted(&n.host.delivery) and not n.python_due and not n.python_paused:
        n.python_due = True
        heap_push(w, w.now + random_between(&w.random, n.python_low, n.python_high), EVENT_PYTHON, n.index, 0, n.life, NULL, 0)


cdef inline Spares *spares(SimNode *n) noexcept nogil:
    return &(<Files *>n.host.store.files).spares


cdef void look_for_spares(SimNode *n, bint failed) noexcept nogil:
    cdef World *w = n.world
    cdef int64_t wait
    if n.spare_due or not spares_wanted(spares(n)):
        return
    n.spare_due = True
    wait = <int64_t>SPARES_RETRY if failed else random_between(&w.random, MILLISECOND, 20 * MILLISECOND)
    heap_push(w, w.now + wait, EVENT_SPARE, n.index, 0, n.life, NULL, 0)


cdef int prepare(SimNode *n) noexcept nogil:
    """The preparer's turn. RunEnd"""
    cdef World *w = n.world
    cdef bint made
    n.spare_due = False
    if n.paused or n.disk_hangs_until > w.now:
        n.spare_due = True
        heap_push(w, max(w.now + 20 * MILLISECOND, n.disk_hangs_until), EVENT_SPARE, n.index, 0, n.life, NULL, 0)
        return RUN_UNTIL
    made = spares_make(spares(n), False)
    if n.disk.dead:
        return RUN_ENDED            # in one of its calls
    if made or not n.disk.full or not spares_wanted(spares(n)):
        n.short_since = 0
    elif n.short_since == 0:
        n.short_since = world_local(n)
    look_for_spares(n, spares_full(spares(n)) != 0)
    return RUN_UNTIL


cdef void look_at_disk(SimNode *n) noexcept nogil:
    """Whoever has no room for another segment gives the mastership up within a second of its own."""
    cdef const Replica *r = n.host.groups[0].replica
    if not n.disk.full or not spares_wanted(spares(n)):
        n.short_since = 0
    elif n.short_since and world_local(n) - n.short_since > SECOND and r != NULL and r.role == ROLE_MASTER:
        judge_found(&n.world.judge, "a node whose disk is full remains master", n.index, 0)


cdef void after(SimNode *n) noexcept nogil:
    """The round is over: when is the next?"""
    cdef World *w = n.world
    cdef int64_t due = round_deadline(n.host), wait
    look_for_python(n)
    look_for_spares(n, False)
    if n.host.unlogged.count and not n.was_silent:
        w.silenced += 1
    wait = due - n.host.now
    if n.host.delivery.inbox_count:
        wait = 0                    # submitted during the write
    if wait <= 0:
        if not n.round_due:
            n.round_due = True
            wait = MICROSECOND
            if random_chance(&w.random, w.sleepy):
                wait += random_between(&w.random, 0, w.sleepy_ns)
            heap_push(w, w.now + wait, EVENT_ROUND, n.index, 0, n.life, NULL, 0)
        return
    # A clock that is slow by a ten-thousandth must not be asked too early for ever.
    wait += wait // 1000 * -n.clock_ppm // 1000 + MICROSECOND
    if n.timer_at <= w.now or w.now + wait < n.timer_at:
        n.timer_at = w.now + wait
        heap_push(w, n.timer_at, EVENT_TIMER, n.index, 0, n.life, NULL, 0)


cdef void step_round(void *context) noexcept nogil:
    cdef SimNode *n = <SimNode *>context
    cdef World *w = n.world
    cdef int64_t time
    cdef size_t i
    n.was_silent = n.host.unlogged.count > 0
    round_begin(n.host, world_local(n))
    for i in range(n.inbox.count):
        if n.inbox.items[i].kind == EVENT_FRAME:
            arrived(n, &n.inbox.items[i])
        elif n.inbox.items[i].kind == EVENT_DIAL:
            dial(w, n, n.inbox.items[i].other)
        else:
            down(w, n, n.inbox.items[i].other, n.inbox.items[i].size != 0)
    clear_inbox(n)
    if round_steps(n.host):
        n.stopped = True
        return
    look_at_disk(n)
    if round_writes(n.host):
        n.writing = True
        n.write_since = w.now
        time = random_between(&n.disk.random, n.disk_low, n.disk_high)
        if n.disk_hangs_until > w.now:
            time += n.disk_hangs_until - w.now
        heap_push(w, w.now + time, EVENT_WRITTEN, n.index, 0, n.life, NULL, 0)
        look_for_python(n)
        return
    round_end(n.host)
    after(n)


cdef void step_written(void *context) noexcept nogil:
    cdef SimNode *n = <SimNode *>context
    n.writing = False
    n.was_silent = n.host.unlogged.count > 0
    mark(n.world, n.write_since, EVENT_WRITTEN, n.index, 0, n.host.store.writer.used, n.host.store.writer.records)
    round_write(n.host)
    round_end(n.host)
    after(n)


cdef void step_start(void *context) noexcept nogil:
    cdef SimNode *n = <SimNode *>context
    round_start(n.host, world_local(n))
    judge_restored(&n.world.judge, n.index, n.host.groups[0].replica)


cdef int live(SimNode *n, void (*step)(void *) noexcept nogil) noexcept nogil:
    if process_live(&n.exit, step, n) or n.stopped:
        return RUN_ENDED
    return RUN_UNTIL


cdef int world_start(SimNode *n) noexcept nogil:
    cdef World *w = n.world
    cdef uint32_t i
    cdef int end
    n.life += 1
    n.stopped = False
    end = live(n, step_start)
    if end != RUN_UNTIL:
        return end
    for i in range(w.node_count):
        if i != n.index:
            heap_push(w, w.now + random_between(&w.random, MICROSECOND, 5 * MILLISECOND), EVENT_DIAL, n.index, i, n.life, NULL, 0)
    world_wake(n)
    return RUN_UNTIL


cdef void world_wake(SimNode *n) noexcept nogil:
    cdef World *w = n.world
    if n.host == NULL:
        return
    look_for_python(n)
    if not n.round_due and not n.writing:
        n.round_due = True
        heap_push(w, w.now + MICROSECOND, EVENT_ROUND, n.index, 0, n.life, NULL, 0)


cdef int world_stand(SimNode *n) noexcept nogil:
    cdef World *w = n.world
    cdef Replica *r
    cdef Frame *frame
    cdef PrevoteReply *reply
    cdef Event e
    cdef uint32_t i
    if n.host == NULL or n.writing or n.paused or n.host.groups[0].replica == NULL:
        return RUN_UNTIL
    r = n.host.groups[0].replica
    if r.role == ROLE_MASTER:
        return RUN_UNTIL
    r.election_deadline = world_local(n)
    if live(n, step_round) != RUN_UNTIL:
        return RUN_ENDED
    if r.role != ROLE_ASKING or n.writing:
        return RUN_UNTIL
    for i in range(r.members.count):
        if i == r.self or behind(n, i) == n.index:
            continue
        memset(&e, 0, sizeof(e))
        e.kind = EVENT_FRAME
        e.node = n.index
        e.other = behind(n, i)
        e.size = sizeof(Frame) + sizeof(PrevoteReply)
        e.data = <uint8_t *>xzalloc(e.size)
        frame = <Frame *>e.data
        frame.magic = FRAME_MAGIC
        frame.length = <uint32_t>e.size
        frame.version = FORMAT_VERSION
        frame.type = FRAME_PREVOTE_REPLY
        frame.sender = r.members.members[i].node
        frame.signature = r.signature
        frame.inc_hi = r.members.members[i].inc_hi
        frame.inc_lo = r.members.members[i].inc_lo
        reply = <PrevoteReply *>(e.data + sizeof(Frame))
        reply.ballot = r.asked
        reply.granted = 1
        frame.crc = crc32c(0, e.data + 12, e.size - 12)
        keep(n, &e)
    return live(n, step_round)


cdef void world_ended(SimNode *n, bint power) noexcept nogil:
    cdef World *w = n.world
    cdef uint32_t i
    clear_inbox(n)
    n.host = NULL
    n.writing = n.paused = n.python_paused = n.python_due = n.round_due = n.write_came = n.spare_due = n.was_silent = False
    n.short_since = 0
    n.timer_at = 0
    n.connected = 0
    n.accepted = 0
    memset(n.places, 0xFF, sizeof(n.places))
    simdisk_process_ended(&n.disk, power)
    for i in range(w.node_count):
        if i == n.index:
            continue
        w.nodes[i].accepted &= ~bit(n.index)
        if w.nodes[i].connected & bit(n.index):
            heap_push(w, w.now + random_between(&w.random, MICROSECOND, 5 * MILLISECOND), EVENT_DOWN, i, n.index, w.nodes[i].life,
                       NULL, 0)


# ---- events ----

cdef int happen(World *w, Event *e, uint64_t *which) noexcept nogil:
    """One event; frees its data or hands it on."""
    cdef SimNode *n = &w.nodes[e.node]
    if e.kind == EVENT_CALL:
        which[0] = e.size
        return RUN_CALL
    which[0] = e.node
    if n.host == NULL or (e.life and e.life != n.life):
        free(e.data)                # of a process that is no more
        return RUN_UNTIL
    if e.kind == EVENT_FRAME or e.kind == EVENT_DIAL or e.kind == EVENT_DOWN:
        keep(n, e)
        return RUN_UNTIL if n.writing or n.paused else live(n, step_round)
    if e.kind == EVENT_TIMER:
        if e.at == n.timer_at:
            n.timer_at = 0
            if not n.writing and not n.paused:
                return live(n, step_round)
    elif e.kind == EVENT_ROUND:
        n.round_due = False
        if not n.writing and not n.paused:
            return live(n, step_round)
    elif e.kind == EVENT_WRITTEN:
        if n.paused:
            n.write_came = True
        else:
            return live(n, step_written)
    elif e.kind == EVENT_PYTHON:
        n.python_due = False
        if not n.paused and not n.python_paused:
            return RUN_PYTHON
    elif e.kind == EVENT_SPARE:
        return prepare(n)
    elif e.kind == EVENT_RESUME:
        n.paused = False
        if n.write_came:
            n.write_came = False
            return live(n, step_written)
        world_wake(n)
    return RUN_UNTIL


cdef int world_run(World *w, int64_t until, uint64_t *which) noexcept nogil:
    cdef Event e
    cdef int end
    while True:
        if w.judge.failed:
            return RUN_FAILED
        if w.heap_count == 0 or w.heap[0].at > until:
            w.now = until
            return RUN_UNTIL
        e = heap_pop(w)
        w.now = e.at
        w.events += 1
        w.by_kind[e.kind] += 1
        note(w, <uint64_t>e.at)
        note(w, (<uint64_t>e.kind << 32) | (e.node << 16) | e.other)
        if e.kind == EVENT_FRAME and e.size >= sizeof(Frame):
            note(w, (<const Frame *>e.data).crc)
        end = happen(w, &e, which)
        look_at_leases(w)
        if end != RUN_UNTIL:
            return end


# ---- life ----

cdef void world_init(World *w, uint32_t nodes, uint64_t seed, uint32_t first) noexcept nogil:
    cdef uint32_t i
    cdef SimNode *n
    memset(w, 0, sizeof(World))
    w.random = seed
    w.hash = seed
    w.node_count = nodes
    w.now = 1000000000000
    w.delay_low = 50 * MICROSECOND
    w.delay_high = 300 * MICROSECOND
    w.first = first
    judge_init(&w.judge, nodes, bit(first) - 1)
    for i in range(nodes):
        n = &w.nodes[i]
        n.world = w
        n.index = i
        memset(n.places, 0xFF, sizeof(n.places))
        n.clock_base = 1000000000 * <int64_t>(i + 1) * 1000
        n.clock_since = w.now
        n.disk_low = 100 * MICROSECOND
        n.disk_high = 400 * MICROSECOND
        n.python_low = 20 * MICROSECOND
        n.python_high = 100 * MICROSECOND
        simdisk_init(&n.disk, random_next(&w.random), &w.now)
        world_watch(n)


cdef void world_free(World *w) noexcept nogil:
    cdef uint32_t i
    cdef size_t k
    for k in range(w.heap_count):
        free(w.heap[k].data)
    free(w.heap)
    free(w.marks)
    for i in range(w.node_count):
        clear_inbox(&w.nodes[i])
        free(w.nodes[i].inbox.items)
        simdisk_free(&w.nodes[i].disk)
    judge_free(&w.judge)
    memset(w, 0, sizeof(World))
