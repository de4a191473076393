"""A graph drawn with characters, from top to bottom, for a terminal.

Boxes stand in the layers of :mod:`msgflo.flow.layout`; lines run down from outports to inports, in
channels between the layers. What leads back runs up at the right. A graph that is too wide for the
terminal is listed instead.
"""

import itertools
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from msgflo.flow.graph import Graph
from msgflo.flow.layout import Item, Layout, Link, layout, port_name, spread
from msgflo.flow.parts import Edge, Endpoint

__all__ = ["draw_text"]

N, E, S, W = 1, 2, 4, 8
GLYPHS: Final = {
    N: "│", S: "│", E: "─", W: "─", N | S: "│", E | W: "─", N | E: "╰", N | W: "╯", S | E: "╭",
    S | W: "╮", N | S | E: "├", N | S | W: "┤", E | W | S: "┬", E | W | N: "┴", 15: "┼",
}  # fmt: skip
STYLES: Final = {
    "name": "\x1b[1m",
    "component": "\x1b[36m",
    "note": "\x1b[33m",
    "packet": "\x1b[32m",
    "port": "",
    "line": "\x1b[2m",
}
LONGEST: Final = 32
GAP: Final = 3


def draw_text(
    graph: Graph,
    *,
    width: int = 100,
    color: bool = False,
    notes: Mapping[str, str] | None = None,
    edge_notes: Mapping[tuple[Endpoint, Endpoint], str] | None = None,
) -> str:
    """Return a picture of a graph in characters.

    Args:
        graph: the graph.
        width: how many columns there are. Where they are too few, components are shown without
            their library, and if that does not help the graph is listed, node by node.
        color: use the terminal's colours (ANSI escape sequences).
        notes: what to say of nodes, by their id, such as ``2 running``.
        edge_notes: what to say of edges, by their ``key``, such as ``87/s``.

    Returns:
        Lines, each with a newline. Characters that would control the terminal are replaced.
    """
    if not graph.nodes:
        return ""
    made = layout(graph)
    for short in (False, True):
        drawing = _Drawing(graph, made, notes or {}, edge_notes or {}, short)
        if drawing.right > width:
            continue  # it would not fit, and a large graph takes long to place
        drawing.place()
        if drawing.fits(width):
            return drawing.text(color)
    return "".join(f"{line}\n" for line in _listing(graph, notes or {}, edge_notes or {}, color))


def clean(text: str, longest: int | None = None) -> str:
    """Return a text on one line, without what would control a terminal."""
    shown = "".join(
        it if it.isprintable() else " " if it.isspace() else "\N{REPLACEMENT CHARACTER}"
        for it in text
    )
    if longest is not None and columns(shown) > longest:
        while columns(shown) > longest - 1:
            shown = shown[:-1]
        shown += "…"
    return shown


def columns(text: str) -> int:
    """Return how many columns a text takes in a terminal."""
    return sum(
        0 if unicodedata.combining(it) else 2 if unicodedata.east_asian_width(it) in "WF" else 1
        for it in text
    )


def packet_text(data: Any, longest: int) -> str:
    """Return an initial packet's data for a picture."""
    return clean(json.dumps(data, ensure_ascii=False), longest)


# Boxes.


@dataclass(slots=True)
class _Port:
    name: str
    shown: str
    at: int = 0  # the column of its line, from the start of the box
    note: str = ""


@dataclass(slots=True)
class _Box:
    """A node as a box, or an exported port as a word."""

    lines: list[tuple[str, str]] = field(default_factory=list)  # text and style
    inports: list[_Port] = field(default_factory=list)
    outports: list[_Port] = field(default_factory=list)
    word: bool = False
    width: int = 0

    def measure(self) -> None:
        longest = max((columns(text) for text, _ in self.lines), default=0)
        if self.word:
            self.width = longest
            for port in (*self.inports, *self.outports):
                port.at = longest // 2
            return
        ends = [_row(self.inports), _row(self.outports)]
        self.width = max(longest + 4, *ends)

    @property
    def height(self) -> int:
        return len(self.lines) + (0 if self.word else 2)

    def port(self, name: str, inport: bool) -> int:
        ports = self.inports if inport else self.outports
        return next(port.at for port in ports if port.name == name)


def _row(ports: list[_Port]) -> int:
    """Place the ports of one side of a box; return how wide it must be for them."""
    start = 3
    for port in ports:
        size = columns(port.shown)
        port.at = start + size // 2
        start = max(start + size + 4, port.at + columns(port.note) + 5 if port.note else 0)
    return start - 1 if ports else 0


class _Drawing:
    def __init__(
        self,
        graph: Graph,
        made: Layout,
        notes: Mapping[str, str],
        edge_notes: Mapping[tuple[Endpoint, Endpoint], str],
        short: bool,
    ) -> None:
        self.layout = made
        self.boxes = _boxes(graph, self.layout, notes, edge_notes, short)
        self.starts: dict[Item, int] = {}
        self.back = [link for link in self.layout.links if link.back]
        self.lanes: dict[tuple[Item, str], int] = {}
        self.right = self.narrowest()
        self.canvas = _Canvas()

    def narrowest(self) -> int:
        """Return how wide the picture is at least."""
        return max(
            sum(self.boxes[it].width + GAP if it in self.boxes else 2 for it in items) - GAP
            for items in self.layout.layers
        )

    def place(self) -> None:
        placed = spread(
            self.layout,
            lambda item: self.boxes[item].width if item in self.boxes else 1,
            lambda one, two: GAP if one in self.boxes or two in self.boxes else 1,
            lambda item, port, inport: (
                self.boxes[item].port(port, inport) if item in self.boxes else 0
            ),
            whole=True,
        )
        self.starts = {item: int(at) for item, at in placed.items()}
        for number in range(1, len(self.layout.layers)):
            for _ in range(8):
                if not self.clashes(number):
                    break
                for item in self.layout.layers[number]:
                    self.starts[item] += 1
        self.right = max(
            (at + (self.boxes[it].width if it in self.boxes else 1))
            for it, at in self.starts.items()
        )
        # A lane for each inport that something leads back to; those that reach less far inside.
        numbers = self.layout.layer_of()
        reach: dict[tuple[Item, str], int] = {}
        for link in self.back:
            lane = (link.target, link.inport)
            reach[lane] = max(reach.get(lane, 0), numbers[link.source] - numbers[link.target])
        for at, lane in enumerate(sorted(reach, key=reach.__getitem__)):
            self.lanes[lane] = self.right + 1 + 2 * at

    def fits(self, width: int) -> bool:
        return max(self.lanes.values(), default=self.right - 1) < width

    def clashes(self, number: int) -> bool:
        """Tell whether two lines above a layer would each have to turn above the other."""
        nets = self.nets(number)
        tracks = _tracks(nets)
        return any(
            tracks[one] <= tracks[two] and (nets[one].bottom & nets[two].top) - nets[two].bottom
            for one, two in itertools.permutations(tracks, 2)
        )

    def column(self, item: Item, port: str, inport: bool) -> int:
        if item.kind == "via":
            return self.starts[item]
        return self.starts[item] + self.boxes[item].port(port, inport)

    # Drawing.

    def text(self, color: bool) -> str:
        row = 0
        self.lane_rows: dict[tuple[Item, str], list[int]] = {}
        for number in range(len(self.layout.layers) + 1):
            row = self.channel(number, row)
            if number < len(self.layout.layers):
                row = self.layer(self.layout.layers[number], row)
        for at, (lane, rows) in enumerate(self.lane_rows.items()):
            self.canvas.vertical(("lane", at), self.lanes[lane], min(rows), max(rows))
        return self.canvas.text(color)

    def layer(self, items: list[Item], top: int) -> int:
        height = max(self.boxes[it].height if it in self.boxes else 1 for it in items)
        for item in items:
            start = self.starts[item]
            if item.kind == "via":
                self.canvas.vertical(("via", item), start, top - 1, top + height)
                continue
            box = self.boxes[item]
            self.box(box, start, top)
            for port in box.outports:
                if box.height < height:
                    column, bottom = start + port.at, top + box.height
                    self.canvas.vertical(("out", item, port.name), column, bottom, top + height)
        return top + height

    def box(self, box: _Box, start: int, top: int) -> None:
        canvas = self.canvas
        if box.word:
            for at, (text, style) in enumerate(box.lines):
                canvas.write(top + at, start, text, style)
            return
        bottom = top + box.height - 1
        for row, corners, ports in ((top, "╭╮", box.inports), (bottom, "╰╯", box.outports)):
            canvas.write(row, start, f"{corners[0]}{'─' * (box.width - 2)}{corners[1]}", "line")
            for port in ports:
                size = columns(port.shown)
                left = start + port.at - size // 2
                canvas.write(row, left - 1, f" {port.shown} ", "port")
        for at, (text, style) in enumerate(box.lines):
            canvas.write(top + 1 + at, start, "│", "line")
            canvas.write(top + 1 + at, start + 2, text, style)
            canvas.write(top + 1 + at, start + box.width - 1, "│", "line")

    def channel(self, number: int, top: int) -> int:
        """Draw the lines between two layers; return the row below them."""
        nets = self.nets(number)
        if not nets:
            return top
        tracks = _tracks(nets)
        arrows = sorted({at for net in nets for at in net.arrows})
        height = max(tracks.values(), default=0) + 1
        enters = any(net.bottom for net in nets)
        notes = self.notes_above(number)
        bottom = top + height + (1 if notes else 0) + (1 if enters else 0)
        for at, net in enumerate(nets):
            key = ("net", number, at)
            middle = top + tracks.get(at, 0)
            if at in tracks:
                reach = [*net.top, *net.bottom, *(self.lanes[lane] for lane in net.lanes)]
                self.canvas.horizontal(key, middle, min(reach), max(reach))
            for column in net.top:
                self.canvas.vertical(key, column, top - 1, middle)
            for column in net.bottom:
                self.canvas.vertical(key, column, middle, bottom)
            for lane in net.lanes:
                self.lane_rows.setdefault(lane, []).append(middle)
                self.canvas.joints.add((middle, self.lanes[lane]))
        for column in arrows:
            self.canvas.put(bottom - 1, column, "▼", "line")
        for column, note in notes:
            self.canvas.write(bottom - 2, column + 2, note, "note")
        return bottom

    def notes_above(self, number: int) -> list[tuple[int, str]]:
        if number == len(self.layout.layers):
            return []
        return [
            (self.starts[item] + port.at, port.note)
            for item in self.layout.layers[number]
            if item in self.boxes
            for port in self.boxes[item].inports
            if port.note
        ]

    def nets(self, number: int) -> list["_Net"]:
        """Return what is joined in the channel above a layer."""
        above = set(self.layout.layers[number - 1]) if number else set()
        below = set(self.layout.layers[number]) if number < len(self.layout.layers) else set()
        nets: dict[Any, _Net] = {}
        for link in self.layout.links:
            if link.back:
                lane = (link.target, link.inport)
                if link.source in above:
                    net = nets.setdefault((link.source, link.outport), _Net())
                    net.top.add(self.column(link.source, link.outport, False))
                    net.lanes.add(lane)
                if link.target in below:
                    net = nets.setdefault(("back", lane), _Net())
                    net.lanes.add(lane)
                    net.enter(self.column(link.target, link.inport, True), True)
                continue
            for one, two in itertools.pairwise(link.path):
                if one in above:
                    net = nets.setdefault((link.source, link.outport), _Net())
                    net.top.add(self.column(one, link.outport, False))
                    net.enter(self.column(two, link.inport, True), two.kind != "via")
        return list(nets.values())


# Lines.


@dataclass(slots=True)
class _Net:
    """Lines that belong together in one channel: all of one outport, or all into one lane."""

    top: set[int] = field(default_factory=set)
    bottom: set[int] = field(default_factory=set)
    lanes: set[tuple[Item, str]] = field(default_factory=set)
    arrows: set[int] = field(default_factory=set)

    def enter(self, column: int, arrow: bool) -> None:
        self.bottom.add(column)
        if arrow:
            self.arrows.add(column)

    @property
    def straight(self) -> bool:
        return not self.lanes and self.top == self.bottom and len(self.top) == 1

    def span(self) -> tuple[int, int]:
        reach = self.top | self.bottom
        return min(reach), max(reach) if not self.lanes else 1_000_000


def _tracks(nets: list[_Net]) -> dict[int, int]:
    """Give each net that turns a row in the channel.

    A net whose line comes down where another's goes on down must turn above it. Apart from that,
    those orders are taken in which fewer lines cross.
    """
    turning = [at for at, net in enumerate(nets) if not net.straight]

    def cost(one: int, two: int) -> int:
        """How bad it is for the first to turn above the second."""
        upper, lower = nets[one], nets[two]
        clash = (upper.bottom & lower.top) - lower.bottom
        return 100 * len(clash) + _inside(upper.bottom, lower) + _inside(lower.top, upper)

    order = sorted(turning, key=lambda at: nets[at].span())
    for _ in range(len(order)):
        moved = False
        for at in range(len(order) - 1):
            one, two = order[at], order[at + 1]
            if cost(two, one) < cost(one, two):
                order[at], order[at + 1] = two, one
                moved = True
        if not moved:
            break
    tracks: dict[int, int] = {}
    for at, net in enumerate(order):
        row = 0
        for other in order[:at]:
            low, high = nets[net].span()
            other_low, other_high = nets[other].span()
            if low <= other_high + 1 and other_low <= high + 1:
                row = max(row, tracks[other] + 1)
        tracks[net] = row
    return tracks


def _inside(places: Iterable[int], net: _Net) -> int:
    low, high = net.span()
    return sum(1 for it in places if low < it < high)


class _Canvas:
    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], tuple[str, str]] = {}
        self.lines: dict[tuple[int, int], dict[Any, int]] = {}
        self.joints: set[tuple[int, int]] = set()  # where lines meet that seem to cross

    def write(self, row: int, column: int, text: str, style: str) -> None:
        for it in text:
            size = columns(it)
            if size == 0:
                before = self.cells.get((row, column - 1), ("", style))
                self.cells[row, column - 1] = (before[0] + it, style)
                continue
            self.put(row, column, it, style)
            if size == 2:
                self.cells[row, column + 1] = ("", style)
            column += size

    def put(self, row: int, column: int, character: str, style: str) -> None:
        self.cells[row, column] = (character, style)

    def vertical(self, key: Any, column: int, top: int, bottom: int) -> None:
        """Draw a line from the middle of one row to the middle of another, or to their edge."""
        for row in range(top, bottom):
            self._add(key, row, column, S)
            self._add(key, row + 1, column, N)

    def horizontal(self, key: Any, row: int, left: int, right: int) -> None:
        for column in range(left, right):
            self._add(key, row, column, E)
            self._add(key, row, column + 1, W)

    def _add(self, key: Any, row: int, column: int, direction: int) -> None:
        there = self.lines.setdefault((row, column), {})
        there[key] = there.get(key, 0) | direction

    def text(self, color: bool) -> str:
        for place, lines in self.lines.items():
            if place not in self.cells:
                glyph = _joined if place in self.joints else _glyph
                self.cells[place] = (glyph(lines.values()), "line")
        bottom = max((row for row, _ in self.cells), default=-1)
        rows: list[dict[int, tuple[str, str]]] = [{} for _ in range(bottom + 1)]
        for (row, column), cell in self.cells.items():
            if row >= 0:
                rows[row][column] = cell
        return "".join(f"{_paint(row, color)}\n" for row in rows)


def _glyph(lines: Iterable[int]) -> str:
    there = list(lines)
    along = across = 0
    for it in there:
        if it in (N, S, N | S):
            along |= it
        elif it in (E, W, E | W):
            across |= it
        else:
            return _joined(there)
    if along == N | S and across == E | W:
        return "│"  # one passes below the other
    return _joined(there)


def _joined(lines: Iterable[int]) -> str:
    joined = 0
    for it in lines:
        joined |= it
    return GLYPHS[joined]


def _paint(row: Mapping[int, tuple[str, str]], color: bool) -> str:
    painted, now = "", ""
    for column in range(max(row, default=-1) + 1):
        character, style = row.get(column, (" ", ""))
        wanted = STYLES.get(style, "") if color and character != " " else ""
        if wanted != now and character != " ":
            painted += ("\x1b[0m" if now else "") + wanted
            now = wanted
        painted += character
    return painted + ("\x1b[0m" if now else "")


# What stands in the boxes.


def _boxes(
    graph: Graph,
    made: Layout,
    notes: Mapping[str, str],
    edge_notes: Mapping[tuple[Endpoint, Endpoint], str],
    short: bool,
) -> dict[Item, _Box]:
    boxes: dict[Item, _Box] = {}
    for public in graph.inports:
        boxes[Item("inport", public)] = _Box([(f"▷ {clean(public, LONGEST)}", "port")], word=True)
    for public in graph.outports:
        boxes[Item("outport", public)] = _Box([(f"{clean(public, LONGEST)} ▷", "port")], word=True)
    for node in graph.nodes.values():
        box = _Box([(clean(node.id, LONGEST), "name")])
        component = node.component.rpartition("/")[2] if short else node.component
        if component and component != node.id:
            box.lines.append((clean(component, LONGEST), "component"))
        if notes.get(node.id):
            box.lines.append((clean(notes[node.id], LONGEST), "note"))
        boxes[Item("node", node.id)] = box
    for initial in graph.initials:
        text = f"{clean(port_name(initial.tgt), 14)} ← {packet_text(initial.data, 18)}"
        boxes[Item("node", initial.tgt.node)].lines.append((text, "packet"))
    said: dict[tuple[Item, str], list[str]] = {}
    for link in made.links:
        note = _note(link, edge_notes)
        if note:
            said.setdefault((link.target, link.inport), []).append(note)
    for item, box in boxes.items():
        for names, ports in (
            (made.inports.get(item, []), box.inports),
            (made.outports.get(item, []), box.outports),
        ):
            ports += [_Port(name, clean(name, LONGEST)) for name in names]
        for port in box.inports:
            port.note = " + ".join(said.get((item, port.name), ()))
        box.measure()
    return boxes


def _note(link: Link, edge_notes: Mapping[tuple[Endpoint, Endpoint], str]) -> str:
    return clean(edge_notes.get(link.edge.key, ""), 16) if link.edge is not None else ""


# The list of a graph that is too wide.


def _listing(
    graph: Graph,
    notes: Mapping[str, str],
    edge_notes: Mapping[tuple[Endpoint, Endpoint], str],
    color: bool,
) -> Iterator[str]:
    def paint(text: str, style: str) -> str:
        return f"{STYLES[style]}{text}\x1b[0m" if color and STYLES[style] else text

    for public, it in graph.inports.items():
        yield f"{paint(clean(public), 'port')} ▷ {clean(it.node)}.{clean(it.port)}"
    out: dict[str, dict[str, list[Edge]]] = {}
    for edge in graph.edges:
        out.setdefault(edge.src.node, {}).setdefault(port_name(edge.src), []).append(edge)
    longest = max((columns(clean(node)) for node in graph.nodes), default=0)
    for node in graph.nodes.values():
        name = clean(node.id)
        note = f"  {paint(clean(notes[node.id]), 'note')}" if notes.get(node.id) else ""
        pad = " " * (longest - columns(name))
        yield f"{paint(name, 'name')}{pad}  {paint(clean(node.component), 'component')}{note}"
        for initial in graph.initials:
            if initial.tgt.node == node.id:
                data = packet_text(initial.data, 60)
                yield f"    {clean(port_name(initial.tgt))} ← {paint(data, 'packet')}"
        for port, edges in out.get(node.id, {}).items():
            for edge in edges:
                said = clean(edge_notes.get(edge.key, ""))
                yield (
                    f"    {clean(port)} → {clean(edge.tgt.node)}.{clean(port_name(edge.tgt))}"
                    + (f"  {paint(said, 'note')}" if said else "")
                )
    for public, it in graph.outports.items():
        yield f"{clean(it.node)}.{clean(it.port)} ▷ {paint(clean(public), 'port')}"
