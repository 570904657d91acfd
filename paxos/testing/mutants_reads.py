"""Bugs put into reads that cost no log write."""

from __future__ import annotations

from typing import Final

from paxos.testing.mutant import Mutant

__all__ = ["READING"]

READING: Final[tuple[Mutant, ...]] = (
    Mutant(
        "read-confirmed-by-a-round-of-before",
        "20: an answer to a round that was sent before the read came confirms it",
        "_reader.pyx",
        "            asked.round = r.round\n",
        "            asked.round = 1\n",
        1500,
    ),
    Mutant(
        "read-before-the-take-over",
        "20: a master answers reads before an instance of its own ballot is chosen",
        "_reader.pyx",
        "    if r.role != ROLE_MASTER or not r.master_settled or not membership_led(r):\n        return False\n",
        "    if r.role != ROLE_MASTER:\n        return False\n",
    ),
    Mutant(
        "read-without-a-quorum",
        "20: a master answers reads as soon as it has asked, and waits for nobody",
        "_reader.pyx",
        "    return is_quorum_of_all(&r.members, index, mask)\n",
        "    return True\n",
        more=(
            ("_reader.pyx", "        if is_quorum_of_all(&r.members, r.chosen, bit(r.self)):\n", "        if True:\n"),
        ),
    ),
    Mutant(
        "read-confirmed-by-half",
        "20: half of the members confirm a read",
        "_reader.pyx",
        "    return is_quorum_of_all(&r.members, index, mask)\n",
        "    return True\n",
        1500,
    ),
    Mutant(
        "read-confirmed-for-who-was-deposed",
        "20: who has promised a higher ballot confirms its old master's reads all the same",
        "_core.pyx",
        "    if ballot_compare(&body.ballot, &r.promised) < 0:\n        send_reject(r, index, &body.ballot)\n        return\n"
        "    _follow(",
        "    if ballot_compare(&body.ballot, &r.promised) < 0:\n"
        "        if body.sent_at != 0:\n"
        "            reply = <HeartbeatReply *>frame_begin(r, FRAME_HEARTBEAT_REPLY, bit(index), 0, sizeof(HeartbeatReply))\n"
        "            reply.ballot = body.ballot\n"
        "            reply.sent_at = body.sent_at\n"
        "            frame_end(r, NULL)\n"
        "        return\n"
        "    _follow(",
        hunt="test test_core_steps_mastership.py::test_only_who_has_promised_a_ballot_durably_grants_its_lease",
    ),
    Mutant(
        "read-confirmed-under-another-ballot",
        "20: answers to heartbeats under another ballot count",
        "_core.pyx",
        "    if r.role == ROLE_MASTER and ballot_compare(&body.ballot, &r.ballot) == 0:\n        mastership",
        "    if r.role == ROLE_MASTER:\n        mastership",
        hunt="test test_core_steps_reads.py::test_answers_under_another_ballot_are_none",
    ),
    Mutant(
        "read-confirmed-without-a-vote",
        "20: who has no vote, since it was taken in and does not know everything yet, confirms reads",
        "_core.pyx",
        "    reply.sent_at = sent_at if votes(r) else 0\n",
        "    reply.sent_at = sent_at\n",
        hunt="test test_core_steps_reads.py::test_a_node_without_a_vote_says_so_in_its_answer",
    ),
    Mutant(
        "read-confirmed-by-who-is-not-in-force",
        "20: who came in by a change counts before that is in force",
        "_reader.pyx",
        "        if r.answered[i] >= round and r.members.since[i] <= index:\n",
        "        if r.answered[i] >= round:\n",
        hunt="test test_core_steps_reads.py::test_who_came_in_by_a_change_counts_where_it_is_in_force",
    ),
    Mutant(
        "read-from-the-beginning",
        "20: a read may be answered whatever is applied",
        "_reader.pyx",
        "            asked.index = r.chosen\n",
        "            asked.index = 0\n",
    ),
    Mutant(
        "read-before-it-is-applied",
        "20: a node answers a read when it is confirmed, and not when that much is applied there",
        "reads.py",
        "        while self._ready and self._ready[0][1] <= self._known():\n",
        "        while self._ready:\n",
    ),
    Mutant(
        "read-joins-a-question-under-way",
        "20: a read that comes while a question is under way is answered with it",
        "reads.py",
        "                    self._new.append(read)\n                    if not self._asked:\n"
        "                        self._ask()\n",
        "                    (self._asked or self._new).append(read)\n                    if not self._asked:\n"
        "                        self._ask()\n",
        3000,
    ),
    Mutant(
        "read-answered-for-an-earlier-life",
        "20: an answer to what an earlier process of this node has asked is taken",
        "_reader.pyx",
        "    if (r.read_token != 0 and body.read.token == r.read_token and body.read.boot == r.boot\n"
        "            and body.read.life == life_of(r.inc_lo)):\n",
        "    if r.read_token != 0 and body.read.token == r.read_token:\n",
        hunt="test test_core_steps_reads.py::test_an_answer_to_another_question_or_another_life_is_none",
    ),
    Mutant(
        "reads-not-asked-again",
        "20: a question that was lost is not asked again",
        "_reader.pyx",
        "        r.read_due = r.now + r.options.resend\n",
        "        r.read_due = 0x7FFFFFFFFFFFFFFF\n",
        hunt="test test_core_steps_reads.py::test_a_follower_asks_again_when_it_hears_nothing",
    ),
    Mutant(
        "fresh-since-the-answer",
        "20: the state counts as new as the moment when the answer came, and not as that when it was asked for",
        "reads.py",
        "            self._fresh_at = asked_at\n",
        "            self._fresh_at = self._engine.now()\n",
        hunt="test test_reads.py::test_how_stale_a_read_may_be_is_counted_from_when_was_asked",
    ),
)
