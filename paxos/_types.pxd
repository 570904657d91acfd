# cython: language_level=3
"""Types shared by every part of the core: plain C, no Python object in them.

Everything here is little-endian and free of padding where it stands on the wire or on disk; the sizes are
asserted at import by ``_codec``. ``docs/formats-wire.md`` and ``docs/formats-log.md`` describe the same bytes for people.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>

    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "paxos: the wire and log formats are little-endian; this machine is not supported"
    #endif

    /* A ballot is compared by round, then node, then incarnation. Round 0 means "none". */
    typedef struct { uint64_t round, inc_hi, inc_lo; uint32_t node, zero; } px_ballot;

    /* An immutable, reference-counted value: what an instance chooses. */
    typedef struct { int refs; uint32_t kind, count, size; uint8_t data[]; } px_value;

    static inline void *px_alloc(size_t size) {
        void *p = malloc(size ? size : 1);
        if (!p) { fprintf(stderr, "paxos: out of memory (%zu bytes)\\n", size); abort(); }
        return p;
    }
    static inline void *px_zalloc(size_t size) { void *p = px_alloc(size); memset(p, 0, size); return p; }
    static inline void *px_realloc(void *old, size_t size) {
        void *p = realloc(old, size ? size : 1);
        if (!p) { fprintf(stderr, "paxos: out of memory (%zu bytes)\\n", size); abort(); }
        return p;
    }
    static inline px_value *px_value_new(uint32_t kind, uint32_t count, uint32_t size) {
        px_value *v = (px_value *)px_alloc(sizeof(px_value) + size);
        v->refs = 1; v->kind = kind; v->count = count; v->size = size;
        return v;
    }
    static inline px_value *px_value_ref(px_value *v) {
        if (v) __atomic_add_fetch(&v->refs, 1, __ATOMIC_RELAXED);
        return v;
    }
    static inline void px_value_unref(px_value *v) {
        if (v && __atomic_sub_fetch(&v->refs, 1, __ATOMIC_ACQ_REL) == 0) free(v);
    }
    static inline int px_ballot_compare(const px_ballot *a, const px_ballot *b) {
        if (a->round != b->round) return a->round < b->round ? -1 : 1;
        if (a->node != b->node) return a->node < b->node ? -1 : 1;
        if (a->inc_hi != b->inc_hi) return a->inc_hi < b->inc_hi ? -1 : 1;
        if (a->inc_lo != b->inc_lo) return a->inc_lo < b->inc_lo ? -1 : 1;
        return 0;
    }

    /* ---- on the wire: a frame is this header and a body ---- */
    typedef struct {
        uint32_t magic, length, crc;             /* length: whole frame; crc32c of bytes 12..length */
        uint8_t version, type; uint16_t flags;
        uint32_t group, sender;
        uint64_t signature;                      /* low 64 bits of the cluster's signature; 0 before formation */
        uint64_t inc_hi, inc_lo;                 /* the sender's incarnation */
        uint64_t chosen;                         /* the sender's chosen watermark n: instances 0..n-1 are chosen */
        uint32_t chain, zero;                    /* chain checksum at n */
    } px_frame;                                  /* 64 bytes */

    typedef struct { uint32_t size, count, kind, zero; } px_value_head;                           /* 16 */
    /* A batch value is a row of chunks; a chunk is what one propose() or propose_many() handed in. */
    typedef struct { uint32_t size, count, origin, boot; uint64_t seq; uint32_t machine, life; } px_chunk_head;  /* 32; size: bytes behind */

    typedef struct { uint64_t transfer; uint32_t total, offset; } px_piece;                       /* 16; bytes of a frame follow */
    typedef struct { px_ballot ballot; uint32_t cut_off, zero; } px_prevote;
    typedef struct { px_ballot ballot, promised; uint32_t granted, zero; } px_prevote_reply;
    typedef struct { px_ballot ballot, released; uint64_t from; uint32_t attempt, zero; } px_prepare;
    typedef struct { px_ballot ballot, accepted; uint64_t instance; uint32_t attempt, zero; px_value_head value; } px_promise_value;
    typedef struct { px_ballot ballot; uint64_t first_kept; uint32_t attempt, count; } px_promise;
    typedef struct { px_ballot ballot, promised; } px_reject;
    typedef struct { px_ballot ballot; uint64_t instance, own_from; px_value_head value; } px_accept;
    typedef struct { px_ballot ballot; uint64_t first, last; } px_accepted;
    typedef struct { px_ballot ballot; uint64_t own_from, settled, sent_at; } px_heartbeat;
    typedef struct { px_ballot ballot; uint64_t sent_at, lease; uint32_t priority, zero; } px_heartbeat_reply; /* sent_at 0: no vote */
    typedef struct { px_ballot ballot; } px_transfer;
    typedef struct { px_ballot ballot; uint32_t heard, zero; } px_relieve;                        /* heard: bits of members */
    typedef struct { uint64_t token; uint32_t boot, life; } px_read;         /* boot, life: as in a chunk */
    typedef struct { px_read read; uint64_t index; } px_readable;            /* 24 */
    typedef struct { uint64_t first, end; uint32_t max_bytes, zero; } px_learn;
    typedef struct { uint64_t first; uint32_t count, zero; } px_learned;
    typedef struct { px_ballot ballot; uint32_t boot, count; } px_forward;
    typedef struct { px_ballot ballot; uint32_t boot, reason, count, life; } px_forward_refused;
    typedef struct { uint64_t asked, first_kept; } px_kept;
    typedef struct { uint64_t zero; } px_carry;     /* bytes of one Python side for another follow */
    typedef struct { uint64_t inc_hi, inc_lo; } px_join;

    /* The value of an instance that changes the membership: this, then all `count` rows as they are to be. See _membership. */
    typedef struct { uint32_t version, count; } px_change;
    /* The value of an instance by which a master says that it has taken over (lease 0), or changes the length of leases (ns). */
    typedef struct { uint32_t node, takeover; uint64_t inc_hi, inc_lo, lease; } px_mastership;        /* 32 */
    /* Membership and mastership as bytes: this head, then `count` rows. In records and in manifests of checkpoints. */
    typedef struct { uint32_t version, count; uint64_t mastership, mastered, lease, in_force, as_of; uint32_t master, before; } px_membership_head;
    /* 40, and behind each row `address` bytes of its address, HOST:PORT; node 0: nobody has this place, and all is 0 */
    typedef struct { uint32_t node, role; uint64_t inc_hi, inc_lo, since; uint32_t instead, address; } px_membership_row;

    /* ---- in the log: a record is this header and a body; see docs/formats-log.md ---- */
    typedef struct {
        uint32_t crc;                            /* crc32c, seeded with incarnation and segment number, of bytes 4..32+size */
        uint32_t previous;                       /* crc of the record before this one, across writes and segments */
        uint32_t size;                           /* bytes of the body */
        uint8_t version, type; uint16_t flags;
        uint32_t group, zero;
        uint64_t instance;
    } px_record;                                 /* 32 bytes */

    typedef struct { px_ballot ballot; } px_record_promise;
    typedef struct { px_ballot ballot; uint64_t chosen; uint32_t chain, zero; px_value_head value; } px_record_accept;
    typedef struct { uint64_t chosen; uint32_t chain, zero; px_value_head value; } px_record_learn;
    typedef struct { uint64_t chosen; uint32_t chain, zero; } px_record_watermark;
    typedef struct { uint64_t durable; uint32_t boot, length; uint32_t records, oldest; } px_record_write;
    typedef struct { uint64_t inc_hi, inc_lo; uint32_t node, boot; } px_record_identity;
    typedef struct { px_ballot promised; uint32_t chain, was_member; } px_record_base;   /* then a membership as bytes */
    """
    ctypedef struct Ballot "px_ballot":
        uint64_t round
        uint64_t inc_hi
        uint64_t inc_lo
        uint32_t node
        uint32_t zero
    ctypedef struct Value "px_value":
        int refs
        uint32_t kind
        uint32_t count
        uint32_t size
        uint8_t *data
    ctypedef struct Frame "px_frame":
        uint32_t magic
        uint32_t length
        uint32_t crc
        uint8_t version
        uint8_t type
        uint16_t flags
        uint32_t group
        uint32_t sender
        uint64_t signature
        uint64_t inc_hi
        uint64_t inc_lo
        uint64_t chosen
        uint32_t chain
        uint32_t zero
    ctypedef struct ValueHead "px_value_head":
        uint32_t size
        uint32_t count
        uint32_t kind
        uint32_t zero
    ctypedef struct ChunkHead "px_chunk_head":
        uint32_t size
        uint32_t count
        uint32_t origin
        uint32_t boot
        uint64_t seq
        uint32_t machine
        uint32_t life               # of the incarnation that handed it in: a new one counts boots and chunks from 1 again
    ctypedef struct Piece "px_piece":
        uint64_t transfer
        uint32_t total
        uint32_t offset
    ctypedef struct Prevote "px_prevote":
        Ballot ballot
        uint32_t cut_off            # it reaches a quorum, but not the master, and has something to propose
        uint32_t zero
    ctypedef struct PrevoteReply "px_prevote_reply":
        Ballot ballot
        Ballot promised
        uint32_t granted
        uint32_t zero
    ctypedef struct Prepare "px_prepare":
        Ballot ballot
        Ballot released
        uint64_t first "from"
        uint32_t attempt
        uint32_t zero
    ctypedef struct PromiseValue "px_promise_value":
        Ballot ballot
        Ballot accepted
        uint64_t instance
        uint32_t attempt
        uint32_t zero
        ValueHead value
    ctypedef struct Promise "px_promise":
        Ballot ballot
        uint64_t first_kept
        uint32_t attempt
        uint32_t count
    ctypedef struct Reject "px_reject":
        Ballot ballot
        Ballot promised
    ctypedef struct Accept "px_accept":
        Ballot ballot
        uint64_t instance
        uint64_t own_from
        ValueHead value
    ctypedef struct Accepted "px_accepted":
        Ballot ballot
        uint64_t first
        uint64_t last
    ctypedef struct Heartbeat "px_heartbeat":
        Ballot ballot
        uint64_t own_from
        uint64_t settled
        uint64_t sent_at
    ctypedef struct HeartbeatReply "px_heartbeat_reply":
        Ballot ballot
        uint64_t sent_at
        uint64_t lease
        uint32_t priority
        uint32_t zero
    ctypedef struct Transfer "px_transfer":
        Ballot ballot
    ctypedef struct Relieve "px_relieve":
        Ballot ballot
        uint32_t heard
        uint32_t zero
    ctypedef struct Read "px_read":
        uint64_t token
        uint32_t boot
        uint32_t life
    ctypedef struct Readable "px_readable":
        Read read
        uint64_t index
    ctypedef struct Learn "px_learn":
        uint64_t first
        uint64_t end
        uint32_t max_bytes
        uint32_t zero
    ctypedef struct Learned "px_learned":
        uint64_t first
        uint32_t count
        uint32_t zero
    ctypedef struct Forward "px_forward":
        Ballot ballot
        uint32_t boot
        uint32_t count
    ctypedef struct ForwardRefused "px_forward_refused":
        Ballot ballot
        uint32_t boot
        uint32_t reason
        uint32_t count
        uint32_t life
    ctypedef struct Kept "px_kept":
        uint64_t asked
        uint64_t first_kept
    ctypedef struct Carry "px_carry":
        uint64_t zero
    ctypedef struct Join "px_join":
        uint64_t inc_hi
        uint64_t inc_lo
    ctypedef struct Change "px_change":
        uint32_t version
        uint32_t count
    ctypedef struct Mastership "px_mastership":
        uint32_t node
        uint32_t takeover
        uint64_t inc_hi
        uint64_t inc_lo
        uint64_t lease
    ctypedef struct MembershipHead "px_membership_head":
        uint32_t version
        uint32_t count
        uint64_t mastership
        uint64_t mastered
        uint64_t lease
        uint64_t in_force
        uint64_t as_of
        uint32_t master
        uint32_t before
    ctypedef struct MembershipRow "px_membership_row":
        uint32_t node
        uint32_t role
        uint64_t inc_hi
        uint64_t inc_lo
        uint64_t since
        uint32_t instead
        uint32_t address
    ctypedef struct Record "px_record":
        uint32_t crc
        uint32_t previous
        uint32_t size
        uint8_t version
        uint8_t type
        uint16_t flags
        uint32_t group
        uint32_t zero
        uint64_t instance
    ctypedef struct RecordPromise "px_record_promise":
        Ballot ballot
    ctypedef struct RecordAccept "px_record_accept":
        Ballot ballot
        uint64_t chosen
        uint32_t chain
        uint32_t zero
        ValueHead value
    ctypedef struct RecordLearn "px_record_learn":
        uint64_t chosen
        uint32_t chain
        uint32_t zero
        ValueHead value
    ctypedef struct RecordWatermark "px_record_watermark":
        uint64_t chosen
        uint32_t chain
        uint32_t zero
    ctypedef struct RecordWrite "px_record_write":
        uint64_t durable
        uint32_t boot
        uint32_t length
        uint32_t records
        uint32_t oldest
    ctypedef struct RecordIdentity "px_record_identity":
        uint64_t inc_hi
        uint64_t inc_lo
        uint32_t node
        uint32_t boot
    ctypedef struct RecordBase "px_record_base":
        Ballot promised
        uint32_t chain
        uint32_t was_member

    void *xalloc "px_alloc"(size_t size) noexcept nogil
    void *xzalloc "px_zalloc"(size_t size) noexcept nogil
    void *xrealloc "px_realloc"(void *old, size_t size) noexcept nogil
    Value *value_new "px_value_new"(uint32_t kind, uint32_t count, uint32_t size) noexcept nogil
    Value *value_ref "px_value_ref"(Value *v) noexcept nogil
    void value_unref "px_value_unref"(Value *v) noexcept nogil
    int ballot_compare "px_ballot_compare"(const Ballot *a, const Ballot *b) noexcept nogil

# ---- settings that would corrupt data if changed between versions ----
cdef enum:
    FORMAT_VERSION = 1
    FRAME_MAGIC = 0x31465850        # "PXF1"
    SEGMENT_MAGIC = 0x31535850      # "PXS1"
    BLOCK = 4096                    # writes to the log start and end on this boundary
    ALPHA = 64                      # a membership chosen at c is in force from c + ALPHA
    RING = 1024                     # slots above the chosen watermark that a node can hold
    MAX_MEMBERS = 31
    PLACES = 32                     # rows of a table of members, the last of which nobody has:
    NOWHERE = 31                    # there stands who has no place
    ADDRESS_MAX = 255               # bytes of HOST:PORT
    LEASE_MAX = 60000000000         # ns; nobody can be kept from an election for longer
    FRAME_WHOLE = 131072            # bytes of the largest frame on the wire; a larger one travels in pieces
    CHUNK_WINDOW = 65536            # chunks of one origin that may be under way at once (de-duplication window)

cdef enum ValueKind:
    VALUE_NOOP = 0
    VALUE_BATCH = 1                 # a row of chunks
    VALUE_CHANGE = 2                # of the membership: a px_change
    VALUE_MASTER = 3                # a master has taken over, or changes the lease: a px_mastership

cdef enum Role:                     # of a member
    MEMBER_VOTER = 0
    MEMBER_LEARNER = 1              # becomes a voter by itself as soon as it is level
    MEMBER_FOLLOWER = 2             # learns, and stays without a vote
    MEMBER_LEAVING = 3              # votes until the change that removes it is in force

cdef enum FrameType:
    FRAME_HELLO = 1                 # node level (group 0): who is there; see _formation
    FRAME_REFUSE = 2
    FRAME_FORM = 3
    FRAME_FORM_OK = 4
    FRAME_FORMED = 5
    FRAME_PIECE = 6                 # of a larger frame of a group; see _pieces
    FRAME_JOIN = 7                  # of a node whose incarnation is no member; see _formation
    FRAME_WELCOME = 8
    FRAME_MEMBERS = 9               # behind a HELLO: who the members are, for who knows less than the sender
    FRAME_PREVOTE = 16              # group level: see _core
    FRAME_PREVOTE_REPLY = 17
    FRAME_PREPARE = 18
    FRAME_PROMISE_VALUE = 19
    FRAME_PROMISE = 20
    FRAME_REJECT = 21
    FRAME_ACCEPT = 22
    FRAME_ACCEPTED = 23
    FRAME_HEARTBEAT = 24
    FRAME_HEARTBEAT_REPLY = 25
    FRAME_LEARN = 26
    FRAME_LEARNED = 27
    FRAME_FORWARD = 28
    FRAME_FORWARD_REFUSED = 29
    FRAME_KEPT = 30                 # to a LEARN that asks for instances which are deleted here
    FRAME_CARRY = 31                # between the Python sides; the core never sees it
    FRAME_READ = 32                 # to the master: from where on may be read here?
    FRAME_READABLE = 33
    FRAME_TRANSFER = 34             # from the master: take over
    FRAME_RELIEVE = 35              # to the master: somebody does not hear you, and I hear so many

cdef enum RecordType:
    RECORD_WRITE = 1                # first record of every write: how far the log was durable when it was issued
    RECORD_IDENTITY = 2             # node, incarnation, boot: once a start
    RECORD_FORMATION = 3            # signature, alpha, members
    RECORD_FORMED = 4               # the formation is known durable on all
    RECORD_PROMISE = 5
    RECORD_ACCEPT = 6
    RECORD_LEARN = 7                # a chosen value that was fetched from another node
    RECORD_WATERMARK = 8
    RECORD_BASE = 9                 # the log begins at `instance`: all that is needed of what was deleted before it

cdef enum Settle:                   # what became of a chunk of this node that will not be applied here
    SETTLE_NOT_AVAILABLE = 1        # certain: never left this node, deadline passed
    SETTLE_OVERLOADED = 2           # certain: the master refused it
    SETTLE_UNKNOWN = 3

# ---- what a step puts out ----
cdef enum EffectType:
    EFFECT_SEND = 1                 # send head (+ value) to `peers` once record `after` of this replica is durable
    EFFECT_LOG = 2                  # append a record: type `code`, `instance`, body = head (+ value)
    EFFECT_CHOSEN = 3               # `instance` has `value`, chain checksum `after` behind it; in order, without a gap
    EFFECT_READ = 4                 # send chosen values instance..end-1 (at most `after` bytes) from the log to `peers`
    EFFECT_SETTLED = 5              # chunk `instance` of this node: `code` (Settle)
    EFFECT_MASTER = 6               # the master is node `code` (0: none known) under ballot round `instance`; end=1: established
    EFFECT_DIVERGED = 7             # chain checksum at `instance` differs from that of node `code`
    EFFECT_FORMED = 8               # node level: the cluster is formed
    EFFECT_MEMBERSHIP = 9           # the place with index `code` is somebody else's from now on, or nobody's, or what he is has changed
    EFFECT_BEHIND = 10              # node `code` has deleted what comes next here; it keeps instances from `instance` on
    EFFECT_INSTALLED = 11           # the watermark was set to `instance`, chain checksum `after`, by a checkpoint
    EFFECT_MASTERSHIP = 13          # by what is chosen node `code` is the master, version `instance`, leases are `end` ns long
    EFFECT_READABLE = 12            # read `after` of this node may be answered by whoever has applied everything below `instance`

cdef struct Effect:
    int type
    uint32_t code
    uint32_t peers                  # bit i: member with index i
    uint32_t head_size
    size_t head                     # offset into the outbox' arena
    uint64_t after
    uint64_t instance
    uint64_t end
    Value *value                    # a reference of the effect's own, or NULL

cdef struct Outbox:
    Effect *effects
    size_t count
    size_t capacity
    uint8_t *arena
    size_t used
    size_t size

cdef struct Member:
    uint32_t node                   # 0: nobody has this place
    uint32_t role
    uint64_t inc_hi                 # 0, 0: it has not said yet which it is
    uint64_t inc_lo

cdef struct Membership:             # a member keeps its place, its index here, as long as it is one
    uint32_t count                  # places that anybody has or had
    uint32_t version                # changes chosen so far
    uint32_t present                # bits of the places that somebody has
    uint32_t voters                 # ... who votes at the instances from `in_force` on
    uint32_t before                 # ... and below
    uint64_t in_force
    uint64_t as_of                  # who knows less than the instances below it does not know what held there
    Member members[32]
    uint64_t since[32]              # the votes of this incarnation count from this instance on
    uint32_t instead[32]            # node that goes when this one becomes a voter; 0: none
    char address[32][256]           # HOST:PORT, ended by 0; "": as each node was configured
    uint64_t mastership             # how often a master has taken over: the fencing token
    uint64_t mastered               # instances below it have told of it all that they do
    uint64_t lease                  # ns that a lease lasts; 0: there are none
    uint32_t master                 # the node that has taken over last

cdef inline uint32_t life_of(uint64_t inc_lo) noexcept nogil:
    """What of an incarnation stands in a chunk: by that and the boot a process knows its own."""
    return <uint32_t>inc_lo

cdef inline uint32_t bit(uint32_t index) noexcept nogil:
    return (<uint32_t>1) << index

cdef inline int popcount(uint32_t mask) noexcept nogil:
    cdef int n = 0
    while mask:
        mask &= mask - 1
        n += 1
    return n

cdef inline bint is_majority(uint32_t voters, uint32_t mask) noexcept nogil:
    return popcount(mask & voters) * 2 > popcount(voters)

cdef inline uint32_t voters_at(const Membership *m, uint64_t instance) noexcept nogil:
    return m.voters if instance >= m.in_force else m.before

cdef inline bint is_quorum(const Membership *m, uint64_t instance, uint32_t mask) noexcept nogil:
    """... of the members whose votes count at that instance."""
    return is_majority(voters_at(m, instance), mask)

cdef inline bint is_quorum_of_all(const Membership *m, uint64_t instance, uint32_t mask) noexcept nogil:
    """... of those in force there, and of those who are chosen and not in force yet (rules 20 and 21)."""
    return is_quorum(m, instance, mask) and is_majority(m.voters, mask)
