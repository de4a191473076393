"""Repeat as an actor of Dramatiq that sends to another: amqp_dramatiq.py FORM IN OUT.

One process with eight threads, which is what its command starts for each processor.
"""

import os
import signal
import sys
import threading
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

form, source, target = sys.argv[1:]
broker = RabbitmqBroker(url=os.environ["BROKER"], confirm_delivery=form == "safe")
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=source)
def repeat(value: Any) -> None:
    take.send(value)


@dramatiq.actor(queue_name=target)
def take(value: Any) -> None:
    """Never run: who measures counts what arrives."""


if __name__ == "__main__":
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    worker = dramatiq.Worker(broker, queues={source}, worker_threads=8)
    worker.start()
    print("running", flush=True)
    ended.wait()
    worker.stop()
