"""Recovery against a simulated disk: every crash point, every torn write, every flipped byte, every row of the table."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxos._log import Layout
from paxos._recovery import Recovered, recover

BLOCK = 4096
SIZE = 65536
INCARNATION = (0xFEEDFACE12345678, 0x0123456789ABCDEF)
IDENTITY, FORMATION, FORMED, PROMISE, ACCEPT, LEARN, WATERMARK = range(2, 9)
Entry = tuple[int, int, int, bytes]  # type, group, instance, body
Files = dict[int, bytes]


@dataclass(frozen=True)
class Op:
    """One thing the disk is told: begin a segment (atomic: it is renamed when its header is durable), or write."""

    segment: int
    offset: int
    data: bytes
    records: tuple[Entry, ...] = ()


def put(files: Files, segment: int, offset: int, data: bytes) -> Files:
    old = files[segment]
    return {**files, segment: old[:offset] + data + old[offset + len(data) :]}


@dataclass
class Writer:
    """A store on a simulated disk: does what _segments does, in the same order, and keeps every step."""

    log: Layout = field(default_factory=lambda: Layout(SIZE, node=1, incarnation=INCARNATION))
    spare: bytes = bytes(SIZE)
    ops: list[Op] = field(default_factory=list)
    pending: list[Entry] = field(default_factory=list)

    def begin(self) -> Writer:
        self.ops.append(Op(1, 0, self.log.header(1)))
        return self.identify(1)

    def identify(self, boot: int) -> Writer:
        return self.write((IDENTITY, 0, 0, struct.pack("<QQII", *INCARNATION, 1, boot)))

    def write(self, *entries: Entry, empty: bool = False) -> Writer:
        for entry in entries:
            if not self.log.fits(len(entry[3])):
                self.rotate()
            self.log.append(*entry)
            self.pending.append(entry)
        self._close(empty=empty)
        return self

    def _close(self, end: bool = False, empty: bool = False, before: Op | None = None) -> None:
        position, data = self.log.close_write(end=end, empty=empty)
        if end:
            self.ops.append(Op(self.log.position[0] + 1, 0, self.log.header(self.log.position[0] + 1)))
        self.ops.append(Op(position // SIZE, position % SIZE, data, tuple(self.pending)))
        self.pending.clear()
        self.log.written()

    def rotate(self) -> Writer:
        self._close(end=True)
        self.log.next_segment()
        return self

    def run(self, files: Files, count: int | None = None) -> Files:
        for op in self.ops[:count]:
            files = self.step(files, op, op.data)
        return files

    def step(self, files: Files, op: Op, data: bytes) -> Files:
        if op.segment not in files:
            files = {**files, op.segment: self.spare}
        return put(files, op.segment, op.offset, data)

    def entries(self, count: int | None = None) -> list[Entry]:
        return [entry for op in self.ops[:count] for entry in op.records]


def judge(files: Files) -> Recovered:
    return recover(list(files.items()))


def entries(found: Recovered) -> list[Entry]:
    return [record[1:] for record in found.records]


def repair(files: Files, found: Recovered) -> tuple[Files, Writer]:
    """What a start does: drop, erase, write again, go on under the next boot number."""
    for number in found.drop:
        files = {n: data for n, data in files.items() if n != number}
    for segment, offset, length in found.erase:
        files = put(files, segment, offset, bytes(length))
    for segment, offset, length in found.rewrite:
        assert offset % BLOCK == 0 == length % BLOCK
        files = put(files, segment, offset, files[segment][offset : offset + length])
    assert found.cut is not None
    log = Layout(SIZE, node=1, incarnation=INCARNATION)
    log.resume(*found.cut, found.previous, found.boot + 1, found.oldest)
    writer = Writer(log)
    return files, writer.identify(found.boot + 1)


def all_types() -> list[Entry]:
    return [
        (FORMATION, 0, 0, bytes(range(96))),
        (FORMED, 0, 0, b""),
        (PROMISE, 1, 0, b"\x07" * 32),
        (ACCEPT, 1, 0, b"\x08" * 64 + b"value" * 99),
        (LEARN, 2, 1, b"\x09" * 32 + b"learnt"),
        (WATERMARK, 1, 2, b"\x0a" * 16),
    ]


def small() -> Writer:
    """All record types, writes of one block and of several, a sealed end."""
    kinds = all_types()
    writer = Writer().begin().write(*kinds[:3]).write(kinds[3], (ACCEPT, 1, 1, b"\x5a" * 6000), kinds[4])
    return writer.write(kinds[5]).write(empty=True)


def two_segments(fill: int = 9000) -> Writer:
    writer = Writer().begin()
    for i in range(14):
        writer.write((ACCEPT, 0, i, bytes([65 + i]) * (fill if i % 3 == 0 else 100)))
    assert writer.log.position[0] == 2
    return writer


def torn(old: bytes, new: bytes) -> Iterator[bytes]:
    """Every way a write may have stopped that is told apart here: prefixes, suffixes, single losses and survivals."""
    for unit in (512, BLOCK):
        n = len(new) // unit
        masks: set[tuple[bool, ...]] = set()
        for i in range(n + 1):
            masks.add(tuple(j < i for j in range(n)))
            masks.add(tuple(j >= i for j in range(n)))
        for i in range(n):
            masks.add(tuple(j != i for j in range(n)))
            masks.add(tuple(j == i for j in range(n)))
        for mask in masks:
            yield b"".join((new if kept else old)[i * unit : (i + 1) * unit] for i, kept in enumerate(mask))


def recycled() -> bytes:
    """What a recycled segment holds: the records it had under its former number, and the header of that."""
    writer = Writer(Layout(SIZE, node=1, incarnation=INCARNATION, boot=9))
    writer.log.resume(77, BLOCK, 5, 9, 77)
    for i in range(30):
        if writer.log.fits(3000):
            writer.write((ACCEPT, 0, 1000 + i, b"old" * 900))
    return put(writer.run({77: bytes(SIZE)}), 77, 0, writer.log.header(77))[77]


@pytest.mark.parametrize("spare", [bytes(SIZE), recycled()], ids=["zeroed", "recycled"])
@pytest.mark.parametrize("make", [small, two_segments])
def test_every_crash_point_and_every_torn_write(make: Callable[[], Writer], spare: bytes) -> None:
    writer = make()
    writer.spare = spare
    cases = 0
    for count, op in enumerate(writer.ops):
        before = writer.run({}, count)
        if op.offset == 0:
            states = [before]
        else:
            old = before[op.segment][op.offset : op.offset + len(op.data)]
            states = [writer.step(before, op, data) for data in torn(old, op.data)]
        whole = writer.step(before, op, op.data)
        for files in states:
            found = judge(files)
            if not files:
                assert found.outcome == "empty"
                continue
            expected = writer.entries(count + 1 if files == whole else count)
            assert found.outcome in ("good", "torn"), (count, found.outcome, found.where, found.why)
            assert entries(found) == expected
            fixed, after = repair(files, found)
            again = judge(after.run(fixed))
            assert again.outcome == "good", (count, again.why)
            assert entries(again) == expected + after.entries()
            assert again.boot == found.boot + 1
            cases += 1
    assert cases > 150


def test_what_was_cut_never_comes_back_after_a_second_crash() -> None:
    """The write after a cut is torn too, over the place of the first one, and long enough to reach its blocks."""
    first = Writer().begin().write((ACCEPT, 0, 0, b"kept"))
    base = first.run({})
    first.write(*[(ACCEPT, 0, 1 + i, b"lost" * 600) for i in range(6)])
    op = first.ops[-1]
    old = base[op.segment][op.offset : op.offset + len(op.data)]
    cases = 0
    for data in torn(old, op.data):
        if data == op.data:
            continue
        files, writer = repair(first.step(base, op, data), judge(first.step(base, op, data)))
        files = writer.run(files)
        writer.write(*[(ACCEPT, 0, 1 + i, b"next" * 600) for i in range(6)])
        last = writer.ops[-1]
        was = files[last.segment][last.offset : last.offset + len(last.data)]
        for again in itertools.islice(torn(was, last.data), 0, None, 7):
            found = judge(writer.step(files, last, again))
            assert found.outcome in ("good", "torn")
            kept = writer.entries(-1 if again != last.data else None)
            assert entries(found) == first.entries(-1) + kept
            cases += 1
    assert cases > 300


def test_every_flipped_byte() -> None:
    """A flipped byte is damage; in the last write, which nothing seals, it cuts that write; behind it, it is erased."""
    writer = small()
    good = writer.run({})
    all_entries = writer.entries()
    assert entries(judge(good)) == all_entries
    last = writer.ops[-1]
    data = bytearray(good[1])
    end = last.offset + len(last.data)
    seen = {"damaged": 0, "cut": 0, "erased": 0}
    for at in range(SIZE):
        for flip in (0xFF, 1 << at % 8) if at < end else (0x10,):
            data[at] ^= flip
            found = recover([(1, data)])
            if at < last.offset:
                assert found.outcome == "damaged", at
                seen["damaged"] += 1
            else:
                assert found.outcome == "torn", at
                assert found.cut == (1, last.offset if at < end else end)
                assert any(offset <= at < offset + length for _, offset, length in found.erase)
                assert entries(found) == all_entries  # the seal holds no record
                seen["cut" if at < end else "erased"] += 1
            del found
            data[at] ^= flip
    assert all(seen.values())


def test_every_flipped_byte_of_an_unsealed_last_write() -> None:
    writer = Writer().begin().write(*all_types()).write(*all_types())
    good = writer.run({})
    last = writer.ops[-1]
    data = bytearray(good[1])
    for at in range(BLOCK, last.offset + len(last.data)):
        data[at] ^= 0x40
        found = recover([(1, data)])
        if at < last.offset:
            assert found.outcome == "damaged", at
        else:
            assert found.outcome == "torn", at
            assert entries(found) == writer.entries(-1)
        del found
        data[at] ^= 0x40


def test_every_flipped_byte_over_two_segments() -> None:
    writer = two_segments(3000)
    good = writer.run({})
    last = writer.ops[-1]
    files = {number: bytearray(data) for number, data in good.items()}
    ended = next(op for op in reversed(writer.ops) if op.segment == 1 and op.offset)
    for number, at in itertools.chain(
        ((1, i) for i in range(0, ended.offset + len(ended.data), 3)), ((2, i) for i in range(0, last.offset, 3))
    ):
        files[number][at] ^= 0x81
        found = recover(list(files.items()))
        assert found.outcome == "damaged", (number, at)
        del found
        files[number][at] ^= 0x81


# ---- the table, row by row ----


def header_of_version(header: bytes, version: int) -> bytes:
    changed = header[:8] + struct.pack("<I", version) + header[12:]
    return changed[:4] + struct.pack("<I", google_crc32c.value(changed[8:])) + changed[8:]


def reseal(data: bytes, number: int) -> bytes:
    """A record with its crc made right again."""
    seed = google_crc32c.value(struct.pack("<QQQ", *INCARNATION, number))
    size = struct.unpack_from("<I", data, 8)[0]
    return struct.pack("<I", google_crc32c.extend(seed, data[4 : 32 + size])) + data[4:]


def test_row_1_no_segment_is_a_new_log() -> None:
    found = recover([])
    assert (found.outcome, found.row, found.boot, found.records) == ("empty", 1, 0, [])


@pytest.mark.parametrize("number", [1, 2])
def test_row_2_a_bad_header_of_a_segment_in_use(number: int) -> None:
    found = judge(put(two_segments().run({}), number, 20, b"\xff"))
    assert (found.outcome, found.row, found.where) == ("damaged", 2, (number, 0))


def test_row_2_a_lost_header_block_of_a_segment_that_was_never_written() -> None:
    writer = Writer().begin().rotate()
    assert judge(writer.run({})).outcome == "good"
    found = judge(put(writer.run({}), 2, 0, bytes(BLOCK)))
    assert (found.row, found.where) == (2, (2, 0))


@pytest.mark.parametrize("data", [b"", bytes(100), bytes(SIZE), b"\xff" * SIZE])
def test_row_2_a_first_segment_that_is_none(data: bytes) -> None:
    assert judge({1: data}).row == 2


def test_row_3_a_segment_of_a_later_version() -> None:
    files = small().run({})
    found = judge(put(files, 1, 0, header_of_version(files[1][:BLOCK], 2)))
    assert (found.outcome, found.row) == ("unsupported", 3)
    assert "version 2" in found.why


@pytest.mark.parametrize(("at", "value"), [(12, 2), (13, 10), (13, 0), (13, 255)])
def test_row_3_a_record_of_a_later_version_or_type(at: int, value: int) -> None:
    writer = Writer().begin().write((WATERMARK, 0, 0, b"x" * 16))
    files = writer.run({})
    place = writer.ops[-1].offset + 56
    record = bytearray(files[1][place : place + 48])
    record[at] = value
    found = judge(put(files, 1, place, reseal(bytes(record), 1)))
    assert (found.outcome, found.row) == ("unsupported", 3)


def test_row_3_a_write_of_a_later_version() -> None:
    writer = Writer().begin().write((WATERMARK, 0, 0, b"x" * 16))
    files = writer.run({})
    place = writer.ops[-1].offset
    head = bytearray(files[1][place : place + 56])
    head[12] = 2
    assert judge(put(files, 1, place, reseal(bytes(head), 1))).outcome == "unsupported"


def three_segments() -> Files:
    return Writer().begin().rotate().write((ACCEPT, 0, 1, b"a")).rotate().write((ACCEPT, 0, 2, b"b")).run({})


def test_row_4_a_missing_middle_segment() -> None:
    files = three_segments()
    del files[2]
    found = judge(files)
    assert (found.outcome, found.row, found.where) == ("damaged", 4, (2, 0))


def test_row_5_a_missing_oldest_segment_is_told_from_a_recycled_one() -> None:
    files = three_segments()
    del files[1]
    assert (judge(files).row, judge(files).where) == (5, (1, 0))
    writer = Writer().begin().rotate().write((ACCEPT, 0, 1, b"a")).rotate()
    writer.log.keep_from(2)
    files = writer.write(empty=True).run({})
    assert judge(files).outcome == "good"
    del files[1]
    found = judge(files)
    assert (found.outcome, found.oldest) == ("good", 2)
    assert entries(found) == [(ACCEPT, 0, 1, b"a")]
    del files[2]
    assert judge(files).row == 5


def test_row_6_segments_that_do_not_belong_together() -> None:
    files = three_segments()
    other = Layout(SIZE, node=1, incarnation=(1, 1))
    assert judge(put(files, 2, 0, other.header(2))).row == 6
    assert judge(put(files, 2, 0, Layout(SIZE, node=2, incarnation=INCARNATION).header(2))).row == 6
    assert judge(put(files, 2, 0, files[3][:BLOCK])).row == 6
    assert judge({**files, 3: files[3][:-BLOCK]}).row == 6
    assert judge({**files, 3: files[3] + bytes(BLOCK)}).row == 6
    stranger = Writer().begin().write((ACCEPT, 0, 9, b"z")).rotate().run({})
    assert judge({1: files[1], 2: stranger[2]}).row == 6


def test_row_7_a_missing_newest_segment() -> None:
    files = three_segments()
    del files[3]
    found = judge(files)
    assert (found.outcome, found.row, found.where) == ("damaged", 7, (3, 0))
    del files[2]
    assert (judge(files).row, judge(files).where) == (7, (2, 0))


def test_row_8_a_bad_place_below_what_was_durable() -> None:
    writer = small()
    files = writer.run({})
    op = writer.ops[2]
    found = judge(put(files, 1, op.offset, bytes(len(op.data))))
    assert (found.outcome, found.row, found.where) == ("damaged", 8, (1, op.offset))
    assert str(found.durable % SIZE) in found.why
    files = two_segments().run({})
    assert judge(put(files, 1, BLOCK, bytes(SIZE - BLOCK))).row == 8


def test_row_8_the_proof_may_be_a_write_that_is_itself_torn() -> None:
    writer = Writer().begin().write((ACCEPT, 0, 0, b"a")).write((ACCEPT, 0, 1, b"b" * 9000))
    files = writer.run({})
    files = put(files, 1, writer.ops[-1].offset + BLOCK, bytes(BLOCK))
    assert judge(files).outcome == "torn"
    assert judge(put(files, 1, writer.ops[-2].offset + 60, b"\xff")).row == 8


@pytest.mark.parametrize("field_at", [32, 40, 44, 48, 8, 16])
def test_row_9_a_write_whose_fields_cannot_be(field_at: int) -> None:
    writer = Writer().begin().write((ACCEPT, 0, 0, b"a"))
    files = writer.run({})
    place = writer.ops[-1].offset
    head = bytearray(files[1][place : place + 56])
    head[field_at : field_at + 4] = {8: b"\x10\0\0\0", 40: b"\0\0\0\0"}.get(field_at, b"\xff\xff\xff\x7f")
    found = judge(put(files, 1, place, reseal(bytes(head), 1)))
    assert (found.outcome, found.row) == ("damaged", 9)


def test_row_9_an_identity_of_another_node() -> None:
    writer = Writer().begin()
    writer.write((IDENTITY, 0, 0, struct.pack("<QQII", *INCARNATION, 2, 1)))
    assert judge(writer.run({})).row == 9


def test_rows_10_and_11_the_end_of_the_log() -> None:
    writer = small()
    files = writer.run({})
    found = judge(files)
    assert (found.outcome, found.row, found.erase) == ("good", 10, [])
    assert found.cut is not None
    found = judge(put(files, 1, SIZE - 1, b"\x01"))
    assert (found.outcome, found.row, found.erase) == ("torn", 11, [(1, SIZE - BLOCK, BLOCK)])


def test_what_is_not_proven_durable_is_written_again() -> None:
    writer = Writer().begin().write((ACCEPT, 0, 0, b"a" * 5000))
    last = writer.ops[-1]
    assert judge(writer.run({})).rewrite == [(1, last.offset, len(last.data))]
    files = writer.run({})
    writer.write((ACCEPT, 0, 1, b"b" * 9000))
    files = writer.run({})
    torn_write = writer.ops[-1]
    found = judge(put(files, 1, torn_write.offset + BLOCK, bytes(BLOCK)))
    assert found.outcome == "torn"
    assert found.rewrite == []  # the torn write says that all before it was durable
    writer.rotate()
    end = writer.ops[-1]
    found = judge(writer.run({}))
    assert found.cut == (2, BLOCK)
    assert found.rewrite == [(1, end.offset, len(end.data))]


def unfinished() -> Writer:
    """Segment 2 was begun; the write that ends segment 1 has not arrived."""
    return Writer().begin().write((ACCEPT, 0, 0, b"a")).rotate()


@pytest.mark.parametrize("header", ["good", "zero", "torn"])
def test_row_12_an_unfinished_change_of_segments(header: str) -> None:
    writer = unfinished()
    files = writer.run({}, -1)
    if header != "good":
        files = put(files, 2, 0, bytes(BLOCK) if header == "zero" else b"\xff" * 512)
    found = judge(files)
    assert (found.outcome, found.row, found.drop) == ("torn", 12, [2])
    assert entries(found) == writer.entries()
    fixed, after = repair(files, found)
    assert sorted(fixed) == [1]
    after.rotate().write((ACCEPT, 0, 1, b"c"))
    again = judge(after.run(fixed))
    assert (again.outcome, entries(again)) == ("good", writer.entries() + after.entries())


def test_row_13_a_later_segment_that_cannot_be() -> None:
    writer = unfinished()
    files = writer.run({}, -1)
    longer = Writer().begin().write((ACCEPT, 0, 0, b"a")).write((ACCEPT, 0, 1, b"a")).run({})
    assert judge({1: longer[1], 2: files[2]}).row == 13
    assert judge({**files, 3: bytes(SIZE)}).outcome == "damaged"


def test_a_value_that_holds_bytes_of_a_log_is_no_proof() -> None:
    """A write is torn whose value has a write of this very log in it, at a block boundary: it proves nothing there."""
    later = Writer()
    later.log.resume(1, 13 * BLOCK, 0, 1, 1)
    copied = later.write((ACCEPT, 0, 9, b"z")).ops[-1].data
    writer = small()
    filler = (ACCEPT, 0, 7, b"\x01" * (BLOCK - 56 - 64))
    files = writer.write(filler, (ACCEPT, 0, 8, copied)).run({})
    op = writer.ops[-1]
    assert judge(files).outcome == "good"
    assert files[1][op.offset + BLOCK :].startswith(copied)
    hurt = put(files, 1, op.offset, bytes(BLOCK))
    assert judge(hurt).outcome == "torn"
    assert judge(put(hurt, 1, 13 * BLOCK, copied)).row == 8  # where it says it belongs it would be one


def test_a_record_of_another_history_is_no_part_of_this_one() -> None:
    """Its crc is right, and the crc that it names as the one before it is not."""
    writer = Writer().begin().write((WATERMARK, 0, 0, b"x" * 16))
    files = writer.run({})
    place = writer.ops[-1].offset + 56
    changed = bytearray(files[1][place : place + 48])
    changed[4] ^= 1
    found = judge(put(files, 1, place, reseal(bytes(changed), 1)))
    assert (found.outcome, entries(found)) == ("torn", writer.entries(-1))


@pytest.mark.parametrize("field_at", [4, 24])
def test_a_write_of_another_history_or_position_is_none(field_at: int) -> None:
    """Nothing stands in it or behind it that could notice instead."""
    writer = Writer().begin().write(empty=True)
    files = writer.run({})
    place = writer.ops[-1].offset
    changed = bytearray(files[1][place : place + 56])
    changed[field_at] ^= 8
    found = judge(put(files, 1, place, reseal(bytes(changed), 1)))
    assert (found.outcome, found.cut) == ("torn", (1, place))


def test_a_recycled_segment_never_shows_its_old_records() -> None:
    old = recycled()
    writer = Writer(spare=old).begin().write((ACCEPT, 0, 1, b"new"))
    found = judge(writer.run({}))
    assert (found.outcome, entries(found)) == ("torn", writer.entries())
    assert sum(length for *_, length in found.erase) > SIZE // 2
    assert old[BLOCK:].strip(b"\0") != b""


def test_identity_and_boot_come_out() -> None:
    found = judge(small().run({}))
    assert (found.incarnation, found.node, found.boot, found.segment_size) == (INCARNATION, 1, 1, SIZE)
    files, writer = repair(small().run({}), found)
    assert judge(writer.run(files)).boot == 2


# ---- anything at all ----

BASE = two_segments(3000)
GOOD = BASE.run({})
TRUE = BASE.entries()


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=6000)), max_size=3))
def test_random_bytes_never_crash(segments: list[tuple[int, bytes]]) -> None:
    found = recover(segments)
    assert found.outcome == ("empty" if not segments else "damaged")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2]), st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=200)), max_size=4
    ),
    st.lists(
        st.tuples(st.sampled_from([1, 2]), st.integers(0, SIZE // BLOCK), st.integers(0, SIZE // BLOCK)), max_size=2
    ),
    st.sampled_from([None, None, None, 1, 2]),
)
def test_no_damage_ever_yields_a_changed_record(
    patches: list[tuple[int, int, bytes]], moves: list[tuple[int, int, int]], missing: int | None
) -> None:
    files = dict(GOOD)
    for number, offset, data in patches:
        files = put(files, number, offset, data[: SIZE - offset])
    for number, source, target in moves:
        block = files[number][source * BLOCK : (source + 1) * BLOCK]
        files = put(files, 3 - number, target * BLOCK, block) if target * BLOCK + len(block) <= SIZE else files
    if missing is not None:
        del files[missing]
    found = judge(files)
    got = entries(found)
    if found.outcome in ("good", "torn"):
        assert got == TRUE[: len(got)]
        assert len(got) >= len(TRUE) - 1  # only the last write, which nothing seals, may go
    else:
        assert (found.outcome, got) == ("damaged", [])
        assert found.why
