"""Reading chosen values out of a log that is being written: against running engines, and against logs written by hand."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import frames
from engines import Engines
from paxos._logreader import LogReader
from paxos._segments import LogStore
from paxos._stepping import encode_chunk
from paxos.errors import StorageError

ACCEPT, LEARN, WATERMARK = frames.RECORD_ACCEPT, frames.RECORD_LEARN, frames.RECORD_WATERMARK
SIZE = 65536
RING = 1024

Instances = list[tuple[int, list[tuple[int, list[bytes]]]]]


def read(reader: LogReader) -> Instances:
    """Everything that is there now."""
    found: Instances = []
    while part := reader.read():
        found += part
    return found


class Log:
    """A log written by hand, and what a reader of it must say."""

    def __init__(self, path: Path, node: int = 1) -> None:
        self.path = path
        self.store = LogStore(path, node, segment_size=SIZE)
        self.chains = [0]
        self.values: list[bytes] = []

    @property
    def chosen(self) -> int:
        return len(self.values)

    def choose(self, *values: bytes) -> None:
        """Says that the next instances have these values."""
        for value in values:
            chain = frames.chain([(frames.BATCH, self.data(value))], self.chosen, self.chains[-1])
            self.chains.append(chain)
            self.values.append(value)

    @staticmethod
    def data(value: bytes) -> bytes:
        return encode_chunk(1, 1, 1, [value])

    def append(self, kind: int, instance: int, *, data: bytes = b"", **fields: object) -> None:
        self.store.append(kind, 0, instance, frames.record(kind, data=data, **fields))

    def accept(self, instance: int, value: bytes, round_: int = 1) -> None:
        ballot = frames.ballot(round_, 1)
        self.append(ACCEPT, instance, ballot=ballot, chosen=self.chosen, chain=self.chains[-1], data=self.data(value))

    def learn(self, value: bytes) -> None:
        self.append(LEARN, self.chosen, chosen=self.chosen, chain=self.chains[-1], data=self.data(value))
        self.choose(value)

    def watermark(self) -> None:
        self.append(WATERMARK, 0, chosen=self.chosen, chain=self.chains[-1])

    def seal(self) -> None:
        """A last write, behind which nothing proves it durable."""
        self.store.flush()
        self.watermark()
        self.store.flush()

    def run(self, count: int, size: int = 100, each: int = 1) -> None:
        """So many instances, ``each`` of them in a write."""
        while count > 0:
            values = [b"%d." % (self.chosen + i) + bytes(size) for i in range(min(each, count))]
            for i, value in enumerate(values):
                self.accept(self.chosen + i, value)
            self.store.flush()
            self.choose(*values)
            count -= each

    def reader(self, first: int = 0, end: int | None = None, chain: int | None = None) -> LogReader:
        end = self.chosen if end is None else end
        incarnation = f"{self.store.incarnation_hi:016x}{self.store.incarnation_lo:016x}"
        return LogReader(
            self.path, 1, incarnation, first=first, chain=self.chains[first], end=end,
            end_chain=self.chains[end] if chain is None else chain,
        )  # fmt: skip

    def expected(self, first: int = 0, end: int | None = None) -> Instances:
        return [(i, [(0, [self.values[i]])]) for i in range(first, self.chosen if end is None else end)]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    yield made
    made.store.close()


# -- running nodes


def test_what_running_nodes_have_logged(tmp_path: Path) -> None:
    engines = Engines(tmp_path, segment_size=2 << 20, max_value=1 << 18)
    try:
        engines.start()
        master = engines.wait_master()
        dice = random.Random(1)
        for i in range(60):
            values = [dice.randbytes(dice.randrange(30000)) for _ in range(dice.randrange(1, 4))]
            engines.propose(master, *values, machine=i % 2)
        engines.wait_level()
        for node, engine in engines.running.items():
            status = engine.status()
            chains = [0] + [event[3] for event in engines.events[node] if event[0] == 0]
            for first in (0, 1, 30, status["chosen"]):
                with LogReader(
                    tmp_path / str(node), node, status["incarnation"], first=first, chain=chains[first],
                    end=status["chosen"], end_chain=status["chain"],
                ) as reader:  # fmt: skip
                    found: Instances = []

                    def at_the_end(reader: LogReader = reader, found: Instances = found) -> bool:
                        found.extend(reader.read())
                        return reader.done

                    engines.until(at_the_end)
                assert found == [entry for entry in engines.chosen(node) if entry[0] >= first]
    finally:
        engines.stop()


def test_a_node_that_fetched_its_values(tmp_path: Path) -> None:
    """One that was down logs them as learned."""
    engines = Engines(tmp_path)
    try:
        engines.start()
        engines.wait_master()
        away = next(node for node in engines.running if node != engines.master())
        engines.stop(away)
        master = engines.wait_master()
        for i in range(20):
            engines.propose(master, b"%d" % i)
        engines.start(away)
        engines.propose(master, b"last")
        engines.wait_level()
        status = engines.running[away].status()
        with LogReader(
            tmp_path / str(away),
            away,
            status["incarnation"],
            first=0,
            chain=0,
            end=status["chosen"],
            end_chain=status["chain"],
        ) as reader:
            found: Instances = []

            def at_the_end() -> bool:
                found.extend(reader.read())
                return reader.done

            engines.until(at_the_end)
        assert found == engines.chosen(away)
    finally:
        engines.stop()


# -- logs written by hand


def test_it_goes_on_as_the_log_grows(tmp_path: Path) -> None:
    """Through many segments; what is not proven durable is not read, and is as soon as it is."""
    whole = Log(tmp_path / "whole")  # to know how the checksums will be
    whole.run(220)
    whole.store.close()
    log = Log(tmp_path / "log")
    log.run(200)
    assert log.store.position[0] > 10
    incarnation = f"{log.store.incarnation_hi:016x}{log.store.incarnation_lo:016x}"
    with LogReader(log.path, 1, incarnation, first=0, chain=0, end=220, end_chain=whole.chains[220]) as reader:
        # The last write has none behind it, and so nothing says that the one before it was chosen.
        assert read(reader) == log.expected(0, 198)
        assert not reader.done
        log.run(20)
        assert read(reader) == log.expected(198, 218)
        log.seal()
        assert read(reader) == whole.expected(218)
        assert reader.done
        assert reader.chain == log.chains[-1]
        assert read(reader) == []
    log.store.close()


def test_the_write_that_ends_a_segment_is_proven_by_the_next_segment(log: Log) -> None:
    """By a write in it: that it is there is no proof."""
    log.run(3)
    log.learn(b"in the last write")
    log.learn(bytes(SIZE - 30000))
    assert log.store.position == (1, 4096 * 5)
    log.learn(bytes(SIZE - 30000))
    assert log.store.position == (2, 4096)
    with log.reader() as reader:
        assert read(reader) == log.expected(0, 2)
        log.store.flush()
        assert read(reader) == log.expected(2, 5)
        log.seal()
        assert read(reader) == log.expected(5)
        assert reader.done


def test_a_write_of_another_history_proves_nothing(tmp_path: Path) -> None:
    """What a torn tail has left at the very place where the next write will be."""
    log = Log(tmp_path)
    log.run(1)
    log.store.close()
    file = tmp_path / "log" / f"{1:016x}.seg"
    begin = file.read_bytes()
    log = Log(tmp_path)
    log.run(6)  # behind the write that says who it is
    log.store.close()
    old = file.read_bytes()
    file.write_bytes(begin)
    log = Log(tmp_path)
    log.run(2)
    log.learn(b"new")
    log.store.flush()
    at = log.store.position[1]
    assert old[at + 13] == 1  # a write, indeed
    now = file.read_bytes()
    file.write_bytes(now[:at] + old[at:])
    with log.reader() as reader:
        assert read(reader) == log.expected(0, 1)
    file.write_bytes(now)
    log.seal()
    with log.reader() as reader:
        assert read(reader) == log.expected()
    log.store.close()


def test_it_begins_near_the_first_instance(log: Log) -> None:
    log.run(3000, each=20)
    log.seal()
    with log.reader(2900) as reader:
        first = reader.place[0]
        assert read(reader) == log.expected(2900)
        assert reader.done
    with log.reader() as reader:
        assert reader.place[0] == 1
        assert len(read(reader)) == 3000
    assert first > 8
    with log.reader(900) as reader:
        assert reader.place[0] == 1
        assert read(reader) == log.expected(900)


def test_an_acceptance_far_above_the_watermark_is_not_missed(log: Log) -> None:
    """It may lie a whole RING before the watermark that passes it."""
    log.accept(RING - 1, b"early")
    for i in range(RING - 1):
        log.accept(i, b"%d" % i + bytes(500))
    log.choose(*(b"%d" % i + bytes(500) for i in range(RING - 1)), b"early")
    log.seal()
    log.run(300)
    log.seal()
    for first in (0, RING - 1, RING, RING + 299):
        with log.reader(first) as reader:
            assert read(reader) == log.expected(first)
            assert reader.done


def test_the_value_of_the_highest_ballot_is_chosen(log: Log) -> None:
    log.accept(0, b"old", 1)
    log.accept(1, b"old", 3)
    log.accept(0, b"new", 2)
    log.accept(1, b"lower", 2)
    log.choose(b"new", b"old")
    log.accept(2, b"x", 3)
    log.seal()
    with log.reader() as reader:
        assert read(reader) == log.expected()
        assert reader.done


def test_a_fetched_value_stands_above_every_ballot(log: Log) -> None:
    log.accept(0, b"mine", 9)
    log.learn(b"chosen")
    log.accept(1, b"mine", 9)
    log.seal()
    log.learn(b"chosen")
    log.seal()
    with log.reader() as reader:
        assert read(reader) == log.expected()
        assert reader.done


def test_values_that_no_record_says_are_chosen(log: Log) -> None:
    """The news of it may stand in no record yet: the node's checksum says so. It does not for another value."""
    log.run(5)
    log.accept(5, b"other", 1)
    log.seal()
    chain = frames.chain([(frames.BATCH, log.data(b"five"))], 5, log.chains[5])
    log.chains.append(chain)
    with log.reader(end=6) as reader:
        log.chains.pop()
        assert read(reader) == log.expected(0, 5)
        assert not reader.done
        log.accept(5, b"five", 2)
        log.seal()  # still with the watermark at 5
        log.choose(b"five")
        assert read(reader) == log.expected(5)
        assert reader.done
    assert log.chains[-1] == chain


def test_values_of_other_groups_are_not_read(log: Log) -> None:
    log.run(3)
    for group in (1, 7):
        body = frames.record(LEARN, chosen=log.chosen, chain=log.chains[-1], data=log.data(b"alien"))
        log.store.append(LEARN, group, log.chosen, body)
    log.run(3)
    log.seal()
    with log.reader() as reader:
        assert read(reader) == log.expected()


def test_instances_without_values_are_told(log: Log) -> None:
    log.append(ACCEPT, 0, ballot=frames.ballot(1, 1))
    log.chains.append(frames.chain([(frames.NOOP, b"")]))
    log.values.append(b"")
    log.run(1)
    log.seal()
    with log.reader() as reader:
        assert read(reader) == [(0, []), *log.expected(1)]
        assert reader.done


def test_large_writes(log: Log) -> None:
    """Several records in a write, and writes that end a segment."""
    dice = random.Random(2)
    for _ in range(50):
        values = [dice.randbytes(dice.randrange(12000)) for _ in range(dice.randrange(1, 4))]
        for i, value in enumerate(values):
            log.accept(log.chosen + i, value)
        log.choose(*values)
        log.store.flush()
    log.seal()
    with log.reader() as reader:
        assert read(reader) == log.expected()
        assert reader.done


def test_a_reader_of_nothing(log: Log) -> None:
    log.run(2)
    with log.reader(2) as reader:
        assert reader.done
        assert reader.read() == []


# -- what must not be read


def test_a_wrong_checksum_at_the_begin_is_found(log: Log) -> None:
    log.run(10)
    log.seal()
    right = log.chains[5]
    log.chains[5] ^= 1
    with log.reader(5) as reader, pytest.raises(StorageError, match="chain checksum at instance 5 is"):
        read(reader)
    log.chains[5] = right
    with log.reader(5) as reader:
        assert read(reader) == log.expected(5)


def test_a_wrong_checksum_at_the_end_is_found(log: Log) -> None:
    log.run(10)
    log.seal()
    with (
        log.reader(end=8, chain=log.chains[8] ^ 1) as reader,
        pytest.raises(StorageError, match="chain checksum at instance 8"),
    ):
        read(reader)
    with pytest.raises(StorageError, match="chain checksum"):
        log.reader(first=8, end=8, chain=log.chains[8] ^ 1)


def test_a_value_that_was_deleted_is_missed_at_once(log: Log) -> None:
    log.run(1500, each=20)
    log.seal()
    for segment in range(1, 4):
        log.store.recycle(segment)
    with log.reader() as reader, pytest.raises(StorageError, match="instance 0 is not in the log any more"):
        read(reader)
    with log.reader(1400) as reader:
        assert read(reader) == log.expected(1400)


def test_a_segment_that_is_deleted_meanwhile(log: Log) -> None:
    """It is recycled and written again under the reader's hands."""
    log.run(100)
    log.seal()
    with log.reader() as reader:
        log.run(1400, each=20)
        log.seal()
        for segment in range(1, log.store.position[0] - 5):
            log.store.recycle(segment)
        log.run(1000, each=20)
        with pytest.raises(StorageError, match=r"was deleted by the node|not in the log any more"):
            read(reader)


def test_a_flipped_bit_is_never_given_out(log: Log) -> None:
    """Wherever it is: what is given out is right, and the rest is missing or an error."""
    log.run(12, 3000)
    log.seal()
    place = tuple(log.store.position)
    dice = random.Random(3)
    named: list[bool] = []
    short = 0
    for _ in range(300):
        segment = dice.randint(1, place[0])
        file = log.path / "log" / f"{segment:016x}.seg"
        whole = file.read_bytes()
        at = dice.randrange(place[1] if segment == place[0] else SIZE)
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << dice.randrange(8)]) + whole[at + 1 :])
        try:
            with log.reader() as reader:
                found = read(reader)
            assert found == log.expected()[: len(found)]
            short += len(found) < log.chosen
        except StorageError as error:
            named.append(file.name in str(error))
        finally:
            file.write_bytes(whole)
    assert len(named) > 5
    assert all(named)
    assert short > 50


@pytest.mark.parametrize(
    ("kind", "instance", "cut", "fields"),
    [
        (ACCEPT, 3 + RING, 0, {"ballot": frames.ballot(1, 1)}),
        (ACCEPT, 3, 0, {"ballot": frames.ballot(0, 1)}),
        (ACCEPT, 3, 0, {"ballot": frames.ballot(1, 1), "data": b"no chunk"}),
        (ACCEPT, 3, 1, {"ballot": frames.ballot(1, 1), "data": Log.data(b"cut")}),
        (ACCEPT, 3, 8, {"ballot": frames.ballot(1, 1)}),
        (LEARN, 4, 0, {}),
        (LEARN, 3, 0, {"value": (1, frames.NOOP)}),
        (LEARN, 3, 1, {}),
        (WATERMARK, 0, 8, {}),
    ],
)
def test_records_that_cannot_be(log: Log, kind: int, instance: int, cut: int, fields: dict[str, Any]) -> None:
    log.run(3)
    body = frames.record(kind, chosen=3, chain=log.chains[-1], **fields)
    log.store.append(kind, 0, instance, body[: len(body) - cut])
    log.run(1)
    log.seal()
    with log.reader() as reader, pytest.raises(StorageError, match="does not fit what came before it"):
        read(reader)


def test_another_nodes_log_is_refused(log: Log, tmp_path: Path) -> None:
    log.run(1)
    incarnation = f"{log.store.incarnation_hi:016x}{log.store.incarnation_lo:016x}"
    for other in ("0" * 16 + incarnation[16:], incarnation[:16] + "0" * 16):
        with pytest.raises(StorageError, match="does not belong to this node's log"):
            LogReader(tmp_path, 1, other, first=0, chain=0, end=1, end_chain=0)
    with pytest.raises(StorageError, match="does not belong to this node's log"):
        LogReader(tmp_path, 2, incarnation, first=0, chain=0, end=1, end_chain=0)
    with pytest.raises(StorageError, match="cannot be read"):
        LogReader(tmp_path / "nowhere", 1, incarnation, first=0, chain=0, end=1, end_chain=0)
    with pytest.raises(ValueError, match="below the first"):
        LogReader(tmp_path, 1, incarnation, first=2, chain=0, end=1, end_chain=0)


def test_a_reader_that_is_closed(log: Log) -> None:
    log.run(3)
    reader = log.reader()
    reader.close()
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read()
