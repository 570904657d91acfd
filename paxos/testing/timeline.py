"""The timeline of a simulated run, for Perfetto (https://ui.perfetto.dev) and chrome://tracing: the "Trace Event Format".

A track per node with its log writes, messages, elections and chosen instances, arrows from where a message was sent to where it
arrived, and a track of the faults. Times are simulated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from paxos.testing._sim import FRAME_NAMES
from paxos.testing.cluster import Cluster
from paxos.testing.faults import Faults

__all__ = ["events", "write"]

FRAME: Final = 0
WRITTEN: Final = 3
MASTER: Final = 100
CHOSEN: Final = 101

#: Messages that come by the dozen each second and tell little: drawn, but without arrows.
QUIET: Final = frozenset({"HEARTBEAT", "HEARTBEAT_REPLY"})
PROCESS: Final = 1
FAULTS: Final = 1000


def write(path: str | Path, cluster: Cluster, faults: Faults | None = None) -> int:
    """Writes the timeline of a cluster whose world has been recording (``world.record()``); the number of entries.

    Raises OSError where the file cannot be written.
    """
    with Path(path).open("w", encoding="utf-8") as file:
        return _write(file, events(cluster, faults))


def _write(file: IO[str], entries: Iterator[dict[str, Any]]) -> int:
    count = 0
    file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
    for entry in entries:
        file.write(("" if count == 0 else ",\n") + json.dumps(entry, separators=(",", ":")))
        count += 1
    file.write("\n]}\n")
    return count


def _us(ns: int) -> float:
    return ns / 1000


def events(cluster: Cluster, faults: Faults | None = None) -> Iterator[dict[str, Any]]:
    """The entries: names of tracks, slices ("X"), instants ("i"), and the two ends of arrows ("s", "f")."""
    yield {"ph": "M", "pid": PROCESS, "name": "process_name", "args": {"name": "simulated cluster"}}
    for replica in cluster.replicas:
        yield _track(replica.id, f"node {replica.id}", replica.id)
    yield _track(FAULTS, "faults", 0)
    for number, (since, at, kind, node, other, a, b) in enumerate(cluster.world.timeline()):
        if kind == FRAME:
            yield from _message(number, since, at, node + 1, other + 1, FRAME_NAMES.get(a, str(a)), b)
        elif kind == WRITTEN:
            yield _slice(node + 1, "log write", since, at, {"bytes": a, "records": b})
        elif kind == MASTER:
            yield _instant(node + 1, f"master: node {a}" if a else "no master", at, {"round": b})
        elif kind == CHOSEN:
            yield _instant(node + 1, f"chosen {a}", at, {"values": b})
    if faults is not None:
        for since, until, name, node in faults.log:
            yield _slice(FAULTS, f"{name} (node {node})", since, until, {"node": node})


def _track(number: int, name: str, place: int) -> dict[str, Any]:
    return {
        "ph": "M",
        "pid": PROCESS,
        "tid": number,
        "name": "thread_name",
        "args": {"name": name, "sort_index": place},
    }


def _slice(track: int, name: str, since: int, until: int, args: dict[str, Any]) -> dict[str, Any]:
    duration = max(_us(until - since), 0.001)
    return {"ph": "X", "pid": PROCESS, "tid": track, "name": name, "ts": _us(since), "dur": duration, "args": args}


def _instant(track: int, name: str, at: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "i", "s": "t", "pid": PROCESS, "tid": track, "name": name, "ts": _us(at), "args": args}


def _message(number: int, since: int, at: int, to: int, source: int, name: str, size: int) -> Iterator[dict[str, Any]]:
    args = {"from": source, "to": to, "bytes": size}
    # An arrow binds to the slices it begins and ends in: a microsecond each.
    yield _slice(source, f"{name} to {to}", since, since + 1000, args)
    yield _slice(to, f"{name} from {source}", at, at + 1000, args)
    if name not in QUIET:
        arrow = {"pid": PROCESS, "name": name, "cat": "message", "id": number}
        yield {"ph": "s", "tid": source, "ts": _us(since), **arrow}
        yield {"ph": "f", "bp": "e", "tid": to, "ts": _us(at), **arrow}
