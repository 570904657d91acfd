"""``paxos verify``: every byte of a stopped node's directory."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from paxos import ConfigError, DirectoryInUse
from paxos.offline import Finding, Report, verify

__all__ = ["looking", "refusing", "run"]


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """What keeps the directory from being looked at is told as wrong usage: it says nothing about what is in there."""
    try:
        yield
    except (ConfigError, DirectoryInUse) as error:
        raise click.UsageError(str(error), click.get_current_context()) from error
    except OSError as error:
        raise click.UsageError(f"{error.filename}: {error.strerror}", click.get_current_context()) from error


class _Looking:
    """A bar for each thing that is done, on stderr."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks = {task.description: task.id for task in progress.tasks}

    def __call__(self, what: str, done: int, of: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=None)
        self._progress.update(self._tasks[what], completed=done, total=of)


@contextlib.contextmanager
def looking() -> Iterator[_Looking]:
    """Shows how far it is, where stderr is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield _Looking(progress)


def run(directory: Path, as_json: bool) -> bool:
    """Whether nothing is damaged."""
    with refusing(), looking() as progress:
        report = verify(directory, progress)
    if as_json:
        click.echo(json.dumps({"good": report.good, "bytes": report.bytes, **asdict(report)}))
    else:
        _print(report)
    return report.good


def _print(report: Report) -> None:
    whose = "a new node" if report.node is None else f"node {report.node}"
    if report.members is not None:
        whose += f" of {report.members}"
    click.echo(f"{report.directory}: {whose}")
    width = max((len(file.path) for file in report.files), default=0)
    for file in report.files:
        click.echo(f"  {file.path:{width}}  {file.state:12}  {file.bytes:>12,} bytes  {file.what}")
    for finding in report.findings:
        _tell(finding)
    counts = f"{report.bytes:,} bytes, {report.records:,} records, {len(report.checkpoints)} checkpoints that verify"
    damaged = sum(finding.level == "damage" for finding in report.findings)
    click.echo(f"\n{'good' if report.good else f'DAMAGED in {damaged} places'}: {counts}")


def _tell(finding: Finding) -> None:
    where = finding.path + (f", offset {finding.offset}" if finding.offset is not None else "")
    click.echo(f"\n{finding.level.upper()} {where}: {finding.what}")
    click.echo(f"  what the next start makes of it: {finding.meaning}")
    if finding.way_out:
        click.echo(f"  what to do: {finding.way_out}")
