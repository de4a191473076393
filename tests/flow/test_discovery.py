import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.errors import DefinitionError
from msgflo.flow.discovery import (
    DEFAULT_PERIOD,
    LONGEST_PERIOD,
    PERIODS_TO_LIVE,
    UNKNOWN_PERIOD,
    Announcement,
    Definition,
    Goodbye,
    Instruction,
    Port,
    parse_discovery,
    parse_instruction,
    place_of,
    queue_name,
    queue_of_place,
)

RESIZE = Definition(
    id="resize-1-x7f3",
    role="resize",
    component="images/Resize",
    label="Shrink an image",
    icon="compress",
    inports=(
        Port("in", "object", "resize.IN", description="what to shrink", schema={"type": "object"}),
        Port("secret", hidden=True),
    ),
    outports=(Port("out", "any", "resize.OUT"),),
)

# As they were sent by clients in other languages.
NODEJS = {
    "protocol": "discovery",
    "command": "participant",
    "payload": {
        "id": "repeat-8c0f2b1e-1111-4222-8333-444455556666",
        "role": "repeat",
        "component": "msgflo-nodejs/examples/Repeat",
        "label": "Repeats input",
        "icon": "file-word-o",
        "inports": [{"id": "in", "type": "any", "queue": "repeat.IN", "options": {}}],
        "outports": [{"id": "out", "type": "any", "queue": "repeat.OUT"}],
    },
}
ARDUINO = {
    "protocol": "discovery",
    "command": "participant",
    "payload": {
        "id": "",
        "role": "lamp",
        "component": "arduino/Lamp",
        "label": None,
        "icon": "lightbulb-o",
        "inports": [{"id": "on", "type": "boolean", "queue": "lamp/on", "_": None}],
        "outports": [],
    },
}


def announced(**changes: object) -> bytes:
    payload = NODEJS["payload"] | changes
    gone = [key for key, value in changes.items() if value is ...]
    return json.dumps(
        NODEJS | {"payload": {key: it for key, it in payload.items() if key not in gone}}
    ).encode()


def beside(**said: object) -> Announcement:
    heard = parse_discovery(json.dumps(NODEJS | {"msgflo": said}).encode())
    assert isinstance(heard, Announcement)
    return heard


def test_an_announcement_has_exactly_the_seven_keys_that_other_clients_know():
    said = json.loads(Announcement(RESIZE, instance=1).encode())
    assert said["protocol"] == "discovery"
    assert said["command"] == "participant"
    assert set(said["payload"]) == {
        "id",
        "role",
        "component",
        "label",
        "icon",
        "inports",
        "outports",
    }


def test_a_hidden_port_is_not_announced():
    said = json.loads(Announcement(RESIZE).encode())
    assert [port["id"] for port in said["payload"]["inports"]] == ["in"]


def test_what_was_announced_is_heard():
    sent = Announcement(
        RESIZE,
        instance=3,
        places=True,
        period=DEFAULT_PERIOD,
        initials=("options",),
        details={"pid": 7, "host": "here"},
    )
    heard = parse_discovery(sent.encode())
    assert isinstance(heard, Announcement)
    assert heard.definition.inports == RESIZE.inports[:1]
    assert heard.definition.outports == RESIZE.outports
    assert (heard.definition.id, heard.definition.label) == (RESIZE.id, RESIZE.label)
    assert (heard.instance, heard.places, heard.period) == (3, True, DEFAULT_PERIOD)
    assert heard.initials == ("options",)
    assert heard.details == {"pid": 7, "host": "here"}


def test_a_goodbye_is_heard():
    assert parse_discovery(Goodbye("x", "resize").encode()) == Goodbye("x", "resize")


def test_participants_in_other_languages_are_understood():
    heard = parse_discovery(json.dumps(NODEJS).encode())
    assert isinstance(heard, Announcement)
    assert heard.definition.inport("IN") == Port("in", "any", "repeat.IN")
    assert (heard.instance, heard.places, heard.initials) == (None, False, ())
    assert heard.period == UNKNOWN_PERIOD
    assert heard.time_to_live == UNKNOWN_PERIOD * PERIODS_TO_LIVE


def test_a_microcontroller_without_an_id_goes_by_its_role():
    heard = parse_discovery(json.dumps(ARDUINO).encode())
    assert isinstance(heard, Announcement)
    assert heard.definition.id == "lamp"
    assert heard.definition.label == ""
    assert heard.definition.inports == (Port("on", "boolean", "lamp/on"),)
    bye = {"protocol": "discovery", "command": "goodbye", "payload": {"id": "", "role": "lamp"}}
    assert parse_discovery(json.dumps(bye).encode()) == Goodbye("lamp", "lamp")


def test_ports_without_a_type_take_anything_and_without_a_queue_are_kept():
    heard = parse_discovery(announced(inports=[{"id": "in"}, {"id": "x", "type": 7, "queue": 8}]))
    assert isinstance(heard, Announcement)
    assert heard.definition.inports == (Port("in"), Port("x"))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'"\xff"', "is not JSON"),
        (b'{"a": 1e999}', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", "not a discovery message"),
        (b'{"protocol": "other"}', "not a discovery message"),
        (b'{"protocol": "discovery", "command": "participant"}', "no payload object"),
        (b'{"protocol": "discovery", "payload": {}}', "has command None"),
        (b'{"protocol": "discovery", "command": "goodbye", "payload": {}}', "has role None"),
        (announced(role=""), "has role ''; expected a text that is not empty"),
        (announced(role=...), "has role None"),
        (announced(component=5), "of role 'repeat' has component 5"),
        (announced(inports=...), "of role 'repeat' has no inports; expected a list"),
        (announced(outports={"out": 1}), "has outports of type dict; expected a list of ports"),
        (announced(inports=[{"type": "any"}]), "has inports[0] ="),
        (announced(inports=["in"]), "expected an object with an id"),
    ],
)
def test_what_is_malformed_is_told_with_what_was_expected(data, text):
    with pytest.raises(DefinitionError) as caught:
        parse_discovery(data)
    assert text in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("period", "heard"),
    [
        (5, 5.0),
        (0.25, 0.25),
        (0, UNKNOWN_PERIOD),
        (-1, UNKNOWN_PERIOD),
        (True, UNKNOWN_PERIOD),
        ("60", UNKNOWN_PERIOD),
        (None, UNKNOWN_PERIOD),
        (10**400, LONGEST_PERIOD),
        (1e300, LONGEST_PERIOD),
    ],
)
def test_a_period_that_makes_no_sense_counts_as_unknown_and_none_is_for_ever(period, heard):
    assert beside(period=period).period == heard


@pytest.mark.parametrize("instance", [0, -1, True, "1", 1.0, None, [1]])
def test_an_instance_that_is_no_number_from_1_counts_as_not_said(instance):
    assert beside(instance=instance).instance is None


def test_what_is_said_beside_may_be_anything():
    assert beside(initials=["a", 5, None]).initials == ("a",)
    assert beside(initials="a").initials == ()
    assert beside(places="yes").places is False
    heard = parse_discovery(json.dumps(NODEJS | {"msgflo": "nothing"}).encode())
    assert isinstance(heard, Announcement)
    assert heard.period == UNKNOWN_PERIOD


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["payload", "msgflo", "command", "protocol"]), JSON, st.text(max_size=8))
def test_nothing_but_a_definition_error_comes_out_of_any_message(where, value, key):
    messages = [
        NODEJS | {where: value},
        NODEJS | {"payload": NODEJS["payload"] | {key: value}},
        *(NODEJS | {"payload": NODEJS["payload"] | {key: value}} for key in NODEJS["payload"]),
        *(NODEJS | {"msgflo": {key: value}} for key in ("period", "instance", "initials")),
        NODEJS | {"payload": NODEJS["payload"] | {"inports": [{"id": "in", "queue": value}]}},
    ]
    for message in messages:
        try:
            heard = parse_discovery(json.dumps(message).encode())
        except DefinitionError:
            continue
        if isinstance(heard, Announcement):
            again = parse_discovery(heard.encode())
            assert isinstance(again, Announcement)
            assert again.time_to_live == heard.time_to_live


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_understood(data):
    with pytest.raises(DefinitionError):
        parse_discovery(data)


def test_a_port_is_found_by_its_exact_name_before_another_case():
    definition = Definition("i", "r", "c", inports=(Port("IN", queue="1"), Port("in", queue="2")))
    assert definition.inport("in").queue == "2"
    assert definition.inport("In").queue == "1"
    assert definition.inport("out") is None
    assert definition.outport("in") is None


def test_same_ports_is_about_all_but_who_says_it():
    twin = Definition(
        "other",
        RESIZE.role,
        RESIZE.component,
        RESIZE.label,
        RESIZE.icon,
        RESIZE.inports,
        RESIZE.outports,
    )
    assert RESIZE.same_ports(twin)
    assert not RESIZE.same_ports(Definition("other", "resize", "images/Resize"))


def test_a_queue_is_named_as_the_nodejs_client_names_it():
    assert queue_name("my/role", "in") == "my/role.IN"


@given(st.text(), st.integers(1, 10**6))
def test_a_place_is_split_into_its_queue_and_instance(queue, instance):
    if queue:
        assert queue_of_place(place_of(queue, instance)) == (queue, instance)


@given(st.text(alphabet="ab@0123٣.", max_size=8))
def test_what_is_split_is_a_place_and_nothing_else(name):
    queue, instance = queue_of_place(name)
    if instance is None:
        assert queue == name
    else:
        assert instance >= 1
        assert place_of(queue, instance) == name


@pytest.mark.parametrize("name", ["resize.IN", "@1", "a@", "a@b", "a@0", "a@01", "a@-1", "a@٣"])
def test_what_is_no_place_stays_whole(name):
    assert queue_of_place(name) == (name, None)


@pytest.mark.parametrize(
    "instruction",
    [
        Instruction("announce"),
        Instruction("announce", ("a",)),
        Instruction("pause", ("a", "b/c")),
        Instruction("resume"),
    ],
)
def test_an_instruction_comes_back_from_the_wire(instruction):
    assert parse_instruction(instruction.encode()) == instruction
    assert instruction.concerns("a")
    assert instruction.concerns("z") is not bool(instruction.roles)


def test_asking_everybody_is_the_empty_message():
    assert Instruction("announce").encode() == b""


@given(
    st.binary()
    | st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_what_is_no_instruction_is_refused_and_breaks_nothing(data):
    if data:
        with pytest.raises(DefinitionError):
            parse_instruction(data)


def test_whether_a_participant_is_paused_is_said_beside_its_definition():
    for paused in (None, True, False):
        assert parse_discovery(Announcement(RESIZE, paused=paused).encode()).paused is paused


def test_a_participant_that_is_a_graph_says_how_it_is_entered():
    said = Announcement(RESIZE, runtime="noflo", inqueue="i", outqueue="o")
    read = parse_discovery(said.encode())
    assert (read.runtime, read.inqueue, read.outqueue) == ("noflo", "i", "o")
    assert json.loads(said.encode())["payload"]["type"] == "noflo"
    # As others announce it, who do not name their queues.
    message = {**NODEJS, "payload": {**NODEJS["payload"], "id": "x1", "type": "noflo"}}
    read = parse_discovery(json.dumps(message).encode())
    assert (read.inqueue, read.outqueue) == (".fbp.x1.receive", ".fbp.x1.send")
    assert "type" not in json.loads(Announcement(RESIZE).encode())["payload"]
