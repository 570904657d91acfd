"""Formation: three empty nodes make exactly one cluster, whatever is lost, repeated, reordered or crashes; nobody else does."""

from __future__ import annotations

import random

import pytest

from paxos._formation import FormationCore

EMPTY, FORMING, FORMED = 0, 1, 2
NOT_FOR_ME, OTHER_CLUSTER, NOT_MEMBER, OTHER_INCARNATION, OTHER_CONFIG = 1, 2, 3, 4, 5
MS = 1_000_000


class Node:
    """One node: its formation, its disk, and what it may not send yet."""

    def __init__(self, world: World, node: int, incarnation: int) -> None:
        self.world, self.node, self.incarnation = world, node, incarnation
        self.disk: list[tuple[int, bytes]] = []
        self.lost = False  # its log was set aside
        self.boot = 0
        self.start()

    def start(self) -> None:
        self.boot += 1
        fresh = (self.world.random.getrandbits(63), self.world.random.getrandbits(63))
        self.core = FormationCore(
            self.node, self.world.nodes, (self.incarnation, 1), fresh, boot=self.boot, lost=self.lost
        )
        for kind, body in self.disk:
            assert self.core.restore(kind, body)
        self.unsynced: list[tuple[int, int, bytes]] = []
        self.held: list[tuple[int, int, bytes]] = []
        self.durable = 0
        self.take(self.core.start(self.world.now))

    def take(self, effects: list[tuple[object, ...]]) -> None:
        for effect in effects:
            if effect[0] == "send":
                self.held.append(effect[1:])  # type: ignore[arg-type]
            elif effect[0] == "log":
                self.unsynced.append(effect[1:])  # type: ignore[arg-type]
        for held in list(self.held):
            if held[1] <= self.durable:
                self.held.remove(held)
                self.world.send(self.node, held[0], held[2])

    def sync(self) -> None:
        if self.unsynced:
            done, self.unsynced = self.unsynced, []
            self.disk += [(kind, body) for _, kind, body in done]
            self.durable = done[-1][0]
            self.take(self.core.durable(self.world.now, self.durable))

    def crash(self) -> None:
        """What was not synced may be lost, or not."""
        keep = self.world.random.randint(0, len(self.unsynced))
        self.disk += [(kind, body) for _, kind, body in self.unsynced[:keep]]
        self.start()


class World:
    def __init__(self, seed: int, count: int = 3) -> None:
        self.random = random.Random(seed)
        self.nodes = list(range(1, count + 1))
        self.now = 0
        self.wire: list[tuple[int, bytes]] = []
        self.lossy = True
        self.members = {i: Node(self, i, self.random.getrandbits(60)) for i in self.nodes}

    def send(self, _: int, peers: int, frame: bytes) -> None:
        for index, node in enumerate(self.nodes):
            if peers & (1 << index):
                self.wire.append((node, frame))

    def step(self) -> None:
        """One random thing: a delivery, a loss, a copy, a sync, a tick, a connection made anew, a crash."""
        r = self.random
        self.now += 20 * MS
        choice = r.random()
        if choice < 0.45 and self.wire:
            node, frame = self.wire.pop(r.randrange(len(self.wire)))
            if self.lossy and r.random() < 0.2:
                return
            if self.lossy and r.random() < 0.1:
                self.wire.append((node, frame))
            member = self.members[node]
            member.take(member.core.receive(self.now, frame)[1])
        elif choice < 0.65:
            r.choice(list(self.members.values())).sync()
        elif choice < 0.85:
            member = r.choice(list(self.members.values()))
            member.take(member.core.tick(self.now))
            to = r.choice([i for i in range(len(self.nodes)) if self.nodes[i] != member.node] or [0])
            self.wire.append((self.nodes[to], member.core.hello(to)))
        elif self.lossy and choice < 0.88:
            r.choice(list(self.members.values())).crash()

    def check(self) -> None:
        formed = {m.core.state()[1:3] for m in self.members.values() if m.core.state()[0] == FORMED}
        assert len(formed) <= 1, "two clusters"
        for signature, members in formed:
            assert members == tuple((m.node, (m.incarnation, 1)) for m in self.members.values())
            for m in self.members.values():
                on_disk = [body for kind, body in m.disk if kind == 3]
                assert len(on_disk) == 1, "formed means that every member holds the formation durably, and only one"
                assert int.from_bytes(on_disk[0][:8], "little") == signature[0]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_empty_nodes_form_one_cluster(count: int) -> None:
    for seed in range(60):
        world = World(seed * 31 + count, count)
        for _ in range(300):
            world.step()
            world.check()
        world.lossy = False
        for _ in range(5000):
            world.step()
            world.check()
            if all(m.core.state()[0] == FORMED for m in world.members.values()):
                break
        else:
            raise AssertionError(f"seed {seed}: not formed: {[m.core.state() for m in world.members.values()]}")


def formed(count: int = 3) -> World:
    world = World(1, count)
    world.lossy = False
    while not all(m.core.state()[0] == FORMED for m in world.members.values()):
        world.step()
    return world


def test_an_empty_node_that_meets_a_formed_cluster_asks_to_join_and_is_no_member() -> None:
    world = formed()
    wiped = Node(world, 1, 12345)  # node 1 with a new disk; it is even the one that makes formations
    for other in (2, 3):
        refused, effects = wiped.core.receive(world.now, world.members[other].core.hello(0))
        assert (refused, effects) == (0, []), "it listens, and does nothing"
        assert world.members[other].core.receive(world.now, wiped.core.hello(other - 1)) == (0, [])
    assert wiped.core.state()[0] == EMPTY
    assert wiped.core.state()[3] == 0b110
    world.now += 1000 * MS
    (asking,) = wiped.core.tick(world.now)
    assert asking[:3] == ("send", 0b110, 0)
    (welcome,) = world.members[2].core.receive(world.now, asking[3])[1]
    assert welcome[:2] == ("send", 0b001)
    assert [effect[0] for effect in wiped.core.receive(world.now, welcome[3])[1]] == ["log", "log", "formed"]
    assert wiped.core.receive(world.now, welcome[3])[1] == [], "a second welcome is no news"
    assert wiped.core.state()[0] == FORMED
    assert wiped.core.state()[1] == world.members[2].core.state()[1]
    assert (1, (12345, 1)) not in wiped.core.state()[2], "it knows whose place it wants"
    wiped.core.durable(world.now, 2)
    world.now += 1000 * MS
    (again,) = wiped.core.tick(world.now)
    assert world.members[2].core.receive(world.now, again[3])[1] == [], "its place is for the group to choose"


def test_who_asks_to_join_under_the_incarnation_that_is_a_member_is_not_answered() -> None:
    """It has lost what it promised as this very incarnation: it must not begin anew under it (rule 10)."""
    world = formed()
    amnesiac = Node(world, 1, world.members[1].incarnation)
    for other in (2, 3):
        amnesiac.core.receive(world.now, world.members[other].core.hello(0))
    world.now += 1000 * MS
    (asking,) = amnesiac.core.tick(world.now)
    assert world.members[2].core.receive(world.now, asking[3]) == (0, [])


def test_a_welcome_that_was_not_asked_for_forms_nothing() -> None:
    world = formed()
    stranger = Node(world, 1, 777)
    stranger.core.receive(world.now, world.members[2].core.hello(0))
    world.now += 1000 * MS
    (asking,) = stranger.core.tick(world.now)
    (welcome,) = world.members[2].core.receive(world.now, asking[3])[1]
    fresh = Node(world, 1, 778)  # has met nobody
    assert fresh.core.receive(world.now, welcome[3]) == (0, [])
    assert fresh.core.state()[0] == EMPTY


def test_the_others_finish_when_the_coordinator_is_gone_for_good() -> None:
    """All hold the record, and the one that made it dies before it could say so."""
    world = World(3)
    one, two, three = (world.members[i] for i in (1, 2, 3))
    for other in (2, 3):
        one.take(one.core.receive(world.now, world.members[other].core.hello(0))[1])
    one.sync()
    for node, frame in world.wire:
        world.members[node].take(world.members[node].core.receive(world.now, frame)[1])
    world.wire.clear()
    for member in (two, three):
        member.sync()
    for _ in range(3):
        world.now += 1000 * MS
        for member in (two, three):
            member.take(member.core.tick(world.now))
        wire, world.wire = world.wire, []
        for node, frame in wire:
            if node != 1:
                world.members[node].take(world.members[node].core.receive(world.now, frame)[1])
    assert [m.core.state()[0] for m in (two, three)] == [FORMED, FORMED]
    world.check()


def test_one_wiped_and_one_that_never_heard_of_a_value_do_not_form_a_new_cluster() -> None:
    """The schedule behind rule 9: all configured members must say that they are empty, a majority is not enough."""
    world = World(5)
    a, b = Node(world, 1, 71), Node(world, 2, 72)
    a.take(a.core.receive(world.now, b.core.hello(0))[1])
    assert a.core.state()[0] == EMPTY
    assert a.unsynced == []


@pytest.mark.parametrize("lost", [{1, 2, 3}, {2}, {1}, {3}, {1, 2}])
def test_where_one_has_lost_its_log_nobody_forms_a_new_cluster(lost: set[int]) -> None:
    """Had all lost theirs and each counted as empty, they would begin anew, and nobody had been asked (rule 9)."""
    world = World(6)
    world.lossy = False
    for id_ in lost:
        world.members[id_].lost = True
        world.members[id_].start()
    for _ in range(3000):
        world.step()
    assert not any(m.disk or m.unsynced for m in world.members.values())
    assert [m.core.state()[0] for m in world.members.values()] == [EMPTY] * 3


@pytest.mark.parametrize(
    ("sender", "reason"),
    [
        (lambda w: FormationCore(9, [1, 9], (9, 9), (1, 1)).hello(0), NOT_MEMBER),
        (lambda w: w.members[2].core.hello(2), NOT_FOR_ME),
        (lambda w: formed_elsewhere().members[2].core.hello(0), OTHER_CLUSTER),
    ],
)
def test_who_is_turned_away_by_a_formed_node(sender: object, reason: int) -> None:
    world = formed()
    assert world.members[1].core.receive(world.now, sender(world))[0] == reason  # type: ignore[operator]


def formed_elsewhere() -> World:
    world = World(2)
    world.lossy = False
    while not all(m.core.state()[0] == FORMED for m in world.members.values()):
        world.step()
    return world


def test_different_cluster_lists_are_refused() -> None:
    a = FormationCore(1, [1, 2, 3], (1, 1), (1, 1))
    b = FormationCore(2, [1, 2], (2, 2), (1, 1))
    assert a.receive(0, b.hello(0))[0] == OTHER_CONFIG


def test_group_frames_are_admitted_from_nodes_of_the_cluster_only() -> None:
    world = formed()
    member = world.members[2].core.hello(0)
    core = world.members[1].core
    assert core.admits(member)
    for offset in (20, 24):  # sender, signature; the incarnation is the replica's to judge
        other = bytearray(member)
        other[offset] ^= 0x40
        assert not core.admits(bytes(other)), f"byte {offset} must count"
    assert not FormationCore(1, [1, 2, 3], (1, 1), (1, 1)).admits(member), "an empty node admits nobody"


def test_records_that_cannot_be_this_nodes_are_damage() -> None:
    world = formed()
    records = world.members[1].disk
    formation = next(body for kind, body in records if kind == 3)

    def fresh() -> FormationCore:
        return FormationCore(1, [1, 2, 3], (world.members[1].incarnation, 1), (1, 1))

    assert fresh().restore(3, formation)
    assert not fresh().restore(4, b""), "formed without a formation"
    assert not fresh().restore(3, formation[:-1])
    assert not fresh().restore(3, b"")
    assert not fresh().restore(9, formation)
    assert FormationCore(1, [1, 2, 3], (4, 4), (1, 1)).restore(3, formation), "of one that is to be taken in"
    assert not FormationCore(7, [7], (world.members[1].incarnation, 1), (1, 1)).restore(3, formation), "of another node"


def test_after_formation_the_logs_membership_wins() -> None:
    world = formed()
    core = FormationCore(1, [1, 2, 3, 4], (world.members[1].incarnation, 1), (1, 1))
    for kind, body in world.members[1].disk:
        assert core.restore(kind, body)
    assert [node for node, _ in core.state()[2]] == [1, 2, 3]
