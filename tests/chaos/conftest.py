"""The brokers under test, and the table of what became of every message."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.brokers import BrokerUnderTest, NatsUnderTest, RabbitUnderTest
from chaos.table import Table, write


@pytest.fixture(params=[NatsUnderTest, RabbitUnderTest], ids=["nats", "amqp"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerUnderTest]:
    folder = tmp_path / "broker"
    folder.mkdir()
    server: BrokerUnderTest = request.param(folder)
    server.start()
    yield server
    server.end()


@pytest.fixture
def table(broker: BrokerUnderTest) -> Table:
    return Table(broker.scheme)


@pytest.fixture(scope="session", autouse=True)
def _written() -> Iterator[None]:
    """Write the table where MSGFLO_CHAOS_TABLE says, when all is over."""
    yield
    path = os.environ.get("MSGFLO_CHAOS_TABLE")
    if path:
        write(Path(path))
