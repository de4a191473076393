import asyncio
from pathlib import Path

import pytest

from msgflo.errors import GraphError
from msgflo.flow.fbp import parse_fbp
from msgflo.flow.graph import Endpoint, Graph
from msgflo.project import load_graph
from msgflo.steering.files import GraphFile

WAIT = 30.0


class Desk:
    """A graph and what was said of its file."""

    def __init__(self, path: Path, *, auto: bool = False, graph: Graph | None = None) -> None:
        self.graph = graph or (load_graph(path) if path.exists() else Graph("main"))
        self.read: list[Graph] = []
        self.told: list[str] = []
        self.changed = asyncio.Event()
        self.file = GraphFile(
            lambda: self.graph,
            path,
            path.parent,
            auto=auto,
            changed=self._changed,
            tell=self._tell,
        )

    def _changed(self, graph: Graph) -> None:
        self.graph = graph
        self.read.append(graph)
        self.changed.set()

    def _tell(self, text: str) -> None:
        self.told.append(text)
        self.changed.set()

    async def news(self) -> None:
        async with asyncio.timeout(WAIT):
            await self.changed.wait()
        self.changed.clear()


def kept(folder: Path) -> list[str]:
    return [file.read_text() for file in sorted((folder / ".msgflo" / "history").iterdir())]


async def test_a_graph_is_saved_when_that_is_asked_for_and_what_was_there_is_kept(tmp_path):
    path = tmp_path / "main.fbp"
    path.write_text("# about a\na(A) OUT -> IN b(B)\n")
    desk = Desk(path)
    before = path.read_text()
    desk.graph.add_node("c", "C")
    desk.file.edited()
    assert path.read_text() == before
    desk.file.save()
    assert "c(C)" in path.read_text()
    assert "# about a" in path.read_text()
    assert kept(tmp_path) == [before]
    desk.file.save()
    assert kept(tmp_path) == [before]
    assert load_graph(path) == desk.graph


async def test_it_saves_itself_after_an_edit_if_it_is_to(tmp_path):
    path = tmp_path / "graphs" / "main.json"
    desk = Desk(path, auto=True)
    desk.file.start()
    desk.graph.add_node("a", "A")
    desk.file.edited()
    desk.file.edited()
    async with asyncio.timeout(WAIT):
        while not path.exists():
            await asyncio.sleep(0.01)
    desk.graph.add_node("b", "B")
    desk.file.edited()
    await desk.file.close()
    await desk.file.close()
    assert list(load_graph(path).nodes) == ["a", "b"]


async def test_what_somebody_else_writes_is_read(tmp_path):
    path = tmp_path / "main.fbp"
    path.write_text("a(A) OUT -> IN b(B)\n")
    desk = Desk(path)
    desk.file.start()
    path.write_text("a(A) OUT -> IN b(B)\na OUT -> IN c(C)\n")
    await desk.news()
    assert desk.read == [parse_fbp(path.read_text())]
    path.write_text("a(A) OUT -> -> b\n")
    await desk.news()
    assert "is no graph now" in desk.told[-1]
    desk.graph.add_edge(Endpoint("b", "out"), Endpoint("a", "in"))
    desk.file.edited()
    path.write_text("z(Z) OUT -> IN b(B)\n")
    await desk.news()
    assert any("undone by that" in text for text in desk.told)
    assert list(desk.graph.nodes) == ["z", "b"]
    # Its own writing is no news.
    desk.graph.add_node("own", "O")
    desk.file.save()
    await asyncio.sleep(1.5)
    assert len(desk.read) == 2
    await desk.file.close()


async def test_a_file_that_cannot_be_written_is_said_once(tmp_path):
    path = tmp_path / "none" / "main.fbp"
    (tmp_path / "none").write_text("a file where the folder should be")
    desk = Desk(path)
    for _ in range(2):
        with pytest.raises(GraphError, match="is not saved"):
            desk.file.save()
    assert len(desk.told) == 1
