"""Checkpoints for tests: what goes in, and that it comes out."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping

from paxos._files import Files
from paxos.checkpoint import CheckpointStore
from paxos.manifest import Manifest

SIGNATURE = bytes(range(16))
MEMBERSHIP = b"members"
MIB = 1 << 20

#: what a checkpoint holds: bytes by machine and path, "" for the stream.
Content = Mapping[tuple[int, str], bytes]


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


def words(count: int) -> bytes:
    """Bytes that do."""
    return b"".join(b"account %d has %d\n" % (i, i * 7919 % 100003) for i in range(count))


SMALL: Content = {(1, ""): noise(1, 300), (2, ""): words(40), (2, "deep/file"): b"", (2, "other"): noise(2, 100)}
LARGE: Content = {(1, ""): noise(3, MIB + 5000), (7, "a/b"): words(200), (7, "empty"): b""}


def write(store: CheckpointStore, instance: int, content: Content) -> Manifest:
    """Makes a checkpoint."""
    with store.begin(instance, 77, SIGNATURE, MEMBERSHIP) as writer:
        for (machine, path), data in content.items():
            if path:
                writer.add_file(machine, path, io.BytesIO(data))
            else:
                with writer.stream(machine) as stream:
                    stream.write(data)
        return writer.commit()


def read(store: CheckpointStore, manifest: Manifest) -> Content:
    """What is in a checkpoint."""
    content = {}
    for entry in manifest.entries:
        with store.open_stream(manifest, entry.machine, entry.path) as stream:
            content[entry.machine, entry.path] = stream.read()
    return content


def check(store: CheckpointStore, manifest: Manifest, content: Content) -> None:
    """That it is whole, and that."""
    store.verify(manifest)
    assert (manifest.chain, manifest.signature, manifest.membership) == (77, SIGNATURE, MEMBERSHIP)
    assert read(store, manifest) == content


def kinds(files: Files, instance: int) -> list[str]:
    """The files of one checkpoint, without its number, sorted."""
    return sorted(name[16:] for name in files.names() if name.startswith(f"{instance:016x}"))
