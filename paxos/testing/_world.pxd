# cython: language_level=3
"""The simulated world below Python: time, network, disks, nodes. One thread; every choice from one seed."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from paxos._state cimport Host
from paxos.testing._judge cimport Judge
from paxos.testing._simdisk cimport SimDisk

cdef extern from *:
    """
    #include <setjmp.h>
    typedef struct { jmp_buf jump; } px_exit;
    /* Runs f; 1 where the simulated process ended in it. What f had on its stack is gone, as the stack of a dead process is. */
    static __attribute__((noinline, unused)) int px_live(px_exit *e, void (*f)(void *), void *argument) {
        if (_setjmp(e->jump)) return 1;
        f(argument);
        return 0;
    }
    static __attribute__((unused)) void px_end(px_exit *e) { _longjmp(e->jump, 1); }
    """
    ctypedef struct Exit "px_exit":
        pass
    int process_live "px_live"(Exit *e, void (*f)(void *) noexcept nogil, void *argument) noexcept nogil
    void process_end "px_end"(Exit *e) noexcept nogil

cdef enum EventKind:
    EVENT_FRAME = 0                 # a frame arrives at `node` from `other`
    EVENT_TIMER = 1
    EVENT_ROUND = 2                 # there is work
    EVENT_WRITTEN = 3               # the disk has done the write
    EVENT_PYTHON = 4                # the node's Python side gets its turn
    EVENT_DIAL = 5                  # `node` tries to connect to `other`
    EVENT_DOWN = 6                  # the connection from `node` to `other` is found broken
    EVENT_RESUME = 7                # from a pause
    EVENT_CALL = 8                  # of the scenario
    EVENT_SPARE = 9                 # the preparer of spare segments gets its turn
    EVENT_KINDS = 10

cdef enum RunEnd:                   # why world_run came back
    RUN_UNTIL = 0                   # nothing is left before the time given
    RUN_PYTHON = 1
    RUN_CALL = 2
    RUN_ENDED = 3                   # the process of a node
    RUN_FAILED = 4                  # the judge has found something

cdef struct Event:
    int64_t at
    uint64_t order                  # of making: equal times keep it
    int kind
    uint32_t node
    uint32_t other
    uint32_t life                   # of node; 0: whichever
    int64_t since                   # when a frame was sent, or a write begun
    uint8_t *data
    size_t size                     # of data; the number of a call

cdef struct Mark:                   # an entry of the timeline
    int64_t since
    int64_t at
    int kind                        # an EventKind, or MARK_*
    uint32_t node
    uint32_t other
    uint64_t a
    uint64_t b

cdef enum MarkKind:
    MARK_MASTER = 100               # a: node taken for the master, b: round of its ballot
    MARK_CHOSEN = 101               # a: instance

cdef struct World

cdef struct Inbox:
    Event *items
    size_t count
    size_t size

cdef struct SimNode:
    World *world
    uint32_t index
    Host *host                      # NULL: the process does not run
    SimDisk disk
    Exit exit
    uint32_t life                   # counts starts of the process
    uint64_t inc_hi                 # its incarnation
    uint64_t inc_lo
    bint writing                    # in a log write: what comes waits
    bint paused                     # the whole process
    bint python_paused              # only its Python side
    bint python_due
    bint round_due
    bint stopped                    # in good order
    bint write_came                 # a write ended during a pause
    bint spare_due
    int64_t short_since             # local time since which its preparer has met a full disk; 0: it has not
    bint was_silent                 # when its round began, records were waiting for room
    int64_t write_since
    int64_t timer_at                # 0: none
    Inbox inbox
    uint32_t connected              # to whom it can send
    uint32_t accepted               # from whom it takes frames
    uint32_t places[31]             # of the others, when it last heard of them
    int64_t clock_base              # local time = clock_base + (now - clock_since) * (1 + ppm / 1e6)
    int64_t clock_since
    int64_t clock_ppm
    int64_t disk_low                # ns of a log write
    int64_t disk_high
    int64_t disk_hangs_until
    int64_t python_low              # ns until Python gets its turn
    int64_t python_high
    uint64_t last_write             # segment << 32 | offset of the newest durable write

cdef struct World:
    int64_t now
    uint64_t order
    Event *heap
    size_t heap_count
    size_t heap_size
    uint32_t node_count
    uint32_t first                  # of these, those with the lowest ids form the cluster; the others may be added
    SimNode nodes[31]
    Judge judge
    uint64_t random                 # of the network
    int64_t delay_low               # ns
    int64_t delay_high
    double loss
    double duplicate
    double corrupt
    double picky[32]                # share of frames of a type that are lost
    double late                     # share of frames that take up to late_ns more
    int64_t late_ns
    double sleepy                   # share of rounds that the scheduler puts off by up to sleepy_ns
    int64_t sleepy_ns
    uint32_t cut[31]                # bit b of cut[a]: frames from a to b are dropped
    uint64_t hash                   # over everything that happened
    uint64_t events
    uint64_t by_kind[10]
    uint64_t frames[32]             # delivered, by type
    uint64_t lost
    uint64_t duplicated
    uint64_t corrupted
    uint64_t refused
    uint64_t late_count
    uint64_t leased                 # events behind which a node held a lease
    uint64_t silenced               # times that a log had no room for a record
    bint recording
    Mark *marks
    size_t mark_count
    size_t mark_size

cdef void world_init(World *w, uint32_t nodes, uint64_t seed, uint32_t first) noexcept nogil
cdef void world_free(World *w) noexcept nogil
# Goes on until `until` (ns), or until Python is wanted: why, and for which node or call.
cdef int world_run(World *w, int64_t until, uint64_t *which) noexcept nogil
cdef void world_watch(SimNode *n) noexcept nogil            # the judge sees what reaches its disk
cdef void world_host(SimNode *n, Host *h) noexcept nogil        # what a Host stands on here
cdef int world_start(SimNode *n) noexcept nogil                 # its Host is ready; RunEnd
cdef void world_wake(SimNode *n) noexcept nogil                 # Python has something for it, or has made room
# Makes it stand for election now, with everybody's consent: who agrees is advice, and safety must not depend on it. RunEnd
cdef int world_stand(SimNode *n) noexcept nogil
cdef void world_ended(SimNode *n, bint power) noexcept nogil    # the process is gone, its Host freed
cdef int64_t world_local(const SimNode *n) noexcept nogil       # what its clock says
