"""Bugs put into membership: who votes and since when, changes of that, and who comes in another's place."""

from __future__ import annotations

from typing import Final

from paxos.testing.mutant import Mutant

__all__ = ["MEMBERS"]

_KNOWS: Final = "r.chosen >= r.members.since[r.self] and r.chosen >= r.members.as_of\n"

MEMBERS: Final[tuple[Mutant, ...]] = (
    # -- rule 10: who has lost his log, and another in his place
    Mutant(
        "votes-while-catching-up",
        "10: a node that was taken in votes before it knows everything below",
        "_membership.pyx",
        f"    return (not r.outsider and {_KNOWS}",
        "    return (not r.outsider\n",
    ),
    Mutant(
        "wiped-node-keeps-its-incarnation",
        "10: a node with an empty disk goes by the incarnation that it had before",
        "_segments.pyx",
        "            fresh = self._folder.entropy(16)\n",
        "            fresh = bytes([node_id]) * 16\n",
    ),
    Mutant(
        "stranger-has-a-say",
        "10: messages of an incarnation that is no member count as those of the member",
        "_core.pyx",
        "    elif frame.type != FRAME_LEARN and frame.type != FRAME_LEARNED and frame.type != FRAME_KEPT:\n",
        "    elif False:\n",
        more=(
            ("_membership.pyx", f"    return (not r.outsider and {_KNOWS}", "    return (True\n"),
            ("_replica.pyx", "    if not r.outsider or type == FRAME_LEARN", "    if True or type == FRAME_LEARN"),
        ),
    ),
    Mutant(
        "a-group-falls-idle-before-its-change-is-in-force",
        "7: no no-ops carry an idle group to where the change of its membership counts",
        "_proposer.pyx",
        "    while r.next_instance < membership_settled(r) and",
        "    while False and",
    ),
    Mutant(
        "nobody-is-taken-in",
        "S16: a node that asks for a place gets none",
        "_changes.pyx",
        "    if not _free(r):\n        return False\n    next[0]",
        "    if True:\n        return False\n    next[0]",
    ),
    Mutant(
        "newcomer-knows-old-members-only",
        "S4: who does not know the members of today does not ask them",
        "_core.pyx",
        "        learner_heard(r, index, frame)\n        _finish(r)\n        return\n",
        "        return\n",
        hunt="test test_core_replacement.py::test_it_learns_from_members_that_it_does_not_know_yet",
    ),
    # -- rules 7 and 8: from one set to another
    Mutant(
        "change-in-force-at-once",
        "7: a change counts from where it is known, and not from e on",
        "_membership.pyx",
        "        next.in_force = instance + r.alpha\n",
        "        next.in_force = instance + 1\n",
        hunt="moves",
    ),
    Mutant(
        "ballot-not-promised-by-new-voters",
        "8: a master goes on under a ballot that no majority of the new voters has promised",
        "_membership.pyx",
        "    if is_majority(r.members.voters, r.promises | bit(r.self)):\n        return 0xFFFFFFFFFFFFFFFF\n"
        "    return r.members.in_force\n",
        "    return 0xFFFFFFFFFFFFFFFF\n",
        hunt="moves",
    ),
    Mutant(
        "new-voters-reports-not-proposed-again",
        "8: what the new voters report with their promise is not proposed again",
        "_election.pyx",
        "    if last > r.takeover_end:\n        r.takeover_end = last\n",
        "",
        hunt="test test_core_membership.py::test_what_new_voters_report_is_proposed_before_anything_new",
    ),
    Mutant(
        "accepts-above-a-change-without-knowing-all-below",
        "7: who does not know what the old voters have chosen accepts under the new ones, and those who left are destroyed",
        "_acceptor.pyx",
        "    if r.chosen < r.members.in_force <= a.instance or",
        "    if",
        hunt="test test_core_membership.py::test_an_acceptance_above_a_change_says_that_all_below_is_known",
        more=(
            (
                "_membership.pyx",
                "    if r.chosen < r.members.in_force:\n        return r.members.in_force\n    if is_majority",
                "    if is_majority",
            ),
        ),
    ),
    Mutant(
        "accepts-where-it-cannot-know-who-votes",
        "7: who does not know of a change yet accepts above it, and those who left are destroyed",
        "_acceptor.pyx",
        " or a.instance >= r.chosen + r.alpha:\n",
        ":\n",
        hunt="test test_core_membership.py::test_who_does_not_know_the_change_accepts_nothing_above_it",
    ),
    Mutant(
        "leaver-gone-before-its-change-is-in-force",
        "7: a member that is removed votes no more as soon as that is chosen",
        "_membership.pyx",
        "    if r.chosen < membership_settled(r) or r.members.before == r.members.voters:\n",
        "    if r.members.before == r.members.voters:\n",
        hunt="moves",
    ),
    Mutant(
        "stale-change-holds",
        "7: a change that was based on another membership holds all the same",
        "_membership.pyx",
        "    if change.version != r.members.version or instance",
        "    if instance",
        hunt="test test_core_membership.py::test_a_change_of_another_version_is_void",
    ),
    Mutant(
        "two-changes-at-a-time",
        "7: a change is taken while another one is not in force",
        "_changes.pyx",
        "r.change_at <= r.chosen and r.chosen >= membership_settled(r)",
        "r.change_at <= r.chosen",
        hunt="moves",
        more=(
            (
                "_membership.pyx",
                "    if change.version != r.members.version or instance < membership_settled(r):",
                "    if change.version != r.members.version:",
            ),
        ),
    ),
    Mutant(
        "votes-by-a-table-from-the-future",
        "7: a node with a checkpoint's table stands for election below what the table is true of",
        "_membership.pyx",
        f"    return (not r.outsider and {_KNOWS}",
        "    return (not r.outsider and r.chosen >= r.members.since[r.self]\n",
        hunt="test test_core_membership.py::test_who_knows_a_table_from_the_future_has_no_vote_before_it_is_there",
    ),
    Mutant(
        "table-without-a-watermark",
        "15: the log tells of a table, and not that its instance was known",
        "_learner.pyx",
        "    elif r.members.as_of == r.chosen:\n",
        "    elif False:\n",
        hunt="test test_core_membership.py::test_a_log_that_knows_a_table_knows_how_far_it_goes",
    ),
    Mutant(
        "promise-kept-for-who-is-given-the-place",
        "8: who is given a place has promised what was promised from there before",
        "_membership.pyx",
        "    r.promises &= others\n",
        "    pass\n",
        hunt="test test_core_membership.py::test_who_is_given_a_place_has_promised_nothing_yet",
    ),
    Mutant(
        "read-confirmed-by-old-voters-alone",
        "20: while a change is pending the voters of before alone confirm a read",
        "_reader.pyx",
        "    return is_quorum_of_all(&r.members, index, mask)\n",
        "    return is_quorum(&r.members, index, mask)\n",
        hunt="test test_core_membership.py::test_a_read_takes_both_quorums_while_a_change_is_pending",
        more=(("_reader.pyx", " is_quorum_of_all, life_of,", " is_quorum, is_quorum_of_all, life_of,"),),
    ),
    Mutant(
        "read-confirmed-under-a-ballot-that-was-not-extended",
        "20: new voters, who may follow another master under a lower ballot, confirm a read before they have promised this one's",
        "_reader.pyx",
        " or not r.master_settled or not membership_led(r):\n",
        " or not r.master_settled:\n",
        hunt="test test_core_membership.py::test_no_read_is_confirmed_by_new_voters_who_have_not_promised_the_ballot",
    ),
    Mutant(
        "lease-under-a-ballot-that-was-not-extended",
        "21: new voters, who may follow another master under a lower ballot, grant a lease before they have promised this one's",
        "_mastership.pyx",
        " or r.members.lease == 0 or not membership_led(r):\n",
        " or r.members.lease == 0:\n",
        hunt="test test_core_membership.py::test_no_lease_is_held_by_grants_of_new_voters_who_have_not_promised_the_ballot",
    ),
    Mutant(
        "read-of-before-confirmed-by-who-votes-now",
        "20: a round that was sent before a change is judged by who votes behind it",
        "_reader.pyx",
        "    return asked.round != 0 and asked.index < r.members.in_force <= r.chosen\n",
        "    return False\n",
        hunt="test test_core_membership.py::test_a_read_from_below_a_change_is_not_confirmed_by_who_votes_behind_it",
    ),
    Mutant(
        "second-lease-granted-while-one-lasts",
        "21: a lease is granted to a master while another one's lasts",
        "_mastership.pyx",
        "    if mastership_bound(r, ballot, &none):\n        return 0\n",
        "",
        hunt="test test_core_steps_mastership.py::test_nobody_else_is_granted_a_lease_while_one_lasts",
    ),
    Mutant(
        "nameless-voter",
        "10: a node votes that has not said which incarnation it is",
        "_membership.pyx",
        "        if m.voters & bit(i) and m.members[i].inc_hi == 0 and m.members[i].inc_lo == 0:\n            return False\n",
        "",
        hunt="test test_core_membership.py::test_a_table_that_does_not_follow_is_not_proposed_and_void_where_it_is_chosen",
    ),
    Mutant(
        "checkpoint-with-a-table-from-the-future",
        "15: a checkpoint has a table of members that is newer than its instances, and takes votes away",
        "keeper.py",
        "        if true_from(membership) > applied + 1:\n",
        "        if False:\n",
        hunt="test test_checkpoint_members.py::test_a_checkpoint_waits_until_its_table_of_members_is_true",
    ),
    # -- liveness
    Mutant(
        "learner-is-never-promoted",
        "P3: who comes in as a learner stays one",
        "_proposer.pyx",
        "        mastership_tick(r)\n        changes_tick(r)\n",
        "        mastership_tick(r)\n",
        hunt="moves",
    ),
    Mutant(
        "nobody-asks-by-himself",
        "S4: a new voter that nobody tells anything asks nobody",
        "_core.pyx",
        "        learner_wonder(r)\n",
        "        pass\n",
        hunt="test test_core_membership.py::test_who_hears_nothing_and_has_no_vote_asks_one_after_the_other",
    ),
    Mutant(
        "follower-learns-from-anybody",
        "S4: a follower asks whoever knows most, and not whom it was told to ask",
        "_learner.pyx",
        "    for i in range(r.options.follow_count if not votes(r) else 0):\n",
        "    for i in range(0):\n",
        hunt="test test_core_membership.py::"
        "test_a_follower_learns_from_whom_it_was_told_and_from_others_while_they_do_not_answer",
    ),
    Mutant(
        "long-absence-is-for-ever",
        "P3: a node that knows none of the members of today is not told who they are",
        "_formation.pyx",
        "    if f.state != STATE_FORMED or f.durable < f.record or f.members.version == 0:\n",
        "    if True:\n",
        hunt="moves",
    ),
    Mutant(
        "dead-learner-is-promoted",
        "P3: a learner that was not heard since the master was elected becomes a voter",
        "_changes.pyx",
        "r.heard[i] <= r.elected_at\n",
        "r.heard[i] == 0\n",
        hunt="moves",
    ),
    Mutant(
        "change-without-a-row-is-not-told",
        "15: a checkpoint has an older version of the membership than its instances",
        "_membership.pyx",
        "    if not moved | changed:\n",
        "    if False:\n",
        hunt="moves",
    ),
)
