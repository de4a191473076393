import json
from xml.etree import ElementTree as Xml

from msgflo.spec.report import as_json, as_text, exit_status, junit_xml, summary
from msgflo.spec.runner import CaseResult, Status, SuiteResult
from msgflo.spec.suite import Case, Suite


def a_case(name="a name", assertion="should be so"):
    return Case(name, assertion, ())


def results():
    suite = SuiteResult(Suite("T", "A suite", file="f.yaml"))
    suite.cases = [
        CaseResult(a_case("one"), Status.PASSED, seconds=0.25),
        CaseResult(a_case("two"), Status.FAILED, "expected \x1b[1 < 2]", "a traceback"),
        CaseResult(a_case("three"), Status.SKIPPED, "later"),
    ]
    broken = SuiteResult(Suite("B", "Broken"), problem="not set up")
    broken.cases = [CaseResult(a_case(), Status.FAILED, "not set up")]
    return suite, broken


def test_the_text_is_that_of_fbp_spec():
    suite, _ = results()
    assert [as_text(suite, case) for case in suite.cases] == [
        "A suite\n  one\n    should be so: ✓",
        "  two\n    should be so: ✗ Error: expected \x1b[1 < 2]",
        "  three\n    should be so: SKIP: later",
    ]


def test_the_exit_status_is_that_of_fbp_spec():
    suite, broken = results()
    assert exit_status([suite]) == 2
    assert exit_status([suite, broken]) == 1
    suite.cases.pop(1)
    assert exit_status([suite]) == 0
    assert exit_status([]) == 0


def test_a_summary_counts():
    suite, broken = results()
    assert summary([suite]) == "3 cases: 1 passed, 1 failed, 1 skipped"
    assert summary([broken]) == "1 case: 0 passed, 1 failed"


def test_junit_xml_has_what_ci_systems_read():
    root = Xml.fromstring(junit_xml(results()))
    assert root.attrib["tests"] == "4"
    assert (root.attrib["failures"], root.attrib["errors"], root.attrib["skipped"]) == (
        "1", "1", "1",
    )  # fmt: skip
    suite, broken = root
    assert suite.attrib["name"] == "A suite"
    assert suite.attrib["file"] == "f.yaml"
    passed, failed, skipped = suite
    assert passed.attrib["name"] == "one: should be so"
    assert passed.attrib["classname"] == "T"
    assert float(passed.attrib["time"]) == 0.25
    assert failed[0].tag == "failure"
    assert failed[0].attrib["message"] == "expected \ufffd[1 < 2]"
    assert failed[0].text == "a traceback"
    assert skipped[0].attrib["message"] == "later"
    assert broken[0][0].tag == "error"


def test_json_has_all_of_it():
    said = json.loads(json.dumps(as_json(results())))
    assert (said["passed"], said["failed"], said["skipped"]) == (1, 2, 1)
    assert said["suites"][0]["cases"][1]["status"] == "failed"
    assert said["suites"][1]["problem"] == "not set up"
