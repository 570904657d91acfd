/* Calls that change files and directories. See shim.h. */
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- bytes ---- */

/* What the file holds at offset..offset+length, as far as it goes. The caller's descriptor may be write-only or direct. */
static void *read_old(int fd, uint64_t offset, uint64_t length, uint64_t size, uint32_t *got) {
    *got = 0;
    if (offset >= size || !length) return NULL;
    uint64_t wanted = size - offset < length ? size - offset : length;
    if (wanted > UINT32_MAX) shim_die("a change of more than 4 GiB at once");
    char *old = malloc(wanted), path[64];
    if (!old) shim_die("out of memory");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (again < 0) shim_die("opening a file again to keep its old bytes");
    while (*got < wanted) {
        ssize_t n = syscall(SYS_pread64, again, old + *got, wanted - *got, (off_t)(offset + *got));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) shim_die("reading old bytes");
        *got += (uint32_t)n;
    }
    if (syscall(SYS_close, again) != 0) shim_die("close");
    return old;
}

static uint64_t undo_data(int fd, const struct stat *st, uint64_t offset, uint64_t length) {
    struct undo_record record = {.kind = UNDO_DATA, .ino = st->st_ino, .offset = offset, .length = length,
                                 .old_size = (uint64_t)st->st_size};
    void *old = read_old(fd, offset, length, (uint64_t)st->st_size, &record.data_size);
    uint64_t id = shim_undo(&record, old, NULL, NULL);
    free(old);
    return id;
}

static ssize_t real_write(int fd, const struct iovec *iov, int count, off_t offset, bool positioned, int flags) {
    if (!positioned) return syscall(SYS_writev, fd, iov, count);
    if (flags) return syscall(SYS_pwritev2, fd, iov, count, offset, 0L, flags);
    return syscall(SYS_pwritev, fd, iov, count, offset, 0L);
}

static ssize_t write_any(int fd, const struct iovec *iov, int count, off_t offset, bool positioned, int flags) {
    struct stat st;
    enum descriptor_kind kind = shim_classify(fd, &st);
    if (kind == FD_SOCKET && shim_tracing) {
        int64_t total = 0;
        for (int i = 0; i < count; i++) total += (int64_t)iov[i].iov_len;
        shim_trace("tb", st.st_ino, 0, total, 0, iov, count);
        ssize_t n = real_write(fd, iov, count, offset, positioned, flags);
        shim_trace("te", st.st_ino, 0, n, 0, NULL, 0);
        return n;
    }
    if (kind != FD_FILE) return real_write(fd, iov, count, offset, positioned, flags);
    shim_wait_while_hung();

    uint64_t length = 0, id = 0;
    for (int i = 0; i < count; i++) length += iov[i].iov_len;
    shim_lock(st.st_ino);
    if (fstat(fd, &st) != 0) shim_die("fstat");
    int mode = fcntl(fd, F_GETFL);
    if (mode < 0) shim_die("fcntl(F_GETFL)");
    bool durable = (mode & O_DSYNC) != 0 || (flags & (RWF_DSYNC | RWF_SYNC)) != 0; /* O_SYNC has the bit of O_DSYNC */
    uint64_t at = (uint64_t)offset;
    if ((mode & O_APPEND) || (flags & RWF_APPEND)) at = (uint64_t)st.st_size;
    else if (!positioned || offset == -1) {
        off_t now = lseek(fd, 0, SEEK_CUR);
        if (now < 0) shim_die("lseek");
        at = (uint64_t)now;
    }
    if (at + length > (uint64_t)st.st_size && shim_is_full()) {
        shim_unlock(st.st_ino);
        errno = ENOSPC;
        return -1;
    }
    if (shim_undoing) id = undo_data(fd, &st, at, length);
    if (shim_tracing) shim_trace("wb", st.st_ino, at, (int64_t)length, durable, iov, count);
    ssize_t n = real_write(fd, iov, count, offset, positioned, flags);
    if (shim_tracing) shim_trace("we", st.st_ino, at, n, durable, NULL, 0);
    int saved = errno;
    if (shim_undoing) {
        if (n < 0) shim_mark(MARK_CANCELLED, st.st_ino, id, 0);
        else if (durable) shim_mark(MARK_DONE, st.st_ino, id, (uint64_t)n);
    }
    shim_unlock(st.st_ino);
    errno = saved;
    return n;
}

ssize_t write(int fd, const void *data, size_t size) {
    struct iovec iov = {(void *)data, size};
    return write_any(fd, &iov, 1, 0, false, 0);
}
ssize_t writev(int fd, const struct iovec *iov, int count) { return write_any(fd, iov, count, 0, false, 0); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    struct iovec iov = {(void *)data, size};
    return write_any(fd, &iov, 1, offset, true, 0);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return pwrite(fd, data, size, offset); }
ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset) {
    return write_any(fd, iov, count, offset, true, 0);
}
ssize_t pwritev64(int fd, const struct iovec *iov, int count, off64_t offset) {
    return write_any(fd, iov, count, offset, true, 0);
}
ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags) {
    return write_any(fd, iov, count, offset, true, flags);
}
ssize_t pwritev64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags) {
    return write_any(fd, iov, count, offset, true, flags);
}

/* ---- syncs ---- */

static int sync_any(int fd, long call) {
    struct stat st;
    enum descriptor_kind kind = shim_classify(fd, &st);
    if (kind != FD_FILE && kind != FD_DIRECTORY) return (int)syscall(call, fd);
    shim_wait_while_hung();
    uint64_t upto = 0;
    if (shim_undoing) { /* what another thread changes from here on is not covered */
        shim_lock_names();
        shim_lock(st.st_ino);
        upto = shim_undo_size();
        shim_unlock(st.st_ino);
        shim_unlock_names();
    }
    if (shim_tracing) shim_trace("sb", st.st_ino, 0, 0, 0, NULL, 0);
    int result = (int)syscall(call, fd);
    if (shim_tracing) shim_trace("se", st.st_ino, 0, result, 0, NULL, 0);
    int saved = errno;
    if (shim_undoing && result == 0) shim_mark(MARK_SYNCED, st.st_ino, upto, 0);
    errno = saved;
    return result;
}

int fsync(int fd) { return sync_any(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_any(fd, SYS_fdatasync); }
/* sync and syncfs cover everything; a node that leans on them would be too slow to be ours. */
void sync(void) {
    if (shim_undoing) shim_die("sync(2) is not modelled");
    syscall(SYS_sync);
}
int syncfs(int fd) {
    struct stat st;
    if (shim_undoing && shim_classify(fd, &st) != FD_OTHER) shim_die("syncfs(2) is not modelled");
    return (int)syscall(SYS_syncfs, fd);
}

/* ---- sizes ---- */

int ftruncate(int fd, off_t size) {
    struct stat st;
    if (!shim_undoing || shim_classify(fd, &st) != FD_FILE) return (int)syscall(SYS_ftruncate, fd, size);
    shim_lock(st.st_ino);
    if (fstat(fd, &st) != 0) shim_die("fstat");
    uint64_t gone = st.st_size > size ? (uint64_t)(st.st_size - size) : 0;
    uint64_t id = undo_data(fd, &st, (uint64_t)(size < 0 ? 0 : size), gone);
    int result = (int)syscall(SYS_ftruncate, fd, size);
    int saved = errno;
    if (result != 0) shim_mark(MARK_CANCELLED, st.st_ino, id, 0);
    shim_unlock(st.st_ino);
    errno = saved;
    return result;
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

int truncate(const char *path, off_t size) {
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    int result = ftruncate(fd, size), saved = errno;
    if (syscall(SYS_close, fd) != 0) shim_die("close");
    errno = saved;
    return result;
}
int truncate64(const char *path, off64_t size) { return truncate(path, size); }

int fallocate(int fd, int mode, off_t offset, off_t length) {
    struct stat st;
    if (!shim_undoing || shim_classify(fd, &st) != FD_FILE) return (int)syscall(SYS_fallocate, fd, mode, offset, length);
    if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) shim_die("this fallocate mode is not modelled");
    shim_lock(st.st_ino);
    if (fstat(fd, &st) != 0) shim_die("fstat");
    bool changes = (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0;
    uint64_t id = undo_data(fd, &st, (uint64_t)offset, changes ? (uint64_t)length : 0);
    int result = (int)syscall(SYS_fallocate, fd, mode, offset, length);
    int saved = errno;
    if (result != 0) shim_mark(MARK_CANCELLED, st.st_ino, id, 0);
    shim_unlock(st.st_ino);
    errno = saved;
    return result;
}
int fallocate64(int fd, int mode, off64_t offset, off64_t length) { return fallocate(fd, mode, offset, length); }
int posix_fallocate(int fd, off_t offset, off_t length) {
    int saved = errno;
    int result = fallocate(fd, 0, offset, length) == 0 ? 0 : errno;
    errno = saved;
    return result;
}
int posix_fallocate64(int fd, off64_t offset, off64_t length) { return posix_fallocate(fd, offset, length); }

/* ---- opening ---- */

static int open_any(int dirfd, const char *path, int flags, mode_t mode) {
    struct place place;
    if (!shim_undoing && !shim_no_direct && !shim_full) return (int)syscall(SYS_openat, dirfd, path, flags, mode);
    shim_locate(dirfd, path, &place);
    if (!place.inside) return (int)syscall(SYS_openat, dirfd, path, flags, mode);
    if (shim_no_direct && (flags & O_DIRECT)) {
        shim_leave(&place);
        errno = EINVAL;
        return -1;
    }
    struct stat st;
    if ((flags & O_CREAT) && shim_is_full() && fstatat(place.parent, place.name, &st, 0) != 0 && errno == ENOENT) {
        shim_leave(&place);
        errno = ENOSPC;
        return -1;
    }
    if (!shim_undoing) {
        shim_leave(&place);
        return (int)syscall(SYS_openat, dirfd, path, flags, mode);
    }
    if ((flags & O_TMPFILE) == O_TMPFILE) shim_die("O_TMPFILE is not modelled");
    uint64_t id = 0;
    bool creates = false;
    shim_lock_names();
    if (flags & O_CREAT) {
        creates = fstatat(place.parent, place.name, &st, 0) != 0 && errno == ENOENT;
        if (creates) {
            struct undo_record record = {.kind = UNDO_CREATE, .dir = place.directory};
            id = shim_undo(&record, NULL, place.name, NULL);
        }
    }
    bool cuts = (flags & O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY;
    int fd = (int)syscall(SYS_openat, dirfd, path, cuts ? flags & ~O_TRUNC : flags, mode);
    int saved = errno;
    if (fd < 0 && creates) shim_mark(MARK_CANCELLED, 0, id, 0);
    shim_unlock_names();
    shim_leave(&place);
    if (fd >= 0 && cuts && !creates && ftruncate(fd, 0) != 0) shim_die("O_TRUNC");
    errno = saved;
    return fd;
}

#define MODE_ARGUMENT(flags, mode)                                    \
    mode_t mode = 0;                                                  \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) {  \
        va_list arguments;                                            \
        va_start(arguments, flags);                                   \
        mode = va_arg(arguments, mode_t);                             \
        va_end(arguments);                                            \
    }

int open(const char *path, int flags, ...) {
    MODE_ARGUMENT(flags, mode)
    return open_any(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE_ARGUMENT(flags, mode)
    return open_any(AT_FDCWD, path, flags, mode);
}
int openat(int dirfd, const char *path, int flags, ...) {
    MODE_ARGUMENT(flags, mode)
    return open_any(dirfd, path, flags, mode);
}
int openat64(int dirfd, const char *path, int flags, ...) {
    MODE_ARGUMENT(flags, mode)
    return open_any(dirfd, path, flags, mode);
}
/* What a caller compiled with _FORTIFY_SOURCE reaches. */
int __open_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
int __openat_2(int dirfd, const char *path, int flags) { return open_any(dirfd, path, flags, 0); }
int __openat64_2(int dirfd, const char *path, int flags) { return open_any(dirfd, path, flags, 0); }
int creat(const char *path, mode_t mode) { return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* stdio writes inside the C library, past this one: only reading is let through. */
static FILE *stream(const char *path, const char *mode, const char *symbol) {
    struct place place;
    if (shim_undoing && strpbrk(mode, "wa+")) {
        shim_locate(AT_FDCWD, path, &place);
        shim_leave(&place);
        if (place.inside) shim_die("fopen for writing is not modelled");
    }
    FILE *(*real)(const char *, const char *) = (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, symbol);
    if (!real) shim_die(symbol);
    return real(path, mode);
}
FILE *fopen(const char *path, const char *mode) { return stream(path, mode, "fopen"); }
FILE *fopen64(const char *path, const char *mode) { return stream(path, mode, "fopen64"); }

/* ---- ways past the calls above: refused ---- */

static void refuse_into(int fd, const char *what) {
    struct stat st;
    if (shim_undoing && shim_classify(fd, &st) == FD_FILE) shim_die(what);
}
void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    if ((protection & PROT_WRITE) && (flags & MAP_SHARED) && !(flags & MAP_ANONYMOUS))
        refuse_into(fd, "a shared writable mapping cannot be undone");
    return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
}
void *mmap64(void *address, size_t size, int protection, int flags, int fd, off64_t offset) {
    return mmap(address, size, protection, flags, fd, offset);
}
ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t size, unsigned flags) {
    refuse_into(to, "copy_file_range is not modelled");
    return syscall(SYS_copy_file_range, from, from_at, to, to_at, size, flags);
}
ssize_t splice(int from, off64_t *from_at, int to, off64_t *to_at, size_t size, unsigned flags) {
    refuse_into(to, "splice is not modelled");
    return syscall(SYS_splice, from, from_at, to, to_at, size, flags);
}
ssize_t sendfile(int to, int from, off_t *offset, size_t size) {
    refuse_into(to, "sendfile is not modelled");
    return syscall(SYS_sendfile, to, from, offset, size);
}
ssize_t sendfile64(int to, int from, off64_t *offset, size_t size) { return sendfile(to, from, offset, size); }
