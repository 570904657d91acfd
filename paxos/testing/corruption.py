"""The campaign of corruption: bytes of a node's directory are flipped, files cut, lost, doubled; then the node is started.

A small cluster lives until one node's log has records of every type, two checkpoints, and a spare; that node ends. Then, in a
process forked from there for each damage, it starts again and lives on with the others, under the judges of the simulation.
Whatever was damaged: it applies no wrong value, and it gets well, or it refuses with a message. ``python -m
paxos.testing.corruption --help`` says how to run it.

Of segments every byte is also put to recovery alone, which is fast: the records must be those that were written, or their
beginning without the last write, which nothing proves durable; or the log is called damaged.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from paxos._recovery import recover
from paxos.errors import DamagedLog, StorageError
from paxos.keeper import CheckpointPolicy
from paxos.offline import StoppedNode, verify
from paxos.testing._simdisk import SimFolder
from paxos.testing.cluster import SECOND, Cluster, Replica
from paxos.testing.workload import Registers

__all__ = ["ALONE", "TOGETHER", "Damage", "Outcome", "Scene", "campaign", "scan"]

#: Verdicts that are as they should be, of a node with others, and of one that is alone.
UNTOUCHED: Final = "not noticed, and nothing lost"
CUT: Final = "torn tail cut"
ASIDE: Final = "log set aside, well again"
ANEW: Final = "log lost, well again"
OLDER: Final = "checkpoint passed over"
FETCHED: Final = "checkpoint fetched"
REFUSED: Final = "refused"
TOGETHER: Final = (UNTOUCHED, CUT, ASIDE, ANEW, OLDER, FETCHED)
ALONE: Final = (UNTOUCHED, CUT, OLDER, REFUSED)

SEGMENT: Final = 17 * 4096  # the smallest that these values allow
BLOCK: Final = 4096
SECONDS: Final = 60  # simulated, until the node is well
WALL: Final = 60  # real seconds until a forked process counts as hanging
#: Bytes that carry nothing are damaged more seldom in whole clusters.
SPARSE: Final = 64
QUIET: Final = ("zeros of a header", "zeros of a write", "behind the end", "spare")


@dataclass(frozen=True, slots=True)
class Damage:
    """What is done to a file, None: to all segments. ``at``: the byte of which a bit is flipped."""

    file: str
    how: str
    region: str
    at: int = 0

    def __str__(self) -> str:
        return f"{self.file}: {self.how}" + (f" at {self.at} ({self.region})" if self.how == "flip" else "")


@dataclass(slots=True)
class Outcome:
    """What the campaign has seen: verdicts by kind of file and of place, and what must not be."""

    counts: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    wrong: list[tuple[Damage, str]] = field(default_factory=list)
    messages: dict[str, str] = field(default_factory=dict)
    """One for each verdict that comes with one."""

    def add(self, damage: Damage, verdict: str, message: str, allowed: tuple[str, ...]) -> None:
        kind = (kind_of(damage.file), damage.region)
        self.counts.setdefault(kind, Counter())[verdict] += 1
        if message:
            self.messages.setdefault(verdict, message)
        if verdict not in allowed:
            self.wrong.append((damage, f"{verdict}: {message}"))

    @property
    def total(self) -> int:
        """How many damages."""
        return sum(counter.total() for counter in self.counts.values())


class _Done:
    """The completion of one proposal."""

    def __init__(self) -> None:
        self.ended = False
        self.error: BaseException | None = None

    def done(self) -> bool:
        return self.ended

    def set_result(self, result: object, /) -> None:
        self.ended = True

    def set_exception(self, exception: BaseException, /) -> None:
        self.ended, self.error = True, exception


class Scene:
    """A cluster whose node ``victim`` has ended, with everything in its directory that there can be."""

    def __init__(self, nodes: int, seed: int = 1) -> None:
        self.cluster = Cluster(
            lambda node, before: Registers(), nodes=nodes, seed=seed, segment_size=SEGMENT, batch_bytes=1024,
            max_value=1024, policy=CheckpointPolicy(budget=1 << 40),
        )  # fmt: skip
        self.victim = self.cluster.replicas[-1]
        self.others = self.cluster.replicas[:-1]
        self.alone = nodes == 1
        self.count = 0
        self._live()
        with StoppedNode(self.folder) as node:
            self.records = list(node.records())
            self.regions = dict(_regions(node, self.folder))
            self.last_write = _last_write(node)
            self.pristine = {name: bytes(self.folder.view(name)) for name in self.folder.names()}

    # -- the life before

    @property
    def folder(self) -> SimFolder:
        """The directory of the victim, which does not run."""
        return self.cluster.world.folder(self.victim.index)

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
        """AssertionError if it does not come about."""
        if not condition() and not self.cluster.run_until(condition, seconds):
            states = [r.status() if r.up else r.error for r in self.cluster.replicas]
            raise AssertionError(f"not within {seconds} simulated s: {what}; {states}")

    def put(self, replica: Replica, count: int) -> None:
        """So many values are chosen, one instance each."""
        for _ in range(count):
            self.count += 1
            until = self.cluster.now + SECONDS * SECOND
            while True:
                assert self.cluster.now < until, f"not within {SECONDS} simulated s: a value is chosen"
                call = _Done()
                replica.submit(call, b"append:%d:%d:" % (self.count % 7, self.count))
                self.wait(lambda call=call: call.ended, "a proposal is settled")  # type: ignore[misc]
                if call.error is None:
                    break

    def level(self) -> None:
        """Until all that run have applied the same, and have votes."""
        up = [replica for replica in self.cluster.replicas if replica.up]
        self.wait(
            lambda: (
                self.cluster.master() is not None
                and self.cluster.level(up)
                and all(self.cluster.world.votes(replica.index) for replica in up)
            ),
            "the nodes are level",
        )

    def checkpoint(self) -> None:
        """Every node makes one."""
        made: list[object] = []
        for replica in self.cluster.replicas:
            assert replica.group is not None
            replica.group.keeper.make(lambda manifest, error: made.append(manifest))
        self.wait(lambda: len(made) == len(self.cluster.replicas), "the checkpoints are made")
        assert all(manifest is not None for manifest in made)

    def _live(self) -> None:
        cluster, victim = self.cluster, self.victim
        self.wait(lambda: cluster.master() is not None, "there is a master")
        source = victim if self.alone else self.others[0]
        self.put(victim, 4)
        self.level()
        self.checkpoint()
        self.put(source, 4)
        if not self.alone:
            cluster.cut([victim], self.others)
            self.put(source, 4)
            cluster.world.heal()
        self.level()
        self.checkpoint()
        self.put(victim, 6)
        cluster.world.stand(victim.index)
        self.level()
        if not self.alone:
            cluster.cut([victim], self.others)
            self.put(source, 5)
            cluster.world.heal()
            self.level()
        self.put(victim, 5)
        self.level()
        self.wait(lambda: cluster.world.sealed(victim.index), "the log is sealed")
        cluster.run(1)
        cluster.world.spare(victim.index)  # between two writes: none is under way now
        cluster.crash(victim)

    # -- the life after

    def damage(self, damage: Damage) -> None:
        """Does it."""
        folder = self.folder
        if damage.how == "all segments missing":
            for name in [name for name in folder.names() if name.endswith(".seg")]:
                folder.replace(name, None, damaged=True)
            return
        data = self.pristine[damage.file]
        folder.replace(damage.file, _changed(data, damage, self.pristine), damaged=True)

    def play(self, damage: Damage) -> tuple[str, str]:
        """(verdict, message) of the start, and of the life that follows."""
        heard = _Heard()
        self.damage(damage)
        report = verify(self.folder)
        incarnation = self.cluster.world.incarnation(self.victim.index)
        before = self._digest()
        torn = any(finding.level == "torn" for finding in report.findings)
        with heard:
            if not self.victim.start():
                return self._refused(before)
            assert self.victim.handle is not None
            assert self.victim.group is not None
            aside = self.victim.handle.status()["quarantined"] is not None
            self.put(self.victim if self.alone else self.others[0], 3)
            self.level()
            installed = self.victim.group.keeper.installed
        self.cluster.crash(self.victim)
        if not self.victim.start():
            return "does not start again", str(self.victim.error)
        self.level()
        anew = self.cluster.world.incarnation(self.victim.index) != incarnation
        passed = [message for message in heard.messages if "does not verify" in message]
        noticed = aside or anew or bool(passed) or bool(installed)
        if noticed == report.good:
            return "verify says something else", "; ".join(f"{f.path}: {f.what}" for f in report.findings)
        if aside:
            return ASIDE, next(message for message in heard.messages if "set aside" in message)
        if anew:
            return ANEW, ""
        if installed:
            return FETCHED, passed[0] if passed else ""
        if passed:
            return OLDER, passed[0]
        return (CUT if torn else UNTOUCHED), ""

    def _refused(self, before: str) -> tuple[str, str]:
        error = self.victim.error
        if not isinstance(error, StorageError) or len(str(error)) < 40:
            return "ended in an error of another kind", repr(error)
        # Where a checkpoint is what is damaged, the log has been opened already, and has a record of this start.
        if isinstance(error, DamagedLog) and self._digest() != before:
            return "refused, but changed the disk", str(error)
        return REFUSED, str(error)

    def _digest(self) -> str:
        """Of all that is in the victim's directory."""
        whole = hashlib.sha256()
        folder = self.folder
        for name in sorted(folder.names()):
            whole.update(f"{name}:{folder.size(name)}:".encode())
            whole.update(bytes(folder.view(name)))
        return whole.hexdigest()


class _Heard(logging.Handler):
    """What the library logs meanwhile, and nobody else gets."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> _Heard:
        logger = logging.getLogger("paxos")
        logger.addHandler(self)
        logger.propagate = False
        return self

    def __exit__(self, *error: object) -> None:
        logger = logging.getLogger("paxos")
        logger.removeHandler(self)
        logger.propagate = True


# -- which bytes are what


def kind_of(name: str) -> str:
    """What sort of file that is."""
    if name.endswith(".seg"):
        return "segment"
    if name.startswith("spare-"):
        return "spare"
    return "manifest" if name.endswith(".manifest") else "checkpoint data" if name.endswith(".data") else "other"


def _regions(node: StoppedNode, folder: SimFolder) -> Iterator[tuple[str, list[tuple[int, int, str]]]]:
    """For each file [(begin, end, what stands there)], without gaps."""
    size = node.read().segment_size
    records: dict[int, list[tuple[int, int, str]]] = {}
    for record in node.records():
        segment, offset = divmod(record.position, size)
        records.setdefault(segment, []).append((offset, offset + 32 + len(record.body), record.type))
    for number in node.numbers():
        parts = [(0, 72, "header"), (72, BLOCK, "zeros of a header")]
        mine = records.get(number, [])
        end = BLOCK
        for write in node.writes(number):
            parts.append((write.offset, write.offset + 56, "write"))
            at, end = write.offset + 56, write.offset + write.length
            for begin, stop, type_ in mine:
                if write.offset < begin < end:
                    if at < begin:
                        parts.append((at, begin, "zeros of a write"))
                    parts.append((begin, stop, type_))
                    at = stop
            if at < end:
                parts.append((at, end, "zeros of a write"))
        if end < size:
            parts.append((end, size, "behind the end"))
        yield node.name_of(number), parts
    for name in folder.names():
        if not name.endswith(".seg"):
            yield name, [(0, folder.size(name), kind_of(name))]


def _last_write(node: StoppedNode) -> int:
    """The position of the last write, which nothing proves durable."""
    number = node.numbers()[-1]
    return number * node.read().segment_size + [write.offset for write in node.writes(number)][-1]


def _changed(data: bytes, damage: Damage, files: dict[str, bytes]) -> bytes | None:
    if damage.how == "flip":
        flipped = bytearray(data)
        flipped[damage.at] ^= 1 << damage.at % 8
        return bytes(flipped)
    if damage.how == "missing":
        return None
    if damage.how == "empty":
        return b""
    if damage.how == "the first block only":
        return data[:BLOCK]
    if damage.how == "half of it":
        return data[: len(data) // 2]
    if damage.how == "a byte too short":
        return data[:-1]
    if damage.how == "doubled":
        return data + data
    if damage.how == "zeros":
        return bytes(len(data))
    assert damage.how == "another file's bytes", damage.how
    return next(
        other for name, other in sorted(files.items()) if kind_of(name) == kind_of(damage.file) and other != data
    )


WHOLE: Final = ("missing", "empty", "half of it", "a byte too short", "doubled", "zeros", "another file's bytes")


def damages(scene: Scene, every: int) -> Iterator[Damage]:
    """Flips of every so manieth byte, at least one in each kind of place of each file; and what happens to whole files."""
    for name, parts in sorted(scene.regions.items()):
        met: set[str] = set()
        for begin, end, region in parts:
            step = every * (SPARSE if region in QUIET else 1)
            # Where it begins follows from the place, so that sparse steps do not always meet the same field.
            first = begin + (0 if every == 1 else (begin // 8 * 7) % step)
            offsets = list(range(first, end, step))
            if region not in met and not offsets and begin < end:
                offsets = [begin + (begin // BLOCK * 13) % (end - begin)]
            met.update([region] if offsets else [])
            for at in offsets:
                yield Damage(name, "flip", region, at)
        kinds = [other for other in scene.pristine if kind_of(other) == kind_of(name)]
        for how in (*WHOLE, "the first block only"):
            if how == "another file's bytes" and len({scene.pristine[other] for other in kinds}) < 2:
                continue
            if how == "the first block only" and kind_of(name) != "segment":
                continue
            if _changed(scene.pristine[name], Damage(name, how, how), scene.pristine) != scene.pristine[name]:
                yield Damage(name, how, how)
    yield Damage(sorted(scene.regions)[0], "all segments missing", "all segments missing")


# -- recovery alone


def scan(scene: Scene, every: int) -> Counter[str]:
    """Puts the segments to recovery with every so manieth byte flipped; how often it said what. AssertionError if it is wrong."""
    segments = {name: data for name, data in scene.pristine.items() if name.endswith(".seg")}
    numbers = {name: int(name[:16], 16) for name in segments}
    written = [dataclasses.astuple(record) for record in scene.records]
    proven = [record for record in written if record[0] < scene.last_write]
    said: Counter[str] = Counter()
    for name, data in segments.items():
        changed = bytearray(data)
        for at in range(0, len(data), every):
            mask = 1 << at % 8
            changed[at] ^= mask
            found = recover(
                [(numbers[other], changed if other == name else bytes_) for other, bytes_ in segments.items()]
            )
            said[f"row {found.row}: {found.outcome}"] += 1
            if found.outcome in ("good", "torn"):
                records = found.records
                assert records in (written, proven), f"{name}, offset {at}: other records than were written"
            else:
                assert found.outcome == "damaged", f"{name}, offset {at}: {found.outcome}"
                assert found.where is not None
                assert found.why
            del found  # lets go of the bytes
            changed[at] ^= mask
    return said


# -- whole clusters, each in a process of its own


def _child(scene: Scene, damage: Damage, out: int) -> None:
    signal.alarm(WALL)
    try:
        verdict, message = scene.play(damage)
    except BaseException as error:
        verdict, message = "wrong", "".join(traceback.format_exception(error)[-3:])
    with os.fdopen(out, "wb") as pipe:
        pipe.write(json.dumps([verdict, " ".join(message.split())[:2000]]).encode())


def _fork(scene: Scene, damage: Damage) -> tuple[int, int]:
    """(process, descriptor) of the life of that damage."""
    reads, writes = os.pipe()
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.close(reads)
            _child(scene, damage, writes)
            status = 0
        finally:
            os._exit(status)
    os.close(writes)
    return process, reads


def campaign(
    scene: Scene, chosen: Iterable[Damage], jobs: int, told: Callable[[Damage], object] = lambda damage: None
) -> Outcome:
    """Plays every damage, so many at once."""
    outcome = Outcome()
    allowed = ALONE if scene.alone else TOGETHER
    running: dict[int, tuple[Damage, int]] = {}

    def reap() -> None:
        process, status = os.wait()
        damage, descriptor = running.pop(process)
        with os.fdopen(descriptor, "rb") as pipe:
            data = pipe.read()
        told(damage)
        if data:
            verdict, message = json.loads(data)
        else:
            code = os.waitstatus_to_exitcode(status)
            verdict, message = ("hangs" if code == -signal.SIGALRM else "dies"), f"exit status {code}"
        outcome.add(damage, verdict, message, allowed)

    for damage in chosen:
        if len(running) >= jobs:
            reap()
        process, descriptor = _fork(scene, damage)
        running[process] = (damage, descriptor)
    while running:
        reap()
    return outcome


def table(outcome: Outcome) -> Iterator[str]:
    """The counts, as lines."""
    verdicts = sorted({verdict for counter in outcome.counts.values() for verdict in counter})
    yield "| file | what was damaged | " + " | ".join(verdicts) + " |"
    yield "| --- | --- |" + " ---: |" * len(verdicts)
    for (kind, region), counter in sorted(outcome.counts.items()):
        yield f"| {kind} | {region} | " + " | ".join(f"{counter[verdict]:,}" for verdict in verdicts) + " |"


def main() -> int:
    """The campaign, from the command line. 0: nothing was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m paxos.testing.corruption", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--every", type=int, default=1, help="in whole clusters: every so manieth byte that carries something"
    )
    parser.add_argument("--scan", type=int, default=1, help="for recovery alone: every so manieth byte")
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=3)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    options = parser.parse_args()
    if options.every < 1 or options.scan < 1 or options.jobs < 1:
        parser.error("--every, --scan and --jobs are 1 or more")
    scene = Scene(options.nodes)
    said = scan(scene, options.scan)
    outcome = campaign(scene, damages(scene, options.every), options.jobs)
    scene.cluster.close()
    if options.json:
        print(json.dumps({
            "nodes": options.nodes, "scanned": said, "damages": outcome.total,
            "types": sorted({record.type for record in scene.records}),
            "counts": [{"file": kind, "what": region, **counter} for (kind, region), counter in sorted(outcome.counts.items())],
            "messages": outcome.messages, "wrong": [[str(damage), what] for damage, what in outcome.wrong],
        }))  # fmt: skip
    else:
        counted = ", ".join(f"{count:,} {what}" for what, count in sorted(said.items()))
        print(f"recovery alone, {said.total():,} flipped bytes: {counted}")
        print(f"a cluster of {options.nodes}, {outcome.total:,} damages:\n")
        print("\n".join(table(outcome)))
        for verdict, message in sorted(outcome.messages.items()):
            print(f"\n{verdict}: {message}")
        for damage, what in outcome.wrong:
            print(f"\nWRONG {damage}\n  {what}")
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
