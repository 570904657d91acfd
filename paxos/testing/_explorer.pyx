# cython: language_level=3, overflowcheck=False
"""Breadth-first search over all states of three real cores in a small scope. See explore.py for the model.

A node with all that it has ever sent has a number, and a state is three such numbers: with the way to it, 20 bytes. What an
event does to a node depends on the node alone, so the core runs once for each pair of the two, and the outcome is looked up from
then on: once in some hundred transitions, the others differ only in what the other nodes are.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from paxos._replica cimport ROLE_MASTER
from paxos._types cimport bit, popcount, xrealloc, xzalloc
from paxos.testing._book cimport Book, Message, NODES, book_free, book_init, set_with
from paxos.testing._electorate cimport Verdict, electorate_judge
from paxos.testing._local cimport (
    About, CHANGES, EVENT_CHANGE, EVENT_CRASH, EVENT_DURABLE, EVENT_EXPIRE, EVENT_LOSE, EVENT_STAND, EVENT_SUBMIT,
    FIRST_EVENT, Host, RIGHT, Scope, WRONG_ACCEPTED, WRONG_AHEAD, WRONG_CHAIN, WRONG_DIVERGED, WRONG_LEFT, WRONG_LOWERED,
    WRONG_NOT_CHOSEN, WRONG_ORDER, WRONG_OWNER, WRONG_PREPARE, WRONG_PROMISE, WRONG_READ, WRONG_REFUSED, WRONG_REJECT,
    WRONG_REPORT, WRONG_RESTART, WRONG_RESTORE, WRONG_REUSE, WRONG_TWO_ACCEPTS, WRONG_TWO_VALUES, WRONG_UNPROMISED,
    host_event, host_free, host_init, host_is_deaf, host_load, host_save,
)
from paxos.testing._tables cimport (
    Map, NOTHING, Strings, map_free, map_get, map_init, map_put, mixed, strings_data, strings_free, strings_init,
    strings_number, strings_size,
)

cdef struct State:
    uint32_t nodes[3]
    uint32_t parent
    uint32_t event                  # the last one; bits 24 and 25: of which node

cdef struct Node:                   # a saved node with all that it has ever sent
    uint32_t local
    uint32_t sent[3]                # by receiver: a set of messages

cdef struct Outcome:                # of an event of a saved node
    uint32_t local
    uint32_t sent                   # a set
    int wrong

cdef struct Search:
    Scope scope
    Book book
    Host hosts[3]
    Strings locals
    About *about                    # by number of the local
    uint32_t abouts
    Strings nodes
    Map steps                       # local, event -> outcome
    Outcome *outcomes
    uint32_t outcome_count
    uint32_t outcome_room
    Map lists                       # node, set of messages (or none: its own events) -> where its list begins
    uint32_t *list                  # count, then as many pairs: the next node (or NOTHING: wrong), event
    uint32_t list_used
    uint32_t list_room
    State *states
    uint32_t count
    uint32_t room
    uint64_t *places                # open addressing: hash << 32 | number + 1
    uint32_t mask
    uint32_t next                   # the first state that is not expanded
    uint32_t level_end              # states below it are at most `depth` steps from the start
    uint32_t depth
    # what was found
    int wrong
    uint32_t wrong_state
    uint32_t wrong_event            # as in State.event; NOTHING: the state itself is wrong
    uint64_t transitions
    uint64_t chosen                 # states in which some instance has a value
    uint64_t facts                  # mask of what was chosen in some state
    uint64_t filled                 # states in which one has a value that a node was handed
    uint64_t rivals                 # states with two masters
    uint64_t moved                  # states in which the voters of a change have chosen something
    Map results                     # sets of facts chosen
    Map elected                     # ballots that somebody was master under


# ---- one node ----

cdef uint32_t _save(Search *s, Host *h) noexcept nogil:
    cdef About about
    cdef uint32_t number = host_save(h, &s.locals, &about)
    if number >= s.abouts:
        s.abouts = number * 2 + 64
        s.about = <About *>xrealloc(s.about, s.abouts * sizeof(About))
    s.about[number] = about
    if about.role == ROLE_MASTER and map_get(&s.elected, about.ballot) == NOTHING:
        map_put(&s.elected, about.ballot, 1)
    return number


cdef Outcome _step(Search *s, uint32_t local, uint32_t event) noexcept nogil:
    cdef uint64_t key = <uint64_t>local << 20 | event
    cdef uint32_t found = map_get(&s.steps, key), i
    cdef Host *h
    cdef Outcome *o
    if found != NOTHING:
        return s.outcomes[found]
    if s.outcome_count == s.outcome_room:
        s.outcome_room = s.outcome_room * 2 if s.outcome_room else 1024
        s.outcomes = <Outcome *>xrealloc(s.outcomes, s.outcome_room * sizeof(Outcome))
    h = &s.hosts[(<const uint16_t *>strings_data(&s.locals, local))[0]]
    host_load(h, &s.locals, local)
    host_event(h, event)
    o = &s.outcomes[s.outcome_count]
    o.local = _save(s, h)
    o.sent = 0
    for i in range(h.sent_count):
        o.sent = set_with(&s.book, o.sent, h.sent[i])
    o.wrong = h.wrong
    map_put(&s.steps, key, s.outcome_count)
    s.outcome_count += 1
    return o[0]


cdef Node _node(const Search *s, uint32_t number) noexcept nogil:
    return (<const Node *>s.nodes.bytes)[number]       # strings of one size, a multiple of 8: they lie like an array


cdef uint32_t _after(Search *s, uint32_t number, uint32_t event, int *wrong) noexcept nogil:
    """The node after an event, with what it sent then."""
    cdef Node node = _node(s, number)
    cdef Outcome o = _step(s, node.local, event)
    cdef uint16_t sent[512]
    cdef uint32_t count = <uint32_t>strings_size(&s.book.sets, o.sent) // 2, i
    cdef Message *m
    wrong[0] = o.wrong
    node.local = o.local
    memcpy(sent, strings_data(&s.book.sets, o.sent), count * 2)
    for i in range(count):
        m = &s.book.about[sent[i]]
        if m.vote != NOTHING and _contradicts(s, node.sent[m.to], m.vote):
            wrong[0] = WRONG_TWO_ACCEPTS
        node.sent[m.to] = set_with(&s.book, node.sent[m.to], sent[i])
    return strings_number(&s.nodes, &node, sizeof(Node))


cdef bint _contradicts(Search *s, uint32_t set, uint32_t vote) noexcept nogil:
    """Whether an Accept of another value, with the same ballot and instance, is in a set of messages of one node."""
    cdef const uint16_t *sent = <const uint16_t *>strings_data(&s.book.sets, set)
    cdef uint32_t i, other
    for i in range(strings_size(&s.book.sets, set) // 2):
        other = s.book.about[sent[i]].vote
        if (other != NOTHING and other != vote and s.book.votes[other].ballot == s.book.votes[vote].ballot
                and s.book.votes[other].instance == s.book.votes[vote].instance):
            return True
    return False


cdef bint _add(Search *s, uint32_t node, uint32_t event) noexcept nogil:
    """One more entry of the list that is being made. False: the event changes nothing."""
    cdef int wrong = RIGHT
    cdef uint32_t after = _after(s, node, event, &wrong)
    if after == node and wrong == RIGHT:
        return False
    if s.list_used + 2 > s.list_room:
        s.list_room = s.list_room * 2
        s.list = <uint32_t *>xrealloc(s.list, s.list_room * sizeof(uint32_t))
    s.list[s.list_used] = after if wrong == RIGHT else NOTHING
    s.list[s.list_used + 1] = event
    s.list_used += 2
    return True


cdef uint32_t _begin_list(Search *s, uint64_t key) noexcept nogil:
    if s.list_used + 2 > s.list_room:
        s.list_room = s.list_room * 2 + 1024
        s.list = <uint32_t *>xrealloc(s.list, s.list_room * sizeof(uint32_t))
    s.list_used += 2
    map_put(&s.lists, key, s.list_used - 2)
    return s.list_used - 2


cdef uint32_t _messages(Search *s, uint32_t number, uint32_t set, bint crashes) noexcept nogil:
    """The list of what the messages of a set do to a node. Messages that never will do anything are taken out of the set."""
    cdef uint64_t key = <uint64_t>number << 32 | <uint64_t>crashes << 31 | set
    cdef uint32_t begin = map_get(&s.lists, key), i, count, kept = 0
    cdef uint16_t messages[512]
    cdef uint32_t local = _node(s, number).local
    if begin != NOTHING:
        return begin
    begin = _begin_list(s, key)
    count = <uint32_t>strings_size(&s.book.sets, set) // 2
    memcpy(messages, strings_data(&s.book.sets, set), count * 2)
    for i in range(count):
        if (_add(s, number, messages[i]) or s.scope.plain
                or not host_is_deaf(&s.book, &s.scope, &s.about[local], messages[i], crashes)):
            messages[kept] = messages[i]
            kept += 1
    s.list[begin] = (s.list_used - begin - 2) // 2
    s.list[begin + 1] = strings_number(&s.book.sets, messages, kept * 2)
    return begin


cdef uint32_t _own_events(Search *s, uint32_t number, bint crashes) noexcept nogil:
    """The list of what can happen to a node without a message."""
    cdef uint64_t key = <uint64_t>number << 32 | <uint64_t>crashes << 31 | NOTHING
    cdef uint32_t begin = map_get(&s.lists, key), i
    cdef About about
    if begin != NOTHING:
        return begin
    begin = _begin_list(s, key)
    about = s.about[_node(s, number).local]
    for i in range(1, about.written + 1):
        _add(s, number, EVENT_DURABLE + i)
    if about.may_stand:
        _add(s, number, EVENT_STAND)
    if about.may_submit:
        _add(s, number, EVENT_SUBMIT)
    if about.may_expire:
        _add(s, number, EVENT_EXPIRE)
    if about.may_change:
        _add(s, number, EVENT_CHANGE)
    if about.may_lose:
        _add(s, number, EVENT_LOSE)
    if crashes:
        for i in range(about.written + 1):
            _add(s, number, EVENT_CRASH + i)
    s.list[begin] = (s.list_used - begin - 2) // 2
    return begin


cdef uint32_t _drained(Search *s, uint32_t number, int *wrong) noexcept nogil:
    """The node once all that it wrote is durable."""
    cdef uint32_t written = s.about[_node(s, number).local].written
    while written and wrong[0] == RIGHT:
        number = _after(s, number, EVENT_DURABLE + written, wrong)
        written = s.about[_node(s, number).local].written
    return number


# ---- states ----

cdef void _judge(Search *s, uint32_t number) noexcept nogil:
    """What must hold in every state, of all nodes together."""
    cdef const About *nodes[3]
    cdef Verdict verdict
    cdef uint64_t quorum, facts = 0, chunks = 0, known = 0, refused = 0
    cdef const About *about
    cdef uint32_t i, masters = 0
    for i in range(NODES):
        about = nodes[i] = &s.about[_node(s, s.states[number].nodes[i]).local]
        known |= about.facts
        refused |= about.refused
        masters += about.role == ROLE_MASTER
    if masters > 1:
        s.rivals += 1
    if s.scope.moves:
        verdict = electorate_judge(&s.book, &s.scope, nodes)
        facts, s.wrong = verdict.facts, verdict.wrong
        s.moved += verdict.moved
    else:
        quorum = (nodes[0].votes[0] & nodes[1].votes[0] | nodes[0].votes[0] & nodes[2].votes[0]
                  | nodes[1].votes[0] & nodes[2].votes[0])
        for i in range(s.book.vote_count if quorum else 0):
            if quorum >> i & 1:
                facts |= <uint64_t>1 << s.book.votes[i].fact
    if facts == 0 and known == 0 and s.wrong == RIGHT:
        return
    for i in range(s.book.fact_count):
        if facts >> i & 1:
            chunks |= s.book.facts[i].chunks
            if facts & s.book.facts[i].against and s.wrong == RIGHT:
                s.wrong = WRONG_TWO_VALUES
    if known & ~facts and s.wrong == RIGHT:
        s.wrong = WRONG_NOT_CHOSEN
    if refused & chunks and s.wrong == RIGHT:
        s.wrong = WRONG_REFUSED
    if s.wrong != RIGHT:
        s.wrong_state, s.wrong_event = number, NOTHING
    s.chosen += 1
    s.facts |= facts
    s.filled += chunks != 0
    if map_get(&s.results, facts) == NOTHING:
        map_put(&s.results, facts, 1)


cdef void _grow(Search *s) noexcept nogil:
    cdef uint64_t *places = s.places
    cdef uint32_t i, at, size = s.mask + 1
    s.mask = s.mask * 2 + 1
    s.places = <uint64_t *>xzalloc((s.mask + <size_t>1) * sizeof(uint64_t))
    for i in range(size):
        if places[i]:
            at = <uint32_t>(places[i] >> 32) & s.mask
            while s.places[at]:
                at = (at + 1) & s.mask
            s.places[at] = places[i]
    free(places)


cdef void _reach(Search *s, uint32_t *nodes, uint32_t parent, uint32_t event) noexcept nogil:
    """A state that was reached, in the form in which it is kept (see explore.py, "What is left out")."""
    cdef uint32_t at, hash, i, j, begin, crashes = 0
    cdef bint more[3]
    cdef bint crashed, changed
    cdef State *state
    cdef Node node
    for i in range(NODES):
        crashes += s.about[_node(s, nodes[i]).local].crashes
    for i in range(NODES):
        more[i] = crashes < s.scope.all_crashes and s.about[_node(s, nodes[i]).local].may_crash
        if not more[i] and not s.scope.alone & bit(i) and not s.scope.plain:
            nodes[i] = _drained(s, nodes[i], &s.wrong)
    if s.wrong != RIGHT:
        s.wrong_state, s.wrong_event = parent, event
        return
    crashed = EVENT_CRASH <= event & 0xFFFFFF < EVENT_STAND
    for i in range(NODES):
        node = _node(s, nodes[i])
        changed = False
        for j in range(NODES):
            if j != i and (crashed or i == event >> 24 or j == event >> 24):    # the others are as they were
                begin = _messages(s, nodes[j], node.sent[j], more[j])       # (which may move s.list)
                changed |= node.sent[j] != s.list[begin + 1]
                node.sent[j] = s.list[begin + 1]
        if changed:
            nodes[i] = strings_number(&s.nodes, &node, sizeof(Node))
    hash = <uint32_t>(mixed(mixed(nodes[0], nodes[1]), nodes[2]) >> 20)
    at = hash & s.mask
    while s.places[at]:
        if s.places[at] >> 32 == hash:
            state = &s.states[<uint32_t>s.places[at] - 1]
            if state.nodes[0] == nodes[0] and state.nodes[1] == nodes[1] and state.nodes[2] == nodes[2]:
                return
        at = (at + 1) & s.mask
    if s.count == s.room:
        s.room = s.room * 2 if s.room else 4096
        s.states = <State *>xrealloc(s.states, s.room * sizeof(State))
    state = &s.states[s.count]
    state.nodes[0], state.nodes[1], state.nodes[2] = nodes[0], nodes[1], nodes[2]
    state.parent, state.event = parent, event
    s.count += 1
    s.places[at] = <uint64_t>hash << 32 | s.count
    _judge(s, s.count - 1)
    if s.count * <uint64_t>3 > s.mask * <uint64_t>2:
        _grow(s)


cdef void _follow(Search *s, uint32_t state, uint32_t who, uint32_t begin) noexcept nogil:
    """All states that come after `state` by the events of one list of one node."""
    cdef uint32_t nodes[3]
    cdef uint32_t i, event
    for i in range(s.list[begin]):
        if s.wrong != RIGHT:
            return
        event = s.list[begin + 3 + 2 * i]
        s.transitions += 1
        if s.list[begin + 2 + 2 * i] == NOTHING:
            s.wrong_state, s.wrong_event = state, event | who << 24
            _after(s, s.states[state].nodes[who], event, &s.wrong)
            return
        memcpy(nodes, s.states[state].nodes, sizeof(nodes))
        nodes[who] = s.list[begin + 2 + 2 * i]
        _reach(s, nodes, state, event | who << 24)


cdef void _expand(Search *s, uint32_t state) noexcept nogil:
    cdef uint32_t who, other, crashes = 0
    cdef bint more
    for who in range(NODES):
        crashes += s.about[_node(s, s.states[state].nodes[who]).local].crashes
    for who in range(NODES):
        more = crashes < s.scope.all_crashes and s.about[_node(s, s.states[state].nodes[who]).local].may_crash
        _follow(s, state, who, _own_events(s, s.states[state].nodes[who], more))
        for other in range(NODES):
            if other != who:
                _follow(s, state, who,
                        _messages(s, s.states[state].nodes[who], _node(s, s.states[state].nodes[other]).sent[who], more))


cdef bint _run(Search *s, uint32_t states) noexcept nogil:
    """Expands so many states at most. True: there is nothing left to do."""
    cdef uint32_t i
    for i in range(states):
        if s.next == s.count or s.wrong != RIGHT or s.book.full:
            return True
        if s.next == s.level_end:
            s.level_end = s.count
            s.depth += 1
        _expand(s, s.next)
        s.next += 1
    return s.next == s.count or s.wrong != RIGHT


# ---- what Python sees ----

WRONGS = {
    RIGHT: None,
    WRONG_ORDER: "instances are not told in order",
    WRONG_CHAIN: "the chain checksum is not that of the values told",
    WRONG_RESTART: "the disk has another value for chosen than the node was told",
    WRONG_RESTORE: "a log that the core wrote itself is not restored",
    WRONG_DIVERGED: "a node finds that its values are not those of another",
    WRONG_LOWERED: "a promise is lowered, or forgotten in a crash",
    WRONG_PREPARE: "a ballot is used before its record is durable",
    WRONG_PROMISE: "a promise leaves before it is durable",
    WRONG_REPORT: "an acceptance is reported before it is durable",
    WRONG_ACCEPTED: "an acceptance leaves before it is durable",
    WRONG_REJECT: "a promise is named to a proposer before it is durable",
    WRONG_OWNER: "a node speaks under the ballot of another",
    WRONG_READ: "values are given away that are not known to be chosen",
    WRONG_REUSE: "a node stands with a ballot that was used or promised before",
    WRONG_TWO_ACCEPTS: "two values are proposed for one instance under one ballot",
    WRONG_TWO_VALUES: "two values are chosen for one instance, or one chunk for two instances",
    WRONG_NOT_CHOSEN: "a node takes a value for chosen that no quorum has durably accepted under one ballot",
    WRONG_REFUSED: "a chunk is chosen that was said to be certainly not executed",
    WRONG_AHEAD: "a value is accepted where it is not settled yet who votes",
    WRONG_UNPROMISED: "a value is accepted under a ballot that no majority of those who vote there has durably promised",
    WRONG_LEFT: "the voters of a change have chosen something, and no majority of them knows all that was chosen before",
}


cdef class Explorer:
    """One search, in portions. See explore.py."""
    cdef Search *search

    def __cinit__(self, *, uint32_t window, uint32_t instances, uint32_t carried, elections, values, expiries, crashes,
                  uint32_t all_crashes, uint32_t voters, uint64_t alpha, changes, losses, bint tables, bint plain=False):
        cdef Search *s = <Search *>xzalloc(sizeof(Search))
        cdef uint32_t nodes[3]
        cdef uint32_t i, k
        cdef Node node
        self.search = s
        s.scope.window, s.scope.instances, s.scope.carried = window, instances, carried
        s.scope.all_crashes, s.scope.plain = all_crashes, plain
        s.scope.voters, s.scope.alpha, s.scope.tables = voters, alpha, tables
        s.scope.moves = any(changes) or voters != (1 << NODES) - 1
        s.scope.alone = voters if popcount(voters) == 1 else 0
        for i in range(NODES):
            s.scope.elections[i], s.scope.values[i] = elections[i], values[i]
            s.scope.expiries[i], s.scope.crashes[i] = expiries[i], crashes[i]
            s.scope.losses[i] = min(losses[i], 1)
            s.scope.changes[i] = min(len(changes[i]), CHANGES)
            for k in range(s.scope.changes[i]):
                s.scope.wanted[i][k] = changes[i][k]
                if popcount(s.scope.wanted[i][k] & 0xFF) == 1:
                    s.scope.alone |= s.scope.wanted[i][k] & 0xFF
        book_init(&s.book)
        strings_init(&s.locals)
        strings_init(&s.nodes)
        map_init(&s.steps)
        map_init(&s.lists)
        map_init(&s.results)
        map_init(&s.elected)
        s.mask = 1023
        s.places = <uint64_t *>xzalloc((s.mask + 1) * sizeof(uint64_t))
        for i in range(NODES):
            host_init(&s.hosts[i], &s.book, &s.scope, i)
            memset(&node, 0, sizeof(Node))
            node.local = _save(s, &s.hosts[i])
            nodes[i] = strings_number(&s.nodes, &node, sizeof(Node))
        _reach(s, nodes, NOTHING, 0)
        s.level_end = 1

    def __dealloc__(self):
        cdef Search *s = self.search
        cdef uint32_t i
        if s == NULL:
            return
        for i in range(NODES):
            host_free(&s.hosts[i])
        book_free(&s.book)
        strings_free(&s.locals)
        strings_free(&s.nodes)
        map_free(&s.steps)
        map_free(&s.lists)
        map_free(&s.results)
        map_free(&s.elected)
        free(s.about)
        free(s.outcomes)
        free(s.list)
        free(s.states)
        free(s.places)
        free(s)

    def run(self, uint32_t states):
        """Expands so many states. True: all are expanded, or something is wrong."""
        cdef bint done
        with nogil:
            done = _run(self.search, states)
        if self.search.book.full:
            raise OverflowError("the scope is too wide for the explorer's tables")
        return done

    def counts(self):
        cdef Search *s = self.search
        return {
            "states": s.count, "waiting": s.count - s.next, "transitions": s.transitions, "steps": s.outcome_count,
            "chosen": s.chosen, "filled": s.filled, "outcomes": s.results.count, "rivals": s.rivals, "moved": s.moved,
            "masters": s.elected.count, "choices": bin(s.facts).count("1"), "depth": s.depth, "frames": s.book.known,
        }

    def wrong(self):
        """What is wrong, or None."""
        return WRONGS[self.search.wrong]

    def _frame(self, uint32_t message):
        cdef const unsigned char *data = strings_data(&self.search.book.messages, message)
        return (<const char *>data)[8:strings_size(&self.search.book.messages, message)]

    def _frames(self, uint32_t before, uint32_t after):
        """[(receiver, frame)] of what a node has sent in one state and not in the other."""
        cdef Search *s = self.search
        cdef Node old = _node(s, before), new = _node(s, after)
        cdef uint32_t to, i
        cdef const uint16_t *sent
        result = []
        for to in range(NODES):
            sent = <const uint16_t *>strings_data(&s.book.sets, old.sent[to])
            had = {sent[i] for i in range(strings_size(&s.book.sets, old.sent[to]) // 2)}
            sent = <const uint16_t *>strings_data(&s.book.sets, new.sent[to])
            more = [sent[i] for i in range(strings_size(&s.book.sets, new.sent[to]) // 2) if sent[i] not in had]
            result += [(to, self._frame(message)) for message in more]
        return result

    def _known(self, uint32_t node):
        cdef Search *s = self.search
        cdef uint64_t facts = s.about[_node(s, node).local].facts
        cdef uint32_t i, number
        cdef const unsigned char *value
        result = {}
        for i in range(s.book.fact_count):
            if facts >> i & 1:
                number = s.book.facts[i].value
                value = strings_data(&s.book.values, number)
                result[s.book.facts[i].instance] = (<const char *>value)[:strings_size(&s.book.values, number)]
        return result

    def schedule(self):
        """The shortest way to what is wrong: (node, event, number, frame received, [(receiver, frame)] sent,
        {instance: value, with its head} newly known there to be chosen, whether it is master now) for each step."""
        cdef Search *s = self.search
        cdef uint32_t state = s.wrong_state, event, who, before, after
        cdef int wrong = 0
        steps = []
        if s.wrong == RIGHT:
            return []
        if s.wrong_event != NOTHING:
            before = s.states[state].nodes[s.wrong_event >> 24]
            after = _after(s, before, s.wrong_event & 0xFFFFFF, &wrong)
            if wrong == RIGHT and not s.scope.alone & bit(s.wrong_event >> 24):
                after = _drained(s, after, &wrong)
            steps.append((s.wrong_event, before, after))
        while state != 0:
            who = s.states[state].event >> 24
            steps.append((s.states[state].event, s.states[s.states[state].parent].nodes[who], s.states[state].nodes[who]))
            state = s.states[state].parent
        result = []
        for event, before, after in reversed(steps):
            who, event = event >> 24, event & 0xFFFFFF
            known = self._known(before)
            told = {at: value for at, value in self._known(after).items() if known.get(at) != value}
            name, first = "receive", event
            for name, first in (("lose", EVENT_LOSE), ("change", EVENT_CHANGE), ("expire", EVENT_EXPIRE),
                                ("submit", EVENT_SUBMIT), ("stand", EVENT_STAND), ("crash", EVENT_CRASH),
                                ("durable", EVENT_DURABLE), ("receive", 0)):
                if event >= first:
                    break
            frame = self._frame(event) if event < FIRST_EVENT else None
            result.append((who + 1, name, event - first, frame, [(to + 1, sent) for to, sent in self._frames(before, after)],
                           told, s.about[_node(s, after).local].role == ROLE_MASTER))
        return result
