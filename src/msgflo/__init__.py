"""Flow-based programming over message brokers: any process is a node, any queue is an edge.

The names that the author of a participant needs. Each is loaded when it is first used, so that
``import msgflo`` costs next to nothing, and a broker's library is loaded by whoever connects.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msgspec import Struct

    from msgflo import testing, transport
    from msgflo.classic import Message, Participant
    from msgflo.declaration import Component, component, inport, source
    from msgflo.errors import (
        AlreadyRunning,
        BrokerError,
        ComponentError,
        ConfigurationError,
        ConformanceFailure,
        ConnectFailed,
        ConnectionLost,
        DefinitionError,
        DiscoveryTimeout,
        GraphError,
        GraphSyntaxError,
        InvalidName,
        MsgFloError,
        PayloadError,
        ProtocolError,
        Reject,
        RetryLater,
        SendFailed,
        SpecError,
        StartFailed,
        TraceError,
        TransportError,
        UnknownComponent,
        UnknownNode,
        UnknownPort,
        UnknownQueue,
        UnknownScheme,
        UnsupportedBinding,
        YamlError,
    )
    from msgflo.participant import main, run, serve
    from msgflo.signature import Context, In, Out, Param
    from msgflo.transport.contract import Retry

__version__ = "1.0.0.dev0"

__all__ = [
    "AlreadyRunning",
    "BrokerError",
    "Component",
    "ComponentError",
    "ConfigurationError",
    "ConformanceFailure",
    "ConnectFailed",
    "ConnectionLost",
    "Context",
    "DefinitionError",
    "DiscoveryTimeout",
    "GraphError",
    "GraphSyntaxError",
    "In",
    "InvalidName",
    "Message",
    "MsgFloError",
    "Out",
    "Param",
    "Participant",
    "PayloadError",
    "ProtocolError",
    "Reject",
    "Retry",
    "RetryLater",
    "SendFailed",
    "SpecError",
    "StartFailed",
    "Struct",
    "TraceError",
    "TransportError",
    "UnknownComponent",
    "UnknownNode",
    "UnknownPort",
    "UnknownQueue",
    "UnknownScheme",
    "UnsupportedBinding",
    "YamlError",
    "component",
    "inport",
    "main",
    "run",
    "serve",
    "source",
    "testing",
    "transport",
]

_WHERE = {
    "msgspec": ["Struct"],
    "msgflo.classic": ["Message", "Participant"],
    "msgflo.declaration": ["Component", "component", "inport", "source"],
    "msgflo.participant": ["main", "run", "serve"],
    "msgflo.signature": ["Context", "In", "Out", "Param"],
    "msgflo.transport.contract": ["Retry"],
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}


def __getattr__(name: str) -> Any:
    import importlib

    if name in ("testing", "transport"):
        return importlib.import_module(f"msgflo.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'msgflo' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF.get(name, "msgflo.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
