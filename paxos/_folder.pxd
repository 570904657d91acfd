# cython: language_level=3
"""The data directory of a node, as the log opens it; a simulated one overrides every method."""
from paxos._disk cimport Disk
from paxos._files cimport Files

cdef class Folder:
    cdef Disk disk                  # the calls of the running log, on the files of `log`
    cdef readonly str path
    cdef readonly str log           # where the segments lie
    cdef readonly bint threads      # whether a preparer thread may run beside the log
    cdef int lock                   # descriptor of LOCK
    cdef Files checkpoints          # None, until somebody asks for them
    cdef str place                  # of the log that quarantine() has set aside
    cdef int close_files(self) except -1
    cdef bytes aside(self, Disk *out)
