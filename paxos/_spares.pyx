# cython: language_level=3
"""The pool of spare segment files.

A spare is a file of a segment's size whose zeros (or the bytes of its former life) are on the disk, so that writing a
segment only overwrites. It gets its name only when they are: a file whose sync failed looks whole to the next start, and is
not. One preparer thread keeps some ready; recycled segments join the pool as they are. The pool's fields are guarded by its
mutex, which is never held over a system call.

A disk without room for a spare is full, which is no failure: nothing was lost. The unfinished file is removed, so that it does
not eat the rest, and it is tried again every second. What is ready is the reserve; the host stops leading before it is used
up, and logging when it is.
"""
from libc.errno cimport ENOMEM, ETIMEDOUT
from libc.stdint cimport uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from paxos._disk cimport DISK_CREATE, DISK_NEW, DISK_WRITE, Disk
from paxos._types cimport BLOCK

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **out, size_t alignment, size_t size)

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    ctypedef struct pthread_condattr_t:
        pass
    int pthread_condattr_init(pthread_condattr_t *attributes)
    int pthread_condattr_setclock(pthread_condattr_t *attributes, int clock)
    int pthread_condattr_destroy(pthread_condattr_t *attributes)
    int pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attributes)
    int pthread_cond_destroy(pthread_cond_t *cond)
    int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
    int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const timespec *until)
    int pthread_cond_signal(pthread_cond_t *cond)

cdef enum:
    PACE = 2000000                  # ns between two writes of the preparer: the engine's go first


cdef void segment_name(char *out, uint64_t number) noexcept nogil:
    snprintf(out, NAME, "%016llx.seg", <unsigned long long>number)


cdef void spare_name(char *out, uint64_t number) noexcept nogil:
    snprintf(out, NAME, "spare-%llu.tmp", <unsigned long long>number)


cdef void making_name(char *out, uint64_t number) noexcept nogil:
    snprintf(out, NAME, "making-%llu.tmp", <unsigned long long>number)


# ---- spares ----

cdef int spares_init(Spares *f, Disk *disk, uint64_t segment_size) noexcept nogil:
    cdef void *memory = NULL
    cdef pthread_condattr_t attributes
    # Small logs are opened by the thousand, where their lives are played: pages nobody needs cost more there than the rest.
    cdef size_t zeros = <size_t>min(<uint64_t>CHUNK, segment_size)
    cdef int error
    memset(f, 0, sizeof(Spares))
    f.disk = disk
    f.segment_size = segment_size
    if posix_memalign(&memory, BLOCK, zeros) != 0:
        return ENOMEM
    f.zeros = <uint8_t *>memory
    memset(f.zeros, 0, zeros)
    error = pthread_mutex_init(&f.mutex, NULL)
    if error:
        return error
    error = pthread_condattr_init(&attributes)
    if error == 0:
        # Not the clock that an operator sets: a second must not become an hour.
        error = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        if error == 0:
            error = pthread_cond_init(&f.wake, &attributes)
        pthread_condattr_destroy(&attributes)
    if error:
        pthread_mutex_destroy(&f.mutex)
    f.made = error == 0
    return error


cdef void spares_stop(Spares *f) noexcept nogil:
    if f.made:
        pthread_mutex_lock(&f.mutex)
        f.stopping = True
        pthread_cond_signal(&f.wake)
        pthread_mutex_unlock(&f.mutex)


cdef void spares_free(Spares *f) noexcept nogil:
    if f.made:
        pthread_cond_destroy(&f.wake)
        pthread_mutex_destroy(&f.mutex)
    free(f.zeros)
    memset(f, 0, sizeof(Spares))


cdef void _from_now(timespec *until, long ns) noexcept nogil:
    clock_gettime(CLOCK_MONOTONIC, until)       # cannot fail: the clock exists and the pointer is good
    until.tv_nsec += ns                         # a second at most
    if until.tv_nsec >= 1000000000:
        until.tv_nsec -= 1000000000
        until.tv_sec += 1


cdef bint _pause(Spares *f) noexcept nogil:
    """Leaves the disk to the engine for a moment, unless it waits for a spare. Whether to stop."""
    cdef timespec until
    cdef bint stop
    pthread_mutex_lock(&f.mutex)
    _from_now(&until, PACE)
    if not f.stopping:
        pthread_cond_timedwait(&f.wake, &f.mutex, &until)
    stop = f.stopping
    pthread_mutex_unlock(&f.mutex)
    return stop


cdef int _make(Spares *f, uint64_t number, bint paced) noexcept nogil:
    """A file of zeros that are on the disk, so that later writes only overwrite. 0, an errno, or -1: told to stop."""
    cdef char name[NAME]
    cdef char whole[NAME]
    cdef int fd = -1, error, other
    cdef uint64_t done = 0
    cdef size_t size
    cdef Disk *d = f.disk
    making_name(name, number)
    spare_name(whole, number)
    error = d.open(d, name, DISK_WRITE | DISK_CREATE | DISK_NEW, &fd)
    if error:
        return error
    while error == 0 and done < f.segment_size:
        size = <size_t>min(<uint64_t>CHUNK, f.segment_size - done)
        error = d.write(d, fd, f.zeros, size, done, False)
        if error == 0:
            error = d.sync(d, fd)
        done += size
        if error == 0 and paced and _pause(f):
            error = -1
    if error == 0:
        d.uncache(d, fd)            # zeros in the page cache serve nobody
    other = d.close(d, fd)
    if error == 0:
        error = other
    if error == 0:
        error = d.rename(d, name, whole)
    if error:
        d.unlink(d, name)           # what is left over is removed at the next open
    return error


cdef void _joined(Spares *f, uint64_t number) noexcept nogil:
    """A spare joins the pool; under the mutex. Where no more are wanted, it matters to nobody whether there is room."""
    if f.ready < SPARES_MAX:        # else somebody was quicker; the file is taken up again at the next open
        f.numbers[f.ready] = number
        f.ready += 1
    if f.ready >= SPARES_WANTED:
        f.full = 0


cdef bint spares_wanted(Spares *f) noexcept nogil:
    cdef bint wanted
    pthread_mutex_lock(&f.mutex)
    wanted = not f.stopping and f.ready < SPARES_WANTED and f.preparer_error == 0
    pthread_mutex_unlock(&f.mutex)
    return wanted


cdef int spares_full(Spares *f) noexcept nogil:
    cdef int full
    pthread_mutex_lock(&f.mutex)
    full = f.full
    pthread_mutex_unlock(&f.mutex)
    return full


cdef bint spares_make(Spares *f, bint paced) noexcept nogil:
    cdef uint64_t number
    cdef int error
    pthread_mutex_lock(&f.mutex)
    if f.stopping or f.ready >= SPARES_WANTED or f.preparer_error:
        # After an error it tries again when the next spare is taken; the engine meets the error then, too.
        pthread_mutex_unlock(&f.mutex)
        return False
    number = f.next_spare
    f.next_spare += 1
    pthread_mutex_unlock(&f.mutex)
    error = _make(f, number, paced)
    pthread_mutex_lock(&f.mutex)
    if error == 0:
        f.full = 0
        _joined(f, number)
    elif spares_no_room(error):
        f.full = error
    elif error > 0:
        f.preparer_error = error
        f.full = 0                  # no longer known: the engine tries by itself, and meets the error if it is still there
    pthread_mutex_unlock(&f.mutex)
    return error == 0


cdef void spares_prepare(Spares *f) noexcept nogil:
    """The preparer thread: sleeps until a spare is wanted, and on a full disk for a while between two attempts."""
    cdef timespec until
    cdef bint failed = False
    _from_now(&until, SPARES_RETRY)
    pthread_mutex_lock(&f.mutex)
    while not f.stopping:
        if f.ready >= SPARES_WANTED or f.preparer_error:
            pthread_cond_wait(&f.wake, &f.mutex)
            continue
        if failed and f.full and pthread_cond_timedwait(&f.wake, &f.mutex, &until) != ETIMEDOUT:
            continue                # a spare was taken or joined, or it is to stop
        pthread_mutex_unlock(&f.mutex)
        failed = not spares_make(f, True)
        _from_now(&until, SPARES_RETRY)
        pthread_mutex_lock(&f.mutex)
    pthread_mutex_unlock(&f.mutex)


cdef int spares_take(Spares *f, uint64_t *number, uint64_t *made_here) noexcept nogil:
    """A spare's number; made here and now where none is ready."""
    cdef bint have = False
    cdef int error
    pthread_mutex_lock(&f.mutex)
    if f.ready == 0 and f.full:
        error = f.full
        pthread_mutex_unlock(&f.mutex)
        return error
    if f.ready:
        f.ready -= 1
        number[0] = f.numbers[f.ready]
        have = True
    else:
        number[0] = f.next_spare
        f.next_spare += 1
    f.preparer_error = 0
    pthread_cond_signal(&f.wake)
    pthread_mutex_unlock(&f.mutex)
    if have:
        return 0
    made_here[0] += 1
    error = _make(f, number[0], False)
    if spares_no_room(error):
        pthread_mutex_lock(&f.mutex)
        f.full = error
        pthread_cond_signal(&f.wake)
        pthread_mutex_unlock(&f.mutex)
    return error


cdef int spares_give(Spares *f, uint64_t segment) noexcept nogil:
    """Takes a segment's name away, durably; its file is kept as a spare or removed."""
    cdef char old[NAME]
    cdef char name[NAME]
    cdef uint64_t number
    cdef bint keep
    cdef int error
    cdef Disk *d = f.disk
    segment_name(old, segment)
    pthread_mutex_lock(&f.mutex)
    keep = f.ready < SPARES_MAX
    number = f.next_spare
    f.next_spare += 1
    pthread_mutex_unlock(&f.mutex)
    spare_name(name, number)
    error = d.rename(d, old, name) if keep else d.unlink(d, old)
    if error == 0:
        error = d.sync_directory(d)
    if error or not keep:
        return error
    pthread_mutex_lock(&f.mutex)
    _joined(f, number)
    pthread_mutex_unlock(&f.mutex)
    return 0
