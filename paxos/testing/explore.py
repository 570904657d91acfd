"""Exhaustive exploration of small scopes: every order of events in which a few things can happen to three real cores.

    python -m paxos.testing.explore --list
    python -m paxos.testing.explore rivals resume

**The model.** Three nodes, all of them acceptors unless members change, are driven through the C functions of ``_core.pxd``
as a host drives them. Time stands still. What may happen, in every order:

- A message that was ever sent is delivered. The network is a set that only grows, so loss (never), delay, reordering and
  duplication (any message at any time and any number of times) need no events of their own.
- The oldest k of a node's records become durable, for every k.
- A node crashes; any prefix of its records that were not durable is on the disk all the same; it starts from its disk.
- A node stands for election, as a master too. The others agree at once: who agrees to an election is advice, and safety
  must not depend on it.
- A node is handed a value; the deadlines of all its values pass.
- A node that is the master is asked for another set of voters. A follower may vote then, who voted may be removed, or be
  taken in as another incarnation. Alpha, the distance from where a change is chosen to where it is in force, is 1 or 2.
- A node loses its disk, and begins anew as another incarnation, which knows the members of the beginning.
- A node that knows a change chosen tells the others who the members are; they may hear of it long before they know as much.

How often, and on which nodes, is the scope's. News of chosen instances leave at once, and a node that knows an instance chosen
has the answer to a question for it on its way at once: whoever asks, whenever he asks, could get it.

**What is judged**, in every state (see ``WRONGS``):

- At most one value per instance, and no chunk at two instances, is durably accepted by a quorum under one ballot, counting all
  acceptances that were ever durable. As those only become more, this is about all of history.
- What a node takes for chosen is such a value, from the step on in which it first does; its checksum is that of the values.
- A promise, an acceptance, a report or a refusal leaves only when what a crash would leave on the disk has it in it; nothing is
  sent under a ballot whose record is not durable; a promise is never lowered, not by a restart either.
- Under one ballot one value is proposed for an instance; a node stands under ballots that it neither used nor promised.
- A chunk that was said to be certainly not executed is not chosen.

Where members change, who votes at an instance follows from what is chosen below it. That is worked out anew from the
acceptances on the disks (``_electorate``), and no table of the core's is asked. Then quorums are those of the voters there, each
as the incarnation that it is in that place, and there is more to judge:

- Nothing is accepted where it is not settled who votes: alpha or more above the first instance that has no value.
- What is accepted was proposed under a ballot that a majority of the voters there has durably promised, or accepted under.
- When the voters of a change have chosen something, a majority of them has all that was chosen before durably, and known as
  chosen: the disks of those who left may be destroyed.

**Why it is fast.** What an event does to a node depends on that node alone. So each pair of a node's state and an event goes
through the core once, a state is three numbers, and the other transitions are looked up. States are compared by all of their
bytes, not by hashes.

**What is left out**, and why nothing is lost by it:

- Prevotes and answers to heartbeats (elections need none here), questions of learners (they are answered before they are
  asked), Accepts sent again (the set still has the first; the watermark that they carry comes with a heartbeat as well), the
  heartbeat of a master before anything is chosen (the Accept that leaves with it says the same), and each kind of frame that
  a scope does not carry: to lose them is one of the things a network may do. The sender's watermark in frames where all
  that it does is to make the receiver ask.
- The host's times, the random generator, counters: nothing in a scope reads them. That a node asks for an Accept which came
  before it knew enough to take it: the set has it.
- Of a node that cannot crash any more, what it writes is durable at once. To be late with a record then only means to be late
  with messages, which the set has anyway; and what it counts itself it counts as if the others' answers had come later. (So
  not of one that is ever a quorum by itself: for it there are no others.) A node that takes something for chosen too early,
  because it counts what is not durable, is for the scopes with a crash to find.
- Of a node that will not stand nor be handed anything any more, and is neither master nor candidate: all that only those look at.
- A message that does nothing where it is going (it is delivered, to see that), and will not later: an answer under a ballot
  that its candidate or master has left behind, what is below a promise or a watermark that not even a crash takes back.

``plain`` switches the last three off; the tests compare both. Not in the model: timers that fire (but for the events above),
checkpoints, reads and leases, log files (records are whole or not there; the tests of the log are about that).
"""

from __future__ import annotations

import argparse
import re
import struct
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

from paxos.testing._explorer import Explorer

PREVOTE = 16
BATCH, CHANGE, MASTER = 1, 2, 3
KINDS = {
    9: "Members", 18: "Prepare", 19: "Report", 20: "Promise", 21: "Reject", 22: "Accept", 23: "Accepted", 24: "Heartbeat",
    27: "Learned", 28: "Forward", 29: "ForwardRefused",
}  # fmt: skip
VOTING = frozenset({"Prepare", "Report", "Promise", "Accept", "Accepted"})
NEWS = frozenset({"Heartbeat", "Learned"})
REJECTS = frozenset({"Reject"})
FORWARDS = frozenset({"Forward", "ForwardRefused"})
LEARNING = frozenset({"Learned"})
TABLES = frozenset({"Learned", "Members"})
PORTION = 100_000
"""States expanded between two looks at the clock."""

Numbers = tuple[int, int, int]


@dataclass(frozen=True)
class Scope:
    """How much may happen. Of tuples, each number is of one node."""

    name: str
    about: str
    elections: Numbers
    """How often a node stands, over all its lives."""
    values: Numbers = (0, 0, 0)
    """How many values it is handed, over all its lives."""
    crashes: Numbers = (0, 0, 0)
    all_crashes: int = 0
    """Crashes of all nodes together."""
    voters: str = "123"
    """At first. The others are followers."""
    changes: tuple[str, str, str] = ("", "", "")
    """The voters that a node is asked for while it is the master, over all its lives: "13" are 1 and 3, "12 123" first the
    ones and then the others, 3' is node 3 as the incarnation that it is when it has lost its disk."""
    losses: Numbers = (0, 0, 0)
    """How often a node loses its disk: once, or never."""
    alpha: int = 64
    """A change chosen at instance c is in force from c + alpha."""
    expiries: Numbers = (0, 0, 0)
    """How often the deadlines of all its values pass."""
    window: int = 2
    instances: int = 2
    """Accepts for this instance and higher ones are lost."""
    carried: frozenset[str] = VOTING
    plain: bool = False
    """Leaves nothing out that can be left out, and takes very much longer."""


CI = (
    Scope("rivals", "two masters, a value each", (1, 1, 0), (1, 1, 0)),
    Scope("return", "a master comes back after another one; window 1", (2, 1, 0), (1, 0, 0), window=1),
    Scope("three", "two masters, two values, three instances", (1, 1, 0), (2, 0, 0), instances=3),
    Scope("voter", "two masters, a value; the third node crashes", (1, 1, 0), (1, 0, 0), (0, 0, 1), 1),
    Scope("master", "two masters, a value; its proposer crashes", (1, 1, 0), (1, 0, 0), (1, 0, 0), 1),
    Scope("lives", "one node, master in two lives, a value in each", (2, 0, 0), (2, 0, 0), (1, 0, 0), 1),
    Scope("twice", "two masters, no-ops only; any two of the nodes crash", (1, 1, 0), (0, 0, 0), (1, 1, 1), 2),
    Scope(
        "news", "two masters, a value; all that tells of chosen instances", (1, 1, 0), (1, 0, 0), carried=VOTING | NEWS
    ),
    Scope(
        "late",
        "as news, without the value; a proposer crashes and learns what it missed",
        elections=(1, 1, 0),
        crashes=(1, 0, 0),
        all_crashes=1,
        carried=VOTING | NEWS,
    ),
    Scope("refused", "two masters, a value; refusals", (1, 1, 0), (1, 0, 0), carried=VOTING | REJECTS),
    Scope(
        "forward",
        "two masters; the second one's value, forwarded, refused or given up at its deadline",
        elections=(1, 1, 0),
        values=(0, 1, 0),
        expiries=(0, 1, 0),
        carried=VOTING | FORWARDS,
    ),
    Scope(
        "join",
        "two voters, who are told to go on with one or two others, and back; everything that tells of it",
        elections=(1, 1, 0),
        carried=VOTING | NEWS | TABLES,
        window=2,
        instances=5,
        voters="12",
        changes=("13 12", "123", ""),
        alpha=2,
    ),
    Scope(
        "newcomer",
        "two voters and one who comes in; each is a master; everything that tells of it",
        elections=(1, 1, 1),
        carried=VOTING | NEWS | TABLES,
        instances=4,
        voters="12",
        changes=("123", "", ""),
        alpha=2,
    ),
    Scope(
        "shrink",
        "two voters, two masters; one of them remains alone, or a third one takes the place of both",
        elections=(1, 1, 0),
        carried=VOTING | TABLES,
        instances=4,
        voters="12",
        changes=("3", "1", ""),
        alpha=2,
    ),
    Scope(
        "grow",
        "one voter, then three, then perhaps another one alone",
        elections=(1, 1, 0),
        carried=VOTING | TABLES,
        instances=4,
        voters="1",
        changes=("123", "3", ""),
        alpha=2,
    ),
    Scope(
        "dispute",
        "two voters, one master is for one change and one for the other; three elections; refusals",
        elections=(2, 1, 0),
        carried=VOTING | LEARNING | REJECTS,
        window=1,
        instances=3,
        voters="12",
        changes=("13", "123", ""),
        alpha=1,
    ),
    Scope(
        "busy",
        "two voters; the one who leaves and the one who comes, the next master, are handed a value each; forwarded",
        elections=(1, 0, 1),
        values=(0, 1, 1),
        carried=VOTING | LEARNING | FORWARDS,
        instances=5,
        voters="12",
        changes=("13", "", ""),
        alpha=2,
    ),
    Scope(
        "remove",
        "three voters, one of whom is removed: which one, two masters do not agree on",
        elections=(1, 1, 0),
        carried=VOTING | LEARNING,
        instances=4,
        changes=("12", "13", ""),
        alpha=2,
    ),
    Scope(
        "resume",
        "two voters, two masters, two changes; any node crashes",
        elections=(1, 1, 0),
        crashes=(1, 1, 1),
        all_crashes=1,
        carried=VOTING | LEARNING,
        instances=4,
        voters="12",
        changes=("13", "123", ""),
        alpha=2,
    ),
    Scope(
        "replace",
        "three voters, two masters; the third node loses its disk, and gets its place back",
        elections=(1, 1, 0),
        carried=VOTING | LEARNING,
        window=1,
        instances=3,
        changes=("123'", "", ""),
        losses=(0, 0, 1),
        alpha=1,
    ),
    Scope(
        "catch-up",
        "as replace, with one master; the change is in force later, and everything tells of it",
        elections=(1, 0, 0),
        carried=VOTING | NEWS | TABLES,
        instances=4,
        changes=("123'", "", ""),
        losses=(0, 0, 1),
        alpha=2,
    ),
)
LARGE = (
    Scope("again", "a master comes back after another one", (2, 1, 0), (1, 0, 0)),
    Scope("tower", "two masters, three values, three instances", (1, 1, 0), (2, 1, 0), instances=3),
    Scope("stubborn", "three elections, no-ops only; refusals", (2, 1, 0), carried=VOTING | REJECTS),
    Scope(
        "outlived",
        "three elections, no-ops only; the first master or the third node crashes",
        (2, 1, 0),
        (0, 0, 0),
        (1, 0, 1),
        1,
    ),
    Scope(
        "all-news",
        "two masters, no-ops only; all that tells of chosen instances; any node crashes",
        elections=(1, 1, 0),
        crashes=(1, 1, 1),
        all_crashes=1,
        carried=VOTING | NEWS,
    ),
    Scope(
        "notice",
        "two masters, a value, notices; the third node crashes",
        elections=(1, 1, 0),
        values=(1, 0, 0),
        crashes=(0, 0, 1),
        all_crashes=1,
        carried=VOTING | {"Heartbeat"},
    ),
    Scope(
        "everything",
        "two masters, a value that is forwarded; every kind of frame",
        elections=(1, 1, 0),
        values=(0, 1, 0),
        carried=frozenset(KINDS.values()),
    ),
    Scope(
        "hearsay",
        "three voters, one of whom is removed; two masters; everybody tells who the members are",
        elections=(1, 0, 1),
        carried=VOTING | TABLES,
        instances=4,
        changes=("13", "", ""),
        alpha=2,
    ),
    Scope(
        "leaver",
        "three voters, two masters; one is removed; one who stays crashes",
        elections=(1, 1, 0),
        crashes=(0, 1, 0),
        all_crashes=1,
        carried=VOTING | LEARNING,
        window=1,
        instances=3,
        changes=("12", "", ""),
        alpha=1,
    ),
    Scope(
        "successor",
        "as replace; the change is in force later",
        elections=(1, 1, 0),
        carried=VOTING | LEARNING,
        instances=4,
        changes=("123'", "", ""),
        losses=(0, 0, 1),
        alpha=2,
    ),
)
SCOPES = {scope.name: scope for scope in (*CI, *LARGE)}


@dataclass(frozen=True)
class Result:
    """What a search saw."""

    scope: Scope
    states: int
    transitions: int
    """Events that changed something."""
    steps: int
    """Steps that the core itself made; the other transitions are like one of them."""
    chosen: int
    """States in which some instance has a value."""
    filled: int
    """States in which some instance has a value that a node was handed, not only a no-op."""
    outcomes: int
    """Different assignments of values to instances, those on the way to others as well."""
    choices: int
    """Different values of one instance, summed over the instances."""
    masters: int
    """Ballots that a node was master under."""
    rivals: int
    """States in which two nodes take themselves for the master."""
    moved: int
    """States in which the voters of a change have chosen something."""
    frames: int
    """Different frames sent, counted for each receiver."""
    depth: int
    """Events on the longest of the shortest ways to a state."""
    complete: bool
    seconds: float
    violation: str | None
    schedule: tuple[str, ...]
    """The shortest way to the violation."""

    def __str__(self) -> str:
        state = "VIOLATION" if self.violation else "complete" if self.complete else "not complete"
        return (
            f"{self.scope.name}: {state}, {self.states:,} states, {self.chosen:,} of them with something chosen and "
            f"{self.filled:,} with more than no-ops, {self.choices} values chosen in {self.outcomes} outcomes, "
            f"{self.masters} ballots with a master, {self.rivals:,} states with two masters, {self.moved:,} behind a change, "
            f"{self.transitions:,} transitions, {self.steps:,} steps of the core, depth {self.depth}, {self.seconds:.1f} s"
        )


def _voters(word: str) -> int:
    """As a mask; bit 8 + i: node i as its second incarnation."""
    mask = 0
    for digit, mark in re.findall(r"([123])('?)", word):
        mask |= (0x101 if mark else 1) << int(digit) - 1
    return mask


def explore(scope: Scope, max_states: int = 0, *, progress: bool = False) -> Result:
    """Searches a scope to its end, to the first violation, or to about ``max_states`` states (0: no bound)."""
    begun = time.monotonic()
    explorer = Explorer(
        window=scope.window,
        instances=scope.instances,
        carried=sum(1 << (kind - PREVOTE) for kind, name in KINDS.items() if kind > PREVOTE and name in scope.carried),
        elections=scope.elections,
        values=scope.values,
        expiries=scope.expiries,
        crashes=scope.crashes,
        all_crashes=scope.all_crashes,
        voters=_voters(scope.voters),
        alpha=scope.alpha,
        changes=[[_voters(word) for word in words.split()] for words in scope.changes],
        losses=scope.losses,
        tables="Members" in scope.carried,
        plain=scope.plain,
    )
    done = False
    while not done and (max_states == 0 or explorer.counts()["states"] < max_states):
        done = explorer.run(PORTION)
        if progress:
            counts = explorer.counts()
            print(
                f"\r{scope.name}: {counts['states']:,} states, {counts['waiting']:,} of them waiting, depth {counts['depth']}",
                end="\x1b[K",
                file=sys.stderr,
                flush=True,
            )
    if progress:
        print("\r", end="\x1b[K", file=sys.stderr, flush=True)
    counts = explorer.counts()
    del counts["waiting"]
    violation = explorer.wrong()
    return Result(
        scope,
        **counts,
        complete=done and violation is None,
        seconds=time.monotonic() - begun,
        violation=violation,
        schedule=tuple(_step(*step) for step in explorer.schedule()),
    )


# ---- schedules in words ----


def _step(
    node: int,
    event: str,
    number: int,
    frame: bytes | None,
    sent: list[tuple[int, bytes]],
    told: dict[int, bytes],
    master: bool,
) -> str:
    text = {
        "receive": "receives ",
        "durable": f"has {number} more record(s) durable",
        "crash": f"crashes, {number} more record(s) having reached the disk, and starts again",
        "stand": "stands for election",
        "submit": "is handed a value",
        "expire": "sees the deadlines of its values pass",
        "change": "is asked to change the members",
        "lose": "loses its disk, and starts as another incarnation",
    }[event]
    if frame is not None:
        text += f"{_frame(frame)} from {_sender(frame)}"
    notes = []
    by_text: dict[str, list[str]] = {}
    for receiver, one in sent:
        by_text.setdefault(_frame(one), []).append(str(receiver))
    notes += [f"sends {what} to {' and '.join(to)}" for what, to in by_text.items()]
    notes += [f"takes {_value(value)} for chosen at {instance}" for instance, value in told.items()]
    if master:
        notes.append("is master")
    return f"node {node} {text}" + "".join(f"; {note}" for note in notes)


def _sender(frame: bytes) -> int:
    return int(struct.unpack_from("<I", frame, 20)[0])


def _ballot(data: bytes, at: int) -> str:
    round_, _, _, node = struct.unpack_from("<QQQI", data, at)
    return f"{round_}.{node}"


def _value(data: bytes) -> str:
    """With the head before it."""
    kind, data = data[8], data[16:]
    if kind == BATCH:
        return _chunks(data)
    if kind == CHANGE:
        return f"change {_table(data)}"
    return f"node {data[0]} as master" if kind == MASTER else "a no-op"


def _table(data: bytes) -> str:
    version, count = struct.unpack_from("<II", data)
    voters = ""
    at = 8
    for _ in range(count):
        node, role, incarnation, _, _, _, address = struct.unpack_from("<IIQQQII", data, at)
        at += 40 + address
        if node and role == 0:
            voters += f"{node}'" if incarnation > 100 else str(node)
    return f"{version + 1} to voters {voters}"


def _chunks(data: bytes) -> str:
    found = []
    at = 0
    while at < len(data):
        size, _, origin, boot, seq = struct.unpack_from("<IIIIQ", data, at)
        found.append(f"value {seq} of node {origin}" + (f" in life {boot}" if boot > 1 else ""))
        at += 32 + size
    return " + ".join(found)


def _frame(frame: bytes) -> str:
    name = KINDS[frame[13]]
    (chosen,) = struct.unpack_from("<Q", frame, 48)
    body = frame[64:]
    known = f", {chosen} chosen" if chosen and name in ("Promise", "Accept", "Heartbeat") else ""
    if name == "Members":
        version, _, _, _, _, in_force, as_of = struct.unpack_from("<IIQQQQQ", body)
        return f"Members({version} changes, in force from {in_force}, true from {as_of})"
    if name == "Learned":
        return f"Learned({struct.unpack_from('<Q', body)[0]}: {_value(body[16:])})"
    text = f"{name}({_ballot(body, 0)}"
    if name == "Prepare":
        text += f" from {struct.unpack_from('<Q', body, 64)[0]}"
    elif name == "Report":
        text += f", {struct.unpack_from('<Q', body, 64)[0]}: {_value(body[80:])} under {_ballot(body, 32)}"
    elif name == "Promise":
        text += f", {struct.unpack_from('<I', body, 44)[0]} reports"
    elif name == "Reject":
        text += f", promised {_ballot(body, 32)}"
    elif name == "Accept":
        text += f", {struct.unpack_from('<Q', body, 32)[0]}: {_value(body[48:])}"
    elif name == "Accepted":
        text += f", {struct.unpack_from('<Q', body, 32)[0]}"
    elif name == "Forward":
        text += f", {_chunks(body[40:])}"
    return text + known + ")"


# ---- by command ----


def _listing(scopes: Iterable[Scope]) -> str:
    lines = []
    for scope in scopes:
        bounds = f"elections {scope.elections}, values {scope.values}"
        if scope.all_crashes:
            bounds += f", crashes {scope.crashes}, at most {scope.all_crashes}"
        if any(scope.expiries):
            bounds += f", expiries {scope.expiries}"
        if any(scope.changes):
            bounds += f", voters {scope.voters}, changes {scope.changes}, alpha {scope.alpha}"
        if any(scope.losses):
            bounds += f", losses {scope.losses}"
        bounds += f", window {scope.window}, {scope.instances} instances"
        lines.append(f"  {scope.name:<12} {scope.about}\n{'':15}{bounds}; {', '.join(sorted(scope.carried))}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m paxos.testing.explore",
        description="Explores small scopes of the core exhaustively. Exit code 1: a violation, printed with its schedule.",
    )
    parser.add_argument("scopes", nargs="*", metavar="SCOPE", help="scopes to explore (default: those of the tests)")
    parser.add_argument("--list", action="store_true", help="say which scopes there are, and end")
    parser.add_argument("--max-states", type=int, default=0, metavar="N", help="give a scope up after about N states")
    options = parser.parse_args(arguments)
    if options.list:
        print("Scopes of the tests:\n" + _listing(CI) + "\nLarger ones:\n" + _listing(LARGE))
        return 0
    if unknown := [name for name in options.scopes if name not in SCOPES]:
        parser.error(f"no such scope: {', '.join(unknown)} (see --list)")
    failed = False
    for name in options.scopes or [scope.name for scope in CI]:
        result = explore(SCOPES[name], options.max_states, progress=sys.stderr.isatty())
        print(result, flush=True)
        if result.violation is not None:
            failed = True
            print(f"  {result.violation}, after:")
            for number, step in enumerate(result.schedule, 1):
                print(f"  {number:3}. {step}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
