"""Do all nodes have the same values? The chain checksum of one instance is compared between them, while they run.

Once a second a node asks the others for the chain checksum at the highest instance that a majority has, or it has itself where it
is behind. Each keeps the checksum of every instance that its log holds, so all are asked about the same one. Design rule 19: the
majority of the voters at one instance decides who is wrong; members without a vote are compared, and have no say. Whoever is not
with it stops applying, leads no more, finds by bisection the first instance that differs, says which, and
takes no part any more: its log holds what was not chosen, so what it has promised and accepted cannot be relied on either. Its
next start sets the log aside and asks to be taken in anew. Where no majority agrees, all stop applying, for nobody can say who is
right; but an answer that is only missing is waited for.

Messages, as in transfer.py (little-endian): type u8, then

    CHAIN?    number u32, instance u64
    CHAIN     number u32, instance u64, chain u32 (0: not known there), chosen u64, first_kept u64
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from typing import Final

from paxos._handle import Handle
from paxos.alarm import Alarms
from paxos.background import Background, Serial
from paxos.errors import Diverged
from paxos.membership import voters as voters_of
from paxos.results import RESULTS, UNDECIDED, Results, Verdict, decide, split

__all__ = ["MESSAGES", "Reconcile"]

ASK_CHAIN, CHAIN = 16, 17
MESSAGES: Final = (ASK_CHAIN, CHAIN, RESULTS)
_ASK: Final = struct.Struct("<BIQ")
_CHAIN: Final = struct.Struct("<BIQIQQ")

#: Seconds between two comparisons, and for how long answers to one are waited for.
EVERY: Final = 1.0
#: Questions of a bisection that may stay without an answer, one after the other.
PATIENCE: Final = 5


class _Bisection:
    """Looks for the first instance at which this node and another one differ: not below ``first``, and not above ``last``."""

    def __init__(self, node: int, first: int, last: int) -> None:
        self.node = node
        self.kept = self.first = first  # what is below, the logs do not hold
        self.last = last
        self.unanswered = 0

    @property
    def middle(self) -> int:
        return (self.first + self.last) // 2

    @property
    def surely(self) -> int:
        """All below it are equal, as far as anybody can tell."""
        return self.first if self.first > self.kept else 0

    def __str__(self) -> str:
        if self.first < self.last:
            return f"the first one is not before {self.surely}, and not behind {self.last}"
        if self.surely == 0 < self.last:
            return f"the first one is {self.last}, or one before it that the logs no longer hold"
        return f"the first one is {self.last}"


class Reconcile:
    """One group's. On the thread that applies.

    ``heal``: a node that is in the minority leaves a mark for its next start.
    """

    def __init__(
        self,
        engine: Handle,
        background: Background,
        alarms: Alarms,
        *,
        results: Results | None = None,
        heal: bool = True,
    ) -> None:
        self._engine = engine
        self._background = background
        self._alarms = alarms
        self._marking = Serial(background)
        self._heal = heal
        #: also compared, if there
        self.results = results
        self._number = 0  # of the comparison that is open
        self._instance = -1  # what it is about; -1: none is open
        self._own = 0
        self._answers: dict[int, int] = {}
        self._chosen: dict[int, int] = {}  # of those that answered last
        self._heard: dict[int, int] = {}  # ... and this time
        self._first_kept: dict[int, int] = {}
        self._wanted: dict[int, list[Callable[[int], object]]] = {}  # own checksums that the engine was asked for
        self._undecided = 0
        self._bisection: _Bisection | None = None
        self._closed = False
        #: ends this node's applying; put here by the group
        self.stop: Callable[[int, Diverged], object] = lambda instance, error: None
        #: all that answered agreed on the instances below this one; what was found wrong
        self.compared = 0
        self.diverged: Diverged | None = None
        background.later(EVERY, self._tick)

    def close(self) -> None:
        """No more of it."""
        self._closed = True
        self.stop = lambda instance, error: None

    # -- comparing

    def _tick(self) -> None:
        if self._closed:
            return
        if self._bisection is not None:
            self._bisection.unanswered += 1
            self._bisect(self._bisection)
        elif self.diverged is None:
            if self._instance >= 0:
                self._conclude()
            self._compare_results()
            self.compare()
        self._background.later(EVERY, self._tick)

    def compare(self) -> None:
        """Asks everybody about one instance, now."""
        status = self._engine.status()
        if not status["formed"] or self.diverged is not None or self._closed:
            return
        voters, votes = self._electorate()
        known = [chosen for node, chosen in self._chosen.items() if node in voters]
        if votes or not known:
            known.append(status["chosen"])
        known.sort(reverse=True)
        common = known[min((len(voters) + votes) // 2, len(known) - 1)]
        instance = min(status["chosen"], common) - 1
        self._number = (self._number + 1) & 0xFFFFFFFF or 1
        self._instance = max(instance, 0)
        self._own = 0
        self._answers, self._heard = {}, {}
        for node in status["peers"]:
            self._engine.send(node, _ASK.pack(ASK_CHAIN, self._number, self._instance))
        number = self._number
        self._want(self._instance, lambda chain: self._have_own(number, chain))

    def _compare_results(self) -> None:
        if self.results is None or self.diverged is not None:
            return
        self.results.tell(self._engine.status()["peers"])
        if (found := self.results.compare(*self._electorate())) is not None:
            instance, self.diverged = found
            self.stop(instance, self.diverged)

    def _electorate(self) -> tuple[frozenset[int], bool]:
        """The voters beside this node, and whether it is one."""
        own, all_ = self._engine.status()["node_id"], voters_of(self._engine.membership())
        return all_ - {own}, own in all_

    def _have_own(self, number: int, chain: int) -> None:
        if number == self._number:
            self._own = chain

    def _conclude(self) -> None:
        """What the answers say."""
        instance, self._instance = self._instance, -1
        self._chosen, answers = self._heard, self._answers
        if not self._own or not answers:
            return
        voters, votes = self._electorate()
        said, others = split(answers, voters)
        verdict = decide(self._own, said, len(voters) + votes, others, votes=votes)
        self._undecided = self._undecided + 1 if verdict is Verdict.OPEN else 0
        if verdict is Verdict.EQUAL:
            self.compared = instance + 1
        elif verdict is Verdict.WRONG:
            right = Counter(said).most_common(1)[0][0]
            self._in_the_minority(instance, [n for n, chain in answers.items() if chain == right and n in voters])
        elif verdict is Verdict.NOBODY or self._undecided >= UNDECIDED:
            self._nobody_is_right(instance, answers)

    # -- diverged

    def _in_the_minority(self, instance: int, others: list[int]) -> None:
        kept = max(self._engine.status()["first_kept"], self._first_kept.get(others[0], 0))
        error = self.diverged = Diverged(
            f"the values of this node are not those of the majority (nodes {', '.join(map(str, sorted(others)))}): the chain "
            f"checksums behind instance {instance} differ. It stops applying and takes no part any more"
        )
        self.stop(instance, error)
        self._engine.part()
        self._alarms.sound(
            "diverged",
            "its next start sets the log aside, and gets well from the others: restart it"
            if self._heal
            else "with the option heal_divergence=False the next start uses the same log again: set the data directory "
            "aside, and start with an empty one, which gets well from the others",
            instance=instance,
        )
        # Until the first wrong instance is known no checkpoint is to be trusted.
        self._mark(0, str(error))
        self._bisection = _Bisection(others[0], kept, instance)
        self._bisect(self._bisection)

    def _nobody_is_right(self, instance: int, answers: dict[int, int]) -> None:
        said = ", ".join(f"node {node}: {chain:08x}" for node, chain in sorted(answers.items()))
        self.diverged = Diverged(
            f"the values of the nodes differ, and no majority agrees: the chain checksum behind instance {instance} is "
            f"{self._own:08x} here, {said}. Nobody can say who is right, so all stop applying. Compare the logs; restore a backup"
        )
        self.stop(instance, self.diverged)

    def _mark(self, first: int, why: str) -> None:
        if not self._heal:
            return

        def marked(_: None, error: BaseException | None) -> None:
            if error is not None:
                self._alarms.sound(
                    "heal-failed",
                    "no mark can be left (%s), so the next start would use the same log again: set the data directory aside",
                    error,
                )

        self._marking.run(lambda: self._engine.distrust(first, why), marked)

    # -- the first instance that differs

    def _bisect(self, b: _Bisection) -> None:
        if b.first < b.last and b.unanswered <= PATIENCE:
            self._engine.send(b.node, _ASK.pack(ASK_CHAIN, 0, b.middle))
            return
        self._bisection = None
        self._alarms.sound(
            "diverged", "instances of this node differ from those of node %d: %s", b.node, b, instance=b.last
        )
        self._mark(b.surely, f"{self.diverged}; {b}")

    def _halved(self, b: _Bisection, instance: int, theirs: int, own: int) -> None:
        if self._bisection is not b or instance != b.middle:
            return
        b.unanswered = 0
        if theirs == 0 or own == 0:
            b.kept = b.first = instance + 1  # deleted meanwhile
        elif theirs == own:
            b.first = instance + 1
        else:
            b.last = instance
        self._bisect(b)

    # -- messages

    def receive(self, node: int, data: bytes) -> None:
        """Bytes from another node that begin with one of MESSAGES."""
        if self._closed:
            return
        if data[0] == RESULTS:
            if self.results is not None:
                self.results.receive(node, data)
        elif data[0] == ASK_CHAIN and len(data) == _ASK.size:
            _, number, instance = _ASK.unpack(data)
            self._want(instance, lambda chain: self._answer(node, number, instance, chain))
        elif data[0] == CHAIN and len(data) == _CHAIN.size:
            _, number, instance, chain, chosen, first_kept = _CHAIN.unpack(data)
            self._first_kept[node] = first_kept
            bisection = self._bisection
            if bisection is not None and node == bisection.node and number == 0:
                self._want(instance, lambda own: self._halved(bisection, instance, chain, own))
            elif number == self._number:
                self._heard[node] = chosen
                if chain and instance == self._instance:
                    self._answers[node] = chain

    def _answer(self, node: int, number: int, instance: int, chain: int) -> None:
        status = self._engine.status()
        data = _CHAIN.pack(CHAIN, number, instance, chain, status["chosen"], status["first_kept"])
        self._engine.send(node, data)

    # -- what the engine knows

    def _want(self, instance: int, call: Callable[[int], object]) -> None:
        waiting = self._wanted.setdefault(instance, [])
        waiting.append(call)
        if len(waiting) == 1:
            self._engine.ask_chain(instance)

    def known(self, instance: int, chain: int) -> None:
        """The engine's answer to ``ask_chain``."""
        for call in self._wanted.pop(instance, ()):
            call(chain)
