"""Suites on a runtime elsewhere."""

import asyncio
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fbp_runtime import CAPABILITIES, FbpRuntime
from msgflo.errors import MsgFloError, SpecError
from msgflo.spec.remote import Remote
from msgflo.spec.runner import Status, run_suites
from msgflo.spec.suite import parse_suites

PROGRAM = Path(__file__).parent.parent / "fbp_runtime.py"


@pytest.fixture
async def there():
    runtime = await FbpRuntime().start()
    yield runtime
    await runtime.close()


def a_suite(topic, inputs="{in: 1}", expect="{out: {equals: 1}}", timeout=20_000):
    return (
        f"topic: {topic}\ntimeout: {timeout}\ncases:\n"
        f"- {{name: n, assertion: a, inputs: {inputs}, expect: {expect}}}\n"
    )


async def run(runtime, text):
    (result,) = await run_suites(runtime, parse_suites(text, "f"))
    assert not result.problem, result.problem
    return result.cases[0]


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


async def test_a_fixture_is_built_started_and_stopped_as_fbp_spec_does(there):
    runtime = await Remote.open(there.address)
    inputs, expect = "[{in: 1}, {in: [2]}]", "[{out: {equals: 1}}, {out: {equals: [2]}}]"
    case = await run(runtime, a_suite("Repeat", inputs, expect))
    await runtime.close()
    assert case.status is Status.PASSED
    commands = [command for command, _ in there.received]
    assert commands == [
        "runtime:getruntime", "component:list", "graph:clear", "graph:addnode", "graph:addinport",
        "graph:addoutport", "network:start", "runtime:packet", "runtime:packet", "network:stop",
    ]  # fmt: skip
    sent = dict(there.received)
    name = sent["graph:clear"]["id"]
    assert name.startswith("fixture.")
    assert sent["graph:clear"]["main"] is False
    assert {payload["graph"] for _, payload in there.received if "graph" in payload} == {name}
    assert there.running == set()


async def test_a_fixture_of_its_own_is_sent_whole(there):
    text = """
topic: T
fixture:
  type: fbp
  data: |
    INPORT=a.IN:IN
    OUTPORT=b.OUT:OUT
    a(Repeat) OUT -> IN b(Repeat)
    'x' -> IN a
cases:
- {name: n, assertion: a, inputs: {in: 1}, expect: {out: {equals: 1}}}
"""
    runtime = await Remote.open(there.address)
    assert (await run(runtime, text)).status is Status.PASSED
    await runtime.close()
    sent = dict(there.received)
    assert sent["graph:addedge"]["src"] == {"node": "a", "port": "out"}
    assert sent["graph:addinitial"]["src"] == {"data": "x"}
    assert "component:list" not in sent, "which nobody needs who has a fixture"


async def test_a_runtime_of_version_0_6_confirms_no_packets():
    there = await FbpRuntime(version="0.6").start()
    runtime = await Remote.open(there.address)
    assert (await run(runtime, a_suite("Repeat"))).status is Status.PASSED
    await runtime.close()
    await there.close()


async def test_a_process_error_fails_the_case(there):
    runtime = await Remote.open(there.address)
    assert (await run(runtime, a_suite("Fails"))).error == "testee: it broke"
    await runtime.close()


async def test_a_missing_packet_fails_the_case_in_time(there):
    runtime = await Remote.open(there.address, start_timeout=0.01)
    suite = a_suite("Quiet").replace("{name: n", "{timeout: 50, name: n")
    case = await run(runtime, suite)
    assert "No data received on port out" in case.error
    await runtime.close()


async def test_what_passes_is_recorded_of_a_runtime_that_shows_it(there):
    traces = []
    runtime = await Remote.open(there.address)
    suites = parse_suites(a_suite("Fails") + "---\n" + a_suite("Repeat"), "f")
    await run_suites(runtime, suites, traced=lambda suite, case, trace: traces.append(trace))
    await runtime.close()
    seen = [[(it.command, it.payload.get("data")) for it in trace.events] for trace in traces]
    assert seen == [[("data", 1), ("processerror", None)], [("data", 1), ("data", 1)]]
    assert "network:edges" in dict(there.received)


async def test_what_a_network_prints_is_heard(there):
    printed = []
    runtime = await Remote.open(there.address, printed=printed.append)
    await run(runtime, a_suite("Shout"))
    await runtime.close()
    assert printed == ["I got 1"]


async def test_an_unknown_component_is_told_with_what_is_near(there):
    runtime = await Remote.open(there.address)
    (result,) = await run_suites(runtime, parse_suites(a_suite("Repeet"), "f"))
    assert "Did you mean 'Repeat'?" in result.problem
    await runtime.close()


async def test_what_the_runtime_refuses_or_does_not_answer_is_told(there):
    runtime = await Remote.open(there.address, command_timeout=2)
    there.refuses["network:start"] = "not today"
    (result,) = await run_suites(runtime, parse_suites(a_suite("Repeat"), "f"))
    assert "cannot be set up: not today" in result.problem
    there.silent.add("graph:addnode")
    (result,) = await run_suites(runtime, parse_suites(a_suite("Repeat"), "f"))
    assert "has not answered graph:addnode in 2 s" in result.problem
    there.refuses.clear()
    there.silent.clear()
    assert (await run(runtime, a_suite("Repeat"))).status is Status.PASSED
    await runtime.close()


async def test_the_secret_is_sent_and_asked_for():
    there = await FbpRuntime(secret="sesame").start()
    with pytest.raises(SpecError, match="--secret"):
        await Remote.open(there.address, start_timeout=0)
    runtime = await Remote.open(there.address, secret="sesame")
    assert (await run(runtime, a_suite("Repeat"))).status is Status.PASSED
    await runtime.close()
    await there.close()


async def test_what_a_runtime_cannot_do_is_named():
    there = await FbpRuntime(capabilities=CAPABILITIES[:2]).start()
    with pytest.raises(SpecError, match="lacks protocol:network"):
        await Remote.open(there.address)
    await there.close()


async def test_the_components_own_suites_are_found_and_other_tests_passed_over(there):
    runtime = await Remote.open(there.address)
    assert [suite.name for suite in await runtime.component_suites()] == ["of Repeat itself"]
    await runtime.close()


async def test_a_runtime_that_goes_away_fails_the_case_at_once(there):
    runtime = await Remote.open(there.address)
    running = asyncio.create_task(run_suites(runtime, parse_suites(a_suite("Quiet"), "f")))
    while "runtime:packet" not in dict(there.received):
        await asyncio.sleep(0.01)
    await there.close()
    (result,) = await running
    assert "closed the connection" in result.cases[0].error
    await runtime.close()


async def test_nobody_there_is_told_after_the_time_to_start():
    with pytest.raises(MsgFloError, match="cannot connect to the runtime at"):
        await Remote.open(f"ws://127.0.0.1:{free_port()}", start_timeout=0.2)
    with pytest.raises(SpecError, match="expected ws://HOST:PORT"):
        await Remote.open("localhost", start_timeout=0)


def test_the_command_starts_a_runtime_and_ends_it(tmp_path):
    suite = tmp_path / "suite.yaml"
    suite.write_text(a_suite("Repeat"))
    port = free_port()
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(PROGRAM))} {port} sesame"
    done = subprocess.run(
        [sys.executable, "-m", "msgflo", "test", "--address", f"ws://127.0.0.1:{port}",
         "--command", command, "--start-timeout", "30", "--component-tests", suite],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "MSGFLO_SECRET": "sesame", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert done.stdout == "Repeat\n  n\n    a: ✓\nof Repeat itself\n  n\n    a: ✓\n"
    assert done.returncode == 0, done.stderr
    assert "listening at" in done.stderr
    with socket.socket() as it:
        assert it.connect_ex(("127.0.0.1", port)) != 0, "it still runs"


async def test_a_command_that_ends_is_told_with_what_it_said_last():
    with pytest.raises(SpecError, match=r"(?s)has ended with status 3; it printed last:\n  no way"):
        await Remote.open(
            f"ws://127.0.0.1:{free_port()}", command="echo no way >&2; exit 3", start_timeout=20
        )


async def test_a_command_is_not_started_where_something_listens_already(there):
    with pytest.raises(SpecError, match="something listens at"):
        await Remote.open(there.address, command="exit 1")
