"""Random simulation of whole groups of the real core: faults, then peace (design, section 6).

``PAXOS_SEEDS=5000`` runs more; ``PAXOS_FIRST_SEED=1234 PAXOS_SEEDS=1`` replays one.
"""

from __future__ import annotations

import os

import campaign
import frames

SEEDS = int(os.environ.get("PAXOS_SEEDS", "150"))
FIRST = int(os.environ.get("PAXOS_FIRST_SEED", "0"))


def test_campaign() -> None:
    total = campaign.Outcome()
    for seed in range(FIRST, FIRST + SEEDS):
        try:
            total.add(campaign.run(seed))
        except AssertionError as error:
            again = f"PAXOS_FIRST_SEED={seed} PAXOS_SEEDS=1 pytest tests/test_core_simulation.py"
            raise AssertionError(f"seed {seed}: {error} (again: {again})") from error
    # Did anything happen at all?
    assert total.chosen_chunks > 40 * SEEDS
    assert total.instances > 15 * SEEDS
    if SEEDS >= 50:
        assert total.elections > SEEDS
        assert total.crashes > SEEDS
        assert total.cuts > SEEDS
        assert set(total.settled) == {frames.NOT_AVAILABLE, frames.UNKNOWN}
        every = set(range(frames.PREVOTE, frames.FORWARD_REFUSED + 1)) - {frames.LEARNED}
        assert every <= set(total.sent), "a type of message was never sent"


def test_a_seed_replays_exactly() -> None:
    assert campaign.run(3) == campaign.run(3)
