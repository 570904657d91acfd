# cython: language_level=3
from libc.stdint cimport int64_t, uint8_t, uint32_t
from paxos.testing._world cimport Event, World

# Something happens at a time, but not before now. Takes over the data.
cdef void heap_push(World *w, int64_t at, int kind, uint32_t node, uint32_t other, uint32_t life, uint8_t *data, size_t size) noexcept nogil
cdef Event heap_pop(World *w) noexcept nogil
