"""``paxos recover`` where not every member has a vote, or the voters were being changed, and what a new cluster makes of that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from frames import CHANGE, FOLLOWER, LEARNED, LEARNER, LEAVING, VALUE, frame, membership, row, table
from leftovers import ALPHA, Leftovers, OldLog, flip, value
from paxos._stepping import Core
from paxos.cli import main
from paxos.offline import StoppedNode
from test_recover import judge, refused, segment


def damage_end(log: OldLog) -> None:
    """Closes a log with damage at its end: all that stands before that serves."""
    log.store.flush()
    log.promise((1, 1))
    log.close()
    with StoppedNode(log.path) as node:
        flip(segment(log.path), list(node.writes(1))[-2].offset + 60)


def test_who_has_no_vote_helps_with_values_and_counts_in_no_majority(tmp_path: Path) -> None:
    """4 follows, 5 learns. Both are here, whole, and know more than 2, the only voter that is left."""
    old = Leftovers(tmp_path, 3)
    old.choose(3)
    old.late(4)
    old.late(5)
    rows = old.rows(_4=FOLLOWER, _5=LEARNER)
    old.change(table(rows), 1, 2, 3)
    old.choose(6, 1, 3)
    for node in (4, 5):
        old[node].welcome([old[1], old[2], old[3]], membership(rows, 1, as_of=4))
        for _ in range(6):
            old[node].learn()
    old.close()
    report = judge(*old.dirs(2, 4, 5))
    assert [(member.node, member.role, member.lost) for member in report.members] == [
        (1, "voter", True), (2, "voter", False), (3, "voter", True), (4, "follower", False), (5, "learner", False),
    ]  # fmt: skip
    assert (report.voters, report.quorum, report.lost) == ([1, 2, 3], 2, [1, 3])
    assert (report.certain, report.kept, report.may_be_lost_from) == (6, 6, 6)
    assert [source.counts for source in report.sources] == [True, False, False]
    assert judge(*old.dirs(4)).kept == 6
    refused("a majority is here: of 3 voters the logs of nodes 1, 2", *old.dirs(1, 2, 4))


def grown(tmp_path: Path, upto: int) -> Leftovers:
    """Of 1, 2 and 3 have become five voters, by a change at instance 3 which is in force from 67 on. All know that much."""
    old = Leftovers(tmp_path, 3)
    old.choose(3)
    old.late(4)
    old.late(5)
    told = membership(old.rows(_4=LEARNER, _5=LEARNER), 0)
    for node in (4, 5):
        old[node].welcome([old[1], old[2], old[3]], told)
        for _ in range(3):
            old[node].learn()
    old.change(table(old.rows()), *range(1, 6))
    old.choose(upto, *range(1, 6))
    old.close()
    return old


def test_while_a_change_is_not_in_force_both_sets_of_voters_have_a_say(tmp_path: Path) -> None:
    old = grown(tmp_path, 2 + ALPHA)
    refused("a majority is here: of 5 voters", *old.dirs(1, 2, 3))
    report = judge(*old.dirs(1, 2))
    assert [(one.nodes, one.quorum, one.here) for one in report.electorates] == [
        ([1, 2, 3, 4, 5], 3, [1, 2]),
        ([1, 2, 3], 2, [1, 2]),
    ]
    assert report.electorates[1].when == f"below instance {3 + ALPHA}"
    assert report.may_be_lost_from == 2 + ALPHA, "3, 4 and 5 are a majority as soon as it is in force"
    report = judge(*old.dirs(1, 4, 5))
    assert [one.lost_majority for one in report.electorates] == [False, True]
    assert report.may_be_lost_from == 2 + ALPHA, "2 and 3 are one as long as it is not"


def test_when_a_change_is_in_force_only_the_new_voters_have_a_say(tmp_path: Path) -> None:
    old = grown(tmp_path, 3 + ALPHA)
    refused("a majority is here: of 5 voters the logs of nodes 1, 4, 5", *old.dirs(1, 4, 5))
    report = judge(*old.dirs(1, 2))
    assert [one.nodes for one in report.electorates] == [[1, 2, 3, 4, 5]]


def test_what_is_certain_was_accepted_by_a_majority_of_both(tmp_path: Path) -> None:
    """1 and 2, whose logs are damaged later, are a majority of the old voters only."""
    for place, accepted in (("a", (1, 2)), ("b", (1, 2, 4))):
        old = Leftovers(tmp_path / place, 3)
        old.late(4)
        old.late(5)
        for node in (4, 5):
            old[node].welcome([old[1], old[2], old[3]], membership(old.rows(_4=LEARNER, _5=LEARNER)))
        old.change(table(old.rows()), *range(1, 6))
        for node in accepted:
            old[node].accept(1, (1, 1), value("more"))
        for node in accepted:
            damage_end(old.logs.pop(node))
        old.close()
        report = judge(*old.dirs(*accepted))
        assert (report.certain, report.kept) == ((1, 2) if len(accepted) == 2 else (2, 2))


def test_a_voter_that_comes_in_place_of_another_is_none_of_the_old_set(tmp_path: Path) -> None:
    """Its row names the new incarnation, and which the old one was is not known any more."""
    old = Leftovers(tmp_path, 4)
    old.choose(3)
    new = OldLog(tmp_path / "4again", 4, old.chosen)
    rows = [row(node, inc=(new if node == 4 else old[node]).incarnation) for node in (1, 2, 3, 4)]
    new.welcome(list(old.logs.values()), membership(old.rows()))
    for _ in range(3):
        new.learn()
    new.close()
    old.change(table(rows), 1, 2, 3, 4)
    old.close()
    report = judge(*old.dirs(1, 2, 4))
    assert [(one.nodes, one.here) for one in report.electorates] == [([1, 2, 3, 4], [1, 2])] * 2
    assert report.may_be_lost_from is None
    report = judge(*old.dirs(1, 2), tmp_path / "4again")
    assert [(one.nodes, one.here) for one in report.electorates] == [([1, 2, 3, 4], [1, 2, 4]), ([1, 2, 3, 4], [1, 2])]


def test_a_change_while_another_is_under_way_makes_no_voters(tmp_path: Path) -> None:
    """It is void up to the instance from which on the first one counts."""
    for instance, sets in ((3 + ALPHA, 1), (4 + ALPHA, 2)):
        old = Leftovers(tmp_path / str(instance), 3)
        old.choose(3)
        old.late(4)
        old[4].welcome([old[1], old[2], old[3]], membership(old.rows(_4=LEARNER)))
        old.change(table(old.rows()), 1, 2, 3)
        old.choose(3 + ALPHA, 1, 2, 3)
        old[2].accept(instance, (1, 1), (CHANGE, 0, table(old.rows(_3=LEAVING), 1)))
        old.close()
        assert len(judge(*old.dirs(2)).electorates) == sets


def test_a_voter_that_leaves_counts_until_it_is_gone(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 4)
    old.change(table(old.rows(_4=LEAVING)), 1, 2, 3, 4)
    old.close()
    refused("a majority is here: of 3 voters the logs of nodes 1, 2 are", *old.dirs(1, 2, 4))
    report = judge(*old.dirs(1, 2))
    assert [(one.nodes, one.quorum) for one in report.electorates] == [([1, 2, 3], 2), ([1, 2, 3, 4], 3)]
    assert [(member.node, member.role) for member in report.members][3] == (4, "leaving")
    assert report.lost == [3, 4]


def test_the_voters_of_a_change_that_may_have_been_chosen_have_a_say(tmp_path: Path) -> None:
    """2 accepted that 3 and 4 go and 5 comes: were it chosen, 1 and 5 would be a majority without any of those that are here."""
    old = Leftovers(tmp_path, 4)
    old.choose(3)
    old.late(5)
    data = table(old.rows(_3=LEAVING, _4=LEAVING))
    old[2].accept(3, (1, 1), (CHANGE, 0, data))
    old[5].form([old[node] for node in range(1, 6)])
    old.close()
    report = judge(*old.dirs(2, 3))
    assert [(one.when, one.nodes, one.here) for one in report.electorates] == [
        ("", [1, 2, 3, 4], [2, 3]),
        ("if the change accepted at instance 3 was chosen", [1, 2, 5], [2]),
    ]
    assert report.may_be_lost_from == 3
    assert report.members[2].why == "it may have been replaced or removed: a change that puts it aside was accepted"
    assert judge(*old.dirs(3, 4)).may_be_lost_from is None, "nobody here has accepted it, and 1 and 2 are no majority"
    assert [len(judge(*old.dirs(*nodes)).electorates) for nodes in ((2, 3), (3, 4))] == [2, 1]


def test_a_change_that_is_void_makes_no_voters(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 4)
    old.change(table(old.rows()), 1, 2, 3, 4)  # (of nothing: it counts the version up)
    old[2].accept(1, (1, 1), (CHANGE, 0, table(old.rows(_1=LEAVING, _3=LEAVING), 0)))
    old.close()
    assert len(judge(*old.dirs(2)).electorates) == 1


def test_what_was_chosen_before_a_membership_that_a_newcomer_was_told_is_lost_for_certain(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 3)
    old.choose(5)
    old.late(4)
    rows = old.rows(_4=FOLLOWER)
    old[4].welcome([old[1], old[2], old[3]], membership(rows, 1, as_of=9))
    old.close()
    report = judge(*old.dirs(2, 4))
    assert (report.known_chosen, report.certain, report.certainly_lost) == (9, 5, (5, 9))
    assert judge(*old.dirs(2)).certainly_lost is None
    report = judge(*old.dirs(4))
    assert (report.kept, report.certainly_lost) == (0, (0, 9))


def test_a_checkpoint_may_know_a_newer_membership_than_any_log(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 3)
    old.choose(5)
    rows = [row(node, inc=old[node].incarnation) for node in (1, 2, 3)] + [row(4, inc=(4, 4)), row(5, inc=(5, 5))]
    old[2].checkpoint(5, told=membership(rows, 3))
    old.close()
    assert judge(*old.dirs(2)).voters == [1, 2, 3, 4, 5]
    shutil.rmtree(tmp_path / "2" / "checkpoints")
    assert judge(*old.dirs(2)).voters == [1, 2, 3]


def test_a_new_cluster_is_made_of_voters_and_no_change_of_the_old_one_counts_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = Leftovers(tmp_path / "old", 3)
    old.choose(2)
    old.late(4)
    rows = old.rows(_4=FOLLOWER)
    old[4].welcome([old[1], old[2], old[3]], membership(rows, 0))
    old.change(table(rows), 1, 2, 3)
    old.change(table([row(1, inc=(1, 1)), *rows[1:]], 1), 1, 2, 3)
    old[2].accept(4, (1, 1), (CHANGE, 0, table(rows, 2)))
    old.close()
    new = tmp_path / "new"
    assert main(["recover", *map(str, old.dirs(2, 4)), "--new-cluster", "--to", str(new), "--yes"]) == 0
    out = capsys.readouterr().out
    assert "4 members, 3 of them voters, a majority is 2" in out
    assert "node 4       follower; here, and undamaged" in out
    assert "below instance 67: nodes 1, 2, 3 vote, a majority is 2" in out
    assert sorted(path.name for path in new.iterdir()) == ["1", "2", "3", "recovered.json"]
    assert json.loads((new / "recovered.json").read_text())["membership"] == 4
    with StoppedNode(new / "1") as stopped:
        system = stopped.system()
    assert (system.membership_version, system.chosen, system.in_force, system.as_of) == (4, 5, 4, 5)
    assert [(m["node"], m["role"], m["since"], m["address"]) for m in system.members] == [
        (node, "voter", 0, "") for node in (1, 2, 3)
    ]
    assert not system.outsider
    # A node that comes later is told the membership, and learns the old changes after that.
    with StoppedNode(new / "1") as stopped:
        body = next(record.body for record in stopped.records() if record.type == "base")
        values = [record.value for record in stopped.records() if record.type == "learn"]
    core = Core(1, body[40:], incarnation=(5, 5))
    core.start(0)
    data = b"".join(
        VALUE.pack(len(v.data), v.count, {"batch": 1, "change": 2}[v.kind], 0) + v.data for v in values if v
    )
    core.receive(1, frame(LEARNED, 2, chosen=5, first=0, count=5, data=data))
    assert (core.state()["chosen"], core.state()["version"]) == (5, 4)
    assert core.membership() == body[40:]
