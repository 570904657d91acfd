# cython: language_level=3, overflowcheck=False
"""Judge of the states in which members change. It knows nothing of the core's tables: only what nodes have on their disks.

Who votes at an instance follows from the changes chosen below, so it goes from instance to instance. A vote counts where its
node, as the incarnation that it was then, is one of those.
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from paxos._types cimport (
    Ballot, Change, MEMBER_VOTER, MembershipRow, VALUE_CHANGE, Value, ballot_compare, bit, is_majority,
)
from paxos.testing._book cimport Book, DEEPEST, NODES, ballot_of
from paxos.testing._local cimport About, LIFE, Scope, WRONG_AHEAD, WRONG_LEFT, WRONG_UNPROMISED

cdef struct Electorate:
    uint32_t voters
    uint32_t lives                  # bit i: it is the second incarnation of node i that votes
    uint32_t version                # changes that hold
    uint64_t in_force               # from here on: 0, or where the newest change counts
    uint32_t before                 # ... and below
    uint32_t lives_before


cdef void _changed(Electorate *e, const Scope *scope, uint64_t instance, const Value *value) noexcept nogil:
    """A change is chosen. It is void where another one came before it, or is not in force yet: in force, and its first
    instance chosen as well."""
    cdef Change change
    cdef MembershipRow row
    cdef uint32_t i, voters = 0, lives = 0
    cdef size_t at = sizeof(Change)
    memcpy(&change, value.data, sizeof(Change))
    if change.version != e.version or (e.in_force and instance <= e.in_force):
        return
    e.version += 1
    for i in range(change.count):
        memcpy(&row, value.data + at, sizeof(row))
        at += sizeof(row) + row.address
        if row.node != 0 and row.role == MEMBER_VOTER:
            voters |= bit(row.node - 1)
            if row.inc_hi > LIFE:
                lives |= bit(row.node - 1)
    if voters != e.voters or lives != e.lives:
        e.before, e.lives_before = e.voters, e.lives
        e.voters, e.lives = voters, lives
        e.in_force = instance + scope.alpha


cdef Verdict electorate_judge(Book *b, const Scope *scope, const About **nodes) noexcept nogil:
    cdef Verdict verdict
    cdef Electorate e
    cdef uint32_t at, i, n, life, voters, lives, accepted, promised, level, chosen
    cdef uint64_t here, any_votes = 0
    cdef uint64_t known = scope.alpha   # below it, it is settled who votes
    cdef Ballot ballot, other
    memset(&verdict, 0, sizeof(Verdict))
    memset(&e, 0, sizeof(Electorate))
    e.voters = scope.voters
    for n in range(NODES):
        any_votes |= nodes[n].votes[0] | nodes[n].votes[1]
    for at in range(DEEPEST):
        if not any_votes:
            break
        here = any_votes & b.at[at]
        any_votes &= ~here
        if here and at >= known:
            verdict.wrong = WRONG_AHEAD
            return verdict
        voters = e.voters if at >= e.in_force else e.before
        lives = e.lives if at >= e.in_force else e.lives_before
        chosen = 0
        i = 0
        while here:
            if here & 1:
                accepted, promised, level = 0, 0, 0
                ballot = ballot_of(b, b.votes[i].ballot)
                for n in range(NODES):
                    life = lives >> n & 1
                    if nodes[n].votes[life] >> i & 1:
                        accepted |= bit(n)
                    # (An acceptance implies a promise. So what tells is the proposer's own, which is the first in some order.)
                    other = ballot_of(b, nodes[n].promised_by[life])
                    if ballot_compare(&other, &ballot) >= 0:
                        promised |= bit(n)
                    # (Who has lost its disk since then was level, for all that is known.)
                    if nodes[n].life > life or (nodes[n].life == life and nodes[n].chosen[1] >= e.in_force):
                        level |= bit(n)
                if not is_majority(voters, promised):
                    verdict.wrong = WRONG_UNPROMISED
                if is_majority(voters, accepted):
                    verdict.facts |= <uint64_t>1 << b.votes[i].fact
                    chosen = b.votes[i].value + 1
                    if e.in_force and at >= e.in_force:
                        verdict.moved = True
                        if not is_majority(voters, level):
                            verdict.wrong = WRONG_LEFT
            here >>= 1
            i += 1
        if chosen and known == at + scope.alpha:
            known += 1
            if b.copies[chosen - 1].kind == VALUE_CHANGE:
                _changed(&e, scope, at, b.copies[chosen - 1])
    return verdict
