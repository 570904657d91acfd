# cython: language_level=3
"""Chosen values on their way to Python and to peers that missed them: from memory where they are new, else from the log."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from paxos._state cimport Group, Host
from paxos._types cimport Frame, Value, ValueHead

cdef void frame_head(Host *h, Frame *f, uint8_t type, size_t length) noexcept nogil     # node level; all but the crc

cdef void history_chosen(Host *h, Group *g, uint64_t instance, Value *value) noexcept nogil
# Python has what is below from a checkpoint.
cdef void history_jump(Host *h, Group *g, uint64_t instance) noexcept nogil
# Whether Python's next instance is chosen but no longer in memory.
cdef bint history_behind(const Group *g) noexcept nogil
# Reads a bounded number of instances back for Python.
cdef void history_refill(Host *h, Group *g) noexcept nogil
# One LEARNED frame for a peer's request. Whether something was sent.
cdef bint history_serve(Host *h, Group *g, uint32_t index) noexcept nogil
# Whether a record, whose crc is right, holds the value of an instance: then that is described by *head and lies at *data.
cdef bint value_in(const uint8_t *record, uint32_t size, uint32_t group, uint64_t instance, ValueHead *head,
                   const uint8_t **data) noexcept nogil
cdef void history_free(Group *g) noexcept nogil
