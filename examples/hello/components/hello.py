"""Three components, the smallest there can be: a function is a component."""

import msgflo


@msgflo.component("Greet")
def greet(name: str) -> str:
    """Greet somebody."""
    return f"Hello, {name}"


@msgflo.component("Shout")
def shout(text: str) -> str:
    """Say it louder."""
    return f"{text.upper()}!"


@msgflo.component("Show")
def show(text: str) -> None:
    """Print what comes."""
    print(text)
