# cython: language_level=3
"""Who belongs to the cluster: handshake checks and the forming of a new cluster (design rule 9). A pure step function
like the replica: effects (EFFECT_SEND, EFFECT_LOG, EFFECT_FORMED) stand in formation.out. Members are sorted by node id."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from paxos._types cimport Frame, Membership, Outbox

cdef enum FormationState:
    STATE_EMPTY = 0                 # no cluster yet
    STATE_FORMING = 1               # formation record durable here, not yet known durable on all
    STATE_FORMED = 2
    STATE_LOST = 3                  # in a HELLO: empty, but it has not always been; no cluster is formed with it

cdef enum RefuseReason:             # why a HELLO is turned away; REFUSE carries it to the other side
    REFUSE_NONE = 0
    REFUSE_NOT_FOR_ME = 1           # addressed to another node id
    REFUSE_OTHER_CLUSTER = 2        # another signature
    REFUSE_NOT_MEMBER = 3           # a node id that is no member
    REFUSE_OTHER_INCARNATION = 4    # a member's id with another incarnation (wiped, or a second process)
    REFUSE_OTHER_CONFIG = 5         # empty nodes with different cluster= lists
    HELLO_NEWER = 6                 # no reason: it is no member as far as is known here, but knows more; its MEMBERS tell

cdef enum:
    MEMBERS_FRAME = 9289            # bytes of the largest MEMBERS: head, form, membership

cdef extern from *:
    """
    /* config: checksum of the configured ids; of who is formed, the version of the membership */
    typedef struct { uint64_t sig_hi, sig_lo; uint32_t to, boot, state, config; } px_hello;   /* 32 */
    typedef struct { uint32_t reason, zero; } px_refuse;
    typedef struct { uint64_t sig_hi, sig_lo; uint32_t alpha, count; } px_form;     /* 24, then count members of 24 bytes */
    """
    ctypedef struct Hello "px_hello":
        uint64_t sig_hi
        uint64_t sig_lo
        uint32_t to
        uint32_t boot
        uint32_t state
        uint32_t config
    ctypedef struct Refuse "px_refuse":
        uint32_t reason
        uint32_t zero
    ctypedef struct Form "px_form":
        uint64_t sig_hi
        uint64_t sig_lo
        uint32_t alpha
        uint32_t count

cdef struct Formation:
    uint32_t node
    uint32_t self                   # own index
    uint32_t boot
    uint64_t inc_hi
    uint64_t inc_lo
    uint64_t sig_hi
    uint64_t sig_lo
    uint64_t fresh_hi               # random, from the host: the signature if this node forms the cluster
    uint64_t fresh_lo
    int state
    Membership members              # configured ids; incarnations as heard, as formed, and as the host says since
    Membership first                # as formed
    bint lost                       # what this node had is set aside: it waits for one that still has it
    bint was_member                 # this incarnation had a place, and has been replaced: it asks for none
    uint32_t config_crc
    uint32_t empty                  # members heard to be empty (by index)
    uint32_t formed_ok              # members that hold the formation record durably
    uint32_t met_formed             # members of a formed cluster met while this node is empty
    uint64_t logged
    uint64_t record                 # number of the formation record
    uint64_t durable                # records durable so far
    int64_t next_send
    Outbox out

cdef void formation_init(Formation *f, uint32_t node, uint64_t inc_hi, uint64_t inc_lo, uint32_t boot,
                         const Membership *configured, uint64_t fresh_hi, uint64_t fresh_lo, bint lost) noexcept nogil
cdef void formation_free(Formation *f) noexcept nogil
cdef int formation_restore(Formation *f, uint8_t type, const uint8_t *body, uint32_t size) noexcept nogil   # 0, -1: bad
cdef void formation_start(Formation *f, int64_t now) noexcept nogil
# Writes a MEMBERS frame into out; its size, 0: there is nothing to tell.
cdef size_t formation_members(const Formation *f, uint8_t *out) noexcept nogil
# Whether a MEMBERS frame tells what is not known here, by somebody who is not known here. Reads it into *m.
cdef bint formation_newer(const Formation *f, const Frame *frame, Membership *m) noexcept nogil
# Writes this node's HELLO for member `index` (a whole frame, 96 bytes) into out.
cdef void formation_hello(Formation *f, uint32_t index, uint8_t *out) noexcept nogil
# Any frame of node level. For HELLO the answer says whether the connection may go on (RefuseReason).
cdef int formation_receive(Formation *f, int64_t now, const Frame *frame) noexcept nogil
# Whether a group-level frame comes from a node of this cluster. In which incarnation is the replica's to judge.
cdef bint formation_admits(const Formation *f, const Frame *frame) noexcept nogil
cdef void formation_durable(Formation *f, int64_t now, uint64_t logged) noexcept nogil
# The formation is written to the log once more: what holds it may be deleted.
cdef void formation_rewrite(Formation *f) noexcept nogil
# Whether this node has no place in its cluster and asks for one.
cdef bint formation_outside(const Formation *f) noexcept nogil
cdef void formation_tick(Formation *f, int64_t now) noexcept nogil          # every 100 ms until formed, and while outside
