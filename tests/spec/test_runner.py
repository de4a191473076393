"""The rules of a step, on a network that does what a test says."""

import asyncio

import pytest

from msgflo.errors import SpecError
from msgflo.spec.runner import Fault, Network, Packet, Runtime, Status, SuiteRun, run_suites
from msgflo.spec.suite import fixture_of, parse_suites


class Scripted(Network):
    """Answers each packet with what the script says of its data."""

    def __init__(self, script):
        super().__init__(fixture_of("T", ["in", "also"], ["out", "other", "error"]))
        self.script = script
        self.sent = []
        self.stopped = False

    async def send(self, port, data):
        self.sent.append((port, data))
        for happened in self.script.get(data, ()):
            self.happened.put_nowait(happened)

    async def settled(self):
        await asyncio.sleep(0)

    async def stop(self):
        self.stopped = True


class ScriptedRuntime(Runtime):
    def __init__(self, script, patience=0.0):
        self.script = script
        self.patience = patience
        self.networks = []

    async def ports(self, component):
        return ["in"], ["out"]

    async def start(self, graph, recording=None):
        if self.script is None:
            await asyncio.sleep(3600)
        self.networks.append(Scripted(self.script))
        return self.networks[-1]

    async def component_suites(self):
        return []

    async def close(self):
        pass


def the_suite(inputs, expect, timeout=20_000):
    text = f"topic: T\ntimeout: {timeout}\ncases:\n"
    text += f"- {{name: n, assertion: a, inputs: {inputs}, expect: {expect}}}\n"
    return parse_suites(text, "f")[0]


async def error_of(script, inputs, expect, timeout=20_000, patience=0.0):
    runtime = ScriptedRuntime(script, patience)
    (result,) = await run_suites(runtime, [the_suite(inputs, expect, timeout)])
    assert runtime.networks[0].stopped
    return result.cases[0].error


async def test_all_inputs_of_a_step_are_sent_and_then_all_ports_awaited():
    script = {1: [Packet("out", "a")], 2: [Packet("other", "b")]}
    expect = "{out: {equals: a}, other: {equals: b}}"
    assert await error_of(script, "{in: 1, also: 2}", expect) == ""


async def test_as_many_packets_on_other_ports_do_not_end_a_step():
    script = {1: [Packet("other", 0), Packet("other", 1)], 2: [Packet("out", 5)]}
    assert await error_of(script, "{in: 1, also: 2}", "{out: {equals: 5}}") == ""


async def test_a_fault_fails_the_step_at_once():
    script = {1: [Fault("it broke", "why"), Packet("out", 1)]}
    assert await error_of(script, "{in: 1}", "{out: {equals: 1}}") == "it broke"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"message": "no"}, "no"),
        ({"error": {"message": "nested"}}, "nested"),
        ("a text", "a text"),
        (17, "Unexpected runtime:packet message"),
    ],
)
async def test_a_packet_on_error_says_why(data, said):
    assert await error_of({1: [Packet("error", data)]}, "{in: 1}", "{out: {equals: 1}}") == said


async def test_a_packet_on_error_can_be_expected():
    script = {1: [Packet("error", {"message": "no"})]}
    assert await error_of(script, "{in: 1}", "{error: {haveKeys: [message]}}") == ""


async def test_what_is_left_of_a_step_is_not_of_the_next():
    script = {1: [Packet("out", 1), Packet("out", 1)], 2: [Packet("out", 2)]}
    assert (
        await error_of(script, "[{in: 1}, {in: 2}]", "[{out: {equals: 1}}, {out: {equals: 2}}]")
        == ""
    )


async def test_the_end_of_time_names_the_ports_that_are_missing():
    script = {1: [Packet("other", 1)]}
    assert await error_of(script, "{in: 1}", "{out: {equals: 1}, other: {equals: 1}}", 30) == (
        "expected data within 0.03 s: No data received on port out; there was some on: other"
    )


async def test_only_the_first_step_of_a_suite_has_more_time_while_processes_start():
    text = "topic: T\ntimeout: 30\ncases:\n"
    text += "- {name: n, assertion: a, inputs: {in: 1}, expect: {out: {equals: 1}}}\n" * 2
    (result,) = await run_suites(ScriptedRuntime({}, patience=0.05), parse_suites(text, "f"))
    assert ["0.08 s" in result.cases[0].error, "0.03 s" in result.cases[1].error] == [True, True]


async def test_a_sequence_says_which_of_its_steps_failed():
    script = {1: [Packet("out", 1)], 2: [Packet("out", 2)]}
    steps = "[{in: 1}, {in: 2}]"
    assert await error_of(script, steps, "[{out: {equals: 1}}, {out: {equals: 1}}]") == (
        "Expectation 1 of sequence failed: expected 2 to equal 1"
    )
    assert (await error_of(script, steps, "[{out: {equals: 7}}, {out: {equals: 7}}]")) == (
        "Multiple failures in sequence: expected 1 to equal 7,expected 2 to equal 7"
    )


async def test_a_sequence_ends_at_a_step_that_gets_no_answer():
    steps, expect = "[{in: 1}, {in: 2}]", "[{out: {equals: 1}}, {out: {equals: 1}}]"
    assert await error_of({}, steps, expect, 20) == (
        "Expectation 0 of sequence failed: expected data within 0.02 s: "
        "No data received on port out"
    )


async def test_setting_up_has_an_end_too():
    run = SuiteRun(ScriptedRuntime(None), the_suite("{in: 1}", "{out: {equals: 1}}", 30))
    with pytest.raises(SpecError, match=r"not set up within 0.03 s"):
        await run.start()


async def test_each_case_is_told_when_it_is_done():
    told = []
    script = {1: [Packet("out", 1)]}
    await run_suites(
        ScriptedRuntime(script),
        [the_suite("{in: 1}", "{out: {equals: 1}}")],
        lambda suite, case: told.append((suite.suite.topic, case.status)),
    )
    assert told == [("T", Status.PASSED)]
