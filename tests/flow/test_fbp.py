import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from msgflo.errors import GraphError, GraphSyntaxError
from msgflo.flow.fbp import dump_fbp, parse_fbp, unsayable
from msgflo.flow.graph import Edge, Endpoint, Graph, Initial, Node
from msgflo.flow.graphjson import load_json
from realgraphs import WHY_NOT, real_graphs

GRAPHS = Path(__file__).parent / "graphs"
TEXTS = sorted(GRAPHS.glob("*.fbp"))


def edges(text: str) -> list[str]:
    return [str(edge) for edge in parse_fbp(text).edges]


def attempt(text: str) -> Graph | GraphSyntaxError:
    try:
        return parse_fbp(text)
    except GraphSyntaxError as error:
        return error


def problem(text: str) -> GraphSyntaxError:
    with pytest.raises(GraphSyntaxError) as caught:
        parse_fbp(text, "main.fbp")
    return caught.value


def test_nodes_edges_and_ports_are_read() -> None:
    graph = parse_fbp("a(A) OUT[0] -> IN[2] b(x/B-c)\n")
    assert list(graph.nodes.values()) == [Node("a", "A"), Node("b", "x/B-c")]
    assert graph.edges == (Edge(Endpoint("a", "out", 0), Endpoint("b", "in", 2)),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a(A) -> b(B)", ["a.out -> b.in"]),
        ("a(A) X -> b(B) -> c(C)", ["a.x -> b.in", "b.out -> c.in"]),
        ("a(A) OUT -> IN b(B) OUT -> IN c(C)", ["a.out -> b.in", "b.out -> c.in"]),
        ("a(A)\na X -> Y a", ["a.x -> a.y"]),
        ("a X -> Y b, a(A), b(B)", ["a.x -> b.y"]),
        ("a(A) -> b -> c(C)\nb(B)", ["a.out -> b.in", "b.out -> c.in"]),
        ("a(A) -> X b(B) -> c(C)", ["a.out -> b.x", "b.out -> c.in"]),
        ("a(A) -> b(B) X -> c(C)", ["a.out -> b.in", "b.x -> c.in"]),
        ("a(A)->b(B)\na X->Y b", ["a.out -> b.in", "a.x -> b.y"]),
        ("  a(A)   OUT  ->  IN   b(B)  ,", ["a.out -> b.in"]),
        ("DEFAULT_OUTPORT=res\nDEFAULT_INPORT=Req\na(A) -> b(B)", ["a.res -> b.req"]),
        ("a(A) -> b(B)\r\n\r\nb -> a\r", ["a.out -> b.in", "b.out -> a.in"]),
        ("a(A) -> b(B)\u2028b -> a # why", ["a.out -> b.in", "b.out -> a.in"]),
        ("a(A) PrintDone -> x.y_1 c-beam(B)", ["a.printdone -> c-beam.x.y_1"]),
        ("(A) -> (x/B-c) -> (A)", ["_A_1.out -> _x_B-c_1.in", "_x_B-c_1.out -> _A_2.in"]),
        ("a(A) -> b(B), a -> b", ["a.out -> b.in"]),
        ("\ufeffa(A) -> a(A)", ["a.out -> a.in"]),
    ],
)
def test_chains_and_default_ports(text: str, expected: list[str]) -> None:
    assert edges(text) == expected


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "   ", "DEFAULT_INPORT=x"])
def test_a_text_may_say_nothing(text: str) -> None:
    assert parse_fbp(text) == Graph()


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("'8081'", "8081"),
        ("''", ""),
        (r"'it\'s'", "it's"),
        (r"'C:\\'x'", r"C:\'x"),
        (r"'C:\new'", r"C:\new"),
        ("'two\nlines'", "two\nlines"),
        ("'{\"a\": 1}'", '{"a": 1}'),
        ("'grüße 😀'", "grüße 😀"),
        ('{"x": [1, 2.5], "y": {}}', {"x": [1, 2.5], "y": {}}),
        ("[ ]", []),
        ("-1.5e3", -1500.0),
        ("0", 0),
        (r'"a\n\u00e4\"\\"', 'a\nä"\\'),
        (r'"\ud83d\ude00"', "😀"),
        ("\ttrue", True),
        ("true", True),
        ("false", False),
        ("null", None),
        ("\t\n [true]\n", [True]),
    ],
)
def test_initial_packets(text: str, data: object) -> None:
    [initial] = parse_fbp(f"{text} -> IN a(A)").initials
    assert initial == Initial(data, Endpoint("a", "in"))
    assert type(initial.data) is type(data)


def test_a_word_of_json_is_a_node_where_one_is_called_so() -> None:
    graph = parse_fbp("true OUT -> IN a(A)\ntrue -> IN a\n\ttrue -> IN a\ntrue(B)")
    assert [str(edge) for edge in graph.edges] == ["true.out -> a.in"]
    assert [initial.data for initial in graph.initials] == [True]


def test_metadata_of_nodes() -> None:
    node = parse_fbp("a(A:x=10,y=2,foo=bar,plain,label=L/1,e=)").nodes["a"]
    assert node.metadata == {
        "x": 10,
        "y": 2,
        "foo": "bar",
        "routes": "plain",
        "label": "L/1",
        "e": "",
    }


def test_a_node_is_declared_anywhere_and_the_last_word_counts() -> None:
    graph = parse_fbp("a() -> b(B)\n'x' -> IN a(A:k=1)\na(C)\nb(:k=2)")
    assert [(it.id, it.component, dict(it.metadata)) for it in graph.nodes.values()] == [
        ("a", "C", {"k": "1"}),
        ("b", "B", {"k": "2"}),
    ]


def test_exported_ports_and_the_last_of_a_name() -> None:
    graph = parse_fbp("INPORT=a.IN:Start\nOUTPORT=b.x.y:STOP, INPORT=b.X:START\na(A)\nb(B)")
    assert {public: (it.node, it.port) for public, it in graph.inports.items()} == {
        "start": ("b", "x")
    }
    assert graph.outports["stop"].port == "x.y"


def test_annotations_are_properties_and_other_comments_are_not() -> None:
    graph = parse_fbp(
        "# @runtime msgflo\n# @name a graph\na(A)\n# !runtime x\n # @x y\n# @url a/b\n# @icon eye"
    )
    assert graph.properties == {
        "environment": {"type": "msgflo"},
        "name": "a graph",
        "icon": "eye",
    }
    assert graph.environment == "msgflo"


def test_names_of_ports_are_kept_where_case_matters() -> None:
    text = "INPORT=a.In:Pub\na(A) PrintDone -> b(B)"
    graph = parse_fbp(text, case_sensitive=True)
    assert graph.case_sensitive
    assert graph.inports["Pub"].port == "In"
    assert str(graph.edges[0]) == "a.PrintDone -> b.IN"


def test_an_error_says_where_what_was_got_and_what_was_expected() -> None:
    error = problem("fetch(web/Fetch) OUT -> IN store(Store)\n\nresize OUT -> IN store\n")
    assert str(error) == (
        "main.fbp:3:1: 'resize' is used here and has no component anywhere; "
        "declare it as resize(SomeComponent).\n"
        "  resize OUT -> IN store\n"
        "  ^^^^^^"
    )


def test_an_undeclared_name_is_told_what_is_near() -> None:
    assert "Did you mean 'resize'?" in problem("resize(R)\nresise OUT -> IN resize").problem
    assert "Did you mean 'resize'?" in problem("resize(R)\nINPORT=resise.IN:IN").problem


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a(A) OUT IN b(B)", (1, 13), "expected '->' or ',' before another node"),
        ("a OUT IN b -> c", (1, 10), "before 'b'"),
        ("a(A) b(B)", (1, 6), "before another node"),
        ("a(A)b(B)", (1, 5), "expected '->', ',' or the end of the line, got 'b'"),
        ("a(A) OUT -> ", (1, 13), "expected a node after '->', got the end of the text"),
        ("a(A) OUT ->\nIN b(B)", (1, 12), "expected a node after '->', got the end of the line"),
        ("a(A) OUT -> # b", (1, 13), "got a comment"),
        ("a(A) OUT > IN b(B)", (1, 10), "expected '->', ',' or the end of the line, got '>'"),
        ("a->b(B)", (1, 2), "expected a space before '->'"),
        ("a(A), b", (1, 7), "'b' is used here and has no component anywhere"),
        ("n()", (1, 1), "'n' has no component anywhere"),
        ("-> b(B)", (1, 1), "expected a node or an initial packet, got '->'"),
        ("a(A),, b(B)", (1, 6), "got ','"),
        ("a(A) -> IN b(B) OUT", (1, 17), "'OUT' leads nowhere"),
        ("a(A) OUT", (1, 6), "'OUT' leads nowhere"),
        ("a b", (1, 3), "'b' leads nowhere"),
        ("IN a(A) -> b(B)", (1, 1), "nothing leads into 'IN'"),
        ("IN a(A)", (1, 1), "nothing leads into 'IN'"),
        ("a(A) -> 'x' -> b(B)", (1, 9), "an initial packet can only be at the start of a chain"),
        ("a(A) -> b OUT -> c(C)", (1, 9), "write IN b OUT, or b OUT OUT"),
        ("'never closed -> IN a(A)\nb(B)", (1, 1), "this quote is never closed"),
        ("'C:\\' -> IN a(A)", (1, 1), "this quote is never closed"),
        ("a(A)\n'x'", (2, 4), "expected '->' after the initial packet, got the end of the text"),
        ('{"a": 1 -> IN a(A)', (1, 9), "this is not JSON: expecting ',' delimiter"),
        ('{"a":\n  oops} -> IN a(A)', (2, 3), "this is not JSON"),
        ("[1e999] -> IN a(A)", (1, 1), "too large"),
        ("[NaN] -> IN a(A)", (1, 1), "NaN is no JSON value"),
        ('"\\ud800" -> IN a(A)', (1, 1), "half a surrogate pair"),
        ("2floor(A) -> IN b(B)", (1, 1), "'2floor' cannot be a name here"),
        ("club/lab(A) -> b(B)", (1, 5), "'/' cannot be in a name of a node here"),
        ("xdk.8c(A) -> b(B)", (1, 1), "'xdk.8c' cannot be a name of a node here"),
        ("a(A) set-on -> b(B)", (1, 6), "'set-on' cannot be a name of a port here"),
        ("a[0](A) -> b(B)", (1, 1), "a node has no index"),
        ("a(A) OUT[x] -> b(B)", (1, 9), "expected a number in the brackets"),
        ("a(x.y)", (1, 4), "expected ')' at the end of the component, got '.y'"),
        ("a(A", (1, 4), "expected ')' at the end of the component, got the end of the text"),
        ("a(A:x=one)", (1, 5), "x is a number; got 'one'"),
        ("a(A:k=1,y=)", (1, 9), "y is a number; got ''"),
        ("() -> a(A)", (1, 1), "expected a component between the brackets"),
        ("a(A)\n\tb(B)", (2, 1), "only spaces stand between words"),
        ("INPORT=", (1, 8), "expected the name of a node, such as INPORT=node.IN:PUBLIC"),
        ("INPORT=a:X", (1, 9), "expected '.' and a port after 'a'"),
        ("OUTPORT=a.out", (1, 14), "such as OUTPORT=node.OUT:PUBLIC; got the end of the text"),
        ("INPORT=a.in:", (1, 13), "expected the public name, got the end of the text"),
        ("DEFAULT_INPORT=1", (1, 16), "expected the name of a port, got '1'"),
        ("a(A)\r\n\r\n é(B)", (3, 2), "got 'é'"),
        ("é", (1, 1), "expected a node or an initial packet, got 'é'"),
        ("[" * 100_000, (1, 1), "nested too deep"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(
    text: str, where: tuple[int, int], what: str
) -> None:
    error = problem(text)
    assert what in error.problem
    assert (error.line, error.column) == where
    assert 1 <= error.width <= max(1, len(error.source) - error.column + 1)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_a_text_is_written_as_it_was_read(path: Path) -> None:
    graph = parse_fbp(path.read_text(), path.name)
    written = dump_fbp(graph)
    assert parse_fbp(written) == graph
    assert dump_fbp(parse_fbp(written)) == written


def test_comments_chains_and_empty_lines_stay_where_they_are() -> None:
    text = (GRAPHS / "jobs.fbp").read_text()
    assert dump_fbp(parse_fbp(text)) == text.lstrip("\n")


def test_comments_go_with_what_they_stand_above() -> None:
    graph = parse_fbp(
        "# about a\na(A)\n\n# first\na -> b(B) # and why\n# second\nb -> a\n# last words\n"
    )
    graph.remove_edge(Endpoint("a", "out"), Endpoint("b", "in"))
    graph.rename_node("a", "z")
    assert dump_fbp(graph) == "# about a\nz(A)\n# second\nb(B) OUT -> IN z\n# last words\n"


def test_a_comment_does_not_become_an_annotation() -> None:
    graph = parse_fbp(" # @name secret\na(A) # @icon eye\n# @url a/b")
    assert graph.properties == {}
    assert parse_fbp(dump_fbp(graph)).properties == {}


def test_the_component_stands_at_the_first_mention_of_its_node() -> None:
    graph = Graph("two workers")
    for node in ("web", "one", "two"):
        graph.add_node(node, "Web" if node == "web" else "Work", {"x": 5})
    graph.add_initial("it's", Endpoint("one", "in"))
    graph.add_edge(Endpoint("web", "out"), Endpoint("one", "in"))
    graph.add_edge(Endpoint("web", "out"), Endpoint("two", "in", 3))
    assert dump_fbp(graph) == (
        "# @name two workers\n\n"
        "web(Web:x=5)\n"
        "'it\\'s' -> IN one(Work:x=5)\n"
        "web OUT -> IN one\n"
        "web OUT -> IN[3] two(Work:x=5)\n"
    )


def test_what_the_language_cannot_say_is_named() -> None:
    graph = load_json((GRAPHS / "deployment.json").read_text())
    said = unsayable(graph)
    for part in (
        "node 'club/guestbutton/lab': names start with",
        "node '2floor'",
        "component 'hono/xdk.8c8b'",
        'metadata label = "Guest button"',
        "metadata x = -108",
        "port 'set-on'",
        "port 'Say' would be read as 'say'",
        'metadata {"route": 5}',
        "group 'Lights'",
    ):
        assert any(part in line for line in said), part
    with pytest.raises(GraphError, match="this graph cannot be said") as caught:
        dump_fbp(graph)
    assert "2floor" in str(caught.value)
    with pytest.raises(GraphError):
        dump_fbp(graph, lossy=True)


def test_what_can_be_left_out_is_left_out_when_that_is_wanted() -> None:
    graph = Graph()
    graph.add_node("a", "A", {"x": -1, "label": "A"})
    graph.add_edge(Endpoint("a", "Out"), Endpoint("a", "in"), {"route": 1})
    graph.add_group("g", ["a"])
    graph.change_properties({"description": "commas, for example", "runtime": "x"})
    assert len(unsayable(graph)) == 6
    assert dump_fbp(graph, lossy=True) == "a(A:label=A) OUT -> IN a\n"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_a_text_that_grows_line_by_line_is_read_or_refused_at_a_place_in_it(path: Path) -> None:
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    whole = parse_fbp(text)
    for end in range(len(lines) + 1):
        part = "".join(lines[:end])
        graph = attempt(part)
        if isinstance(graph, GraphSyntaxError):
            assert 1 <= graph.line <= end
        else:
            assert graph.connections == whole.connections[: len(graph.connections)]
    for line in lines:
        declared = "".join(
            f"{node.id}({node.component})\n" for node in whole.nodes.values() if node.id in line
        )
        connections = parse_fbp(declared + line).connections
        unnamed = re.search(r"[ >]\(|^\(|DEFAULT", text)
        assert unnamed or all(it in whole.connections for it in connections)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_a_text_cut_anywhere_is_read_or_refused_with_a_place(path: Path) -> None:
    text = path.read_text()
    for end in range(len(text)):
        found = attempt(text[:end])
        if isinstance(found, GraphSyntaxError):
            assert found.source in text
            assert found.column <= len(found.source) + 1


@pytest.mark.skipif(not real_graphs("*.fbp"), reason=WHY_NOT)
def test_graphs_found_in_practice_are_read_and_written_back() -> None:
    for path in real_graphs("*.fbp"):
        graph = parse_fbp(path.read_text(), path.name)
        assert parse_fbp(dump_fbp(graph)) == graph


# Any graph that the language can say.

FOLDED = st.from_regex(r"[a-z_][a-z.0-9_]{0,4}", fullmatch=True)
CASED = st.from_regex(r"[a-zA-Z_][a-zA-Z.0-9_]{0,4}", fullmatch=True)
NODES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_-]{0,4}", fullmatch=True) | st.sampled_from(
    ["true", "null", "INPORT", "a-", "_A_1"]
)
COMPONENTS = st.from_regex(r"[a-zA-Z/0-9_-]{1,5}", fullmatch=True)
WORDS = st.from_regex(r"[a-zA-Z/_0-9]{0,4}", fullmatch=True)
VALUES = st.from_regex(r"[a-zA-Z0-9_.-][a-zA-Z0-9_. -]{0,6}", fullmatch=True)
METADATA = st.dictionaries(WORDS.filter(lambda key: key not in {"x", "y"}), WORDS, max_size=2)
PLACES = st.dictionaries(st.sampled_from(["x", "y"]), st.integers(0, 2**53 - 1))
DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["\\", "'", "\\'", "a'\\", "\n", "\u2028", "-> b", "# c"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph = Graph(case_sensitive=draw(st.booleans()))
    ports = CASED if graph.case_sensitive else FOLDED
    for node in draw(st.lists(NODES, unique=True, max_size=5)):
        graph.add_node(node, draw(COMPONENTS), {**draw(METADATA), **draw(PLACES)})
    if graph.nodes:
        ends = st.builds(
            Endpoint, st.sampled_from(list(graph.nodes)), ports, st.none() | st.integers(0, 99)
        )
        for _ in range(draw(st.integers(0, 6))):
            if draw(st.booleans()):
                graph.add_edge(draw(ends), draw(ends))
            else:
                graph.add_initial(draw(DATA), draw(ends))
        for public in draw(st.lists(ports, unique=True, max_size=2)):
            graph.add_inport(public, draw(ends).node, draw(ports))
            graph.add_outport(public, draw(ends).node, draw(ports))
    properties = draw(
        st.dictionaries(VALUES.filter(lambda key: re.fullmatch("[a-zA-Z0-9_-]+", key)), VALUES)
    )
    properties.pop("runtime", None)
    if draw(st.booleans()):
        graph.change_properties({"environment": {"type": draw(VALUES)}})
    graph.change_properties(properties)
    return graph


@settings(deadline=None)
@given(graphs())
def test_a_graph_is_said_and_read_back(graph: Graph) -> None:
    assert unsayable(graph) == []
    text = dump_fbp(graph)
    assert parse_fbp(text, case_sensitive=graph.case_sensitive) == graph
    assert dump_fbp(parse_fbp(text, case_sensitive=graph.case_sensitive)) == text


@settings(deadline=None)
@given(
    st.text(alphabet=st.sampled_from(list("ab(A) ->\n'\"[]{}0:=,.#@_\t\\I\r\u2028é")), max_size=40)
    | st.text(max_size=30)
)
@example("a(A)->" * 3)
def test_any_text_is_a_graph_or_a_syntax_error_and_what_was_read_is_written(text: str) -> None:
    graph = attempt(text)
    if isinstance(graph, GraphSyntaxError):
        assert str(graph).startswith("<fbp>:")
        return
    assert unsayable(graph) == []
    assert parse_fbp(dump_fbp(graph)) == graph
