"""The text of ``INFO``: the sections that Redis clients look at, and the section ``paxos`` of this node."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

from .commands import REDIS_VERSION


class StatusView(Protocol):
    """What is read of :class:`paxos.NodeStatus`."""

    @property
    def node_id(self) -> int: ...
    @property
    def role(self) -> str: ...
    @property
    def master_id(self) -> int: ...
    @property
    def members_version(self) -> int: ...
    @property
    def member_role(self) -> str: ...
    @property
    def formed(self) -> bool: ...
    @property
    def chosen(self) -> int: ...
    @property
    def applied(self) -> int: ...
    @property
    def commits(self) -> int: ...
    @property
    def checksum(self) -> int: ...
    @property
    def fsyncs(self) -> int: ...
    @property
    def log_writes(self) -> int: ...
    @property
    def log_bytes(self) -> int: ...
    @property
    def log_records(self) -> int: ...
    @property
    def log_mode(self) -> str: ...
    @property
    def log_segments(self) -> int: ...
    @property
    def first_kept(self) -> int: ...
    @property
    def checkpoint(self) -> int: ...
    @property
    def votes(self) -> bool: ...
    @property
    def disk_full(self) -> bool: ...
    @property
    def elections(self) -> int: ...
    @property
    def reads(self) -> int: ...
    @property
    def read_rounds(self) -> int: ...
    @property
    def pending(self) -> int: ...
    @property
    def peers(self) -> Mapping[int, bool]: ...
    @property
    def state_machine_error(self) -> str | None: ...
    @property
    def alarms(self) -> Mapping[str, int]: ...


def info_text(status: StatusView, sections: list[str], clients: int, uptime: float, commands: int) -> str:
    """The reply to ``INFO``. ``sections`` are lower-case names, empty for all; ``uptime`` in seconds."""
    everything: dict[str, dict[str, object]] = {
        "server": {
            "redis_version": REDIS_VERSION,
            "redis_mode": "standalone",
            "process_id": os.getpid(),
            "uptime_in_seconds": int(uptime),
        },
        "clients": {"connected_clients": clients},
        # Clients that wait for "loading:0" must not wait for ever: the node serves what it has applied.
        "persistence": {"loading": 0, "aof_enabled": 1},
        "stats": {"total_commands_processed": commands},
        # Every node takes writes and passes them on, which is what a client means by "master".
        "replication": {"role": "master", "connected_slaves": 0},
        "paxos": {
            "paxos_node_id": status.node_id,
            "paxos_role": status.role,
            "paxos_master_id": status.master_id,
            "paxos_members_version": status.members_version,
            "paxos_member_role": status.member_role,
            "paxos_formed": int(status.formed),
            "paxos_chosen": status.chosen,
            "paxos_applied": status.applied,
            "paxos_commits": status.commits,
            "paxos_fsyncs": status.fsyncs,
            "paxos_log_writes": status.log_writes,
            "paxos_log_bytes": status.log_bytes,
            "paxos_log_records": status.log_records,
            "paxos_log_mode": status.log_mode,
            "paxos_log_segments": status.log_segments,
            "paxos_first_kept": status.first_kept,
            "paxos_checkpoint": status.checkpoint,
            "paxos_votes": int(status.votes),
            "paxos_disk_full": int(status.disk_full),
            "paxos_checksum": status.checksum,
            "paxos_elections": status.elections,
            "paxos_reads": status.reads,
            "paxos_read_rounds": status.read_rounds,
            "paxos_pending": status.pending,
            "paxos_peers": ",".join(f"{peer}={'up' if up else 'down'}" for peer, up in sorted(status.peers.items())),
            "paxos_state_machine_error": _one_line(status.state_machine_error),
            "paxos_alarms": ",".join(f"{kind}={count}" for kind, count in sorted(status.alarms.items())),
        },
    }
    wanted = everything.keys() if not sections or set(sections) & {"all", "everything", "default"} else set(sections)
    parts = []
    for title, fields in everything.items():
        if title in wanted:
            lines = [f"# {title.capitalize()}", *(f"{name}:{value}" for name, value in fields.items())]
            parts.append("\r\n".join(lines) + "\r\n")
    return "\r\n".join(parts)


def _one_line(text: str | None) -> str:
    return " ".join(text.split()) if text else ""
