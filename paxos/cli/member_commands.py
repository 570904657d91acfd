"""The commands ``paxos members`` and ``paxos member …`` and their options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from paxos import ConfigError, parse_address
from paxos.config import MAX_ID

from .params import address_option

__all__ = ["member", "members", "node_id"]

F = TypeVar("F", bound=Callable[..., Any])

node_id = click.IntRange(1, MAX_ID)


def _address(ctx: click.Context, param: click.Parameter, value: str) -> str:
    try:
        parse_address(value)
    except ConfigError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    return value


def _at(command: F) -> F:
    return click.option(
        "--at", metavar="HOST:PORT", callback=address_option, required=True, help="A running node: its --resp."
    )(command)


def _how(command: F) -> F:
    command = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")(command)
    command = click.option(
        "--timeout", type=click.FloatRange(0.001, 86400), default=30.0, show_default=True,
        help="Seconds until it must have come about.",
    )(command)  # fmt: skip
    return _at(command)


def _run(at: tuple[str, int], words: tuple[str, ...], timeout: float, as_json: bool) -> None:
    from . import loops
    from . import members as module

    loops.run(module.run(module.MembersOptions(at, words, timeout, as_json)))


@click.command(
    epilog="""\b
Examples:
  paxos members --at 10.0.0.1:6379
  paxos members --at 10.0.0.1:6379 --json | jq '.members[].node_id'
"""
)
@_at
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")
def members(at: tuple[str, int], as_json: bool) -> None:
    """Show the members of a cluster, as a running node of the key-value service knows them.

    A voter votes; a learner becomes a voter as soon as it is level; a follower learns, and stays without a vote; who is leaving
    votes until its removal is in force.
    """
    _run(at, (), 0.0, as_json)


@click.group(
    epilog="""\b
Examples:
  paxos member add 4 10.0.0.4:7101 --at 10.0.0.1:6379
  paxos member replace 2 5 10.0.0.5:7101 --at 10.0.0.1:6379      # of node 2 the machine is lost
  paxos member remove 1 --at 10.0.0.3:6379
  paxos member add 6 10.0.0.6:7101 --follower --at 10.0.0.1:6379
  paxos member promote 6 --at 10.0.0.1:6379
  paxos member move 4 10.0.1.4:7101 --at 10.0.0.1:6379
"""
)
def member() -> None:
    """Change the members of a running cluster, through any of its nodes.

    A change may be asked for again: what is there already succeeds. See docs/operations.md, Members.
    """


@member.command(
    epilog="""\b
Examples:
  paxos member add 4 10.0.0.4:7101 --at 10.0.0.1:6379
  paxos member add 6 10.0.0.6:7101 --follower --at 10.0.0.1:6379
"""
)
@click.argument("id_", metavar="ID", type=node_id)
@click.argument("address", metavar="HOST:PORT", callback=_address)
@click.option("--follower", is_flag=True, help="It is to learn, and to stay without a vote.")
@_how
def add(id_: int, address: str, follower: bool, at: tuple[str, int], timeout: float, as_json: bool) -> None:
    """Take a node in. HOST:PORT is where the other nodes find it.

    Start it before or after, with an empty directory. It gets everything, and has a vote as soon as it is level.
    """
    _run(at, ("ADD", str(id_), address, *(["FOLLOWER"] if follower else [])), timeout, as_json)


@member.command(
    epilog="""\b
Examples:
  paxos member remove 1 --at 10.0.0.3:6379
  paxos member remove 1 --force --at 10.0.0.3:6379     # even if no majority of the others is there
"""
)
@click.argument("id_", metavar="ID", type=node_id)
@click.option("--force", is_flag=True,
              help="Even if a majority of those who are left to vote is not connected: if it does not come back, nothing can be "
              "chosen any more.")  # fmt: skip
@_how
def remove(id_: int, force: bool, at: tuple[str, int], timeout: float, as_json: bool) -> None:
    """Remove a member, and wait until that is in force. The master hands over first."""
    _run(at, ("REMOVE", str(id_), *(["FORCE"] if force else [])), timeout, as_json)


@member.command(
    epilog="""\b
Example:
  paxos member replace 2 5 10.0.0.5:7101 --at 10.0.0.1:6379
"""
)
@click.argument("old", metavar="OLD", type=node_id)
@click.argument("new", metavar="NEW", type=node_id)
@click.argument("address", metavar="HOST:PORT", callback=_address)
@_how
def replace(old: int, new: int, address: str, at: tuple[str, int], timeout: float, as_json: bool) -> None:
    """Have a new node come in the place of a voter, dead or alive.

    Ends when NEW has been taken in. Start it, with an empty directory: as soon as it is level it has the vote, and OLD is
    removed.
    """
    _run(at, ("REPLACE", str(old), str(new), address), timeout, as_json)


@member.command(
    epilog="""\b
Example:
  paxos member promote 6 --at 10.0.0.1:6379
"""
)
@click.argument("id_", metavar="ID", type=node_id)
@_how
def promote(id_: int, at: tuple[str, int], timeout: float, as_json: bool) -> None:
    """Have a follower become a voter, as soon as it is level."""
    _run(at, ("PROMOTE", str(id_)), timeout, as_json)


@member.command(
    epilog="""\b
Example:
  paxos member move 4 10.0.1.4:7101 --at 10.0.0.1:6379
"""
)
@click.argument("id_", metavar="ID", type=node_id)
@click.argument("address", metavar="HOST:PORT", callback=_address)
@_how
def move(id_: int, address: str, at: tuple[str, int], timeout: float, as_json: bool) -> None:
    """Give a member another address. The node itself has to listen there."""
    _run(at, ("MOVE", str(id_), address), timeout, as_json)
