# cython: language_level=3
"""What must hold at every moment, over all nodes and all time; see _judge.pyx for the list."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from paxos._replica cimport Replica
from paxos._types cimport Ballot, Frame, Value

cdef enum:
    KEPT = 4                        # acceptances of one instance remembered for each node

cdef struct Vote:                   # what of one instance is on one disk
    Ballot ballot                   # highest durable acceptance; round 0: none, or only learned
    uint32_t crc                    # of its value
    bint there
    Ballot ballots[4]               # the newest acceptances, with their values
    uint32_t crcs[4]
    uint32_t count

cdef struct Ledger:                 # of one node
    Ballot promised                 # highest durable promise
    uint64_t end                    # of what was written: what stands before it and comes again is recovery's
    bint sealed                     # the newest write is a seal
    bint lost                       # it has lost what it promised: it must not vote before it is taken in anew, and knows enough
    uint64_t gone_hi                # the incarnation that was lost last,
    uint64_t gone_lo
    Ballot promised_before          # ... and what it had promised
    bint named                      # the membership has named its incarnation
    uint64_t inc_hi                 # the incarnation that was chosen in its place, and from where on that counts
    uint64_t inc_lo
    uint64_t since
    Ballot prepared                 # highest ballot a Prepare or Accept of it has named
    uint32_t prepared_life
    uint64_t at                     # the instance that it has known chosen last,
    bint ahead                      # ... by a checkpoint, whose maker perhaps knew of a later master
    Vote *votes                     # by instance
    uint64_t vote_count
    uint64_t vote_size

cdef struct Named:                  # the value an Accept has named for an instance, under the highest ballot so far
    Ballot ballot
    uint32_t crc

cdef struct Reign:                  # what the instances up to one make of the mastership
    uint64_t version
    uint64_t lease
    uint32_t master

cdef struct Epoch:
    uint64_t first
    uint32_t voters                 # bits of nodes

cdef struct Judge:
    uint32_t nodes
    uint32_t changes                # of the membership that were chosen and hold
    Epoch *epochs                   # who votes, and from which instance on
    uint32_t epoch_count
    uint32_t epoch_size
    uint64_t ballots                # that somebody has stood for
    Ledger ledgers[31]
    Value **chosen                  # by instance
    uint32_t *chains
    Reign *reigns                   # by instance
    uint64_t chosen_count
    uint64_t chosen_size
    Named *named
    uint64_t named_count
    uint64_t named_size
    bint failed
    bint off                        # a scenario of what must never be
    char why[512]

cdef void judge_init(Judge *j, uint32_t nodes, uint32_t voters) noexcept nogil      # bits of the first voters
# Who votes at an instance.
cdef uint32_t judge_voters(const Judge *j, uint64_t instance) noexcept nogil
# Somebody else has found something; the first finding counts.
cdef void judge_found(Judge *j, const char *what, uint32_t index, uint64_t instance) noexcept nogil
cdef void judge_free(Judge *j) noexcept nogil
# Bytes that have become durable in a segment of a node's log, at a place that grows.
cdef void judge_persisted(Judge *j, uint32_t index, uint64_t place, const uint8_t *data, size_t size) noexcept nogil
# A frame that leaves a node, in its life number `life`.
cdef void judge_sent(Judge *j, uint32_t index, uint32_t life, const uint8_t *frame, size_t head, Value *value) noexcept nogil
cdef void judge_chosen(Judge *j, uint32_t index, uint64_t instance, uint32_t chain, Value *value) noexcept nogil
# A replica as it comes up from its log; NULL: the log knows of no cluster.
cdef void judge_restored(Judge *j, uint32_t index, const Replica *r) noexcept nogil
# A node comes up as another incarnation than this one: with its log it has lost what it promised and accepted.
cdef void judge_lost(Judge *j, uint32_t index, uint64_t inc_hi, uint64_t inc_lo) noexcept nogil
# A node takes a checkpoint's word for everything below an instance.
cdef void judge_installed(Judge *j, uint32_t index, uint64_t instance, uint32_t chain) noexcept nogil
# A node, or its Python side, takes a node for the master under a version, and leases for so long, behind what it knew chosen last.
cdef void judge_mastership(Judge *j, uint32_t index, uint32_t master, uint64_t version, uint64_t lease) noexcept nogil
# A frame leaves a node that holds a lease, and answers reads from what is below `known`.
cdef void judge_leased(Judge *j, uint32_t index, uint64_t known, const uint8_t *frame) noexcept nogil
# Somebody is told that his value stands in an instance.
cdef void judge_acknowledged(Judge *j, uint64_t instance) noexcept nogil
