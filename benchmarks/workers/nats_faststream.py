"""Repeat on FastStream, as its documentation has it for JetStream pull consumers."""

import asyncio
import os
import sys
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.nats import JStream, NatsBroker, PullSub

stream, durable, target = sys.argv[1:]
broker = NatsBroker(os.environ["BROKER"])
app = FastStream(broker)
jetstream = JStream(name=stream, declare=False)


@broker.subscriber(
    f"{stream}.in.work",
    durable=durable,
    stream=jetstream,
    pull_sub=PullSub(batch_size=200),
    ack_policy=AckPolicy.NACK_ON_ERROR,
    max_workers=1,
)
@broker.publisher(target, stream=stream)
async def repeat(value: Any) -> Any:
    return value


@app.after_startup
async def started() -> None:
    print("running", flush=True)


if __name__ == "__main__":
    asyncio.run(app.run())
