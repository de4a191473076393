import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msgflo.errors import ConfigurationError
from msgflo.flow.graph import Endpoint
from msgflo.protocol.access import Level
from msgflo.protocol.session import (
    _COMMANDS,
    CLIENT_BURST,
    EDGE_BURST,
    EDGE_RATE,
    EXTENSIONS,
    FIRST_PACKETS,
)
from msgflo.protocol.workspace import Packet

EDGE = {"src": {"node": "a", "port": "out"}, "tgt": {"node": "b", "port": "in"}}
A, B = Endpoint("a", "out"), Endpoint("b", "in")


def draw(talk) -> None:
    """a OUT -> IN b, in the main graph."""
    talk.say("graph", "addnode", id="a", component="demo/Repeat", graph="main")
    talk.say("graph", "addnode", id="b", component="demo/Repeat", graph="main")
    talk.say("graph", "addedge", **EDGE, graph="main")


def packet(time=0.0, data=1, src=A, tgt=B, **more) -> Packet:
    return Packet("main", src, tgt, data, time, **more)


# Who is there.


def test_a_runtime_says_who_it_is_before_anything_else(talk):
    said = talk.say("runtime", "getruntime", secret="")
    assert said[0][:2] == ("runtime", "runtime")
    runtime = said[0][2]
    assert runtime["type"] == "msgflo"
    assert float(runtime["version"]) <= 0.9
    assert (runtime["id"], runtime["graph"], runtime["namespace"]) == ("f00", "main", "demo")
    assert {"protocol:graph", "protocol:network", "protocol:runtime"} <= set(
        runtime["capabilities"]
    )
    assert said[1:] == [("runtime", "ports", {"graph": "main", "inPorts": [], "outPorts": []})]


def test_nothing_is_pushed_to_a_client_that_has_not_spoken(talk, connect):
    silent = connect()
    draw(talk)
    assert silent.sent == []


def test_an_answer_carries_the_id_of_its_request(talk):
    talk.say_text(
        '{"protocol": "network", "command": "getstatus", "payload": {"graph": "main"}, '
        '"requestId": "seven"}'
    )
    assert talk.raw[0]["responseTo"] == "seven"
    talk.say_text('{"protocol": "network", "command": "nothing", "requestId": "eight"}')
    assert talk.raw[0]["responseTo"] == "eight"
    assert talk.raw[0]["command"] == "error"


# Graphs.


def test_edits_are_answered_with_what_was_done(talk):
    node = {"id": "a", "component": "demo/Repeat", "metadata": {"x": 1}, "graph": "main"}
    assert talk.ask("graph", "addnode", **node) == node
    assert talk.ask("graph", "addnode", id="b", component="c", graph="main") == {
        "id": "b",
        "component": "c",
        "graph": "main",
    }
    assert talk.ask("graph", "addedge", **EDGE, metadata={"route": 5}, graph="main") == {
        **EDGE,
        "metadata": {"route": 5},
        "graph": "main",
    }
    assert talk.ask("graph", "changenode", id="a", metadata={"y": 2}, graph="main") == {
        "id": "a",
        "metadata": {"x": 1, "y": 2},
        "graph": "main",
    }
    assert (
        talk.ask("graph", "changenode", id="a", metadata={"x": None, "y": None}, graph="main")[
            "metadata"
        ]
        == {}
    )
    assert talk.ask("graph", "changeedge", **EDGE, metadata={"route": None}, graph="main") == {
        **EDGE,
        "metadata": {},
        "graph": "main",
    }
    tgt = {"node": "a", "port": "in"}
    initial = {"src": {"data": [0]}, "tgt": tgt, "metadata": {}, "graph": "main"}
    assert talk.ask("graph", "addinitial", **initial) == initial
    assert talk.ask("graph", "removeinitial", tgt=tgt, graph="main") == {
        "src": {"data": [0]},
        "tgt": tgt,
        "graph": "main",
    }
    export = {"public": "out", "node": "b", "port": "out", "graph": "main"}
    assert talk.ask("graph", "addoutport", **export) == export
    assert talk.ask("graph", "renameoutport", **{"from": "out", "to": "o"}, graph="main") == {
        "from": "out",
        "to": "o",
        "graph": "main",
    }
    assert talk.ask("graph", "removeoutport", public="o", graph="main") == {
        "public": "o",
        "graph": "main",
    }
    group = {"name": "both", "nodes": ["a", "b"], "metadata": {"description": "d"}, "graph": "main"}
    assert talk.ask("graph", "addgroup", **group) == group
    assert talk.ask("graph", "changegroup", name="both", metadata={"c": 1}, graph="main")[
        "metadata"
    ] == {"description": "d", "c": 1}
    talk.ask("graph", "renamegroup", **{"from": "both", "to": "two"}, graph="main")
    talk.ask("graph", "removegroup", name="two", graph="main")
    talk.ask("graph", "renamenode", **{"from": "a", "to": "x/y z"}, graph="main")
    said = talk.say("graph", "removenode", id="x/y z", graph="main")
    assert [one[1] for one in said] == ["removeedge", "removenode"]


def test_exported_ports_are_told_when_they_change(talk):
    draw(talk)
    said = talk.say("graph", "addinport", public="into", node="a", port="in", graph="main")
    assert [one[:2] for one in said] == [("graph", "addinport"), ("runtime", "ports")]
    assert [port["id"] for port in said[1][2]["inPorts"]] == ["into"]


def test_repeating_a_command_is_answered_and_changes_nothing(talk, workspace):
    draw(talk)
    done = len(workspace.main.done)
    assert talk.ask("graph", "addnode", id="a", component="demo/Repeat", graph="main")["id"] == "a"
    end = {**EDGE["src"], "index": None, "more": 1}
    assert (
        talk.ask("graph", "addedge", src=end, tgt=EDGE["tgt"], graph="main")["src"] == EDGE["src"]
    )
    again = {"id": "a", "component": "demo/Repeat", "graph": "main"}
    assert talk.ask("graph", "addnode", **again, src="stray", tgt={}) == again
    assert talk.ask("graph", "renamenode", **{"from": "a", "to": "a"}, graph="main")["to"] == "a"
    assert talk.ask("graph", "changenode", id="a", metadata={}, graph="main")["metadata"] == {}
    assert len(workspace.main.done) == done


def test_errors_are_in_the_words_that_clients_know(talk):
    def error(command, **payload):
        (said,) = talk.say("graph", command, **payload)
        assert said[:2] == ("graph", "error")
        return said[2]["message"]

    node = {"id": "a", "component": "c"}
    assert error("addnode", **node, graph="none") == "Requested graph not found"
    assert error("addnode", **node) == "No graph specified"
    assert error("addnode", id="a", graph="main").startswith("graph:addnode: ")
    assert "no node 'a'" in error("removenode", id="a", graph="main")
    assert "has no command 'adnode'" in error("adnode", graph="main")


def test_a_graph_that_is_cleared_is_told_as_a_component(talk, connect):
    other = connect()
    other.say("runtime", "getruntime")
    other.heard()
    said = talk.ask(
        "graph", "clear", id="foo", name="Foo", main=True, baseDir="/", icon="x", description="d"
    )
    assert said == {"id": "foo", "name": "Foo", "main": True, "icon": "x", "description": "d"}
    heard = other.heard()
    assert ("graph", "clear", said) in heard
    assert any(one[1] == "component" and one[2]["name"] == "foo" for one in heard)
    assert talk.ask_as("source", "component", "getsource", name="foo")["language"] == "json"


def test_what_one_client_does_every_other_is_told(talk, connect):
    other = connect()
    other.say("runtime", "getruntime")
    other.heard()
    draw(talk)
    assert [one[1] for one in other.heard()] == ["addnode", "addnode", "addedge"]
    talk.say("graph", "removenode", id="a", graph="main")
    assert [one[1] for one in other.heard()] == ["removeedge", "removenode"]
    other.session.close()
    other.session.close()
    talk.say("graph", "removenode", id="b", graph="main")
    assert other.heard() == []


def test_two_clients_that_edit_at_once_end_with_the_same_graph(talk, connect, workspace):
    """What each is told is enough to follow."""
    other = connect()
    for one in (talk, other):
        one.say("runtime", "getruntime")
        one.heard()
    copies = {0: {}, 1: {}}

    def follow(number, sent):
        nodes = copies[number]
        for _, command, payload in sent:
            if command == "addnode":
                nodes[payload["id"]] = payload["component"]
            elif command == "removenode":
                nodes.pop(payload["id"])
            elif command == "renamenode":
                nodes[payload["to"]] = nodes.pop(payload["from"])

    plan = [("addnode", {"id": f"n{n % 7}", "component": "C"}) for n in range(40)]
    plan[5::6] = [("removenode", {"id": f"n{n}"}) for n in range(len(plan[5::6]))]
    plan[3::7] = [
        ("renamenode", {"from": f"n{n}", "to": f"m{n % 2}"}) for n in range(len(plan[3::7]))
    ]
    for number, (command, payload) in enumerate(plan):
        who, else_ = (talk, other) if number % 2 else (other, talk)
        else_.sent.clear()
        follow(number % 2, who.say("graph", command, **payload, graph="main"))
        follow(1 - number % 2, else_.heard())
    expected = {node.id: node.component for node in workspace.main.graph.nodes.values()}
    assert copies[0] == copies[1] == expected
    assert expected


# Networks.


def test_starting_and_stopping_is_told_to_all_and_done(talk, connect, paper):
    other = connect()
    other.say("runtime", "getruntime")
    other.heard()
    talk.say("graph", "clear", id="foo")
    started = talk.ask_as("started", "network", "start", graph="foo")
    assert (started["started"], started["running"]) == (True, True)
    assert ("network", "started", started) in other.heard()
    stopped = talk.ask_as("stopped", "network", "stop", graph="foo")
    assert (stopped["started"], stopped["running"]) == (False, False)
    assert ("network", "stopped", stopped) in other.heard()
    assert [one for one in paper.done if one[0] in ("start", "stop")] == [
        ("start", "foo"),
        ("stop", "foo"),
    ]


def test_status_debug_and_persist_are_answered(talk, paper):
    assert talk.ask("network", "debug", enable=True, graph="main") == {
        "enable": True,
        "graph": "main",
    }
    assert talk.ask("network", "persist") == {}
    assert ("persist",) in paper.done
    assert talk.say("network", "getstatus", graph="main")[0][2] == {
        "graph": "main",
        "running": False,
        "started": False,
    }


def test_packets_are_shown_to_who_asked_for_their_edge_until_it_asks_for_none(talk, workspace):
    draw(talk)
    talk.sent.clear()
    workspace.saw(packet())
    assert talk.heard() == []
    assert talk.ask("network", "edges", edges=[EDGE], graph="main") == {
        "edges": [EDGE],
        "graph": "main",
    }
    assert list(workspace.wanted(workspace.main)) == [(A, B)]
    talk.sent.clear()
    workspace.saw(packet(data=None))
    workspace.saw(packet(tgt=Endpoint("c", "in")))
    assert talk.heard() == [
        (
            "network",
            "data",
            {"id": "a() OUT -> IN b()", **EDGE, "graph": "main", "data": None},
        )
    ]
    talk.say("network", "edges", edges=[], graph="main")
    talk.sent.clear()
    workspace.saw(packet())
    assert talk.heard() == []
    assert not workspace.wanted(workspace.main)


def test_the_first_packets_are_shown_to_who_has_not_said_what_it_wants(talk, workspace):
    draw(talk)
    talk.say("network", "start", graph="main")
    talk.sent.clear()
    workspace.saw(packet(src=None))
    assert talk.heard() == [
        (
            "network",
            "data",
            {
                "id": "DATA -> IN b()",
                "tgt": {"node": "b", "port": "in"},
                "graph": "main",
                "data": 1,
            },
        )
    ]
    assert workspace.wanted(workspace.main)
    for _ in range(10 * FIRST_PACKETS):
        workspace.saw(packet())
    assert len(talk.heard()) == FIRST_PACKETS - 1
    assert not workspace.wanted(workspace.main)


def test_of_a_flood_a_client_is_shown_so_many(talk, workspace):
    talk.say("network", "edges", edges=[EDGE], graph="main")
    talk.sent.clear()
    for number in range(20_000):
        workspace.saw(packet(time=number / 10_000))
    assert EDGE_BURST <= len(talk.heard()) <= EDGE_BURST + 2 * EDGE_RATE + 1
    edges = [{**EDGE, "tgt": {"node": "b", "port": f"p{n}"}} for n in range(100)]
    talk.say("network", "edges", edges=edges, graph="main")
    talk.sent.clear()
    for number in range(20_000):
        workspace.saw(packet(time=2.0, tgt=Endpoint("b", f"p{number % 100}")))
    assert len(talk.heard()) <= CLIENT_BURST


def test_a_client_that_asked_is_told_more_of_each_packet(talk, workspace):
    talk.say("msgflo", "subscribe", id=1, topics=["packets"])
    talk.say("network", "edges", edges=[EDGE], graph="main")
    talk.sent.clear()
    for number in range(200):
        workspace.saw(packet(time=1.0, sequence=number + 1, size=8, id="m", instance=2))
    workspace.saw(packet(time=9.0, sequence=999))
    heard = talk.heard()
    assert {one[:2] for one in heard} == {("msgflo", "packet")}
    assert heard[0][2] == {
        "id": "a() OUT -> IN b()",
        **EDGE,
        "graph": "main",
        "data": 1,
        "time": 1.0,
        "sequence": 1,
        "size": 8,
        "message": "m",
        "instance": 2,
        "passed_over": 0,
    }
    assert heard[-1][2]["passed_over"] == 200 - EDGE_BURST


def test_packets_go_to_exported_inports_and_come_from_exported_outports(talk, workspace, paper):
    draw(talk)
    talk.say("graph", "addinport", public="into", node="a", port="in", graph="main")
    sent = {"port": "into", "event": "data", "payload": {"n": 0}, "graph": "main"}
    assert talk.ask_as("packetsent", "runtime", "packet", **sent) == sent
    assert paper.done[-1] == ("send", "main", "a.in", {"n": 0})
    done = len(paper.done)
    bracket = {"port": "into", "event": "begingroup", "payload": "g", "graph": "main"}
    assert talk.ask_as("packetsent", "runtime", "packet", **bracket) == bracket
    assert len(paper.done) == done
    (error,) = talk.say("runtime", "packet", **{**sent, "port": "inot"})
    assert error[2]["message"] == "Cannot find exported port inot. Did you mean 'into'?"
    (error,) = talk.say("runtime", "packet", **{**sent, "event": "date"})
    assert "expected one of connect" in error[2]["message"]
    talk.sent.clear()
    workspace.saw(packet(src=None, tgt=None, public="result", data="x"))
    assert talk.heard() == [
        ("runtime", "packet", {"port": "result", "event": "data", "payload": "x", "graph": "main"})
    ]


# Components.


def test_components_are_listed_and_counted(talk):
    said = talk.say("component", "list")
    assert [one[1] for one in said[:-1]] == ["component"] * (len(said) - 1)
    assert said[-1] == ("component", "componentsready", len(said) - 1)
    names = {one[2]["name"]: one[2] for one in said[:-1]}
    assert names.keys() == {"demo/Repeat", "main"}
    assert names["main"]["subgraph"]
    assert names["demo/Repeat"]["outPorts"][0]["type"] == "string"


def test_code_is_read_and_written(talk, connect, paper):
    other = connect()
    other.say("runtime", "getruntime")
    other.heard()
    assert talk.ask_as("source", "component", "getsource", name="demo/Repeat") == {
        "name": "Repeat",
        "library": "demo",
        "language": "python",
        "code": "pass",
        "tests": "",
    }
    said = talk.say(
        "component", "source", name="New", library="demo", language="python", code="x", tests=""
    )
    assert [one[:2] for one in said] == [("component", "component")]
    assert said[0][2]["name"] == "demo/New"
    assert [one[1] for one in other.heard()] == ["component"]
    assert paper.code["demo/New"] == "x"
    assert talk.say("component", "getsource", name="none")[0][1] == "error"


def test_a_graph_can_be_written_as_code(talk, connect, workspace):
    draw(talk)
    other = connect()
    other.say("runtime", "getruntime")
    other.heard()
    source = talk.ask_as("source", "component", "getsource", name="main")
    code = json.loads(source["code"])
    del code["processes"]["b"]
    code["connections"] = []
    code["processes"]["c"] = {"component": "demo/Repeat"}
    said = talk.say("component", "source", **{**source, "code": json.dumps(code)})
    assert [one[1] for one in said if one[0] == "component"] == ["component"]
    assert list(workspace.main.graph.nodes) == ["a", "c"]
    heard = [one[1] for one in other.heard() if one[0] == "graph"]
    assert heard == ["removeedge", "removenode", "addnode"]
    (error,) = talk.say("component", "source", **{**source, "code": "{"})
    assert error[1] == "error"


# Traces, and what is ours.


def test_traces_are_answered(talk):
    assert talk.ask("trace", "start", graph="main", buffersize=9) == {
        "graph": "main",
        "buffersize": 9,
    }
    assert talk.ask("trace", "clear", graph="main") == {"graph": "main"}
    assert talk.ask("trace", "dump", graph="main", type="flowtrace.json")["flowtrace"] == "{}"
    assert talk.ask("trace", "stop", graph="main") == {"graph": "main"}
    assert talk.say("trace", "start", graph="none")[0][1] == "error"


def test_what_is_ours_is_answered_by_its_number_whenever_it_is_done(talk, paper):
    assert talk.say("msgflo", "queues", id=7) == []
    assert paper.done[-1] == ("ask", "queues", {})
    first = paper.answer
    talk.say("msgflo", "scale", id="eight", node="a", instances=2)
    paper.answer(ConfigurationError("no"))
    first({"queues": []})
    assert talk.heard() == [
        ("msgflo", "error", {"id": "eight", "command": "scale", "message": "no"}),
        ("msgflo", "queues", {"queues": [], "id": 7}),
    ]
    talk.session.close()
    paper.answer({})
    assert talk.heard() == []


def test_edits_are_undone_and_redone_by_anybody_and_told_to_all(talk, connect, workspace):
    other = connect()
    other.say("runtime", "getruntime")
    draw(talk)
    talk.sent.clear()
    (answer,) = [one for one in other.say("msgflo", "undo", id=1) if one[0] == "msgflo"]
    assert [one["command"] for one in answer[2]["changes"]] == ["removeedge"]
    assert (answer[2]["undoable"], answer[2]["redoable"]) == (2, 1)
    assert [one[1] for one in talk.heard()] == ["removeedge"]
    assert not workspace.main.graph.edges
    talk.say("msgflo", "redo", id=1)
    assert workspace.main.graph.edges
    assert talk.ask("msgflo", "history", id=2)["edits"] == 5
    (error,) = talk.say("msgflo", "redo", id=3)
    assert (error[1], error[2]["id"]) == ("error", 3)


def test_nothing_of_ours_is_told_to_who_did_not_ask(talk):
    talk.say("runtime", "getruntime")
    talk.sent.clear()
    talk.session.extended("status", "status:changed", {})
    assert talk.heard() == []
    assert talk.ask("msgflo", "subscribe", id=1, topics=["status"])["topics"] == ["status"]
    talk.sent.clear()
    talk.session.extended("status", "status:changed", {"graph": "main"})
    talk.session.extended("queues", "queues:changed", {})
    assert talk.heard() == [("msgflo", "status:changed", {"graph": "main"})]
    assert talk.ask("msgflo", "unsubscribe", id=2)["topics"] == []
    for wrong in ([{}], [[1]], [None], {"status": 1}, 7):
        (error,) = talk.say("msgflo", "subscribe", id=4, topics=wrong)
        assert "expected some of events, logs" in error[2]["message"]
    (error,) = talk.say("msgflo", "subscribe", id=3, topics=["weather"])
    assert "expected some of events, logs, packets, queues, status" in error[2]["message"]


def test_a_participant_that_is_a_graph_answers_for_itself(talk, paper):
    assert talk.say("trace", "start", graph="entered", buffersize=7, secret="x") == []
    assert paper.done[-1] == ("forward", "trace", "start", {"graph": "entered", "buffersize": 7})
    paper.reply("trace", "start", {"graph": "entered", "buffersize": 7, "secret": "x"})
    paper.reply("trace", "nonsense", {})
    paper.reply("trace", "start", {})
    assert talk.heard() == [("trace", "start", {"graph": "entered", "buffersize": 7})]
    assert talk.say("trace", "start", graph="other")[0][1] == "error"


# Who may do what.


def test_a_client_without_the_secret_may_nothing_and_is_told_nothing(connect, workspace):
    secrets = {"r": Level.READ, "w": Level.REWIRE, "c": Level.CODE}
    talk, writer = connect(**secrets), connect(**secrets)
    said = talk.say("runtime", "getruntime", secret="wrong")
    assert said == [("runtime", "runtime", said[0][2])]
    assert said[0][2]["capabilities"] == []
    assert "graph" not in said[0][2]
    for protocol, command in _COMMANDS:
        if (protocol, command) != ("runtime", "getruntime"):
            (error,) = talk.say(
                protocol,
                command,
                **_whatever(),
                graph="main",
            )
            assert error[1] == "error"
            assert "secret" in error[2]["message"]
    for command in EXTENSIONS:
        assert talk.say("msgflo", command, id=1)[0][1] == "error"
    talk.sent.clear()
    writer.say("graph", "addnode", id="a", component="c", graph="main", secret="w")
    assert list(workspace.main.graph.nodes) == ["a"]
    assert talk.heard() == []


def _whatever():
    return {
        "id": "a", "component": "c", "from": "a", "to": "b", "metadata": {}, "public": "p",
        "node": "a", "port": "p", "name": "n", "nodes": [], "src": {"node": "a", "port": "p",
        "data": 1}, "tgt": {"node": "a", "port": "p"}, "event": "data", "language": "python",
        "code": "", "enable": True, "edges": [],
    }  # fmt: skip


def test_each_secret_opens_its_level(connect, workspace):
    secrets = {"r": Level.READ, "w": Level.REWIRE, "c": Level.CODE}
    talk = connect(**secrets)
    assert talk.say("network", "getstatus", graph="main", secret="r")[0][1] == "status"
    (error,) = talk.say("graph", "addnode", id="a", component="c", graph="main", secret="r")
    assert "needs a secret of the level rewire" in error[2]["message"]
    added = talk.say("graph", "addnode", id="a", component="c", graph="main", secret="w")
    assert added[0][1] == "addnode"
    (error,) = talk.say("component", "source", name="x", language="python", code="", secret="w")
    assert "needs a secret of the level code" in error[2]["message"]
    said = talk.say("component", "source", name="x", language="python", code="", secret="c")
    assert said[0][1] == "component"
    capabilities = talk.say("runtime", "getruntime", secret="r")[0][2]["capabilities"]
    assert "graph:readonly" in capabilities
    assert "protocol:graph" not in capabilities


def test_no_secret_is_ever_sent(connect):
    talk, other = connect(hush=Level.CODE), connect(hush=Level.CODE)
    other.say("runtime", "getruntime", secret="hush")
    for protocol, command in _COMMANDS:
        talk.say(protocol, command, **_whatever(), graph="main", secret="hush")
        talk.say(protocol, command, secret="hush")
        assert "hush" not in json.dumps([talk.raw, other.raw])


# Whatever comes.

names = st.sampled_from(["a", "b", "main", "foo", "", "x/y z", "none"])
ends = st.fixed_dictionaries({"node": names, "port": names}) | st.none() | names
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
keys = {
    **dict.fromkeys(
        ["id", "component", "from", "to", "public", "node", "port", "name", "graph", "secret"],
        names | values,
    ),
    "src": ends | st.fixed_dictionaries({"data": values}) | values,
    "tgt": ends | values,
    "metadata": st.dictionaries(names, values, max_size=3) | values,
    "nodes": st.lists(names, max_size=3) | values,
    "edges": st.lists(st.fixed_dictionaries({"src": ends, "tgt": ends}), max_size=3) | values,
    "event": st.sampled_from(["data", "connect"]) | values,
    "payload": values,
    "language": st.sampled_from(["json", "python"]) | values,
    "code": st.just('{"processes": {"z": {"component": "c"}}}') | values,
    "enable": st.booleans() | values,
    "topics": st.lists(st.sampled_from(["packets", "status", "x"])) | values,
}
messages = st.builds(
    lambda kind, payload: json.dumps({"protocol": kind[0], "command": kind[1], "payload": payload}),
    st.sampled_from([*_COMMANDS, *(("msgflo", command) for command in EXTENSIONS)]),
    st.fixed_dictionaries({}, optional=keys),
)


@given(st.lists(messages | st.text(max_size=20) | st.binary(max_size=20), max_size=30))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_message_breaks_a_session_and_each_has_one_answer(connect, texts):
    talk, other = connect(), connect()
    other.say("runtime", "getruntime")
    for text in texts:
        other.sent.clear()
        said = talk.say_text(text)
        try:
            kind = json.loads(text)
            protocol, command = kind["protocol"], kind["command"]
        except (ValueError, TypeError, KeyError):
            assert [one[1] for one in said] == ["error"]
            continue
        wanted = {
            "getruntime": "runtime",
            "packet": "packetsent",
            "list": "componentsready",
            "getsource": "source",
            "source": "component",
            "start": "started" if protocol == "network" else "start",
            "stop": "stopped" if protocol == "network" else "stop",
            "getstatus": "status",
        }.get(command, command)
        answers = [one for one in said if one[0] == protocol and one[1] in (wanted, "error")]
        if protocol != "msgflo" or answers:
            assert len(answers) == 1, (text, said)
    talk.session.close()
    other.session.close()
