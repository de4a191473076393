"""Shells complete commands, options, and the roles and ports of the running network."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hello import make_project
from programs import Program, environment, msgflo, program


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("completion") / "project")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Program]:
    with program("msgflo", "run", "hello.fbp", "--port", "0", cwd=folder) as run:
        run.until("all running")
        yield run


def completed(folder: Path, line: str) -> list[str]:
    """What bash is offered for the last word of a line."""
    words = line.split(" ")
    done = msgflo(
        cwd=folder,
        _MSGFLO_COMPLETE="bash_complete",
        COMP_WORDS=line,
        COMP_CWORD=str(len(words) - 1),
    )
    return [found.partition(",")[2] for found in done.stdout.splitlines() if found]


def test_commands_and_options_are_completed(folder: Path):
    assert completed(folder, "msgflo sc") == ["scale"]
    assert completed(folder, "msgflo deadletters pu") == ["purge"]
    assert "--no-save" in completed(folder, "msgflo scale --no")


def test_roles_and_ports_of_the_running_network_are_completed(running: Program, folder: Path):
    assert completed(folder, "msgflo restart ") == ["greet", "show"]
    assert completed(folder, "msgflo send gr") == ["greet"]
    assert completed(folder, "msgflo tail greet.") == ["greet.in", "greet.out"]
    assert completed(folder, "msgflo deadletters list sh") == ["show"]


def test_components_are_completed_without_a_network(tmp_path: Path):
    folder = make_project(tmp_path / "project")
    assert completed(folder, "msgflo add another S") == ["Show"]
    assert completed(folder, "msgflo restart ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_is_printed_is_a_script_of_the_shell(tmp_path: Path, shell: str):
    done = msgflo("completion", shell, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "_MSGFLO_COMPLETE" in done.stdout
    if shutil.which(shell):
        checked = subprocess.run(
            [shell, "-n"], input=done.stdout, text=True, env=environment(), check=False
        )
        assert checked.returncode == 0
    assert msgflo("completion", "tcsh", cwd=tmp_path).returncode == 2
