"""Kinds of option values: addresses and clusters."""

from __future__ import annotations

import click

from paxos import ConfigError, parse_address
from paxos.config import MAX_ID


def parse_cluster(text: str) -> dict[int, str]:
    """``1=HOST:PORT,2=HOST:PORT,…``. Raises :class:`paxos.ConfigError`."""
    cluster: dict[int, str] = {}
    for item in text.split(","):
        number, equals, address = item.strip().partition("=")
        if not equals or not (number.isascii() and number.isdigit()) or not 1 <= int(number) <= MAX_ID:
            raise ConfigError(
                f"'{item.strip()}' is not ID=HOST:PORT (IDs from 1 to {MAX_ID}), for example 1=127.0.0.1:7101"
            )
        parse_address(address)
        if int(number) in cluster:
            raise ConfigError(f"node {int(number)} is named twice")
        if address.strip() in cluster.values():
            raise ConfigError(f"address {address.strip()} is named twice")
        cluster[int(number)] = address.strip()
    return cluster


def address_option(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, int]:
    """The callback of an option with an address."""
    try:
        return parse_address(value)
    except ConfigError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def bind_option(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The callback of an option with an address that may be missing, and stays text."""
    if value is not None:
        address_option(ctx, param, value)
    return value


def cluster_option(ctx: click.Context, param: click.Parameter, value: str) -> dict[int, str]:
    """The callback of an option with a cluster."""
    try:
        return parse_cluster(value)
    except ConfigError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def nodes_option(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """The callback of an option with node ids, commas between them."""
    if value is None:
        return ()
    parts = value.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise click.BadParameter(f"{value!r}: give node ids with commas between them, as in 2,3", ctx, param)
    return tuple(int(part) for part in parts)
