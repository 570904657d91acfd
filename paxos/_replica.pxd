# cython: language_level=3
"""The state of one group's replica. The roles (_acceptor, _proposer, _learner, _election) work on it; _core drives them."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from paxos._types cimport Ballot, CHUNK_WINDOW, Effect, Learn, Membership, Outbox, Prepare, RING, Read, Value

cdef enum Role:
    ROLE_FOLLOWER = 0
    ROLE_ASKING = 1                 # asks a majority whether an election is wanted (no ballot raised yet)
    ROLE_PREPARING = 2              # own promise being made durable, then Prepare out
    ROLE_MASTER = 3

cdef enum ChunkState:
    CHUNK_FREE = 0
    CHUNK_QUEUED = 1                # here, not proposed, not forwarded
    CHUNK_FORWARDED = 2             # sent to the master of `ballot`
    CHUNK_PROPOSED = 3              # in an instance that this node proposed under `ballot`

cdef struct Options:                # times in ns
    uint32_t group
    uint32_t node
    uint32_t window                 # instances in flight
    uint32_t batch_bytes
    uint32_t batch_values
    int64_t heartbeat
    int64_t election_min
    int64_t election_max
    int64_t resend
    uint64_t queue_bytes            # bound of what waits in the proposer
    uint32_t max_frame
    uint32_t priority               # a master hands over to a node with a higher one; 0: this node never leads
    uint32_t follow_count           # nodes from which it learns before it asks others, as long as they answer
    uint32_t follow[8]

cdef struct Slot:                   # one instance above the chosen watermark
    uint64_t instance
    Ballot ballot                   # accepted under; round 0: nothing accepted
    Value *value
    uint64_t record                 # log number (see Replica.logged) of the acceptance
    bint used
    bint chosen
    bint own                        # proposed by this node under its current ballot
    uint32_t acks                   # members whose durable acceptance under `ballot` is known (own proposals)
    uint32_t rounds                 # message rounds on the critical path so far
    int64_t sent
    Ballot report_ballot            # while preparing: the highest acceptance reported
    Value *report_value
    uint32_t reported               # members whose report for this attempt is in

cdef struct Chunk:                  # of any origin, on its way; bytes are ChunkHead + entries
    uint32_t origin
    uint32_t boot
    uint64_t seq
    uint32_t count
    Value *bytes
    Chunk *next

cdef struct Pending:                # a chunk of this node that is not settled, at seq % CHUNK_WINDOW
    uint64_t seq
    int state
    int64_t deadline
    Ballot ballot
    Value *bytes
    uint64_t chosen                 # one past the instance that settled it, by being chosen; 0: nothing has, or its time was up

cdef struct Origin:                 # which chunks of a node were taken under the current own ballot
    uint32_t boot
    uint64_t high
    uint64_t *bits

cdef struct Asked:                  # a member's read, at the master
    Read read                       # token 0: there is none
    bint answered                   # it is, and may be once more
    uint64_t round                  # of heartbeats, sent after it came; 0: none has been
    uint64_t index                  # the chosen watermark when that was sent

cdef struct Counters:
    uint64_t chosen_values
    uint64_t chosen_instances
    uint64_t rounds                 # sum over values chosen by this node as master of their message rounds
    uint64_t proposed_values        # the values that sum is over
    uint64_t elections
    uint64_t refused_frames
    uint64_t read_rounds            # rounds of heartbeats sent for reads

cdef struct Replica:
    Options options
    Membership members
    uint64_t alpha                  # ALPHA; only the explorer makes it small
    uint32_t self                   # own place; NOWHERE: it has none
    uint32_t boot
    uint64_t signature
    uint64_t inc_hi
    uint64_t inc_lo
    bint outsider                   # this incarnation is no member (yet, or any more)
    bint was_member                 # ... but has been
    uint32_t owed                   # bit of the member whose `owed_prepare` came before this node may vote; it is answered then
    Prepare owed_prepare
    uint32_t late                   # bit of the master whose Accept came before this node knew what it must to take it
    uint64_t late_at                # ... and the instance of that
    bint may_lead                   # cleared while the Python side is stuck or applying has stopped
    Outbox out
    uint64_t random                 # state of the seeded generator
    int64_t now
    uint64_t logged                 # records emitted so far
    uint64_t durable                # records durable so far
    # acceptor
    Ballot promised
    uint64_t promise_record
    # learner
    uint64_t chosen                 # n: instances 0..n-1 are chosen and known here
    uint32_t chain
    uint64_t first_kept
    bint before_base                # recovery: the newest RECORD_BASE has been taken, and its place in the log is still to come
    uint64_t heard_chosen           # highest n any member has spoken of
    uint32_t heard_from
    bint learning                   # a Learn is out
    int64_t learn_deadline
    uint32_t learn_peer
    int64_t accept_until            # until then the large Accept of `accept_from` (node) that tells what is chosen is waited for
    uint32_t accept_from
    uint64_t *known                 # per member: the watermark of its last frame
    uint64_t *kept                  # per member: the first instance it said it keeps
    uint32_t shunned                # members that have not answered a Learn lately
    int64_t shunned_until
    uint32_t expecting              # members that have asked for what is not chosen here yet: they get it when it is
    Learn *expected                 # per member
    bint diverged
    Slot *slots
    # election
    int role
    uint32_t master                 # node id; 0: none known
    Ballot master_ballot
    bint master_settled             # the master has chosen an instance of its own ballot
    uint64_t master_settled_at      # instances below this hold everything that can survive of older ballots
    int64_t election_deadline
    int64_t heard_master            # when
    Ballot asked                    # what the others were asked to agree to
    uint32_t granted
    uint32_t promises               # members whose promise for this attempt is complete
    uint32_t forced                 # ballots raised against others that hear a master, lately; each next one takes twice as long
    int64_t forced_at
    uint32_t attempt
    uint64_t prepare_from
    int64_t prepare_sent
    int64_t report_until            # until then a large report for this attempt is waited for
    uint64_t highest_round
    uint32_t *promise_wanted        # per member: values announced, +1 (0: the closing Promise is not in yet)
    uint32_t *promise_got
    # proposer
    Ballot ballot                   # own ballot
    int64_t elected_at
    uint64_t own_from               # first instance proposed under it
    uint64_t takeover_end           # instances below it come from the promises; one no-op follows, then new values
    uint64_t next_instance
    bint throttled                  # new values wait: the log is at its budget, and a checkpoint is being made
    uint32_t joiner                 # index of the member in whose place another incarnation asked to be put lately, +1; 0: none
    uint64_t joiner_hi
    uint64_t joiner_lo
    int64_t joiner_until
    uint64_t change_at              # instance of the change of membership last proposed under the own ballot, +1
    bint extending                  # promises of a quorum of the new voters are being asked for
    Membership *wanted              # the table that is to be proposed next, or NULL
    uint64_t noticed                # watermark that the others have been told
    int64_t notice_due              # when they are to be told, if no Accept goes out before; 0: nothing to tell
    int64_t *heard                  # per member: last frame
    uint32_t down                   # members that the host cannot reach, as far as it knows
    int64_t heartbeat_due
    Chunk *queue_head
    Chunk *queue_tail
    uint64_t queue_bytes
    uint64_t queue_values
    Pending *pending
    uint64_t pending_first          # oldest unsettled seq
    uint64_t pending_end            # one past the newest seq
    uint64_t pending_scan           # no chunk below it is CHUNK_QUEUED
    int64_t expire_due
    int64_t forward_due
    bint settle_old                 # chunks of older ballots are to be settled as unknown once the take-over is applied
    int64_t settle_due              # ... at the latest, whose refusal may be on its way; 0: there are none
    Origin *origins                 # per member
    # reads
    uint64_t round                  # of heartbeats that want an answer: when the newest was sent, but each has a number of its own
    uint64_t *answered              # per member: the newest round it has answered under the own ballot, while it had a vote
    Asked *asked_reads              # per member, the own index included
    uint64_t read_token             # a read of this node that waits; 0: none
    int64_t read_due                # when the master is to be asked, or asked again
    # mastership: the master's side
    int64_t *granted_until          # per member: until when it promises to nobody else, by this node's clock, drift taken off
    uint32_t *priority              # per member: what its last answer said; 0: it must not lead
    bint released                   # the lease of the own ballot was given up, for good
    uint32_t hand_to                # index of the member that is to take over, +1; 0: none
    bint handed                     # it has been told
    bint told                       # ... as somebody was, under the own ballot
    int64_t hand_until
    bint leaving                    # this node has no vote soon, and has tried to hand over for that
    uint32_t prefer                 # index of a member with a higher priority that has been level since `prefer_since`, +1
    int64_t prefer_since
    uint32_t preferred              # hand-overs for a priority lately
    int64_t preferred_at
    uint64_t lease_wanted           # what the lease is to become, +1; 0: nothing
    # ... and that of the others
    Ballot grant                    # the ballot whose master this node has promised to promise to nobody else
    int64_t grant_until
    uint64_t grant_lease            # for how long
    int64_t granting                # it was given at this moment, and counts from the next one on; 0: it does
    Ballot released_by              # the ballot that gave its lease up for the own candidacy; round 0: none
    uint64_t lease_logged           # the length of leases that the log is sure to tell of,
    uint64_t lease_record           # ... when this record is durable
    Counters counters


cdef inline Slot *slot_at(Replica *r, uint64_t instance) noexcept nogil:
    """The place of an instance in the ring, whatever it holds."""
    return &r.slots[instance & (RING - 1)]

cdef inline Slot *slot_of(Replica *r, uint64_t instance) noexcept nogil:
    """The slot of an instance that something is known of, or NULL."""
    cdef Slot *s = &r.slots[instance & (RING - 1)]
    return s if s.used and s.instance == instance else NULL

cdef inline Pending *pending_at(Replica *r, uint64_t seq) noexcept nogil:
    """A chunk of this node that is not settled, or NULL."""
    cdef Pending *p = &r.pending[seq % CHUNK_WINDOW]
    return p if p.state != CHUNK_FREE and p.seq == seq else NULL

cdef inline bint in_ring(const Replica *r, uint64_t instance) noexcept nogil:
    return instance >= r.chosen and instance - r.chosen < RING

cdef inline int64_t patience(uint64_t size) noexcept nogil:
    """How much longer than others a large message may take, network and disk together: 20 MB/s. Nothing below 64 KiB."""
    return <int64_t>(size >> 16) * 3276800

cdef Slot *slot_take(Replica *r, uint64_t instance) noexcept nogil     # the slot, made if there was none
cdef void slot_free(Slot *s) noexcept nogil
cdef int64_t draw(Replica *r, int64_t low, int64_t high) noexcept nogil
cdef uint32_t others(const Replica *r) noexcept nogil
cdef int member_index(const Replica *r, uint32_t node) noexcept nogil
# Index of a master that this node can send something to; -1: there is none, or this node is it.
cdef int remote_master(const Replica *r) noexcept nogil
# A frame: begin gives the zeroed body to fill in; end takes a reference of value, writes header, length and crc.
cdef void *frame_begin(Replica *r, uint8_t type, uint32_t peers, uint64_t after, size_t body) noexcept nogil
cdef void frame_end(Replica *r, Value *value) noexcept nogil
# A record; the body to fill in. Its number is r.logged afterwards.
cdef void *record_add(Replica *r, uint8_t type, uint64_t instance, size_t body, Value *value) noexcept nogil
cdef void send_reject(Replica *r, uint32_t index, const Ballot *ballot) noexcept nogil
cdef void set_master(Replica *r, uint32_t node, const Ballot *ballot, bint settled) noexcept nogil
cdef void promise_here(Replica *r, const Ballot *ballot) noexcept nogil
cdef void accept_here(Replica *r, Slot *s, const Ballot *ballot, Value *value) noexcept nogil
