# cython: language_level=3
"""Whether one more proposal would wait too long. Under the GIL, like the tickets it counts.

By Little's law what is under way here, over the rate at which it is done, is how long one more has to wait. The rate is the highest
of late, for a node that has little to do shows nothing of what it could do; it is measured over windows in which something was done,
and forgotten by a tenth with each. As that may be far too low where a burst follows a calm, nobody is refused before the oldest has
waited for a quarter of the bound: by then the rate is that of the burst. While nothing is done at all (no master, say) the rate
stays as it was, so what may come meanwhile is bounded too.
"""
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    ADMISSION_WINDOW = 100000000    # ns
    ADMISSION_VALUE = 256           # what a value weighs besides its bytes

cdef struct Admission:
    int64_t max_wait                # ns; 0: nobody is refused
    uint64_t waiting                # weight of what is under way
    uint64_t done                   # ... and was done since `since`
    int64_t since
    double rate                     # per ns; 0: not known yet
    int64_t let_at                  # when one was let through that would have been refused


cdef inline uint64_t admission_weight(uint64_t values, uint64_t bytes) noexcept nogil:
    return bytes + values * ADMISSION_VALUE


cdef inline int64_t admission_refuses(Admission *a, int64_t now, int64_t oldest) noexcept nogil:
    """How long one more would wait, in ns, if that is too long; 0: it may come. `oldest`: how long the oldest has waited."""
    cdef double wait
    if a.max_wait == 0 or a.rate == 0 or oldest < a.max_wait // 4:
        return 0
    wait = a.waiting / a.rate
    if wait > a.max_wait and now - a.since > a.max_wait and now - a.let_at > a.max_wait:
        a.let_at = now              # nothing is done, so the rate says nothing: one may find out whether that is so still
        return 0
    return <int64_t>min(wait, 1e18) if wait > a.max_wait else 0


cdef inline void admission_done(Admission *a, int64_t now, uint64_t weight) noexcept nogil:
    cdef double rate
    a.done += weight
    if now - a.since < ADMISSION_WINDOW:
        return
    rate = <double>a.done / (now - a.since)
    a.rate = max(rate, a.rate * 0.9)
    a.done = 0
    a.since = now
