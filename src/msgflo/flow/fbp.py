r"""The .fbp language: text to graph. The way back is in :mod:`msgflo.flow.fbpwriter`.

A text is a list of statements, each ended by a newline or a comma::

    # @runtime msgflo
    INPORT=fetch.IN:URL

    # from the web into the store
    fetch(web/Fetch) OUT -> IN resize(images/Resize) OUT -> IN store(Store)
    fetch ERROR[0] -> IN log(Log)
    '{"width": 800}' -> OPTIONS resize, {"width": 800} -> CONFIG resize

A node gets its component where it is mentioned with one, anywhere in the text. Ports that are not
named are ``out`` and ``in``. Port names are folded to lower case unless the reader is told that
case matters. ``(Comp)`` is a node without a name, and gets one: ``_Comp_1``. Text in single quotes
is an initial packet that is text (``\'`` is a quote in it); any JSON value is one too.

The meaning is that of the reference reader, npm ``fbp`` 1.8, except where that one takes a text
and silently loses a part of what it says. Such a text is refused here, with what is wrong:

* statements on one line without a comma, as in ``a(A) OUT IN b(B)``, where an arrow is missing;
* a name alone that has no component anywhere;
* an initial packet in the middle of a chain;
* a port of a node that no arrow leads into or out of;
* in the middle of a chain, a node mentioned with only one of its ports and without its component:
  ``-> b OUT ->`` loses the edge into ``b`` there, so both ports must be said.

And these are understood here, which the reference reader ignores or refuses: a node without any
port in the middle of a chain has its default ports, and at the end of a line it may be followed by
a space, a comma or a comment; an annotation at the end of the text needs no newline after it;
``true``, ``false`` and ``null`` are initial packets where no node is called so.
"""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from msgflo.errors import GraphSyntaxError, near
from msgflo.flow.fbpwriter import dump_fbp, unsayable
from msgflo.flow.graph import Graph
from msgflo.flow.parts import Edge, Endpoint, Export, Initial, Node

__all__ = ["dump_fbp", "parse_fbp", "unsayable"]

NEWLINE: Final = re.compile("\r\n|[\n\r\u2028\u2029]")
ANNOTATION: Final = re.compile(
    "# +@([a-zA-Z0-9_-]+) +([a-zA-Z0-9_.-][a-zA-Z0-9_. -]*)(?=[\n\r\u2028\u2029]|\\Z)"
)
KEYWORD: Final = re.compile("(INPORT|OUTPORT|DEFAULT_INPORT|DEFAULT_OUTPORT)=")
REST: Final = re.compile("[^\n\r\u2028\u2029]*")
NODE: Final = re.compile("[a-zA-Z_](?:[a-zA-Z0-9_]|-(?!>))*")
PORT: Final = re.compile("[a-zA-Z_][a-zA-Z0-9_.]*")
WORD: Final = re.compile("[a-zA-Z_](?:[a-zA-Z0-9_.]|-(?!>))*")
INDEX: Final = re.compile(r"\[([0-9]{1,9})\]")
COMPONENT: Final = re.compile(r"\(([a-zA-Z0-9_/-]*)(?::([a-zA-Z0-9_/=,]+))?\)")
COMPONENT_START: Final = re.compile(r"\([a-zA-Z0-9_/-]*(?::[a-zA-Z0-9_/=,]*)?")
QUOTED: Final = re.compile(r"'((?:\\'|[^'])*+)'")
NAMED: Final = re.compile(r"(true|false|null)([ \t\n\r]*)->")
BLANK: Final = re.compile(r"[ \t\n\r]*")
NUMBER: Final = re.compile(r"[0-9]+(?:[eE][0-9]{1,2}(?![0-9]))?")
ITEM: Final = re.compile(r"->|(?:[a-zA-Z0-9_./]|-(?!>))+|.", re.DOTALL)
LITERALS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None}


def parse_fbp(text: str, name: str = "<fbp>", case_sensitive: bool = False) -> Graph:
    """Return the graph that a .fbp text says.

    Comments are kept with what stands below them, and so are empty lines and the chaining of
    connections, so that :func:`dump_fbp` writes a text like the one that was read.

    Args:
        text: the text of the file. Line ends of any kind will do.
        name: the file, for errors.
        case_sensitive: keep port names as written, instead of folding them to lower case.

    Raises:
        GraphSyntaxError: the text is wrong: with line, column, what was got and what was expected.
    """
    return _Parser(text.removeprefix("\ufeff"), name, case_sensitive).graph()


@dataclass(slots=True)
class _Word:
    """One of the up to three words of a stop: a port, a node, or a node with its component."""

    text: str
    at: int
    end: int
    index: int | None = None
    component: str | None = None


@dataclass(slots=True)
class _Stop:
    """A node in a chain, with the ports by which the chain enters and leaves it."""

    node: _Word
    inport: _Word | None
    outport: _Word | None
    defaults: tuple[str, str]
    literal: bool = False  # may be true, false or null instead, if no node is called so


@dataclass(slots=True)
class _Packet:
    data: Any
    at: int
    end: int


@dataclass(slots=True)
class _Statement:
    comments: list[str]
    chain: list[_Stop | _Packet] = field(default_factory=list)
    export: tuple[str, Export] | None = None
    declared: list[str] = field(default_factory=list)  # the nodes that are new in it


class _Parser:
    def __init__(self, text: str, name: str, case_sensitive: bool) -> None:
        self.text = text
        self.name = name
        self.case_sensitive = case_sensitive
        self.at = 0
        self.comments: list[str] = []
        self.statements: list[_Statement] = []
        self.statement = _Statement([])
        self.properties: dict[str, Any] = {}
        self.components: dict[str, str] = {}
        self.metadata: dict[str, dict[str, Any]] = {}
        self.unnamed: dict[str, int] = {}
        self.mentions: list[_Word] = []
        self.defaults = ("in", "out") if not case_sensitive else ("IN", "OUT")

    # Lines.

    def graph(self) -> Graph:
        while self.at < len(self.text):
            self.line()
        self.check_mentions()
        return self.made()

    def line(self) -> None:
        annotation = ANNOTATION.match(self.text, self.at)
        if annotation:
            self.annotate(annotation[1], annotation[2])
            self.at = annotation.end()
            self.newline()
            return
        self.spaces()
        if self.newline():
            self.comments.append("")
        elif self.peek() == "#":
            self.comments.append(self.comment())
        elif self.at < len(self.text):
            self.statements_of_line()

    def statements_of_line(self) -> None:
        while True:
            self.statement = _Statement(self.comments)
            self.statements.append(self.statement)
            self.comments = []
            keyword = KEYWORD.match(self.text, self.at)
            if keyword:
                self.at = keyword.end()
                self.keyword(keyword[1])
            else:
                self.chain()
            self.spaces()
            comma = self.peek() == ","
            if comma:
                self.at += 1
                self.spaces()
            if self.peek() == "#":
                self.statement.comments.append(self.comment())
                return
            if self.at == len(self.text) or self.newline():
                return
            if not comma:
                self.wrong_end()

    def annotate(self, key: str, value: str) -> None:
        if key == "runtime":
            self.properties["environment"] = {"type": value}
        else:
            self.properties[key] = value

    def keyword(self, keyword: str) -> None:
        if keyword.startswith("DEFAULT"):
            port = self.fold(self.port_name("the name of a port"))
            inport, outport = self.defaults
            self.defaults = (port, outport) if keyword == "DEFAULT_INPORT" else (inport, port)
            return
        example = f"such as {keyword}=node.{keyword[:-4]}:PUBLIC"
        start = self.at
        found = NODE.match(self.text, self.at)
        self.at = found.end() if found else start
        node = _Word(found[0] if found else "", start, self.at)
        if self.peek() == "(":
            self.component(node)
        elif not found:
            self.fail(f"expected the name of a node, {example}")
        self.mentions.append(node)
        self.expect(".", f"expected '.' and a port after {node.text!r}, {example}")
        port = self.fold(self.port_name(f"the name of a port of {node.text!r}"))
        self.expect(":", f"expected ':' and the public name after the port, {example}")
        public = self.fold(self.port_name("the public name"))
        self.statement.export = (keyword, Export(public, node.text, port))

    def port_name(self, what: str) -> str:
        found = PORT.match(self.text, self.at)
        if not found:
            self.fail(f"expected {what}, got {self.got()}")
        self.at = found.end()
        return found[0]

    # Chains.

    def chain(self) -> None:
        chain = self.statement.chain
        while True:
            stop: _Stop | _Packet = self.packet(first=not chain) or self.stop(chain)
            chain.append(stop)
            self.spaces()
            if not self.text.startswith("->", self.at):
                break
            if isinstance(stop, _Stop):
                self.check_dash(stop)
            self.at += 2
            self.spaces()
        if isinstance(stop, _Packet):
            self.fail(f"expected '->' after the initial packet, got {self.got()}")
        last = stop.outport
        if last is not None and self.ends():
            self.fail(f"{last.text!r} leads nowhere: expected '->' after it", last.at, last.end)

    def packet(self, *, first: bool) -> _Packet | None:
        """Read an initial packet, if there is one."""
        start = self.at
        blank = BLANK.match(self.text, start)
        assert blank
        at = blank.end()
        named = NAMED.match(self.text, at)
        if named and not (at > start or named[2].strip(" ")):
            named = None  # without such white space, a node of that name comes first
        if at > start and not named and self.text[at : at + 1] not in '"{[-0123456789':
            if self.text[start] == "\t":
                self.fail("a tab: only spaces stand between words")
            return None
        quoted = QUOTED.match(self.text, start)
        if quoted:
            packet = _Packet(quoted[1].replace("\\'", "'"), start, quoted.end())
            self.at = quoted.end()
        elif self.peek() == "'":
            self.fail("this quote is never closed", start, start + 1)
        elif named:
            packet = _Packet(LITERALS[named[1]], at, named.end(1))
            self.at = named.end() - 2
        elif self.text[at : at + 1] in tuple('"{[-0123456789') and not self.arrow(at):
            packet = self.json(at)
        else:
            return None
        if not first:
            self.fail(
                "an initial packet can only be at the start of a chain", packet.at, packet.end
            )
        return packet

    def json(self, at: int) -> _Packet:
        try:
            data, end = DECODER.raw_decode(self.text, at)
        except json.JSONDecodeError as error:
            problem = f"{error.msg[:1].lower()}{error.msg[1:]}"
            self.fail(f"this is not JSON: {problem}", min(error.pos, len(self.text)))
        except RecursionError:
            self.fail("this is nested too deep", at)
        except ValueError as error:
            self.fail(str(error), at)
        word = WORD.match(self.text, end)
        if isinstance(data, int | float) and (word or self.text[end : end + 1] == "("):
            name = self.text[at:end] + (word[0] if word else "")
            self.fail(
                f"{name!r} cannot be a name here: names start with a letter or _",
                at,
                word.end() if word else end,
            )
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            self.fail("half a surrogate pair: this is no text", at, end)
        except RecursionError:
            self.fail("this is nested too deep", at)
        blank = BLANK.match(self.text, end)
        assert blank
        self.at = blank.end()
        return _Packet(data, at, end)

    def stop(self, chain: list[_Stop | _Packet]) -> _Stop:
        words = list(self.words())
        if not words:
            what = "a node or an initial packet" if not chain else "a node after '->'"
            self.fail(f"expected {what}, got {self.got()}")
        leads_on = self.text.startswith("->", self.after_spaces())
        inport, node, outport = self.roles(words, first=not chain, leads_on=leads_on)
        if inport is not None and not chain:
            self.fail(
                f"nothing leads into {inport.text!r}: a chain starts with a node and its outport",
                inport.at,
                inport.end,
            )
        for port in (inport, outport):
            if port is not None:
                self.check_port(port)
        self.check_node(node)
        literal = node.text in LITERALS and node.component is None and len(words) == 1
        literal = literal and not chain and leads_on
        if not literal:
            self.mentions.append(node)
        return _Stop(node, inport, outport, self.defaults, literal)

    def words(self) -> Iterator[_Word]:
        while True:
            start = self.at
            found = WORD.match(self.text, start)
            self.at = found.end() if found else start
            word = _Word(found[0] if found else "", start, self.at)
            if found and self.peek() == "[":
                index = INDEX.match(self.text, self.at)
                if not index:
                    self.fail("expected a number in the brackets, such as [0]")
                word.index, self.at = int(index[1]), index.end()
            if self.peek() == "(":
                self.component(word)
            elif not found:
                self.at = start
                return
            word.end = self.at
            yield word
            after = self.after_spaces()
            if after == self.at or not re.match("[a-zA-Z_(]", self.text[after : after + 1]):
                return
            self.at = after

    def roles(
        self, words: list[_Word], *, first: bool, leads_on: bool
    ) -> tuple[_Word | None, _Word, _Word | None]:
        """Say which of the words of a stop is the node, and which are its ports."""
        nodes = [word for word in words if word.component is not None]
        if len(nodes) > 1:
            self.fail("expected '->' or ',' before another node", nodes[1].at, nodes[1].end)
        if len(words) > 3 or (len(words) == 3 and nodes and nodes[0] is not words[1]):
            extra = words[min(3, len(words) - 1)]
            self.fail(
                f"expected '->' or ',' before {extra.text!r}: "
                f"a node has one inport before it and one outport after it",
                extra.at,
                extra.end,
            )
        match words:
            case [inport, node, outport]:
                return inport, node, outport
            case [one, two] if nodes:
                return (one, two, None) if nodes[0] is two else (None, one, two)
            case [node, outport] if first:
                return None, node, outport
            case [inport, node] if not leads_on:
                return inport, node, None
            case [one, two]:
                self.fail(
                    f"in the middle of a chain a node has both its ports or none: "
                    f"write IN {one.text} {two.text}, or {one.text} {two.text} OUT",
                    one.at,
                    two.end,
                )
        return None, words[0], None

    def component(self, word: _Word) -> None:
        """Read a component in its brackets, and note what it says of its node."""
        found = COMPONENT.match(self.text, self.at)
        if not found:
            start = COMPONENT_START.match(self.text, self.at)
            assert start
            self.at = start.end()
            self.fail(f"expected ')' at the end of the component, got {self.got()}")
        component, metadata = found[1], found[2]
        if not word.text:
            if not component:
                self.fail("expected a component between the brackets", self.at, found.end())
            short = re.sub("[^a-zA-Z0-9]+", "_", component, count=1)
            self.unnamed[short] = self.unnamed.get(short, 0) + 1
            word.text = f"_{short}_{self.unnamed[short]}"
        elif not NODE.fullmatch(word.text):
            self.check_node(word)
        word.component = component
        if word.text not in self.components:
            self.components[word.text] = ""
            self.statement.declared.append(word.text)
        if component:
            self.components[word.text] = component
        if metadata is not None:
            self.metadata[word.text] = self.metadata_of(metadata, found.start(2))
        self.at = found.end()

    def metadata_of(self, text: str, at: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for item in text.split(","):
            key, *values = item.split("=")
            if not values:
                metadata["routes"] = key
                continue
            value: Any = values[0]
            if key in {"x", "y"}:
                number = NUMBER.match(values[0])
                if not number:
                    self.fail(f"{key} is a number; got {values[0]!r}", at, at + len(item))
                value = float(number[0])
                value = int(value) if value < 2**53 else value
            metadata[key] = value
            at += len(item) + 1
        return metadata

    # Checks.

    def check_dash(self, stop: _Stop) -> None:
        word = stop.outport or stop.node
        if word is stop.node and word.component is None and word.end == self.at:
            self.fail(
                f"expected a space before '->': the dash could belong to the name {word.text!r}",
                self.at,
                self.at + 2,
            )

    def check_node(self, node: _Word) -> None:
        if node.index is not None:
            self.fail(f"a node has no index; write it after a port of {node.text!r}", node.at)
        if "." in node.text:
            self.fail(
                f"{node.text!r} cannot be a name of a node here: "
                f"names of nodes have letters, digits, _ and - only",
                node.at,
                node.at + len(node.text),
            )

    def check_port(self, port: _Word) -> None:
        if not PORT.fullmatch(port.text):
            self.fail(
                f"{port.text!r} cannot be a name of a port here: "
                f"names of ports have letters, digits, _ and . only",
                port.at,
                port.at + len(port.text),
            )

    def check_mentions(self) -> None:
        for word in self.mentions:
            if self.components.get(word.text):
                continue
            if word.text in self.components:
                problem = f"{word.text!r} has no component anywhere"
            else:
                problem = f"{word.text!r} is used here and has no component anywhere"
            self.fail(
                f"{problem}; declare it as {word.text}(SomeComponent)."
                f"{near(word.text, (it for it in self.components if it != word.text))}",
                word.at,
                word.at + len(word.text),
            )

    def wrong_end(self) -> NoReturn:
        got = self.got()
        if self.peek() in tuple("/.") and self.text[self.at - 1 : self.at].isalnum():
            self.fail(
                f"{self.peek()!r} cannot be in a name of a node here: "
                f"names of nodes have letters, digits, _ and - only"
            )
        self.fail(f"expected '->', ',' or the end of the line, got {got}")

    # What it all makes.

    def made(self) -> Graph:
        graph = Graph(case_sensitive=self.case_sensitive)
        graph.properties = self.properties
        for name, component in self.components.items():
            graph.nodes[name] = Node(name, component, self.metadata.get(name, {}))
        seen: set[tuple[Endpoint, Endpoint]] = set()
        comments: list[str] = []
        for statement in self.statements:
            comments = _tidy([*comments, *statement.comments])
            if statement.export is not None:
                keyword, export = statement.export
                table = graph.inports if keyword == "INPORT" else graph.outports
                export = Export(export.public, export.node, export.port, comments=tuple(comments))
                table[export.public] = export
                comments = []
                continue
            joined = False
            for it in self.connections(statement.chain):
                if isinstance(it, Edge) and it.key in seen:
                    joined = False
                    continue
                if isinstance(it, Edge):
                    seen.add(it.key)
                graph.connections.append(_with_layout(it, tuple(comments), joined))
                comments, joined = [], True
            if len(statement.chain) == 1:
                for name in statement.declared:
                    node = graph.nodes[name]
                    graph.nodes[name] = Node(
                        name, node.component, node.metadata, comments=tuple(comments), alone=True
                    )
                    comments = []
        graph.comments = tuple(_tidy([*comments, *self.comments]))
        return graph

    def connections(self, chain: list[_Stop | _Packet]) -> Iterator[Edge | Initial]:
        for one, two in itertools.pairwise(chain):
            assert isinstance(two, _Stop)
            tgt = self.endpoint(two, two.inport, two.defaults[0])
            if isinstance(one, _Packet):
                yield Initial(one.data, tgt)
            elif one.literal and one.node.text not in self.components:
                yield Initial(LITERALS[one.node.text], tgt)
            else:
                yield Edge(self.endpoint(one, one.outport, one.defaults[1]), tgt)

    def endpoint(self, stop: _Stop, port: _Word | None, default: str) -> Endpoint:
        if port is None:
            return Endpoint(stop.node.text, default)
        return Endpoint(stop.node.text, self.fold(port.text), port.index)

    # Characters.

    def fold(self, name: str) -> str:
        return name if self.case_sensitive else name.lower()

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def after_spaces(self) -> int:
        at = self.at
        while self.text.startswith(" ", at):
            at += 1
        return at

    def spaces(self) -> None:
        self.at = self.after_spaces()

    def newline(self) -> bool:
        found = NEWLINE.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found is not None

    def comment(self) -> str:
        found = REST.match(self.text, self.at)
        assert found
        self.at = found.end()
        self.newline()
        return found[0].rstrip()

    def arrow(self, at: int) -> bool:
        return self.text.startswith("->", at)

    def ends(self) -> bool:
        """Tell whether a statement may end here."""
        return self.at == len(self.text) or bool(re.match("[,#\n\r\u2028\u2029]", self.peek()))

    def expect(self, character: str, problem: str) -> None:
        if self.peek() != character:
            self.fail(f"{problem}; got {self.got()}")
        self.at += 1

    def got(self) -> str:
        """Say what is next, for an error."""
        found = ITEM.match(self.text, self.at)
        if not found:
            return "the end of the text"
        if NEWLINE.match(found[0]):
            return "the end of the line"
        if found[0] == "#":
            return "a comment"
        return "a tab" if found[0] == "\t" else repr(found[0])

    def fail(self, problem: str, at: int | None = None, end: int | None = None) -> NoReturn:
        at = self.at if at is None else at
        if end is None:
            found = ITEM.match(self.text, at)
            end = found.end() if found else at + 1
        line, start = 1, 0
        for newline in NEWLINE.finditer(self.text, 0, at):
            line, start = line + 1, newline.end()
        source = REST.match(self.text, start)
        assert source
        width = min(end, source.end()) - at
        raise GraphSyntaxError(
            problem,
            name=self.name,
            line=line,
            column=at - start + 1,
            source=source[0],
            width=width,
        )


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON value")


def _number(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {digits} is too large")
    return value


DECODER: Final = json.JSONDecoder(parse_constant=_refuse, parse_float=_number)


def _with_layout(it: Edge | Initial, comments: tuple[str, ...], joined: bool) -> Edge | Initial:
    if isinstance(it, Edge):
        return Edge(it.src, it.tgt, comments=comments, chained=joined)
    return Initial(it.data, it.tgt, comments=comments)


def _tidy(comments: list[str]) -> list[str]:
    """Return the lines with one empty line at most between two others."""
    return [line for at, line in enumerate(comments) if line or at == 0 or comments[at - 1]]
