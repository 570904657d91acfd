"""Clusters of real node processes for tests: started, killed, paused, cut off from power, and always ended.

    cluster = Cluster(folder); cluster.start(); cluster.wait_ready()
    load = Load(cluster); load.wait(100); cluster.kill_all(); cluster.start(); cluster.wait_ready()
    load.check()
    cluster.close()

Nothing here sleeps for a fixed time: every wait is for something to become true, with a deadline that only a broken
node reaches.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import shim
from ports import free_port

DEADLINE = 60.0  # seconds; generous, since a machine that is busy with something else is not a failure
TOP = Path(__file__).resolve().parent.parent


def wait_until(check: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Calls ``check`` until it returns something true, and returns that. AssertionError after ``deadline`` seconds."""
    end = time.monotonic() + deadline
    pause = threading.Event()
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline:.0f} s: {what}")
        pause.wait(0.02)


def parse_info(text: bytes | str) -> dict[str, str]:
    """The fields of an INFO reply as they stand there: a checksum such as 12e45678 is no number."""
    lines = (text.decode() if isinstance(text, bytes) else text).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def connect(host: str, port: int, timeout: float) -> redis.Redis:
    """A connection of one's own, made here and now, which never sends a command twice."""
    client = redis.Redis(
        host=host,
        port=port,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        single_connection_client=True,
    )
    client.set_response_callback("INFO", lambda reply, **_: parse_info(reply))
    return client


class Node:
    """One ``paxos serve`` process and its directory. Used by one thread, but for ``client()``."""

    def __init__(self, cluster: Cluster, node_id: int, host: str, port: int, resp: int) -> None:
        self.cluster = cluster
        self.id = node_id
        self.host = host
        self.address = f"{host}:{port}"
        self.resp = resp
        self.base = cluster.base / f"node{node_id}"
        self.data = self.base / "data"
        self.state = self.base / "power"
        self.trace = self.base / "trace"
        self.output = self.base / "output"
        self.base.mkdir(parents=True)
        self.data.mkdir()
        self.state.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self.pids: list[int] = []

    def start(self) -> None:
        assert self.process is None, f"node {self.id} runs already"
        command = [
            *self.cluster.prefixes.get(self.id, ()),
            sys.executable, "-m", "paxos", "serve", "--id", str(self.id), "--cluster", self.cluster.addresses(),
            "--data", str(self.data), "--resp", f"{self.host}:{self.resp}", *self.cluster.arguments,
        ]  # fmt: skip
        environment = {**os.environ, **self.cluster.environment_of(self)}
        # A copy of the sources that is being tested comes before whatever is installed.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TOP), os.environ.get("PYTHONPATH", "")]))
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.base, env=environment
            )
        self.pids.append(self.process.pid)

    def kill(self) -> None:
        """SIGKILL, and wait for the end. Nothing where it does not run."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(DEADLINE)
            self.process = None

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None, f"node {self.id} does not run"
        self.process.terminate()
        status = self.process.wait(DEADLINE)
        self.process = None
        return status

    def pause(self) -> None:
        assert self.process is not None, f"node {self.id} does not run"
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None, f"node {self.id} does not run"
        self.process.send_signal(signal.SIGCONT)

    def client(self, timeout: float = 30.0) -> redis.Redis:
        """A connection of one's own, which never sends a command twice."""
        return connect(self.host, self.resp, timeout)

    def info(self) -> dict[str, str] | None:
        """Fields of ``INFO paxos``; None where the node does not answer (now)."""
        try:
            with contextlib.closing(self.client(timeout=5.0)) as client:
                fields: dict[str, str] = client.execute_command("INFO", "paxos")
                return fields
        except (redis.RedisError, OSError):
            return None

    def last_words(self) -> str:
        text = self.output.read_text(errors="replace") if self.output.exists() else ""
        return f"--- node {self.id}, last lines:\n" + "\n".join(text.splitlines()[-12:])

    def check_alive(self) -> None:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"node {self.id} ended by itself with {self.process.returncode}\n{self.last_words()}")


class Cluster:
    """Nodes 1..size on loopback ports below ``base``, which must not exist.

    ``library``: run under the power-loss library (``shim.build``); ``lie``, ``direct``, ``trace`` as in ``shim``.
    ``arguments``: more options for ``paxos serve``. ``hosts``, ``prefixes``: for each node its address, where that is not
    the loopback's, and what stands in front of its command (see ``netns``).
    """

    def __init__(
        self,
        base: Path,
        *,
        size: int = 3,
        library: Path | None = None,
        lie: bool = False,
        direct: bool = True,
        trace: bool = False,
        undo: bool = True,
        arguments: Sequence[str] = (),
        hosts: Mapping[int, str] | None = None,
        prefixes: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        self.base = base
        self.library = library
        self.lie = lie
        self.direct = direct
        self.trace = trace
        self.undo = undo
        self.arguments = list(arguments)
        self.prefixes = prefixes or {}
        self.nodes: dict[int, Node] = {
            i: Node(self, i, (hosts or {}).get(i, "127.0.0.1"), free_port(), free_port()) for i in range(1, size + 1)
        }

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.nodes.values())

    def addresses(self) -> str:
        return ",".join(f"{node.id}={node.address}" for node in self.nodes.values())

    def environment_of(self, node: Node) -> Mapping[str, str]:
        if self.library is None:
            return {}
        return shim.environment(
            self.library,
            node.data,
            state=node.state if self.undo else None,
            trace=node.trace if self.trace else None,
            lie=self.lie,
            direct=self.direct,
        )

    def running(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.process is not None]

    def start(self) -> None:
        for node in self.nodes.values():
            if node.process is None:
                node.start()

    def kill_all(self) -> None:
        """All at once: the signals leave one right after the other, before any process is waited for."""
        for node in self.running():
            assert node.process is not None
            node.process.kill()
        for node in self.running():
            node.kill()

    def power_loss(self, seed: int | None = None) -> list[shim.Loss]:
        """After ``kill_all``: takes from every directory what was not durable (see ``shim.power_loss``)."""
        assert not self.running(), "power_loss is for dead processes"
        return [
            shim.power_loss(node.data, node.state, None if seed is None else seed * 31 + node.id)
            for node in self.nodes.values()
        ]

    def close(self) -> None:
        self.kill_all()

    def info(self) -> dict[int, dict[str, str]]:
        return {node.id: fields for node in self.running() if (fields := node.info()) is not None}

    def wait_ready(self, deadline: float = DEADLINE) -> Node:
        """Until the running nodes answer, agree on a running master, and a write went through. Returns the master."""

        def agreed() -> Node | None:
            for node in self.running():
                node.check_alive()
            infos = self.info()
            masters = {fields["paxos_master_id"] for fields in infos.values()}
            if len(infos) != len(self.running()) or len(masters) != 1:
                return None
            master = self.nodes.get(int(masters.pop()))
            return master if master is not None and master.process is not None and self.writes(master) else None

        try:
            node: Node = wait_until(agreed, "the nodes agree on a master and take a write", deadline)
            return node
        except AssertionError as error:
            raise AssertionError(f"{error}\n" + "\n".join(node.last_words() for node in self)) from None

    def writes(self, node: Node) -> bool:
        """Whether a write through this node succeeds now."""
        try:
            with contextlib.closing(node.client()) as client:
                return bool(client.set("ready", str(time.monotonic_ns())))
        except (redis.RedisError, OSError):
            return False

    def wait_level(self, deadline: float = DEADLINE) -> dict[int, dict[str, str]]:
        """Until all running nodes have applied the same number of instances with the same chain checksum.

        Equal numbers with different checksums fail at once: the nodes have diverged.
        """

        def level() -> dict[int, dict[str, str]] | None:
            infos = self.info()
            states = {(fields["paxos_applied"], fields["paxos_checksum"]) for fields in infos.values()}
            assert len(states) == len({applied for applied, _ in states}), f"the nodes have diverged: {states}"
            return infos if len(infos) == len(self.running()) and len(states) == 1 else None

        infos: dict[int, dict[str, str]] = wait_until(level, f"the nodes are level: {self.info()}", deadline)
        return infos


class MakeCluster(Protocol):
    """The fixture ``make_cluster``: options of ``Cluster``; ``start=False`` leaves the starting to the test."""

    def __call__(self, *, start: bool = True, **options: Any) -> Cluster: ...


class Load:
    """Writers, each in a thread of its own, that send every write to a node drawn at random.

    Each write is a SET of a fresh key or an RPUSH of a fresh token to one list. What was acknowledged is remembered;
    so is what ended in an error, which may or may not have been executed. Nothing is sent twice.
    """

    LIST = "load:list"
    count = 0

    def __init__(self, cluster: Cluster, writers: int = 4, value_size: int = 20) -> None:
        self.cluster = cluster
        Load.count += 1
        self.name = f"load{Load.count}"
        self.value_size = value_size
        self.keys: dict[str, str] = {}
        self.tokens: dict[int, list[str]] = {writer: [] for writer in range(writers)}
        self.errors: Counter[str] = Counter()
        self._numbers = dict.fromkeys(range(writers), 0)
        self._ended = threading.Event()
        self._changed = threading.Condition()
        self._acknowledged = 0
        self._threads: list[threading.Thread] = []
        self.broken: list[BaseException] = []

    @property
    def acknowledged(self) -> int:
        with self._changed:
            return self._acknowledged

    def start(self) -> None:
        self._ended.clear()
        self._threads = [threading.Thread(target=self._run, args=(writer,), daemon=True) for writer in self._numbers]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive(), "a writer hangs: a node neither answered nor closed the connection"
        self._threads = []
        if self.broken:
            raise AssertionError(f"a writer broke: {self.broken[0]!r}") from self.broken[0]

    def wait(self, more: int, deadline: float = DEADLINE) -> None:
        """Until ``more`` further writes are acknowledged."""
        with self._changed:
            wanted = self._acknowledged + more
            done = self._changed.wait_for(lambda: self._acknowledged >= wanted or bool(self.broken), deadline)
        if not done:
            words = "\n".join(node.last_words() for node in self.cluster)
            raise AssertionError(f"{more} writes not acknowledged within {deadline:.0f} s; {self.errors}\n{words}")

    def _run(self, writer: int) -> None:
        clients: dict[int, redis.Redis] = {}
        choose = random.Random()
        try:
            while not self._ended.is_set():
                number = self._numbers[writer] = self._numbers[writer] + 1
                node = choose.choice(list(self.cluster.nodes.values()))
                token = f"{self.name}:{writer}:{number}"
                try:
                    client = clients.get(node.id)
                    if client is None:
                        client = clients[node.id] = node.client()
                    if number % 2:
                        value = token.ljust(self.value_size, ".")
                        client.set(token, value)
                        self.keys[token] = value
                    else:
                        client.rpush(self.LIST, token)
                        self.tokens[writer].append(token)
                except (redis.RedisError, OSError) as error:
                    self.errors[f"{type(error).__name__}: {str(error).split(' ')[0]}"] += 1
                    if not isinstance(error, redis.ResponseError):
                        if (broken := clients.pop(node.id, None)) is not None:
                            broken.close()
                        self._ended.wait(0.01)  # a node that is down refuses at once: no need to ask in a tight loop
                else:
                    with self._changed:
                        self._acknowledged += 1
                        self._changed.notify_all()
        except BaseException as error:
            self.broken.append(error)
            with self._changed:
                self._changed.notify_all()
            raise
        finally:
            for client in clients.values():
                client.close()

    def check(self, node: Node | None = None) -> None:
        """Every acknowledged write is there, none twice, each writer's in order. AssertionError says what is lost."""
        node = node or random.choice(self.cluster.running())
        with contextlib.closing(node.client()) as client:
            keys = list(self.keys)
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                found = [None if value is None else value.decode() for value in client.mget(part)]
                lost = [key for key, value in zip(part, found, strict=True) if value != self.keys[key]]
                assert not lost, f"lost: {len(lost)} acknowledged writes, the first is {lost[0]}"
            present = [token.decode() for token in client.lrange(self.LIST, 0, -1)]
        twice = [token for token, times in Counter(present).items() if times > 1]
        assert not twice, f"applied more than once: {twice[:5]}"
        place = {token: index for index, token in enumerate(present)}
        for tokens in self.tokens.values():
            lost = [token for token in tokens if token not in place]
            assert not lost, f"lost: {len(lost)} acknowledged tokens, the first is {lost[0]}"
            places = [place[token] for token in tokens]
            assert places == sorted(places), "acknowledged writes of one writer stand in another order"
