"""``msgflo graph``: check, convert, show."""

import json
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from programs import msgflo, program

WRONG = "greet(Greet) OUT -> IN show(Show)\nshow OUT ->\n"


def test_check_of_a_good_graph_counts_what_is_in_it(project: Path):
    done = msgflo("graph", "check", "hello.fbp", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "hello.fbp: 2 nodes, 1 connection, 1 initial packet\n"
    assert json.loads(msgflo("graph", "check", "--json", "hello.fbp", cwd=project).stdout) == []


def test_check_shows_a_mistake_with_line_column_and_caret_and_goes_on_with_the_others(
    project: Path,
):
    (project / "wrong.fbp").write_text(WRONG)
    done = msgflo("graph", "check", "wrong.fbp", "hello.fbp", cwd=project)
    assert done.returncode == 1
    assert done.stderr.startswith("error: wrong.fbp:")
    assert "^" in done.stderr
    assert "expected" in done.stderr
    assert done.stdout == "hello.fbp: 2 nodes, 1 connection, 1 initial packet\n"
    (found,) = json.loads(msgflo("graph", "check", "--json", "wrong.fbp", cwd=project).stdout)
    assert found["file"] == "wrong.fbp"
    assert found["severity"] == "error"
    assert found["line"] >= 2
    assert found["column"] >= 1


def test_check_warns_of_components_that_the_library_does_not_have(project: Path):
    (project / "other.fbp").write_text("a(Grete) OUT -> IN b(Show)\n")
    done = msgflo("graph", "check", "other.fbp", cwd=project)
    assert done.returncode == 0  # somebody may announce it
    assert "warning: other.fbp: a: " in done.stdout
    assert "Did you mean 'Greet'?" in done.stdout
    assert "Grete" not in msgflo("graph", "check", "--no-library", "other.fbp", cwd=project).stdout


def test_check_finds_what_no_broker_can_carry_out(project: Path):
    text = "a(A) OUT -> IN rr(msgflo/RoundRobin)\nrr DEADLETTER -> IN rr\n"
    (project / "loop.fbp").write_text(text)
    done = msgflo("graph", "check", "--no-library", "loop.fbp", cwd=project)
    assert done.returncode == 1
    assert "error: loop.fbp: rr DEADLETTER -> IN rr" in done.stderr


@pytest.mark.parametrize("name", ["no.fbp", "components", "hello.txt"])
def test_what_is_no_graph_file_is_an_error_with_its_name(project: Path, name: str):
    (project / "hello.txt").write_text("")
    for command in ("check", "convert", "show"):
        done = msgflo("graph", command, name, cwd=project)
        assert done.returncode == 1
        assert name in done.stderr
        assert "Traceback" not in done.stderr


def test_convert_goes_both_ways_and_comes_back_the_same(project: Path):
    assert msgflo("graph", "convert", "hello.fbp", "hello.json", cwd=project).returncode == 0
    saved = json.loads((project / "hello.json").read_text())
    assert set(saved["processes"]) == {"greet", "show"}
    assert msgflo("graph", "convert", "hello.json", "again.fbp", cwd=project).returncode == 0
    assert msgflo("graph", "convert", "again.fbp", "again.json", cwd=project).returncode == 0
    assert (project / "again.json").read_bytes() == (project / "hello.json").read_bytes()


def test_convert_prints_in_the_other_language_unless_told_which(project: Path):
    (project / "a.json").write_text(msgflo("graph", "convert", "hello.fbp", cwd=project).stdout)
    assert json.loads((project / "a.json").read_text())["connections"]
    printed = msgflo("graph", "convert", "a.json", cwd=project).stdout
    assert printed == msgflo("graph", "convert", "a.json", "--to", "fbp", cwd=project).stdout
    assert "greet(Greet)" in printed
    assert json.loads(msgflo("graph", "convert", "a.json", "--to", "json", cwd=project).stdout)


def test_what_fbp_cannot_say_is_named_and_nothing_is_written(project: Path):
    graph = {"processes": {"a": {"component": "A"}}, "groups": [{"name": "g", "nodes": ["a"]}]}
    (project / "g.json").write_text(json.dumps(graph))
    done = msgflo("graph", "convert", "g.json", "g.fbp", cwd=project)
    assert done.returncode == 1
    assert "group" in done.stderr
    assert not (project / "g.fbp").exists()


def test_a_target_that_cannot_be_written_is_an_error(project: Path):
    for arguments in (
        ["convert", "hello.fbp", "no/x.json"],
        ["show", "hello.fbp", "-o", "no/x.svg"],
    ):
        done = msgflo("graph", *arguments, cwd=project)
        assert done.returncode == 1
        assert done.stderr.startswith("msgflo: cannot write no/x.")


def test_show_draws_for_the_terminal_as_svg_as_mermaid_and_as_json(project: Path):
    drawn = msgflo("graph", "show", "hello.fbp", cwd=project).stdout
    assert "greet" in drawn
    assert "show" in drawn
    assert "\x1b" not in drawn
    assert max(len(line) for line in drawn.splitlines()) <= 100
    assert msgflo("graph", "show", "-f", "mermaid", "hello.fbp", cwd=project).stdout.startswith(
        ("flowchart", "graph")
    )
    picture = xml.fromstring(msgflo("graph", "show", "-f", "svg", "hello.fbp", cwd=project).stdout)
    assert picture.tag.endswith("svg")
    as_json = msgflo("graph", "show", "--json", "hello.fbp", cwd=project).stdout
    assert as_json == msgflo("graph", "convert", "hello.fbp", cwd=project).stdout


def test_the_output_files_name_says_what_is_drawn(project: Path):
    for name, begin in (("a.svg", "<svg"), ("a.mmd", "flowchart"), ("a.json", "{")):
        assert msgflo("graph", "show", "hello.fbp", "-o", name, cwd=project).returncode == 0
        assert begin in (project / name).read_text()[:200]


def test_a_terminal_gets_colours_and_no_more_than_its_width(project: Path):
    with program("msgflo", "graph", "show", "hello.fbp", cwd=project, terminal=True) as shown:
        assert shown.wait() == 0
        assert "\x1b[" in shown.text
    with program(
        "msgflo", "graph", "show", "hello.fbp", cwd=project, terminal=True, NO_COLOR="1"
    ) as shown:
        assert shown.wait() == 0
        assert "\x1b[" not in shown.text
