"""Is it a transport? A public suite that holds an implementation to the contract.

A transport is a module with two classes, ``Client`` and ``Broker``, that do what
:mod:`msgflo.transport.contract` says. ``msgflo.transport.register("kafka", "my.module")``, or an
entry point in the group ``msgflo.transports``, makes it available by its scheme. The promises of
the contract are checked here one by one, against a real broker. It needs no test framework::

    await msgflo.conformance.check_transport("kafka://localhost:9092", report=print)

With pytest, one test for each promise::

    @pytest.mark.parametrize("check", msgflo.conformance.checks(), ids=str)
    async def test_it_keeps_the_promise(check, url):
        await msgflo.conformance.check_transport(url, only=[check.name])

Some promises are about what goes wrong, and need somebody who makes it go wrong. Without the
options below their checks are skipped, and say so (``check.needs``):

``restart``
    kills the broker and starts it again on its address, with its store. What was confirmed is
    still there, and clients come back by themselves.
``cut``
    breaks all connections, and lets new ones through: with a TCP proxy between the two, some
    thirty lines. What is open is given back, the order is kept, who listens and who claimed an
    instance number still does.
``drop``
    lets one client end without a word, as if its process had been killed: close its socket, and
    call nothing of it any more.
``too_large``
    a size that the broker refuses.
``nowhere``
    a URL at which nobody answers.

A check makes its own queues and works on them alone, so checks can share a broker, and those that
need neither ``restart`` nor ``cut`` can run at the same time. Where a broker notices the death of a
client late, set that time low for the checks, or the ``patience`` high. What a check waits for and
does not see it tells as ``Result.seen``.
"""

from msgflo.conformance.bench import Check
from msgflo.conformance.suite import Outcome, Result, check_transport, checks

__all__ = ["Check", "Outcome", "Result", "check_transport", "checks"]
