"""Definitions of participants that run somewhere else."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.errors import DefinitionError
from msgflo.flow.discovery import Port
from msgflo.processes.foreign import parse_foreign, read_foreign
from realgraphs import WHY_NOT, real_graphs

MAP = """
component: station/Display
label: Shows an address on a screen
icon: television
source: https://example.org/display   # nobody knows this key
inports:
  open:
    description: what to show
    type: string
    queue: '#ROLE.OPEN'
  urls: {type: array, queue: 'screens/#ROLE/urls/#ROLE'}
outports:
  opened:
    queue: /screens/opened
    type: string
"""

LIST = """
component: my/LightBulb
role: mybulb
inports:
-
  id: 'enable'
  type: 'boolean'
  description: ''
  queue: '/bulb/1/set-on'
outports: []
"""


def test_ports_as_a_map():
    definition = parse_foreign(MAP).definition("hall")
    assert definition.id == "hall"
    assert definition.role == "hall"
    assert definition.component == "station/Display"
    assert definition.label == "Shows an address on a screen"
    assert definition.icon == "television"
    assert definition.inports == (
        Port("open", "string", "hall.OPEN", "what to show"),
        Port("urls", "array", "screens/hall/urls/hall"),
    )
    assert definition.outports == (Port("opened", "string", "/screens/opened"),)


def test_ports_as_a_list():
    definition = parse_foreign(LIST).definition()
    assert definition.role == "mybulb"
    assert definition.inports == (Port("enable", "boolean", "/bulb/1/set-on"),)
    assert definition.outports == ()
    assert parse_foreign(LIST).definition("other").role == "other"


def test_names_that_yaml_1_1_takes_for_truth_are_names():
    foreign = parse_foreign(
        "component: a/Vacuum\n"
        "outports:\n  on: {queue: v/on}\n  off: {queue: v/off}\n  yes: {queue: no}\n  n: {queue: y}"
    )
    assert [(port.id, port.queue) for port in foreign.outports] == [
        ("on", "v/on"),
        ("off", "v/off"),
        ("yes", "no"),
        ("n", "y"),
    ]


def test_names_that_look_like_numbers_or_truth_are_names():
    foreign = parse_foreign("component: a\ninports: {7: {queue: 2}, true: {queue: 1.5}}")
    assert [(port.id, port.queue) for port in foreign.inports] == [("7", "2"), ("true", "1.5")]


@pytest.mark.parametrize("empty", ["{}", "[]", "", "null", "~"])
def test_there_may_be_no_ports(empty):
    foreign = parse_foreign(f"component: a\ninports: {empty}\noutports: {empty}")
    assert foreign.inports == foreign.outports == ()
    assert parse_foreign("component: a").inports == ()


def test_label_and_icon_may_be_empty():
    definition = parse_foreign("component: a\nlabel: ''\nicon:").definition("r")
    assert definition.label == ""
    assert definition.icon == "file-o"


def test_a_port_without_a_queue_has_the_usual_one_unless_it_is_hidden():
    definition = parse_foreign(
        "component: a\ninports: {in: , quiet: {hidden: true, queue: q}}"
    ).definition("r")
    assert [(port.id, port.queue) for port in definition.inports] == [("in", "r.IN"), ("quiet", "")]


def test_a_type_may_be_called_datatype_or_be_missing():
    foreign = parse_foreign("component: a\ninports: {x: {datatype: int}, y: {queue: q}}")
    assert [port.type for port in foreign.inports] == ["int", "any"]


def test_a_schema_is_kept_as_json_can_say_it():
    foreign = parse_foreign(
        "component: a\ninports: {x: {schema: {type: object, minimum: 2, on: 2020-01-01}}}"
    )
    assert foreign.inports[0].schema == {"type": "object", "minimum": 2, "on": "2020-01-01"}


def test_case_of_names_is_kept():
    foreign = parse_foreign("component: a\noutports: {PrintDone: {queue: p}}")
    assert foreign.outports[0].id == "PrintDone"


def test_an_id_in_the_file_is_used():
    assert parse_foreign("component: a\nid: x-#ROLE").definition("r").id == "x-r"


def test_without_any_role_there_is_no_definition():
    with pytest.raises(DefinitionError, match="names no role"):
        parse_foreign("component: a").definition()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty|holds empty; expected a definition"),
        ("[1]", "holds a list; expected a definition"),
        ("label: x", "component is empty; expected the component's name"),
        ("component: [a]", "component is a list"),
        ("component: a\ninports: 3", "inports is 3; expected a map of ports"),
        ("component: a\ninports: [x]", r"inports\[0\] is 'x'; expected a map with an id"),
        (
            "component: a\ninports: [{queue: q}]",
            r"inports\[0\] is a map; expected a map with an id",
        ),
        ("component: a\ninports: [{id: x}, {id: x}]", "two ports 'x'"),
        ("component: a\ninports: {x: 3}", "'x': is 3; expected a map with a queue"),
        ("component: a\ninports: {x: {queue: [q]}}", "queue is a list; expected a text"),
        ("component: a\ncomponent: b", "d.yml:2:1: not YAML"),
        ("component: 'a\nlabel: b", "d.yml:.*not YAML"),
        ("component: a\n---\ncomponent: b", "d.yml:.*not YAML"),
        ("component: !!python/object:os.system a", "not YAML"),
        ("[" * 5000, "not YAML"),
    ],
)
def test_what_is_no_definition_is_refused_with_its_place(text, expected):
    with pytest.raises(DefinitionError, match=expected) as caught:
        parse_foreign(text, "d.yml")
    assert "d.yml" in str(caught.value)


def test_a_few_lines_that_stand_for_billions_of_values_are_refused():
    text = "component: a\nl0: &l0 [x, x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 12):
        text += f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 10)}]\n"
    with pytest.raises(DefinitionError, match="too large"):
        parse_foreign(text + "inports: {x: {schema: *l11}}")
    with pytest.raises(DefinitionError, match="too large"):
        parse_foreign(text + "inports: *l11")


def test_a_file_that_is_missing_or_no_text_is_refused_with_its_name(tmp_path):
    with pytest.raises(DefinitionError, match="cannot be read"):
        read_foreign(tmp_path / "nope.yml")
    (tmp_path / "bad.yml").write_bytes(b"component: \xff")
    with pytest.raises(DefinitionError, match="not UTF-8"):
        read_foreign(tmp_path / "bad.yml")


@given(st.text())
def test_any_text_is_a_definition_or_a_definition_error(text):
    with contextlib.suppress(DefinitionError):
        parse_foreign(text)


@pytest.mark.skipif(not real_graphs("components/*.yml"), reason=WHY_NOT)
def test_definitions_found_in_practice_are_read():
    for path in real_graphs("components/*.yml"):
        definition = read_foreign(path).definition("here")
        assert definition.component
        assert all("#ROLE" not in port.queue for port in definition.outports), path
