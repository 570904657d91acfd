"""The order of writes and sends, traced on real nodes: what a message stands on is durable before it leaves (rule 2).

The checker itself (``order.py``) is shown to find each kind of violation: in a real trace, one event is moved.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

import order
import shim

pytestmark = pytest.mark.processes

WRITES = 40
Trace = dict[int, list[shim.Event]]


@pytest.fixture(scope="module", params=[True, False], ids=["direct", "fdatasync"])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shim_library: Path
) -> tuple[Trace, int]:
    """Traces by node of a cluster that formed, elected, wrote one value after the other, lost its master and wrote on;
    and the id of the first master."""
    from cluster import Cluster

    base = tmp_path_factory.mktemp("traced") / "cluster"
    cluster = Cluster(base, library=shim_library, trace=True, undo=False, direct=request.param)
    try:
        cluster.start()
        master = cluster.wait_ready()
        with contextlib.closing(master.client()) as client:
            for number in range(WRITES):
                assert client.set(f"value-{number:04d}", f"token-{number:04d}")
        cluster.wait_level()
        master.kill()
        survivor = cluster.wait_ready()
        with contextlib.closing(survivor.client()) as client:
            assert client.set("after", "token-after")
    finally:
        cluster.close()
    return {node.id: shim.read_trace(node.trace, node.pids[0]) for node in cluster}, master.id


def test_nothing_leaves_before_what_it_stands_on_is_durable(run: tuple[Trace, int]) -> None:
    traces, master = run
    seen: dict[int, int] = {}
    for node, events in traces.items():
        report = order.check(events)
        assert not report.violations, f"node {node}: {report.violations[:5]}"
        for kind, count in report.seen.items():
            seen[kind] = seen.get(kind, 0) + count
    # Everything that is checked did happen.
    assert seen[order.PREPARE] >= 2
    assert seen[order.PROMISE] >= 1
    assert seen[order.ACCEPTED] >= WRITES
    assert seen[order.ACCEPT] >= WRITES
    assert order.check(traces[master]).seen[order.ACCEPT] >= WRITES


def _durable_times(events: Sequence[shim.Event], token: bytes) -> list[int]:
    return [
        record.time for record in order.logged_records(events) if record.durable is not None and token in record.body
    ]


def _early_replies(traces: Trace, master: int) -> list[str]:
    """Client replies that left before a majority held the value durably. The clock is one for all processes."""
    replies = [
        (begin.time, begin.data)
        for begin in traces[master]
        if begin.kind == "tb" and not begin.data.startswith(order.FRAME_MAGIC) and begin.data == b"+OK\r\n"
    ]
    # The writes of the run are the only ones with a token; replies to SET come in the order of the writes.
    early = []
    done = {
        number: sorted(
            min(times) for events in traces.values() if (times := _durable_times(events, b"token-%04d" % number))
        )
        for number in range(WRITES)
    }
    assert len(replies) >= WRITES
    for number, (time, _) in enumerate(replies[-WRITES:]):
        majority = done[number][1] if len(done[number]) > 1 else None
        if majority is None or majority > time:
            early.append(f"reply {number} before two nodes held it")
    return early


def test_a_reply_leaves_after_a_majority_holds_the_value(run: tuple[Trace, int]) -> None:
    assert _early_replies(*run) == []


def test_the_checker_finds_an_early_reply(run: tuple[Trace, int]) -> None:
    traces, master = run
    late = {
        node: [
            dataclasses.replace(event, time=event.time + 10**12) if event.kind in ("we", "se") else event
            for event in events
        ]
        for node, events in traces.items()
    }
    assert len(_early_replies(late, master)) == WRITES


def _completions_late(events: Sequence[shim.Event]) -> list[shim.Event]:
    """The same run by a node that does not wait: each completion of a write or sync comes 1000 events later."""
    moved = [
        dataclasses.replace(event, sequence=event.sequence * 2 + (2001 if event.kind in ("we", "se") else 0))
        for event in events
    ]
    return sorted(moved, key=lambda event: event.sequence)


def test_the_checker_finds_early_frames(run: tuple[Trace, int]) -> None:
    traces, _ = run
    violations = []
    for events in traces.values():
        violations += order.check(_completions_late(_own_threads(events))).violations
    for word in ("type 18", "type 20", "Accepted"):
        assert any(word in violation for violation in violations), word


def _own_threads(events: Sequence[shim.Event]) -> list[shim.Event]:
    """Each call on a thread of its own: begin and end are matched by thread, and are about to be moved apart."""
    calls: dict[tuple[int, str], int] = {}
    out = []
    for event in events:
        slot = (event.thread, event.kind[0])
        if event.kind.endswith("b"):
            calls[slot] = event.sequence
        out.append(dataclasses.replace(event, thread=calls[slot]))
    return out


def test_the_checker_finds_an_accept_behind_the_own_write(run: tuple[Trace, int]) -> None:
    traces, master = run
    early = [
        dataclasses.replace(event, sequence=event.sequence - 1_000_000) if event.kind == "wb" else event
        for event in _own_threads(traces[master])
    ]
    violations = order.check(sorted(early, key=lambda event: event.sequence)).violations
    assert any("own write" in violation for violation in violations)
