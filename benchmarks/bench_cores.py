"""Three cores with a network and disks that take no time, and a record of every call, so that one core can be replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paxos._codec import check_frame, checksum
from paxos._stepping import Core

# The compiled functions that the benchmarks time come from here as well, so that one place names them.
__all__ = ["Call", "Core", "Step", "Trio", "check_frame", "checksum", "frames", "replay"]

MEMBERS = [(1, 7, 11), (2, 14, 22), (3, 21, 33)]
SECOND = 10**9

Call = tuple[str, tuple[Any, ...]]
Step = tuple[Callable[..., Any], tuple[Any, ...]]


class Trio:
    """Cores 1 to 3 with core 1 as the settled master. ``calls[n]`` has every call made on core n, in order."""

    def __init__(self) -> None:
        self.now = 1000 * SECOND
        self.cores = {node: new_core(node) for node, _, _ in MEMBERS}
        self.calls: dict[int, list[Call]] = {node: [] for node in self.cores}
        self.effects: dict[int, list[tuple[Any, ...]]] = {node: [] for node in self.cores}
        self._seq = 0
        for node in self.cores:
            self._run(node, "start", self.now)
        self.now += 10 * SECOND  # beyond every election timeout
        self._run(1, "tick", self.now)
        state = self.cores[1].state()
        assert state["role"] == "master", f"core 1 was not elected: {state}"
        assert state["settled"], f"core 1 has not taken over: {state}"

    def propose(self, values: list[bytes]) -> None:
        """One proposal at the master, until nothing moves any more."""
        self.now += SECOND // 10_000
        self._seq += 1
        self._run(1, "submit", self.now, self._seq, values, self.now + 5 * SECOND)

    def _run(self, node: int, name: str, *args: Any) -> None:
        """A call, and all that follows from it. A write of a core is durable when its step and its pump have ended."""
        waiting: list[tuple[int, Call]] = [(node, (name, args)), (node, ("pump", (self.now,)))]
        held: dict[int, list[tuple[int, int, bytes]]] = {number: [] for number in self.cores}
        while waiting:
            number, (name, args) = waiting.pop(0)
            self.calls[number].append((name, args))
            effects = getattr(self.cores[number], name)(*args)
            self.effects[number] += effects
            logged = 0
            for effect in effects:
                if effect[0] == "log":
                    logged = effect[1]
                elif effect[0] == "send":
                    held[number].append((effect[2], effect[1], effect[3]))
            if logged:
                waiting.append((number, ("durable", (self.now, logged))))
                waiting.append((number, ("pump", (self.now,))))
            durable = self.cores[number].state()["durable"]
            for _, peers, frame in (send for send in held[number] if send[0] <= durable):
                for index, (peer, _, _) in enumerate(MEMBERS):
                    if peers >> index & 1:
                        waiting.append((peer, ("receive", (self.now, frame))))
                        waiting.append((peer, ("pump", (self.now,))))
            held[number] = [send for send in held[number] if send[0] > durable]
        assert not any(held.values()), "a send waits for a record that was never durable"


def new_core(node: int) -> Core:
    """A core as it was at the start of a Trio."""
    return Core(node, MEMBERS, seed=node)


def frames(trio: Trio, node: int, kind: int, since: int = 0) -> list[bytes]:
    """What a core has sent of one type of frame, from its effect number ``since`` on."""
    return [effect[3] for effect in trio.effects[node][since:] if effect[0] == "send" and effect[3][13] == kind]


def replay(node: int, before: list[Call], then: list[Call]) -> tuple[Core, list[Step]]:
    """A new core on which ``before`` has been done, and ``then`` as calls on it that are still to be made."""
    core = new_core(node)
    for name, args in before:
        getattr(core, name)(*args)
    return core, [(getattr(core, name), args) for name, args in then]
