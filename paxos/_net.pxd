# cython: language_level=3
"""Connections and framing of the engine. One thread uses it; nothing here blocks.

Each node dials every other and sends only on what it dialled; it receives only on what it accepted. The one thing that
comes back on a dialled connection is a REFUSE frame."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from paxos._conn cimport Conn, Net
from paxos._delivery cimport Delivery
from paxos._types cimport Frame, Membership, Value

cdef int net_init(Net *net, Delivery *delivery, uint32_t node, uint32_t max_frame, uint64_t max_out, int listening,
                  uint64_t seed) noexcept nogil
cdef void net_free(Net *net) noexcept nogil
cdef void net_abandon(const Net *net) noexcept nogil            # in a forked child: its copies of the descriptors are closed
# Who has which place from now on. Connections with nodes that have none end.
cdef void net_members(Net *net, const Membership *m) noexcept nogil
cdef void net_start(Net *net, int64_t now) noexcept nogil
# Waits and handles what needs no frame decoded: accepts, connects, closes, writes. Connections with something to read come
# back in readable[0:MAX_ACCEPTED]. The answer is their number; the engine's own eventfd is emptied.
cdef int net_poll(Net *net, int timeout_ms, Conn **readable) noexcept nogil
cdef void net_read(Net *net, Conn *conn) noexcept nogil
# The next whole, checked frame of the connection, or NULL; valid until the next call of net_frame or net_read.
cdef const Frame *net_frame(Net *net, Conn *conn) noexcept nogil
cdef void net_opened(Net *net, Conn *conn, uint32_t peer) noexcept nogil        # a good HELLO came
# ... of somebody who is no member, as far as is known here, and is about to say why it is one. It has no more time than others.
cdef void net_stranger(Net *net, Conn *conn, uint32_t node) noexcept nogil
cdef void net_refuse(Net *net, Conn *conn, int reason, const uint8_t *frame, size_t size) noexcept nogil   # frame may be NULL
cdef void net_send(Net *net, uint32_t peers, const uint8_t *head, size_t size, Value *value) noexcept nogil
cdef void net_flush(Net *net) noexcept nogil
cdef void net_tick(Net *net) noexcept nogil                     # dials, and ends what took too long
cdef int64_t net_deadline(const Net *net) noexcept nogil
cdef void net_sweep(Net *net) noexcept nogil                    # frees closed connections, at the end of a round
cdef uint32_t net_connected(const Net *net) noexcept nogil
cdef bint net_more(const Net *net) noexcept nogil
