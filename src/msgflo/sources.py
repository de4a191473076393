"""What runs by itself: functions that are called every so many seconds, or again and again."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from msgflo.declaration import Source
from msgflo.lanes import Host, Runner, exit_code
from msgflo.signature import Form

__all__ = ["next_tick", "run_source"]

PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a source that failed is tried again: at first, and at most."""


def next_tick(passed: float, every: float) -> float:
    """Return the next whole multiple of the period, so that lateness never adds up.

    Args:
        passed: seconds since the first tick.
        every: the period in seconds, more than 0.
    """
    return every * (passed // every + 1)


async def run_source(host: Host, source: Source, *, again: bool = True) -> None:
    """Run a source until it ends by itself, or for ever. Cancelling it stops it.

    Args:
        host: the participant.
        source: what to run.
        again: log what it raises and try again; else raise it.
    """
    runner = Runner(host, source.call)
    loop = asyncio.get_running_loop()
    start = loop.time()
    pause = PAUSE
    while True:
        await host.resumed.wait()
        try:
            generated = await _once(host, source, runner)
        except asyncio.CancelledError:
            raise
        except (SystemExit, KeyboardInterrupt) as error:
            host.leave(exit_code(error))
            return
        except Exception as error:
            if not again:
                raise
            if host.stopping:
                return
            host.log.exception("a source failed: %s", error)
            if source.every is None:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
        else:
            pause = PAUSE
            if generated and source.every is None:
                return
        if source.every is None:
            await asyncio.sleep(0)  # a function that waits for nothing must not hold up the rest
        else:
            passed = loop.time() - start
            await asyncio.sleep(next_tick(passed, source.every) - passed)
        if host.outbox.full:
            await host.outbox


async def _once(host: Host, source: Source, runner: Runner) -> bool:
    """Call a source's function; tell whether it was a generator, which has ended now."""
    form = source.call.form
    if not form.is_async:
        name = f"{host.role}.{host.instance} source"
        return bool(await host.outbox.in_thread(lambda: _in_thread(host, runner), name))
    result = runner.call(None, None)
    if form is Form.ASYNC:
        result = await result
    if not isinstance(result, AsyncGenerator):
        runner.emit(result)
        return False
    async with aclosing(result) as items:
        async for item in items:
            runner.emit(item)
            if host.outbox.full:
                await host.outbox
            await host.resumed.wait()
    return True


def _in_thread(host: Host, runner: Runner) -> bool:
    result = runner.call(None, None)
    if not isinstance(result, Iterator):
        runner.emit(result)
        return False

    def wanted() -> bool:
        host.resumed.wait_in_thread()
        return not host.stopping

    runner.emit_all(result, wanted)
    return True
