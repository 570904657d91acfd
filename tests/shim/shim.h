/* A library for LD_PRELOAD that lets tests cut the power of a process, and see in which order it writes and sends.
 *
 * Power loss. Calls that change files below $SHIM_DIR are carried out for real, but first an undo record is appended
 * to $SHIM_STATE/undo. What becomes durable (a write through an O_DSYNC or O_SYNC descriptor that has returned; what an
 * fsync or fdatasync covers; the entries of a directory that was fsynced) is marked so in the same file. After the
 * process is dead, shim.power_loss() undoes, newest first, all that is not marked: what is left is what a disk would
 * have kept. The undo file is written with plain write(2), so that it survives the kill, and only the kill.
 *   SHIM_LIE=1        nothing is ever marked durable: a disk that acknowledges and forgets
 *   SHIM_NO_DIRECT=1  O_DIRECT is refused with EINVAL, as some file systems do
 *
 * Moods of a disk. As long as the file $SHIM_FULL is there, nothing below $SHIM_DIR is made or grows (ENOSPC); as long as
 * $SHIM_HANG is there, no write or sync below it begins.
 *
 * Trace. With $SHIM_TRACE every write and sync below $SHIM_DIR and every send on a socket appends a line before it
 * begins and one after it returned to $SHIM_TRACE.<pid>:
 *   nanoseconds (CLOCK_MONOTONIC, one for all processes) sequence thread event inode offset length flag bytes
 * with event wb we (write) sb se (sync) tb te (transmit: send), length the bytes asked for (..b) or the result (..e),
 * flag 1 for a write that is durable when it returns, and bytes in hex ("-" for none, and for a write of zeros).
 *
 * What cannot be undone (shared writable mappings, sendfile into a file ...) ends the process loudly. io_uring and
 * direct system calls pass unseen; the node uses neither.
 */
#ifndef PAXOS_TEST_SHIM_H
#define PAXOS_TEST_SHIM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

enum undo_kind {
    UNDO_DATA = 1,   /* bytes at offset were `data`; size was old_size; length: how many bytes the new ones are */
    UNDO_CREATE,     /* entry `name` of directory `dir` was not there */
    UNDO_REMOVE,     /* entry `name` of directory `dir` was the file `ino` (kept in $SHIM_STATE/graves) */
    UNDO_RENAME,     /* `ino` was dir/name, not dir2/name2; the file `replaced` was there (0: none) */
    UNDO_MKDIR,      /* directory `name` was not there */
    UNDO_RMDIR,      /* directory `name` was there */
    MARK_DONE,       /* record `mark` is durable, over `length` bytes of it */
    MARK_CANCELLED,  /* the call of record `mark` failed: nothing to undo */
    MARK_SYNCED      /* records about `ino` (a file, or a directory's entries) before byte `mark` of the undo file */
};

/* Followed by data_size bytes, then both names. Read by shim.py: keep the two alike. */
struct undo_record {
    uint32_t magic, kind;
    uint64_t id, mark, ino, dir, dir2, replaced, offset, length, old_size;
    uint32_t data_size, name_size, name2_size, pid;
};
#define UNDO_MAGIC 0x4f444e55u /* "UNDO" */

struct place { /* where a path points: an entry of a directory */
    bool inside;
    int parent;         /* O_PATH descriptor of the directory, or -1 */
    uint64_t directory; /* its inode */
    char name[256];
};

enum descriptor_kind { FD_OTHER, FD_FILE, FD_DIRECTORY, FD_SOCKET };

extern bool shim_undoing, shim_tracing, shim_lying, shim_no_direct;
extern const char *shim_full, *shim_hang;

bool shim_is_full(void);
void shim_wait_while_hung(void);

_Noreturn void shim_die(const char *what);
enum descriptor_kind shim_classify(int fd, struct stat *st);
void shim_locate(int dirfd, const char *path, struct place *place);
void shim_leave(struct place *place);

void shim_lock(uint64_t ino);
void shim_unlock(uint64_t ino);
void shim_lock_names(void);
void shim_unlock_names(void);

uint64_t shim_undo(struct undo_record *record, const void *data, const char *name, const char *name2);
uint64_t shim_undo_size(void);
void shim_mark(enum undo_kind kind, uint64_t ino, uint64_t mark, uint64_t length);
void shim_bury(struct place *place, uint64_t ino);

void shim_trace(const char *event, uint64_t ino, uint64_t offset, int64_t length, int flag,
                const struct iovec *iov, int count);

#endif
