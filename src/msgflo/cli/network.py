"""How commands reach a network that runs: as clients of its FBP protocol."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from msgflo.cli.options import Where
from msgflo.errors import ConfigurationError, ProtocolError, near
from msgflo.project import find_root
from msgflo.protocol.client import Client
from msgflo.steering.endpoint import read_endpoint, read_secrets

__all__ = ["changes_of", "live", "no_node", "reach", "steer", "waiting"]

PATIENCE = 60.0
"""Seconds that a command waits for the network to be as it was told."""

SHOWN_AFTER = 1.0
"""Seconds after which it is shown what a command waits for."""


def reach(where: Where) -> Client:
    """Return a client of the network that is meant, not connected yet.

    Raises:
        ConfigurationError: none was named and none runs here.
    """
    secrets = read_secrets(where.secret_file, os.environ)
    secret = max(secrets.items(), key=lambda item: item[1])[0] if secrets else ""
    address = where.address or os.environ.get("MSGFLO_ADDRESS")
    if address:
        return Client(address, secret=secret)
    root = where.project or find_root(Path.cwd())
    known = read_endpoint(root)
    if known is None or not known.alive:
        ended = "the one that did was killed" if known is not None else "or it does not listen"
        raise ConfigurationError(
            f"no network runs in {root} ({ended}). Start one (msgflo run), go to its folder or "
            f"name it (--project), or name its address (--address)"
        )
    return Client(known.address, secret=secret or known.secret)


def steer(where: Where, work: Callable[[Client], Awaitable[int]]) -> int:
    """Do the work of a command as a client of the network that is meant. Returns its status.

    Raises:
        MsgFloError: as the work does; it cannot be reached; or it refuses.
    """

    async def connected() -> int:
        async with reach(where) as client:
            return await work(client)

    return asyncio.run(connected())


@contextlib.asynccontextmanager
async def waiting(text: str) -> AsyncIterator[None]:
    """Show on a terminal what is waited for, if it takes more than a moment."""

    async def show() -> None:
        await asyncio.sleep(SHOWN_AFTER)
        if not sys.stderr.isatty():
            return
        from rich.console import Console

        with Console(stderr=True).status(text):
            await asyncio.Event().wait()

    showing = asyncio.create_task(show())
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


async def changes_of(
    client: Client,
    enough: Callable[[dict[str, Any]], bool],
    text: str,
    timeout: float = PATIENCE,
) -> dict[str, Any]:
    """Follow a network's status until it is enough, or the time (seconds) is over.

    Returns:
        The last status.
    """
    status = await client.ask("status")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout), waiting(text):
            while not enough(status):
                await asyncio.sleep(0.1)
                status = await client.ask("status")
    return status


def live(node: Mapping[str, Any]) -> bool:
    """Tell whether as many instances of a node are live as are wanted here, and no others."""
    if node["state"] == "virtual":
        return True
    states = [one["state"] for one in node["instances"]]
    if not node["started_here"]:
        return bool(node["state"] == "live")
    return len(states) == node["wanted"] and all(state == "live" for state in states)


def no_node(name: str, status: Mapping[str, Any]) -> ProtocolError:
    """Return the error that there is no such node."""
    known = [node["node"] for node in status["nodes"]]
    return ProtocolError(
        f"graph {status['graph']!r} has no node {name!r}; it has: {', '.join(known) or 'none'}."
        f"{near(name, known)}"
    )
