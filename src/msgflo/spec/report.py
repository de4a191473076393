"""What became of suites: as text, as fbp-spec writes it; as JUnit XML; as JSON. Pure."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final
from xml.etree import ElementTree as Xml

from msgflo.spec.runner import CaseResult, Status, SuiteResult

__all__ = ["as_json", "as_text", "count", "exit_status", "junit_xml", "summary"]

_INDENT: Final = "  "

# What XML 1.0 cannot say at all, not even escaped.
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_text(suite: SuiteResult, case: CaseResult) -> str:
    """Return what is written of a case when it is done; of a suite's first one, its name too."""
    match case.status:
        case Status.PASSED:
            said = "✓"
        case Status.SKIPPED:
            said = f"SKIP: {case.error}"
        case Status.FAILED:
            said = f"✗ Error: {case.error}"
    lines = [
        f"{_INDENT}{case.case.name}",
        f"{_INDENT * 2}{case.case.assertion}: {said}",
    ]
    if suite.cases and suite.cases[0] is case:
        lines.insert(0, suite.suite.name)
    return "\n".join(lines)


def count(suites: Iterable[SuiteResult], status: Status) -> int:
    """Return how many cases of suites have become that."""
    return sum(case.status is status for suite in suites for case in suite.cases)


def summary(suites: Sequence[SuiteResult]) -> str:
    """Return a line that sums it up."""
    total = sum(len(suite.cases) for suite in suites)
    parts = [f"{count(suites, Status.PASSED)} passed"]
    for status in (Status.FAILED, Status.SKIPPED):
        number = count(suites, status)
        if number:
            parts.append(f"{number} {status}")
    return f"{total} case{'' if total == 1 else 's'}: {', '.join(parts)}"


def exit_status(suites: Iterable[SuiteResult]) -> int:
    """Return what a command exits with: 0: all passed; 2: some failed; 1: some were not set up."""
    suites = list(suites)
    if any(suite.problem for suite in suites):
        return 1
    return 2 if count(suites, Status.FAILED) else 0


def as_json(suites: Sequence[SuiteResult]) -> dict[str, Any]:
    """Return all of it as JSON has it."""
    return {
        "passed": count(suites, Status.PASSED),
        "failed": count(suites, Status.FAILED),
        "skipped": count(suites, Status.SKIPPED),
        "suites": [
            {
                "name": result.suite.name,
                "topic": result.suite.topic,
                "file": result.suite.file,
                "problem": result.problem,
                "seconds": round(result.seconds, 6),
                "cases": [
                    {
                        "name": case.case.name,
                        "assertion": case.case.assertion,
                        "line": case.case.line,
                        "status": str(case.status),
                        "error": case.error,
                        "detail": case.detail,
                        "seconds": round(case.seconds, 6),
                    }
                    for case in result.cases
                ],
            }
            for result in suites
        ],
    }


def junit_xml(suites: Sequence[SuiteResult]) -> str:
    """Return all of it as JUnit XML, which CI systems read."""
    root = Xml.Element("testsuites", {"name": "msgflo test", **_numbers(suites)})
    for result in suites:
        numbers = _numbers([result])
        suite = Xml.SubElement(root, "testsuite", {"name": _sayable(result.suite.name), **numbers})
        if result.suite.file:
            suite.set("file", _sayable(result.suite.file))
        for it in result.cases:
            case = Xml.SubElement(
                suite,
                "testcase",
                {
                    "classname": _sayable(result.suite.topic),
                    "name": _sayable(f"{it.case.name}: {it.case.assertion}"),
                    "time": f"{it.seconds:.6f}",
                },
            )
            if it.status is Status.SKIPPED:
                Xml.SubElement(case, "skipped", {"message": _sayable(it.error)})
            elif it.status is Status.FAILED:
                kind = "error" if result.problem else "failure"
                failed = Xml.SubElement(case, kind, {"message": _sayable(it.error)})
                failed.text = _sayable(it.detail or it.error)
    Xml.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{Xml.tostring(root, encoding="unicode")}\n'


def _numbers(suites: Sequence[SuiteResult]) -> dict[str, str]:
    failed = [s for s in suites if not s.problem]
    broken = [s for s in suites if s.problem]
    return {
        "tests": str(sum(len(suite.cases) for suite in suites)),
        "failures": str(count(failed, Status.FAILED)),
        "errors": str(count(broken, Status.FAILED)),
        "skipped": str(count(suites, Status.SKIPPED)),
        "time": f"{sum(suite.seconds for suite in suites):.6f}",
    }


def _sayable(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
