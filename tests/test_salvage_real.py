"""What real nodes keep of a damaged log. Everything else about that is in test_salvage.py."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest

from nodes import until
from paxos.errors import WrongDirectory
from test_getting_well import Cluster, flip, other_than, run


@pytest.mark.parametrize("checkpoint", [False, True])
def test_what_a_damaged_log_knows_to_be_chosen_is_not_fetched(
    tmp_path: Path, checkpoint: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(c: Cluster) -> None:
        await c.write(20_000)  # 10 MB
        await c.level()
        hurt = other_than(c.master())
        made = await c.nodes[hurt].checkpoint() if checkpoint else 0
        await c.write(20_000)
        await c.level()
        chosen = c.nodes[hurt].status().chosen
        await c.stop(hurt)
        last_but_one = sorted((tmp_path / str(hurt) / "log").glob("*.seg"))[-2]
        flip(last_but_one, last_but_one.stat().st_size // 2)
        with caplog.at_level(logging.INFO, "paxos"):
            await c.start(hurt)
            await c.write(10)
            await c.level()
        (line,) = (line for line in caplog.messages if "instances were kept" in line)
        kept, end = (int(word) for word in re.findall(r"\d+", line))
        assert end <= chosen <= end + 100, "all but what the last writes, behind the damage, would have told"
        assert kept == end - made, "and none that the checkpoint holds"
        assert aside_open(tmp_path) == 0, "what was open for it is closed"
        status = c.nodes[hurt]._engine.status()  # type: ignore[attr-defined]
        assert status["bytes_received"] < 5_000_000, "of 20 MB only what was not known any more"
        assert status["quarantined"] is not None
        # It is as good as any: with it and without another one there is a quorum.
        await c.stop(other_than(hurt))
        await c.write(10)
        await c.level()

    run(tmp_path, story, log_budget=1 << 30, scrub_rate=0)


def aside_open(base: Path) -> int:
    """How many descriptors this process has on what is in a quarantine below ``base``. (Of a scrub, too, where there was one.)"""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # it is closed by now
            target = str(link.readlink())
            found += target.startswith(str(base)) and "/quarantine/" in target
    return found


@pytest.mark.parametrize("how", ["cut", "closed"])
def test_a_log_in_quarantine_may_vanish_and_the_node_may_close_before_it_was_used(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(c: Cluster) -> None:
        await c.write(5000)
        await c.level()
        hurt = other_than(c.master())
        await c.stop()
        log = tmp_path / str(hurt) / "log"
        (log / "backup.seg").write_bytes(b"a stray file")
        newest = max(log.glob("0*.seg"))
        flip(newest, 8200)
        await c.start(hurt)
        assert aside_open(tmp_path) == 1, "nobody else is there yet"
        if how == "closed":
            await c.stop(hurt)
            assert aside_open(tmp_path) == 0
            await c.start()
        else:
            for file in (tmp_path / str(hurt) / "quarantine" / "001").glob("0*.seg"):
                file.write_bytes(file.read_bytes()[:4096])
            with caplog.at_level(logging.INFO, "paxos"):
                await c.start(*(id_ for id_ in (1, 2, 3) if id_ != hurt))
                await until(lambda: "it cannot be read any more" in caplog.text, "it is given up")
        await c.level()
        assert aside_open(tmp_path) == 0

    run(tmp_path, story, log_budget=1 << 30, scrub_rate=0)


def test_what_goes_wrong_when_a_log_in_quarantine_is_looked_at_does_not_end_a_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(c: Cluster) -> None:
        await c.write(1000)
        await c.level()
        hurt = other_than(c.master())
        await c.stop(hurt)
        flip(min((tmp_path / str(hurt) / "log").glob("*.seg")), 9000)
        opens = os.open

        def fails(path: Any, *arguments: Any, **named: Any) -> int:
            if str(path).endswith("quarantine/001"):
                raise OSError(errno.EMFILE, "for a test")
            return opens(path, *arguments, **named)

        monkeypatch.setattr(os, "open", fails)
        with caplog.at_level(logging.WARNING, "paxos"):
            await c.start(hurt)
            await c.level()
        (line,) = (line for line in caplog.messages if "nothing is kept of the log" in line)
        assert "OSError: [Errno 24] for a test" in line

    run(tmp_path, story)


def test_a_damaged_directory_of_another_node_is_not_set_aside(tmp_path: Path) -> None:
    """It is refused like one that is whole: nobody takes the place of another node because its disk is bad."""

    async def story(c: Cluster) -> None:
        await c.write(2000)
        await c.level()
        mine, other = 1, 2
        await c.stop(mine)
        await c.stop(other)
        flip(min((tmp_path / str(mine) / "log").glob("*.seg")), 9000)
        (tmp_path / str(other)).rename(tmp_path / "own")
        (tmp_path / str(mine)).rename(tmp_path / str(other))
        with pytest.raises(WrongDirectory, match="belongs to node 1, not to node 2, and is damaged besides"):
            await c.start(other)
        assert not (tmp_path / str(other) / "quarantine").exists()
        (tmp_path / str(other)).rename(tmp_path / str(mine))
        (tmp_path / "own").rename(tmp_path / str(other))
        await c.start(other)
        await c.start(mine)
        await c.level()

    run(tmp_path, story)
