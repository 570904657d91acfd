# cython: language_level=3
"""Carries out what the replicas and the formation put out, and brings replicas to life."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from paxos._delivery cimport Submission
from paxos._state cimport Group, HeldQueue, Host
from paxos._types cimport Outbox

# The effects of the step just made; g is NULL for the formation's.
cdef void take(Host *h, Outbox *out, Group *g) noexcept nogil
# Sends what waited for records up to `durable`.
cdef void held_release(Host *h, HeldQueue *q, uint64_t durable) noexcept nogil
cdef void held_free(HeldQueue *q) noexcept nogil

cdef void members_changed(Host *h, Group *g) noexcept nogil
cdef void make_replica(Host *h, Group *g) noexcept nogil
cdef void begin(Host *h, Group *g) noexcept nogil               # first steps of a replica; again: nothing
# A record of a group, found in a log: replayed into its replica, and its index says where the value lies. 0, or -1: it does not fit.
cdef int restore_record(Group *g, uint8_t type, uint64_t instance, const uint8_t *body, uint32_t size, uint64_t position,
                        uint64_t segment) noexcept nogil
cdef void submit(Host *h, const Submission *s) noexcept nogil
cdef void expire(Host *h) noexcept nogil                        # submissions that waited for a cluster in vain
