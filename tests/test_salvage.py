"""What is kept of a damaged log: that which it had recorded as chosen, and nothing else; and how a running node takes it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from calls import Call, master_of
from frames import (
    BATCH,
    RECORD_ACCEPT,
    RECORD_BASE,
    RECORD_FORMATION,
    RECORD_FORMED,
    RECORD_LEARN,
    RECORD_WATERMARK,
    ballot,
    chain,
    chunk,
    members,
    record,
    row,
)  # fmt: skip
from paxos._folder import Folder, segment_number
from paxos._log import Layout
from paxos._salvage import Salvage
from paxos._segments import LogStore
from paxos.keeper import CheckpointPolicy
from paxos.offline import StoppedNode
from paxos.testing._simdisk import MemoryDisk
from paxos.testing.cluster import Cluster, Replica
from paxos.testing.workload import Registers

SEGMENT = 262144
VALUES = [chunk(1, seq + 1, [b"value %d" % seq]) for seq in range(40)]
OTHER = chunk(2, 1, [b"never chosen"])
NO_END = 1 << 62
SIGNATURE = (77, 78)
numbers = itertools.count(1)


def behind(instances: int) -> int:
    """The chain checksum."""
    return chain([(BATCH, value) for value in VALUES[:instances]])


def formation(signature: tuple[int, int] = SIGNATURE) -> bytes:
    rows = b"".join(
        node.to_bytes(8, "little") + hi.to_bytes(8, "little") + lo.to_bytes(8, "little") for node, hi, lo in members(3)
    )
    return record(RECORD_FORMATION, sig_hi=signature[0], sig_lo=signature[1], alpha=64, count=3, data=rows)


class Log:
    """A log as node 1 would write it; and the directory that it lies in."""

    def __init__(self, path: Path, number: int = 1, formed: bool = True) -> None:
        self.path = path / str(next(numbers))
        self.layout = Layout(SEGMENT)
        if number > 1:
            self.layout.resume(number, 4096, 0, 1, number)
        self.segments: dict[int, bytearray] = {}
        self._begin(number)
        if formed:
            self.write(RECORD_FORMATION, 0, formation())
            self.write(RECORD_FORMED, 0, b"")

    def _begin(self, number: int) -> None:
        self.segments[number] = bytearray(self.layout.header(number).ljust(SEGMENT, b"\0"))

    def write(self, kind: int, instance: int, body: bytes) -> int:
        """One durable write; where it begins in the segment."""
        number, offset = self.layout.position
        self.layout.append(kind, 0, instance, body)
        _, data = self.layout.close_write()
        self.segments[number][offset : offset + len(data)] = data
        self.layout.written()
        return offset

    def accept(self, instance: int, chosen: int, value: bytes | None = None, round_: int = 1) -> int:
        value = VALUES[instance] if value is None else value
        body = record(
            RECORD_ACCEPT, ballot=ballot(round_, 1), chosen=chosen, chain=behind(chosen), data=value, value=(1, BATCH)
        )
        return self.write(RECORD_ACCEPT, instance, body)

    def learn(self, instance: int, chosen: int = -1, value: bytes | None = None) -> int:
        chosen = instance if chosen < 0 else chosen
        value = VALUES[instance] if value is None else value
        body = record(RECORD_LEARN, chosen=chosen, chain=behind(chosen), data=value, value=(1, BATCH))
        return self.write(RECORD_LEARN, instance, body)

    def watermark(self, chosen: int, wrong: int = 0) -> int:
        return self.write(RECORD_WATERMARK, 0, record(RECORD_WATERMARK, chosen=chosen, chain=behind(chosen) ^ wrong))

    def base(self, instance: int) -> int:
        rows = b"".join(row(node) for node, _, _ in members(3))
        body = record(
            RECORD_BASE,
            promised=ballot(1, 1),
            chain=behind(instance),
            was_member=1,
            version=0,
            count=3,
            before=0b111,
            data=rows,
        )
        return self.write(RECORD_BASE, instance, body)

    def next_segment(self) -> None:
        number, offset = self.layout.position
        _, data = self.layout.close_write(end=True)
        self._begin(number + 1)
        self.segments[number][offset : offset + len(data)] = data
        self.layout.written()
        self.layout.next_segment()

    def kept(self, below: int = NO_END, node: int = 1, stray: tuple[str, ...] = ()) -> Salvage:
        """Sets it aside, and looks."""
        path = self.path / str(next(numbers))
        folder = Folder(str(path))
        folder.open()
        try:
            for number, data in self.segments.items():
                (path / "log" / f"{number:016x}.seg").write_bytes(data)
            for name in stray:
                (path / "log" / name).write_bytes(b"no segment")
            segments = folder.segments()
            self.aside = Path(folder.quarantine("for a test"))
            return Salvage(folder, segments, node, below)
        finally:
            folder.close()


def check(kept: Salvage, first: int, end: int) -> None:
    assert (kept.first, kept.end) == (first, end)
    assert bool(kept.why) == (first == end)
    for instance in range(first, end):
        assert kept.value(instance) == (BATCH, 1, VALUES[instance])
    for instance in (first - 1, end):
        with pytest.raises((IndexError, OverflowError)):
            kept.value(instance)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(tmp_path)
    for instance in range(10):
        made.accept(instance, max(0, instance - 2))
    return made


def test_what_was_recorded_as_chosen_is_kept_and_not_what_was_accepted_behind_it(log: Log) -> None:
    check(log.kept(), 0, 7)
    log.watermark(9)
    check(log.kept(), 0, 9)
    log.watermark(10)
    check(log.kept(), 0, 10)


def test_what_stands_behind_the_damage_is_not_kept(log: Log) -> None:
    at = log.watermark(9)
    log.watermark(10)
    log.segments[1][at + 60] ^= 1
    check(log.kept(), 0, 7)


def test_the_value_of_the_highest_ballot_counts(log: Log) -> None:
    log.accept(10, 8, OTHER, round_=1)
    log.accept(10, 8, round_=3)
    log.watermark(11)
    check(log.kept(), 0, 11)


def test_fetched_values_are_kept(log: Log) -> None:
    log.watermark(9)
    log.accept(10, 9, OTHER)
    log.learn(9)
    check(log.kept(), 0, 10)
    log.learn(10)
    log.learn(11)
    check(log.kept(), 0, 12)


@pytest.mark.parametrize(
    "contradict",
    [
        lambda log: log.watermark(9, wrong=1),
        lambda log: log.watermark(5),
        lambda log: log.learn(10, chosen=9),
        lambda log: log.accept(7 + 1024, 7, OTHER),
        lambda log: log.accept(6, 7, OTHER),
        lambda log: log.write(RECORD_WATERMARK, 0, b"short"),
        lambda log: log.write(RECORD_ACCEPT, 10, b"short"),
        lambda log: log.write(RECORD_LEARN, 7, b"short"),
        lambda log: log.write(RECORD_BASE, 7, b"short"),
        lambda log: log.write(RECORD_FORMATION, 0, b"short"),
        lambda log: log.write(RECORD_FORMATION, 0, formation((77, 79))),
        lambda log: log.accept(10, 8, b"no chunk"),
        lambda log: log.learn(9, value=b"no chunk"),
    ],
    ids=["chain", "back", "gap", "far", "past", "watermark", "accept", "learn", "base", "formation", "two", "value", "learned"],
)  # fmt: skip
def test_a_log_that_contradicts_itself_is_not_believed(log: Log, contradict: Callable[[Log], Any]) -> None:
    contradict(log)
    log.watermark(10)
    kept = log.kept()
    check(kept, 0, 0)
    assert kept.why == "it contradicts itself"


def test_a_log_that_does_not_say_of_which_cluster_it_is_is_not_used(tmp_path: Path) -> None:
    log = Log(tmp_path, formed=False)
    log.learn(0)
    log.learn(1)
    kept = log.kept()
    check(kept, 0, 0)
    assert "of which cluster" in kept.why


def test_a_log_of_another_node_is_not_used(log: Log) -> None:
    check(log.kept(node=2), 0, 0)


def test_a_log_may_begin_amid_the_instances(tmp_path: Path) -> None:
    """Its older segments are deleted."""
    log = Log(tmp_path, number=7, formed=False)
    log.write(RECORD_FORMED, 0, b"")  # the FORMATION of this one went with its segment
    log.accept(22, 20)
    log.base(20)
    log.write(RECORD_FORMATION, 0, formation())
    log.write(RECORD_FORMED, 0, b"")
    for instance in (20, 21, 22):
        log.accept(instance, 20)
    check(log.kept(), 20, 20)
    log.watermark(23)
    check(log.kept(), 20, 23)
    log.learn(23)
    check(log.kept(), 20, 24)


def test_a_log_may_jump_to_a_checkpoint(log: Log) -> None:
    log.accept(10, 8, OTHER)
    log.base(30)
    log.accept(30, 30)
    log.watermark(31)
    check(log.kept(), 30, 31)


def test_nothing_is_kept_that_is_known_to_be_wrong(log: Log) -> None:
    log.watermark(9)
    check(log.kept(below=4), 0, 4)
    check(log.kept(below=0), 0, 0)
    log.base(30)
    log.learn(30)
    check(log.kept(below=20), 30, 30)


@pytest.mark.parametrize("how", ["header", "gone", "short", "empty", "foreign", "twice"])
def test_what_stands_before_a_bad_segment_is_kept(log: Log, how: str, tmp_path: Path) -> None:
    log.watermark(9)
    for instance in range(10, 30):
        log.next_segment()
        log.accept(instance, instance - 1)
    check(log.kept(), 0, 28)
    if how == "header":
        log.segments[12][20] ^= 1
    elif how == "gone":
        del log.segments[12]
    elif how == "short":
        del log.segments[12][-4096:]
    elif how == "empty":
        log.segments[12].clear()
    elif how == "foreign":
        log.segments[12] = Log(tmp_path, number=12).segments[12]
    else:
        log.segments[15][20] ^= 1
        log.segments[12][4096 + 60] ^= 1
        del log.segments[18]
    check(log.kept(), 0, 18)
    log.segments[1][20] ^= 1
    check(log.kept(), 0, 0)


def test_one_function_says_what_is_a_segment(log: Log) -> None:
    assert segment_number("00000000000000ff.seg") == 255
    strays = ("backup.seg", "000000000000000g.seg", "00000000000000FF.seg", "0000000000000001.seg~", "1.seg", ".seg")
    assert [segment_number(name) for name in strays] == [None] * 6
    check(log.kept(stray=strays), 0, 7)


@pytest.mark.parametrize("how", ["cut", "gone", "changed"])
def test_what_is_not_there_any_more_is_no_value_and_no_signal(log: Log, how: str) -> None:
    kept = log.kept()
    (file,) = log.aside.glob("*.seg")
    assert kept.value(3) == (BATCH, 1, VALUES[3])
    if how == "cut":
        file.write_bytes(file.read_bytes()[: 4096 * 3])
    elif how == "changed":
        file.write_bytes(file.read_bytes().replace(b"value 3", b"valve 3"))
    else:
        kept = log.kept()
        next(log.aside.glob("*.seg")).unlink()
    assert kept.value(3) is None


def test_what_the_disk_cannot_read_ends_what_is_legible() -> None:
    disk = MemoryDisk(1)
    with LogStore(disk.folder(), 1, segment_size=SEGMENT) as store:
        body = record(RECORD_WATERMARK, chosen=0, chain=0)
        for kind, data in ((RECORD_FORMATION, formation()), (RECORD_FORMED, b""), (RECORD_WATERMARK, body)):
            store.append(kind, 0, 0, data)
        store.append(RECORD_LEARN, 0, 0, record(RECORD_LEARN, data=VALUES[0], value=(1, BATCH)))
        store.flush()
    folder = disk.folder()
    folder.open()
    segments = folder.segments()
    folder.quarantine("for a test")
    check(Salvage(folder, segments, 1, NO_END), 0, 1)
    disk.fail(read=True)
    assert "of which cluster" in Salvage(folder, segments, 1, NO_END).why
    folder.close()


# ---- a node that has set its log aside ----

KEPT = re.compile(
    r"of the log that was set aside (\d+) instances were kept, and what is missing from instance (\d+) on"
)


class Story:
    """Three nodes, the last of which ends, has its log damaged, and starts again."""

    def __init__(self, log: pytest.LogCaptureFixture, seed: int = 1, **options: Any) -> None:
        self.log = log
        self.cluster = Cluster(
            lambda node, before: Registers(), seed=seed, batch_values=1, policy=CheckpointPolicy(budget=1 << 40),
            **({"segment_size": 1 << 18} | options),
        )  # fmt: skip
        self.world = self.cluster.world
        self.victim = self.cluster.replicas[-1]
        self.others = self.cluster.replicas[:-1]
        master_of(self.cluster)

    def write(self, count: int, size: int = 20, at: Replica | None = None) -> None:
        calls = [Call(at or self.others[0], b"set:k:%d:%b" % (n, b"." * size), 60) for n in range(count)]
        assert self.cluster.run_until(lambda: all(call.done() for call in calls), 60)
        assert not any(call.error for call in calls)

    def level(self) -> None:
        """All have applied the same, and vote."""
        up = [replica for replica in self.cluster.replicas if replica.up]
        assert self.cluster.run_until(
            lambda: self.cluster.level(up) and all(self.world.votes(replica.index) for replica in up), 60
        )

    def checkpoint(self) -> int:
        """The victim makes one."""
        self.level()
        made: list[Any] = []
        assert self.victim.group is not None
        self.victim.group.keeper.make(lambda manifest, error: made.append(manifest))
        self.until(lambda: bool(made))
        instance: int = made[0].instance
        return instance

    def hurt(self, back: int = 4) -> int:
        """All are level; then the victim ends, and its log is damaged."""
        self.level()
        self.cluster.run(1)
        self.cluster.crash(self.victim)
        return self.damage(back)

    def damage(self, back: int = 4) -> int:
        """The record of an instance near the end of the victim's log is damaged; which one."""
        folder = self.world.folder(self.victim.index)
        with StoppedNode(folder) as node:
            size = node.read().segment_size
            record = [record for record in node.records() if record.type == "accept"][-back]
        segment, offset = divmod(record.position, size)
        data = bytearray(folder.view(f"{segment:016x}.seg"))
        data[offset + 50] ^= 1
        folder.replace(f"{segment:016x}.seg", bytes(data), damaged=True)
        return record.instance

    def takes_the_log_of(self, other: Story) -> None:
        """Another victim's, which has as many segments."""
        mine, theirs = (each.world.folder(each.victim.index) for each in (self, other))
        assert mine.segments() == theirs.segments()
        for name in (f"{number:016x}.seg" for number in mine.segments()):
            mine.replace(name, bytes(theirs.view(name)), damaged=True)

    def start(self) -> None:
        assert self.victim.start()
        assert self.victim.status()["quarantined"] is not None

    def fetches(self, can: bool) -> None:
        """Whether anybody gets values that he missed."""
        self.world.picky({} if can else {27: 1.0})

    @property
    def chosen(self) -> int:
        found: int = self.victim.status()["chosen"]
        return found

    def asked(self) -> int:
        """How often the victim has asked for values that it missed, since the timeline is kept."""
        return sum(
            (kind, a, other) == (0, 26, self.victim.index) for _, _, kind, _, other, a, _ in self.world.timeline()
        )

    def told(self) -> list[tuple[int, int]]:
        """(instances kept, where the rest begins) of each line that says so."""
        return [(int(found[1]), int(found[2])) for line in self.log.messages if (found := KEPT.match(line))]

    def until(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        assert self.cluster.run_until(condition, seconds), (self.victim.status(), self.log.messages[-5:])


@pytest.fixture
def story(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., Story]]:
    made: list[Story] = []

    def make(seed: int = 1, **options: Any) -> Story:
        made.append(Story(caplog, seed, **options))
        return made[-1]

    yield make
    for each in made:
        each.cluster.close()


def test_what_the_log_knew_to_be_chosen_is_not_fetched(story: Callable[..., Story]) -> None:
    s = story()
    s.write(200)
    damaged = s.hurt()
    s.fetches(False)
    s.start()
    s.until(lambda: bool(s.told()))
    s.cluster.run(2)
    (told,) = s.told()
    kept, at = told
    assert damaged - 64 <= kept == at == s.chosen <= damaged, "and it is done, and said, once"
    s.fetches(True)
    s.level()
    s.write(5, at=s.victim)


def test_a_log_of_another_cluster_is_not_used(story: Callable[..., Story]) -> None:
    """It would fit: the first instance of every cluster is the same no-op, behind the same chain checksum."""
    s, other = story(), story(seed=2)
    for each in (s, other):
        each.write(30)
        each.hurt()
    s.takes_the_log_of(other)
    s.fetches(False)
    s.start()
    s.until(lambda: bool(s.told()))
    assert "it is of another cluster" in s.log.text
    assert s.told() == [(0, 0)]
    assert s.chosen == 0
    s.fetches(True)
    s.level()
    assert s.told() == [(0, 0)]


def test_values_that_do_not_fit_the_cluster_are_not_used(story: Callable[..., Story]) -> None:
    """A log of this node and this cluster, by all that it says, that went another way somewhere below the checkpoint."""
    s, other = story(log_hold=1 << 30), story(log_hold=1 << 30)
    for each, size in ((s, 20), (other, 21)):
        each.write(10)
        each.write(1, size=size)
        each.write(30)
    instance = s.checkpoint()
    for each in (s, other):
        each.write(50)
        each.hurt()
    s.takes_the_log_of(other)
    s.fetches(False)
    s.start()
    s.until(lambda: bool(s.told()))
    assert s.told() == [(0, instance)]
    assert "it has other values than the cluster" in s.log.text
    s.fetches(True)
    s.level()


def test_the_log_is_never_ahead_of_what_the_cluster_says(story: Callable[..., Story]) -> None:
    s = story(seed=0)  # (whoever is behind does not stand first, for it cannot learn what it must)
    s.write(5)
    s.level()
    s.cluster.run(1)
    behind_, ahead = s.others[0], s.others[1]
    s.cluster.crash(behind_)
    s.write(100, at=ahead)
    up = [ahead, s.victim]
    s.until(lambda: s.cluster.level(up))
    s.cluster.run(1)
    s.cluster.crash(ahead)
    s.cluster.crash(s.victim)
    s.damage()
    s.fetches(False)
    assert behind_.start()
    s.start()
    s.until(lambda: s.chosen > 0)
    s.cluster.run(5)
    assert 5 < s.chosen == behind_.status()["chosen"] < 50, "the log has more, and the only one that speaks has not"
    assert s.told() == []
    assert ahead.start()
    s.until(lambda: bool(s.told()))
    assert s.told() == [(s.chosen, s.chosen)]
    assert s.chosen > 50
    s.fetches(True)
    s.level()


def test_a_checkpoint_that_is_about_to_be_installed_comes_first(story: Callable[..., Story]) -> None:
    s = story(log_hold=1 << 30)
    s.write(50)
    instance = s.checkpoint()
    s.write(50)
    s.hurt()
    s.fetches(False)
    s.world.python(s.victim.index, low=500_000_000, high=600_000_000)
    s.start()
    s.until(lambda: bool(s.told()))
    ((kept, at),) = s.told()
    assert at - kept == instance > 40
    s.fetches(True)
    s.level()


def test_a_full_disk_is_waited_for(story: Callable[..., Story]) -> None:
    s = story(max_value=1 << 14, batch_bytes=1 << 14, segment_size=1 << 17)
    s.write(100, size=10_000)  # 1 MB
    s.hurt()
    s.fetches(False)
    s.world.disk(s.victim.index, full=True, room=3 << 17)
    s.start()
    s.until(lambda: s.victim.status()["disk_full"] and s.chosen > 0)
    s.cluster.run(5)
    stuck = s.chosen
    assert 10 < stuck < 85, "what finds no room is not piled up in memory"
    assert s.told() == []
    s.world.disk(s.victim.index, full=False)
    s.until(lambda: bool(s.told()))
    assert s.chosen > 85
    s.fetches(True)
    s.level()


def large(s: Story) -> None:
    """13 MB of values, which is more than a round gives."""
    s.write(210, size=60_000)
    s.hurt()
    s.fetches(False)


LARGE: dict[str, Any] = {"segment_size": 16 << 20}


def test_so_much_is_given_at_a_time_and_no_more(story: Callable[..., Story]) -> None:
    s = story(**LARGE)
    large(s)
    s.start()
    s.until(lambda: bool(s.told()))
    assert s.told()[0][0] > 150
    s.fetches(True)
    s.level()
    s.cluster.crash(s.victim)
    with StoppedNode(s.world.folder(s.victim.index)) as node:
        node.read()
        lengths = [write.length for number in node.numbers() for write in node.writes(number)]
    assert 3 << 20 < max(lengths) < 5 << 20


def test_small_values_are_given_a_thousand_at_a_time(story: Callable[..., Story]) -> None:
    s = story(segment_size=4 << 20)
    s.write(1500)
    s.hurt()
    s.fetches(False)
    s.start()
    s.until(lambda: s.chosen > 0)
    assert s.chosen <= 1024
    s.until(lambda: bool(s.told()))
    assert s.chosen > 1400


def test_it_goes_on_without_being_woken(story: Callable[..., Story]) -> None:
    s = story(**LARGE)
    large(s)
    s.start()
    s.until(lambda: s.chosen > 0)
    assert s.chosen < 100
    s.cluster.cut([s.victim], s.others)
    s.until(lambda: bool(s.told()), 0.03)


def test_meanwhile_nothing_is_asked_for_again(story: Callable[..., Story]) -> None:
    s = story(**LARGE)
    s.write(350, size=60_000)
    s.hurt()
    s.cluster.run(1)  # the others no longer think that they hear the old incarnation, and listen at once
    s.fetches(False)
    s.world.disk(s.victim.index, low=80_000_000, high=80_000_000)
    s.world.record()
    s.start()
    s.until(lambda: s.chosen > 0)
    begun = s.cluster.now
    s.until(lambda: bool(s.told()))
    assert s.cluster.now - begun > 300_000_000, "much longer than an answer is waited for"
    assert s.asked() == 1
    s.until(lambda: s.asked() > 1, 1)
    s.fetches(True)
    s.level()


def test_a_node_that_has_left_takes_no_more(story: Callable[..., Story]) -> None:
    s = story(**LARGE)
    large(s)
    s.start()
    s.until(lambda: s.chosen > 0)
    assert s.victim.handle is not None
    s.victim.handle.part()
    s.cluster.run(0.01)
    stopped = s.chosen
    assert stopped < 150
    s.cluster.run(5)
    assert s.chosen == stopped
    assert s.told() == []


def test_a_read_that_fails_ends_it_and_not_the_node(story: Callable[..., Story]) -> None:
    s = story(**LARGE)
    large(s)
    s.start()
    s.until(lambda: s.chosen > 0)
    s.world.disk(s.victim.index, read_fails=True)
    s.until(lambda: bool(s.told()))
    assert s.told()[0][1] < 200
    assert "it cannot be read any more" in s.log.text
    s.fetches(True)
    s.level()


def test_a_value_that_is_too_large_now_ends_it_and_not_the_node(story: Callable[..., Story]) -> None:
    s = story(max_value=150_000)
    s.write(5)
    s.write(1, size=140_000)
    s.write(5)
    s.hurt(2)
    s.fetches(False)
    s.cluster.options |= {"segment_size": 1 << 17, "max_value": 1 << 14, "batch_bytes": 1 << 14}
    s.start()
    s.until(lambda: bool(s.told()))
    assert "a value in it is larger than this node takes now" in s.log.text
    assert 5 <= s.chosen <= 8
    s.cluster.run(2)
    assert s.victim.up
