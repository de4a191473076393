"""What an author declares: components that are functions, sources or classes.

What is decorated stays what it was: a function can be called, a class instantiated. What a
participant needs to know of it is its :class:`Declaration`, which :func:`declared` finds.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar, overload

from msgflo.errors import DefinitionError
from msgflo.flow import discovery
from msgflo.payload import ANY
from msgflo.signature import (
    Call,
    Context,
    Inport,
    Outport,
    Parameter,
    attributes_of,
    fill_defaults,
    read,
    where,
)
from msgflo.transport.contract import Retry

__all__ = [
    "Component",
    "Declaration",
    "Entry",
    "Source",
    "component",
    "declared",
    "inport",
    "seconds",
    "source",
]

F = TypeVar("F", bound=Callable[..., Any])

Ack = Literal["auto", "manual"]
Executor = Literal["thread", "process"]


@dataclass(frozen=True, slots=True)
class Entry:
    """An inport that triggers, the function behind it, and how its messages are handled.

    Attributes:
        call: the function and how to call it.
        retry: what happens to a message whose handling fails.
        concurrency: how many messages are handled at a time.
        prefetch: how many are taken from the broker at a time, at least ``concurrency``.
        executor: where a function that is not async runs.
        ack: ``auto``: a message is done when its handler has returned; ``manual``: when it says so.
    """

    call: Call
    retry: Retry = Retry()  # noqa: RUF009 - frozen
    concurrency: int = 1
    prefetch: int = 1
    executor: Executor = "thread"
    ack: Ack = "auto"

    @property
    def port(self) -> Inport:
        """The inport."""
        assert self.call.inport is not None
        return self.call.inport


@dataclass(frozen=True, slots=True)
class Source:
    """A function that needs no message: called every so many seconds, or again and again."""

    call: Call
    every: float | None = None


@dataclass(frozen=True, slots=True)
class Declaration:
    """A component, as its author wrote it.

    Attributes:
        component: the kind of node, such as ``images/Resize``.
        role: what a participant is called that nobody named.
        label: a line for people.
        icon: a FontAwesome name.
        entries: the inports that trigger.
        parameters: the inports for settings.
        outports: all outports.
        sources: what runs by itself.
        make: makes the object that the functions are methods of; None where there is none.
        outs: outports that are attributes of the object, by the attribute's name.
        settings: settings that are attributes of the object, by the attribute's name.
        attach: told of the participant that runs it, and at the end of None.
        at: where it stands.
    """

    component: str
    role: str
    label: str = ""
    icon: str = "file-o"
    entries: tuple[Entry, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    outports: tuple[Outport, ...] = ()
    sources: tuple[Source, ...] = ()
    make: Callable[[], Any] | None = None
    outs: Mapping[str, Outport] | None = None
    settings: Mapping[str, Parameter] | None = None
    attach: Callable[[Any], None] | None = None
    at: str = ""

    def entry(self, name: str) -> Entry | None:
        """Return the triggering inport of this name, or the one that differs in case alone."""
        return _named(self.entries, lambda entry: entry.port.name, name)

    def parameter(self, name: str) -> Parameter | None:
        """Return the setting of this name, or the one that differs in case alone."""
        return _named(self.parameters, lambda parameter: parameter.name, name)

    def definition(self, role: str, id: str = "") -> discovery.Definition:  # noqa: A002
        """Return what a participant of this role announces."""

        def port(declared: Inport | Outport | Parameter) -> discovery.Port:
            queue = declared.queue
            return discovery.Port(
                id=declared.name,
                type=declared.payload.type,
                queue=discovery.queue_name(role, declared.name) if queue is None else queue,
                description=declared.description,
                schema=declared.payload.schema,
                hidden=queue == "",
            )

        return discovery.Definition(
            id=id or role,
            role=role,
            component=self.component,
            label=self.label,
            icon=self.icon,
            inports=tuple(port(entry.port) for entry in self.entries)
            + tuple(port(parameter) for parameter in self.parameters),
            outports=tuple(port(outport) for outport in self.outports),
        )


S = TypeVar("S")


def _named(things: Iterable[S], name_of: Callable[[S], str], name: str) -> S | None:
    things = list(things)
    return next((thing for thing in things if name_of(thing) == name), None) or next(
        (thing for thing in things if name_of(thing).casefold() == name.casefold()), None
    )


class _Pending:
    """A declaration whose annotations mention what is not defined yet: read when it is needed."""

    def __init__(self, make: Callable[[], Declaration], at: str) -> None:
        self._make = make
        self._at = at
        self._made: Declaration | None = None

    def get(self, *, now: bool = True) -> Declaration | None:
        if self._made is None:
            try:
                self._made = self._make()
            except NameError as error:
                if now:
                    raise DefinitionError(
                        f"{self._at}: an annotation mentions what is not defined: {error}"
                    ) from None
        return self._made


def declared(thing: Any) -> Declaration:
    """Return the declaration of a component: a decorated function, a class, or an object of one.

    Raises:
        DefinitionError: it is none, or its annotations mention what is not defined.
    """
    found = getattr(thing, "__msgflo__", None)
    if isinstance(found, _Pending):
        declaration = found.get()
        assert declaration is not None
        if not isinstance(thing, type) and isinstance(thing, Component):
            return replace(declaration, make=lambda: thing)
        return declaration
    if isinstance(found, Declaration):
        return found
    hint = " (decorate it with @msgflo.component)" if inspect.isfunction(thing) else ""
    raise DefinitionError(
        f"{where(thing)} is no component{hint}; expected a function decorated with "
        f"@msgflo.component or @msgflo.source, or a class made from msgflo.Component or "
        f"msgflo.Participant"
    )


def seconds(text: float | str) -> float:
    """Return a duration in seconds: a number, or a text such as ``500ms``, ``10s``, ``5m``, ``1h``.

    Raises:
        DefinitionError: it is no duration, or not more than 0.
    """
    if isinstance(text, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\s*", text)
        value = float(found[1]) * _UNITS[found[2]] if found else 0.0
    else:
        value = float(text)
    if not 0 < value < float("inf"):
        raise DefinitionError(
            f"{text!r} is no duration; expected seconds, more than 0, or a text such as '500ms', "
            f"'10s', '5m', '1h', '1d'"
        )
    return value


_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _label(thing: Any) -> str:
    text = inspect.cleandoc(thing.__doc__) if thing.__doc__ else ""
    return text.partition("\n")[0].strip()


def _caller_names() -> dict[str, Any] | None:
    """Return the names that are local where a decorator is used, for postponed annotations."""
    frame = sys._getframe(2)
    return None if frame.f_locals is frame.f_globals else dict(frame.f_locals)


def _entry(
    call: Call,
    retry: Retry | int | None,
    concurrency: int,
    prefetch: int | None,
    executor: Executor,
    ack: Ack,
) -> Entry:
    at = where(call.function)
    for what, got, allowed in (
        ("executor", executor, ("thread", "process")),
        ("ack", ack, ("auto", "manual")),
    ):
        if got not in allowed:
            raise DefinitionError(f"{at}: {what} is {got!r}; expected {' or '.join(allowed)}")
    if executor == "process":
        if call.form.is_async:
            raise DefinitionError(f"{at}: executor='process' is for a plain def, and it is async")
        if ack == "manual":
            raise DefinitionError(f"{at}: executor='process' does not go with ack='manual'")
    try:
        retry = Retry(retry) if isinstance(retry, int) else retry or Retry()
    except ValueError as error:
        raise DefinitionError(f"{at}: {error}") from None
    prefetch = concurrency if prefetch is None else prefetch
    if not 1 <= concurrency <= 10_000 or prefetch < concurrency:
        raise DefinitionError(
            f"{at}: concurrency is {concurrency} and prefetch {prefetch}; expected a concurrency "
            f"from 1 to 10000, and a prefetch that is not less"
        )
    return Entry(call, retry, concurrency, prefetch, executor, ack)


def _outports(calls: Iterable[Call], more: Iterable[Outport] = ()) -> tuple[Outport, ...]:
    """Return the outports of several functions; of two with one name and two types: any type."""
    found: dict[str, Outport] = {}
    for call in calls:
        for out in (*([call.result] if call.result else []), *call.outs.values()):
            first = found.setdefault(out.name, out)
            if first.payload.annotation != out.payload.annotation:
                found[out.name] = replace(first, payload=ANY)
    for out in more:
        found[out.name] = out
    return tuple(found.values())


@overload
def component(function: F, /) -> F: ...


@overload
def component(
    name: str = "",
    /,
    *,
    label: str = "",
    icon: str = "file-o",
    retry: Retry | int | None = None,
    concurrency: int = 1,
    prefetch: int | None = None,
    executor: Executor = "thread",
    ack: Ack = "auto",
) -> Callable[[F], F]: ...


def component(
    name: Any = "",
    /,
    *,
    label: str = "",
    icon: str = "file-o",
    retry: Retry | int | None = None,
    concurrency: int = 1,
    prefetch: int | None = None,
    executor: Executor = "thread",
    ack: Ack = "auto",
) -> Any:
    """Make a function a component. It stays the function that it was.

    The first plain parameter is the inport, ``in`` unless ``Annotated[T, In("name")]`` says
    otherwise. What is returned or yielded is sent to ``out``; None is not, and a function that is
    annotated ``-> None`` has no ``out``. One that is to say when a message is done declares a port
    whose type is None: ``-> Annotated[None, Out(name="done")]`` sends ``null`` there. ``Out[T]``
    parameters are more outports, ``Param[T]`` parameters are settings, a ``Context`` parameter gets
    what is known of the message.

    An ``async def`` runs in the event loop. A ``def`` runs in a thread, at most ``concurrency`` at
    a time, or with ``executor="process"`` in a process of its own, for work that holds the
    interpreter; such a function must stand at the top level of its file. A process that dies
    takes one message with it, which is tried again.

    Args:
        name: the component's name, such as ``images/Resize``; the function's name if left out.
        label: a line for people; the first line of the docstring if left out.
        icon: a FontAwesome name.
        retry: how often a message is tried that fails, and after what pauses; a number stands for
            that many attempts. Default: once.
        concurrency: how many messages are handled at a time, 1 to 10000. The default of 1 keeps
            their order.
        prefetch: how many messages are taken from the broker at a time; default: ``concurrency``.
            More is quicker where handling takes little, as the next message is here already while
            the last is being confirmed; but what is here cannot go to another instance.
        executor: ``thread`` or ``process``.
        ack: ``manual``: the message is not settled before ``ctx.ack()``.

    Raises:
        DefinitionError: the signature cannot be that of a component; says where and why.
    """
    names = _caller_names()

    def decorate(function: F) -> F:
        if isinstance(function, type):
            raise DefinitionError(
                f"{where(function)} is a class; derive it from msgflo.Component instead of "
                f"decorating it"
            )
        if not inspect.isfunction(function):
            raise DefinitionError(f"{function!r} cannot be decorated; expected def or async def")
        if _is_method(function):
            raise DefinitionError(
                f"{where(function)} is a method; expected @msgflo.inport (or a plain function)"
            )
        if executor == "process" and "<locals>" in function.__qualname__:
            raise DefinitionError(
                f"{where(function)}: executor='process' needs a function at the top level of its "
                f"file, which another process can find"
            )

        def make() -> Declaration:
            call = read(function, names=names)
            entry = _entry(call, retry, concurrency, prefetch, executor, ack)
            fill_defaults(function, call)
            return Declaration(
                component=name if isinstance(name, str) and name else function.__name__,
                role=function.__name__,
                label=label or _label(function),
                icon=icon,
                entries=(entry,),
                parameters=tuple(call.params.values()),
                outports=_outports([call]),
                at=where(function),
            )

        return _declare(function, make)

    return decorate(name) if callable(name) else decorate


@overload
def source(function: F, /) -> F: ...


@overload
def source(
    name: str = "",
    /,
    *,
    every: float | str | None = None,
    label: str = "",
    icon: str = "file-o",
) -> Callable[[F], F]: ...


def source(
    name: Any = "",
    /,
    *,
    every: float | str | None = None,
    label: str = "",
    icon: str = "file-o",
) -> Any:
    """Make a function, or a method of a Component class, one that runs by itself, with no inport.

    With ``every`` it is called at once, and then at whole multiples of the period after that,
    however long a call takes; it never overlaps itself, and a time at which it still runs is left
    out. Without, a generator runs to its end and then the source is done; another function is
    called again as soon as it has returned. One that fails is logged and tried again after a pause
    (1 s, doubled each time, at most a minute).

    Args:
        name: the component's name; the function's name if left out.
        every: the period: seconds, or a text such as ``"500ms"``, ``"10s"``, ``"5m"``, ``"1h"``.
        label: a line for people; the first line of the docstring if left out.
        icon: a FontAwesome name.

    Raises:
        DefinitionError: the signature cannot be that of a source; says where and why.
    """
    names = _caller_names()
    period = None if every is None else seconds(every)

    def decorate(function: F) -> F:
        if _is_method(function):
            function.__msgflo_source__ = period  # type: ignore[attr-defined]
            return function
        if isinstance(function, type) or not inspect.isfunction(function):
            raise DefinitionError(f"{function!r} cannot be decorated; expected def or async def")

        def make() -> Declaration:
            call = read(function, source=True, names=names)
            fill_defaults(function, call)
            return Declaration(
                component=name if isinstance(name, str) and name else function.__name__,
                role=function.__name__,
                label=label or _label(function),
                icon=icon,
                parameters=tuple(call.params.values()),
                outports=_outports([call]),
                sources=(Source(call, period),),
                at=where(function),
            )

        return _declare(function, make)

    return decorate(name) if callable(name) else decorate


def _declare(function: F, make: Callable[[], Declaration]) -> F:
    pending = _Pending(make, where(function))
    pending.get(now=False)
    function.__msgflo__ = pending  # type: ignore[attr-defined]
    return function


def _is_method(function: Any) -> bool:
    if not inspect.isfunction(function):
        return False
    first = next(iter(inspect.signature(function).parameters), "")
    return "." in function.__qualname__.rpartition("<locals>.")[2] and first in ("self", "cls")


@overload
def inport(function: F, /) -> F: ...


@overload
def inport(
    name: str = "",
    /,
    *,
    retry: Retry | int | None = None,
    concurrency: int = 1,
    prefetch: int | None = None,
    ack: Ack = "auto",
) -> Callable[[F], F]: ...


def inport(
    name: Any = "",
    /,
    *,
    retry: Retry | int | None = None,
    concurrency: int = 1,
    prefetch: int | None = None,
    ack: Ack = "auto",
) -> Any:
    """Make a method of a :class:`Component` class the handler of an inport.

    The parameters are those of a function component (see :func:`component`), after ``self``.

    Args:
        name: the port's name; the method's if left out, without ``_`` at its end.
        retry: as for :func:`component`.
        concurrency: as for :func:`component`; each inport has its own.
        prefetch: as for :func:`component`.
        ack: as for :func:`component`.
    """

    def decorate(function: F) -> F:
        function.__msgflo_inport__ = {  # type: ignore[attr-defined]
            "port": name if isinstance(name, str) and name else "",
            "retry": retry,
            "concurrency": concurrency,
            "prefetch": prefetch,
            "ack": ack,
        }
        return function

    return decorate(name) if callable(name) else decorate


class Component:
    """A component with several triggering inports, with state, or with a start and a stop.

    ::

        class Web(msgflo.Component, name="web/Server", icon="globe"):
            job = Out(Job)                       # an outport
            quality: Param[int] = 80             # a setting, always up to date

            async def start(self): ...           # before the first message
            async def stop(self): ...            # after the last

            @msgflo.inport
            async def result(self, result: Result): ...

    A participant makes its object by calling the class without arguments; an object made by
    yourself, with whatever it needs, can be run as well.

    Args:
        name: (of the class statement) the component's name; the class's if left out.
        label: (of the class statement) a line for people; else the docstring's first.
        icon: (of the class statement) a FontAwesome name.

    Attributes:
        context: role, instance and log; there from ``start`` on, and a stand-in before.
    """

    __msgflo__: ClassVar[Any] = None
    context: Context = Context()

    def __init_subclass__(cls, name: str = "", label: str = "", icon: str = "", **more: Any):
        super().__init_subclass__(**more)
        inherited = next(
            (base.__dict__["_icon"] for base in cls.__mro__ if "_icon" in base.__dict__), "file-o"
        )
        cls._icon = icon or inherited  # type: ignore[attr-defined]
        names = _caller_names()
        pending = _Pending(lambda: _read_class(cls, name, label, names), where(cls))
        cls.__msgflo__ = pending
        if _handlers(cls):  # else it is a base for others, or its outports are all it has
            pending.get(now=False)

    async def start(self) -> None:
        """Prepare: called before the first message. If it raises, the participant does not start.

        It may be a plain ``def`` as well.
        """

    async def stop(self) -> None:
        """Clean up: called after the last message, before the connection closes."""


def _handlers(cls: type) -> dict[str, Callable[..., Any]]:
    """Return the methods that are inports or sources, in the order of their definition."""
    found: dict[str, Callable[..., Any]] = {}
    for base in reversed(cls.__mro__):
        for key in vars(base):
            member: Any = getattr(cls, key, None)
            if hasattr(member, "__msgflo_inport__") or hasattr(member, "__msgflo_source__"):
                found[key] = member
    return found


def _read_class(cls: type, name: str, label: str, names: Mapping[str, Any] | None) -> Declaration:
    outs, settings = attributes_of(cls, names)
    entries: list[Entry] = []
    sources: list[Source] = []
    for key, function in _handlers(cls).items():
        if hasattr(function, "__msgflo_source__"):
            call = read(function, method=True, source=True, names=names)
            sources.append(Source(_to_attribute(call, outs), function.__msgflo_source__))
        else:
            options = dict(function.__msgflo_inport__)  # type: ignore[attr-defined]
            port = options.pop("port") or key.rstrip("_") or key
            call = read(function, method=True, port=port, names=names)
            entries.append(_entry(_to_attribute(call, outs), executor="thread", **options))
        fill_defaults(function, call)
    calls = [entry.call for entry in entries] + [source.call for source in sources]
    parameters = {parameter.name: parameter for parameter in settings.values()}
    for call in calls:
        parameters |= {parameter.name: parameter for parameter in call.params.values()}
    inports = [entry.port.name for entry in entries] + list(parameters)
    twice = next((port for port in inports if inports.count(port) > 1), None)
    if twice is not None:
        raise DefinitionError(f"{where(cls)}: two inports are called {twice!r}")
    outports = _outports(calls, outs.values())
    if not (inports or sources or outports):
        raise DefinitionError(
            f"{where(cls)}: it has no ports; expected methods with @msgflo.inport, or attributes "
            f"like: job = Out(Job)"
        )
    return Declaration(
        component=name or cls.__name__,
        role=cls.__name__.lower(),
        label=label or (_label(cls) if "__doc__" in vars(cls) else ""),
        icon=cls._icon,  # type: ignore[attr-defined]
        entries=tuple(entries),
        parameters=tuple(parameters.values()),
        outports=outports,
        sources=tuple(sources),
        make=cls,
        outs=outs,
        settings=settings,
        at=where(cls),
    )


def _to_attribute(call: Call, outs: Mapping[str, Outport]) -> Call:
    """Let what a method returns go to the outport attribute of that name, where there is one."""
    if call.result is None:
        return call
    name = call.result.name
    return replace(
        call, result=next((out for out in outs.values() if out.name == name), call.result)
    )
