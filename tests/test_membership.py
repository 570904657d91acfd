"""Members that come, go, move and change their role, on real engines: what the API promises, what it refuses, and who is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

import paxos
from fleets import SMALL, Kept, fleet, run
from nodes import DEADLINE, book, until
from ports import free_port


def test_from_three_to_five_and_back_while_clients_write(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as f, f.written():
            for new in (4, 5):
                await f.more()
                members = await f.nodes[1].add(new, f.address(new), timeout=DEADLINE)
                assert new in members.ids
                await f.open(new)
                await f.votes(*range(1, new + 1))
                f.usable.add(new)
            await f.more()
            for old in (1, 2):
                members = await f.remove(old)
                assert old not in members.ids
                await f.nodes.pop(old).close()
                await f.more()
            await f.votes(3, 4, 5)
            assert f.nodes[5].members().version == 8, "added, come, promoted, and that twice; two removed"

    run(main)


def test_every_node_is_replaced_once_while_clients_write(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as f, f.written():
            for old, new in ((1, 4), (2, 5), (3, 6)):
                await f.more()
                await f.leave(old)
                members = await f.nodes[old].replace(old, new, f.address(new), timeout=DEADLINE)
                learner = members.get(new)
                assert learner is not None
                assert (learner.role, learner.replaces, learner.address) == ("learner", old, f.address(new))
                await f.open(new)
                await f.votes(*sorted({*members.voters, new} - {old}))
                f.usable.add(new)
                await f.nodes.pop(old).close()
            assert f.nodes[6].members().ids == (4, 5, 6)

    run(main)


def test_a_dead_machine_is_replaced(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as f:
            dead = f.other()
            await f.nodes.pop(dead).close()
            await f.master.replace(dead, 7, f.address(7), timeout=DEADLINE)
            await f.open(7)
            await f.votes(*sorted(f.nodes))
            await f.nodes[7].propose(b"x", timeout=DEADLINE)

    run(main)


def test_a_node_that_was_started_before_it_is_added(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as f:
            early = await f.open(4)
            await until(lambda: sum(n.status().frames_refused["not_member"] for n in f.nodes.values()), "it knocks")
            assert early.members().members == ()
            assert early.status().member_role == "none"
            await f.nodes[1].add(4, f.address(4), timeout=DEADLINE)
            await f.votes(1, 2, 3, 4)
            assert await early.propose(b"x", timeout=DEADLINE) == 0
            assert early.status().member_role == "voter"

    run(main)


def test_a_cluster_of_one_becomes_another_one(tmp_path: Path) -> None:
    """Nobody of those who formed it is left."""

    async def main() -> None:
        async with fleet(tmp_path, 1) as f:
            await f.nodes[1].propose(b"x", timeout=DEADLINE)
            await f.nodes[1].add(2, f.address(2), timeout=DEADLINE)
            await f.open(2)
            await f.votes(1, 2)
            members = await f.nodes[1].remove(1, timeout=DEADLINE)
            assert members.voters == (2,)
            await f.nodes.pop(1).close()
            await f.votes(2)
            assert await f.nodes[2].propose(b"y", timeout=DEADLINE) == 1
            await f.nodes[2].add(3, f.address(3), timeout=DEADLINE)
            await f.open(3, known=(2,))  # of the node that is gone it has never heard
            await f.votes(2, 3)
            assert await f.nodes[3].read(None, timeout=DEADLINE) == 2

    run(main)


# ---- removing the master, and being removed ----


def test_the_master_is_removed_by_itself_and_by_others(tmp_path: Path) -> None:
    async def main() -> None:
        # An election by timeout would take longer than the test may.
        async with fleet(tmp_path, 5, election_timeout=60, heartbeat=0.05) as f, f.written():
            for own in (True, False):
                master = f.master_id
                await f.leave(master)
                version = f.master.status().mastership
                at = master if own else f.other()
                members = await f.nodes[at].remove(master, timeout=DEADLINE)
                assert master not in members.ids
                await f.nodes.pop(master).close()
                await f.more()
                assert f.master.status().mastership == version + 1, "it was handed over, once"

    run(main)


def test_a_node_that_is_removed_says_so_and_takes_nothing_more(tmp_path: Path) -> None:
    alarms: list[paxos.Alarm] = []

    async def main() -> None:
        async with fleet(tmp_path, on_alarm=alarms.append) as f:
            old = f.other()
            await f.nodes[old].propose(b"x", timeout=DEADLINE)
            node = f.nodes[old]
            waiting = node.read(None, timeout=0.001)
            await node.remove(old, timeout=DEADLINE)
            await until(lambda: [a.kind for a in alarms] == ["removed"], "it says so")
            with contextlib.suppress(paxos.NotAvailable):
                await waiting
            assert alarms[0].node_id == old
            assert "removed from the cluster" in alarms[0].text
            assert node.status().alarms == {"removed": 1}
            assert node.status().member_role == "none"
            for call in (
                lambda: node.propose(b"y"),
                lambda: node.propose_many([b"y"]),
                lambda: node.read(None),
                lambda: node.read(None, consistency="stale"),
            ):
                with pytest.raises(paxos.NotAvailable, match=f"node {old} has been removed from the cluster"):
                    call()
            with pytest.raises(paxos.NotAvailable, match="ask at another node"):
                await node.add(9, "127.0.0.1:9")
            await f.nodes.pop(old).close()
            # It knows it when it is started again, too: nobody lets it in.
            again = await f.open(old, known=(1, 2, 3))
            await until(lambda: again.status().alarms == {"removed": 1}, "it finds out again")
            with pytest.raises(paxos.NotAvailable, match="removed"):
                again.propose(b"y")

    run(main)


def test_a_node_that_was_away_when_it_was_removed_finds_out_and_closes_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as f:
            old = f.other()
            await f.nodes.pop(old).close()
            members = await f.master.remove(old, timeout=DEADLINE)
            assert old not in members.ids
            back = await f.open(old, known=(1, 2, 3), when_removed="close")
            async for _ in back.memberships():
                pass  # it ends when the node is closed
            assert back.status().alarms == {"removed": 1}
            with pytest.raises(paxos.NodeClosed):
                back.propose(b"x")
            del f.nodes[old]

    run(main)


def test_a_learner_that_is_removed(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as f:
            await f.nodes[1].add(4, f.address(4), timeout=DEADLINE)  # it never comes
            assert (await f.nodes[2].remove(4, timeout=DEADLINE)).ids == (1, 2, 3)
            # The place, the id and the address are free again.
            await f.nodes[3].add(5, f.address(4), timeout=DEADLINE)
            assert (await f.nodes[1].remove(5, timeout=DEADLINE)).ids == (1, 2, 3)
            await f.nodes[1].add(4, f.address(4), timeout=DEADLINE)
            await f.open(4)
            await f.votes(1, 2, 3, 4)

    run(main)


# ---- how it is asked ----


def test_at_any_node_and_again_and_all_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as f:
            wanted = [(f.nodes[1 + i % 3], 4 + i % 3) for i in range(18)]
            for members in await asyncio.gather(
                *(node.add(i, f.address(i), follower=True, timeout=DEADLINE) for node, i in wanted)
            ):
                assert members.version <= 3
            await until(lambda: f.nodes[1].members().followers == (4, 5, 6), "all three are in")
            assert f.nodes[1].members().version == 3, "each was chosen once"
            gone = await asyncio.gather(*(node.remove(i, timeout=DEADLINE) for node, i in wanted))
            assert gone[-1].version <= 6

    run(main)


class Losing:
    """An engine that loses what is handed to it for others, as often as it is told."""

    def __init__(self, engine: Any, losses: int) -> None:
        self.engine, self.losses = engine, losses

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def send(self, node: int, data: bytes) -> bool:
        if self.losses:
            self.losses -= 1
            return True
        return bool(self.engine.send(node, data))


def test_lost_messages_are_sent_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as f:
            asking = f.nodes[f.other()]
            for ends in (asking, f.master):  # the question, then the answer
                changes = ends._group.changes
                changes._engine = losing = Losing(changes._engine, 2)  # type: ignore[assignment]
                before = asking.members().version
                followers = (await asking.add(4, f.address(4), follower=True, timeout=DEADLINE)).followers
                assert followers == (4,)
                assert losing.losses == 0
                # Its answer being lost, it is asked again when node 4 is no member any more.
                losing.losses = 2
                assert (await asking.remove(4, timeout=DEADLINE)).followers == ()
                assert losing.losses == 0
                assert f.master.members().version == before + 2
                changes._engine = losing.engine

    run(main)


def test_what_the_master_has_seen_he_knows_to_be_gone(tmp_path: Path) -> None:
    """Who asks may be behind, and never have heard of the node that it wants to have removed."""

    async def main() -> None:
        async with fleet(tmp_path) as f:
            await f.master.add(4, f.address(4), follower=True, timeout=DEADLINE)
            changes, other = f.master._group.changes, f.other()
            sent: list[tuple[int, bytes]] = []
            changes._engine = engine = Losing(changes._engine, 0)  # type: ignore[assignment]
            engine.send = lambda node, data: sent.append((node, bytes(data)))  # type: ignore[method-assign]
            for number, node_id in ((7, 4), (8, 9)):
                changes.receive(other, struct.pack("<BQIBBII", 32, number, 30_000, 3, 0, node_id, 0))
            # What is malformed has no effect at all.
            for bad in (
                b"\x20",
                b"\x21",
                struct.pack("<BQIBBII", 32, 9, 30_000, 99, 0, 4, 0),
                b"\x21" + bytes(8) + b"\x07",
            ):
                changes.receive(other, bad)
            await until(lambda: [entry for entry in sent if entry[1][0] == 33 and entry[1][1] == 7], "it is answered")
            answers = {data[1]: (node, data[9]) for node, data in sent if data[0] == 33}
            assert answers == {7: (other, 0), 8: (other, 1)}, "the one is done, the other refused"
            changes._engine = engine.engine

    run(main)


def test_what_does_not_come_about_in_time_may_yet(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as f:
            asking = f.nodes.pop(f.other())
            others = dict(f.nodes)
            for node in others.values():
                await f.nodes.pop(next(i for i, n in f.nodes.items() if n is node)).close()
            f.nodes[0] = asking
            with pytest.raises(
                paxos.OutcomeUnknown, match=r"adding node 4 has not come about within 0\.3 s, and may yet"
            ):
                await asking.add(4, f.address(4), timeout=0.3)
            waiting = asyncio.create_task(asking.remove(1, timeout=DEADLINE))
            await asyncio.sleep(0)
            await asking.close()
            with pytest.raises(paxos.OutcomeUnknown, match="may yet come about"):
                await waiting
            with pytest.raises(paxos.NodeClosed):
                await asking.add(4, f.address(4))

    run(main)


def test_what_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as f:
            at = f.nodes[f.other()]
            addresses = f.addresses
            for call, why in (
                (at.remove(9), "node 9 is no member; there are nodes 1, 2, 3"),
                (at.promote(9), "node 9 is no member"),
                (at.move(9, f.address(9)), "node 9 is no member"),
                (at.replace(9, 10, f.address(10)), "node 9 is no member"),
                (at.add(1, f.address(9)), f"node 1 is a member already, at {addresses[1]}, not at .*use move"),
                (at.add(9, addresses[2]), f"node 2 is at {addresses[2]} already"),
                (at.move(1, addresses[2]), "give node 1 an address of its own"),
                (at.replace(1, 2, addresses[2]), "node 2 is a voter already: remove node 1"),
                (at.add(1, addresses[1], follower=True), "a voter already, no follower"),
            ):
                with pytest.raises(paxos.MembershipRefused, match=why):
                    await call
            for bad in (0, -1, 1 << 32, "4", True, 1.5, None):
                with pytest.raises(paxos.ConfigError, match="node_id="):
                    await at.add(bad, f.address(9))  # type: ignore[arg-type]
                with pytest.raises(paxos.ConfigError, match="node_id="):
                    await at.remove(bad)  # type: ignore[arg-type]
            for address in (
                "",
                "x",
                "127.0.0.1",
                "127.0.0.1:0",
                "::1:7101",
                "a b:1",
                "0.0.0.0:7101",
                7101,
                "h" * 255 + ":1",
            ):
                with pytest.raises(paxos.ConfigError, match="address"):
                    await at.add(9, address)  # type: ignore[arg-type]
            with pytest.raises(paxos.ConfigError, match="its own place"):
                await at.replace(1, 1, addresses[1])
            assert at.members().version == 0, "nothing of all this was proposed"

    run(main)


def test_what_would_lose_the_majority_is_refused_unless_forced(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as f:
            down = f.other()
            up = f.other(down)
            await f.nodes.pop(down).close()
            await until(lambda: not f.master.status().peers[down], "the master knows that it is down")
            for victim in (up, f.master_id):  # of the two that are left one is down
                with pytest.raises(paxos.MembershipRefused, match=f"no connection to node {down}"):
                    await f.nodes[up].remove(victim, timeout=DEADLINE)
            # What is down may go: then one is left out of two, and both are there.
            await f.master.remove(down, timeout=DEADLINE)
            await f.votes(*sorted(f.nodes))
            master = f.master
            await f.nodes.pop(up).close()
            await until(lambda: not master.status().peers[up], "the master knows that it is down")
            # (Two of two are wanted to choose that one of them goes.)
            with pytest.raises(paxos.OutcomeUnknown, match="may yet"):
                await master.remove(up, timeout=0.3)

    run(main)


def test_force_takes_the_risk(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path, 4) as f:
            down = f.other()
            await f.nodes.pop(down).close()
            await f.master.add(5, f.address(5), timeout=DEADLINE)
            await f.open(5)
            await until(lambda: len(f.master.members().voters) == 5 and not f.master.members().pending, "5 has a vote")
            gone = f.other()
            await f.nodes.pop(gone).close()
            await until(lambda: not f.master.status().peers[gone], "the master knows that it is down")
            victim = f.other()
            with pytest.raises(
                paxos.MembershipRefused, match=f"no connection to nodes {min(down, gone)}, {max(down, gone)}"
            ):
                await f.master.remove(victim, timeout=DEADLINE)
            at = f.master
            forced = asyncio.create_task(at.remove(victim, force=True, timeout=DEADLINE))
            await until(lambda: at.members().leaving == (victim,), "it is chosen by those who vote until then")
            assert not forced.done(), "but not in force: of the four that are left two are there"
            with pytest.raises(paxos.OutcomeUnknown, match="a change is chosen and not in force yet"):
                await at.move(1, f.address(9), timeout=0.1)
            await f.open(gone)
            assert victim not in (await forced).ids

    run(main)


def test_the_only_voter_stays(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path, 1) as f:
            for force in (False, True):
                with pytest.raises(paxos.MembershipRefused, match=r"node 1 is the only voter.*Add a node"):
                    await f.nodes[1].remove(1, force=force, timeout=DEADLINE)

    run(main)


# ---- who is told ----


def test_addresses_are_written_down_with_the_first_change_and_can_be_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as f:
            assert [m.address for m in f.nodes[1].members().members] == [""] * 3
            moved = f"127.0.0.1:{free_port()}"
            at = f.other(2)  # (nobody reaches 2 meanwhile)
            members = await f.nodes[at].move(2, moved, timeout=DEADLINE)
            assert {m.node_id: m.address for m in members.members} == {**f.addresses, 2: moved}
            assert members.voters == (1, 2, 3)
            assert (await f.nodes[at].move(2, moved, timeout=DEADLINE)).version == 1, "it is there already"
            await f.nodes[at].move(2, f.addresses[2], timeout=DEADLINE)
            await f.nodes[1].propose(b"x", timeout=DEADLINE)

    with caplog.at_level(logging.INFO, "paxos"):
        run(main)
    assert "node 2 is at" in caplog.text


def test_changes_are_told_in_order_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as f:
            watcher = f.nodes[f.other()]
            heard: list[paxos.Members] = []
            iterated: list[paxos.Members] = []

            def broken(members: paxos.Members) -> None:
                raise RuntimeError("a bug of the user's")

            async def listen() -> None:
                async for members in watcher.memberships():
                    iterated.append(members)

            watcher.on_members_change(broken)
            stop = watcher.on_members_change(heard.append)
            task = asyncio.create_task(listen())
            await until(lambda: iterated, "the members of now are told")
            assert iterated[0].voters == (1, 2, 3)
            await f.nodes[1].add(4, f.address(4), timeout=DEADLINE)
            await f.open(4)
            await f.votes(1, 2, 3, 4)
            await until(
                lambda: heard and not heard[-1].pending and heard[-1].voters == (1, 2, 3, 4), "the last is told"
            )
            assert [m.version for m in heard] == sorted(m.version for m in heard)
            assert [m.version for m in heard if not m.pending] == [1, 2, 3]
            await until(lambda: iterated[-1] == heard[-1], "the iterator tells the last one")
            stop()
            count = len(heard)
            await f.nodes[1].remove(4, timeout=DEADLINE)
            await until(lambda: iterated[-1].ids == (1, 2, 3), "the iterator goes on")
            assert len(heard) == count
            await watcher.close()
            await asyncio.wait_for(task, DEADLINE)
            assert [members async for members in watcher.memberships()] == []

    with caplog.at_level(logging.INFO, "paxos"):
        run(main)
    for line in (
        "node 4 is a member now, as a learner, at 127.0.0.1:",
        "node 4 has come (change 2)",
        "node 4 is a voter now, and was a learner (change 3)",
        "node 4 is leaving now, and was a voter (change 4)",
        "node 4 is no member any more (change 4)",
    ):
        assert line in caplog.text
    assert "has a new data directory" not in caplog.text


# ---- threads ----


def test_the_same_for_threads(tmp_path: Path) -> None:
    addresses = book(4)
    three = {i: addresses[i] for i in (1, 2, 3)}

    def start(i: int, told: dict[int, str], **options: Any) -> paxos.SyncNode:
        return paxos.SyncNode.open(tmp_path / str(i), node_id=i, cluster=told, state_machine=Kept, **SMALL, **options)

    nodes = {i: start(i, three) for i in three}
    try:
        nodes[1].wait_ready(DEADLINE)
        heard: list[paxos.Members] = []
        stop = nodes[1].on_members_change(heard.append)
        assert nodes[1].add(4, addresses[4], follower=True, timeout=DEADLINE).followers == (4,)
        nodes[4] = start(4, addresses, when_removed="close")
        nodes[2].promote(4, timeout=DEADLINE)
        for members in nodes[3].memberships():
            if members.voters == (1, 2, 3, 4) and not members.pending:
                break
        with pytest.raises(paxos.MembershipRefused, match="no member"):
            nodes[3].remove(9)
        with pytest.raises(paxos.ConfigError):
            nodes[3].move(1, "nowhere")
        assert nodes[3].move(1, addresses[1], timeout=DEADLINE).voters == (1, 2, 3, 4)
        ended = threading.Event()

        def follow() -> None:
            for _ in nodes[4].memberships():
                pass
            ended.set()

        thread = threading.Thread(target=follow)
        thread.start()
        assert nodes[1].remove(4, timeout=DEADLINE).ids == (1, 2, 3)
        assert ended.wait(DEADLINE), "the node that was removed has closed itself"
        thread.join()
        with pytest.raises(paxos.NodeClosed):
            nodes[4].propose(b"x")
        assert nodes[1].replace(2, 5, f"127.0.0.1:{free_port()}", timeout=DEADLINE).learners == (5,)
        assert heard[-1].learners == (5,)
        stop()
    finally:
        for node in nodes.values():
            node.close()
