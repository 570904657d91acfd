# cython: language_level=3
"""Reads the chosen values out of a log that another process writes."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from paxos._disk cimport Disk
from paxos._log cimport RecordRef
from paxos._recovery cimport Walk
from paxos._types cimport Ballot, Record, RecordWrite, Value, ValueHead

cdef struct Slot:                   # an instance that is not known chosen: its value of the highest ballot so far
    uint64_t instance
    Ballot ballot
    Value *value

cdef class LogReader:
    cdef Disk disk
    cdef readonly str directory
    cdef uint32_t node
    cdef uint32_t group
    cdef uint64_t first
    cdef uint64_t end
    cdef uint32_t end_chain
    cdef Walk walk                  # chain, last, table, and what the headers have in common
    # where the walk is
    cdef int fd
    cdef uint64_t number
    cdef uint64_t offset
    cdef int error                  # errno or Reason behind an outcome
    # bytes begin..begin+filled of the segment
    cdef uint8_t *buffer
    cdef size_t capacity
    cdef uint64_t begin
    cdef size_t filled
    cdef bint at_tail
    # what it knows
    cdef Slot *slots                # RING; NULL when closed
    cdef readonly uint64_t chosen
    cdef readonly uint32_t chain
    cdef Value **values             # chosen and not given out yet: the last `given` below `chosen`
    cdef size_t given
    cdef size_t capacity_values
    cdef size_t bytes

    cdef void _free(self) noexcept
    cdef bint _open(self, uint64_t number) except *
    cdef bint _begins(self, uint64_t number) except *
    cdef int _need(self, uint64_t offset, size_t size) noexcept nogil
    cdef int _enter(self, uint64_t number, bint following) noexcept nogil
    cdef int _head(self, uint64_t offset, Record *r, RecordWrite *write) noexcept nogil
    cdef int _whole(self, Record *r, RecordWrite *write, uint32_t *chain) noexcept nogil
    cdef int _step(self) noexcept nogil
    cdef int _cross(self, uint32_t chain) noexcept nogil
    cdef int _records(self) noexcept nogil
    cdef int _record(self, const RecordRef *ref) noexcept nogil
    cdef int _put(self, uint64_t instance, const Ballot *ballot, const ValueHead *head, const uint8_t *data, size_t size) noexcept nogil
    cdef Slot *_slot(self, uint64_t instance) noexcept nogil
    cdef int _choose(self) noexcept nogil
    cdef int _advance(self, uint64_t chosen, uint32_t chain) noexcept nogil
    cdef int _conclude(self) noexcept nogil
    cdef int _fill(self) noexcept nogil
    cdef _raise(self, int outcome)
