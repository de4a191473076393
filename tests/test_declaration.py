"""Components as their authors write them: functions, sources and classes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any

import msgspec
import pytest

from msgflo.declaration import Component, component, declared, inport, seconds, source
from msgflo.errors import DefinitionError
from msgflo.signature import REQUIRED, Context, Form, In, Out, Param
from msgflo.transport.contract import Retry


class Image(msgspec.Struct):
    url: str
    width: int = 800


@component("images/Resize", icon="compress")
async def resize(image: Image) -> bytes:
    """Shrink an image.

    To something smaller.
    """
    return image.url.encode()


@component
def split(line: str, word: Out[str], empty: Out[None]):
    for part in line.split(" "):
        if part:
            word(part)
        else:
            empty()


@component
async def chunks(path: str) -> AsyncIterator[bytes]:
    yield path.encode()


@component(retry=Retry(5, backoff=2.0, delay=1.0), concurrency=8)
async def fetch(
    url: Annotated[str, In("address")], ctx: Context, timeout: Param[float] = 10.0
) -> bytes | None:
    return f"{url} {timeout} {ctx.attempt}".encode()


@source(every="10s")
async def clock() -> float:
    return 1.0


def ports(thing: Any) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    definition = declared(thing).definition("r")
    return (
        [(port.id, port.type) for port in definition.inports],
        [(port.id, port.type) for port in definition.outports],
    )


def test_one_parameter_and_a_return_value_are_in_and_out() -> None:
    definition = declared(resize).definition("small", "small-1")
    assert definition.to_json() == {
        "id": "small-1",
        "role": "small",
        "component": "images/Resize",
        "label": "Shrink an image.",
        "icon": "compress",
        "inports": [
            {
                "id": "in",
                "type": "object",
                "queue": "small.IN",
                "schema": {
                    "title": "Image",
                    "type": "object",
                    "properties": {
                        "url": {"type": "string"},
                        "width": {"type": "integer", "default": 800},
                    },
                    "required": ["url"],
                },
            }
        ],
        "outports": [{"id": "out", "type": "buffer", "queue": "small.OUT"}],
    }


def test_out_parameters_are_the_outports_of_a_function_that_returns_nothing() -> None:
    assert ports(split) == ([("in", "string")], [("word", "string"), ("empty", "bang")])


def test_what_is_yielded_is_the_type_of_out() -> None:
    assert ports(chunks) == ([("in", "string")], [("out", "buffer")])
    assert declared(chunks).entries[0].call.form is Form.ASYNC_GENERATOR


def test_params_are_inports_with_a_default_and_ports_can_be_named() -> None:
    assert ports(fetch) == ([("address", "string"), ("timeout", "number")], [("out", "buffer")])
    declaration = declared(fetch)
    assert declaration.parameters[0].default == 10.0
    assert declaration.entries[0].retry.attempts == 5
    assert (declaration.entries[0].concurrency, declaration.entries[0].prefetch) == (8, 8)
    assert declaration.parameter("TimeOut") is declaration.parameters[0]


def test_a_source_has_no_inport() -> None:
    assert ports(clock) == ([], [("out", "number")])
    assert declared(clock).sources[0].every == 10


def test_without_annotations_everything_is_any() -> None:
    @component
    def anything(value):
        return value

    assert ports(anything) == ([("in", "any")], [("out", "any")])


def test_none_is_nothing_sent_unless_a_port_is_declared_for_it() -> None:
    @component
    async def done(x: int) -> Annotated[None, Out(name="done")]: ...

    @component
    async def maybe(x: int) -> str | None: ...

    @component
    async def sink(x: int) -> None: ...

    @component
    def splits(x: int, word: Out[str]) -> None: ...

    @component
    def bangs(x: int) -> Iterator[None]:
        yield None

    assert ports(done)[1] == [("done", "bang")]
    assert declared(done).entries[0].call.sends_none
    assert ports(maybe)[1] == [("out", "string")]
    assert not declared(maybe).entries[0].call.sends_none
    assert ports(sink)[1] == []
    assert ports(splits)[1] == [("word", "string")]
    assert declared(bangs).entries[0].call.sends_none


def test_ports_can_be_renamed_described_placed_and_hidden() -> None:
    @component
    def f(
        x: Annotated[int, In("number", queue="a/number", description="A number.")],
        class_: Out[str],
        other: Annotated[Out[int], Out(name="more", queue="")],
    ) -> Annotated[bytes, Out(name="image")]:
        return b""

    definition = declared(f).definition("r")
    assert [(p.id, p.queue, p.description) for p in definition.inports] == [
        ("number", "a/number", "A number.")
    ]
    assert [(p.id, p.queue) for p in definition.outports] == [
        ("image", "r.IMAGE"),
        ("class", "r.CLASS"),
        ("more", ""),
    ]
    assert definition.outports[2].hidden
    assert [port["id"] for port in definition.to_json()["outports"]] == ["image", "class"]


async def test_what_is_decorated_can_be_called_as_before() -> None:
    assert await resize(Image("u")) == b"u"
    assert await fetch("u") == b"u 10.0 1"
    assert await fetch("u", Context(attempt=3), timeout=1.0) == b"u 1.0 3"
    assert [block async for block in chunks("p")] == [b"p"]
    words: list[str] = []
    split("a b  c", words.append)
    assert words == ["a", "b", "c"]
    split("a b", word=words.append)
    split("a b")
    await Out(str)("awaited, and nowhere")


def test_a_context_that_comes_first_is_given_and_stays_required_in_direct_calls() -> None:
    @component
    def f(ctx: Context, line: str) -> str:
        return line

    assert ports(f)[0] == [("in", "string")]
    assert not declared(f).entries[0].call.positional
    assert f(Context(), "x") == "x"


def _two_plain(a: int, b: int) -> int:
    return a + b


def _no_message(ctx: Context) -> int:
    return 1


def _unknown(x: pytest.Item) -> int:
    return 1


def _many(*xs: int) -> int:
    return 1


def _twice(x: int, word: Out[str], Word: Out[str]) -> None: ...


def _yields(x: int) -> str:  # type: ignore[misc]
    yield ""


def _returns(x: int) -> pytest.Item: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_two_plain, "two plain parameters, 'a' and 'b'"),
        (_no_message, "no parameter takes the message"),
        (_unknown, "the parameter 'x': Item is no type of payload"),
        (_many, "the parameter \\*xs"),
        (_twice, "two outports are called 'Word'"),
        (_yields, "it yields, but is annotated to return <class 'str'>; expected Iterator"),
        (_returns, "what it returns: Item is no type of payload"),
    ],
)
def test_what_cannot_be_a_component_says_where_it_stands_and_why(
    function: Callable[..., Any], said: str
) -> None:
    with pytest.raises(DefinitionError, match=said) as caught:
        component(function)
    line = function.__code__.co_firstlineno
    assert f"test_declaration.py:{line}: {function.__name__}: " in str(caught.value)


def test_wrong_options_are_refused() -> None:
    for options in (
        {"concurrency": 0},
        {"concurrency": 4, "prefetch": 2},
        {"executor": "gpu"},
        {"ack": "never"},
        {"retry": 0},
    ):
        with pytest.raises(DefinitionError):
            component(**options)(_first)  # type: ignore[call-overload]
    with pytest.raises(DefinitionError, match="is a class"):
        component(Image)
    with pytest.raises(DefinitionError, match="plain def, and it is async"):
        component(executor="process")(_async)


def _first(x: int) -> int:
    return x


async def _async(x: int) -> int:
    return x


def test_a_function_that_is_not_decorated_is_no_component() -> None:
    with pytest.raises(DefinitionError, match=r"_first is no component \(decorate it with"):
        declared(_first)


def test_a_source_takes_no_message() -> None:
    with pytest.raises(DefinitionError, match="would be an inport, but a source has none"):
        source(_first)


@pytest.mark.parametrize(
    ("text", "value"), [("500ms", 0.5), ("10s", 10), ("5 m", 300), ("1h", 3600), (3, 3), ("2", 2)]
)
def test_durations(text: str | float, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "10 years", "-1s", 0, "0s", float("inf"), float("nan")])
def test_what_is_no_duration(text: str | float) -> None:
    with pytest.raises(DefinitionError, match="is no duration"):
        seconds(text)


class Job(msgspec.Struct):
    id: str


class Web(Component, name="web/Server", icon="globe"):
    """Takes jobs."""

    job = Out(Job)
    quality: Param[int] = 80
    seen: Out[str]

    @inport
    async def result(self, result: Job) -> None:
        self.job(result)

    @inport("in", concurrency=4)
    def other(self, x: int, size: Param[int] = 3) -> str:
        return "x" * x * size

    @source(every=1)
    async def tick(self) -> None: ...


def test_a_class_has_an_inport_for_each_method() -> None:
    assert ports(Web) == (
        [("result", "object"), ("in", "int"), ("quality", "int"), ("size", "int")],
        [("out", "string"), ("seen", "string"), ("job", "object")],
    )
    declaration = declared(Web)
    assert (declaration.component, declaration.label) == ("web/Server", "Takes jobs.")
    assert (declaration.icon, declaration.role) == ("globe", "web")
    assert [entry.concurrency for entry in declaration.entries] == [1, 4]
    assert len(declaration.sources) == 1


async def test_a_class_can_be_used_directly() -> None:
    web = Web()
    jobs: list[Job] = []
    await web.result(Job("1"))
    web.job = jobs.append  # type: ignore[assignment]
    await web.result(Job("2"))
    assert jobs == [Job("2")]
    assert web.quality == 80
    assert web.other(2) == "xxxxxx"


def test_a_class_that_inherits_has_the_ports_of_its_base() -> None:
    class Better(Web):
        @inport
        async def more(self, x: int): ...

    assert [port for port, _ in ports(Better)[0]] == ["result", "in", "more", "quality", "size"]
    assert declared(Better).icon == "globe"
    assert declared(Better).component == "Better"


def test_an_object_of_a_class_is_run_as_it_is() -> None:
    web = Web()
    make = declared(web).make
    assert make is not None
    assert make() is web
    assert declared(Web).make is Web


def test_a_class_without_ports_may_be_a_base_but_is_no_component() -> None:
    class Base(Component): ...

    with pytest.raises(DefinitionError, match="it has no ports"):
        declared(Base)


def test_a_class_with_two_inports_of_a_name_is_refused() -> None:
    with pytest.raises(DefinitionError, match="two inports are called 'in'"):

        class Twice(Component):
            @inport("in")
            async def a(self, x: int): ...

            @inport("in")
            async def b(self, x: int): ...


def test_a_method_cannot_be_a_component_of_its_own() -> None:
    with pytest.raises(DefinitionError, match=r"is a method; expected @msgflo\.inport"):

        class Wrong:
            @component
            def method(self, x: int): ...


def test_postponed_annotations_are_understood_also_when_they_are_local() -> None:
    class Local(msgspec.Struct):
        x: int

    @component
    def f(local: "Local", out: "Out[Local]"): ...

    assert ports(f) == ([("in", "object")], [("out", "object")])


def test_an_annotation_that_is_defined_later_is_read_later() -> None:
    @component
    def f(value: "Later"): ...  # noqa: F821 - defined below

    with pytest.raises(DefinitionError, match="mentions what is not defined: name 'Later'"):
        declared(f)
    globals()["Later"] = int
    try:
        assert ports(f)[0] == [("in", "int")]
    finally:
        del globals()["Later"]


def test_a_param_without_default_is_required() -> None:
    @component
    def f(x: int, size: Param[int]): ...

    assert declared(f).parameters[0].default is REQUIRED


def test_two_methods_that_return_different_types_make_an_any_port() -> None:
    class Both(Component):
        @inport
        async def a(self, x: int) -> int:
            return x

        @inport
        async def b(self, x: int) -> str:
            return ""

    assert ports(Both)[1] == [("out", "any")]


def test_what_sending_returns_can_be_awaited() -> None:
    assert isinstance(Out(str)(""), Awaitable)
