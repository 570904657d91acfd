"""Members without a vote that stay so: what they hold, from whom they have it, and what can be had from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import paxos
from fleets import fleet, run
from nodes import DEADLINE, until
from paxos.config import Options


def test_a_follower_stays_one_until_it_is_promoted(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as f:
            members = await f.nodes[1].add(4, f.address(4), follower=True, timeout=DEADLINE)
            assert members.followers == (4,)
            node = await f.open(4)
            await node.wait_ready(DEADLINE)
            for turn in range(100):  # many instances: a learner would be a voter by now
                assert await node.propose(b"x", timeout=DEADLINE) == turn
            assert await node.read(None, timeout=DEADLINE) == 100
            assert (node.members().followers, node.status().member_role) == ((4,), "follower")
            assert not node.status().votes
            with pytest.raises(paxos.ConfigError, match=r"can be handed over to the nodes \["):
                await f.master.transfer(4)
            # It delays nobody, and needs nobody.
            await f.nodes.pop(4).close()
            await f.nodes[1].propose(b"x", timeout=DEADLINE)
            await f.open(4)
            await f.nodes[2].promote(4, timeout=DEADLINE)
            await f.votes(1, 2, 3, 4)
            assert (await f.nodes[4].promote(4, timeout=DEADLINE)).voters == (1, 2, 3, 4), "it has a vote already"
            await until(lambda: f.nodes[4].status().votes, "it votes")

    run(main)


def test_a_follower_follows_another_when_the_one_that_it_was_told_is_gone(tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet(tmp_path) as f:
            await f.nodes[1].add(4, f.address(4), follower=True, timeout=DEADLINE)
            source = f.other()
            node = await f.open(4, follow=[source, 9])
            await node.wait_ready(DEADLINE)
            for turn in range(20):
                await f.master.propose(b"x", timeout=DEADLINE)
                assert await node.read(None, timeout=DEADLINE) == turn + 1
            await f.nodes.pop(source).close()
            for turn in range(20, 40):
                await f.master.propose(b"x", timeout=DEADLINE)
                assert await node.read(None, timeout=DEADLINE) == turn + 1
            await f.master.propose(b"x", timeout=DEADLINE)
            await until(lambda: node.status().applied == f.master.status().applied, "it hears of it by itself")
            assert await node.read(None, consistency="stale") == 41

    run(main)


@pytest.mark.parametrize("follow", ["23", [0], [True], list(range(1, 10)), ["2"]])
def test_whom_to_follow_is_checked(follow: Any) -> None:
    with pytest.raises(paxos.ConfigError, match=r"option follow=.*up to 8 node ids, as in \(2, 3\)"):
        Options.make(follow=follow)
