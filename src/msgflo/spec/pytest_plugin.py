"""A plug-in of pytest: suites of fbp-spec are collected, and each of their cases is a test.

It is there wherever MsgFlo is installed. The files ``spec/*.yaml`` and ``spec/*.yml`` are collected
as far as they say a ``topic``; ``msgflo_suites`` in pytest's configuration names other patterns. A
file that is named on the command line is collected in any case. The project's Python components
are run in this process, as by ``msgflo test``: a fixture is set up once for its suite. With
``--msgflo-address`` or ``--msgflo-command`` they are run on a runtime, which such a command starts
for each suite.
"""

import asyncio
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

_SUFFIXES = (".yaml", ".yml")
_TOPIC = re.compile(r"^(- )?[\"']?topic[\"']?\s*:", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting and the options."""
    group = parser.getgroup("msgflo", "suites of fbp-spec")
    group.addoption("--msgflo-address", metavar="URL", help="run suites on the runtime there")
    group.addoption(
        "--msgflo-command", metavar="CMD", help="run suites on a runtime that CMD starts"
    )
    group.addoption(
        "--msgflo-start-timeout",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="for the runtime, and then for each fixture's processes, to start (10)",
    )
    parser.addini(
        "msgflo_suites",
        "Patterns of the files that are suites of fbp-spec.",
        type="args",
        default=["spec/*.yaml", "spec/*.yml"],
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "SuiteFile | None":
    """Collect a file that is named, or that looks like suites."""
    if file_path.suffix not in _SUFFIXES:
        return None
    if not parent.session.isinitpath(file_path):
        patterns = parent.config.getini("msgflo_suites")
        if not any(file_path.match(pattern) for pattern in patterns):
            return None
        if not _TOPIC.search(file_path.read_text("utf-8", "replace")):
            return None
    return SuiteFile.from_parent(parent, path=file_path)


class SuiteFile(pytest.File):
    """A file of suites."""

    def collect(self) -> Iterable["SuiteNode"]:
        """Read its suites."""
        from msgflo.errors import SpecError
        from msgflo.spec.files import load_suites

        try:
            suites = load_suites(str(self.path))
        except SpecError as error:
            raise self.CollectError(str(error)) from None
        for suite in suites:
            yield SuiteNode.of(self, suite)


class SuiteNode(pytest.Collector):
    """A suite. Its fixture runs from its first case to its last."""

    suite: Any
    _loop: asyncio.Runner | None = None
    _runtime: Any = None
    _run: Any = None

    @classmethod
    def of(cls, parent: SuiteFile, suite: Any) -> "SuiteNode":
        """Make one of a suite."""
        node: SuiteNode = cls.from_parent(parent, name=suite.name)
        node.suite = suite
        return node

    def collect(self) -> Iterable["CaseItem"]:
        """Return its cases."""
        for case in self.suite.cases:
            yield CaseItem.of(self, case)

    def setup(self) -> None:
        """Set the fixture up."""
        from msgflo.spec.runner import SuiteRun

        self._loop = asyncio.Runner()
        self._runtime = self._loop.run(self._open())
        self._run = SuiteRun(self._runtime, self.suite)
        self._loop.run(self._run.start())

    async def _open(self) -> Any:
        option = self.config.getoption
        address, command = option("msgflo_address"), option("msgflo_command")
        if address or command:
            from msgflo.spec.remote import DEFAULT_ADDRESS, Remote

            return await Remote.open(
                address or DEFAULT_ADDRESS,
                command=command or "",
                secret=os.environ.get("MSGFLO_SECRET", ""),
                start_timeout=option("msgflo_start_timeout"),
            )
        from msgflo.project import find_root
        from msgflo.spec.inprocess import InProcess

        return InProcess(find_root(self.path))

    def teardown(self) -> None:
        """Stop the fixture, and let go of the runtime."""
        if self._loop is None:
            return
        try:
            if self._run is not None:
                self._loop.run(self._run.stop())
            if self._runtime is not None:
                self._loop.run(self._runtime.close())
        finally:
            self._loop.close()
            self._loop = self._run = self._runtime = None

    def run(self, case: Any) -> Any:
        """Run a case and return its result."""
        assert self._loop is not None
        return self._loop.run(self._run.run(case))


class CaseFailed(Exception):
    """A case did not pass.

    Attributes:
        detail: more about why.
    """

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(error)
        self.detail = detail


class CaseItem(pytest.Item):
    """A case of a suite."""

    case: Any

    @classmethod
    def of(cls, parent: SuiteNode, case: Any) -> "CaseItem":
        """Make one of a case."""
        item: CaseItem = cls.from_parent(parent, name=f"{case.name}: {case.assertion}")
        item.case = case
        reason = parent.suite.skip or case.skip
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        return item

    def runtest(self) -> None:
        """Run it."""
        parent = self.parent
        assert isinstance(parent, SuiteNode)
        result = parent.run(self.case)
        if result.error:
            raise CaseFailed(result.error, result.detail)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return what is shown of a failure: what was expected, not where we found out."""
        from msgflo.errors import MsgFloError

        error = excinfo.value
        if isinstance(error, CaseFailed):
            return f"{error.detail}\n{error}" if error.detail else str(error)
        if isinstance(error, MsgFloError):
            return str(error)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where it stands."""
        parent = self.parent
        assert parent is not None
        return self.path, self.case.line - 1, f"{parent.name}: {self.case.name}"
