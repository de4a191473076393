"""What processes print: cut into lines, made safe for a terminal, and shown by role.

:class:`Lines`, :func:`clean` and :func:`plain` are pure. :class:`Prefixed` writes::

    fetch.1  | 12 images
    resize.2 | out of memory
"""

import contextlib
import os
import re
import sys
import zlib
from collections.abc import Iterable, Mapping
from typing import TextIO

__all__ = ["LONGEST_LINE", "Lines", "Prefixed", "clean", "plain", "wants_colour"]

LONGEST_LINE = 64 * 1024
"""Bytes: what a line has beyond is dropped, and the line says so."""

# Colours and styles (SGR) are all that a child may do to the terminal.
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_ESCAPE = re.compile(
    r"""
      (?P<colour> \x1b\[[0-9;:]*m )
    | \x1b\[ [0-?]* [ -/]* [@-~]?                     # a control sequence
    | \x1b[\]PX^_] .*? (?: \x07 | \x1b\\ | \x9c | $ ) # a title, a link and other strings
    | \x1b [ -/]* [0-~]?                              # any other escape
    | [\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f]          # control characters, but for the tab
    | [\u200e\u200f\u2028-\u202e\u2066-\u2069]        # what turns or breaks the line around it
    """,
    re.VERBOSE | re.DOTALL,
)


def clean(text: str) -> str:
    """Return a line without anything that could move, erase or retitle a terminal.

    Colours and tabs are kept. Of a line that was written over with carriage returns, as progress
    bars are, what was written last remains.
    """
    text = text.rstrip("\r").rpartition("\r")[2]
    if text.isprintable():
        return text
    return _ESCAPE.sub(lambda found: found["colour"] or "", text)


def plain(text: str) -> str:
    """Return a line that is clean already without its colours."""
    return _COLOUR.sub("", text)


class Lines:
    """Cuts a stream of bytes into lines of text; holds at most one line.

    Args:
        longest: how many bytes of a line are kept.
    """

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._held = bytearray()
        self._dropped = 0

    def feed(self, data: bytes) -> list[str]:
        """Take what arrived and return the lines that are complete by it, clean."""
        lines = []
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._hold(part)
            lines.append(self._line())
        self._hold(rest)
        return lines

    def end(self) -> list[str]:
        """Return the last line if it had no end."""
        return [self._line()] if self._held or self._dropped else []

    def _hold(self, part: bytes) -> None:
        room = self._longest - len(self._held)
        self._held += part[:room]
        self._dropped += max(0, len(part) - room)

    def _line(self) -> str:
        data = bytes(self._held)
        if self._dropped:
            # Not in the middle of a character: up to three bytes of one may have been kept.
            for back in range(1, min(4, len(data)) + 1):
                if data[-back] & 0xC0 != 0x80:
                    lead = data[-back]
                    size = 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2 if lead >= 0xC0 else 1
                    if size > back:
                        data, self._dropped = data[:-back], self._dropped + back
                    break
        text = clean(data.decode("utf-8", "replace"))
        if self._dropped:
            text = f"{text} ... ({self._dropped} more bytes)"
        self._held.clear()
        self._dropped = 0
        return text


# Legible on dark and on light grounds; red is left to errors.
_PALETTE = (32, 33, 34, 35, 36, 92, 93, 94, 95, 96)
_RESET = "\x1b[0m"


class Prefixed:
    """Writes lines with the role and instance that they came from before them.

    Can be given to a supervisor as what hears its output. A role has the same colour in every run.

    Args:
        stream: where to write; ``None``: the standard output at the time of writing.
        colour: whether to use colours; ``None``: if the stream is a terminal that knows them and
            ``NO_COLOR`` is not set (``FORCE_COLOR`` set: in any case).
        names: the ``role.instance`` names to make room for; longer ones that come later make more.
        environ: where ``NO_COLOR``, ``FORCE_COLOR`` and ``TERM`` are looked up; ``None``: the
            environment.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        colour: bool | None = None,
        names: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._stream = stream
        if colour is None:
            colour = wants_colour(
                sys.stdout if stream is None else stream, os.environ if environ is None else environ
            )
        self._colour = colour
        self._width = max((len(name) for name in names), default=0)

    def know(self, names: Iterable[str]) -> None:
        """Make room for further ``role.instance`` names."""
        self._width = max([self._width, *(len(name) for name in names)])

    def line(self, role: str, instance: int, stream: str, text: str) -> str:
        """Return a line as it is written, without its end.

        Args:
            role: whose process it was.
            instance: which one.
            stream: ``"stdout"`` or ``"stderr"``; in colours, the bar of the latter is red.
            text: the line, clean.
        """
        # A role may be any text; its process's lines are cleaned before they get here.
        name = plain(clean(f"{role}.{instance}"))
        self._width = max(self._width, len(name))
        padded = name.ljust(self._width)
        if not self._colour:
            return f"{padded} | {plain(text)}".rstrip()
        of_role = _PALETTE[zlib.crc32(role.encode("utf-8", "replace")) % len(_PALETTE)]
        bar = 31 if stream == "stderr" else of_role
        closed = _RESET if "\x1b" in text else ""
        return f"\x1b[{of_role}m{padded}\x1b[{bar}m |{_RESET} {text}{closed}"

    def __call__(self, role: str, instance: int, stream: str, text: str) -> None:
        """Write a line. A reader that went away (``| head``) is no error."""
        out = sys.stdout if self._stream is None else self._stream
        line = self.line(role, instance, stream, text) + "\n"
        with contextlib.suppress(BrokenPipeError, ValueError):
            try:
                out.write(line)
            except UnicodeEncodeError:
                encoding = out.encoding or "ascii"
                out.write(line.encode(encoding, "replace").decode(encoding))
            out.flush()


def wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether a stream should get colours.

    It should if it is a terminal that knows them and ``NO_COLOR`` is not set; with ``FORCE_COLOR``,
    in any case.
    """
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    try:
        return stream.isatty() and environ.get("TERM") != "dumb"
    except ValueError:
        return False
