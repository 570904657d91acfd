# cython: language_level=3
from libc.stdint cimport uint32_t
from paxos._replica cimport Replica
from paxos._types cimport Accept, Frame, Prepare, Value

cdef void acceptor_prepare(Replica *r, uint32_t index, const Prepare *p) noexcept nogil
# True where the ballot is good (the sender is the master of it), whatever became of the value.
cdef bint acceptor_accept(Replica *r, uint32_t index, const Accept *a, Value *value) noexcept nogil
