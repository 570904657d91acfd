"""Bugs put into mastership, its version, leases and handing over."""

from __future__ import annotations

from typing import Final

from paxos.testing.mutant import Mutant

__all__ = ["MASTERSHIP"]

MASTERSHIP: Final[tuple[Mutant, ...]] = (
    Mutant(
        "lease-granted-without-a-promise",
        "21: a node grants the lease of a ballot that it has not promised, and a late word of an older one takes that back",
        "_mastership.pyx",
        "    if ballot_compare(&r.promised, ballot) < 0:\n",
        "    if False:\n",
        hunt="test test_core_steps_mastership.py::test_only_who_has_promised_a_ballot_durably_grants_its_lease",
    ),
    Mutant(
        "lease-forgotten-at-restart",
        "21: who starts again promises at once, whatever lease he has granted before",
        "_core.pyx",
        "    r.grant_until = now + <int64_t>r.members.lease if r.members.lease else 0\n",
        "    r.grant_until = 0\n",
        hunt="idle",
    ),
    Mutant(
        "lease-counts-from-the-answer",
        "21: the holder counts a lease from when the answer comes, not from before it asked",
        "_mastership.pyx",
        "<int64_t>(body.sent_at + lease - (lease >> DRIFT_SHIFT))",
        "r.now + <int64_t>(lease - (lease >> DRIFT_SHIFT))",
        hunt="idle",
    ),
    Mutant(
        "lease-without-a-share-for-clocks",
        "21: the holder counts a lease in full, whoever's clock is fast",
        "_mastership.pyx",
        "<int64_t>(body.sent_at + lease - (lease >> DRIFT_SHIFT))",
        "<int64_t>(body.sent_at + lease)",
        hunt="idle",
    ),
    Mutant(
        "clocks-outside-the-bound",
        "21: clocks that run five percent fast or slow, of which leases must not be expected to hold",
        "testing/leases.py",
        "DRIFT: Final = 5_000",
        "DRIFT: Final = 50_000",
        hunt="idle",
    ),
    Mutant(
        "lease-kept-while-handing-over",
        "21: a master tells another one to take over, and goes on reading under its lease",
        "_mastership.pyx",
        "    r.hand_until = r.now + r.options.election_min\n    r.released = True\n",
        "    r.hand_until = r.now + r.options.election_min\n",
        hunt="leases",
    ),
    Mutant(
        "lease-binds-nobody",
        "21: a Prepare is promised while another node holds a lease",
        "_mastership.pyx",
        "    if r.now >= r.grant_until and r.granting == 0:\n",
        "    if True:\n",
        hunt="leases",
    ),
    Mutant(
        "promise-while-bound",
        "21: ... only what others send, not the own candidacy",
        "_core.pyx",
        "    if mastership_bound(r, &body.ballot, &body.released):\n",
        "    if False:\n",
        3000,
        hunt="leases",
    ),
    Mutant(
        "stands-while-bound",
        "21: ... only the own candidacy",
        "_election.pyx",
        "    return mastership_bound(r, &own, &r.released_by)\n",
        "    return False\n",
        3000,
        hunt="leases",
    ),
    Mutant(
        "lease-told-last",
        "21: those who read under the lease get to know of what is chosen, or that it is over, after everybody else",
        "_effects.pyx",
        "    if g != NULL and (g.replica.members.lease or h.delivery.leased_until):\n",
        "    if False:\n",
        hunt="leases",
    ),
    Mutant(
        "new-master-takes-the-length-back",
        "15: a new master says again how long leases are, as he knew it, over a change that was chosen before",
        "_mastership.pyx",
        "        r.members.master = body.node\n    else:\n",
        "        r.members.master = body.node\n        r.members.lease = body.lease\n    else:\n",
        hunt="leases",
    ),
    Mutant(
        "mastership-counted-twice",
        "15: what stands behind the log's beginning, and is counted in it, is counted again",
        "_mastership.pyx",
        "    if instance < r.members.mastered:\n        return\n",
        "",
    ),
    Mutant(
        "mastership-not-in-checkpoints",
        "15: whoever installs a checkpoint does not learn how often the master had changed",
        "_membership.pyx",
        "        r.members.mastership = m.mastership\n",
        "",
    ),
)
