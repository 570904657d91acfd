"""A cluster whose majority is lost for good: what its surviving directories hold together, and what nobody can know.

What can be said, and why. A value is chosen when a majority (quorum q of N voters) has durably accepted it under one
ballot; every later ballot then has the same value there. Let T be the voters whose undamaged log is here, and L the others,
so that T is less than q. Then

- what a log knows chosen is chosen. So is what q members' logs, damaged ones included, have accepted under one ballot.
- above that, an instance that any log here accepted under the ballot of its choice has, under the highest ballot found here,
  the chosen value. So that is what is kept, and no such instance is dropped below the first one of which nothing is found.
- what was chosen under a ballot that no log here has seen was chosen by members of L alone. If L is less than q there are
  none of these: nothing that was acknowledged is lost. (What stands behind an instance that nobody chose was never
  acknowledged, since results come in order.) If L is q or more, there may be such at every instance that is not known chosen
  here, without an upper bound: those members may have gone on for years.
- nothing is proposed at or above chosen + alpha (design rule 7). So who accepted instance j tells that all up to j - alpha
  are chosen, whether or not their values are here. (It bounds nothing from above: a proposer goes by what it knows chosen
  itself.)

The first instance of which nothing is found ends what is kept: what comes behind it was made on top of it.

Who votes. Members that learn, or follow, are no acceptors: their directories help with values, and with what they know chosen,
and count in no majority. The voters are those of the newest membership that a log or a checkpoint here knows. Where a change
was under way there is more than one set of them (``Electorate``), and nobody can tell here under which of them lost nodes have
gone on:

- the voters of the newest membership, and, if it is not known to be in force, those who vote until it is. A member whose
  incarnation it changes counts among the latter for nobody: the one that does is not named any more.
- the voters of every change that some log has accepted, that is not known to be chosen, and that is not void for its version.

All of them must agree before anything reassuring is said. A majority is here (and the command refuses) if it is one of each set:
else the old cluster would come to a halt. An instance that nobody knew chosen is certain if a majority of each has accepted it
under one ballot. Nothing can be lost if L is no majority of any. More sets are not needed: a change that none of the logs here
has accepted was chosen by members of L alone, which then are a majority, and then nothing is bounded anyway.

A membership also tells that all instances below ``as_of`` were chosen, also to a node that was only told of it.

A new cluster begins with voters only, with no addresses in its membership (each node has those that it is configured with), and
with a membership version above all that are found here: the changes of the old one, replayed, are void.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from paxos.checkpoint import CheckpointStore
from paxos.errors import ConfigError, DamagedCheckpoint, RecoveryRefused
from paxos.offline.log import Progress, silent
from paxos.offline.records import KINDS, ROLES, mastership_of, membership_fields
from paxos.offline.survivors import Ballot, Checkpoint, Data, Run, Survivor, survivors_of

__all__ = ["Electorate", "Found", "Member", "Recovery", "RecoveryReport", "Source"]

#: A new cluster's ballots begin so far above the highest one found: lost nodes may have gone on, but not with so many elections.
LEAP: Final = 1 << 32
ALPHA: Final = 64
RECORD: Final = 72  # bytes of a LEARN without its value, in the log
VOTER, LEAVING = ROLES[0], ROLES[3]

#: (node, incarnation)
Who = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Source:
    """A log that was looked at."""

    path: str
    quarantined: bool
    node: int
    incarnation: str
    state: str
    why: str
    counts: bool
    """Whether it is the whole log of a member: what it does not hold, that member has not accepted."""
    chosen: int
    accepted: int
    """Instances above that with an accepted value."""
    checkpoints: list[int]


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the old cluster."""

    node: int
    incarnation: str
    role: str
    """``voter``, ``learner``, ``follower``, or ``leaving``: it votes until the change that removes it is in force."""
    lost: bool
    why: str
    """Why it counts as lost; empty: it does not."""

    @property
    def votes(self) -> bool:
        """Whether it is one of those who choose; others only hold what is chosen."""
        return self.role in (VOTER, LEAVING)


@dataclass(frozen=True, slots=True)
class Electorate:
    """Those who may have been the voters when nobody here was listening any more."""

    when: str
    """Under what condition; empty: by the newest membership that is known."""
    nodes: list[int]
    quorum: int
    here: list[int]
    """Those whose undamaged log is here."""

    @property
    def lost(self) -> list[int]:
        """The others."""
        return [node for node in self.nodes if node not in self.here]

    @property
    def reached(self) -> bool:
        """Whether a majority is here."""
        return len(self.here) >= self.quorum

    @property
    def lost_majority(self) -> bool:
        """Whether the others are a majority by themselves."""
        return len(self.lost) >= self.quorum


@dataclass(frozen=True, slots=True)
class Found:
    """An instance above those known chosen, with the value of the highest ballot found."""

    instance: int
    round: int
    proposer: int
    nodes: list[int]
    """Whose logs have accepted it under that ballot."""
    kind: str
    values: int
    bytes: int


@dataclass(slots=True)
class RecoveryReport:
    """What a new cluster would hold, and what may be lost. Instances a to b: a is in, b is not."""

    signature: str
    members: list[Member]
    electorates: list[Electorate]
    """Who may have voted; first the voters of the newest membership."""
    quorum: int
    """Of the first."""
    sources: list[Source]
    damaged_checkpoints: list[str]
    known_chosen: int
    """All instances below are known chosen by one of the logs or checkpoints."""
    checkpoint: int
    """What is below is taken from a checkpoint; 0: there is none, and the logs begin at instance 0."""
    checkpoint_from: str | None
    certain: int
    """Kept for certain: all instances below, with the values that were chosen."""
    kept: int
    """Kept: all instances below. Those from ``certain`` on as listed in ``unknown``."""
    unknown: list[Found] = field(default_factory=list)
    """Kept because they were accepted. Nobody here can tell whether they were chosen: they may take effect though their
    proposers were told nothing, or ``OutcomeUnknown``."""
    dropped: list[Found] = field(default_factory=list)
    """Accepted, but behind an instance of which nothing was found, and so not kept."""
    certainly_lost: tuple[int, int] | None = None
    """Instances that were certainly chosen and are not kept, since their values are nowhere: a log knows them chosen, or
    holds an acceptance so far above them that its proposer did."""
    may_be_lost_from: int | None = None
    """From this instance on the lost members alone may have chosen and acknowledged what is not kept, and there is no upper
    bound; None: nothing that was acknowledged is lost."""
    round: int = 0
    """The new cluster's ballots are above this round."""
    mastership: int = 0
    """The new cluster's mastership versions are above this one."""
    membership: int = 0
    """The version of the new cluster's membership."""
    bytes: int = 0
    """Of the values to be written, and of the checkpoint: what one new directory takes, roughly."""

    @property
    def lost(self) -> list[int]:
        """The members that vote of which no undamaged log is here."""
        return [member.node for member in self.members if member.lost and member.votes]

    @property
    def voters(self) -> list[int]:
        """Of the newest membership."""
        return self.electorates[0].nodes


@dataclass(frozen=True, slots=True)
class _Known:
    """A membership, and how much was known chosen where it was found."""

    trusted: bool
    version: int
    chosen: int
    rows: list[dict[str, Any]]
    in_force: int
    before: list[int]
    as_of: int


@dataclass(frozen=True, slots=True)
class _Voters:
    """An electorate, and whose vote counts in it."""

    when: str
    nodes: list[int]
    may: set[Who]
    possible: bool = False
    """By a change that may have been chosen, or not."""

    @property
    def quorum(self) -> int:
        return len(self.nodes) // 2 + 1

    def majority(self, some: Iterable[Who]) -> bool:
        return len(self.may & set(some)) >= self.quorum

    def electorate(self, whole: Iterable[Who]) -> Electorate:
        here = {node for node, _ in self.may & set(whole)}
        return Electorate(self.when, self.nodes, self.quorum, sorted(here))


def _who(row: dict[str, Any]) -> Who:
    return row["node"], row["incarnation"]


def _voters(rows: list[dict[str, Any]]) -> tuple[list[int], set[Who]]:
    """Those in a table: their nodes, and their incarnations."""
    voters = [row for row in rows if row["role"] == VOTER]
    return sorted(row["node"] for row in voters), {_who(row) for row in voters}


class Recovery:
    """The surviving directories, opened, read and judged. Use it with ``with``: while it is open no node starts on any of them.

    ``quarantined``: whether the logs in their ``quarantine/`` are used, too. Nothing in the directories is changed, ever.

    :raises RecoveryRefused: no new cluster may be made of these. :raises ConfigError: a directory is none of a node, or
    named twice.
    :raises DirectoryInUse: a node runs on one.
    """

    def __init__(
        self, directories: Sequence[str | os.PathLike[str]], *, quarantined: bool = True, progress: Progress = silent
    ) -> None:
        if not directories:
            raise ConfigError("no directory was named: name those of the nodes that are left")
        self.directories = [Path(os.path.realpath(directory)) for directory in directories]
        self._quarantined = quarantined
        self._progress = progress
        self._stack = ExitStack()
        self.survivors: list[Survivor] = []
        #: where each kept instance from the checkpoint on comes from: (from, to, log, run)
        self._pieces: list[tuple[int, int, Survivor, Run]] = []
        #: ... and each one above those: the log, and the index of the record
        self._above: list[tuple[Survivor, int]] = []
        self.source: Checkpoint | None = None
        self.report: RecoveryReport

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.close)
            self._open()
            self.report = self._judge()
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets the directories go. May be called again."""
        self._stack.close()

    @property
    def places(self) -> set[Path]:
        """The data directories, also those of which a log in quarantine/ was named."""
        return {*self.directories, *(Path(os.path.realpath(survivor.log.path)) for survivor in self.survivors)}

    @property
    def segment_size(self) -> int:
        """Bytes of a segment that holds every value."""
        return max(survivor.segment_size for survivor in self.survivors if survivor.id)

    def values(self) -> Iterator[tuple[int, Data]]:
        """(instance, value) of all that is kept above the checkpoint, in order."""
        instance = self.report.checkpoint
        for first, end, survivor, run in self._pieces:
            assert first == instance
            for instance in range(first, end):
                yield instance, survivor.data(run.records[instance - run.first])
            instance = end
        for survivor, index in self._above:
            yield instance, survivor.data(index)
            instance += 1

    # -- opening

    def _open(self) -> None:
        seen: set[str] = set()
        for directory in self.directories:
            before = len(self.survivors)
            for survivor in survivors_of(directory, self._stack, self._quarantined):
                if (real := os.path.realpath(survivor.path)) not in seen:
                    seen.add(real)
                    self.survivors.append(survivor)
            if len(self.survivors) == before:
                raise ConfigError(f"{directory} is named twice, or is part of another directory that is named")
        for survivor in self.survivors:
            survivor.read(self._progress)

    # -- do they belong together?

    def _signature(self) -> str:
        """Of the cluster that all of this is of."""
        of: dict[str, str] = {}
        for survivor in self.survivors:
            if survivor.system.signature is not None:
                of.setdefault(survivor.system.signature, survivor.path)
            for checkpoint in survivor.checkpoints:
                manifest = checkpoint.manifest
                of.setdefault(manifest.signature.hex(), f"{checkpoint.path}, checkpoint {manifest.instance}")
        if len(of) > 1:
            (one, first), (other, second), *_ = of.items()
            raise RecoveryRefused(
                f"{first} is of the cluster with signature {one}, {second} is of another one, {other}: name directories of one "
                "cluster only"
            )
        if not of:
            raise RecoveryRefused(
                "none of these directories was ever part of a cluster that was formed: there is nothing to recover"
            )
        return next(iter(of))

    def _membership(self) -> _Known:
        """The newest that anybody here knows."""
        if not any(survivor.system.formed for survivor in self.survivors):
            raise RecoveryRefused(
                "no log here tells who the members of the cluster were, so nothing can be said of what may be lost. Name "
                "a directory whose log is whole as far as its formation record; paxos log shows that"
            )
        return max(self._tables(), key=lambda known: (known.trusted, known.version, known.chosen))

    def _tables(self) -> Iterator[_Known]:
        """The memberships that logs and checkpoints know."""
        for survivor in self.survivors:
            system, trusted = survivor.system, survivor.state != "distrusted"
            if system.formed:
                yield _Known(
                    trusted, system.membership_version, system.chosen, system.members, system.in_force, system.before,
                    system.as_of,
                )  # fmt: skip
            for checkpoint in survivor.checkpoints:
                with suppress(struct.error, ValueError):
                    told = membership_fields(checkpoint.manifest.membership)
                    yield _Known(
                        trusted, told["version"], checkpoint.manifest.instance, told["members"], told["in_force"],
                        told["before"], told["as_of"],
                    )  # fmt: skip

    def _electorates(self, known: _Known) -> list[_Voters]:
        """All sets of voters under which the cluster may have gone on."""
        sets = [_Voters("", *_voters(known.rows))]
        if known.chosen < known.in_force:
            # (Of a place whose incarnation the change brings, the one before it is not known any more.)
            rows = [row for row in known.rows if row["node"] in known.before]
            may = {_who(row) for row in rows if row["since"] < known.in_force}
            sets.append(_Voters(f"below instance {known.in_force}", sorted(row["node"] for row in rows), may))
        for survivor in self.survivors:
            for instance, change in survivor.changes():
                early = known.in_force > 0 and instance <= known.in_force
                if change["version"] < known.version or (change["version"] == known.version and early):
                    continue  # it is void, chosen or not
                when = f"if the change accepted at instance {instance} was chosen"
                found = _Voters(when, *_voters(change["members"]), possible=True)
                if all((found.nodes, found.may) != (one.nodes, one.may) for one in sets):
                    sets.append(found)
        return sets

    def _strangers(self, members: list[dict[str, Any]]) -> None:
        """A log without a legible formation, and two that are copies of one."""
        known = {(member["node"], member["incarnation"]) for member in members}
        for survivor in self.survivors:
            known.update((m["node"], m["incarnation"]) for m in survivor.system.members + survivor.system.first_members)
        logs: dict[str, Survivor] = {}
        for survivor in self.survivors:
            if survivor.id == 0:
                continue
            stranger = survivor.system.signature is None and (survivor.id, survivor.incarnation) not in known
            if stranger and survivor.holds:
                raise RecoveryRefused(
                    f"{survivor.path}: what is legible of this log does not tell which cluster it is of "
                    f"({survivor.why}). Leave it "
                    "out (of a log in quarantine/: with --no-quarantine)"
                )
            if (other := logs.setdefault(survivor.incarnation, survivor)) is not survivor:
                raise RecoveryRefused(
                    f"{other.path} and {survivor.path} are copies of the log of one node, {survivor.id} (incarnation "
                    f"{survivor.incarnation}): one of them may be old. Name the one on which that node ran last"
                )

    def _contradictions(self) -> None:
        """Chain checksums agree where logs and checkpoints overlap."""
        runs = [(survivor, run) for survivor in self.survivors for run in survivor.runs]
        for index, (one, run) in enumerate(runs):
            for other, second in runs[:index]:
                if (place := _differ(run, second)) is not None:
                    raise _contradiction(one.path, other.path, place)
        before: list[Checkpoint] = []
        for checkpoint in [checkpoint for survivor in self.survivors for checkpoint in survivor.checkpoints]:
            instance, chain = checkpoint.manifest.instance, checkpoint.manifest.chain
            for survivor, run in runs:
                if run.first <= instance <= run.end and run.chain_at(instance) != chain:
                    other_one = f"checkpoint {instance} in {checkpoint.path}"
                    raise _contradiction(survivor.path, other_one, f"below instance {instance}")
            for earlier in before:
                if earlier.manifest.instance == instance and earlier.manifest.chain != chain:
                    raise _contradiction(earlier.path, checkpoint.path, f"in their checkpoints of instance {instance}")
            before.append(checkpoint)

    # -- judging

    def _judge(self) -> RecoveryReport:
        signature = self._signature()
        known = self._membership()
        self._strangers(known.rows)
        self._contradictions()
        sets = self._electorates(known)
        whole = {(s.id, s.incarnation): s for s in self.survivors if s.whole}
        electorates = [one.electorate(whole) for one in sets]
        if all(electorate.reached for electorate in electorates):
            raise RecoveryRefused(
                f"a majority is here: of {len(electorates[0].nodes)} voters the logs of nodes "
                f"{', '.join(map(str, sorted(electorates[0].here)))} are undamaged. Nothing is lost: start them, and start each "
                "lost node with its id and an empty directory. This command is for a cluster that has lost its majority for good"
            )
        counting = {who for one in sets for who in one.may if who in whole}
        members = [self._member(row, sets, whole) for row in known.rows]
        report = RecoveryReport(
            signature, members, electorates, electorates[0].quorum,
            [self._source(survivor, (survivor.id, survivor.incarnation) in counting) for survivor in self.survivors],
            [text for survivor in self.survivors for text in survivor.bad_checkpoints], 0, 0, None, 0, 0,
        )  # fmt: skip
        self._known(report)
        if report.certainly_lost is None:
            self._accepted(report, sets)
        if any(electorate.lost_majority for electorate in electorates):
            report.may_be_lost_from = report.certain
        elif report.certainly_lost is not None:
            report.may_be_lost_from = report.kept
        report.round = carried_on(self._rounds())
        report.mastership = carried_on(self._masterships())
        named = [change["version"] for survivor in self.survivors for _, change in survivor.changes()]
        report.membership = 1 + max([*(table.version for table in self._tables()), *(version + 1 for version in named)])
        return report

    def _member(self, row: dict[str, Any], sets: list[_Voters], whole: dict[Who, Survivor]) -> Member:
        node, incarnation, role = row["node"], row["incarnation"], row["role"]
        stays = role != VOTER or all(_who(row) in one.may for one in sets if one.possible)
        lost = _who(row) not in whole or not stays
        why = ""
        if lost:
            mine = [survivor for survivor in self.survivors if survivor.id == node]
            own = next((survivor for survivor in mine if survivor.incarnation == incarnation), None)
            if own is None:
                why = (
                    "its directory is not here"
                    if not mine
                    else "only a former log of it is here; another one took its place"
                )
            elif own.quarantined:
                why = "its log was set aside, so it does not vote with it"
            elif own.whole:
                why = "it may have been replaced or removed: a change that puts it aside was accepted"
            else:
                why = f"its log is {own.state}"
        return Member(node, incarnation, role, lost, why)

    @staticmethod
    def _source(survivor: Survivor, counts: bool) -> Source:
        return Source(
            survivor.path, survivor.quarantined, survivor.id, survivor.incarnation, survivor.state, survivor.why, counts,
            survivor.chosen, len(survivor.slots), [checkpoint.manifest.instance for checkpoint in survivor.checkpoints],
        )  # fmt: skip

    def _known(self, report: RecoveryReport) -> None:
        """What is known chosen, and how much of it there is: a checkpoint, and the logs from there on."""
        there = sorted(
            (checkpoint for survivor in self.survivors for checkpoint in survivor.checkpoints),
            key=lambda checkpoint: checkpoint.manifest.instance, reverse=True,
        )  # fmt: skip
        known = max([run.end for survivor in self.survivors for run in survivor.runs], default=0)
        known = max([known, *(checkpoint.manifest.instance for checkpoint in there)])
        # (A node that was told of a membership, and not yet of what was chosen before.)
        report.known_chosen = max([known, *(table.as_of for table in self._tables() if table.trusted)])
        for checkpoint in there:
            instance = checkpoint.manifest.instance
            try:
                CheckpointStore(checkpoint.files).verify(
                    checkpoint.manifest, lambda done, of: self._progress("verifying a checkpoint", done, of)
                )
            except DamagedCheckpoint as error:
                report.damaged_checkpoints.append(f"{checkpoint.path}, checkpoint {instance}: {error}")
                continue
            self.source = checkpoint
            report.checkpoint, report.checkpoint_from = instance, checkpoint.path
            report.bytes = checkpoint.manifest.stored
            break
        at = report.checkpoint
        while True:
            reach = [
                (run.end, survivor, run)
                for survivor in self.survivors
                for run in survivor.runs
                if run.first <= at < run.end
            ]
            if not reach:
                break
            end, survivor, run = max(reach, key=lambda item: item[0])
            self._pieces.append((at, end, survivor, run))
            at = end
        if at == 0 and known:
            damaged = f" ({'; '.join(report.damaged_checkpoints)})" if report.damaged_checkpoints else ""
            raise RecoveryRefused(
                f"there is nothing to begin with: no checkpoint here verifies{damaged}, and every log that is left "
                "begins above instance 0. Name the directory, or the backup, that has a checkpoint"
            )
        report.certain = report.kept = at
        if at < report.known_chosen:
            report.certainly_lost = at, report.known_chosen
        for first, end, _, run in self._pieces:
            report.bytes += sum(run.sizes[first - run.first : end - run.first]) + RECORD * (end - first)

    def _accepted(self, report: RecoveryReport, sets: list[_Voters]) -> None:
        """What was accepted above all that is known chosen."""
        above = sorted({instance for s in self.survivors for instance in s.slots if instance >= report.kept})
        ends = False
        for instance in above:
            ends = ends or instance != report.kept
            by: dict[Ballot, list[Survivor]] = {}
            for survivor in self.survivors:
                if (slot := survivor.slots.get(instance)) is not None:
                    by.setdefault(slot.ballot, []).append(survivor)
            for same in by.values():
                self._same(instance, same)
            ballot = max(by)
            holder = by[ballot][0]
            kind, count, data = holder.data(holder.slots[instance].index)
            found = Found(
                instance, ballot[0], ballot[1], sorted({s.id for s in by[ballot]}), KINDS[kind], count, len(data)
            )
            if ends:
                report.dropped.append(found)
                continue
            self._above.append((holder, holder.slots[instance].index))
            report.kept += 1
            report.bytes += len(data) + RECORD
            # A majority of logs, whole or not, that accepted it under one ballot: it is chosen, though nobody was told.
            if report.certain == instance and any(
                all(one.majority((s.id, s.incarnation) for s in some) for one in sets) for some in by.values()
            ):
                report.certain += 1
            else:
                report.unknown.append(found)
        if above and above[-1] - ALPHA >= report.kept:
            report.certainly_lost = report.kept, above[-1] - ALPHA + 1

    @staticmethod
    def _same(instance: int, survivors: list[Survivor]) -> None:
        """Under one ballot there is one value."""
        first, *others = survivors
        for other in others:
            if first.data(first.slots[instance].index) != other.data(other.slots[instance].index):
                raise _contradiction(
                    first.path, other.path, f"in what they accepted under one ballot at instance {instance}"
                )

    def _masterships(self) -> int:
        """The highest version of a mastership found."""
        heads = [checkpoint.manifest.membership for survivor in self.survivors for checkpoint in survivor.checkpoints]
        return max([s.system.mastership for s in self.survivors] + [mastership_of(head) for head in heads])

    @property
    def lease(self) -> int:
        """How long leases are (ns) as whoever knows most has it."""
        return max(self.survivors, key=lambda survivor: survivor.system.chosen).system.lease_ns

    def _rounds(self) -> int:
        """The highest round of any ballot found."""
        rounds = [slot.ballot[0] for survivor in self.survivors for slot in survivor.slots.values()]
        rounds += [s.system.promised[0] for s in self.survivors if s.system.promised is not None]
        return max(rounds, default=0)


def carried_on(highest: int) -> int:
    """The round that a new cluster's ballots are above.

    So for every number of which none may ever come twice, also the version of a mastership: this is made of the highest one
    found here, since the nodes that are lost may have gone further.
    """
    return highest + LEAP


def _differ(one: Run, other: Run) -> str | None:
    """Where two logs know different values chosen; None: nowhere."""
    first, end = max(one.first, other.first), min(one.end, other.end)
    if first > end:
        return None
    a = one.chains[first - one.first : end - one.first + 1]
    b = other.chains[first - other.first : end - other.first + 1]
    if a == b:
        return None
    if a[0] != b[0]:
        return f"somewhere below instance {first}"
    # A checksum that differs makes all behind it differ, too.
    place = bisect_right(range(len(a)), False, key=lambda index: a[index] != b[index])
    return f"at instance {first + place - 1}"


def _contradiction(one: str, other: str, where: str) -> RecoveryRefused:
    return RecoveryRefused(
        f"{one} and {other} contradict one another {where}: what one of them calls chosen was not. Nobody can tell here "
        "which. Look at both (paxos log --instance), and leave the wrong one out (a log in quarantine/: with --no-quarantine)"
    )
