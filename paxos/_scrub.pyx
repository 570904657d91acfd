# cython: language_level=3
"""Reads a segment of a log that is in use again, from the disk, and verifies every write in it.

Nothing is changed. The bytes are walked as recovery walks them, up to a place that the caller knows to be durable, or to the write
that ends the segment; so whatever does not verify on the way is what the next start would call damaged. A segment may be recycled
under the reader: the caller must ask, after a bad verdict, whether it is still part of the log.
"""
from libc.errno cimport EBADMSG, EINVAL, EIO, ENOENT
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from paxos._disk cimport DISK_DIRECT, Disk
from paxos._folder cimport Folder
from paxos._log cimport LOG_END, RECORD_HEAD, Segment, log_seed
from paxos._recovery cimport NO_WRITE, OK, STALE_CHAIN, UNKNOWN, Walk, recovery_header, recovery_records, recovery_write
from paxos._spares cimport NAME, segment_name
from paxos._types cimport BLOCK, Record, RecordWrite

import os

from paxos._folder import damage
from paxos._recovery import _REASONS
from paxos.errors import DamagedLog

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **out, size_t alignment, size_t size)

cdef enum Outcome:
    TAKEN = 0
    BAD_DISK = 1                    # errno in `error`
    BAD_HEADER = 2
    BAD_WRITE = 3                   # a Reason in `error`
    NO_MEMORY = 4


cdef class SegmentScrub:
    """One segment of the log in ``folder``; see _scrub.pyi."""
    cdef Folder folder
    cdef Disk disk
    cdef uint64_t number
    cdef uint64_t size
    cdef Walk walk
    cdef int fd
    cdef uint8_t *buffer
    cdef size_t capacity
    cdef int error

    def __cinit__(self):
        self.fd = -1

    def __init__(self, Folder folder not None, uint64_t number, uint64_t size, uint32_t node, incarnation):
        if self.folder is not None:
            raise RuntimeError("a SegmentScrub reads one segment")
        self.folder = folder
        self.disk = folder.disk
        self.number = number
        self.size = size
        self.walk.segment_size = size
        self.walk.node = node
        self.walk.inc_hi, self.walk.inc_lo = incarnation

    def __dealloc__(self):
        self.close()
        free(self.buffer)
        free(self.walk.table.refs)

    def close(self):
        """Lets go of the file. May be called again."""
        if self.fd >= 0:
            self.disk.close(&self.disk, self.fd)        # was open for reading only: nothing can be lost
            self.fd = -1

    @property
    def offset(self):
        """Up to where it has been verified."""
        return self.walk.offset

    @property
    def ended(self):
        """Whether the write that ends the segment has been reached."""
        return bool(self.walk.ended)

    def step(self, uint64_t end, size_t size):
        """Verifies about ``size`` more bytes, and nothing beyond offset ``end``; how many were read."""
        cdef size_t taken = 0
        cdef int outcome
        if end > self.size:
            raise ValueError(f"a segment of {self.size} bytes does not reach to offset {end}")
        with nogil:
            outcome = self._step(end, size, &taken)
        if outcome == TAKEN:
            return taken
        self.close()
        path = self.folder.where(f"{self.number:016x}.seg")
        if outcome == NO_MEMORY:
            raise MemoryError
        if outcome == BAD_HEADER:
            raise DamagedLog(damage(path, 0, "the segment's header does not verify, or is that of another segment"))
        if outcome == BAD_WRITE:
            raise DamagedLog(damage(path, self.walk.offset, _REASONS[self.error]))
        if self.error in (EIO, EBADMSG, ENOENT):
            why = "the file is missing" if self.error == ENOENT else "the disk cannot read it"
            raise DamagedLog(damage(path, self.walk.offset, why))
        raise OSError(self.error, os.strerror(self.error), path)

    cdef int _read(self, uint64_t offset, size_t size) noexcept nogil:
        """Bytes offset..offset+size into the buffer; both are multiples of BLOCK."""
        cdef void *memory = NULL
        if size > self.capacity:
            free(self.buffer)
            self.buffer = NULL
            self.capacity = 0
            if posix_memalign(&memory, BLOCK, size) != 0:
                return NO_MEMORY
            self.buffer = <uint8_t *>memory
            self.capacity = size
        self.error = self.disk.read(&self.disk, self.fd, self.buffer, size, offset)
        return BAD_DISK if self.error else TAKEN

    cdef int _open(self) noexcept nogil:
        """Past the page cache where that can be: what is wanted is what lies on the disk."""
        cdef char name[NAME]
        cdef Segment h
        cdef int outcome
        segment_name(name, self.number)
        self.error = self.disk.open(&self.disk, name, DISK_DIRECT, &self.fd)
        if self.error == EINVAL:
            self.error = self.disk.open(&self.disk, name, 0, &self.fd)
            if self.error == 0:
                self.disk.uncache(&self.disk, self.fd)
        if self.error:
            self.fd = -1
            return BAD_DISK
        outcome = self._read(0, BLOCK)
        if outcome != TAKEN:
            return outcome
        if (recovery_header(self.buffer, BLOCK, &h) != 0 or h.number != self.number or h.size != self.size
                or h.node != self.walk.node or h.inc_hi != self.walk.inc_hi or h.inc_lo != self.walk.inc_lo):
            return BAD_HEADER
        self.walk.chain = h.previous
        self.walk.offset = BLOCK
        return TAKEN

    cdef int _step(self, uint64_t end, size_t size, size_t *taken) noexcept nogil:
        cdef uint64_t begin, filled
        cdef size_t want
        cdef uint32_t chain, seed = log_seed(self.walk.inc_hi, self.walk.inc_lo, self.number)
        cdef Record r
        cdef RecordWrite write
        cdef const uint8_t *data
        cdef int outcome
        if self.fd < 0:
            outcome = self._open()
            if outcome != TAKEN:
                return outcome
            taken[0] = BLOCK
        if self.walk.ended or self.walk.offset >= end:
            return TAKEN
        begin = self.walk.offset
        want = <size_t>min(<uint64_t>max(size // BLOCK * BLOCK, <size_t>BLOCK), end - begin)
        outcome = self._read(begin, want)
        if outcome != TAKEN:
            return outcome
        taken[0] += want
        filled = begin + want
        while not self.walk.ended and self.walk.offset < filled:
            data = self.buffer + (self.walk.offset - begin)
            memcpy(&r, data, RECORD_HEAD)
            # (Its crc would be over more than this block, which is all that is surely here.)
            self.error = NO_WRITE
            if r.size == sizeof(RecordWrite):
                self.error = recovery_write(data, <size_t>(self.size - self.walk.offset),
                                            self.number * self.size + self.walk.offset, seed, &r, &write)
            if self.error == OK and r.previous != self.walk.chain:
                self.error = STALE_CHAIN
            if self.error == OK and write.length > end - self.walk.offset:
                self.error = NO_WRITE               # what is durable ends where a write ends
            if self.error != OK:
                return BAD_WRITE
            if write.length > filled - self.walk.offset:
                if self.walk.offset != begin:
                    return TAKEN                    # the next step begins with it
                outcome = self._read(begin, write.length)
                if outcome != TAKEN:
                    return outcome
                taken[0] += write.length - want
                filled = begin + write.length
                continue
            chain = r.crc
            self.error = recovery_records(&self.walk, data, self.number * self.size + self.walk.offset, seed, &write, &chain)
            self.walk.table.count = 0
            if self.error != OK:
                return BAD_WRITE
            self.walk.chain = chain
            self.walk.offset = self.walk.offset + write.length
            self.walk.ended = r.flags & LOG_END
        return TAKEN
