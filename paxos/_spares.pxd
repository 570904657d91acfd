# cython: language_level=3
"""Spare segment files. No GIL, no Python object."""
from libc.stdint cimport uint8_t, uint64_t
from paxos._disk cimport Disk

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)

cdef enum:
    SPARES_WANTED = 1               # zero-filled ahead
    SPARES_MAX = 4                  # kept when segments are recycled faster than used
    CHUNK = 1048576                 # bytes of zeros in one write of the preparer
    NAME = 48                       # room for a file name

cdef struct Spares:                 # the pool of spare files of one log
    uint8_t *zeros                  # CHUNK of zeros, aligned
    Disk *disk
    uint64_t segment_size
    bint made                       # mutex and condition are there
    # guarded by the mutex
    pthread_mutex_t mutex
    pthread_cond_t wake
    uint64_t numbers[4]
    int ready
    uint64_t next_spare
    bint stopping
    int preparer_error              # errno of the preparer's last attempt, 0: none

# Results are 0 or an errno, unless said otherwise.
cdef void segment_name(char *out, uint64_t number) noexcept nogil
cdef void spare_name(char *out, uint64_t number) noexcept nogil
cdef int spares_init(Spares *f, Disk *disk, uint64_t segment_size) noexcept nogil
cdef void spares_stop(Spares *f) noexcept nogil         # spares_prepare returns soon after
cdef void spares_free(Spares *f) noexcept nogil         # when it has
# What the preparer thread runs, until spares_stop.
cdef void spares_prepare(Spares *f) noexcept nogil
# One spare, made now; what a host without a preparer thread calls when it likes. Whether one was wanted and is there.
cdef bint spares_make(Spares *f, bint paced) noexcept nogil
# The number of a spare; counted in *made_here where none was ready, and it had to be made now.
cdef int spares_take(Spares *f, uint64_t *number, uint64_t *made_here) noexcept nogil
# Takes a segment's name away, durably, and keeps its file as a spare or removes it.
cdef int spares_give(Spares *f, uint64_t segment) noexcept nogil
