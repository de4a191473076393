"""Repeat on pika alone, on uvloop, with confirms handled as they come: amqp_bare.py FORM IN OUT.

FORM is ``quick`` (transient, unconfirmed) or ``safe`` (persistent, settled after the confirm).
"""

import asyncio
import json
import os
import sys
from collections import deque
from typing import Any

import pika
import uvloop
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel

PREFETCH = 200


class Repeat:
    def __init__(self, channel: Channel, safe: bool, source: str, target: str) -> None:
        self.channel, self.safe, self.source, self.target = channel, safe, source, target
        self.properties = pika.BasicProperties(
            content_type="application/json", delivery_mode=2 if safe else 1
        )
        self.published = 0
        self.unconfirmed: deque[tuple[int, int]] = deque()

    def start(self) -> None:
        if self.safe:
            self.channel.confirm_delivery(self.confirmed)
        self.channel.basic_qos(prefetch_count=PREFETCH, callback=self.consume)

    def consume(self, _: Any) -> None:
        self.channel.basic_consume(self.source, self.arrived)
        print("running", flush=True)

    def arrived(self, channel: Channel, method: Any, _properties: Any, body: bytes) -> None:
        value = json.dumps(json.loads(body)).encode()
        channel.basic_publish("", self.target, value, self.properties)
        if self.safe:
            self.published += 1
            self.unconfirmed.append((self.published, method.delivery_tag))
        else:
            channel.basic_ack(method.delivery_tag)

    def confirmed(self, frame: Any) -> None:
        number, multiple = frame.method.delivery_tag, frame.method.multiple
        if isinstance(frame.method, pika.spec.Basic.Nack):
            sys.exit(f"the broker refused message {number}")
        waiting = self.unconfirmed
        if multiple or waiting[0][0] == number:
            tag = 0
            while waiting and waiting[0][0] <= number:
                tag = waiting.popleft()[1]
            if tag:
                # Nothing before it waits any more.
                self.channel.basic_ack(tag, multiple=multiple)
        else:
            one = next(it for it in waiting if it[0] == number)
            waiting.remove(one)
            self.channel.basic_ack(one[1])


async def main(form: str, source: str, target: str) -> None:
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def opened(connection: Any) -> None:
        connection.channel(
            on_open_callback=lambda channel: Repeat(channel, form == "safe", source, target).start()
        )

    AsyncioConnection(
        pika.URLParameters(os.environ["BROKER"]),
        on_open_callback=opened,
        on_open_error_callback=lambda _, error: ended.set_exception(error),
        on_close_callback=lambda _, error: ended.set_exception(error),
    )
    await ended


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
