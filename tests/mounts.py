"""Small file systems for real processes: a node started behind ``prefix`` has one of its own where its data lies.

It stands in a mount namespace that goes with the process; from outside it is seen through ``inside``. Needs root and ``unshare``.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Sequence
from pathlib import Path

MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'


def prefix(size: str, directory: Path) -> Sequence[str]:
    """What to put before a command: an empty file system of that size (as ``mount`` takes it) on the directory, which exists."""
    return ("unshare", "--mount", "sh", "-c", MOUNT, "sh", size, str(directory))


def inside(process: int, directory: Path) -> Path:
    """The directory as that process sees it."""
    return Path(f"/proc/{process}/root{directory}")


@functools.cache
def missing() -> str | None:
    """Why there can be none here, or None. Found out by making one, once."""
    try:
        run = subprocess.run([*prefix("1m", Path("/mnt")), "true"], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"no file systems here: {error}"
    return None if run.returncode == 0 else f"no file systems here: {run.stderr.strip()}"
