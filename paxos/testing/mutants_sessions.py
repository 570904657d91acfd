"""Bugs put into the sessions (rule 18)."""

from __future__ import annotations

from typing import Final

from paxos.testing.mutant import Mutant

__all__ = ["SESSIONS"]

SESSIONS: Final[tuple[Mutant, ...]] = (
    Mutant(
        "token-applied-again",
        "18: a value under a token that was applied is applied again",
        "sessions.py",
        "        kept = session.kept.get(seq)\n        if kept is None:\n",
        "        kept = session.kept.get(seq)\n        if not isinstance(kept, Verdict):\n",
    ),
    Mutant(
        "acknowledged-token-applied",
        "18: what was acknowledged is forgotten, and a late copy is applied",
        "sessions.py",
        "        if seq < session.acked:\n            return ACKNOWLEDGED\n",
        "",
    ),
    Mutant(
        "fence-looks-only",
        "18: what became of a token is told from what is there, without a fence that is kept",
        "sessions.py",
        "            found.kept[seq] = Verdict.FENCED\n            self._keep()\n",
        "",
    ),
    Mutant(
        "fence-not-respected",
        "18: a late copy of a value whose token is fenced is applied",
        "sessions.py",
        "        if kept is None:\n            return session\n",
        "        if kept is None or kept is Verdict.FENCED:\n            return session\n",
    ),
    Mutant(
        "sessions-not-in-the-checkpoint",
        "18: a checkpoint has nothing of the sessions",
        "snapshot.py",
        "                    machine.snapshot(stream)\n",
        "                    (SessionTable() if isinstance(machine, SessionTable) else machine).snapshot(stream)\n",
    ),
    Mutant(
        "acknowledgements-not-in-the-checkpoint",
        "18: a session comes out of a checkpoint as if nothing had been acknowledged",
        "sessions.py",
        "= _Session(lifetime, used, acked)\n",
        "= _Session(lifetime, used)\n",
    ),
    Mutant(
        "sessions-expire-by-process",
        "18: a session that came out of a checkpoint expires by what this process has seen of it",
        "sessions.py",
        "= _Session(lifetime, used, acked)\n",
        "= _Session(lifetime, 1 << 60, acked)\n",
    ),
)
