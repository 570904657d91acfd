"""A random campaign over cores: one seed is one life of a cluster, and replays exactly.

Three kinds of life, in turn. In the world: latencies and faults of real machines, and at the end the faults cease and the cluster
must go on. Walks: whatever is under way, a message, a write, a timer, happens next or much later or twice, by the dice alone; no
network is that bad, and no order of events is out of reach. Duels: many short lives in which masters fight over the first
instances, with no timers, and with little of what would tell a master that it is one no more.

Run by itself (``python campaign.py FIRST END``) it prints the first seed that fails and exits with 1; the mutants are
hunted that way, each in a process of its own.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import frames
from world import MS, Host, World


@dataclass
class Outcome:
    """What happened in one life, or in all of them: a campaign in which nothing happens finds nothing."""

    proposed: int = 0
    chosen_chunks: int = 0
    instances: int = 0
    crashes: int = 0
    cuts: int = 0
    elections: int = 0
    settled: Counter[int] = field(default_factory=Counter)
    sent: Counter[int] = field(default_factory=Counter)

    def add(self, other: Outcome) -> None:
        self.proposed += other.proposed
        self.chosen_chunks += other.chosen_chunks
        self.instances += other.instances
        self.crashes += other.crashes
        self.cuts += other.cuts
        self.elections += other.elections
        self.settled.update(other.settled)
        self.sent.update(other.sent)


def _world(seed: int, r: random.Random) -> World:
    return World(
        seed,
        r.choice([3, 3, 3, 5]),
        window=r.choice([1, 2, 8]),
        loss=r.choice([0, 0.02, 0.1]),
        duplicate=r.choice([0, 0.1]),
        delay=r.choice([(1, 3), (1, 60)]),
        disk=r.choice([(1, 3), (1, 100), (1, 400)]),
    )


def _faults(w: World, r: random.Random, outcome: Outcome) -> None:
    x = r.random()
    hosts = list(w.hosts.values())
    if x < 0.1:
        host = r.choice(hosts)
        if host.up:
            host.crash()
            outcome.crashes += 1
    elif x < 0.13:
        for host in hosts:
            if host.up:
                host.crash()
                outcome.crashes += 1
        for host in hosts:
            host.boot_up()
    elif x < 0.28:
        for host in hosts:
            if not host.up and r.random() < 0.6:
                host.boot_up()
    elif x < 0.34:
        a, b = r.sample(list(w.hosts), 2)
        w.cut.add((a, b))
        if r.random() < 0.5:
            w.cut.add((b, a))
        outcome.cuts += 1
    elif x < 0.39:
        # The master with a minority at most: what it says and what the others choose drift apart.
        master = w.master()
        alone = master.node if master is not None else r.choice(list(w.hosts))
        friends = r.sample([n for n in w.hosts if n != alone], (len(w.hosts) - 1) // 2) if r.random() < 0.5 else []
        side = {alone, *friends}
        w.cut |= {(a, b) for a in w.hosts for b in w.hosts if (a in side) != (b in side)}
        outcome.cuts += 1
    elif x < 0.5:
        w.cut.clear()


class Walk(World):
    """A world without distances: events wait in pools, and the dice say which comes next."""

    def __init__(self, seed: int, r: random.Random) -> None:
        self.messages: list[tuple[int, bytes]] = []
        self.writes: list[tuple[Host, int]] = []
        self.dice = r
        super().__init__(seed, r.choice([3, 3, 3, 5]), window=r.choice([1, 2, 8]))

    def at(self, delay: int, call: Any, *args: Any) -> None:
        if call == self.deliver:
            self.messages.append((args[0], args[1]))
            if len(self.messages) > 120:
                self.messages.pop(self.dice.randrange(len(self.messages)))
        elif call != self.tick:  # what is left is the end of a write
            self.writes.append((call.__self__, args[0]))

    def send(self, host: Host, peers: int, frame: bytes) -> None:
        """Judges each vote as it leaves, by what a crash in this moment would leave on the disk (rules 1 and 2)."""
        if frame[13] in (frames.PROMISE, frames.ACCEPTED):
            ballot = _ballot(frame[64:])
            records = [(_ballot(body), kind, at) for kind, at, body in host.disk if kind in VOTES]
            highest = max((record[0] for record in records), default=(0, 0, 0, 0))
            if frame[13] == frames.PROMISE:
                assert highest >= ballot, "a promise left before it was durable"
            else:
                instance = int.from_bytes(frame[96:104], "little")
                assert (ballot, frames.RECORD_ACCEPT, instance) in records, "an acceptance left before it was durable"
            assert host.core.state()["promised"] >= highest, "a promise was forgotten"
        super().send(host, peers, frame)

    def stand(self, host: Host) -> None:
        """Makes a node raise a ballot here and now. Who agrees to an election is advice, and safety must not depend on it."""
        effects = host.core.tick(max(self.now, host.core.deadline()))
        host.step(effects)
        for effect in effects:
            if effect[0] == "send" and effect[3][13] == frames.PREVOTE:
                asked = frames.parse(effect[3]).fields["ballot"]
                for node in self.hosts:
                    if node != host.node:
                        host.step(
                            host.core.receive(
                                self.now, frames.frame(frames.PREVOTE_REPLY, node, ballot=asked, granted=1)
                            )
                        )

    def deliver_one(self, links: set[tuple[int, int]], again: float) -> None:
        """One message of those whose link is open; the others wait for better times."""
        for _ in range(12):
            if not self.messages:
                return
            # Often the newest, so that things get anywhere at all; else any, however old.
            at = self.dice.randrange(len(self.messages))
            if self.dice.random() < 0.6:
                at = max(at, self.dice.randrange(len(self.messages)), self.dice.randrange(len(self.messages)))
            node, frame = self.messages[at]
            if (int.from_bytes(frame[20:24], "little"), node) in links:
                if self.dice.random() >= again:
                    self.messages.pop(at)
                self.deliver(node, frame)
                return

    def walk(self, steps: int, outcome: Outcome) -> None:
        r = self.dice
        hosts = list(self.hosts.values())
        again, crashes, stands = (
            r.choice([0.0, 0.05, 0.3]),
            r.choice([0.0, 0.0, 0.01, 0.02]),
            r.choice([0.005, 0.02, 0.04]),
        )
        pace = r.choice([[0, 0, 0, 1], [0, 0, 1, 2]])
        # A bare quorum talks, another one next time; or some links are closed; or nothing is wrong.
        open_ = r.choice([0.6, 1.0])
        side = set(r.sample(list(self.hosts), len(hosts) // 2 + 1)) if r.random() < 0.6 else set(self.hosts)
        links = {(a, b) for a in side for b in side if r.random() < open_}
        disks = {host.node for host in hosts if r.random() < 0.8}
        for _ in range(steps):
            self.now += r.choice(pace) * MS
            x = r.random()
            if x < 0.15:
                ready = [write for write in self.writes if write[0].node in disks]
                if ready:
                    host, boot = r.choice(ready)
                    self.writes.remove((host, boot))
                    host.synced(boot)
            elif x < 0.18:
                host = r.choice(hosts)
                if host.up:
                    outcome.proposed += 1
                    host.propose(b"v%d" % outcome.proposed, r.choice([20, 2000]) * MS)
            elif x < 0.20:
                host = r.choice(hosts)
                if host.up:
                    host.step(host.core.tick(self.now))
            elif x < 0.20 + crashes:
                host = r.choice(hosts)
                if host.up:
                    host.crash()
                    outcome.crashes += 1
                    if r.random() < 0.7:
                        host.boot_up()
            elif x < 0.20 + crashes + stands:
                host = self.hosts[r.choice(sorted(side))]
                if host.up and host.core.state()["role"] != "master":
                    self.stand(host)
            elif x > 0.99:
                host = r.choice(hosts)
                if not host.up:
                    host.boot_up()
            else:
                self.deliver_one(links, again)

    def duel(self, steps: int, outcome: Outcome) -> None:
        r = self.dice
        hosts = list(self.hosts.values())
        crash, slow = r.choice([0.0, 0.0, 0.02, 0.07]), r.choice([0.1, 0.25])
        for step in range(steps):
            x = r.random()
            host = r.choice(hosts)
            if x < 0.04 or step == 0:
                if host.core.state()["role"] in ("follower", "asking"):
                    self.stand(host)
            elif x < 0.04 + crash:
                host.crash()
                host.boot_up()
                outcome.crashes += 1
            elif x < 0.15:
                outcome.proposed += 1
                host.propose(b"v%d" % outcome.proposed)
            elif x < 0.15 + slow:
                if self.writes:
                    owner, boot = self.writes.pop(r.randrange(len(self.writes)))
                    owner.synced(boot)
            elif self.messages:
                at = r.randrange(len(self.messages))
                node, frame = self.messages[at]
                if r.random() < 0.9:
                    self.messages.pop(at)
                to_master = self.hosts[node].core.state()["role"] == "master"
                deaf = to_master and frame[13] in (frames.PREPARE, frames.ACCEPT)
                if r.random() < (0.8 if deaf else DUEL_LOSS.get(frame[13], 0.05)):
                    continue
                self.deliver(node, frame)


# In a duel most of the messages that would end it are lost.
DUEL_LOSS = {
    frames.PREVOTE: 1.0,
    frames.PREVOTE_REPLY: 1.0,
    frames.HEARTBEAT: 0.8,
    frames.HEARTBEAT_REPLY: 1.0,
    frames.REJECT: 0.7,
    frames.LEARN: 0.8,
}


VOTES = (frames.RECORD_PROMISE, frames.RECORD_ACCEPT)


def _ballot(data: bytes) -> tuple[int, int, int, int]:
    round_, inc_hi, inc_lo, node, _ = frames.BALLOT.unpack_from(data)
    return round_, node, inc_hi, inc_lo


def run(seed: int) -> Outcome:
    """One life. AssertionError: something that must always hold does not, or the cluster does not go on after the faults."""
    return (live, walk, duels)[seed % 3](seed)


def walk(seed: int) -> Outcome:
    r = random.Random(seed * 7 + 1)
    w = Walk(seed, r)
    outcome = Outcome()
    for _ in range(20):
        w.walk(r.choice([30, 80, 150]), outcome)
        w.check()
    return _count(w, outcome)


def duels(seed: int) -> Outcome:
    r = random.Random(seed * 7 + 1)
    total = Outcome()
    for _ in range(30):
        w = Walk(r.getrandbits(32), r)
        outcome = Outcome()
        w.duel(150, outcome)
        w.check()
        total.add(_count(w, outcome))
    return total


def live(seed: int) -> Outcome:
    """A life in the world, with a good end."""
    r = random.Random(seed * 7 + 1)
    w = _world(seed, r)
    outcome = Outcome()
    for _ in range(60):
        w.run(r.randint(5, 150))
        _faults(w, r, outcome)
        for host in w.hosts.values():
            if host.up:
                for _ in range(r.randint(0, 5)):
                    outcome.proposed += 1
                    host.propose(b"v%d" % outcome.proposed, r.choice([20, 300, 2000]) * MS)
        w.check()
    # Liveness: the faults end; a master comes, the cluster takes a value, and all nodes reach the same series.
    w.cut.clear()
    w.loss = 0
    for host in w.hosts.values():
        if not host.up:
            host.boot_up()
    assert w.run_until(lambda: w.master() is not None, 10000), "no master after the faults have ended"
    master = w.master()
    assert master is not None
    before = len(w.chosen)
    master.propose(b"last")

    def level() -> bool:
        states = {(s["chosen"], s["chain"]) for s in (host.core.state() for host in w.hosts.values())}
        return len(states) == 1 and len(w.chosen) > before

    assert w.run_until(level, 10000), "the nodes do not reach the same series after the faults have ended"
    w.check()
    return _count(w, outcome)


def _count(w: World, outcome: Outcome) -> Outcome:
    outcome.chosen_chunks = len(w.chunks())
    outcome.instances = len(w.chosen)
    outcome.elections = sum(host.core.state()["elections"] for host in w.hosts.values())
    outcome.settled.update(w.settled.values())
    outcome.sent.update(w.sent)
    return outcome


def main(first: int, end: int) -> int:
    for seed in range(first, end):
        try:
            run(seed)
        except AssertionError as error:
            print(f"seed {seed}: {error}")
            return 1
    print(f"seeds {first} to {end - 1}: nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
