"""Every example in README.md and docs/ is run: what is written there works.

Python blocks run in a fresh interpreter, shell blocks with bash, each in an empty directory; blocks marked ``console``
have their lines behind ``$`` run. A block that cannot end, or that installs, is preceded by
``<!-- no-run: reason -->``. Blocks of one file that build on one another are joined with ``<!-- continued -->``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
RUN = {"python", "py", "sh", "bash", "shell", "console"}
LIMIT = 120  # seconds for one block: a hang is a failure


@dataclass(frozen=True)
class Block:
    file: str
    line: int
    language: str
    code: str
    reason: str | None  # why it is not run
    continued: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def parse(text: str, file: str) -> list[Block]:
    """The fenced blocks of a Markdown text. A fence that is not closed, or a mark without a reason, is an error."""
    blocks: list[Block] = []
    fence: tuple[int, str, str] | None = None
    code: list[str] = []
    reason: str | None = None
    continued = False
    for number, line in enumerate(text.splitlines(), 1):
        if fence is not None:
            if line.strip() == fence[2]:
                blocks.append(Block(file, fence[0], fence[1], "\n".join(code) + "\n", reason, continued))
                fence, code, reason, continued = None, [], None, False
            else:
                code.append(line)
        elif found := re.match(r"^(```+)\s*([\w-]*)", line):
            fence = (number, found[2], found[1])
        elif found := re.match(r"^<!--\s*no-run:?\s*(.*?)\s*-->$", line):
            assert found[1], f"{file}:{number}: no-run wants a reason"
            reason = found[1]
        elif re.match(r"^<!--\s*continued\s*-->$", line):
            continued = True
        elif line.strip():
            reason, continued = None, False
    assert fence is None, f"{file}:{fence[0] if fence else 0}: this fence is not closed"
    return blocks


def shell(block: Block) -> str:
    if block.language != "console":
        return block.code
    return "\n".join(line[2:] for line in block.code.splitlines() if line.startswith("$ ")) + "\n"


def documents() -> list[Path]:
    return [path for path in [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))] if path.exists()]


def examples() -> list[Block]:
    """What is to be run; continued blocks have the code of those before them in front."""
    runnable: list[Block] = []
    for path in documents():
        before: Block | None = None
        for block in parse(path.read_text(), path.relative_to(TOP).as_posix()):
            if block.language not in RUN or block.reason is not None:
                continue
            if block.continued and before is not None:
                assert before.language == block.language, f"{block}: continues a block of another language"
                block = Block(block.file, block.line, block.language, before.code + block.code, None, True)
            runnable.append(block)
            before = block
    return runnable


def execute(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TOP), os.environ.get("PYTHONPATH", "")]))
    # `paxos` and `python` are those of this run.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment["PYTHONWARNINGS"] = "error"
    if block.language in ("python", "py"):
        script = folder / "example.py"
        script.write_text(block.code)
        command = [sys.executable, str(script)]
    else:
        command = ["bash", "-euo", "pipefail", "-c", shell(block)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT
    )


def test_the_readme_has_examples() -> None:
    readme = TOP / "README.md"
    languages = {block.language for block in parse(readme.read_text(), "README.md")}
    assert "python" in languages


@pytest.mark.processes
@pytest.mark.parametrize("block", examples(), ids=str)
def test_example(block: Block, tmp_path: Path) -> None:
    run = execute(block, tmp_path)
    assert run.returncode == 0, f"{block}\n{run.stdout}\n{run.stderr}"


def test_links_lead_somewhere() -> None:
    """Relative links in the documents name files of the tree."""
    broken = []
    for path in [*documents(), TOP / "CHANGELOG.md", TOP / "wheels" / "README.md"]:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(TOP)}: {target}")
    assert not broken, broken


def test_parser_and_runner(tmp_path: Path) -> None:
    """The judge is judged: what is found, what is left out, and that a wrong example fails."""
    text = (
        "```python\nx = 1\n```\n"
        "<!-- continued -->\n```python\nassert x == 1\n```\n"
        "<!-- no-run: starts a server -->\n\n```sh\nexit 3\n```\n"
        "```console\n$ echo out\nout\n```\n```\nplain\n```\n"
    )
    first, second, third, fourth, fifth = parse(text, "t.md")
    assert [block.reason for block in (first, second, third, fourth)] == [None, None, "starts a server", None]
    assert second.continued
    assert shell(fourth) == "echo out\n"
    assert fifth.language == ""
    assert execute(first, tmp_path).returncode == 0
    assert execute(second, tmp_path).returncode != 0, "a failing example is seen"
    assert execute(third, tmp_path).returncode == 3
    with pytest.raises(AssertionError, match="not closed"):
        parse("```python\n", "t.md")
    with pytest.raises(AssertionError, match="reason"):
        parse("<!-- no-run -->\n```sh\ntrue\n```\n", "t.md")
