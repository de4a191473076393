"""Real brokers for whatever test asks for one."""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from networks import Network
from rabbitmq import RabbitMQ
from servers import NatsServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def nats_server_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def nats_server(nats_server_of_session: NatsServer) -> str:
    """The URL of a network of this test's own on a server that all tests share."""
    return f"{nats_server_of_session.url}/test{next(_numbers)}"


@pytest.fixture
def nats_server_process(tmp_path: Path) -> Iterator[NatsServer]:
    """A server of this test's own, running; to be killed, stopped, frozen and started again."""
    folder = tmp_path / "nats-server"
    folder.mkdir()
    server = NatsServer(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    """A small network in memory, on a broker of this test's own."""
    async with Network() as network:
        yield network


@pytest.fixture(scope="session")
def rabbitmq_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    server = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def rabbitmq(rabbitmq_of_session: RabbitMQ) -> Iterator[str]:
    """The URL of a virtual host of this test's own on a RabbitMQ that all tests share."""
    url = rabbitmq_of_session.vhost()
    yield url
    rabbitmq_of_session.drop_vhost(url)


@pytest.fixture(scope="module")
def rabbitmq_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """One for the tests of a module that treat it badly: it takes seconds to start."""
    server = RabbitMQ(tmp_path_factory.mktemp("rabbitmq-process"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def rabbitmq_process(rabbitmq_of_module: RabbitMQ) -> RabbitMQ:
    """A running server to be killed, stopped, frozen and started again."""
    if not rabbitmq_of_module.running:
        rabbitmq_of_module.start()
    return rabbitmq_of_module
