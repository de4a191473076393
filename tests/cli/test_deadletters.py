"""``msgflo deadletters``, on a network whose role cannot process all that it gets."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msgflo.cli.letters import fits
from msgflo.cli.options import Chosen
from programs import WAIT, Program, msgflo, program

DIVIDE = '''
import msgflo


@msgflo.component("Divide")
def divide(number: int) -> int:
    """Divide by it."""
    return 100 // number


@msgflo.component("Show")
def show(number: int) -> None:
    print(f"got {number}")
'''


def make_project(folder: Path) -> Path:
    (folder / "components").mkdir()
    (folder / "components" / "divide.py").write_text(DIVIDE)
    (folder / "main.fbp").write_text("divide(Divide) OUT -> IN show(Show)\n")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("deadletters"))


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Program]:
    with program("msgflo", "run", "main.fbp", "--port", "0", cwd=folder) as run:
        run.until("all running")
        yield run


def done(folder: Path, *arguments: str, code: int = 0, **options: Any) -> str:
    """Run ``msgflo deadletters`` to this exit status; return all that it printed."""
    ended = msgflo("deadletters", *arguments, cwd=folder, **options)
    assert ended.returncode == code, ended.stderr + ended.stdout
    assert "Traceback (most recent call last):\n  File" not in ended.stderr
    return ended.stdout + ended.stderr


def letters(folder: Path, *arguments: str, number: int | None = None) -> list[dict[str, Any]]:
    """Return the dead letters, when there are so many."""
    end = time.monotonic() + WAIT
    while True:
        ended = msgflo("deadletters", "list", "--json", *arguments, cwd=folder)
        assert ended.returncode == 0, ended.stderr
        found: list[dict[str, Any]] = json.loads(ended.stdout)
        if number is None or len(found) == number:
            return found
        assert time.monotonic() < end, found


@pytest.fixture
def three(running: Program, folder: Path) -> Iterator[list[dict[str, Any]]]:
    """Three dead letters: two of which are divided by 0, and a text."""
    for data in ("0", "0", '"no number"'):
        assert msgflo("send", "divide", data, cwd=folder).returncode == 0
    yield letters(folder, number=3)
    msgflo("deadletters", "purge", "--all", "--yes", cwd=folder)


def test_they_are_listed_by_role_error_age_and_id(three, folder: Path):
    listed = done(folder, "list")
    assert "ZeroDivisionError: integer division or modulo by zero" in listed
    assert "PayloadError: $: expected int, got str" in listed
    assert "3 dead letters; see: msgflo deadletters show ID" in listed
    assert len(letters(folder, "divide")) == len(letters(folder, "divide.in")) == 3
    assert letters(folder, "show") == []
    assert len(letters(folder, "--error", "zerodiv")) == 2
    assert letters(folder, "--older", "1h") == []
    assert len(letters(folder, "--newer", "10min")) == 3
    assert [it["message"] for it in letters(folder, "--id", three[0]["message"])] == [
        three[0]["message"]
    ]
    assert "no dead letters like that" in done(folder, "list", "--error", "nothing")
    assert "Did you mean 'divide'?" in done(folder, "list", "divid", code=1)
    assert "there is no inport 'divide.out'" in done(folder, "list", "divide.out", code=1)


def test_one_is_shown_with_its_error_traceback_headers_and_payload(three, folder: Path):
    said = done(folder, "show", three[0]["message"])
    assert "in divide.IN" in said
    assert "at divide.1, tried once" in said
    assert "    return 100 // number" in said
    assert "msgflo/" not in said  # our own frames say nothing to its author
    assert said.endswith("payload, 1 bytes:\n0\n")
    assert "there is no dead letter 'xyz'" in done(folder, "show", "xyz", code=1)
    assert "may be any of 3 dead letters" in done(folder, "show", "", code=1)


def test_put_back_it_keeps_its_id_and_says_how_often_when_it_dies_again(
    three, folder: Path, running: Program
):
    zeros = {it["message"] for it in letters(folder, "--error", "zerodiv")}
    assert "2 dead letters put back" in done(folder, "requeue", "divide", "--error", "zerodiv")
    end = time.monotonic() + WAIT
    while True:
        again = [it for it in letters(folder) if it["headers"].get("Msgflo-Requeued") == "1"]
        if len(again) == 2:
            break
        assert time.monotonic() < end
    assert {it["message"] for it in again} == zeros
    said = done(folder, "show", again[0]["message"])
    assert "it was put back once before, and died again" in said
    assert "no dead letters like that" in done(folder, "requeue", "show", code=1)


def test_an_edited_payload_is_judged_and_put_back(three, folder: Path, running: Program):
    first, second, text = (it["message"] for it in three)
    assert 'divide.in takes int; got "5"' in done(folder, "edit", first, "--data", '"5"', code=1)
    assert f"{first} put back into divide.IN" in done(folder, "edit", first, "--data", "5")
    running.until("got 20")
    # In an editor: one that changes nothing, one that breaks it, one that corrects it.
    assert "nothing was changed" in done(folder, "edit", second, code=1, EDITOR="true")
    assert "this is no JSON" in done(folder, "edit", second, code=1, EDITOR="sed -i s/0/{/")
    assert "ended with status 1" in done(folder, "edit", second, code=2, EDITOR="false")
    done(folder, "edit", second, EDITOR="sed -i s/0/25/")
    running.until("got 4")
    content = folder / "content"
    content.write_text("50")
    done(folder, "edit", text, "-f", str(content))
    running.until_line(r"show\.1 +\| got 2")
    assert letters(folder, number=0) == []


def test_they_are_written_down_whole_and_stay(three, folder: Path, tmp_path: Path):
    assert "3 dead letters written" in done(folder, "export", "-o", str(tmp_path / "dead.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
    assert {line["message"] for line in lines} == {it["message"] for it in three}
    assert all("ZeroDivisionError" in it["death"]["traceback"] for it in lines if it["data"] == 0)
    assert len(letters(folder)) == 3


def test_they_are_deleted_only_when_it_is_said_which_and_that_it_is_meant(three, folder: Path):
    assert "say which" in done(folder, "purge", code=2)
    assert "say which" in done(folder, "requeue", code=2)
    assert "say --yes" in done(folder, "purge", "--all", code=2)
    assert len(letters(folder)) == 3
    assert "1 dead letter deleted" in done(folder, "purge", "--error", "payload", "-y")
    assert "2 dead letters deleted" in done(folder, "purge", "divide", "--yes")
    assert "no dead letters" in done(folder, "list")
    assert "expected a duration" in done(folder, "purge", "--older", "soon", code=2)


@pytest.mark.long
def test_hundreds_are_put_back_at_once_and_none_is_left_out(tmp_path: Path):
    folder = make_project(tmp_path)
    (folder / "zeros").write_text("0\n" * 230)
    # Quiet: nobody reads here what it prints, and hundreds of tracebacks fill a pipe.
    with program("msgflo", "run", "main.fbp", "--port", "0", "--quiet", cwd=folder) as run:
        run.until("all running")
        msgflo("send", "divide", "--lines", "-f", "zeros", cwd=folder)
        before = {it["message"] for it in letters(folder, number=230)}
        assert "230 dead letters put back" in done(folder, "requeue", "--all")
        end = time.monotonic() + WAIT
        while True:
            found = letters(folder)
            if len([it for it in found if it["headers"].get("Msgflo-Requeued")]) == 230:
                break
            assert time.monotonic() < end
        assert {it["message"] for it in found} == before
        assert "230 dead letters deleted" in done(folder, "purge", "--all", "-y")


def test_all_that_was_said_has_to_fit():
    letter = {"message": "abc-1", "death": {"died": 100.0, "error": "KeyError", "text": "'name'"}}

    def chosen(**said: Any) -> bool:
        return fits(letter, Chosen(**said), 160.0)

    assert chosen()
    assert chosen(error="keyerror: 'na", older=60.0, newer=60.0, ids=("x", "ab"))
    assert not chosen(error="Value")
    assert not chosen(older=61.0)
    assert not chosen(newer=59.0)
    assert not chosen(ids=("bc",))
