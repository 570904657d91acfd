# cython: language_level=3
"""Frames above FRAME_WHOLE travel in pieces, so that small frames pass between; here they are put together again.

A connection carries one such frame at a time, and its pieces in order. So each piece must continue what is there, byte by
byte; the first one must show the head of a frame of a group, of the size announced. Memory is taken as bytes come, never on
the word of a head alone, and at most `max_frame`. The whole is checked like any frame, by its own crc.
"""
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset
from paxos._codec cimport (
    FRAME_BAD_BODY, FRAME_BAD_CRC, FRAME_BAD_LENGTH, FRAME_BAD_MAGIC, FRAME_BAD_TYPE, FRAME_BAD_VERSION, FRAME_OK, frame_check,
)
from paxos._types cimport FRAME_MAGIC, FRAME_PIECE, FRAME_PREVOTE, Frame, Piece, xrealloc

cdef enum:
    TRANSFER_FIRST = 262144         # memory that a transfer begins with
    TRANSFER_KEPT = 2097152         # memory that is kept for the next one

cdef dict _ERRORS = {
    FRAME_OK: "it does not fit what came before", FRAME_BAD_MAGIC: "magic", FRAME_BAD_VERSION: "version",
    FRAME_BAD_LENGTH: "length", FRAME_BAD_CRC: "crc", FRAME_BAD_TYPE: "type", FRAME_BAD_BODY: "body",
}


cdef bint _begins(const Transfer *t, const Frame *frame, const Piece *piece, const uint8_t *data, size_t size) noexcept nogil:
    """Whether this is the first piece of a transfer: its frame's head is in it, and says the same."""
    cdef Frame inner
    if piece.offset != 0 or piece.transfer != t.number + 1 or size < sizeof(Frame):
        return False
    memcpy(&inner, data, sizeof(Frame))
    return (inner.magic == FRAME_MAGIC and inner.length == piece.total and inner.sender == frame.sender
            and inner.type >= FRAME_PREVOTE)


cdef int transfer_take(Transfer *t, const Frame *frame, uint32_t max_frame, int *error) noexcept nogil:
    cdef const uint8_t *data = <const uint8_t *>frame + sizeof(Frame) + sizeof(Piece)
    cdef size_t size = frame.length - sizeof(Frame) - sizeof(Piece)
    cdef size_t need
    cdef Piece piece
    memcpy(&piece, <const uint8_t *>frame + sizeof(Frame), sizeof(Piece))
    error[0] = FRAME_OK
    if t.total == 0:
        if piece.total > max_frame:
            error[0] = FRAME_BAD_LENGTH
            return TRANSFER_WRONG
        if not _begins(t, frame, &piece, data, size):
            return TRANSFER_WRONG
        t.number = piece.transfer
        t.total = piece.total
        t.size = 0
    elif piece.transfer != t.number or piece.total != t.total or piece.offset != t.size:
        return TRANSFER_WRONG
    # The codec has seen that the piece does not reach beyond the total.
    if t.size + size > t.capacity:
        need = max(max(t.size + size, t.capacity * 2), <size_t>TRANSFER_FIRST)
        t.capacity = min(need, <size_t>t.total)
        t.data = <uint8_t *>xrealloc(t.data, t.capacity)
    memcpy(t.data + t.size, data, size)
    t.size += size
    if t.size < t.total:
        return TRANSFER_MORE
    error[0] = frame_check(t.data, t.size, max_frame, &need)
    t.total = 0
    return TRANSFER_WHOLE if error[0] == FRAME_OK else TRANSFER_WRONG


cdef const Frame *transfer_under_way(const Transfer *t, size_t least) noexcept nogil:
    return <const Frame *>t.data if t.total != 0 and t.size >= least else NULL


cdef void transfer_done(Transfer *t) noexcept nogil:
    if t.total == 0 and t.capacity > TRANSFER_KEPT:
        free(t.data)
        t.data = NULL
        t.capacity = 0


cdef void transfer_free(Transfer *t) noexcept nogil:
    free(t.data)
    memset(t, 0, sizeof(Transfer))


cdef class Assembly:
    """One connection's transfers for Python: tests. One thread at a time."""
    cdef Transfer transfer
    cdef uint32_t max_frame

    def __init__(self, uint32_t max_frame):
        self.max_frame = max_frame

    def __dealloc__(self):
        transfer_free(&self.transfer)

    def __reduce__(self):
        raise TypeError("an Assembly cannot be copied or pickled")

    def take(self, bytes frame not None):
        """The whole frame, once its last piece is there. ValueError: the connection would be closed for it."""
        cdef size_t need = 0
        cdef int error = 0
        cdef int code
        cdef const uint8_t *data = <const uint8_t *><const char *>frame
        code = frame_check(data, len(frame), self.max_frame, &need)
        if code != FRAME_OK or need != <size_t>len(frame) or (<const Frame *>data).type != FRAME_PIECE:
            raise ValueError("not a piece")
        code = transfer_take(&self.transfer, <const Frame *>data, self.max_frame, &error)
        if code == TRANSFER_WRONG:
            raise ValueError(f"a piece is refused: {_ERRORS[error]}")
        if code == TRANSFER_MORE:
            return None
        whole = self.transfer.data[:self.transfer.size]
        transfer_done(&self.transfer)
        return whole

    @property
    def memory(self):
        """Bytes held."""
        return self.transfer.capacity
