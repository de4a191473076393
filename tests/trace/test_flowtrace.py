import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import npm
from msgflo.errors import TraceError
from msgflo.flow.values import same
from msgflo.trace.flowtrace import (
    EVENT_OVERHEAD,
    Event,
    Flowtrace,
    Recording,
    connection_text,
    dump_flowtrace,
    event_line,
    event_lines,
    json_text,
    packet_data,
    packet_payload,
    parse_flowtrace,
)

SRC = {"node": "read", "port": "out"}
TGT = {"node": "show", "port": "in", "index": 2}
GRAPH = {
    "properties": {"name": "main"},
    "inports": {},
    "outports": {},
    "processes": {"read": {"component": "Read"}, "show": {"component": "Show"}},
    "connections": [
        {"src": {"process": "read", "port": "out"}, "tgt": {"process": "show", "port": "in"}},
        {"data": "a.txt", "tgt": {"process": "read", "port": "path"}},
    ],
}

# What half a surrogate pair is differs: we say it as an escape, so does Node.js.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    # Names that look like numbers change places in JavaScript.
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXTS.map("k".__add__), inner, max_size=4)
    ),
    max_leaves=10,
)

ALL_KINDS = [
    Event("started", {}, "main", 1.5e9),
    Event("connect", {"src": None, "tgt": TGT}, "main", 1.5e9),
    Event("begingroup", {"src": SRC, "tgt": TGT, "group": "a"}, "main", 1.5e9),
    Event("data", {"src": SRC, "tgt": TGT, "data": {"a": [1, None, "ö\n"]}}, "main", 1.5e9 + 0.125),
    Event("data", {"src": None, "tgt": TGT, "data": "from outside"}, "main", 1.5e9),
    Event("data", {"src": SRC, "tgt": None, "data": False}, "main", 1.5e9),
    Event("data", {"src": SRC, "tgt": TGT, "data": 1, "subgraph": ["a", "b"]}, "main", 1.5e9),
    Event("endgroup", {"src": SRC, "tgt": TGT, "group": "a"}, "main", 1.5e9),
    Event("disconnect", {"src": SRC, "tgt": TGT}, "main", 1.5e9),
    Event("icon", {"node": "read", "icon": "cog"}, "main", 1.5e9),
    Event("output", {"message": "hello"}, "main", 1.5e9),
    Event("processerror", {"id": "read", "error": "broken", "graph": "main"}, "main", 1.5e9),
    Event("error", {"message": "broken"}, "main", 1.5e9),
    Event("ports", {"graph": "main"}, "main", 1.5e9, protocol="runtime"),
    Event("stopped", {}, "main", 1.5e9),
]


def test_a_trace_is_read_as_it_was_written():
    trace = Flowtrace(ALL_KINDS, {"main": GRAPH}, "main", {"label": "try", "dropped": 3})
    again = parse_flowtrace(dump_flowtrace(trace))
    assert again == trace
    assert again.dropped == 3
    assert dump_flowtrace(again) == dump_flowtrace(trace)


def test_the_text_and_the_map_that_a_protocol_message_may_have_are_the_same_trace():
    trace = Flowtrace(ALL_KINDS, {"main": GRAPH}, "main")
    text = dump_flowtrace(trace)
    assert parse_flowtrace(trace.to_json()) == parse_flowtrace(json.loads(text)) == trace
    assert parse_flowtrace(text.encode()) == parse_flowtrace("\ufeff" + text) == trace


def test_an_older_file_has_time_graph_and_error_inside_the_payload():
    old = {
        "header": {"graphs": {"default": GRAPH}},
        "events": [
            {
                "protocol": "network",
                "command": "data",
                "payload": {
                    "src": SRC,
                    "tgt": TGT,
                    "data": 1,
                    "graph": "default",
                    "time": "2017-07-14T02:40:00.250Z",
                },
            },
            {"protocol": "network", "command": "data", "payload": {"error": "not serialisable"}},
            {"protocol": "network", "command": "processerror", "payload": {"error": "its own"}},
        ],
    }
    trace = parse_flowtrace(old)
    assert (trace.events[0].time, trace.events[0].graph) == (1.5e9 + 0.25, "default")
    assert [event.error for event in trace.events] == ["", "not serialisable", ""]
    assert (trace.main, trace.main_graph, trace.metadata) == (None, "default", {})
    assert parse_flowtrace(dump_flowtrace(trace)) == trace


def test_the_main_graph_is_the_one_that_is_said_to_be_else_the_first():
    graphs = {"a": GRAPH, "b": GRAPH}
    assert Flowtrace([], graphs, "b").main_graph == "b"
    assert Flowtrace([], graphs, "gone").main_graph == "a"
    assert Flowtrace([], graphs, None, {"main": "b"}).main_graph == "b"
    assert Flowtrace([], {}, "only").main_graph == "only"
    assert Flowtrace().main_graph == "main"


def test_the_smallest_file_is_a_trace():
    assert parse_flowtrace('{"header": {"graphs": {"g": {}}}, "events": []}').graphs == {"g": {}}
    assert parse_flowtrace('{"events": []}') == Flowtrace()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "f:1:1: this is not JSON"),
        ('{"events": [NaN]}', "NaN is no JSON value"),
        ('{"events": [1e999]}', "1e999 is too large"),
        (b"\xff\xfe", "not text"),
        ("[" * 100_000, "nested too deep"),
        ("[1]", "the trace is .1.; expected a map"),
        ('{"processes": {}, "connections": []}', "no flowtrace.*'processes', 'connections'"),
        ('{"events": {}}', "events is {}; expected a list"),
        ('{"events": [3]}', r"events\[0\] is 3; expected a map"),
        ('{"events": [{"protocol": "network"}]}', r"events\[0\].command is None"),
        ('{"header": {"graphs": []}, "events": []}', "."),
        ('{"header": {"graphs": {"a": 1}}, "events": []}', "header.graphs.a is 1; expected a map"),
        ('{"header": {"main": 1}, "events": []}', "header.main is 1; expected a graph's name"),
        (
            '{"events": [{"protocol": "n", "command": "c", "payload": "x"}]}',
            r"events\[0\].payload is 'x'",
        ),
    ],
)
def test_what_is_no_trace_is_told_with_its_place(text, says):
    if says == ".":
        assert parse_flowtrace(text, "f").graphs == {}  # an empty list, as PHP writes empty maps
        return
    with pytest.raises(TraceError, match=says) as raised:
        parse_flowtrace(text, "f")
    assert str(raised.value).startswith("f:")


# Packets.


@given(JSON)
def test_a_packet_keeps_its_value(value):
    body = json.dumps(value).encode()
    payload = packet_payload(SRC, TGT, body, {"Msgflo-Id": "7"})
    assert same(payload["data"], value)
    assert same(json.loads(packet_data(payload)), value)
    assert payload["headers"] == {"Msgflo-Id": "7"}


@given(st.binary())
def test_a_packet_of_bytes_keeps_them(body):
    payload = packet_payload(SRC, None, body)
    ring = Recording(0)
    ring.add("data", payload, time=1)
    (event,) = parse_flowtrace(dump_flowtrace(ring.flowtrace(2, {}))).events
    if event.payload.get("encoding") == "base64":
        assert packet_data(event.payload) == body
    else:
        assert same(json.loads(packet_data(event.payload)), json.loads(body))


def test_base64_that_is_none_is_told():
    with pytest.raises(TraceError, match="not base64"):
        packet_data({"data": "?", "encoding": "base64"})


# The ring.


def data_of(trace: Flowtrace) -> list[int]:
    return [event.payload["data"] for event in trace.events]


def test_a_ring_keeps_the_last_events_and_says_how_many_it_dropped():
    ring = Recording(10, events=3, metadata={"label": "try"})
    for number in range(5):
        ring.add("data", {"data": number}, time=10 + number, graph="main")
    trace = ring.flowtrace(20, {"main": GRAPH}, "main")
    assert data_of(trace) == [2, 3, 4]
    assert (ring.recorded, ring.dropped, trace.dropped, len(ring)) == (5, 2, 2, 3)
    assert trace.metadata["label"] == "try"
    assert trace.metadata["start"] == "1970-01-01T00:00:10.000000Z"
    assert trace.metadata["end"] == "1970-01-01T00:00:20.000000Z"
    assert (trace.graphs, trace.main) == ({"main": GRAPH}, "main")
    assert [event.time for event in trace.events] == [12, 13, 14]


def test_a_ring_keeps_the_last_bytes():
    ring = Recording(0, events=1000, size=3 * EVENT_OVERHEAD + 3000)
    for number in range(10):
        ring.add("data", {"data": number, "fill": "x" * 1000}, time=0)
    assert data_of(ring.flowtrace(0, {})) == [8, 9]
    assert ring.bytes <= ring.size
    ring.add("data", {"data": 10, "fill": "x" * 100_000}, time=0)
    assert data_of(ring.flowtrace(0, {})) == [10], "one that is larger is kept, alone"
    ring.add("data", {"data": 11}, time=0)
    assert data_of(ring.flowtrace(0, {})) == [11]
    assert ring.bytes < EVENT_OVERHEAD + 20


def test_clearing_a_ring_begins_anew():
    ring = Recording(0, events=1)
    ring.add("data", {"data": 1}, time=0)
    ring.add("data", {"data": 2}, time=0)
    ring.clear(5)
    trace = ring.flowtrace(6, {})
    assert (len(ring), ring.bytes, ring.dropped, ring.recorded, trace.dropped) == (0, 0, 0, 0, 0)
    assert trace.metadata["start"] == "1970-01-01T00:00:05.000000Z"


@pytest.mark.parametrize("room", [{"events": 0}, {"size": 0}])
def test_a_ring_without_room_is_refused(room):
    with pytest.raises(ValueError, match="expected 1 or more"):
        Recording(0, **room)


def test_a_ring_keeps_what_was_said_when_it_was_said():
    ring = Recording(0)
    data = [1]
    ring.add("data", {"data": data}, time=0)
    data.append(2)
    assert ring.flowtrace(0, {}).events[0].payload == {"data": [1]}


def test_what_json_cannot_say_is_kept_as_its_type():
    ring = Recording(0)
    around: list[object] = []
    around.append(around)
    ring.add("data", {"src": SRC, "data": object()}, time=0)
    ring.add("data", {"src": SRC, "data": around}, time=0)
    ring.add("data", {"src": SRC, "data": "\ud800"}, time=0)
    said = [event.payload for event in ring.flowtrace(0, {}).events]
    assert said == [{"src": SRC, "data": f"DATA {kind}"} for kind in ("object", "list", "str")]


# As text.


def test_lines_are_those_of_flowtrace_show():
    assert list(event_lines(ALL_KINDS)) == [
        "-> IN show CONN",
        "read OUT -> IN show < a",
        'read OUT -> IN show DATA {"a":[1,null,"ö\\n"]}',
        '-> IN show DATA "from outside"',
        "read OUT -> DATA false",
        "a:b read OUT -> IN show DATA 1",
        "read OUT -> IN show > a",
        "read OUT -> IN show DISC",
    ]
    assert event_line(Event("data", error="circular")) == "TRACE ERROR: circular"
    assert event_line(Event("data")) == "UNKNOWN DATA undefined"


def test_colours_are_only_around_the_text():
    line = event_line(ALL_KINDS[3], colour=True)
    assert line is not None
    assert line.startswith("\x1b[3m\x1b[34mread OUT -> IN show\x1b[39m\x1b[23m ")
    assert " \x1b[32mDATA\x1b[39m " in line


def test_a_connection_is_called_as_in_a_graph():
    assert connection_text({"src": SRC, "tgt": TGT}) == "read() OUT -> IN show()"
    assert connection_text({"src": None, "tgt": TGT}) == "DATA -> IN show()"
    assert connection_text({"src": SRC}) == "read() OUT -> OUT"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *((1.0, "1"), (0.5, "0.5"), (-0.0, "0"), (1e21, "1e+21"), (1e20, "1" + "0" * 20)),
        *((1e-6, "0.000001"), (1.5e-7, "1.5e-7"), (-123.456, "-123.456"), (5e-324, "5e-324")),
        (float("inf"), "null"),
    ],
)
def test_numbers_are_written_as_javascript_does(number, text):
    assert json_text(number) == text


# Beside the tools that others use.


def lines_of_the_reference(tools: Path, file: Path) -> list[str]:
    done = subprocess.run(
        [npm.node(), tools / "bin" / "flowtrace-show", file],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    # Away from a terminal it has a line "null" for each event that it skips on one.
    return [line for line in done.stdout.split("\n")[:-1] if line != "null"]


def test_flowtrace_show_reads_ours_and_shows_the_same(flowtrace_tools, tmp_path):
    values: list[object] = [
        *(0.1, 1e-7, 123456789.125, 1e300, 2**53, -1, 1e21, 0.000123, True, None, "", [], {}),
        *("\x7f\u2028\x00\b\f/\\\"'", "\U0001f600", {"a": {"b": [1.0, "é"]}}, "\ud800"),
    ]
    packets = [
        Event("data", {"src": SRC, "tgt": TGT, "data": value}, "main", 1.5e9) for value in values
    ]
    trace = Flowtrace([*ALL_KINDS, *packets], {"main": GRAPH}, "main")
    file = tmp_path / "ours.json"
    file.write_text(dump_flowtrace(trace), encoding="utf-8")
    assert lines_of_the_reference(flowtrace_tools, file) == list(event_lines(trace.events))


def test_we_read_what_the_reference_recorder_writes(flowtrace_tools, tmp_path):
    file = tmp_path / "theirs.json"
    script = """
        const { Flowtrace } = require(process.argv[1]);
        const tracer = new Flowtrace({ label: 'theirs', type: 'example' }, 4);
        tracer.addGraph('main', JSON.parse(process.argv[2]), true);
        tracer.addNetworkStarted('main');
        const [src, tgt] = [{ node: 'read', port: 'out' }, { node: 'show', port: 'in' }];
        tracer.addNetworkPacket('network:connect', src, tgt, 'main', {});
        tracer.addNetworkPacket('network:data', src, tgt, 'main', { data: { n: 1 } });
        tracer.addNetworkPacket('network:data', null, tgt, 'main', { data: 'ü' });
        tracer.addNetworkIcon('main', 'read', 'cog');
        require('fs').writeFileSync(process.argv[3], JSON.stringify(tracer));
    """
    command = [npm.node(), "-e", script, flowtrace_tools, json.dumps(GRAPH), file]
    subprocess.run(command, check=True)
    trace = parse_flowtrace(file.read_bytes(), "theirs.json")
    assert (trace.main, trace.metadata["label"], trace.graphs["main"]) == ("main", "theirs", GRAPH)
    assert [event.command for event in trace.events] == ["connect", "data", "data", "icon"]
    assert all(event.graph == "main" and (event.time or 0) > 1.7e9 for event in trace.events)
    assert lines_of_the_reference(flowtrace_tools, file) == list(event_lines(trace.events))
    file.write_text(dump_flowtrace(trace))
    assert lines_of_the_reference(flowtrace_tools, file) == list(event_lines(trace.events))


def test_the_reference_example_is_read(flowtrace_tools):
    found = flowtrace_tools / "examples" / "flowtrace-without-events.json"
    trace = parse_flowtrace(found.read_bytes())
    assert trace.main_graph == "helloworld"
    assert trace.events == []
