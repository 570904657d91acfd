"""Child processes that end with us: the nodes of ``paxos demo``."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

#: Seconds a node gets to stop by itself.
_GRACE: Final = 5.0


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now. All are held until all are found, so they differ."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            ports.append(int(sock.getsockname()[1]))
        return ports


class NodeProcess:
    """One ``paxos serve`` in a process of its own, that can be killed and started again."""

    def __init__(self, node_id: int, cluster: dict[int, str], resp_port: int, directory: Path) -> None:
        self.node_id = node_id
        self.resp_port = resp_port
        self.data = directory / str(node_id)
        self.log = directory / f"{node_id}.log"
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process. Raises ``RuntimeError`` before the first start."""
        if self._process is None:
            raise RuntimeError(f"node {self.node_id} has not been started")
        return self._process.pid

    @property
    def started(self) -> bool:
        """It has been started at least once."""
        return self._process is not None

    @property
    def running(self) -> bool:
        """It has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self, detached: bool) -> None:
        """Start it. ``detached``: it goes on when we end; otherwise it ends when its stdin does."""
        command = [
            *(sys.executable, "-m", "paxos", "serve"),
            *("--id", str(self.node_id)),
            *("--cluster", ",".join(f"{number}={address}" for number, address in self._cluster.items())),
            *("--data", str(self.data)),
            *("--resp", f"127.0.0.1:{self.resp_port}"),
        ]
        self.reap()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command if detached else [*command, "--until-stdin-ends"],
                stdin=subprocess.DEVNULL if detached else subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal is for us: we end the nodes.
                start_new_session=True,
            )

    def kill(self) -> None:
        """``kill -9``, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self.reap()

    def terminate(self) -> None:
        """Ask it to stop."""
        if self.running and self._process is not None:
            self._process.terminate()

    def reap(self) -> None:
        """Wait for it and let go of its pipe."""
        if self._process is not None:
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()

    def tail(self, lines: int = 3) -> str:
        """The last lines that it logged."""
        try:
            text = self.log.read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


async def stop_all(nodes: Iterable[NodeProcess]) -> None:
    """End all of them: politely first, with SIGKILL after a while."""
    nodes = list(nodes)
    for node in nodes:
        node.terminate()
    deadline = asyncio.get_running_loop().time() + _GRACE
    try:
        while any(node.running for node in nodes) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
    finally:
        # Also when we are interrupted a second time.
        for node in nodes:
            node.kill()
