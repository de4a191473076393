"""Editing a graph until it is like another: what a file that was changed, or a new source, asks."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from msgflo.flow.graph import Graph
from msgflo.flow.parts import Change, Endpoint, Export, Group
from msgflo.flow.values import same

__all__ = ["become"]


def become(graph: Graph, like: Graph) -> list[Change]:
    """Edit a graph so that it says what another one says, with few edits.

    What is in both stays where it is; what is new comes behind it. So afterwards the two may
    still differ in order, and in what no edit can change: comments, unknown keys of a file.

    Args:
        graph: what is edited.
        like: what it becomes.

    Returns:
        What was done, in its order; empty if there was nothing to do.
    """
    done: list[Change] = []
    done += _remove(graph, like)
    if _differ(graph.properties, like.properties):
        done += graph.change_properties(_difference(graph.properties, like.properties))
    for node in like.nodes.values():
        there = graph.nodes.get(node.id)
        if there is None:
            done += graph.add_node(node.id, node.component, node.metadata or None)
        elif _differ(there.metadata, node.metadata):
            done += graph.change_node(node.id, _difference(there.metadata, node.metadata))
    for edge in like.edges:
        known = graph.edge(edge.src, edge.tgt)
        if known is None:
            done += graph.add_edge(edge.src, edge.tgt, edge.metadata or None)
        elif _differ(known.metadata, edge.metadata):
            changes = _difference(known.metadata, edge.metadata)
            done += graph.change_edge(edge.src, edge.tgt, changes)
    missing = _initials(like) - _initials(graph)
    for initial in like.initials:
        key = _key(initial.tgt, initial.data)
        if missing[key] > 0:
            missing[key] -= 1
            done += graph.add_initial(initial.data, initial.tgt, initial.metadata or None)
    for public, inport in like.inports.items():
        if public not in graph.inports:
            done += graph.add_inport(public, inport.node, inport.port, inport.metadata or None)
    for public, outport in like.outports.items():
        if public not in graph.outports:
            done += graph.add_outport(public, outport.node, outport.port, outport.metadata or None)
    for group in like.groups:
        known_group = graph.group(group.name)
        if known_group is not None and not _grouped(known_group, group, like):
            # A node of it was made anew, and left it.
            done += graph.remove_group(group.name)
            known_group = None
        if known_group is None:
            members = [node for node in group.nodes if node in graph.nodes]
            done += graph.add_group(group.name, members, group.metadata or None)
    return done


def _remove(graph: Graph, like: Graph) -> list[Change]:
    """Remove what the other has not, or has otherwise."""
    done: list[Change] = []
    for group in list(graph.groups):
        if graph.group(group.name) is group and not _grouped(like.group(group.name), group, like):
            done += graph.remove_group(group.name)
    for public, inport in list(graph.inports.items()):
        if not _alike(like.inports.get(public), inport):
            done += graph.remove_inport(public)
    for public, outport in list(graph.outports.items()):
        if not _alike(like.outports.get(public), outport):
            done += graph.remove_outport(public)
    # Those of a port are removed together, and those that stay are added again, in order.
    before, after = _initials(graph), _initials(like)
    for tgt in {initial.tgt for initial in graph.initials}:
        if any(before[key] > after[key] for key in before if key[0] == tgt):
            done += graph.remove_initial(tgt)
    for edge in graph.edges:
        if like.edge(edge.src, edge.tgt) is None:
            done += graph.remove_edge(edge.src, edge.tgt)
    for node in list(graph.nodes.values()):
        wanted = like.nodes.get(node.id)
        if wanted is None or wanted.component != node.component:
            done += graph.remove_node(node.id)
    return done


def _alike(one: Export | None, other: Export) -> bool:
    return one is not None and one == other


def _grouped(one: Group | None, other: Group, like: Graph) -> bool:
    """Tell whether two groups are the same, but for members that are not there: files have some."""

    def told(group: Group) -> tuple[object, ...]:
        return [node for node in group.nodes if node in like.nodes], group.metadata, group.extra

    return one is not None and told(one) == told(other)


def _initials(graph: Graph) -> Counter[tuple[Endpoint, bytes]]:
    return Counter(_key(initial.tgt, initial.data) for initial in graph.initials)


def _key(tgt: Endpoint, data: Any) -> tuple[Endpoint, bytes]:
    return tgt, msgspec.json.encode(data, order="sorted")


def _differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Tell whether merging can bring the one closer to the other: null there means away with it."""
    return not same(_told(before), _told(after))


def _told(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if value is not None}


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to merge into the one to get the other."""
    return {key: None for key in before if key not in after} | dict(after)
