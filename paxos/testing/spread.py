"""A campaign over many seeds, on all cores of this machine or on a Ray cluster.

Seeds are handed out in small lots; each lot comes back as one sum of what happened and a list of what was found. So the
order in which lots are done changes nothing in the result.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Final

from paxos.errors import ConfigError
from paxos.testing.campaign import Outcome, Plan, run

__all__ = ["Finding", "Lot", "cores", "local", "lots", "on_ray"]

LOT: Final = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """A seed that failed, and what the judge said."""

    seed: int
    violation: str


@dataclass(slots=True)
class Lot:
    """What came of some seeds."""

    seeds: int
    total: Outcome
    findings: list[Finding] = field(default_factory=list)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def lots(first: int, end: int) -> list[range]:
    """The seeds from ``first`` up to, not including, ``end``, in lots."""
    return [range(start, min(start + LOT, end)) for start in range(first, end, LOT)]


def play(plan: Plan, seeds: range) -> Lot:
    """Plays one lot, here."""
    total = Outcome()
    findings = []
    for seed in seeds:
        outcome = run(plan, seed)
        total.add(outcome)
        if outcome.violation is not None:
            findings.append(Finding(seed, outcome.violation))
    return Lot(len(seeds), total, findings)


def _quiet_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that hands the lots out


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C is put off: a worker that is just being made would be left half made, and say so on stderr."""
    came: list[int] = []
    here = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, frame: came.append(number)) if here else None
    try:
        # A process that is started here (for all workers: one, from which they are forked) has this from us.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    finally:
        if here:
            signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


def local(plan: Plan, first: int, end: int, jobs: int) -> Iterator[Lot]:
    """Lots as they are done, by ``jobs`` processes. To be closed early (``close()``), it waits for the lots under way."""
    todo = lots(first, end)
    if jobs == 1:
        for seeds in todo:
            yield play(plan, seeds)
        return
    context = multiprocessing.get_context("forkserver")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_quiet_worker)
    try:
        waiting: set[Future[Lot]] = set()
        left = iter(todo)
        while True:
            # Few are handed in ahead, so that an end comes soon.
            with _undisturbed():
                while len(waiting) < 2 * jobs and (some := next(left, None)) is not None:
                    waiting.add(pool.submit(play, plan, some))
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _reach(address: str) -> None:
    """Ray itself tries an address that nobody listens on for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ConfigError(f"no Ray cluster at {address} ({error}); give HOST:PORT of its head, or auto") from error


def on_ray(plan: Plan, first: int, end: int, address: str | None) -> Iterator[Lot]:
    """Lots as they are done, by the workers of a Ray cluster; without an address, of one on this machine.

    Raises ConfigError where Ray is not installed or cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--ray needs Ray: pip install 'cypaxos[ray]'") from error
    if address is not None and address not in ("auto", "local"):
        _reach(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no Ray cluster at {address}: {error}") from error
    try:
        task: Any = ray.remote(play)
        resources: Any = ray.cluster_resources
        left = iter(lots(first, end))
        ahead = 2 * max(int(resources().get("CPU", 1)), 1)
        waiting: list[Any] = []
        while True:
            while len(waiting) < ahead and (seeds := next(left, None)) is not None:
                waiting.append(task.remote(plan, seeds))
            if not waiting:
                return
            done, waiting = ray.wait(waiting)
            yield from ray.get(done)
    finally:
        ray.shutdown()
