"""A participant of ours."""

import msgflo


@msgflo.component("Greet")
def greet(name: str) -> str:
    """Say hello to somebody who can bear it."""
    if "worse" in name:
        raise msgflo.Reject("worse than bad")
    return f"Hello, {name}"
