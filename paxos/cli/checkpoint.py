"""``paxos checkpoint``: has a running node of the key-value service make a checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import click
import hiredis

from paxos import PaxosError

from .resp_client import ReplyError, RespClient

__all__ = ["CheckpointOptions", "NodeRefused", "NotANode", "Unreachable", "ask", "connect", "run"]

#: Seconds for connecting, and until whoever listens has said what it is.
ANSWERS_WITHIN: Final = 10.0


class Unreachable(PaxosError):
    """Nobody listens there, or nobody answers."""


class NotANode(PaxosError):
    """Whoever listens there is no node of the key-value service."""


class NodeRefused(PaxosError):
    """The node has not done it. The message is its own."""


@dataclass(frozen=True)
class CheckpointOptions:
    """What ``paxos checkpoint`` was told."""

    address: tuple[str, int]
    timeout: float
    as_json: bool


async def run(options: CheckpointOptions) -> None:
    """Prints what the checkpoint holds. Raises the errors above."""
    host, port = options.address
    where = f"{host}:{port}"
    client = await connect(host, port, where)
    try:
        before = await ask(client, where, "paxos_checkpoint", "which makes no checkpoints when asked")
        instance = await _make(client, where, options.timeout)
        after = await client.info(ANSWERS_WITHIN)
    finally:
        client.close()
    node = int(before["paxos_node_id"])
    told = {"node": node, "checkpoint": instance, "before": int(before["paxos_checkpoint"]),
            "first_kept": int(after["paxos_first_kept"]), "log_segments": int(after["paxos_log_segments"])}  # fmt: skip
    if options.as_json:
        click.echo(json.dumps(told))
    elif told["before"] == instance:
        click.echo(f"node {node}: the newest checkpoint holds all {instance} instances already")
    else:
        click.echo(f"node {node}: a checkpoint of {instance} instances is durable, and was read again")


async def connect(host: str, port: int, where: str) -> RespClient:
    """A connection to the node there. Raises Unreachable."""
    try:
        return await RespClient.connect(port, host)
    except OSError as error:
        why = error.strerror or str(error)
        raise Unreachable(
            f"{where}: {why}. Name the address that a running node was given with --resp, not one of --cluster"
        ) from error


async def ask(client: RespClient, where: str, field: str, otherwise: str) -> dict[str, str]:
    """The fields of ``INFO paxos`` of a node that has this one among them; ``otherwise``: what it is if it has not."""
    try:
        fields = await client.info(ANSWERS_WITHIN)
    except TimeoutError:
        raise NotANode(
            f"{where}: no answer to INFO within {ANSWERS_WITHIN:g} s: it is no node of the key-value service, or stands still"
        ) from None
    except (ReplyError, ConnectionError, hiredis.ProtocolError, AttributeError, UnicodeDecodeError) as error:
        raise NotANode(f"{where}: what listens there is no node of the key-value service ({error})") from error
    if "paxos_node_id" not in fields:
        raise NotANode(f"{where}: what listens there is a Redis server, but no node of the key-value service")
    if field not in fields:
        raise NotANode(f"{where}: the node there is of an older version, {otherwise}")
    return fields


async def _make(client: RespClient, where: str, timeout: float) -> int:
    try:
        return int(await client.call("PAXOS.CHECKPOINT", timeout=timeout))
    except TimeoutError:
        raise Unreachable(
            f"{where}: no checkpoint within {timeout:g} s; the node may still be making it: see paxos_checkpoint in INFO paxos"
        ) from None
    except ReplyError as error:
        raise NodeRefused(f"{where}: {error}") from error
    except ConnectionError as error:
        raise Unreachable(f"{where}: {error} before the checkpoint was made; see that the node runs") from error
