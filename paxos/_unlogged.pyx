# cython: language_level=3
"""Records on their way into the log, and those for which it has no room now.

A record that needs a new segment while the disk is full waits here, and so does every later one, for their order counts. To the
replica that is a log write that takes long: the record is not durable, so what stands on it is not sent, and counts for
nothing (design rules 1 and 2). A crash forgets it, as it forgets any write that was not finished.

How many can wait is bounded. A node whose disk is full leads no group (_round.watch_disk), and a node that keeps records takes no
frames that could make it log another (_round.round_frame). So there wait

- the records of the one step that met the end of the log: of a master a window of values, which are in its memory anyway; of a
  learner those of one LEARNED frame, whose size is bounded; a ballot; a seal;
- what the formation logs, at most two records in a life, and a ballot or a seal that was due in the same round;
- RECORD_BASE and the formation behind it, for each checkpoint that was made meanwhile, on a disk that has no room for one.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from paxos._state cimport Unlogged, UnloggedQueue
from paxos._store cimport STORE_NO_ROOM, highs_note, index_set, store_append
from paxos._types cimport RECORD_ACCEPT, RECORD_LEARN, Value, value_ref, value_unref, xalloc, xrealloc


cdef uint64_t _append(Host *h, Group *g, uint8_t type, uint32_t group, uint64_t instance, const uint8_t *head, size_t size,
                      Value *value) noexcept nogil:
    """The position of the record; 0 where there is no room."""
    cdef int error = 0
    cdef uint64_t position = store_append(h.store, type, group, instance, head, size, value.data if value != NULL else NULL,
                                          value.size if value != NULL else 0, &error)
    if position == 0:
        if error != STORE_NO_ROOM:
            h.outside.fatal(h, "writing the log failed", error)
        return 0
    if g == NULL:
        h.formation_appended += 1
        return position
    g.appended += 1
    g.unsealed = True
    if type == RECORD_ACCEPT or type == RECORD_LEARN:
        index_set(&g.index, instance, position)
        highs_note(&g.highs, position / h.store.writer.segment_size, instance)
    return position


cdef void _wait(Host *h, Group *g, const Effect *e, const uint8_t *head, uint32_t group) noexcept nogil:
    cdef UnloggedQueue *q = &h.unlogged
    cdef Unlogged *u
    if q.count == q.capacity:
        q.capacity = q.capacity * 2 if q.capacity else 16
        q.items = <Unlogged *>xrealloc(q.items, q.capacity * sizeof(Unlogged))
    u = &q.items[q.count]
    q.count += 1
    u.type = <uint8_t>e.code
    u.formation = g == NULL
    u.group = group
    u.instance = e.instance
    u.size = e.head_size
    u.head = <uint8_t *>xalloc(e.head_size)
    memcpy(u.head, head, e.head_size)
    u.value = value_ref(e.value)
    if g != NULL and (u.type == RECORD_ACCEPT or u.type == RECORD_LEARN):
        index_set(&g.index, u.instance, NOT_LOGGED)


cdef void log_record(Host *h, uint32_t group, const Effect *e, const uint8_t *head, Group *g) noexcept nogil:
    if h.unlogged.count or _append(h, g, <uint8_t>e.code, group, e.instance, head, e.head_size, e.value) == 0:
        _wait(h, g, e, head, group)


cdef void log_unlogged(Host *h) noexcept nogil:
    cdef UnloggedQueue *q = &h.unlogged
    cdef Unlogged *u
    while q.first < q.count:
        u = &q.items[q.first]
        if _append(h, NULL if u.formation else &h.groups[u.group], u.type, u.group, u.instance, u.head, u.size, u.value) == 0:
            return
        value_unref(u.value)
        free(u.head)
        q.first += 1
    q.first = 0
    q.count = 0


cdef void unlogged_free(Host *h) noexcept nogil:
    cdef UnloggedQueue *q = &h.unlogged
    cdef size_t i
    for i in range(q.first, q.count):
        value_unref(q.items[i].value)
        free(q.items[i].head)
    free(q.items)
    memset(q, 0, sizeof(UnloggedQueue))
