"""Wishes for changes of the members at one node whose engine is a script: what becomes of them, and what they cost."""

from __future__ import annotations

import concurrent.futures
import struct
from typing import Any

import pytest

import paxos
from nodes import table
from paxos import changes
from paxos.changes import MOST
from paxos.mastership import lease_not_chosen
from paxos.membership import Do, Operation
from test_alarm import MEMBERS, Outside
from test_host_regressions import group

Future = concurrent.futures.Future
ADD = Operation(Do.ADD, 9, address="h:9")


def wished(g: Any, operation: Operation = ADD) -> Future[paxos.Members]:
    future: Future[paxos.Members] = Future()
    g.changes.wish(future, operation, 10.0)
    return future


def turn(g: Any, engine: Outside) -> None:
    engine.events = [[(9, 0, 1)]]
    g.drain()


def carried(number: int, operation: Operation = ADD) -> tuple[Any, ...]:
    """A wish of node 2, as it arrives."""
    data = struct.pack("<BQIBBII", 32, number, 30_000, operation.do, 0, operation.node_id, operation.other)
    return (8, 0, 2, data + operation.address.encode())


# ---- what they cost ----


def test_wishes_that_come_together_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Outside(table(*MEMBERS), False, [])
    engine.change = lambda change: None  # type: ignore[attr-defined]
    g = group(engine)
    turn(g, engine)
    g.mastership.chosen(paxos.Master(1, 1), 0)
    g.mastership.heard(1)
    judged: list[Operation] = []
    monkeypatch.setattr(changes, "judge", lambda table, operation, situation: judged.append(operation) or table)
    engine.events = [[carried(number) for number in range(MOST + 10)]]
    g.drain()
    assert len(judged) == MOST, "each once, and no more than are kept"
    engine.events = [[carried(5)]]
    g.drain()
    assert len(judged) == 2 * MOST, "who asks again is kept"


def test_more_wishes_than_a_node_may_have_are_refused() -> None:
    engine = Outside(table(*MEMBERS), False, [])
    g = group(engine)
    waiting = [wished(g) for _ in range(MOST // 2)]
    turn(g, engine)
    waiting += [wished(g) for _ in range(MOST // 2)]
    with pytest.raises(paxos.Overloaded, match="1024 changes of the members"):
        wished(g)
    waiting[0].cancel()
    turn(g, engine)
    wished(g)


# ---- whether it has come about nobody here can tell ----


def test_a_wish_at_a_node_that_is_removed_has_an_unknown_outcome() -> None:
    engine = Outside(table(*MEMBERS), False, [])
    g = group(engine)
    turn(g, engine)
    future = wished(g)
    turn(g, engine)
    assert not future.done()
    engine.disowned = [2, 3]
    turn(g, engine)
    assert not future.done(), "those may be behind, for a moment"
    engine.at += 2_000_000_000
    turn(g, engine)
    with pytest.raises(
        paxos.OutcomeUnknown, match="removed from the cluster: what comes of adding node 9 shows at another"
    ):
        future.result(0)
    with pytest.raises(paxos.NotAvailable, match="ask at another node"):  # certainly not begun
        wished(g)


def test_the_end_of_the_node_leaves_open_what_was_asked_for() -> None:
    g = group(Outside(table(*MEMBERS), False, []))
    future = wished(g)
    lease: Future[None] = Future()
    g.mastership.wait(lease, lambda mastership: None)
    g.changes.close()
    g.mastership.end()
    for each in (future, lease):
        with pytest.raises(paxos.OutcomeUnknown, match="may yet come about"):
            each.result(0)
    with pytest.raises(paxos.NodeClosed):
        wished(g)
    assert isinstance(lease_not_chosen(1.0), paxos.OutcomeUnknown)
