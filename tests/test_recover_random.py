"""``paxos recover`` against the whole story: random histories of a cluster, of which it sees the logs of too few nodes.

A small Paxos of the test's own (ballots, quorums, lost messages, nodes that lag, alpha) is the author of the logs, and remembers
what was chosen and acknowledged. The judge holds what the tool keeps, and every list in its report, against that.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from leftovers import ALPHA, NOOP, Ballot, Data, Leftovers, flip, value
from paxos.offline import Recovery, StoppedNode, make_cluster

PARTS = 4
SEEDS = int(os.environ.get("PAXOS_RECOVER_SEEDS", "160"))


class Node:
    """What an acceptor knows; the log says the same."""

    def __init__(self) -> None:
        self.promised: Ballot = (0, 0)
        self.accepted: dict[int, tuple[Ballot, Data]] = {}
        self.chosen = 0


class Story:
    def __init__(self, path: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.count = self.dice.choice([1, 2, 3, 3, 4, 4, 5, 5])
        self.quorum = self.count // 2 + 1
        self.old = Leftovers(path, self.count)
        self.nodes = {node: Node() for node in range(1, self.count + 1)}
        self.votes: Counter[tuple[int, Ballot]] = Counter()
        #: what was chosen, told or not, and under which ballot first
        self.truth: dict[int, tuple[Ballot, Data]] = {}
        self.acknowledged = 0
        self.number = 0
        self.deaf: dict[int, range] = {}
        for _ in range(self.dice.choice([2, 4, 9])):
            self.tenure()
        for node in self.nodes:
            self.old[node].close()

    def tenure(self) -> None:
        """A master is elected, proposes, and is lost; it reaches some of the nodes, whose answers may be lost."""
        dice, nodes = self.dice, self.nodes
        reached = dice.sample(sorted(nodes), dice.choice([self.quorum, dice.randint(self.quorum, self.count)]))
        master = reached[0]
        ballot = max(nodes[node].promised for node in reached)[0] + 1, master
        for node in reached:
            nodes[node].promised = ballot
            self.old[node].promise(ballot)
        while nodes[master].chosen < max(nodes[node].chosen for node in reached):
            self.learn(master)
        me = nodes[master]
        reports = {
            instance: max(n.accepted[instance] for n in map(nodes.__getitem__, reached) if instance in n.accepted)
            for instance in {i for node in reached for i in nodes[node].accepted if i >= me.chosen}
        }
        top = max(reports, default=me.chosen - 1) + 1
        instance = me.chosen
        last = top + 1 + dice.choice([0, 3, 10, 150])
        # Who is cut off for a while misses what the others do meanwhile.
        self.deaf = {
            node: range(start := instance + dice.randrange(20), start + dice.choice([3, 70]))
            for node in reached[1:] if dice.random() < 0.4
        }  # fmt: skip
        while instance < min(last, me.chosen + ALPHA):
            self.number += 1
            data = reports[instance][1] if instance in reports else NOOP if instance <= top else value(f"{self.number}")
            self.propose(instance, ballot, data, reached)
            instance += 1
            if dice.random() < 0.5 and me.chosen in me.accepted:
                self.propose(me.chosen, ballot, me.accepted[me.chosen][1], reached)  # once more
                self.advance(master, ballot, instance)
            if dice.random() < 0.3:
                self.tell(ballot, reached[1:], me.chosen)
            if dice.random() < 0.1:
                # Writes are cut, and damaged, as a whole: the log is to have several.
                self.old[dice.choice(reached)].store.flush()
            if dice.random() < 0.05:
                return

    def propose(self, instance: int, ballot: Ballot, data: Data, reached: list[int]) -> None:
        loss = self.dice.choice([0, 0, 0.2, 0.6, 1])
        for node in reached:
            if instance in self.deaf.get(node, ()) or self.nodes[node].accepted.get(instance, ((0, 0),))[0] == ballot:
                continue
            if instance >= self.nodes[node].chosen and (node == ballot[1] or self.dice.random() >= loss):
                self.old[node].accept(instance, ballot, data)
                self.nodes[node].accepted[instance] = ballot, data
                self.votes[instance, ballot] += 1
                if self.votes[instance, ballot] == self.quorum:
                    assert self.truth.setdefault(instance, (ballot, data))[1] == data, "this Paxos is none"

    def advance(self, master: int, ballot: Ballot, end: int) -> None:
        """Answers come in."""
        me = self.nodes[master]
        while me.chosen < end and self.votes[me.chosen, ballot] >= self.quorum:
            self.know(master, me.chosen + 1)
        # What it knows it applies, and acknowledges.
        self.acknowledged = max(self.acknowledged, me.chosen)

    def tell(self, ballot: Ballot, followers: list[int], chosen: int) -> None:
        for node in followers:
            n = self.nodes[node]
            if chosen in self.deaf.get(node, ()) or n.chosen in self.deaf.get(node, ()):
                continue
            while n.chosen < chosen and n.accepted.get(n.chosen, ((0, 0), NOOP))[0] >= ballot:
                self.know(node, n.chosen + 1)
            if n.chosen < chosen and self.dice.random() < 0.3:
                self.learn(node)

    def know(self, node: int, chosen: int) -> None:
        self.old.chosen.update({i: self.truth[i][1] for i in range(self.nodes[node].chosen, chosen)})
        self.old[node].know(chosen, say=self.dice.random() < 0.3)
        self.nodes[node].chosen = chosen

    def learn(self, node: int) -> None:
        n = self.nodes[node]
        self.old.chosen[n.chosen] = self.truth[n.chosen][1]
        self.old[node].learn()
        n.chosen += 1


def damage(path: Path, dice: random.Random) -> None:
    with StoppedNode(path) as node:
        end = node.end
    assert end is not None
    number = dice.randint(1, end[0])
    flip(path / "log" / f"{number:016x}.seg", dice.randrange(4096, end[1] if number == end[0] else 1 << 16))


def legible(path: Path) -> tuple[bool, dict[int, list[tuple[int, int]]]]:
    """Whether a log is whole, and the ballots of what it accepted, as far as it can be read."""
    ballots: dict[int, list[tuple[int, int]]] = {}
    with StoppedNode(path) as node:
        for record in node.records():
            if record.type == "accept" and record.ballot is not None:
                ballots.setdefault(record.instance, []).append(record.ballot[:2])
        return node.read().outcome in ("good", "torn"), ballots


def check(story: Story, path: Path, seen: Counter[str]) -> None:
    dice, old = story.dice, story.old
    left = dice.sample(sorted(story.nodes), dice.randint(1, story.count))
    whole = left[: story.quorum - 1 if dice.random() < 0.6 else 0]
    for node in left:
        if node not in whole:
            damage(path / str(node), dice)
    logs = {node: legible(path / str(node)) for node in left}
    whole = [node for node in left if logs[node][0]]  # what was hit may have belonged to nothing
    if len(whole) >= story.quorum or not any(log[1] for log in logs.values()):
        seen["nothing to do"] += 1
        return
    with Recovery(old.dirs(*left)) as recovery:
        report = recovery.report
        kept = dict(recovery.values())
        if dice.random() < 0.1 and report.certainly_lost is None and report.kept:
            made = make_cluster(recovery, path / "new", [1, 2][: dice.randint(1, 2)])
            with StoppedNode(made.directories[1]) as node:
                system = node.system()
                assert (system.chosen, system.chain) == (report.kept, made.chain)
            seen["made"] += 1
    assert list(kept) == list(range(report.kept))
    assert report.lost == [node for node in story.nodes if node not in whole]

    # What is called certain was chosen. What is called lost was chosen, too, and is not kept.
    for instance in range(report.certain):
        assert story.truth[instance][1] == kept[instance]
    for instance in range(*(report.certainly_lost or (0, 0))):
        assert instance in story.truth
        assert instance not in kept
        seen["certainly lost"] += 1

    # Chosen, and accepted under the ballot of its choice, or a higher one, by somebody whose log is here: it is not dropped.
    for instance, (ballot, data) in story.truth.items():
        known = [max(log[1][instance]) for log in logs.values() if instance in log[1]]
        if known and max(known) >= ballot:
            if instance < report.kept:
                assert kept[instance] == data
            elif report.certainly_lost is None or instance >= report.certainly_lost[1]:
                assert instance in {found.instance for found in report.dropped}, "behind a hole, and listed"
                seen["chosen, and behind a hole"] += 1
        if instance >= report.certain and kept.get(instance, data) != data:
            seen["another value was chosen"] += 1

    # Whatever was acknowledged is there, or the report says that it may be lost.
    for instance in range(story.acknowledged):
        if kept.get(instance) != story.truth[instance][1]:
            assert report.may_be_lost_from is not None
            assert instance >= report.may_be_lost_from
            seen["acknowledged, and lost"] += 1
    if report.may_be_lost_from is None:
        seen["nothing can be lost"] += 1
    if any(found.instance in story.truth for found in report.unknown):
        seen["kept without knowing, and right so"] += 1
    if any(found.instance not in story.truth for found in report.unknown):
        seen["kept, and never chosen"] += 1
    if report.certain > report.known_chosen:
        seen["proven by a majority of logs"] += 1


@pytest.mark.parametrize("part", range(PARTS))
def test_what_is_said_is_true(tmp_path: Path, part: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(part, SEEDS, PARTS):
        path = tmp_path / str(seed)
        story = Story(path, seed)
        try:
            check(story, path, seen)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    # Else nothing was shown. (What is rare is not in every part.)
    for what in (
        "nothing can be lost",
        "acknowledged, and lost",
        "kept without knowing, and right so",
        "kept, and never chosen",
    ):
        assert seen[what], (what, seen)
