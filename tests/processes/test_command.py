"""From templates to words: what comes from outside stays inside one word."""

import json
import os
import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.errors import InvalidName
from msgflo.processes.command import Command, check_role, fill, search_path, words_of


def filled(template, variables=None, **said):
    words = words_of(template, variables or {})
    given = {"filename": "components/Up.py", "component": "text/Up", "role": "up", **said}
    return fill(words, **given)


def test_the_variables_of_the_start_are_put_in():
    assert filled("run #FILENAME #COMPONENT #COMPONENTNAME --name=#ROLE #ROLE.gpio") == (
        "run",
        "components/Up.py",
        "text/Up",
        "Up",
        "--name=up",
        "up.gpio",
    )


def test_initial_packets_become_one_word_of_json_with_or_without_quotes():
    iips = {"size": 3, "text": 'it\'s "so"', "none": None}
    for template in ("run --iips #IIPS", "run --iips '#IIPS'"):
        assert json.loads(filled(template, iips=iips)[2]) == iips


def test_without_initial_packets_there_is_an_empty_object():
    assert filled("run #IIPS") == ("run", "{}")


def test_a_users_variable_may_hold_several_words_and_variables():
    variables = {"NOFLO": "noflo --name #ROLE --graph #COMPONENT", "DEAD": "--deadletter in"}
    assert filled("#NOFLO --prefetch=1 #DEAD", variables) == (
        "noflo",
        "--name",
        "up",
        "--graph",
        "text/Up",
        "--prefetch=1",
        "--deadletter",
        "in",
    )


def test_variables_are_replaced_in_order_so_that_only_later_ones_are_found_in_earlier_ones():
    assert filled("#A", {"A": "x #B", "B": "y"}) == ("x", "y")
    assert filled("#A", {"B": "y", "A": "x #B"}) == ("x", "#B")


def test_case_matters_and_unknown_variables_stay():
    assert filled("run #role #Role #OTHER #") == ("run", "#role", "#Role", "#OTHER", "#")


def test_quotes_and_spaces_are_those_of_the_template_alone():
    assert filled("'a b' \"#ROLE\" c\\ d", role="x 'y; z") == ("a b", "x 'y; z", "c d")


def test_a_list_of_words_is_not_split():
    assert filled(("a b", "#ROLE", "#V"), {"V": "1 2"}) == ("a b", "up", "1 2")


@pytest.mark.parametrize("template", ["", "   ", "'open", "''", ()])
def test_a_template_without_a_program_is_refused(template):
    with pytest.raises(ValueError):
        words_of(template, {})


@pytest.mark.parametrize("role", ["", "-x", "--broker=x", "a\nb", "a\0", "../x", "a/../b", "..\\x"])
def test_roles_that_a_program_could_misread_are_refused(role):
    with pytest.raises(InvalidName):
        check_role(role)


@pytest.mark.parametrize("role", ["up", "c-flo/up", "a b", "$(x)", "größe", "a..b", "#IIPS"])
def test_other_roles_are_allowed(role):
    check_role(role)
    assert filled("run #ROLE", role=role) == ("run", role)


outside = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(filename=outside, component=outside, iips=st.dictionaries(st.text(), st.text()))
def test_nothing_from_outside_adds_or_removes_a_word(filename, component, iips):
    words = filled(
        "a #FILENAME --x=#COMPONENT #IIPS end", filename=filename, component=component, iips=iips
    )
    assert len(words) == 5
    assert words[1] == filename
    assert words[2] == f"--x={component}"
    assert json.loads(words[3]) == iips
    assert words[4] == "end"


@given(st.lists(st.text(st.characters(exclude_characters="#\0", exclude_categories=["Cs"]))))
def test_quoted_words_come_out_as_they_went_in(words):
    assert words_of(shlex.join(["run", *words]), {}) == ("run", *words)


def test_a_command_shows_its_words_quoted_and_never_its_environment():
    command = Command(("run", "a b"), {"MSGFLO_BROKER": "amqp://me:secret@host"})
    assert str(command) == "run 'a b'"
    assert "secret" not in repr(command)
    assert command.with_env({"X": "1"}).env == {
        "MSGFLO_BROKER": "amqp://me:secret@host",
        "X": "1",
    }


@pytest.mark.parametrize(
    ("argv", "env"), [((), {}), (("",), {}), (("a\0",), {}), (("a",), {"X": "\0"})]
)
def test_a_command_that_cannot_be_run_cannot_be_made(argv, env):
    with pytest.raises(ValueError):
        Command(argv, env)


def test_the_path_begins_with_our_interpreters_programs_then_npms_then_ours(tmp_path):
    (tmp_path / "node_modules" / ".bin").mkdir(parents=True)
    path = search_path(tmp_path, {"PATH": "/usr/bin:/bin"}).split(os.pathsep)
    assert path == [
        str(Path(sys.executable).parent),
        str(tmp_path / "node_modules" / ".bin"),
        "/usr/bin",
        "/bin",
    ]
