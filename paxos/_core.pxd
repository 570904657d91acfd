# cython: language_level=3
"""What a host calls. A step never blocks and touches nothing but the replica; its effects stand in replica.out, and the
host takes them (in order) before the next step, then clears the box with out_clear."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from paxos._replica cimport Options, Replica
from paxos._types cimport Ballot, Frame, Membership, Value

cdef Replica *replica_new(const Options *options, const Membership *members, uint64_t signature, uint64_t inc_hi,
                          uint64_t inc_lo, uint32_t boot, uint64_t seed) noexcept nogil
cdef void replica_free(Replica *r) noexcept nogil

# -- recovery: before any step, in log order. 0, or -1 where the record contradicts what came before (damage).
cdef int replica_restore_base(Replica *r, uint64_t first, const uint8_t *body, uint32_t size) noexcept nogil   # first of all
cdef int replica_restore(Replica *r, uint8_t type, uint64_t instance, const uint8_t *body, uint32_t size) noexcept nogil

# -- steps
cdef void replica_start(Replica *r, int64_t now) noexcept nogil
cdef void replica_receive(Replica *r, int64_t now, const Frame *frame) noexcept nogil       # checked by frame_check
cdef void replica_arriving(Replica *r, int64_t now, const Frame *frame) noexcept nogil
#    a hint: of this large frame, unchecked, head and fixed part are there, and the rest comes. No effects.
cdef void replica_submit(Replica *r, int64_t now, uint64_t seq, Value *chunk, int64_t deadline) noexcept nogil
#    chunk: bytes are ChunkHead + entries; takes over the reference. seq counts up from 1, without a gap.
cdef void replica_pump(Replica *r, int64_t now) noexcept nogil      # at the end of a round of events: packs, proposes, forwards
# Hands the mastership over: to a node, or (0) to whoever had best take it. False: this node is not the master, or that one is not fit.
cdef bint replica_transfer(Replica *r, int64_t now, uint32_t node) noexcept nogil
# Has the length of leases (ns; 0: none) chosen. False: this node is not the master.
cdef bint replica_lease(Replica *r, int64_t now, uint64_t lease) noexcept nogil
# A read of this node waits, under a token that is not 0 and takes the place of an older one. EFFECT_READABLE answers.
cdef void replica_read(Replica *r, int64_t now, uint64_t token) noexcept nogil
cdef void replica_durable(Replica *r, int64_t now, uint64_t logged) noexcept nogil          # every record up to this number
cdef void replica_tick(Replica *r, int64_t now) noexcept nogil
cdef int64_t replica_deadline(Replica *r) noexcept nogil            # when replica_tick is wanted next
cdef void replica_peer(Replica *r, int64_t now, uint32_t index, bint up) noexcept nogil     # a hint, never needed for safety
cdef void replica_resign(Replica *r, int64_t now, bint may_lead) noexcept nogil             # gives up mastership; may_lead: may it stand again
# A node that goes by the id of a member, but as another incarnation, asks to be chosen in its place (design rule 10).
cdef void replica_replace(Replica *r, int64_t now, uint32_t node, uint64_t inc_hi, uint64_t inc_lo) noexcept nogil
# Has a table of members chosen in place of the present one, whose version it has. False: see changes_ask. Whether it comes about shows
# as EFFECT_MEMBERSHIP.
cdef bint replica_change(Replica *r, int64_t now, const Membership *next) noexcept nogil
# The membership as somebody else knows it, who knows more. This node does not vote before it has learned as much.
cdef void replica_members(Replica *r, int64_t now, const Membership *m) noexcept nogil
# A checkpoint was installed: every instance below is chosen. Nothing happens where that was known.
cdef void replica_install(Replica *r, int64_t now, uint64_t instance, uint32_t chain, const Membership *members) noexcept nogil
# The value of the next instance is known to be chosen, from a log that was set aside; more of it follows.
cdef void replica_known(Replica *r, int64_t now, Value *value) noexcept nogil
# The log is to begin at `first` (at most the watermark), behind whose predecessor the chain checksum is `chain`: RECORD_BASE.
cdef void replica_base(Replica *r, int64_t now, uint64_t first, uint32_t chain) noexcept nogil
# The same record once more, for what the log begins with lies on a bad disk. False: the log does not begin at the watermark.
cdef bint replica_base_again(Replica *r, int64_t now) noexcept nogil
cdef void replica_seal(Replica *r) noexcept nogil                   # emits a RECORD_WATERMARK
