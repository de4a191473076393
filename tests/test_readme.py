"""What the README says to type, typed: its files, its commands, and what they print.

Before a block of the README, a comment says what it is::

    <!-- file: PATH -->                    the block is a file
    <!-- run: background, until "TEXT" -->  the command is left running, and has then printed TEXT

Each line that begins with ``$`` in a block of the kind ``console`` is a command. What follows it is
what it prints: ``...`` stands for anything in a line, and a command that says nothing there may
print what it likes. Scripts of this repository and the making of an environment have tests of their
own: tests/examples/test_demo.py, tests/test_install.py.
"""

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from programs import WAIT, Program, environment

README = Path(__file__).parents[1] / "README.md"

ELSEWHERE = re.compile(r"script/(demo|test|check)\b|pip install|python3 -m venv")
"""Commands that other tests run."""


@dataclass
class Command:
    line: int
    text: str
    printed: list[str]
    until: str = ""


@dataclass
class File:
    path: str
    text: str


def steps(readme: str) -> list[Command | File]:
    """What is to be done, in its order."""
    found: list[Command | File] = []
    pattern = r"(?:<!-- (file|run): (.*?) -->\n)?^```(\w*)\n(.*?)^```$"
    for block in re.finditer(pattern, readme, re.MULTILINE | re.DOTALL):
        kind, about, language, text = block.groups()
        first = readme[: block.start(4)].count("\n") + 1
        if kind == "file":
            found.append(File(about, text))
        elif language == "console":
            until = re.search(r'until "(.*)"', about or "")
            for number, line in enumerate(text.splitlines(), first):
                if line.startswith("$ "):
                    found.append(Command(number, line[2:], [], until[1] if until else ""))
                else:
                    assert isinstance(found[-1], Command)
                    found[-1].printed.append(line)
    return found


def is_printed(line: str, output: str) -> bool:
    """Whether a line of the README is a line of the output; spaces for looks do not count."""
    parts = [re.escape(" ".join(part.split())) for part in line.split("...")]
    wanted = re.compile(".*".join(parts))
    return any(wanted.fullmatch(" ".join(said.split())) for said in output.splitlines())


def test_what_is_printed_is_compared_line_by_line_with_wildcards():
    assert is_printed("sent 1 message to greet.IN", "watching\nsent 1 message to greet.IN\n")
    assert is_printed("all running after ...", "all running after 3.2 s; Ctrl-C stops it")
    assert is_printed("show.1  | x", "show.1 | x")
    assert not is_printed("all running after ...", "nearly all running after 3.2 s")
    assert not is_printed("a.b", "acb")


def test_the_readme_is_read_whole():
    readme = README.read_text()
    commands = [step for step in steps(readme) if isinstance(step, Command)]
    assert len(commands) == sum(line.startswith("$ ") for line in readme.splitlines())
    assert readme.count("<!-- file: ") == sum(isinstance(step, File) for step in steps(readme))
    assert readme.count("<!-- run: ") == len({step.until for step in commands if step.until})


@pytest.mark.timeout(240)
def test_what_the_readme_says_to_type_prints_what_it_says(tmp_path: Path):
    running: list[Program] = []
    try:
        for step in steps(README.read_text()):
            if isinstance(step, File):
                path = tmp_path / step.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(step.text)
            elif not ELSEWHERE.search(step.text):
                where = f"README.md:{step.line}: {step.text}"
                output = run(step, tmp_path, running, where)
                for line in step.printed:
                    assert is_printed(line, output), f"{where}\nexpected {line!r} in:\n{output}"
        assert running, "no network was run"
        for program in running:
            assert program.end() == 0
    finally:
        for program in running:
            program.close()


def run(command: Command, folder: Path, running: list[Program], where: str) -> str:
    """Run a command as it was typed; return what it printed."""
    if command.until:
        program = Program(shlex.split(command.text), folder)
        running.append(program)
        program.until(command.until)
        for line in command.printed:
            # What its participants print comes when it comes.
            program.until(line.split("|")[-1].split("...")[0].strip().split("  ")[0])
        return program.text
    done = subprocess.run(
        ["bash", "-c", command.text],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert done.returncode == 0, f"{where}\nended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def test_every_command_that_the_readme_lists_is_there_with_its_options(tmp_path: Path):
    rows = re.findall(r"^\| `(msgflo [^`]*)` \|", README.read_text(), re.MULTILINE)
    assert rows
    for row in rows:
        words = row.split()[1:]
        command = words[0]
        choices = words[1].replace("\\|", "|").split("|") if command == "graph" else [""]
        for choice in choices:
            done = subprocess.run(
                ["msgflo", command, *filter(None, [choice]), "--help"],
                cwd=tmp_path,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=WAIT,
                check=True,
            )
            for word in words:
                if word.startswith("--"):
                    assert word in done.stdout, f"{row}: no {word}"
