"""Graphs as the text of a file, in the format that the file's name says."""

from msgflo.errors import GraphError
from msgflo.flow.fbp import dump_fbp, parse_fbp
from msgflo.flow.graph import Graph
from msgflo.flow.graphjson import dump_json, load_json

__all__ = ["dump", "parse"]


def parse(text: str, name: str, case_sensitive: bool = False) -> Graph:
    """Return the graph that a file's text is.

    Args:
        text: the text.
        name: the file's name or path; it ends in ``.fbp`` or ``.json``, in any case of letters.
        case_sensitive: of a ``.fbp`` text, keep port names as written. JSON says for itself.

    Raises:
        GraphError: the text is no graph, or the name ends otherwise.
    """
    if _ending(name) == ".fbp":
        return parse_fbp(text, name, case_sensitive)
    return load_json(text, name)


def dump(graph: Graph, name: str, *, lossy: bool = False) -> str:
    """Return a graph as the text of a file.

    Args:
        graph: the graph.
        name: the file's name or path, as for :func:`parse`.
        lossy: leave out what the format cannot say, where that is possible.

    Raises:
        GraphError: the format cannot say all of it, or the name ends otherwise.
    """
    if _ending(name) == ".fbp":
        return dump_fbp(graph, lossy=lossy)
    return dump_json(graph)


def _ending(name: str) -> str:
    for ending in (".fbp", ".json"):
        if name.lower().endswith(ending):
            return ending
    raise GraphError(f"{name}: a graph's file ends in .fbp or .json")
