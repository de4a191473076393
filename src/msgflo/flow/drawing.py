"""Pictures of graphs: in characters, as SVG, as Mermaid.

All of them take ``notes`` on nodes and ``edge_notes`` on edges, so that a running network can be
drawn with what is known of it. What is drawn is escaped: a name cannot become markup, nor control
a terminal.
"""

from collections.abc import Mapping

from msgflo.flow.graph import Graph
from msgflo.flow.layout import Item, Layout, Link, layout, port_name
from msgflo.flow.parts import Endpoint
from msgflo.flow.svgdrawing import draw_svg
from msgflo.flow.textdrawing import clean, draw_text, packet_text

__all__ = ["Item", "Layout", "Link", "draw_mermaid", "draw_svg", "draw_text", "layout"]


def draw_mermaid(
    graph: Graph,
    *,
    notes: Mapping[str, str] | None = None,
    edge_notes: Mapping[tuple[Endpoint, Endpoint], str] | None = None,
) -> str:
    """Return a graph as a Mermaid flowchart, which GitHub and others draw.

    Args:
        graph: the graph.
        notes: what to say of nodes, by their id, such as ``2 running``.
        edge_notes: what to say of edges, by their ``key``, such as ``87/s``.

    Returns:
        The text of a ``mermaid`` code block. Nodes are called ``n0``, ``n1``, ... in the graph's
        order, whatever their names are.
    """
    notes, edge_notes = notes or {}, edge_notes or {}
    called = {node: f"n{at}" for at, node in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    for node in graph.nodes.values():
        said = [f"<b>{_escape(node.id)}</b>"]
        if node.component != node.id:
            said.append(f"<small>{_escape(node.component)}</small>")
        if notes.get(node.id):
            said.append(f"<i>{_escape(notes[node.id])}</i>")
        opening, closing = ('(["', '"])') if node.component.startswith("msgflo/") else ('["', '"]')
        lines.append(f"  {called[node.id]}{opening}{'<br/>'.join(said)}{closing}")
    for at, public in enumerate(graph.inports):
        lines.append(f'  i{at}(("{_escape(public)}"))')
    for at, public in enumerate(graph.outports):
        lines.append(f'  o{at}(("{_escape(public)}"))')
    for at, initial in enumerate(graph.initials):
        lines.append(f'  p{at}>"{_escape(packet_text(initial.data, 40))}"]')
    for at, it in enumerate(graph.inports.values()):
        lines.append(f'  i{at} -- "{_escape(it.port)}" --> {called[it.node]}')
    for at, initial in enumerate(graph.initials):
        port = _escape(port_name(initial.tgt))
        lines.append(f'  p{at} -. "{port}" .-> {called[initial.tgt.node]}')
    for edge in graph.edges:
        label = f"{_escape(port_name(edge.src))} → {_escape(port_name(edge.tgt))}"
        if edge_notes.get(edge.key):
            label += f"<br/><i>{_escape(edge_notes[edge.key])}</i>"
        lines.append(f'  {called[edge.src.node]} -- "{label}" --> {called[edge.tgt.node]}')
    for at, it in enumerate(graph.outports.values()):
        lines.append(f'  {called[it.node]} -- "{_escape(it.port)}" --> o{at}')
    return "".join(f"{line}\n" for line in lines)


def _escape(text: str) -> str:
    """Return a text with all that could mean something to Mermaid, HTML or Markdown as codes."""
    return "".join(
        it if it.isalnum() or it in " ./-,:=?+←→…" else f"#{ord(it)};" for it in clean(text)
    )
