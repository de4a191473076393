"""How messages travel: one module per broker protocol, loaded when a URL asks for it.

A transport is two classes (see :mod:`msgflo.transport.contract`): a *Client*, a participant's
side of the broker, and a *Broker*, the coordinator's side. :func:`client` and :func:`broker`
make one from a URL. :func:`register` adds a transport; a package that is installed can add one
by an entry point of the group ``msgflo.transports``, named after the scheme, that names a module
with the two classes.
"""

import importlib
from collections.abc import Mapping
from types import ModuleType
from urllib.parse import urlsplit

from msgflo.errors import ConfigurationError, UnknownScheme
from msgflo.transport.contract import Broker, Client

__all__ = ["backlog", "broker", "client", "register", "schemes"]

_modules: dict[str, str] = {
    "amqp": "msgflo.transport.amqp",
    "amqps": "msgflo.transport.amqp",
    "direct": "msgflo.transport.direct",
    "nats": "msgflo.transport.nats",
    "tls": "msgflo.transport.nats",
}


def register(scheme: str, module: str) -> None:
    """Let URLs of ``scheme://`` be served by a module that has the classes Client and Broker.

    Args:
        scheme: such as ``"kafka"``; a scheme that is known is replaced.
        module: the module's full name; it is imported when the first such URL is used.
    """
    _modules[scheme.lower()] = module


def schemes() -> tuple[str, ...]:
    """Return the schemes that can be used, sorted."""
    return tuple(sorted(_modules | _installed()))


def client(url: str) -> Client:
    """Return a participant's side of the broker at ``url``, not connected yet.

    Raises:
        UnknownScheme: no transport serves the URL's scheme.
    """
    made: Client = _load(url).Client(url)
    return made


def broker(url: str) -> Broker:
    """Return the coordinator's side of the broker at ``url``, not connected yet.

    Raises:
        UnknownScheme: no transport serves the URL's scheme.
    """
    made: Broker = _load(url).Broker(url)
    return made


def backlog(url: str, queue: str) -> Mapping[str, str]:
    """Return under which names other programs find how many messages wait in a work queue.

    Args:
        url: the broker's; nobody is asked.
        queue: the inport's queue name.

    Returns:
        What a transport module's own function ``backlog`` says; without one, ``queue`` alone.

    Raises:
        UnknownScheme: no transport serves the URL's scheme.
    """
    module = _load(url)
    found: Mapping[str, str] = {"queue": queue}
    if hasattr(module, "backlog"):
        found = module.backlog(url, queue)
    return found


def _installed() -> dict[str, str]:
    import importlib.metadata  # slow, and only needed for what is not known

    return {
        point.name.lower(): point.value
        for point in importlib.metadata.entry_points(group="msgflo.transports")
    }


def _load(url: str) -> ModuleType:
    scheme = urlsplit(url).scheme.lower()
    if not scheme:
        raise ConfigurationError(
            f"{url!r} is no broker URL; expected something like nats://localhost:4222"
        )
    name = _modules.get(scheme) or _installed().get(scheme)
    if name is None:
        raise UnknownScheme(scheme, schemes())
    return importlib.import_module(name)
