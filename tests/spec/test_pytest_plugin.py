"""The plug-in of pytest, in runs of pytest of their own."""

import os
import socket
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

CASE = "- {{name: {0}, assertion: should pass, inputs: {{in: {1}}}, expect: {{out: {{{2}}}}}}}\n"


def cases(*listed):
    return "cases:\n" + "".join(CASE.format(*case) for case in listed)


@pytest.fixture
def folder(project):
    (project / "spec").mkdir()
    (project / "pytest.ini").write_text("[pytest]\n")
    return project


def run_pytest(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "msgflo.spec.pytest_plugin", *arguments],
        cwd=folder,
        # Other plug-ins that happen to be here take several times as long to load as ours to work.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not done.stderr, done.stderr
    return done


def test_each_case_is_a_test(folder):
    (folder / "spec" / "some.yaml").write_text(
        "topic: Counter\nname: it counts\n"
        + cases(("one", 1, "equals: 1"), ("two", 2, "equals: 3"), ("three", 3, "equals: 3"))
        + "---\ntopic: Picky\n"
        + cases(("fine", 1, "equals: 1"), ("broken", -1, "equals: 1"))
    )
    done = run_pytest(folder, "-v")
    assert "spec/some.yaml::it counts::one: should pass PASSED" in done.stdout
    assert "spec/some.yaml::it counts::two: should pass PASSED" in done.stdout
    assert "it counts::three: should pass FAILED" in done.stdout
    assert "expected 6 to equal 3" in done.stdout
    assert "testee: ValueError: -1 is negative" in done.stdout
    assert "runner.py" not in done.stdout, "where we found out is nobody's concern"
    assert "2 failed, 3 passed" in done.stdout
    assert done.returncode == 1


def test_cases_can_be_chosen_by_name(folder):
    (folder / "spec" / "some.yaml").write_text(
        "topic: core/Repeat\n" + cases(("one", 1, "equals: 1"), ("two", 2, "equals: 5"))
    )
    done = run_pytest(folder, "-k", "one")
    assert "1 passed, 1 deselected" in done.stdout


def test_skipped_ones_are_skipped_with_their_reason_and_nothing_is_set_up(folder):
    (folder / "spec" / "some.yaml").write_text(
        "topic: Nobody\nskip: not there yet\n" + cases(("one", 1, "equals: 1"))
    )
    done = run_pytest(folder, "-rs")
    assert "not there yet" in done.stdout
    assert "1 skipped" in done.stdout


def test_what_cannot_be_set_up_is_an_error_of_its_cases(folder):
    (folder / "spec" / "some.yaml").write_text(
        "topic: Nobody\n" + cases(("one", 1, "equals: 1"), ("two", 1, "equals: 1"))
    )
    done = run_pytest(folder)
    assert "the library has no component 'Nobody'" in done.stdout
    assert "2 errors" in done.stdout


def test_suites_are_run_on_a_runtime_that_a_command_starts(folder):
    (folder / "spec" / "some.yaml").write_text(
        "topic: Repeat\ntimeout: 20000\n"
        + cases(("one", 1, "equals: 1"), ("two", 2, "equals: 3"))
        + "---\ntopic: Nobody\n"
        + cases(("three", 1, "equals: 1"))
    )
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        port = it.getsockname()[1]
    program = Path(__file__).parent.parent / "fbp_runtime.py"
    done = run_pytest(
        folder,
        f"--msgflo-address=ws://127.0.0.1:{port}",
        f"--msgflo-command={sys.executable} {program} {port}",
        "--msgflo-start-timeout=30",
    )
    assert "expected 2 to equal 3" in done.stdout
    assert "the library has no component 'Nobody'. (asked the runtime)" in done.stdout
    assert "1 failed, 1 passed, 1 error" in done.stdout


def test_other_files_are_left_alone(folder):
    (folder / "spec" / "other.yaml").write_text("name: of somebody else's\nlist: [1]\n")
    (folder / "config.yaml").write_text("topic: of somebody else's\n")
    done = run_pytest(folder)
    assert "no tests ran" in done.stdout


def test_a_file_that_is_named_is_collected_and_must_be_suites(folder):
    (folder / "any.yaml").write_text("topic: core/Repeat\n" + cases(("one", 1, "equals: 1")))
    assert "1 passed" in run_pytest(folder, "any.yaml").stdout
    (folder / "bad.yaml").write_text("name: no suite\n")
    done = run_pytest(folder, "bad.yaml")
    assert "bad.yaml:1: a suite has no topic" in done.stdout
    assert "1 error" in done.stdout


def test_the_setting_names_other_patterns(folder):
    (folder / "suites").mkdir()
    (folder / "suites" / "a.yaml").write_text("topic: core/Repeat\n" + cases(("a", 1, "equals: 1")))
    (folder / "pytest.ini").write_text("[pytest]\nmsgflo_suites = suites/*.yaml\n")
    assert "1 passed" in run_pytest(folder).stdout


def test_pytest_finds_the_plug_in_by_itself():
    (found,) = [it for it in entry_points(group="pytest11") if it.name == "msgflo"]
    assert found.value == "msgflo.spec.pytest_plugin"


def test_the_plug_in_alone_loads_nothing_of_msgflo():
    code = (
        "import sys, msgflo.spec.pytest_plugin; "
        "print([m for m in sys.modules if m.startswith('msgflo.') and 'spec' not in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]"
