"""Where the parts of a graph go in a picture: in layers, along the way of the data.

The method is that of Sugiyama, Tagawa and Toda: turn round the edges that close a cycle, put each
node one layer behind what leads to it, let long edges pass through the layers between, order each
layer so that few edges cross, and then place everything so that edges are straight where they can
be. Pictures in text and as SVG are drawn from the same :class:`Layout`.
"""

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from msgflo.flow.graph import Graph
from msgflo.flow.parts import Edge, Endpoint

__all__ = ["Item", "Layout", "Link", "layout", "spread"]

SWEEPS = 8


class Item(NamedTuple):
    """Something in a layer.

    Attributes:
        kind: a node, an exported port, or ``via``: a place where long edges pass.
        name: the node's id, or the port's public name; of a ``via`` its number and layer.
    """

    kind: Literal["node", "inport", "outport", "via"]
    name: str


@dataclass(frozen=True, slots=True)
class Link:
    """A line of the picture: an edge, or what leads from or to an exported port.

    Attributes:
        source, target: what it joins.
        outport, inport: the ports by which it does, with their index; ``""`` at an exported port.
        edge: the edge; ``None``: it is an exported port's.
        back: it leads back against the layers, or to its own node.
        via: where it passes, from source to target. Links of one outport share these places.
    """

    source: Item
    outport: str
    target: Item
    inport: str
    edge: Edge | None = None
    back: bool = False
    via: tuple[Item, ...] = ()

    @property
    def path(self) -> tuple[Item, ...]:
        """All items from the source to the target."""
        return (self.source, *self.via, self.target)


@dataclass(slots=True)
class Layout:
    """A graph in layers.

    Attributes:
        layers: the items of each layer, in order across it.
        links: all lines.
        inports, outports: for each node the names of its connected ports, in order across.
    """

    layers: list[list[Item]]
    links: list[Link]
    inports: dict[Item, list[str]] = field(default_factory=dict)
    outports: dict[Item, list[str]] = field(default_factory=dict)

    def layer_of(self) -> dict[Item, int]:
        """Return the number of each item's layer."""
        return {item: at for at, layer in enumerate(self.layers) for item in layer}


def layout(graph: Graph) -> Layout:
    """Return a graph in layers. The same graph is always laid out in the same way."""
    links = list(_links(graph))
    items = [
        *(Item("inport", public) for public in graph.inports),
        *(Item("node", node) for node in graph.nodes),
        *(Item("outport", public) for public in graph.outports),
    ]
    links, order, met = _without_cycles(items, links)
    numbers = _number(order, links)
    links, layers = _pass_through(met, links, numbers)
    _order(layers, links)
    made = Layout(layers, links)
    _order_ports(made)
    return made


def port_name(end: Endpoint) -> str:
    """Return a port's name in pictures, with its index."""
    return end.port if end.index is None else f"{end.port}[{end.index}]"


def _links(graph: Graph) -> Iterator[Link]:
    for public, it in graph.inports.items():
        yield Link(Item("inport", public), "", Item("node", it.node), it.port)
    for edge in graph.edges:
        yield Link(
            Item("node", edge.src.node),
            port_name(edge.src),
            Item("node", edge.tgt.node),
            port_name(edge.tgt),
            edge,
        )
    for public, it in graph.outports.items():
        yield Link(Item("node", it.node), it.port, Item("outport", public), "")


def _without_cycles(
    items: list[Item], links: list[Link]
) -> tuple[list[Link], list[Item], list[Item]]:
    """Mark the links that close a cycle.

    Returns:
        The links, an order of the items in which all others lead on, and the order in which one
        meets the items when following them.
    """
    out: dict[Item, list[int]] = {item: [] for item in items}
    entered = {link.target for link in links if link.source != link.target}
    for at, link in enumerate(links):
        out[link.source].append(at)
    back: set[int] = set()
    done: list[Item] = []
    seen: dict[Item, None] = {}
    # What nothing leads to comes first, then what the author begins to tell with.
    told = {link.source: -at for at, link in reversed(list(enumerate(links)))}
    for root in sorted(items, key=lambda item: (item in entered, -told.get(item, -len(links)))):
        if root in seen:
            continue
        seen[root] = None
        open_ = {root}
        stack = [(root, iter(out[root]))]
        while stack:
            item, rest = stack[-1]
            number = next(rest, None)
            if number is None:
                stack.pop()
                open_.discard(item)
                done.append(item)
                continue
            target = links[number].target
            if target in open_:
                back.add(number)
            elif target not in seen:
                seen[target] = None
                open_.add(target)
                stack.append((target, iter(out[target])))
    marked = [
        Link(it.source, it.outport, it.target, it.inport, it.edge, at in back)
        for at, it in enumerate(links)
    ]
    return marked, done[::-1], list(seen)


def _number(order: list[Item], links: list[Link]) -> dict[Item, int]:
    """Give each item its layer: one behind the last of what leads to it."""
    numbers = dict.fromkeys(order, 0)
    forward: dict[Item, list[Item]] = {item: [] for item in order}
    entered: set[Item] = set()
    for link in links:
        if not link.back:
            forward[link.source].append(link.target)
            entered.add(link.target)
    for item in order:
        for target in forward[item]:
            numbers[target] = max(numbers[target], numbers[item] + 1)
    for item in order:  # a source stands close to what it leads to
        if item not in entered and forward[item]:
            numbers[item] = min(numbers[target] for target in forward[item]) - 1
    return numbers


def _pass_through(
    met: list[Item], links: list[Link], numbers: Mapping[Item, int]
) -> tuple[list[Link], list[list[Item]]]:
    layers: list[list[Item]] = [[] for _ in range(max(numbers.values(), default=-1) + 1)]
    for item in met:
        layers[numbers[item]].append(item)
    nets: dict[tuple[Item, str], int] = {}
    made: dict[Item, None] = {}
    passed = []
    for link in links:
        via: list[Item] = []
        if not link.back:
            net = nets.setdefault((link.source, link.outport), len(nets))
            for at in range(numbers[link.source] + 1, numbers[link.target]):
                item = Item("via", f"{net}.{at}")
                via.append(item)
                if item not in made:
                    made[item] = None
                    layers[at].append(item)
        passed.append(
            Link(
                link.source,
                link.outport,
                link.target,
                link.inport,
                link.edge,
                link.back,
                tuple(via),
            )
        )
    return passed, layers


def _steps(links: Iterable[Link]) -> dict[tuple[Item, Item], int]:
    """Return how many links lead from an item to one of the next layer."""
    steps: dict[tuple[Item, Item], int] = {}
    for link in links:
        if not link.back:
            for step in itertools.pairwise(link.path):
                steps[step] = steps.get(step, 0) + 1
    return steps


def _order(layers: list[list[Item]], links: list[Link]) -> None:
    """Order each layer so that few links cross: by the middle of the neighbours, in sweeps."""
    before: dict[Item, list[Item]] = {item: [] for layer in layers for item in layer}
    after: dict[Item, list[Item]] = {item: [] for layer in layers for item in layer}
    for source, target in _steps(links):
        before[target].append(source)
        after[source].append(target)
    best = [list(layer) for layer in layers]
    fewest = _crossings(layers, after)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        neighbours = before if down else after
        rest = range(1, len(layers)) if down else range(len(layers) - 2, -1, -1)
        for at in rest:
            fixed = layers[at - 1 if down else at + 1]
            place = {item: number for number, item in enumerate(fixed)}
            layers[at] = _by_middle(layers[at], neighbours, place)
        crossings = _crossings(layers, after)
        if crossings < fewest:
            fewest, best = crossings, [list(layer) for layer in layers]
    layers[:] = best


def _by_middle(
    layer: list[Item], neighbours: Mapping[Item, list[Item]], place: Mapping[Item, int]
) -> list[Item]:
    middles: dict[Item, float] = {}
    for number, item in enumerate(layer):
        places = [place[it] for it in neighbours[item]]
        middles[item] = sum(places) / len(places) if places else float(number)
    return sorted(layer, key=middles.__getitem__)


def _crossings(layers: list[list[Item]], after: Mapping[Item, list[Item]]) -> int:
    crossings = 0
    for one, two in itertools.pairwise(layers):
        place = {item: number for number, item in enumerate(two)}
        ends = [sorted(place[it] for it in after[item]) for item in one]
        seen: list[int] = []
        for targets in ends:
            crossings += sum(len(seen) - bisect.bisect_right(seen, it) for it in targets)
            for it in targets:
                bisect.insort(seen, it)
    return crossings


def _order_ports(made: Layout) -> None:
    """Order the ports of each node as their neighbours are ordered; those that lead back last."""
    place = {item: at for layer in made.layers for at, item in enumerate(layer)}
    ins: dict[Item, dict[str, list[float]]] = {}
    outs: dict[Item, dict[str, list[float]]] = {}
    for link in made.links:
        last = float(len(place))
        source = last if link.back else float(place[link.path[-2]])
        target = last if link.back else float(place[link.path[1]])
        ins.setdefault(link.target, {}).setdefault(link.inport, []).append(source)
        outs.setdefault(link.source, {}).setdefault(link.outport, []).append(target)
    for table, ports in ((ins, made.inports), (outs, made.outports)):
        for item, places in table.items():
            middles = {port: sum(them) / len(them) for port, them in places.items()}
            ports[item] = sorted(middles, key=middles.__getitem__)


def spread(
    made: Layout,
    size: Callable[[Item], float],
    gap: Callable[[Item, Item], float],
    port: Callable[[Item, str, bool], float],
    *,
    whole: bool = False,
) -> dict[Item, float]:
    """Place the items of each layer across it, so that many links are straight.

    Args:
        made: the layers.
        size: how much room an item takes across its layer.
        gap: how much must be free between two neighbours.
        port: where on an item one of its ports is, from the item's start; the last argument tells
            whether it is an inport.
        whole: give whole numbers only.

    Returns:
        Where each item starts, from 0.
    """
    # For each item: the neighbour, and how far its start is from the neighbour's if straight.
    up: dict[Item, list[tuple[Item, float]]] = {}
    down: dict[Item, list[tuple[Item, float]]] = {}
    # What passes more than one layer does it straight, even if others must move for that.
    heavy = {two for link in made.links for one, two in itertools.pairwise(link.via)}
    for link in made.links:
        if link.back:
            continue
        for one, two in itertools.pairwise(link.path):
            shift = port(one, link.outport, False) - port(two, link.inport, True)
            up.setdefault(two, []).append((one, shift))
            down.setdefault(one, []).append((two, -shift))
    at: dict[Item, float] = {}
    for layer in made.layers:
        _place(layer, {}, at, size, gap, heavy)
    count = len(made.layers)
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        numbers = range(1, count) if forward else range(count - 2, -1, -1)
        near, far = (up, down) if forward else (down, up)
        for number in numbers:
            wanted = _wanted(made.layers[number], near, at)
            for item in made.layers[number]:
                if item not in wanted and item in far:
                    wanted[item] = at[item]
            _place(made.layers[number], wanted, at, size, gap, heavy)
    if whole:
        # Once more along the way of the data, now exactly: each item straight below one of those
        # that lead to it, if there is room.
        for layer in made.layers:
            wanted = {item: float(round(at[item])) for item in layer}
            wanted |= _wanted(layer, up, at, exact=True)
            _place(layer, wanted, at, size, gap, heavy, whole=True)
    start = min(at.values(), default=0.0)
    return {item: place - start for item, place in at.items()}


def _wanted(
    layer: list[Item],
    near: Mapping[Item, list[tuple[Item, float]]],
    at: Mapping[Item, float],
    *,
    exact: bool = False,
) -> dict[Item, float]:
    wanted: dict[Item, float] = {}
    for item in layer:
        places = sorted(at[other] + shift for other, shift in near.get(item, ()))
        if places:
            middle = places[(len(places) - 1) // 2]
            wanted[item] = middle if exact else (middle + places[len(places) // 2]) / 2
    return wanted


def _place(
    layer: Sequence[Item],
    wanted: Mapping[Item, float],
    at: dict[Item, float],
    size: Callable[[Item], float],
    gap: Callable[[Item, Item], float],
    heavy: Set[Item],
    *,
    whole: bool = False,
) -> None:
    """Place a layer as near to what is wanted as its order and the gaps allow.

    Items that touch form a block, which stands where its members want to be on average.
    """
    room = 0.0
    blocks: list[tuple[float, float, list[tuple[Item, float]]]] = []  # sum, weight, members
    for number, item in enumerate(layer):
        if number:
            room += size(layer[number - 1]) + gap(layer[number - 1], item)
        if item not in wanted:
            weight = 0.01
        else:
            weight = 64.0 if item.kind != "via" else 8.0 if item in heavy else 1.0
        place = wanted.get(item, at.get(item, room)) - room
        blocks.append((place * weight, weight, [(item, room)]))
        while len(blocks) > 1 and _mean(blocks[-2]) >= _mean(blocks[-1]):
            total, weights, members = blocks.pop()
            before = blocks.pop()
            blocks.append((before[0] + total, before[1] + weights, before[2] + members))
    for block in blocks:
        mean = _mean(block)
        for item, offset in block[2]:
            at[item] = (round(mean) if whole else mean) + offset


def _mean(block: tuple[float, float, list[tuple[Item, float]]]) -> float:
    return block[0] / block[1]
