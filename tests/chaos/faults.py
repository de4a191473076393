"""A transport whose participants die at a step of our choice. Written beside a component by tests.

``MSGFLO_TEST_FAULT`` says where, and at which occurrence in the life of a process, as in
``after settle 40``. Whoever registers this module in place of a transport gets that transport, with
a SIGKILL at each of the steps that a message takes: receive, handle, publish, confirm, settle.
"""

FAULTS = """
import asyncio
import os
import signal
from importlib import import_module

from msgflo import transport

_real = import_module(transport._modules[os.environ["MSGFLO_BROKER"].partition(":")[0]])
Broker = _real.Broker
_step, _, _at = os.environ["MSGFLO_TEST_FAULT"].rpartition(" ")
_left = int(_at)


def strike(step):
    global _left
    if step == _step:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def strike_soon(step):
    # What was written in this turn of the event loop has left by then.
    if step == _step:
        asyncio.get_running_loop().call_later(0.005, strike, step)


class Client(_real.Client):
    async def consume(self, inlet, prefetch, deliver):
        def received(delivery):
            strike("before receive")
            deliver(delivery)
            strike("after receive")

        await super().consume(inlet, prefetch, received)

    def send(self, outport, body, headers, confirmed):
        def told(error):
            strike("before confirm")
            confirmed(error)
            strike("after confirm")

        strike("before publish")
        super().send(outport, body, headers, told)
        strike_soon("after publish")

    def settle(self, delivery):
        strike("before settle")
        super().settle(delivery)
        strike_soon("after settle")
"""

WORK = """
import os

import msgflo
from msgflo import transport

import faults

transport.register(os.environ["MSGFLO_BROKER"].partition(":")[0], "faults")


@msgflo.component("Work", concurrency=4)
async def work(number: int) -> int:
    faults.strike("before handle")
    if number % 100 == 99:
        raise msgflo.Reject("one in a hundred is rejected")
    faults.strike("after handle")
    return number
"""

STEPS = [
    f"{when} {step}"
    for step in ("receive", "handle", "publish", "confirm", "settle")
    for when in ("before", "after")
]
