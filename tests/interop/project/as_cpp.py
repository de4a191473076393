"""A participant that declares, sends and settles as one on the existing C++ library does.

Its queue is durable, without arguments and without an exchange; its outport's exchange is not
durable; one message at a time; it never declares the queue of announcements.
"""

import json
import os
import sys

import pika


def main(role: str) -> None:
    """Take texts at ``ROLE.IN``, and send them on from ``ROLE.OUT``."""
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["MSGFLO_BROKER"]))
    channel = connection.channel()
    channel.queue_declare(f"{role}.IN", durable=True)
    channel.exchange_declare(f"{role}.OUT", exchange_type="fanout")
    channel.basic_qos(prefetch_count=1)

    def announce() -> None:
        definition = {
            "id": f"{role}-1a2b3c4d",
            "role": role,
            "component": "Pass",
            "label": "",
            "icon": "file-word-o",
            "inports": [{"id": "in", "type": "any", "queue": f"{role}.IN"}],
            "outports": [{"id": "out", "type": "any", "queue": f"{role}.OUT"}],
        }
        said = {"protocol": "discovery", "command": "participant", "payload": definition}
        channel.basic_publish("", "fbp", json.dumps(said).encode())
        connection.call_later(2, announce)

    def take(_: object, method: pika.spec.Basic.Deliver, __: object, body: bytes) -> None:
        if b"bad" in body:
            channel.basic_reject(method.delivery_tag, requeue=False)
            return
        channel.basic_publish(f"{role}.OUT", "", body)
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(f"{role}.IN", take)
    announce()
    print(role, "is ready", flush=True)  # noqa: T201 - how a coordinator knows
    channel.start_consuming()


main(sys.argv[1])
