# cython: language_level=3
"""A queue of frames as a row of (head, shared value): what writev wants. Small frames in a row become one piece."""
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memmove
from paxos._sockets cimport iovec
from paxos._types cimport VALUE_BATCH, Value, value_new, value_ref, value_unref, xrealloc

cdef enum:
    PIECE = 65536                   # bytes from which on a piece takes no further frame


cdef void out_reset(OutQueue *q) noexcept nogil:
    cdef size_t i
    for i in range(q.first, q.count):
        value_unref(q.items[i].value)
    q.first = 0
    q.count = 0
    q.used = 0
    q.sent = 0
    q.bytes = 0


cdef void out_push(OutQueue *q, const uint8_t *head, size_t size, Value *value) noexcept nogil:
    cdef OutItem *item
    cdef size_t i
    cdef size_t base
    if q.first == q.count:
        q.first = 0
        q.count = 0
        q.used = 0
    if q.used + size > q.size:
        if q.first < q.count and q.items[q.first].head > q.used // 2:
            base = q.items[q.first].head
            memmove(q.arena, q.arena + base, q.used - base)
            q.used -= base
            for i in range(q.first, q.count):
                q.items[i].head -= base
        if q.used + size > q.size:
            q.size = (q.used + size) * 2 if q.size else 65536 + size
            q.arena = <uint8_t *>xrealloc(q.arena, q.size)
    memcpy(q.arena + q.used, head, size)
    q.bytes += size + (value.size if value != NULL else 0)
    if q.count > q.first and q.items[q.count - 1].value == NULL and q.items[q.count - 1].head_size < PIECE:
        # Heads lie one behind the other: a row of small frames is one piece. It ends somewhere, for its bytes are given back
        # only when all of it is sent: a queue that is never empty would grow for ever.
        item = &q.items[q.count - 1]
        item.head_size += size
        item.value = value_ref(value)
        q.used += size
        return
    if q.count == q.capacity:
        if q.first > q.capacity // 2:
            memmove(q.items, q.items + q.first, (q.count - q.first) * sizeof(OutItem))
            q.count -= q.first
            q.first = 0
        else:
            q.capacity = q.capacity * 2 if q.capacity else 64
            q.items = <OutItem *>xrealloc(q.items, q.capacity * sizeof(OutItem))
    item = &q.items[q.count]
    q.count += 1
    item.head = q.used
    item.head_size = size
    item.value = value_ref(value)
    q.used += size


cdef int out_iovecs(OutQueue *q, iovec *iov, int room) noexcept nogil:
    cdef int n = 0
    cdef size_t i
    cdef size_t skip = q.sent
    cdef OutItem *item
    for i in range(q.first, q.count):
        if n + 2 > room:
            break
        item = &q.items[i]
        if skip < item.head_size:
            iov[n].iov_base = q.arena + item.head + skip
            iov[n].iov_len = item.head_size - skip
            n += 1
            skip = 0
        else:
            skip -= item.head_size
        if item.value != NULL and skip < item.value.size:
            iov[n].iov_base = item.value.data + skip
            iov[n].iov_len = item.value.size - skip
            n += 1
        skip = 0
    return n


cdef void out_consume(OutQueue *q, size_t size) noexcept nogil:
    cdef OutItem *item
    cdef size_t whole
    q.bytes -= size
    q.sent += size
    while q.first < q.count:
        item = &q.items[q.first]
        whole = item.head_size + (item.value.size if item.value != NULL else 0)
        if q.sent < whole:
            return
        q.sent -= whole
        value_unref(item.value)
        q.first += 1


cdef void out_drop(OutQueue *q) noexcept nogil:
    out_reset(q)
    free(q.items)
    free(q.arena)
    q.items = NULL
    q.arena = NULL
    q.capacity = 0
    q.size = 0


cdef class SendQueue:
    """The queue for Python: tests. One thread at a time."""
    cdef OutQueue queue

    def __dealloc__(self):
        out_drop(&self.queue)

    def __reduce__(self):
        raise TypeError("a SendQueue cannot be copied or pickled")

    def push(self, bytes head not None, bytes value=None):
        """Appends a frame: its head and, shared and not copied in the engine, its value."""
        cdef Value *v = NULL
        if value is not None:
            v = value_new(VALUE_BATCH, 1, <uint32_t>len(value))
            memcpy(v.data, <const char *>value, len(value))
        out_push(&self.queue, <const uint8_t *><const char *>head, len(head), v)
        value_unref(v)

    def front(self, int pieces):
        """The bytes that one system call with up to so many pieces would be given."""
        cdef iovec iov[128]
        cdef int i
        cdef int n
        if not 2 <= pieces <= 128:
            raise ValueError("2 to 128 pieces")
        n = out_iovecs(&self.queue, iov, pieces)
        return b"".join([(<const char *>iov[i].iov_base)[:iov[i].iov_len] for i in range(n)])

    def consume(self, size_t size):
        """So many bytes are sent. ValueError: there are not so many."""
        if size > self.queue.bytes:
            raise ValueError(f"{self.queue.bytes} bytes wait, not {size}")
        out_consume(&self.queue, size)

    @property
    def waiting(self):
        """Bytes that wait."""
        return self.queue.bytes

    @property
    def memory(self):
        """Bytes held for heads and for the list of frames; values are not counted."""
        return self.queue.size + self.queue.capacity * sizeof(OutItem)
