# cython: language_level=3
"""Dialling of peers with back-off, by address or by name. One thread uses it; nothing here blocks."""
from libc.stdint cimport uint32_t
from paxos._conn cimport Conn, Net

# Where the peer in this place, which is clean, is to be dialled. "": nobody knows.
cdef void dial_to(Net *net, uint32_t index, const char *text) noexcept nogil
# It is time to dial, or to look for the answer that was asked for.
cdef void dial_due(Net *net, uint32_t index) noexcept nogil
cdef void dial_failed(Net *net, uint32_t index, const char *why) noexcept nogil
cdef void connected(Net *net, Conn *conn) noexcept nogil        # or not: something happened on a connection that was dialled
