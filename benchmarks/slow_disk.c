/* A disk whose every durable write takes longer: for LD_PRELOAD. SLOW_DISK names a file of four bytes, the delay in
   microseconds as a little-endian number, which may change while the process runs. A write to a descriptor opened with
   O_DSYNC, fdatasync and fsync return that much later; the calling thread sleeps, as it would in the kernel. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static volatile uint32_t *delay;

static void die(const char *what)
{
    perror(what);
    _exit(99); /* a benchmark that silently runs on the fast disk would report nonsense */
}

__attribute__((constructor)) static void map_delay(void)
{
    const char *path = getenv("SLOW_DISK");
    if (path == NULL)
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die("slow_disk: SLOW_DISK");
    void *mapped = mmap(NULL, sizeof(uint32_t), PROT_READ, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        die("slow_disk: mmap");
    delay = mapped;
    if (close(fd) != 0)
        die("slow_disk: close");
}

static void *next(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL) {
        fprintf(stderr, "slow_disk: no %s\n", name);
        _exit(99);
    }
    return found;
}

static void wait_delay(void)
{
    uint32_t microseconds = delay != NULL ? *delay : 0;
    int kept = errno;
    struct timespec left = {microseconds / 1000000, (long)(microseconds % 1000000) * 1000};
    while (microseconds && nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
    errno = kept;
}

static int durable(int fd)
{
    int kept = errno, flags = fcntl(fd, F_GETFL);
    errno = kept;
    return flags >= 0 && (flags & O_DSYNC);
}

#define WRITE(name, offset_type)                                                            \
    ssize_t name(int fd, const void *data, size_t size, offset_type offset)                 \
    {                                                                                       \
        static ssize_t (*real)(int, const void *, size_t, offset_type);                     \
        if (real == NULL)                                                                   \
            real = (ssize_t (*)(int, const void *, size_t, offset_type))next(#name);        \
        ssize_t written = real(fd, data, size, offset);                                     \
        if (durable(fd))                                                                    \
            wait_delay();                                                                   \
        return written;                                                                     \
    }

WRITE(pwrite, off_t)
WRITE(pwrite64, off64_t)

#define SYNC(name)                                                                          \
    int name(int fd)                                                                        \
    {                                                                                       \
        static int (*real)(int);                                                            \
        if (real == NULL)                                                                   \
            real = (int (*)(int))next(#name);                                               \
        int result = real(fd);                                                              \
        wait_delay();                                                                       \
        return result;                                                                      \
    }

SYNC(fdatasync)
SYNC(fsync)
