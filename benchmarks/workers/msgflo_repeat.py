"""Repeat in the forms that a MsgFlo participant can have: python msgflo_repeat.py FORM ROLE."""

import sys
from typing import Annotated, Any

import msgflo
from msgflo import Context, In, Param, Retry

MANY = 200


class Reading(msgflo.Struct):
    id: int
    sensor: str
    value: float
    pad: str


@msgflo.component(concurrency=MANY)
async def any_value(value: Any) -> Any:
    return value


@msgflo.component(concurrency=MANY)
async def raw(value: bytes) -> bytes:
    return value


@msgflo.component(concurrency=MANY)
async def typed(value: Reading) -> Reading:
    return value


@msgflo.component(concurrency=MANY, retry=Retry(5, delay=1.0))
async def retried(value: Any) -> Any:
    return value


@msgflo.component(concurrency=MANY)
async def context(value: Any, ctx: Context, size: Param[int] = 1) -> Any:
    ctx.headers.get("Traceparent", size)
    return value


@msgflo.component(concurrency=MANY)
def thread(value: Any) -> Any:
    return value


@msgflo.component
async def one_by_one(value: Annotated[Any, In("in")]) -> Any:
    return value


if __name__ == "__main__":
    forms = [any_value, raw, typed, retried, context, thread, one_by_one]
    form = {form.__name__: form for form in forms}[sys.argv[1]]
    sys.exit(msgflo.run(form, role=sys.argv[2]))
