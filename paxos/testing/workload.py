"""A key-value workload for simulated clusters: clients with one operation under way each, and what they saw.

The state machine is a register for each key. Each write has a value of its own, so that a read tells which write it saw.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from paxos.errors import PartialOutcome, PaxosError, Refused
from paxos.statemachine import SnapshotReader, SnapshotWriter, StateMachine
from paxos.testing.cluster import MS, SECOND, Cluster, Replica, Violation
from paxos.testing.linearizability import Action, Operation, Register
from paxos.testing.tokened import TokenClient

__all__ = ["Client", "Registers", "Workload", "machine_for"]

REGISTER = Register()


def _all(reader: SnapshotReader) -> bytes:
    parts = []
    while part := reader.read(1 << 16):
        parts.append(part)
    return b"".join(parts)


class Registers(StateMachine):
    """Registers by key. A value of the log is ``kind:key:word:word``; the result is (instance, what it answers)."""

    def __init__(self) -> None:
        self.state: dict[bytes, bytes | None] = {}
        self.instance = -1
        self.journal: list[Sequence[bytes]] = []
        self.base: tuple[int, dict[bytes, bytes | None]] = (-1, {})  # of the checkpoint that the journal goes on from

    def last_applied(self) -> int:
        return self.instance

    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        self.instance = instance
        self.journal.append(values)
        state = self.state
        results: list[object] = []
        for value in values:
            kind, key, word, new = value.split(b":")
            old = state.get(key)
            if kind == b"get":
                results.append((instance, old))
            elif kind == b"set":
                state[key] = word
                results.append((instance, None))
            elif kind == b"cas":
                expected = word or None
                if old == expected:
                    state[key] = new
                results.append((instance, old == expected))
            elif kind == b"tok":  # an append under a token, whose result must be bytes
                state[key] = (old or b"") + word
                results.append(b"%d %d" % (instance, len(state[key] or b"")))
            else:
                state[key] = (old or b"") + word
                results.append((instance, len(state[key] or b"")))
        return results

    def read(self, query: bytes) -> tuple[int, bytes | None]:
        return self.instance, self.state.get(query)

    def back(self, instance: int) -> Registers:
        """A copy that has applied nothing above ``instance``: a state machine that lost what came behind."""
        earlier = Registers()
        first, state = self.base
        if instance < first:
            return earlier  # what it had before the checkpoint is not there any more: it lost everything
        earlier.base = self.base
        earlier.state, earlier.instance = dict(state), first
        for number, values in enumerate(self.journal[: instance - first], first + 1):
            earlier.apply_batch(number, values)
        return earlier

    def snapshot(self, writer: SnapshotWriter) -> None:
        writer.write(b"%d\n" % self.instance)
        for key, word in sorted(self.state.items()):
            writer.write(b"%s:%s\n" % (key, b"-" if word is None else b"+" + word))

    def restore(self, reader: SnapshotReader) -> None:
        lines = _all(reader).split(b"\n")
        self.instance = int(lines[0])
        self.state = {}
        for line in lines[1:-1]:
            key, word = line.split(b":")
            self.state[key] = None if word == b"-" else word[1:]
        self.base = (self.instance, dict(self.state))
        self.journal = []


def machine_for(mode: str, dice: random.Random, before: Registers | None) -> Registers:
    """What a node has when it comes up: nothing ("memory"), all ("durable"), or part of it ("rolled back")."""
    if before is None or mode == "memory":
        return Registers()
    if mode == "durable":
        return before
    return before.back(dice.randint(-1, before.instance))


class _Call:
    """One operation under way: the completion that a node settles."""

    __slots__ = ("action", "begun", "client", "key", "known", "settled", "to", "value")

    def __init__(self, client: Client, to: Replica, action: Action, key: bytes, value: bytes) -> None:
        """``value``: what is proposed; empty: it is read without the log."""
        self.client = client
        self.to = to
        self.action = action
        self.key = key
        self.value = value
        self.begun = client.workload.cluster.now
        self.known = client.workload.known
        self.settled = False

    def done(self) -> bool:
        return self.settled

    def set_result(self, result: tuple[int, object], /) -> None:
        self.settled = True
        self.client.answered(self, result)

    def set_exception(self, error: BaseException, /) -> None:
        self.settled = True
        self.client.failed(self, error)


class Client:
    """Calls one operation after the other, each at a node drawn anew."""

    def __init__(self, workload: Workload, number: int) -> None:
        self.workload = workload
        self.number = number
        self.call: _Call | None = None
        self.known: dict[bytes, bytes | None] = {}

    def step(self) -> None:
        workload = self.workload
        if workload.over:
            return
        dice = workload.dice
        if dice.random() < workload.bursts:
            _Burst(workload).start()
        up = [replica for replica in workload.cluster.replicas if replica.up]
        if not up:
            self.later(20 * MS)
            return
        to = dice.choice(up)
        key = b"k%d" % dice.randrange(workload.keys)
        workload.written += 1
        new = b"%d" % workload.written
        kind = dice.random()
        # Some values are longer than a sector, so that a torn write can be torn in them.
        padding = b"." * dice.choice(workload.paddings)
        action: Action
        if kind < 0.4:
            action, value = ("get",), b"get:%b::%b" % (key, new)
            if workload.reading.random() < workload.read_share:
                value = b""
        elif kind < 0.75:
            action, value = ("set", new), b"set:%b:%b:%b" % (key, new, padding)
        elif kind < 0.9:
            old = self.known.get(key)
            action, value = ("cas", old, new), b"cas:%b:%b:%b" % (key, old or b"", new)
        else:
            action, value = ("append", b"+" + new), b"app:%b:+%b:" % (key, new)
        call = _Call(self, to, action, key, value)
        self.call = call
        workload.begun += 1
        try:
            # A key belongs to one of the state machines of the group.
            if value:
                to.submit(call, value, dice.choice(workload.timeouts), key[-1] % workload.machines)
            else:
                leased = workload.leases is not None and workload.leases.random() < 0.7
                to.read(call, key, dice.choice(workload.timeouts), key[-1] % workload.machines,
                        "lease" if leased else "linearizable")  # fmt: skip
        except Refused as error:
            call.set_exception(error)

    def later(self, delay: int) -> None:
        workload = self.workload
        workload.cluster.world.call_at(workload.cluster.now + delay, self.step)

    def answered(self, call: _Call, result: tuple[int, object]) -> None:
        workload = self.workload
        instance, answer = result
        if not call.value and instance < call.known:
            raise Violation(
                f"a read that began at {call.begun} ns at node {call.to.id}, when instance {call.known} had been seen, was "
                f"answered from the state behind instance {instance}"
            )
        workload.known = max(workload.known, instance)
        if instance >= 0:
            workload.cluster.world.acknowledged(instance)
        workload.outcomes["answered" if call.value else "read"] += 1
        if call.action[0] == "get":
            self.known[call.key] = answer  # type: ignore[assignment]  # bytes or None
        operation = Operation(self.number, call.key, call.begun, workload.cluster.now, call.action, answer)
        workload.history.append((operation, call.value))
        self.next(call)

    def failed(self, call: _Call, error: BaseException) -> None:
        workload = self.workload
        if isinstance(error, Refused):
            workload.outcomes["refused"] += 1
            if call.value:
                workload.refused.append(call.value)
        else:
            if not isinstance(error, PaxosError):
                raise error
            self.unknown(call)
        self.next(call)

    def unknown(self, call: _Call) -> None:
        self.workload.outcomes["unknown"] += 1
        self.workload.history.append((Operation(self.number, call.key, call.begun, None, call.action), call.value))

    def next(self, call: _Call) -> None:
        if self.call is call:
            self.call = None
            self.later(self.workload.pause())

    def process_ended(self, replica: Replica) -> None:
        """Whatever was under way there: nobody will say."""
        call = self.call
        if call is not None and call.to is replica and not call.settled:
            call.settled = True
            self.unknown(call)
            self.next(call)


class _Burst:
    """Many proposals at once (``propose_many``), more than fit into the instances that may be in flight. Nobody reads them;
    that each is applied once or not at all, and what is said of it true, is judged all the same."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        dice = workload.dice
        self.values = []
        padding = b"x" * dice.choice([0, 0, 200, 4000])  # what a state machine makes nothing of, and a log must hold
        for _ in range(dice.choice([20, 100, 300])):
            workload.written += 1
            self.values.append(b"app:burst:+%d:%b" % (workload.written, padding))
        self.settled = False

    def start(self) -> None:
        workload = self.workload
        up = [replica.group for replica in workload.cluster.replicas if replica.group is not None]
        if not up:
            return
        try:
            workload.dice.choice(up).submit_many(self, self.values, workload.dice.choice(workload.timeouts), 0)
        except Refused:
            self.note([Refused()] * len(self.values))

    def note(self, outcomes: Sequence[object]) -> None:
        self.settled = True
        for value, outcome in zip(self.values, outcomes, strict=True):
            if isinstance(outcome, Refused):
                self.workload.refused.append(value)
            elif isinstance(outcome, tuple):
                self.workload.cluster.world.acknowledged(outcome[0])
        self.workload.outcomes["of bursts"] += len(outcomes)

    def done(self) -> bool:
        return self.settled

    def set_result(self, results: Sequence[object], /) -> None:
        self.note(results)

    def set_exception(self, error: BaseException, /) -> None:
        if isinstance(error, PartialOutcome):
            self.note(error.outcomes)
        elif not isinstance(error, PaxosError):
            raise error


class Probe:
    """Proposes through one node until it is answered; a refusal, or a doubt, is a reason to try again."""

    def __init__(self, workload: Workload, replica: Replica) -> None:
        self.workload = workload
        self.replica = replica
        self.answered = False
        workload.probes.append(self)
        self.propose()

    def done(self) -> bool:
        return self.answered

    def set_result(self, result: object, /) -> None:
        self.answered = True

    def set_exception(self, error: BaseException, /) -> None:
        if not isinstance(error, PaxosError):
            raise error
        self.again()

    def again(self) -> None:
        world = self.workload.cluster.world
        world.call_at(world.now + 20 * MS, self.propose)

    def propose(self) -> None:
        if self.answered:
            return
        if not self.replica.up:
            self.again()
            return
        self.workload.written += 1
        value = b"set:probe:%d:" % self.workload.written
        try:
            self.replica.submit(self, value, 2.0)
        except Refused as error:
            self.set_exception(error)


class Workload:
    """``clients`` clients that call ``rate`` operations a second between them, on ``keys`` keys of ``machines`` machines."""

    def __init__(
        self, cluster: Cluster, dice: random.Random, *, clients: int, keys: int, rate: float, machines: int = 1
    ) -> None:
        self.cluster = cluster
        self.machines = machines
        self.dice = dice
        self.keys = keys
        self.mean = SECOND * clients / rate
        self.bursts = dice.choice([0.0, 0.0, 0.003, 0.02])  # share of steps that begin with one
        self.paddings = dice.choice([(0,), (0, 0, 700, 2500)])
        self.timeouts = dice.choice([(0.2, 1.0, 5.0), (0.05, 0.3), (5.0,)])
        self.clients = [Client(self, number) for number in range(clients)]
        self.token_clients: list[TokenClient] = []
        # With dice of their own, so that all else happens as it does without them.
        self.reading = random.Random(dice.getstate()[1][0])
        self.read_share = self.reading.choice([0.0, 0.5, 0.9])
        #: where there are leases: dice that say whether a read goes by one
        self.leases: random.Random | None = None
        #: the last instance whose effects anybody has seen
        self.known = -1
        #: each operation with the value that stands for it in the log; empty: none does
        self.history: list[tuple[Operation, bytes]] = []
        #: what was refused for certain
        self.refused: list[bytes] = []
        self.outcomes: Counter[str] = Counter()
        self.probes: list[Probe] = []
        self.written = 0
        self.begun = 0
        self.over = False

    def start(self) -> None:
        """All clients begin."""
        for client in self.clients:
            client.later(int(self.dice.expovariate(1 / self.mean)))
        for each in self.token_clients:
            each.later(self.pause(), each.step)

    def stop(self) -> None:
        """No new operations; what is under way may still be answered."""
        self.over = True

    def finish(self) -> None:
        """What is under way now stays unknown."""
        for client in self.clients:
            if client.call is not None and not client.call.settled:
                client.call.settled = True
                client.unknown(client.call)
                client.call = None
        for each in self.token_clients:
            each.finish()

    def pause(self) -> int:
        """Until a client's next operation, in ns."""
        return int(self.dice.expovariate(1 / self.mean))

    def process_ended(self, replica: Replica) -> None:
        """Tells who waits for that node."""
        for client in self.clients:
            client.process_ended(replica)
        for each in self.token_clients:
            each.process_ended(replica)
        for probe in self.probes:
            if probe.replica is replica:
                probe.again()
