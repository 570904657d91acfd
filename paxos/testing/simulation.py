"""``@simulate``: a test runs once per seed on a simulated cluster under faults, and a failure is shrunk to what it takes.

    @simulate(Counter, seeds=200)
    async def test_counter(cluster):
        while cluster.now < cluster.seconds:
            await cluster.propose(b"1")

Each seed is one life of a cluster: faults come and go while the test runs; then there is peace, and the nodes must get level and
agree. What failed is reported with the one command that shows it again.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import shlex
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, Final, ParamSpec, Protocol, Unpack, cast

from paxos.config import NodeOptions
from paxos.errors import ConfigError
from paxos.statemachine import StateMachineFactory
from paxos.testing.cluster import SECOND
from paxos.testing.faults import Fault
from paxos.testing.settings import Settings, current
from paxos.testing.simcluster import Invariant, SimCluster, fault_kinds, schedule_for

__all__ = ["NothingChosen", "Report", "Simulated", "SimulationFailed", "simulate"]

P = ParamSpec("P")
Body = Callable[Concatenate[SimCluster, P], Coroutine[Any, Any, object]]

#: Runs that may be spent on making a failure smaller.
PATIENCE: Final = 150


@dataclass(slots=True)
class Report:
    """What happened in the runs of a simulation: a green test in which nothing happened proves nothing."""

    seeds: int = 0
    seconds: float = 0.0
    """Simulated, in all runs together."""
    chosen: int = 0
    """Instances."""
    values: int = 0
    """Values in them."""
    faults: Counter[str] = field(default_factory=Counter)
    """Faults that met something, by kind."""
    hashes: dict[int, int] = field(default_factory=dict)
    """By seed: of everything that happened in its run, in order."""

    def add(self, cluster: SimCluster) -> None:
        """Counts a run that is over."""
        self.seeds += 1
        self.seconds += cluster.now
        self.chosen += cluster.cluster.world.chosen
        self.values += cluster.values
        self.faults.update(cluster.faults.hits)
        self.hashes[cluster.seed] = cluster.hash

    def __str__(self) -> str:
        return (
            f"{self.seeds} {'seed' if self.seeds == 1 else 'seeds'}, {self.seconds:,.1f} simulated s, "
            f"{self.faults.total():,} faults, {self.values:,} values chosen"
        )


class NothingChosen(AssertionError):
    """No seed chose a value: the test has tested nothing."""


class SimulationFailed(AssertionError):
    """A seed failed. ``__cause__`` is what it failed with; the text has the faults that it takes and how to see it again."""

    def __init__(self, text: str, *, seed: int, schedule: list[Fault], keep: list[int], report: Report) -> None:
        super().__init__(text)
        self.seed = seed
        #: The faults that are left, and their numbers in the seed's own schedule.
        self.schedule = schedule
        self.keep = keep
        #: Of the runs up to the one that failed.
        self.report = report


class Simulated(Protocol[P]):
    """A simulation: a function like any other, for pytest and for calling it by hand."""

    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Runs all seeds. Raises SimulationFailed, NothingChosen."""

    def run(self, seed: int, keep: Iterable[int] | None = None, *args: Any, **kwargs: Any) -> Report:
        """Runs one seed, with some of its faults only where ``keep`` says which; ``args`` go to the test."""

    def schedule(self, seed: int) -> list[Fault]:
        """The faults of a seed."""

    @property
    def report(self) -> Report:
        """Of the last call."""


@dataclass(slots=True)
class _Run:
    """One run of one seed."""

    error: BaseException | None
    at: float
    keep: list[int]
    cluster: SimCluster
    again: bool = True
    """Whether it came out the same when it was tried again."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What ``simulate`` was told."""

    machine: StateMachineFactory
    body: Callable[..., Coroutine[Any, Any, object]]
    at: int
    """Where the body takes the cluster: 1 behind ``self``."""
    seeds: Sequence[int]
    nodes: int
    faults: str | Sequence[str]
    seconds: float
    invariant: Invariant | None
    durable: bool
    limit: float | None
    options: NodeOptions

    @property
    def name(self) -> str:
        return self.body.__name__

    def schedule(self, seed: int) -> list[Fault]:
        return schedule_for(seed, self.nodes, self.seconds, fault_kinds(self.faults))

    def once(self, seed: int, keep: Sequence[int], args: Any, kwargs: Any, trace: str | None = None) -> _Run:
        """Runs a seed with these faults of its schedule. The cluster is closed; only its counts are of use."""
        whole = self.schedule(seed)
        cluster = SimCluster(
            self.machine, nodes=self.nodes, seed=seed, faults=self.faults, seconds=self.seconds, invariant=self.invariant,
            durable=self.durable, limit=self.limit, schedule=[whole[number] for number in keep], **self.options,
        )  # fmt: skip
        error: BaseException | None = None
        if trace is not None:
            cluster.cluster.world.record()
        with cluster:
            try:
                cluster.run(self.body(*args[: self.at], cluster, *args[self.at :], **kwargs))
                cluster.run(cluster.settle())
            except (Exception, asyncio.CancelledError) as found:
                error = found
            except BaseException as found:
                # pytest.fail() is no Exception, so that nobody catches it by accident.
                if type(found).__name__ != "Failed":
                    raise
                error = found
            run = _Run(error, cluster.now, list(keep), cluster)
            if trace is not None:
                importlib.import_module("paxos.testing.timeline").write(trace, cluster.cluster, cluster.faults)
        return run

    def shrink(self, run: _Run, args: Any, kwargs: Any) -> _Run:
        """A run of the same seed that fails in the same way with fewer faults; the same run where it does not fail again."""
        whole = self.schedule(run.cluster.seed)
        best = self.once(run.cluster.seed, [n for n in run.keep if whole[n].at <= run.at * SECOND], args, kwargs)
        if type(best.error) is not type(run.error):
            return _Run(run.error, run.at, best.keep, run.cluster, again=False)
        tries = 1
        step = max(len(best.keep) // 2, 1)
        while best.keep and tries < PATIENCE:
            at, shrunk = 0, False
            while at < len(best.keep) and tries < PATIENCE:
                tries += 1
                found = self.once(run.cluster.seed, best.keep[:at] + best.keep[at + step :], args, kwargs)
                if type(found.error) is type(run.error):
                    best, shrunk = found, True
                else:
                    at += step
            if step == 1 and not shrunk:
                break
            step = max(step // 2, 1)
        return best

    def text(self, run: _Run, before: int, whole: list[Fault], settings: Settings) -> str:
        """All that there is to say of a failure."""
        error = run.error
        lines = [
            f"{self.name} fails with seed {run.cluster.seed}"
            + (f", after {before} that did not" if before else "")
            + f", {run.at:.3f} simulated seconds in:",
            "",
            *(f"    {line}" for line in f"{type(error).__name__}: {error}".splitlines()),
            "",
        ]
        if not run.again:
            lines += [
                "Run again with the same seed, it did not fail in this way: something decides here that the seed does not, such",
                "as a clock, the order of a set, or what an earlier run left in a global variable.",
                "",
            ]
        if run.keep:
            which = "that it takes" if run.again else "up to then"
            lines.append(f"Faults {which} ({len(run.keep)} of {len(whole)}):")
            lines += [f"    {number:3}  {whole[number]}" for number in run.keep]
        else:
            lines.append("It takes no faults." if run.again else "There had been no faults.")
        keep = ",".join(map(str, run.keep)) or "none"
        if settings.test is not None:
            command = f"pytest {shlex.quote(settings.test)} --paxos-seed {run.cluster.seed} --paxos-keep {keep}"
        else:
            command = f"{self.name}.run({run.cluster.seed}, keep={run.keep})"
        lines += ["", f"To see it again:  {command}"]
        return "\n".join(lines)

    def play(self, settings: Settings, args: Any, kwargs: Any) -> Report:
        """All seeds, or what the settings say."""
        __tracebackhide__ = True
        seeds: Sequence[int] = self.seeds
        if settings.seed is not None:
            seeds = [settings.seed]
        elif settings.seeds is not None:
            seeds = range(settings.seeds)
        report = Report()
        trace = settings.trace if len(seeds) == 1 else None
        for seed in seeds:
            whole = self.schedule(seed)
            keep = list(range(len(whole))) if settings.keep is None else list(settings.keep)
            if keep and max(keep) >= len(whole):
                raise ConfigError(
                    f"there is no fault {max(keep)} in the schedule of seed {seed}, which has {len(whole)}"
                )
            run = self.once(seed, keep, args, kwargs, trace)
            report.add(run.cluster)
            if run.error is None:
                continue
            if settings.keep is None:
                run = self.shrink(run, args, kwargs)
            if settings.trace is not None:
                self.once(seed, run.keep, args, kwargs, settings.trace)
            raise SimulationFailed(
                self.text(run, report.seeds - 1, whole, settings),
                seed=seed, schedule=[whole[number] for number in run.keep], keep=run.keep, report=report,
            ) from run.error  # fmt: skip
        if not report.values:
            raise NothingChosen(
                f"{self.name}: no value was chosen ({report}); what does not happen cannot go wrong. Does the test propose "
                "anything, and leave it the time to be chosen?"
            )
        return report


def _seeds(seeds: int | Iterable[int]) -> Sequence[int]:
    if isinstance(seeds, bool) or not isinstance(seeds, int | Iterable):
        raise ConfigError(f"seeds={seeds!r} must be a number of seeds, or the seeds themselves")
    found = range(seeds) if isinstance(seeds, int) else list(seeds)
    if not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in found):
        raise ConfigError(f"seeds={seeds!r} must be a number of seeds, or the seeds themselves")
    if not found or min(found) < 0:
        raise ConfigError(f"seeds={seeds!r}: give at least one seed, and none below 0")
    return found


def simulate(
    machine: StateMachineFactory,
    *,
    seeds: int | Iterable[int] = 200,
    nodes: int = 3,
    faults: str | Sequence[str] = "all",
    seconds: float = 10.0,
    invariant: Invariant | None = None,
    durable: bool = False,
    limit: float | None = None,
    **options: Unpack[NodeOptions],
) -> Callable[[Body[P]], Simulated[P]]:
    """Makes a test of ``async def test(cluster, ...)``, which runs once per seed; see :class:`SimCluster` for the parameters.

    While the test runs, faults come and go for ``seconds`` simulated seconds. When it ends, they end; nodes that are down start,
    and within a bounded time all must have applied the same. A seed fails where the test or the ``invariant`` raises, where
    replicas answer differently or end in different states (``digest()``, if the state machine has one), where a node breaks a
    rule of the protocol, and where the nodes do not get level.

    :param seeds: how many (from 0 on), or which.
    :raises ConfigError: at once, where a parameter cannot work. :raises TypeError: what is decorated is no ``async def``.
    """
    fault_kinds(faults)
    chosen_seeds = _seeds(seeds)
    SimCluster.check(machine, nodes=nodes, seconds=seconds, options=options)

    def decorate(body: Body[P]) -> Simulated[P]:
        if not inspect.iscoroutinefunction(body):
            raise TypeError(f"@simulate wants an `async def` that takes the cluster, not {body!r}")
        signature = inspect.signature(body)
        parameters = list(signature.parameters.values())
        at = 1 if parameters and parameters[0].name == "self" else 0
        if len(parameters) <= at:
            raise TypeError(f"@simulate: {body.__name__}() must take the cluster as its first parameter")
        plan = _Plan(machine, body, at, chosen_seeds, nodes, faults, seconds, invariant, durable, limit, options)

        @functools.wraps(body)
        def test(*args: P.args, **kwargs: P.kwargs) -> None:
            __tracebackhide__ = True
            settings = current.get()
            done.report = report = plan.play(settings, args, kwargs)
            if settings.report is not None:
                settings.report(plan.name, report)

        def run(seed: int, keep: Iterable[int] | None = None, *args: Any, **kwargs: Any) -> Report:
            return plan.play(Settings(seed=seed, keep=None if keep is None else tuple(keep)), args, kwargs)

        done = cast(Any, test)
        # pytest fills parameters in by their names, and the cluster is not its business.
        del parameters[at]
        done.__signature__ = signature.replace(parameters=parameters, return_annotation=None)
        done.run = run
        done.schedule = plan.schedule
        done.report = Report()
        return cast("Simulated[P]", test)

    return decorate
