"""A replicated key-value service that speaks the Redis protocol, built on the public API of :mod:`paxos` alone.

Any Redis client is a client of it. Commands that change data go through the log; those that only read cost no log write.
What a client sees is linearizable, whichever node it talks to (unless ``reads="stale"`` was asked for)::

    node = await paxos.Node.open("data/1", node_id=1, cluster=..., state_machine=KvStateMachine)
    server = KvServer(node)
    await server.start("127.0.0.1", 6379)

Needs the extra ``cypaxos[cli]`` (hiredis).
"""

from __future__ import annotations

from .machine import KvStateMachine, UnsupportedValue
from .replies import OK, ErrorReply, Map, Reply, Status
from .server import KvServer
from .snapshot import MalformedSnapshot, UnsupportedSnapshot

__all__ = [
    "OK",
    "ErrorReply",
    "KvServer",
    "KvStateMachine",
    "MalformedSnapshot",
    "Map",
    "Reply",
    "Status",
    "UnsupportedSnapshot",
    "UnsupportedValue",
]
