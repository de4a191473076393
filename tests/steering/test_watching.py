"""Code and graphs that change while their network runs, as ``msgflo run --watch`` follows them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from programs import Program, environment, msgflo, program

GREET = """
import msgflo
from words import WORD


@msgflo.component("Greet")
def greet(name: str) -> str:
    return f"{WORD} {name}"
"""

SHOW = """
import msgflo


@msgflo.component("Show")
def show(text: str) -> None:
    print(text)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched")
    (folder / "components").mkdir()
    (folder / "components" / "Greet.py").write_text(GREET)
    (folder / "components" / "Show.py").write_text(SHOW)
    (folder / "words.py").write_text("WORD = 'first'\n")
    (folder / "main.fbp").write_text("greet(Greet) OUT -> IN show(Show)\n")
    return folder


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Program]:
    with program("msgflo", "run", "main.fbp", "--watch", "--port", "0", cwd=folder) as run:
        run.until("all running")
        yield run


def sent(folder: Path, *arguments: str) -> None:
    assert msgflo("send", *arguments, cwd=folder).returncode == 0


def starts(run: Program, role: str) -> int:
    return run.text.count(f"{role} started anew")


def test_a_module_that_a_component_imports_restarts_its_role_and_no_other(
    running: Program, folder: Path
):
    before = starts(running, "greet")
    (folder / "words.py").write_text("WORD = 'second'\n")
    assert "words.py changed: greet started anew" in running.until(
        "greet started anew", times=before + 1
    )
    sent(folder, "greet", "a")
    running.until("second a")
    assert starts(running, "show") == 0
    assert running.text.count("show(Show) running on") == 1


def test_code_that_cannot_be_loaded_is_told_stops_nothing_and_is_taken_when_it_is_right(
    running: Program, folder: Path
):
    file = folder / "components" / "Greet.py"
    before = starts(running, "greet")
    file.write_text(GREET.replace('{name}"', "{na"))
    running.until("components/Greet.py cannot be used; what runs goes on with the code before:")
    running.until("SyntaxError")
    sent(folder, "greet", "b")
    running.until("second b")
    file.write_text(GREET.replace("import msgflo", "import no_such_thing"))
    running.until("No module named 'no_such_thing'")
    assert "msgflo/loading.py" not in running.text
    assert starts(running, "greet") == before
    # As many editors save: a new file in place of the old one.
    (folder / "new").write_text(GREET.replace("{name}", "<{name}>"))
    (folder / "new").replace(file)
    running.until("greet started anew", times=before + 1)
    sent(folder, "greet", "c")
    running.until("second <c>")


def test_a_graph_is_rewired_and_a_broken_or_empty_one_stops_nothing(running: Program, folder: Path):
    file = folder / "main.fbp"
    file.write_text("greet(Greet) OUT -> IN show(Sh")
    running.until("main.fbp was changed, and is no graph now")
    file.write_text("")
    file.write_text("greet(Greet) OUT -> IN other(Show)\n")
    running.until("main.fbp was changed; the network follows it")
    running.until("other(Show) running on")
    sent(folder, "greet", "d")
    assert "other.1" in running.until("second <d>")


def test_a_component_that_was_missing_is_started_when_its_file_is_there(
    running: Program, folder: Path
):
    file = folder / "main.fbp"
    file.write_text("greet(Greet) OUT -> IN other(Show)\nlate(Late) OUT -> IN other\n")
    running.until("no component 'Late'")
    (folder / "components" / "Late.py").write_text(GREET.replace("Greet", "Late"))
    running.until("late(Late) running on")


@pytest.mark.long
def test_nothing_is_lost_while_code_and_graph_change_under_load(tmp_path: Path):
    folder = tmp_path
    (folder / "components").mkdir()
    numbered = SHOW.replace("print(text)", 'print(f"got {text} by one")')
    (folder / "components" / "Show.py").write_text(numbered)
    (folder / "components" / "Pass.py").write_text(
        GREET.replace("from words import WORD", "").replace("{WORD} {name}", "{name}")
    )
    (folder / "main.fbp").write_text("first(Pass) OUT -> IN show(Show)\n")
    with program("msgflo", "run", "main.fbp", "--watch", "--port", "0", cwd=folder) as run:
        run.until("all running")
        with subprocess.Popen(
            ["msgflo", "send", "first", "--text", "--lines", "-f", "-"],
            cwd=folder,
            env=environment(),
            stdin=subprocess.PIPE,
            text=True,
        ) as sending:
            assert sending.stdin is not None
            for number in range(300):
                sending.stdin.write(f"{number}\n")
                sending.stdin.flush()
                if number == 50:
                    run.until("got 5 ")
                    (folder / "components" / "Show.py").write_text(
                        numbered.replace("by one", "by two")
                    )
                elif number == 150:
                    run.until("show started anew")
                    (folder / "components" / "Pass.py").write_text(
                        (folder / "components" / "Pass.py").read_text() + "\n# new\n"
                    )
                elif number == 250:
                    run.until("first started anew")
                    # What was sent before still arrives at show, which stays; what is sent after
                    # takes the new way only.
                    (folder / "main.fbp").write_text(
                        "first(Pass) OUT -> IN other(Show)\nshow(Show)\n"
                    )
            sending.stdin.close()
        run.until("the network follows it")
        run.until("other(Show) running on")
        sent(folder, "first", "--text", "last")
        assert "other.1" in run.until("got last by two")
        for number in range(300):
            run.until(f"got {number} by ")
        assert run.text.count(" by one") > 0
        assert not any("got last" in line and "show.1" in line for line in run.lines)
