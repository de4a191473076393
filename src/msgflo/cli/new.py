"""``msgflo new``: a project to begin with.

It imports what it needs when it runs: help has to answer at once.
"""

import re
from pathlib import Path

import click

from msgflo.errors import ConfigurationError

__all__ = ["new"]

_COMPONENTS = '''\
"""The components of this project. A function is one: its signature is its ports."""

import msgflo
from msgflo import Out


@msgflo.component("Words")
def words(line: str, word: Out[str]) -> None:
    """Cut a line into its words."""
    for one in line.split():
        word(one)


@msgflo.component("Shout")
def shout(word: str) -> str:
    """Say it louder."""
    if not word.isprintable():
        raise msgflo.Reject("not to be said")  # it becomes a dead letter, with this reason
    return f"{word.upper()}!"


@msgflo.component("Show")
def show(text: str) -> None:
    """Print what comes."""
    print(text)
'''

_GRAPH = """\
# The graph: who sends to whom. The first line is a packet to begin with.
'a network of processes' -> IN words(Words)

# Each word goes to one of the instances of shout, whichever is free.
words WORD -> IN share(msgflo/RoundRobin)
share OUT -> IN shout(Shout:instances=2)
shout OUT -> IN show(Show)
"""

_SPEC = """\
# Tests that are data: msgflo test
topic: Words
cases:
- name: a line of one word
  assertion: should be that word
  inputs: {in: " hello "}
  expect: {word: {equals: hello}}
---
topic: Shout
cases:
- name: a word
  assertion: should be said louder
  inputs: {in: hello}
  expect: {out: {equals: "HELLO!"}}
"""

_TEST = '''\
"""Tests in Python: pytest"""

import sys
from pathlib import Path

import pytest

import msgflo
from msgflo.testing import collect

sys.path.insert(0, str(Path(__file__).parents[1] / "components"))

from text import shout, words  # noqa: E402 - from the folder that was just named


def test_a_component_is_a_function_that_can_be_called():
    assert shout("hello") == "HELLO!"
    with pytest.raises(msgflo.Reject):
        shout("\\a")


def test_a_component_with_ports_runs_in_memory():
    assert collect(words, "hello world", "again") == {"word": ["hello", "world", "again"]}
'''

_README = """\
# {name}

A network of [MsgFlo](https://msgflo.org) participants.

```console
$ msgflo run {graph}
```

It runs until Ctrl-C, with a broker of its own. From another terminal, in this folder:

```console
$ msgflo send words 'and what else'
$ msgflo top
$ msgflo status
$ msgflo scale shout=4
```

Code that changes is taken while it runs with `msgflo run {graph} --watch`. Tests:

```console
$ msgflo test
$ pytest
```

| | |
|---|---|
| `components/text.py` | the components: functions |
| `{graph}` | the graph: who sends to whom |
| `spec/text.yaml` | tests that are data, for `msgflo test` |
| `tests/test_text.py` | tests in Python, for `pytest` |
"""

_IGNORE = """\
# What a run leaves behind
.msgflo/
__pycache__/
.pytest_cache/
.venv/
"""


@click.command()
@click.argument("folder", metavar="NAME", type=click.Path(path_type=Path))
def new(folder: Path) -> None:
    """Make a project in a new folder NAME: components, a graph, tests. It runs as it is.

    A folder that is there is used if nothing is in it.
    """
    name = folder.absolute().name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._ -]*", name):
        raise ConfigurationError(f"{name!r}: expected a name of letters, digits, _, . and -")
    graph = f"{name.replace(' ', '-')}.fbp"
    files = {
        "components/text.py": _COMPONENTS,
        graph: _GRAPH,
        "spec/text.yaml": _SPEC,
        "tests/test_text.py": _TEST,
        "README.md": _README.format(name=name, graph=graph),
        ".gitignore": _IGNORE,
    }
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigurationError(f"{folder} is there already, and not empty; name another")
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot make {folder}: {error.strerror or error}") from None
    click.echo(f"{folder}: a project of {len(files)} files. Next:")
    click.echo(f"  cd {folder}")
    click.echo(f"  msgflo run {graph}")
    click.echo("  msgflo test")
