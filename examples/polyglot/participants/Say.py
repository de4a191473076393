"""A source in Python."""

import itertools

import msgflo

SENTENCES = itertools.cycle(
    ["any process is a node", "any queue is an edge", "and any language will do"]
)


@msgflo.source("Say", every="1s")
async def say() -> str:
    """Say something, once a second."""
    return next(SENTENCES)
