"""From a template in a configuration to the words that start a process.

A template is one text, such as ``node worker.js --name #ROLE``, or a list of words. What its author
wrote in the configuration (the template and the variables) is put together as text first and is
then split into words by the rules of a POSIX shell's quotes. What comes from outside (the file, the
component, the role, initial packets) is put in after the splitting: it can neither become a word of
its own nor reach a shell, of which there is none.
"""

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msgflo.errors import InvalidName

__all__ = [
    "PYTHON_RUNNER",
    "Command",
    "Template",
    "check_role",
    "fill",
    "search_path",
    "words_of",
]

Template = str | tuple[str, ...]
"""One text, split by a shell's quoting rules; or the words themselves."""

PYTHON_RUNNER: Template = (sys.executable, "-m", "msgflo", "participant", "#FILENAME", "#ROLE")
"""What runs a Python file as a participant: the interpreter that runs us."""


@dataclass(frozen=True)
class Command:
    """What a process is started with.

    Attributes:
        argv: its words, the program first. Never holds a password: other users can read it.
        env: variables that it gets in addition to ours (``repr`` leaves them out, since a broker's
            URL among them may hold a password).
        cwd: the folder that it starts in; ``None``: ours.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: Path | None = None

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise ValueError("a command needs at least the name of a program")
        for word in (*self.argv, *self.env, *self.env.values()):
            if "\0" in word:
                raise ValueError(f"a NUL character cannot be given to a process: {word!r}")

    def with_env(self, env: Mapping[str, str]) -> "Command":
        """Return the same command with further variables, which replace those of the same name."""
        return replace(self, env={**self.env, **env})

    def __str__(self) -> str:
        return shlex.join(self.argv)


def words_of(template: Template, variables: Mapping[str, str]) -> tuple[str, ...]:
    """Put the configuration's own variables into a template, and split it into words.

    Each variable is replaced once, in the order of the mapping: a variable in the text of another
    one is replaced only if it comes later. Case matters.

    Raises:
        ValueError: quotes are not closed, or no word is left.
    """
    if isinstance(template, str):
        words = shlex.split(_with_variables(template, variables))
    else:
        words = [_with_variables(word, variables) for word in template]
    if not words or not words[0]:
        raise ValueError("the command is empty; expected the name of a program first")
    return tuple(words)


def _with_variables(text: str, variables: Mapping[str, str]) -> str:
    for name, value in variables.items():
        text = text.replace(f"#{name}", value)
    return text


def fill(
    words: Sequence[str],
    *,
    filename: str,
    component: str,
    role: str,
    iips: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Put what is known at the start into the words of a command.

    ``#FILENAME``, ``#COMPONENTNAME`` (what follows the last ``/`` of the component's name),
    ``#COMPONENT``, ``#ROLE`` and ``#IIPS`` (a JSON object of initial packets by port), in this
    order, each everywhere in a word; a word stays one word.

    Raises:
        InvalidName: the role could be read as an option or a path out of its folder, or holds
            control characters.
    """
    check_role(role)
    said = (
        ("#FILENAME", filename),
        ("#COMPONENTNAME", component.rpartition("/")[2]),
        ("#COMPONENT", component),
        ("#ROLE", role),
        ("#IIPS", json.dumps(dict(iips or {}), ensure_ascii=False)),
    )
    return tuple(_filled(word, said) for word in words)


def _filled(word: str, said: Sequence[tuple[str, str]]) -> str:
    # Left to right and once only: what was put in is never searched again, or a role called
    # "#IIPS" would be given the initial packets.
    parts = []
    rest = word
    while rest:
        at = rest.find("#")
        if at < 0:
            break
        parts.append(rest[:at])
        rest = rest[at:]
        for name, value in said:
            if rest.startswith(name):
                parts.append(value)
                rest = rest[len(name) :]
                break
        else:
            parts.append("#")
            rest = rest[1:]
    return "".join(parts) + rest


def check_role(role: str) -> None:
    """Refuse a role that a program could take for something else than a name.

    Raises:
        InvalidName: it is empty, begins with a dash, has a part ``..``, or a control character.
    """
    if not role:
        raise InvalidName("a role has no name; expected a text that is not empty")
    if role.startswith("-"):
        raise InvalidName(
            f"{role!r} is no safe role: a program would take the leading dash for an option"
        )
    if any(not character.isprintable() for character in role):
        raise InvalidName(f"{role!r} is no safe role: it holds a control character")
    if ".." in role.replace("\\", "/").split("/"):
        raise InvalidName(f"{role!r} is no safe role: '..' could lead out of a folder")


def search_path(root: Path, environ: Mapping[str, str] | None = None) -> str:
    """Return the PATH for the children of a network in the folder ``root``.

    The programs beside our own interpreter come first, so that ``python`` and ``msgflo-python`` in
    a command mean the environment that we run in, activated or not; then what npm installed in
    ``root``; then ours.

    Args:
        root: the project's folder.
        environ: our environment; ``None``: the one of this process.
    """
    ours = (os.environ if environ is None else environ).get("PATH", os.defpath).split(os.pathsep)
    first = [str(Path(sys.executable).parent)]
    node = root / "node_modules" / ".bin"
    if node.is_dir():
        first.append(str(node))
    return os.pathsep.join([*first, *(folder for folder in ours if folder not in first)])
