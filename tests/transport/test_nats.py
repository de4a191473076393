"""NATS, on real servers: the promises of the contract, and what is this transport's own."""

import asyncio

import pytest

from msgflo import conformance
from msgflo.transport import contract
from msgflo.transport.nats import Client
from servers import NatsServer

TOO_LARGE = 9_000_000
"""The servers of these tests take 8 MB."""

SOON = "?redelivery=2"
"""So that what a dead participant had comes again within a test's patience."""


async def abandon(client: contract.Client) -> None:
    assert isinstance(client, Client)
    await client.abandon()


@pytest.mark.parametrize(
    "check", [check for check in conformance.checks() if "restart" not in check.needs], ids=str
)
async def test_it_keeps_the_promise(check: conformance.Check, nats_server: str) -> None:
    results = await conformance.check_transport(
        nats_server + SOON, only=[check.name], drop=abandon, too_large=TOO_LARGE
    )
    assert results[0].outcome is conformance.Outcome.KEPT


@pytest.mark.parametrize(
    "check", [check for check in conformance.checks() if "restart" in check.needs], ids=str
)
async def test_it_keeps_the_promise_when_the_server_is_killed(
    check: conformance.Check, nats_server_process: NatsServer
) -> None:
    async def restart() -> None:
        nats_server_process.kill()
        await asyncio.to_thread(nats_server_process.start)

    results = await conformance.check_transport(
        nats_server_process.url + SOON, only=[check.name], restart=restart, drop=abandon
    )
    assert results[0].outcome is conformance.Outcome.KEPT
