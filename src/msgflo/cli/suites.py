"""Suites of fbp-spec, run in this process or on any runtime, or recorded."""

import asyncio
import contextlib
import logging
import re
import sys
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TextIO

import click
import msgspec

from msgflo.cli import recording
from msgflo.errors import SpecError
from msgflo.project import find_root, write_atomically
from msgflo.spec.files import load_suites
from msgflo.spec.inprocess import InProcess
from msgflo.spec.report import as_json, as_text, exit_status, junit_xml, summary
from msgflo.spec.runner import CaseResult, Runtime, SuiteResult, run_suites
from msgflo.spec.suite import Case, Suite
from msgflo.trace.flowtrace import Flowtrace, dump_flowtrace

__all__ = ["run_tests"]


def run_tests(
    files: tuple[str, ...],
    *,
    address: str | None,
    command: str | None,
    secret: str,
    start_timeout: float,
    command_timeout: float,
    record: bool,
    into: Path | None,
    count: int,
    timeout: float,
    graph: Path | None,
    broker: str | None,
    component_tests: bool,
    junit: Path | None,
    json_output: bool,
    trace: bool,
    verbose: bool,
    project: Path | None,
) -> int:
    """Do what ``msgflo test`` was told to; its options have the arguments' names.

    Returns:
        The exit status: 0 if all passed, 2 if some failed, 1 if some could not be set up.

    Raises:
        MsgFloError: there is nothing to run, or a file cannot be written.
    """
    if record:
        return asyncio.run(
            recording.record(
                files,
                count=count,
                timeout=timeout,
                into=into,
                graph=graph,
                url=broker,
                project=project,
            )
        )
    named = files
    if not named and not component_tests:
        folder = (project or find_root(Path.cwd())) / "spec"
        if not folder.is_dir():
            raise click.UsageError(f"name suites to run; there is no folder {folder}")
        named = (str(folder),)
    suites = load_suites(*named)
    if not verbose:
        # What components log is part of a failure's detail, and no output of this command.
        logging.getLogger("msgflo").addHandler(logging.NullHandler())
    traces = _Traces(Path(".flowtrace")) if trace else None
    report = _Report(sys.stdout, quiet=json_output, verbose=verbose)

    async def run() -> list[SuiteResult]:
        if address is None and command is None:
            return await _in_process(suites, project, component_tests, report, traces)
        # Loaded on use: suites that run in this process need no client of the protocol.
        from msgflo.spec.remote import DEFAULT_ADDRESS, Remote

        runtime = await Remote.open(
            address or DEFAULT_ADDRESS,
            secret=secret,
            command=command or "",
            start_timeout=start_timeout,
            command_timeout=command_timeout,
            printed=lambda line: click.echo(line, err=True),
        )
        return await _on(runtime, suites, component_tests, report, traces)

    with contextlib.redirect_stdout(sys.stderr):  # what components print
        results = asyncio.run(run())
    if json_output:
        click.echo(msgspec.json.format(msgspec.json.encode(as_json(results)), indent=2))
    elif traces is not None and traces.written:
        listed = "\n".join(f"- {file}" for file in traces.written)
        click.echo(f"\nFlowtraces produced:\n{listed}")
    if junit is not None:
        try:
            write_atomically(junit, junit_xml(results).encode())
        except OSError as error:
            raise SpecError(f"cannot write {junit}: {error.strerror or error}") from None
    for problem in dict.fromkeys(result.problem for result in results if result.problem):
        click.echo(f"msgflo: {problem}", err=True)
    click.echo(summary(results), err=True)
    return exit_status(results)


class _Report:
    """Writes what became of each case when it is done."""

    def __init__(self, out: TextIO, *, quiet: bool, verbose: bool) -> None:
        self._out = out
        self._quiet = quiet
        self._verbose = verbose

    def __call__(self, suite: SuiteResult, case: CaseResult) -> None:
        if not self._quiet:
            click.echo(as_text(suite, case), file=self._out)
        if self._verbose and case.detail:
            click.echo(case.detail, err=True)


class _Traces:
    """Writes what passed during each case, as fbp-spec names it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.written: list[Path] = []

    def __call__(self, suite: Suite, case: Case, trace: Flowtrace) -> None:
        name = f"{datetime.now().astimezone():%Y-%m-%d}-{suite.name}-{case.name}"
        slug = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:120]
        file = self._folder / f"{slug}.json"
        if file in self.written:
            file = self._folder / f"{slug}-{len(self.written) + 1}.json"
        trace.metadata["label"] = f"{suite.name}: {case.name}"
        try:
            self._folder.mkdir(exist_ok=True)
            write_atomically(file, dump_flowtrace(trace).encode())
        except OSError as error:
            raise SpecError(f"cannot write {file}: {error.strerror or error}") from None
        self.written.append(file)


async def _in_process(
    suites: list[Suite],
    project: Path | None,
    component_tests: bool,
    report: _Report,
    traces: _Traces | None,
) -> list[SuiteResult]:
    def root_of(suite: Suite) -> Path:
        if project is not None or suite.file.startswith(("http://", "https://")):
            return project or find_root(Path.cwd())
        return find_root(Path(suite.file))

    results = []
    if component_tests:
        results += await _on(InProcess(project or find_root(Path.cwd())), [], True, report, traces)
    for root, its in groupby(suites, root_of):
        results += await _on(InProcess(root), list(its), False, report, traces)
    return results


async def _on(
    runtime: Runtime,
    suites: list[Suite],
    component_tests: bool,
    report: _Report,
    traces: _Traces | None,
) -> list[SuiteResult]:
    try:
        if component_tests:
            suites = [*suites, *await runtime.component_suites()]
        return await run_suites(runtime, suites, report, traces)
    finally:
        await runtime.close()
