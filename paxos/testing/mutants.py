"""Bugs put in on purpose, as exact replacements in the sources, each with the rule of the design that it breaks.

Real systems had many of them. A campaign has to find every one; a mutant that survives shows something at which nobody looks.
How one is built is in ``mutating``.
"""

from __future__ import annotations

from typing import Final

from paxos.testing.mutant import Mutant
from paxos.testing.mutants_mastership import MASTERSHIP
from paxos.testing.mutants_members import MEMBERS
from paxos.testing.mutants_reads import READING
from paxos.testing.mutants_running import RUNNING
from paxos.testing.mutants_sessions import SESSIONS

__all__ = ["MUTANTS", "Mutant"]

MUTANTS: Final[tuple[Mutant, ...]] = (
    # -- rules 1 and 2: durable before it leaves, or is counted
    Mutant(
        "promise-before-durable",
        "1: a promise leaves before its record is durable",
        "_acceptor.pyx",
        "frame_begin(r, FRAME_PROMISE, bit(index), r.logged, sizeof(Promise))",
        "frame_begin(r, FRAME_PROMISE, bit(index), 0, sizeof(Promise))",
    ),
    Mutant(
        "reply-before-durable",
        "1: an acceptance is answered before its record is durable",
        "_acceptor.pyx",
        "frame_begin(r, FRAME_ACCEPTED, bit(index), s.record, sizeof(Accepted))",
        "frame_begin(r, FRAME_ACCEPTED, bit(index), 0, sizeof(Accepted))",
    ),
    Mutant(
        "own-vote-before-durable",
        "1: the master counts its own acceptance before it is durable",
        "_proposer.pyx",
        "    s.own = True\n    s.rounds = 1\n",
        "    s.own = True\n    s.acks = bit(r.self)\n    s.rounds = 1\n",
        hunt="explore master",
    ),
    Mutant(
        "prepare-before-durable",
        "1: a Prepare leaves before its ballot is durable",
        "_election.pyx",
        "electors(r) & ~r.promises, r.promise_record, sizeof(Prepare))",
        "electors(r) & ~r.promises, 0, sizeof(Prepare))",
    ),
    Mutant(
        "ballot-reused-after-restart",
        "1: the rounds of ballots begin anew after a restart",
        "_election.pyx",
        "    if r.promised.round > r.highest_round:\n        r.highest_round = r.promised.round\n    r.highest_round += 1\n",
        "    r.highest_round = r.attempt + 1\n",
    ),
    Mutant(
        "refusal-before-durable",
        "2: a refusal names a promise that is not durable yet",
        "_replica.pyx",
        "FRAME_REJECT, bit(index), r.promise_record, sizeof(Reject))",
        "FRAME_REJECT, bit(index), 0, sizeof(Reject))",
    ),
    Mutant(
        "sends-not-held",
        "2: the host sends without waiting for the records that a frame stands on",
        "_effects.pyx",
        "            if e.after <= durable:\n",
        "            if True:\n",
    ),
    Mutant(
        "durable-told-early",
        "2: the host tells of records before it has written them",
        "_round.pyx",
        "    else:\n        error = store_flush(h.store)\n    if error == STORE_NO_ROOM:\n",
        "    else:\n        error = 0\n    if error == STORE_NO_ROOM:\n",
    ),
    # -- rules 3 and 4: what a candidate learns and proposes again
    Mutant(
        "candidate-does-not-learn-first",
        "3: a promise that names chosen instances is counted before they are learned",
        "_election.pyx",
        "    if frame.chosen > r.chosen:\n        return                  # learn what",
        "    if False:\n        return                  # learn what",
        hunt="explore rivals",
    ),
    Mutant(
        "watermark-not-reported",
        "3: a promise does not tell what is chosen and no longer reported",
        "_acceptor.pyx",
        "    promise.ballot = p.ballot\n    promise.first_kept",
        "    (<Frame *>(<uint8_t *>promise - 64)).chosen = 0\n    (<Frame *>(<uint8_t *>promise - 64)).chain = 0\n"
        "    promise.ballot = p.ballot\n    promise.first_kept",
        3000,
        more=(
            (
                "_acceptor.pyx",
                "Accept, Accepted, EFFECT_READ, Effect,",
                "Accept, Accepted, EFFECT_READ, Effect, Frame,",
            ),
            ("_acceptor.pyx", "from libc.stdint cimport uint32_t", "from libc.stdint cimport uint8_t, uint32_t"),
        ),
    ),
    Mutant(
        "vote-for-what-is-chosen",
        "3: an Accept at a chosen instance gets a vote and not the chosen value",
        "_acceptor.pyx",
        "        e = out_effect(&r.out, EFFECT_READ)\n        e.peers = bit(index)\n        e.instance = a.instance\n"
        "        e.end = a.instance + 1\n        return True\n",
        "        body = <Accepted *>frame_begin(r, FRAME_ACCEPTED, bit(index), 0, sizeof(Accepted))\n"
        "        body.ballot = a.ballot\n        body.first = a.instance\n        body.last = a.instance\n"
        "        frame_end(r, NULL)\n        return True\n",
    ),
    Mutant(
        "promise-forgets-accepted",
        "4: a promise does not report what was accepted",
        "_acceptor.pyx",
        "if s == NULL or s.ballot.round == 0:",
        "if True or s.ballot.round == 0:",
    ),
    Mutant(
        "lowest-ballot-wins",
        "4: of the values reported the one of the lowest ballot is proposed again",
        "_proposer.pyx",
        "ballot_compare(&s.report_ballot, &s.ballot) > 0):",
        "ballot_compare(&s.report_ballot, &s.ballot) < 0):",
        hunt="explore return",
    ),
    Mutant(
        "reports-become-no-ops",
        "4: reported values are filled with no-ops, as if they were holes",
        "_proposer.pyx",
        "value = value_ref(value) if value != NULL else value_new(VALUE_NOOP, 0, 0)",
        "value = value_new(VALUE_NOOP, 0, 0)",
    ),
    Mutant(
        "own-acceptance-is-no-report",
        "4: a candidate leaves out what it has accepted itself",
        "_proposer.pyx",
        "        if s.ballot.round != 0:\n            value = s.value\n",
        "",
    ),
    Mutant(
        "promise-quorum-of-half",
        "8: half of the members are enough for an election",
        "_election.pyx",
        "    return is_quorum(&r.members, r.chosen, mask)\n\n\n# ---- the ballot",
        "    return is_quorum(&r.members, r.chosen, mask) or mask & ~bit(r.self)\n\n\n# ---- the ballot",
    ),
    # -- the acceptor's promise
    Mutant(
        "promise-lowered",
        "1: a lower Prepare is promised as well, and lowers the promise",
        "_acceptor.pyx",
        "    if order < 0:\n        send_reject(r, index, &p.ballot)\n        return\n    if order > 0:\n",
        "    if order != 0:\n",
        hunt="explore rivals",
    ),
    Mutant(
        "report-counted-twice",
        "4: a report of one acceptor that comes twice counts for another one that is missing",
        "_election.pyx",
        "    if s.reported & bit(index):\n        return                  # a duplicate",
        "    if False:\n        return                  # a duplicate",
        hunt="explore rivals",
    ),
    Mutant(
        "accept-below-the-promise",
        "1: an Accept below the promise is accepted (a stale master is acknowledged)",
        "_acceptor.pyx",
        "    if ballot_compare(&a.ballot, &r.promised) < 0:\n        send_reject(r, index, &a.ballot)\n        return False\n",
        "",
    ),
    # -- rule 5: what is chosen
    Mutant(
        "notice-without-ballot",
        "5: news that an instance is chosen is believed whatever ballot the own value has",
        "_learner.pyx",
        "if s == NULL or s.ballot.round == 0 or ballot_compare(&s.ballot, ballot) < 0:",
        "if s == NULL or s.ballot.round == 0:",
        1500,
    ),
    Mutant(
        "half-is-a-quorum",
        "5: half of the members choose a value",
        "_proposer.pyx",
        "if not s.chosen and is_quorum(&r.members, s.instance, s.acks):",
        "if not s.chosen and (is_quorum(&r.members, s.instance, s.acks) or s.acks & ~bit(r.self)):",
    ),
    Mutant(
        "vote-counted-twice",
        "5: a vote that comes twice is two votes",
        "_proposer.pyx",
        "    s.acks |= bit(index)\n    if not s.chosen",
        "    if s.acks & bit(index):\n        s.acks |= bit((index + 1) % r.members.count)\n"
        "    s.acks |= bit(index)\n    if not s.chosen",
    ),
    Mutant(
        "vote-of-another-ballot",
        "5: a master counts votes for older ballots (a stale master acknowledges)",
        "_proposer.pyx",
        "if r.role != ROLE_MASTER or ballot_compare(&body.ballot, &r.ballot) != 0:",
        "if r.role != ROLE_MASTER:",
        hunt="explore lives",
    ),
    # -- rule 6: forwarded proposals
    Mutant(
        "forward-taken-twice",
        "6: a forwarded proposal is taken as often as it comes",
        "_proposer.pyx",
        "    if o.bits[(seq % CHUNK_WINDOW) // 64] & i:\n        return False\n",
        "",
    ),
    Mutant(
        "refusal-not-remembered",
        "6: a proposal that was refused for certain is taken when a copy comes late",
        "_proposer.pyx",
        "        if _take(r, o, head.seq):\n            if r.role == ROLE_MASTER and",
        "        if r.role != ROLE_MASTER or _take(r, o, head.seq):\n            if (r.role == ROLE_MASTER or r.role == 0) and",
        3000,
    ),
    Mutant(
        "proposed-after-deadline",
        "6: a proposal is made that its caller was told is off",
        "_proposer.pyx",
        "        if _stale(r, c):\n            _drop(_dequeue(r))\n            continue\n",
        "",
        more=(
            (
                "_proposer.pyx",
                "            p.state = CHUNK_PROPOSED\n            p.ballot = r.ballot\n",
                "            if p != NULL:\n                p.state = CHUNK_PROPOSED\n                p.ballot = r.ballot\n",
            ),
        ),
    ),
    Mutant(
        "unknown-called-refused",
        "6: a forwarded proposal is said to be certainly not executed at its deadline",
        "_proposer.pyx",
        "_settle(r, p, SETTLE_NOT_AVAILABLE if p.state == CHUNK_QUEUED else SETTLE_UNKNOWN)",
        "_settle(r, p, SETTLE_NOT_AVAILABLE if p.state != CHUNK_PROPOSED else SETTLE_UNKNOWN)",
    ),
    Mutant(
        "proposed-again-by-the-next-master",
        "6: what was proposed under an older ballot is proposed again under the next",
        "_proposer.pyx",
        "        if p != NULL and p.state == CHUNK_QUEUED:\n            _enqueue",
        "        if p != NULL:\n            p.state = CHUNK_QUEUED\n            _enqueue",
    ),
    # -- rules 7 and 9
    Mutant(
        "beyond-alpha",
        "7: instances are proposed without a look at how far the last chosen one is",
        "_proposer.pyx",
        "    while r.queue_head != NULL and not r.throttled and r.next_instance < end:\n",
        "    while r.queue_head != NULL and r.next_instance < r.chosen + 500:\n",
    ),
    Mutant(
        "formed-by-a-majority",
        "9: a cluster is formed when a majority says that it is empty",
        "_formation.pyx",
        "_is_coordinator(f) and f.empty == _everybody(f) and f.met_formed == 0:",
        "_is_coordinator(f) and 2 * popcount(f.empty) > <int>f.members.count and f.met_formed == 0:",
        more=(
            (
                "_formation.pyx",
                "RECORD_FORMATION, RECORD_FORMED, bit,",
                "RECORD_FORMATION, RECORD_FORMED, bit, popcount,",
            ),
        ),
    ),
    Mutant(
        "formed-before-durable-on-all",
        "9: a cluster counts as formed before its record is durable on all",
        "_formation.pyx",
        "if f.state == STATE_FORMING and f.formed_ok == _everybody(f):",
        "if f.state == STATE_FORMING:",
    ),
    # -- rule 11 to 14: log and disk
    Mutant(
        "sync-skipped",
        "11: a write is taken for durable without a sync",
        "_store.pyx",
        "    if error == 0 and not s.direct:\n        error = s.disk.sync(s.disk, fd)\n    if error:\n        f.failed = error",
        "    if error:\n        f.failed = error",
    ),
    Mutant(
        "failed-sync-tried-again",
        "11: a sync that failed is tried again, and the second answer believed",
        "_store.pyx",
        "        error = s.disk.sync(s.disk, fd)\n    if error:\n        f.failed = error",
        "        error = s.disk.sync(s.disk, fd)\n        if error:\n            error = s.disk.sync(s.disk, fd)\n"
        "    if error:\n        f.failed = error",
        1500,
    ),
    Mutant(
        "failed-write-ignored",
        "11: a write that failed is taken for durable",
        "_store.pyx",
        "    if error:\n        f.failed = error\n        return error\n    s.time",
        "    s.time",
    ),
    Mutant(
        "tail-not-written-again",
        "12: what recovery has read is taken for durable",
        "_segments.pyx",
        "        for segment, offset, length in found.rewrite:\n",
        "        for segment, offset, length in []:\n",
        1500,
    ),
    Mutant(
        "damage-cut-as-torn",
        "13: damage to what was acknowledged is cut off like a torn tail",
        "_recovery.pyx",
        "        if k.durable > place:\n",
        "        if False:\n",
    ),
    Mutant(
        "segment-renamed-without-directory-sync",
        "14: a new segment's name is not made durable",
        "_store.pyx",
        "    if error == 0:\n        error = s.disk.sync_directory(s.disk)\n",
        "",
        1500,
    ),
    Mutant(
        "promise-lost-on-restart",
        "14: a promise is forgotten in a crash (PySyncObj #202)",
        "_core.pyx",
        "        if ballot_compare(&promise.ballot, &r.promised) >= 0:\n            r.promised = promise.ballot\n"
        "            r.grant = promise.ballot    # it was given while no lease of another lasted\n",
        "",
    ),
    Mutant(
        "acceptance-lost-on-restart",
        "14: what was accepted is forgotten in a crash",
        "_core.pyx",
        "s.ballot = accept.ballot\n",
        "s.ballot.round = 0\n",
    ),
    Mutant(
        "acceptance-implies-no-promise",
        "14: after a crash an acceptance no longer implies the promise of its ballot",
        "_core.pyx",
        "        return -1\n        if ballot_compare(&accept.ballot, &r.promised) > 0:\n"
        "            r.promised = accept.ballot\n",
        "        return -1\n",
    ),
    Mutant(
        "old-blocks-come-back",
        "14: what stands behind a cut is not erased, and nothing else keeps it from coming back",
        "_segments.pyx",
        "        for segment, offset, length in found.erase:\n",
        "        for segment, offset, length in []:\n",
        3000,
        "log",
        more=(
            ("_recovery.pyx", "        if k.durable > place:\n", "        if False:\n"),
            ("_recovery.pyx", "        if r.previous != k.chain:\n            return STALE_CHAIN\n", ""),
        ),
    ),
    Mutant(
        "given-back-before-erased",
        "14: recovery gives a segment back before the write that leads to it is erased (found by these lives)",
        "_segments.pyx",
        "        for segment, offset, length in found.erase:\n",
        "        for segment in found.drop:\n"
        '            self._check(spares_give(&f.spares, segment), "giving back an unused segment")\n'
        "        found.drop.clear()\n"
        "        for segment, offset, length in found.erase:\n",
        6000,
        "log",
    ),
    Mutant(
        "spare-named-before-it-is-synced",
        "11: a spare whose sync failed is taken for whole by the next start (found by these lives)",
        "_spares.pyx",
        "    making_name(name, number)\n",
        "    spare_name(name, number)\n",
        6000,
        "log",
        more=(("_spares.pyx", "    if error == 0:\n        error = d.rename(d, name, whole)\n", ""),),
    ),
    Mutant(
        "recycled-segment-shows-old-records",
        "14: neither a segment's number, nor its place, nor the record before it is asked of a record",
        "_log.pyx",
        "    words[2] = segment\n",
        "    words[2] = 0\n",
        3000,
        "log",
        more=(
            (
                "_recovery.pyx",
                "    if r.type != RECORD_WRITE or r.instance != position:\n",
                "    if r.type != RECORD_WRITE:\n",
            ),
            ("_recovery.pyx", "    if (write.durable != position or write.length", "    if (write.length"),
            ("_recovery.pyx", "        if r.previous != k.chain:\n            return STALE_CHAIN\n", ""),
        ),
    ),
    Mutant(
        "recycled-before-it-is-said",
        "14: a segment is given up before the log says durably that it begins behind it",
        "_store.pyx",
        "        log_begin(&s.writer)\n        error = store_flush(s)\n    if error == STORE_NO_ROOM:\n",
        "        error = 0\n    if error == STORE_NO_ROOM:\n",
        3000,
        "log",
    ),
    Mutant(
        "never-sealed",
        "13: a log that falls idle is not sealed",
        "_round.pyx",
        "    if h.seal_due != 0 and h.now >= h.seal_due and not store_pending(h.store):\n        seal(h)\n",
        "    if h.seal_due != 0 and h.now >= h.seal_due and not store_pending(h.store):\n        h.seal_due = 0\n",
    ),
    Mutant(
        "torn-tail-called-damaged",
        "13: a torn tail is called damage, and the node does not start",
        "_recovery.pyx",
        '        self.outcome = "torn" if self.erase or self.drop else "good"\n',
        "        if self.erase:\n"
        '            return self._bad(8, self.numbers[at], k.offset, "it is torn")\n'
        '        self.outcome = "torn" if self.erase or self.drop else "good"\n',
        600,
    ),
    Mutant(
        "failed-directory-sync-ignored",
        "14: a directory that could not be synced is taken for synced",
        "_store.pyx",
        "        error = s.disk.sync_directory(s.disk)\n",
        "        s.disk.sync_directory(s.disk)\n",
        3000,
        "log",
    ),
    # -- a full disk
    Mutant(
        "full-disk-keeps-the-mastership",
        "B8: a node whose disk is full goes on to lead",
        "_round.pyx",
        "ALARM_DISK_FULL, 40, text)\n        resign(h, False)\n    elif h.disk_full and not error:\n",
        "ALARM_DISK_FULL, 40, text)\n    elif h.disk_full and not error:\n",
    ),
    Mutant(
        "full-disk-ends-the-node",
        "B8: a full disk is taken for a failed one",
        "_store.pyx",
        "    if spares_no_room(error):\n        return STORE_NO_ROOM",
        "    if False:\n        return STORE_NO_ROOM",
    ),
    Mutant(
        "logs-past-the-reserve",
        "B8: a node whose log has no room takes on more to log",
        "_round.pyx",
        "    if h.unlogged.count and frame.type != FRAME_LEARN and frame.type != FRAME_READABLE:\n",
        "    if False:\n",
    ),
    Mutant(
        "unlogged-called-durable",
        "B8: a record that waits for room counts as written",
        "_unlogged.pyx",
        "    u.value = value_ref(e.value)\n",
        "    u.value = value_ref(e.value)\n    if g != NULL:\n        g.appended += 1\n",
    ),
    Mutant(
        "unlogged-overtaken",
        "B8: a record finds room before older ones that wait for it",
        "_unlogged.pyx",
        "    if h.unlogged.count or _append(",
        "    if _append(",
        3000,
    ),
    Mutant(
        "full-for-ever",
        "B8: a node goes on to refuse proposals when there is room again",
        "_round.pyx",
        "    elif h.disk_full and not error:\n",
        "    elif False:\n",
    ),
    Mutant(
        "silent-for-ever",
        "B8: what waited for room is not logged when there is some",
        "_round.pyx",
        "    if h.unlogged.count:\n        log_unlogged(h)\n",
        "",
    ),
    # -- rules 16, 19, 22, and the host's own
    Mutant(
        "applied-twice-on-replay",
        "16: after a restart the last applied instance is applied again",
        "_handle.pyx",
        "self.host.groups[0].cursor = <uint64_t>(applied + 1)",
        "self.host.groups[0].cursor = <uint64_t>(applied if applied > 0 else 0)",
    ),
    Mutant(
        "replay-ignores-the-other-machine",
        "16: of two state machines in a group, the one that lost nothing is given the replay of the other",
        "group.py",
        "        if instance <= self._last[id_]:\n",
        "        if False:\n",
    ),
    Mutant(
        "no-op-does-not-advance",
        "16: an instance without values is not counted as applied",
        "group.py",
        "        self.applied = instance\n        self.checksum = chain\n",
        "        self.applied = instance if runs else self.applied\n        self.checksum = chain\n",
    ),
    Mutant(
        "chain-forgets-the-instance",
        "19: the chain checksum differs between nodes that restarted and those that did not",
        "_learner.pyx",
        "        r.chain = chain_next(r.chain, r.chosen, s.value)\n",
        "        r.chain = chain_next(r.chain, 0, s.value)\n",
    ),
    Mutant(
        "frame-checksum-ignored",
        "22: a damaged frame is taken for good",
        "_codec.pyx",
        "    if _extend(0, data + 12, frame.length - 12) != frame.crc:\n        return FRAME_BAD_CRC\n",
        "",
        1000,
    ),
    # -- liveness: the cluster goes on
    Mutant(
        "lost-accept-not-sent-again",
        "S1: an Accept that was lost is never sent again",
        "_proposer.pyx",
        "        proposer_resend(r, others(r), r.options.resend)\n        proposer_heartbeat",
        "        proposer_heartbeat",
    ),
    Mutant(
        "learner-asks-only-once",
        "S4: a learner whose question got no answer does not ask again",
        "_learner.pyx",
        "    r.learning = False\n    r.shunned |= bit(r.learn_peer)\n"
        "    r.shunned_until = r.now + r.options.election_max * 4\n    if r.heard_chosen > r.chosen:\n        r.heard_from",
        "    if False:\n        r.heard_from",
    ),
    Mutant(
        "settles-a-stranger-s-proposal",
        "S5: the result of one proposal is given to another",
        "_tickets.pyx",
        "            token = delivery_token(d, head.seq)\n",
        "            token = delivery_token(d, head.seq ^ 1)\n",
    ),
    Mutant(
        "takes-its-predecessor-s-proposal-for-its-own",
        "S5: a chunk that was handed in before the disk was lost settles one that was handed in since",
        "_tickets.pyx",
        "        if head.origin == d.node and head.boot == d.boot and head.life == life_of(d.inc_lo):\n",
        "        if head.origin == d.node and head.boot == d.boot:\n",
    ),
    # -- rule 15: what is deleted
    Mutant(
        "segment-held-the-only-promise",
        "15: the promise is not written again before its segment goes",
        "_learner.pyx",
        "    record.promised = r.promised\n",
        "    record.promised.round = 0\n",
    ),
    Mutant(
        "segment-held-the-only-formation",
        "15: the formation is not written again before its segment goes",
        "_prune.pyx",
        "    formation_rewrite(&h.formation)\n",
        "",
    ),
    Mutant(
        "segment-held-an-acceptance",
        "15: a segment goes although a value above the checkpoint stands in it",
        "_prune.pyx",
        "highs_below(&h.groups[i].highs, oldest, h.groups[i].replica.first_kept)",
        "True",
    ),
    Mutant(
        "base-without-members",
        "15: the membership is not written again before its segment goes",
        "_learner.pyx",
        "    membership_install(r, &members)\n    r.was_member",
        "    r.was_member",
    ),
    Mutant(
        "deleted-before-the-checkpoint-is-durable",
        "15: the log is given up while the checkpoint is being made",
        "keeper.py",
        "        self._engine.making(True)\n        try:\n",
        "        self._engine.making(True)\n        self._engine.base(applied + 1)\n        try:\n",
    ),
    Mutant(
        "log-begins-without-a-write",
        "14: a segment goes before a write says that the log begins behind it",
        "_store.pyx",
        "    s.writer.oldest = segment + 1\n",
        "",
    ),
    Mutant(
        "checkpoint-not-asked-for",
        "S16: who is told that the log is deleted does not fetch a checkpoint",
        "group.py",
        "                    self._guarded(self._keeper.behind, event[2])\n",
        "                    pass\n",
    ),
    Mutant(
        "restores-what-is-ahead",
        "16: a checkpoint takes a state machine back that was ahead of it",
        "keeper.py",
        "        behind = [id_ for id_, instance in self.last().items() if instance < manifest.instance - 1]\n",
        "        behind = list(self._machines)\n",
    ),
    Mutant(
        "checkpoint-of-states-apart",
        "16: a checkpoint is made while one state machine of a group has more than the others",
        "keeper.py",
        "        return next((id_ for id_, instance in self.last().items() if instance > applied), None)\n",
        "        return None\n",
    ),
    Mutant(
        "chain-unknown-taken-for-nought",
        "19: a checkpoint is made with a chain checksum that is not known",
        "group.py",
        "self.checksum if self._chained else None)",
        "self.checksum)",
        hunt="test test_host_regressions.py::test_a_chain_checksum_that_the_log_does_not_know_is_unknown_until_the_next_instance",
    ),
    # -- who votes
    *MEMBERS,
    # -- who leads
    *MASTERSHIP,
    # -- while it runs
    *RUNNING,
    # -- rule 20: reads
    *READING,
    # -- rule 18
    *SESSIONS,
)
