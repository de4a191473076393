import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgflo.flow.drawing import draw_mermaid, draw_svg, draw_text
from msgflo.flow.fbp import parse_fbp
from msgflo.flow.graph import Endpoint, Graph
from msgflo.flow.textdrawing import columns

SVG = "{http://www.w3.org/2000/svg}"

PIPELINE = """
INPORT=web.IN:REQUESTS
OUTPORT=failed.OUT:BROKEN
web(images/Web) JOB -> IN jobs(msgflo/RoundRobin) OUT -> IN fetch(images/Fetch)
fetch OUT -> IN resize(images/Resize) OUT -> IN store(images/Store)
fetch OUT -> IN analyse(images/Analyse) OUT -> IN store
jobs DEADLETTER -> IN failed(images/Failed)
store OUT -> RESULT web
{"width": 800} -> OPTIONS resize
resize LOOP -> IN resize
"""

DRAWN = """\
                        ▷ requests
                             │       ╭─────────────────────────╮
                             ▼       ▼                         │
                         ╭─ in ── result ─╮                    │
                         │ web            │                    │
                         │ images/Web     │                    │
                         ╰─ job ──────────╯                    │
                             │                                 │
                             ▼                                 │
                         ╭─ in ────────────────╮               │
                         │ jobs                │               │
                         │ msgflo/RoundRobin   │               │
                         ╰─ out ── deadletter ─╯               │
                         ╭───╯          ╰───╮                  │
                         ▼                  ▼                  │
                     ╭─ in ─────────╮   ╭─ in ──────────╮      │
                     │ fetch        │   │ failed        │      │
                     │ images/Fetch │   │ images/Failed │      │
                     ╰─ out ────────╯   ╰─ out ─────────╯      │
    ╭────────────────────┴─────────╮        │                  │
    ├──────────────────────────────│────────│────────────────╮ │
    │                              │        ╰───────────╮    │ │
    ▼                              ▼                    ▼    │ │
╭─ in ─────────────────────╮   ╭─ in ───────────╮   broken ▷ │ │
│ resize                   │   │ analyse        │            │ │
│ images/Resize            │   │ images/Analyse │            │ │
│ options ← {"width": 800} │   ╰─ out ──────────╯            │ │
╰─ out ── loop ────────────╯       │                         │ │
    ├───────│──────────────────────╯                         │ │
    │       ╰────────────────────────────────────────────────╯ │
    ▼                                                          │
╭─ in ─────────╮                                               │
│ store        │                                               │
│ images/Store │                                               │
╰─ out ────────╯                                               │
    ╰──────────────────────────────────────────────────────────╯
"""


def test_a_pipeline_is_drawn_from_top_to_bottom() -> None:
    assert draw_text(parse_fbp(PIPELINE)) == DRAWN


def test_lines_that_cross_are_told_from_lines_that_meet() -> None:
    drawn = draw_text(parse_fbp("a(A) X -> P b(B)\na Y -> P c(C)\nd(D) X -> Q b\nd Y -> Q c"))
    assert "┼" not in drawn
    assert "│" in drawn


def test_a_line_that_leads_back_twice_meets_both_ways_up() -> None:
    drawn = draw_text(parse_fbp("x(X) -> y(Y)\ny A -> Q y\ny B -> P x\ny B -> Q y"))
    assert drawn.splitlines()[-2:] == [
        "   │    ╰─────┼─╯",
        "   ╰──────────╯",
    ]


def test_notes_stand_at_nodes_and_edges() -> None:
    graph = parse_fbp("a(A) -> b(B)\nc(C) -> b")
    drawn = draw_text(
        graph,
        notes={"a": "2 running", "gone": "?"},
        edge_notes={edge.key: f"{at + 1}/s" for at, edge in enumerate(graph.edges)},
    )
    assert "│ 2 running │" in drawn
    assert "1/s + 2/s" in drawn


def test_a_graph_that_is_too_wide_is_shown_without_libraries_and_then_listed() -> None:
    graph = parse_fbp(PIPELINE)
    assert "│ images/Web " in draw_text(graph, width=68)
    graph.add_node("x", "a/library/of/very/long/names/Y")
    assert "│ a/library/of/very/long/names/Y │" in draw_text(graph, width=90)
    short = draw_text(graph, width=70)
    assert "│ Y " in short
    assert "images/" not in short
    listed = draw_text(graph, width=40, notes={"web": "lost"}, edge_notes={})
    assert "╭" not in listed
    assert "    job → jobs.in\n" in listed
    assert "requests ▷ web.in\n" in listed
    assert 'options ← {"width": 800}' in listed
    assert re.search(r"^web +images/Web  lost$", listed, re.MULTILINE)


def test_an_empty_graph_is_drawn_as_nothing() -> None:
    assert draw_text(Graph()) == ""
    assert draw_mermaid(Graph()) == "flowchart LR\n"
    ElementTree.fromstring(draw_svg(Graph()))


def test_colours_change_nothing_but_colours() -> None:
    graph = parse_fbp(PIPELINE)
    for width in (100, 30):
        coloured = draw_text(graph, width=width, color=True)
        assert "\x1b[" in coloured
        assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == draw_text(graph, width=width)


def test_wide_characters_keep_boxes_straight() -> None:
    graph = Graph()
    graph.add_node("画像", "图/缩放")
    graph.add_node("e\u0301tape", "A")
    graph.add_edge(Endpoint("画像", "出"), Endpoint("e\u0301tape", "in"))
    lines = draw_text(graph).splitlines()
    assert columns("画像e\u0301") == 5
    assert [columns(line) for line in lines[:4]] == [11] * 4
    assert [columns(line) for line in lines[-4:]] == [9] * 4


HOSTILE = '<script>alert("x")</script>\x1b[31m\x00"]\n--> n9; & `'


def hostile() -> Graph:
    graph = Graph(HOSTILE)
    graph.add_node(HOSTILE, HOSTILE)
    graph.add_edge(Endpoint(HOSTILE, HOSTILE), Endpoint(HOSTILE, HOSTILE + "2"))
    graph.add_initial(HOSTILE, Endpoint(HOSTILE, HOSTILE))
    graph.add_inport(HOSTILE, HOSTILE, HOSTILE)
    graph.add_outport(HOSTILE, HOSTILE, HOSTILE)
    return graph


@pytest.mark.parametrize("width", [1000, 10])
def test_names_do_not_control_the_terminal(width: int) -> None:
    graph = hostile()
    drawn = draw_text(graph, width=width, notes={HOSTILE: HOSTILE})
    assert all(it.isprintable() for it in drawn.replace("\n", ""))


def test_names_do_not_become_markup() -> None:
    graph = hostile()
    notes, edge_notes = {HOSTILE: HOSTILE}, {graph.edges[0].key: HOSTILE}
    svg = ElementTree.fromstring(draw_svg(graph, notes=notes, edge_notes=edge_notes))
    assert not [it for it in svg.iter() if it.tag == "script"]
    assert "alert" in "".join(svg.itertext())
    mermaid = draw_mermaid(graph, notes=notes, edge_notes=edge_notes)
    assert "script>" not in mermaid
    assert all(line.count('"') in (0, 2) for line in mermaid.splitlines())
    assert "`" not in mermaid


def test_svg_says_all_and_loads_nothing() -> None:
    graph = parse_fbp(PIPELINE)
    text = draw_svg(graph, notes={"web": "2 running"}, edge_notes={graph.edges[0].key: "87/s"})
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    svg = ElementTree.fromstring(text)
    said = {it.text for it in svg.iter(f"{SVG}text")}
    assert {*graph.nodes, "images/Web", "2 running", "87/s", "requests", "broken"} <= said
    paths = [it for it in svg.iter(f"{SVG}path") if it.get("class") == "edge"]
    assert len(paths) == len(graph.edges) + 2


def test_mermaid_joins_what_the_graph_joins() -> None:
    graph = parse_fbp("a(A) X[1] -> Y b(msgflo/PubSub)\n5 -> Y b\nINPORT=a.IN:go")
    drawn = draw_mermaid(graph, notes={"a": "lost"}, edge_notes={graph.edges[0].key: "1/s"})
    assert drawn == (
        "flowchart LR\n"
        '  n0["<b>a</b><br/><small>A</small><br/><i>lost</i>"]\n'
        '  n1(["<b>b</b><br/><small>msgflo/PubSub</small>"])\n'
        '  i0(("go"))\n'
        '  p0>"5"]\n'
        '  i0 -- "in" --> n0\n'
        '  p0 -. "y" .-> n1\n'
        '  n0 -- "x#91;1#93; → y<br/><i>1/s</i>" --> n1\n'
    )


NODES = [f"n{at}" for at in range(8)]
ENDS = st.builds(Endpoint, st.sampled_from(NODES), st.sampled_from(["a", "b", "long port", "c"]))


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph = Graph()
    for node in NODES[: draw(st.integers(1, 8))]:
        graph.add_node(node, "C" * draw(st.integers(1, 20)))
    for src, tgt in draw(st.lists(st.tuples(ENDS, ENDS), max_size=12)):
        if src.node in graph.nodes and tgt.node in graph.nodes:
            graph.add_edge(src, tgt)
    graph.add_inport("in", "n0", "a")
    graph.add_outport("out", "n0", "a")
    return graph


STEPS = {"│": "ns", "─": "we", "╭": "se", "╮": "sw", "╰": "ne", "╯": "nw"}
STEPS |= {"├": "nse", "┤": "nsw", "┬": "wes", "┴": "wen", "┼": "nsew"}
MOVES = {"n": (-1, 0), "s": (1, 0), "w": (0, -1), "e": (0, 1)}
BACK = {"n": "s", "s": "n", "w": "e", "e": "w"}


def followed(lines: list[str], row: int, column: int) -> set[tuple[int, int]]:
    """Return the arrows that a line reaches from below an outport, straight on at crossings."""
    reached: set[tuple[int, int]] = set()
    seen: set[tuple[int, int, str]] = set()
    todo = [(row, column, "s")]
    while todo:
        row, column, way = todo.pop()
        if (row, column, way) in seen:
            continue
        seen.add((row, column, way))
        line = lines[row] if row < len(lines) else ""
        here = line[column] if column < len(line) else " "
        if here == "▼":
            reached.add((row, column))
            continue
        if way == "n" and here not in STEPS:
            continue  # back at another outport, whose line meets this one
        assert here in STEPS, f"a line ends in the air at {row}, {column}"
        if BACK[way] in STEPS[here]:
            ways = [it for it in STEPS[here] if it != BACK[way]]
        else:
            assert here == "│", f"a line runs into {here} at {row}, {column}"
            ways = [way]  # it passes below the other
        todo += [(row + MOVES[it][0], column + MOVES[it][1], it) for it in ways]
    return reached


@settings(deadline=None, max_examples=150)
@given(graphs())
def test_every_line_leads_from_its_outport_to_its_inports(graph: Graph) -> None:
    drawn = draw_text(graph, width=10_000)
    lines = drawn.splitlines()
    tops: dict[tuple[int, int], str] = {}
    for at, line in enumerate(lines):
        for box in re.finditer(r"╭─[^╭╮]*─╮", line):
            name = re.match(r"│ (n\d)", lines[at + 1][box.start() :] if at + 1 < len(lines) else "")
            if name:
                tops[at, box.start()] = name[1]
    assert sorted(tops.values()) == sorted(graph.nodes)
    for (row, start), name in tops.items():
        bottom = next(at for at in range(row + 1, len(lines)) if lines[at][start] == "╰")
        width = lines[bottom].index("╯", start) - start
        border = lines[bottom][start : start + width]
        for port in re.finditer(r" (a|b|c|long port) (?=─)", border):
            column = start + port.start(1) + len(port[1]) // 2
            reached = followed(lines, bottom + 1, column)
            wanted = {
                (edge.tgt.node, edge.tgt.port)
                for edge in graph.edges
                if (edge.src.node, edge.src.port) == (name, port[1])
            }
            got = {inport(lines, tops, arrow) for arrow in reached}
            assert wanted <= got, (name, port[1], drawn)


def inport(
    lines: list[str], tops: dict[tuple[int, int], str], arrow: tuple[int, int]
) -> tuple[str, str]:
    """Return the node and the port that an arrow points at."""
    row, column = arrow[0] + 1, arrow[1]
    starts = [start for at, start in tops if at == row and start < column]
    if not starts:
        return ("", "")  # an exported outport
    start = max(starts)
    for port in re.finditer(r" (a|b|c|long port) (?=─)", lines[row]):
        if port.start(1) <= column < port.end(1):
            return tops[row, start], port[1]
    return ("", "")
