"""``paxos verify``, ``paxos log`` and ``paxos checkpoint``: with good and with bad input."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from frames import CHANGE, FOLLOWER, LEARNER, LEAVING, membership, row, table
from leftovers import ALPHA, Leftovers
from nodes import cluster
from paxos.cli import main
from paxos.kv import KvServer, KvStateMachine
from paxos.kv import values as v
from paxos.offline import Record, StoppedNode

SEGMENT = 16 << 20


async def _live(path: Path) -> None:
    async with cluster(path, 1, machine=KvStateMachine, mirror=False, log_hold=0) as nodes:
        for number in range(10):
            await nodes[1].propose(v.encode_set(b"key", b"value\x01%d" % number, 0))
        await nodes[1].checkpoint()
        await nodes[1].propose(v.encode_set(b"key", b"last", 0))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("offline")
    asyncio.run(_live(path))
    return path / "1"


@pytest.fixture
def directory(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "data")


def digest(path: Path) -> list[tuple[str, str]]:
    """Of all files, and when each was written."""
    return [
        (str(file.relative_to(path)), hashlib.sha256(file.read_bytes()).hexdigest() + str(file.stat().st_mtime_ns))
        for file in sorted(path.rglob("*"))
        if file.is_file()
    ]


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    path.write_bytes(bytes(data))


def segment(directory: Path) -> Path:
    return directory / "log" / f"{1:016x}.seg"


def lines(capsys: pytest.CaptureFixture[str], status: int, *arguments: object) -> list[dict[str, Any]]:
    assert main([str(argument) for argument in arguments]) == status
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# -- verify


def test_a_good_directory_is_good_and_left_alone(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digest(directory)
    assert main(["verify", str(directory)]) == 0
    out = capsys.readouterr().out
    assert "node 1 of 1" in out
    assert "good: " in out
    (report,) = lines(capsys, 0, "verify", directory, "--json")
    assert (report["good"], report["node"], report["members"], report["findings"]) == (True, 1, 1, [])
    assert report["checkpoints"] == [report["first_kept"]]
    assert report["bytes"] >= SEGMENT
    assert {file["state"] for file in report["files"]} == {"good"}
    assert digest(directory) == before


@pytest.mark.parametrize("offset", [100, 3 * 4096 + 60])
def test_a_damaged_segment(directory: Path, offset: int, capsys: pytest.CaptureFixture[str]) -> None:
    flip(segment(directory), offset)
    before = digest(directory)
    (report,) = lines(capsys, 1, "verify", directory, "--json")
    (finding,) = [finding for finding in report["findings"] if finding["path"].endswith(".seg")]
    assert finding["level"] == "damage"
    assert finding["offset"] == offset // 4096 * 4096
    assert main(["verify", str(directory)]) == 1
    out = capsys.readouterr().out
    assert f"DAMAGE log/{segment(directory).name}, offset {offset // 4096 * 4096}" in out
    assert "refuses to start" in out
    assert "what to do: " in out
    assert "DAMAGED in" in out
    assert digest(directory) == before


def test_damaged_checkpoints(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data,) = (directory / "checkpoints").glob("*-0.data")
    flip(data, 3)
    (report,) = lines(capsys, 1, "verify", directory, "--json")
    (finding,) = report["findings"]
    assert (finding["path"], finding["offset"]) == (f"checkpoints/{data.name}", 0)
    assert "refuses to start" in finding["meaning"]
    assert report["checkpoints"] == []
    shutil.rmtree(directory / "checkpoints")
    (report,) = lines(capsys, 1, "verify", directory, "--json")
    assert "there is no checkpoint of what was before it" in report["findings"][0]["what"]


def test_what_is_torn_or_left_over_is_no_damage(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(segment(directory), SEGMENT - 5)
    (directory / "log" / "making-3.tmp").write_bytes(b"half")
    (directory / "checkpoints" / f"{99:016x}-0.data").write_bytes(b"of nothing")
    place = directory / "quarantine" / "001"
    place.mkdir(parents=True)
    (place / "why.txt").write_text("a bad sector\n")
    (report,) = lines(capsys, 0, "verify", directory, "--json")
    levels = {finding["path"].split("/")[-1]: finding["level"] for finding in report["findings"]}
    assert levels == {segment(directory).name: "torn", "making-3.tmp": "left over", f"{99:016x}-0.data": "left over",
                      "001": "left over"}  # fmt: skip
    assert main(["verify", str(directory)]) == 0
    assert "a bad sector" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["verify", "log"])
def test_what_cannot_be_looked_at(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def body() -> None:
        async with cluster(tmp_path, 1) as nodes:
            assert nodes[1].is_master()
            assert main([command, str(tmp_path / "1")]) == 2

    asyncio.run(body())
    out, err = capsys.readouterr()
    assert out == ""
    assert "is in use by the process with pid" in err
    assert err.count("\n") == 1
    assert main([command, str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    before = sorted(tmp_path.iterdir())
    assert main([command, str(tmp_path)]) == 2
    assert "there is no log/ in it" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


# -- log


def test_the_overview(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digest(directory)
    node, first = lines(capsys, 0, "log", directory, "--json")
    assert (node["kind"], node["node"], node["boot"], node["formed"], node["outcome"]) == ("node", 1, 1, True, "good")
    assert (node["chosen"], node["checkpoint"], node["first_kept"]) == (12, 11, 11)
    assert [member["node"] for member in node["members"]] == [1]
    assert node["promised"]["node"] == 1
    assert (first["kind"], first["number"], first["size"], first["header"]["node"]) == ("segment", 1, SEGMENT, 1)
    assert first["used"] == 4096 * (first["writes"] + 1)
    assert main(["log", str(directory)]) == 0
    out = capsys.readouterr().out
    assert "watermark     12 instances known chosen" in out
    assert f"promise       round {node['promised']['round']} of node 1" in out
    assert digest(directory) == before


def test_records(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = lines(capsys, 0, "log", directory, "--records", "--json")
    assert {"identity", "formation", "formed", "promise", "accept", "base"} <= {record["type"] for record in every}
    assert [record["instance"] for record in every if record["type"] == "accept"] == list(range(12))
    some = lines(capsys, 0, "log", directory, "--records", "--from", 3, "--to", 5, "--json")
    assert [record["instance"] for record in some] == [3, 4, 5]
    assert [r["type"] for r in lines(capsys, 0, "log", directory, "--records", "--type", "promise", "--json")] == [
        "promise"
    ]
    assert len(lines(capsys, 0, "log", directory, "--records", "--limit", 2, "--json")) == 2
    writes = lines(capsys, 0, "log", directory, "--records", "--type", "write", "--json")
    assert [write["offset"] for write in writes] == [4096 * (n + 1) for n in range(len(writes))]
    assert sum(write["records"] for write in writes) == len(every)
    assert main(["log", str(directory), "--records", "--limit", "1"]) == 0
    assert "1:4152  identity" in capsys.readouterr().out


def test_the_value_of_an_instance(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", str(directory), "--instance", "3"]) == 0
    out = capsys.readouterr().out
    assert "instance 3: chosen; accept at log/" in out
    assert "value\\x012" in out
    assert main(["log", str(directory), "--instance", "3", "--hex"]) == 0
    assert b"value\x012".hex() in capsys.readouterr().out
    (told,) = lines(capsys, 0, "log", directory, "--instance", 3, "--json")
    assert told["value"][0]["hex"] == v.encode_set(b"key", b"value\x012", 0).hex()
    assert segment(directory).read_bytes()[told["offset"] + 13] == 6
    (told,) = lines(capsys, 1, "log", directory, "--instance", 12, "--json")
    assert "nothing of it was accepted here" in told["why"]


@pytest.fixture
def members(tmp_path: Path) -> Leftovers:
    """1 and 2 are voters. A change at instance 1 takes 7 in, to come instead of 2, and 9 as a follower; at 2 another makes 7 a
    voter and has 2 leave. 7 was told of the first."""
    old = Leftovers(tmp_path / "members", 2)
    old.choose(1)
    late = old.late(7)
    rows = [row(node, inc=old[node].incarnation, address=b"10.0.0.%d:7101" % node) for node in (1, 2)]
    rows += [row(7, LEARNER, late.incarnation, instead=2, address=b"host7:1"), bytes(40), row(9, FOLLOWER, (0, 0))]
    late.welcome([old[1], old[2]], membership(rows, 1, as_of=2))
    old.change(table(rows), 1, 2)
    rows[1] = row(2, LEAVING, old[2].incarnation)
    rows[2] = row(7, inc=late.incarnation)
    old.change(table(rows, 1), 1, 2)
    old.close()
    return old


def test_members_and_what_changes_do(members: Leftovers, capsys: pytest.CaptureFixture[str]) -> None:
    one = members.path / "1"
    told = {node: "".join(f"{part:016x}" for part in log.incarnation) for node, log in members.logs.items()}
    (node, _) = lines(capsys, 0, "log", one, "--json")
    assert [member["role"] for member in node["first_members"]] == ["voter", "voter"]
    assert (node["membership_version"], node["in_force"], node["before"], node["as_of"]) == (2, 66, [1, 2], 3)
    assert [(m["node"], m["place"], m["role"], m["since"], m["instead"], m["address"]) for m in node["members"]] == [
        (1, 0, "voter", 0, 0, "10.0.0.1:7101"),
        (2, 1, "leaving", 0, 0, ""),
        (7, 2, "voter", 66, 0, ""),
        (9, 4, "follower", 65, 0, ""),
    ]
    assert main(["log", str(one)]) == 0
    out = capsys.readouterr().out
    assert f"node 7  {told[7]}  voter, votes count from instance 66 on" in out
    assert f"node 2  {told[2]}  leaving\n" in out
    assert "in force from instance 66 on; below it nodes 1, 2 vote" in out
    (change,) = lines(capsys, 0, "log", one, "--instance", 1, "--json")
    assert change["change"]["version"] == 0
    assert change["change"]["members"][2] == {
        "node": 7, "place": 2, "role": "learner", "incarnation": told[7], "instead": 2, "address": "host7:1",
    }  # fmt: skip
    assert main(["log", str(one), "--instance", "1"]) == 0
    out = capsys.readouterr().out
    assert "changes version 0 of the membership into\n    node 1  " in out
    assert f"node 7  {told[7]}  learner at host7:1, instead of node 2\n" in out
    assert f"node 9  {'0' * 32}  follower\n" in out


@pytest.mark.parametrize(
    "data", [b"", bytes(7), table([row(1)])[:-1], table([row(1)]) + b"x", b"\0\0\0\0\2\0\0\0" + row(1)]
)
def test_a_change_that_is_malformed(tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    old = Leftovers(tmp_path, 1)
    old[1].accept(0, (1, 1), (CHANGE, 0, data))
    old.close()
    *_, damage = lines(capsys, 1, "log", tmp_path / "1", "--json")
    assert "does not fit what came before it" in damage["why"]
    (told,) = lines(capsys, 0, "log", tmp_path / "1", "--instance", 0, "--json")
    assert told["change"] == {"malformed": len(data)}
    assert main(["log", str(tmp_path / "1"), "--instance", "0"]) == 0
    assert f"  {{'malformed': {len(data)}}}\n" in capsys.readouterr().out


def test_what_a_node_that_came_later_was_told(members: Leftovers, capsys: pytest.CaptureFixture[str]) -> None:
    seven = members.path / "7"
    (node, _) = lines(capsys, 0, "log", seven, "--json")
    assert [(m["node"], m["role"]) for m in node["first_members"]] == [
        (1, "voter"), (2, "voter"), (7, "learner"), (9, "follower"),
    ]  # fmt: skip
    assert [m["node"] for m in node["members"]] == [1, 2, 7, 9]
    assert (node["outsider"], node["chosen"], node["membership_version"]) == (False, 0, 1)
    assert main(["log", str(seven)]) == 0
    out = capsys.readouterr().out
    assert "all below instance 2 are chosen, though this log does not have all of them" in out
    assert "in force from" not in out
    (told,) = [
        record for record in lines(capsys, 0, "log", seven, "--records", "--json") if record["type"] == "formation"
    ]
    assert told["body"]["members"][2]["address"] == "host7:1"
    (report,) = lines(capsys, 0, "verify", seven, "--json")
    assert report["members"] == 4


def test_when_a_change_is_in_force_nothing_is_said_of_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = Leftovers(tmp_path, 2)
    old.change(table([*old.rows(), row(7)]), 1, 2)
    old.choose(ALPHA - 1, 1, 2)
    old.choose(ALPHA, 2)
    old.close()
    for node, told in ((1, True), (2, False)):
        assert main(["log", str(tmp_path / str(node))]) == 0
        assert ("in force from instance 64 on" in capsys.readouterr().out) is told


@pytest.mark.parametrize("wrong", [b"x", b"\0", bytes(40)])
def test_a_record_that_is_malformed_says_so(wrong: bytes) -> None:
    told = bytes(32) + bytes(8) + membership([row(1), row(2, address=b"host:1")])
    assert Record(0, 9, 0, 3, told).fields()["version"] == 0
    assert Record(0, 9, 0, 3, told + wrong).fields() == {"malformed": len(told + wrong)}
    assert Record(0, 9, 0, 3, told[:-1]).fields() == {"malformed": len(told) - 1}
    assert Record(0, 9, 0, 3, told[:-20]).fields() == {"malformed": len(told) - 20}


def test_a_base_tells_the_membership(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = Leftovers(tmp_path, 2)
    old.choose(3)
    old[1].checkpoint(3)
    old[1].base(3, (1, 1))
    old.close()
    (base,) = lines(capsys, 0, "log", tmp_path / "1", "--records", "--type", "base", "--json")
    body = base["body"]
    assert (body["version"], body["in_force"], body["as_of"], body["before"], body["mastered"]) == (0, 0, 0, [1, 2], 0)
    assert [(m["node"], m["role"], m["place"]) for m in body["members"]] == [(1, "voter", 0), (2, "voter", 1)]
    assert main(["log", str(tmp_path / "1"), "--records", "--type", "base"]) == 0
    assert " members=1,2 in_force=0 as_of=0 before=1,2 " in capsys.readouterr().out


def test_whether_a_node_is_alone_goes_by_the_members_of_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = Leftovers(tmp_path, 1)
    old.change(table([row(1, inc=old[1].incarnation), row(2, FOLLOWER, (0, 0))]), 1)
    old[1].store.flush()
    old[1].promise((1, 1))
    old[1].store.flush()
    old[1].promise((1, 1))
    old.close()
    with StoppedNode(tmp_path / "1") as node:
        place = list(node.writes(1))[-2].offset
    flip(tmp_path / "1" / "log" / f"{1:016x}.seg", place + 60)
    (report,) = lines(capsys, 1, "verify", tmp_path / "1", "--json")
    assert report["members"] == 2
    assert "gets well from the others" in report["findings"][0]["meaning"]


def test_a_damaged_log_is_shown_up_to_the_damage(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(segment(directory), 3 * 4096 + 60)
    *records, damage = lines(capsys, 1, "log", directory, "--records", "--json")
    assert [record["type"] for record in records] == ["identity", "formation"]
    assert (damage["kind"], damage["segment"], damage["offset"]) == ("damage", 1, 3 * 4096)
    *writes, damage = lines(capsys, 1, "log", directory, "--records", "--type", "write", "--json")
    assert [write["offset"] for write in writes] == [4096, 2 * 4096]
    assert main(["log", str(directory)]) == 1
    assert f"DAMAGE log/{segment(directory).name}, offset {3 * 4096}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--limit", "3"], "go with --records"),
        (["--hex"], "goes with --instance"),
        (["--records", "--instance", "3"], "not both"),
        (["--records", "--from", "5", "--to", "4"], "--from 5 is above --to 4"),
        (["--records", "--type", "write", "--from", "4"], "about no instance"),
        (["--records", "--type", "vote"], "'vote' is not one of"),
        (["--instance", "-1"], "-1 is not in the range"),
    ],
)
def test_wrong_options(directory: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", str(directory), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err


@pytest.mark.parametrize("command", ["verify", "log", "checkpoint"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Examples:" in out
    assert f"  paxos {command} " in out


# -- checkpoint


async def _called(port: int, *options: str) -> int:
    return await asyncio.to_thread(main, ["checkpoint", f"127.0.0.1:{port}", *options])


def test_a_checkpoint_of_a_running_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def body() -> None:
        async with cluster(tmp_path, 1, machine=KvStateMachine, mirror=False) as nodes:
            server = KvServer(nodes[1])
            await server.start("127.0.0.1", 0)
            port = server.address[1]
            await nodes[1].propose(v.encode_set(b"k", b"v", 0))
            assert await _called(port, "--json") == 0
            assert json.loads(capsys.readouterr().out)["checkpoint"] == nodes[1].status().checkpoint == 2
            assert await _called(port) == 0
            assert "holds all 2 instances already" in capsys.readouterr().out
            await server.close()

    asyncio.run(body())


def test_a_node_that_makes_none_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def body() -> None:
        async with cluster(tmp_path, 1) as nodes:  # whose state machine has no snapshot()
            server = KvServer(nodes[1])
            await server.start("127.0.0.1", 0)
            assert await _called(server.address[1]) == 1
            await server.close()

    asyncio.run(body())
    assert "there is no way to make a checkpoint of it" in capsys.readouterr().err


@pytest.fixture
def stranger() -> Iterator[tuple[int, list[bytes]]]:
    """Somebody who says what it is told to, to whoever connects."""
    says: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(says[0])

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], says
        thread.join()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown command\r\n", b"$8\r\n# Server\r\n", b":1\r\n", b""]
)
def test_who_is_no_node(stranger: tuple[int, list[bytes]], answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    port, says = stranger
    says.append(answer)
    assert main(["checkpoint", f"127.0.0.1:{port}"]) == 1
    err = capsys.readouterr().err
    assert "no node of the key-value service" in err
    assert err.count("\n") == 1


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert main(["checkpoint", f"127.0.0.1:{port}"]) == 1
    assert "Name the address that a running node was given with --resp" in capsys.readouterr().err
    assert main(["checkpoint", "nowhere"]) == 2
    assert "is not HOST:PORT" in capsys.readouterr().err
