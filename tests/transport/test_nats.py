"""NATS, on real servers: the promises of the contract, and what is this transport's own."""

import asyncio

import pytest

from msgflo import conformance
from msgflo.transport import contract
from msgflo.transport.nats import Client
from proxy import proxied
from servers import NatsServer

TOO_LARGE = 9_000_000
"""The servers of these tests take 8 MB."""

SOON = "?redelivery=2"
"""So that what a dead participant had comes again within a test's patience."""


async def abandon(client: contract.Client) -> None:
    assert isinstance(client, Client)
    await client.abandon()


def checks(*, restart: bool) -> list[conformance.Check]:
    return [check for check in conformance.checks() if ("restart" in check.needs) is restart]


@pytest.mark.parametrize("check", checks(restart=False), ids=str)
async def test_it_keeps_the_promise(
    check: conformance.Check, nats_server_of_session: NatsServer, nats_server: str
) -> None:
    async with proxied(nats_server_of_session.port) as proxy:

        async def cut() -> None:
            proxy.cut()

        results = await conformance.check_transport(
            nats_server.replace(str(nats_server_of_session.port), str(proxy.port)) + SOON,
            only=[check.name],
            cut=cut,
            drop=abandon,
            too_large=TOO_LARGE,
            nowhere="nats://me:secret@127.0.0.1:1",
        )
    assert results[0].outcome is conformance.Outcome.KEPT


@pytest.mark.parametrize("check", checks(restart=True), ids=str)
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
