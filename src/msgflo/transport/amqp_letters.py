"""Dead letters: looked through, put back, thrown away, without losing one.

A queue has no way to look into it but taking messages out. So whoever looks holds a lock, takes
messages one after the other without settling them, and gives them back by closing the channel;
they go where they were. One that is put back is settled when it is safe in its queue.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any

from msgflo.errors import ConnectionLost, TransportError
from msgflo.transport.amqp_link import Arrived, Channel, Link, Refused, spec
from msgflo.transport.amqp_topology import LETTER, dead
from msgflo.transport.amqp_wiring import Wiring
from msgflo.transport.contract import DeadLetter, Death

__all__ = ["Letters"]

_BATCH = 100
_TIMEOUT = 20.0


class Letters:
    """The dead letters on one broker.

    Args:
        link: the connection.
        wiring: makes locks and queues.
        quorum: whether they wait in quorum queues.
    """

    def __init__(self, link: Link, wiring: Wiring, *, quorum: bool) -> None:
        self._link = link
        self._wiring = wiring
        self._quorum = quorum

    async def read(self, queue: str, limit: int, after: str) -> list[DeadLetter]:
        """Return dead letters of an inport, oldest first, from behind a key on."""
        behind: list[DeadLetter] = []
        later: list[DeadLetter] = []  # if that key is gone
        found = not after
        async with (
            self._wiring.locked(dead(queue)),
            contextlib.aclosing(self._each(queue, min(limit, _BATCH))) as letters,
        ):
            async for _, _, letter in letters:
                if self._quorum:
                    later.append(letter)  # what was looked at before may come in any order
                elif found:
                    behind.append(letter)
                    if len(behind) >= limit:
                        break
                elif letter.key == after:
                    found = True
                elif letter.key > after:
                    later.append(letter)
                    if len(later) >= limit:
                        break
        if self._quorum:
            later.sort(key=lambda letter: letter.key)
            return [letter for letter in later if letter.key > after][:limit]
        return behind if found else later

    async def take(
        self,
        queue: str,
        keys: Iterable[str],
        end: Callable[[DeadLetter, Arrived], Awaitable[None]],
    ) -> int:
        """Take dead letters out, each after ``end`` has done its part. Returns how many."""
        wanted = set(keys)
        if not wanted:
            return 0
        done = 0
        async with (
            self._wiring.locked(dead(queue)),
            contextlib.aclosing(self._each(queue, _BATCH)) as letters,
        ):
            async for channel, arrived, letter in letters:
                if letter.key in wanted:
                    wanted.discard(letter.key)
                    await end(letter, arrived)
                    channel.tell(spec.Basic.Ack(delivery_tag=arrived.tag))
                    done += 1
                    if not wanted:
                        break
        return done

    async def _each(
        self, queue: str, batch: int
    ) -> AsyncGenerator[tuple[Channel, Arrived, DeadLetter], None]:
        channel = await self._link.channel()
        again: dict[str, int] = {}
        try:
            while True:
                for arrived in (got := await _get(channel, dead(queue), batch)):
                    letter = _letter(queue, arrived)
                    again[letter.key] = number = again.get(letter.key, 0) + 1
                    if number > 1:
                        letter = _letter(queue, arrived, f"#{number}")
                    yield channel, arrived, letter
                if len(got) < batch:
                    return
        finally:
            # They are given back as well when the connection ends.
            with contextlib.suppress(TransportError):
                await channel.close()


async def _get(channel: Channel, queue: str, count: int) -> list[Arrived]:
    """Take up to so many messages; none if there is no such queue."""
    asked = [channel.ask(spec.Basic.Get(queue=queue)) for _ in range(count)]
    try:
        async with asyncio.timeout(_TIMEOUT):
            answers = await asyncio.gather(*asked)
    except Refused as refused:
        if refused.code == 404:
            return []
        raise
    except TimeoutError:
        raise ConnectionLost("the broker did not answer") from None
    return [answer for answer in answers if answer is not None]


def _letter(queue: str, arrived: Arrived, more: str = "") -> DeadLetter:
    content = arrived.content
    key = content.headers.get(LETTER)
    death = Death.from_headers(content.headers) or _broker_says(queue, content.death)
    if key is None:
        # Put here by the broker, or by somebody else: known by what it is.
        what = hashlib.sha256(arrived.body)
        what.update(repr(sorted(content.headers.items())).encode())
        key = f"{int(death.died * 1e9):020d}-{what.hexdigest()[:16]}"
    return DeadLetter(
        key=key + more,
        queue=queue,
        id=content.id,
        body=arrived.body,
        headers=Death.strip(content.headers),
        death=death,
    )


def _broker_says(queue: str, deaths: list[dict[str, Any]]) -> Death:
    for death in deaths:
        at = death.get("time")
        return Death(
            queue=str(death.get("queue") or queue),
            error=str(death.get("reason") or "rejected"),
            text="its participant gave no reason",
            died=at.timestamp() if isinstance(at, datetime) else 0.0,
        )
    return Death(queue, text="put here by somebody else")
