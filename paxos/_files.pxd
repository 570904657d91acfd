# cython: language_level=3
"""The files of one flat directory, for Python, over the calls of a Disk."""
from libc.stdint cimport uint64_t
from paxos._disk cimport Disk

cdef enum:
    NAME_ROOM = 48                  # what the simulated disk has for a name and its end

cdef class Files:
    cdef Disk disk
    cdef readonly str path
    cdef object listing             # gives the names; None: they are those in disk.directory
    cdef object keeper              # keeps what disk.context points to
    cdef object opened              # Files that are open, weakly
    cdef bint alive
    cdef int calls                  # under way without the GIL
    cdef object __weakref__
    cdef str where(self, name)
    cdef int enter(self, name) except -1
    cdef int leave(self) except -1
    cdef File reach(self, name, int flags)

cdef class File:
    cdef Files files
    cdef readonly str name
    cdef int fd
    cdef bint alive
    cdef int calls
    cdef uint64_t end               # where append() writes
    cdef object __weakref__
    cdef int enter(self) except -1
    cdef int leave(self) except -1
    cdef int put(self, uint64_t offset, data) except -1
    cdef int release(self) noexcept

# Takes disk.directory over, -1 for none. `listing` gives the names where that is so.
cdef Files files_on(const Disk *disk, str path, object listing, object keeper)
