# cython: language_level=3
"""Connections and framing of the engine. One thread uses it; nothing here blocks.

Each node dials every other and sends only on what it dialled; it receives only on what it accepted. The one thing that
comes back on a dialled connection is a REFUSE frame."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from paxos._delivery cimport Delivery
from paxos._outqueue cimport OutQueue
from paxos._sockets cimport Address
from paxos._types cimport Frame, Value

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
    Address address

cdef struct Peer:
    uint32_t node
    bint known                      # its address is known and it is not this node
    Address address
    Conn *dialled
    Conn *accepted
    bint greeted                    # HELLO is in the queue: other frames may follow
    int64_t next_dial
    int64_t backoff
    int64_t complained              # when a failure was last logged
    bint failing                    # the last attempt to connect failed
    int64_t refused_at              # when a refusal by this peer was last logged; 0: never
    uint32_t refused_reason
    OutQueue out

cdef struct Net:
    int epoll
    int listening
    uint32_t node
    uint32_t max_frame
    uint64_t random
    int64_t now
    Delivery *delivery
    uint32_t peer_count
    Peer peers[31]
    Conn *accepted[64]
    uint32_t accepted_count
    int64_t accept_again            # accepting pauses until then (out of descriptors); 0: it does not
    Conn **dead
    size_t dead_count
    size_t dead_size
    uint32_t came_up                # dialled connections that came up: the engine greets them and clears the bit
    uint32_t went_down              # connections to or from these members ended
    uint64_t frames_sent
    uint64_t frames_received
    uint64_t bytes_sent
    uint64_t bytes_received
    uint64_t dropped
    uint64_t refused[17]
    int64_t logged_at[17]
    uint64_t unlogged[17]

cdef enum:
    NO_PEER = 0xFFFFFFFF
    MAX_ACCEPTED = 64

cdef int net_init(Net *net, Delivery *delivery, uint32_t node, uint32_t max_frame, int listening, uint64_t seed) noexcept nogil
cdef void net_free(Net *net) noexcept nogil
cdef void net_abandon(const Net *net) noexcept nogil            # in a forked child: its copies of the descriptors are closed
cdef void net_start(Net *net, int64_t now) noexcept nogil
# Waits and handles what needs no frame decoded: accepts, connects, closes, writes. Connections with something to read come
# back in readable[0:MAX_ACCEPTED]. The answer is their number; the engine's own eventfd is emptied.
cdef int net_poll(Net *net, int timeout_ms, Conn **readable) noexcept nogil
cdef void net_read(Net *net, Conn *conn) noexcept nogil
# The next whole, checked frame of the connection, or NULL; valid until net_read.
cdef const Frame *net_frame(Net *net, Conn *conn) noexcept nogil
cdef void net_opened(Net *net, Conn *conn, uint32_t peer) noexcept nogil        # a good HELLO came
cdef void net_refuse(Net *net, Conn *conn, int reason, const uint8_t *frame, size_t size) noexcept nogil   # frame may be NULL
cdef void net_send(Net *net, uint32_t peers, const uint8_t *head, size_t size, Value *value) noexcept nogil
cdef void net_flush(Net *net) noexcept nogil
cdef void net_tick(Net *net) noexcept nogil                     # dials, and ends what took too long
cdef int64_t net_deadline(const Net *net) noexcept nogil
cdef void net_sweep(Net *net) noexcept nogil                    # frees closed connections, at the end of a round
cdef uint32_t net_connected(const Net *net) noexcept nogil
cdef bint net_more(const Net *net) noexcept nogil
