/* Calls that change the entries of directories. See shim.h. */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Wraps a call: the undo record first, cancelled where the call fails. */
static int finish(struct place *place, uint64_t id, int result) {
    int saved = errno;
    if (result != 0) shim_mark(MARK_CANCELLED, 0, id, 0);
    shim_unlock_names();
    shim_leave(place);
    errno = saved;
    return result;
}

static uint64_t undo_entry(enum undo_kind kind, struct place *place, uint64_t ino) {
    struct undo_record record = {.kind = (uint32_t)kind, .dir = place->directory, .ino = ino};
    return shim_undo(&record, NULL, place->name, NULL);
}

int unlinkat(int dirfd, const char *path, int flags) {
    struct place place;
    struct stat st;
    if (!shim_undoing) return (int)syscall(SYS_unlinkat, dirfd, path, flags);
    shim_locate(dirfd, path, &place);
    if (!place.inside || fstatat(place.parent, place.name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        shim_leave(&place);
        return (int)syscall(SYS_unlinkat, dirfd, path, flags);
    }
    shim_lock_names();
    if (!(flags & AT_REMOVEDIR)) shim_bury(&place, st.st_ino);
    uint64_t id = undo_entry(flags & AT_REMOVEDIR ? UNDO_RMDIR : UNDO_REMOVE, &place, st.st_ino);
    return finish(&place, id, (int)syscall(SYS_unlinkat, dirfd, path, flags));
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    int result = unlinkat(AT_FDCWD, path, 0);
    return result != 0 && errno == EISDIR ? rmdir(path) : result;
}

int mkdirat(int dirfd, const char *path, mode_t mode) {
    struct place place;
    if (!shim_undoing) return (int)syscall(SYS_mkdirat, dirfd, path, mode);
    shim_locate(dirfd, path, &place);
    if (!place.inside) return (int)syscall(SYS_mkdirat, dirfd, path, mode);
    shim_lock_names();
    uint64_t id = undo_entry(UNDO_MKDIR, &place, 0);
    return finish(&place, id, (int)syscall(SYS_mkdirat, dirfd, path, mode));
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int linkat(int from, const char *old, int to, const char *path, int flags) {
    struct place place;
    if (!shim_undoing) return (int)syscall(SYS_linkat, from, old, to, path, flags);
    shim_locate(to, path, &place);
    if (!place.inside) return (int)syscall(SYS_linkat, from, old, to, path, flags);
    shim_lock_names();
    uint64_t id = undo_entry(UNDO_CREATE, &place, 0);
    return finish(&place, id, (int)syscall(SYS_linkat, from, old, to, path, flags));
}
int link(const char *old, const char *path) { return linkat(AT_FDCWD, old, AT_FDCWD, path, 0); }

int symlinkat(const char *target, int to, const char *path) {
    struct place place;
    if (!shim_undoing) return (int)syscall(SYS_symlinkat, target, to, path);
    shim_locate(to, path, &place);
    if (!place.inside) return (int)syscall(SYS_symlinkat, target, to, path);
    shim_lock_names();
    uint64_t id = undo_entry(UNDO_CREATE, &place, 0);
    return finish(&place, id, (int)syscall(SYS_symlinkat, target, to, path));
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

int renameat2(int from, const char *old, int to, const char *path, unsigned flags) {
    struct place source, target;
    struct stat st;
    if (!shim_undoing) return (int)syscall(SYS_renameat2, from, old, to, path, flags);
    shim_locate(from, old, &source);
    shim_locate(to, path, &target);
    if (source.inside != target.inside) shim_die("a rename into or out of SHIM_DIR is not modelled");
    if (!source.inside || fstatat(source.parent, source.name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        shim_leave(&source);
        shim_leave(&target);
        return (int)syscall(SYS_renameat2, from, old, to, path, flags);
    }
    if (flags & ~RENAME_NOREPLACE) shim_die("this rename flag is not modelled");
    struct undo_record record = {.kind = UNDO_RENAME, .ino = st.st_ino, .dir = source.directory, .dir2 = target.directory};
    shim_lock_names();
    if (fstatat(target.parent, target.name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !(flags & RENAME_NOREPLACE)) {
        if (S_ISDIR(st.st_mode)) shim_die("a rename over a directory is not modelled");
        if (st.st_ino != record.ino) {
            record.replaced = st.st_ino;
            shim_bury(&target, st.st_ino);
        }
    }
    uint64_t id = shim_undo(&record, NULL, source.name, target.name);
    shim_leave(&target);
    return finish(&source, id, (int)syscall(SYS_renameat2, from, old, to, path, flags));
}
int renameat(int from, const char *old, int to, const char *path) { return renameat2(from, old, to, path, 0); }
int rename(const char *old, const char *path) { return renameat2(AT_FDCWD, old, AT_FDCWD, path, 0); }
