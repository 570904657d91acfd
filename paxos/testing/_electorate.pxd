# cython: language_level=3
"""Who votes at an instance, by what is chosen below it; and what that says of a state of the explorer."""
from libc.stdint cimport uint64_t
from paxos.testing._book cimport Book
from paxos.testing._local cimport About, Scope

cdef struct Verdict:
    uint64_t facts                  # what is chosen
    bint moved                      # the voters of a change have chosen something
    int wrong

cdef Verdict electorate_judge(Book *b, const Scope *scope, const About **nodes) noexcept nogil
