"""A project with some components to test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from msgflo.spec.inprocess import InProcess

COMPONENTS = """
import asyncio

import msgflo
from msgflo import In, Out, Param


@msgflo.component("core/Repeat")
def repeat(value: object) -> object:
    return value


@msgflo.component("DummyComponent")
async def dummy(value: object) -> object:
    return value


@msgflo.component("Picky")
def picky(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number


@msgflo.component("Kind")
def kind(number: int, error: Out[object]) -> int:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number


@msgflo.component("Add")
def add(number: int, more: Param[int]) -> int:
    return number + more


@msgflo.component("Silent")
def silent(value: object, out: Out[object]) -> None:
    pass


@msgflo.component("Both")
def both(value: object, left: Out[object], right: Out[object]) -> None:
    left([value, "first"])
    left([value, "last"])
    right(value)


@msgflo.component("Aside")
def aside(value: object, note: Out[object], out: Out[object]) -> None:
    note("on the way")
    out(value)


@msgflo.component("Bytes")
def raw(value: str) -> bytes:
    return bytes.fromhex(value)


@msgflo.component("SendsAndFails")
async def sends_and_fails(value: object, out: Out[object]) -> None:
    await out(value)
    await asyncio.sleep(0.01)
    raise ValueError("too late")


@msgflo.component("Many")
def many(count: int):
    yield from range(count)


class Counter(msgflo.Component):
    out = Out(int)

    def __init__(self):
        self.sum = 0

    @msgflo.inport("in")
    async def add(self, number: int):
        self.sum += number
        self.out(self.sum)


class Broken(msgflo.Component):
    out = Out(int)

    async def start(self):
        raise RuntimeError("no licence")

    @msgflo.inport("in")
    async def take(self, number: int): ...


@msgflo.component("Leaves")
def leaves(value: object) -> object:
    raise SystemExit(3)
"""

CLASSIC = """
import msgflo


class Repeat(msgflo.Participant):
    def __init__(self, role):
        d = {
            'component': 'Classic',
            'label': 'Repeat input data without change',
            'inports': [{'id': 'in', 'type': 'any'}],
            'outports': [{'id': 'out', 'type': 'any'}],
        }
        msgflo.Participant.__init__(self, d, role)

    def process(self, inport, msg):
        self.send('out', msg.data)
        self.ack(msg)
"""


UNMADE = """
import msgflo


class Unmade(msgflo.Participant):
    def __init__(self, role):
        raise RuntimeError("no tools")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "components"
    folder.mkdir()
    (folder / "several.py").write_text(COMPONENTS)
    (folder / "Classic.py").write_text(CLASSIC)
    (folder / "Unmade.py").write_text(UNMADE)
    (folder / "Fails.py").write_text("import a_module_that_nobody_has")
    (folder / "Node.js").write_text("// not Python")
    (folder / "Lamp.yml").write_text("component: Lamp\ninports: {in: {queue: lamp}}\n")
    return tmp_path


@pytest.fixture
def runtime(project: Path) -> Iterator[InProcess]:
    return InProcess(project)
