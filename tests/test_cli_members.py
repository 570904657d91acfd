"""``paxos members`` and ``paxos member`` against served clusters, and the commands of the service that are behind them."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import paxos
from cluster import Cluster, MakeCluster, Node, wait_until
from kv_fakes import FakeNode
from paxos.cli import main
from paxos.kv import KvServer
from ports import free_port
from test_cli_processes import DEADLINE, one_line, run
from test_kv_server import Wire, with_server


def at(node: Node) -> str:
    return f"127.0.0.1:{node.resp}"


def show(node: Node) -> dict[str, Any]:
    done = run("members", "--json", "--at", at(node))
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def roles(node: Node) -> dict[int, str]:
    return {member["node_id"]: member["role"] for member in show(node)["members"]}


def newcomer(cluster: Cluster, node_id: int) -> Node:
    cluster.nodes[node_id] = node = Node(cluster, node_id, "127.0.0.1", free_port(), free_port())
    return node


@pytest.mark.processes
def test_members_come_and_go_by_command(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.wait_ready()
    one = cluster.nodes[1]
    done = run("members", "--at", at(one))
    assert done.returncode == 0
    head, titles, *rows = done.stdout.splitlines()
    assert head == "members, version 0, as node 1 knows them"
    assert titles.split() == ["node", "role", "address", "data", "directory"]
    assert [row.split()[:2] for row in rows] == [["1", "voter"], ["2", "voter"], ["3", "voter"]]

    four = newcomer(cluster, 4)
    done = run("member", "add", "4", four.address, "--at", at(cluster.nodes[2]))
    assert done.returncode == 0, done.stderr
    assert f"4     learner  {four.address}  not come yet" in done.stdout
    assert f"now start node 4, with an empty directory: paxos serve --id 4 --cluster 1={one.address}," in done.stdout
    four.start()
    wait_until(lambda: roles(one) == {1: "voter", 2: "voter", 3: "voter", 4: "voter"}, "node 4 votes")
    assert run("member", "move", "4", four.address, "--at", at(four)).returncode == 0
    cluster.wait_ready()

    # Its process ends with a word and status 0.
    done = run("member", "remove", "4", "--json", "--at", at(four))
    assert done.returncode == 0, done.stderr
    assert [member["node_id"] for member in json.loads(done.stdout)["members"]] == [1, 2, 3]
    assert four.process is not None
    assert four.process.wait(DEADLINE) == 0
    four.process = None
    assert "paxos: node 4 has been removed from the cluster, and ends" in four.output.read_text()

    five = newcomer(cluster, 5)
    del cluster.nodes[4]
    assert run("member", "add", "5", five.address, "--follower", "--at", at(one)).returncode == 0
    five.start()
    wait_until(lambda: show(one)["members"][3]["incarnation"], "it has come")
    wait_until(five.info, "it answers")
    info = five.info()
    assert info is not None
    assert (info["paxos_member_role"], int(info["paxos_members_version"])) == ("follower", show(five)["version"])
    assert run("member", "promote", "5", "--at", at(five)).returncode == 0
    wait_until(lambda: roles(one)[5] == "voter", "node 5 votes")
    six = newcomer(cluster, 6)
    done = run("member", "replace", "5", "6", six.address, "--at", at(one))
    assert "learner, for 5" in done.stdout
    cluster.arguments = ["--when-removed", "idle"]
    six.start()
    wait_until(lambda: roles(one) == {1: "voter", 2: "voter", 3: "voter", 6: "voter"}, "node 6 has taken its place")
    assert five.process is not None
    assert five.process.wait(DEADLINE) == 0
    five.process = None
    # ... unless it is to stay.
    assert run("member", "remove", "6", "--at", at(one)).returncode == 0
    wait_until(lambda: "removed=1" in (six.info() or {}).get("paxos_alarms", ""), "node 6 says so")
    assert six.process is not None
    assert six.process.poll() is None


@pytest.mark.processes
def test_refusals_and_ctrl_c(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(size=2)
    cluster.wait_ready()
    one = cluster.nodes[1]
    for arguments, words in (
        (["remove", "9"], "node 9 is no member; there are nodes 1, 2"),
        (["add", "9", cluster.nodes[2].address], "node 2 is at"),
        (["replace", "1", "2", cluster.nodes[2].address], "node 2 is a voter already"),
    ):
        done = run("member", *arguments, "--at", at(one))
        assert done.returncode == 1
        assert words in one_line(done.stderr)
    cluster.nodes[2].kill()
    done = run("member", "add", "9", "127.0.0.1:9", "--timeout", "0.5", "--at", at(one))
    assert done.returncode == 1
    assert f"{at(one)}: adding node 9 has not come about within 0.5 s, and may yet" in one_line(done.stderr)

    def connected() -> int:
        with one.client() as client:
            return len(client.client_list()) - 1

    wait_until(lambda: connected() == 0, "the server has seen that the last command is gone")
    with subprocess.Popen(
        [sys.executable, "-m", "paxos", "member", "add", "9", "127.0.0.1:9", "--timeout", "600", "--at", at(one)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        wait_until(connected, "it is connected")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
        assert process.stderr is not None
        assert process.stderr.read().splitlines()[-1] == "paxos: interrupted"


# ---- without processes ----


def test_nobody_there_or_somebody_else(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    for command in (["members"], ["member", "remove", "1"]):
        assert main([*command, "--at", f"127.0.0.1:{port}"]) == 1
        assert f"127.0.0.1:{port}: " in (err := capsys.readouterr().err)
        assert "Name the address that a running node was given with --resp" in err
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = listener.getsockname()[1]

        def answer() -> None:
            for _ in range(2):
                connection = listener.accept()[0]
                with connection:
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        for command in (["members"], ["member", "promote", "1"]):
            assert main([*command, "--at", f"127.0.0.1:{other}"]) == 1
            assert "no node of the key-value service" in capsys.readouterr().err
        thread.join(DEADLINE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["members"], "Missing option '--at'"),
        (["members", "--at", "nowhere"], "is not HOST:PORT"),
        (["member", "add", "4"], "Missing argument"),
        (["member", "add", "x", "h:1", "--at", "h:1"], "'x' is not a valid integer"),
        (["member", "add", "0", "h:1", "--at", "h:1"], "0 is not in the range"),
        (["member", "add", "4", "nowhere", "--at", "h:1"], "'nowhere' is not HOST:PORT"),
        (["member", "move", "4", "h:1", "--at", "h:1", "--timeout", "0"], "0.0 is not in the range"),
        (["member", "rename", "4"], "No such command 'rename'"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err


@pytest.mark.parametrize("command", [[], ["add"], ["remove"], ["replace"], ["promote"], ["move"]])
def test_help_has_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["member", *command, "--help"]) == 0
    assert "paxos member " + "".join(command) in capsys.readouterr().out


MEMBERS = [
    b"version", 3, b"pending", 1, b"members",
    [
        [b"node_id", 1, b"role", b"voter", b"address", b"10.0.0.1:7101", b"incarnation", b"ab" * 16, b"replaces", None],
        [b"node_id", 4, b"role", b"learner", b"address", b"10.0.0.4:7101", b"incarnation", b"", b"replaces", 1],
    ],
]  # fmt: skip


def test_the_commands_of_the_service() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        good = {
            "paxos.members": None,
            "PAXOS.MEMBER ADD 4 h:1": ("add", 4, "h:1", False, 10.0),
            "paxos.member add 4 h:1 follower timeout 2.5": ("add", 4, "h:1", True, 2.5),
            "PAXOS.MEMBER REMOVE 4": ("remove", 4, False, 10.0),
            "PAXOS.MEMBER REMOVE 4 FORCE": ("remove", 4, True, 10.0),
            "PAXOS.MEMBER REPLACE 4 5 h:1": ("replace", 4, 5, "h:1", 10.0),
            "PAXOS.MEMBER PROMOTE 4 TIMEOUT 1": ("promote", 4, 1.0),
            "PAXOS.MEMBER MOVE 4 h:1": ("move", 4, "h:1", 10.0),
        }
        wire.send(*good)
        assert await wire.replies(len(good)) == [MEMBERS] * len(good)
        assert node.changes == [call for call in good.values() if call is not None]
        bad = {
            "PAXOS.MEMBER": "wrong number of arguments for 'paxos.member' command",
            "PAXOS.MEMBERS 1": "wrong number of arguments for 'paxos.members' command",
            "PAXOS.MEMBER ADD": "wrong number of arguments for 'paxos.member|add' command",
            "PAXOS.MEMBER ADD 4 h:1 LEARNER": "wrong number of arguments for 'paxos.member|add' command",
            "PAXOS.MEMBER REMOVE 4 FORCE FORCE": "wrong number of arguments for 'paxos.member|remove' command",
            "PAXOS.MEMBER ADD -4 h:1": "'-4' is no node id: those are numbers from 1 on",
            "PAXOS.MEMBER REMOVE \xb2": "'\xb2' is no node id: those are numbers from 1 on",
            "PAXOS.MEMBER MOVE 4 h:1 TIMEOUT soon": "TIMEOUT 'soon': give seconds, up to 86400",
            "PAXOS.MEMBER MOVE 4 h:1 TIMEOUT nan": "TIMEOUT 'nan': give seconds, up to 86400",
            "PAXOS.MEMBER RENAME 4": "unknown subcommand 'RENAME'. There are ADD, REMOVE, REPLACE, PROMOTE and MOVE",
        }
        wire.send(*bad)
        assert await wire.replies(len(bad)) == [("error", f"ERR {words}") for words in bad.values()]
        node.error = paxos.MembershipRefused("it is the only voter")
        wire.send("PAXOS.MEMBER REMOVE 1", "PING")
        assert await wire.replies(2) == [("error", "ERR it is the only voter"), b"PONG"]
        assert len(node.changes) == len(good)

    with_server(body)


def test_the_command_line_shows_what_the_service_tells(capsys: pytest.CaptureFixture[str]) -> None:
    async def serve() -> None:
        kv = KvServer(FakeNode())
        await kv.start("127.0.0.1", 0)
        try:
            where = f"127.0.0.1:{kv.address[1]}"
            assert await asyncio.to_thread(main, ["members", "--at", where]) == 0
            assert await asyncio.to_thread(main, ["member", "replace", "1", "4", "10.0.0.4:7101", "--at", where]) == 0
        finally:
            await kv.close()

    asyncio.run(serve())
    shown = [
        "members, version 3, as node 1 knows them; a change of who votes is not in force yet",
        "node  role            address        data directory",
        "1     voter           10.0.0.1:7101  abababab",
        "4     learner, for 1  10.0.0.4:7101  not come yet",
    ]
    advice = (
        "now start node 4, with an empty directory: paxos serve --id 4 --cluster 1=10.0.0.1:7101,4=10.0.0.4:7101 "
        "--data … --resp …"
    )
    assert capsys.readouterr().out.splitlines() == [*shown, *shown, advice]
