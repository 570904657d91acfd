"""Wishes for changes of the members at one node whose engine is a script: what becomes of them, and what they cost."""

from __future__ import annotations

import concurrent.futures
from typing import Any

import pytest

import paxos
from nodes import table
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
    with pytest.raises(paxos.OutcomeUnknown, match="removed from the cluster: what comes of adding node 9 shows at another"):
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
