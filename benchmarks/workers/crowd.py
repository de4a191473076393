"""Announces many participants that do nothing: python crowd.py ROLES INSTANCES."""

import asyncio
import os
import sys

from msgflo import transport
from msgflo.flow.discovery import DEFAULT_PERIOD, Announcement, Definition, Port


async def main(roles: int, instances: int) -> None:
    client = transport.client(os.environ["MSGFLO_BROKER"])
    await client.connect()
    announcements = [
        Announcement(
            Definition(
                id=f"node{role}-{instance}",
                role=f"node{role}",
                component="Node",
                inports=(Port("in", "any", f"node{role}.IN"),),
                outports=(Port("out", "any", f"node{role}.OUT"),),
            ),
            instance=instance,
            places=True,
            period=DEFAULT_PERIOD,
        ).encode()
        for role in range(roles)
        for instance in range(1, instances + 1)
    ]
    pause = DEFAULT_PERIOD / 2.2 / len(announcements)
    for announcement in announcements:
        await client.announce(announcement)
    print("running", flush=True)
    while True:
        for announcement in announcements:
            await client.announce(announcement)
            await asyncio.sleep(pause)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
