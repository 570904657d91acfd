# cython: language_level=3
"""Names of peers are resolved on a thread of Python's, which may hang in that as long as it likes: the engine's thread leaves its
questions and looks for the answers. Everything in Names is under its mutex; nobody waits for the GIL while he holds it."""
from libc.stdint cimport uint32_t, uint64_t
from paxos._sockets cimport Address

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass

cdef enum:
    MAX_FOUND = 8                   # addresses of one answer that are kept

cdef struct Question:
    bint wanted
    bint answered
    uint64_t number                 # an answer to an older question is thrown away
    char host[256]
    unsigned int port
    uint32_t count                  # of the answer; 0: why it does not resolve
    Address found[8]
    char why[128]

cdef struct Names:
    pthread_mutex_t mutex
    pthread_cond_t asked
    int wake                        # eventfd of the engine; -1: it is gone
    bint wanted                     # there are names: the thread is to be started
    bint busy                       # the thread is with a question, perhaps for long
    bint stop
    uint32_t last                   # place of the question that was taken last
    uint64_t numbers
    Question questions[31]          # by place

# -- engine's thread
cdef void names_want(Names *n) noexcept nogil
# What was asked for this place before is forgotten.
cdef void names_ask(Names *n, uint32_t place, const char *host, unsigned int port) noexcept nogil
# Whether the question of this place is still to be answered.
cdef bint names_asked(Names *n, uint32_t place) noexcept nogil
# Takes the answer, if it has come.
cdef bint names_answer(Names *n, uint32_t place, Question *out) noexcept nogil
cdef void names_forget(Names *n, uint32_t place) noexcept nogil

cdef class Resolver:
    cdef Names *names
    cdef object thread
    cdef int pid                    # where its thread and its mutex are

    # Whether start() is wanted.
    cdef bint due(self) noexcept
    cdef int start(self, str name, int wake) except -1
    # From now on the engine is not woken any more; the thread ends as soon as it can.
    cdef void end(self) noexcept
    # Behind end(): waits for the thread, unless it hangs in a question.
    cdef int join(self) except -1
