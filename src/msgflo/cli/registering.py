"""Participants that cannot announce themselves, announced by hand."""

import asyncio
import signal
from collections.abc import Iterable
from pathlib import Path

import click

from msgflo import transport
from msgflo.cli.connecting import broker_url
from msgflo.errors import ConfigurationError, ConnectionLost
from msgflo.flow.discovery import Announcement, Definition
from msgflo.processes.announcing import Announcer
from msgflo.processes.foreign import read_foreign

__all__ = ["register_files"]


def register_files(
    files: Iterable[Path],
    roles: Iterable[str],
    *,
    interval: float,
    once: bool,
    url: str | None,
    project: Path | None,
) -> None:
    """Announce definitions, and say of which, until a signal or a loss that cannot be mended.

    Args:
        files: definitions that name their roles.
        roles: ``ROLE:FILE`` each.
        interval: seconds; each is announced a little more than twice in it.
        once: end when each was announced.
        url: the broker's; ``None``: that of the environment, or of the project's run.
        project: its folder; ``None``: the one around the working folder.

    Raises:
        MsgFloError: a definition cannot be read, or there is no broker.
    """
    definitions: dict[str, Definition] = {}
    for path in files:
        definition = read_foreign(path).definition()
        definitions[definition.role] = definition
    for item in roles:
        # A file's name may have colons too; a role has none.
        role, colon, file = item.partition(":")
        if not colon or not role or not file:
            raise ConfigurationError(f"--role {item}: expected ROLE:FILE, such as lamp:lamp.yml")
        definitions[role] = read_foreign(Path(file)).definition(role)
    asyncio.run(_register(broker_url(url, project), definitions, interval, once))


async def _register(
    url: str, definitions: dict[str, Definition], interval: float, once: bool
) -> None:
    end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def finish(why: str = "") -> None:
        if not end.done():
            end.set_result(why)

    if not once:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, finish)
    client = transport.client(url)
    await client.connect()
    try:
        for definition in definitions.values():
            # Who is not heard again is lost in time; who said it once would be lost too soon.
            said = Announcement(definition) if once else Announcement(definition, period=interval)
            await client.announce(said.encode())
            click.echo(f"Sent discovery message for {definition.id}")
        await client.flush()
    finally:
        await client.close()
    if once:
        return
    announcer = Announcer(url, finish, period=interval)
    announcer.announce(definitions)
    why = await end
    await announcer.close()
    if why:
        raise ConnectionLost(why)
