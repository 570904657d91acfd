# cython: language_level=3
"""The engine's loop; see _state for what it works on."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from paxos._state cimport Host

cdef void host_free(Host *h) noexcept nogil                     # all but the delivery
# Replays one record of the log. 0, or -1: it contradicts what came before.
cdef int host_restore(Host *h, uint8_t type, uint32_t group, uint64_t instance, const uint8_t *body, uint32_t size,
                      uint64_t position) noexcept nogil
cdef void host_restored(Host *h) noexcept nogil                 # behind the last record
cdef void host_run(Host *h) noexcept nogil                      # until a stop is asked for
