"""``msgflo test``, as its users call it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from msgflo.trace.flowtrace import event_lines, parse_flowtrace

SUITES = Path(__file__).parent.parent / "spec" / "suites"

COMPONENTS = """
import msgflo


@msgflo.component("core/Repeat")
def repeat(value: object) -> object:
    print("this is no part of the report")
    return value


@msgflo.component("Fails")
def fails(value: object) -> object:
    raise ValueError("it is broken")
"""

GREET = """
import msgflo
from msgflo import Param


@msgflo.component("Greet")
def greet(name: str, greeting: Param[str] = "Hello") -> str:
    return f"{greeting}, {name}!"
"""

CASE = "- {name: a name, assertion: should pass, inputs: {in: 1}, expect: {out: {equals: 1}}}\n"


def msgflo_test(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "msgflo", "test", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )


@pytest.fixture
def project(tmp_path):
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "some.py").write_text(COMPONENTS)
    (tmp_path / "spec").mkdir()
    (tmp_path / "spec" / "repeat.yaml").write_text(f"topic: core/Repeat\ncases:\n{CASE}")
    return tmp_path


def test_the_suites_of_the_project_are_run_and_told_as_fbp_spec_does(project):
    done = msgflo_test(cwd=project)
    assert done.stdout == "core/Repeat\n  a name\n    should pass: ✓\n"
    assert done.returncode == 0
    assert "1 case: 1 passed" in done.stderr


def test_a_failure_is_told_and_makes_exit_status_2(project):
    suite = project / "fails.yaml"
    suite.write_text(f"topic: Fails\ncases:\n{CASE}")
    done = msgflo_test("spec", suite, cwd=project)
    assert done.returncode == 2
    assert "Fails\n  a name\n    should pass: ✗ Error: testee: ValueError: it is broken\n" in (
        done.stdout
    )
    assert "Traceback" not in done.stderr
    assert "Traceback" in msgflo_test(suite, "-v", cwd=project).stderr


def test_what_cannot_be_set_up_makes_exit_status_1_and_the_others_are_run(project):
    suite = project / "nobody.yaml"
    suite.write_text(f"topic: Nobody\ncases:\n{CASE}")
    done = msgflo_test(suite, "spec", cwd=project)
    assert done.returncode == 1
    assert "the library has no component 'Nobody'" in done.stderr
    assert "core/Repeat\n  a name\n    should pass: ✓\n" in done.stdout


def test_a_file_that_is_no_suite_makes_exit_status_1(project):
    (project / "bad.yaml").write_text("topic: {")
    done = msgflo_test("bad.yaml", cwd=project)
    assert done.returncode == 1
    assert "bad.yaml:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_suites_it_is_wrong_use(tmp_path):
    (tmp_path / "components").mkdir()
    done = msgflo_test(cwd=tmp_path)
    assert done.returncode == 2
    assert "name suites to run" in done.stderr


def test_results_as_json_and_junit_xml(project):
    done = msgflo_test("--json", "--junit", "out.xml", "spec", cwd=project)
    said = json.loads(done.stdout)
    assert said["passed"] == 1
    assert said["suites"][0]["cases"][0]["status"] == "passed"
    root = Xml.parse(project / "out.xml").getroot()
    assert root.attrib["tests"] == "1"
    assert root.find("testsuite/testcase") is not None


def test_a_trace_of_each_case_is_written_and_can_be_shown(project):
    (project / "spec" / "repeat.yaml").write_text(f"topic: core/Repeat\ncases:\n{CASE}{CASE}")
    done = msgflo_test("--trace", cwd=project)
    assert done.returncode == 0
    head, _, files = done.stdout.partition("\nFlowtraces produced:\n")
    assert head.count("✓") == 2
    written = [project / line.removeprefix("- ") for line in files.splitlines()]
    assert len(set(written)) == 2
    for path in written:
        trace = parse_flowtrace(path.read_text())
        assert [line.split(" DATA ") for line in event_lines(trace.events)] == [
            ["-> IN testee", "1"],
            ["testee OUT ->", "1"],
        ]
        assert list(trace.graphs[trace.main_graph]["processes"]) == ["testee"]


def test_component_tests_are_run_without_naming_them(project):
    (project / "spec" / "some.yaml").write_text(f"topic: core/Repeat\nname: own\ncases:\n{CASE}")
    done = msgflo_test("--component-tests", cwd=project)
    assert done.stdout.startswith("own\n")
    assert done.returncode == 0


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_case_gets_the_verdict_that_its_text_says(project, path):
    """As the reference's own examples do: an assertion is ``should pass`` or ``should fail``."""
    done = msgflo_test("--json", "--project", project, path, cwd=project)
    cases = [case for suite in json.loads(done.stdout)["suites"] for case in suite["cases"]]
    assert cases
    verdicts = {"should pass": "passed", "should fail": "failed", "should skip": "skipped"}
    assert [case["status"] for case in cases] == [verdicts[case["assertion"]] for case in cases]
    assert all("expect" in case["error"] for case in cases if case["status"] == "failed")
    assert done.returncode == (2 if "failed" in {case["status"] for case in cases} else 0)


@pytest.mark.timeout(120)
def test_suites_have_the_same_verdicts_on_msgflo_run_as_in_process(tmp_path):
    """The command starts ``msgflo run``; fixtures are built and stopped by the protocol."""
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        port = it.getsockname()[1]
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "Greet.py").write_text(GREET)
    (tmp_path / "suite.yaml").write_text("""
topic: Greet
name: with settings
timeout: 20000
fixture:
  type: fbp
  data: |
    INPORT=a.IN:IN
    OUTPORT=b.OUT:OUT
    'Moin' -> GREETING a(Greet) OUT -> IN b(Greet)
cases:
- {name: one, assertion: a, inputs: {in: Ada}, expect: {out: {equals: "Hello, Moin, Ada!!"}}}
- {name: two, assertion: a, inputs: {in: Bob}, expect: {out: {equals: "Hello, Moin, Ada!!"}}}
- {name: three, assertion: a, inputs: {in: 5}, expect: {out: {equals: 5}}, timeout: 500}
""")
    here = msgflo_test("suite.yaml", cwd=tmp_path)
    command = f"{sys.executable} -m msgflo run --port {port}"
    there = msgflo_test(
        "--address", f"ws://127.0.0.1:{port}", "--command", command,
        "--start-timeout", "30", "suite.yaml", cwd=tmp_path,
    )  # fmt: skip
    for done in (here, there):
        assert done.returncode == 2, done.stderr
        assert done.stdout.startswith("with settings\n  one\n    a: ✓\n  two\n    a: ✗ Error: ")
        assert "  three\n    a: ✗ Error: " in done.stdout
    assert here.stdout.splitlines()[:5] == there.stdout.splitlines()[:5]
