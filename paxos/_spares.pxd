# cython: language_level=3
"""Spare segment files. No GIL, no Python object."""
from libc.errno cimport EDQUOT, ENOSPC
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
    SPARES_WANTED = 2               # zero-filled ahead: one to go on in, and one in reserve for a disk that is full
    SPARES_MAX = 4                  # kept when segments are recycled faster than used
    CHUNK = 1048576                 # bytes of zeros in one write of the preparer
    NAME = 48                       # room for a file name
    SPARES_RETRY = 1000000000       # ns until it is tried again on a full disk

cdef struct Spares:                 # the pool of spare files of one log
    uint8_t *zeros                  # CHUNK of zeros, or as many as a small segment has, aligned
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
    int full                        # ENOSPC or EDQUOT: there was no room for the last one

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
# Whether that would do something. Where the disk is full, once in SPARES_RETRY is enough.
cdef bint spares_wanted(Spares *f) noexcept nogil
# Why none can be made (ENOSPC or EDQUOT), as far as is known; 0: the disk is not full.
cdef int spares_full(Spares *f) noexcept nogil
cdef inline bint spares_no_room(int error) noexcept nogil:
    return error == ENOSPC or error == EDQUOT
# The number of a spare; counted in *made_here where none was ready, and it had to be made now. While the disk is known to be
# full that is not tried: each attempt would fill up what is left of it.
cdef int spares_take(Spares *f, uint64_t *number, uint64_t *made_here) noexcept nogil
# Takes a segment's name away, durably, and keeps its file as a spare or removes it.
cdef int spares_give(Spares *f, uint64_t segment) noexcept nogil
