# cython: language_level=3
"""Whether one more proposal would wait too long. Under the GIL, like the tickets it counts.

By Little's law what is under way here, over the rate at which it is done, is how long one more has to wait. That is reckoned by values
and by bytes, and the shorter one counts: a single large value, behind many small ones, says nothing of either. A rate is known
from windows behind which as much was left as was done in them, for a node that has little to do shows nothing of what it could
do; it is the highest of late, and forgotten by a tenth with each such window. As it may be of other times, nobody is refused
before the oldest has waited for a quarter of the bound. While nothing is done at all (no master, say) the rates stay as they
were, so what may come meanwhile is bounded too.
"""
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    ADMISSION_WINDOW = 100000000    # ns

cdef struct Rate:
    uint64_t waiting                # of what is under way
    uint64_t done                   # since `since`
    double rate                     # per ns; 0: not known yet

cdef struct Admission:
    int64_t max_wait                # ns; 0: nobody is refused
    int64_t since                   # when the window began
    int64_t taken_at                # when the last one came
    Rate values
    Rate bytes


cdef inline double admission_wait(const Rate *r) noexcept nogil:
    return r.waiting / r.rate if r.rate != 0 else 0


cdef inline int64_t admission_refuses(const Admission *a, int64_t now, int64_t oldest) noexcept nogil:
    """How long one more would wait, in ns, if that is too long; 0: it may come. `oldest`: how long the oldest has waited."""
    cdef double wait
    if a.max_wait == 0 or oldest < a.max_wait // 4:
        return 0
    wait = min(admission_wait(&a.values), admission_wait(&a.bytes))
    if now - a.since > a.max_wait and now - a.taken_at > a.max_wait:
        return 0                    # nothing is done, so the rates say nothing: one may find out whether that is so still
    return <int64_t>min(wait, 1e18) if wait > a.max_wait else 0


cdef inline void admission_begin(Admission *a, int64_t now) noexcept nogil:
    """Something is to be done again; the time in which nothing was counts for no rate."""
    a.since = now
    a.values.done = 0
    a.bytes.done = 0


cdef inline void admission_take(Admission *a, int64_t now, uint64_t values, uint64_t bytes) noexcept nogil:
    a.taken_at = now
    a.values.waiting += values
    a.bytes.waiting += bytes


cdef inline void admission_settled(Admission *a, uint64_t values, uint64_t bytes) noexcept nogil:
    a.values.waiting -= values
    a.bytes.waiting -= bytes


cdef inline void admission_measure(Rate *r, int64_t time) noexcept nogil:
    cdef double rate = <double>r.done / time
    if r.waiting >= r.done:
        r.rate = max(rate, r.rate * 0.9)
    elif r.rate != 0:
        r.rate = max(rate, r.rate)
    r.done = 0


cdef inline void admission_done(Admission *a, int64_t now, uint64_t values, uint64_t bytes) noexcept nogil:
    a.values.done += values
    a.bytes.done += bytes
    if now - a.since >= ADMISSION_WINDOW:
        admission_measure(&a.values, now - a.since)
        admission_measure(&a.bytes, now - a.since)
        a.since = now
