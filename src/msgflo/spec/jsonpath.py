"""JSONPath, as suites use it: the values that a path selects of a JSON value. Pure.

=====================  ===============================================================
``$.a.b``, ``a.b``     members; ``$`` may be left out
``$.a-b``, ``$['a']``  members with other characters; quotes of either kind
``$.list[0]``          an element; ``[-1]`` is the last one; ``$.list.0`` is the same
``$.list.length``      how many there are
``[1:3]``, ``[0,2]``   slices, with a step too; several at once
``$.*``, ``$[*]``      all members or elements
``$..name``            at any depth
``[?(@.price > 2)]``   those for which an expression is true
``[(@.length-1)]``     the one that an expression names
=====================  ===============================================================

An expression is of the kind that JavaScript has: ``@`` is the value at hand and ``$`` the whole,
with paths behind them; numbers, texts, ``true``, ``false``, ``null``; ``== != === !== < <= > >=``,
``&& || !``, ``+ - * / %`` and parentheses. ``==`` compares as ``===`` does. Nothing is ever
executed: no calls, no names but these.

No library reads all of what suites in the wild say (``.0``, ``.length``, a path without ``$``, a
hyphen in a name), and some hand expressions to the interpreter.
"""

import math
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from msgflo.errors import SpecError
from msgflo.flow.values import same

__all__ = ["Path", "parse_path"]

_DEEPEST: Final = 30

_BLANK: Final = re.compile(r"\s*")
_NAME: Final = re.compile(r"[\w$@-]+")
_NAME_IN_EXPRESSION: Final = re.compile(r"[^\W\d]\w*|\d+")
_INTEGER: Final = re.compile(r"-?[0-9]{1,15}")
_BOUND: Final = r"(-?[0-9]{1,15})?"
_SLICE: Final = re.compile(rf"{_BOUND}\s*:\s*{_BOUND}\s*(?::\s*{_BOUND})?")
_INDEX: Final = re.compile(r"[0-9]{1,15}")
_TEXT: Final = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+")
_WORD: Final = re.compile(r"[^\W\d]\w*")
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class _Missing:
    """What an expression means by something that is not there."""

    def __repr__(self) -> str:
        return "undefined"


MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True)
class Path:
    """A path that was understood. ``str`` gives its text."""

    text: str
    steps: tuple["_Step", ...]

    def __str__(self) -> str:
        return self.text

    def select(self, value: Any) -> list[Any]:
        """Return the values that it selects of a JSON value; none may be there."""
        return _walk(self.steps, value, value)


# A selector is given a value and the whole, and yields what it selects of it.
_Selector = Callable[[Any, Any], Iterator[Any]]
_Expression = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class _Step:
    selectors: tuple[_Selector, ...]
    deep: bool = False


def parse_path(text: str) -> Path:
    """Read a path.

    Raises:
        SpecError: it is none: where, and what was expected.
    """
    return Path(text, _Parser(text).path())


def _walk(steps: Sequence[_Step], value: Any, whole: Any) -> list[Any]:
    found = [value]
    for step in steps:
        at = (deep for here in found for deep in _descendants(here)) if step.deep else found
        found = [it for here in at for selector in step.selectors for it in selector(here, whole)]
    return found


def _descendants(value: Any) -> Iterator[Any]:
    ahead = [value]
    while ahead:
        here = ahead.pop()
        yield here
        ahead += reversed(list(_children(here)))


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _member(name: str, *, deep: bool = False) -> _Selector:
    def select(value: Any, _whole: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            if name in value:
                yield value[name]
        elif isinstance(value, list):
            if name == "length" and not deep:
                yield len(value)
            elif _INDEX.fullmatch(name) and int(name) < len(value):
                yield value[int(name)]

    return select


def _element(number: int) -> _Selector:
    def select(value: Any, _whole: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= number < len(value):
            yield value[number]
        elif isinstance(value, dict) and str(number) in value:
            yield value[str(number)]

    return select


def _slice(bounds: slice) -> _Selector:
    def select(value: Any, _whole: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value[bounds]

    return select


def _all(value: Any, _whole: Any) -> Iterator[Any]:
    yield from _children(value)


def _filter(expression: _Expression) -> _Selector:
    def select(value: Any, whole: Any) -> Iterator[Any]:
        for child in _children(value):
            if _true(expression(child, whole)):
                yield child

    return select


def _computed(expression: _Expression) -> _Selector:
    def select(value: Any, whole: Any) -> Iterator[Any]:
        key = expression(value, whole)
        if isinstance(key, str):
            yield from _member(key)(value, whole)
        elif _is_number(key) and math.isfinite(key) and key == int(key):
            yield from _element(int(key))(value, whole)

    return select


# Expressions.


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _true(value: Any) -> bool:
    """Tell what JavaScript takes for true: lists and maps are, even empty ones."""
    return value is not MISSING and (isinstance(value, dict | list) or bool(value))


def _equal(one: Any, other: Any) -> bool:
    if one is MISSING or other is MISSING:
        return one is other
    return same(one, other)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    def judge(one: Any, other: Any) -> bool:
        both_numbers = _is_number(one) and _is_number(other)
        both_texts = isinstance(one, str) and isinstance(other, str)
        return (both_numbers or both_texts) and compare(one, other)

    return judge


def _calculated(calculate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def result(one: Any, other: Any) -> Any:
        if isinstance(one, str) and isinstance(other, str) and calculate is operator.add:
            return one + other
        if not (_is_number(one) and _is_number(other)):
            return MISSING
        try:
            return calculate(one, other)
        except (ArithmeticError, ValueError):
            return MISSING

    return result


# Operators by how tightly they bind; in each row the longer one first.
_OPERATORS: Final[tuple[dict[str, Callable[[Any, Any], Any]], ...]] = (
    {
        "===": _equal,
        "!==": lambda one, other: not _equal(one, other),
        "==": _equal,
        "!=": lambda one, other: not _equal(one, other),
    },
    {
        "<=": _ordered(operator.le),
        ">=": _ordered(operator.ge),
        "<": _ordered(operator.lt),
        ">": _ordered(operator.gt),
    },
    {"+": _calculated(operator.add), "-": _calculated(operator.sub)},
    {
        "*": _calculated(operator.mul),
        "/": _calculated(operator.truediv),
        "%": _calculated(math.fmod),
    },
)

_LITERALS: Final[dict[str, Any]] = {
    "true": True,
    "false": False,
    "null": None,
    "undefined": MISSING,
}


def _always(value: Any) -> _Expression:
    return lambda _value, _whole: value


def _binary(apply: Callable[[Any, Any], Any], one: _Expression, other: _Expression) -> _Expression:
    return lambda value, whole: apply(one(value, whole), other(value, whole))


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    # Reading.

    def fail(self, expected: str) -> NoReturn:
        got = repr(self.text[self.at]) if self.at < len(self.text) else "its end"
        raise SpecError(
            f"{self.text!r} is no JSONPath: at column {self.at + 1} is {got}; expected {expected}"
        )

    def blank(self) -> None:
        found = _BLANK.match(self.text, self.at)
        assert found
        self.at = found.end()

    def take(self, text: str) -> bool:
        if self.text.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def need(self, text: str) -> None:
        self.blank()
        if not self.take(text):
            self.fail(repr(text))

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            self.fail("less nesting")

    # Paths.

    def path(self) -> tuple[_Step, ...]:
        self.blank()
        steps: list[_Step] = []
        if not self.take("$") and not self.text.startswith((".", "["), self.at):
            steps.append(self.named(_NAME, deep=False))
        steps += self.steps(_NAME)
        self.blank()
        if self.at < len(self.text):
            self.fail("'.', '[' or the end")
        return tuple(steps)

    def steps(self, name: re.Pattern[str]) -> list[_Step]:
        steps = []
        while True:
            if self.take(".."):
                if self.take("["):
                    steps.append(_Step(self.subscript(), deep=True))
                else:
                    steps.append(self.named(name, deep=True))
            elif self.take("."):
                steps.append(self.named(name, deep=False))
            elif self.take("["):
                steps.append(_Step(self.subscript()))
            else:
                return steps

    def named(self, name: re.Pattern[str], *, deep: bool) -> _Step:
        if self.take("*"):
            return _Step((_all,), deep)
        found = self.match(name)
        if not found:
            self.fail("a name, a number or '*'")
        if _INTEGER.fullmatch(found[0]):
            return _Step((_element(int(found[0])),), deep)
        return _Step((_member(found[0], deep=deep),), deep)

    def subscript(self) -> tuple[_Selector, ...]:
        selectors = [self.selector()]
        self.blank()
        while self.take(","):
            selectors.append(self.selector())
            self.blank()
        self.need("]")
        return tuple(selectors)

    def selector(self) -> _Selector:
        self.blank()
        if self.take("*"):
            return _all
        if self.take("?"):
            return _filter(self.expression())
        if self.text.startswith("(", self.at):
            return _computed(self.expression())
        found = self.match(_TEXT)
        if found:
            return _member(self.unescaped(found))
        found = self.match(_SLICE)
        if found:
            start, stop, step = (None if it is None else int(it) for it in found.groups())
            if step == 0:
                self.fail("a step that is not 0")
            return _slice(slice(start, stop, step))
        found = self.match(_INTEGER)
        if not found:
            self.fail("a number, a name in quotes, '*', a slice, '?' or '('")
        return _element(int(found[0]))

    def unescaped(self, found: re.Match[str]) -> str:
        text = found[1] if found[1] is not None else found[2]

        def character(escape: re.Match[str]) -> str:
            if escape[2]:
                return chr(int(escape[2], 16))
            return _ESCAPES.get(escape[1], escape[1])

        return re.sub(r"\\(u([0-9a-fA-F]{4})|.)", character, text, flags=re.DOTALL)

    # Expressions.

    def expression(self) -> _Expression:
        self.deeper()
        alternatives = [self.conjunction()]
        while self.operator("||"):
            alternatives.append(self.conjunction())
        self.depth -= 1
        if len(alternatives) == 1:
            return alternatives[0]
        return lambda value, whole: any(_true(it(value, whole)) for it in alternatives)

    def conjunction(self) -> _Expression:
        terms = [self.operation(0)]
        while self.operator("&&"):
            terms.append(self.operation(0))
        if len(terms) == 1:
            return terms[0]
        return lambda value, whole: all(_true(it(value, whole)) for it in terms)

    def operator(self, *texts: str) -> str:
        self.blank()
        return next((text for text in texts if self.take(text)), "")

    def operation(self, level: int) -> _Expression:
        if level == len(_OPERATORS):
            return self.unary()
        left = self.operation(level + 1)
        while found := self.operator(*_OPERATORS[level]):
            left = _binary(_OPERATORS[level][found], left, self.operation(level + 1))
        return left

    def unary(self) -> _Expression:
        self.blank()
        if self.take("!"):
            self.deeper()
            denied = self.unary()
            self.depth -= 1
            return lambda value, whole: not _true(denied(value, whole))
        if self.take("-"):
            self.deeper()
            negated = self.unary()
            self.depth -= 1
            return _binary(_OPERATORS[2]["-"], _always(0), negated)
        return self.operand()

    def operand(self) -> _Expression:
        if self.take("("):
            inner = self.expression()
            self.need(")")
            return inner
        if self.take("@"):
            return self.relative(whole=False)
        if self.take("$"):
            return self.relative(whole=True)
        found = self.match(_TEXT)
        if found:
            return _always(self.unescaped(found))
        found = self.match(_NUMBER)
        if found:
            text = found[0]
            return _always(int(text) if _INDEX.fullmatch(text) else float(text))
        start = self.at
        found = self.match(_WORD)
        if not found or found[0] not in _LITERALS:
            self.at = start
            self.fail("a value: @, $, a number, a text in quotes, true, false or null")
        return _always(_LITERALS[found[0]])

    def relative(self, *, whole: bool) -> _Expression:
        self.deeper()
        steps = tuple(self.steps(_NAME_IN_EXPRESSION))
        self.depth -= 1

        def value_of(value: Any, everything: Any) -> Any:
            here = everything if whole else value
            found = _walk(steps, here, everything)
            return found[0] if found else MISSING

        return value_of
