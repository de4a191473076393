"""Announces participants that cannot do so themselves: devices, and programs of other makers."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from msgflo import transport
from msgflo.errors import MsgFloError
from msgflo.flow.discovery import DEFAULT_PERIOD, Announcement, Definition, Goodbye
from msgflo.transport.contract import Client

__all__ = ["Announcer"]

AGAIN = 2.0
"""Seconds until it is tried again to reach a broker that could not be reached."""


class Announcer:
    """Announces definitions until it is closed, from the first that it is given on.

    As often as the original clients do, so that a lost one or two do not matter; at once when
    somebody asks who is there, when the connection is back, and when what it announces changes.

    Args:
        url: the broker's.
        failed: called with the reason when the broker cannot be reached, which is tried again.
        period: seconds; what it announces it says a little more than twice in each.
    """

    def __init__(
        self, url: str, failed: Callable[[str], None], *, period: float = DEFAULT_PERIOD
    ) -> None:
        self._url = url
        self._failed = failed
        self._period = period
        self._wanted: dict[str, Definition] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def announce(self, definitions: Mapping[str, Definition]) -> None:
        """Announce these, by role, and nothing else from now on; what is left out says goodbye."""
        self._wanted = dict(definitions)
        self._changed.set()
        if self._task is None and self._wanted:
            self._task = asyncio.create_task(self._run(), name="announce foreign")

    async def close(self) -> None:
        """Say goodbye for all of them. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        said = ""
        while True:
            try:
                await self._announce_on(transport.client(self._url))
            except MsgFloError as error:
                if said != (said := str(error)):
                    self._failed(said)
            await asyncio.sleep(AGAIN)

    async def _announce_on(self, client: Client) -> None:
        announced: dict[str, Definition] = {}
        client.on_told(lambda _: self._changed.set())
        client.on_restored(self._changed.set)
        try:
            await client.connect()
            while True:
                self._changed.clear()
                for role in announced.keys() - self._wanted.keys():
                    await client.announce(_goodbye(announced[role]))
                announced = self._wanted
                for definition in announced.values():
                    said = Announcement(definition, period=self._period)
                    await client.announce(said.encode())
                # (Not wait_for: until Python 3.12 it can swallow a cancellation.)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._period / 2.2):
                        await self._changed.wait()
        finally:
            try:
                for definition in announced.values():
                    await client.announce(_goodbye(definition))
            finally:
                await client.close()


def _goodbye(definition: Definition) -> bytes:
    return Goodbye(definition.id, definition.role).encode()
