"""Repeat on FastStream, as its documentation has it: amqp_faststream.py FORM IN OUT."""

import os
import sys
from typing import Any

import uvloop
from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

form, source, target = sys.argv[1:]
safe = form == "safe"
broker = RabbitBroker(
    os.environ["BROKER"],
    default_channel=Channel(prefetch_count=200, publisher_confirms=safe),
)
app = FastStream(broker)


@broker.subscriber(
    RabbitQueue(source, durable=True, declare=False), ack_policy=AckPolicy.NACK_ON_ERROR
)
@broker.publisher(target, persist=safe)
async def repeat(value: Any) -> Any:
    return value


@app.after_startup
async def started() -> None:
    print("running", flush=True)


if __name__ == "__main__":
    uvloop.run(app.run())
