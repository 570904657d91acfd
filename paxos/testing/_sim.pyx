# cython: language_level=3
"""The simulated world for Python; see _sim.pyi for what the methods say."""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from paxos._codec cimport crc32c
from paxos._delivery cimport delivery_command, delivery_free, delivery_init
from paxos._formation cimport STATE_FORMED, Hello
from paxos._handle cimport Handle
from paxos._membership cimport membership_place, votes
from paxos._replica cimport Replica
from paxos._state cimport Host
from paxos._types cimport FORMAT_VERSION, FRAME_MAGIC, Forward, Frame, bit, xzalloc
from paxos.testing._heap cimport heap_push
from paxos.testing._judge cimport judge_acknowledged, judge_lost
from paxos.testing._random cimport random_between, random_next
from paxos.testing._simdisk cimport SimFolder, simdisk_flip, simdisk_wipe
from paxos.testing._world cimport (
    EVENT_CALL, EVENT_DOWN, EVENT_FRAME, EVENT_RESUME, RUN_CALL, RUN_ENDED, RUN_FAILED, RUN_PYTHON, RUN_UNTIL, SimNode,
    World as CWorld, world_ended,
    world_free, world_host, world_init, world_local, world_run, world_stand, world_start, world_wake, world_watch,
)

from paxos.errors import NodeClosed

FRAME_NAMES = {
    1: "HELLO", 2: "REFUSE", 3: "FORM", 4: "FORM_OK", 5: "FORMED", 16: "PREVOTE", 17: "PREVOTE_REPLY", 18: "PREPARE",
    19: "PROMISE_VALUE", 20: "PROMISE", 21: "REJECT", 22: "ACCEPT", 23: "ACCEPTED", 24: "HEARTBEAT", 25: "HEARTBEAT_REPLY",
    26: "LEARN", 27: "LEARNED", 28: "FORWARD", 29: "FORWARD_REFUSED", 30: "KEPT", 31: "CARRY", 7: "JOIN", 8: "WELCOME", 9: "MEMBERS",
}


class Violation(AssertionError):
    """Something that must always hold did not."""


cdef class World:
    def __cinit__(self, nodes, seed, first=None):
        if not 1 <= nodes <= 31:
            raise ValueError(f"a simulated cluster has 1 to 31 nodes, not {nodes}")
        if first is None:
            first = nodes
        if not 1 <= first <= nodes:
            raise ValueError(f"a cluster of {nodes} nodes cannot be formed by {first} of them")
        self.w = <CWorld *>xzalloc(sizeof(CWorld))
        world_init(self.w, nodes, seed & 0xFFFFFFFFFFFFFFFF, first)
        self.handles = [None] * nodes
        self.calls = {}
        self.configured = list(range(1, first + 1))

    def __dealloc__(self):
        if self.w != NULL:
            world_free(self.w)
            free(self.w)

    def close(self):
        for handle in self.handles:
            if handle is not None:
                (<SimHandle>handle).leave()
        self.handles = [None] * len(self.handles)
        self.calls.clear()
        self.on_python = self.on_ended = None

    cdef SimNode *node(self, index) except NULL:
        if not 0 <= index < self.w.node_count:
            raise IndexError(f"there is no node with index {index} among {self.w.node_count}")
        return &self.w.nodes[index]

    # -- time

    @property
    def now(self):
        return self.w.now

    def local(self, index):
        return world_local(self.node(index))

    def call_at(self, int64_t at, call):
        self.next_call += 1
        self.calls[self.next_call] = call
        heap_push(self.w, at, EVENT_CALL, 0, 0, 0, NULL, self.next_call)

    def run(self, int64_t until, stop=None):
        cdef uint64_t which = 0
        cdef int end
        cdef CWorld *w = self.w
        while stop is None or not stop():
            with nogil:
                end = world_run(w, until, &which)
            if end == RUN_UNTIL:
                return False
            if end == RUN_FAILED:
                raise Violation(self.w.judge.why.decode())
            if end == RUN_PYTHON:
                self.on_python(which)
                if self.w.nodes[which].host != NULL and self.w.nodes[which].disk.dead:
                    self.ended(which)       # in one of the calls to its disk that Python made
            elif end == RUN_CALL:
                call = self.calls.pop(which, None)
                if call is not None:
                    call()
            else:
                self.ended(which)
        return True

    # -- nodes

    cdef ended(self, index):
        """The process has left: what it held is freed, and the disk decides what is left of what it wrote."""
        cdef SimNode *n = self.node(index)
        cdef bint power = n.disk.dead and n.disk.loses_power
        handle = self.handles[index]
        self.handles[index] = None
        (<SimHandle>handle).leave()
        world_ended(n, power)
        self.on_ended(index, power)

    def crash(self, index, *, bint power=False, int64_t within=-1):
        cdef SimNode *n = self.node(index)
        n.disk.loses_power = power
        if within >= 0:
            n.disk.dies_in = within
            return
        n.disk.dead = True
        if self.handles[index] is not None:
            self.ended(index)

    def votes(self, index):
        cdef SimNode *n = self.node(index)
        return n.host != NULL and n.host.groups[0].replica != NULL and votes(n.host.groups[0].replica)

    def incarnation(self, index):
        return self.node(index).inc_hi, self.node(index).inc_lo

    def up(self, index):
        return self.node(index).host != NULL

    def life(self, index):
        return self.node(index).life

    def pause(self, index, int64_t duration):
        cdef SimNode *n = self.node(index)
        if n.host != NULL and not n.paused:
            n.paused = True
            heap_push(self.w, self.w.now + duration, EVENT_RESUME, index, 0, n.life, NULL, 0)

    def pause_python(self, index, bint paused):
        cdef SimNode *n = self.node(index)
        n.python_paused = paused
        world_wake(n)

    def stand(self, index):
        if world_stand(self.node(index)) == RUN_ENDED:
            self.ended(index)

    def clock(self, index, *, ppm=None, int64_t jump=0):
        cdef SimNode *n = self.node(index)
        if jump < 0:
            raise ValueError("the clock of a node never goes back")
        n.clock_base = world_local(n) + jump
        n.clock_since = self.w.now
        if ppm is not None:
            n.clock_ppm = ppm
        n.timer_at = 0
        world_wake(n)

    def disk(self, index, *, low=None, high=None, hang=None, fails=None, full=None, room=0, direct=None,
             read_fails=None, directory_fails=None):
        cdef SimNode *n = self.node(index)
        if low is not None:
            n.disk_low = low
        if high is not None:
            n.disk_high = high
        if hang is not None:
            n.disk_hangs_until = self.w.now + hang
        if fails is not None:
            n.disk.fails = fails
        if directory_fails is not None:
            n.disk.directory_fails = directory_fails
        if full is not None:
            n.disk.full, n.disk.room = full, room
        if read_fails is not None:
            n.disk.read_fails = read_fails
        if direct is not None:
            n.disk.refuses_direct = not direct

    def python(self, index, *, int64_t low, int64_t high):
        cdef SimNode *n = self.node(index)
        n.python_low, n.python_high = low, high

    def flip(self, index, uint64_t within=0):
        cdef SimNode *n = self.node(index)
        cdef uint64_t last = n.last_write >> 32, end = n.last_write & 0xFFFFFFFF
        cdef uint64_t segment, offset
        if last == 0 or n.host == NULL or n.host.store.writer.segment != last:
            return None
        segment = within if within else <uint64_t>random_between(&n.disk.random, 1, <int64_t>last)
        offset = <uint64_t>random_between(&n.disk.random, 0, <int64_t>(end if segment == last else n.host.store.writer.segment_size) - 1)
        if simdisk_flip(&n.disk, segment, offset, <int>(random_next(&n.disk.random) % 8)) != 0:
            return None
        return segment, offset

    def spare(self, index):
        cdef SimHandle handle = self.handles[index]
        if handle is not None and not self.node(index).writing:
            handle.log.make_spare()

    # -- the network

    def picky(self, shares):
        cdef int i
        memset(self.w.picky, 0, sizeof(self.w.picky))
        for i, share in shares.items():
            self.w.picky[i & 31] = share

    def reset(self, source, target):
        cdef SimNode *n = self.node(source)
        self.node(target)
        heap_push(self.w, self.w.now, EVENT_DOWN, source, target, n.life, NULL, 0)

    def unjudged(self):
        self.w.judge.off = True

    def log_bytes(self, index):
        cdef SimNode *n = self.node(index)
        cdef size_t i
        cdef list found = []
        for i in range(n.disk.file_count):
            name = n.disk.files[i].name.decode()
            if n.disk.files[i].linked and name.endswith(".seg"):
                found.append((int(name[:16], 16), (<const char *>n.disk.files[i].data)[:n.disk.files[i].size]))
        return sorted(found)

    def sealed(self, index):
        self.node(index)
        return bool(self.w.judge.ledgers[<uint32_t>index].sealed)

    def sleepy(self, double share, int64_t longest):
        self.w.sleepy, self.w.sleepy_ns = share, longest

    def wipe(self, index):
        cdef SimNode *n = self.node(index)
        if n.host != NULL:
            raise RuntimeError("the disk of a running node cannot be taken away")
        simdisk_wipe(&n.disk)

    def network(self, *, delay=None, loss=None, duplicate=None, corrupt=None, late=None):
        if delay is not None:
            self.w.delay_low, self.w.delay_high = delay
        if loss is not None:
            self.w.loss = loss
        if duplicate is not None:
            self.w.duplicate = duplicate
        if corrupt is not None:
            self.w.corrupt = corrupt
        if late is not None:
            self.w.late, self.w.late_ns = late

    def forge(self, index, source, uint8_t type, bytes body, bint own, header):
        cdef SimNode *n = self.node(index)
        cdef Replica *r = NULL if n.host == NULL else n.host.groups[0].replica
        cdef size_t size = sizeof(Frame) + len(body)
        cdef uint8_t *data
        cdef Frame *frame
        cdef Forward *forward
        cdef uint32_t place
        self.node(source)
        if r == NULL or n.host.formation.state != STATE_FORMED or not n.accepted & bit(source):
            return False
        place = membership_place(&r.members, <uint32_t>source + 1)
        data = <uint8_t *>xzalloc(size)
        memcpy(data + sizeof(Frame), <const char *>body, len(body))
        frame = <Frame *>data
        frame.magic = FRAME_MAGIC
        frame.length = header.get("length", size)
        frame.version = header.get("version", FORMAT_VERSION)
        frame.type = type
        frame.flags = header.get("flags", 0)
        frame.group = header.get("group", 0)
        frame.sender = header.get("sender", r.members.members[place].node)
        frame.signature = header.get("signature", r.signature)
        frame.inc_hi = header.get("inc", r.members.members[place].inc_hi)
        frame.inc_lo = r.members.members[place].inc_lo
        if own:
            forward = <Forward *>(data + sizeof(Frame))
            forward.ballot = r.ballot
            forward.boot = r.origins[place].boot
        if "to" in header:
            (<Hello *>(data + sizeof(Frame))).to = r.options.node
        frame.crc = crc32c(0, data + 12, size - 12)
        heap_push(self.w, self.w.now + self.w.delay_low, EVENT_FRAME, index, source, 0, data, size)
        return True

    def folder(self, index):
        cdef SimNode *n = self.node(index)
        cdef SimFolder folder = SimFolder.__new__(SimFolder)
        if n.host != NULL:
            raise RuntimeError("the disk of a running node is its own")
        folder.sim = &n.disk
        folder.owner = self
        folder.__init__(f"node{index + 1}")
        return folder

    def cut(self, source, target):
        self.node(source)
        self.node(target)
        self.w.cut[source] |= bit(target)

    def heal(self):
        memset(self.w.cut, 0, sizeof(self.w.cut))

    def cuts(self):
        cdef uint32_t i
        return sum([(<object>self.w.cut[i]).bit_count() for i in range(self.w.node_count)])

    # -- what happened

    def acknowledged(self, uint64_t instance):
        judge_acknowledged(&self.w.judge, instance)

    @property
    def chosen(self):
        return self.w.judge.chosen_count

    @property
    def ballots(self):
        return self.w.judge.ballots

    @property
    def hash(self):
        return self.w.hash

    def counts(self):
        cdef uint32_t i
        kinds = ("frame", "timer", "round", "written", "python", "dial", "down", "resume", "call", "spare")
        return {
            "events": self.w.events,
            "events_by_kind": {kinds[i]: self.w.by_kind[i] for i in range(10)},
            "frames": {FRAME_NAMES.get(i, str(i)): self.w.frames[i] for i in range(32) if self.w.frames[i]},
            "lost": self.w.lost, "duplicated": self.w.duplicated, "corrupted": self.w.corrupted, "late": self.w.late_count,
            "silenced": self.w.silenced, "leased": self.w.leased,
            "refused": self.w.refused,
            "syncs": sum([self.w.nodes[i].disk.synced for i in range(self.w.node_count)]),
            "torn": sum([self.w.nodes[i].disk.torn for i in range(self.w.node_count)]),
            "dropped": sum([self.w.nodes[i].disk.dropped for i in range(self.w.node_count)]),
        }

    def record(self, bint on=True):
        self.w.recording = on

    def timeline(self):
        cdef size_t i
        return [(self.w.marks[i].since, self.w.marks[i].at, self.w.marks[i].kind, self.w.marks[i].node, self.w.marks[i].other,
                 self.w.marks[i].a, self.w.marks[i].b) for i in range(self.w.mark_count)]


@cython.no_gc_clear                 # the log on the world's disk is closed before the world goes
cdef class SimHandle(Handle):
    def __cinit__(self):
        self.host = <Host *>xzalloc(sizeof(Host))
        if delivery_init(&self.host.delivery, False) != 0:
            raise OSError("no mutex can be made")

    def __init__(self, World world not None, index, *, window=8, batch_bytes=1 << 16, batch_values=4096,
                 heartbeat_ns=50_000_000, election_min_ns=300_000_000, election_max_ns=600_000_000,
                 stuck_limit_ns=10_000_000_000, max_value=1 << 16, segment_size=1 << 18, max_pending=16384,
                 max_pending_bytes=128 << 20, log_budget=1 << 22, log_hold=0, quarantine=True, max_wait_ns=0):
        cdef SimNode *n = world.node(index)
        cdef SimFolder folder
        if n.host != NULL:
            raise RuntimeError(f"node {index + 1} runs already")
        self.world = world
        world_host(n, self.host)
        self.configure(index + 1, sorted({*world.configured, index + 1}), window, batch_bytes, batch_values, heartbeat_ns,
                       election_min_ns, election_max_ns, stuck_limit_ns, max_value, segment_size, max_pending,
                       max_pending_bytes, log_budget, log_hold)
        self.host.delivery.admission.max_wait = max_wait_ns
        folder = SimFolder.__new__(SimFolder)
        folder.sim = &n.disk
        folder.owner = world
        folder.__init__(f"node{index + 1}")
        try:
            self.recover(folder, segment_size, True, quarantine, random_next(&world.w.random), random_next(&world.w.random),
                         random_next(&world.w.random))
            if n.inc_hi != self.log.incarnation_hi or n.inc_lo != self.log.incarnation_lo:
                if n.inc_hi or n.inc_lo:
                    judge_lost(&world.w.judge, n.index, n.inc_hi, n.inc_lo)
                    world_watch(n)          # whoever had put something else there
                n.inc_hi, n.inc_lo = self.log.incarnation_hi, self.log.incarnation_lo
        except BaseException:
            self.leave()
            world_ended(n, n.disk.dead and n.disk.loses_power)
            raise
        self.sim = n

    def __dealloc__(self):
        if self.host != NULL:
            self.release()
            delivery_free(&self.host.delivery)
            free(self.host)
            self.host = NULL

    def start(self, int64_t applied):
        cdef int end
        if self.sim == NULL or self.sim.host != NULL:
            raise RuntimeError("a node is started once")
        chain = self.set_applied(applied)
        self.sim.host = self.host
        self.world.handles[self.sim.index] = self
        end = world_start(self.sim)
        if end == RUN_ENDED:
            self.world.ended(self.sim.index)
        return chain

    def leave(self):
        """The process is gone: what is in it is freed."""
        if self.sim != NULL:
            self.sim.host = NULL
        self.stopped = True
        self.sim = NULL
        self.release()

    def stop(self):
        if self.sim != NULL and not self.stopped:
            delivery_command(&self.host.delivery, 0, True)
            world_wake(self.sim)

    def submit(self, uint32_t machine, values not None, int64_t deadline_ns):
        token = Handle.submit(self, machine, values, deadline_ns)
        world_wake(self.sim)
        return token

    def drain(self, Py_ssize_t max_values):
        events = Handle.drain(self, max_values)
        if self.sim != NULL:
            world_wake(self.sim)
        return events

    def resign(self, bint may_lead):
        Handle.resign(self, may_lead)
        world_wake(self.sim)

    def transfer(self, uint32_t node):
        Handle.transfer(self, node)
        world_wake(self.sim)

    def set_lease(self, uint64_t lease_ns):
        Handle.set_lease(self, lease_ns)
        world_wake(self.sim)

    def change(self, bytes table not None):
        Handle.change(self, table)
        if self.sim != NULL:
            world_wake(self.sim)

    def base(self, uint64_t instance):
        Handle.base(self, instance)
        world_wake(self.sim)

    def making(self, bint on):
        if self.sim != NULL:
            Handle.making(self, on)
            world_wake(self.sim)

    def drop(self, uint64_t segment):
        Handle.drop(self, segment)
        if self.sim != NULL:
            world_wake(self.sim)

    def ask_chain(self, uint64_t instance):
        Handle.ask_chain(self, instance)
        if self.sim != NULL:
            world_wake(self.sim)

    def part(self):
        Handle.part(self)
        if self.sim != NULL:
            world_wake(self.sim)

    def install(self, uint64_t instance, uint32_t chain, bytes membership not None):
        Handle.install(self, instance, chain, membership)
        world_wake(self.sim)

    def send(self, uint32_t node, const uint8_t[::1] data not None):
        taken = Handle.send(self, node, data)
        world_wake(self.sim)
        return taken

    def poke(self):
        Handle.poke(self)
        if self.sim != NULL:            # what winds up behind a process that has ended may still call
            world_wake(self.sim)

    def status(self):
        if self.stopped:
            raise NodeClosed("the process of this node has ended")
        return Handle.status(self)
