# cython: language_level=3
"""Hand-over between the engine's thread and Python, in both directions, under one mutex.

Who may touch what: fields below "mutex" only while holding it; below "engine" only the engine's thread; below "GIL"
only a thread that holds the GIL. Nobody waits for the GIL, and nothing of Python runs, while the mutex is held."""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from paxos._admission cimport Admission
from paxos._types cimport Membership, Value

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass

cdef enum EventType:                # first item of the tuples that drain() returns
    EVENT_CHOSEN = 0
    EVENT_SETTLED = 1
    EVENT_MASTER = 2
    EVENT_LOG = 3
    EVENT_FORMED = 4
    EVENT_DIVERGED = 5
    EVENT_AHEAD = 6                 # the state machine has applied what the cluster has only now chosen
    EVENT_BEHIND = 7                # Python or the log needs instances that are deleted here, or there (a: node id)
    EVENT_CARRY = 8                 # bytes from another node's Python side
    EVENT_MEMBERSHIP = 9            # a: version
    EVENT_CHAIN = 10                # a: the chain checksum behind an instance; 0: not known here
    EVENT_MASTERSHIP = 12           # by what is chosen node a is the master, version b; leases are `instance` ns long
    EVENT_READABLE = 11             # read a may be answered by whoever has applied everything below `instance`

cdef enum AlarmKind:                # what a line of the log is besides; 0: nothing
    ALARM_DISK_FULL = 1
    ALARM_LOG_LOST = 2

cdef enum:
    REASONS = 18                    # kinds of refused frames and connections, see _net

cdef struct Event:
    int type
    uint32_t group
    uint64_t instance
    uint64_t a
    uint64_t b
    Value *value                    # a reference of the event's own
    char *text                      # malloc'ed

cdef struct Submission:
    uint64_t token                  # what submit() returned
    int64_t deadline
    Value *chunk

cdef enum OrderType:
    ORDER_BASE = 1                  # a checkpoint of everything below `instance` is durable here
    ORDER_INSTALL = 2               # ... has come from elsewhere: value holds the membership
    ORDER_MAKING = 4                # a checkpoint is being made (instance: 1), or is not any more (0)
    ORDER_CARRY = 3                 # value is for the Python side of node `node`
    ORDER_DROP = 5                  # segment `instance` is damaged: it is to go as soon as a checkpoint allows
    ORDER_CHAIN = 6                 # the chain checksum behind `instance` is wanted
    ORDER_LEAVE = 7                 # no vote any more, and no word
    ORDER_READ = 8                  # a read waits, under token `instance`
    ORDER_TRANSFER = 9              # the mastership is to go to node `node`; 0: to whom it suits best
    ORDER_LEASE = 10                # leases are to be `instance` ns long
    ORDER_CHANGE = 11               # value: the table of members that is to be chosen

cdef struct Order:
    int type
    uint32_t node
    uint32_t chain
    uint64_t instance
    Value *value                    # a reference of the order's own, or NULL

cdef struct Ticket:                 # a submitted chunk whose fate Python has not been told
    uint64_t token
    uint64_t bytes
    uint64_t values
    int64_t at                      # when it was handed in

cdef struct Wire:                   # which token travels under sequence number `seq`
    uint64_t seq
    uint64_t token

cdef struct Status:                 # copied out by the engine at the end of each round
    bint formed
    bint disk_full
    int role
    uint32_t master
    uint64_t master_round
    bint established
    uint64_t chosen
    uint64_t heard_chosen           # the most that any member has spoken of
    uint32_t chain
    uint64_t delivered              # instances handed to Python's queue
    uint64_t first_kept             # instances below it are deleted
    uint64_t segments               # of the log, in use
    uint64_t segment                # the one that is written, and up to where it is durable
    uint64_t segment_used
    uint64_t oldest                 # older segments may be gone; never behind what happens on the disk
    bint outsider
    bint votes
    bint replaced                   # has been a member, and is none now, or another incarnation is
    uint32_t disowned               # places of members that refuse this node as none
    uint64_t sig_hi
    uint64_t sig_lo
    uint64_t chosen_values
    uint64_t rounds
    uint64_t proposed_values
    uint64_t elections
    uint64_t core_refused
    uint64_t read_rounds
    uint64_t syncs
    uint64_t writes
    uint64_t log_bytes
    uint64_t log_records
    int64_t log_time
    uint64_t frames_sent
    uint64_t frames_received
    uint64_t bytes_sent
    uint64_t bytes_received
    uint64_t frames_dropped
    uint64_t refused[18]
    uint32_t members
    uint32_t nodes[31]
    uint32_t connected              # bit i: the connection to member i is up

cdef struct Clock:                  # ns; counts suspend; never goes back
    void *context
    int64_t (*now)(void *context) noexcept nogil

cdef struct Delivery:
    pthread_mutex_t mutex
    Clock clock
    int wake_engine                 # eventfds; -1 where a simulator drives both sides and asks delivery_wanted() instead
    int wake_python
    uint32_t node
    uint32_t boot
    uint64_t inc_hi
    uint64_t inc_lo
    # mutex
    Event *ring                     # ring_size is a power of two; head and tail only grow
    uint64_t ring_size
    uint64_t head
    uint64_t tail
    uint64_t bytes                  # weight of the queued chosen values
    uint64_t master_mark            # ring number of the newest EVENT_MASTER, +1 (0: none)
    uint64_t oldest_segment         # see Status
    uint64_t leased_chosen          # the chosen watermark of a node that holds the lease
    int64_t leased_until            # ... until then; 0: it does not
    bint signalled                  # wake_python is readable
    bint sleeping                   # the engine waits in epoll: whoever has something for it writes wake_engine
    bint blocked                    # the engine has more values but the queue is full
    bint stop
    int resign                      # 0: nothing asked; 1: resign, may lead again; 2: resign and stay away
    int64_t last_drain
    int64_t signalled_at
    Submission *inbox
    size_t inbox_count
    size_t inbox_size
    Order *orders
    size_t order_count
    size_t order_size
    uint64_t order_bytes
    Wire *wires
    Status status
    Membership membership           # as of now; Python reads it from here
    # engine
    Submission *taken               # the other half of the double buffer
    size_t taken_size
    Order *ordered
    size_t ordered_size
    Event *fresh                    # events of this round
    size_t fresh_count
    size_t fresh_size
    uint64_t fresh_bytes
    uint64_t seen_bytes             # upper bound of `bytes`
    bint seen_orders                # there are some: delivery_orders() is worth its mutex
    bint seen_signalled
    int64_t seen_drain              # the later of the last drain() and the signal that it has not answered
    uint64_t logs_dropped
    # GIL
    Ticket *tickets
    uint64_t next_token
    uint64_t oldest                 # every token below it is settled
    uint64_t pending_chunks
    uint64_t pending_bytes
    bint crowded                    # room for bytes has run out, and an eighth of it is not free yet
    Admission admission
    uint64_t max_pending
    uint64_t max_pending_bytes
    uint64_t max_value
    uint64_t max_chunk

cdef int64_t boottime() noexcept nogil      # CLOCK_BOOTTIME in ns

cdef void clock_real(Clock *c) noexcept nogil
cdef inline int64_t clock_now(const Clock *c) noexcept nogil:
    return c.now(c.context)

cdef int delivery_init(Delivery *d, bint descriptors) noexcept nogil    # 0 or an errno
cdef void delivery_free(Delivery *d) noexcept nogil

# -- engine's thread
cdef Event *delivery_event(Delivery *d, int type, uint32_t group) noexcept nogil
cdef void delivery_chosen(Delivery *d, uint32_t group, uint64_t instance, uint32_t chain, Value *value) noexcept nogil  # takes a reference
cdef bint delivery_room(const Delivery *d) noexcept nogil
cdef void delivery_log(Delivery *d, int level, const char *text) noexcept nogil
cdef void delivery_alarm(Delivery *d, int kind, int level, const char *text) noexcept nogil
# Hands this round's events over, with the status behind them, and wakes Python if it is not awake already.
cdef void delivery_publish(Delivery *d, const Status *status, bint blocked) noexcept nogil
cdef void delivery_ping(Delivery *d) noexcept nogil
# Segments below this one are about to go.
cdef void delivery_oldest(Delivery *d, uint64_t segment) noexcept nogil
# Everything submitted since the last call; valid until the next one. Ends the sleep.
cdef size_t delivery_take(Delivery *d, Submission **taken, int *resign, bint *stop) noexcept nogil
# Every order since the last call, in order; valid until the next one. The caller takes over the values.
cdef size_t delivery_orders(Delivery *d, Order **taken) noexcept nogil
cdef void delivery_carry(Delivery *d, uint32_t group, uint32_t node, Value *bytes) noexcept nogil      # takes a reference
# This node holds the lease until then, and its chosen watermark; 0: it does not. Before anything else can hear of it.
cdef void delivery_lease(Delivery *d, uint64_t chosen, int64_t until) noexcept nogil
# The membership has changed. Before the event that says so.
cdef void delivery_members(Delivery *d, const Membership *m) noexcept nogil
# Whether the engine may sleep (nothing is there); from now on it is woken.
cdef bint delivery_sleep(Delivery *d) noexcept nogil
cdef void delivery_wire(Delivery *d, uint64_t seq, uint64_t token) noexcept nogil
cdef uint64_t delivery_token(Delivery *d, uint64_t seq) noexcept nogil      # 0: not a chunk on its way

# Whether drain() is wanted: what the eventfd for Python tells.
cdef bint delivery_wanted(const Delivery *d) noexcept nogil

# -- Python's threads
cdef void delivery_put(Delivery *d, uint64_t token, int64_t deadline, Value *chunk) noexcept nogil     # takes the reference
# Takes about so many values' events, at least one if there is any: the caller frees them, and lets go of what they hold.
cdef size_t delivery_pop(Delivery *d, int64_t now, size_t most, Event **events) noexcept nogil
cdef bint delivery_disk_full(Delivery *d) noexcept nogil
# False: so much is waiting already that it was dropped. Takes over the value.
cdef bint delivery_order(Delivery *d, int type, uint32_t node, uint64_t instance, uint32_t chain, Value *value) noexcept nogil
# The chosen watermark of a node that holds the lease now; -1: it does not.
cdef int64_t delivery_leased(Delivery *d) noexcept nogil
cdef void delivery_poke(Delivery *d) noexcept nogil             # drain() is wanted, though nothing is there
cdef void delivery_command(Delivery *d, int resign, bint stop) noexcept nogil
cdef void delivery_status(Delivery *d, Status *status) noexcept nogil
cdef void delivery_membership(Delivery *d, Membership *m) noexcept nogil
