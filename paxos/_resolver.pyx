# cython: language_level=3
"""Names of peers are resolved on a thread of Python's; see _resolver.pxd."""
import socket
import threading

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdio cimport fprintf, snprintf, stderr
from libc.stdlib cimport abort, free
from libc.string cimport memset
from paxos._sockets cimport address_scope, address_set
from paxos._types cimport xzalloc

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_cond_init(pthread_cond_t *condition, const void *attributes)
    int pthread_cond_destroy(pthread_cond_t *condition)
    int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
    int pthread_cond_signal(pthread_cond_t *condition)

cdef extern from "<unistd.h>" nogil:
    int getpid()
    ssize_t write(int fd, const void *data, size_t size)

cdef enum:
    PLACES = 31


cdef inline void check(int error, const char *what) noexcept nogil:
    if error != 0:
        fprintf(stderr, "paxos: %s failed (error %d)\n", what, error)
        abort()


cdef inline void lock(Names *n) noexcept nogil:
    check(pthread_mutex_lock(&n.mutex), "pthread_mutex_lock")


cdef inline void unlock(Names *n) noexcept nogil:
    check(pthread_mutex_unlock(&n.mutex), "pthread_mutex_unlock")


# ---- engine's thread ----

cdef void names_want(Names *n) noexcept nogil:
    lock(n)
    n.wanted = True
    unlock(n)


cdef void names_ask(Names *n, uint32_t place, const char *host, unsigned int port) noexcept nogil:
    cdef Question *q = &n.questions[place]
    lock(n)
    memset(q, 0, sizeof(Question))
    n.numbers += 1
    q.number = n.numbers
    q.wanted = True
    q.port = port
    snprintf(q.host, sizeof(q.host), "%s", host)
    check(pthread_cond_signal(&n.asked), "pthread_cond_signal")
    unlock(n)


cdef bint names_asked(Names *n, uint32_t place) noexcept nogil:
    cdef bint asked
    lock(n)
    asked = n.questions[place].number != 0 and not n.questions[place].answered
    unlock(n)
    return asked


cdef bint names_answer(Names *n, uint32_t place, Question *out) noexcept nogil:
    cdef Question *q = &n.questions[place]
    cdef bint answered
    lock(n)
    answered = q.answered
    if answered:
        out[0] = q[0]
        memset(q, 0, sizeof(Question))
    unlock(n)
    return answered


cdef void names_forget(Names *n, uint32_t place) noexcept nogil:
    lock(n)
    memset(&n.questions[place], 0, sizeof(Question))
    unlock(n)


# ---- the thread ----

cdef bint _next(Names *n, uint32_t *place, Question *out) noexcept nogil:
    """Waits for a question. False: it is over. Each place has its turn."""
    cdef uint32_t i, k
    lock(n)
    n.busy = False
    while not n.stop:
        for i in range(1, PLACES + 1):
            k = (n.last + i) % PLACES
            if n.questions[k].wanted:
                n.questions[k].wanted = False
                n.last = k
                n.busy = True
                place[0] = k
                out[0] = n.questions[k]
                unlock(n)
                return True
        check(pthread_cond_wait(&n.asked, &n.mutex), "pthread_cond_wait")
    unlock(n)
    return False


cdef void _give(Names *n, uint32_t place, const Question *answer) noexcept nogil:
    cdef uint64_t one = 1
    lock(n)
    if n.questions[place].number == answer.number:
        n.questions[place] = answer[0]
        n.questions[place].answered = True
        # (Under the mutex: behind end() the descriptor may belong to somebody else.)
        while n.wake >= 0 and write(n.wake, &one, 8) != 8:
            if errno == EAGAIN:
                break               # it is readable already
            if errno != EINTR:
                check(errno, "writing an eventfd")
    unlock(n)


cdef int look_up(Question *q) except -1:
    cdef bytes why, raw
    cdef object where
    q.count = 0
    memset(q.why, 0, sizeof(q.why))
    try:
        found = socket.getaddrinfo(q.host.decode("ascii"), q.port, type=socket.SOCK_STREAM)
        for family, _, _, _, where in found:
            if family not in (socket.AF_INET, socket.AF_INET6) or q.count == MAX_FOUND:
                continue
            raw = where[0].partition("%")[0].encode("ascii")
            if address_set(&q.found[q.count], raw, where[1]) != 0:
                continue
            if family == socket.AF_INET6:
                address_scope(&q.found[q.count], where[3])
            q.count += 1
        why = b"it has no IP address"
    except Exception as error:      # a thread that ended would answer nobody any more; what it is comes to the log
        q.count = 0
        why = (str(getattr(error, "strerror", None) or error) or type(error).__name__).encode("ascii", "replace")
    if q.count == 0:
        snprintf(q.why, sizeof(q.why), "%s", <const char *>why)
    return 0


cdef class Resolver:
    def __cinit__(self):
        self.names = <Names *>xzalloc(sizeof(Names))
        self.names.wake = -1
        self.pid = getpid()
        check(pthread_mutex_init(&self.names.mutex, NULL), "pthread_mutex_init")
        check(pthread_cond_init(&self.names.asked, NULL), "pthread_cond_init")

    def __dealloc__(self):
        # The thread holds a reference, so it is not running. In a forked child the mutex may be locked for ever.
        if self.names != NULL and self.pid == getpid():
            check(pthread_cond_destroy(&self.names.asked), "pthread_cond_destroy")
            check(pthread_mutex_destroy(&self.names.mutex), "pthread_mutex_destroy")
            free(self.names)
        self.names = NULL

    cdef bint due(self) noexcept:
        cdef bint due
        if self.thread is not None:
            return False
        lock(self.names)
        due = self.names.wanted and not self.names.stop
        unlock(self.names)
        return due

    cdef int start(self, str name, int wake) except -1:
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        lock(self.names)
        self.names.wake = wake
        unlock(self.names)
        thread.start()
        self.thread = thread
        return 0

    cdef void end(self) noexcept:
        lock(self.names)
        self.names.stop = True
        self.names.wake = -1
        check(pthread_cond_signal(&self.names.asked), "pthread_cond_signal")
        unlock(self.names)

    cdef int join(self) except -1:
        cdef bint busy
        lock(self.names)
        busy = self.names.busy
        unlock(self.names)
        thread, self.thread = self.thread, None
        if thread is not None and not busy:
            thread.join()
        return 0

    def _run(self):
        cdef Question q
        cdef uint32_t place = 0
        cdef bint more
        while True:
            with nogil:
                more = _next(self.names, &place, &q)
            if not more:
                return
            look_up(&q)
            with nogil:
                _give(self.names, place, &q)
