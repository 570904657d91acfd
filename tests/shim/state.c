/* Set-up, the undo file, the trace file, and which descriptors and paths are watched. See shim.h.
 * Everything here calls the kernel through syscall(2): the usual names lead back into this library. */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

bool shim_undoing, shim_tracing, shim_lying, shim_no_direct;
const char *shim_full, *shim_hang;

static char watched[PATH_MAX];
static size_t watched_size;
static char state[PATH_MAX];
static int undo_fd = -1;
static int trace_fd = -1;
static int trace_pid;
static const char *trace_prefix;
static uint64_t next_id = 1;
static uint64_t next_sequence = 1;

enum { LOCKS = 64, TRACE_BYTES = 256 * 1024, HIGH_FD = 700 };
static pthread_mutex_t locks[LOCKS];
static pthread_mutex_t names = PTHREAD_MUTEX_INITIALIZER;

_Noreturn void shim_die(const char *what) {
    dprintf(2, "shim: %s (errno %d: %s); the test cannot go on\n", what, errno, strerror(errno));
    abort();
}

static bool is_set(const char *name) {
    const char *text = getenv(name);
    return text && *text && strcmp(text, "0") != 0;
}

/* Away from the numbers that a program counts on, and closed in children that exec. */
static int open_high(const char *path) {
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) shim_die(path);
    int high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);
    if (high < 0) shim_die("fcntl(F_DUPFD_CLOEXEC)");
    if (syscall(SYS_close, fd) != 0) shim_die("close");
    return high;
}

static void open_trace(void) {
    char path[PATH_MAX];
    trace_pid = (int)getpid();
    if (snprintf(path, sizeof path, "%s.%d", trace_prefix, trace_pid) >= (int)sizeof path) shim_die("SHIM_TRACE: too long");
    trace_fd = open_high(path);
}

__attribute__((constructor)) static void shim_begin(void) {
    for (int i = 0; i < LOCKS; i++) pthread_mutex_init(&locks[i], NULL);
    const char *dir = getenv("SHIM_DIR");
    if (!dir || !*dir) return;
    if (!realpath(dir, watched)) shim_die("SHIM_DIR: no such directory");
    watched_size = strlen(watched);
    shim_lying = is_set("SHIM_LIE");
    shim_no_direct = is_set("SHIM_NO_DIRECT");
    shim_full = is_set("SHIM_FULL") ? getenv("SHIM_FULL") : NULL;
    shim_hang = is_set("SHIM_HANG") ? getenv("SHIM_HANG") : NULL;
    const char *where = getenv("SHIM_STATE");
    if (where && *where) {
        char path[PATH_MAX + 16];
        if (!realpath(where, state)) shim_die("SHIM_STATE: no such directory");
        snprintf(path, sizeof path, "%s/graves", state);
        if (syscall(SYS_mkdirat, AT_FDCWD, path, 0700) != 0 && errno != EEXIST) shim_die(path);
        snprintf(path, sizeof path, "%s/undo", state);
        undo_fd = open_high(path);
        shim_undoing = true;
    }
    trace_prefix = getenv("SHIM_TRACE");
    if (trace_prefix && *trace_prefix) {
        open_trace();
        shim_tracing = true;
    }
}

/* ---- moods ---- */

static bool is_there(const char *path) {
    int saved = errno;
    bool there = path && syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
    errno = saved;
    return there;
}

bool shim_is_full(void) { return is_there(shim_full); }

void shim_wait_while_hung(void) {
    struct timespec moment = {0, 5 * 1000 * 1000};
    while (is_there(shim_hang)) syscall(SYS_nanosleep, &moment, NULL);
}

/* ---- what is watched ---- */

static bool is_inside(const char *path) {
    return strncmp(path, watched, watched_size) == 0 && (path[watched_size] == '/' || path[watched_size] == 0);
}

static bool path_of(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, PATH_MAX - 1);
    if (n < 0) return false;
    out[n] = 0;
    return true;
}

/* Looked up at every call instead of kept in a table: no dup, fcntl, fork or SCM_RIGHTS can make it wrong. */
enum descriptor_kind shim_classify(int fd, struct stat *st) {
    char path[PATH_MAX];
    int saved = errno;
    enum descriptor_kind kind = FD_OTHER;
    if (watched_size && fd >= 0 && fd != undo_fd && fd != trace_fd && fstat(fd, st) == 0) {
        if (S_ISSOCK(st->st_mode)) kind = FD_SOCKET;
        else if ((S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)) && path_of(fd, path) && is_inside(path))
            kind = S_ISREG(st->st_mode) ? FD_FILE : FD_DIRECTORY;
    }
    errno = saved;
    return kind;
}

void shim_locate(int dirfd, const char *path, struct place *place) {
    char full[PATH_MAX], parent[PATH_MAX];
    struct stat st;
    int saved = errno;
    place->inside = false;
    place->parent = -1;
    if (!watched_size || !path || !*path) goto out;
    if (*path == '/') {
        if (strlen(path) >= sizeof full) goto out;
        strcpy(full, path);
    } else {
        char base[PATH_MAX];
        if (dirfd == AT_FDCWD ? getcwd(base, sizeof base) == NULL : !path_of(dirfd, base)) goto out;
        if (snprintf(full, sizeof full, "%s/%s", base, path) >= (int)sizeof full) goto out;
    }
    size_t end = strlen(full);
    while (end > 1 && full[end - 1] == '/') full[--end] = 0;
    char *slash = strrchr(full, '/');
    if (!slash || strlen(slash + 1) >= sizeof place->name || !slash[1]) goto out;
    strcpy(place->name, slash + 1);
    if (slash == full) slash++;
    *slash = 0;
    if (!realpath(full, parent) || !is_inside(parent)) goto out; /* no such directory: the real call will say so */
    if (strcmp(place->name, ".") == 0 || strcmp(place->name, "..") == 0) goto out;
    place->parent = (int)syscall(SYS_openat, AT_FDCWD, parent, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (place->parent < 0 || fstat(place->parent, &st) != 0) shim_die(parent);
    place->directory = st.st_ino;
    place->inside = true;
out:
    errno = saved;
}

void shim_leave(struct place *place) {
    int saved = errno;
    if (place->parent >= 0 && syscall(SYS_close, place->parent) != 0) shim_die("close");
    place->parent = -1;
    errno = saved;
}

/* ---- order between an undo record and the call that it undoes ---- */

void shim_lock(uint64_t ino) { pthread_mutex_lock(&locks[ino % LOCKS]); }
void shim_unlock(uint64_t ino) { pthread_mutex_unlock(&locks[ino % LOCKS]); }
void shim_lock_names(void) { pthread_mutex_lock(&names); }
void shim_unlock_names(void) { pthread_mutex_unlock(&names); }

/* ---- the undo file ---- */

/* One write in append mode: records of threads and processes never mix, and the file's order is their order. */
static void append(int fd, struct iovec *iov, int count) {
    size_t wanted = 0;
    for (int i = 0; i < count; i++) wanted += iov[i].iov_len;
    ssize_t n;
    do n = syscall(SYS_writev, fd, iov, count);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)wanted) shim_die("writing its own file");
}

uint64_t shim_undo(struct undo_record *record, const void *data, const char *name, const char *name2) {
    int saved = errno;
    record->magic = UNDO_MAGIC;
    record->pid = (uint32_t)getpid();
    record->id = __atomic_fetch_add(&next_id, 1, __ATOMIC_RELAXED);
    record->name_size = name ? (uint32_t)strlen(name) : 0;
    record->name2_size = name2 ? (uint32_t)strlen(name2) : 0;
    struct iovec iov[4] = {{record, sizeof *record},
                           {(void *)data, record->data_size},
                           {(void *)name, record->name_size},
                           {(void *)name2, record->name2_size}};
    append(undo_fd, iov, 4);
    errno = saved;
    return record->id;
}

uint64_t shim_undo_size(void) {
    struct stat st;
    if (fstat(undo_fd, &st) != 0) shim_die("fstat of the undo file");
    return (uint64_t)st.st_size;
}

void shim_mark(enum undo_kind kind, uint64_t ino, uint64_t mark, uint64_t length) {
    if (shim_lying && kind != MARK_CANCELLED) return;
    struct undo_record record = {.kind = (uint32_t)kind, .ino = ino, .mark = mark, .length = length};
    shim_undo(&record, NULL, NULL, NULL);
}

/* A second link keeps the bytes of a file whose name goes away, and its inode number from being used again. */
void shim_bury(struct place *place, uint64_t ino) {
    char grave[PATH_MAX + 64];
    snprintf(grave, sizeof grave, "%s/graves/%llu", state, (unsigned long long)ino);
    if (syscall(SYS_linkat, place->parent, place->name, AT_FDCWD, grave, 0) != 0 && errno != EEXIST)
        shim_die("link into SHIM_STATE (is it on the same file system as SHIM_DIR?)");
}

/* ---- the trace ---- */

void shim_trace(const char *event, uint64_t ino, uint64_t offset, int64_t length, int flag,
                const struct iovec *iov, int count) {
    static const char digits[] = "0123456789abcdef";
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    int saved = errno;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t sequence = __atomic_fetch_add(&next_sequence, 1, __ATOMIC_SEQ_CST);
    size_t total = 0;
    bool zeros = event[0] != 't' || count == 0; /* space filled ahead in a log is not worth its lines; a message is */
    for (int i = 0; i < count; i++) {
        const unsigned char *p = iov[i].iov_base;
        for (size_t k = 0; zeros && k < iov[i].iov_len; k++) zeros = p[k] == 0;
        total += iov[i].iov_len;
    }
    if (total > TRACE_BYTES) total = TRACE_BYTES;
    char *line = malloc(2 * total + 256);
    if (!line) shim_die("out of memory");
    size_t used = (size_t)sprintf(line, "%lld %llu %ld %s %llu %llu %lld %d ",
                                  (long long)now.tv_sec * 1000000000LL + now.tv_nsec, (unsigned long long)sequence,
                                  (long)syscall(SYS_gettid), event, (unsigned long long)ino,
                                  (unsigned long long)offset, (long long)length, flag);
    if (zeros) line[used++] = '-';
    else
        for (int i = 0; i < count && total; i++) {
            const unsigned char *p = iov[i].iov_base;
            for (size_t k = 0; k < iov[i].iov_len && total; k++, total--) {
                line[used++] = digits[p[k] >> 4];
                line[used++] = digits[p[k] & 15];
            }
        }
    line[used++] = '\n';
    pthread_mutex_lock(&one);
    if (trace_pid != (int)getpid()) open_trace(); /* a forked child has a file of its own */
    struct iovec out = {line, used};
    append(trace_fd, &out, 1);
    pthread_mutex_unlock(&one);
    free(line);
    errno = saved;
}
