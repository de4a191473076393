"""The end, in Python again."""

import msgflo


@msgflo.component("Show")
def show(text: str) -> None:
    """Print what comes."""
    print(text)
