"""Every example does what its README shows, by the command that it shows."""

import re
from pathlib import Path

import pytest

from msgflo.flow.text import parse
from readmes import EXAMPLES, Running, commands, copied


def plain(lines: list[str]) -> set[str]:
    """Return lines without the padding of their prefix: it depends on who has printed before."""
    return {re.sub(r" *\|", " |", line, count=1) for line in lines}


def test_every_example_says_how_to_run_it() -> None:
    for folder in EXAMPLES.iterdir():
        if folder.is_dir():
            assert commands(folder / "README.md"), folder


def test_every_graph_of_the_examples_is_one() -> None:
    graphs = list(EXAMPLES.glob("*/*.fbp"))

    assert len(graphs) >= 4
    for path in graphs:
        assert parse(path.read_text(), path.name).nodes


def test_the_smallest_graph_has_three_lines() -> None:
    assert len((EXAMPLES / "hello" / "hello.fbp").read_text().splitlines()) == 3


@pytest.mark.timeout(120)
def test_hello_greets_the_world_and_whom_it_is_told_to(tmp_path: Path) -> None:
    readme = copied("hello", tmp_path) / "README.md"
    (run, printed), (send, sent) = commands(readme)

    with Running(run, tmp_path) as network:
        network.until(lambda lines: plain(printed) <= plain(lines))
        with Running(send, tmp_path) as sending:
            assert sending.end() == 0
            assert sending.lines == sent
        network.until(lambda lines: any("HELLO, ADA!" in line for line in lines))
        assert network.stop() == 0


@pytest.mark.timeout(120)
def test_repeat_runs_classic_components(tmp_path: Path) -> None:
    readme = copied("repeat", tmp_path) / "README.md"
    (run, printed), _ = commands(readme)

    with Running(run, tmp_path) as network:
        network.until(lambda lines: plain(printed) <= plain(lines))
        assert network.stop() == 0


@pytest.mark.timeout(120)
def test_a_classic_component_runs_by_itself_too(tmp_path: Path, nats_server: str) -> None:
    folder = copied("repeat", tmp_path)
    _, (alone, _) = commands(folder / "README.md")
    variable, _, command = alone.partition(" ")
    assert variable.startswith("MSGFLO_BROKER=")

    with Running(f"env MSGFLO_BROKER={nats_server} {command}", tmp_path) as participant:
        participant.until(lambda lines: any("repeat(Repeat) running" in line for line in lines))
        assert participant.stop() == 0


@pytest.mark.timeout(120)
def test_two_instances_share_or_get_a_copy_each_as_they_are_connected(tmp_path: Path) -> None:
    readme = copied("instances", tmp_path) / "README.md"
    [(run, printed)] = commands(readme)

    def numbers(lines: list[str], name: str) -> list[int]:
        split = (line.split("|") for line in lines if line.startswith(name))
        return [int(number) for _, number in split if number.strip().isdecimal()]

    def enough(lines: list[str]) -> bool:
        names = ("each.1", "each.2", "share.1", "share.2")
        return all(len(numbers(lines, name)) >= 4 for name in names)

    with Running(run, tmp_path) as network:
        lines = network.until(enough)
        network.stop()

    copies = numbers(lines, "each.1"), numbers(lines, "each.2")
    shared = numbers(lines, "share.1"), numbers(lines, "share.2")
    first, last = max(c[0] for c in copies), min(c[-1] for c in copies)
    for copy in copies:
        assert [n for n in copy if first <= n <= last] == list(range(first, last + 1))
    assert not set(shared[0]) & set(shared[1])
    together = sorted(shared[0] + shared[1])
    assert together[:last] == list(range(1, len(together) + 1))[:last]
    assert {line.split(".")[0] for line in printed} == {"each", "share"}


def test_the_picture_in_the_docs_is_that_of_the_graph(tmp_path: Path) -> None:
    graph = EXAMPLES / "webimages" / "webimages.fbp"
    drawn = tmp_path / "webimages.svg"
    show = Running(f"msgflo graph show {graph} --output {drawn}", tmp_path)
    with show:
        assert show.end() == 0, show.lines

    kept = EXAMPLES.parent / "docs" / "webimages.svg"
    assert drawn.read_bytes() == kept.read_bytes(), (
        "docs/webimages.svg is not current; type: msgflo graph show "
        "examples/webimages/webimages.fbp -o docs/webimages.svg"
    )


def test_every_photograph_has_its_source_and_licence_written_down() -> None:
    photos = EXAMPLES / "webimages" / "photos"
    text = (photos / "README.md").read_text()
    rows = {row.split("`")[1]: row for row in text.splitlines() if row.startswith("| `")}

    assert set(rows) == {path.name for path in photos.iterdir()} - {"README.md"}
    for row in rows.values():
        assert "CC0 1.0" in row or "public domain" in row
