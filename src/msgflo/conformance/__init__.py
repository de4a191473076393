"""Is it a transport? A public suite that holds an implementation to the contract.

It needs no test framework. From a script::

    await msgflo.conformance.check_transport("nats://localhost:4222", report=print)

With pytest, one test for each promise::

    @pytest.mark.parametrize("check", msgflo.conformance.checks(), ids=str)
    async def test_it_keeps_the_promise(check, url):
        await msgflo.conformance.check_transport(url, only=[check.name])

The promises are those of :mod:`msgflo.transport.contract`, one check for each.
"""

from msgflo.conformance.bench import Check
from msgflo.conformance.suite import Outcome, Result, check_transport, checks

__all__ = ["Check", "Outcome", "Result", "check_transport", "checks"]
