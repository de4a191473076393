"""A participant of ours, at the end."""

import msgflo


@msgflo.component("Show")
def show(text: str) -> None:
    """Print what comes."""
    print("shown:", text)  # noqa: T201 - what the tests look for
