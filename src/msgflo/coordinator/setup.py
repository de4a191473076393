"""Makes the connections of a graph once, without staying: others run its processes.

::

    broker = transport.broker(url)
    await broker.connect()
    done = await set_up(graph, broker, assumed(graph, library), extra=[binding])

What is bound stays bound, whoever is there. To do it again changes nothing.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from msgflo.errors import DefinitionError, DiscoveryTimeout, MsgFloError
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import Announcement, Definition, parse_discovery
from msgflo.flow.graph import Graph
from msgflo.flow.wiring import by_convention, wire
from msgflo.transport.contract import Broker

__all__ = ["SetUp", "discover", "set_up"]


@dataclass(frozen=True)
class SetUp:
    """What was set up.

    Attributes:
        bindings: what is bound now: copies, then dead letters, then what is shared, each in the
            graph's order, and what was wanted beyond the graph.
        problems: what the graph asks for and is not bound, in sentences.
    """

    bindings: tuple[Binding, ...]
    problems: tuple[str, ...] = ()


_ORDER = (Kind.PUBSUB, Kind.DEADLETTER, Kind.ROUNDROBIN)


async def set_up(
    graph: Graph,
    broker: Broker,
    definitions: Mapping[str, Definition] | None = None,
    *,
    extra: Iterable[Binding] = (),
) -> SetUp:
    """Bind what a graph asks for. Idempotent; what is bound already and not asked for is left.

    Args:
        graph: what is wanted.
        broker: connected; not closed here.
        definitions: what its roles are; ``None``: queues are named by convention.
        extra: bindings beyond the graph.

    Raises:
        ConnectionLost: part of it may be bound.
    """
    wiring = wire(graph, by_convention(graph) if definitions is None else definitions)
    wanted = dict.fromkeys(binding for edge in wiring.edges for binding in edge.bindings)
    ordered = sorted(wanted, key=lambda binding: _ORDER.index(binding.kind))
    problems = [
        f"{edge.edge.src.node} {edge.edge.src.port.upper()} -> "
        f"{edge.edge.tgt.port.upper()} {edge.edge.tgt.node}: {edge.reason}"
        for edge in wiring.edges
        if edge.reason
    ]
    done = []
    for binding in dict.fromkeys([*ordered, *extra]):
        try:
            await broker.bind(binding)
        except MsgFloError as error:
            if not broker.connected:
                raise
            problems.append(f"{binding}: {error}")
        else:
            done.append(binding)
    return SetUp(tuple(done), tuple(problems))


async def discover(graph: Graph, broker: Broker, timeout: float) -> dict[str, Definition]:
    """Return what the roles of a graph say that they are, as soon as all have said so.

    Args:
        graph: whose roles are waited for.
        broker: connected; it is listened to from now on.
        timeout: seconds.

    Raises:
        DiscoveryTimeout: not all did in this time; says which.
    """
    wanted = by_convention(graph).keys()
    heard: dict[str, Definition] = {}
    complete = asyncio.Event()

    def hear(data: bytes) -> None:
        with contextlib.suppress(DefinitionError):  # for the coordinator to complain of
            said = parse_discovery(data)
            if isinstance(said, Announcement):
                heard[said.definition.role] = said.definition
        if wanted <= heard.keys():
            complete.set()

    if not wanted:
        return {}
    await broker.listen(hear)
    try:
        async with asyncio.timeout(timeout):
            await complete.wait()
    except TimeoutError:
        missing = [role for role in wanted if role not in heard]
        raise DiscoveryTimeout(
            f"no participant announced {', '.join(missing)} within {timeout:g} s; "
            f"announced were: {', '.join(sorted(heard)) or 'none'}"
        ) from None
    return heard
