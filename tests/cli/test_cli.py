"""The command as a whole: help at once, exit statuses, errors on the error output."""

import subprocess
import sys

import pytest

from msgflo.cli import _COMMANDS
from programs import environment, msgflo, program

HEAVY = ["asyncio", "msgspec", "ssl", "nats", "rich", "ruamel", "uvloop", "msgflo.flow", "logging"]


@pytest.mark.parametrize(
    "command", [*sorted(_COMMANDS), "graph check", "graph convert", "graph show", ""]
)
def test_help_loads_nothing_heavy(command):
    arguments = [*command.split(), "--help"]
    code = (
        "import sys\n"
        "from msgflo.cli import main\n"
        f"try: main({arguments})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print('loaded:', *sorted({set(HEAVY)} & set(sys.modules)))"
    )
    done = subprocess.run(
        # Without site: what this machine loads at every start is not ours.
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert done.stdout.startswith("Usage: msgflo")
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_every_command_of_the_list_is_there_with_the_line_it_is_listed_with(tmp_path):
    listed = msgflo("--help", cwd=tmp_path)
    assert listed.returncode == 0
    for name, (_, line) in _COMMANDS.items():
        assert f"{name} " in listed.stdout
        assert line in listed.stdout
        assert msgflo(name, "--help", cwd=tmp_path).returncode == 0


def test_python_m_msgflo_is_the_same_and_says_its_version(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "msgflo", "--version"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert done.stdout == msgflo("--version", cwd=tmp_path).stdout
    assert done.stdout.startswith("msgflo 1.")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "Usage: msgflo"),
        (["rnu"], "No such command 'rnu'"),
        (["run", "a.fbp", "--sclae", "a=2"], "No such option"),
        (["run", "a.fbp", "--restart", "maybe"], "'maybe' is not one of"),
        (["run", "a.fbp", "--project", "no"], "does not exist"),
        (["send", "greet.in"], "give the message as DATA, or with --file"),
        (["send", "greet.in", "x", "--lines"], "--lines goes with --file"),
        (["tail", "--count", "0"], "0 is not in the range"),
        (["graph", "check"], "Missing argument"),
        (["participant"], "Missing argument 'FILE'"),
        (["scale", "resize"], "'resize': expected ROLE=N"),
        (["scale"], "Missing argument 'ROLE=N...'"),
        (["connect", "a.out b.in"], "expected 'ROLE.PORT -> ROLE.PORT'"),
        (["add", "a", "A", "--initial", "5"], "--initial 5: expected PORT=DATA"),
        (["undo", "-n", "0"], "0 is not in the range"),
    ],
)
def test_wrong_use_has_status_2_and_says_what_was_expected(tmp_path, arguments, expected):
    (tmp_path / "a.fbp").write_text("a(A) OUT -> IN b(B)\n")
    done = msgflo(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stdout == ""


def test_an_error_is_one_sentence_without_a_traceback(tmp_path):
    done = msgflo("run", "no.fbp", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "msgflo: there is no graph file no.fbp.\n"


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    (tmp_path / "a.fbp").write_text(
        "a(A) OUT -> IN b(B)\n" * 1
        + "".join(f"n{n}(A) OUT -> IN n{n + 1}(B)\n" for n in range(2000))
    )
    command = "msgflo graph show --json a.fbp | head -c 10; echo; echo ${PIPESTATUS[0]}"
    with program("bash", "-c", command, cwd=tmp_path) as shell:
        assert shell.wait() == 0
        assert "Traceback" not in shell.text
        assert "Exception" not in shell.text
        assert shell.lines[-1] == "0"
