"""The command line, ``paxos``: ``serve``, ``demo``, ``bench``. Needs the extra ``cypaxos[cli]``.

Exit status: 0 done, 1 cannot go on, 2 wrong usage, 74 a write to the log's disk failed, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with ``arguments`` (default: those of the process); the exit status."""
    try:
        from .app import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "paxos":
            raise
        print(f"paxos: the command line needs {error.name}: pip install 'cypaxos[cli]'", file=sys.stderr)
        return 1
    return run(arguments)
