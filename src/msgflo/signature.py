"""A function's signature, read as a list of ports.

The first plain parameter is the inport whose messages call the function. :class:`Out` parameters
are outports, :data:`Param` parameters are inports for settings, a :class:`Context` is given.
What is returned or yielded goes to the outport ``out``, whose type is the annotation.
"""

import inspect
import logging
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType, NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Generic,
    Never,
    NoReturn,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from msgflo.errors import DefinitionError
from msgflo.payload import ANY, Payload, payload_of

__all__ = [
    "REQUIRED",
    "Call",
    "Context",
    "Form",
    "In",
    "Inport",
    "Out",
    "Outport",
    "Param",
    "Parameter",
    "read",
    "where",
]

T = TypeVar("T")

REQUIRED: Any = inspect.Parameter.empty
"""The default of a parameter that has none."""


@dataclass(frozen=True, slots=True)
class In:
    """Names an inport, and says more of it: ``Annotated[str, In("address")]``.

    Args:
        name: the port's name; ``""``: ``in`` for the triggering port, else the parameter's name.
        queue: the port's queue name, where it is not to follow from role and port; ``""`` hides
            the port, so that nothing can be connected to it.
        description: a sentence for people.
    """

    name: str = ""
    queue: str | None = None
    description: str = ""


class _Sent:
    """What sending returns where nothing runs: a thing that can be awaited, and is done."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


_SENT = _Sent()


class Out(Generic[T]):
    """An outport: the annotation of a parameter, or an attribute of a Component class.

    Calling it sends a packet. In async code it may be awaited, ``await word(w)``, which waits while
    the outbox is full; without ``await`` it never blocks. In a thread the call itself waits while
    the outbox is full. That a packet is sent, and safe, is waited for by nobody but the message
    that caused it: that message is settled after it.

    Where no participant runs, as in a unit test that calls a component directly, a call does
    nothing; give the component something else to call, such as ``list.append``.

    Args:
        type: the type of what is sent, for attributes and in ``Annotated[Out[T], Out(name=...)]``.
        name: the port's name, if not that of the parameter or attribute (without ``_`` at its end,
            so that ``class_`` makes a port ``class``).
        queue: the port's queue name, where it is not to follow from role and port; ``""`` hides
            the port.
        description: a sentence for people.

    Raises:
        PayloadError: (when called) the value is neither bytes nor can it be said in JSON.
    """

    @overload
    def __init__(
        self: "Out[T]",
        type: type[T],
        *,
        name: str = "",
        queue: str | None = None,
        description: str = "",
    ) -> None: ...

    @overload
    def __init__(
        self: "Out[Any]",
        type: Any = Any,
        *,
        name: str = "",
        queue: str | None = None,
        description: str = "",
    ) -> None: ...

    def __init__(
        self,
        type: Any = Any,  # noqa: A002 - what it is
        *,
        name: str = "",
        queue: str | None = None,
        description: str = "",
    ) -> None:
        self.type = type
        self.name = name
        self.queue = queue
        self.description = description

    def __call__(self, value: T = cast("Any", None)) -> Awaitable[None]:  # noqa: ARG002, B008
        """Send a packet."""
        return _SENT


class _Param:
    """Marks a parameter as a setting."""

    __slots__ = ()


Param = Annotated[T, _Param()]
"""An inport for a setting: the last value that came is the one that is used.

``timeout: Param[float] = 10.0``. For a type checker it is simply a ``float``. A Param without a
default must get its value, by an initial packet or a connection, before any message is handled.
"""

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Context:
    """What is known of the message that is being handled; ask for it by annotation.

    Outside of a participant, ``Context()`` stands in for it in tests; any attribute can be given.

    Attributes:
        headers: the metadata that came with the message.
        attempt: how often it was delivered, from 1.
        id: the message's id, the same at each attempt.
        role: the participant's role.
        instance: which participant of that role, from 1.
        inport: the inport at which the message arrived; ``""`` in a source.
        sent: when the broker got the message, in seconds since 1970; 0 if nobody knows.
        log: writes lines that start with role and instance.
    """

    __slots__ = ("_end", "attempt", "headers", "id", "inport", "instance", "log", "role", "sent")

    def __init__(
        self,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        attempt: int = 1,
        id: str = "",  # noqa: A002 - the word that everybody uses
        role: str = "",
        instance: int = 1,
        inport: str = "in",
        sent: float = 0.0,
        log: "logging.LoggerAdapter[logging.Logger] | logging.Logger | None" = None,
        end: Callable[[str | None], None] | None = None,
    ) -> None:
        self.headers = headers
        self.attempt = attempt
        self.id = id
        self.role = role
        self.instance = instance
        self.inport = inport
        self.sent = sent
        self.log = log or logging.getLogger("msgflo.component")
        self._end = end

    def ack(self) -> None:
        """Say that the message is done, where the port has ``ack="manual"``; else without effect.

        It is settled once all that was sent for it is confirmed. May be called from any thread.
        The second of two calls of ``ack`` or ``nack`` has no effect.
        """
        if self._end is not None:
            self._end(None)

    def nack(self, reason: str = "nacked") -> None:
        """Say that the message cannot be processed, where the port has ``ack="manual"``.

        It becomes a dead letter, with the reason, without further attempts.
        """
        if self._end is not None:
            self._end(reason)


class Form(Enum):
    """How a function gives its results."""

    ASYNC = "async def"
    ASYNC_GENERATOR = "async def with yield"
    PLAIN = "def"
    GENERATOR = "def with yield"

    @property
    def is_async(self) -> bool:
        """Whether it runs in the event loop; the others run in threads."""
        return self in (Form.ASYNC, Form.ASYNC_GENERATOR)

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "Form":
        """Return the form of a function."""
        if inspect.isasyncgenfunction(function):
            return cls.ASYNC_GENERATOR
        if inspect.iscoroutinefunction(function):
            return cls.ASYNC
        if inspect.isgeneratorfunction(function):
            return cls.GENERATOR
        return cls.PLAIN


@dataclass(frozen=True, slots=True)
class Inport:
    """An inport that triggers, as its author declared it."""

    name: str
    payload: Payload = ANY
    queue: str | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Outport:
    """An outport, as its author declared it."""

    name: str
    payload: Payload = ANY
    queue: str | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Parameter:
    """An inport for a setting; ``default`` is REQUIRED where it has none."""

    name: str
    payload: Payload = ANY
    queue: str | None = None
    description: str = ""
    default: Any = REQUIRED


@dataclass(frozen=True, slots=True)
class Call:
    """How to call a function with a message, and what it may send.

    Attributes:
        function: the function, not bound to an object.
        form: how it gives results.
        inport: the port that triggers it; None for a source.
        message: the name of the parameter that gets the message's value.
        positional: whether that is the first parameter.
        outs: outports, by the names of their parameters.
        params: settings, by the names of their parameters.
        context: the name of the parameter that gets the Context.
        result: the outport for what is returned or yielded; None if there is none.
        sends_none: whether None, too, is sent there.
    """

    function: Callable[..., Any]
    form: Form
    inport: Inport | None = None
    message: str = ""
    positional: bool = True
    outs: Mapping[str, Outport] = field(default_factory=dict)
    params: Mapping[str, Parameter] = field(default_factory=dict)
    context: str = ""
    result: Outport | None = None
    sends_none: bool = False


def where(thing: Any) -> str:
    """Return where a function or class stands, as ``file:line: name``, for error messages."""
    name = getattr(thing, "__qualname__", repr(thing)).rpartition("<locals>.")[2]
    code = getattr(inspect.unwrap(thing) if callable(thing) else thing, "__code__", None)
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}: {name}"
    try:
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}: {name}"
    except (OSError, TypeError):
        return name


def read(
    function: Callable[..., Any],
    *,
    method: bool = False,
    source: bool = False,
    port: str = "",
    names: Mapping[str, Any] | None = None,
) -> Call:
    """Read a function's signature.

    Args:
        function: an ordinary function, async or not, generator or not.
        method: its first parameter is ``self``.
        source: it has no triggering inport.
        port: the name of the triggering inport where the signature does not name it.
        names: what annotations may mention beside the function's globals.

    Raises:
        DefinitionError: it cannot be a component; says where it stands and why.
        NameError: an annotation mentions what is not defined (yet).
    """
    if not inspect.isfunction(function):
        raise DefinitionError(
            f"{function!r} is no function that Python code defines; expected def or async def"
        )
    at = where(function)
    hints = hints_of(function, names)
    inport: Inport | None = None
    message, context = "", ""
    positional = True
    outs: dict[str, Outport] = {}
    params: dict[str, Parameter] = {}
    parameters = list(inspect.signature(function).parameters.values())[1 if method else 0 :]
    for index, parameter in enumerate(parameters):
        name = parameter.name
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise DefinitionError(
                f"{at}: the parameter {parameter} is no port; expected named parameters"
            )
        annotation, extras = _unwrap(hints.get(name, Any))
        said = next((extra for extra in extras if isinstance(extra, In)), None)
        try:
            if annotation is Context:
                context = name
            elif annotation is Out or get_origin(annotation) is Out:
                outs[name] = _outport(name, annotation, extras)
            elif any(isinstance(extra, _Param) for extra in extras):
                params[name] = _parameter(name, annotation, said, parameter.default)
            elif source:
                raise DefinitionError(
                    f"the parameter {name!r} would be an inport, but a source has none; expected "
                    f"Param[...], Out[...] or Context, or @msgflo.component"
                )
            elif inport is not None:
                raise DefinitionError(
                    f"two plain parameters, {message!r} and {name!r}, but one message at a time "
                    f"calls a function; make {name!r} a Param[...], or write a class with an "
                    f"@msgflo.inport method for each"
                )
            else:
                message, positional = name, index == 0
                if parameter.kind is parameter.KEYWORD_ONLY:
                    positional = False
                said = said or In()
                inport = Inport(
                    said.name or port or "in",
                    payload_of(annotation),
                    said.queue,
                    said.description,
                )
        except DefinitionError as error:
            raise DefinitionError(f"{at}: {_of(name, error)}{error}") from None
        injected = name != message
        if parameter.kind is parameter.POSITIONAL_ONLY and (injected or index):
            raise DefinitionError(f"{at}: the parameter {name!r} cannot be positional-only")
    if inport is None and not source:
        raise DefinitionError(
            f"{at}: no parameter takes the message; expected one that is no Out, Param or Context "
            f"(without an inport it is a source: @msgflo.source)"
        )
    _check_names(at, [inport] if inport else [], params.values(), outs.values())
    form = Form.of(function)
    result, sends_none = _result(at, form, hints, bool(outs), method)
    return Call(
        function=function,
        form=form,
        inport=inport,
        message=message,
        positional=positional,
        outs=outs,
        params=params,
        context=context,
        result=_merged(result, outs),
        sends_none=sends_none,
    )


def hints_of(function: Callable[..., Any], names: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the annotations of a function, postponed ones evaluated.

    Raises:
        NameError: one mentions what is not defined (yet).
        DefinitionError: one is not even an expression.
    """
    assert inspect.isfunction(function)
    scope = {**names, **function.__globals__} if names else None
    try:
        return get_type_hints(function, scope, None, include_extras=True)
    except NameError:
        raise
    except Exception as error:
        raise DefinitionError(f"{where(function)}: an annotation cannot be read: {error}") from None


def attributes_of(
    cls: type, names: Mapping[str, Any] | None
) -> tuple[dict[str, Outport], dict[str, Parameter]]:
    """Return the outports and settings that a class declares, by the names of its attributes.

    Raises:
        NameError: an annotation that looks like one of ours mentions what is not defined (yet).
        DefinitionError: one cannot be a port.
    """
    outs: dict[str, Outport] = {}
    params: dict[str, Parameter] = {}
    for base in reversed(cls.__mro__[:-1]):
        scope = {**(names or {}), **vars(sys.modules.get(base.__module__, sys))}
        for name, annotation in inspect.get_annotations(base).items():
            if isinstance(annotation, str):
                if "Out" not in annotation and "Param" not in annotation:
                    continue  # whatever it is, it is nothing to us
                stub = type("_", (), {"__annotations__": {name: annotation}})
                annotation = get_type_hints(stub, scope, None, include_extras=True)[name]
            inner, extras = _unwrap(annotation)
            try:
                if inner is Out or get_origin(inner) is Out:
                    outs[name] = _outport(name, inner, extras)
                elif any(isinstance(extra, _Param) for extra in extras):
                    said = next((extra for extra in extras if isinstance(extra, In)), None)
                    params[name] = _parameter(name, inner, said, getattr(cls, name, REQUIRED))
            except DefinitionError as error:
                raise DefinitionError(f"{where(cls)}: the attribute {name!r}: {error}") from None
        for name, value in vars(base).items():
            if isinstance(value, Out):
                try:
                    outs[name] = Outport(
                        value.name or name.rstrip("_") or name,
                        payload_of(value.type),
                        value.queue,
                        value.description,
                    )
                except DefinitionError as error:
                    raise DefinitionError(
                        f"{where(cls)}: the attribute {name!r}: {error}"
                    ) from None
    return outs, params


def _of(name: str, error: DefinitionError) -> str:
    return "" if repr(name) in str(error) else f"the parameter {name!r}: "


def _unwrap(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Split ``Annotated[T, ...]``; what is not for us stays with the type (msgspec.Meta)."""
    if get_origin(annotation) is not Annotated:
        return annotation, ()
    inner, *extras = get_args(annotation)
    ours = tuple(extra for extra in extras if isinstance(extra, In | Out | _Param))
    foreign = tuple(extra for extra in extras if not isinstance(extra, In | Out | _Param))
    for extra in foreign:
        inner = Annotated[inner, extra]
    return inner, ours


def _outport(name: str, annotation: Any, extras: tuple[Any, ...]) -> Outport:
    said: Out[Any] = next((extra for extra in extras if isinstance(extra, Out)), Out())
    item = next(iter(get_args(annotation)), said.type)
    return Outport(
        said.name or name.rstrip("_") or name, payload_of(item), said.queue, said.description
    )


def _parameter(name: str, annotation: Any, said: In | None, default: Any) -> Parameter:
    said = said or In()
    return Parameter(
        said.name or name.rstrip("_") or name,
        payload_of(annotation),
        said.queue,
        said.description,
        default,
    )


_ITEMS: dict[Any, tuple[Form, ...]] = {
    Iterator: (Form.GENERATOR, Form.PLAIN),
    Generator: (Form.GENERATOR, Form.PLAIN),
    Iterable: (Form.GENERATOR,),
    AsyncIterator: (Form.ASYNC_GENERATOR, Form.ASYNC),
    AsyncGenerator: (Form.ASYNC_GENERATOR, Form.ASYNC),
    AsyncIterable: (Form.ASYNC_GENERATOR,),
}


def _result(
    at: str, form: Form, hints: Mapping[str, Any], has_outs: bool, method: bool
) -> tuple[Outport | None, bool]:
    """Return the outport for results, and whether None goes there too."""
    generates = form in (Form.GENERATOR, Form.ASYNC_GENERATOR)
    if "return" not in hints:
        return (Outport("out") if generates or not (has_outs or method) else None), False
    annotation, extras = _unwrap(hints["return"])
    said: Out[Any] | None = next((extra for extra in extras if isinstance(extra, Out)), None)
    if annotation in (Never, NoReturn):
        return None, False
    origin = get_origin(annotation) or annotation
    if form in _ITEMS.get(origin, ()):
        annotation = next(iter(get_args(annotation)), Any)
        explicit = True
    elif generates:
        expected = "AsyncIterator[...]" if form is Form.ASYNC_GENERATOR else "Iterator[...]"
        raise DefinitionError(
            f"{at}: it yields, but is annotated to return {hints['return']}; expected {expected}"
        )
    else:
        explicit = said is not None
    said = said or Out()
    nothing = annotation is None or annotation is NoneType
    if nothing and not explicit:
        return None, False
    if get_origin(annotation) in (Union, UnionType):
        members = tuple(m for m in get_args(annotation) if m is not NoneType)
        annotation = Union[members]  # noqa: UP007 - of a tuple
    try:
        payload = payload_of(annotation)
    except DefinitionError as error:
        raise DefinitionError(f"{at}: what it returns: {error}") from None
    return Outport(said.name or "out", payload, said.queue, said.description), nothing


def _merged(result: Outport | None, outs: Mapping[str, Outport]) -> Outport | None:
    """Let results go to the Out parameter of the same name, where there is one."""
    if result is None:
        return None
    return next((out for out in outs.values() if out.name == result.name), result)


def _check_names(at: str, *groups: Iterable[Inport | Parameter | Outport]) -> None:
    inports, params, outs = groups
    for direction, ports in (("inport", [*inports, *params]), ("outport", [*outs])):
        seen: set[str] = set()
        for port in ports:
            if port.name.casefold() in seen:
                raise DefinitionError(f"{at}: two {direction}s are called {port.name!r}")
            seen.add(port.name.casefold())


def fill_defaults(function: Callable[..., Any], call: Call) -> None:
    """Give a function defaults for its Out and Context parameters, so that tests may omit them.

    As everywhere in Python only the last parameters can have defaults; others stay as they are.
    """
    assert inspect.isfunction(function)
    stand_ins: dict[str, Any] = {
        name: Out(port.payload.annotation, name=port.name) for name, port in call.outs.items()
    }
    if call.context:
        stand_ins[call.context] = Context()
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    defaults = list(function.__defaults__ or ())
    for name in reversed(positional[: len(positional) - len(defaults)]):
        if name not in stand_ins:
            break
        defaults.insert(0, stand_ins[name])
    function.__defaults__ = tuple(defaults) or None
    only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    by_name = {name: stand_ins[name] for name in only if name in stand_ins}
    function.__kwdefaults__ = {**by_name, **(function.__kwdefaults__ or {})} or None
