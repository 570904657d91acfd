"""Logs of a cluster that is no more, written by hand with the log writer of the library: who promised, accepted, learned what."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frames import CHANGE, membership, row
from paxos._codec import checksum
from paxos._segments import LogStore
from paxos._stepping import encode_chunk
from paxos.checkpoint import CheckpointStore
from paxos.manifest import Manifest

SEGMENT = 1 << 16
SIGNATURE = (0x1122334455667788, 0x99AABBCCDDEEFF00)
ALPHA = 64
FORMATION, FORMED, PROMISE, ACCEPT, LEARN, WATERMARK, BASE = 3, 4, 5, 6, 7, 8, 9
NOOP = (0, 0, b"")
#: (round, node)
Ballot = tuple[int, int]
Data = tuple[int, int, bytes]


def value(text: bytes | str) -> Data:
    """A value of a user, as an instance holds it."""
    data = text.encode() if isinstance(text, str) else text
    return 1, 1, encode_chunk(1, 1, 1, [data])


def chain_behind(values: Mapping[int, Data], end: int, chain: int = 0, first: int = 0) -> int:
    """The chain checksum at ``end``."""
    for instance in range(first, end):
        kind, _, data = values[instance]
        chain = checksum(data, checksum(struct.pack("<QII", instance, len(data), kind), chain))
    return chain


def digest(*directories: Path) -> dict[str, str]:
    """Every file: what is in it, and when it was changed."""
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest() + str(file.stat().st_mtime_ns)
        for directory in directories
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


def flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 4
    file.write_bytes(bytes(data))


class OldLog:
    """The log of one node. ``chosen`` holds what the cluster has chosen, for all of its logs."""

    def __init__(self, path: Path, node: int, chosen: dict[int, Data], segment: int = SEGMENT) -> None:
        self.path = path
        self.node = node
        self.values = chosen
        self.store = LogStore(path, node, segment_size=segment, direct=False)
        self.incarnation = (self.store.incarnation_hi, self.store.incarnation_lo)
        self.watermark = 0
        self.chain = 0
        self.incarnations: dict[int, tuple[int, int]] = {}
        self.signature = SIGNATURE

    def form(self, logs: list[OldLog], signature: tuple[int, int] = SIGNATURE) -> None:
        self.signature = signature
        self.incarnations = {log.node: log.incarnation for log in logs}
        body = struct.pack("<QQII", *signature, ALPHA, len(logs))
        for node, incarnation in sorted(self.incarnations.items()):
            body += struct.pack("<IIQQ", node, 0, *incarnation)
        self.store.append(FORMATION, 0, 0, body)
        self.store.append(FORMED, 0, 0, b"")

    def welcome(self, logs: list[OldLog], told: bytes, signature: tuple[int, int] = SIGNATURE) -> None:
        """It came later than those, and was told of this membership."""
        self.signature = signature
        self.incarnations = {log.node: log.incarnation for log in logs}
        self.store.append(FORMATION, 0, 0, struct.pack("<QQII", *signature, ALPHA, 0) + told)
        self.store.append(FORMED, 0, 0, b"")

    def _ballot(self, ballot: Ballot) -> bytes:
        round_, node = ballot
        return struct.pack("<QQQII", round_, *self.incarnations[node], node, 0)

    def _known(self) -> bytes:
        return struct.pack("<QII", self.watermark, self.chain, 0)

    @staticmethod
    def _data(data: Data) -> bytes:
        kind, count, body = data
        return struct.pack("<IIII", len(body), count, kind, 0) + body

    def promise(self, ballot: Ballot) -> None:
        self.store.append(PROMISE, 0, 0, self._ballot(ballot))

    def accept(self, instance: int, ballot: Ballot, data: Data) -> None:
        self.store.append(ACCEPT, 0, instance, self._ballot(ballot) + self._known() + self._data(data))

    def know(self, chosen: int, *, say: bool = True) -> None:
        """It knows all below chosen, and has accepted them. ``say``: in a record of its own; else the next one says it."""
        self.chain = chain_behind(self.values, chosen, self.chain, self.watermark)
        self.watermark = chosen
        if say:
            self.store.append(WATERMARK, 0, 0, self._known())

    def learn(self, data: Data | None = None) -> None:
        """Fetches the next instance."""
        data = self.values[self.watermark] if data is None else data
        self.store.append(LEARN, 0, self.watermark, self._known() + self._data(data))
        self.chain = chain_behind({self.watermark: data}, self.watermark + 1, self.chain, self.watermark)
        self.watermark += 1

    def _membership(self) -> bytes:
        return membership([row(node, inc=inc) for node, inc in sorted(self.incarnations.items())])

    def base(self, first: int, ballot: Ballot) -> None:
        """The log begins here from now on; what is below is in a checkpoint. It knows that much, if not more."""
        chain = chain_behind(self.values, first)
        if first > self.watermark:
            self.watermark, self.chain = first, chain
        body = self._ballot(ballot) + struct.pack("<II", chain, 1) + self._membership()
        self.store.append(BASE, 0, first, body)

    def checkpoint(self, instance: int, state: bytes = b"state", told: bytes | None = None) -> Manifest:
        store = CheckpointStore(self.store.files())
        signature = b"".join(part.to_bytes(8, "big") for part in self.signature)
        chain = chain_behind(self.values, instance)
        with store.begin(instance, chain, signature, self._membership() if told is None else told) as writer:
            with writer.stream(0) as stream:
                stream.write(state)
            return writer.commit()

    def close(self) -> None:
        """All of it is durable, and known to be."""
        self.store.flush()
        self.store.append(PROMISE, 0, 0, struct.pack("<QQQII", 1, 0, 0, 0, 0))
        self.store.flush()
        self.store.close()


class Leftovers:
    """A formed cluster of nodes 1 … count, whose logs are written by hand below ``path``. Close it before it is looked at."""

    def __init__(self, path: Path, count: int, **options: Any) -> None:
        self.path = path
        self.chosen: dict[int, Data] = {}
        self.logs = {node: OldLog(path / str(node), node, self.chosen, **options) for node in range(1, count + 1)}
        for log in self.logs.values():
            log.form(list(self.logs.values()))

    def late(self, node: int) -> OldLog:
        """A node that is no member yet, with an empty log."""
        log = self.logs[node] = OldLog(self.path / str(node), node, self.chosen)
        return log

    def rows(self, **roles: int) -> list[bytes]:
        """Of a table: everybody is a voter, but for those named here (``_4=2``)."""
        return [row(node, roles.get(f"_{node}", 0), log.incarnation) for node, log in sorted(self.logs.items())]

    def __getitem__(self, node: int) -> OldLog:
        return self.logs[node]

    def choose(self, upto: int, *nodes: int, ballot: Ballot = (1, 1), know: bool = True) -> None:
        """These (else all) accept the next instances up to there, and know them chosen."""
        first = len(self.chosen)
        for instance in range(first, upto):
            self.chosen[instance] = value(f"value {instance}")
            for node in nodes or self.logs:
                self[node].accept(instance, ballot, self.chosen[instance])
        for node in nodes or self.logs:
            if know:
                self[node].know(upto)

    def change(self, data: bytes, *nodes: int) -> None:
        """The next instance is this change of the membership; these accept it, and know it chosen."""
        instance = len(self.chosen)
        self.chosen[instance] = (CHANGE, 0, data)
        for node in nodes:
            self[node].accept(instance, (1, 1), self.chosen[instance])
            self[node].know(instance + 1)

    def close(self) -> None:
        for log in self.logs.values():
            log.close()

    def dirs(self, *nodes: int) -> list[Path]:
        return [self.path / str(node) for node in nodes]
