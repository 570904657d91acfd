# cython: language_level=3
"""Records on their way into the log, and those for which it has no room now."""
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t
from paxos._state cimport Group, Host
from paxos._types cimport Effect

cdef extern from *:
    """
    #define PX_NOT_LOGGED UINT64_MAX
    """
    const unsigned long long NOT_LOGGED "PX_NOT_LOGGED"     # in the index: the value waits here; above every position of the log

# Hands the record of an effect to the log, or keeps it; g is NULL for the formation's.
cdef void log_record(Host *h, uint32_t group, const Effect *e, const uint8_t *head, Group *g) noexcept nogil
# Tries again with those that are kept, as far as there is room.
cdef void log_unlogged(Host *h) noexcept nogil
cdef void unlogged_free(Host *h) noexcept nogil
