# cython: language_level=3
"""A node on real sockets: its Host, its network, and the loop of its thread."""
from paxos._conn cimport Net
from paxos._state cimport Host

cdef struct Native:
    Host host                       # first: a pointer to it is one to the whole
    Net net

cdef void native_init(Native *n) noexcept nogil                 # what the Host stands on; the delivery and the net apart
cdef void native_run(Native *n) noexcept nogil                  # until a stop is asked for
