# cython: language_level=3
"""What a damaged log still knows to be chosen, for the log that takes its place; see _salvage.pyx."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from paxos._folder cimport Folder
from paxos._formation cimport Formation
from paxos._log cimport RecordRef
from paxos._recovery cimport Walk
from paxos._state cimport Group, Host, Salvaged

cdef class Salvage:
    """What a log that was set aside had recorded as chosen."""
    cdef Salvaged *kept             # NULL where a host has taken it over
    cdef uint32_t node
    cdef Walk walk
    cdef Formation formation        # as that log has it
    cdef Group group                # its group, replayed
    cdef uint8_t *base              # a copy of the newest RECORD_BASE
    cdef uint32_t base_size
    cdef uint64_t base_first
    cdef uint8_t *bytes             # of the segment that is gone through
    cdef uint64_t size
    cdef readonly str why           # why there is nothing; "" where there is something

    cdef str judge(self, Folder folder, list segments, uint64_t below)
    cdef bint go_through(self, list segments, bint values)
    cdef int load(self, uint64_t number) noexcept nogil
    cdef bint step(self, const RecordRef *r, bint values) noexcept nogil
    # The host feeds its replica from it, and frees it.
    cdef void hand_over(self, Host *h) noexcept

# Gives the replica what comes next of it, if it may have that now.
cdef void salvage_feed(Host *h) noexcept nogil
# Whether salvage_feed() would do something.
cdef bint salvage_waits(const Host *h) noexcept nogil
cdef void salvage_free(Host *h) noexcept nogil
