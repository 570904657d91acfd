"""The table of members, and what becomes of it by each operation: functions alone."""

from __future__ import annotations

import pytest

import paxos
from paxos.config import parse_cluster
from paxos.membership import Do, Member, Operation, Row, Situation, Table, judge, member_address, member_id

ROWS = (
    Row(1, 0, 1, 1, 7, 0, "h:1"),
    Row(),
    Row(2, 0, 2, 2, 7, 0, "h:2"),
    Row(3, 1, 0, 0, 0, 2, "h:3"),
    Row(4, 2, 4, 4, 0, 0, "h:4"),
    Row(5, 3, 5, 5, 7, 0, "h:5"),
)
TABLE = Table(9, 100, ROWS)
HERE = Situation({1: "c:1", 4: "c:4"}, {1, 2, 5})


def encoded(table: Table) -> bytes:
    change = table.change()
    head = table.version.to_bytes(4, "little") + len(table.rows).to_bytes(4, "little")
    return head + bytes(24) + table.in_force.to_bytes(8, "little") + bytes(16) + change[8:]


def test_the_table_for_people() -> None:
    assert Table.decode(encoded(TABLE)) == TABLE
    members = TABLE.members(101)
    assert (members.version, members.pending) == (9, False)
    assert TABLE.members(100).pending, "it is in force when the instance itself is chosen"
    assert members.ids == (1, 2, 3, 4, 5)
    assert (members.voters, members.learners, members.followers, members.leaving) == ((1, 2), (3,), (4,), (5,))
    assert members.get(3) == Member(3, "learner", "h:3", "", 2)
    assert members.get(1) == Member(1, "voter", "h:1", "0000000000000001" * 2, None)
    assert members.get(9) is None
    assert not Table.decode(encoded(Table())).members(0).pending
    for cut in range(len(encoded(TABLE))):
        with pytest.raises(ValueError, match="no table of members"):
            Table.decode(encoded(TABLE)[:cut])


@pytest.mark.parametrize(
    ("operation", "changed"),
    [
        (Operation(Do.ADD, 6, address="h:6"), {1: Row(6, 1, address="h:6")}),
        (Operation(Do.ADD_FOLLOWER, 6, address="h:6"), {1: Row(6, 2, address="h:6")}),
        (Operation(Do.ADD, 3, address="h:3"), None),
        (Operation(Do.ADD, 1, address="h:1"), None),
        (Operation(Do.ADD_FOLLOWER, 4, address="h:4"), None),
        (Operation(Do.REMOVE, 1), {0: Row(1, 3, 1, 1, 7, 0, "h:1")}),
        # Who was to come in its place comes for itself.
        (Operation(Do.REMOVE_FORCED, 2), {2: Row(2, 3, 2, 2, 7, 0, "h:2"), 3: Row(3, 1, address="h:3")}),
        (Operation(Do.REMOVE, 3), {3: Row()}),
        (Operation(Do.REMOVE, 4), {4: Row()}),
        (Operation(Do.REMOVE, 5), None),
        (Operation(Do.REPLACE, 6, 1, "h:6"), {1: Row(6, 1, instead=1, address="h:6")}),
        (Operation(Do.REPLACE, 3, 2, "h:3"), None),
        (Operation(Do.REPLACE, 4, 1, "h:4"), {4: Row(4, 1, 4, 4, 0, 1, "h:4")}),
        (Operation(Do.REPLACE, 1, 5, "h:1"), None),
        (Operation(Do.REPLACE, 3, 5, "h:3"), None),
        (Operation(Do.PROMOTE, 4), {4: Row(4, 1, 4, 4, 0, 0, "h:4")}),
        (Operation(Do.PROMOTE, 3), None),
        (Operation(Do.PROMOTE, 1), None),
        (Operation(Do.MOVE, 1, address="h:9"), {0: Row(1, 0, 1, 1, 7, 0, "h:9")}),
        (Operation(Do.MOVE, 1, address="h:1"), None),
    ],
    ids=str,
)
def test_the_next_table(operation: Operation, changed: dict[int, Row] | None) -> None:
    found = judge(TABLE, operation, HERE)
    if changed is None:
        assert found is None
        return
    assert found is not None
    assert (found.version, found.in_force) == (9, 100)
    assert {i: row for i, row in enumerate(found.rows) if row != ROWS[i]} == changed


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        (Operation(Do.ADD, 4, address="h:4"), "node 4 is a follower: to give it a vote use promote"),
        (Operation(Do.ADD_FOLLOWER, 3, address="h:3"), "node 3 is a learner already"),
        (Operation(Do.REMOVE, 2), "no connection to node 9"),
        (Operation(Do.REPLACE, 6, 4, "h:6"), "node 4 is a follower, no voter.*add node 6, and remove node 4"),
        (Operation(Do.REPLACE, 6, 5, "h:6"), "node 5 is leaving, no voter"),
        (Operation(Do.REPLACE, 1, 99, "h:1"), "node 99 is no member; there are nodes 1, 2, 3, 4, 5"),
        (Operation(Do.REPLACE, 3, 99, "h:3"), "node 99 is no member"),
        (Operation(Do.REPLACE, 4, 5, "h:4"), "node 5 has no vote any more, and node 4 is a follower: .*promote it"),
        (Operation(Do.REPLACE, 3, 1, "h:3"), "node 3 is coming in the place of node 2 already"),
        (Operation(Do.PROMOTE, 5), "being removed"),
        (Operation(Do.MOVE, 1, address="h:4"), "node 4 is at h:4 already"),
    ],
    ids=str,
)
def test_refusals_of_the_table(operation: Operation, why: str) -> None:
    table, here = TABLE, HERE
    if operation.do is Do.REMOVE:
        table = Table(9, 100, (*ROWS, Row(9, 0, 9, 9, 0, 0, "h:99")))
    with pytest.raises(paxos.MembershipRefused, match=why):
        judge(table, operation, here)


def test_who_was_seen_as_a_member_and_is_none_any_more_has_been_removed() -> None:
    gone = Operation(Do.REMOVE, 8)
    assert judge(TABLE, gone, Situation({}, {1, 2}, seen=True)) is None
    with pytest.raises(paxos.MembershipRefused, match="node 8 is no member"):
        judge(TABLE, gone, HERE)
    # ... and who has taken its place is there.
    for new in (1, 3):
        assert judge(TABLE, Operation(Do.REPLACE, new, 8, f"h:{new}"), Situation({}, {1, 2}, seen=True)) is None
    with pytest.raises(paxos.MembershipRefused, match="promote it"):
        judge(TABLE, Operation(Do.REPLACE, 4, 8, "h:4"), Situation({}, {1, 2}, seen=True))
    assert [Operation(do, 1, 2).goes for do in (Do.REMOVE, Do.REMOVE_FORCED, Do.REPLACE)] == [1, 1, 2]
    assert Operation(Do.ADD, 1).goes == 0


def test_there_are_31_places_at_most() -> None:
    full = Table(1, 0, tuple(Row(i, 0, i, i, address=f"h:{i}") for i in range(1, 32)))
    with pytest.raises(paxos.MembershipRefused, match="31 members"):
        judge(full, Operation(Do.ADD, 40, address="h:40"), HERE)
    with pytest.raises(paxos.MembershipRefused, match="31 members"):
        judge(full, Operation(Do.REPLACE, 40, 1, "h:40"), HERE)
    place = Table(1, 0, (*full.rows[:5], Row(), *full.rows[6:]))
    found = judge(place, Operation(Do.ADD, 40, address="h:40"), HERE)
    assert found is not None
    assert found.rows[5].node == 40


def test_addresses_that_nobody_wrote_down_are_those_the_master_was_told() -> None:
    table = Table(0, 0, (Row(1), Row(2), Row()))
    found = judge(table, Operation(Do.ADD, 6, address="h:6"), Situation({1: "c:1", 2: "c:2", 3: "c:3"}, {1, 2}))
    assert found is not None
    assert [row.address for row in found.rows] == ["c:1", "c:2", "h:6"]
    with pytest.raises(paxos.MembershipRefused, match="node 2 is at c:2"):
        judge(table, Operation(Do.ADD, 6, address="c:2"), Situation({1: "c:1", 2: "c:2"}, {1, 2}))


def test_addresses_are_written_alike() -> None:
    assert member_address(" 127.0.0.1:7101 ") == "127.0.0.1:7101"
    assert member_address("[0:0::1]:7101") == "[::1]:7101"
    assert member_address("db-1.example:7101") == "db-1.example:7101"
    assert member_address("bücher.example:7101") == "xn--bcher-kva.example:7101"
    book = parse_cluster(1, {1: "bücher.example:7", 2: "[0:0::1]:7", 3: "127.0.0.1:7"})
    assert book == {1: ("xn--bcher-kva.example", 7), 2: ("::1", 7), 3: ("127.0.0.1", 7)}
    told = {1: "bücher.example:7", 2: "[0:0::1]:7", 3: "0.0.0.0:7"}
    found = judge(
        Table(0, 0, (Row(1), Row(2), Row(3))), Operation(Do.ADD, 6, address="h:6"), Situation(told, {1, 2, 3})
    )
    assert found is not None
    assert [row.address for row in found.rows] == ["xn--bcher-kva.example:7", "[::1]:7", "0.0.0.0:7", "h:6"]
    assert found.change()
    for bad in ("a..ü:7", "ü" * 64 + ":7"):
        with pytest.raises(paxos.ConfigError, match="is no name"):
            member_address(bad)
        with pytest.raises(paxos.ConfigError, match="is no name"):
            parse_cluster(1, {1: bad})
    assert parse_cluster(2**32 - 2, {2**32 - 2: "h:1"}) == {member_id(2**32 - 2): ("h", 1)}
    for number in (0, 2**32 - 1):
        with pytest.raises(paxos.ConfigError, match="from 1 to 4294967294"):
            parse_cluster(1, {1: "h:1", number: "h:2"})
        with pytest.raises(paxos.ConfigError, match="from 1 to 4294967294"):
            member_id(number)
    with pytest.raises(paxos.ConfigError, match="the same address"):
        parse_cluster(1, {1: "[::1]:7", 2: "[0::1]:7"})
