"""``paxos sim``: campaigns of simulated clusters, replays of what they find, and hunts for bugs put in on purpose."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from paxos import ConfigError
from paxos.testing import campaign, mutants, mutating, spread, timeline
from paxos.testing.campaign import Outcome, Plan
from paxos.testing.faults import GROUPS, KINDS
from paxos.testing.hunt import CAUGHT

__all__ = ["SimOptions", "list_mutants", "parse_faults", "parse_keep", "parse_seeds", "simulate"]


@dataclass(frozen=True)
class SimOptions:
    """What ``paxos sim`` was told."""

    seeds: range
    plan: Plan
    keep: tuple[int, ...] | None
    jobs: int
    trace: Path | None
    mutant: str | None
    ray: bool
    ray_address: str | None
    as_json: bool
    shrink: bool


def parse_seeds(text: str) -> range:
    """``A:B`` (from A up to, not including, B) or ``N`` (that one). ValueError."""
    first, colon, end = text.partition(":")
    if not first.isdecimal() or (colon and not end.isdecimal()):
        raise ValueError(f"{text!r} is not A:B, as in 0:1000, or one seed, as in 17")
    seeds = range(int(first), int(end) if colon else int(first) + 1)
    if not seeds:
        raise ValueError(f"{text!r} has no seed in it: the second number is the first that is left out")
    return seeds


def parse_faults(text: str) -> tuple[str, ...]:
    """``all``, ``none``, or kinds and groups with commas between them. ValueError names what there is."""
    if text == "all":
        return KINDS
    if text == "none":
        return ()
    kinds: list[str] = []
    for name in text.split(","):
        if name in GROUPS:
            kinds += GROUPS[name]
        elif name in KINDS:
            kinds.append(name)
        else:
            groups = "; ".join(f"{group} ({', '.join(members)})" for group, members in GROUPS.items())
            raise ValueError(f"there is no fault {name!r}; there are: all; none; {groups}")
    return tuple(dict.fromkeys(kinds))


def parse_keep(text: str | None) -> tuple[int, ...] | None:
    """Numbers with commas between them, or ``none``. ValueError."""
    if text is None:
        return None
    if text == "none":
        return ()
    if not all(part.isdecimal() for part in text.split(",")):
        raise ValueError(f"{text!r} is not a list of fault numbers, as in 3,7,9, or none")
    return tuple(sorted({int(part) for part in text.split(",")}))


def list_mutants(as_json: bool) -> None:
    """What ``--list-mutants`` prints."""
    if as_json:
        click.echo(
            json.dumps([{"name": m.name, "rule": m.rule, "file": m.file, "hunt": m.hunt} for m in mutants.MUTANTS])
        )
        return
    table = Table(title=f"{len(mutants.MUTANTS)} bugs to put in, and the rule that each breaks", box=None)
    table.add_column("name, and the rule", overflow="fold")
    table.add_column("in", no_wrap=True)
    table.add_column("hunted by", no_wrap=True)
    for mutant in mutants.MUTANTS:
        hunt = "a test" if mutant.hunt.startswith("test ") else mutant.hunt
        table.add_row(f"[bold]{mutant.name}[/]\n{escape(mutant.rule)}", mutant.file, hunt)
    Console().print(table)


def simulate(options: SimOptions) -> bool:
    """Does what was asked; whether nothing was found (for a mutant: the mutant was not caught)."""
    if options.mutant is not None:
        return _hunt(options)
    if len(options.seeds) == 1:
        return _replay(options)
    return _campaign(options)


# -- many seeds


def _campaign(options: SimOptions) -> bool:
    begun = time.monotonic()
    total, findings, played = Outcome(), [], 0
    if options.ray:
        lots: Iterator[spread.Lot] = spread.on_ray(
            options.plan, options.seeds.start, options.seeds.stop, options.ray_address
        )
    else:
        lots = spread.local(options.plan, options.seeds.start, options.seeds.stop, options.jobs)
    stopped = False
    with _progress(options, len(options.seeds)) as step, contextlib.closing(lots):  # type: ignore[type-var]
        try:
            for lot in lots:
                played += lot.seeds
                total.add(lot.total)
                findings += lot.findings
                step(lot.seeds, len(findings))
        except KeyboardInterrupt:
            stopped = True
    findings.sort(key=lambda finding: finding.seed)
    wall = time.monotonic() - begun
    if options.as_json:
        report = _report(options, total, played, wall)
        report["stopped"] = stopped
        report["violations"] = [_explain(options, f.seed) if i < 3 else {"seed": f.seed, "violation": f.violation}
                                for i, f in enumerate(findings)]  # fmt: skip
        click.echo(json.dumps(report))
    else:
        _print(options, total, played, wall)
        for number, finding in enumerate(findings):
            if number == 3:
                click.echo(f"… and {len(findings) - 3} more: seeds {', '.join(str(f.seed) for f in findings[3:])}")
                break
            _tell(_explain(options, finding.seed))
        if stopped:
            click.echo(f"stopped after {played} of {len(options.seeds)} seeds", err=True)
    if stopped:
        raise KeyboardInterrupt
    return not findings


@contextlib.contextmanager
def _progress(options: SimOptions, seeds: int) -> Iterator[Any]:
    """A bar on stderr, where that is a terminal; a function that moves it."""
    console = Console(stderr=True)
    columns = (TextColumn("seeds"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[found]} found"))  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("seeds", total=seeds, found=0)

        def step(more: int, found: int) -> None:
            progress.update(task, advance=more, found=found)

        yield step


def _report(options: SimOptions, total: Outcome, played: int, wall: float) -> dict[str, Any]:
    return {
        "seeds": played,
        "first_seed": options.seeds.start,
        "nodes": options.plan.nodes,
        "simulated_seconds": round(total.seconds, 3),
        "events": total.events,
        "values_chosen": sum(total.operations[name] for name in ("answered", "of bursts")),
        "instances_chosen": total.chosen,
        "ballots": total.elections,
        "faults": dict(sorted(total.faults.items())),
        "operations": dict(sorted(total.operations.items())),
        "world": {name: count for name, count in sorted(total.world.items()) if name != "events"},
        "wall_seconds": round(wall, 3),
        "events_per_core_second": round(total.events / total.wall) if total.wall else 0,
        "simulated_seconds_per_core_second": round(total.seconds / total.wall, 1) if total.wall else 0,
    }


def _print(options: SimOptions, total: Outcome, played: int, wall: float) -> None:
    report = _report(options, total, played, wall)
    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name in ("seeds", "simulated_seconds", "events", "values_chosen", "instances_chosen", "ballots"):
        table.add_row(name.replace("_", " "), f"{report[name]:,}")
    table.add_row("faults that hit", f"{sum(report['faults'].values()):,}")
    table.add_row("events per second and core", f"{report['events_per_core_second']:,}")
    table.add_row("simulated seconds per second and core", f"{report['simulated_seconds_per_core_second']:,}")
    console = Console()
    console.print(table)
    if report["faults"]:
        console.print("faults: " + ", ".join(f"{kind} {count:,}" for kind, count in report["faults"].items()))
    if not total.chosen:
        console.print("[bold]nothing was chosen: this campaign has shown nothing[/bold]")


# -- one seed


def _explain(options: SimOptions, seed: int) -> dict[str, Any]:
    """A violation with as few faults as it takes, and the command that shows it again."""
    plan = options.plan
    outcome = campaign.run(plan, seed)
    if outcome.violation is None:
        return {"seed": seed, "violation": "it did not happen again", "schedule": [], "replay": None}
    best = campaign.shrink(plan, outcome) if options.shrink else outcome
    return _violation(options, outcome.schedule, best)


def _violation(options: SimOptions, full: list[Any], best: Outcome) -> dict[str, Any]:
    places: dict[Any, list[int]] = {}
    for number, fault in enumerate(full):
        places.setdefault(fault, []).append(number)
    keep = sorted(places[fault].pop(0) for fault in best.schedule)
    return {
        "seed": best.seed,
        "violation": best.violation,
        "schedule": [str(fault) for fault in best.schedule],
        "faults_before_shrinking": len(full),
        "keep": keep,
        "replay": _command(options, best.seed, keep),
    }


def _command(options: SimOptions, seed: int, keep: list[int]) -> str:
    plan = options.plan
    words = ["paxos sim", f"--seeds {seed}", f"--nodes {plan.nodes or 'mixed'}", f"--minutes {plan.seconds / 60:g}"]
    if plan.kinds != KINDS:
        words.append(f"--faults {','.join(plan.kinds) or 'none'}")
    if plan.rate != Plan().rate:
        words.append(f"--rate {plan.rate:g}")
    if plan.spares:
        words.append(f"--spares {plan.spares}")
    words.append(f"--keep {','.join(map(str, keep)) or 'none'}")
    return " ".join(words)


def _tell(found: dict[str, Any]) -> None:
    click.echo(f"\nVIOLATION with seed {found['seed']}: {found['violation']}")
    if found["replay"] is None:
        return
    click.echo(f"faults that it takes ({len(found['schedule'])} of {found['faults_before_shrinking']}):")
    for line in found["schedule"]:
        click.echo(f"  {line}")
    click.echo(f"again, with a timeline:\n  {found['replay']} --trace timeline.json")


def _replay(options: SimOptions) -> bool:
    seed = options.seeds.start
    full = campaign.schedule_of(options.plan, seed)
    schedule = full
    if options.keep is not None:
        if options.keep and options.keep[-1] >= len(full):
            raise ConfigError(f"--keep {options.keep[-1]}: seed {seed} has {len(full)} faults, numbered from 0")
        schedule = [full[number] for number in options.keep]
    begun = time.monotonic()
    entries = 0

    def look(cluster: Any, faults: Any) -> None:
        nonlocal entries
        assert options.trace is not None
        entries = timeline.write(options.trace, cluster, faults)

    outcome = campaign.run(options.plan, seed, schedule, look if options.trace is not None else None)
    wall = time.monotonic() - begun
    found = None
    if outcome.violation is not None:
        best = campaign.shrink(options.plan, outcome) if options.shrink and options.keep is None else outcome
        found = _violation(options, full, best)
    if options.as_json:
        report = _report(options, outcome, 1, wall)
        report["violations"] = [] if found is None else [found]
        report["hash"] = f"{outcome.hash:016x}"
        click.echo(json.dumps(report))
    else:
        _print(options, outcome, 1, wall)
        click.echo(f"hash of all that happened: {outcome.hash:016x}")
        if found is not None:
            _tell(found)
    if options.trace is not None and not options.as_json:
        click.echo(f"{entries:,} entries in {options.trace}: open it at https://ui.perfetto.dev")
    return found is None


# -- a bug put in


@dataclass(frozen=True)
class _Caught:
    """What came of the hunt of one mutant."""

    mutant: mutants.Mutant
    caught: bool
    words: str

    def row(self) -> dict[str, Any]:
        mutant = self.mutant
        return {
            "mutant": mutant.name,
            "rule": mutant.rule,
            "hunt": mutant.hunt,
            "caught": self.caught,
            "by": self.words,
        }


def _hunt_one(mutant: mutants.Mutant, seeds: range) -> _Caught:
    """In a process of its own, on a copy of the package with the bug in it."""
    with tempfile.TemporaryDirectory() as folder:
        mutating.build(mutant, Path(folder))
        seeds = seeds if len(seeds) > 1 else range(mutant.seeds)
        command, environment = mutating.command(mutant, seeds.start, seeds.stop, Path(folder))
        hunt = subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if hunt.returncode not in (0, CAUGHT):
        raise ConfigError(
            f"the hunt of {mutant.name} ended with status {hunt.returncode}: that is no verdict {hunt.stdout}"
        )
    return _Caught(mutant, hunt.returncode == CAUGHT, hunt.stdout.strip())


def _hunt(options: SimOptions) -> bool:
    assert options.mutant is not None
    if options.mutant == "all":
        return _hunt_all(options)
    mutant = mutating.find(options.mutant)
    with Console(stderr=True).status(f"building and hunting {mutant.name}"):
        found = _hunt_one(mutant, options.seeds)
    if options.as_json:
        click.echo(json.dumps(found.row()))
    else:
        click.echo(f"{mutant.name} ({mutant.rule}): {'caught' if found.caught else 'NOT CAUGHT'}\n  {found.words}")
    return not found.caught


def _hunt_all(options: SimOptions) -> bool:
    """Whether every single one is caught, unlike the hunt of one, where to be caught is the failure."""
    rows = []
    with _progress(options, len(mutants.MUTANTS)) as step, ThreadPoolExecutor(options.jobs) as pool:
        for found in pool.map(lambda mutant: _hunt_one(mutant, options.seeds), mutants.MUTANTS):
            rows.append(found)
            step(1, sum(row.caught for row in rows))
    seeds = [
        int(row.words.split(" seeds:")[0].replace(",", "")) for row in rows if row.caught and " seeds:" in row.words
    ]
    middle = statistics.median(seeds) if seeds else None
    if options.as_json:
        click.echo(json.dumps({"mutants": [row.row() for row in rows], "median_seeds": middle}))
    else:
        for row in rows:
            click.echo(f"{'caught' if row.caught else 'NOT CAUGHT':10}  {row.mutant.name}: {row.words}")
        click.echo(
            f"{sum(row.caught for row in rows)} of {len(rows)} caught, of those with seeds after {middle} in the median"
        )
    return all(row.caught for row in rows)
