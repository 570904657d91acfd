# cython: language_level=3
"""System calls of the engine's connections, and addresses. Declarations only."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/socket.h>

    typedef struct { struct sockaddr_storage data; socklen_t size; } px_address;

    /* 0, or -1 where text is no numeric address of the family. */
    static inline int px_address_set(px_address *a, const char *text, unsigned port) {
        struct sockaddr_in *in = (struct sockaddr_in *)&a->data;
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&a->data;
        memset(a, 0, sizeof *a);
        if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
            in->sin_family = AF_INET; in->sin_port = htons((uint16_t)port); a->size = sizeof *in;
            return 0;
        }
        if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1) {
            in6->sin6_family = AF_INET6; in6->sin6_port = htons((uint16_t)port); a->size = sizeof *in6;
            return 0;
        }
        return -1;
    }
    static inline void px_address_scope(px_address *a, unsigned scope) {
        if (a->data.ss_family == AF_INET6)
            ((struct sockaddr_in6 *)&a->data)->sin6_scope_id = scope;
    }
    static inline int px_address_equal(const px_address *a, const px_address *b) {
        return a->size == b->size && memcmp(&a->data, &b->data, a->size) == 0;
    }
    /* HOST:PORT or [IPV6]:PORT, in two; host has room for all of text. 0, or -1 where it is something else. */
    static inline int px_address_split(const char *text, char *host, unsigned *port) {
        const char *colon = strrchr(text, ':');
        const char *end = colon;
        const char *p;
        if (!colon || !colon[1])
            return -1;
        *port = 0;
        for (p = colon + 1; *p; p++) {
            if (*p < '0' || *p > '9' || (*port = *port * 10 + (unsigned)(*p - '0')) > 65535)
                return -1;
        }
        if (text[0] == '[' && end - text > 2 && end[-1] == ']') {
            text++;
            end--;
        } else if (memchr(text, ':', (size_t)(end - text))) {
            return -1;
        }
        if (*port == 0 || end == text)
            return -1;
        memcpy(host, text, (size_t)(end - text));
        host[end - text] = 0;
        return 0;
    }
    static inline void px_address_text(const px_address *a, char *out, size_t size) {
        char host[INET6_ADDRSTRLEN] = "?";
        if (a->data.ss_family == AF_INET6) {
            const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&a->data;
            if (!inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host)) snprintf(host, sizeof host, "?");
            snprintf(out, size, "[%s]:%u", host, (unsigned)ntohs(in6->sin6_port));
        } else {
            const struct sockaddr_in *in = (const struct sockaddr_in *)&a->data;
            if (!inet_ntop(AF_INET, &in->sin_addr, host, sizeof host)) snprintf(host, sizeof host, "?");
            snprintf(out, size, "%s:%u", host, (unsigned)ntohs(in->sin_port));
        }
    }
    """
    ctypedef struct Address "px_address":
        pass
    int address_set "px_address_set"(Address *a, const char *text, unsigned int port) noexcept nogil
    void address_scope "px_address_scope"(Address *a, unsigned int scope) noexcept nogil
    bint address_equal "px_address_equal"(const Address *a, const Address *b) noexcept nogil
    int address_split "px_address_split"(const char *text, char *host, unsigned int *port) noexcept nogil
    void address_text "px_address_text"(const Address *a, char *out, size_t size) noexcept nogil

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    struct sockaddr:
        pass
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    int socket(int domain, int type, int protocol)
    int connect(int fd, const sockaddr *address, socklen_t size)
    int accept4(int fd, sockaddr *address, socklen_t *size, int flags)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
    ssize_t recv(int fd, void *data, size_t size, int flags)
    ssize_t send(int fd, const void *data, size_t size, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    int shutdown(int fd, int how)
    int SOCK_STREAM
    int SOCK_NONBLOCK
    int SOCK_CLOEXEC
    int SOL_SOCKET
    int SO_ERROR
    int MSG_NOSIGNAL
    int SHUT_WR

cdef extern from "<netinet/tcp.h>" nogil:
    int IPPROTO_TCP
    int TCP_NODELAY
    int TCP_NOTSENT_LOWAT
    int TCP_USER_TIMEOUT

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        void *ptr
    struct epoll_event:
        unsigned int events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int size, int timeout)
    int EPOLL_CLOEXEC
    int EPOLL_CTL_ADD
    int EPOLL_CTL_MOD
    unsigned int EPOLLIN
    unsigned int EPOLLOUT
    unsigned int EPOLLERR
    unsigned int EPOLLHUP

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void *data, size_t size)
    int close(int fd)

cdef extern from *:
    """
    #define px_address_family(a) ((a)->data.ss_family)
    #define px_address_pointer(a) ((struct sockaddr *)&(a)->data)
    #define px_address_size(a) ((a)->size)
    static inline socklen_t *px_address_room(px_address *a) { a->size = sizeof a->data; return &a->size; }
    """
    int address_family "px_address_family"(const Address *a) nogil
    sockaddr *address_pointer "px_address_pointer"(const Address *a) nogil
    socklen_t address_size "px_address_size"(const Address *a) nogil
    socklen_t *address_room "px_address_room"(Address *a) nogil
