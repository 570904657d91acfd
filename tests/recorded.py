"""A workload of real clients that records what it asked, what came back, and when: a history for the judge.

Clients in threads send commands to nodes drawn at random. What a client knows of each is kept apart:

* a reply: an operation with its result;
* ``-UNKNOWN``, or the connection broke or was silent after the command had been sent: an operation of unknown outcome;
* ``-UNAVAILABLE``, or no connection to send it on: certainly not executed, and so no operation at all.

Whichever it is, the client goes on with a new command: nothing is sent twice.
"""

from __future__ import annotations

import contextlib
import functools
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import redis

from cluster import DEADLINE, wait_until
from paxos.testing.linearizability import Action, Operation, Register, check

# A node that is cut off keeps every client that asks it until the command is given up: short limits, more clients than it
# can keep, and clients that mostly ask another node next. The client's limit is the longer one: most commands end
# with a word of the node.
PATIENCE = 1.0
LOYALTY = 0.1
OPTIONS = ("--timeout", "0.4")
CLIENTS = 9
ANSWERS = ("acknowledged", "UNKNOWN", "UNAVAILABLE")
# A history has so many operations for a set of keys; then the next set begins. The judge is quickest on short ones.
KEYS_FOR = 600


class Server(Protocol):
    """What a workload needs of a node."""

    def client(self, timeout: float = ...) -> redis.Redis: ...


def send(connection: redis.Redis, key: str, action: Action) -> object:
    """Sends a register's action as a command; the result as the register has it. Keys of counters begin with "counter"."""
    match action:
        case ("get",):
            value: Any = connection.get(key)
            return int(value) if value is not None and key.startswith("counter") else value
        case ("set", value):
            assert connection.set(key, value)
            return None
        case ("setnx", value):
            return bool(connection.set(key, value, nx=True))
        case ("append", value):
            return connection.append(key, value)
        case ("incr", 1):
            return connection.incr(key)
        case ("incr", step):
            return connection.incrby(key, step)
        case ("delete",):
            return bool(connection.delete(key))
    raise AssertionError(f"no command for {action}")


class Recorder:
    """The history of any number of clients. Thread-safe."""

    def __init__(self) -> None:
        self.history: list[Operation] = []
        self.outcomes: Counter[str] = Counter()
        self.changed = threading.Condition()

    def perform(self, client: int, connection: redis.Redis, key: str, action: Action) -> str:
        """One command. Says how it ended; where that is none of ``ANSWERS``, the connection is of no more use."""
        end: int | None = None
        result: object = None
        call = time.monotonic_ns()
        try:
            result = send(connection, key, action)
            end = time.monotonic_ns()
            outcome = "acknowledged"
        except redis.ResponseError as error:
            outcome = str(error).split(" ", 1)[0]
            if outcome not in ANSWERS:
                raise
        except (redis.RedisError, OSError) as error:
            outcome = type(error).__name__
        if outcome != "UNAVAILABLE":
            self.history.append(Operation(client, key, call, end, action, result))
        self.count(outcome)
        return outcome

    def count(self, outcome: str) -> None:
        with self.changed:
            self.outcomes[outcome] += 1
            self.changed.notify_all()

    @property
    def acknowledged(self) -> int:
        return self.outcomes["acknowledged"]

    def judge(self) -> None:
        """AssertionError with the story where no order explains the history."""
        violation = check(self.history, Register())
        assert violation is None, f"{violation}\n{self}"

    def __str__(self) -> str:
        unknown = sum(operation.end is None for operation in self.history)
        return f"{len(self.history)} operations, {unknown} of unknown outcome; {dict(self.outcomes)}"


class Workload(Recorder):
    """Client threads on ``nodes``, until ``stop``. Keys: two registers, a counter, and one that is appended to."""

    def __init__(self, nodes: Sequence[Server], seed: int, clients: int = CLIENTS) -> None:
        super().__init__()
        self.nodes = list(nodes)
        self.broken: list[BaseException] = []
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(client, random.Random(seed * 101 + client)), daemon=True)
            for client in range(1, clients + 1)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Lets the clients end, each after the command it is at."""
        self._ended.set()

    def stop(self) -> None:
        self.end()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(DEADLINE)
                assert not thread.is_alive(), "a client hangs"
        if self.broken:
            raise AssertionError(f"a client broke: {self.broken[0]!r}") from self.broken[0]

    def wait(self, more: int, what: str, *, tried: bool = False) -> None:
        """Until ``more`` further commands are acknowledged, or, if ``tried``, have ended in whatever way."""

        def count() -> int:
            return sum(self.outcomes.values()) if tried else self.acknowledged

        with self.changed:
            wanted = count() + more
            done = self.changed.wait_for(lambda: count() >= wanted or bool(self.broken), DEADLINE)
        assert not self.broken, f"a client broke: {self.broken[0]!r}"
        assert done, f"{what}: {more} commands not {'tried' if tried else 'acknowledged'} in {DEADLINE:.0f} s; {self}"

    def _run(self, client: int, choose: random.Random) -> None:
        connections: dict[int, redis.Redis] = {}
        disappointed: set[int] = set()
        number = 0
        try:
            while not self._ended.is_set():
                at = choose.randrange(len(self.nodes))
                if at in disappointed and choose.random() > LOYALTY:
                    continue
                disappointed.add(at)  # until it has answered
                number += 1
                key, action = self._next(choose, b"%d.%d;" % (client, number))
                if (connection := connections.get(at)) is None:
                    try:
                        connection = connections[at] = self.nodes[at].client(timeout=PATIENCE)
                    except (redis.RedisError, OSError):
                        self.count("unreachable")
                        self._ended.wait(0.01)  # who refuses at once need not be asked in a tight loop
                        continue
                outcome = self.perform(client, connection, key, action)
                if outcome == "acknowledged":
                    disappointed.discard(at)
                elif outcome not in ANSWERS:
                    connections.pop(at).close()
        except BaseException as error:
            self.broken.append(error)
            with self.changed:
                self.changed.notify_all()
            raise
        finally:
            for connection in connections.values():
                connection.close()

    def _next(self, choose: random.Random, value: bytes) -> tuple[str, Action]:
        era = len(self.history) // KEYS_FOR
        kind = choose.choice(["register", "register", "counter", "list"])
        if choose.random() < 0.4:
            action: Action = ("get",)
        elif kind == "register":
            action = choose.choice([("set", value), ("set", value), ("setnx", value), ("delete",)])
        else:
            action = ("append", value) if kind == "list" else ("incr", choose.choice([1, 1, 3]))
        return f"{kind}{choose.randrange(2) if kind == 'register' else ''}:{era}", action

    def read_all(self) -> None:
        """When the threads have ended: every key through every node, as part of the history. All have to answer."""
        keys = sorted({str(operation.key) for operation in self.history})
        for number, node in enumerate(self.nodes):
            with contextlib.closing(node.client()) as connection:
                for key in keys:
                    wait_until(functools.partial(self._read, -1 - number, connection, key), f"a node answers: {self}")

    def _read(self, client: int, connection: redis.Redis, key: str) -> bool:
        outcome = self.perform(client, connection, key, ("get",))
        assert outcome in ANSWERS, f"{outcome}: a node is silent, or closed the connection: {self}"
        return outcome == "acknowledged"
