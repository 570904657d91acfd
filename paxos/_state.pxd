# cython: language_level=3
"""State of a node below Python, and what it stands on: a clock, a disk, links to its peers, a place to die. The engine gives it
the real ones, a simulator its own. One thread at a time touches a Host, but for host.delivery, which has rules of its own."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from paxos._delivery cimport Delivery, Status, Submission
from paxos._disk cimport Disk
from paxos._formation cimport Formation
from paxos._replica cimport Options, Replica
from paxos._store cimport Highs, Index, Store
from paxos._types cimport Effect, Membership, Value

cdef enum:
    TAIL = 4096                     # newest chosen values kept in memory for Python; a power of two
    PEER_BACKLOG = 4194304          # a peer that has so many bytes waiting gets no more from the log for now

cdef struct Link:                   # carries frames to the other members, by index; any of them may be lost
    void *context
    void (*send)(void *context, uint32_t peers, const uint8_t *head, size_t size, Value *value) noexcept nogil
    void (*flush)(void *context, int64_t now) noexcept nogil            # what was sent may leave now
    uint32_t (*connected)(void *context) noexcept nogil                 # bit i: frames to member i may arrive
    int64_t (*waiting)(void *context, uint32_t index) noexcept nogil    # bytes that have not left; -1: no connection
    void (*report)(void *context, Status *status) noexcept nogil        # its counters
    void (*members)(void *context, const Membership *m) noexcept nogil  # who has which place from now on

cdef struct HeldSend:
    uint64_t after
    uint32_t peers
    size_t head
    size_t size
    Value *value

cdef struct HeldQueue:              # sends that wait for records to be durable
    HeldSend *items
    size_t count
    size_t capacity
    uint8_t *arena
    size_t used
    size_t size

cdef struct ReadJob:                # chosen values that a peer asked for; a newer request takes the place of an older one
    bint active
    bint begun
    uint64_t next
    uint64_t end
    uint64_t left                   # bytes

cdef struct Group:
    uint32_t id
    Replica *replica                # NULL until the cluster is formed
    bint begun
    Index index
    HeldQueue held
    uint64_t appended               # records handed to the log
    uint64_t reported               # of these, known durable to the replica
    bint unsealed                   # has logged since the last seal
    uint64_t seq                    # last sequence number given to a chunk
    uint64_t cursor                 # next instance for Python
    Value **tail                    # the newest chosen values: instances tail_first, tail_first + 1, …
    uint64_t tail_first
    uint64_t tail_count
    uint64_t tail_bytes
    ReadJob reads[31]
    Highs highs
    uint64_t base_segment           # older ones hold nothing that the newest RECORD_BASE does not; 0: there is none

cdef struct Unlogged:               # records that wait for room in the log, in order; see _unlogged
    uint8_t type
    bint formation                  # else of group `group`
    uint32_t group
    uint64_t instance
    size_t size                     # of the head
    uint8_t *head
    Value *value

cdef struct UnloggedQueue:
    Unlogged *items
    size_t first                    # items before it have been logged
    size_t count
    size_t capacity

cdef struct Salvaged:               # what a log that was set aside had recorded as chosen; see _salvage
    uint64_t sig_hi                 # of its cluster
    uint64_t sig_lo
    uint64_t first                  # instances first to end - 1
    uint64_t end
    Index index                     # where in that log their values lie, and the chain checksum behind each
    uint64_t inc_hi                 # of its incarnation, by which its records are verified
    uint64_t inc_lo
    uint64_t segment_size
    Disk disk                       # the directory that it lies in now; its descriptor is closed with the rest
    char names[32]                  # what its segments are called there, for printf()
    uint64_t segment                # the one that `fd` is open for; 0: none
    int fd
    uint64_t after                  # a checkpoint of the instances below is about to be installed
    uint64_t taken

cdef struct Host

cdef struct Outside:                # what else differs between an engine and a simulator
    # The log failed, or lies: the process ends here. Does not return.
    void (*fatal)(Host *h, const char *what, int error) noexcept nogil
    # Sees every effect before it is carried out; NULL: nobody looks.
    void (*watch)(void *context, Host *h, Group *g, const Effect *e) noexcept nogil
    void *context

cdef struct Host:
    Delivery delivery
    Link link
    Outside outside
    Formation formation
    HeldQueue formation_held
    uint64_t formation_appended
    uint64_t formation_reported
    Group *groups
    uint32_t group_count
    Options options
    Store *store
    uint32_t boot
    uint64_t seed
    int64_t now
    int64_t formation_due
    int64_t seal_due                # 0: the log is sealed, or nothing is in it
    bint sealing                    # the pending write is a seal
    uint64_t formation_segment      # the formation stands in this segment or a newer one
    bint making                     # Python makes a checkpoint: when it is durable, log can be given back
    bint pruning                    # there may be segments to be given back
    uint64_t drop                   # the newest segment that is damaged on the disk; 0: none
    bint left                       # this node's log is not to be trusted: it takes no part any more
    uint64_t hold                   # instances below a checkpoint that are kept for nodes that are behind
    uint64_t budget                 # bytes of log beyond which that, and who is being served, no longer counts
    int64_t awake                   # the thread has run without a gap since then
    int64_t stuck_limit
    int64_t stuck_since             # 0: Python takes what it is given
    bint may_lead                   # as Python said last
    int64_t stop_at                 # it is to stop, then at the latest: as a master, when another one leads; 0: it is not
    bint succeeded                  # ... another one does
    bint disk_full                  # no segment can be made ahead
    bint silent                     # ... and there is none left: what would be logged is not taken
    UnloggedQueue unlogged
    Salvaged *salvage               # of the log in whose place this one is; NULL: nothing, or no more
    uint32_t met_formed
    Submission *waiting             # submitted before the cluster was formed
    size_t waiting_count
    size_t waiting_size
    uint8_t *scratch
    size_t scratch_size


cdef inline bint may_stand(const Host *h) noexcept nogil:
    """Whether nothing keeps the replicas from leading."""
    return h.may_lead and h.stuck_since == 0 and not h.disk_full and not h.left
