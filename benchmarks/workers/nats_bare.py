"""Repeat on nats-py alone, with its own means: pull, publish, wait for confirmations, settle."""

import asyncio
import json
import os
import sys

import nats
import uvloop


async def main(stream: str, durable: str, target: str) -> None:
    connection = await nats.connect(os.environ["BROKER"])
    stream_context = connection.jetstream(publish_async_max_pending=1000)
    consumer = await stream_context.pull_subscribe_bind(durable, stream)
    print("running", flush=True)
    while True:
        try:
            messages = await consumer.fetch(200, timeout=5)
        except nats.errors.TimeoutError:
            continue
        confirmations = [
            await stream_context.publish_async(
                target,
                json.dumps(json.loads(message.data)).encode(),
                headers={"Nats-Msg-Id": f"{message.metadata.sequence.stream}-out"},
            )
            for message in messages
        ]
        await asyncio.gather(*confirmations)
        for message in messages:
            await message.ack()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
