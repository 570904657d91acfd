# cython: language_level=3
"""A core as a row of small numbers, and back."""
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from paxos._replica cimport Replica
from paxos.testing._book cimport Book

cdef enum:
    TAPE = 1024                     # numbers in a row
    NOW = 1000000000                # ns; time stands still
    FAR = 2000000000                # ns

cdef struct Tape:
    uint16_t cells[1024]
    uint32_t at
    bint full                       # something did not fit

cdef inline void put(Tape *t, uint64_t number) noexcept nogil:
    if t.at == TAPE or number > 0xFFFF:
        t.full = True
        return
    t.cells[t.at] = <uint16_t>number
    t.at += 1

cdef inline uint32_t get(Tape *t) noexcept nogil:
    t.at += 1
    return t.cells[t.at - 1]

cdef void put64(Tape *t, uint64_t number) noexcept nogil
cdef uint64_t get64(Tape *t) noexcept nogil
cdef void put_core(Tape *t, Book *b, const Replica *r) noexcept nogil
cdef void get_core(Tape *t, Book *b, Replica *r) noexcept nogil
cdef void forget_roles(Replica *r) noexcept nogil
