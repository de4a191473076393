"""Brokers as the chaos tests harm them."""

from servers import NatsServer

__all__ = ["NatsUnderTest"]


class NatsUnderTest(NatsServer):
    """A nats-server that redelivers what a killed participant held after two seconds."""

    scheme = "nats"

    @property
    def network(self) -> str:
        return self.network_at(self.port)

    def network_at(self, port: int) -> str:
        """Return the URL of the network through another port."""
        return f"nats://127.0.0.1:{port}/chaos?redelivery=2"
