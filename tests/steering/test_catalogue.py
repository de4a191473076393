import json
from pathlib import Path

import pytest

from msgflo.errors import ComponentError, MsgFloError
from msgflo.flow.discovery import Definition, Port
from msgflo.processes.library import Library
from msgflo.steering.catalogue import Catalogue

REPEAT = """
import msgflo


@msgflo.component("Repeat", icon="forward")
def repeat(text: str) -> bytes:
    "Repeats."
"""
FOREIGN = "component: c-flo/Lamp\nlabel: a lamp\ninports:\n  on: {queue: lamp/on, type: boolean}\n"


def catalogue(tmp_path: Path, namespace: str = "") -> Catalogue:
    folder = tmp_path / "components"
    folder.mkdir()
    (folder / "Repeat.py").write_text(REPEAT)
    (folder / "Lamp.yaml").write_text(FOREIGN)
    (folder / "Other.js").write_text("//")
    if namespace:
        (tmp_path / "msgflo.json").write_text(json.dumps({"namespace": namespace}))
    return Catalogue(Library.load(tmp_path))


def ids(ports):
    return [(port.id, port.type) for port in ports]


def test_components_are_listed_with_what_is_known_of_their_ports(tmp_path):
    kinds = {kind.name: kind for kind in catalogue(tmp_path, "demo").kinds()}
    assert kinds.keys() == {
        "demo/Repeat",
        "demo/Lamp",
        "demo/Other",
        "msgflo/PubSub",
        "msgflo/RoundRobin",
    }
    repeat = kinds["demo/Repeat"]
    assert (ids(repeat.inports), ids(repeat.outports)) == (
        [("in", "string")],
        [("out", "buffer")],
    )
    assert (repeat.description, repeat.icon) == ("Repeats.", "forward")
    assert ids(kinds["demo/Lamp"].inports) == [("on", "boolean")]
    assert kinds["demo/Other"].inports == ()
    assert ids(kinds["msgflo/RoundRobin"].outports) == [("out", "any"), ("deadletter", "any")]


def test_a_namespace_is_always_said(tmp_path):
    assert catalogue(tmp_path).namespace == "msgflo"


def test_what_a_participant_says_counts_more_than_its_file(tmp_path):
    made = catalogue(tmp_path, "demo")
    definition = Definition(
        "x", "role", "Repeat", "said", "star", (Port("into", "int", "q"), Port("hidden")), ()
    )
    news = made.heard(definition, "demo/Repeat")
    assert news is not None
    assert (ids(news.inports), news.description, news.icon) == ([("into", "int")], "said", "star")
    assert made.heard(definition, "demo/Repeat") is None
    assert made.port("demo/Repeat", "INTO", True).type == "int"
    # Until its code is written anew, and is code.
    half = made.write("Repeat", "demo", "python", REPEAT[:-30])
    assert ids(half.inports) == [("into", "int")]
    whole = made.write("Repeat", "demo", "python", REPEAT.replace("text: str", "n: float"))
    assert ids(whole.inports) == [("in", "number")]


def test_components_that_nobody_has_but_somebody_is_are_listed_and_described(tmp_path):
    made = catalogue(tmp_path)
    made.heard(
        Definition("x", "lamp", "far/Lamp", "a lamp", "bulb", (Port("on", "boolean", "q"),)),
        "far/Away",
    )
    assert "far/Away" in {kind.name for kind in made.kinds()}
    source = made.source("far/Away")
    assert (source.name, source.library, source.language) == ("Away", "far", "discovery")
    assert "  on:\n    type: boolean" in source.code
    with pytest.raises(ComponentError):
        made.source("far/Nowhere")


def test_code_is_read_and_written_under_the_names_that_clients_know(tmp_path):
    made = catalogue(tmp_path)
    source = made.source("Repeat")
    assert (source.name, source.library, source.code) == ("Repeat", "msgflo", REPEAT)
    # What it was told it writes again, under the namespace that it was told too.
    assert made.write("Repeat", "msgflo", "python", REPEAT).name == "Repeat"
    assert made.write("New", "", "python", REPEAT).name == "New"
    for name in ("../evil", "a/b/c", ".hidden", ""):
        with pytest.raises(MsgFloError):
            made.write(name, "", "python", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["components"]
