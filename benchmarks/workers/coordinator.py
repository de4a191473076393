"""A coordinator of a graph, alone in its process: python coordinator.py GRAPH MEMORY."""

import asyncio
import os
import sys
from pathlib import Path

from msgflo import transport
from msgflo.coordinator.coordinator import Coordinator
from msgflo.flow.fbp import parse_fbp


async def main(graph: str, memory: str) -> None:
    broker = transport.broker(os.environ["MSGFLO_BROKER"])
    await broker.connect()
    coordinator = Coordinator(broker, parse_fbp(Path(graph).read_text()), memory=Path(memory))
    await coordinator.start()
    print("running", flush=True)
    await coordinator.until(lambda status: status.complete)
    print("complete", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
