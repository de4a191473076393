"""Participants that are graphs themselves: what clients say to such a graph is passed on to it.

Such a participant says so in its announcement (``type``), and speaks the FBP protocol by two
queues: it reads one and sends to the other, by default ``.fbp.ID.receive`` and ``.fbp.ID.send``.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from msgflo.coordinator.network import Life
from msgflo.errors import MsgFloError, TransportError
from msgflo.live import LiveNetwork
from msgflo.protocol.messages import Malformed, Message, parse
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, Broker, Tap, Tapped

__all__ = ["Entrances"]

MOST_WAITING = 1000
"""So many messages of clients wait for the broker to take them to a participant."""

Reply = Callable[[str, str, Any], None]
"""Called with protocol, command and payload of what such a graph says."""


@dataclass(slots=True)
class _Entrance:
    """The way into one participant."""

    inqueue: str
    outqueue: str
    replies: list[Reply] = field(default_factory=list)
    waiting: asyncio.Queue[tuple[bytes, str]] = field(
        default_factory=lambda: asyncio.Queue(MOST_WAITING)
    )
    task: asyncio.Task[None] | None = None


class Entrances:
    """Passes on what clients say to participants that are graphs.

    Args:
        broker: returns the broker; ``None`` while there is none.
        network: returns the main network; ``None`` while there is none.
        number: returns another text each time, for the ids of messages.
        tell: called with what went wrong.
    """

    def __init__(
        self,
        broker: Callable[[], Broker | None],
        network: Callable[[], LiveNetwork | None],
        number: Callable[[], str],
        tell: Callable[[str], None],
    ) -> None:
        self._broker = broker
        self._network = network
        self._number = number
        self._tell = tell
        self._ways: dict[tuple[str, str], _Entrance] = {}

    def forward(self, graph: str, message: Message, reply: Reply) -> bool:
        """Pass a message on, if its graph is a participant; tell whether it is.

        Args:
            graph: the participant's node, or its component if one node alone has it.
            message: what the client says; its secret stays here.
            reply: called with each message that the participant sends from then on.

        Raises:
            MsgFloError: too much waits for it already.
        """
        queues = self._queues(graph)
        if queues is None:
            return False
        way = self._ways.get(queues)
        if way is None:
            way = self._ways[queues] = _Entrance(*queues)
            way.task = asyncio.get_running_loop().create_task(
                self._walk(way), name=f"FBP protocol of {graph}"
            )
        if reply not in way.replies:
            way.replies.append(reply)
        said = {
            "protocol": message.protocol,
            "command": message.command,
            "payload": dict(message.payload),
        }
        try:
            way.waiting.put_nowait((msgspec.json.encode(said), self._number()))
        except asyncio.QueueFull:
            raise MsgFloError(f"{MOST_WAITING} messages wait for {graph} already") from None
        return True

    def leave(self, reply: Reply) -> None:
        """A client has gone. A way that nobody goes any more is given up. Idempotent."""
        for queues, way in list(self._ways.items()):
            if reply in way.replies:
                way.replies.remove(reply)
                if not way.replies:
                    del self._ways[queues]
                    if way.task is not None:
                        way.task.cancel()

    async def close(self) -> None:
        """Give up all ways. Idempotent."""
        tasks = [way.task for way in self._ways.values() if way.task is not None]
        self._ways.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _queues(self, graph: str) -> tuple[str, str] | None:
        network = self._network()
        if network is None:
            return None
        nodes = network.graph.nodes
        named = (
            [graph] if graph in nodes else [n.id for n in nodes.values() if n.component == graph]
        )
        if len(named) != 1:
            return None
        for participant in network.coordinator.network.participants(named[0]):
            announcement = participant.announcement
            if announcement.runtime and participant.life is Life.LIVE:
                return announcement.inqueue, announcement.outqueue
        return None

    async def _walk(self, way: _Entrance) -> None:
        tap: Tap | None = None
        try:
            while True:
                body, message = await way.waiting.get()
                broker = self._broker()
                if broker is None:
                    continue
                try:
                    if tap is None:  # before the first question, whose answer it must hear
                        tap = await broker.tap(way.outqueue, lambda seen: _heard(way, seen))
                    headers = {MESSAGE_ID: message, CONTENT_TYPE: "application/json"}
                    await broker.enqueue(way.inqueue, body, headers)
                except TransportError as error:
                    self._tell(f"a message could not be passed on to {way.inqueue}: {error}")
        finally:
            if tap is not None:
                with contextlib.suppress(MsgFloError):
                    await tap.close()


def _heard(way: _Entrance, seen: Tapped) -> None:
    try:
        message = parse(seen.body)
    except Malformed:
        return  # whatever it is, no client could make anything of it
    for reply in list(way.replies):
        reply(message.protocol, message.command, message.payload)
