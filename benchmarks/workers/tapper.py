"""Watches a connection as a runtime does for a client that looks at it: python tapper.py SOURCE."""

import asyncio
import os
import sys

from msgflo import transport
from msgflo.protocol.session import EDGE_BURST, EDGE_RATE, _Bucket
from msgflo.transport.contract import Tapped


async def main(source: str) -> None:
    broker = transport.broker(os.environ["MSGFLO_BROKER"])
    await broker.connect()
    shown = _Bucket(EDGE_RATE, EDGE_BURST, EDGE_BURST)
    count = 0

    def seen(tapped: Tapped) -> None:
        nonlocal count
        count += shown.take(tapped.time)

    await broker.tap(source, seen)
    print("running", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
