# cython: language_level=3
"""Recovery of the log: a pure function over the bytes of its segments.

Theory of operation
===================

The writer has one write in flight. A write is RECORD_WRITE, the records that became ready, zeros up to the next block.
RECORD_WRITE holds its own position and how far the log was durable when it was issued. Every crc starts from a seed
made of incarnation and segment number, so a recycled segment cannot show records of its former number; every record
names the crc of the record before it, so records of two histories never mix.

A segment ends with a write that carries LOG_END. The order at a change of segments is: header of n+1 durable under a
spare's name; rename, directory synced; LOG_END in n durable; first write of n+1. So LOG_END in n proves that n+1 was
there with a good header, and the header of n+1 (its `durable`) proves n up to where the write with LOG_END begins.

Before a segment is recycled, a durable write says (`oldest`) that the log now begins behind it.

Recovery walks the writes in order to P, the first place where no whole write verifies. Then it looks on every block
boundary from P on, in this and all later segments, for a RECORD_WRITE that verifies by itself, and at the headers:

    P   first place where no whole write verifies; S its segment
    H   highest position proven durable by any valid RECORD_WRITE or header, wherever it stands
    D   `durable` in the header of segment S+1

    row  what is found                                                              verdict
     1   no segment                                                                 empty: a new log
     2   a header does not verify (except as in row 12)                             damage
     3   a header or record whose crc is right, of an unknown version or type       unsupported
     4   a gap in the segment numbers                                               damage: a segment is missing
     5   the first segment is above the highest `oldest`                            damage: the oldest segment is missing
     6   headers contradict one another, the file's name or length, or the chain    damage
     7   the last segment ends with LOG_END                                         damage: the newest segment is missing
     8   H > P                                                                      damage: acknowledged data is bad
     9   a record whose crc and chain are right says what cannot be                 damage
    10   H <= P, only zeros from P to the end of S, no segment S+1                  good: the log ends at P
    11   H <= P, other bytes behind P, no segment S+1                               torn: cut at P, what is behind is erased
    12   as 10 or 11, and S+1 is the last segment, without a valid write, its
         header bad or D = P: a change of segments that was not finished            torn: S+1 goes back to the spares
    13   as 12, but D < P, or there are more segments behind                        damage

A bad header of a segment that LOG_END leads to is row 2 even if nothing was written behind it: the order above does not
leave one behind, a disk that lost the block does. A whole write is cut or kept, never a part of it: its records were
acknowledged together or not at all.

What lies between H and the cut was read, which does not make it durable: `rewrite` lists it, and it is written again
before anything stands on it.
"""
from cpython.buffer cimport Py_buffer, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

from paxos._codec cimport crc32c
from paxos._log cimport (
    LOG_END, RECORD_HEAD, RecordRef, SEGMENT_MAX, SEGMENT_MIN, Segment, WRITE_HEAD, log_aligned, log_blocks, log_crc_right,
    log_known, log_seed,
)
from paxos._types cimport (
    BLOCK, FORMAT_VERSION, Record, RECORD_IDENTITY, RECORD_WRITE, RecordIdentity, RecordWrite, SEGMENT_MAGIC, xrealloc, xzalloc,
)


_REASONS = {
    NO_WRITE: "no write verifies here",
    STALE_CHAIN: "the write here does not follow the record before it",
    RECORD_BAD: "a record of this write does not verify",
    RECORD_CHAIN: "a record of this write does not follow the one before it",
    PADDING: "the zeros that fill up a record or a write are not zero",
    IMPOSSIBLE_WRITE: "a write verifies, but its position, length or boot number cannot be",
    IMPOSSIBLE_RECORD: "a record verifies, but its fields cannot be",
    OTHER_IDENTITY: "an identity record names another node or incarnation than the segment does",
    UNKNOWN: "a record verifies, but its format version or type is not known to this version of the library",
}


cdef bint _zeros(const uint8_t *data, size_t size) noexcept nogil:
    if size == 0:
        return True
    return data[0] == 0 and (size == 1 or memcmp(data, data + 1, size - 1) == 0)


cdef int recovery_write(const uint8_t *data, size_t room, uint64_t position, uint32_t seed, Record *r,
                        RecordWrite *write) noexcept nogil:
    """The RECORD_WRITE at data, judged by itself. `room`: bytes to the end of the segment."""
    if not log_crc_right(data, room, seed, r):
        return NO_WRITE
    if r.version != FORMAT_VERSION:
        return UNKNOWN
    # A value may hold a copy of log bytes; only here, where it says it is, can a write be one.
    if r.type != RECORD_WRITE or r.instance != position:
        return NO_WRITE
    if r.size != sizeof(RecordWrite) or r.group != 0 or r.zero != 0 or r.flags & ~LOG_END:
        return IMPOSSIBLE_WRITE
    memcpy(write, data + RECORD_HEAD, sizeof(RecordWrite))
    if (write.durable != position or write.length < BLOCK or write.length % BLOCK != 0 or write.length > room
            or (not r.flags & LOG_END and room - write.length < BLOCK)
            or write.records > (write.length - WRITE_HEAD) / RECORD_HEAD):
        return IMPOSSIBLE_WRITE
    return OK


cdef void _note(Walk *k, const RecordWrite *write) noexcept nogil:
    """What a valid RECORD_WRITE proves, wherever it stands."""
    if write.durable > k.durable:
        k.durable = write.durable
    if write.oldest > k.oldest:
        k.oldest = write.oldest
    if write.boot > k.boot:
        k.boot = write.boot


cdef void _found(RecordTable *t, uint64_t position, const Record *r, const uint8_t *body) noexcept nogil:
    cdef RecordRef *ref
    if t.count == t.capacity:
        t.capacity = t.capacity * 2 if t.capacity else 256
        t.refs = <RecordRef *>xrealloc(t.refs, t.capacity * sizeof(RecordRef))
    ref = &t.refs[t.count]
    ref.position = position
    ref.body = body
    ref.instance = r.instance
    ref.size = r.size
    ref.group = r.group
    ref.type = r.type
    t.count += 1


cdef int recovery_records(Walk *k, const uint8_t *data, uint64_t position, uint32_t seed, const RecordWrite *write,
                          uint32_t *chain) noexcept nogil:
    """The records of the write at data; into the table, which the caller takes back to where it was on failure."""
    cdef size_t at = WRITE_HEAD, end
    cdef uint32_t i
    cdef Record r
    cdef RecordIdentity identity
    for i in range(write.records):
        if at > write.length or not log_crc_right(data + at, write.length - at, seed, &r):
            return RECORD_BAD
        if r.previous != chain[0]:
            return RECORD_CHAIN
        if not log_known(&r):
            return UNKNOWN
        if r.type == RECORD_WRITE or r.flags != 0 or r.zero != 0:
            return IMPOSSIBLE_RECORD
        if r.type == RECORD_IDENTITY:
            if r.size != sizeof(RecordIdentity):
                return IMPOSSIBLE_RECORD
            memcpy(&identity, data + at + RECORD_HEAD, sizeof(RecordIdentity))
            if (identity.inc_hi != k.inc_hi or identity.inc_lo != k.inc_lo or identity.node != k.node
                    or identity.boot != write.boot):
                return OTHER_IDENTITY
        chain[0] = r.crc
        end = at + RECORD_HEAD + r.size
        _found(&k.table, position + at, &r, data + at + RECORD_HEAD)
        at = at + RECORD_HEAD + log_aligned(r.size)
        if at > write.length:
            return IMPOSSIBLE_RECORD        # lengths are multiples of 8, so this takes a wrong writer
        if not _zeros(data + end, at - end):
            return PADDING
    if not _zeros(data + at, write.length - at):
        return PADDING
    if log_blocks(at) != write.length:
        return IMPOSSIBLE_WRITE
    return OK


cdef int recovery_walk(Walk *k, const uint8_t *data, uint64_t number) noexcept nogil:
    """Takes the writes of one segment, from k.offset on, up to LOG_END (OK) or the first that is not whole."""
    cdef uint32_t seed = log_seed(k.inc_hi, k.inc_lo, number)
    cdef uint32_t chain
    cdef uint64_t position
    cdef size_t mark
    cdef Record r
    cdef RecordWrite write
    cdef int reason
    k.ended = False
    while not k.ended:
        position = number * k.segment_size + k.offset
        reason = recovery_write(data + k.offset, k.segment_size - k.offset, position, seed, &r, &write)
        if reason != OK and reason != IMPOSSIBLE_WRITE:
            return reason
        if r.previous != k.chain:
            return STALE_CHAIN
        if reason != OK or write.boot < k.boot:
            return IMPOSSIBLE_WRITE
        chain = r.crc
        mark = k.table.count
        reason = recovery_records(k, data + k.offset, position, seed, &write, &chain)
        if reason != OK:
            k.table.count = mark
            return reason
        k.chain = chain
        _note(k, &write)
        k.last = position
        k.offset += write.length
        k.ended = r.flags & LOG_END
    return OK


cdef uint64_t _scan(Walk *k, const uint8_t *data, uint64_t number, uint64_t offset, uint64_t size) noexcept nogil:
    """Notes every RECORD_WRITE from offset on that verifies by itself; the position of the last one, 0: none."""
    cdef uint32_t seed = log_seed(k.inc_hi, k.inc_lo, number)
    cdef uint64_t position, last = 0
    cdef Record r
    cdef RecordWrite write
    while offset + BLOCK <= size:
        position = number * k.segment_size + offset
        if recovery_write(data + offset, size - offset, position, seed, &r, &write) == OK:
            _note(k, &write)
            last = position
        offset += BLOCK
    return last


cdef int recovery_header(const uint8_t *data, size_t size, Segment *h) noexcept nogil:
    """0: good. -1: does not verify. 1: verifies, but of an unknown version."""
    if size < BLOCK:
        return -1
    memcpy(h, data, sizeof(Segment))
    if h.magic != SEGMENT_MAGIC or crc32c(0, data + 8, BLOCK - 8) != h.crc:
        return -1
    if h.version != FORMAT_VERSION:
        return 1
    if h.size < SEGMENT_MIN or h.size > SEGMENT_MAX or h.size % BLOCK != 0 or h.zero != 0:
        return -1
    return 0


cdef class Recovered:
    """What :func:`recover` found out. Holds the buffers it was given until it is deleted.

    ``outcome``  "empty", "good", "torn", "damaged" or "unsupported"; ``row`` the row of the table above that says so
    ``cut``      (segment, offset) where the log ends and the next write goes; None unless good or torn
    ``where``    (segment, offset) of what is wrong, ``why`` it is in words; None and "" unless damaged or unsupported
    ``erase``    [(segment, offset, length)] to be overwritten with zeros, durably, before anything is appended
    ``rewrite``  [(segment, offset, length)] to be written again as it is, durably, before anything stands on it
    ``legible``  how many records stand before the end of the log, or before what is wrong
    ``drop``     numbers of segments that were begun and never used; they must not stay under their names
    """

    def __dealloc__(self):
        cdef Py_buffer *views = <Py_buffer *>self.views
        cdef size_t i
        for i in range(self.view_count):
            PyBuffer_Release(&views[i])
        free(self.views)
        free(self.numbers)
        free(self.walk.table.refs)

    @property
    def durable(self):
        """Highest position that any valid record proves durable."""
        return self.walk.durable

    @property
    def previous(self):
        """crc of the last record, from which the chain goes on."""
        return self.walk.chain

    @property
    def boot(self):
        """Highest boot number found; the next start takes the next one."""
        return self.walk.boot

    @property
    def incarnation(self):
        """The incarnation as (high, low) 64 bits."""
        return self.walk.inc_hi, self.walk.inc_lo

    @property
    def node(self):
        """Node id of the log."""
        return self.walk.node

    @property
    def segment_size(self):
        """Bytes a segment, from its header."""
        return self.walk.segment_size

    @property
    def oldest(self):
        """Number of the oldest segment the log still needs."""
        return self.walk.oldest

    @property
    def records(self):
        """[(position, type, group, instance, body)] in log order, without RECORD_WRITE; [] unless good or torn."""
        cdef size_t i
        cdef RecordRef *ref
        found = []
        for i in range(self.walk.table.count):
            ref = &self.walk.table.refs[i]
            found.append((ref.position, ref.type, ref.group, ref.instance, <bytes>(<const char *>ref.body)[:ref.size]))
        return found

    def record(self, size_t index):
        """(position, type, group, instance, body) of one record, below ``legible``: for tools, which may show what stands before
        damage. IndexError above that."""
        cdef RecordRef *ref
        if index >= self.legible:
            raise IndexError(f"record {index} of {self.legible}")
        ref = &self.walk.table.refs[index]
        return ref.position, ref.type, ref.group, ref.instance, <bytes>(<const char *>ref.body)[:ref.size]

    cdef _take(self, segments):
        cdef Py_buffer *views = <Py_buffer *>xzalloc(len(segments) * sizeof(Py_buffer))
        self.views = views
        self.numbers = <uint64_t *>xzalloc(len(segments) * sizeof(uint64_t))
        for number, data in segments:
            self.numbers[self.view_count] = number
            PyObject_GetBuffer(data, &views[self.view_count], PyBUF_SIMPLE)
            self.view_count += 1

    cdef _bad(self, int row, uint64_t number, uint64_t offset, str why):
        self.outcome = "unsupported" if row == 3 else "damaged"
        self.row = row
        self.where = (number, offset)
        self.why = why
        self.legible = self.walk.table.count
        self.walk.table.count = 0       # of a log with a hole in it no record may be taken for the whole story

    cdef _judge(self):
        cdef Py_buffer *views = <Py_buffer *>self.views
        cdef Walk *k = &self.walk
        cdef size_t i, n = self.view_count, at = 0
        cdef Segment h, first
        cdef int state, reason = OK
        cdef bint known = False, bad_last = False
        cdef uint64_t place, last, valid = 0
        cdef const uint8_t *data
        memset(&first, 0, sizeof(first))
        self.erase, self.rewrite, self.drop, self.why = [], [], [], ""
        if n == 0:
            self.outcome, self.row = "empty", 1
            return
        for i in range(n):
            state = recovery_header(<const uint8_t *>views[i].buf, views[i].len, &h)
            if state > 0:
                return self._bad(3, self.numbers[i], 0, f"the segment has format version {h.version}; this version of the "
                                 f"library knows version {FORMAT_VERSION} only")
            if state < 0:
                if i + 1 < n or i == 0:
                    return self._bad(2, self.numbers[i], 0, "the segment's header does not verify")
                bad_last = True             # row 12 or 2, as the segment before it says
                continue
            if not known:
                known, first = True, h
                k.segment_size, k.inc_hi, k.inc_lo, k.node = h.size, h.inc_hi, h.inc_lo, h.node
            if (h.size != first.size or h.inc_hi != first.inc_hi or h.inc_lo != first.inc_lo or h.node != first.node):
                return self._bad(6, self.numbers[i], 0, "the segment belongs to another log than the first one")
            if h.number != self.numbers[i]:
                return self._bad(6, self.numbers[i], 0, f"the segment's header says that it is number {h.number}")
            if <uint64_t>views[i].len != h.size:
                return self._bad(6, self.numbers[i], 0, f"the segment has {views[i].len} bytes, its header says {h.size}")
            k.durable = max(k.durable, h.durable)
            k.oldest = max(k.oldest, h.oldest)
        for i in range(1, n):
            if self.numbers[i] != self.numbers[i - 1] + 1:
                return self._bad(4, self.numbers[i - 1] + 1, 0, "this segment is missing, a later one is there")

        # The walk to P.
        k.chain = first.previous
        at = 0
        while True:
            k.offset = BLOCK
            data = <const uint8_t *>views[at].buf
            with nogil:
                reason = recovery_walk(k, data, self.numbers[at])
            if reason != OK:
                break
            if at + 1 == n:
                return self._bad(7, self.numbers[at] + 1, 0, "this segment is missing: the one before it says that the log "
                                 "goes on in it")
            if at + 2 == n and bad_last:
                return self._bad(2, self.numbers[n - 1], 0, "the segment's header does not verify")
            at += 1
            recovery_header(<const uint8_t *>views[at].buf, views[at].len, &h)
            if h.previous != k.chain or h.durable != k.last:
                return self._bad(6, self.numbers[at], 0, "the segment does not go on where the one before it ends")
        place = self.numbers[at] * k.segment_size + k.offset
        if reason == UNKNOWN:
            return self._bad(3, self.numbers[at], k.offset, _REASONS[UNKNOWN])
        if reason >= CONTRADICTION:
            return self._bad(9, self.numbers[at], k.offset, _REASONS[reason])

        # What stands behind P.
        for i in range(at, n):
            data = <const uint8_t *>views[i].buf
            with nogil:
                last = _scan(k, data, self.numbers[i], k.offset if i == at else BLOCK,
                             min(<uint64_t>views[i].len, k.segment_size))
            if i > at:
                valid = max(valid, last)
        if k.durable > place:
            return self._bad(8, self.numbers[at], k.offset, f"{_REASONS[reason]}, and the log was durable up to segment "
                             f"{k.durable // k.segment_size}, offset {k.durable % k.segment_size}")
        if self.numbers[0] > k.oldest:
            return self._bad(5, self.numbers[0] - 1, 0, f"this segment is missing: the log begins in segment {k.oldest}")
        if at + 1 < n:
            recovery_header(<const uint8_t *>views[at + 1].buf, views[at + 1].len, &h)
            if at + 2 < n or valid or (not bad_last and h.durable != place):
                return self._bad(13, self.numbers[at], k.offset, f"{_REASONS[reason]}, and a later segment is in use")
            self.drop.append(self.numbers[at + 1])

        self.legible = k.table.count
        self.cut = (self.numbers[at], k.offset)
        data = <const uint8_t *>views[at].buf
        self._list_erase(data, self.numbers[at], k.offset)
        self.outcome = "torn" if self.erase or self.drop else "good"
        self.row = 12 if self.drop else 11 if self.erase else 10
        if k.last and k.last == k.durable:
            # Only the last whole write can be unproven, since each proves what is before it; with LOG_END it lies in
            # the segment before.
            i = at if k.last / k.segment_size == self.numbers[at] else at - 1
            last = k.last % k.segment_size
            self.rewrite.append((self.numbers[i], last, self._length(i, last)))

    cdef uint64_t _length(self, size_t view, uint64_t offset) noexcept:
        """Length of the write that was found good at that offset."""
        cdef RecordWrite write
        memcpy(&write, <const uint8_t *>(<Py_buffer *>self.views)[view].buf + offset + RECORD_HEAD, sizeof(write))
        return write.length

    cdef _list_erase(self, const uint8_t *data, uint64_t number, uint64_t offset):
        cdef uint64_t begin = 0, size = self.walk.segment_size
        while offset < size:
            if _zeros(data + offset, BLOCK):
                if begin:
                    self.erase.append((number, begin, offset - begin))
                begin = 0
            elif begin == 0:
                begin = offset
            offset += BLOCK
        if begin:
            self.erase.append((number, begin, size - begin))


def recover(segments):
    """Judges a log: ``segments`` is [(number, bytes-like)], one item for each segment file, in any order.

    Pure: nothing is read or written but these bytes, and no bytes make it raise. Returns a :class:`Recovered`.
    """
    cdef Recovered found = Recovered.__new__(Recovered)
    found._take(sorted(segments, key=_number))
    found._judge()
    return found


def _number(item):
    return item[0]
