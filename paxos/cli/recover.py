"""``paxos recover``: a new cluster out of what is left of one that lost its majority for good."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from paxos.offline import Found, NewCluster, Recovery, RecoveryReport, check_place, make_cluster

from .verify import looking, refusing

__all__ = ["RecoverOptions", "parse_nodes", "run"]

#: Of a list of instances, in text.
SHOWN = 20


@dataclass(frozen=True)
class RecoverOptions:
    """What ``paxos recover`` was told."""

    directories: tuple[Path, ...]
    to: Path | None
    nodes: tuple[int, ...]
    make: bool
    yes: bool
    quarantined: bool
    accept_loss: bool
    as_json: bool


def parse_nodes(text: str) -> tuple[int, ...]:
    """``1,2,3``. Raises ValueError."""
    items = [item.strip() for item in text.split(",")]
    if not all(item.isascii() and item.isdigit() and int(item) for item in items):
        raise ValueError(f"'{text}' is not a list of node ids, for example 1,2,3")
    return tuple(map(int, items))


def run(options: RecoverOptions) -> None:
    """Looks, tells, and makes the new cluster if that was asked for and is confirmed."""
    with refusing(), ExitStack() as stack:
        # The bars end before anybody is asked; the directories are held until all is done.
        with looking() as progress:
            recovery = stack.enter_context(
                Recovery(options.directories, quarantined=options.quarantined, progress=progress)
            )
        report = recovery.report
        nodes = options.nodes or tuple(report.voters)
        if options.to is not None:
            check_place(recovery, options.to, nodes)
        if not options.as_json:
            for line in _lines(report):
                click.echo(line)
        made: NewCluster | None = None
        if options.make and options.to is not None:
            if not options.yes:
                _confirm(report, nodes, options.to)
            with looking() as progress:
                made = make_cluster(recovery, options.to, nodes, accept_loss=options.accept_loss, progress=progress)
        if options.as_json:
            click.echo(json.dumps({**asdict(report), "lost": report.lost, "made": made and asdict(made)}))
        elif made is not None:
            for line in _made(made, nodes):
                click.echo(line)
        else:
            click.echo(
                "\nNothing was changed or made. To make the new cluster: --new-cluster --to DIR, DIR being a new "
                "directory"
            )


def _confirm(report: RecoveryReport, nodes: tuple[int, ...], to: Path) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is here to be asked whether to go on: look at the report, then add --yes",
                               click.get_current_context())  # fmt: skip
    what = "What may be lost is said above. " if report.may_be_lost_from is not None else ""
    click.confirm(
        f"\n{what}Are the nodes that are missing gone for good, and is no node of the old cluster ever to be started again?\n"
        f"Make a new cluster of nodes {', '.join(map(str, nodes))} in {to}?", abort=True, err=True,
    )  # fmt: skip


# -- the report, for people


def _lines(report: RecoveryReport) -> Iterator[str]:
    voters = "" if len(report.voters) == len(report.members) else f", {len(report.voters)} of them voters"
    yield f"cluster       signature {report.signature}, {len(report.members)} members{voters}, a majority is {report.quorum}"
    for member in report.members:
        role = "" if member.role == "voter" else f"{member.role}; "
        yield f"  node {member.node:<7} {role}{'LOST: ' + member.why if member.lost else 'here, and undamaged'}"
    for electorate in report.electorates[1:]:
        yield f"  {electorate.when}: nodes {', '.join(map(str, electorate.nodes))} vote, a majority is {electorate.quorum}"
    yield "logs"
    for source in report.sources:
        # A log of which nothing is legible does not tell whose it is.
        whose = f"node {source.node}" if source.node else "nobody's"
        what = f"{source.chosen} instances known chosen, {source.accepted} accepted above them"
        extra = f"; checkpoints {', '.join(map(str, source.checkpoints))}" if source.checkpoints else ""
        yield f"  {source.path}: {whose}, {source.state}; {what}{extra}" + (f"\n    {source.why}" if source.why else "")
    for text in report.damaged_checkpoints:
        yield f"  DAMAGED, not used: {text}"
    yield ""
    begin = "the logs, which begin at instance 0"
    if report.checkpoint_from is not None:
        begin = f"checkpoint {report.checkpoint} in {report.checkpoint_from}, and logs from there on"
    yield f"built from    {begin}"
    yield f"kept          {_range(0, report.certain)}: certain, as they were chosen"
    if report.unknown:
        yield f"kept          {_range(report.certain, report.kept)}: were accepted; whether they were chosen nobody here can tell"
        yield from _instances(report.unknown)
    if report.dropped:
        yield (
            f"NOT KEPT      {len(report.dropped)} instances that were accepted: they stand behind instance "
            f"{report.kept}, of which nothing was found"
        )
        yield from _instances(report.dropped)
    yield from _losses(report)


def _losses(report: RecoveryReport) -> Iterator[str]:
    if report.certainly_lost is not None:
        first, end = report.certainly_lost
        yield f"LOST          {_range(first, end)}: were chosen, and their values are in none of these directories"
    alone = next((electorate for electorate in report.electorates if electorate.lost_majority), None)
    if report.may_be_lost_from is None:
        yield "may be lost   nothing that was acknowledged: a majority without one of the logs here cannot have chosen anything"
    elif alone is None:
        yield f"may be lost   everything from instance {report.kept} on"
    else:
        lost = ", ".join(map(str, alone.lost))
        yield (
            f"MAY BE LOST   any instance from {report.certain} on, without an upper bound: nodes {lost} are a majority "
            f"by themselves{' ' + alone.when if alone.when else ''}, and what they chose with nobody else's help nobody "
            "here has seen"
        )


def _range(first: int, end: int) -> str:
    if first == end:
        return "no instance"
    return f"instance {first}" if end == first + 1 else f"instances {first} to {end - 1}"


def _instances(found: list[Found]) -> Iterator[str]:
    for one in found[:SHOWN]:
        nodes = ", ".join(map(str, one.nodes))
        yield (
            f"                {one.instance}: {one.kind} of {one.values} values, {one.bytes} bytes, ballot "
            f"{one.round}.{one.proposer}, "
            f"accepted by {nodes}"
        )
    if len(found) > SHOWN:
        yield f"                … and {len(found) - SHOWN} more: --json lists all"


def _made(made: NewCluster, nodes: tuple[int, ...]) -> Iterator[str]:
    yield f"\nA new cluster was made, signature {made.signature}, {made.chosen} instances, chain checksum {made.chain:08x}:"
    for node, path in made.directories.items():
        yield f"  node {node:<7} {path}"
    yield (
        "Move each directory to its machine, never copy one twice, and start each node with its id and all "
        f"{len(nodes)} addresses.\nSet the old directories aside. A node of the old cluster that is started all the same "
        "is refused by the new ones;\ntogether old nodes could still serve clients that reach them."
    )
