/* Sends, for the trace. write and writev on sockets are in files.c. See shim.h. */
#include "shim.h"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int64_t sum(const struct iovec *iov, size_t count) {
    int64_t total = 0;
    for (size_t i = 0; i < count; i++) total += (int64_t)iov[i].iov_len;
    return total;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    struct stat st;
    if (!shim_tracing || shim_classify(fd, &st) != FD_SOCKET) return syscall(SYS_sendmsg, fd, message, flags);
    shim_trace("tb", st.st_ino, 0, sum(message->msg_iov, message->msg_iovlen), 0, message->msg_iov,
               (int)message->msg_iovlen);
    ssize_t n = syscall(SYS_sendmsg, fd, message, flags);
    shim_trace("te", st.st_ino, 0, n, 0, NULL, 0);
    return n;
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    /* One at a time where it is traced: the caller cannot tell, a short count is always allowed. */
    struct stat st;
    if (!shim_tracing || shim_classify(fd, &st) != FD_SOCKET) return (int)syscall(SYS_sendmmsg, fd, messages, count, flags);
    if (count == 0) return 0;
    ssize_t n = sendmsg(fd, &messages[0].msg_hdr, flags);
    if (n < 0) return -1;
    messages[0].msg_len = (unsigned)n;
    return 1;
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t to_size) {
    struct stat st;
    if (!shim_tracing || shim_classify(fd, &st) != FD_SOCKET) return syscall(SYS_sendto, fd, data, size, flags, to, to_size);
    struct iovec iov = {(void *)data, size};
    shim_trace("tb", st.st_ino, 0, (int64_t)size, 0, &iov, 1);
    ssize_t n = syscall(SYS_sendto, fd, data, size, flags, to, to_size);
    shim_trace("te", st.st_ino, 0, n, 0, NULL, 0);
    return n;
}

ssize_t send(int fd, const void *data, size_t size, int flags) { return sendto(fd, data, size, flags, NULL, 0); }
