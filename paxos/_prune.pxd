# cython: language_level=3
"""Deleting log: where it begins, and when a segment goes back to the spares."""
from libc.stdint cimport uint32_t, uint64_t
from paxos._state cimport Group, Host
from paxos._types cimport Membership

# A checkpoint of everything below `instance` is durable: the log may begin there, or as far below as is to be held.
cdef void prune_base(Host *h, Group *g, uint64_t instance) noexcept nogil
# A checkpoint from elsewhere is durable here, and Python has taken it over.
cdef void prune_install(Host *h, Group *g, uint64_t instance, uint32_t chain, const Membership *members) noexcept nogil
# Whether one more segment would be too much for the budget.
cdef bint prune_full(const Host *h) noexcept nogil
# Whether what is damaged lies in the segment that is being written: the log must go on in another one.
cdef bint prune_rotates(const Host *h) noexcept nogil
# The oldest segment, if nothing in it is needed any more; else 0.
cdef uint64_t prune_next(Host *h) noexcept nogil
