"""AMQP, on real RabbitMQ: the promises of the contract."""

import asyncio

import pytest

from msgflo import conformance
from msgflo.transport import contract
from msgflo.transport.amqp import Client
from proxy import proxied
from rabbitmq import RabbitMQ

TOO_LARGE = RabbitMQ.MOST_BYTES + 1_000_000


async def abandon(client: contract.Client) -> None:
    assert isinstance(client, Client)
    await client.abandon()


@pytest.fixture(scope="module")
def vhost(rabbitmq_of_session: RabbitMQ) -> str:
    """One virtual host for all checks: each has names of its own."""
    return rabbitmq_of_session.vhost()


@pytest.mark.parametrize(
    "check", [check for check in conformance.checks() if "restart" not in check.needs], ids=str
)
async def test_it_keeps_the_promise(
    check: conformance.Check, rabbitmq_of_session: RabbitMQ, vhost: str
) -> None:
    async with proxied(rabbitmq_of_session.port) as proxy:

        async def cut() -> None:
            proxy.cut()

        results = await conformance.check_transport(
            vhost.replace(str(rabbitmq_of_session.port), str(proxy.port)),
            only=[check.name],
            cut=cut,
            drop=abandon,
            too_large=TOO_LARGE,
            nowhere="amqp://me:secret@127.0.0.1:1",
        )
    assert results[0].outcome is conformance.Outcome.KEPT


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "check", [check for check in conformance.checks() if "restart" in check.needs], ids=str
)
async def test_it_keeps_the_promise_when_the_server_is_killed(
    check: conformance.Check, rabbitmq_process: RabbitMQ
) -> None:
    async def restart() -> None:
        await asyncio.to_thread(rabbitmq_process.kill)
        await asyncio.to_thread(rabbitmq_process.start)

    results = await conformance.check_transport(
        rabbitmq_process.vhost(), only=[check.name], restart=restart, drop=abandon, patience=60.0
    )
    assert results[0].outcome is conformance.Outcome.KEPT
