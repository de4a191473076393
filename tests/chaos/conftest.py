"""The brokers under test, and the table of what became of every message."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.brokers import NatsUnderTest
from chaos.table import Table, write


@pytest.fixture(params=["nats"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NatsUnderTest]:
    folder = tmp_path / "broker"
    folder.mkdir()
    server = NatsUnderTest(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def table(broker: NatsUnderTest) -> Table:
    return Table(broker.scheme)


@pytest.fixture(scope="session", autouse=True)
def _written() -> Iterator[None]:
    """Write the table where MSGFLO_CHAOS_TABLE says, when all is over."""
    yield
    path = os.environ.get("MSGFLO_CHAOS_TABLE")
    if path:
        write(Path(path))
