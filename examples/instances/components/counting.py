"""A source, and a component that shows what it gets; a line's prefix says which instance did."""

import itertools

import msgflo

NUMBERS = itertools.count(1)


@msgflo.source("Count", every="0.5s")
async def count() -> int:
    """Count, twice a second."""
    return next(NUMBERS)


@msgflo.component("Show")
def show(number: int) -> None:
    """Print what comes."""
    print(number)
