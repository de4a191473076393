"""A function's signature, read as a list of ports: what is particular about single parameters."""

import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Never

import msgspec
import pytest

from msgflo.errors import DefinitionError
from msgflo.signature import Context, Form, In, Out, Param, fill_defaults, read, where


def test_the_four_forms_of_a_function():
    def plain(x): ...

    def generator(x):
        yield x

    async def coroutine(x): ...

    async def async_generator(x):
        yield x

    forms = [Form.of(it) for it in (plain, generator, coroutine, async_generator)]
    assert forms == [Form.PLAIN, Form.GENERATOR, Form.ASYNC, Form.ASYNC_GENERATOR]
    assert [form.is_async for form in forms] == [False, False, True, True]


def test_a_message_that_is_not_the_first_parameter_is_given_by_name():
    def f(ctx: Context, *, line: str) -> None: ...

    call = read(f)
    assert (call.message, call.positional, call.context) == ("line", False, "ctx")

    def g(line: str, /, ctx: Context) -> None: ...

    call = read(g)
    assert (call.message, call.positional) == ("line", True)

    def h(line: str, ctx: Context, /) -> None: ...

    with pytest.raises(DefinitionError, match="'ctx' cannot be positional-only"):
        read(h)


def test_what_else_an_annotation_says_of_a_type_stays_with_the_type():
    def f(x: Annotated[int, msgspec.Meta(ge=1), In("count", description="How many.")]) -> None: ...

    port = read(f).inport
    assert port is not None
    assert (port.name, port.description) == ("count", "How many.")
    assert port.payload.schema == {"type": "integer", "minimum": 1}


def test_a_result_goes_to_the_out_parameter_of_its_name():
    def f(x: int, out: Out[str]) -> str:
        return ""

    call = read(f)
    assert call.result is call.outs["out"]


@pytest.mark.parametrize(
    ("annotation", "type_", "sends_none"),
    [
        (str, "string", False),
        (str | None, "string", False),
        (Annotated[None, Out(name="done")], "bang", True),
        (Iterator[int], "int", False),
    ],
)
def test_what_a_plain_function_returns(annotation, type_, sends_none):
    def f(x): ...

    f.__annotations__["return"] = annotation
    call = read(f)
    assert call.result is not None
    assert (call.result.payload.type, call.sends_none) == (type_, sends_none)


def test_what_never_returns_and_what_is_to_send_nothing_have_no_outport():
    def never(x) -> Never:
        raise ValueError

    def nothing(x) -> None: ...

    assert read(never).result is None
    assert read(nothing).result is None


def test_a_plain_function_cannot_return_what_only_the_event_loop_can_iterate():
    def f(x) -> AsyncIterator[int]: ...

    with pytest.raises(DefinitionError, match="what it returns: "):
        read(f)


def test_what_python_code_has_not_defined_is_refused():
    for thing in (print, functools.partial(print), "f"):
        with pytest.raises(DefinitionError, match="is no function that Python code defines"):
            read(thing)


def test_an_annotation_that_is_no_expression_says_where():
    def f(x): ...

    f.__annotations__["x"] = "int int"
    with pytest.raises(DefinitionError, match=r"test_signature\.py:\d+: f: an annotation cannot"):
        read(f)


def test_where_a_thing_stands_can_be_clicked_on():
    def f(x): ...

    line = f.__code__.co_firstlineno
    assert where(f) == f"{__file__}:{line}: f"
    assert where(Context).endswith(": Context")
    assert where(print) == "print"


def test_a_setting_may_be_typed_named_and_have_a_default():
    def f(x, size: Annotated[Param[int], In("width")] = 3) -> None: ...

    parameter = read(f).params["size"]
    assert (parameter.name, parameter.default, parameter.payload.type) == ("width", 3, "int")


def test_defaults_are_filled_in_from_the_right_as_far_as_python_lets():
    def f(x, ctx: Context, size: Param[int], word: Out[str], *, more: Out[int]): ...

    fill_defaults(f, read(f))
    parameters = inspect.signature(f).parameters
    assert isinstance(parameters["word"].default, Out)
    assert isinstance(parameters["more"].default, Out)
    # What comes before one without a default cannot have one.
    assert parameters["ctx"].default is inspect.Parameter.empty
    f(1, Context(), 2)


async def test_a_context_stands_in_for_a_real_one():
    context = Context(attempt=2, headers={"a": "b"})
    assert (context.attempt, context.headers, context.role) == (2, {"a": "b"}, "")
    context.log.debug("nobody listens")
    context.ack()
    context.nack("why")
    await Out(str)("nowhere")
