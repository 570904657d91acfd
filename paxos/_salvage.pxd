# cython: language_level=3
"""What a damaged log still knows to be chosen, for the log that takes its place. See salvage()."""
from libc.stdint cimport uint32_t, uint64_t
from paxos._log cimport RecordRef
from paxos._recovery cimport Recovered
from paxos._state cimport Host, Salvaged
from paxos._types cimport Ballot, uint8_t

cdef struct Accepting:              # the value accepted last in an instance, under the highest ballot
    uint64_t instance
    Ballot ballot
    const uint8_t *value            # its ValueHead, and the bytes behind it

cdef class Salvage:
    """The instances that a log which is set aside had recorded as chosen. Holds the bytes of that log."""
    cdef Recovered found
    cdef Salvaged kept
    cdef size_t capacity
    cdef Accepting *slots           # RING of them
    cdef uint64_t next              # instances below are known to be chosen, with the chain checksum behind them
    cdef uint32_t chain
    cdef bint begun

    cdef bint step(self, const RecordRef *r) noexcept nogil
    cdef bint upto(self, uint64_t chosen, uint32_t chain, bint base) noexcept nogil
    cdef void add(self, const uint8_t *value) noexcept nogil

# Gives the replica what comes next of it; whether there is more to be given just now.
cdef void salvage_feed(Host *h) noexcept nogil
cdef bint salvage_waits(const Host *h) noexcept nogil
