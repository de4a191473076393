"""A graph drawn as SVG, from left to right: one text, nothing loaded from elsewhere."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Final

from msgflo.flow.graph import Graph
from msgflo.flow.layout import Item, Layout, Link, layout, port_name, spread
from msgflo.flow.parts import Endpoint
from msgflo.flow.textdrawing import clean, columns, packet_text

__all__ = ["draw_svg"]

LINE: Final = 18.0
"""The height of a line of text."""
CHANNEL: Final = 68.0
"""How much room there is between two layers, for the curves."""
MARGIN: Final = 24.0
LONGEST: Final = 40
NARROW: Final = frozenset("iljtfrI.,:;'|![]() ")
WIDE: Final = frozenset("mwMW@%—…")

SIZES: Final = {"name": 16.0, "public": 13.0}

STYLE: Final = """
svg { color-scheme: light dark }
text { font: 12px ui-sans-serif, system-ui, -apple-system, "Segoe UI", sans-serif; fill: #475569 }
.ground { fill: #ffffff }
.node rect { fill: #f8fafc; stroke: #94a3b8; stroke-width: 1.2 }
.virtual rect { stroke-dasharray: 4 3 }
.name { font-size: 14px; font-weight: 600; fill: #0f172a }
.note { fill: #b45309 }
.packet { fill: #15803d }
.edge { fill: none; stroke: #64748b; stroke-width: 1.6 }
.port, .head { fill: #64748b }
.public { fill: #0f172a; font-weight: 600 }
.said { fill: #b45309; paint-order: stroke; stroke: #ffffff; stroke-width: 4px; font-size: 11px }
@media (prefers-color-scheme: dark) {
text { fill: #94a3b8 }
.ground { fill: #0f172a }
.node rect { fill: #1e293b; stroke: #64748b }
.name, .public { fill: #f1f5f9 }
.note, .said { fill: #fbbf24 }
.said { stroke: #0f172a }
.packet { fill: #4ade80 }
.edge { stroke: #94a3b8 }
.port, .head { fill: #94a3b8 }
}
"""


def draw_svg(
    graph: Graph,
    *,
    notes: Mapping[str, str] | None = None,
    edge_notes: Mapping[tuple[Endpoint, Endpoint], str] | None = None,
) -> str:
    """Return a picture of a graph as SVG.

    Args:
        graph: the graph.
        notes: what to say of nodes, by their id, such as ``2 running``.
        edge_notes: what to say of edges, by their ``key``, such as ``87/s``.

    Returns:
        An ``<svg>`` element that may be a file, or stand in a page. All names are escaped. It
        follows the reader's choice of light or dark.
    """
    return _Drawing(graph, notes or {}, edge_notes or {}).text()


def _width(text: str, size: float) -> float:
    """Estimate how wide a text is, in a font that is not known."""
    ems = 0.0
    for it in text:
        if it in NARROW:
            ems += 0.34
        elif it in WIDE:
            ems += 0.95
        elif columns(it) != 1:
            ems += 1.0 * columns(it) / 2
        else:
            ems += 0.68 if it.isupper() else 0.57
    return ems * size


@dataclass(slots=True)
class _Box:
    head: list[tuple[str, str]]  # text and class
    inports: list[tuple[str, str]] = field(default_factory=list)  # name and initial packet
    outports: list[str] = field(default_factory=list)
    word: bool = False
    virtual: bool = False
    title: str = ""
    width: float = 0.0

    def measure(self) -> None:
        sizes = [_width(text, SIZES.get(kind, 12.0)) for text, kind in self.head]
        rows = itertools.zip_longest(self.inports, self.outports)
        for left, right in rows:
            inport = f"{left[0]} {left[1]}" if left else ""
            sizes.append(_width(inport, 12) + _width(right or "", 12) + 24)
        self.width = max(sizes) + (8 if self.word else 26)

    @property
    def height(self) -> float:
        rows = max(len(self.inports), len(self.outports))
        return LINE * (len(self.head) + rows) + (0 if self.word else 18)

    def port(self, name: str, inport: bool) -> float:
        if self.word:
            return self.height / 2
        row = self.inports.index((name, "")) if inport else self.outports.index(name)
        return 9 + LINE * (len(self.head) + row + 0.5)


class _Drawing:
    def __init__(
        self,
        graph: Graph,
        notes: Mapping[str, str],
        edge_notes: Mapping[tuple[Endpoint, Endpoint], str],
    ) -> None:
        self.name = graph.name or "graph"
        self.edge_notes = edge_notes
        self.layout = layout(graph)
        self.boxes = _boxes(graph, self.layout, notes)
        self.y = spread(
            self.layout,
            lambda item: self.boxes[item].height if item in self.boxes else 0.0,
            lambda one, two: 26.0 if one in self.boxes and two in self.boxes else 18.0,
            lambda item, port, inport: (
                self.boxes[item].port(port, inport) if item in self.boxes else 0.0
            ),
        )
        self.number = self.layout.layer_of()
        self.sharing: dict[tuple[Item, str], int] = {}
        reach: dict[tuple[Item, str], int] = {}
        for link in self.layout.links:
            key = (link.target, link.inport)
            self.sharing[key] = self.sharing.get(key, 0) + 1
            if link.back:
                far = self.number[link.source] - self.number[link.target]
                reach[key] = max(reach.get(key, 0), far)
        # What leads back not so far runs inside.
        self.lanes = {key: at for at, key in enumerate(sorted(reach, key=reach.__getitem__))}
        self.reach = reach
        self.said: dict[tuple[Item, str], int] = {}
        self.left: list[float] = []
        self.right: list[float] = []
        x = MARGIN + (10 + 7 * len(self.lanes) if self.lanes else 0)
        for items in self.layout.layers:
            wide = max(self.boxes[it].width if it in self.boxes else 0.0 for it in items)
            self.left.append(x)
            self.right.append(x + wide)
            x += wide + CHANNEL
        self.bottoms = [
            max(self.y[it] + (self.boxes[it].height if it in self.boxes else 0) for it in items)
            for items in self.layout.layers
        ]
        self.bottom = max(self.bottoms, default=0.0)

    def text(self) -> str:
        width = (self.right[-1] if self.right else 0) + MARGIN
        width += 10 + 7 * len(self.lanes) if self.lanes else 0
        height = self.bottom + 2 * MARGIN + (12 + 9 * len(self.lanes) if self.lanes else 0)
        lines = [self.line(link) for link in self.layout.links]
        return "".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:.0f}" '
                f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">\n',
                f"<title>{_safe(self.name)}</title>\n<style>{STYLE}</style>\n",
                '<rect class="ground" width="100%" height="100%" rx="8"/>\n',
                *(curve for curve, _ in lines),
                *(self.box(item, box) for item, box in self.boxes.items()),
                *(said for _, said in lines),
                "</svg>\n",
            ]
        )

    # Lines.

    def end(self, item: Item, port: str, inport: bool) -> tuple[float, float]:
        at = self.number[item]
        y = MARGIN + self.y[item]
        if item.kind == "via":
            return (self.left if inport else self.right)[at], y
        box = self.boxes[item]
        x = self.left[at] if inport else self.left[at] + box.width
        return x, y + box.port(port, inport)

    def line(self, link: Link) -> tuple[str, str]:
        start = self.end(link.source, link.outport, False)
        end = self.end(link.target, link.inport, True)
        note = clean(self.edge_notes.get(link.edge.key, ""), 24) if link.edge is not None else ""
        if link.back:
            path, middle = self.around(link, start, end)
        else:
            path, middle = self.across(link)
        title = _safe(f"{link.edge}") if link.edge is not None else ""
        x, y = end
        curve = (
            f'<g><path class="edge" d="{path}"/>'
            f'<path class="head" d="M{x:.1f} {y:.1f}l-9 -4.5v9z"/>'
            f"{f'<title>{title}</title>' if title else ''}</g>\n"
        )
        if not note:
            return curve, ""
        said = (
            f'<text class="said" x="{middle[0]:.1f}" y="{middle[1] - 5:.1f}" '
            f'text-anchor="middle">{_safe(note)}</text>\n'
        )
        return curve, said

    def across(self, link: Link) -> tuple[str, tuple[float, float]]:
        x, y = self.end(link.source, link.outport, False)
        path = f"M{x:.1f} {y:.1f}"
        middles = []
        for item in link.path[1:]:
            to_x, to_y = self.end(item, link.inport, True)
            # What stands further left in its layer first goes straight to the layer's end.
            edge = to_x - CHANNEL
            if x < edge and item is link.path[1]:
                path += f"H{edge:.1f}"
                x = edge
            bend = (to_x - x) / 2
            path += f"C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
            middles.append(((x + to_x) / 2, (y + to_y) / 2))
            x, y = to_x, to_y
            if item.kind == "via":
                x, y = self.end(item, "", False)
                path += f"H{x:.1f}"
        # Where lines come together, what is said of one stands where it is still alone.
        alone = self.sharing[link.target, link.inport] == 1
        return path, middles[-1 if alone else 0]

    def around(
        self, link: Link, start: tuple[float, float], end: tuple[float, float]
    ) -> tuple[str, tuple[float, float]]:
        lane = self.lanes[link.target, link.inport]
        right = self.right[self.number[link.source]] + 12 + 7 * lane
        left = self.left[self.number[link.target]] - 18 - 7 * lane
        first = self.number[link.target]
        below = self.bottoms[first : first + self.reach[link.target, link.inport] + 1]
        low = MARGIN + max(below) + 14 + 9 * lane
        if link.source == link.target:  # around its own box, in the gap below it
            low = MARGIN + self.y[link.target] + self.boxes[link.target].height + 11
        r = 7.0
        path = (
            f"M{start[0]:.1f} {start[1]:.1f}H{right - r:.1f}q{r} 0 {r} {r}"
            f"V{low - r:.1f}q0 {r} {-r} {r}H{left + r:.1f}q{-r} 0 {-r} {-r}"
            f"V{end[1] + r:.1f}q0 {-r} {r} {-r}H{end[0]:.1f}"
        )
        # What is said of several that share the way stands side by side.
        number = self.said.get((link.target, link.inport), 0)
        self.said[link.target, link.inport] = number + 1
        return path, ((left + right) / 2 + 64 * number, low)

    # Boxes.

    def box(self, item: Item, box: _Box) -> str:
        x, y = self.left[self.number[item]], MARGIN + self.y[item]
        if box.word:
            inport = item.kind == "inport"
            x, anchor = (x + box.width - 6, "end") if inport else (x + 6, "start")
            text = _safe(box.head[0][0])
            return (
                f'<text class="public" x="{x:.1f}" y="{y + 13:.1f}" text-anchor="{anchor}">'
                f"{text}</text>\n"
            )
        parts = [
            f'<g class="node{" virtual" if box.virtual else ""}">',
            f"<title>{_safe(box.title)}</title>",
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" '
            f'rx="7"/>',
        ]
        row = y + 9 + 13
        for text, kind in box.head:
            parts.append(
                f'<text class="{kind}" x="{x + 13:.1f}" y="{row:.1f}">{_safe(text)}</text>'
            )
            row += LINE
        left = row
        for name, beside in box.inports:
            packet = f'<tspan class="packet" dx="5">{_safe(beside)}</tspan>' if beside else ""
            parts.append(f'<text x="{x + 9:.1f}" y="{left:.1f}">{_safe(name)}{packet}</text>')
            left += LINE
        for name in box.outports:
            end = x + box.width
            parts.append(f'<circle class="port" cx="{end:.1f}" cy="{row - 4:.1f}" r="3.2"/>')
            parts.append(
                f'<text x="{end - 9:.1f}" y="{row:.1f}" text-anchor="end">{_safe(name)}</text>'
            )
            row += LINE
        return "".join(parts) + "</g>\n"


def _safe(text: str) -> str:
    return escape(clean(text))


def _boxes(graph: Graph, made: Layout, notes: Mapping[str, str]) -> dict[Item, _Box]:
    boxes: dict[Item, _Box] = {}
    for kind, table in (("inport", graph.inports), ("outport", graph.outports)):
        for public in table:
            item = Item("inport" if kind == "inport" else "outport", public)
            boxes[item] = _Box([(clean(public, LONGEST), "public")], word=True)
    for node in graph.nodes.values():
        box = _Box([(clean(node.id, LONGEST), "name")])
        box.title = f"{node.id} ({node.component})"
        box.virtual = node.component.startswith("msgflo/")
        if node.component != node.id:
            box.head.append((clean(node.component, LONGEST), "component"))
        if notes.get(node.id):
            box.head.append((clean(notes[node.id], LONGEST), "note"))
        item = Item("node", node.id)
        box.inports = [(name, "") for name in made.inports.get(item, ())]
        box.outports = list(made.outports.get(item, ()))
        boxes[item] = box
    for initial in graph.initials:
        row = (clean(port_name(initial.tgt), LONGEST), f"← {packet_text(initial.data, 28)}")
        boxes[Item("node", initial.tgt.node)].inports.append(row)
    for box in boxes.values():
        box.measure()
    return boxes
