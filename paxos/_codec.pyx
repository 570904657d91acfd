# cython: language_level=3
"""Frames, values and effects as bytes; crc32c. Nothing decoded here is trusted before its length and crc are checked."""
import ctypes
import glob
import os

import google_crc32c

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from paxos._types cimport (
    ADDRESS_MAX, Accept, Accepted, Ballot, ChunkHead, Effect, FORMAT_VERSION, FRAME_ACCEPT, FRAME_ACCEPTED, FRAME_FORM,
    FRAME_FORM_OK, FRAME_FORMED, FRAME_FORWARD, FRAME_FORWARD_REFUSED, FRAME_HEARTBEAT, FRAME_HEARTBEAT_REPLY, FRAME_HELLO,
    FRAME_CARRY, FRAME_JOIN, FRAME_KEPT, FRAME_LEARN, FRAME_LEARNED, FRAME_MAGIC, FRAME_MEMBERS, FRAME_PREPARE, FRAME_PREVOTE, FRAME_PREVOTE_REPLY, FRAME_PROMISE,
    FRAME_PIECE, FRAME_PROMISE_VALUE, FRAME_READ, FRAME_READABLE, FRAME_REFUSE, FRAME_REJECT, FRAME_RELIEVE, FRAME_TRANSFER, FRAME_WELCOME, FRAME_WHOLE, Carry, Change, Join, Kept, MEMBER_LEAVING, MEMBER_VOTER, MembershipHead, MembershipRow, RecordBase,
    VALUE_CHANGE, Forward, ForwardRefused, Frame, Heartbeat, HeartbeatReply, Learn,
    Learned, LEASE_MAX, MAX_MEMBERS, Outbox, Piece, Prepare, Prevote, PrevoteReply, Promise, PromiseValue, Read, Readable, Record, RecordAccept,
    RecordIdentity, RecordLearn, RecordPromise, RecordWatermark, RecordWrite, Reject, SETTLE_NOT_AVAILABLE,
    SETTLE_OVERLOADED, Mastership, Relieve, Transfer, VALUE_BATCH, VALUE_MASTER, VALUE_NOOP, Value,
    ValueHead, value_new, value_unref, xrealloc,
)

cdef enum:
    ARENA_KEPT = 4194304            # the memory of a large Forward is not kept for ever

ctypedef uint32_t (*crc_function)(uint32_t crc, const uint8_t *data, size_t size) noexcept nogil

cdef crc_function _extend = NULL


cdef object _load_crc32c():
    """Finds crc32c_extend of the C library that google-crc32c carries: called from C it costs no GIL and takes any memory."""
    if google_crc32c.implementation != "c":
        raise ImportError(
            "paxos needs the C implementation of google-crc32c, and this installation has only the slow Python one; "
            "install a wheel of google-crc32c for this platform (pip install --force-reinstall --only-binary :all: google-crc32c)"
        )
    package = os.path.dirname(google_crc32c.__file__)
    candidates = sorted(glob.glob(os.path.join(os.path.dirname(package), "google_crc32c.libs", "libcrc32c*")))
    candidates += sorted(glob.glob(os.path.join(package, "_crc32c*.so")))     # linked statically, or against the system's
    for path in candidates:
        library = ctypes.CDLL(path)
        try:
            return library, ctypes.cast(library.crc32c_extend, ctypes.c_void_p).value
        except AttributeError:
            continue
    raise ImportError(f"paxos found no crc32c_extend in {candidates or package}; reinstall google-crc32c from its wheel")


_library, _address = _load_crc32c()     # the library object is kept so that it stays loaded
_extend = <crc_function><uintptr_t>_address
if _extend(0, b"123456789", 9) != 0xE3069283:
    raise ImportError("paxos: crc32c_extend of google-crc32c gives a wrong checksum; reinstall google-crc32c")

_SIZES = {
    "Ballot": (sizeof(Ballot), 32), "Frame": (sizeof(Frame), 64), "ValueHead": (sizeof(ValueHead), 16),
    "ChunkHead": (sizeof(ChunkHead), 32), "Piece": (sizeof(Piece), 16), "Prevote": (sizeof(Prevote), 40), "PrevoteReply": (sizeof(PrevoteReply), 72),
    "Prepare": (sizeof(Prepare), 80), "PromiseValue": (sizeof(PromiseValue), 96), "Promise": (sizeof(Promise), 48),
    "Reject": (sizeof(Reject), 64), "Accept": (sizeof(Accept), 64), "Accepted": (sizeof(Accepted), 48),
    "Heartbeat": (sizeof(Heartbeat), 56), "HeartbeatReply": (sizeof(HeartbeatReply), 56), "Transfer": (sizeof(Transfer), 32), "Relieve": (sizeof(Relieve), 40),
    "Read": (sizeof(Read), 16), "Readable": (sizeof(Readable), 24), "Learn": (sizeof(Learn), 24),
    "Learned": (sizeof(Learned), 16), "Forward": (sizeof(Forward), 40), "ForwardRefused": (sizeof(ForwardRefused), 48),
    "Record": (sizeof(Record), 32), "RecordPromise": (sizeof(RecordPromise), 32), "RecordAccept": (sizeof(RecordAccept), 64),
    "RecordLearn": (sizeof(RecordLearn), 32), "RecordWatermark": (sizeof(RecordWatermark), 16),
    "RecordWrite": (sizeof(RecordWrite), 24), "RecordIdentity": (sizeof(RecordIdentity), 24),
    "Kept": (sizeof(Kept), 16), "Carry": (sizeof(Carry), 8), "Join": (sizeof(Join), 16), "Change": (sizeof(Change), 8),
    "MembershipHead": (sizeof(MembershipHead), 56), "Mastership": (sizeof(Mastership), 32), "MembershipRow": (sizeof(MembershipRow), 40), "RecordBase": (sizeof(RecordBase), 40),
}
for _name, (_is, _should) in _SIZES.items():
    if _is != _should:
        raise ImportError(f"paxos: {_name} has {_is} bytes on this platform, the format says {_should}")


cdef uint32_t crc32c(uint32_t crc, const void *data, size_t size) noexcept nogil:
    return _extend(crc, <const uint8_t *>data, size)


def checksum(const uint8_t[::1] data not None, uint32_t crc=0):
    """crc32c of ``data``, continuing from ``crc``."""
    if data.shape[0] == 0:
        return crc
    return _extend(crc, &data[0], data.shape[0])


# ---- frames ----

cdef size_t _body_minimum(uint8_t type) noexcept nogil:
    """Fixed bytes of a frame's body; 0 for a type that does not exist."""
    if type == FRAME_HELLO:
        return 32
    if type == FRAME_REFUSE:
        return 8
    if type == FRAME_FORM or type == FRAME_FORM_OK or type == FRAME_FORMED or type == FRAME_WELCOME or type == FRAME_MEMBERS:
        return 24
    if type == FRAME_PIECE:
        return sizeof(Piece)
    if type == FRAME_JOIN:
        return sizeof(Join)
    if type == FRAME_KEPT:
        return sizeof(Kept)
    if type == FRAME_CARRY:
        return sizeof(Carry)
    if type == FRAME_PREVOTE:
        return sizeof(Prevote)
    if type == FRAME_PREVOTE_REPLY:
        return sizeof(PrevoteReply)
    if type == FRAME_PREPARE:
        return sizeof(Prepare)
    if type == FRAME_PROMISE_VALUE:
        return sizeof(PromiseValue)
    if type == FRAME_PROMISE:
        return sizeof(Promise)
    if type == FRAME_REJECT:
        return sizeof(Reject)
    if type == FRAME_ACCEPT:
        return sizeof(Accept)
    if type == FRAME_ACCEPTED:
        return sizeof(Accepted)
    if type == FRAME_HEARTBEAT:
        return sizeof(Heartbeat)
    if type == FRAME_HEARTBEAT_REPLY:
        return sizeof(HeartbeatReply)
    if type == FRAME_TRANSFER:
        return sizeof(Transfer)
    if type == FRAME_RELIEVE:
        return sizeof(Relieve)
    if type == FRAME_READ:
        return sizeof(Read)
    if type == FRAME_READABLE:
        return sizeof(Readable)
    if type == FRAME_LEARN:
        return sizeof(Learn)
    if type == FRAME_LEARNED:
        return sizeof(Learned)
    if type == FRAME_FORWARD:
        return sizeof(Forward)
    if type == FRAME_FORWARD_REFUSED:
        return sizeof(ForwardRefused)
    return 0


cdef int _check_chunks(const uint8_t *data, size_t size, uint32_t *values) noexcept nogil:
    """A row of chunks that fills data exactly: how many chunks, or -1."""
    cdef size_t at = 0, end, chunks = 0
    cdef ChunkHead head
    cdef uint32_t i, length
    cdef uint64_t total = 0
    while at < size:
        if size - at < sizeof(ChunkHead):
            return -1
        memcpy(&head, data + at, sizeof(ChunkHead))
        at += sizeof(ChunkHead)
        if head.size > size - at or head.count == 0:
            return -1
        end = at + head.size
        for i in range(head.count):
            if end - at < 4:
                return -1
            memcpy(&length, data + at, 4)
            at += 4
            if length > end - at:
                return -1
            at += length
        if at != end:
            return -1
        total += head.count
        chunks += 1
    if total > 0x7FFFFFFF or chunks > 0x7FFFFFFF:
        return -1
    values[0] = <uint32_t>total
    return <int>chunks


cdef int rows_check(const uint8_t *data, size_t size, uint32_t count) noexcept nogil:
    cdef MembershipRow row
    cdef uint32_t nodes[32]
    cdef size_t at = 0
    cdef uint32_t i, k
    cdef bint votes = False
    if count == 0 or count > MAX_MEMBERS:
        return -1
    for i in range(count):
        if size - at < sizeof(MembershipRow):
            return -1
        memcpy(&row, data + at, sizeof(MembershipRow))
        at += sizeof(MembershipRow)
        if row.role > MEMBER_LEAVING or row.address > ADDRESS_MAX or row.address > size - at:
            return -1
        nodes[i] = row.node
        if row.node == 0 and (row.role or row.inc_hi or row.inc_lo or row.since or row.instead or row.address):
            return -1
        votes = votes or (row.node != 0 and row.role == MEMBER_VOTER)
        for k in range(i):
            if row.node != 0 and nodes[k] == row.node:
                return -1
        for k in range(row.address):
            if not 0x20 < data[at + k] < 0x7F:
                return -1
        at += row.address
    return 0 if at == size and votes else -1


cdef int members_check(const uint8_t *data, size_t size) noexcept nogil:
    cdef MembershipHead head
    if size < sizeof(MembershipHead):
        return -1
    memcpy(&head, data, sizeof(MembershipHead))
    if head.lease > LEASE_MAX or head.count > MAX_MEMBERS or head.before >> head.count:
        return -1
    return rows_check(data + sizeof(MembershipHead), size - sizeof(MembershipHead), head.count)


cdef int value_check(const ValueHead *head, const uint8_t *data, size_t available) noexcept nogil:
    cdef uint32_t values = 0
    cdef Mastership mastership
    cdef Change change
    if head.size > available or head.zero != 0:
        return -1
    if head.kind == VALUE_NOOP:
        return 0 if head.size == 0 and head.count == 0 else -1
    if head.kind == VALUE_CHANGE:
        if head.size < sizeof(Change) or head.count != 0:
            return -1
        memcpy(&change, data, sizeof(Change))
        return rows_check(data + sizeof(Change), head.size - sizeof(Change), change.count)
    if head.kind == VALUE_MASTER:
        if head.size != sizeof(Mastership) or head.count != 0:
            return -1
        memcpy(&mastership, data, sizeof(Mastership))
        return 0 if mastership.lease <= (0 if mastership.takeover == 1 else LEASE_MAX) and mastership.takeover <= 1 else -1
    if head.kind != VALUE_BATCH:
        return -1
    if _check_chunks(data, head.size, &values) <= 0 or values != head.count:
        return -1
    return 0


cdef int _check_body(uint8_t type, const uint8_t *body, size_t size) noexcept nogil:
    """0 where the variable part of a body is what its fixed part says, to the byte; else -1."""
    cdef size_t fixed = _body_minimum(type), at
    cdef ValueHead head
    cdef Learned learned
    cdef Forward forward
    cdef ForwardRefused refused
    cdef Piece piece
    cdef uint32_t i, values = 0, members
    if type == FRAME_ACCEPT or type == FRAME_PROMISE_VALUE:
        memcpy(&head, body + fixed - sizeof(ValueHead), sizeof(ValueHead))
        if head.size != size - fixed:
            return -1
        return value_check(&head, body + fixed, size - fixed)
    if type == FRAME_LEARNED:
        memcpy(&learned, body, sizeof(Learned))
        at = fixed
        for i in range(learned.count):
            if size - at < sizeof(ValueHead):
                return -1
            memcpy(&head, body + at, sizeof(ValueHead))
            at += sizeof(ValueHead)
            if value_check(&head, body + at, size - at) < 0:
                return -1
            at += head.size
        return 0 if at == size else -1
    if type == FRAME_FORWARD:
        memcpy(&forward, body, sizeof(Forward))
        return 0 if _check_chunks(body + fixed, size - fixed, &values) == <int64_t>forward.count else -1
    if type == FRAME_FORWARD_REFUSED:
        memcpy(&refused, body, sizeof(ForwardRefused))
        # A reason that is not known must not pass for "certainly not executed".
        if refused.reason != SETTLE_NOT_AVAILABLE and refused.reason != SETTLE_OVERLOADED:
            return -1
        return 0 if (size - fixed) % 8 == 0 and (size - fixed) // 8 == refused.count else -1
    if type == FRAME_CARRY:
        return 0                    # whose bytes these are checks them
    if type == FRAME_WELCOME or type == FRAME_MEMBERS:
        return members_check(body + fixed, size - fixed)
    if type == FRAME_FORM or type == FRAME_FORM_OK or type == FRAME_FORMED:
        memcpy(&members, body + 20, 4)
        return 0 if 0 < members <= MAX_MEMBERS and size - fixed == members * <size_t>24 else -1
    if type == FRAME_REFUSE:
        return 0 if size - fixed <= 1024 else -1
    if type == FRAME_PIECE:
        memcpy(&piece, body, sizeof(Piece))
        if piece.total <= FRAME_WHOLE or piece.offset >= piece.total:
            return -1
        return 0 if 0 < size - fixed <= piece.total - piece.offset else -1
    return 0 if size == fixed else -1


cdef int frame_check(const uint8_t *data, size_t size, uint32_t max_frame, size_t *need) noexcept nogil:
    cdef Frame frame                # a copy: the bytes may lie anywhere
    cdef size_t minimum
    need[0] = sizeof(Frame)
    if size < sizeof(Frame):
        return FRAME_SHORT
    memcpy(&frame, data, sizeof(Frame))
    if frame.magic != FRAME_MAGIC:
        return FRAME_BAD_MAGIC
    if frame.version != FORMAT_VERSION:
        return FRAME_BAD_VERSION
    minimum = _body_minimum(frame.type)
    if minimum == 0:
        return FRAME_BAD_TYPE
    if frame.length < sizeof(Frame) + minimum or frame.length > max_frame:
        return FRAME_BAD_LENGTH
    need[0] = frame.length
    if size < frame.length:
        return FRAME_SHORT
    if _extend(0, data + 12, frame.length - 12) != frame.crc:
        return FRAME_BAD_CRC
    if frame.flags != 0 or frame.zero != 0 or _check_body(frame.type, data + sizeof(Frame), frame.length - sizeof(Frame)) < 0:
        return FRAME_BAD_BODY
    return FRAME_OK


def check_frame(const uint8_t[::1] data not None, uint32_t max_frame=0xFFFFFFFF):
    """``(code, need)``: what frame_check says of these bytes. Code 0 is a whole, valid frame of ``need`` bytes."""
    cdef size_t need = 0
    cdef uint8_t nothing = 0
    cdef int code = frame_check(&data[0] if data.shape[0] else &nothing, data.shape[0], max_frame, &need)
    return code, need


# ---- values ----

cdef uint32_t chain_next(uint32_t chain, uint64_t instance, const Value *value) noexcept nogil:
    cdef uint64_t head[2]
    head[0] = instance
    head[1] = (<uint64_t>value.kind << 32) | value.size
    chain = _extend(chain, <const uint8_t *>head, 16)
    return _extend(chain, value.data, value.size)


cdef void value_head(ValueHead *head, const Value *value) noexcept nogil:
    head.size = value.size
    head.count = value.count
    head.kind = value.kind
    head.zero = 0


cdef Value *value_copy(const ValueHead *head, const uint8_t *data) noexcept nogil:
    cdef Value *value = value_new(head.kind, head.count, head.size)
    memcpy(value.data, data, head.size)
    return value


# ---- the outbox ----

cdef Effect *out_effect(Outbox *out, int type) noexcept nogil:
    cdef Effect *e
    if out.count == out.capacity:
        out.capacity = out.capacity * 2 if out.capacity else 64
        out.effects = <Effect *>xrealloc(out.effects, out.capacity * sizeof(Effect))
    e = &out.effects[out.count]
    out.count += 1
    memset(e, 0, sizeof(Effect))
    e.type = type
    return e


cdef void *out_head(Outbox *out, Effect *e, size_t size) noexcept nogil:
    cdef size_t at = (out.used + 7) & ~<size_t>7, room
    if at + size > out.size:
        room = out.size * 2 if out.size else 4096
        while room < at + size:
            room *= 2
        out.arena = <uint8_t *>xrealloc(out.arena, room)
        out.size = room
    e.head = at
    e.head_size = <uint32_t>size
    out.used = at + size
    if size:
        memset(out.arena + at, 0, size)     # (the arena may be NULL as long as nothing was put into it)
    return out.arena + at


cdef void out_clear(Outbox *out) noexcept nogil:
    cdef size_t i
    for i in range(out.count):
        value_unref(out.effects[i].value)
    out.count = 0
    out.used = 0
    if out.size > ARENA_KEPT:
        free(out.arena)
        out.arena = NULL
        out.size = 0


cdef void out_free(Outbox *out) noexcept nogil:
    out_clear(out)
    free(out.effects)
    free(out.arena)
    memset(out, 0, sizeof(Outbox))
