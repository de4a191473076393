"""Our reader and writer of .fbp beside the reference reader, npm fbp 1.8."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npm
from msgflo.errors import GraphSyntaxError
from msgflo.flow.fbp import dump_fbp, parse_fbp
from msgflo.flow.graph import Graph
from msgflo.flow.graphjson import dump_json
from msgflo.flow.values import same
from realgraphs import real_graphs

HERE = Path(__file__).parent

Reference = Callable[[str, bool], dict[str, Any]]


@pytest.fixture(scope="module")
def reference() -> Iterator[Reference]:
    """Ask the reference reader: the graph, or its error. One process for all questions."""
    installed = npm.installed(HERE / "npm", "npm-fbp").parent
    with subprocess.Popen(
        [npm.node(), HERE / "npm" / "reference.js", installed],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        assert process.stdin
        assert process.stdout
        stdin, stdout = process.stdin, process.stdout

        def ask(text: str, case_sensitive: bool = False) -> dict[str, Any]:
            stdin.write(json.dumps({"text": text, "caseSensitive": case_sensitive}) + "\n")
            stdin.flush()
            answer: dict[str, Any] = json.loads(stdout.readline())
            return answer

        yield ask
        stdin.close()


def plain(graph: dict[str, Any]) -> dict[str, Any]:
    """Return what a graph says in one shape, an edge that is there twice only once."""
    connections: list[Any] = []
    for it in graph["connections"]:
        if "data" in it or it not in connections:
            connections.append(it)
    return {
        "nodes": [
            (id_, node["component"], node.get("metadata") or {})
            for id_, node in graph["processes"].items()
        ],
        "connections": connections,
        "inports": list(graph["inports"].items()),
        "outports": list(graph["outports"].items()),
        "properties": graph.get("properties", {}),
        "caseSensitive": graph["caseSensitive"],
    }


def ours(graph: Graph) -> dict[str, Any]:
    return plain(json.loads(dump_json(graph)))


def check_agree(reference: Reference, text: str, case_sensitive: bool = False) -> Graph:
    answer = reference(text, case_sensitive)
    graph = parse_fbp(text, case_sensitive=case_sensitive)
    assert "graph" in answer, (answer, text)
    theirs = plain(answer["graph"])
    assert same(ours(graph), theirs), (text, ours(graph), theirs)
    return graph


def fixtures() -> list[Path]:
    found = sorted((HERE / "graphs").glob("*.fbp"))
    return found + real_graphs("*.fbp")


@pytest.mark.parametrize("path", fixtures(), ids=lambda path: path.stem)
def test_both_read_a_text_alike_and_what_we_write_of_it(reference: Reference, path: Path) -> None:
    for case_sensitive in (False, True):
        graph = check_agree(reference, path.read_text(), case_sensitive)
        assert check_agree(reference, dump_fbp(graph), case_sensitive) == graph


# Texts in which all is said that the reference reader needs.

NAMES = st.sampled_from(["a", "b", "c-d", "_e", "F1", "true", "IN"])
DECLARED = st.sampled_from(
    ["(A)", "(x/B-c)", "(A:x=1,foo=bar,plain)", "(A:,=,a=b=c)", "(:m)", "()"]
)
PORTS = st.tuples(
    st.sampled_from(["IN", "OUT", "Print", "x.y", "p_1"]), st.sampled_from(["", "", "[0]", "[12]"])
).map("".join)
PACKETS = st.sampled_from(
    [
        "'x'", r"'it\'s'", "''", "'two\nlines'", r"'\n'", "5", "-5.5e3", "0", "-0.5", "[ ]",
        '{"a": [1, null, true]}', r'"s\n\u00e4\\"', r'"\ud83d\ude00"', "\ttrue", "\tnull",
        '"ä"\n\t', "[\n1,\n2 ]",
    ]
)  # fmt: skip
SPACED = st.sampled_from([" -> ", "  ->   ", " ->", "->"])
ENDS = st.sampled_from(["\n", "\n", "\r\n", " , ", ",", ",\n", " # why\n", "\n\n", "\u2028", "\r"])


@st.composite
def chains(draw: st.DrawFn) -> str:
    def declared() -> str:
        if draw(st.integers(0, 5)) == 0:
            return draw(st.sampled_from(["(A)", "(x/B-c)", "(A:k)"]))
        return draw(NAMES) + draw(DECLARED)

    def stop(before: bool, after: bool) -> str:
        """A stop that names all its ports, or else its component, and never ends in a name."""
        if draw(st.booleans()):
            node = draw(st.sampled_from([draw(NAMES), declared()]))
            ports = [draw(PORTS) if wanted else "" for wanted in (before, after)]
        else:
            node = declared()
            ports = [draw(PORTS | st.just("")) if wanted else "" for wanted in (before, after)]
        return " ".join(part for part in (ports[0], node, ports[1]) if part)

    length = draw(st.integers(2, 4))
    chain = [stop(at > 0, at < length - 1) for at in range(length)]
    if draw(st.integers(0, 2)) == 0:
        chain[0] = draw(PACKETS)
    arrow = draw(SPACED)
    return "".join(
        it + ("" if at == length - 1 else " -> " if it[-1].isalnum() else arrow)
        for at, it in enumerate(chain)
    )


STATEMENTS = st.one_of(
    chains(),
    chains(),
    chains(),
    st.builds("{}{}".format, NAMES, DECLARED),
    st.builds(
        "{}={}.{}:{}".format,
        st.sampled_from(["INPORT", "OUTPORT"]),
        NAMES | st.just("(A)"),
        st.sampled_from(["IN", "x.y"]),
        st.sampled_from(["Pub", "pub", "p.q"]),
    ),
    st.sampled_from(["DEFAULT_INPORT=Req", "DEFAULT_OUTPORT=res"]),
)
LINES = st.builds("{}{}{}".format, st.sampled_from(["", "", "  "]), STATEMENTS, ENDS) | (
    st.sampled_from(
        [
            "\n# @runtime msgflo\n", "\n#  @name  a b \n", "\n# @x a/b\n", "\n # @x y\n", "#\n",
            "# @icon eye\r\n", "\n# @environment x\n", " # said\n", "\n",
        ]
    )
)  # fmt: skip
DECLARATIONS = "\n" + "".join(
    f"{name}(Z)\n" for name in ("a", "b", "c-d", "_e", "F1", "true", "IN")
)
SOUND = st.lists(LINES, min_size=1, max_size=6).map(lambda lines: "".join(lines) + DECLARATIONS)


@settings(deadline=None, max_examples=300)
@given(text=SOUND, case_sensitive=st.booleans())
def test_both_read_alike_whatever_says_all_that_it_means(
    reference: Reference, text: str, case_sensitive: bool
) -> None:
    graph = check_agree(reference, text, case_sensitive)
    check_agree(reference, dump_fbp(graph), case_sensitive)


# What the reference reader takes, silently losing a part of it, and we refuse.
LOSING = (
    "expected '->'",
    "leads nowhere",
    "nothing leads into",
    "has no component anywhere; declare it",
    "an initial packet can only be at the start of a chain",
    "in the middle of a chain a node has both its ports or none",
    "expected a number in the brackets",
    "cannot be a name",
    "half a surrogate pair",
    "x is a number",
    "y is a number",
    "too large",
)


@settings(deadline=None, max_examples=300)
@given(
    text=SOUND,
    at=st.integers(0, 10_000),
    cut=st.integers(0, 2),
    put=st.sampled_from(
        ["", " ", "\t", "\n", ",", "->", "(", ")", "'", '"', "[", ":", "=", "#", "A"]
    ),
)
def test_of_a_damaged_text_both_say_the_same_or_the_difference_is_known(
    reference: Reference, text: str, at: int, cut: int, put: str
) -> None:
    at %= len(text)
    text = text[:at] + put + text[at + cut :]
    answer = reference(text, False)
    problem = ""
    try:
        graph = parse_fbp(text)
    except GraphSyntaxError as error:
        problem = error.problem
    if problem:
        assert "error" in answer or any(known in problem for known in LOSING), (text, problem)
        return
    theirs = plain(answer["graph"]) if "graph" in answer else None
    if theirs is None or not same(ours(graph), theirs):
        # A node alone in a chain, or before a space; a literal word; an annotation at the end.
        # Said in full, which is how we write it, they agree.
        check_agree(reference, dump_fbp(graph))


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("a(A) OUT IN b(B)", 0),
        ("a(A) -> b OUT -> IN c(C)\nb(B)", 1),
        ("a(A) -> 'x' -> IN b(B)", 1),
    ],
)
def test_the_reference_reader_loses_what_we_refuse(
    reference: Reference, text: str, lost: int
) -> None:
    """If this fails, the reference has become stricter, and we need not differ any more."""
    assert len(reference(text, False)["graph"]["connections"]) == lost
    with pytest.raises(GraphSyntaxError):
        parse_fbp(text)


@pytest.mark.parametrize(
    "text",
    [
        "a(A) OUT -> IN b",
        "INPORT=b.IN:IN\na(A)",
        "n()",
        "2floor(A)",
        "a/b(A)",
        "a.b(A)",
        "a(x.y)",
        "a(A) set-on -> b(B)",
        "a(A) OUT ->\nb(B)",
        "EXPORT=a.IN:IN\na(A)",
        "a(A),,b(B)",
        "a(A)\n\tb(B)",
        "'x -> IN a(A)",
        "'C:\\' -> IN a(A)",
        "{'x': 1} -> IN a(A)",
        "[1,] -> IN a(A)",
        "01 -> IN a(A)",
    ],
)
def test_both_refuse_what_is_wrong(reference: Reference, text: str) -> None:
    assert "error" in reference(text, False)
    with pytest.raises(GraphSyntaxError):
        parse_fbp(text)
