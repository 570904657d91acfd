# cython: language_level=3
from libc.stdint cimport int64_t, uint32_t
from paxos._delivery cimport Delivery

# Raises Overloaded where a proposal is not to be taken now, whatever is in it.
cdef int tickets_admit(Delivery *d, int64_t now) except -1
cdef object tickets_submit(Delivery *d, uint32_t machine, object values, int64_t deadline)
cdef list tickets_drain(Delivery *d, Py_ssize_t max_values)
