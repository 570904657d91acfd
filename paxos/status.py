"""What a node tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NodeStatus"]


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What a node knows of itself and the cluster at one moment."""

    node_id: int
    role: str
    """``follower``, ``asking``, ``preparing`` or ``master``."""
    master_id: int
    """0 where none is known."""
    mastership: int
    """The version of the newest mastership that is known chosen here: how often a master has taken over."""
    lease: float
    """How long leases last, in seconds; 0: there are none."""
    members_version: int
    """How often the members have changed since the cluster was formed."""
    member_role: str
    """What this node is among them: ``voter``, ``learner``, ``follower``, ``leaving``; ``none``: no member."""
    formed: bool
    """Whether the cluster has been formed."""
    chosen: int
    """Instances known chosen here, from 0 on without a gap."""
    applied: int
    """Instances applied here."""
    commits: int
    """Values in the chosen instances."""
    checksum: int
    """Chain checksum over the applied instances: equal on all nodes that have applied as many. 0 before the first, and after
    the restart of a durable state machine until the log knows its last instance to be chosen."""
    fsyncs: int
    log_writes: int
    log_bytes: int
    log_records: int
    log_seconds: float
    """Time spent in log writes."""
    log_mode: str
    """How log writes are made durable here."""
    elections: int
    """Ballots this node has raised."""
    rounds: int
    """Message rounds on the critical path, summed over ``proposed_values``."""
    proposed_values: int
    """Values chosen under this node's own ballots since it started."""
    frames_sent: int
    frames_received: int
    bytes_sent: int
    bytes_received: int
    frames_refused: dict[str, int]
    """Frames and connections turned away, by reason."""
    first_kept: int
    """The log begins here: instances below it are in a checkpoint."""
    log_segments: int
    """Segments of the log in use; with the spares that is what it takes of the disk."""
    disk_full: bool
    """Whether the disk has no room for another segment: then this node does not lead, takes no proposals, and votes as long as
    the segments that it has last."""
    checkpoint: int
    """The newest checkpoint here holds all instances below this one; 0: there is none."""
    installed: int
    """Checkpoints of other nodes that were installed since this start."""
    compared: int
    """The chain checksum behind the instances below this one was found equal on all nodes that answered."""
    scrubbed_bytes: int
    """Bytes of log and checkpoints that were read again and verified since this start."""
    scrub_damage: int
    """How often they did not verify. The log says what and where."""
    votes: bool
    """Whether this node has a vote. One that has lost its log has none until it is taken in anew and knows everything."""
    reads: int
    """Reads answered here since this start."""
    read_rounds: int
    """Rounds of messages that this node, as master, has sent to confirm reads, its own and those of others. Each serves all that
    were waiting."""
    pending: int
    """Proposals of this node that are under way."""
    peers: dict[int, bool]
    """Whether the connection to each other node is up."""
    state_machine_error: str | None
    """Why applying has stopped, if it has."""
    alarms: dict[str, int]
    """Alarms since this start, by kind; see :class:`paxos.Alarm`."""
