"""Lives of a log on a disk that forgets, tears and rots; a dumb list is the judge.

One seed is one life: records are appended, made durable, read back; segments are recycled; the process ends in any of its calls,
with or without the power; a sync fails; the disk fills up; a bit flips; what stands there
was never written by this writer (``wrongwriter``). After every start the log must hold exactly what was
durable, in order, and perhaps a beginning of what was under way, whole writes only; or, where a bit was flipped, say that
it is damaged. Nothing that was recycled or cut off may come back.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from paxos._segments import LogStore
from paxos.errors import DamagedLog, StorageError, WrongDirectory
from paxos.testing._simdisk import MemoryDisk
from paxos.testing.wrongwriter import BODY, FILES, HEADERS, WRITES, Newest, seal_header

__all__ = ["LogOutcome", "run"]

IDENTITY: Final = 2
TYPES: Final = (5, 6, 7, 8)
#: type, group, instance, body
Entry = tuple[int, int, int, bytes]


@dataclass(slots=True)
class LogOutcome:
    """What happened in one life."""

    seed: int
    violation: str | None = None
    happened: Counter[str] = field(default_factory=Counter)


class _Wrong(Exception):
    """The log did what it must not."""


class _Life:
    def __init__(self, seed: int, outcome: LogOutcome) -> None:
        self.dice = random.Random(seed)
        self.outcome = outcome
        self.disk = MemoryDisk(seed * 0x9E3779B1 + 7, direct=self.dice.random() < 0.6)
        self.size = self.dice.choice([1 << 16, 1 << 16, 1 << 17])
        # Half of the lives are spent at the ends of segments, with deaths where these go on in the next.
        self.at_ends = self.dice.random() < 0.5
        self.largest = self.dice.choice([64, 3000, 20000])
        self.direct = self.dice.random() < 0.9  # whether it is asked for
        self.durable: list[tuple[int, Entry]] = []  # with its segment
        self.pending: list[tuple[int, Entry]] = []
        self.doubtful = 0  # a segment whose recycling was under way when the process ended
        self.given_up = 0  # the newest segment that the log was told to do without; its file may have outlived that
        self.flipped = False
        self.log: LogStore | None = None
        self.counter = 0

    # -- starts and ends

    def start(self) -> None:
        for _ in range(40):
            try:
                self.log = log = LogStore(self.disk.folder(), 1, segment_size=self.size, direct=self.direct)
            except DamagedLog as error:
                if not self.flipped:
                    raise _Wrong(f"a log that nobody damaged is called damaged: {error}") from error
                self.outcome.happened["damage found"] += 1
                raise
            except StorageError:
                # It ended within its start, or had no room; the next start finds what it left.
                self.happen("ended in start" if self.disk.dead else "refused to start")
                self.disk.fill(False)
                self.disk.ended(self.disk.dead and self.dice.random() < 0.5)
                if self.dice.random() < 0.4:
                    self.disk.die(self.dice.randrange(10))
                continue
            self.compare(log)
            return
        raise _Wrong("the log does not open in forty starts")

    def compare(self, log: LogStore) -> None:
        if log.pending or (self.durable and log.outcome not in ("good", "torn")):
            raise _Wrong(f"recovery says {log.outcome} of {len(self.durable)} durable records")
        found: list[tuple[int, Entry]] = [
            (position // self.size, (kind, group, instance, body))
            for position, kind, group, instance, body in log.replay
            if kind != IDENTITY
        ]
        log.release_replay()
        expected = self.durable
        if self.doubtful and not (found and found[0][0] == self.doubtful):
            expected = [entry for entry in expected if entry[0] > self.doubtful]
        if found[: len(expected)] != expected:
            at = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), len(found))
            raise _Wrong(
                f"of {len(expected)} durable records the one at {at} is not there: found {_short(found, at)}, "
                f"expected {_short(expected, at)}"
            )
        behind = found[len(expected) :]
        if behind != self.pending[: len(behind)]:
            raise _Wrong(f"behind what was durable stands what was not under way: {_short(behind, 0)}")
        self.durable, self.pending, self.doubtful = found, [], 0
        self.happen("started")

    def ended(self, power: bool) -> None:
        assert self.log is not None
        log, self.log = self.log, None
        if self.dice.random() < 0.02:
            log.abandon()  # as a forked child does: it must change nothing
            log.abandon()
            self.happen("abandoned")
        log.close()
        self.refused(log.flush, "a closed log")
        log.close()
        self.disk.ended(power)
        self.happen("power lost" if power else "killed")

    def happen(self, what: str) -> None:
        self.outcome.happened[what] += 1

    # -- what a running log does

    def step(self) -> None:
        log, dice = self.log, self.dice
        assert log is not None
        if self.at_ends and log.position[1] >= self.size - 2 * 4096 and dice.random() < 0.5:
            # A small end of this segment, and a death about where the next one is begun.
            self.append(dice.randrange(400))
            self.disk.die(dice.choice([2, 3, 3, 3, 4]))
            if dice.random() < 0.2:
                self.disk.fail(directory=True)
            self.append(self.size // 2)
            return
        x = dice.random()
        if x < 0.5:
            self.append(dice.randrange(dice.choice([64, self.largest])))
        elif x < 0.85:
            log.flush()
            self.durable += self.pending
            self.pending = []
            self.happen("flushed")
        elif x < 0.9:
            log.make_spare()
        elif x < 0.91:
            self.misuse(log)
        elif x < 0.95 and self.durable and self.durable[0][0] < log.position[0]:
            oldest = log.position[0] - log.counters()["segments"] + 1
            self.doubtful = self.given_up = oldest
            log.recycle(oldest)
            self.doubtful = 0
            self.durable = [entry for entry in self.durable + self.pending if entry[0] > oldest]
            self.pending = []
            self.happen("recycled")
        elif self.durable:
            self.read_back(log)
        else:
            self.misuse(log)

    def refused(self, call: Callable[[], object], what: str) -> None:
        """It must not work."""
        try:
            call()
        except StorageError:
            return
        raise _Wrong(f"{what} is not refused")

    def misuse(self, log: LogStore) -> None:
        """What nobody may ask for is refused, and changes nothing."""
        if log.pending != bool(self.pending):
            raise _Wrong("whether something is pending is not as it should be")
        segment, offset = log.position
        self.refused(lambda: log.append(5, 0, 0, bytes(self.size)), "a record that fits no segment")
        self.refused(lambda: log.recycle(segment), "recycling the segment in use")
        self.refused(lambda: LogStore.__init__(log, self.disk.folder(), 1), "opening an open log")
        oldest = segment - log.counters()["segments"] + 1
        for place in (
            0,
            (segment + 1) * self.size + 4096,
            segment * self.size + 4097,
            segment * self.size + offset,
            segment * self.size + self.size - 4096,
            oldest * self.size + self.size - 8,
        ):
            self.refused(lambda place=place: log.read(place), f"reading at {place}")  # type: ignore[misc]
        self.happen("misused")

    def stopped(self) -> None:
        """A log whose disk failed it takes nothing more, for good."""
        log = self.log
        assert log is not None
        if log.counters()["failed_errno"]:
            self.refused(lambda: log.append(5, 0, 0, b""), "appending to a log that failed")
            self.refused(log.flush, "flushing a log that failed")
            self.refused(lambda: log.recycle(1), "recycling in a log that failed")
            self.happen("stayed stopped")

    def append(self, size: int) -> tuple[int, Entry]:
        log, dice = self.log, self.dice
        assert log is not None
        self.counter += 1
        entry = (dice.choice(TYPES), dice.randrange(3), self.counter, dice.randbytes(size))
        before = log.position[0]
        position = log.append(*entry)
        if log.position[0] != before:
            # It went on in the next segment: what was pending is durable.
            self.durable += self.pending
            self.pending = []
        self.pending.append((position // self.size, entry))
        return position, entry

    def read_back(self, log: LogStore) -> None:
        """Where records lie the judge does not keep: one that is appended now is read from the write under way, and then
        from disk."""
        position, entry = self.append(self.dice.randrange(self.largest))
        if log.read(position) != entry:
            raise _Wrong("a record reads back differently from the write under way")
        log.flush()
        self.durable += self.pending
        self.pending = []
        if log.read(position) != entry:
            raise _Wrong("a record reads back differently from disk")
        segment, offset = divmod(position, self.size)
        # Often in its length, which is asked before the checksum.
        rotten = offset + self.dice.choice([8, 9, 10, 11, self.dice.randrange(32 + len(entry[3]))])
        bit = self.dice.randrange(8)
        if self.disk.flip(segment, rotten, bit):
            self.refused(lambda: log.read(position), "reading what has rotted")
            self.disk.flip(segment, rotten, bit)
        self.happen("read back")

    def flip(self) -> None:
        """In what the newest write proves: what may go unnoticed is that write alone."""
        log = self.log
        assert log is not None
        if len(self.durable) < 2 or self.flipped or self.pending:
            return
        log.flush()
        segment, offset = log.position
        self.counter += 1
        entry = (5, 0, self.counter, b"x" * 32)
        self.pending.append((log.append(*entry) // self.size, entry))
        log.flush()
        self.durable += self.pending
        self.pending = []
        oldest = segment - log.counters()["segments"] + 1
        where = self.dice.randint(max(oldest, 1), segment)
        at = self.dice.randrange(offset if where == segment else self.size)
        if log.position[0] == segment and self.disk.flip(where, at, self.dice.randrange(8)):
            self.flipped = True
            self.happen("flipped")

    def newest(self) -> tuple[int, int, int] | None:
        """Writes what a wrong writer is about to change: (oldest segment, newest segment, offset of the write), all durable."""
        log = self.log
        assert log is not None
        log.flush()
        self.durable += self.pending
        self.pending = []
        segment, offset = log.position
        self.counter += 1
        entry = (5, 0, self.counter, self.dice.randbytes(BODY))
        place = log.append(*entry)
        self.pending.append((place // self.size, entry))
        log.flush()
        self.durable += self.pending
        self.pending = []
        if log.position[0] != segment:
            return None
        return segment - log.counters()["segments"] + 1, segment, offset

    def wrong(self, oldest: int, last: int, offset: int) -> bool:
        """A wrong writer has been here; the next start must see what it did. Whether life goes on."""
        dice, folder = self.dice, self.disk.folder()
        kind = dice.random()
        where, number, verdict = last, last - oldest + 1, "damaged"
        if kind < 0.6:
            what, verdict, change = dice.choice(WRITES)
            data = bytearray(folder.view(f"{last:016x}.seg"))
            if offset + 3 * 4096 > self.size:
                return True
            write = Newest(data, last, offset)
            change(write)
            write.seal(previous=what != "a record of another history")
            folder.replace(f"{last:016x}.seg", bytes(data))
        elif kind < 0.8:
            what, verdict, least, alter = dice.choice(HEADERS)
            where = dice.randint(oldest + 1 if least > 1 and number > 1 else oldest, last)
            if number < least:
                return True
            data = bytearray(folder.view(f"{where:016x}.seg"))
            alter(data)
            seal_header(data)
            folder.replace(f"{where:016x}.seg", bytes(data))
        else:
            what, least, left = dice.choice(FILES)
            where = dice.randint(oldest, last)
            if number < least or where <= self.given_up:
                return True
            folder.replace(f"{where:016x}.seg", left(bytes(folder.view(f"{where:016x}.seg"))))
        self.happen("a wrong writer")
        if verdict == "cut":
            self.durable.pop()
            self.start()
            return True
        try:
            LogStore(self.disk.folder(), 1, segment_size=self.size).close()
        except StorageError as error:
            said = "damaged" if isinstance(error, DamagedLog) else str(error)
            if verdict not in said:
                raise _Wrong(f"{what} in segment {where}: {said}, and not {verdict}") from error
            return False
        raise _Wrong(f"{what} in segment {where} of {oldest} to {last} goes unnoticed")

    def live(self) -> None:
        dice = self.dice
        if dice.random() < 0.1:
            size = dice.choice([1000, 4096, (1 << 16) + 1, 1 << 31])
            self.refused(lambda: LogStore(self.disk.folder(), 1, segment_size=size), "an odd size of segments")
        self.start()
        for _ in range(40 if self.at_ends else dice.choice([3, 10, 30])):
            if dice.random() < 0.7:
                self.disk.die(dice.choice([3, 30, 100]) * dice.randrange(1, 8) // 4)
            if dice.random() < 0.1:
                self.disk.fail()
            newest = None
            try:
                for _ in range(dice.choice([5, 50, 300])):
                    self.step()
                if dice.random() < 0.1:
                    self.disk.fill(True)
                if dice.random() < 0.15:
                    self.flip()
                elif dice.random() < 0.1:
                    newest = self.newest()
            except StorageError:
                self.happen("stopped by its disk")
                self.stopped()
            self.ended(newest is None and dice.random() < 0.6)
            if newest is not None:
                if not self.wrong(*newest):
                    return
                if self.log is not None:
                    continue
            if not self.flipped and dice.random() < 0.1:
                try:
                    self.refused(lambda: LogStore(self.disk.folder(), 2), "the log of another node")
                except WrongDirectory:
                    self.happen("another node's")
            if dice.random() < (0.9 if self.at_ends else 0.5):
                # About where a torn end is erased: that comes behind the probe, and a sync of each spare.
                spares = sum(name.startswith("spare-") for name in self.disk.folder().names())
                self.disk.die(dice.randrange(4, 7) + spares if self.at_ends else dice.randrange(12))
            try:
                self.start()
            except DamagedLog:
                return


def _short(entries: list[tuple[int, Entry]], at: int) -> Any:
    if at >= len(entries):
        return "nothing"
    segment, (kind, group, instance, body) = entries[at]
    return f"type {kind}, group {group}, instance {instance}, {len(body)} bytes in segment {segment}"


def run(seed: int) -> LogOutcome:
    """One life of a log."""
    outcome = LogOutcome(seed)
    life = _Life(seed, outcome)
    try:
        life.live()
    except _Wrong as error:
        outcome.violation = str(error)
    finally:
        if life.log is not None:
            life.log.close()
    return outcome
