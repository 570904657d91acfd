"""What is kept of a damaged log: that which it had recorded as chosen, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from frames import BATCH, RECORD_ACCEPT, RECORD_BASE, RECORD_LEARN, RECORD_WATERMARK, ballot, chain, chunk, record
from paxos._folder import Folder
from paxos._log import Layout
from paxos._salvage import Salvage, salvage
from paxos.errors import DamagedLog

SEGMENT = 262144
VALUES = [chunk(1, seq + 1, [b"value %d" % seq]) for seq in range(40)]
OTHER = chunk(2, 1, [b"never chosen"])
NO_END = 1 << 62


def behind(instances: int) -> int:
    """The chain checksum."""
    return chain([(BATCH, value) for value in VALUES[:instances]])


class Log:
    """A log as a node would write it, and the folder that it lies in."""

    def __init__(self, number: int = 1) -> None:
        self.layout = Layout(SEGMENT)
        if number > 1:
            self.layout.resume(number, 4096, 0, 1, number)
        self.segments: dict[int, bytearray] = {}
        self.unreadable: set[int] = set()
        self._begin(number)

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
        return self.write(
            RECORD_WATERMARK, 0, record(RECORD_WATERMARK, chosen=chosen, chain=behind(chosen) ^ wrong)
        )

    def base(self, instance: int) -> int:
        return self.write(RECORD_BASE, instance, record(RECORD_BASE, promised=ballot(1, 1), chain=behind(instance)))

    def next_segment(self) -> None:
        number, offset = self.layout.position
        _, data = self.layout.close_write(end=True)
        self._begin(number + 1)
        self.segments[number][offset : offset + len(data)] = data
        self.layout.written()
        self.layout.next_segment()

    # -- as a folder

    def names(self) -> list[str]:
        return [f"{number:016x}.seg" for number in sorted(self.segments, reverse=True)] + ["spare-1.tmp"]

    def view(self, name: str) -> bytes:
        number = int(name[:16], 16)
        if number in self.unreadable:
            raise DamagedLog(f"{name}: the disk cannot read it")
        return bytes(self.segments[number])

    def kept(self, below: int = NO_END) -> Salvage:
        return salvage(cast(Folder, self), below)


def check(kept: Salvage, first: int, end: int) -> None:
    assert (kept.first, kept.end) == (first, end)
    for instance in range(first, end):
        assert kept.value(instance) == (BATCH, 1, VALUES[instance])
    for instance in (first - 1, end):
        with pytest.raises((IndexError, OverflowError)):
            kept.value(instance)


@pytest.fixture
def log() -> Log:
    made = Log()
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
    """And not the last record."""
    log.accept(10, 8, OTHER, round_=1)
    log.accept(10, 8, round_=3)
    log.accept(10, 8, OTHER, round_=2)
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
        lambda log: log.accept(10, 8, b"no chunk"),
        lambda log: log.learn(9, value=b"no chunk"),
    ],
    ids=["chain", "back", "gap", "far", "past", "watermark", "accept", "learn", "base", "value", "learned"],
)  # fmt: skip
def test_a_log_that_contradicts_itself_is_not_believed(log: Log, contradict: Callable[[Log], Any]) -> None:
    contradict(log)
    log.watermark(10)
    check(log.kept(), 0, 0)


def test_a_log_may_begin_amid_the_instances() -> None:
    """Its older segments are deleted: what was accepted there is not known, what was fetched or accepted here is."""
    log = Log(number=7)
    log.accept(22, 20)
    log.accept(23, 20)
    log.watermark(23)
    assert log.kept().first == 23
    log.watermark(24)
    check(log.kept(), 23, 24)
    log.learn(24)
    check(log.kept(), 23, 25)


def test_a_log_may_jump_to_a_checkpoint(log: Log) -> None:
    log.accept(10, 8, OTHER)
    log.base(30)
    log.accept(30, 30)
    log.watermark(31)
    check(log.kept(), 30, 31)


def test_a_log_may_jump_over_values_that_were_never_chosen(log: Log) -> None:
    log.accept(10, 8, OTHER)
    log.base(11)
    check(log.kept(), 11, 11)
    log.learn(11)
    check(log.kept(), 11, 12)


def test_where_the_log_was_cut_off_changes_nothing(log: Log) -> None:
    log.base(5)
    log.watermark(9)
    log.base(10)
    check(log.kept(), 0, 10)


def test_nothing_is_kept_that_is_known_to_be_wrong(log: Log) -> None:
    log.watermark(9)
    check(log.kept(below=4), 0, 4)
    assert log.kept(below=0).end == 0
    log.base(30)
    log.learn(30)
    assert log.kept(below=20).end - log.kept(below=20).first == 0


@pytest.mark.parametrize("how", ["header", "gone", "unreadable", "foreign"])
def test_what_stands_before_a_bad_segment_is_kept(log: Log, how: str) -> None:
    log.watermark(9)
    for instance in range(10, 30):
        log.next_segment()
        log.accept(instance, instance - 1)
    check(log.kept(), 0, 28)
    if how == "header":
        log.segments[12][20] ^= 1
    elif how == "gone":
        del log.segments[12]
    elif how == "unreadable":
        log.unreadable.add(12)
    else:
        log.segments[12] = Log(number=12).segments[12]
    check(log.kept(), 0, 18)
    log.segments[1][20] ^= 1
    assert log.kept().end == 0
