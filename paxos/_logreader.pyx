# cython: language_level=3
"""Reads the chosen values out of a log that a node in another process is writing.

No lock is taken and nothing is changed. The writes are walked as recovery walks them: a write counts whole or not at all, each
record names the crc of the one before it. It counts here only when the write behind it was begun, for that was issued after it
was durable (an idle log is sealed by such a write); so what a crash of the writer takes back was never read.

Which value is chosen is decided as at a restart: per instance the one accepted under the highest ballot, once a record says that the
watermark is above it, or the one that was fetched as chosen. The chain checksum is computed over all of them, and compared with
every one that the log names, with that of the place to begin, and with the caller's at the end. Where the log holds all values
below the end but has not said yet that they are chosen, the caller's checksum decides: he has it from the node.

An acceptance lies at most RING instances above the watermark of its time, so the walk begins with the newest segment whose
first watermark is so far below the first instance wanted. The segment is gone if the node has deleted it meanwhile.
"""
import os

from libc.errno cimport EINVAL, ENOENT
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memmove, memset

from paxos._codec cimport chain_next, value_check, value_copy
from paxos._values cimport value_runs
from paxos._disk cimport DISK_DIRECT, disk_real
from paxos._log cimport LOG_END, RECORD_HEAD, RecordRef, Segment, log_seed
from paxos._recovery cimport (
    CONTRADICTION, NO_WRITE, OK, UNKNOWN, recovery_header, recovery_records, recovery_write,
)
from paxos._spares cimport NAME, segment_name
from paxos._types cimport (
    BLOCK, Ballot, RECORD_ACCEPT, RECORD_LEARN, RECORD_WATERMARK, RING, Record, RecordAccept, RecordLearn, RecordWatermark,
    RecordWrite, Value, ValueHead, ballot_compare, value_ref, value_unref, xrealloc, xzalloc,
)

from paxos._folder import segment_number
from paxos._recovery import _REASONS
from paxos.errors import StorageError

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **out, size_t alignment, size_t size)

cdef enum:
    READ_AHEAD = 2097152            # bytes in one read of the disk
    TAIL_AHEAD = 65536              # ... where the end of the log was reached
    BATCH = 1024                    # instances that one read() gives at most
    BATCH_BYTES = 4194304           # ... and bytes, but for the last of them

cdef enum Outcome:
    TAKEN = 0
    NOT_YET = 1                     # nothing whole, or nothing proven durable, at this place
    BAD_DISK = 2                    # errno in `error`
    BAD_WRITE = 3                   # a Reason in `error`
    BAD_HEADER = 4
    BAD_RECORD = 5                  # of this group, and it contradicts what was before
    BAD_CHAIN = 6
    NO_VALUE = 7
    NO_MEMORY = 8


cdef void slot_drop(Slot *s) noexcept nogil:
    value_unref(s.value)
    memset(s, 0, sizeof(Slot))


cdef class LogReader:
    """See _logreader.pyi."""

    def __cinit__(self):
        self.disk.directory = -1
        self.fd = -1

    def __init__(self, directory, uint32_t node, str incarnation not None, *, uint64_t first, uint32_t chain, uint64_t end,
                 uint32_t end_chain, uint32_t group=0):
        if end < first:
            raise ValueError(f"the end {end} lies below the first instance {first}")
        if self.slots != NULL:
            raise ValueError("a LogReader is made once")
        self.directory = os.path.join(os.path.abspath(os.fspath(directory)), "log")
        self.node = node
        self.walk.node = node
        self.walk.inc_hi = int(incarnation[:16], 16)
        self.walk.inc_lo = int(incarnation[16:], 16)
        self.group = group
        self.first = first
        self.chosen = first
        self.chain = chain
        self.end = end
        self.end_chain = end_chain
        self.slots = <Slot *>xzalloc(RING * sizeof(Slot))
        try:
            disk_real(&self.disk, os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY))
            if first < end:
                self._find()
            elif chain != end_chain:
                self._raise(BAD_CHAIN)
        except OSError as error:
            raise StorageError(f"the log in {self.directory} cannot be read: {error.strerror}") from error

    def __dealloc__(self):
        self._free()

    def close(self):
        self._free()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._free()

    @property
    def done(self):
        return self.given == 0 and self.chosen == self.end

    @property
    def place(self):
        return self.number, self.offset

    cdef void _free(self) noexcept:
        cdef uint64_t i
        if self.fd >= 0:
            self.disk.close(&self.disk, self.fd)            # was open for reading only: nothing can be lost
        if self.disk.directory >= 0:
            self.disk.close(&self.disk, self.disk.directory)
        self.fd = -1
        self.disk.directory = -1
        for i in range(RING if self.slots != NULL else 0):
            slot_drop(&self.slots[i])
        for i in range(self.given):
            value_unref(self.values[i])
        free(self.slots)
        free(self.values)
        free(self.buffer)
        free(self.walk.table.refs)
        self.given = 0
        self.slots = NULL
        self.values = NULL
        self.buffer = NULL
        self.walk.table.refs = NULL

    # -- where to begin

    def _find(self):
        numbers = sorted(number for number in map(segment_number, os.listdir(self.directory)) if number is not None)
        if not numbers:
            raise StorageError(f"there is no log in {self.directory}")
        for number in reversed(numbers):
            # All before this segment was accepted below its first watermark + RING.
            if self._open(number) and self._begins(number):
                return
        # The oldest: either it has what is wanted, or the log no longer does.
        if self.offset == 0:
            self._raise(BAD_HEADER)

    cdef bint _open(self, uint64_t number) except *:
        """Goes to the begin of a segment. False: it has none yet that verifies."""
        cdef int outcome = self._enter(number, False)
        if outcome == NOT_YET:
            return False
        if outcome != TAKEN:
            self._raise(outcome)
        return True

    cdef bint _begins(self, uint64_t number) except *:
        """Whether this segment's first write says that everything wanted lies from here on."""
        cdef RecordWrite write
        cdef Record r
        cdef size_t i
        cdef RecordRef *ref
        cdef uint64_t known
        cdef uint32_t chain = 0
        cdef int outcome = self._whole(&r, &write, &chain)
        if outcome != TAKEN and outcome != NOT_YET:
            self._raise(outcome)
        for i in range(self.walk.table.count):
            ref = &self.walk.table.refs[i]
            if ref.group != self.group:
                continue
            known = 0
            if ref.type == RECORD_ACCEPT and ref.size >= sizeof(RecordAccept):
                known = (<const RecordAccept *>ref.body).chosen
            elif ref.type == RECORD_LEARN and ref.size >= sizeof(RecordLearn):
                known = (<const RecordLearn *>ref.body).chosen
            elif ref.type == RECORD_WATERMARK and ref.size >= sizeof(RecordWatermark):
                known = (<const RecordWatermark *>ref.body).chosen
            if known:
                return known + RING <= self.first
        return False

    # -- bytes

    cdef int _need(self, uint64_t offset, size_t size) noexcept nogil:
        """Bytes offset..offset+size of the segment into the buffer; both are multiples of BLOCK."""
        cdef size_t kept = 0, want, capacity
        cdef void *bigger = NULL
        cdef int error
        if offset >= self.begin and offset + size <= self.begin + self.filled:
            return TAKEN
        want = TAIL_AHEAD if self.at_tail else READ_AHEAD
        want = <size_t>min(<uint64_t>max(want, size), self.walk.segment_size - offset)
        if self.begin <= offset < self.begin + self.filled:
            kept = <size_t>(self.begin + self.filled - offset)
        if want > self.capacity:
            capacity = self.capacity if self.capacity else READ_AHEAD
            while capacity < want:
                capacity *= 2
            if posix_memalign(&bigger, BLOCK, capacity) != 0:
                return NO_MEMORY
            if kept:
                memcpy(bigger, self.buffer + (offset - self.begin), kept)
            free(self.buffer)
            self.buffer = <uint8_t *>bigger
            self.capacity = capacity
        elif kept:
            memmove(self.buffer, self.buffer + (offset - self.begin), kept)
        self.begin = offset
        self.filled = kept
        error = self.disk.read(&self.disk, self.fd, self.buffer + kept, want - kept, offset + kept)
        if error:
            self.error = error
            return BAD_DISK
        self.filled = want
        return TAKEN

    cdef int _enter(self, uint64_t number, bint following) noexcept nogil:
        """Opens a segment and goes to its first write. `following`: it must go on where the walk is."""
        cdef char name[NAME]
        cdef Segment h
        cdef int fd = -1, error, state, outcome
        segment_name(name, number)
        error = self.disk.open(&self.disk, name, DISK_DIRECT, &fd)
        if error == EINVAL:
            error = self.disk.open(&self.disk, name, 0, &fd)
        if error == ENOENT and following:
            return NOT_YET
        if error:
            self.error = error
            self.number = number
            self.offset = 0
            return BAD_DISK
        if self.fd >= 0:
            self.disk.close(&self.disk, self.fd)        # was open for reading only
        self.fd = fd
        self.number = number
        self.offset = 0
        self.begin = 0
        self.filled = 0
        if self.walk.segment_size == 0:
            self.walk.segment_size = 16 * BLOCK         # what every segment has; the header says how much this one has
        outcome = self._need(0, BLOCK)
        if outcome != TAKEN:
            return outcome
        state = recovery_header(self.buffer, BLOCK, &h)
        if state > 0:
            self.error = UNKNOWN
            return BAD_WRITE
        if state < 0 and not following:
            self.walk.segment_size = 0
            return NOT_YET                              # begun by a write that the node is making now
        if (state < 0 or h.number != number or h.node != self.node or h.inc_hi != self.walk.inc_hi
                or h.inc_lo != self.walk.inc_lo
                or (following and (h.size != self.walk.segment_size or h.previous != self.walk.chain
                                   or h.durable != self.walk.last))):
            return BAD_HEADER
        self.walk.segment_size = h.size
        self.walk.chain = h.previous
        self.offset = BLOCK
        return TAKEN

    cdef int _head(self, uint64_t offset, Record *r, RecordWrite *write) noexcept nogil:
        """The RECORD_WRITE at an offset, if it goes on where the walk is."""
        cdef int outcome = self._need(offset, BLOCK), reason
        cdef const uint8_t *data = self.buffer + (offset - self.begin)
        if outcome != TAKEN:
            return outcome
        memcpy(r, data, RECORD_HEAD)
        if r.size != sizeof(RecordWrite):
            return NOT_YET                              # its crc would be over more than this block
        reason = recovery_write(data, <size_t>(self.walk.segment_size - offset),
                                self.number * self.walk.segment_size + offset, log_seed(self.walk.inc_hi, self.walk.inc_lo, self.number),
                                r, write)
        if reason == NO_WRITE:
            return NOT_YET
        if reason != OK:
            self.error = reason
            return BAD_WRITE
        return TAKEN

    cdef int _whole(self, Record *r, RecordWrite *write, uint32_t *chain) noexcept nogil:
        """The write where the walk is: its records in the table, the crc of the last in *chain."""
        cdef int outcome = self._head(self.offset, r, write), reason
        self.walk.table.count = 0
        if outcome != TAKEN:
            return outcome
        if r.previous != self.walk.chain:
            return NOT_YET                              # of another history: what was here before
        outcome = self._need(self.offset, write.length if r.flags & LOG_END else write.length + <size_t>BLOCK)
        if outcome != TAKEN:
            return outcome
        chain[0] = r.crc
        reason = recovery_records(&self.walk, self.buffer + (self.offset - self.begin),
                                  self.number * self.walk.segment_size + self.offset,
                                  log_seed(self.walk.inc_hi, self.walk.inc_lo, self.number), write, chain)
        if reason >= CONTRADICTION:
            self.error = reason
            return BAD_WRITE
        if reason != OK:
            self.walk.table.count = 0
            return NOT_YET                              # under way, or damaged: nobody can tell from here
        return TAKEN

    cdef int _step(self) noexcept nogil:
        """Takes one write, if it is whole and the one behind it was begun."""
        cdef Record r, behind
        cdef RecordWrite write, other
        cdef uint32_t chain = 0
        cdef uint64_t next_offset
        cdef int outcome = self._whole(&r, &write, &chain)
        if outcome != TAKEN:
            return outcome
        next_offset = self.offset + write.length
        if r.flags & LOG_END:
            return self._cross(chain)
        outcome = self._head(next_offset, &behind, &other)
        if outcome != TAKEN:
            return outcome
        if behind.previous != chain:
            return NOT_YET
        outcome = self._records()
        if outcome != TAKEN:
            return outcome
        self.walk.chain = chain
        self.offset = next_offset
        return TAKEN

    cdef int _cross(self, uint32_t chain) noexcept nogil:
        """The write that ends the segment counts as soon as the next segment has one, too."""
        cdef Record r
        cdef RecordWrite write
        cdef uint64_t number = self.number, offset = self.offset
        cdef uint32_t before = self.walk.chain
        cdef uint64_t last = number * self.walk.segment_size + offset
        cdef uint8_t *data = self.buffer
        cdef size_t capacity = self.capacity, filled = self.filled
        cdef uint64_t begin = self.begin
        cdef int fd = self.fd
        cdef int outcome
        # The records in the table point into the buffer and the next segment is looked at first: with a buffer of its own.
        self.buffer = NULL
        self.capacity = 0
        self.fd = -1
        self.walk.chain = chain
        self.walk.last = last
        outcome = self._enter(number + 1, True)
        if outcome == TAKEN:
            outcome = self._head(self.offset, &r, &write)
            if outcome == TAKEN and r.previous != chain:
                outcome = NOT_YET
        if outcome == TAKEN:
            outcome = self._records()
            if outcome != TAKEN:
                self.number = number                    # where that record is
                self.offset = offset
        if outcome != NOT_YET:
            free(data)
            self.disk.close(&self.disk, fd)             # was open for reading only
            return outcome
        free(self.buffer)
        if self.fd >= 0:
            self.disk.close(&self.disk, self.fd)
        self.buffer = data
        self.capacity = capacity
        self.begin = begin
        self.filled = filled
        self.fd = fd
        self.number = number
        self.offset = offset
        self.walk.chain = before
        return outcome

    # -- values

    cdef int _records(self) noexcept nogil:
        cdef size_t i
        cdef int outcome
        for i in range(self.walk.table.count):
            if self.chosen == self.end:
                break
            if self.walk.table.refs[i].group == self.group:
                outcome = self._record(&self.walk.table.refs[i])
                if outcome != TAKEN:
                    return outcome
        return TAKEN

    cdef int _record(self, const RecordRef *ref) noexcept nogil:
        cdef RecordAccept accept
        cdef RecordLearn learn
        cdef RecordWatermark watermark
        cdef int outcome
        if ref.type == RECORD_ACCEPT:
            if ref.size < sizeof(RecordAccept):
                return BAD_RECORD
            memcpy(&accept, ref.body, sizeof(RecordAccept))
            outcome = self._advance(accept.chosen, accept.chain)
            if outcome != TAKEN or ref.instance < self.chosen or self.chosen == self.end:
                return outcome
            if ref.instance - self.chosen >= RING or accept.ballot.round == 0:
                return BAD_RECORD
            return self._put(ref.instance, &accept.ballot, &accept.value, ref.body + sizeof(RecordAccept),
                             ref.size - sizeof(RecordAccept))
        if ref.type == RECORD_LEARN:
            if ref.size < sizeof(RecordLearn):
                return BAD_RECORD
            memcpy(&learn, ref.body, sizeof(RecordLearn))
            outcome = self._advance(learn.chosen, learn.chain)
            if outcome != TAKEN or ref.instance < self.chosen or self.chosen == self.end:
                return outcome
            if ref.instance != self.chosen:
                return BAD_RECORD
            outcome = self._put(ref.instance, NULL, &learn.value, ref.body + sizeof(RecordLearn), ref.size - sizeof(RecordLearn))
            if outcome == TAKEN:
                outcome = self._choose()
            return outcome
        if ref.type == RECORD_WATERMARK:
            if ref.size != sizeof(RecordWatermark):
                return BAD_RECORD
            memcpy(&watermark, ref.body, sizeof(RecordWatermark))
            return self._advance(watermark.chosen, watermark.chain)
        return TAKEN

    cdef int _put(self, uint64_t instance, const Ballot *ballot, const ValueHead *head, const uint8_t *data, size_t size) noexcept nogil:
        """A value of an instance. `ballot` NULL: chosen, and above all others."""
        cdef Slot *s = &self.slots[instance & (RING - 1)]
        if head.size != size or value_check(head, data, size) < 0:
            return BAD_RECORD
        if s.value != NULL and s.instance == instance and ballot != NULL and ballot_compare(ballot, &s.ballot) < 0:
            return TAKEN
        slot_drop(s)
        s.instance = instance
        if ballot != NULL:
            s.ballot = ballot[0]
        s.value = value_copy(head, data)
        return TAKEN

    cdef Slot *_slot(self, uint64_t instance) noexcept nogil:
        cdef Slot *s = &self.slots[instance & (RING - 1)]
        return s if s.value != NULL and s.instance == instance else NULL

    cdef int _choose(self) noexcept nogil:
        """The next instance has the value of its slot."""
        cdef Slot *s = self._slot(self.chosen)
        cdef size_t capacity
        if s == NULL:
            return NO_VALUE
        if self.given == self.capacity_values:
            capacity = self.capacity_values * 2 if self.capacity_values else BATCH
            self.values = <Value **>xrealloc(self.values, capacity * sizeof(Value *))
            self.capacity_values = capacity
        self.chain = chain_next(self.chain, self.chosen, s.value)
        self.values[self.given] = value_ref(s.value)
        self.given = self.given + 1
        self.bytes = self.bytes + s.value.size
        self.chosen = self.chosen + 1
        slot_drop(s)
        if self.chosen == self.end and self.chain != self.end_chain:
            return BAD_CHAIN
        return TAKEN

    cdef int _advance(self, uint64_t chosen, uint32_t chain) noexcept nogil:
        """A record says that all below `chosen` is chosen, and the checksum there."""
        cdef int outcome
        if chosen < self.chosen:
            return TAKEN
        while self.chosen < chosen and self.chosen < self.end:
            outcome = self._choose()
            if outcome != TAKEN:
                return outcome
        return TAKEN if self.chosen != chosen or self.chain == chain else BAD_CHAIN

    cdef int _conclude(self) noexcept nogil:
        """All that is missing may lie here, without a record that says that it is chosen: the caller's checksum does."""
        cdef uint64_t i
        cdef uint32_t chain = self.chain
        cdef Slot *s
        cdef int outcome
        for i in range(self.chosen, self.end):
            s = self._slot(i)
            if s == NULL:
                return NOT_YET
            chain = chain_next(chain, i, s.value)
        if chain != self.end_chain:
            return NOT_YET
        while self.chosen < self.end:
            outcome = self._choose()
            if outcome != TAKEN:
                return outcome
        return TAKEN

    cdef int _fill(self) noexcept nogil:
        """Walks on until a batch is together, the end is reached, or the log is."""
        cdef int outcome
        while self.chosen < self.end and self.given < BATCH and self.bytes < BATCH_BYTES:
            outcome = self._step()
            if outcome == NOT_YET:
                self.filled = 0                         # what was read there is old by the next time
                self.at_tail = True
                outcome = self._conclude()
                return TAKEN if outcome == NOT_YET else outcome
            if outcome != TAKEN:
                return outcome
            self.at_tail = False
        return TAKEN

    def read(self):
        cdef int outcome
        cdef size_t i
        cdef uint64_t first
        cdef list result = []
        if self.slots == NULL:
            raise ValueError("the LogReader is closed")
        with nogil:
            outcome = self._fill()
        if outcome != TAKEN:
            self._raise(outcome)
        if self.given == 0 and self.chosen < self.end and not os.path.exists(self._path()):
            raise StorageError(f"{self._path()} was deleted by the node while it was read: begin again, from a newer checkpoint")
        first = self.chosen - self.given
        try:
            for i in range(self.given):
                result.append((first + i, value_runs(self.values[i], first + i)))
        finally:
            for i in range(self.given):
                value_unref(self.values[i])
            self.given = 0
            self.bytes = 0
        return result

    def _path(self):
        return os.path.join(self.directory, f"{self.number:016x}.seg")

    cdef _raise(self, int outcome):
        where = f"{self._path()}, offset {self.offset}: "
        if outcome == NO_MEMORY:
            raise MemoryError
        if outcome == BAD_DISK:
            cause = OSError(self.error, os.strerror(self.error))
            raise StorageError(f"{where}reading failed: {cause.strerror} (errno {self.error})") from cause
        if outcome == BAD_WRITE:
            why = _REASONS[self.error]
        elif outcome == BAD_HEADER:
            why = "the segment does not belong to this node's log, or does not go on where the one before it ends"
        elif outcome == BAD_RECORD:
            why = "a record does not fit what came before it"
        elif outcome == NO_VALUE:
            why = (f"the value of instance {self.chosen} is not in the log any more; a checkpoint that holds it is needed, and "
                   f"what was found to begin with holds the instances below {self.first}")
        else:
            why = (f"the chain checksum at instance {self.chosen} is {self.chain:08x} by the values read, which is not what the "
                   "node, or its log, says: nothing may be made of them. Compare the nodes' checksums at this instance")
        raise StorageError(where + why)
