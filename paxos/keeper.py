"""Checkpoints of a group: restored at the start, made in time, offered to others, fetched where the log does not reach.

What an operator would have to do by hand is done here. The rules it keeps: log is given up only below a checkpoint that is
durable and was read again; a node whose state machines lack what the log no longer has gets a checkpoint from the others,
installs it without a restart, and goes on from there; a checkpoint that does not verify is set aside, and an older one, or
another node's, takes its place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from paxos._handle import Handle
from paxos.alarm import Alarms
from paxos.background import Background
from paxos.checkpoint import CheckpointStore
from paxos.errors import ConfigError, DamagedCheckpoint, NodeClosed, StorageError, WrongDirectory
from paxos.making import Made
from paxos.manifest import Manifest
from paxos.membership import true_from
from paxos.sessions import SESSIONS
from paxos.snapshot import Cut, has_checkpoints, restore_machines
from paxos.statemachine import StateMachine, has_files, has_snapshot
from paxos.transfer import ASK, WANT_MANIFEST, WANT_PIECE, Fetch, Server, pack_offer

__all__ = ["CheckpointPolicy", "Keeper", "Maker"]

logger = logging.getLogger("paxos")

DAMAGED: Final = "the checkpoint of instance %d does not verify; an older one or another node's takes its place: %s"
QUESTIONS: Final = (ASK, WANT_MANIFEST, WANT_PIECE)
#: Seconds between two looks at whether a checkpoint is due; until a fetch that found nothing is tried again; and until one
#: that failed to be made is.
LOOK_EVERY: Final = 0.05
FETCH_AGAIN: Final = 2.0
#: ... until a checkpoint that did not verify is read again;
READ_AGAIN: Final = 2.0
#: ... and how many questions a master leaves it to the others to make one that somebody needs.
MASTER_WAITS: Final = 2
MAKE_AGAIN: Final = 60.0

UNABLE: Final = (
    "a state machine of this group has neither snapshot() and restore() nor snapshot_files() and restore_files(): there is no "
    "way to make a checkpoint of it"
)


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """When a checkpoint is made by itself, and how many are kept."""

    budget: int
    """Bytes of log; at half of it a checkpoint is due, a little later on other nodes, on the master last."""
    instances: int = 0
    """A checkpoint is due after so many instances; 0: not for that reason."""
    seconds: float = 0.0
    """... after so much time, if anything was applied; 0: not for that reason."""
    kept: int = 2
    """Checkpoints kept, the newest included."""
    fetch_rate: float = 0.0
    """Bytes a second that a fetch takes at most; 0: as fast as it goes."""


class Maker(Protocol):
    """Makes a checkpoint of what is applied, in whatever process."""

    def __call__(self, cut: Cut, done: Made, *, newest: Manifest | None, here: bool = False) -> None:
        """``newest``: the checkpoint that it may begin with. ``here``: of the node's own state machines, for what lies on
        its disk cannot be relied on."""

    def break_off(self) -> None:
        """What another process is at ends, with an error."""

    def close(self) -> None: ...


class Keeper:
    """One group's. On the thread that applies, but for what runs in the background."""

    def __init__(
        self,
        engine: Handle,
        store: CheckpointStore,
        background: Background,
        machines: Mapping[int, StateMachine],
        policy: CheckpointPolicy,
        make: Maker,
        work: Path,
        alarms: Alarms,
    ) -> None:
        self._engine = engine
        self._store = store
        self._background = background
        self._machines = machines
        self._policy = policy
        self._make = make
        self._alarms = alarms
        self._work = work  # for directories of state machines, for a while
        self._server = Server(engine, background, store, engine.now, self.spoiled)
        self._fetch: Fetch | None = None
        self._foreign: Manifest | None = None
        self._making = False
        self._damaged: list[int] = []  # checkpoints that did not verify
        self._doubted: set[int] = set()  # ... just now, and are to be read again
        self._waiting: list[Made] = []
        self._put_off: bool | None = None  # one that is to be made as soon as it can; whether `here`
        self._made_at = engine.now()
        self._made_at_bytes = 0  # of the log, written since the start
        self._look_at = 0
        self._make_again_at = 0  # behind one that could not be made
        self._in_vain = 0  # how often one was asked for here, and nobody had it
        self._behind = False
        self._closed = False
        self.able = has_checkpoints(machines)
        self._told_unable = False
        self._newest: Manifest | None = None
        self.installed = 0
        self._unhook()

    def _unhook(self) -> None:
        """What the group puts here, before it has and when it is gone."""
        #: the last instance applied, and the chain checksum behind it, if that is known
        self.applied: Callable[[], tuple[int, int | None]] = lambda: (-1, None)
        #: the last instance that each state machine has
        self.last: Callable[[], Mapping[int, int]] = dict
        #: whether applying has stopped for good
        self.stopped: Callable[[], bool] = lambda: False
        #: told of a checkpoint that the state machines now have, and of what ends their applying
        self.restored: Callable[[Manifest], object] = lambda manifest: None
        self.failed: Callable[[BaseException], object] = lambda error: None

    @property
    def newest(self) -> int:
        """The instance of the newest checkpoint here; 0: there is none."""
        return self._newest.instance if self._newest is not None else 0

    # -- at the start

    def open(self, last: Mapping[int, int]) -> Manifest | None:
        """Looks for the newest checkpoint that verifies, and restores from it what the log cannot give back.

        ``last`` is what each state machine says that it has. The manifest whose state the machines have now, or None.
        """
        formed, signature, first_kept, log_chosen = self._engine.found()
        self._store.clean()
        needed = min(last.values()) + 1 < first_kept
        chosen: Manifest | None = None
        for manifest in self._store.list():
            if formed and manifest.signature.hex() != signature:
                raise WrongDirectory(
                    f"the checkpoint of instance {manifest.instance} is of another cluster (signature "
                    f"{manifest.signature.hex()}) than the log (signature {signature}): name this node's own data directory"
                )
            if SESSIONS not in self._machines and any(entry.machine == SESSIONS for entry in manifest.entries):
                raise ConfigError(
                    f"checkpoint {manifest.instance} has sessions, and this node was opened with sessions=False: all nodes of a "
                    "cluster must have them, or none, from its beginning on"
                )
            try:
                self._store.verify(manifest)
            except DamagedCheckpoint as error:
                self._alarms.sound(
                    "checkpoint-damaged", "a checkpoint does not verify, an older one or another node's takes its place: %s",
                    error, instance=manifest.instance,
                )  # fmt: skip
                self._damaged.append(manifest.instance)
                continue
            self._server.offer(manifest)
            if chosen is None:
                chosen = self._newest = manifest
        for instance, why in self._store.damaged:
            self._alarms.sound(
                "checkpoint-damaged",
                "the checkpoint of instance %d does not verify, an older one or another node's takes its place: %s",
                instance, why, instance=instance,
            )  # fmt: skip
            self._damaged.append(instance)
        if chosen is not None and not formed and self._engine.alone:
            raise StorageError(
                f"there is a checkpoint of instance {chosen.instance}, and the log that it belongs to is gone. No other node "
                "has it: restore a backup, or name an empty directory to begin anew"
            )
        if chosen is None or chosen.instance < first_kept:
            if needed and self._engine.alone:
                raise DamagedCheckpoint(
                    f"the log begins at instance {first_kept}, and no checkpoint of what was before it is there and verifies "
                    f"({'damaged: ' + ', '.join(map(str, self._damaged)) if self._damaged else 'none is damaged'}). No other "
                    "node has the data: restore a backup, or repair the disk"
                )
            return None
        # A start from a checkpoint is shorter than one from the log, if that still has everything. But a durable state machine
        # needs neither, where its log goes on behind what it has.
        if not needed and formed and chosen.instance <= log_chosen and any(instance >= 0 for instance in last.values()):
            return None
        self._restore(chosen, [id_ for id_, instance in last.items() if instance < chosen.instance - 1])
        if not formed:
            self._foreign = chosen
            self._engine.salvage_after(chosen.instance)
        return chosen

    def _restore(self, manifest: Manifest, machines: list[int]) -> None:
        # (Not where a checkpoint is being made, which may go on meanwhile.)
        restore_machines(self._store, manifest, self._machines, self._work.with_name("restored"), machines)

    def formed(self) -> None:
        """The cluster has just been formed here, or this node taken in."""
        signature = self._engine.status()["signature"]
        manifest, self._foreign = self._foreign, None
        if manifest is None:
            return
        if manifest.signature.hex() != signature:
            self.failed(
                WrongDirectory(
                    f"the checkpoint of instance {manifest.instance} that was found here is of another cluster (signature "
                    f"{manifest.signature.hex()}) than the one that this node belongs to (signature {signature}). Start the "
                    "node with its own data directory, or an empty one"
                )
            )
            return
        self._engine.install(manifest.instance, manifest.chain, manifest.membership)

    # -- making

    def look(self) -> None:
        """Is a checkpoint due? Called often."""
        now = self._engine.now()
        if now < self._look_at or self._closed:
            return
        self._look_at = now + int(LOOK_EVERY * 1e9)
        if self._put_off is not None and not self._making:
            self._begin(self._put_off)
        policy = self._policy
        new = self.applied()[0] + 1 - self.newest
        due = self._engine.log_used() * 2 >= policy.budget
        due = due or 0 < policy.instances <= new
        due = due or 0 < policy.seconds * 1e9 <= now - self._made_at
        if due and new > 0 and self._may_make():
            self._look(now, new)

    def _may_make(self) -> bool:
        """Whether a checkpoint can be made just now by itself."""
        return (
            self._engine.now() >= self._make_again_at
            and not self._making
            and self._put_off is None
            and not self._doubted
            and self._fetch is None
            and self._refusal() is None
        )

    def _ahead(self) -> int | None:
        """A state machine that has more than the group has applied: it lost less than the others. None: all have the same."""
        applied = self.applied()[0]
        return next((id_ for id_, instance in self.last().items() if instance > applied), None)

    def _look(self, now: int, new: int) -> None:
        """One is due somewhere. Here, now?"""
        policy = self._policy
        status = self._engine.status()
        # Staggered: not all nodes at once, and the one that everybody waits for last.
        nodes = sorted([status["node_id"], *status["peers"]])
        rank = len(nodes) if status["master_id"] == status["node_id"] else nodes.index(status["node_id"])
        late = 1 + rank / (2 * len(nodes))
        # (By size only if there is something to be gained: not over and over where so much is kept for others.)
        grown = status["log_bytes"] - self._made_at_bytes
        due = (
            status["log_segments"] * status["segment_bytes"] * 2 >= policy.budget * late and grown * 8 >= policy.budget
        )
        due = due or bool(policy.instances and new >= policy.instances * late)
        due = due or bool(policy.seconds and now - self._made_at >= policy.seconds * late * 1e9)
        if due and not self.able:
            if not self._told_unable:
                self._told_unable = True
                names = sorted(
                    {type(m).__name__ for m in self._machines.values() if not has_snapshot(m) and not has_files(m)}
                )
                logger.error(
                    "the log has outgrown its budget of %d bytes, but cannot be deleted: %s has neither snapshot() and "
                    "restore() nor snapshot_files() and restore_files()", policy.budget, ", ".join(names),
                )  # fmt: skip
        elif due:
            self.make(lambda manifest, error: None)

    def make(self, done: Made, *, here: bool = False) -> None:
        """Makes a checkpoint of what is applied now; ``done`` hears of it when it is durable, or why it could not be made.
        ``here``: of the state machines of this process, whatever that costs, because the log on the disk is damaged."""
        self._waiting.append(done)
        if self._making:
            if here:
                self._make.break_off()  # it may be reading what is damaged, and wait for what never comes
            return
        self._begin(here)

    def _begin(self, here: bool) -> None:
        here = here or bool(self._put_off)
        self._put_off = None
        applied, chain = self.applied()
        status = self._engine.status()
        if applied + 1 == self.newest and not self.stopped():
            self._settle(self._newest, None)  # nothing has happened since
            return
        if (why := UNABLE if not self.able else self._refusal()) is not None:
            logger.error("no checkpoint could be made: %s", why)
            self._settle(None, StorageError(why))
            return
        assert chain is not None
        membership = self._engine.membership()
        if true_from(membership) > applied + 1:
            # With a table that is newer than its instances nobody who installs it could vote before he has learned the rest,
            # which perhaps nobody has whose word counts.
            self._put_off = here
            return
        self._making = True
        self._made_at_bytes = status["log_bytes"]
        self._engine.making(True)
        try:
            cut = Cut(applied + 1, chain, bytes.fromhex(status["signature"]), membership)
            self._make(cut, self._is_made, newest=self._newest, here=here)
        except Exception as error:  # of the state machine's own snapshot(), too
            self._is_made(None, error)

    def _refusal(self) -> str | None:
        """Why there is no state to make a checkpoint of now; None: there is."""
        if self.stopped():
            return "the state machine of this node has failed, perhaps in the midst of an instance"
        applied, chain = self.applied()
        if applied < 0 or chain is None or not self._engine.status()["formed"]:
            return "nothing has been applied yet since the start, so there is nothing to make a checkpoint of"
        if (ahead := self._ahead()) is not None:
            # Restored elsewhere, it would be given again what it has already.
            return (
                f"state machine {ahead} has applied instance {self.last()[ahead]} already, and the others of this group are "
                f"at {applied}: they have no common state yet. Try again when they have caught up"
            )
        return None

    def _is_made(self, manifest: Manifest | None, error: BaseException | None) -> None:
        self._making = False
        self._made_at = self._engine.now()
        if self._closed:
            return
        self._engine.making(False)
        if manifest is None:
            self._make_again_at = self._made_at + int(MAKE_AGAIN * 1e9)
            logger.error("no checkpoint could be made: %s", error)
        else:
            logger.info("a checkpoint of instance %d is durable (%d bytes)", manifest.instance, manifest.stored)
            self._have(manifest)
        self._settle(manifest, error)

    def _settle(self, manifest: Manifest | None, error: BaseException | None) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(manifest, error)

    def _have(self, manifest: Manifest) -> None:
        """A checkpoint is durable here, and verifies: the log below it, and older checkpoints, may go."""
        if manifest.instance > self.newest:
            self._newest = manifest
        self._server.offer(manifest)
        # Who is fetching one needs it, and what follows it, until he has it: for as long as there is room.
        fetched = self._server.under_way(self._engine.now())
        if fetched and self._engine.log_used() < self._policy.budget:
            self._engine.base(min(*fetched, manifest.instance))
        else:
            self._engine.base(manifest.instance)
        # (What was damaged may have come anew from another node, under the same number.)
        damaged, self._damaged = [instance for instance in self._damaged if instance != manifest.instance], []

        gone: list[int] = []

        def remove() -> None:
            listed = [each.instance for each in self._store.list()]
            there = {instance for instance, _ in self._store.damaged}.union(listed)
            bad = [instance for instance in damaged if instance in there]
            good = [instance for instance in listed if instance not in bad]
            for instance in bad + [instance for instance in good[self._policy.kept :] if instance not in fetched]:
                self._store.remove(instance)
                gone.append(instance)

        def removed(_: None, error: BaseException | None) -> None:
            for instance in gone:
                self._server.forget(instance)
            if error is not None:
                logger.error("an old checkpoint could not be removed: %s", error)

        self._background.run(remove, removed)

    def spoiled(self, instance: int, why: str) -> bool:
        """A checkpoint does not verify any more: it is offered no longer, and another takes its place. False: that is known."""
        if self._closed or instance in self._damaged or instance in self._doubted:
            return False
        self._alarms.sound("checkpoint-damaged", DAMAGED, instance, why, instance=instance)
        self._server.forget(instance)
        self._doubted.add(instance)
        if instance == self.newest:
            self._newest = self._server.best
        # Not removed at once: a disk may be unable to read for a moment, and this may be the only copy of what the log gave up.
        self._background.later(READ_AGAIN, lambda: self._read_again(instance))
        return True

    def _read_again(self, instance: int) -> None:
        """A checkpoint that did not verify does so now, or is removed and replaced."""
        if self._closed:
            return

        def read() -> Manifest | None:
            there = [manifest for manifest in self._store.list() if manifest.instance == instance]
            try:
                for manifest in there:
                    self._store.verify(manifest)
                    return manifest
            except DamagedCheckpoint:
                pass
            if there or any(instance == damaged for damaged, _ in self._store.damaged):
                self._store.remove(instance)
            return None

        def done(manifest: Manifest | None, error: BaseException | None) -> None:
            self._doubted.discard(instance)
            if self._closed:
                return
            if manifest is not None:
                logger.warning("the checkpoint of instance %d, read again, verifies: it stays", instance)
                self._server.offer(manifest)
                if instance > self.newest:
                    self._newest = manifest
                return
            if error is not None:
                logger.error("the damaged checkpoint of instance %d could not be removed: %s", instance, error)
            if self.newest < instance and not self.stopped():
                self.make(lambda manifest, error: None, here=True)

        self._background.run(read, done)

    # -- fetching

    def behind(self, first_kept: int) -> None:
        """The log here, or the state machines, need instances that are deleted: only a checkpoint helps."""
        if self._fetch is not None or self._behind or self._closed or self.stopped():
            return
        status = self._engine.status()
        others = sorted(status["peers"])

        def needed() -> int:
            now = self._engine.status()
            return int(now["first_kept"] if self._hollow(now) else now["chosen"] + 1)

        self._fetch = Fetch(
            self._engine, self._background, self._store, others, self._engine.now, needed, self._fetched,
            rate=self._policy.fetch_rate, asked=self._in_vain,
        )  # fmt: skip

    def _hollow(self, status: Mapping[str, object]) -> bool:
        """Whether the log here no longer has what the state machines need next."""
        first_kept = status["first_kept"]
        assert isinstance(first_kept, int)
        return self.applied()[0] + 1 < first_kept

    def _fetched(self, manifest: Manifest | None) -> None:
        self._fetch = None
        if self._closed:
            return
        if manifest is None:
            # Nobody has it just now. If it is still wanted by then, it will be asked for again.
            self._behind = True
            self._in_vain += 1
            self._background.later(FETCH_AGAIN, self._again)
            return
        self._in_vain = 0
        signature = self._engine.status()["signature"]
        if manifest.signature.hex() != signature:
            self._alarms.sound(
                "checkpoint-foreign", "the checkpoint of instance %d that was fetched is of another cluster: refused",
                manifest.instance, instance=manifest.instance,
            )  # fmt: skip
            self._background.run(lambda: self._store.remove(manifest.instance), self._refused)
            return
        # A durable state machine of the group may be ahead of it, and of the others.
        behind = [id_ for id_, instance in self.last().items() if instance < manifest.instance - 1]
        if behind:
            try:
                self._restore(manifest, behind)
            except Exception as error:
                self.failed(error)
                return
            self.restored(manifest)
        self.installed += 1
        self._engine.install(manifest.instance, manifest.chain, manifest.membership)
        self._have(manifest)
        logger.warning("installed the checkpoint of instance %d", manifest.instance)

    def _refused(self, _: None, error: BaseException | None) -> None:
        if error is not None:
            logger.error("the checkpoint of another cluster could not be removed: %s", error)

    def _again(self) -> None:
        self._behind = False
        if self._closed:
            return
        status = self._engine.status()
        if self._hollow(status):
            self.behind(status["first_kept"])

    # -- what other nodes say

    def receive(self, node: int, data: bytes) -> None:
        """Bytes from another node's keeper."""
        if not data or self._closed:
            return
        if data[0] in QUESTIONS:
            self._server.answer(node, data, partial(self._offer, node))
        elif self._fetch is not None:
            self._fetch.receive(node, data)

    def withdraw(self) -> None:
        """What is here is not what the others have: none of it is given to them."""
        self._server.withdraw()

    def _offer(self, node: int, number: int, needed: int) -> bytes:
        status = self._engine.status()
        master = status["master_id"] == status["node_id"]
        others = master and any(up for peer, up in status["peers"].items() if peer != node)
        if (
            self._server.newest < needed <= self.applied()[0] + 1
            and (not others or number > MASTER_WAITS)
            and self.able
            and self._may_make()
        ):
            # Nobody has what helps, perhaps, and in an idle cluster none is due: that node would wait for ever.
            self.make(lambda manifest, error: None)
        return pack_offer(number, master, status["chosen"], status["first_kept"], self._server.newest)

    def close(self) -> None:
        """No more of it."""
        self._closed = True
        self._make.close()
        if self._fetch is not None:
            self._fetch.close()
            self._fetch = None
        self._server.close()
        self._unhook()

    def abandon(self) -> None:
        """Tells who waits for a checkpoint that there will be none."""
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(None, NodeClosed("the node was closed before the checkpoint was made"))
