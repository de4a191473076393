"""Suites of tests: what they say, read and checked. Pure.

A text holds one suite a document. What keeps a suite from being understood is an error, with its
line; what is wrong with one case alone (an unknown operator, a sequence that does not fit) fails
that case when it is run, and no other.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NoReturn

from msgflo.errors import GraphError, SpecError, YamlError, near
from msgflo.flow.fbp import parse_fbp
from msgflo.flow.graph import Graph
from msgflo.flow.graphjson import load_json
from msgflo.flow.yamltext import Document, load_yaml_documents
from msgflo.spec.expectation import Expectation, parse_expectation, shown

__all__ = [
    "DEFAULT_TIMEOUT",
    "TESTEE",
    "Case",
    "Fixture",
    "Step",
    "Suite",
    "fixture_of",
    "parse_suites",
]

DEFAULT_TIMEOUT: Final = 2.0
"""Seconds: for each case, and for setting up, unless a suite says otherwise."""

TESTEE: Final = "testee"
"""The node of a fixture that was made of a topic."""

_SUITE_KEYS: Final = ("topic", "name", "fixture", "cases", "timeout", "skip")
_CASE_KEYS: Final = ("name", "assertion", "inputs", "expect", "timeout", "skip")


@dataclass(frozen=True, slots=True)
class Step:
    """Packets to send, and what is expected to come of them.

    Attributes:
        inputs: data by inport.
        expect: expectations by outport.
    """

    inputs: Mapping[str, Any]
    expect: Mapping[str, tuple[Expectation, ...]]


@dataclass(frozen=True, slots=True)
class Case:
    """One test.

    Attributes:
        name: the scenario.
        assertion: what is asserted.
        steps: one, or a sequence.
        timeout: seconds for each step.
        skip: why it is not run; ``""``: it is.
        problem: what is wrong with it, so that it fails without being run; ``""``: nothing.
        line: where it begins in its file, from 1.
    """

    name: str
    assertion: str
    steps: tuple[Step, ...]
    timeout: float = DEFAULT_TIMEOUT
    skip: str = ""
    problem: str = ""
    line: int = 1


@dataclass(frozen=True, slots=True)
class Fixture:
    """The graph that a suite says to run.

    Attributes:
        type: ``fbp`` or ``json``; another one cannot be set up.
        data: the text.
    """

    type: str
    data: str


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests of one component or graph.

    Attributes:
        topic: the component or graph under test.
        name: its title.
        cases: the tests, in their order.
        fixture: the graph to run; ``None``: one is made of the topic.
        timeout: seconds for setting up.
        skip: why it is not run; ``""``: it is.
        file: where it comes from.
        line: where it begins there, from 1.
    """

    topic: str
    name: str
    cases: tuple[Case, ...] = ()
    fixture: Fixture | None = None
    timeout: float = DEFAULT_TIMEOUT
    skip: str = ""
    file: str = field(default="", compare=False)
    line: int = field(default=1, compare=False)

    @property
    def runs(self) -> bool:
        """Whether there is anything to run in it."""
        return not self.skip and any(not case.skip for case in self.cases)

    def graph(self) -> Graph | None:
        """Return the graph of the fixture; ``None`` if there is no fixture.

        Raises:
            SpecError: it is no graph.
        """
        if self.fixture is None:
            return None
        where = f"{self.file}:{self.line}: the fixture of {self.name!r}"
        try:
            match self.fixture.type:
                case "fbp":
                    return parse_fbp(self.fixture.data, "the fixture")
                case "json":
                    return load_json(self.fixture.data, "the fixture")
        except GraphError as error:
            raise SpecError(f"{where} is no graph: {error}") from None
        raise SpecError(
            f"{where} is of type {self.fixture.type!r}; expected fbp or json."
            f"{near(self.fixture.type, ('fbp', 'json'))}"
        )


def fixture_of(topic: str, inports: Iterable[str], outports: Iterable[str]) -> Graph:
    """Return a graph of one node of a component, with all of its ports exported.

    Raises:
        SpecError: it has no inports or no outports, so that nothing can be tested.
    """
    graph = Graph(case_sensitive=True)
    graph.add_node(TESTEE, topic)
    for port in inports:
        graph.add_inport(port, TESTEE, port)
    for port in outports:
        graph.add_outport(port, TESTEE, port)
    for direction, ports in (("inports", graph.inports), ("outports", graph.outports)):
        if not ports:
            raise SpecError(
                f"component {topic!r} has no {direction}: it cannot be tested without a fixture "
                f"that joins it to others"
            )
    return graph


def parse_suites(text: str, name: str) -> list[Suite]:
    """Read the suites of a text, one a document. Empty documents are passed over.

    Args:
        text: YAML (JSON is YAML too).
        name: the file, for errors.

    Raises:
        SpecError: it is no YAML, or a document is no suite: where, and what was expected.
    """
    try:
        documents = load_yaml_documents(text, name)
    except YamlError as error:
        raise SpecError(str(error)) from None
    return [_Reader(document).suite() for document in documents if document.value is not None]


class _Reader:
    def __init__(self, document: Document) -> None:
        self.document = document

    def fail(self, problem: str, container: Any, key: str | int | None = None) -> NoReturn:
        line = self.document.line(container, key)
        raise SpecError(f"{self.document.name}:{line}: {problem}")

    def suite(self) -> Suite:
        said = self.document.value
        if not isinstance(said, dict):
            self.fail(f"{shown(said)} is no suite; expected a map with topic and cases", said)
        if "topic" not in said:
            self.fail(f"a suite has no topic; it has: {', '.join(said) or 'nothing'}", said)
        topic = self.text(said, "topic")
        timeout = self.timeout(said, DEFAULT_TIMEOUT)
        cases = said.get("cases")
        if cases is None:
            hint = next((near(key, ["cases"]) for key in said if key not in _SUITE_KEYS), "")
            if hint:
                self.fail(f"a suite has no cases.{hint}", said)
            cases = []
        if not isinstance(cases, list):
            self.fail(f"cases is {shown(cases)}; expected a list", said, "cases")
        return Suite(
            topic=topic,
            name=self.text(said, "name", optional=True) or topic,
            cases=tuple(self.case(case, cases, n, timeout) for n, case in enumerate(cases)),
            fixture=self.fixture(said),
            timeout=timeout,
            skip=self.skip(said),
            file=self.document.name,
            line=self.document.line(said),
        )

    def fixture(self, suite: dict[str, Any]) -> Fixture | None:
        said = suite.get("fixture")
        if said is None:
            return None
        if not isinstance(said, dict) or "data" not in said:
            self.fail(
                f"fixture is {shown(said)}; expected a map with type (fbp, json) and data",
                suite,
                "fixture",
            )
        data = said["data"]
        if isinstance(data, dict):
            data = json.dumps(data)
        if not isinstance(data, str):
            self.fail(f"the fixture's data is {shown(data)}; expected a text", said, "data")
        return Fixture(self.text(said, "type", optional=True) or "fbp", data)

    def case(self, said: Any, cases: list[Any], number: int, timeout: float) -> Case:
        if not isinstance(said, dict):
            self.fail(f"{shown(said)} is no case; expected a map", cases, number)
        for key in ("name", "assertion", "inputs", "expect"):
            if key not in said:
                hint = next((near(it, [key]) for it in said if it not in _CASE_KEYS), "")
                self.fail(f"case {said.get('name', number)!r} has no {key}.{hint}", said)
        case = Case(
            name=self.text(said, "name"),
            assertion=self.text(said, "assertion"),
            steps=(),
            timeout=self.timeout(said, timeout),
            skip=self.skip(said),
            line=self.document.line(said),
        )
        inputs = self.maps(said, "inputs", "data by inport")
        expect = self.maps(said, "expect", "expectations by outport")
        if len(inputs) != len(expect):
            return replace(
                case,
                problem=f"Test sequence length mismatch. "
                f"Got {len(inputs)} inputs and {len(expect)} expectations",
            )
        try:
            steps = tuple(
                Step(data, {port: _expectations(it) for port, it in ports.items()})
                for data, ports in zip(inputs, expect, strict=True)
            )
        except SpecError as error:
            return replace(case, problem=str(error))
        return replace(case, steps=steps)

    def maps(self, case: dict[str, Any], key: str, what: str) -> list[dict[str, Any]]:
        said = case[key]
        listed = said if isinstance(said, list) else [said]
        for item in listed:
            if not isinstance(item, dict):
                self.fail(f"{key} is {shown(said)}; expected a map of {what}", case, key)
        return listed

    def text(self, said: dict[str, Any], key: str, *, optional: bool = False) -> str:
        value = said.get(key)
        if optional and value is None:
            return ""
        if isinstance(value, int | float | bool):
            value = str(value).lower() if isinstance(value, bool) else str(value)
        if not isinstance(value, str) or not value:
            self.fail(f"{key} is {shown(value)}; expected a text", said, key)
        return value

    def timeout(self, said: dict[str, Any], default: float) -> float:
        value = said.get("timeout")
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            self.fail(f"timeout is {shown(value)}; expected milliseconds", said, "timeout")
        return value / 1000

    def skip(self, said: dict[str, Any]) -> str:
        value = said.get("skip")
        if value is None or value is False:
            return ""
        return "no reason given" if value is True else self.text(said, "skip", optional=True)


def _expectations(said: Any) -> tuple[Expectation, ...]:
    listed = said if isinstance(said, list) else [said]
    return tuple(parse_expectation(it) for it in listed)
