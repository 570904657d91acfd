# cython: language_level=3
"""Connections of the engine, their state and their end, and what is said of those that are refused. One thread uses it."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from paxos._delivery cimport Delivery
from paxos._outqueue cimport OutQueue
from paxos._pieces cimport Transfer
from paxos._resolver cimport Names
from paxos._sockets cimport Address

cdef enum:                          # why a frame or a connection was refused; index into Net.refused
    REASON_MAGIC = 0                # 0-5: FrameError - FRAME_BAD_MAGIC
    REASON_VERSION = 1
    REASON_LENGTH = 2
    REASON_CRC = 3
    REASON_TYPE = 4
    REASON_BODY = 5
    REASON_NOT_FOR_ME = 6           # 6-10: RefuseReason - REFUSE_NOT_FOR_ME + 6
    REASON_OTHER_CLUSTER = 7
    REASON_NOT_MEMBER = 8
    REASON_OTHER_INCARNATION = 9
    REASON_OTHER_CONFIG = 10
    REASON_NO_HELLO = 11            # another frame first, or none in time
    REASON_SENDER = 12              # a frame that names another sender than the handshake did
    REASON_NOT_ADMITTED = 13        # a frame of another cluster or incarnation after a good handshake
    REASON_DIRECTION = 14           # something other than REFUSE came back on a dialled connection
    REASON_GROUP = 15               # no such group
    REASON_TOO_MANY = 16            # accepted connections are at their bound
    REASON_PIECE = 17               # a piece of a large frame that does not fit what came before

cdef enum ConnKind:
    CONN_DIALLED = 1
    CONN_ACCEPTED = 2

cdef enum ConnState:
    CONN_CONNECTING = 0             # dialled, not yet through
    CONN_HANDSHAKE = 1              # accepted, no HELLO yet
    CONN_OPEN = 2
    CONN_LINGER = 3                 # refused: REFUSE is on its way, what comes is thrown away
    CONN_CLOSED = 4                 # freed at the end of the round

cdef struct Conn:
    int fd
    int kind
    int state
    uint32_t peer                   # index; NO_PEER before the handshake
    uint32_t node
    bint blocked                    # the socket took no more: EPOLLOUT is asked for
    bint more                       # read budget used up: there may be more to read
    int64_t opened
    int64_t deadline
    uint8_t *buffer
    size_t start
    size_t end
    size_t capacity
    Transfer transfer               # the large frame that comes in pieces
    Address address

cdef struct Peer:
    uint32_t node
    bint known                      # it has an address, and is not this node
    char text[256]                  # HOST:PORT: of the membership, else as configured
    char host[256]                  # "": text is not HOST:PORT
    unsigned int port
    bint named                      # host is a name, resolved anew for each attempt
    int64_t asked                   # its answer is waited for until then; 0: it is not
    bint late                       # ... and was in vain: it comes later, if at all
    int64_t slow                    # for so long it is not asked again, behind a late answer; 0: they come in time
    int64_t ask_again               # not before then
    Address found[8]                # the last good answer
    uint32_t found_count
    char why[160]                   # why the name does not resolve at present; "": it does
    Address address                 # the one that was dialled last
    bint turn                       # ... in vain: it is the next one's turn
    Conn *dialled
    Conn *accepted
    bint greeted                    # HELLO is in the queue: other frames may follow
    int64_t next_dial
    int64_t backoff
    int64_t complained              # when a failure was last logged
    bint failing                    # the last attempt to connect failed
    int64_t refused_at              # when a refusal by this peer was last logged; 0: never
    uint32_t refused_reason
    bint disowned                   # it has refused this node as no member, and not taken it as one since
    OutQueue out

cdef struct Configured:
    uint32_t node
    char text[256]

cdef struct Net:
    int epoll
    int listening
    uint32_t node
    uint64_t inc_hi                 # incarnation of this node
    uint64_t inc_lo
    bint inside                     # ... which is a member
    uint32_t max_frame
    uint64_t max_out                # bytes that may wait for one peer
    uint64_t random
    int64_t now
    Delivery *delivery
    Names *names
    uint32_t peer_count
    Peer peers[31]                  # by place
    uint32_t configured_count       # addresses that this node was given for nodes
    Configured configured[31]
    Conn *accepted[64]
    uint32_t accepted_count
    int64_t accept_again            # accepting pauses until then (out of descriptors); 0: it does not
    Conn **dead
    size_t dead_count
    size_t dead_size
    uint32_t came_up                # dialled connections that came up: the engine greets them and clears the bit
    uint32_t went_down              # connections to or from these members ended
    uint64_t frames_sent            # a frame that travels in pieces is one
    uint64_t frames_received
    uint64_t bytes_sent
    uint64_t bytes_received
    uint64_t dropped
    uint64_t refused[18]
    int64_t logged_at[18]
    uint64_t unlogged[18]

cdef enum:
    NO_PEER = 0xFFFFFFFF
    MAX_ACCEPTED = 64
    BACKOFF_LOW = 10                # ms between two attempts to dial a peer, at first
    BACKOFF_HIGH = 1000             # ms, at last

cdef void note(Net *net, int reason, const Conn *conn) noexcept nogil
cdef void complain(Net *net, const char *what, int error) noexcept nogil
cdef Conn *conn_new(int fd, int kind, int state, int64_t now, int64_t deadline, const Address *address) noexcept nogil
cdef void conn_free(Conn *conn) noexcept nogil                  # its memory; the socket is closed already
cdef int watch(Net *net, Conn *conn, int operation, unsigned int events) noexcept nogil
cdef void drop(Net *net, Conn *conn) noexcept nogil
cdef bint conn_held(const Net *net, const Conn *conn) noexcept nogil     # a dialled one: the peer has taken it, and kept it
cdef void back_off(Net *net, Peer *p) noexcept nogil            # when it is dialled again, after an attempt in vain
cdef int options(Net *net, int fd) noexcept nogil               # 0 or an errno
