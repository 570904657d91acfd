# cython: language_level=3
"""Salvage: what a damaged log still knows to be chosen.

A log that is damaged is set aside whole, because what it promised behind the damage is not known. But what it had recorded as
chosen before the damage is chosen for good, so the log that takes its place need not fetch that from other nodes. The records
before the damage are gone through as they were written: a watermark is taken only where the values below it give the chain
checksum that stands beside it. What was accepted and not yet known to be chosen counts as unknown (design rule 11).

The values are given to the replica like fetched ones, in order, and each only where the chain checksum of the cluster is the one
that it had in the old log. They lie in mapped files that were read once just before; should the disk fail to read one again, the
process ends, and its next start fetches.
"""
cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from paxos._codec cimport chain_next, value_check, value_copy
from paxos._core cimport replica_known
from paxos._delivery cimport delivery_log
from paxos._effects cimport take
from paxos._log cimport RecordRef
from paxos._state cimport Group, Host, Known, Salvaged
from paxos._types cimport (
    RECORD_ACCEPT, RECORD_BASE, RECORD_LEARN, RECORD_WATERMARK, RING, RecordAccept, RecordBase, RecordLearn, RecordWatermark, Value,
    ValueHead, ballot_compare, value_unref, xrealloc, xzalloc,
)

from paxos._recovery import recover
from paxos.errors import DamagedLog

cdef enum:
    GIVEN = 4194304                 # bytes between two writes: what else waits for the disk must not wait long


@cython.final
cdef class Salvage:
    def __dealloc__(self):
        free(self.slots)
        free(self.kept.known)

    @property
    def first(self):
        """The first instance that is there."""
        return self.kept.first

    @property
    def end(self):
        """One behind the last; ``first`` where there is none."""
        return self.kept.first + self.kept.count

    def value(self, uint64_t instance):
        """(kind, count, bytes) of an instance; IndexError where it is not there."""
        cdef ValueHead head
        cdef const uint8_t *at
        if not self.kept.first <= instance < self.kept.first + self.kept.count:
            raise IndexError(f"instance {instance}: {self.first} to {self.end} are there")
        at = self.kept.known[instance - self.kept.first].value
        memcpy(&head, at, sizeof(ValueHead))
        return head.kind, head.count, <bytes>(<const char *>at)[sizeof(ValueHead):sizeof(ValueHead) + head.size]

    def judge(self, Recovered found not None, uint64_t below):
        """Goes through the legible records. No instance from ``below`` on is taken."""
        cdef size_t i, legible = found.legible
        cdef bint agrees = True
        self.found = found
        self.slots = <Accepting *>xzalloc(RING * sizeof(Accepting))
        with nogil:
            for i in range(legible):
                agrees = self.step(&found.walk.table.refs[i])
                if not agrees:
                    break
        if not agrees or self.kept.first >= below:
            self.kept.count = 0     # a log that contradicts itself is not believed at all
        elif self.kept.count > below - self.kept.first:
            self.kept.count = below - self.kept.first

    cdef bint step(self, const RecordRef *r) noexcept nogil:
        cdef RecordAccept accept
        cdef RecordLearn learn
        cdef RecordWatermark watermark
        cdef RecordBase base
        cdef Accepting *slot
        if r.group != 0:
            return True
        if r.type == RECORD_WATERMARK:
            if r.size != sizeof(RecordWatermark):
                return False
            memcpy(&watermark, r.body, sizeof(RecordWatermark))
            return self.upto(watermark.chosen, watermark.chain, False)
        if r.type == RECORD_BASE:
            if r.size < sizeof(RecordBase):
                return False
            memcpy(&base, r.body, sizeof(RecordBase))
            return self.upto(r.instance, base.chain, True)
        if r.type == RECORD_ACCEPT:
            if r.size < sizeof(RecordAccept):
                return False
            memcpy(&accept, r.body, sizeof(RecordAccept))
            if (accept.value.size != r.size - sizeof(RecordAccept)
                    or value_check(&accept.value, r.body + sizeof(RecordAccept), accept.value.size) < 0
                    or not self.upto(accept.chosen, accept.chain, False)
                    or r.instance < self.next or r.instance - self.next >= RING):
                return False
            slot = &self.slots[r.instance % RING]
            if slot.value == NULL or slot.instance != r.instance or ballot_compare(&accept.ballot, &slot.ballot) >= 0:  # rule 14
                slot.instance = r.instance
                slot.ballot = accept.ballot
                slot.value = r.body + sizeof(RecordAccept) - sizeof(ValueHead)
        elif r.type == RECORD_LEARN:
            if r.size < sizeof(RecordLearn):
                return False
            memcpy(&learn, r.body, sizeof(RecordLearn))
            if (learn.value.size != r.size - sizeof(RecordLearn)
                    or value_check(&learn.value, r.body + sizeof(RecordLearn), learn.value.size) < 0
                    or not self.upto(learn.chosen, learn.chain, False) or r.instance != self.next):
                return False
            self.add(r.body + sizeof(RecordLearn) - sizeof(ValueHead))
        return True

    cdef bint upto(self, uint64_t chosen, uint32_t chain, bint base) noexcept nogil:
        """Instances below `chosen` are, and the chain checksum behind them is `chain`. False: that contradicts the values."""
        cdef Accepting *slot
        if self.begun and chosen < self.next:
            return base             # (the log may begin anywhere below)
        while self.begun and self.next < chosen:
            slot = &self.slots[self.next % RING]
            if slot.value == NULL or slot.instance != self.next:
                break
            self.add(slot.value)
        if self.begun and self.next == chosen:
            if self.chain == chain:
                return True
            if not base:
                return False
        # A log whose older segments are deleted begins amid the instances; and one may jump, to a checkpoint that was installed,
        # over values that were accepted and never chosen.
        self.begun = True
        self.kept.first = self.next = chosen
        self.kept.count = 0
        self.chain = chain
        return True

    cdef void add(self, const uint8_t *value) noexcept nogil:
        cdef ValueHead head
        cdef Value *copy
        if self.kept.count == self.capacity:
            self.capacity = 2 * self.capacity if self.capacity else 1024
            self.kept.known = <Known *>xrealloc(self.kept.known, self.capacity * sizeof(Known))
        self.kept.known[self.kept.count].value = value
        self.kept.known[self.kept.count].chain = self.chain
        self.kept.count += 1
        memcpy(&head, value, sizeof(ValueHead))
        copy = value_copy(&head, value + sizeof(ValueHead))
        self.chain = chain_next(self.chain, self.next, copy)
        value_unref(copy)
        self.next += 1


def salvage(folder, below):
    """What the log in ``folder``, which is damaged, knows to be chosen, below instance ``below``. The folder is open; nothing is
    changed."""
    segments = []
    for name in sorted(folder.names()):
        if name.endswith(".seg"):
            try:
                segments.append((int(name[:16], 16), folder.view(name)))
            except DamagedLog:
                break               # the disk cannot read it; what stands before it counts
    found = recover(segments)
    if found.where is not None and not found.legible:
        # It may not have come to the records for what it saw at a later segment.
        found = recover([(number, data) for number, data in segments if number < found.where[0]])
    made = Salvage()
    made.judge(found, below)
    return made


cdef bint salvage_waits(const Host *h) noexcept nogil:
    cdef const Salvaged *s = h.salvage
    # (While records wait for room, those that come behind them would only wait, too.)
    return (s != NULL and h.groups[0].replica != NULL and h.unlogged.count == 0
            and h.groups[0].replica.chosen >= s.first and h.groups[0].replica.chosen >= s.after)


cdef void salvage_feed(Host *h) noexcept nogil:
    cdef Salvaged *s = h.salvage
    cdef Group *g = &h.groups[0]
    cdef const Known *known
    cdef ValueHead head
    cdef Value *value
    cdef uint64_t given = 0
    cdef bint same = True
    cdef char text[256]
    if not salvage_waits(h):
        return
    while same and given < GIVEN and g.replica.chosen - s.first < s.count:
        known = &s.known[g.replica.chosen - s.first]
        same = known.chain == g.replica.chain
        if same:
            memcpy(&head, known.value, sizeof(ValueHead))
            value = value_copy(&head, known.value + sizeof(ValueHead))
            replica_known(g.replica, h.now, value)
            value_unref(value)
            take(h, &g.replica.out, g)
            given += sizeof(ValueHead) + head.size
            s.taken += 1
    if same and g.replica.chosen - s.first < s.count:
        return
    if same and s.taken:
        snprintf(text, sizeof(text), "of the log that was set aside %llu instances were kept, up to %llu",
                 <unsigned long long>s.taken, <unsigned long long>(s.first + s.count - 1))
    elif not same:
        snprintf(text, sizeof(text), "the log that was set aside is not of this cluster from instance %llu on: nothing more of it is kept",
                 <unsigned long long>g.replica.chosen)
    if s.taken or not same:
        delivery_log(&h.delivery, 30, text)
    h.salvage = NULL
    h.salvage_over = True
