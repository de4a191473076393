"""Brokers as the chaos tests harm them."""

from typing import Protocol

from rabbitmq import RabbitMQ, rabbitmq_cluster
from servers import NatsServer

__all__ = ["BrokerUnderTest", "NatsUnderTest", "RabbitUnderTest", "rabbitmq_cluster"]


class BrokerUnderTest(Protocol):
    """What the tests that are the same for all brokers do to one."""

    port: int
    scheme: str

    @property
    def network(self) -> str:
        """The URL of the network."""

    def network_at(self, port: int) -> str:
        """Return the URL of the network through another port."""

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def end(self) -> None:
        """Leave nothing of it behind."""

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...


class NatsUnderTest(NatsServer):
    """A nats-server that redelivers what a killed participant held after two seconds."""

    scheme = "nats"

    @property
    def network(self) -> str:
        return self.network_at(self.port)

    def network_at(self, port: int) -> str:
        return f"nats://127.0.0.1:{port}/chaos?redelivery=2"

    def end(self) -> None:
        self.kill()


class RabbitUnderTest(RabbitMQ):
    """A RabbitMQ whose connections have a heartbeat of a few seconds."""

    scheme = "amqp"

    @property
    def network(self) -> str:
        return self.network_at(self.port)

    def network_at(self, port: int) -> str:
        return f"amqp://guest:guest@127.0.0.1:{port}/?heartbeat=6"

    def end(self) -> None:
        self.kill()
        self._end_epmd()
