# cython: language_level=3
"""The future of a simulated world: events by time, and by the order in which they were made."""
from libc.stdint cimport int64_t, uint8_t, uint32_t

from paxos._types cimport xrealloc


cdef inline bint before(const Event *a, const Event *b) noexcept nogil:
    return a.at < b.at or (a.at == b.at and a.order < b.order)


cdef void heap_push(World *w, int64_t at, int kind, uint32_t node, uint32_t other, uint32_t life, uint8_t *data, size_t size) noexcept nogil:
    cdef size_t i, parent
    cdef Event e
    e.at = at if at > w.now else w.now
    e.order = w.order
    w.order += 1
    e.kind = kind
    e.node = node
    e.other = other
    e.life = life
    e.since = w.now
    e.data = data
    e.size = size
    if w.heap_count == w.heap_size:
        w.heap_size = w.heap_size * 2 if w.heap_size else 256
        w.heap = <Event *>xrealloc(w.heap, w.heap_size * sizeof(Event))
    i = w.heap_count
    w.heap_count += 1
    while i > 0:
        parent = (i - 1) // 2
        if not before(&e, &w.heap[parent]):
            break
        w.heap[i] = w.heap[parent]
        i = parent
    w.heap[i] = e


cdef Event heap_pop(World *w) noexcept nogil:
    cdef Event top = w.heap[0]
    cdef Event last
    cdef size_t i = 0, child
    w.heap_count -= 1
    last = w.heap[w.heap_count]
    while True:
        child = 2 * i + 1
        if child >= w.heap_count:
            break
        if child + 1 < w.heap_count and before(&w.heap[child + 1], &w.heap[child]):
            child += 1
        if not before(&w.heap[child], &last):
            break
        w.heap[i] = w.heap[child]
        i = child
    w.heap[i] = last
    return top
