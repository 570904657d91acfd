# cython: language_level=3
"""The log on disk: segment files, zero-filled ahead and recycled, one aligned durable write at a time.
Used by one thread (the engine's); only the preparer thread runs beside it. The C functions live in _store; whoever uses
the log cimports them from here."""
from libc.stdint cimport uint32_t, uint64_t
from paxos._folder cimport Folder
from paxos._log cimport RecordRef
from paxos._store cimport (
    Index, Store, index_free, index_get, index_set, index_trim, store_append, store_flush, store_pending, store_read,
    store_recycle,
)

cdef class LogStore:
    """Opens (or makes) the log of a data directory, recovers it, and holds it open and locked until close()."""
    cdef Store *store
    cdef RecordRef *records         # what recovery found, in log order, without RECORD_WRITE; see release_replay()
    cdef size_t record_count
    cdef readonly uint64_t incarnation_hi
    cdef readonly uint64_t incarnation_lo
    cdef readonly uint32_t boot     # this start's number, already durable
    cdef readonly str mode          # how writes are made durable, in words
    cdef readonly str directory
    cdef Folder _folder
    cdef object _private            # Python-side state of _segments (mappings, preparer thread)

    cdef _open(self, uint32_t node_id, uint64_t segment_size, bint direct)
    cdef _allocate(self, uint32_t node_id, uint64_t segment_size, found, bint direct)
    cdef _check(self, int error, str what)
    cdef _probe(self, bint direct)
    cdef _adopt_spares(self, names)
    cdef _repair(self, found)
    cdef _identify(self)
    cdef _release(self)
    cdef Store *_opened(self) except NULL
