import pytest

from msgflo.errors import GraphError
from msgflo.flow.graph import Graph
from msgflo.flow.text import dump, parse


def test_the_end_of_the_name_says_the_format() -> None:
    graph = parse("a(A) Out -> IN b(B)", "some/where/main.FBP", case_sensitive=True)
    text = dump(graph, "main.json")
    assert text.startswith("{")
    assert parse(text, "main.json") == graph
    assert dump(graph, "main.fbp") == "a(A) Out -> IN b(B)\n"


@pytest.mark.parametrize("name", ["main", "main.yaml", "json", "fbp/main"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(GraphError, match=r"ends in \.fbp or \.json"):
        parse("", name)
    with pytest.raises(GraphError, match=r"ends in \.fbp or \.json"):
        dump(Graph(), name)


def test_errors_name_the_file() -> None:
    with pytest.raises(GraphError, match=r"main\.fbp:1:1: "):
        parse("b -> a(A)", "main.fbp")


def test_what_a_format_cannot_say_is_left_out_only_if_wanted() -> None:
    graph = Graph()
    graph.add_node("a", "A", {"x": -1})
    with pytest.raises(GraphError):
        dump(graph, "a.fbp")
    assert dump(graph, "a.fbp", lossy=True) == "a(A)\n"
