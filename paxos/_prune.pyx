# cython: language_level=3
"""Deleting log. What is below a checkpoint goes a segment at a time, the oldest first, when three things hold:

- a durable RECORD_BASE says where the log begins, and what the replica would forget with the segment: promise, chain checksum
  and membership there; and the formation has been written again beside it (design rule 15);
- every value in the segment is of an instance below. One above, accepted and not yet chosen, keeps its segment;
- the segment is not the one being written, and the write that says "the log now begins behind it" is durable (store_recycle).

What a node that is behind is reading just now is kept for it, and `hold` instances for whoever may come, within the budget; but
nothing for whose sake a segment would stay that is damaged on the disk. Such a one goes as soon as a checkpoint covers what is in
it, which heals the log; if it is the one being written, the log first goes on in the next.
A master whose log has come to its budget while a checkpoint is being made takes up new values when that is done.
"""
from libc.stdint cimport uint32_t, uint64_t

from paxos._core cimport replica_base, replica_base_again, replica_install
from paxos._delivery cimport EVENT_SETTLED, Event, delivery_event, delivery_token
from paxos._effects cimport take
from paxos._formation cimport formation_rewrite
from paxos._history cimport history_jump
from paxos._replica cimport Pending
from paxos._state cimport Group, Host
from paxos._store cimport highs_at, highs_below, index_chain, index_get, index_trim
from paxos._types cimport CHUNK_WINDOW, Membership, SETTLE_UNKNOWN


cdef bint prune_full(const Host *h) noexcept nogil:
    return (h.store.writer.segment - h.store.writer.oldest + 2) * h.store.writer.segment_size > h.budget


cdef bint _over_budget(const Host *h) noexcept nogil:
    return (h.store.writer.segment - h.store.writer.oldest + 1) * h.store.writer.segment_size > h.budget


cdef bint _damaged(const Host *h) noexcept nogil:
    return h.drop >= h.store.writer.oldest


cdef bint prune_rotates(const Host *h) noexcept nogil:
    return h.drop >= h.store.writer.segment and not h.disk_full


cdef void _rewritten(Host *h, Group *g, uint64_t segment) noexcept nogil:
    """A RECORD_BASE has been appended; `segment` was current before, so it lies there or in a newer one."""
    g.base_segment = segment
    index_trim(&g.index, g.replica.first_kept)
    h.formation_segment = segment
    formation_rewrite(&h.formation)
    take(h, &h.formation.out, NULL)
    h.pruning = True


cdef void prune_base(Host *h, Group *g, uint64_t instance) noexcept nogil:
    cdef uint64_t first = instance, segment = h.store.writer.segment
    cdef uint64_t room = h.budget // 4 // h.store.writer.segment_size
    cdef uint32_t i
    if g.replica == NULL:
        return
    if not _over_budget(h) and not _damaged(h):
        first = first - h.hold if first > h.hold else 0
        # ... in a quarter of the budget, so that the next checkpoint is not due at once.
        if segment > room:
            first = max(first, min(instance, highs_at(&g.highs, segment - room)))
        for i in range(h.formation.members.count):
            if g.reads[i].active and g.reads[i].next < first:
                first = g.reads[i].next
    first = min(first, g.cursor)    # what Python has not been given is needed here, whatever a checkpoint holds
    if first == g.replica.first_kept and _damaged(h) and g.base_segment <= h.drop < segment:
        if not replica_base_again(g.replica, h.now):
            return                  # there is more to be chosen, or applied: a later checkpoint will do
    elif first <= g.replica.first_kept or first > g.replica.chosen or index_get(&g.index, first - 1) == 0:
        return
    else:
        replica_base(g.replica, h.now, first, index_chain(&g.index, first - 1))
    take(h, &g.replica.out, g)
    _rewritten(h, g, segment)


cdef void _passed_over(Host *h, Group *g, uint64_t first, uint64_t end) noexcept nogil:
    """Python is not given instances first to end - 1: it has them from a checkpoint. What it had handed in, and was chosen in one of
    them, has an answer that nobody here has seen."""
    cdef uint64_t seq
    cdef const Pending *p
    cdef Event *event
    for seq in range(g.seq + 1 - min(g.seq, <uint64_t>CHUNK_WINDOW), g.seq + 1):
        p = &g.replica.pending[seq % CHUNK_WINDOW]
        if p.seq == seq and first < p.chosen <= end:
            event = delivery_event(&h.delivery, EVENT_SETTLED, g.id)
            event.instance = delivery_token(&h.delivery, seq)
            event.a = SETTLE_UNKNOWN


cdef void prune_install(Host *h, Group *g, uint64_t instance, uint32_t chain, const Membership *members) noexcept nogil:
    cdef uint64_t segment = h.store.writer.segment
    if g.cursor < instance:
        _passed_over(h, g, g.cursor, instance)
        history_jump(h, g, instance)
    if instance <= g.replica.chosen:
        return
    replica_install(g.replica, h.now, instance, chain, members)
    take(h, &g.replica.out, g)
    _rewritten(h, g, segment)


cdef uint64_t prune_next(Host *h) noexcept nogil:
    cdef uint64_t oldest = h.store.writer.oldest
    cdef uint32_t i
    # (A RECORD_BASE that waits for room does not stand in the log yet.)
    cdef bint free = h.pruning and h.unlogged.count == 0 and oldest < h.store.writer.segment and oldest < h.formation_segment
    for i in range(h.group_count):
        if not free:
            break
        free = oldest < h.groups[i].base_segment and highs_below(&h.groups[i].highs, oldest, h.groups[i].replica.first_kept)
    if not free:
        if h.unlogged.count == 0:
            h.pruning = False       # until the next RECORD_BASE
        return 0
    return oldest
