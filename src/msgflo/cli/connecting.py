"""How commands find a network that runs: its broker, and the queues behind its ports."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from msgflo import transport
from msgflo.broker import running_url
from msgflo.errors import ConfigurationError, DefinitionError, UnknownPort, near
from msgflo.flow.discovery import Announcement, Definition, Port, parse_discovery
from msgflo.project import STATE, find_root
from msgflo.steering.endpoint import read_endpoint
from msgflo.transport.contract import Broker

__all__ = ["broker_url", "connected", "find_port", "roles_heard"]

PATIENCE = 3.0
"""Seconds to wait for a role to announce itself when asked. Ours answer within milliseconds."""


async def connected(broker: str | None, project: Path | None) -> Broker:
    """Return the coordinator's side of the broker that the options mean, connected.

    Raises:
        ConfigurationError: none was named and none runs here.
        ConnectFailed: it cannot be reached.
    """
    made = transport.broker(broker_url(broker, project))
    await made.connect(timeout=5)
    return made


def broker_url(broker: str | None, project: Path | None) -> str:
    """Return the URL of the broker that the options mean.

    Raises:
        ConfigurationError: none was named and none runs here.
    """
    url = broker or os.environ.get("MSGFLO_BROKER") or os.environ.get("CLOUDAMQP_URL")
    if url:
        return url
    root = project or find_root(Path.cwd())
    known = read_endpoint(root)
    url = running_url(root / STATE)
    if url is None and known is not None and known.alive:
        url = known.broker
    if not url:
        raise ConfigurationError(
            f"no broker was named, and no network runs in {root}. Start one (msgflo run), "
            f"go to its folder or name it (--project), or name a broker (--broker)"
        )
    return url


async def roles_heard(
    broker: Broker,
    enough: Callable[[dict[str, Definition]], bool],
    patience: float = PATIENCE,
) -> dict[str, Definition]:
    """Ask who is there, and listen until it is enough or patience (seconds) ends."""
    heard: dict[str, Definition] = {}
    done = asyncio.Event()

    def hear(data: bytes) -> None:
        try:
            said = parse_discovery(data)
        except DefinitionError:
            return  # the coordinator reports it; this command looks for somebody else
        if isinstance(said, Announcement):
            heard[said.definition.role] = said.definition
            if enough(heard):
                done.set()

    await broker.listen(hear)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), patience)
    return heard


async def find_port(broker: Broker, target: str, directions: tuple[str, ...]) -> tuple[str, Port]:
    """Return what ``ROLE.PORT`` (or ``ROLE``, for its only or usual port) names.

    Args:
        broker: connected.
        target: from the command line; roles may have dots in their names.
        directions: of ``inport`` and ``outport``, which to look among, in this order.

    Returns:
        The direction and the port.

    Raises:
        ConfigurationError: no such role is there.
        UnknownPort: the role has no such port.
    """

    def split(heard: dict[str, Definition]) -> tuple[str, str] | None:
        role, dot, port = target.rpartition(".")
        if dot and role in heard:
            return role, port
        return (target, "") if target in heard else None

    heard = await roles_heard(broker, lambda heard: split(heard) is not None)
    found = split(heard)
    if found is None:
        role = target.rpartition(".")[0] or target
        known = sorted(heard)
        raise ConfigurationError(
            f"no participant announced role {role!r} within {PATIENCE:g} s; "
            f"announced were: {', '.join(known) or 'none'}.{near(role, known)}"
        )
    role, name = found
    definition = heard[role]
    for direction in directions:
        ports = definition.inports if direction == "inport" else definition.outports
        wired = [port for port in ports if port.queue]
        usual = "in" if direction == "inport" else "out"
        if not name:
            port = _of(definition, direction, usual) or (wired[0] if len(wired) == 1 else None)
        else:
            port = _of(definition, direction, name)
        if port is not None and port.queue:
            return direction, port
    names = [
        port.id
        for direction in directions
        for port in (definition.inports if direction == "inport" else definition.outports)
    ]
    raise UnknownPort(role, " or ".join(directions), name or usual, names)


def _of(definition: Definition, direction: str, name: str) -> Port | None:
    return definition.inport(name) if direction == "inport" else definition.outport(name)
