"""Repeat as a task of Celery that sends another task, solo: amqp_celery.py FORM IN OUT.

For many short tasks its documentation advises a prefetch multiplier of 64 or 128.
"""

import os
import sys
from typing import Any

from celery import Celery
from celery.signals import worker_ready

form, source, target = sys.argv[1:]
safe = form == "safe"
app = Celery("amqp_celery", broker=os.environ["BROKER"])
app.conf.update(
    task_ignore_result=True,
    task_acks_late=safe,
    task_default_delivery_mode="persistent" if safe else "transient",
    broker_transport_options={"confirm_publish": safe},
    worker_prefetch_multiplier=128,
    task_default_queue=source,
)


@app.task(name="repeat")
def repeat(value: Any) -> None:
    take.apply_async((value,), queue=target)


@app.task(name="take")
def take(value: Any) -> None:
    """Never run: who measures counts what arrives."""


@worker_ready.connect
def started(**_: Any) -> None:
    print("running", flush=True)


if __name__ == "__main__":
    app.worker_main(["worker", "--pool=solo", f"--queues={source}", f"--hostname={os.getpid()}@%h"])
