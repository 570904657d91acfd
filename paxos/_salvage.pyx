# cython: language_level=3
"""Salvage: what a damaged log still knows to be chosen.

A damaged log is set aside whole, for what it promised behind the damage is not known. But what it had recorded as chosen before is
chosen for good, and need not be fetched from other nodes. What was accepted and not yet recorded as chosen counts as unknown (design
rule 11), and is not used.

At the start the log is gone through where it lies now, a segment at a time, up to the first place where no whole write verifies, and
replayed as a restart would: into a replica, which is thrown away. A log that contradicts itself up to there is not believed at all.
What is kept is, for each instance, the position of the record and the chain checksum behind it.

The running node gives its replica one instance after the other, like fetched ones, with a check of everything again:

- the log was of this node, and of the cluster that this node is part of now, by the signature in its FORMATION: the values of
  another cluster would fit where the chain checksums meet, from instance 0 on;
- the cluster says itself that the instance is chosen: the log alone is never ahead of what others have told;
- the record verifies as it is read, and the value makes the chain checksum of the cluster that which the old log had behind it.

What ends it costs no more than fetching the rest. It is not gone on with by a later start, which finds a log without damage.
"""
cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from paxos._codec cimport chain_next, value_copy
from paxos._core cimport replica_free, replica_known, replica_new, replica_restore_base
from paxos._delivery cimport delivery_log
from paxos._effects cimport restore_record, take
from paxos._formation cimport STATE_EMPTY, STATE_FORMED, formation_free, formation_restore
from paxos._history cimport value_in
from paxos._log cimport SEGMENT_MAX, Segment, log_seed
from paxos._recovery cimport recovery_header, recovery_walk
from paxos._replica cimport Options, Replica
from paxos._spares cimport CHUNK, NAME
from paxos._store cimport highs_free, index_chain, index_free, index_get, store_record
from paxos._types cimport (
    BLOCK, RECORD_BASE, RECORD_FORMATION, RECORD_FORMED, RECORD_IDENTITY, Frame, Learned, Value, ValueHead, value_unref,
    xalloc, xzalloc,
)

cdef enum:
    GIVEN = 4194304                 # bytes read between two writes: what else waits for the engine must not wait long


cdef void _free(Salvaged *s) noexcept nogil:
    if s == NULL:
        return
    if s.segment:
        s.disk.close(&s.disk, s.fd)
    if s.disk.directory >= 0:
        s.disk.close(&s.disk, s.disk.directory)
    index_free(&s.index)
    free(s)


cdef void salvage_free(Host *h) noexcept nogil:
    _free(h.salvage)
    h.salvage = NULL


cdef uint8_t *_record(Salvaged *s, uint64_t instance, uint32_t *size) noexcept nogil:
    """The record that has the value of an instance, read from the disk and verified; NULL: it is not there any more."""
    cdef uint64_t position = index_get(&s.index, instance)
    cdef uint64_t segment = position // s.segment_size
    cdef char name[NAME]
    cdef int error = 0
    if segment == 0:
        return NULL
    if segment != s.segment:
        if s.segment:
            s.disk.close(&s.disk, s.fd)     # was open for reading only: nothing can be lost
        s.segment = 0
        snprintf(name, NAME, s.names, <unsigned long long>segment)
        if s.disk.open(&s.disk, name, 0, &s.fd) != 0:
            return NULL
        s.segment = segment
    return store_record(&s.disk, s.fd, position % s.segment_size, s.segment_size, log_seed(s.inc_hi, s.inc_lo, segment), size,
                        &error)


# ---- at the start ----

@cython.final
cdef class Salvage:
    """See _salvage.pyi."""

    def __cinit__(self, Folder folder not None, segments, uint32_t node, uint64_t below):
        self.node = self.formation.node = node
        self.kept = <Salvaged *>xzalloc(sizeof(Salvaged))
        self.kept.disk.directory = -1
        self.why = self.judge(folder, list(segments), below)

    def __dealloc__(self):
        _free(self.kept)
        formation_free(&self.formation)
        replica_free(self.group.replica)
        index_free(&self.group.index)
        highs_free(&self.group.highs)
        free(self.base)
        free(self.bytes)
        free(self.walk.table.refs)

    @property
    def first(self):
        return self.kept.first

    @property
    def end(self):
        return self.kept.end

    def value(self, uint64_t instance):
        cdef ValueHead head
        cdef const uint8_t *data = NULL
        cdef uint32_t size = 0
        cdef uint8_t *record
        if not self.kept.first <= instance < self.kept.end:
            raise IndexError(f"instance {instance}: {self.first} to {self.end} are there")
        record = _record(self.kept, instance, &size)
        try:
            if record == NULL or not value_in(record, size, 0, instance, &head, &data):
                return None
            return head.kind, head.count, <bytes>(<const char *>data)[:head.size]
        finally:
            free(record)

    cdef void hand_over(self, Host *h) noexcept:
        salvage_free(h)
        h.salvage = self.kept
        self.kept = NULL

    cdef str judge(self, Folder folder, list segments, uint64_t below):
        cdef Salvaged *s = self.kept
        cdef Options options
        cdef bytes names = folder.aside(&s.disk)
        if len(names) >= sizeof(s.names):
            raise ValueError(f"a name of {len(names)} bytes")
        memcpy(s.names, <const char *>names, len(names))
        # Where a log begins, and in which cluster, stands anywhere in it; so it is gone through twice.
        if not self.go_through(segments, False):
            return "it contradicts itself"
        if self.formation.state == STATE_EMPTY:
            return "what can be read of it does not say of which cluster it is"
        memset(&options, 0, sizeof(Options))
        options.node = self.node
        self.group.replica = replica_new(&options, &self.formation.first, self.formation.sig_lo, self.walk.inc_hi, self.walk.inc_lo,
                                         1, 1)
        if self.base != NULL and replica_restore_base(self.group.replica, self.base_first, self.base, self.base_size) != 0:
            return "it contradicts itself"
        if not self.go_through(segments, True):
            return "it contradicts itself"
        s.sig_hi, s.sig_lo = self.formation.sig_hi, self.formation.sig_lo
        s.inc_hi, s.inc_lo, s.segment_size = self.walk.inc_hi, self.walk.inc_lo, self.walk.segment_size
        s.first = self.group.replica.first_kept
        s.end = max(s.first, min(self.group.replica.chosen, below))
        s.index = self.group.index
        memset(&self.group.index, 0, sizeof(self.group.index))
        return "" if s.end > s.first else "it has recorded nothing as chosen before what is wrong with it"

    cdef bint go_through(self, list segments, bint values):
        """Every legible record. `values`: those of the group, else what tells of which cluster it is, and where it begins. False: they
        contradict one another."""
        cdef Walk *k = &self.walk
        cdef Segment h
        cdef uint64_t number
        cdef size_t i
        k.segment_size = k.last = k.boot = k.durable = k.oldest = 0
        for number in segments:
            with nogil:
                if (self.load(number) != 0 or recovery_header(self.bytes, self.size, &h) != 0 or h.number != number
                        or h.size != self.size or h.node != self.node):
                    break
                if k.segment_size == 0:
                    k.segment_size, k.inc_hi, k.inc_lo, k.node, k.chain = h.size, h.inc_hi, h.inc_lo, h.node, h.previous
                elif (h.size != k.segment_size or h.inc_hi != k.inc_hi or h.inc_lo != k.inc_lo or h.previous != k.chain
                        or h.durable != k.last):
                    break
                k.offset = BLOCK
                k.table.count = 0
                recovery_walk(k, self.bytes, number)
                for i in range(k.table.count):
                    if not self.step(&k.table.refs[i], values):
                        return False
            if not k.ended:
                break
        return True

    cdef int load(self, uint64_t number) noexcept nogil:
        """The bytes of a segment. What the disk cannot read, and all behind it, are zeros, in which no write verifies."""
        cdef Salvaged *s = self.kept
        cdef char name[NAME]
        cdef uint64_t size = 0, done = 0
        cdef size_t piece
        cdef int fd = -1
        cdef int error
        snprintf(name, NAME, s.names, <unsigned long long>number)
        error = s.disk.open(&s.disk, name, 0, &fd)
        if error:
            return error
        error = s.disk.size(&s.disk, fd, &size)
        if error == 0 and (size < BLOCK or size > SEGMENT_MAX):
            error = -1
        if error == 0 and size != self.size:
            free(self.bytes)
            self.bytes = <uint8_t *>malloc(size)
            self.size = size if self.bytes != NULL else 0
            error = 0 if self.bytes != NULL else -1
        while error == 0 and done < size:
            piece = <size_t>min(<uint64_t>CHUNK, size - done)
            if s.disk.read(&s.disk, fd, self.bytes + done, piece, done) != 0:
                memset(self.bytes + done, 0, size - done)
                break
            done += piece
        s.disk.close(&s.disk, fd)
        return error

    cdef bint step(self, const RecordRef *r, bint values) noexcept nogil:
        cdef Formation *f = &self.formation
        if r.type == RECORD_FORMATION or r.type == RECORD_FORMED:
            # (The FORMATION of a FORMED may have gone with its segment; both stand further on again.)
            return values or (r.type == RECORD_FORMED and f.state == STATE_EMPTY) or formation_restore(f, r.type, r.body, r.size) == 0
        if r.group != 0 or r.type == RECORD_IDENTITY:
            return True
        if values:
            return restore_record(&self.group, r.type, r.instance, r.body, r.size, r.position,
                                  r.position // self.walk.segment_size) == 0
        if r.type == RECORD_BASE:
            free(self.base)
            self.base = <uint8_t *>xalloc(r.size)
            memcpy(self.base, r.body, r.size)
            self.base_size = r.size
            self.base_first = r.instance
        return True


# ---- in the running node ----

cdef bint salvage_waits(const Host *h) noexcept nogil:
    cdef const Salvaged *s = h.salvage
    cdef const Replica *r = h.groups[0].replica
    # (While records wait for room in the log, those behind them would only wait, too. Who has left, or differs, learns nothing.)
    if s == NULL or r == NULL or h.formation.state != STATE_FORMED or h.left or r.diverged or h.unlogged.count:
        return False
    return r.chosen >= s.end or (r.chosen >= s.first and r.chosen >= s.after and r.chosen < r.heard_chosen)


cdef const char *_give(Host *h, Group *g, uint64_t *read) noexcept nogil:
    """Gives the next instance; what it read counts. NULL, or why it cannot be given."""
    cdef uint64_t instance = g.replica.chosen
    cdef ValueHead head
    cdef const uint8_t *data = NULL
    cdef const char *why = NULL
    cdef uint32_t size = 0
    cdef Value *value
    cdef uint8_t *record = _record(h.salvage, instance, &size)
    if record == NULL or not value_in(record, size, 0, instance, &head, &data):
        free(record)
        return b"it cannot be read any more"
    read[0] += max(<uint64_t>size, <uint64_t>BLOCK)     # (no less than a block is read)
    # As a frame that another node sends would be refused: a record that fits no segment would end the process.
    if (head.size > h.store.writer.segment_size - 4 * BLOCK
            or sizeof(Frame) + sizeof(Learned) + sizeof(ValueHead) + <uint64_t>head.size > h.options.max_frame):
        why = b"a value in it is larger than this node takes now"
    else:
        value = value_copy(&head, data)
        # One comparison for two things: where the cluster's checksum was another one before, it is another one behind, too.
        if chain_next(g.replica.chain, instance, value) == index_chain(&h.salvage.index, instance):
            replica_known(g.replica, h.now, value)
            take(h, &g.replica.out, g)
            h.salvage.taken += 1
        else:
            why = b"it has other values than the cluster"
        value_unref(value)
    free(record)
    return why


cdef void salvage_feed(Host *h) noexcept nogil:
    cdef Salvaged *s = h.salvage
    cdef Group *g = &h.groups[0]
    cdef uint64_t read = 0
    cdef const char *why = NULL
    cdef char text[256]
    if not salvage_waits(h):
        return
    if s.sig_hi != h.formation.sig_hi or s.sig_lo != h.formation.sig_lo:
        why = b"it is of another cluster"
    while why == NULL and read < GIVEN and salvage_waits(h) and g.replica.chosen < s.end:
        why = _give(h, g, &read)
    if why == NULL and g.replica.chosen < s.end:
        return
    if why == NULL:
        why = b"it has recorded no more as chosen"
    snprintf(text, sizeof(text), "of the log that was set aside %llu instances were kept, and what is missing from instance %llu on is "
             "fetched: %s", <unsigned long long>s.taken, <unsigned long long>g.replica.chosen, why)
    delivery_log(&h.delivery, 30, text)
    salvage_free(h)
