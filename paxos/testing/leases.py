"""Leases in simulated lives: some seeds have them, of lengths that change, on clocks that run up to half a percent apart.

All that is drawn here comes from dice of its own, so a life without leases is what it was. That no two nodes hold a lease at one
moment is judged at every event (``_world``); that what was read under one is linearizable, with all else (``campaign``).

``python -m paxos.testing.leases SECONDS [SEED]`` plays a cluster that is idle for so long (``idle``).
"""

from __future__ import annotations

import random
import sys
import time
from functools import partial
from typing import Final

from paxos.errors import PaxosError
from paxos.testing.cluster import MS, SECOND, Cluster, Replica
from paxos.testing.faults import Nobody
from paxos.testing.workload import Registers

__all__ = ["DRIFT", "Leases", "idle", "lease_of"]

#: Millionths by which a clock may be fast or slow. The lease of its holder is a 64th shorter than what it was granted; so two
#: clocks may differ by 1.5 percent, which is 0.7 either way.
DRIFT: Final = 5_000


class _Set(Nobody):
    def __init__(self, leases: Leases) -> None:
        self.leases = leases

    def done(self) -> bool:
        return False

    def set_result(self, result: object, /) -> None:
        self.leases.chosen += 1


def _start(replica: Replica) -> None:
    if not replica.up:
        replica.start()


class Leases:
    """What one life has of them."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.chosen = 0
        self.lengths = dice.choice([(0.5,), (0.1, 2.0), (1.0, 0.0), (0.3, 0.0, 1.5)])
        self.often = dice.choice([1.0, 5.0, 1000.0])

    def drifts(self, nodes: int) -> list[int]:
        """By node, millionths by which its clock is fast; often the most that there may be between two."""
        edge = self.dice.random() < 0.5
        return [self.dice.choice([-DRIFT, DRIFT]) if edge else self.dice.randint(-DRIFT, DRIFT) for _ in range(nodes)]

    def begin(self, cluster: Cluster, seconds: float) -> None:
        """Has the first length set as soon as there is a master, and others as time goes by."""
        end = cluster.now + int(seconds * SECOND)

        def turn() -> None:
            master = cluster.master()
            wait = 100 * MS
            if master is not None and master.group is not None:
                try:
                    master.group.set_lease(self.dice.choice(self.lengths), _Set(self))
                    wait = int(self.dice.expovariate(1 / self.often) * SECOND) + MS
                except PaxosError:
                    pass  # it is no master any more
            if cluster.now < end:
                cluster.world.call_at(cluster.now + wait, turn)

        cluster.world.call_at(cluster.now + 300 * MS, turn)


def lease_of(seed: int) -> Leases | None:
    """The leases of a seed, if it has any."""
    dice = random.Random(seed * 2 + 3)
    return Leases(dice) if dice.random() < 0.35 else None


def idle(seconds: float, *, seed: int = 0, drift: int = DRIFT, nodes: int = 3) -> dict[str, int]:
    """So many simulated seconds of a cluster in which nothing is proposed and each master in its turn is paused, cut off, killed
    or hands over, with clocks as far apart as ``drift`` allows. Raises Violation where two nodes hold a lease at one moment; what
    happened, as counts."""
    dice = random.Random(seed)
    cluster = Cluster(
        lambda node, before: before or Registers(), nodes=nodes, seed=seed, heartbeat_ns=200 * MS, election_min_ns=600 * MS,
        election_max_ns=1200 * MS,
    )  # fmt: skip
    world = cluster.world
    done = {"changes": 0, "pauses": 0, "cuts": 0, "kills": 0, "sieges": 0, "late cuts": 0, "transfers": 0}
    try:
        turn = dice.randrange(7)
        end = cluster.now + int(seconds * SECOND)
        cluster.run_until(lambda: cluster.master() is not None, 60)
        if (first := cluster.master()) is not None and first.group is not None:
            first.group.set_lease(2.0, Nobody())
            cluster.run(5.0)
        while cluster.now < end:
            cluster.run_until(lambda: cluster.master() is not None, 60)
            master = cluster.master()
            if master is None or master.group is None:
                continue
            for replica in cluster.replicas:
                world.clock(replica.index, ppm=dice.choice([-drift, drift]))
            kind = turn % 7
            turn += 1
            try:
                if kind == 0:
                    master.group.set_lease(dice.choice([1.0, 2.0, 5.0]), Nobody())
                    done["changes"] += 1
                elif kind == 1:
                    master.group.hand_over(0, Nobody())
                    done["transfers"] += 1
            except PaxosError:
                continue
            if kind == 2:
                world.pause(master.index, dice.randint(1, 10) * SECOND)
                done["pauses"] += 1
            elif kind == 3:
                cluster.cut([master], cluster.replicas, both=dice.random() < 0.5)
                world.call_at(cluster.now + dice.randint(1, 10) * SECOND, world.heal)
                done["cuts"] += 1
            elif kind == 4:
                cluster.crash(master)
                world.call_at(cluster.now + dice.randint(1, 3) * SECOND, partial(_start, master))
                done["kills"] += 1
            elif kind == 5:
                # It stands still, and holds a lease, and those who have granted that start again.
                world.pause(master.index, dice.randint(1, 10) * SECOND)
                for replica in cluster.replicas:
                    if replica is not master and replica.up:
                        cluster.crash(replica)
                        world.call_at(cluster.now + dice.randint(1, 100) * MS, partial(_start, replica))
                done["sieges"] += 1
            elif kind == 6:
                # Answers to what it asked long ago come when it is cut off already.
                world.network(late=(0.5, 3 * SECOND))
                cluster.run(2.0)
                world.network(late=(0.0, 0))
                cluster.cut([master], cluster.replicas)
                world.call_at(cluster.now + 10 * SECOND, world.heal)
                done["late cuts"] += 1
            # Mostly nothing: that is what it is about.
            cluster.run(min(dice.expovariate(1 / 50), max((end - cluster.now) / SECOND, 0.001)))
        done["events"] = world.counts()["events"]
        done["events with a lease held"] = world.counts()["leased"]
        done["masters"] = len(cluster.masters)
    finally:
        cluster.close()
    return done


def main(arguments: list[str]) -> int:
    """See the module."""
    seconds, seed = float(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 0
    begun = time.monotonic()
    found = idle(seconds, seed=seed)
    words = ", ".join(f"{name} {count:,}" for name, count in found.items())
    print(f"{seconds:,.0f} idle seconds in {time.monotonic() - begun:.0f} s, never two leases: {words}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
