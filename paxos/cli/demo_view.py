"""What the demonstration shows while it runs: a live table on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text


class View:
    """``live``: a table that is drawn again and again. ``silent``: nothing at all."""

    def __init__(self, live: bool, silent: bool) -> None:
        self._silent = silent
        self._console = Console(highlight=False, soft_wrap=not live)
        self._live = Live(console=self._console, auto_refresh=False) if live else None
        self._began = time.monotonic()
        self._said: list[str] = []
        self._before: tuple[float, dict[int, dict[str, str]]] = (0.0, {})
        self._rates: dict[int, tuple[float, float]] = {}

    def __enter__(self) -> View:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """A step that has been reached."""
        if self._silent:
            return
        line = f"{time.monotonic() - self._began:5.1f} s  {text}"
        self._said.append(line)
        if self._live is None:
            print(line, flush=True)

    def update(self, status: dict[int, dict[str, str]], acknowledged: int) -> None:
        """The nodes as they are now; a node without an entry is down."""
        if self._live is None:
            return
        now = time.monotonic()
        then, before = self._before
        if now - then >= 0.5:
            self._rates = {
                number: (
                    _rate(fields, before.get(number), "paxos_commits", now - then),
                    _rate(fields, before.get(number), "paxos_log_writes", now - then),
                )
                for number, fields in status.items()
            }
            self._before = (now, dict(status))
        total = Text(f"         {acknowledged:,} writes acknowledged", style="bold")
        self._live.update(Group(self._table(status), Text("\n".join(self._said)), total), refresh=True)

    def _table(self, status: dict[int, dict[str, str]]) -> Table:
        table = Table(title="paxos demo")
        for name in ("node", "role", "master", "chosen", "applied", "commits/s", "log writes/s"):
            table.add_column(name, justify="left" if name == "role" else "right", no_wrap=True)
        for number in range(1, 4):
            fields = status.get(number)
            if fields is None:
                table.add_row(str(number), "down", *[""] * 5, style="red")
                continue
            commits, writes = self._rates.get(number, (0.0, 0.0))
            role = fields.get("paxos_role", "")
            table.add_row(
                str(number),
                role,
                fields["paxos_master_id"],
                f"{int(fields['paxos_chosen']):,}",
                f"{int(fields['paxos_applied']):,}",
                f"{commits:,.0f}",
                f"{writes:,.0f}",
                style="green" if role == "master" else "",
            )
        return table


def _rate(now: dict[str, str], before: dict[str, str] | None, name: str, seconds: float) -> float:
    # A node that was started again counts from zero.
    return max(int(now[name]) - int(before[name]), 0) / seconds if before is not None else 0.0
