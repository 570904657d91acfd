# cython: language_level=3
"""One node as the explorer sees it: a core, what its host keeps, and its disk; as one short string, and back."""
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from paxos._replica cimport Replica
from paxos.testing._book cimport Book
from paxos.testing._saved cimport Tape
from paxos.testing._tables cimport Strings

cdef enum:
    ROOM = 96                       # records, and frames held back, of one node
    CHANGES = 4                     # that one node is asked for

cdef enum Event:                    # what may happen to a node: below FIRST_EVENT, the number of the message it receives
    FIRST_EVENT = 0x10000
    EVENT_DURABLE = 0x10000         # + k: its k oldest records become durable
    EVENT_CRASH = 0x10100           # + k: it crashes, its k oldest records that were not durable reached the disk; it starts
    EVENT_STAND = 0x10200           # it stands for election
    EVENT_SUBMIT = 0x10300          # it is handed a value
    EVENT_EXPIRE = 0x10400          # the deadlines of all its values pass
    EVENT_CHANGE = 0x10500          # it is the master, and asked for another set of voters
    EVENT_LOSE = 0x10600            # it loses its disk, and starts as another incarnation

cdef enum Wrong:                    # what an event must not do; see _explorer for the words
    RIGHT = 0
    WRONG_ORDER = 1
    WRONG_CHAIN = 2
    WRONG_RESTART = 3
    WRONG_RESTORE = 4
    WRONG_DIVERGED = 5
    WRONG_LOWERED = 6
    WRONG_PREPARE = 7
    WRONG_PROMISE = 8
    WRONG_REPORT = 9
    WRONG_ACCEPTED = 10
    WRONG_REJECT = 11
    WRONG_OWNER = 12
    WRONG_READ = 13
    WRONG_REUSE = 14
    WRONG_TWO_ACCEPTS = 15          # from here on: of more than one node, see _explorer
    WRONG_TWO_VALUES = 16
    WRONG_NOT_CHOSEN = 17
    WRONG_REFUSED = 18
    WRONG_AHEAD = 19
    WRONG_UNPROMISED = 20
    WRONG_LEFT = 21

cdef enum:
    LIFE = 100                      # incarnations of a node are so far apart; those of the beginning are below it

# The two halves of the incarnation that a node is when it has lost its disk so often.
cdef inline uint64_t high_of(uint32_t index, uint32_t losses) noexcept nogil:
    return index + 11 + losses * LIFE
cdef inline uint64_t low_of(uint32_t index, uint32_t losses) noexcept nogil:
    return index + 21 + losses * LIFE

cdef struct Scope:
    uint32_t window
    uint32_t instances              # Accepts of this instance and higher ones are lost
    uint32_t carried                # bit (type - FRAME_PREVOTE): frames of this type are carried
    uint32_t elections[3]
    uint32_t values[3]
    uint32_t expiries[3]
    uint32_t crashes[3]
    uint32_t all_crashes
    bint moves                      # not all three are the voters, for ever
    uint32_t alone                  # the nodes that are a quorum by themselves, some time
    uint32_t voters                 # at first
    uint64_t alpha
    uint32_t changes[3]             # how many a node is asked for, over all its lives
    uint32_t wanted[3][4]           # ... to which voters; bit 8 + i: node i as its other incarnation
    uint32_t losses[3]              # 1: it may lose its disk, once
    bint tables                     # nodes tell others who the members are
    bint plain                      # nothing is left out: see explore.py

cdef struct Held:
    uint16_t after
    uint16_t message

cdef struct Host:
    Book *book
    const Scope *scope
    Replica *core
    Replica *disk                   # what a restart would make of the records on the disk
    uint32_t index
    uint32_t elections              # how often each has happened, over all lives
    uint32_t values
    uint32_t expiries
    uint32_t crashes
    uint32_t changes
    uint32_t losses
    uint16_t written[96]            # records that are not durable, in order
    uint32_t written_count
    Held held[96]
    uint32_t held_count
    uint16_t known[16]              # the values chosen, as far as told
    uint32_t known_count
    uint64_t votes                  # mask of the acceptances on the disk, over all time
    uint64_t votes_lost             # ... and on the one that was lost
    uint32_t promised_lost          # the ballot that was promised there
    Tape fresh                      # a core that nothing has happened to
    uint64_t refused                # mask of the chunks that were said to be certainly not executed, over all time
    # of the last event
    uint16_t sent[96]               # messages
    uint32_t sent_count
    int wrong

cdef struct About:                  # what others want to know of a saved node
    uint64_t votes[2]               # by incarnation
    uint64_t facts                  # what it takes for chosen
    uint64_t refused
    uint32_t crashes
    uint32_t written
    bint may_stand
    bint may_submit
    bint may_expire
    bint may_crash
    bint may_change
    bint may_lose
    int role
    bint idle                       # nothing but acceptor and learner, for ever
    uint32_t ballot                 # its own
    uint32_t attempt
    bint collects                   # promises, of `ballot` and `attempt`
    uint32_t life                   # which incarnation it is, 0 or 1
    uint32_t version[2]             # of its table of members, 0: as it knows it, 1: as a restart would
    uint32_t promised_by[2]         # by incarnation: the ballot promised on the disk
    uint32_t chosen[2]              # 0: as it knows it, 1: as a restart would
    uint32_t promised[2]

cdef void host_init(Host *h, Book *book, const Scope *scope, uint32_t index) noexcept nogil
cdef void host_free(Host *h) noexcept nogil
cdef uint32_t host_save(Host *h, Strings *saved, About *about) noexcept nogil       # its number in saved
cdef void host_load(Host *h, const Strings *saved, uint32_t number) noexcept nogil
cdef void host_event(Host *h, uint32_t event) noexcept nogil
cdef bint host_is_deaf(Book *b, const Scope *scope, const About *about, uint32_t message, bint crashes) noexcept nogil
