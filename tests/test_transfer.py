"""Fetching a checkpoint, message by message: sources that lie, vanish, or have nothing; messages that are lost; the rate."""

from __future__ import annotations

import heapq
import random
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paxos._folder import Folder
from paxos.checkpoint import CheckpointStore
from paxos.manifest import MAX_MANIFEST, PIECE, PLAIN, Entry, Manifest
from paxos.transfer import Fetch, Server, pack_offer

SIGNATURE = bytes(range(16))
SECOND = 10**9


class Time:
    """Work is done at once; time is virtual, and shared by all nodes."""

    def __init__(self) -> None:
        self.now = SECOND
        self.due: list[tuple[int, int, Callable[[], object]]] = []
        self.count = 0

    def run(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]) -> None:
        try:
            result, error = work(), None
        except Exception as caught:
            result, error = None, caught
        self.later(0, lambda: done(result, error))

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        self.count += 1
        heapq.heappush(self.due, (self.now + int(seconds * SECOND), self.count, call))

    def deliver(self) -> None: ...
    def close(self) -> None: ...

    def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        end = self.now + int(seconds * SECOND)
        while not condition():
            assert self.due, "nothing goes on any more"
            at, _, call = heapq.heappop(self.due)
            assert at <= end, f"not within {seconds} s"
            self.now = max(self.now, at)
            call()


class Net:
    """One node that fetches (9), and sources 1, 2, …; ``lie(source, data)`` changes or drops (None) what a source says."""

    def __init__(self, path: Path, checkpoints: dict[int, int], master: int = 0) -> None:
        self.time = Time()
        self.sources: dict[int, Server] = {}
        self.offers: dict[int, int] = checkpoints
        self.master = master
        self.needed = 0
        self.lie: Callable[[int, bytes], bytes | None] = lambda source, data: data
        self.folders = [Folder(path / str(node)) for node in [*checkpoints, 9]]
        stores = [CheckpointStore(folder.files()) for folder in self.folders]
        self.here = stores.pop()
        self.asked: list[tuple[int, int]] = []  # (source, type)
        self.parts: list[tuple[int, int]] = []  # (source, part of its manifest)
        for node, store in zip(checkpoints, stores, strict=True):
            server = self.sources[node] = Server(
                self._carrier(node), self.time, store, lambda: self.time.now, lambda instance, why: None
            )
            if checkpoints[node]:
                server.offer(make(store, checkpoints[node]))
        self.done: list[Manifest | None] = []
        self.fetch: Fetch | None = None

    def _carrier(self, source: int) -> Any:
        net = self

        class Carrier:
            def send(self, node: int, data: bytes) -> bool:
                said = net.lie(source, data)
                if said is not None:
                    net.time.later(0.001, lambda: net.fetch and net.fetch.receive(source, said))
                return True

        return Carrier()

    def send(self, node: int, data: bytes) -> bool:
        self.asked.append((node, data[0]))
        if data[0] == 3:
            self.parts.append((node, *struct.unpack_from("<I", data, 9)))

        def offer(number: int, needed: int) -> bytes:
            self.needed = needed
            return pack_offer(number, node == self.master, 1000, 500, self.sources[node].newest)

        self.time.later(0.001, lambda: self.sources[node].answer(9, data, offer))
        return True

    def start(self, needed: int = 1, rate: float = 0) -> None:
        self.fetch = Fetch(
            self,
            self.time,
            self.here,
            sorted(self.sources),
            lambda: self.time.now,
            lambda: needed,
            self.done.append,
            rate=rate,
        )

    def end(self, seconds: float = 60) -> Manifest | None:
        self.time.until(lambda: bool(self.done), seconds)
        assert len(self.done) == 1
        return self.done[0]


def content(instance: int) -> bytes:
    """Three pieces that do not shrink."""
    return random.Random(instance).randbytes(3 << 20)


def make(store: CheckpointStore, instance: int) -> Manifest:
    with store.begin(instance, instance * 3, SIGNATURE, b"members") as writer:
        with writer.stream(0) as stream:
            stream.write(content(instance))
        return writer.commit()


def holds(net: Net, instance: int) -> None:
    (manifest,) = [manifest for manifest in net.here.list() if manifest.instance == instance]
    net.here.verify(manifest)
    with net.here.open_stream(manifest, 0) as stream:
        assert stream.read(1 << 30) == content(instance)


def test_the_newest_is_fetched_and_from_the_master_only_if_nobody_else_has_it(tmp_path: Path) -> None:
    net = Net(tmp_path, {1: 70, 2: 70, 3: 50}, master=1)
    net.start()
    manifest = net.end()
    assert manifest is not None
    assert manifest.instance == 70
    holds(net, 70)
    assert {node for node, kind in net.asked if kind != 1} == {2}
    net = Net(tmp_path / "b", {1: 70, 2: 0, 3: 50}, master=1)
    net.start()
    net.end()
    holds(net, 70)


def test_nobody_has_what_would_help(tmp_path: Path) -> None:
    net = Net(tmp_path, {1: 70, 2: 0})
    net.start(71)
    assert net.end() is None
    assert net.needed == 71, "they are told, and may make one"


@pytest.mark.parametrize("what", ["bits", "short", "long", "other", "manifest", "gone", "nothing"])
def test_a_source_that_lies_or_has_it_no_longer_is_left_for_another(tmp_path: Path, what: str) -> None:
    """No byte is taken that the manifest does not vouch for; the other source has a checkpoint that is a little older."""
    net = Net(tmp_path, {1: 70, 2: 60})

    def lie(source: int, data: bytes) -> bytes | None:
        if source != 1:
            return data
        if data[0] == 4:
            if what == "manifest":
                return data[:40] + bytes([data[40] ^ 1]) + data[41:]
            return data[:13] + bytes(8) if what == "gone" else None if what == "nothing" else data
        if data[0] == 6 and len(data) > 100:
            return {
                "bits": data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
                "short": data[:-1],
                "long": data + b"\0",
                "other": data[:17] + data[17 : 17 + PIECE][::-1],
            }[what]
        return data

    net.lie = lie
    net.start()
    manifest = net.end()
    assert manifest is not None
    assert manifest.instance == 60
    holds(net, 60)
    assert 70 not in [m.instance for m in net.here.list()]


def test_what_is_lost_is_asked_for_again(tmp_path: Path) -> None:
    net = Net(tmp_path, {1: 70})
    seen: set[bytes] = set()

    def lie(source: int, data: bytes) -> bytes | None:
        if data[:17] in seen:
            return data
        seen.add(data[:17])
        return None  # everything is lost once

    net.lie = lie
    net.start()
    # The first survey finds nobody: asked again by whoever wants it.
    assert net.end() is None
    net.done.clear()
    net.start()
    manifest = net.end()
    assert manifest is not None
    holds(net, 70)


def test_a_source_that_falls_silent_is_left(tmp_path: Path) -> None:
    net = Net(tmp_path, {1: 70, 2: 70})
    pieces = []

    def lie(source: int, data: bytes) -> bytes | None:
        if data[0] == 6:
            pieces.append(source)
            if source == 2 or len(pieces) > 2:
                return data if source != pieces[0] else None
        return data

    net.lie = lie
    net.start()
    assert net.end() is not None
    holds(net, 70)
    assert len(set(pieces)) == 2


def test_the_rate_is_kept(tmp_path: Path) -> None:
    net = Net(tmp_path, {1: 70})
    begun = net.time.now
    net.start(rate=PIECE / 4)
    manifest = net.end()
    assert manifest is not None
    pieces = sum(len(entry.pieces) for entry in manifest.entries)
    assert pieces >= 3
    assert (net.time.now - begun) / SECOND >= 4 * (pieces - 1)


def test_one_that_is_there_already_is_not_fetched_again(tmp_path: Path) -> None:
    net = Net(tmp_path, {1: 70})
    make(net.here, 70)
    net.start()
    assert net.end() is not None
    assert (1, 5) not in net.asked


def test_one_that_is_there_and_rotten_is_fetched_again(tmp_path: Path) -> None:
    net = Net(tmp_path, {1: 70})
    make(net.here, 70)
    (data,) = (tmp_path / "9" / "checkpoints").glob("*.data")
    raw = bytearray(data.read_bytes())
    raw[12345] ^= 1
    data.write_bytes(raw)
    net.start()
    assert net.end() is not None
    holds(net, 70)
    assert (1, 5) in net.asked


def test_a_closed_fetch_says_nothing_more(tmp_path: Path) -> None:
    net = Net(tmp_path, {1: 70})
    net.start()
    net.time.until(lambda: (1, 5) in net.asked)
    assert net.fetch is not None
    net.fetch.close()
    while net.time.due:
        at, _, call = heapq.heappop(net.time.due)
        net.time.now = max(net.time.now, at)
        call()
    assert net.done == []
    # What has come is taken up by the next one.
    assert [m.instance for m in net.here.resumable()] == [70]


@pytest.mark.parametrize(
    "data",
    [
        b"\x01",
        b"\x03abc",
        b"\x03" + bytes(8),
        b"\x03" + struct.pack("<QI", 70, 0xFFFFFFFF),
        b"\x05",
        b"\x05" + bytes(16),
        b"\x05" + struct.pack("<QII", 70, 9, 9),
        b"\x09",
    ],
)
def test_questions_that_make_no_sense_harm_nobody(tmp_path: Path, data: bytes) -> None:
    net = Net(tmp_path, {1: 70})
    net.sources[1].answer(9, data, lambda number, needed: b"")
    while net.time.due:
        heapq.heappop(net.time.due)[2]()


def test_one_whose_manifest_is_there_and_rotten_is_fetched_again(tmp_path: Path) -> None:
    net = Net(tmp_path, {1: 70})
    make(net.here, 70)
    (manifest,) = (tmp_path / "9" / "checkpoints").glob("*.manifest")
    manifest.write_bytes(b"rotten")
    net.start()
    assert net.end() is not None
    holds(net, 70)


# -- manifests that take more than one message


def part(data: bytes) -> tuple[int, int]:
    """(part, total) of a MANIFEST."""
    number, total = struct.unpack_from("<II", data, 9)
    return number, total


def ask_part(server: Server) -> None:
    server.answer(9, b"\x03" + struct.pack("<QI", 70, 0), lambda number, needed: b"")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Parts of 16 bytes: how many of them the manifest of ``make`` takes."""
    monkeypatch.setattr("paxos.transfer.PART", 16)
    return 7


def test_a_manifest_of_several_parts_is_fetched_and_encoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net(tmp_path, {1: 70})
    server = net.sources[1]
    assert server.best is not None
    paths = (f"{i:04}" + "x" * 1000 for i in range(2200))
    large = replace(
        server.best, entries=(*server.best.entries, *(Entry(0, path, 0, 0, PLAIN, 0, ()) for path in paths))
    )
    server.offer(large)
    encode = Manifest.encode
    encoded = []

    def counted(self: Manifest) -> bytes:
        encoded.append(self is large)
        return encode(self)

    monkeypatch.setattr(Manifest, "encode", counted)
    sizes = []

    def lie(source: int, data: bytes) -> bytes:
        if data[0] == 4:
            sizes.append(len(data) - 21)
        return data

    net.lie = lie
    for _ in range(2):  # two nodes at once
        ask_part(server)
    net.start()
    assert net.end() == large
    holds(net, 70)
    assert net.parts == [(1, 0), (1, 1), (1, 2)]
    assert sum(sizes[-3:]) == len(encode(large)) > 2 << 20
    assert max(sizes) == 1 << 20
    assert encoded.count(True) == 1


@pytest.mark.parametrize("what", ["lost", "twice", "late"])
def test_parts_may_be_lost_or_come_twice_or_late(tmp_path: Path, parts: int, what: str) -> None:
    net = Net(tmp_path, {1: 70})
    seen: set[int] = set()

    def lie(source: int, data: bytes) -> bytes | None:
        if data[0] != 4:
            return data
        again = part(data)[0] in seen
        seen.add(part(data)[0])
        if what == "twice":
            for seconds in (0.001, 0.002, 0.004):
                net.time.later(seconds, lambda: net.fetch and net.fetch.receive(source, data))
        elif what == "late" and not again:
            # Just behind the answer to the question that was asked again.
            net.time.later(3.005, lambda: net.fetch and net.fetch.receive(source, data))
        return data if again or what == "twice" else None

    net.lie = lie
    net.start()
    assert net.end() is not None
    holds(net, 70)
    times = 1 if what == "twice" else 2
    assert net.parts == [(1, number) for number in range(parts) for _ in range(times)]


@pytest.mark.parametrize("what", ["silent", "gone"])
def test_a_source_that_stops_in_the_midst_of_its_manifest_is_left_for_another(
    tmp_path: Path, parts: int, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    net = Net(tmp_path, {1: 70, 2: 60})

    def lie(source: int, data: bytes) -> bytes | None:
        if source == 1 and data[0] == 4 and part(data)[0] == 3:
            if what == "silent":
                return None
            net.sources[1].forget(70)
        return data

    net.lie = lie
    net.start()
    assert net.end() is not None
    holds(net, 60)
    assert [number for source, number in net.parts if source == 2] == list(range(parts))
    assert ("nothing has come for 6 s" if what == "silent" else "it has that checkpoint no longer") in caplog.text


@pytest.mark.parametrize("change", [{"chain": 5}, {"membership": b"more members"}, {"membership": b""}])
def test_a_manifest_that_changes_between_its_parts_is_begun_anew(
    tmp_path: Path, parts: int, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    net = Net(tmp_path, {1: 70})
    server = net.sources[1]
    assert server.best is not None
    other = replace(server.best, **change)

    def lie(source: int, data: bytes) -> bytes:
        if data[0] == 4 and part(data)[0] == parts - 2:
            server.offer(other)
        return data

    net.lie = lie
    net.start()
    assert net.end() == other
    holds(net, 70)
    assert "it has another manifest than before" in caplog.text


def test_a_manifest_that_changes_while_it_is_encoded_is_not_sent(tmp_path: Path) -> None:
    net = Net(tmp_path, {1: 70})
    server = net.sources[1]
    assert server.best is not None
    other = replace(server.best, chain=5)
    ask_part(server)
    server.offer(other)
    net.start()
    assert net.end() == other


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("too large", f"said to have {MAX_MANIFEST + 1} bytes; at most {MAX_MANIFEST} (MAX_MANIFEST) are taken"),
        ("more", "it gives 11 bytes for part 6 of a manifest that is said to have 207"),
        ("growing", "it has another manifest than before"),
        ("less", "it gives 16 bytes for part 0 of a manifest that is said to have 9"),
        ("short", "it gives 1 bytes for part 3"),
        ("none", "it gives 0 bytes for part 3"),
        ("long", "it gives 17 bytes for part 3"),
    ],
)
def test_a_source_that_lies_about_sizes_is_left_for_another(
    tmp_path: Path, parts: int, what: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    net = Net(tmp_path, {1: 70, 2: 60})

    def lie(source: int, data: bytes) -> bytes:
        if source != 1 or data[0] != 4:
            return data
        number, total = part(data)
        lies = {"too large": MAX_MANIFEST + 1, "more": total + 100, "growing": total + number, "less": 9}
        total = lies.get(what, total)
        data = data[:13] + struct.pack("<I", total) + data[17:]
        if number == 3:
            data = {"short": data[:22], "none": data[:21], "long": data + b"\0"}.get(what, data)
        return data

    net.lie = lie
    net.start()
    assert net.end() is not None
    holds(net, 60)
    assert why in caplog.text
    asked = {"too large": 1, "less": 1, "more": parts, "growing": 2}.get(what, 4)
    assert [number for source, number in net.parts if source == 1] == list(range(asked))


def test_the_rate_is_kept_for_parts_of_a_manifest_and_a_closed_fetch_asks_for_no_more(
    tmp_path: Path, parts: int
) -> None:
    """So slowly that a source that was asked would be taken for lost between two parts."""
    net = Net(tmp_path, {1: 70})
    net.start(rate=2)
    begun = net.time.now
    net.time.until(lambda: len(net.parts) == parts)
    assert net.parts == [(1, number) for number in range(parts)]
    assert (net.time.now - begun) / SECOND >= 8 * (parts - 1)
    net = Net(tmp_path / "closed", {1: 70})
    net.start(rate=2)
    net.time.until(lambda: len(net.parts) == 3)
    net.time.until(lambda: net.time.now > begun + 18 * SECOND)
    assert net.fetch is not None
    net.fetch.close()
    while net.time.due:
        heapq.heappop(net.time.due)[2]()
    assert len(net.parts) == 3
