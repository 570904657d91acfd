"""What can go wrong, as data: a schedule of faults drawn from a seed, carried out on a simulated cluster.

A schedule is a plain list, so it can be printed, cut down, and played again. Each fault has a time, a kind, a target and a
length; when the length is over it is undone (a node is started again, a partition healed). The target may be "the master",
which is found out when the time comes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from paxos.errors import PaxosError
from paxos.testing.cluster import MS, SECOND, Cluster, Replica, Violation
from paxos.testing.forged import FORGED
from paxos.testing.wrongwriter import contradict

__all__ = ["GROUPS", "KINDS", "Fault", "Faults", "Nobody", "draw"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``at`` and ``length`` in ns from the start of the run; ``target``: a node id, 0 for the master of that moment.
    ``number``: whatever else the kind wants to know."""

    at: int
    kind: str
    target: int
    length: int
    number: int = 0

    def __str__(self) -> str:
        who = f"node {self.target}" if self.target else "the master"
        return f"{self.at / SECOND:8.3f} s  {self.kind:<14} {who}, {self.length / MS:.0f} ms, {self.number}"


#: Kinds by group; a run draws some of the groups, so that each kind is also met alone.
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "network": ("loss", "duplicate", "late", "corrupt", "slow", "picky", "reset", "forged"),
    "partition": ("isolate", "split", "one-way", "quorum-loss", "constrained", "chained", "minority", "flap"),
    "crash": ("kill", "power", "kill-in-call", "power-in-call", "kill-all", "power-all", "stop"),
    "pause": ("pause", "pause-python", "sleepy", "resign"),
    "disk": ("disk-slow", "disk-hang", "sync-fails", "read-fails", "disk-full", "spare"),
    "rot": ("flip", "wipe", "contradict"),
    "clock": ("drift", "jump"),
    "election": ("stand",),
    "mastership": ("transfer",),
}
KINDS: Final = tuple(kind for kinds in GROUPS.values() for kind in kinds)
#: The least and the most that a fault of a kind lasts, in ms, where it is not the usual.
LENGTHS: Final[dict[str, tuple[int, int]]] = {
    "stand": (1, 1),
    "transfer": (1, 1),
    "forged": (1, 1),
    "flip": (1, 1),
    "wipe": (1, 1),
    "contradict": (1, 1),
    "spare": (1, 1),
    "jump": (1, 1),
    "kill": (1, 3000),
    "kill-all": (1, 1500),
    "power-all": (1, 1500),
    "pause-python": (100, 6000),
    "disk-full": (500, 9000),
}


def draw(dice: random.Random, nodes: int, length: int, kinds: Sequence[str], mean_gap: int) -> list[Fault]:
    """A schedule of ``length`` ns with a fault every ``mean_gap`` ns or so, of some of the groups that ``kinds`` allow."""
    groups = [[kind for kind in group if kind in kinds and kind != "transfer"] for group in GROUPS.values()]
    groups = [group for group in groups if group]
    if not groups:
        return _transfers(dice, length, mean_gap) if "transfer" in kinds else []
    chosen = [group for group in groups if dice.random() < 0.6] or [dice.choice(groups)]
    schedule = []
    at = 0
    while True:
        at += 1 + int(dice.expovariate(1 / mean_gap))
        if at >= length:
            break
        kind = dice.choice(dice.choice(chosen))
        low, high = LENGTHS.get(kind, (20, 2500))
        target = 0 if dice.random() < 0.3 else dice.randint(1, nodes)
        schedule.append(Fault(at, kind, target, dice.randint(low, high) * MS, dice.getrandbits(16)))
    # Behind all else, so that everything else is the same without them.
    if "transfer" in kinds and dice.random() < 0.4:
        schedule = sorted([*schedule, *_transfers(dice, length, mean_gap * 3)], key=lambda fault: fault.at)
    return schedule


def _transfers(dice: random.Random, length: int, mean_gap: int) -> list[Fault]:
    """The master is asked to hand over, now and then; sometimes twice in a row, before it can have done so."""
    found = []
    at = 0
    while (at := at + 1 + int(dice.expovariate(1 / mean_gap))) < length:
        found.append(Fault(at, "transfer", 0, MS, dice.getrandbits(16)))
        if dice.random() < 0.2:
            found.append(Fault(at + dice.randint(1, 20) * MS // 10, "transfer", 0, MS, dice.getrandbits(16)))
    return [fault for fault in found if fault.at < length]


class Faults:
    """Carries schedules out on a cluster. ``hits`` counts the faults that met something; ``log`` says when and what."""

    def __init__(self, cluster: Cluster, restart: Callable[[Replica], None]) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.restart = restart
        self.hits: Counter[str] = Counter()
        self.log: list[tuple[int, int, str, int]] = []  # from, to, kind, node id
        self.over = False
        #: nodes that have lost what they had written, or will find that out, and the incarnation that lost it
        self.rotten: dict[int, tuple[int, int]] = {}
        self.contradicted: set[int] = set()  # their logs hold what cannot be, and must be set aside
        self.down_until: dict[int, int] = {}
        self.network = {"loss": 0.0, "duplicate": 0.0, "late": (0.0, 0), "corrupt": 0.0}
        self.cut_number = 0
        #: whether a node may lose its log now; where members come and go, more hangs on that than how many do
        self.may_rot: Callable[[Replica], bool] | None = None

    def play(self, schedule: Sequence[Fault]) -> None:
        """Puts the schedule into the world's future."""
        start = self.world.now
        for fault in schedule:
            self.world.call_at(start + fault.at, lambda fault=fault: self._begin(fault))  # type: ignore[misc]

    def stop(self) -> None:
        """No more faults: everything is undone that has not been, and nodes that are down come up."""
        self.over = True
        self.world.heal()
        self.world.picky({})
        self.world.sleepy(0.0, 0)
        self.world.network(loss=0.0, duplicate=0.0, late=(0.0, 0), corrupt=0.0, delay=(50_000, 300_000))
        for replica in self.cluster.replicas:
            self.world.disk(replica.index, low=100_000, high=400_000, hang=0, full=False)
            self.world.disk(replica.index, fails=False, read_fails=False, directory_fails=False)
            self.world.crash(replica.index, within=1 << 60)
            self.world.clock(replica.index, ppm=0)
            if replica.handle is not None:
                self.world.pause_python(replica.index, False)
                replica.handle.resign(True)
            else:
                self.revive(replica)

    def revive(self, replica: Replica) -> None:
        """Starts a node that is down, now or, if it ends again at once, a little later; one that is damaged stays down."""
        if replica.up or replica.damaged is not None:
            return
        if not self.over and self.down_until.get(replica.id, 0) > self.world.now:
            return
        if replica.start():
            damage = replica.status()["damage"]
            # (It may have been set aside at an earlier start, which then failed for another reason.)
            if replica.id in self.contradicted and self.world.incarnation(replica.index) == self.rotten[replica.id]:
                raise Violation(f"node {replica.id} starts with a log that contradicts itself")
            if damage is not None and replica.id not in self.rotten:
                raise Violation(f"node {replica.id} calls its log damaged, and nobody has damaged it: {damage}")
            if (
                replica.group is not None
                and replica.group.hollow
                and not (replica.id in self.rotten or self.hits["read-fails"] > 1)  # (what fails once is read again)
            ):
                raise Violation(f"node {replica.id} has given log up for a checkpoint that it does not have")
            self.contradicted.discard(replica.id)
            self.restart(replica)
        elif replica.damaged is None:
            self.world.call_at(self.world.now + 50 * MS, lambda: self.revive(replica))
        elif replica.id not in self.rotten:
            raise Violation(f"node {replica.id} calls its log damaged, and nobody has damaged it: {replica.damaged}")

    # -- one fault

    def _target(self, fault: Fault) -> Replica:
        if fault.target == 0:
            return self.cluster.master() or self.cluster.replicas[fault.number % len(self.cluster.replicas)]
        return self.cluster.replicas[fault.target - 1]

    def _begin(self, fault: Fault) -> None:
        if self.over:
            return
        replica = self._target(fault)
        kind = fault.kind
        if kind in GROUPS["network"]:
            hit = self._forged(replica, fault) if kind == "forged" else self._network(kind, fault)
        elif kind in GROUPS["partition"]:
            hit = self._partition(kind, replica, fault)
        elif kind in GROUPS["crash"]:
            hit = self._crash(kind, replica, fault)
        else:
            hit = self._other(kind, replica, fault)
        if hit:
            self.hits[kind] += 1
            self.log.append((self.world.now, self.world.now + fault.length, kind, replica.id))

    def _after(self, fault: Fault, undo: Callable[[], None]) -> None:
        def end() -> None:
            if not self.over:
                undo()

        self.world.call_at(self.world.now + fault.length, end)

    def _network(self, kind: str, fault: Fault) -> bool:
        strength = (0.02, 0.1, 0.3)[fault.number % 3]
        if kind == "loss":
            self.world.network(loss=strength)
            self._after(fault, lambda: self.world.network(loss=0.0))
        elif kind == "duplicate":
            self.world.network(duplicate=strength)
            self._after(fault, lambda: self.world.network(duplicate=0.0))
        elif kind == "late":
            self.world.network(late=(strength, (5, 50, 500, 3000)[fault.number // 3 % 4] * MS))
            self._after(fault, lambda: self.world.network(late=(0.0, 0)))
        elif kind == "reset":
            # Connections break here and there, and come up again.
            for a in self.cluster.replicas:
                for b in self.cluster.replicas:
                    if a is not b and fault.number >> ((a.index * 5 + b.index) % 16) & 1:
                        self.world.reset(a.index, b.index)
        elif kind == "picky":
            # Some types of frames hardly get through: what would tell a node that it is behind, or deposed, say.
            share = (0.5, 0.8, 0.95)[fault.number % 3]
            self.world.picky({16 + bit: share for bit in range(14) if fault.number >> (bit + 2) & 1})
            self._after(fault, lambda: self.world.picky({}))
        elif kind == "corrupt":
            self.world.network(corrupt=strength / 10)
            self._after(fault, lambda: self.world.network(corrupt=0.0))
        else:
            slow = (1, 10, 60)[fault.number % 3] * MS
            self.world.network(delay=(slow // 4, slow))
            self._after(fault, lambda: self.world.network(delay=(50_000, 300_000)))
        return True

    def _forged(self, replica: Replica, fault: Fault) -> bool:
        """A frame of a peer that is wrong, out of date or of another cluster, with a right checksum: it must change nothing."""
        others = [other for other in self.cluster.replicas if other is not replica]
        if not others:
            return False
        source = others[fault.number % len(others)]
        return self.world.forge(replica.index, source.index, *FORGED[fault.number // 32 % len(FORGED)])

    def _partition(self, kind: str, replica: Replica, fault: Fault) -> bool:
        cut, everyone = self.cluster.cut, self.cluster.replicas
        others = [other for other in everyone if other is not replica]
        turn = fault.number % len(others) if others else 0
        others = others[turn:] + others[:turn]
        if not others:
            return False
        half = len(everyone) // 2
        if kind == "isolate":
            cut([replica], others)
        elif (
            kind == "minority"
        ):  # with as many friends as do not make a quorum: what it says and what is chosen drift apart
            cut([replica, *others[: (len(everyone) - 1) // 2]], others[(len(everyone) - 1) // 2 :])
        elif kind == "split":
            cut([replica, *others[:half]], others[half:])
        elif kind == "one-way":
            cut([replica], others[: 1 + fault.number // 7 % len(others)], both=False)
        elif kind == "quorum-loss":  # everybody reaches one node, and nobody else (OmniPaxos, EuroSys 2023, figure 1)
            cut(others, others)
        elif kind == "constrained":  # the old master reaches only the node that could lead, which does not reach it
            cut([replica], others, both=False)
        elif kind == "chained":  # each reaches its neighbours only
            row = [replica, *others]
            for i, a in enumerate(row):
                cut([a], row[i + 2 :])
        else:  # flap: the same cut again and again
            cut([replica], others[:half])
        self.cut_number += 1
        number = self.cut_number

        def heal() -> None:
            if number == self.cut_number or fault.number % 2:
                self.world.heal()

        self._after(fault, heal)
        if kind == "flap" and fault.length > 200 * MS:
            again = Fault(fault.at, kind, fault.target, fault.length // 2, fault.number)
            self.world.call_at(self.world.now + fault.length + 100 * MS, lambda: self._begin(again))
        return True

    def _crash(self, kind: str, replica: Replica, fault: Fault) -> bool:
        power = kind.startswith("power")
        victims = self.cluster.replicas if kind.endswith("-all") else [replica]
        hit = False
        for victim in victims:
            if not victim.up:
                continue
            hit = True
            until = self.world.now + fault.length
            self.down_until[victim.id] = max(self.down_until.get(victim.id, 0), until)
            self.world.call_at(until, lambda victim=victim: self.revive(victim))  # type: ignore[misc]
            if kind == "stop":
                assert victim.handle is not None
                victim.handle.stop()
            elif kind.endswith("-in-call"):
                self.cluster.crash(victim, power=power, within=fault.number % 12)
            else:
                self.cluster.crash(victim, power=power)
        return hit

    def ended(self, replica: Replica) -> None:
        """A process has ended, for whatever reason: it is started again when its time is up."""
        delay = max(self.down_until.get(replica.id, 0) - self.world.now, 1 * MS)
        self.world.call_at(self.world.now + delay, lambda: self.revive(replica))

    def _other(self, kind: str, replica: Replica, fault: Fault) -> bool:
        world, index = self.world, replica.index
        if kind == "disk-slow":
            slow = (2, 20, 100)[fault.number % 3] * MS
            world.disk(index, low=slow // 4, high=slow)
            self._after(fault, lambda: world.disk(index, low=100_000, high=400_000))
            return True
        if kind == "disk-full":
            world.disk(index, full=True, room=(0, 0, 100_000, 1_000_000)[fault.number % 4])
            self._after(fault, lambda: world.disk(index, full=False))
            return True
        if kind == "sleepy":
            world.sleepy((0.1, 0.5)[fault.number % 2], (1, 10)[fault.number // 2 % 2] * MS)
            self._after(fault, lambda: world.sleepy(0.0, 0))
            return True
        if kind == "drift":
            world.clock(index, ppm=fault.number % 401 - 200)
            return True
        if not replica.up:
            return False
        if kind == "pause":
            world.pause(index, fault.length)
        elif kind == "pause-python":
            life = world.life(index)
            world.pause_python(index, True)

            def go_on() -> None:
                if replica.up and world.life(index) == life:
                    world.pause_python(index, False)

            self._after(fault, go_on)
        elif kind == "disk-hang":
            world.disk(index, hang=fault.length)
        elif kind == "sync-fails":
            # Syncs of the directory are few: the failure waits for one.
            world.disk(index, fails=fault.number % 3 > 0, directory_fails=fault.number % 3 == 0)
        elif kind == "read-fails":
            world.disk(index, read_fails=True)
        elif kind == "spare":
            world.spare(index)
        elif kind == "jump":
            world.clock(index, jump=(1 + fault.number % 20) * SECOND // 4)
        elif kind == "stand":
            world.stand(index)
        elif kind == "transfer":
            return self._transfer(replica, fault)
        elif kind == "resign":
            assert replica.handle is not None
            handle = replica.handle
            handle.resign(False)

            def stand_again() -> None:
                if replica.handle is handle:
                    handle.resign(True)

            self._after(fault, stand_again)
        else:  # flip, wipe, contradict: who has lost its log must get well from the others, so never more than a minority
            # And not before the cluster is formed, for which it takes them all.
            # One that got well, as another incarnation that votes, may be met again.
            for other, lost in list(self.rotten.items()):
                if world.votes(other - 1) and world.incarnation(other - 1) != lost:
                    del self.rotten[other]
            if replica.id in self.rotten or not world.chosen or not (self.may_rot or self._is_minority)(replica):
                return False
            incarnation = world.incarnation(index)
            if kind == "wipe":
                self.cluster.crash(replica)
                world.wipe(index)
            elif kind == "contradict":
                self.cluster.crash(replica)
                if not contradict(world.folder(index), fault.number):
                    return False
                self.contradicted.add(replica.id)
            elif world.flip(index) is None:
                return False
            self.rotten[replica.id] = incarnation
        return True

    def _is_minority(self, replica: Replica) -> bool:
        return len(self.rotten) < (len(self.cluster.replicas) - 1) // 2

    def _transfer(self, replica: Replica, fault: Fault) -> bool:
        """Whoever takes itself for the master is asked to hand over: to the one that suits it best, or to another."""
        assert replica.group is not None
        count = len(self.cluster.replicas)
        node = 0 if fault.number % 3 == 0 else fault.number // 3 % count + 1
        try:
            replica.group.hand_over(0 if node == replica.id else node, Nobody())
        except PaxosError:
            return False  # it is no master any more
        return True


class Nobody:
    """Waits for nothing, and is told nothing."""

    def done(self) -> bool:
        return True

    def set_result(self, result: object, /) -> None:
        pass

    def set_exception(self, error: BaseException, /) -> None:
        pass
