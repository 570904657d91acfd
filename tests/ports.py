"""Ports for nodes that are started later, killed and started again: nobody else gets them meanwhile."""

from __future__ import annotations

import random
import socket
from collections import deque

# Below the range that the kernel hands out to outgoing connections.
PORTS = range(12_000, 30_000)
KEPT = 128

_taken: set[int] = set()
_held: deque[socket.socket] = deque()


def free_port() -> int:
    """A loopback port that nobody listens on, not handed out before by this process. The latest ``KEPT`` are bound here: another
    run of tests beside this one finds them in use, while who sets SO_REUSEADDR, as a server does, may listen."""
    for _ in range(1000):
        port = random.choice(PORTS)
        if port in _taken:
            continue
        _taken.add(port)
        held = socket.socket()
        try:
            held.bind(("127.0.0.1", port))
        except OSError:
            held.close()
            continue
        held.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # not before: it is to fail where another one holds it
        _held.append(held)
        if len(_held) > KEPT:
            _held.popleft().close()
        return port
    raise AssertionError("no free port found")


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]
