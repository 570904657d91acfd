# cython: language_level=3
"""The explorer's book: everything that a state speaks of (values, ballots, records, messages ...) has a number there."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from paxos._types cimport Ballot, Membership, Value
from paxos.testing._tables cimport Strings

cdef enum:
    NODES = 3
    MOST = 64                       # votes, facts and chunks: each is a bit of a mask
    LONGEST = 1024                  # bytes of a frame, record, value or table of members
    DEEPEST = 16                    # instances, and chunks of one node, are below this
    MESSAGES = 512                  # from one node to another

cdef struct Vote:                   # a node accepted `value` under `ballot`
    uint32_t instance
    uint32_t ballot
    uint32_t value
    uint32_t fact

cdef struct Fact:                   # `instance` has `value`
    uint32_t instance
    uint32_t value
    uint64_t chunks                 # mask of the chunks in the value
    uint64_t against                # facts that cannot be true as well: another value there, or a chunk a second time

cdef struct Message:
    uint32_t to                     # index of the node
    uint32_t vote                   # of an Accept: what it asks for; else NOTHING

cdef struct Book:
    Strings values
    Strings ballots                 # number 0: none
    Strings records
    Strings tables                  # of members
    Strings messages
    Strings sets                    # of numbers of messages; number 0: the empty one
    Value **copies                  # of values, by number
    uint32_t copied
    Message *about                  # of messages, by number
    uint32_t known
    Vote votes[64]
    uint32_t vote_count
    uint64_t at[16]                 # by instance: mask of its votes
    Fact facts[64]
    uint32_t fact_count
    uint64_t chunks[64]
    uint32_t chunk_count
    bint full                       # the scope is too wide for the tables: nothing found is worth anything

cdef void book_init(Book *b) noexcept nogil
cdef void book_free(Book *b) noexcept nogil
cdef uint32_t value_number(Book *b, const Value *value) noexcept nogil
cdef uint32_t ballot_number(Book *b, const Ballot *ballot) noexcept nogil
cdef Ballot ballot_of(Book *b, uint32_t number) noexcept nogil
# Of a table of members with all that is in it; and what has that number, put over *m.
cdef uint32_t table_number(Book *b, const Membership *m) noexcept nogil
cdef void table_read(Book *b, uint32_t number, Membership *m) noexcept nogil
cdef uint32_t vote_number(Book *b, uint32_t instance, uint32_t ballot, uint32_t value) noexcept nogil
cdef uint32_t fact_number(Book *b, uint32_t instance, uint32_t value) noexcept nogil
cdef uint32_t chunk_number(Book *b, uint32_t origin, uint32_t boot, uint64_t seq) noexcept nogil
cdef uint32_t record_number(Book *b, uint8_t type, uint64_t instance, const uint8_t *head, uint32_t size,
                            const Value *value) noexcept nogil
# Of a frame on its way; head and value as they stand in an effect. What says nothing to the receiver is taken off.
cdef uint32_t message_number(Book *b, uint32_t to, const uint8_t *head, uint32_t size, const Value *value) noexcept nogil
cdef uint32_t set_with(Book *b, uint32_t set, uint32_t message) noexcept nogil

cdef struct RecordStart:            # of a record's string; the body follows
    uint32_t type
    uint32_t size
    uint64_t instance
