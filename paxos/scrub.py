"""Log and checkpoints are read again from the disk, at a low rate, while the node runs: rot is found before it is needed.

What the running process has promised and accepted is in its memory, and right; only the copy on the disk is bad. So a damaged
segment is not the end of the node: a checkpoint of what is applied now covers what the segment holds, the log below it is
deleted, the segment with it, and the log is whole again. A value in it that is accepted and not chosen yet will be soon; so that
is done again until the segment is gone. A damaged checkpoint is removed, and another one made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from paxos._handle import Handle
from paxos._scrub import SegmentScrub
from paxos.alarm import Alarms
from paxos.background import Background
from paxos.checkpoint import CheckpointStore
from paxos.errors import DamagedCheckpoint, DamagedLog
from paxos.keeper import Keeper
from paxos.manifest import Manifest
from paxos.stored import MANIFEST, file_name

__all__ = ["Scrub"]

logger = logging.getLogger("paxos")

#: Bytes read in one go.
PIECE: Final = 1 << 20
#: Seconds from the end of one pass to the next; until a look at whether there is anything to read; and between two attempts to
#: get rid of a damaged segment.
PAUSE: Final = 60.0
HEAL_AGAIN: Final = 1.0

Work = Callable[[], int]


class Scrub:
    """One node's. On the thread that applies, but for the reading. ``rate`` in bytes a second; 0: nothing is read."""

    def __init__(
        self,
        engine: Handle,
        store: CheckpointStore,
        background: Background,
        keeper: Keeper,
        rate: float,
        alarms: Alarms,
        *,
        pause: float = PAUSE,
    ) -> None:
        self._engine = engine
        self._store = store
        self._background = background
        self._keeper = keeper
        self._rate = rate
        self._alarms = alarms
        self._pause = pause
        self._segment_bytes = engine.status()["segment_bytes"]
        self._pass = self._everything()
        self._segment: SegmentScrub | None = None
        self._number = 0  # of the segment that is being read
        self._manifests: list[Manifest] = []
        self._manifest: Manifest | None = None  # of the checkpoint that is
        self._dropping = 0  # the newest damaged segment that is to go
        self._told = ""
        self._closed = False
        #: what was read again since the start, and how often it was damaged
        self.scrubbed_bytes = 0
        self.damage = 0
        if rate:
            background.later(min(pause, 1.0), self._next)

    def close(self) -> None:
        """No more of it."""
        self._closed = True
        self._pass = iter(())  # (it knows this object)

    # -- reading

    def _next(self) -> None:
        if self._closed:
            return
        work = next(self._pass, None)
        if work is None:
            self._pass = self._everything()
            self._background.later(self._pause, self._next)
            return
        self._background.run(work, self._read)

    def _read(self, size: int | None, error: BaseException | None) -> None:
        if self._closed:
            return
        if isinstance(error, DamagedLog):
            self._damaged_segment(error)
        elif isinstance(error, DamagedCheckpoint):
            self._damaged_checkpoint(error)
        elif error is not None:
            logger.error("what is on the disk cannot be read again just now: %s", error)
            self._pass = self._everything()
        self.scrubbed_bytes += size or 0
        self._background.later(max(size or 0, 1) / self._rate, self._next)

    def _everything(self) -> Iterator[Work]:
        """A pass: the log, oldest segment first, then the checkpoints."""
        self._number = 0
        while (number := self._following()) is not None:
            self._number = number
            segment = self._segment = self._engine.scrub(number)
            while self._segment is segment and (end := self._unread(segment)):
                yield partial(segment.step, end, PIECE)
            segment.close()
        self._segment = None
        yield self._list
        for manifest in self._manifests:
            self._manifest = manifest
            for entry in range(len(manifest.entries)):
                for piece in range(len(manifest.entries[entry].pieces)):
                    if self._manifest is manifest:
                        yield partial(self._piece, manifest, entry, piece)

    def _following(self) -> int | None:
        """The segment to be read next, if there is one that is not known to be damaged."""
        oldest, current, _ = self._engine.log_span()
        number = max(self._number + 1, oldest, self._dropping + 1)
        return number if number <= current else None

    def _unread(self, segment: SegmentScrub) -> int:
        """Up to where it can be read on; 0: it has been read, or is gone."""
        oldest, current, used = self._engine.log_span()
        if self._number < oldest or segment.ended:
            return 0
        end = used if self._number == current else self._segment_bytes
        return end if segment.offset < end else 0

    def _list(self) -> int:
        self._manifests = self._store.list()
        damaged = self._store.damaged
        if damaged:
            raise _DamagedManifests(damaged)
        return sum(len(manifest.encode()) for manifest in self._manifests)

    def _piece(self, manifest: Manifest, entry: int, piece: int) -> int:
        try:
            return len(self._store.piece(manifest, entry, piece))
        except DamagedCheckpoint:
            # Data goes after the manifest: without that it was removed, and is not damaged.
            if file_name(manifest.instance, MANIFEST) not in self._store.files.names():
                return 0
            raise

    # -- damage

    def _damaged_segment(self, error: DamagedLog) -> None:
        number, self._segment = self._number, None
        if number < self._engine.log_span()[0]:
            return  # it was recycled meanwhile
        self.damage += 1
        self._alarms.sound(
            "log-damaged",
            "%s. So says the scrub; what this process has promised is in its memory, so it goes on, makes a checkpoint, and "
            "deletes the log up to there. If it ends before that, its next start sets the log aside, and gets well from others",
            error,
        )  # fmt: skip
        dropping, self._dropping = self._dropping, number
        self._engine.drop(number)
        if not dropping:
            self._heal()

    def _heal(self) -> None:
        """A checkpoint, and the log below it away; again and again until the damaged segment has gone along."""
        if self._closed or self._keeper.stopped():
            return
        if self._dropping < self._engine.log_span()[0]:
            logger.warning("the damaged segment %d is no longer part of the log, which is whole again", self._dropping)
            self._dropping = 0
            return

        def made(manifest: Manifest | None, error: BaseException | None) -> None:
            if manifest is not None:
                self._engine.base(manifest.instance)
            elif str(error) != self._told:
                self._told = str(error)
                self._alarms.sound(
                    "heal-failed", "the damaged segment %d cannot be got rid of: %s", self._dropping, error
                )
            self._background.later(HEAL_AGAIN, self._heal)

        self._keeper.make(made, here=True)

    def _damaged_checkpoint(self, error: DamagedCheckpoint) -> None:
        if isinstance(error, _DamagedManifests):
            found = error.found
        else:
            assert self._manifest is not None
            found = [(self._manifest.instance, str(error))]
            self._manifest = None
        for instance, why in found:
            self.damage += self._keeper.spoiled(instance, why)


class _DamagedManifests(DamagedCheckpoint):
    """Manifests that do not verify, with what is wrong."""

    def __init__(self, found: list[tuple[int, str]]) -> None:
        super().__init__(found[0][1])
        self.found = found
