"""``paxos members`` and ``paxos member``: the members of a running cluster, shown and changed through one of its nodes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final

import click

from .checkpoint import ANSWERS_WITHIN, NodeRefused, Unreachable, ask, connect
from .resp_client import ReplyError, RespClient

__all__ = ["MembersOptions", "run"]

#: Seconds that the answer of the node may take longer than it was told to take.
GRACE: Final = 5.0


@dataclass(frozen=True)
class MembersOptions:
    """What was told. ``words``: those of ``PAXOS.MEMBER``; empty: the members are only shown."""

    address: tuple[str, int]
    words: tuple[str, ...]
    timeout: float
    as_json: bool


async def run(options: MembersOptions) -> None:
    """Prints the members, behind the change if one was asked for. Raises the errors of :mod:`paxos.cli.checkpoint`."""
    host, port = options.address
    where = f"{host}:{port}"
    client = await connect(host, port, where)
    try:
        fields = await ask(client, where, "paxos_members_version", "which cannot change its members")
        told = await _call(client, where, options)
    finally:
        client.close()
    if options.as_json:
        click.echo(json.dumps(told))
        return
    for line in _lines(told, int(fields["paxos_node_id"]), options.words):
        click.echo(line)


async def _call(client: RespClient, where: str, options: MembersOptions) -> dict[str, Any]:
    try:
        if not options.words:
            return _plain(await client.call("PAXOS.MEMBERS", timeout=ANSWERS_WITHIN))
        words = ("PAXOS.MEMBER", *options.words, "TIMEOUT", f"{options.timeout:g}")
        return _plain(await client.call(*words, timeout=options.timeout + GRACE))
    except TimeoutError:
        raise Unreachable(f"{where}: no answer in time{_open(options)}") from None
    except ReplyError as error:
        raise NodeRefused(f"{where}: {_words(error)}") from error
    except ConnectionError as error:
        raise Unreachable(f"{where}: {error} before it has answered{_open(options)}") from error
    except asyncio.CancelledError:
        if options.words:
            click.echo("not waited for any more. " + _MAYBE, err=True)
        raise


_MAYBE: Final = "What was asked for may yet come about"


def _open(options: MembersOptions) -> str:
    """What is left open by an answer that did not come."""
    return f". {_MAYBE}: see paxos members" if options.words else ""


def _words(error: ReplyError) -> str:
    """What a node says, without the code before it: the words tell as much."""
    code, _, words = str(error).partition(" ")
    return words if code in ("ERR", "UNAVAILABLE", "UNKNOWN") else str(error)


def _plain(reply: list[Any]) -> dict[str, Any]:
    """The reply, a flat row of keys and values."""
    told = _pairs(reply)
    told["pending"] = bool(told["pending"])
    told["members"] = [_pairs(row) for row in told["members"]]
    return told


def _pairs(row: list[Any]) -> dict[str, Any]:
    values = [value.decode() if isinstance(value, bytes) else value for value in row]
    return dict(zip(values[::2], values[1::2], strict=True))


def _lines(told: dict[str, Any], node: int, words: tuple[str, ...]) -> list[str]:
    rows = [("node", "role", "address", "data directory")]
    for member in told["members"]:
        role = member["role"] if member["replaces"] is None else f"{member['role']}, for {member['replaces']}"
        known = member["incarnation"][:8] or "not come yet"
        rows.append((str(member["node_id"]), role, member["address"] or "as in --cluster", known))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) for row in rows]
    pending = "; a change of who votes is not in force yet" if told["pending"] else ""
    head = f"members, version {told['version']}, as node {node} knows them{pending}"
    if not told["members"]:
        return [f"node {node} has met no cluster yet"]
    return [head, *lines, *_advice(told, words)]


def _advice(told: dict[str, Any], words: tuple[str, ...]) -> list[str]:
    """What to do next, where a node is to come."""
    if not words or words[0] not in ("ADD", "REPLACE"):
        return []
    new = int(words[2] if words[0] == "REPLACE" else words[1])
    if not any(member["node_id"] == new and not member["incarnation"] for member in told["members"]):
        return []
    there = ",".join(f"{member['node_id']}={member['address']}" for member in told["members"] if member["address"])
    return [
        f"now start node {new}, with an empty directory: paxos serve --id {new} --cluster {there} --data … --resp …"
    ]
