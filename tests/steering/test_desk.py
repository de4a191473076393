"""What clients want, carried out on a real network."""

import asyncio
import json

import pytest

from msgflo.errors import ProtocolError

WAIT = 60.0


def node(status, name):
    return next(one for one in status["nodes"] if one["node"] == name)


async def test_a_graph_is_drawn_run_changed_and_undone_while_it_runs(steering):
    async with steering("") as it:
        do = it.client.command
        await do("graph", "addnode", id="a", component="Repeat", graph="main")
        await do("graph", "addnode", id="b", component="Repeat", graph="main")
        ends = {"src": {"node": "a", "port": "out"}, "tgt": {"node": "b", "port": "in"}}
        await do("graph", "addedge", **ends, graph="main")
        await do("graph", "addinport", public="into", node="a", port="in", graph="main")
        await do("graph", "addoutport", public="result", node="b", port="out", graph="main")
        await it.complete()
        await it.send("one")
        assert await it.result() == "one"
        await do("graph", "renamenode", from_="b", to="core/B x", graph="main")
        status = await it.complete()
        assert [one["node"] for one in status["nodes"] if one["in_graph"]] == ["a", "core/B x"]
        await it.send("two")
        assert await it.result() == "two"
        await do("graph", "removenode", id="core/B x", graph="main")
        status = await it.until(lambda s: len([n for n in s["nodes"] if n["in_graph"]]) == 1)
        assert status["edges"] == []
        assert status["found"] == [] or await it.until(lambda s: not s["found"])
        await it.client.ask("undo")
        await it.complete()
        await it.send("three")
        assert await it.result() == "three"


async def test_a_stopped_network_takes_nothing_and_goes_on_where_it_was(steering):
    async with steering() as it:
        await it.complete()
        await it.client.command("network", "stop", graph="main")
        await it.until(lambda s: all(i["paused"] for n in s["nodes"] for i in n["instances"]))
        for number in range(3):
            await it.send(number)
        async with asyncio.timeout(WAIT):
            while True:
                queues = (await it.client.ask("queues"))["queues"]
                if sum(queue["waiting"] for queue in queues) == 3:
                    break
        assert all(queue["node"] == "a" for queue in queues if queue["waiting"])
        # A node that is added meanwhile is paused too.
        await it.client.command("graph", "addnode", id="c", component="Repeat", graph="main")
        status = await it.until(lambda s: node(s, "c")["state"] == "live")
        assert node(status, "c")["instances"][0]["paused"]
        await it.client.command("network", "start", graph="main")
        assert [await it.result() for _ in range(3)] == [0, 1, 2]


async def test_running_says_whether_anything_is_left_to_do(steering):
    async with steering() as it:
        await it.complete()
        await it.client.command("network", "stop", graph="main")
        await it.until(lambda s: all(i["paused"] for n in s["nodes"] for i in n["instances"]))
        await it.send(1)
        # Somebody else waits in that queue, as the network starts.
        await it.client.ask("scale", node="a", instances=0)
        await it.until(lambda s: not node(s, "a")["instances"])
        await it.client.command("network", "start", graph="main")
        async with asyncio.timeout(WAIT):
            while True:
                status = await it.client.command("network", "getstatus", graph="main")
                assert status["started"]
                if status["running"]:
                    break
                await asyncio.sleep(0.1)
        await it.client.ask("scale", node="a", instances=1)
        assert await it.result() == 1
        async with asyncio.timeout(WAIT):
            while (await it.client.command("network", "getstatus", graph="main"))["running"]:
                await asyncio.sleep(0.1)


async def test_another_graph_runs_beside_the_main_one_and_apart(steering):
    async with steering() as it:
        do = it.client.command
        await do("graph", "clear", id="other", main=True)
        await do("graph", "addnode", id="a", component="Repeat", graph="other")
        await do("graph", "addinport", public="into", node="a", port="in", graph="other")
        await do("graph", "addoutport", public="result", node="a", port="out", graph="other")
        await do(
            "graph",
            "addinitial",
            src={"data": "iip"},
            tgt={"node": "a", "port": "in"},
            graph="other",
        )
        await it.complete()
        assert not (await it.client.ask("status", graph="other"))["nodes"]
        await do("network", "start", graph="other")
        first = await it.client.until("network", "data", WAIT)
        assert first == {
            "id": "DATA -> IN a()",
            "tgt": {"node": "a", "port": "in"},
            "graph": "other",
            "data": "iip",
        }
        assert await it.client.until("runtime", "packet", WAIT) == {
            "port": "result",
            "event": "data",
            "payload": "iip",
            "graph": "other",
        }
        status = await it.complete(graph="other")
        assert [one["node"] for one in status["nodes"] if one["in_graph"]] == ["a"]
        await it.send("x")
        assert await it.client.until("runtime", "packet", WAIT) == {
            "port": "result",
            "event": "data",
            "payload": "x",
            "graph": "main",
        }
        await do("network", "stop", graph="other")
        await it.until(lambda s: not s["nodes"], graph="other")
        await it.send("waits", graph="other")
        await do("network", "start", graph="other")
        payloads = [(await it.client.until("runtime", "packet", WAIT))["payload"] for _ in range(2)]
        assert set(payloads) == {"iip", "waits"}
        await it.client.ask("remove", graph="other")
        with pytest.raises(ProtocolError, match="Requested graph not found"):
            await do("network", "getstatus", graph="other")
        await it.complete()


async def test_trouble_is_told_at_its_node_and_stops_nothing_else(steering):
    async with steering() as it:
        await it.complete()
        await it.client.command("graph", "addnode", id="bad", component="Broken", graph="main")
        said = await it.client.until("network", "processerror", WAIT)
        assert (said["id"], said["graph"]) == ("bad", "main")
        assert "no_such_module" in said["error"]
        assert (await it.client.until("network", "icon", WAIT))["id"] == "bad"
        await it.send(1)
        assert await it.result() == 1
        # The code is mended, and what had failed is started by itself.
        code = (it.runtime.root / "components" / "Repeat.py").read_text()
        await it.client.command(
            "component", "source", name="Broken", library="", language="python",
            code=code.replace("Repeat", "Broken"),
        )  # fmt: skip
        await it.until(lambda s: node(s, "bad")["state"] == "live")


async def test_new_code_is_used_after_a_restart_or_a_stop_and_a_start(steering):
    async with steering() as it:
        await it.complete()
        source = await it.client.command("component", "getsource", name="Repeat")

        async def write(word):
            code = source["code"].replace("return packet", f"return [{word!r}, packet]")
            await it.client.command("component", "source", **{**source, "code": code})

        await write("new")
        await it.send(1)
        assert await it.result() == 1
        await it.client.ask("restart", node="b")
        pid = node(await it.complete(), "b")["instances"][0]["pid"]
        await it.until(lambda s: s["complete"] and node(s, "b")["instances"][0]["pid"] != pid)
        await it.send(2)
        assert await it.result() == ["new", 2]
        await write("newer")
        await it.client.command("network", "stop", graph="main")
        await it.client.command("network", "start", graph="main")

        async def answers():
            await it.send(3)
            return await it.result()

        async with asyncio.timeout(WAIT):
            while await answers() != ["newer", ["newer", 3]]:
                pass


async def test_traces_hold_what_has_passed(steering):
    async with steering() as it:
        await it.complete()
        with pytest.raises(ProtocolError, match="send trace:start first"):
            await it.client.command("trace", "dump", graph="main")
        await it.client.command("trace", "start", graph="main", buffersize=10)
        await asyncio.sleep(0.5)
        await it.send({"n": 1})
        assert await it.result() == {"n": 1}

        async def events():
            dump = await it.client.command("trace", "dump", graph="main", type="flowtrace.json")
            return json.loads(dump["flowtrace"])["events"]

        async with asyncio.timeout(WAIT):
            while not any(one["payload"]["tgt"]["node"] == "b" for one in await events()):
                await asyncio.sleep(0.05)
        assert {one["command"] for one in await events()} == {"data"}
        assert all(one["payload"]["data"] == {"n": 1} for one in await events())
        await it.client.command("trace", "clear", graph="main")
        assert await events() == []
        await it.client.command("trace", "stop", graph="main")


async def test_what_clients_do_before_the_runtime_has_started_is_done_then(steering, project):
    async with steering() as it:
        assert it.workspace.main.started
        await it.client.command("graph", "addnode", id="early", component="Repeat", graph="main")
        await it.until(lambda s: node(s, "early")["state"] == "live")


async def test_components_are_told_when_participants_say_what_they_are(steering, project):
    """A component whose file tells nothing has its ports from who announces itself."""
    (project / "components" / "Odd.py").write_text(
        "import msgflo\n\n\ndef named(text: str) -> str:\n    return text\n\n\n"
        "Odd = msgflo.component('Odd')(named)\n"
    )
    async with steering() as it:
        listed = {one["name"]: one for one in await it.client.command("component", "list")}
        assert listed["Odd"]["inPorts"] == []
        await it.client.command("graph", "addnode", id="odd", component="Odd", graph="main")
        async with asyncio.timeout(WAIT):
            while (said := await it.client.until("component", "component"))["name"] != "Odd":
                pass
        assert [port["id"] for port in said["inPorts"]] == ["in"]
