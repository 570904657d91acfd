"""Where peers are dialled: by names that change what they stand for, and by addresses that change in the membership."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import paxos
from engines import PATIENCE, Engines
from nodes import Journal
from paxos._engine import Engine
from paxos.errors import ConfigError
from ports import free_ports
from test_engine_network import REFUSE, frame

LEARNER, FOLLOWER, LEAVING = 1, 2, 3
UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
SMALL: dict[str, Any] = {"segment_bytes": 4 << 20, "max_value": 1 << 20}


class Names:
    """What names stand for. An Event: it resolves to 127.0.0.1, once that is set."""

    def __init__(self) -> None:
        self.book: dict[str, list[str] | OSError | threading.Event] = {}
        self.asked: list[tuple[str, str]] = []  # by which thread
        self.blind: set[str] = set()  # threads that find none
        self.real = socket.getaddrinfo

    def getaddrinfo(self, host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        if host not in self.book:
            return self.real(host, port, *args, **options)
        thread = threading.current_thread().name
        self.asked.append((thread, host))
        answer = UNKNOWN if thread in self.blind else self.book[host]
        if isinstance(answer, threading.Event):
            assert answer.wait(2 * PATIENCE)
            answer = ["127.0.0.1"]
        if isinstance(answer, OSError):
            raise answer
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (ip, port, 0, 0))
            if ":" in ip
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))
            for ip in answer
        ]


def resolvers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.endswith("-names")]


def until_no_resolvers() -> None:
    end = time.monotonic() + PATIENCE
    while resolvers():
        assert time.monotonic() < end, resolvers()
        threading.Event().wait(0.01)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    for answer in made.book.values():
        if isinstance(answer, threading.Event):
            answer.set()
    until_no_resolvers()


@pytest.fixture
def c(tmp_path: Path, names: Names) -> Iterator[Engines]:
    made = Engines(tmp_path)
    yield made
    made.stop()


def by_name(c: Engines, node: int = 3, name: str = "db3.test") -> tuple[str, int]:
    """The others look for that node by its name; where it listens."""
    own = c.addresses[node]
    c.addresses[node] = (name, own[1])
    return own


def connected(c: Engines, *nodes: int) -> bool:
    return all(all(c.running[node].status()["peers"].values()) for node in nodes or c.running)


# ---- the membership, as bytes ----


def rows(engine: Engine) -> tuple[int, list[tuple[Any, ...]]]:
    """Version and rows, each (node, role, inc_hi, inc_lo, since, instead, address)."""
    data = engine.membership()
    version, count = struct.unpack_from("<II", data)
    at = 56
    found = []
    for _ in range(count):
        *row, size = struct.unpack_from("<IIQQQII", data, at)
        at += 40 + size
        found.append((*row, data[at - size : at].decode()))
    return version, found


def change(
    c: Engines, edit: Callable[[tuple[Any, ...]], tuple[Any, ...]], *among: int, new: tuple[Any, ...] | None = None
) -> None:
    """Has each row replaced by what ``edit`` makes of it, and one added; waits until these nodes (else all that run) know."""
    master = c.wait_master(among)
    version, old = rows(c.running[master])
    table = [*map(edit, old), *([new] if new else [])]
    data = struct.pack("<II", version, len(table))
    for *row, address in table:
        data += struct.pack("<IIQQQII", *row, len(address)) + address.encode()
    c.running[master].change(data)
    c.until(lambda: all(rows(c.running[node])[0] > version for node in among or c.running))


def address_of(node: int, address: str) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    return lambda row: (*row[:6], address) if row[0] == node else row


# ---- names ----


def test_a_name_is_resolved_anew_at_each_connect(c: Engines, names: Names) -> None:
    host, port = by_name(c)
    names.book["db3.test"] = ["127.0.0.1"]
    c.start(1, 2)
    c.start(3, bind=(host, port))
    c.propose(c.wait_master(), b"before")
    c.stop(3)
    names.book["db3.test"] = ["127.0.0.2"]
    c.start(3, bind=("127.0.0.2", port))
    c.until(lambda: connected(c))
    c.propose(c.wait_master(), b"behind")
    c.wait_level()


def test_a_name_that_does_not_resolve_is_said_and_tried_again(c: Engines, names: Names) -> None:
    host, port = by_name(c)
    names.book["db3.test"] = UNKNOWN
    c.start(1, 2)
    c.start(3, bind=(host, port))
    words = f"node 3 at db3.test:{port} cannot be reached: the name does not resolve (Name or service not known); trying again"
    c.until(lambda: words in c.logs(1) and words in c.logs(2))
    assert not c.running[1].status()["formed"]
    names.book["db3.test"] = ["127.0.0.1"]
    c.wait_master()
    c.until(lambda: connected(c))


@pytest.mark.parametrize("lost", [UNKNOWN, None], ids=["unknown", "no answer"])
def test_without_an_answer_the_last_one_counts(c: Engines, names: Names, lost: OSError | None) -> None:
    host, port = by_name(c)
    names.book["db3.test"] = ["127.0.0.1"]
    c.start(1, 2)
    c.start(3, bind=(host, port))
    c.wait_master()
    c.until(lambda: connected(c))
    names.book["db3.test"] = lost or threading.Event()
    c.stop(3)
    c.until(lambda: not connected(c, 1) and not connected(c, 2))
    c.start(3, bind=(host, port))
    c.until(lambda: connected(c))


def test_each_attempt_tries_the_next_address(c: Engines, names: Names) -> None:
    host, port = by_name(c)
    names.book["db3.test"] = ["::1", "127.0.0.3", "127.0.0.1"]
    c.start(1, 2)
    c.start(3, bind=(host, port))
    c.until(lambda: connected(c))
    c.wait_master()


def test_a_name_that_hangs_holds_up_neither_the_rest_nor_the_end(c: Engines, names: Names) -> None:
    c.start()
    c.wait_master()
    c.stop()
    by_name(c)
    hanging = names.book["db3.test"] = threading.Event()
    c.start(1, 2)
    c.until(lambda: "does not resolve (no answer within 1 s)" in c.logs(1) + c.logs(2))
    c.propose(c.wait_master(), b"v")
    assert {name for _, name in names.asked} == {"db3.test"}
    assert {thread for thread, _ in names.asked} <= {"paxos-1-names", "paxos-2-names"}
    engines = list(c.running.values())
    c.stop()
    assert resolvers(), "they hang still, and nobody has waited for them"
    del engines
    hanging.set()
    until_no_resolvers()


def test_a_name_that_takes_long_is_asked_for_less_often(c: Engines, names: Names) -> None:
    """Or it would hold up those that nobody knows yet. It is dialled meanwhile, by what it was."""
    c.addresses = {1: c.addresses[1], 2: by_name(c, 2, "db2.test")}
    port = c.addresses[2][1]
    c.addresses[2] = ("db2.test", port)
    hanging = names.book["db2.test"] = threading.Event()
    with socket.create_server(("127.0.0.1", port)) as listening:
        listening.settimeout(PATIENCE)
        c.start(1)
        c.until(lambda: "does not resolve (no answer within 1 s)" in c.logs(1))
        hanging.set()
        for _ in range(8):
            listening.accept()[0].close()
        assert len(names.asked) == 1


def test_that_there_is_no_thread_for_names_is_said_once(
    c: Engines, names: Names, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names.book["db3.test"] = ["127.0.0.1"]
    own, start, none = by_name(c), threading.Thread.start, [True]

    def refuse(thread: threading.Thread) -> None:
        if none and thread.name.endswith("-names"):
            raise RuntimeError("can't start new thread")
        start(thread)

    c.open(1)
    engine = c.running[1]
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        engine.start(-1)
    for _ in range(3):
        engine.drain(10)
    assert [record.levelname for record in caplog.records if "cannot be resolved: can't start" in record.message] == [
        "ERROR"
    ]
    none.clear()
    c.start(2)
    c.start(3, bind=own)
    c.until(lambda: connected(c))


def test_there_is_no_thread_for_addresses_and_none_left_for_names(c: Engines, names: Names) -> None:
    before = len(os.listdir("/proc/self/fd"))
    c.start()
    c.wait_master()
    assert not resolvers()
    c.stop()
    names.book["db1.test"] = names.book["db3.test"] = ["127.0.0.1"]
    own = by_name(c)
    for _ in range(3):
        c.start(1, 2)
        c.start(3, bind=own)
        c.until(lambda: connected(c))
        assert sorted(resolvers()) == ["paxos-1-names", "paxos-2-names"], "node 3 knows itself"
        c.stop()
        assert not resolvers()
    assert len(os.listdir("/proc/self/fd")) == before


# ---- addresses in the membership ----


@pytest.mark.parametrize("name", ["127.0.0.2", "db3.test"])
def test_the_address_in_the_membership_counts(c: Engines, names: Names, name: str) -> None:
    """Also a name that comes when the node, started with none, runs."""
    names.book["db3.test"] = ["127.0.0.2"]
    (port,) = free_ports(1)
    c.start()
    c.wait_master()
    old = c.addresses[3]
    c.stop(3)
    change(c, address_of(3, f"{name}:{port}"))
    c.start(3, bind=("127.0.0.2", port))
    c.until(lambda: connected(c))
    c.wait_level()
    # ... and after a restart, of which cluster= is told.
    c.stop(1)
    c.start(1)
    c.until(lambda: connected(c))
    words = (
        f"the membership has {name}:{port} as the address of node 3, which counts; cluster= now names {old[0]}:{old[1]}"
    )
    c.until(lambda: words in c.logs(1))
    c.addresses[3] = (name, port)
    c.stop(2)
    c.start(2)
    c.until(lambda: connected(c))
    assert "the membership has" not in c.logs(2)


def test_a_connection_to_the_old_address_ends(c: Engines) -> None:
    """Node 3 stays where it is; the membership says that it is elsewhere, then nonsense, then the truth."""
    (port,) = free_ports(1)
    c.start()
    c.wait_master()
    real = f"127.0.0.1:{c.addresses[3][1]}"
    change(c, address_of(3, f"127.0.0.1:{port}"), 1, 2)
    c.until(lambda: not any(c.running[node].status()["peers"][3] for node in (1, 2)))
    c.until(lambda: f"node 3 at 127.0.0.1:{port} cannot be reached: Connection refused" in c.logs(1))
    change(c, address_of(3, "elsewhere"), 1, 2)
    c.until(lambda: "node 3 at elsewhere cannot be reached: its address is not HOST:PORT" in c.logs(1))
    change(c, address_of(3, real), 1, 2)
    c.until(lambda: connected(c))
    c.wait_level()


def test_a_new_node_is_dialled_where_the_membership_says(c: Engines) -> None:
    c.start()
    c.propose(c.wait_master(), b"v")
    own = ("127.0.0.1", free_ports(1)[0])
    change(c, lambda row: row, new=(4, FOLLOWER, 0, 0, 0, 0, ""))
    for node in (1, 2, 3):
        c.until(lambda node=node: "node 4 has no address, neither in the membership nor in cluster=" in c.logs(node))  # type: ignore[misc]
    change(c, address_of(4, f"{own[0]}:{own[1]}"))
    c.addresses[4] = own
    c.start(4)
    c.until(lambda: c.values(4) == [b"v"])
    c.until(lambda: connected(c))


def test_a_removed_node_is_disconnected_and_told_so(c: Engines) -> None:
    c.start()
    gone = next(node for node in (1, 2, 3) if node != c.wait_master())
    stay = [node for node in (1, 2, 3) if node != gone]
    change(c, lambda row: (row[0], LEAVING, *row[2:]) if row[0] == gone else row)
    c.until(lambda: all(gone not in c.running[node].status()["peers"] for node in stay))
    words = f"node {gone} is no member of this cluster"
    c.until(lambda: all(f"node {node} refused this node: {words}" in c.logs(gone) for node in stay))
    c.until(lambda: all(c.running[node].status()["frames_refused"]["not_member"] > 0 for node in stay))
    assert [c.running[node].status()["frames_refused"]["not_admitted"] for node in stay] == [0, 0], (
        "its connections were cut"
    )
    c.propose(c.wait_master(stay), b"v")
    c.wait_level(*stay)


def test_what_cluster_names_beside_the_members_is_said(c: Engines) -> None:
    """That it names some of them is as it should be."""
    c.start()
    c.wait_master()
    three = c.addresses
    for told, level in (({1: three[1], 2: three[2]}, 20), ({**three, 9: ("127.0.0.1", 9)}, 30)):
        c.stop(1)
        c.addresses = told
        c.start(1)
        words = f"the members are the nodes [1, 2, 3], which counts; cluster= names {list(told)}, which is used for"
        c.until(lambda words=words: words in c.logs(1))  # type: ignore[misc]
        assert [e[1] for e in c.events[1] if e[0] == 3 and words in e[2]] == [level]


# ---- who is turned away ----


def test_who_was_turned_away_before_it_was_a_member_is_none_the_less_one(c: Engines, names: Names) -> None:
    """Of those who turned it away one is down, and one never gets as far as to dial it."""
    c.start()
    c.wait_master()
    names.book["db4.test"] = ["127.0.0.1"]
    names.blind.add("paxos-2-names")
    own = c.addresses[4] = ("127.0.0.1", free_ports(1)[0])
    c.start(4)
    c.until(lambda: sorted(c.running[4].status()["disowned"]) == [1, 2, 3])
    c.stop(3)
    change(c, lambda row: row, 1, 2, new=(4, LEARNER, 0, 0, 0, 0, f"db4.test:{own[1]}"))
    mine = int(c.running[4].status()["incarnation"][16:], 16)
    c.until(lambda: any(row[0] == 4 and row[3] == mine for row in rows(c.running[4])[1]))
    assert not c.running[2].status()["peers"][4]
    c.until(lambda: c.running[4].status()["disowned"] == [])


def test_who_keeps_the_connection_of_a_node_does_not_turn_it_away_any_more(c: Engines) -> None:
    with socket.create_server(c.addresses[2]) as listening:
        listening.settimeout(PATIENCE)
        c.start(1)
        first, _ = listening.accept()
        first.recv(96)
        first.sendall(frame(REFUSE, struct.pack("<II", 3, 0) + b"node 1 is no member of this cluster"))
        first.close()
        c.until(lambda: c.running[1].status()["disowned"] == [2])
        second, _ = listening.accept()
        c.until(lambda: c.running[1].status()["disowned"] == [])
        assert c.running[1].status()["peers"][2]
        second.close()
        third, _ = listening.accept()
        third.close()
        assert c.running[1].status()["disowned"] == []


# ---- where to listen ----


def test_where_to_listen_may_be_a_name_that_must_resolve(tmp_path: Path, names: Names) -> None:
    (port,) = free_ports(1)
    names.book["here.test"] = ["127.0.0.2"]
    names.book["nowhere.test"] = UNKNOWN
    address = {1: ("10.99.99.99", port), 2: ("nowhere.test", 7)}
    engine = Engine(str(tmp_path / "1"), 1, address, bind=("here.test", port))
    socket.create_connection(("127.0.0.2", port), PATIENCE).close()
    engine.stop()
    with pytest.raises(
        ConfigError, match=r"bind=: the name 'nowhere.test' does not resolve .Name or service not known"
    ):
        Engine(str(tmp_path / "2"), 1, address, bind=("nowhere.test", port))
    with pytest.raises(ConfigError, match=r"node 2 in cluster=: the name 'nowhere.test' does not resolve"):
        Engine(str(tmp_path / "2"), 2, address)
    assert not (tmp_path / "2").exists()


def test_nodes_open_though_names_of_others_do_not_resolve(tmp_path: Path, names: Names) -> None:
    names.book["db2.test"] = UNKNOWN
    first, second = free_ports(2)
    cluster = {1: f"127.0.0.9:{first}", 2: "db2.test:7"}

    async def main() -> None:
        async with await paxos.Node.open(
            tmp_path / "1", node_id=1, cluster=cluster, bind=f"127.0.0.1:{first}", state_machine=Journal, **SMALL
        ) as node:
            socket.create_connection(("127.0.0.1", first), PATIENCE).close()
            assert not node.status().master_id

    asyncio.run(main())
    with paxos.SyncNode.open(
        tmp_path / "2", node_id=1, cluster=cluster, bind=f"127.0.0.1:{second}", state_machine=Journal, **SMALL
    ):
        socket.create_connection(("127.0.0.1", second), PATIENCE).close()


@pytest.mark.parametrize("host", ["", "a b", "x" * 248, "a\n"])
def test_hosts_that_cannot_be(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match=r"the host of node 2 must be|the address of node 2"):
        Engine(str(tmp_path / "1"), 1, {1: ("127.0.0.1", 7), 2: (host, 7)})


# ---- fork ----

FORKED = """
import os, socket, sys, threading
from paxos._engine import Engine

asked, go = threading.Event(), threading.Event()
real = socket.getaddrinfo

def resolve(host, *args, **options):
    if host != "db2.test":
        return real(host, *args, **options)
    asked.set()
    go.wait()
    return real("127.0.0.1", *args, **options)

socket.getaddrinfo = resolve
engine = Engine(sys.argv[1], 1, {1: ("127.0.0.1", int(sys.argv[2])), 2: ("db2.test", 7)}, segment_size=4 << 20, max_value=1 << 20)
engine.start(-1)
assert asked.wait(30)
child = os.fork()
if child == 0:
    engine.stop()
    assert engine.drain(10) == []
    del engine          # what the parent's thread has may not be waited for
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
engine.stop()
print("stopped")
"""


def test_a_fork_while_a_name_hangs(tmp_path: Path) -> None:
    """And the end of a process that does not wait for the thread."""
    run = [sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path / "1"), str(free_ports(1)[0])]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr
