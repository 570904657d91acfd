"""``paxos serve``: one node of the key-value service in this process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import paxos
from paxos.kv import KvServer, KvStateMachine

logger = logging.getLogger("paxos.serve")

#: Seconds between two looks at the node, and without a master before that is said.
_WATCH_PERIOD: Final = 1.0
_LONELY: Final = 3.0


@dataclass(frozen=True)
class ServeOptions:
    """What ``paxos serve`` was told."""

    node_id: int
    cluster: dict[int, str]
    bind: str | None
    data: Path
    resp: tuple[str, int]
    timeout: float
    window: int
    reads: paxos.Consistency
    lease: float
    until_stdin_ends: bool
    end_when_removed: bool = True
    follow: tuple[int, ...] = ()


def listen(address: tuple[str, int], option: str) -> socket.socket:
    """A socket bound to ``address``. Raises :class:`paxos.ConfigError` with a line that says what to do."""
    host, port = address
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise paxos.ConfigError(f"{option} {host}:{port}: {error.strerror}; give the host's address instead") from None
    family, kind, protocol, _, where = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        # Two sockets may be bound with SO_REUSEADDR; only one may listen, so this is what finds the port in use.
        sock.listen(1024)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise paxos.ConfigError(listen_problem(error, f"{option} {host}:{port}")) from None
    return sock


def listen_problem(error: OSError, what: str) -> str:
    """One line for an address that cannot be listened on."""
    if error.errno == errno.EADDRINUSE:
        return f"{what}: the port is in use; stop the process that has it, or give another port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{what}: the address is not one of this machine"
    if error.errno == errno.EACCES:
        return f"{what}: no permission for this port; take one above 1023"
    return f"{what}: cannot listen: {error.strerror}"


async def serve(options: ServeOptions) -> None:
    """Run until SIGTERM, SIGINT, the removal of this node, or, if asked for, the end of stdin.

    Raises what keeps the node from starting.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.until_stdin_ends:
        _watch_stdin(loop, stop)

    def on_alarm(alarm: paxos.Alarm) -> None:
        if alarm.kind == "removed" and options.end_when_removed:
            print(f"paxos: node {options.node_id} has been removed from the cluster, and ends", flush=True)
            stop.set()

    # Bound first: a port in use is told before anything is done to the data directory.
    sock = listen(options.resp, "--resp")
    try:
        try:
            node = await paxos.Node.open(
                options.data,
                node_id=options.node_id,
                cluster=options.cluster,
                bind=options.bind,
                state_machine=KvStateMachine,
                window=options.window,
                follow=options.follow,
                on_alarm=on_alarm,
            )
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                own = (
                    f"--bind {options.bind}"
                    if options.bind
                    else f"--cluster {options.node_id}={options.cluster[options.node_id]}"
                )
                raise paxos.ConfigError(listen_problem(error, own)) from None
            raise
        try:
            await _serve(node, options, sock, stop)
        finally:
            await node.close()
    finally:
        sock.close()


async def _serve(node: paxos.Node, options: ServeOptions, sock: socket.socket, stop: asyncio.Event) -> None:
    server = KvServer(node, timeout=options.timeout, reads=options.reads)
    await server.start(sock=sock)
    watcher = asyncio.create_task(_watch(node, options))
    leases = asyncio.create_task(_set_lease(node, options.lease)) if options.reads == "lease" else None
    try:
        host, port = options.resp
        shown = f"-h {host} " if host not in ("127.0.0.1", "0.0.0.0", "localhost") else ""
        print(
            f"paxos: node {options.node_id} is ready for Redis clients on {host}:{port} (redis-cli {shown}-p {port}), "
            f"log writes: {node.status().log_mode}, data: {options.data}",
            flush=True,
        )
        await stop.wait()
        logger.info("stopping")
    finally:
        for task in (watcher, leases):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await server.close()


async def _set_lease(node: paxos.Node, seconds: float) -> None:
    """Has the length of leases chosen whenever this node becomes the master and it is another one."""
    async for master in node.masters():
        if master is not None and master.node_id == node.status().node_id and node.status().lease != seconds:
            try:
                await node.set_lease(seconds)
            except paxos.PaxosError as error:
                logger.warning("the length of leases was not set: %s", error)


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when stdin ends: whoever started this node is gone, however it ended."""
    descriptor = sys.stdin.fileno()

    def readable() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            stop.set()

    loop.add_reader(descriptor, readable)


async def _watch(node: paxos.Node, options: ServeOptions) -> None:
    """Say what an operator must know: that there is no master and why, that applying has stopped.

    Who is master, and each link, is logged by the node itself.
    """
    loop = asyncio.get_running_loop()
    failed = False
    since = loop.time()
    patience = _LONELY
    while True:
        status = node.status()
        if status.master_id:
            since = loop.time()
            patience = _LONELY
        elif loop.time() - since > patience:
            down = [f"{peer} ({options.cluster.get(peer, '?')})" for peer, up in sorted(status.peers.items()) if not up]
            if down:
                text = (
                    "no master; no connection to node %s: it does not run, --cluster has a wrong address, "
                    "or it refuses this node (then that is said above)"
                )
                logger.warning(text, ", ".join(down))
            else:
                logger.warning("no master, although all nodes can be reached")
            # Said again, but ever more seldom.
            patience = (loop.time() - since) * 2
        if status.state_machine_error and not failed:
            failed = True
            logger.error("the state machine has failed, this node applies no more: %s", status.state_machine_error)
        await asyncio.sleep(_WATCH_PERIOD)
