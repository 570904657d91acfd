"""Do the state machines of all nodes answer the same? A checksum over their results is compared between nodes, while they run.

The chain checksum finds values that differ; this finds state machines that are not deterministic, or a state that was changed
behind their back. Results are gathered in windows of 64 instances, each with a checksum of its own, so that a node that has
begun somewhere in the middle is comparable from its next window on. At the end of every 16th window what ``digest()`` of a
state machine says goes in, too, if it has one. Once a second each node tells the others its newest windows; who is wrong is
decided as for the chain checksum (``decide``). Results are encoded with their types; those of other types than bytes, str,
int, bool, None, and tuples and lists of these are not checked, which is said once.

Message (little-endian): type u8, then as many of these as there are

    RESULTS   machine u32, window u64, checksum u32
"""

from __future__ import annotations

import enum
import logging
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from paxos._codec import checksum
from paxos._handle import Handle
from paxos.errors import Diverged
from paxos.statemachine import StateMachine

__all__ = ["RESULTS", "UNDECIDED", "Results", "Verdict", "decide", "encode", "split"]

logger = logging.getLogger("paxos")

RESULTS: Final = 18
_ENTRY: Final = struct.Struct("<IQI")

WINDOW: Final = 64
DIGEST_EVERY: Final = 16
#: Windows that are kept, and that are told of at once, for each state machine.
KEPT: Final = 256
TOLD: Final = 64
#: Comparisons in a row that find a difference, and no majority among those that answer, until it counts that there is none.
UNDECIDED: Final = 10
DEEPEST: Final = 32


class Verdict(enum.Enum):
    """What a comparison at one place says of this node (design rule 19)."""

    EQUAL = "all that answered have the same"
    RIGHT = "the majority has what this node has"
    WRONG = "the majority has something else"
    OPEN = "no majority yet, but those that have not answered may make one"
    NOBODY = "no majority can come about"
    UNHEARD = "nobody that has answered has a say in who is right"


def decide(
    own: int, answers: Iterable[int], members: int, others: Iterable[int] = (), *, votes: bool = True
) -> Verdict:
    """``answers`` are those of voters other than this node, one each, ``others`` those of members without a vote, which are
    compared and have no say. ``members``: how many voters there are; ``votes``: whether this node is one."""
    counted = Counter([own, *answers] if votes else answers)
    values = {*counted, own}
    if len(values) == 1:
        return Verdict.EQUAL if values == {own, *others} else Verdict.RIGHT if counted else Verdict.UNHEARD
    value, count = counted.most_common(1)[0]
    majority = members // 2 + 1
    if count >= majority:
        return Verdict.RIGHT if value == own else Verdict.WRONG
    return Verdict.OPEN if count + members - counted.total() >= majority else Verdict.NOBODY


def split(answers: Mapping[int, int], voters: Collection[int]) -> tuple[list[int], list[int]]:
    """What voters have answered, and what others have."""
    return (
        [answer for node, answer in answers.items() if node in voters],
        [answer for node, answer in answers.items() if node not in voters],
    )


def encode(result: object, out: bytearray, depth: int = 0) -> None:
    """Appends a result, with its type. TypeError: of a type that is not checked."""
    kind = type(result)
    if result is None or kind is bool:
        out += b"N" if result is None else b"T" if result else b"F"
    elif isinstance(result, int) and kind is int:
        text = b"%x" % result
        out += b"i%d:%s" % (len(text), text)
    elif isinstance(result, bytes) and kind is bytes:
        out += b"b%d:" % len(result)
        out += result
    elif isinstance(result, str) and kind is str:
        text = result.encode("utf-8", "surrogatepass")
        out += b"s%d:%s" % (len(text), text)
    elif isinstance(result, tuple | list) and kind in (tuple, list) and depth < DEEPEST:
        out += b"(%d:" % len(result) if kind is tuple else b"[%d:" % len(result)
        for item in result:
            encode(item, out, depth + 1)
    else:
        raise TypeError(kind.__name__)


class _Windows:
    """Of one state machine."""

    def __init__(self, machine: StateMachine) -> None:
        self.machine = machine
        digest = getattr(machine, "digest", None)
        self.digest = digest if callable(digest) else None
        self.next = -1  # the instance that the window that is open wants; -1: none is open
        self.crc = 0
        self.done: dict[int, int] = {}
        self.unchecked = False


class Results:
    """The checksums of one group. On the thread that applies."""

    def __init__(self, engine: Handle, machines: Mapping[int, StateMachine]) -> None:
        self._engine = engine
        self._windows = {id_: _Windows(machine) for id_, machine in machines.items()}
        self._others: dict[tuple[int, int], dict[int, int]] = {}
        self._undecided = 0

    def note(self, id_: int, instance: int, results: Sequence[object]) -> None:
        """What a state machine has answered to the values of an instance."""
        windows = self._windows[id_]
        if windows.unchecked:
            return
        if instance % WINDOW == 0:
            windows.next, windows.crc = instance, 0
        if instance != windows.next:
            windows.next = -1
            return
        data = bytearray()
        ends = (instance + 1) % WINDOW == 0
        try:
            for result in results:
                encode(result, data)
            if ends and windows.digest is not None and instance // WINDOW % DIGEST_EVERY == DIGEST_EVERY - 1:
                encode(windows.digest(), data)
        except TypeError as error:
            windows.unchecked = True
            logger.warning(
                "check_results: %s answers with a %s, which is not checked (bytes, str, int, bool, None, and tuples and lists of "
                "these are): its results are not compared between nodes", type(windows.machine).__name__, error,
            )  # fmt: skip
            return
        windows.crc = checksum(b"%d;%d:" % (instance, len(results)) + data, windows.crc)
        windows.next = instance + 1
        if ends:
            windows.done[instance // WINDOW] = windows.crc
            if len(windows.done) > KEPT:
                del windows.done[next(iter(windows.done))]

    def tell(self, nodes: Iterable[int]) -> None:
        """The others hear of the newest windows here."""
        data = bytearray([RESULTS])
        for id_, windows in self._windows.items():
            for window in list(windows.done)[-TOLD:]:
                data += _ENTRY.pack(id_, window, windows.done[window])
        if len(data) > 1:
            for node in nodes:
                self._engine.send(node, bytes(data))

    def receive(self, node: int, data: bytes) -> None:
        """What another one has told. What is far from here is not kept."""
        if (len(data) - 1) % _ENTRY.size:
            return
        for id_, window, crc in _ENTRY.iter_unpack(data[1:]):
            windows = self._windows.get(id_)
            newest = max(windows.done, default=0) if windows is not None else 0
            if windows is not None and newest - KEPT < window <= newest + KEPT:
                self._others.setdefault((id_, window), {})[node] = crc

    def compare(self, voters: Collection[int], votes: bool = True) -> tuple[int, Diverged] | None:
        """The first window in which this node is wrong, or nobody is right: an instance of it, and what to say. ``voters``: those
        beside this node; ``votes``: whether it is one itself."""
        undecided = False
        for id_, window in sorted(self._others):
            windows = self._windows[id_]
            newest = max(windows.done, default=0)
            if window <= newest - KEPT:
                del self._others[id_, window]
                continue
            if window not in windows.done:
                continue
            answers, others = split(self._others[id_, window], voters)
            verdict = decide(windows.done[window], answers, len(voters) + votes, others, votes=votes)
            undecided = undecided or verdict is Verdict.OPEN
            late = verdict is Verdict.OPEN and self._undecided >= UNDECIDED
            if verdict in (Verdict.WRONG, Verdict.NOBODY) or late:
                return window * WINDOW, self._error(id_, window, verdict)
        self._undecided = self._undecided + 1 if undecided else 0
        return None

    def _error(self, id_: int, window: int, verdict: Verdict) -> Diverged:
        name = type(self._windows[id_].machine).__name__
        where = f"the results of state machine {id_} ({name}) for instances {window * WINDOW} to {window * WINDOW + WINDOW - 1}"
        if verdict is Verdict.WRONG:
            return Diverged(
                f"{where} are not those of the majority: it is not deterministic, or its state was changed. This node stops "
                "applying, and goes on voting. To get a right state stop it, set its data directory aside, and start it with an "
                "empty one"
            )
        return Diverged(
            f"{where} differ between the nodes, and no majority agrees: it is not deterministic. Nobody can say who is right, so "
            "all stop applying. Mend the state machine (paxos.testing.check_determinism finds the place)"
        )
