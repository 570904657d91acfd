# cython: language_level=3
"""A mark that a node leaves for its next start: what it has in its log was not what the cluster has chosen.

It lies beside the checkpoints (``distrust``), and says from which instance on they are wrong, too. The next start treats it like a
damaged log: the log is set aside, and the node asks to be taken in anew. The mark goes last, so that a crash on the way changes
nothing.
"""
MARK = "distrust"
NEW = "distrust.new"
ASIDE = "distrusted-"


def mark(files, first, why):
    """Leaves the mark, durably; one that is there is replaced."""
    if NEW in files.names():
        files.remove(NEW)
    with files.create(NEW) as file:
        file.append(f"{first}\n{why}\n".encode())
        file.sync()
    files.rename(NEW, MARK)
    files.sync_directory()


def distrusted(files):
    """(first instance that is wrong, why), or None where there is no mark."""
    if MARK not in files.names():
        return None
    with files.open(MARK) as file:
        text = file.read(0, file.size).decode("utf-8", "replace")
    first, _, why = text.partition("\n")
    # What cannot be read is a mark all the same, and nothing is to be trusted.
    return int(first) if first.isascii() and first.isdigit() else 0, why.strip() or "the mark left no reason"


def set_aside(files):
    """The log has been set aside. Does so with the checkpoints that hold an instance which is wrong, and takes the mark away."""
    marked = distrusted(files)
    if marked is None:
        return
    # A checkpoint is there if its manifest is, so that goes first.
    for name in sorted(files.names(), key=_manifests_first):
        digits = name[:16]
        if len(digits) == 16 and set(digits) <= set("0123456789abcdef") and int(digits, 16) > marked[0]:
            files.rename(name, ASIDE + name)
    files.sync_directory()
    files.remove(MARK)
    files.sync_directory()


def _manifests_first(name):
    return not name.endswith(".manifest"), name
