import textwrap
from pathlib import Path

import pytest

from msgflo.classic import Participant
from msgflo.declaration import declared
from msgflo.loading import load_components
from msgflo.processes.ports import Shape, shapes_in

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("components/*.py"))

CASES = '''
import msgflo
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any
from msgflo import Context, In, Out, Param


class Image(msgflo.Struct):
    url: str


@msgflo.component
def plain(text):
    return text


@msgflo.component("demo/Named", icon="star", label="said")
async def named(
    image: Annotated[Image, In("address")], ctx: Context, size: Param[int] = 3
) -> bytes:
    """Not this."""


@msgflo.component
def nothing(text: str) -> None:
    """Ends with null."""


@msgflo.component
def sink(number: float) -> None: ...


@msgflo.component
def outs(line: "str | None", word: Out[str], empty_: Out[None]):
    word(line)


@msgflo.component
def many(path: list[str]) -> Iterator[dict[str, Any]]:
    yield {}


@msgflo.component
async def stream(x: bool) -> AsyncIterator[int]:
    yield 1


@msgflo.source(every=1)
async def clock() -> float: ...


@msgflo.source
def count():
    yield 1


def helper(x): ...


class Web(msgflo.Component):
    """Several ports."""

    job = Out(Image)
    rate: Param[float] = 1.0

    @msgflo.inport
    async def result(self, result: Image): ...

    @msgflo.inport("other")
    async def another(self, thing: Any) -> str: ...
'''

CLASSIC = """
import msgflo


class Repeat(msgflo.Participant):
    def __init__(self, role):
        d = {
            "component": "PythonRepeat",
            "label": "Repeat input data",
            "icon": "retweet",
            "inports": [{"id": "in", "type": "any"}],
            "outports": [{"id": "out", "type": "string"}],
        }
        msgflo.Participant.__init__(self, d, role)

    def process(self, inport, msg):
        self.ack(msg)
"""


def ports(shape: Shape) -> tuple[object, ...]:
    return (
        sorted((port.id, port.type) for port in shape.inports),
        sorted((port.id, port.type) for port in shape.outports),
        shape.icon or "file-o",
    )


def really(file: Path) -> dict[str, tuple[object, ...]]:
    """What the components of a file are when they are run."""
    found = {}
    for thing in load_components(file):
        classic = isinstance(thing, type) and issubclass(thing, Participant)
        definition = declared(thing("x") if classic else thing).definition("x", "x")
        name = thing.__name__ if classic else definition.component
        found[name] = (
            sorted((port.id, port.type) for port in definition.inports),
            sorted((port.id, port.type) for port in definition.outports),
            definition.icon,
        )
    return found


@pytest.mark.parametrize("code", [CASES, CLASSIC])
def test_what_is_read_is_what_running_it_tells(code, tmp_path):
    file = tmp_path / "components_read.py"
    file.write_text(textwrap.dedent(code))
    assert {shape.name: ports(shape) for shape in shapes_in(file.read_text())} == really(file)


FORMS = {
    "aliases": "from msgflo import component as c, Out as O\n"
    "@c\ndef f(x: str, o: O[int]) -> None: ...",
    "module": "import msgflo as m\n@m.component('n')\ndef f(x: m.Param[int], y: str): ...",
    "base": "from msgflo import Component as C\nclass W(C):\n    job = Out(int)",
    "future": "from __future__ import annotations\nimport msgflo\nfrom msgflo import Out\n"
    "@msgflo.component\ndef f(x: str, o: Out[int]) -> None: ...",
    "optional": "@msgflo.component\ndef f(x: Optional[int]) -> Union[str, None]: ...",
    "unions": "@msgflo.component\ndef f(x: Union[int, str]) -> int | None: ...",
    "literals": "@msgflo.component\ndef f(x: Literal['a', 'b']) -> Literal[1]: ...",
    "typing": "@msgflo.component\ndef f(x: List[int]) -> Dict[str, int]: ...",
    "renamed": "Url = str\n@msgflo.component\ndef f(x: Url) -> Url: ...",
    "typevar": "T = TypeVar('T')\n@msgflo.component\ndef f(x: T) -> T: ...",
    "frozen": "@msgflo.component\ndef f(x: frozenset[int]) -> set: ...",
    "inner": "@msgflo.component\ndef f(x: str, o: Out[int]):\n"
    "    def g():\n        yield 1\n    h = lambda: (yield 1)",
    "deep": "@msgflo.component\ndef f(x: str):\n    for y in x:\n        if y:\n"
    "            yield y",
    "names": "@msgflo.component\ndef f(x: str, o: Annotated[Out[int], Out(name='r')],"
    " p: Annotated[Param[int], In('rate')] = 3) -> Annotated[None, Out(name='done')]: ...",
    "texts": "@msgflo.component\ndef f(x: 'str', o: 'Out[int]') -> 'None': ...",
    "class": "class W(msgflo.Component, name='a/W', icon='globe'):\n    job_ = Out(int)\n"
    "    @msgflo.inport\n    def in_(self, x: str): ...",
    "both": "class W(msgflo.Component):\n    @msgflo.inport\n    def a(self, x: str) -> int: ...\n"
    "    @msgflo.inport\n    def b(self, x: int) -> str: ...",
}


@pytest.mark.parametrize("form", FORMS)
def test_whatever_way_it_is_written_the_ports_are_the_same(form, tmp_path):
    file = tmp_path / f"components_{form}.py"
    head = "" if "__future__" in FORMS[form] else "import msgflo\nfrom typing import *\n"
    file.write_text(head + (head and "from msgflo import In, Out, Param\n") + FORMS[form] + "\n")
    assert {shape.name: ports(shape) for shape in shapes_in(file.read_text())} == really(file)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: f"{file.parts[-3]}/{file.stem}")
def test_the_examples_have_the_ports_that_are_read(file):
    """Names and types; an icon may be made up while it runs."""
    read = {shape.name: ports(shape)[:2] for shape in shapes_in(file.read_text())}
    try:
        known = really(file)
    except ImportError:
        pytest.skip("a library of the example is not installed")
    assert [ports_[:2] for ports_ in known.values()] == list(read.values())


def test_labels_are_what_is_said_or_the_first_line():
    labels = {shape.name: shape.label for shape in shapes_in(CASES)}
    assert labels["demo/Named"] == "said"
    assert labels["nothing"] == "Ends with null."
    assert labels["Web"] == "Several ports."


@pytest.mark.parametrize("code", ["def", "\0", "@msgflo.component(\ndef f(", "(" * 5000])
def test_what_is_no_python_raises_what_the_parser_raises(code):
    with pytest.raises((SyntaxError, ValueError, RecursionError, MemoryError)):
        shapes_in(code)


def test_strange_code_is_read_as_far_as_it_goes():
    code = """
    import msgflo
    @msgflo.component(name=f"x{1}", icon=3)
    def f(a: "not [ python", /, *args, b: Out[x] = 1, **kw) -> "also[": ...
    @component
    class C: ...
    class P(Participant):
        d = {"component": 1, **{}, "inports": [{"id": 1}, 3, {"id": "ok", "type": 3}]}
    """
    assert [shape.name for shape in shapes_in(textwrap.dedent(code))] == ["f", "C", "P"]
