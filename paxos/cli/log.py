"""``paxos log``: what the log of a stopped node holds."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click

from paxos import DamagedLog
from paxos.offline import WITH_INSTANCE, Record, Segment, StoppedNode, System, Value, newest_checkpoint

from .verify import looking, refusing

__all__ = ["LogOptions", "run"]

#: Of a value, in a line of text.
SHOWN: Final = 60


@dataclass(frozen=True)
class LogOptions:
    """What ``paxos log`` was told."""

    directory: Path
    records: bool
    first: int | None
    last: int | None
    types: tuple[str, ...]
    limit: int | None
    instance: int | None
    as_hex: bool
    as_json: bool


def run(options: LogOptions) -> bool:
    """Whether what was asked for is there, and nothing is damaged."""
    with refusing(), StoppedNode(options.directory) as node:
        with looking() as progress:
            try:
                node.read(progress)
            except DamagedLog as error:
                _out(options, {"kind": "damage", "why": str(error)}, f"DAMAGE {error}")
                return False
            if options.instance is None:
                system = node.system(progress)
        if options.instance is not None:
            return _instance(node, options, options.instance)
        if not options.records:
            _overview(node, options, system)
        else:
            _records(node, options)
        return _damage(node, options, system)


def _out(options: LogOptions, fields: dict[str, Any], line: str) -> None:
    click.echo(json.dumps(fields) if options.as_json else line)


# -- the node, its segments


def _overview(node: StoppedNode, options: LogOptions, system: System) -> None:
    found = node.read()
    if found.outcome == "empty":
        _out(options, {"kind": "node", "outcome": "empty"}, f"{node.path}: no segment; the next start makes a new log")
        return
    newest = newest_checkpoint(node)
    fields = {"kind": "node", "outcome": found.outcome, **_fields(system), "checkpoint": newest}
    if options.as_json:
        click.echo(json.dumps(fields))
    else:
        for line in _lines(system, found.outcome, newest):
            click.echo(line)
        click.echo("")
    for segment in node.segments():
        _out(options, {"kind": "segment", **asdict(segment)}, _segment(node, segment))


def _fields(system: System) -> dict[str, Any]:
    fields = asdict(system)
    del fields["contradiction"]
    fields["chain"] = f"{system.chain:08x}"
    fields["promised"] = None if system.promised is None else dict(
        zip(("round", "node", "incarnation"), system.promised, strict=True)
    )  # fmt: skip
    return fields


def _lines(system: System, outcome: str, newest: int | None) -> Iterator[str]:
    yield f"node          {system.node}, incarnation {system.incarnation}, started {system.boot} times"
    yield f"log           {outcome}"
    if system.signature is None:
        yield "formation     none: this node is empty"
        return
    yield f"formation     {'formed' if system.formed else 'not finished'}, signature {system.signature}, alpha {system.alpha}"
    for member in system.first_members:
        yield f"                {_member(member)}"
    yield f"membership    version {system.membership_version}" + (
        "; this incarnation is no member" if system.outsider else ""
    )
    for member in system.members:
        yield f"                {_member(member)}"
    if system.chosen < system.in_force:
        yield (
            f"                in force from instance {system.in_force} on; below it nodes "
            f"{', '.join(map(str, system.before))} vote"
        )
    if system.chosen < system.as_of:
        yield f"                all below instance {system.as_of} are chosen, though this log does not have all of them"
    leases = f"leases of {system.lease_ns / 1e9:g} s" if system.lease_ns else "no leases"
    master = f"node {system.master}, version {system.mastership}; {leases}" if system.master else "none yet"
    yield f"master        {master}"
    promise = "none" if system.promised is None else f"round {system.promised[0]} of node {system.promised[1]}"
    yield f"promise       {promise}"
    yield f"watermark     {system.chosen} instances known chosen, chain checksum {system.chain:08x}"
    yield f"accepted      {system.accepted} instances above it"
    yield f"first kept    {system.first_kept}"
    yield "checkpoint    " + ("none" if newest is None else f"of instance {newest}")


def _member(row: dict[str, Any]) -> str:
    """A row of a table of members. (One that says no incarnation is still to come, and will say it itself.)"""
    told = f"node {row['node']}  {row['incarnation']}  {row['role']}"
    if row.get("address"):
        told += f" at {row['address']}"
    if row.get("since"):
        told += f", votes count from instance {row['since']} on"
    if row.get("instead"):
        told += f", instead of node {row['instead']}"
    return told


def _segment(node: StoppedNode, segment: Segment) -> str:
    if segment.header is None:
        return f"segment {segment.number}  {segment.name}  {segment.size} bytes: the header does not verify"
    header = segment.header
    durable = node.place(header["durable"])
    return (
        f"segment {segment.number}  {segment.name}  {segment.used} of {segment.size} bytes in use, {segment.writes} writes, "
        f"{segment.records} records; header: durable {durable[0]}:{durable[1]}, oldest {header['oldest']}"
    )


def _damage(node: StoppedNode, options: LogOptions, system: System) -> bool:
    found = node.read()
    where, why = found.where, found.why
    if where is None and (record := system.contradiction) is not None:
        where = node.place(record.position)
        why = f"the record here ({record.type}, instance {record.instance}) does not fit what came before it"
    if where is None:
        return True
    name = node.name_of(where[0])
    fields = {"kind": "damage", "segment": where[0], "name": name, "offset": where[1], "why": why}
    _out(options, fields, f"\nDAMAGE log/{name}, offset {where[1]}: {why}. What is shown stands before it")
    return False


# -- records


def _wanted(options: LogOptions, record: Record) -> bool:
    if options.types and record.type not in options.types:
        return False
    if options.first is None and options.last is None:
        return True
    if record.type not in WITH_INSTANCE:
        return False
    return (options.first or 0) <= record.instance and (options.last is None or record.instance <= options.last)


def _records(node: StoppedNode, options: LogOptions) -> None:
    left = options.limit
    if options.types == ("write",):
        _writes(node, options)
        return
    for record in node.records():
        if left == 0:
            return
        if not _wanted(options, record):
            continue
        left = None if left is None else left - 1
        segment, offset = node.place(record.position)
        told = record.fields()
        fields: dict[str, Any] = {"kind": "record", "segment": segment, "offset": offset, "type": record.type,
                                  "group": record.group}  # fmt: skip
        about = ""
        if record.type in WITH_INSTANCE:
            fields["instance"] = record.instance
            about = f" {record.instance}"
        words = " ".join(f"{name}={_word(what)}" for name, what in told.items())
        _out(options, fields | {"body": told}, f"{segment}:{offset}  {record.type}{about}  {words}")


def _writes(node: StoppedNode, options: LogOptions) -> None:
    left = options.limit
    for number in node.numbers():
        for write in node.writes(number):
            if left == 0:
                return
            left = None if left is None else left - 1
            told = asdict(write)
            line = f"{number}:{write.offset}  write  boot={write.boot} length={write.length} records={write.records}"
            line += " ends the segment" if write.ends else ""
            _out(options, {"kind": "record", "type": "write", "segment": number} | told, line)


def _word(what: object) -> str:
    if isinstance(what, list):
        return ",".join(str(row["node"]) if isinstance(row, dict) else str(row) for row in what)
    return str(what)


# -- one instance


def _instance(node: StoppedNode, options: LogOptions, instance: int) -> bool:
    system = node.system()
    places = node.values(instance)
    state = "chosen" if instance < system.chosen else "accepted, not known chosen"
    if not places:
        why = "nothing of it is in the log"
        if instance < system.first_kept:
            why = f"the log begins at instance {system.first_kept}; what is below is in a checkpoint"
        elif instance >= system.chosen:
            why = f"{system.chosen} instances are known chosen, and nothing of it was accepted here"
        told = {"kind": "instance", "instance": instance, "state": None, "why": why}
        _out(options, told, f"instance {instance}: {why}")
        return False
    for count, place in enumerate(places):
        told = place.record.fields()
        value = place.record.value
        this = state if count == 0 else "an older one"
        values = [] if value is None else list(value.values())
        fields = {"kind": "instance", "instance": instance, "state": this, "type": place.record.type,
                  "segment": place.segment, "offset": place.offset, "body": told,
                  "value": [{"node": node_, "machine": id_, "hex": data.hex()} for node_, id_, data in values]}  # fmt: skip
        change = _change(value) if value is not None and value.kind == "change" else None
        if change is not None:
            fields["change"] = change
        if value is not None and value.kind == "master":
            fields["master"] = value.master()
        if options.as_json:
            click.echo(json.dumps(fields))
            continue
        where = f"log/{node.name_of(place.segment)}, offset {place.offset}"
        click.echo(f"instance {instance}: {this}; {place.record.type} at {where}")
        click.echo("  " + " ".join(f"{name}={_word(what)}" for name, what in told.items()))
        if change is not None and "members" in change:
            click.echo(f"  changes version {change['version']} of the membership into")
            for member in change["members"]:
                click.echo(f"    {_member(member)}")
        elif change is not None:
            click.echo(f"  {change}")
        if "master" in fields:
            click.echo(f"  {fields['master']}")
        for origin, machine, data in values:
            shown = data.hex() if options.as_hex else _printable(data)
            click.echo(f"  value of node {origin}, state machine {machine}, {len(data)} bytes: {shown}")
    return True


def _change(value: Value) -> dict[str, Any]:
    """What members there are to be. What they were before does not stand in a change."""
    try:
        told = value.change()
    except (ValueError, struct.error):
        return {"malformed": len(value.data)}
    for row in told["members"]:
        del row["since"]  # nothing goes by what a change says there
    return told


def _printable(data: bytes) -> str:
    text = data[:SHOWN].decode("ascii", "backslashreplace")
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return text + (" …" if len(data) > SHOWN else "")
