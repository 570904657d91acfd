# cython: language_level=3
from paxos._state cimport Group, Host
from paxos._types cimport Frame, Value

# Another incarnation of a member, which holds the formation durably, asks all groups for its place.
cdef void members_join(Host *h, const Frame *frame) noexcept nogil
# A MEMBERS frame.
cdef void members_told(Host *h, const Frame *frame) noexcept nogil
# Whether the member whose id the sender goes by is alive, and another incarnation: then it keeps its place, and its connections.
cdef bint members_heard(const Host *h, const Frame *frame) noexcept nogil
# Python wants another table of members. Where it cannot be had, nothing changes: who wants it looks at what comes about.
cdef void members_change(Host *h, Group *g, const Value *value) noexcept nogil
