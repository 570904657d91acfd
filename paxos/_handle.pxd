# cython: language_level=3
"""A node below Python, as Python holds it: what the engine and the simulator have in common."""
from libc.stdint cimport int64_t, uint64_t
from paxos._folder cimport Folder
from paxos._log cimport RecordRef
from paxos._segments cimport LogStore
from paxos._state cimport Host
from paxos._types cimport Membership

cdef class Handle:
    cdef Host *host                 # made and freed by the subclass
    cdef LogStore log
    cdef Membership configured
    cdef bint stopped
    cdef str log_mode
    cdef str directory
    cdef uint64_t segment_bytes
    cdef str quarantined            # where a damaged log was set aside at this start, or None; and why
    cdef str damage

    # Checks the options and notes them. ConfigError.
    cdef int configure(self, object node_id, object nodes, object window, object batch_bytes, object batch_values,
                       object heartbeat_ns, object election_min_ns, object election_max_ns, object stuck_limit_ns,
                       object max_value, object segment_size, object max_pending, object max_pending_bytes, object log_budget,
                       object log_hold) except -1
    # Opens and recovers the log of a path or Folder, and replays it into the host.
    # open_log and replay; a damaged log is set aside and begun anew, if `quarantine` says so and there are others to learn from.
    cdef int recover(self, object directory, object segment_size, bint direct, bint quarantine, uint64_t seed, uint64_t fresh_hi,
                     uint64_t fresh_lo) except -1
    cdef object put_aside(self, Folder folder, str why)
    cdef object salvage(self, Folder folder, list segments, uint64_t below)
    cdef int open_log(self, object directory, object segment_size, bint direct) except -1
    cdef int replay(self, uint64_t seed, uint64_t fresh_hi, uint64_t fresh_lo) except -1
    # Notes which instance Python wants next; the chain checksum behind the one before it.
    cdef int restore_one(self, size_t n, const RecordRef *r, int go) except -1
    cdef object set_applied(self, int64_t applied)
    cdef void release(self) noexcept
