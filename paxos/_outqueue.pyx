# cython: language_level=3
"""A queue of frames as a row of (head, shared value): what writev wants. Small frames in a row become one part.

Two lanes: a frame above FRAME_WHOLE goes into the second one and leaves in pieces, each behind all small frames that wait by
then. What is begun is ended: the order of bytes is

    rest of a piece that is begun | small frames | the next piece

A piece is cut when it is its turn, and its checksum made then: its bytes stay where they are, in the head's copy and in the
value that the lanes of all peers share.
"""
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memmove, memset
from paxos._codec cimport crc32c
from paxos._sockets cimport iovec
from paxos._types cimport (
    FORMAT_VERSION, FRAME_PIECE, FRAME_WHOLE, Frame, Piece, VALUE_BATCH, Value, value_new, value_ref, value_unref, xalloc,
    xrealloc,
)

cdef enum:
    PART = 65536                    # bytes from which on a part takes no further frame
    PIECE_BYTES = 130992            # of a large frame in one piece: with its head FRAME_WHOLE
    PIECE_PARTS = 3                 # its own head; the rest of the large frame's head; value


# ---- large frames ----

cdef void large_pop(OutQueue *q) noexcept nogil:
    cdef Large *gone = q.large
    q.large = gone.next
    if q.large == NULL:
        q.last = NULL
    q.offset = 0
    value_unref(gone.value)
    free(gone)


cdef void large_push(OutQueue *q, const uint8_t *head, size_t size, Value *value) noexcept nogil:
    cdef Large *large = <Large *>xalloc(sizeof(Large) + size)
    large.next = NULL
    large.value = value_ref(value)
    large.head_size = size
    memcpy(large.head, head, size)
    if q.last == NULL:
        q.large = large
    else:
        q.last.next = large
    q.last = large


cdef bint out_holds(const OutQueue *q, const uint8_t *head, size_t size, const Value *value) noexcept nogil:
    cdef const Large *large = q.large
    cdef const Frame *frame = <const Frame *>head
    while large != NULL:
        # What is behind the frame's own head names a message for good: ballot, instance, attempt, or chunks.
        if (large.value == value and large.head_size == size and (<const Frame *>large.head).type == frame.type
                and memcmp(large.head + sizeof(Frame), head + sizeof(Frame), size - sizeof(Frame)) == 0):
            return True
        large = large.next
    return False


cdef int slices(const Large *large, size_t begin, size_t size, iovec *iov) noexcept nogil:
    """Bytes begin … begin + size - 1 of a large frame, in up to two parts."""
    cdef int n = 0
    cdef size_t some
    if size and begin < large.head_size:
        some = min(size, large.head_size - begin)
        iov[n].iov_base = <void *>(large.head + begin)
        iov[n].iov_len = some
        n += 1
        begin += some
        size -= some
    if size:
        iov[n].iov_base = large.value.data + (begin - large.head_size)
        iov[n].iov_len = size
        n += 1
    return n


cdef void cut(OutQueue *q) noexcept nogil:
    """The next piece of the large frame at the front."""
    cdef const Large *large = q.large
    cdef size_t total = large.head_size + (large.value.size if large.value != NULL else 0)
    cdef size_t size = min(total - q.offset, <size_t>PIECE_BYTES)
    cdef const Frame *inner = <const Frame *>large.head
    cdef Frame frame
    cdef Piece piece
    cdef iovec iov[2]
    cdef int i
    if q.offset == 0:
        q.transfer += 1
    memset(&frame, 0, sizeof(Frame))
    frame.magic = inner.magic
    frame.length = <uint32_t>(sizeof(q.piece) + size)
    frame.version = FORMAT_VERSION
    frame.type = FRAME_PIECE
    frame.sender = inner.sender
    frame.signature = inner.signature
    frame.inc_hi = inner.inc_hi
    frame.inc_lo = inner.inc_lo
    piece.transfer = q.transfer
    piece.total = <uint32_t>total
    piece.offset = q.offset
    memcpy(q.piece, &frame, sizeof(Frame))
    memcpy(q.piece + sizeof(Frame), &piece, sizeof(Piece))
    frame.crc = crc32c(0, q.piece + 12, sizeof(q.piece) - 12)
    for i in range(slices(large, q.offset, size, iov)):
        frame.crc = crc32c(frame.crc, iov[i].iov_base, iov[i].iov_len)
    memcpy(q.piece, &frame, sizeof(Frame))
    q.piece_size = sizeof(q.piece) + size
    q.piece_sent = 0
    q.offset += <uint32_t>size
    q.bytes += sizeof(q.piece)


cdef int piece_iovecs(OutQueue *q, iovec *iov) noexcept nogil:
    cdef size_t head = sizeof(q.piece)
    cdef size_t body = q.piece_size - head
    cdef size_t skip = 0
    cdef int n = 0
    if q.piece_sent < head:
        iov[0].iov_base = q.piece + q.piece_sent
        iov[0].iov_len = head - q.piece_sent
        n = 1
    else:
        skip = q.piece_sent - head
    return n + slices(q.large, q.offset - body + skip, body - skip, iov + n)


cdef size_t piece_consume(OutQueue *q, size_t size) noexcept nogil:
    """How many of the bytes are left when the piece has had its share."""
    cdef size_t some = min(size, q.piece_size - q.piece_sent)
    cdef const Large *large = q.large
    q.piece_sent += some
    if q.piece_size and q.piece_sent == q.piece_size:
        q.piece_size = 0
        q.piece_sent = 0
        if q.offset == large.head_size + (large.value.size if large.value != NULL else 0):
            large_pop(q)
    return size - some


# ---- the queue ----

cdef void out_reset(OutQueue *q) noexcept nogil:
    cdef size_t i
    for i in range(q.first, q.count):
        value_unref(q.items[i].value)
    while q.large != NULL:
        large_pop(q)
    q.first = 0
    q.count = 0
    q.used = 0
    q.sent = 0
    q.transfer = 0
    q.piece_size = 0
    q.piece_sent = 0
    q.bytes = 0


cdef void out_push(OutQueue *q, const uint8_t *head, size_t size, Value *value) noexcept nogil:
    cdef OutItem *item
    cdef size_t i
    cdef size_t base
    cdef size_t whole = size + (value.size if value != NULL else 0)
    if whole > FRAME_WHOLE:
        q.bytes += whole
        large_push(q, head, size, value)
        return
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
    q.bytes += whole
    if q.count > q.first and q.items[q.count - 1].value == NULL and q.items[q.count - 1].head_size < PART:
        # Heads lie one behind the other: a row of small frames is one part. It ends somewhere, for its bytes are given back
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
    cdef bint begun = q.piece_sent != 0
    if begun:
        n = piece_iovecs(q, iov)
    for i in range(q.first, q.count):
        if n + 2 > room:
            return n
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
    if begun or q.large == NULL or n + PIECE_PARTS > room:
        return n
    if q.piece_size == 0:
        cut(q)
    return n + piece_iovecs(q, iov + n)


cdef void out_consume(OutQueue *q, size_t size) noexcept nogil:
    cdef OutItem *item
    cdef size_t whole
    q.bytes -= size
    if q.piece_sent:
        size = piece_consume(q, size)
    q.sent += size
    while q.first < q.count:
        item = &q.items[q.first]
        whole = item.head_size + (item.value.size if item.value != NULL else 0)
        if q.sent < whole:
            return
        q.sent -= whole
        value_unref(item.value)
        q.first += 1
    if q.sent:
        size = q.sent
        q.sent = 0
        piece_consume(q, size)      # no more than that one was described


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
    cdef Value *last                # value of the frame that was pushed last

    def __dealloc__(self):
        out_drop(&self.queue)
        value_unref(self.last)

    def __reduce__(self):
        raise TypeError("a SendQueue cannot be copied or pickled")

    def push(self, bytes head not None, bytes value=None):
        """Appends a frame: its head and, shared and not copied in the engine, its value."""
        cdef Value *v = NULL
        if len(head) < sizeof(Frame) and len(head) + (len(value) if value is not None else 0) > FRAME_WHOLE:
            raise ValueError("a large frame has a head")
        if value is not None:
            v = value_new(VALUE_BATCH, 1, <uint32_t>len(value))
            memcpy(v.data, <const char *>value, len(value))
        out_push(&self.queue, <const uint8_t *><const char *>head, len(head), v)
        value_unref(self.last)
        self.last = v

    def holds(self, bytes head not None):
        """Whether a large frame with this head and the very value of the last push waits."""
        if len(head) < sizeof(Frame):
            raise ValueError("a frame has a head")
        return bool(out_holds(&self.queue, <const uint8_t *><const char *>head, len(head), self.last))

    def front(self, int parts):
        """The bytes that one system call with up to so many parts would be given."""
        cdef iovec iov[128]
        cdef int i
        cdef int n
        if not 3 <= parts <= 128:
            raise ValueError("3 to 128 parts")
        n = out_iovecs(&self.queue, iov, parts)
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
        """Bytes held for heads and for the list of small frames, and for large ones; values are not counted."""
        cdef const Large *large = self.queue.large
        cdef size_t size = self.queue.size + self.queue.capacity * sizeof(OutItem)
        while large != NULL:
            size += sizeof(Large) + large.head_size
            large = large.next
        return size
