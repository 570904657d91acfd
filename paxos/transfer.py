"""A checkpoint from another node: what the two Python sides say to each other, and the fetching.

The one that is behind pulls. It asks all the others what they have (ASK, HAVE), picks a source, gets the manifest, one part
after the other, and then the pieces, some under way at once. Any message may be lost: what does not come is asked for again,
and a source from which nothing comes any more is left for another one. Pieces are checked as they come, against the manifest,
and what is on disk already is not asked for: a transfer goes on where it was, after a kill as well.

Messages (little-endian): type u8, then

    ASK       number u32, needed u64: the lowest checkpoint that helps         to all
    HAVE      number u32, master u8, chosen u64, first_kept u64, instance u64 (0: no checkpoint)
    MANIFEST? instance u64, part u32
    MANIFEST  instance u64, part u32, total u32 (0: gone), crc u32, bytes
    PIECE?    instance u64, entry u32, piece u32
    PIECE     instance u64, entry u32, piece u32, bytes (empty: gone)
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from paxos.background import Background, Serial
from paxos.checkpoint import CheckpointStore, Incoming
from paxos.errors import DamagedCheckpoint
from paxos.manifest import MAX_MANIFEST, PIECE, Manifest, crc_of

__all__ = ["Fetch", "Offer", "Server", "pack_offer"]

logger = logging.getLogger("paxos")

ASK, HAVE, WANT_MANIFEST, MANIFEST, WANT_PIECE, PIECE_OF = 1, 2, 3, 4, 5, 6
_ASK: Final = struct.Struct("<BIQ")
_HAVE: Final = struct.Struct("<BIBQQQ")
_WANT_PART: Final = struct.Struct("<BQI")
_PART: Final = struct.Struct("<BQIII")
_PIECE: Final = struct.Struct("<BQII")

#: Bytes of a part of a manifest; the last may be shorter. The engine carries a little more in one message (CARRY_MAX).
PART: Final = 1 << 20
#: Pieces that are under way at once.
WINDOW: Final = 8
#: Seconds: how long answers to ASK are waited for; until a piece is asked for again; until another source is looked for.
ANSWERS_WITHIN: Final = 0.5
AGAIN_AFTER: Final = 2.0
SOURCE_LOST_AFTER: Final = 6.0
#: ... and for how long a checkpoint is kept for somebody who asked for a part of it.
UNDER_WAY: Final = 20.0
SECOND: Final = 1_000_000_000


class Offer:
    """What a node says that it has."""

    def __init__(self, node: int, master: bool, chosen: int, first_kept: int, instance: int) -> None:
        self.node = node
        self.master = master
        self.chosen = chosen
        self.first_kept = first_kept
        self.instance = instance


def pack_offer(number: int, master: bool, chosen: int, first_kept: int, instance: int) -> bytes:
    """What to answer to ASK."""
    return _HAVE.pack(HAVE, number, master, chosen, first_kept, instance)


class Carrier(Protocol):
    """Carries bytes to another node's Python side, or loses them."""

    def send(self, node: int, data: bytes) -> object: ...


class Server:
    """Answers the questions of nodes that are behind."""

    def __init__(
        self,
        carrier: Carrier,
        background: Background,
        store: CheckpointStore,
        now: Callable[[], int],
        spoiled: Callable[[int, str], object],
    ) -> None:
        self._carrier = carrier
        self._background = background
        self._store = store
        self._now = now
        self._spoiled = spoiled
        self._asked_for: dict[int, int] = {}  # when, by instance
        self._manifests: dict[int, Manifest] = {}
        # As they are sent, of those that were asked for. Kept: that is a fraction of what the manifest itself takes.
        self._encoded: dict[int, bytes] = {}
        self._encoding: set[int] = set()
        self._withdrawn = False
        self._busy = 0

    def offer(self, manifest: Manifest) -> None:
        """This checkpoint is here, and verifies."""
        if not self._withdrawn:
            self.forget(manifest.instance)
            self._manifests[manifest.instance] = manifest

    def forget(self, instance: int) -> None:
        """This checkpoint has been removed."""
        self._manifests.pop(instance, None)
        self._encoded.pop(instance, None)

    def under_way(self, now: int) -> list[int]:
        """Checkpoints of which somebody has asked for a part lately."""
        self._asked_for = {
            i: at for i, at in self._asked_for.items() if now - at < UNDER_WAY * SECOND and i in self._manifests
        }
        return sorted(self._asked_for)

    def close(self) -> None:
        """Nobody is told of damage any more."""
        self._spoiled = lambda instance, why: None

    def withdraw(self) -> None:
        """None of the checkpoints here is offered any more, nor one that is still to come."""
        self._manifests.clear()
        self._encoded.clear()
        self._withdrawn = True

    @property
    def newest(self) -> int:
        """Its instance; 0: there is none."""
        return max(self._manifests, default=0)

    @property
    def best(self) -> Manifest | None:
        """The manifest of the newest, if there is one."""
        return self._manifests.get(self.newest)

    def answer(self, node: int, data: bytes, have: Callable[[int, int], bytes]) -> None:
        """A question. ``have(number, needed)`` is what to answer to ASK."""
        if data[0] == ASK and len(data) == _ASK.size:
            self._carrier.send(node, have(*_ASK.unpack(data)[1:]))
        elif data[0] == WANT_MANIFEST and len(data) == _WANT_PART.size:
            self._send_part(node, *_WANT_PART.unpack(data)[1:])
        elif data[0] == WANT_PIECE and len(data) == _PIECE.size:
            self._send_piece(node, *_PIECE.unpack(data)[1:])

    def _send_part(self, node: int, instance: int, part: int) -> None:
        manifest = self._manifests.get(instance)
        if manifest is None:
            self._carrier.send(node, _PART.pack(MANIFEST, instance, part, 0, 0))
            return
        self._asked_for[instance] = self._now()
        encoded = self._encoded.get(instance)
        if encoded is not None:
            data = encoded[part * PART : (part + 1) * PART]
            self._carrier.send(node, _PART.pack(MANIFEST, instance, part, len(encoded), crc_of(encoded)) + data)
            return
        if instance in self._encoding:
            return  # it will ask again

        def done(encoded: bytes | None, error: BaseException | None) -> None:
            self._encoding.discard(instance)
            if self._manifests.get(instance) is not manifest:
                return  # it will ask again, and hear what there is then
            if encoded is None:
                logger.error("the manifest of the checkpoint of instance %d cannot be sent: %s", instance, error)
                self._carrier.send(node, _PART.pack(MANIFEST, instance, part, 0, 0))
                return
            self._encoded[instance] = encoded
            self._send_part(node, instance, part)

        # Not on this thread: for a hundred thousand files that takes seconds.
        self._encoding.add(instance)
        self._background.run(manifest.encode, done)

    def _send_piece(self, node: int, instance: int, entry: int, piece: int) -> None:
        manifest = self._manifests.get(instance)
        if manifest is None or entry >= len(manifest.entries) or piece >= len(manifest.entries[entry].pieces):
            self._carrier.send(node, _PIECE.pack(PIECE_OF, instance, entry, piece))
            return
        self._asked_for[instance] = self._now()
        if self._busy >= 2 * WINDOW:
            return  # it will ask again

        def done(data: bytes | None, error: BaseException | None) -> None:
            self._busy -= 1
            if isinstance(error, DamagedCheckpoint):
                self._spoiled(instance, str(error))
            elif error is not None:
                logger.error("a piece of the checkpoint of instance %d cannot be read: %s", instance, error)
            self._carrier.send(node, _PIECE.pack(PIECE_OF, instance, entry, piece) + (data or b""))

        self._busy += 1
        self._background.run(lambda: self._store.piece(manifest, entry, piece), done)


def _closed(_: None, error: BaseException | None) -> None:
    if error is not None:
        logger.error("the files of a transfer could not be closed: %s", error)


class _Parts:
    """A manifest on its way here: of few there is more than one part, so that each is asked for behind the one before it."""

    def __init__(self, instance: int) -> None:
        self._instance = instance
        self._total = self._crc = 0  # what the first part says
        self._data = bytearray()
        #: The part that is wanted.
        self.next = 0

    @property
    def whole(self) -> bool:
        """Nothing is wanted any more."""
        return self.next > 0 and len(self._data) == self._total

    def take(self, total: int, crc: int, data: bytes) -> str | None:
        """The part that is wanted. What is wrong with it; None: nothing."""
        if not total:
            return "it has that checkpoint no longer"
        if total > MAX_MANIFEST:
            return f"its manifest is said to have {total} bytes; at most {MAX_MANIFEST} (MAX_MANIFEST) are taken"
        if self.next and (total, crc) != (self._total, self._crc):
            return "it has another manifest than before"
        # Any other size would let a source have itself be asked for ever.
        if len(data) != min(PART, total - len(self._data)):
            return f"it gives {len(data)} bytes for part {self.next} of a manifest that is said to have {total}"
        self._total, self._crc = total, crc
        self._data += data
        self.next += 1
        return None

    def decode(self) -> Manifest:
        """The manifest. Once: its bytes are let go."""
        data, self._data = bytes(self._data), bytearray()
        manifest = Manifest.decode(data)
        if manifest.instance != self._instance:
            raise DamagedCheckpoint(f"the manifest is of instance {manifest.instance}, not {self._instance}")
        return manifest


class Fetch:
    """One transfer, from its first question to a checkpoint that is durable here and was read again.

    ``needed()`` is the lowest checkpoint that would help. ``done(manifest)`` is called once; with ``None`` where the transfer
    is given up because nobody has what is wanted. ``asked``: how often that has been so.
    """

    def __init__(
        self,
        carrier: Carrier,
        background: Background,
        store: CheckpointStore,
        others: list[int],
        now: Callable[[], int],
        needed: Callable[[], int],
        done: Callable[[Manifest | None], None],
        *,
        rate: float = 0.0,
        asked: int = 0,
    ) -> None:
        self._carrier = carrier
        self._background = background
        self._store = store
        self._others = others
        self._now = now
        self._needed = needed
        self._done = done
        self._rate = rate
        self._number = asked
        self._offers: dict[int, Offer] = {}
        self._lost: set[int] = set()  # sources that have let this node down
        self._source = 0
        self._instance = 0
        self._parts: _Parts | None = None
        self._part_asked: int | None = None  # when; None: no part of the manifest is under way
        self._incoming: Incoming | None = None
        self._missing: Iterator[tuple[int, int]] = iter(())
        self._exhausted = False
        self._seeking = False
        self._files = Serial(background)
        self._asked: dict[tuple[int, int], int] = {}  # when
        self._writing = 0
        self._heard = 0
        self._throttled = False
        self._free_at = 0  # throttle: when the next piece may be asked for
        self._ended = False
        self._survey()
        self._tick()

    def close(self) -> None:
        """Gives the transfer up; what has come stays for a later one."""
        self._ended = True
        self._drop()

    def _drop(self) -> None:
        incoming = self._incoming
        if incoming is not None:
            # Behind what is under way on its files.
            self._files.run(incoming.close, _closed)
        self._incoming = self._parts = self._part_asked = None
        self._asked.clear()
        self._writing = 0
        self._seeking = False

    # -- whom to ask

    def _survey(self) -> None:
        self._drop()
        self._source = 0
        self._number += 1
        self._offers.clear()
        self._heard = self._now()
        for node in self._others:
            self._carrier.send(node, _ASK.pack(ASK, self._number, self._needed()))
        number = self._number
        self._background.later(ANSWERS_WITHIN, lambda: self._choose() if number == self._number else None)

    def _choose(self) -> None:
        if self._ended or self._source:
            return
        needed = self._needed()
        good = [offer for offer in self._offers.values() if offer.instance >= needed]
        fresh = [offer for offer in good if offer.node not in self._lost]
        if not good:
            self._ended = True
            self._done(None)
            return
        if not fresh:
            self._lost.clear()
        # The newest; the master only if nobody else has it.
        best = max(fresh or good, key=lambda offer: (offer.instance, not offer.master, -offer.node))
        self._source, self._instance = best.node, best.instance
        self._parts = _Parts(self._instance)
        self._want_part(self._parts)

    # -- what comes

    def receive(self, node: int, data: bytes) -> None:
        """An answer."""
        if self._ended:
            return
        if data[0] == HAVE and len(data) == _HAVE.size:
            _, number, master, chosen, first_kept, instance = _HAVE.unpack(data)
            if number == self._number:
                self._offers[node] = Offer(node, bool(master), chosen, first_kept, instance)
                if len(self._offers) == len(self._others):
                    self._choose()
        elif node != self._source:
            return
        elif data[0] == MANIFEST and len(data) >= _PART.size:
            _, instance, part, total, crc = _PART.unpack_from(data)
            if instance == self._instance:
                self._take_part(part, total, crc, data[_PART.size :])
        elif data[0] == PIECE_OF and len(data) >= _PIECE.size:
            _, instance, entry, piece = _PIECE.unpack_from(data)
            if instance == self._instance:
                self._take(entry, piece, data[_PIECE.size :])

    def _want_part(self, parts: _Parts) -> None:
        if self._parts is not parts:
            return  # given up while the rate held this back
        self._heard = self._now()
        self._ask_part(parts)

    def _ask_part(self, parts: _Parts) -> None:
        self._part_asked = self._now()
        self._carrier.send(self._source, _WANT_PART.pack(WANT_MANIFEST, self._instance, parts.next))

    def _take_part(self, part: int, total: int, crc: int, data: bytes) -> None:
        parts = self._parts
        if parts is None or self._part_asked is None or part != parts.next:
            return  # comes twice, or late
        self._part_asked = None
        if (wrong := parts.take(total, crc, data)) is not None:
            self._leave(wrong)
            return
        now = self._now()
        if self._rate:
            self._free_at = max(now, self._free_at) + int(len(data) / self._rate * 1e9)
        if parts.whole:
            self._open(parts)
        elif self._free_at > now:
            self._background.later((self._free_at - now) / 1e9, lambda: self._want_part(parts))
        else:
            self._want_part(parts)

    def _open(self, parts: _Parts) -> None:
        instance = self._instance

        def open_() -> tuple[Manifest, Incoming | None]:
            manifest = parts.decode()
            if any(there.instance == instance for there in self._store.list()):
                try:
                    self._store.verify(manifest)
                except DamagedCheckpoint:
                    self._store.remove(instance)
                else:
                    return manifest, None  # had come whole, and only reading it again had failed
            elif any(damaged == instance for damaged, _ in self._store.damaged):
                self._store.remove(instance)  # its manifest cannot even be read
            for other in self._store.resumable():
                if other.instance != instance:
                    self._store.discard(other.instance)  # nobody has that one any more
            return manifest, self._store.incoming(manifest)

        def opened(result: tuple[Manifest, Incoming | None] | None, error: BaseException | None) -> None:
            manifest, incoming = result if result is not None else (None, None)
            if self._ended or self._parts is not parts:
                if incoming is not None:
                    self._files.run(incoming.close, _closed)
            elif manifest is None:
                self._leave(str(error))
            elif incoming is None:
                self._ended = True
                self._done(manifest)
            else:
                logger.info(
                    "fetching the checkpoint of instance %d (%d bytes) from node %d",
                    instance, manifest.stored, self._source,
                )  # fmt: skip
                self._incoming = incoming
                self._missing = incoming.missing()
                self._exhausted = self._seeking = False
                self._fill()

        self._files.run(open_, opened)

    def _fill(self) -> None:
        """Keeps as many pieces under way as the window and the rate allow."""
        incoming = self._incoming
        if incoming is None or self._ended or self._seeking:
            return
        if self._exhausted:
            if not self._asked and not self._writing:
                self._finish()
            return
        if len(self._asked) + self._writing >= WINDOW:
            return
        now = self._now()
        if self._rate and now < self._free_at:
            if not self._throttled:
                self._throttled = True
                self._background.later((self._free_at - now) / 1e9, self._unthrottle)
            return
        missing = self._missing

        def found(wanted: tuple[int, int] | None, error: BaseException | None) -> None:
            if self._ended or self._incoming is not incoming:
                return
            self._seeking = False
            if error is not None:
                self._leave(str(error))
                return
            self._heard = max(self._heard, self._now())
            if wanted is None:
                self._exhausted = True
            else:
                self._want(*wanted)
                if self._rate:
                    self._free_at = max(self._now(), self._free_at) + int(PIECE / self._rate * 1e9)
            self._fill()

        # What is there already, of a transfer that was broken off, is read again on the way to the next piece that is not.
        self._seeking = True
        self._files.run(lambda: next(missing, None), found)

    def _unthrottle(self) -> None:
        self._throttled = False
        self._fill()

    def _want(self, entry: int, piece: int) -> None:
        self._asked[entry, piece] = self._now()
        self._carrier.send(self._source, _PIECE.pack(WANT_PIECE, self._instance, entry, piece))

    def _take(self, entry: int, piece: int, data: bytes) -> None:
        incoming = self._incoming
        if incoming is None or self._asked.pop((entry, piece), None) is None:
            return
        if not data:
            self._leave("it has that checkpoint no longer")
            return
        self._heard = self._now()
        self._writing += 1

        def written(_: None, error: BaseException | None) -> None:
            if self._ended or self._incoming is not incoming:
                return
            self._writing -= 1
            if error is not None:
                self._leave(str(error))
            else:
                self._fill()

        self._files.run(lambda: incoming.put(entry, piece, data), written)

    def _finish(self) -> None:
        incoming, self._incoming = self._incoming, None
        assert incoming is not None

        def finish() -> Manifest:
            finished = incoming.finish()
            self._store.verify(finished)  # as it stands on this disk now
            return finished

        def finished(manifest: Manifest | None, error: BaseException | None) -> None:
            if self._ended:
                return
            if manifest is None:
                self._leave(str(error))
                return
            self._ended = True
            self._done(manifest)

        self._files.run(finish, finished)

    # -- when it does not go on

    def _leave(self, why: str) -> None:
        logger.warning(
            "the checkpoint of instance %d cannot be had from node %d: %s; looking for another source",
            self._instance, self._source, why,
        )  # fmt: skip
        self._lost.add(self._source)
        self._drop()
        self._source = 0
        self._background.later(ANSWERS_WITHIN, lambda: None if self._ended or self._source else self._survey())

    def _tick(self) -> None:
        if self._ended:
            return
        now = self._now()
        if self._parts is not None and self._part_asked is not None and now - self._part_asked > AGAIN_AFTER * 1e9:
            self._ask_part(self._parts)
        for (entry, piece), when in list(self._asked.items()):
            if now - when > AGAIN_AFTER * 1e9:
                self._want(entry, piece)
        waits = self._part_asked is not None or self._asked
        if waits and now - self._heard > SOURCE_LOST_AFTER * 1e9:
            self._leave(f"nothing has come for {SOURCE_LOST_AFTER:.0f} s")
        self._background.later(AGAIN_AFTER / 2, self._tick)
