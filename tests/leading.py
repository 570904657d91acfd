"""What the tests of mastership, leases and hand-overs share."""

from __future__ import annotations

from typing import Any

from frames import (
    ACCEPT,
    ACCEPTED,
    BATCH,
    HEARTBEAT,
    HEARTBEAT_REPLY,
    MASTER,
    PREPARE,
    ballot,
    chain,
    frame,
    lasting,
    short,
    takeover,
)
from paxos._stepping import Core
from steps import MS, Effects, T, kinds, master, node

LEASE = 2000 * MS
SHARE = LEASE // 64  # what a lease is shorter for its holder
HEART, ELECTION = 50 * MS, 600 * MS


def sent_at(effects: Effects) -> int:
    """When the last heartbeat among them was sent, as its answer must say."""
    found = [e[4]["sent_at"] for e in short(effects) if e[1] == "heartbeat"]  # type: ignore[index]
    assert found, effects
    number: int = found[-1]
    return number


def reply(core: Core, now: int, peer: int, asked: int, lease: int = 0, priority: int = 1, **more: Any) -> Effects:
    state = core.state()
    at = {"chosen": state["chosen"], "chain": state["chain"]} | more
    body = {"ballot": state["ballot"], "sent_at": asked, "lease": lease, "priority": priority}
    return core.receive(now, frame(HEARTBEAT_REPLY, peer, **at, **body))


def beat(core: Core, now: int) -> int:
    """The master's next heartbeat, at that time."""
    return sent_at(core.tick(now))


def choose(core: Core, now: int, values: int = 1) -> Effects:
    """What the master has proposed is durable there and at node 2 (of five: and at node 3)."""
    core.durable(now, core.state()["logged"])
    state = core.state()
    found: Effects = []
    for peer in range(2, len(state["members"]) // 2 + 2):
        found = core.receive(
            now, frame(ACCEPTED, peer, ballot=state["ballot"], first=state["chosen"], last=state["next"] - 1)
        )
    return found


def leased(count: int = 3, lease: int = LEASE, **options: Any) -> Core:
    """A master that has had the length of leases chosen (at T, instance 1), and was granted none yet."""
    core = master(count, **options)
    assert core.lease(T, lease) == (True, [])
    core.pump(T)
    choose(core, T)
    core.durable(T, core.state()["logged"])
    assert core.state()["mastership"] == (1, 1, lease)
    return core


VALUES: list[tuple[int, bytes]] = [(MASTER, takeover(2)), (MASTER, lasting(2, LEASE))]


def told(values: list[tuple[int, bytes]] = VALUES, **options: Any) -> Core:
    """Node 1 as follower of node 2 under ballot (1, 2): it has accepted these values, and knows none chosen."""
    core = node(1, **options)
    for instance, (kind, data) in enumerate(values):
        core.receive(
            T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=instance, value=(int(kind == BATCH), kind), data=data)
        )
    core.durable(T, len(values))
    return core


def heart(
    core: Core, now: int, asked: int = 0, of: int = 2, values: list[tuple[int, bytes]] = VALUES, round_: int = 1
) -> Effects:
    return core.receive(
        now,
        frame(
            HEARTBEAT, of, chosen=len(values), chain=chain(values), ballot=ballot(round_, of), settled=1, sent_at=asked
        ),
    )


def bound(**options: Any) -> Core:
    """... that has granted node 2 a lease at T; it counts from T + 1 ms on."""
    core = told(**options)
    heart(core, T)
    core.durable(T, 3)
    assert granted(heart(core, T, 77)) == LEASE
    core.tick(T + MS)
    return core


def granted(effects: Effects) -> int:
    """By the answer to a heartbeat among them."""
    [fields] = [e[4] for e in short(effects) if e[1] == "heartbeat_reply"]
    assert isinstance(fields, dict)
    length: int = fields.get("lease", 0)
    return length


END = T + MS + LEASE  # of the grant of bound()
PROMISED = ["log", "promise"]


def prepare(core: Core, now: int, by: int = 3, **fields: Any) -> list[object]:
    return kinds(
        core.receive(now, frame(PREPARE, by, ballot=ballot(5, by), chosen=2, chain=chain(VALUES), first=2, **fields))
    )
