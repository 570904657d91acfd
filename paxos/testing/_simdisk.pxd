# cython: language_level=3
"""A disk in memory that keeps only what was synced, and the data directory on it."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from paxos._disk cimport Disk
from paxos._folder cimport Folder

cdef enum:
    SECTOR = 512                    # what a disk writes whole or not at all
    NAME_SIZE = 48
    MAX_OPEN = 64

cdef struct Unsynced:               # a write whose loss must be possible
    uint64_t offset
    uint64_t size
    uint64_t old_size               # of the file
    uint8_t *old                    # what stood there; zeros beyond old_size
    bint lost                       # a failed sync: no later one brings it to the disk

cdef struct SimFile:
    char name[48]
    bint linked                     # has a name
    uint8_t *data
    uint64_t size
    uint64_t capacity
    uint64_t synced_size            # no loss of power makes it shorter than that
    Unsynced *unsynced
    size_t unsynced_count
    size_t unsynced_size

cdef enum ChangeKind:
    CHANGE_CREATE = 0
    CHANGE_RENAME = 1
    CHANGE_UNLINK = 2

cdef struct Change:                 # of the directory, not yet synced
    int kind
    SimFile *file
    SimFile *replaced               # what a rename took the name from, or NULL
    char old[48]

cdef struct SimDisk:
    Disk disk
    uint64_t random
    const int64_t *now
    SimFile **files
    size_t file_count
    size_t file_size
    SimFile *open[64]
    uint32_t life                   # counts the processes that have used it: part of their descriptors
    bint direct[64]
    Change *changes
    size_t change_count
    size_t change_size
    bint refuses_direct             # the file system cannot do O_DIRECT
    # faults
    int64_t dies_in                 # calls that change something until the process dies in one; -1: it does not
    bint dead                       # ... and it has
    bint loses_power                # how it dies: all that is not synced may go, else the page cache stays
    bint fails                      # the next sync of a file (or durable write) fails
    bint directory_fails            # the next sync of the directory does
    bint full                       # files may grow by `room` bytes together, and where that is nothing, not be made
    uint64_t room
    bint read_fails                 # the next read does
    # what was seen
    uint64_t synced                 # durable writes
    uint64_t torn                   # writes of which a part was kept
    uint64_t dropped                # writes that were lost, in whole or in part
    # Sees what has become durable, in the file's order.
    void (*persisted)(void *context, const char *name, uint64_t offset, const uint8_t *data, size_t size) noexcept nogil
    void *context

cdef void simdisk_init(SimDisk *d, uint64_t seed, const int64_t *now) noexcept nogil
cdef void simdisk_free(SimDisk *d) noexcept nogil
cdef void simdisk_process_ended(SimDisk *d, bint power) noexcept nogil
# Flips one bit of a segment at a position (segment number * size + offset); 0, or -1 where there is no such byte.
cdef int simdisk_flip(SimDisk *d, uint64_t segment, uint64_t offset, int which) noexcept nogil

cdef void simdisk_wipe(SimDisk *d) noexcept nogil       # an empty disk in its place

cdef class SimFolder(Folder):
    cdef SimDisk *sim               # outlives the folder
    cdef object owner               # who keeps it, where nobody else does
    cdef SimFile *file(self, name) except NULL
