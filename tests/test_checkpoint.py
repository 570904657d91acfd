"""Checkpoints on disk: what goes in comes out, or an error that says where it is damaged; never anything else."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import LARGE, MEMBERSHIP, MIB, SIGNATURE, SMALL, check, kinds, noise, read, words, write
from paxos._codec import checksum
from paxos._folder import Folder
from paxos.checkpoint import CheckpointStore
from paxos.errors import ConfigError, DamagedCheckpoint, StorageError
from paxos.manifest import PLAIN, ZSTD, Entry, Manifest, pieces_of
from paxos.stored import PieceFile, StreamReader
from paxos.testing._simdisk import MemoryDisk


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with closing(Folder(str(tmp_path / "data"))) as made:
        yield made


@pytest.fixture
def store(folder: Folder) -> CheckpointStore:
    return CheckpointStore(folder.files())


def where(store: CheckpointStore) -> Path:
    return Path(store.files.path)


def entry_of(data: bytes, *, path: str = "", plain: int | None = None, codec: int = PLAIN) -> Entry:
    """The entry that tells of these stored bytes."""
    pieces = tuple(checksum(data[i : i + MIB]) for i in range(0, len(data), MIB))
    return Entry(1, path, len(data), len(data) if plain is None else plain, codec, checksum(data), pieces)


def manifest_of(*entries: Entry) -> Manifest:
    return Manifest(9, 77, SIGNATURE, MEMBERSHIP, entries)


# ---- the whole way ----


@pytest.mark.parametrize("content", [{}, SMALL, LARGE], ids=["nothing", "small", "large"])
def test_what_goes_in_comes_out(store: CheckpointStore, content: dict[tuple[int, str], bytes]) -> None:
    assert store.list() == []
    manifest = write(store, 9, content)
    assert (manifest.instance, len(manifest.entries)) == (9, len(content))
    assert store.list() == [manifest]
    check(store, manifest, content)
    assert kinds(store.files, 9) == sorted([*(f"-{i}.data" for i in range(len(content))), ".manifest"])
    with closing(Folder(str(where(store).parent))) as again:
        check(CheckpointStore(again.files()), manifest, content)


def test_it_is_there_when_it_is_committed_and_not_before(store: CheckpointStore) -> None:
    old = write(store, 5, SMALL)
    writer = store.begin(9, 77, SIGNATURE, MEMBERSHIP)
    stream = writer.stream(1)
    stream.write(b"state")
    with pytest.raises(StorageError, match=r"stream of state machine 1 is not closed"):
        writer.commit()
    stream.close()
    stream.close()
    for call in (lambda: store.remove(9), lambda: store.begin(9, 77, SIGNATURE, b""), lambda: store.discard(9)):
        with pytest.raises(StorageError, match="being written"):
            call()
    assert store.clean() == []
    assert store.list() == [old]
    new = writer.commit()
    assert store.list() == [new, old]
    writer.abort()
    assert store.list() == [new, old]
    with pytest.raises(StorageError, match="there already"):
        store.begin(9, 77, SIGNATURE, b"")
    with pytest.raises(StorageError, match="committed or aborted"):
        writer.stream(2)
    with pytest.raises(StorageError, match="is closed"):
        stream.write(b"more")


def test_what_is_not_committed_is_removed(store: CheckpointStore) -> None:
    with store.begin(9, 77, SIGNATURE, MEMBERSHIP) as writer, writer.stream(1) as stream:
        stream.write(b"state")
        assert kinds(store.files, 9) == ["-0.data"]
    assert store.files.names() == []
    with (
        pytest.raises(ZeroDivisionError),
        store.begin(9, 77, SIGNATURE, MEMBERSHIP) as writer,
        writer.stream(1) as stream,
    ):
        stream.write(bytes(1 // 0))
    assert store.files.names() == []
    with store.begin(9, 77, SIGNATURE, MEMBERSHIP) as writer:
        with pytest.raises(KeyError), writer.stream(1) as stream:
            raise KeyError
        with pytest.raises(StorageError, match="has failed"):
            writer.commit()
    assert store.files.names() == []


@pytest.mark.parametrize(
    ("data", "codec"),
    [
        (b"", PLAIN),
        (b"x", PLAIN),
        (bytes(100), ZSTD),
        (noise(1, 3 * MIB + 7), PLAIN),
        (words(100_000), ZSTD),
        (noise(1, MIB) + bytes(3 * MIB), PLAIN),  # the first piece decides
        (noise(1, MIB * 92 // 100) + bytes(MIB), PLAIN),
        (noise(1, MIB * 80 // 100) + bytes(MIB), ZSTD),
        (bytes(MIB) + noise(1, 2 * MIB), ZSTD),
    ],
)
def test_compressed_where_that_wins(store: CheckpointStore, data: bytes, codec: int) -> None:
    with store.begin(9, 77, SIGNATURE, MEMBERSHIP) as writer:
        with writer.stream(1) as whole, writer.stream(2) as parts:
            assert whole.write(data) == len(data)
            for start in range(0, len(data), 77_777):
                parts.write(memoryview(data)[start : start + 77_777])
        manifest = writer.commit()
    for entry in manifest.entries:
        assert (entry.codec, entry.plain) == (codec, len(data))
        assert len(entry.pieces) == pieces_of(entry.stored)
    if codec == ZSTD:
        assert manifest.entries[0].stored < len(data)
    check(store, manifest, {(1, ""): data, (2, ""): data})


@pytest.mark.parametrize("data", [noise(1, 2 * MIB + 100), words(150_000)], ids=["plain", "zstd"])
def test_reading_in_parts(store: CheckpointStore, data: bytes) -> None:
    manifest = write(store, 9, {(1, ""): data})
    for size in (1, 1000, MIB - 1, MIB + 1, 3 * MIB):
        with store.open_stream(manifest, 1) as stream:
            for start in range(0, min(len(data), 40 * size), size):
                assert stream.read(size) == data[start : start + size]
            rest = stream.read()
            assert data.endswith(rest)
            assert len(rest) == max(0, len(data) - 40 * size)
            assert stream.read(5) == stream.read() == stream.read(0) == b""
    with store.open_stream(manifest, 1) as stream:
        room = bytearray(1000)
        assert stream.readinto(room) == 1000
        assert room == data[:1000]
    with pytest.raises(ValueError, match="closed"):
        stream.read(1)
    with store.open_stream(manifest, 1) as stream, io.TextIOWrapper(stream, "latin-1", newline="") as text:  # type: ignore[type-var]
        assert text.read() == data.decode("latin-1")


def test_files_of_a_directory(store: CheckpointStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    contents = {"top": words(10), "deep/er/file": noise(1, MIB + 1), "deep/empty": b""}
    with store.begin(9, 77, SIGNATURE, MEMBERSHIP) as writer:
        for path, data in contents.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes(data)
            writer.add_file(4, path, source / path)
        writer.add_file(5, "top", str(source / "top"))
        with pytest.raises(StorageError, match="already"):
            writer.add_file(5, "top", source / "top")
        with pytest.raises(StorageError, match="is empty"):
            writer.add_file(5, "", source / "top")
        with pytest.raises(StorageError, match="absolute"):
            writer.add_file(5, "/top", source / "top")
        with pytest.raises(FileNotFoundError):
            writer.add_file(5, "missing", source / "missing")
        with writer.stream(4) as stream:
            stream.write(b"beside")
        manifest = writer.commit()
    assert store.files_of(manifest, 4) == list(contents)
    assert store.files_of(manifest, 6) == []
    target = tmp_path / "target"
    target.mkdir()
    store.extract(manifest, 4, target)
    found = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert found == contents
    with pytest.raises(StorageError, match="is not empty"):
        store.extract(manifest, 4, target)
    with pytest.raises(StorageError, match="has no stream of state machine 5"):
        store.open_stream(manifest, 5)


def test_writing_is_paced_and_synced_as_it_goes() -> None:
    data = noise(1, 4 * MIB + MIB // 2)
    for seed in range(4):
        disk = MemoryDisk(seed)
        pauses: list[float] = []
        store = CheckpointStore(disk.folder().files(), rate=2 * MIB, pause=pauses.append)
        writer = store.begin(9, 77, SIGNATURE, MEMBERSHIP)
        stream = writer.stream(1)
        store.files.sync_directory()
        stream.write(data)
        assert pauses == [0.5] * 4
        disk.ended(True)  # what is not synced may go; the first 4 MiB are
        with disk.folder().files().open("0000000000000009-0.data") as file:
            assert file.read(0, 4 * MIB) == data[: 4 * MIB]
    for rate, pause in ((None, pauses.append), (1, None), (0, pauses.append)):
        with pytest.raises(ConfigError, match="rate"):
            CheckpointStore(store.files, rate=rate, pause=pause)


def test_progress_is_told(store: CheckpointStore) -> None:
    manifest = write(store, 9, LARGE)
    told: list[tuple[int, int]] = []
    store.verify(manifest, lambda done, of: told.append((done, of)))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1] == (manifest.stored, manifest.stored)
    assert len(told) == 3


# ---- which are there ----


def test_the_newest_come_first_and_what_is_removed_is_gone(store: CheckpointStore) -> None:
    manifests = {n: write(store, n, SMALL) for n in (5, 300, 7)}
    assert store.list() == [manifests[300], manifests[7], manifests[5]]
    store.remove(5)
    assert kinds(store.files, 5) == []
    with store.open_stream(manifests[7], 2) as stream:
        store.remove(7)
        assert stream.read() == SMALL[2, ""]  # who has it open may read on
    assert store.list() == [manifests[300]]
    for call in (store.remove, lambda n: store.verify(manifests[n])):
        with pytest.raises(StorageError):
            call(7)
    check(store, manifests[300], SMALL)
    with pytest.raises(DamagedCheckpoint, match="another one"):
        store.verify(replace(manifests[300], chain=78))


def test_what_a_crash_left_is_cleaned_away_and_nothing_else(store: CheckpointStore) -> None:
    manifest = write(store, 5, SMALL)
    with store.incoming(replace(manifest, instance=8)):
        pass
    (where(store) / f"{6:016x}.manifest").write_bytes(b"damaged")
    (where(store) / f"{6:016x}-0.data").write_bytes(b"its data")
    kept = {*store.files.names(), "foreign", "0000000000000009.data", "000000000000000A-0.data", "9-0.data"}
    left = {
        *(f"{9:016x}{end}" for end in ("-0.data", "-1.part", ".manifest.new")),
        *(f"{10:016x}{end}" for end in ("-0.part", ".manifest.part")),
        *(f"{5:016x}{end}" for end in ("-0.part", ".manifest.part", ".manifest.new")),
    }
    for name in kept.union(left) - set(store.files.names()):
        (where(store) / name).write_bytes(b"left")
    assert set(store.clean()) == left
    assert set(store.files.names()) == kept
    assert store.clean() == []
    check(store, manifest, SMALL)
    assert [m.instance for m in store.resumable()] == [8]
    assert [m.instance for m in store.list()] == [5]
    assert [n for n, _ in store.damaged] == [6]
    store.remove(6)
    assert kinds(store.files, 6) == []


# ---- damage ----


def test_every_flipped_byte_is_found(store: CheckpointStore) -> None:
    manifest = write(store, 9, SMALL)
    good = read(store, manifest)
    for name in store.files.names():
        path = where(store) / name
        whole = path.read_bytes()
        for offset in range(len(whole)):
            bad = bytearray(whole)
            bad[offset] ^= 1 << offset % 8
            path.write_bytes(bad)
            if name.endswith(".manifest"):
                assert store.list() == []
                [(instance, why)] = store.damaged
                assert instance == 9
                assert name in why
                with pytest.raises(DamagedCheckpoint, match=name):
                    Manifest.decode(bytes(bad), name)
            else:
                number = int(name[17 : name.index(".")])
                entry = manifest.entries[number]
                with store.open_stream(manifest, entry.machine, entry.path) as stream, pytest.raises(DamagedCheckpoint):
                    stream.read()
                with pytest.raises(DamagedCheckpoint, match=name):
                    store.piece(manifest, number, 0)
            with pytest.raises(DamagedCheckpoint, match=f"{name}, offset "):
                store.verify(manifest)
        path.write_bytes(whole)
    check(store, manifest, good)


def test_the_damage_has_a_place(store: CheckpointStore, tmp_path: Path) -> None:
    manifest = write(store, 9, LARGE)
    path = where(store) / f"{9:016x}-0.data"
    whole = path.read_bytes()
    for bad, offset in (
        (whole[:MIB] + b"?" + whole[MIB + 1 :], MIB),
        (whole[:-1], len(whole) - 1),
        (whole + b"?", len(whole)),
        (None, 0),
    ):
        if bad is None:
            path.unlink()
        else:
            path.write_bytes(bad)
        with pytest.raises(DamagedCheckpoint, match=f"{path.name}, offset {offset}: "):
            store.verify(manifest)
        with pytest.raises(DamagedCheckpoint), store.open_stream(manifest, 1) as stream:
            stream.read()
        with pytest.raises(DamagedCheckpoint):
            store.piece(manifest, 0, 1)
    assert store.list() == []
    assert store.damaged == [(9, f"{path.name}, offset 0: the file is missing")]
    with pytest.raises(StorageError, match="no piece 2 of entry 0"):
        store.piece(manifest, 0, 2)


def test_what_a_manifest_tells_of_the_whole_is_checked(store: CheckpointStore) -> None:
    manifest = write(store, 9, LARGE)
    first, *rest = manifest.entries
    wrong = replace(manifest, entries=(replace(first, crc=first.crc ^ 1), *rest))
    (where(store) / f"{9:016x}.manifest").write_bytes(wrong.encode())
    for call in (lambda: store.verify(wrong), store.open_stream(wrong, 1).read):
        with pytest.raises(DamagedCheckpoint, match="the checksum of the whole file is wrong"):
            call()


def test_files_that_change_their_size(store: CheckpointStore) -> None:
    """One that is cut short while it is read; a manifest that no memory would hold."""
    manifest = write(store, 9, LARGE)
    with store.open_stream(manifest, 1) as stream:
        stream.read(10)
        os.truncate(where(store) / f"{9:016x}-0.data", MIB)
        with pytest.raises(DamagedCheckpoint, match=f"offset {MIB}: the file ends before this piece does"):
            stream.read()
    os.truncate(where(store) / f"{9:016x}.manifest", 1 << 40)
    assert store.list() == []
    assert "at most 16777216" in store.damaged[0][1]


def test_a_disk_that_cannot_read_is_damage() -> None:
    """On the simulated disk: a read that fails, as of a bad sector."""
    disk = MemoryDisk(1)
    store = CheckpointStore(disk.folder().files())
    manifest = write(store, 9, SMALL)
    disk.fail(read=True)
    assert store.list() == []
    assert "the disk cannot read it" in store.damaged[0][1]
    with store.open_stream(manifest, 1) as stream:
        disk.fail(read=True)
        with pytest.raises(DamagedCheckpoint, match="cannot read"):
            stream.read()
    check(store, manifest, SMALL)


def test_a_manifest_under_another_name_is_refused(store: CheckpointStore) -> None:
    write(store, 9, {})
    (where(store) / f"{9:016x}.manifest").rename(where(store) / f"{8:016x}.manifest")
    assert store.list() == []
    assert "that of checkpoint 9" in store.damaged[0][1]


def resealed(data: bytes) -> bytes:
    """With a checksum that is right."""
    return data[:4] + struct.pack("<I", checksum(data[8:])) + data[8:]


def test_an_unknown_version_is_named(store: CheckpointStore) -> None:
    data = bytearray(manifest_of().encode())
    data[12] = 7
    with pytest.raises(StorageError, match="version 7, known is 1") as caught:
        Manifest.decode(resealed(bytes(data)), "x.manifest")
    assert not isinstance(caught.value, DamagedCheckpoint)
    path = where(store) / f"{9:016x}.manifest"
    path.write_bytes(resealed(bytes(data)))
    assert store.list() == []
    assert "version 7" in store.damaged[0][1]
    assert store.clean() == []
    path.rename(path.with_suffix(".manifest.part"))
    assert store.resumable() == []


PATHS = {
    "/a": "absolute",
    "a/../b": "'..'",
    "..": "'..'",
    ".": "'..'",
    "a//b": "empty part",
    "a/": "empty part",
    "a\0b": "NUL",
    "a\\b": "backslash",
    "\udcff": "UTF-8",
    "a" * 1025: "longer",
    "/".join("a" * 33): "33|32 parts",
}


@pytest.mark.parametrize("path", PATHS)
def test_paths_that_lead_astray_are_refused(path: str) -> None:
    good = manifest_of(replace(entry_of(b""), path="a"))
    assert Manifest.decode(good.encode()) == good
    with pytest.raises(StorageError, match=PATHS[path]):
        manifest_of(replace(entry_of(b""), path=path)).encode()
    data = good.encode()
    raw = path.encode("utf-8", "surrogateescape")
    at = data.rindex(struct.pack("<IH", 1, 1))
    forged = data[: at + 4] + struct.pack("<H", len(raw)) + data[at + 6 : -1] + raw
    forged = resealed(forged[:8] + struct.pack("<I", len(forged)) + forged[12:])
    with pytest.raises(DamagedCheckpoint, match=PATHS[path]):
        Manifest.decode(forged)


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([entry_of(b""), entry_of(b"x")], "twice"),
        ([entry_of(b"", path="a"), entry_of(b"", path="a")], "twice"),
        ([entry_of(b"", path="a/b/c"), entry_of(b"", path="a")], "'a' of state machine 1 is a file, and a directory"),
        ([entry_of(b"x", plain=2)], "has 2"),
        ([entry_of(b"x", codec=2)], "unknown codec 2"),
        ([replace(entry_of(b"x"), pieces=())], "has 0 pieces"),
        ([replace(entry_of(b"x"), stored=MIB + 1, plain=MIB + 1)], "has 1 pieces"),
        ([replace(entry_of(b"x"), stored=1 << 63, plain=1 << 63)], "does not fit"),
        ([replace(entry_of(b""), machine=1 << 32)], "does not fit"),
    ],
)
def test_manifests_that_cannot_be(entries: list[Entry], why: str) -> None:
    with pytest.raises(StorageError, match=why):
        manifest_of(*entries).encode()


def test_limits_of_a_manifest(store: CheckpointStore) -> None:
    with pytest.raises(StorageError, match="membership of 16385 bytes"):
        store.begin(9, 77, SIGNATURE, bytes(16385))
    with pytest.raises(StorageError, match="do not fit"):
        store.begin(9, 77, SIGNATURE[1:], b"")
    store.begin(9, 77, SIGNATURE, bytes(16384)).abort()
    huge = Entry(1, "", 5 << 40, 5 << 40, PLAIN, 0, (0,) * (5 << 20))
    with pytest.raises(StorageError, match="would have 2097"):
        manifest_of(huge).encode()
    with pytest.raises(DamagedCheckpoint, match="at most"):
        Manifest.decode(bytes((16 << 20) + 1))


def test_counts_that_do_not_fit() -> None:
    good = manifest_of(entry_of(b"x"), entry_of(b"", path="p" * 40)).encode()
    count = 16 + 8 + 4 + 4
    for at, value, why in (
        (count, 1, "bytes that belong to nothing"),
        (count, 3, "are missing"),
        (count, 1 << 31, "counts that cannot be"),
        (count + 4, 1, "counts that cannot be"),
        (count - 4, 1 << 31, "2147483648 bytes are missing"),
        (8, 5, "says 5"),
        (12, 1 << 8 | 1, "offset 13: bytes that are to be zero"),
        (12, 1 << 24 | 1, "offset 13: bytes that are to be zero"),
        (56 + 7 + 4, 1 << 24, "offset 70: a byte that is to be zero"),
    ):
        with pytest.raises(DamagedCheckpoint, match=why):
            Manifest.decode(resealed(good[:at] + struct.pack("<I", value) + good[at + 4 :]))
    for data in (b"", good[:15], b"?" + good[1:]):
        with pytest.raises(DamagedCheckpoint, match="no manifest"):
            Manifest.decode(data)


@given(st.data())
def test_no_bytes_crash_the_decoder(data: st.DataObject) -> None:
    """Right checksums over wrong bytes: another manifest, or an error; and never memory for what is not there."""
    whole = bytearray(
        manifest_of(entry_of(noise(1, 5)), entry_of(words(3), path="p"), entry_of(b"", path="q")).encode()
    )
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(8, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    raw = bytes(whole)
    if data.draw(st.booleans()):
        raw = raw[:8] + struct.pack("<I", len(raw)) + raw[12:]
    raw = resealed(raw)
    try:
        manifest = Manifest.decode(raw)
    except StorageError:
        return
    assert manifest.encode() == raw


class Wrong:
    """A reader of stored bytes that were never written by this writer, under checksums that are right."""

    def __init__(self, folder: Folder) -> None:
        self.files = folder.files()
        self.number = 0

    def read(self, stored: bytes, plain: int) -> bytes:
        self.number += 1
        with self.files.create(f"{self.number}") as file:
            file.append(stored)
        entry = entry_of(stored, plain=plain, codec=ZSTD)
        with StreamReader(PieceFile(self.files, f"{self.number}", entry)) as stream:
            return stream.read()


def test_frames_that_are_not_what_the_manifest_says(folder: Folder) -> None:
    wrong = Wrong(folder)
    data = words(1000)
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    assert wrong.read(frame, len(data)) == data
    bomb = zstandard.ZstdCompressor().compress(bytes(64 * MIB))
    assert len(bomb) < 10000
    wide = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)
    ).compressobj()
    for stored, plain in (
        (frame, len(data) - 1),
        (frame, len(data) + 1),
        (frame[: len(frame) // 2], len(data)),
        (frame + b"?" * 20, len(data)),
        (frame + frame, len(data)),
        (b"", 5),
        (b"?" * 100, 5),
        (bomb, 1000),
        (wide.compress(noise(1, MIB)) + wide.flush(), MIB),
    ):
        with pytest.raises(DamagedCheckpoint):
            wrong.read(stored, plain)


@given(st.data())
def test_no_frame_crashes_the_reader(data: st.DataObject) -> None:
    plain = words(50) + bytes(50)
    frame = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(plain))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    with closing(MemoryDisk(1).folder()) as folder:
        try:
            got = Wrong(folder).read(bytes(frame), len(plain))
        except DamagedCheckpoint:
            return
    assert got == plain


# ---- what happens at once ----


def test_none_is_begun_while_one_of_its_number_is_being_removed(store: CheckpointStore) -> None:
    """Its new files would go along with the old ones."""
    write(store, 9, SMALL)
    files, tried = store.files, []

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(files, name)

        def remove(self, name: str) -> None:
            files.remove(name)
            with pytest.raises(StorageError, match="or removed"):
                store.begin(9, 77, SIGNATURE, MEMBERSHIP)
            tried.append(name)

    store.files = Watched()  # type: ignore[assignment]
    store.remove(9)
    assert len(tried) == 1 + len(SMALL)
    store.files = files
    check(store, write(store, 9, SMALL), SMALL)


def test_what_cannot_be_read_behind_its_commit_is_not_there(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (DamagedCheckpoint("rotten"), OSError(5, "cannot be read")):
        manifest = write(store, 9, SMALL)
        with monkeypatch.context() as patched:

            def fail(manifest: Manifest, error: Exception = error) -> None:
                raise error

            patched.setattr(store, "verify", fail)
            with pytest.raises(type(error)):
                store.prove(manifest)
        assert kinds(store.files, 9) == []
    manifest = write(store, 9, SMALL)
    assert store.prove(manifest) == manifest
    assert store.list() == [manifest]
