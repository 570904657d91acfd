# cython: language_level=3
"""Formation of a cluster, and who may talk to whom (design rules 9 and 10).

    EMPTY --all configured members say they are empty; the one with the lowest id writes the formation record-->
    FORMING --every member holds that record durably--> FORMED

The record fixes signature, alpha, members and their incarnations. The node with the lowest id is the only one that makes it, and
makes it durable before anybody hears of it, so that after a crash it goes on with the same one. Nobody votes before FORMED. An
node whose log was set aside, or that has checkpoints, is not empty in this sense (it says LOST): else nodes that have all
lost their logs would form a new cluster in place of the old one, and nobody would have been asked. An empty node that meets a formed cluster is not the member it claims to be (a wiped disk has a new incarnation): it asks to JOIN, is
told the formation in a WELCOME, logs it, and is part of the cluster, but no member of it. As such it learns, and asks on until the
group has chosen it in the old incarnation's place (see _membership).
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from paxos._membership cimport (
    membership_first, membership_place, membership_read, membership_size, membership_write,
)
from paxos._codec cimport FRAME_OK, crc32c, frame_check, out_clear, out_effect, out_free, out_head
from paxos._types cimport (
    ALPHA, EFFECT_FORMED, EFFECT_LOG, EFFECT_SEND, Effect, FORMAT_VERSION, FRAME_FORM, FRAME_FORM_OK, FRAME_FORMED,
    FRAME_HELLO, FRAME_JOIN, FRAME_MAGIC, FRAME_MEMBERS, FRAME_WELCOME, Frame, Join, MAX_MEMBERS, Member, Membership, NOWHERE, RECORD_FORMATION, RECORD_FORMED, bit,
)

cdef enum:
    RETRY = 100000000               # ns between two tries of an unfinished formation


cdef int _index(const Formation *f, uint32_t node) noexcept nogil:
    cdef uint32_t i = membership_place(&f.members, node)
    return <int>i if i != NOWHERE else -1


cdef uint32_t _everybody(const Formation *f) noexcept nogil:
    return f.members.present


cdef bint _is_coordinator(const Formation *f) noexcept nogil:
    return f.self == 0


cdef void formation_init(Formation *f, uint32_t node, uint64_t inc_hi, uint64_t inc_lo, uint32_t boot,
                         const Membership *configured, uint64_t fresh_hi, uint64_t fresh_lo, bint lost) noexcept nogil:
    cdef uint32_t i
    memset(f, 0, sizeof(Formation))
    f.node = node
    f.inc_hi = inc_hi
    f.inc_lo = inc_lo
    f.boot = boot
    f.members = configured[0]
    membership_first(&f.members)
    f.fresh_hi = fresh_hi
    f.fresh_lo = fresh_lo
    f.config_crc = 0
    for i in range(f.members.count):
        f.members.members[i].inc_hi = 0
        f.members.members[i].inc_lo = 0
        f.config_crc = crc32c(f.config_crc, &f.members.members[i].node, 4)
    f.self = <uint32_t>_index(f, node)
    f.members.members[f.self].inc_hi = inc_hi
    f.members.members[f.self].inc_lo = inc_lo
    f.lost = lost
    f.empty = bit(f.self) if not lost else 0


cdef void formation_free(Formation *f) noexcept nogil:
    out_free(&f.out)


# ---- frames and records ----

cdef void _header(const Formation *f, Frame *frame, uint8_t type, size_t size) noexcept nogil:
    frame.magic = FRAME_MAGIC
    frame.length = <uint32_t>size
    frame.version = FORMAT_VERSION
    frame.type = type
    frame.sender = f.node
    frame.signature = f.sig_lo
    frame.inc_hi = f.inc_hi
    frame.inc_lo = f.inc_lo


cdef size_t _form_size(const Membership *m) noexcept nogil:
    if m.version == 0:
        return sizeof(Form) + m.count * sizeof(Member)
    return sizeof(Form) + membership_size(m)


cdef void _write_form(const Formation *f, const Membership *m, uint8_t *at) noexcept nogil:
    cdef Form form
    form.sig_hi = f.sig_hi
    form.sig_lo = f.sig_lo
    form.alpha = ALPHA
    form.count = m.count if m.version == 0 else 0
    memcpy(at, &form, sizeof(Form))
    if m.version == 0:
        memcpy(at + sizeof(Form), m.members, m.count * sizeof(Member))
    else:
        membership_write(m, at + sizeof(Form))


cdef size_t _write_members(const Formation *f, uint8_t type, uint8_t *at) noexcept nogil:
    """The members of today: of the first ones nobody may be left. Who the master is one learns by oneself."""
    cdef Membership m = f.members
    cdef size_t size
    cdef Form form
    m.mastership = 0
    m.mastered = 0
    m.lease = 0
    m.master = 0
    size = sizeof(Frame) + sizeof(Form) + membership_size(&m)
    memset(at, 0, sizeof(Frame))
    _header(f, <Frame *>at, type, size)
    form.sig_hi = f.sig_hi
    form.sig_lo = f.sig_lo
    form.alpha = ALPHA
    form.count = 0
    memcpy(at + sizeof(Frame), &form, sizeof(Form))
    membership_write(&m, at + sizeof(Frame) + sizeof(Form))
    (<Frame *>at).crc = crc32c(0, at + 12, size - 12)
    return size


cdef void _send_welcome(Formation *f, uint32_t peers) noexcept nogil:
    cdef Effect *e = out_effect(&f.out, EFFECT_SEND)
    e.peers = peers
    e.after = f.record
    _write_members(f, FRAME_WELCOME, <uint8_t *>out_head(&f.out, e, sizeof(Frame) + sizeof(Form) + membership_size(&f.members)))


cdef size_t formation_members(const Formation *f, uint8_t *out) noexcept nogil:
    if f.state != STATE_FORMED or f.durable < f.record or f.members.version == 0:
        return 0
    return _write_members(f, FRAME_MEMBERS, out)


cdef bint formation_newer(const Formation *f, const Frame *frame, Membership *m) noexcept nogil:
    cdef const uint8_t *body = <const uint8_t *>frame + sizeof(Frame)
    cdef Form form
    memcpy(&form, body, sizeof(Form))
    memset(m, 0, sizeof(Membership))
    return (f.state == STATE_FORMED and _index(f, frame.sender) < 0 and form.sig_hi == f.sig_hi and form.sig_lo == f.sig_lo
            and membership_read(m, body + sizeof(Form), frame.length - sizeof(Frame) - sizeof(Form)) == 0
            and m.version > f.members.version)


cdef void _send_form(Formation *f, uint8_t type, uint32_t peers) noexcept nogil:
    cdef Effect *e
    cdef uint8_t *at
    cdef size_t size
    if peers == 0:
        return
    e = out_effect(&f.out, EFFECT_SEND)
    size = sizeof(Frame) + _form_size(&f.first)
    at = <uint8_t *>out_head(&f.out, e, size)
    e.peers = peers
    e.after = f.record              # never said before it is durable
    _header(f, <Frame *>at, type, size)
    _write_form(f, &f.first, at + sizeof(Frame))
    (<Frame *>at).crc = crc32c(0, at + 12, size - 12)


cdef void _log_record(Formation *f) noexcept nogil:
    cdef Effect *e = out_effect(&f.out, EFFECT_LOG)
    f.logged += 1
    e.code = RECORD_FORMATION
    e.after = f.logged
    _write_form(f, &f.first, <uint8_t *>out_head(&f.out, e, _form_size(&f.first)))


cdef void _log_formation(Formation *f) noexcept nogil:
    f.first = f.members
    _log_record(f)
    f.record = f.logged
    f.state = STATE_FORMING


cdef void _log_formed(Formation *f) noexcept nogil:
    cdef Effect *e = out_effect(&f.out, EFFECT_LOG)
    f.logged += 1
    e.code = RECORD_FORMED
    e.after = f.logged
    out_head(&f.out, e, 0)


cdef void _formed(Formation *f) noexcept nogil:
    _log_formed(f)
    f.state = STATE_FORMED
    out_effect(&f.out, EFFECT_FORMED)


cdef void formation_hello(Formation *f, uint32_t index, uint8_t *out) noexcept nogil:
    cdef Frame *frame = <Frame *>out
    cdef Hello *hello = <Hello *>(out + sizeof(Frame))
    memset(out, 0, sizeof(Frame) + sizeof(Hello))
    _header(f, frame, FRAME_HELLO, sizeof(Frame) + sizeof(Hello))
    hello.to = f.members.members[index].node
    hello.boot = f.boot
    hello.config = f.config_crc
    if f.state == STATE_EMPTY and f.lost:
        hello.state = STATE_LOST
    # A formation that is not durable here yet is not spoken of.
    if f.state != STATE_EMPTY and f.durable >= f.record:
        hello.state = <uint32_t>f.state
        if f.state == STATE_FORMED:
            hello.config = f.members.version
        hello.sig_hi = f.sig_hi
        hello.sig_lo = f.sig_lo
    frame.crc = crc32c(0, out + 12, sizeof(Frame) + sizeof(Hello) - 12)


# ---- steps ----

cdef void _try_to_form(Formation *f) noexcept nogil:
    if f.state == STATE_EMPTY and _is_coordinator(f) and f.empty == _everybody(f) and f.met_formed == 0:
        f.sig_hi = f.fresh_hi
        f.sig_lo = f.fresh_lo
        f.formed_ok = 0
        _log_formation(f)


cdef void formation_start(Formation *f, int64_t now) noexcept nogil:
    f.next_send = now + RETRY
    if f.state == STATE_FORMED:
        out_effect(&f.out, EFFECT_FORMED)
        return
    _try_to_form(f)
    formation_durable(f, now, 0)    # a formation found in the log is durable (record 0): the coordinator goes on with it


cdef int _receive_hello(Formation *f, const Frame *frame, const Hello *hello) noexcept nogil:
    cdef int index = _index(f, frame.sender)
    cdef Member *member
    if hello.to != f.node:
        return REFUSE_NOT_FOR_ME
    if (index < 0 and f.state == STATE_FORMED and hello.state == STATE_FORMED and hello.sig_hi == f.sig_hi
            and hello.sig_lo == f.sig_lo and hello.config > f.members.version):
        return HELLO_NEWER
    if index < 0 or <uint32_t>index == f.self:
        return REFUSE_NOT_MEMBER
    member = &f.members.members[index]
    if f.state == STATE_EMPTY:
        if hello.state != STATE_EMPTY:
            if hello.state == STATE_FORMED:
                f.met_formed |= bit(<uint32_t>index)
            return REFUSE_NONE
        if hello.config != f.config_crc:
            return REFUSE_OTHER_CONFIG
        member.inc_hi = frame.inc_hi
        member.inc_lo = frame.inc_lo
        f.empty |= bit(<uint32_t>index)
        _try_to_form(f)
        return REFUSE_NONE
    # (Of another incarnation, and empty: it is going to ask for a place.)
    if hello.state != STATE_EMPTY and hello.state != STATE_LOST and (hello.sig_hi != f.sig_hi or hello.sig_lo != f.sig_lo):
        return REFUSE_OTHER_CLUSTER
    if f.state == STATE_FORMING and (frame.inc_hi != member.inc_hi or frame.inc_lo != member.inc_lo):
        return REFUSE_OTHER_INCARNATION
    if f.state == STATE_FORMING and hello.state == STATE_FORMED:
        _formed(f)
    return REFUSE_NONE


cdef bint _is_this_form(const Formation *f, const uint8_t *body) noexcept nogil:
    cdef Form form
    memcpy(&form, body, sizeof(Form))
    return (f.state != STATE_EMPTY and form.sig_hi == f.sig_hi and form.sig_lo == f.sig_lo
            and form.count == f.members.count)


cdef bint _welcomed(Formation *f, const uint8_t *body, size_t size) noexcept nogil:
    """Takes over signature and members of the cluster that has a place for this node, in which it is not yet."""
    cdef Form form
    cdef Membership members
    cdef uint32_t self
    memcpy(&form, body, sizeof(Form))
    memset(&members, 0, sizeof(Membership))
    if (form.alpha != ALPHA or (form.sig_hi == 0 and form.sig_lo == 0)
            or membership_read(&members, body + sizeof(Form), size - sizeof(Form)) != 0):
        return False
    self = membership_place(&members, f.node)
    if self == NOWHERE or (members.members[self].inc_hi == f.inc_hi and members.members[self].inc_lo == f.inc_lo):
        return False
    if members.version == 0:
        membership_first(&members)
    f.members = members
    f.self = self
    f.sig_hi = form.sig_hi
    f.sig_lo = form.sig_lo
    return True


cdef bint _adopt(Formation *f, const uint8_t *body) noexcept nogil:
    """Takes signature and members of a formation over, if it is one of just the configured nodes, and this incarnation is one of its
    members."""
    cdef Form form
    cdef Membership members
    cdef uint32_t i
    memcpy(&form, body, sizeof(Form))
    if form.count != f.members.count or form.alpha != ALPHA or (form.sig_hi == 0 and form.sig_lo == 0):
        return False
    members = f.members
    memcpy(members.members, body + sizeof(Form), form.count * sizeof(Member))
    for i in range(form.count):
        if members.members[i].node != f.members.members[i].node:
            return False
    if members.members[f.self].inc_hi != f.inc_hi or members.members[f.self].inc_lo != f.inc_lo:
        return False
    membership_first(&members)
    if members.voters != members.present:
        return False
    f.members = members
    f.sig_hi = form.sig_hi
    f.sig_lo = form.sig_lo
    return True


cdef int formation_receive(Formation *f, int64_t now, const Frame *frame) noexcept nogil:
    cdef const uint8_t *body = <const uint8_t *>frame + sizeof(Frame)
    cdef int index = _index(f, frame.sender)
    if frame.type == FRAME_HELLO:
        return _receive_hello(f, frame, <const Hello *>body)
    if index < 0 or <uint32_t>index == f.self:
        return REFUSE_NONE
    if frame.type == FRAME_FORM:
        if index == 0 and f.state == STATE_EMPTY and _adopt(f, body):
            f.formed_ok = 0
            _log_formation(f)
        if _is_this_form(f, body):
            f.formed_ok |= bit(<uint32_t>index)
            _send_form(f, FRAME_FORM_OK, _everybody(f) & ~bit(f.self))
            _try_to_finish(f)
    elif frame.type == FRAME_FORM_OK and _is_this_form(f, body):
        if f.state == STATE_FORMED:
            _send_form(f, FRAME_FORMED, bit(<uint32_t>index))
        else:
            f.formed_ok |= bit(<uint32_t>index)
            _try_to_finish(f)
    elif frame.type == FRAME_FORMED and f.state == STATE_FORMING and _is_this_form(f, body):
        _formed(f)
    elif frame.type == FRAME_JOIN and frame.signature == 0 and f.state == STATE_FORMED and f.durable >= f.record:
        # Who asks without having lost its incarnation has lost what it promised all the same, and gets no second start under it.
        if frame.inc_hi != f.members.members[index].inc_hi or frame.inc_lo != f.members.members[index].inc_lo:
            _send_welcome(f, bit(<uint32_t>index))
    elif (frame.type == FRAME_WELCOME and f.state == STATE_EMPTY and f.met_formed & bit(<uint32_t>index)
            and _welcomed(f, body, frame.length - sizeof(Frame))):
        _log_formation(f)
        _formed(f)
    return REFUSE_NONE


cdef void _try_to_finish(Formation *f) noexcept nogil:
    """Whoever has heard from every member that it holds the record durably knows that the cluster is formed: it does not
    take the coordinator, which may be gone for good by now."""
    if f.state == STATE_FORMING and f.formed_ok == _everybody(f):
        _formed(f)
        _send_form(f, FRAME_FORMED, _everybody(f) & ~bit(f.self))


cdef bint formation_admits(const Formation *f, const Frame *frame) noexcept nogil:
    cdef int index = _index(f, frame.sender)
    return f.state == STATE_FORMED and index >= 0 and <uint32_t>index != f.self and frame.signature == f.sig_lo


cdef void formation_rewrite(Formation *f) noexcept nogil:
    _log_record(f)
    _log_formed(f)


cdef bint formation_outside(const Formation *f) noexcept nogil:
    return f.state == STATE_FORMED and not f.was_member and f.self != NOWHERE and (
        f.members.members[f.self].inc_hi != f.inc_hi or f.members.members[f.self].inc_lo != f.inc_lo)


cdef void _ask_to_join(Formation *f) noexcept nogil:
    cdef uint32_t peers = f.met_formed if f.state == STATE_EMPTY else _everybody(f) & ~bit(f.self)
    cdef Effect *e = out_effect(&f.out, EFFECT_SEND)
    cdef uint8_t *at = <uint8_t *>out_head(&f.out, e, sizeof(Frame) + sizeof(Join))
    cdef Join *body = <Join *>(at + sizeof(Frame))
    e.peers = peers
    e.after = f.record
    _header(f, <Frame *>at, FRAME_JOIN, sizeof(Frame) + sizeof(Join))
    body.inc_hi = f.inc_hi
    body.inc_lo = f.inc_lo
    (<Frame *>at).crc = crc32c(0, at + 12, sizeof(Frame) + sizeof(Join) - 12)


cdef void formation_durable(Formation *f, int64_t now, uint64_t logged) noexcept nogil:
    if logged > f.durable:
        f.durable = logged
    if f.state == STATE_FORMING and f.durable >= f.record and not f.formed_ok & bit(f.self):
        f.formed_ok |= bit(f.self)
        f.next_send = now + RETRY
        if _is_coordinator(f):
            _send_form(f, FRAME_FORM, _everybody(f) & ~f.formed_ok)
        _try_to_finish(f)


cdef void formation_tick(Formation *f, int64_t now) noexcept nogil:
    if now < f.next_send or f.durable < f.record:
        return
    if formation_outside(f) or (f.state == STATE_EMPTY and f.met_formed):
        f.next_send = now + RETRY
        _ask_to_join(f)
    if f.state != STATE_FORMING:
        return
    f.next_send = now + RETRY
    if _is_coordinator(f):
        _send_form(f, FRAME_FORM, _everybody(f) & ~f.formed_ok)
    else:
        _send_form(f, FRAME_FORM_OK, _everybody(f) & ~bit(f.self))


cdef int formation_restore(Formation *f, uint8_t type, const uint8_t *body, uint32_t size) noexcept nogil:
    cdef Form form
    cdef Membership members
    cdef int index
    if type == RECORD_FORMED:
        if f.state == STATE_EMPTY or size != 0:
            return -1
        f.state = STATE_FORMED
        return 0
    if type != RECORD_FORMATION or size < sizeof(Form):
        return -1
    memcpy(&form, body, sizeof(Form))
    if form.alpha != ALPHA:
        return -1
    # After formation the log's membership wins over the configured list.
    memset(&members, 0, sizeof(Membership))
    if form.count == 0:
        if membership_read(&members, body + sizeof(Form), size - sizeof(Form)) != 0:
            return -1
    elif form.count > MAX_MEMBERS or size != sizeof(Form) + form.count * sizeof(Member):
        return -1
    else:
        members.count = form.count
        memcpy(members.members, body + sizeof(Form), form.count * sizeof(Member))
        membership_first(&members)
    f.members = members
    index = _index(f, f.node)
    if index < 0:
        return -1
    # Written again where what held it was deleted: a crash may have torn it from the FORMED behind it.
    if f.state == STATE_FORMED:
        return 0 if form.sig_hi == f.sig_hi and form.sig_lo == f.sig_lo else -1
    f.first = f.members
    f.self = <uint32_t>index
    f.sig_hi = form.sig_hi
    f.sig_lo = form.sig_lo
    f.state = STATE_FORMING
    return 0


# ---- what Python sees: for tests and the simulator ----

cdef class FormationCore:
    """The formation of one node, stepped by hand; steps return effects as tuples: ``("send", peers, after, frame)``,
    ``("log", number, type, body)``, ``("formed",)``. ``nodes``: the configured ids. Times in ns. Not thread-safe."""
    cdef Formation f

    def __cinit__(self, uint32_t node, nodes, incarnation, fresh, *, uint32_t boot=1, bint lost=False):
        cdef Membership configured
        cdef uint32_t i
        rows = sorted(nodes)
        if node not in rows or not 0 < len(rows) <= MAX_MEMBERS:
            raise ValueError(f"node {node} must be one of 1 to {MAX_MEMBERS} nodes, not of {nodes!r}")
        memset(&configured, 0, sizeof(Membership))
        configured.count = <uint32_t>len(rows)
        for i in range(configured.count):
            configured.members[i].node = rows[i]
        formation_init(&self.f, node, incarnation[0], incarnation[1], boot, &configured, fresh[0], fresh[1], lost)

    def __dealloc__(self):
        formation_free(&self.f)

    cdef list _take(self):
        cdef Effect *e
        cdef size_t i
        cdef list result = []
        for i in range(self.f.out.count):
            e = &self.f.out.effects[i]
            body = (<const char *>(self.f.out.arena + e.head))[:e.head_size] if e.head_size else b""
            if e.type == EFFECT_SEND:
                result.append(("send", e.peers, e.after, body))
            elif e.type == EFFECT_LOG:
                result.append(("log", e.after, e.code, body))
            else:
                result.append(("formed",))
        out_clear(&self.f.out)
        return result

    def restore(self, uint8_t type, bytes body not None):
        """Feeds a record found in the log. False: it cannot be one of this node's."""
        return formation_restore(&self.f, type, <const uint8_t *><const char *>body, <uint32_t>len(body)) == 0

    def start(self, int64_t now):
        formation_start(&self.f, now)
        return self._take()

    def hello(self, uint32_t index):
        """The HELLO frame for member ``index``."""
        cdef uint8_t out[96]
        if index >= self.f.members.count:
            raise ValueError(f"there is no member {index}")
        formation_hello(&self.f, index, out)
        return (<const char *>out)[:96]

    def receive(self, int64_t now, bytes frame not None):
        """(reason to refuse the connection or 0, effects). ValueError for bytes that are no valid frame."""
        cdef size_t need = 0
        cdef const uint8_t *data = <const uint8_t *><const char *>frame
        cdef int code = frame_check(data, len(frame), 0xFFFFFFFF, &need)
        if code != FRAME_OK or need != <size_t>len(frame):
            raise ValueError(f"not one whole valid frame: check says {code}")
        code = formation_receive(&self.f, now, <const Frame *>data)
        return code, self._take()

    def admits(self, bytes frame not None):
        """Whether a group-level frame comes from a node of this cluster."""
        if len(frame) < <Py_ssize_t>sizeof(Frame):
            raise ValueError("shorter than a frame's header")
        return bool(formation_admits(&self.f, <const Frame *><const char *>frame))

    def durable(self, int64_t now, uint64_t logged):
        formation_durable(&self.f, now, logged)
        return self._take()

    def tick(self, int64_t now):
        formation_tick(&self.f, now)
        return self._take()

    def state(self):
        """(state 0 empty, 1 forming, 2 formed; signature; members as (node, incarnation); members met that are formed)."""
        members = tuple((self.f.members.members[i].node, (self.f.members.members[i].inc_hi, self.f.members.members[i].inc_lo))
                        for i in range(self.f.members.count))
        return self.f.state, (self.f.sig_hi, self.f.sig_lo), members, self.f.met_formed
