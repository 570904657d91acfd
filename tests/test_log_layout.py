"""The bytes of the log, decoded by a second implementation that follows docs/formats-log.md and nothing else."""

from __future__ import annotations

import struct

import google_crc32c
import pytest

from paxos._log import Layout

BLOCK = 4096
SIZE = 65536
INCARNATION = (0x1122334455667788, 0x99AABBCCDDEEFF00)
HEADER = struct.Struct("<IIIIQQQQQQII")
RECORD = struct.Struct("<IIIBBHIIQ")
WRITE = struct.Struct("<QIIII")


def crc(data: bytes, seed: int = 0) -> int:
    return int(google_crc32c.extend(seed, data))


def seed_of(number: int) -> int:
    return crc(struct.pack("<QQQ", *INCARNATION, number))


def decode(data: bytes, number: int, previous: int) -> tuple[list[tuple[int, int, int, int, int, bytes]], int]:
    """[(offset, type, flags, group, instance, body)] of one write, and the crc of its last record."""
    found: list[tuple[int, int, int, int, int, bytes]] = []
    at = 0
    records = None
    while records is None or len(found) <= records:
        check, before, size, version, kind, flags, group, zero, instance = RECORD.unpack_from(data, at)
        body = data[at + 32 : at + 32 + size]
        assert (version, zero, before) == (1, 0, previous)
        assert check == crc(data[at + 4 : at + 32 + size], seed_of(number))
        if records is None:
            assert kind == 1
            records = WRITE.unpack(body)[3]
        found.append((at, kind, flags, group, instance, body))
        previous = check
        end = at + 32 + size
        at = (end + 7) // 8 * 8
        assert data[end:at] == bytes(at - end)
    assert data[at:] == bytes(len(data) - at)
    return found, previous


def layout() -> Layout:
    return Layout(SIZE, node=7, incarnation=INCARNATION, boot=3)


def test_a_write_decodes_by_the_book() -> None:
    log = layout()
    bodies = [b"", b"a", b"12345678", bytes(range(256)) * 20, b"\xff" * 31]
    positions = [log.append(6, 5, 1000 + i, body) for i, body in enumerate(bodies)]
    position, data = log.close_write()
    assert position == SIZE + BLOCK
    assert len(data) % BLOCK == 0
    found, last = decode(data, 1, 0)
    assert last == log.previous
    assert WRITE.unpack(found[0][5]) == (position, 3, len(data), len(bodies), 1)
    assert found[0][1:5] == (1, 0, 0, position)
    assert [f[5] for f in found[1:]] == bodies
    assert [f[1:5] for f in found[1:]] == [(6, 0, 5, 1000 + i) for i in range(len(bodies))]
    assert [position + f[0] for f in found[1:]] == positions


def test_the_chain_goes_over_writes_and_segments() -> None:
    log = layout()
    previous = 0
    for i in range(3):
        log.append(8, 0, i, b"x" * i)
        _, data = log.close_write()
        _, previous = decode(data, 1, previous)
        log.written()
    assert log.position == (1, 4 * BLOCK)
    before = log.durable
    position, data = log.close_write(end=True)
    found, previous = decode(data, 1, previous)
    assert len(found) == 1
    assert found[0][2] == 1
    header = log.header(2)
    fields = HEADER.unpack_from(header)
    assert fields == (0x31535850, crc(header[8:]), 1, 7, 2, SIZE, *INCARNATION, before, 1, previous, 0)
    assert header[72:] == bytes(BLOCK - 72)
    assert before == position
    log.written()
    log.next_segment()
    assert log.position == (2, BLOCK)
    assert log.append(5, 0, 0, b"y" * 32) == 2 * SIZE + BLOCK + 56
    _, data = log.close_write()
    found, _ = decode(data, 2, previous)
    assert WRITE.unpack(found[0][5])[0] == 2 * SIZE + BLOCK == log.durable


def test_the_last_block_is_left_for_the_end() -> None:
    log = layout()
    whole = SIZE - 2 * BLOCK - 56 - 32
    assert not log.fits(whole + 1)
    assert log.fits(whole)
    with pytest.raises(ValueError, match="does not fit"):
        log.append(6, 0, 0, bytes(whole + 1))
    log.append(6, 0, 0, b"\x01" * whole)
    assert not log.fits(0)
    _, data = log.close_write()
    assert len(data) == SIZE - 2 * BLOCK
    log.written()
    assert log.position == (1, SIZE - BLOCK)
    with pytest.raises(ValueError, match="last block"):
        log.close_write(empty=True)
    _, data = log.close_write(end=True)
    assert len(data) == BLOCK


@pytest.mark.parametrize("size", [2**30, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
def test_a_size_beyond_every_segment_does_not_fit(size: int) -> None:
    assert not layout().fits(size)


def test_nothing_pending_is_nothing_to_write() -> None:
    log = layout()
    assert log.close_write() == (SIZE + BLOCK, b"")
    _, data = log.close_write(empty=True)
    assert WRITE.unpack(decode(data, 1, 0)[0][0][5])[3] == 0


@pytest.mark.parametrize("size", [0, 4096, 61440, 65537, 2**30 + 4096, 2**63])
def test_a_segment_size_out_of_bounds_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="segment_size"):
        Layout(size)


def test_the_buffer_grows_with_what_was_laid_out_kept() -> None:
    log = Layout(1 << 20, incarnation=INCARNATION)
    bodies = [bytes([i]) * (i * 2500 + 1) for i in range(26)]
    for i, body in enumerate(bodies):
        log.append(6, 0, i, body)
    _, data = log.close_write()
    assert [f[5] for f in decode(data, 1, 0)[0][1:]] == bodies


def test_a_closed_write_takes_no_more() -> None:
    log = layout()
    log.append(6, 0, 0, b"")
    log.close_write()
    with pytest.raises(ValueError, match="closed"):
        log.append(6, 0, 1, b"")
    with pytest.raises(ValueError, match="closed"):
        log.close_write()
    log.written()
    with pytest.raises(ValueError, match="closed"):
        log.written()


def test_the_crc_covers_number_and_incarnation() -> None:
    blocks = set()
    for incarnation, number in [((1, 2), 1), ((1, 2), 2), ((1, 3), 1), ((2, 2), 1)]:
        log = Layout(SIZE, incarnation=incarnation)
        log.resume(number, BLOCK, 0, 1, 1)
        log.append(6, 0, 0, b"same")
        _, data = log.close_write()
        blocks.add(data[56:60])
    assert len(blocks) == 4
