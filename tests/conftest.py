"""A real nats-server for whatever test asks for one."""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from networks import Network
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
