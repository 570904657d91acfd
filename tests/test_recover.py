"""``paxos recover``: what is kept, and what is said of what may be lost, by logs that are written by hand."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from frames import CHANGE, row, table
from leftovers import ALPHA, NOOP, SEGMENT, Data, Leftovers, OldLog, chain_behind, digest, flip, value
from paxos import ConfigError, DamagedLog, DirectoryInUse, RecoveryRefused, StorageError
from paxos._distrust import mark
from paxos._folder import Folder, damage
from paxos._segments import LogStore
from paxos.checkpoint import CheckpointStore
from paxos.cli import main
from paxos.offline import Recovery, RecoveryReport, StoppedNode, make_cluster, verify

LATER = (2, 2)


def judge(*directories: Path, **options: Any) -> RecoveryReport:
    before = digest(*directories)
    with Recovery(directories, **options) as recovery:
        report = recovery.report
        assert recovery.report.kept == recovery.report.checkpoint + sum(1 for _ in recovery.values())
    assert digest(*directories) == before
    return report


def kept(*directories: Path, **options: Any) -> dict[int, Data]:
    with Recovery(directories, **options) as recovery:
        return dict(recovery.values())


def refused(words: str, *directories: Path, error: type[Exception] = RecoveryRefused, **options: Any) -> None:
    with pytest.raises(error, match=words), Recovery(directories, **options):
        pass


def segment(path: Path, number: int = 1) -> Path:
    return path / "log" / f"{number:016x}.seg"


def offset_of(path: Path, instance: int, kind: str = "accept") -> int:
    """Where a record lies in the first segment."""
    with StoppedNode(path) as node:
        return next(r.position for r in node.records() if r.type == kind and r.instance == instance) - SEGMENT


# -- what is kept


def test_all_that_the_survivor_knows_is_kept(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 3)
    old.choose(5)
    old.close()
    report = judge(*old.dirs(2))
    assert (report.certain, report.kept, report.known_chosen, report.checkpoint) == (5, 5, 5, 0)
    assert report.lost == [1, 3]
    assert report.may_be_lost_from == 5, "the two others are a majority by themselves"
    assert (report.unknown, report.dropped, report.certainly_lost) == ([], [], None)
    assert kept(*old.dirs(2)) == old.chosen


def test_the_longest_of_several_counts(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 5)
    old.choose(4)
    old.choose(9, 1, 2, 3)
    old.close()
    report = judge(*old.dirs(5, 3))
    assert (report.certain, report.kept) == (9, 9)
    assert kept(*old.dirs(5, 3)) == old.chosen


def test_above_what_is_known_the_highest_ballot_counts(tmp_path: Path) -> None:
    """Of five, 2 and 4 are left. 4 has an older value at 3, and 2 the one that 1, 2 and 3 chose."""
    old = Leftovers(tmp_path, 5)
    old.choose(3)
    old[4].accept(3, (1, 1), value("older"))
    old[4].accept(4, (1, 1), value("alone"))
    old[2].accept(3, LATER, value("newer"))
    old.close()
    for order in ((2, 4), (4, 2)):
        report = judge(*old.dirs(*order))
        assert (report.certain, report.kept) == (3, 5)
        told = [(found.instance, found.round, found.proposer, found.nodes) for found in report.unknown]
        assert told == [(3, 2, 2, [2]), (4, 1, 1, [4])]
        assert report.may_be_lost_from == 3, (
            "the three others may have chosen something else at 3, under a higher ballot"
        )
        assert kept(*old.dirs(*order)) == {**old.chosen, 3: value("newer"), 4: value("alone")}
    assert judge(*old.dirs(4)).unknown[0].round == 1


def test_of_one_log_the_highest_ballot_counts_and_not_the_last_record(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 3)
    old[2].accept(0, LATER, value("newer"))
    old[2].accept(0, (1, 1), value("older"))
    old.close()
    assert kept(*old.dirs(2)) == {0: value("newer")}


def test_the_first_hole_ends_it(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 3)
    old.choose(3)
    old[2].accept(3, (1, 1), NOOP)
    old[2].accept(5, (1, 1), value("built on what nobody has"))
    old.close()
    report = judge(*old.dirs(2))
    assert (report.certain, report.kept) == (3, 4)
    assert [(found.instance, found.kind) for found in report.unknown] == [(3, "no-op")]
    assert [(found.instance, found.nodes, found.values) for found in report.dropped] == [(5, [2], 1)]
    assert report.certainly_lost is None


@pytest.mark.parametrize("above", [-1, 0, 3])
def test_alpha_tells_of_instances_that_are_lost_for_certain(tmp_path: Path, above: int) -> None:
    """Nothing is proposed at or above chosen + alpha, so who holds that has a witness that what is below was chosen."""
    old = Leftovers(tmp_path, 3)
    old.choose(3)
    old[2].accept(3 + ALPHA + above, (1, 1), value("far above"))
    old.close()
    report = judge(*old.dirs(2))
    assert report.kept == 3
    assert report.certainly_lost == (None if above < 0 else (3, 3 + above + 1))
    assert [found.instance for found in report.dropped] == [3 + ALPHA + above]


def test_half_of_an_even_number_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Two of four cannot choose anything alone."""
    old = Leftovers(tmp_path, 4)
    old.choose(3)
    old[2].accept(3, (1, 1), value("perhaps"))
    old[1].accept(4, (1, 1), value("not acknowledged: nobody has 3 at the majority's ballot"))
    old.close()
    report = judge(*old.dirs(2, 3))
    assert (report.quorum, report.lost, report.may_be_lost_from) == (3, [1, 4], None)
    assert (report.certain, report.kept) == (3, 4)
    assert judge(*old.dirs(2)).may_be_lost_from == 3, "one of four"


def accepted_by_two(tmp_path: Path) -> Leftovers:
    """Of three, 1 is undamaged and 2's log is not: they are too few to start, but they can prove what was chosen."""
    old = Leftovers(tmp_path, 3)
    old.choose(3)
    for node in (1, 2):
        old[node].accept(3, (1, 1), value("chosen, nobody was told"))
        old[node].accept(4, (node, node), value(f"of {node}"))
    old[2].store.flush()
    old[2].accept(5, LATER, value("damaged"))
    old[2].store.flush()
    old.close()
    flip(segment(tmp_path / "2"), offset_of(tmp_path / "2", 5) + 40)
    return old


def test_what_a_majority_of_logs_accepted_under_one_ballot_is_certain(tmp_path: Path) -> None:
    old = accepted_by_two(tmp_path)
    report = judge(*old.dirs(1, 2))
    assert (report.certain, report.kept) == (4, 5), "3 was accepted by a majority under one ballot, 4 under two"
    assert [(found.instance, found.round) for found in report.unknown] == [(4, 2)]
    assert report.may_be_lost_from == 4, "what 2 accepted behind the damage nobody can tell"
    assert kept(*old.dirs(1, 2))[4] == value("of 2")
    assert [(source.node, source.state, source.counts) for source in report.sources] == [
        (1, "good", True),
        (2, "damaged", False),
    ]
    assert f"{1:016x}.seg, offset " in report.sources[1].why
    assert report.members[1].why == "its log is damaged"


def test_of_a_cluster_of_one_the_legible_part_is_all_that_there_is(tmp_path: Path) -> None:
    alone = Leftovers(tmp_path, 1)
    alone.choose(3)
    alone[1].store.flush()
    alone.choose(4)
    alone.close()
    flip(segment(alone.dirs(1)[0]), offset_of(alone.dirs(1)[0], 3) + 40)
    report = judge(*alone.dirs(1))
    assert (report.kept, report.may_be_lost_from) == (3, 3)


def quarantined(tmp_path: Path) -> tuple[Leftovers, Path]:
    """2's log was damaged, and has been set aside; a new one is begun."""
    old = accepted_by_two(tmp_path)
    folder = Folder(str(tmp_path / "2"))
    folder.open()
    place = Path(folder.quarantine("a bad sector"))
    folder.close()
    LogStore(tmp_path / "2", 2, segment_size=SEGMENT, direct=False).close()
    return old, place


def test_a_log_that_was_set_aside_serves_too(tmp_path: Path) -> None:
    old, place = quarantined(tmp_path)
    report = judge(*old.dirs(1, 2))
    assert [(source.quarantined, source.counts) for source in report.sources] == [
        (False, True),
        (False, False),
        (True, False),
    ]
    assert (report.certain, report.kept) == (4, 5)
    assert report.members[1].why == "its log was set aside, so it does not vote with it"
    assert kept(old.dirs(1)[0], place)[4] == value("of 2"), "named by itself"
    without = judge(*old.dirs(1, 2), quarantined=False)
    assert (without.certain, without.kept) == (3, 5)
    assert kept(*old.dirs(1, 2), quarantined=False)[4] == value("of 1")
    refused("is part of another directory", *old.dirs(1, 2), place, error=ConfigError)
    with Recovery([old.dirs(1)[0], place]) as recovery, pytest.raises(ConfigError, match="lie in one another"):
        make_cluster(recovery, tmp_path / "2" / "new", [1])


# -- checkpoints


def with_checkpoints(tmp_path: Path) -> Leftovers:
    """Node 2 has checkpoints of 4 and 7, and its log begins at 7 (the older segments are gone); 3's begins at 0 and ends at 6."""
    old = Leftovers(tmp_path, 5)
    old.choose(6)
    old.choose(10, 1, 2, 4)
    old[2].checkpoint(4, b"four")
    old[2].checkpoint(7, b"seven")
    old[2].base(7, (1, 1))
    old.close()
    return old


def test_the_newest_checkpoint_and_the_log_from_there_on(tmp_path: Path) -> None:
    old = with_checkpoints(tmp_path)
    report = judge(*old.dirs(2, 3))
    assert (report.checkpoint, report.checkpoint_from, report.certain) == (7, str(tmp_path / "2"), 10)
    assert sorted(kept(*old.dirs(2, 3))) == [7, 8, 9]


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    old = with_checkpoints(tmp_path)
    flip(next((tmp_path / "2" / "checkpoints").glob(f"{7:016x}-*.data")), 2)
    report = judge(*old.dirs(2))
    assert (report.checkpoint, report.certain) == (4, 10), "the log still holds what is below its BASE"
    assert f"checkpoint 7: {7:016x}-0.data" in report.damaged_checkpoints[0]
    flip(next((tmp_path / "2" / "checkpoints").glob(f"{4:016x}.manifest")), 20)
    report = judge(*old.dirs(2))
    assert (report.checkpoint, report.certain, len(report.damaged_checkpoints)) == (0, 10, 2)


def begins_above(tmp_path: Path) -> Leftovers:
    """Node 2 got well with a checkpoint of 7: its log knows nothing of what is below. It has lost it; 3 has one of 4."""
    old = Leftovers(tmp_path, 5)
    old.choose(4, 1, 3, 4)
    old.choose(10, 1, 4, 5)
    old[2].base(7, (1, 1))
    for instance in range(7, 10):
        old[2].accept(instance, (1, 1), old.chosen[instance])
    old[2].know(10)
    old[2].accept(10, (1, 1), value("more"))
    old[3].checkpoint(4)
    old[3].base(4, (1, 1))
    old.close()
    return old


def test_a_gap_is_lost_for_certain_and_must_be_accepted(tmp_path: Path) -> None:
    old = begins_above(tmp_path)
    report = judge(*old.dirs(2, 3))
    assert (report.known_chosen, report.checkpoint, report.kept) == (10, 4, 4)
    assert report.certainly_lost == (4, 10)
    assert (report.unknown, report.may_be_lost_from) == ([], 4), "nothing is put behind a gap"
    with Recovery(old.dirs(2, 3)) as recovery:
        with pytest.raises(
            RecoveryRefused, match="instances 4 to 9 were chosen, and their values are in none of these"
        ):
            make_cluster(recovery, tmp_path / "new", [1])
        assert not (tmp_path / "new").exists()
        made = make_cluster(recovery, tmp_path / "new", [1], accept_loss=True)
    assert made.chosen == 4


def test_nothing_is_no_new_cluster(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 3)
    old.close()
    assert judge(*old.dirs(2)).kept == 0
    with Recovery(old.dirs(2)) as recovery, pytest.raises(RecoveryRefused, match="nothing would be kept"):
        make_cluster(recovery, tmp_path / "new", [1])


def test_without_a_beginning_there_is_nothing(tmp_path: Path) -> None:
    old = begins_above(tmp_path)
    refused("no checkpoint here verifies, and every log that is left begins above instance 0", *old.dirs(2))


def test_what_a_node_was_told_that_it_has_wrong_is_not_used(tmp_path: Path) -> None:
    """It left a mark: the majority had another value at 7."""
    old = Leftovers(tmp_path, 3)
    old.choose(10)
    old[2].checkpoint(6)
    old[2].checkpoint(8)
    mark(old[2].store.files(), 7, "the majority has something else")
    old[2].accept(10, LATER, value("of another history"))
    old.close()
    report = judge(*old.dirs(2))
    assert (report.checkpoint, report.certain, report.kept) == (6, 7, 7)
    assert report.may_be_lost_from == 7
    assert report.sources[0].state == "distrusted"
    assert "the majority has something else" in report.sources[0].why


# -- what is refused


def test_a_majority_needs_no_recovery(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 3)
    old.choose(3)
    old.close()
    refused("a majority is here: of 3 voters the logs of nodes 1, 3 are undamaged.*start them", *old.dirs(3, 1))


def test_a_member_that_may_have_been_replaced_is_no_majority(tmp_path: Path) -> None:
    """3 accepted a change that puts 2 aside: the incarnation of 2 that is here may be none of the cluster's any more."""
    old = Leftovers(tmp_path, 4)
    old.choose(3)
    rows = [row(node, inc=(77, 78) if node == 2 else old[node].incarnation) for node in (1, 2, 3, 4)]
    old[3].accept(3, (1, 1), (CHANGE, 0, table(rows)))
    old.close()
    assert judge(*old.dirs(2, 1)).may_be_lost_from is None
    report = judge(*old.dirs(2, 3))
    assert report.members[1].why == "it may have been replaced or removed: a change that puts it aside was accepted"
    assert report.may_be_lost_from == 3, "the three others may go on without it"
    refused("a majority is here", *old.dirs(1, 3, 4))


def test_another_cluster_is_refused(tmp_path: Path) -> None:
    one, other = Leftovers(tmp_path / "a", 3), Leftovers(tmp_path / "b", 1)
    other[1].signature = (5, 6)
    one.close()
    other[1].checkpoint(0)
    other.close()
    refused("is of the cluster with signature .* is of another one, 0{15}50{15}6", one.dirs(2)[0], other.dirs(1)[0])
    foreign = OldLog(tmp_path / "c", 1, {})
    foreign.form([foreign], (7, 8))
    foreign.close()
    refused("name directories of one cluster only", one.dirs(2)[0], tmp_path / "c")


def test_two_copies_of_a_node_are_refused(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 3)
    old.choose(3)
    old.close()
    shutil.copytree(tmp_path / "2", tmp_path / "copy")
    refused("are copies of the log of one node, 2", tmp_path / "2", tmp_path / "copy")
    refused("is named twice", tmp_path / "2", tmp_path / "2" / ".." / "2", error=ConfigError)


def test_logs_that_contradict_one_another_are_refused_with_the_place(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 5)
    old.choose(4)
    for node in (2, 3):
        for instance in range(4, 8):
            old[node].learn(value(f"{instance} of {node if instance == 6 else 'all'}"))
    old.close()
    refused("contradict one another at instance 6: what one of them calls chosen", *old.dirs(2, 3))
    assert judge(*old.dirs(2)).certain == 8


def test_logs_that_differ_below_where_both_begin_are_refused(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 5)
    old.choose(4, 2)
    old[3].values = {instance: value("other") for instance in range(4)}
    old[3].base(3, (1, 1))
    old.close()
    refused("contradict one another somewhere below instance 3", *old.dirs(2, 3))


def test_a_checkpoint_that_contradicts_a_log_is_refused(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 5)
    old.choose(4)
    for instance in range(4, 8):
        old[2].learn(value(f"{instance}"))
    old.chosen.update({instance: value("other") for instance in range(4, 8)})
    old[3].checkpoint(6)
    old.close()
    refused("checkpoint 6 in .* contradict one another below instance 6", *old.dirs(2, 3))


def test_two_values_under_one_ballot_are_refused(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 5)
    old.choose(4)
    old[2].accept(4, (1, 1), value("a"))
    old[3].accept(4, (1, 1), value("b"))
    old.close()
    refused("in what they accepted under one ballot at instance 4", *old.dirs(2, 3))


def test_what_is_no_node_or_was_never_formed_is_refused(tmp_path: Path) -> None:
    refused("there is no log/ in it", tmp_path, error=ConfigError)
    assert list(tmp_path.iterdir()) == []
    LogStore(tmp_path / "1", 1, segment_size=SEGMENT, direct=False).close()
    refused("none of these directories was ever part of a cluster", tmp_path / "1")
    (tmp_path / "2" / "log").mkdir(parents=True)
    refused("none of these directories was ever part of a cluster", tmp_path / "2")
    refused("no directory was named", error=ConfigError)


def test_a_running_node_is_refused_and_one_that_is_looked_at_does_not_start(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 3)
    old[1].store.flush()
    refused("is in use by the process with pid", *old.dirs(1), error=DirectoryInUse)
    old.close()
    with Recovery(old.dirs(1)), pytest.raises(DirectoryInUse):
        LogStore(tmp_path / "1", 1)
    LogStore(tmp_path / "1", 1).close()


def test_a_disk_that_cannot_read_is_to_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Leftovers(tmp_path, 3)
    old.close()

    def unreadable(*arguments: object) -> None:
        raise DamagedLog(damage("segment", 4096, "the disk cannot read it"))

    monkeypatch.setattr(StoppedNode, "read", unreadable)
    refused("the disk cannot read it.*name the copy", *old.dirs(2))


def test_a_log_of_which_nothing_is_legible_is_named(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 3)
    old.choose(3)
    old.close()
    flip(segment(tmp_path / "3"), 100)
    report = judge(*old.dirs(2, 3))
    assert report.sources[1].state == "damaged"
    assert (report.certain, report.lost) == (3, [1, 3])
    refused("none of these directories was ever part|who the members", *old.dirs(3))


# -- what is made


@pytest.mark.parametrize("nodes", [[1, 2, 3], [7], [2, 9]])
def test_the_new_logs_are_of_a_new_cluster_and_hold_it_all(tmp_path: Path, nodes: list[int]) -> None:
    old = with_checkpoints(tmp_path)
    with Recovery(old.dirs(2, 3)) as recovery:
        made = make_cluster(recovery, tmp_path / "new", nodes)
        report = recovery.report
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(["recovered.json", *map(str, nodes)])
    assert made.chain == chain_behind(old.chosen, 10)
    assert made.directories == {node: str(tmp_path / "new" / str(node)) for node in nodes}
    told = json.loads((tmp_path / "new" / "recovered.json").read_text())
    assert (told["new_signature"], told["certain"]) == (made.signature, 10)
    incarnations = set()
    for node in nodes:
        assert verify(made.directories[node]).good
        with StoppedNode(made.directories[node]) as stopped:
            system = stopped.system()
            types = [record.type for record in stopped.records()]
            body = next(record.body for record in stopped.records() if record.type == "base")
            (manifest,) = CheckpointStore(stopped.folder.files()).list()
        assert manifest.signature.hex() == made.signature
        assert body.endswith(manifest.membership), "of the new members: else no other node could install it"
        assert len(manifest.membership) > 30 * len(nodes)
        assert types == ["identity", "promise", "base", *["learn"] * 3, "formation", "formed", "watermark"]
        assert (system.signature, system.formed, system.chosen, system.first_kept) == (made.signature, True, 10, 7)
        assert made.signature != report.signature
        assert [member["node"] for member in system.members] == nodes
        assert (system.incarnation, node) in [(member["incarnation"], member["node"]) for member in system.members]
        incarnations.add(system.incarnation)
        # No ballot of the old cluster is ever seen again, though lost nodes may have gone on.
        assert system.promised is not None
        assert system.promised[0] >= 1 + (1 << 32)
    assert len(incarnations) == len(nodes)
    assert not incarnations & {f"{high:016x}{low:016x}" for log in old.logs.values() for high, low in [log.incarnation]}
    refused("a majority is here", *[Path(path) for path in made.directories.values()])


@pytest.mark.parametrize(
    ("to", "nodes", "words"),
    [
        ("1", [1], "lie in one another"),
        ("2/new", [1], "lie in one another"),
        (".", [1], "lie in one another"),
        ("none/new", [1], "is no directory: make it"),
        ("full", [1], "is there already, and not empty"),
        ("full/file", [1], "is there already, and not empty"),
        ("new", [], "1 to 31 nodes"),
        ("new", [1, 1], "different ids, not 1, 1"),
        ("new", [0], "node id 0"),
        ("foreign", [1], "is in the way, and nothing that this command has left"),
    ],
)
def test_where_nothing_may_be_made(tmp_path: Path, to: str, nodes: list[int], words: str) -> None:
    old = Leftovers(tmp_path, 3)
    old.choose(3)
    old.close()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "foreign.unfinished").mkdir()
    (tmp_path / "foreign.unfinished" / "mine").touch()
    before = digest(tmp_path)
    with Recovery(old.dirs(1 if to == "1" else 2)) as recovery, pytest.raises(ConfigError, match=words):
        make_cluster(recovery, tmp_path / to, nodes)
    assert digest(tmp_path) == before
    assert not (tmp_path / "new.unfinished").exists()


class _Stop(Exception):
    """Ends it in the midst."""


def stopping(after: int, error: type[BaseException]) -> tuple[Any, list[int]]:
    """A progress that raises at its call number ``after``, and how often it was called."""
    calls = [0]

    def progress(what: str, done: int, of: int) -> None:
        calls[0] += 1
        if calls[0] == after:
            raise error

    return progress, calls


@pytest.mark.parametrize("error", [KeyboardInterrupt, _Stop, OSError])
def test_what_is_broken_off_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    old = with_checkpoints(tmp_path)
    before = digest(tmp_path)
    counted, calls = stopping(0, error)
    with Recovery(old.dirs(2, 3)) as recovery:
        make_cluster(recovery, tmp_path / "whole", [1, 2], progress=counted)
        shutil.rmtree(tmp_path / "whole")
        for after in range(1, calls[0] + 1):
            progress, _ = stopping(after, error)
            # What the system says is told as an error of the library.
            with pytest.raises(StorageError if error is OSError else error):
                make_cluster(recovery, tmp_path / "new", [1, 2], progress=progress)
            assert digest(tmp_path) == before
            assert not (tmp_path / "new").exists()
            assert not (tmp_path / "new.unfinished").exists()


def test_what_could_not_be_removed_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as there is something of it, it is known to be of this command."""
    old = Leftovers(tmp_path, 3)
    old.choose(3)
    old.close()
    calls = [0]

    def fails_at_last(path: Path) -> None:
        calls[0] += 1
        if calls[0] == 9:
            raise OSError(5, "Input/output error", str(path))
        remove(path)

    remove = shutil.rmtree
    progress, _ = stopping(1, KeyboardInterrupt)
    with Recovery(old.dirs(2)) as recovery:
        with monkeypatch.context() as patch:
            patch.setattr("paxos.offline.newcluster.shutil.rmtree", fails_at_last)
            with pytest.raises(KeyboardInterrupt):
                make_cluster(recovery, tmp_path / "new", range(1, 10), progress=progress)
        assert len(list((tmp_path / "new.unfinished").iterdir())) == 2
        make_cluster(recovery, tmp_path / "new", [1])
    assert not (tmp_path / "new.unfinished").exists()


def test_two_at_one_place(tmp_path: Path) -> None:
    old = Leftovers(tmp_path, 3)
    old.choose(3)
    old.close()
    words: list[str] = []

    def meanwhile(what: str, done: int, of: int) -> None:
        if not words:
            words.append("")
            with pytest.raises(DirectoryInUse) as caught, Recovery(old.dirs(2)) as second:
                make_cluster(second, tmp_path / "new", [1])
            words[0] = str(caught.value)

    with Recovery(old.dirs(2)) as recovery:
        make_cluster(recovery, tmp_path / "new", [1], progress=meanwhile)
    assert "another process makes a new cluster in" in words[0]
    assert verify(tmp_path / "new" / "1").good


# -- the command


def test_the_report_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = accepted_by_two(tmp_path)
    before = digest(tmp_path)
    one, two = map(str, old.dirs(1, 2))
    assert main(["recover", one, two]) == 0
    out = capsys.readouterr().out
    assert "node 2       LOST: its log is damaged" in out
    assert "kept          instances 0 to 3: certain" in out
    assert "4: batch of 1 values, " in out
    assert (
        "MAY BE LOST   any instance from 4 on, without an upper bound: nodes 2, 3 are a majority by themselves" in out
    )
    assert "Nothing was changed or made" in out
    assert main(["recover", one, two, "--json", "--new-cluster", "--to", str(tmp_path / "new"), "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kept"], told["lost"], told["made"], told["may_be_lost_from"]) == (5, [2, 3], None, 4)
    assert digest(tmp_path) == before


def test_the_new_cluster_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = begins_above(tmp_path)
    two, three = map(str, old.dirs(2, 3))
    made = ["recover", two, three, "--new-cluster", "--to", str(tmp_path / "new")]
    assert main([*made, "--yes"]) == 1
    out, err = capsys.readouterr()
    assert "LOST          instances 4 to 9: were chosen, and their values are in none of these directories" in out
    assert "--accept-loss" in err
    assert main([*made, "--accept-loss"]) == 2, "there is nobody to ask"
    assert "add --yes" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert main([*made, "--accept-loss", "--yes", "--nodes", "4,5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["made"]["directories"] == {"4": str(tmp_path / "new" / "4"), "5": str(tmp_path / "new" / "5")}
    assert main([*made[:-1], str(tmp_path / "other"), "--accept-loss", "--yes"]) == 0
    out = capsys.readouterr().out
    assert "A new cluster was made, signature " in out
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == ["1", "2", "3", "4", "5", "recovered.json"]


@pytest.mark.parametrize("answer", ["n", "y"])
def test_it_asks_first(
    tmp_path: Path, answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = Leftovers(tmp_path, 3)
    old.choose(3)
    old.close()
    terminal = io.StringIO(f"{answer}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin", terminal)
    status = main(["recover", str(tmp_path / "2"), "--new-cluster", "--to", str(tmp_path / "new")])
    assert status == (0 if answer == "y" else 130)
    assert (tmp_path / "new").exists() == (answer == "y")
    assert "gone for good" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--new-cluster"], "--new-cluster wants --to DIR"),
        (["--new-cluster", "--to", "new", "--json"], "wants --yes"),
        (["--nodes", "1,x"], "is not a list of node ids"),
        (["--nodes", "0"], "is not a list of node ids"),
        (["--to", "{base}/2/log"], "lie in one another"),
    ],
)
def test_wrong_options(tmp_path: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    old = Leftovers(tmp_path, 3)
    old.close()
    assert main(["recover", str(tmp_path / "2"), *[option.format(base=tmp_path) for option in options]]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


def test_what_cannot_be_looked_at_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recover"]) == 2
    assert main(["recover", str(tmp_path / "none")]) == 2
    assert main(["recover", str(tmp_path)]) == 2
    assert "there is no log/ in it" in capsys.readouterr().err
    assert main(["recover", "--help"]) == 0
    out = capsys.readouterr().out
    assert "Examples:" in out
    assert "  paxos recover /mnt/old2 --new-cluster --to /srv/new" in out
