# cython: language_level=3
"""The simulated world and its nodes as Python objects."""
from libc.stdint cimport uint64_t
from paxos._handle cimport Handle
from paxos.testing._world cimport SimNode, World as CWorld

cdef class World:
    cdef CWorld *w
    cdef list handles               # of the running nodes, by index
    cdef dict calls                 # what happens at EVENT_CALLs, by number
    cdef uint64_t next_call
    cdef public object on_python    # (index) a node's Python side gets its turn
    cdef public list configured     # nodes that one which starts is told of
    cdef public object on_ended     # (index, power) a node's process has ended; called after it is gone
    cdef object __weakref__

    cdef SimNode *node(self, index) except NULL
    cdef ended(self, index)

cdef class SimHandle(Handle):
    cdef World world
    cdef SimNode *sim               # NULL: the process has ended
