"""Every exception of MsgFlo.

* :exc:`MsgFloError`

  * :exc:`GraphError`: a graph, or an edit of one, is wrong

    * :exc:`GraphSyntaxError`: a text is not a graph (file, line, column, caret)
    * :exc:`UnknownNode`, :exc:`UnknownPort`: something named is not there

  * :exc:`DefinitionError`: what a component or an announcement says of itself is wrong
  * :exc:`TransportError`

    * :exc:`UnknownScheme`: no transport serves this URL
    * :exc:`ConnectFailed`: the broker could not be reached, or refused us
    * :exc:`ConnectionLost`: the broker went away and did not come back in time
    * :exc:`UnsupportedBinding`: this broker cannot carry out this kind of connection
    * :exc:`UnknownQueue`: no such queue, or it is not ours to use
    * :exc:`SendFailed`: the broker did not take a message

  * :exc:`ComponentError`

    * :exc:`UnknownComponent`: the library has none of this name
    * :exc:`InvalidName`: a name that could become a path or a shell word
    * :exc:`StartFailed`: the process of a participant could not be started

  * :exc:`ConfigurationError`: a configuration file or option is wrong
  * :exc:`BrokerError`: the embedded broker did not start, or died

    * :exc:`AlreadyRunning`: another run in this folder has it

  * :exc:`ProtocolError`: a message of the FBP protocol is wrong, or a runtime refuses it
  * :exc:`DiscoveryTimeout`: what was waited for was not announced in time
  * :exc:`PayloadError`: a payload does not fit its port
  * :exc:`TraceError`: a file is no flowtrace, or not one that can be used so
  * :exc:`YamlError`: a text is not YAML (file, line, column)
  * :exc:`SpecError`: a test suite is wrong, or cannot be set up
  * :exc:`ConformanceFailure`: a transport or participant breaks a promise

Two more are raised by handlers to say what is to happen to their message, and are
no errors of MsgFlo: :exc:`Reject` and :exc:`RetryLater`.

An error carries values and makes its text from them: what was got, what was expected,
what was near, whose fault it is.
"""

import difflib
from collections.abc import Callable, Iterable
from typing import Any

__all__ = [
    "AlreadyRunning",
    "BrokerError",
    "ComponentError",
    "ConfigurationError",
    "ConformanceFailure",
    "ConnectFailed",
    "ConnectionLost",
    "DefinitionError",
    "DiscoveryTimeout",
    "GraphError",
    "GraphSyntaxError",
    "InvalidName",
    "MsgFloError",
    "PayloadError",
    "ProtocolError",
    "Reject",
    "RetryLater",
    "SendFailed",
    "SpecError",
    "StartFailed",
    "TraceError",
    "TransportError",
    "UnknownComponent",
    "UnknownNode",
    "UnknownPort",
    "UnknownQueue",
    "UnknownScheme",
    "UnsupportedBinding",
    "YamlError",
    "near",
]


def near(got: str, known: Iterable[str]) -> str:
    """Say which of the known names was probably meant, as a sentence to append.

    Returns:
        ``" Did you mean 'image'?"``, or ``""`` where nothing is near.
    """
    by_folded = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(got.casefold(), by_folded, n=1, cutoff=0.6)
    return f" Did you mean {by_folded[found[0]]!r}?" if found else ""


def _rebuild(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    return cls.__new__(cls, *args)


_Reduced = tuple[Callable[..., BaseException], tuple[Any, ...], dict[str, Any]]


class MsgFloError(Exception):
    """The root of the tree. Catch it to catch everything that MsgFlo raises."""

    # Errors come back from worker processes, and __init__ makes the text from other arguments.
    def __reduce__(self) -> _Reduced:
        return _rebuild, (type(self), self.args), self.__dict__


class GraphError(MsgFloError):
    """A graph, or an edit of one, is wrong. The graph was not changed."""


class GraphSyntaxError(GraphError):
    """A text is not a graph.

    Attributes:
        problem: what is wrong, and what was expected.
        name: the file, or what stands for it.
        line: the line, counted from 1.
        column: the column, counted from 1.
        source: the text of that line.
        width: how many characters the caret underlines, at least 1.
    """

    def __init__(
        self,
        problem: str,
        *,
        name: str = "<graph>",
        line: int = 1,
        column: int = 1,
        source: str = "",
        width: int = 1,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.name = name
        self.line = line
        self.column = column
        self.source = source
        self.width = max(1, width)

    def __str__(self) -> str:
        head = f"{self.name}:{self.line}:{self.column}: {self.problem}"
        if not self.source:
            return head
        shown = self.source.replace("\t", " ")
        return f"{head}\n  {shown}\n  {' ' * (self.column - 1)}{'^' * self.width}"


class UnknownNode(GraphError):
    """A node that is named is not in the graph.

    Attributes:
        node: the name that was got.
        known: the names that there are.
    """

    def __init__(self, node: str, known: Iterable[str] = (), where: str = "the graph") -> None:
        self.node = node
        self.known = tuple(known)
        super().__init__(f"{where} has no node {node!r}.{near(node, self.known)}")


class UnknownPort(GraphError):
    """A port that is named is not there.

    Attributes:
        port: the name that was got.
        known: the names that there are.
    """

    def __init__(self, owner: str, direction: str, port: str, known: Iterable[str] = ()) -> None:
        self.owner = owner
        self.port = port
        self.known = tuple(known)
        listed = ", ".join(self.known) or "none"
        super().__init__(
            f"{owner!r} has no {direction} {port!r}; its {direction}s are: {listed}."
            f"{near(port, self.known)}"
        )


class DefinitionError(MsgFloError):
    """What a component, or an announcement, says of itself is wrong."""


class TransportError(MsgFloError):
    """A broker, or the way to it, did not do what was asked."""


class UnknownScheme(TransportError):
    """No transport serves this URL's scheme."""

    def __init__(self, scheme: str, known: Iterable[str]) -> None:
        self.scheme = scheme
        self.known = tuple(sorted(known))
        super().__init__(
            f"no transport serves {scheme}:// (there are: {', '.join(self.known)})."
            f"{near(scheme, self.known)}"
        )


class ConnectFailed(TransportError):
    """The broker could not be reached, or refused us.

    Attributes:
        url: the broker's address, its password left out.
    """

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        super().__init__(f"cannot connect to the broker at {url}: {reason}")


class ConnectionLost(TransportError):
    """The broker went away and did not come back in time, or the connection was closed."""


class UnsupportedBinding(TransportError):
    """This broker cannot carry out this kind of connection."""


class UnknownQueue(TransportError):
    """There is no such queue, or it is not this client's to use."""


class SendFailed(TransportError):
    """The broker did not take a message. It was not sent, or nobody knows whether it was."""


class ComponentError(MsgFloError):
    """Something about a component of the library."""


class UnknownComponent(ComponentError):
    """The library has no component of this name.

    Attributes:
        component: the name that was got.
        known: the names that there are.
    """

    def __init__(self, component: str, known: Iterable[str] = (), hint: str = "") -> None:
        self.component = component
        self.known = tuple(known)
        text = f"the library has no component {component!r}.{near(component, self.known)}"
        super().__init__(f"{text} {hint}".rstrip())


class InvalidName(ComponentError):
    """A name from outside that must not become a path or a shell word."""


class StartFailed(ComponentError):
    """The process of a participant could not be started."""


class ConfigurationError(MsgFloError):
    """A configuration file, option or environment variable is wrong."""


class BrokerError(MsgFloError):
    """The embedded broker did not start, or died."""


class AlreadyRunning(BrokerError):
    """Another run in this folder holds what this one needs.

    Attributes:
        pid: its process, as far as known.
    """

    def __init__(self, message: str, pid: int | None = None) -> None:
        super().__init__(message)
        self.pid = pid


class ProtocolError(MsgFloError):
    """A message of the FBP protocol is wrong, or a runtime refuses it, or cannot be reached."""


class DiscoveryTimeout(MsgFloError):
    """What was waited for was not announced in time."""


class PayloadError(MsgFloError):
    """A payload does not fit the type of its port, or cannot be put on the wire."""


class TraceError(MsgFloError):
    """A file is no flowtrace, or not one that can be used so."""


class YamlError(MsgFloError):
    """A text is not YAML.

    Attributes:
        problem: what is wrong.
        name: the file, or what stands for it.
        line: the line, counted from 1; 0: not known.
        column: the column, counted from 1; 0: not known.
    """

    def __init__(self, problem: str, *, name: str, line: int = 0, column: int = 0) -> None:
        self.problem = problem
        self.name = name
        self.line = line
        self.column = column
        at = f"{name}:{line}:{column}" if line else name
        super().__init__(f"{at}: not YAML: {problem}")


class SpecError(MsgFloError):
    """A suite of tests is wrong, or what it tests cannot be set up."""


class ConformanceFailure(MsgFloError):
    """A transport or a participant breaks a promise that all of them must keep."""


class Reject(Exception):  # raised as an order, not reported as an error
    """Raised by a handler: put this message into the dead letters at once, without retries.

    Args:
        reason: why, for whoever reads the dead letters.
    """

    def __init__(self, reason: str = "rejected") -> None:
        super().__init__(reason)
        self.reason = reason

    def __reduce__(self) -> _Reduced:
        return _rebuild, (type(self), self.args), self.__dict__


class RetryLater(Exception):  # raised as an order, not reported as an error
    """Raised by a handler: give me this message again later; it does not count as an attempt.

    Args:
        delay: in how many seconds, 0 or more.
        reason: why, for the log.
    """

    def __init__(self, delay: float, reason: str = "") -> None:
        if not delay >= 0:
            raise ValueError(f"the delay is {delay} seconds; it cannot be negative")
        super().__init__(reason or f"retry in {delay:g} s")
        self.delay = float(delay)
        self.reason = reason

    def __reduce__(self) -> _Reduced:
        return _rebuild, (type(self), self.args), self.__dict__
