"""Running participants: in a program of their own, in a thread, inside other code."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import msgflo
from msgflo import Param, transport
from msgflo.errors import ConfigurationError, DefinitionError, UnknownPort
from msgflo.flow.binding import Binding, Kind
from msgflo.participant import run, serve
from msgflo.transport.contract import MESSAGE_ID, Broker, Delivery, Inlet
from networks import Network, until

# In a program that has an event loop.


@msgflo.component("math/Double")
async def double(x: int, factor: Param[int] = 2) -> int:
    return x * factor


@msgflo.component
def upper(text: str) -> str:
    return text.upper()


class Repeat(msgflo.Participant):
    def __init__(self, role):
        msgflo.Participant.__init__(self, {"component": "Repeat"}, role)

    def process(self, inport, msg):
        self.send("out", msg.data)
        self.ack(msg)


class Served:
    """What :func:`serve` does in the background of a test."""

    def __init__(self, network: Network, participants: Any, **options: Any) -> None:
        self.stop = asyncio.Event()
        self.engines: list[Any] = []
        options = {"broker": network.url, "environment": {}, **options}
        self.task = asyncio.ensure_future(
            serve(participants, stop=self.stop, started=self.engines.extend, **options)
        )

    async def started(self) -> list[tuple[str, int]]:
        await until(lambda: self.engines or self.task.done())
        if self.task.done():
            await self.task
        return [(engine.role, engine.instance) for engine in self.engines]

    async def end(self) -> int:
        self.stop.set()
        return await self.task


async def test_several_components_share_one_connection(network):
    served = Served(network, [double, upper, Repeat])
    assert await served.started() == [("double", 1), ("upper", 1), ("repeat", 1)]
    assert len({id(engine._client) for engine in served.engines}) == 1
    out = [await network.collect(f"{role}.OUT") for role in ("double", "upper", "repeat")]
    await network.put(2, "double.IN")
    await network.put("a", "upper.IN")
    await network.put(0, "repeat.IN")
    await until(lambda: out == [[4], ["A"], [0]])
    assert await served.end() == 0
    # Nobody is connected any more, and all have said goodbye.
    goodbyes = [said["payload"]["role"] for said in network.heard if said["command"] == "goodbye"]
    assert sorted(goodbyes) == ["double", "repeat", "upper"]


async def test_roles_are_given_by_a_mapping_or_as_one_or_by_the_environment(network):
    served = Served(network, {"a": double, "b": double})
    assert await served.started() == [("a", 1), ("b", 1)]
    await served.end()
    served = Served(network, double, role="c")
    assert await served.started() == [("c", 1)]
    await served.end()
    served = Served(network, Repeat, environment={"MSGFLO_ROLE": "d"})
    assert await served.started() == [("d", 1)]
    await served.end()
    served = Served(network, Repeat("own"), environment={"MSGFLO_ROLE": "d"})
    assert await served.started() == [("own", 1)]
    await served.end()


async def test_several_instances_of_a_role_in_one_process_have_numbers_of_their_own(network):
    served = Served(network, double, instances=2)
    assert await served.started() == [("double", 1), ("double", 2)]
    more = Served(network, [double, double])
    assert await more.started() == [("double", 3), ("double", 4)]
    await served.end()
    again = Served(network, double)
    assert await again.started() == [("double", 1)], "the lowest that nobody holds"
    await again.end()
    await more.end()


@pytest.mark.parametrize(
    ("options", "instances"),
    [
        ({"instance": 4}, [4]),
        ({"instance": 4, "instances": 2}, [4, 5]),
        ({"environment": {"MSGFLO_INSTANCE": "3"}}, [3]),
        ({"environment": {"DYNO": "worker.5"}}, [5]),
        ({"environment": {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "worker-2"}}, [3]),
        ({"instance": 4, "environment": {"MSGFLO_INSTANCE": "3"}}, [4]),
    ],
)
async def test_an_instance_may_be_assigned(network, options, instances):
    served = Served(network, double, **options)
    assert await served.started() == [("double", number) for number in instances]
    await served.end()


async def test_initial_packets_go_to_whoever_has_the_port(network):
    served = Served(
        network,
        [double, upper],
        iips={"FACTOR": 5},
        environment={"MSGFLO_IIPS": '{"factor": 4, "in": 1}'},
    )
    with pytest.raises(msgflo.PayloadError, match="for 'in' of 'upper'"):
        await served.started()
    out = await network.collect("double.OUT")
    served = Served(network, [double, Repeat], iips={"FACTOR": 5, "in": 1})
    await served.started()
    await until(lambda: out == [5])
    await served.end()
    with pytest.raises(UnknownPort, match=r"'factr'.*Did you mean 'factor'"):
        await Served(network, [double, upper], iips={"factr": 5}).started()


async def test_a_connection_that_was_given_stays_open(network):
    client = await network.client()
    served = Served(network, double, client=client, broker=None)
    await served.started()
    await served.end()
    assert client.connected
    served = Served(network, double, client=client, broker=None)
    await served.started()
    await served.end()


async def test_cancelling_it_stops_them_too(network):
    events = []

    class Noting(msgflo.Component):
        async def stop(self):
            events.append("stop")

        @msgflo.inport
        async def handle(self, x: int): ...

    served = Served(network, Noting)
    await served.started()
    served.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await served.task
    assert events == ["stop"]


async def test_when_one_cannot_start_none_is_left_behind(network):
    events = []

    class Broken(msgflo.Component):
        async def start(self):
            raise OSError("no disk")

        @msgflo.inport
        async def handle(self, x: int): ...

    class Fine(msgflo.Component):
        async def stop(self):
            events.append("stop")

        @msgflo.inport
        async def handle(self, x: int): ...

    with pytest.raises(OSError, match="no disk"):
        await Served(network, [Fine, Broken]).started()
    assert events == ["stop"]
    assert len(network.hub._links) == 1, "only the test's own connection is left"


@pytest.mark.parametrize(
    ("participants", "options", "said"),
    [
        ([], {}, "no participants were given"),
        ([double, upper], {"role": "r"}, "the role 'r' was given to 2 components"),
        (Repeat("own"), {"role": "r"}, "was given to an object that was made for 'own'"),
        (double, {"instances": 0}, "instance is None and instances 0; expected numbers from 1"),
        (double, {"instance": 0}, "instance is 0 and instances 1; expected numbers from 1"),
        (double, {"broker": None}, "no broker is named; expected --broker or MSGFLO_BROKER"),
        (double, {"environment": {"MSGFLO_GRACE": "x"}}, "MSGFLO_GRACE is 'x'; expected seconds"),
        (double, {"period": 0}, "MSGFLO_DISCOVERY_PERIOD is 0; expected seconds"),
    ],
)
async def test_wrong_use_says_what_was_expected(network, participants, options, said):
    with pytest.raises(ConfigurationError) as caught:
        await Served(network, participants, **options).started()
    assert said in str(caught.value)


async def test_what_is_no_component_is_told(network):
    def plain(x): ...

    with pytest.raises(DefinitionError, match="plain is no component"):
        await Served(network, plain).started()

    class TwoArguments(msgflo.Participant):
        def __init__(self, role, more):
            raise AssertionError

    with pytest.raises(DefinitionError, match="cannot be made with a role alone"):
        await Served(network, TwoArguments).started()


async def test_a_handler_may_end_the_process_with_an_exit_code(network):
    @msgflo.component
    async def leave(x: int):
        raise SystemExit(x)

    served = Served(network, leave)
    await served.started()
    await network.put(7, "leave.IN")
    assert await served.task == 7


async def test_a_lost_connection_is_told_and_when_it_is_back_they_announce_themselves(
    network, caplog
):
    served = Served(network, double)
    await served.started()
    await until(lambda: len(network.heard) == 1)
    network.hub.cut(served.engines[0]._client, "the cable")
    await until(lambda: "lost the broker: the cable; it is tried again" in caplog.text)
    network.hub.restore(served.engines[0]._client)
    await until(lambda: len(network.heard) >= 2)
    await served.end()


async def test_run_in_an_event_loop_says_what_to_call_instead():
    with pytest.raises(ConfigurationError, match=r"an event loop runs; expected await msgflo\.ser"):
        run(double, "direct://x")


# In a thread: the classic run() with done_cb.


def test_run_with_a_callback_returns_as_soon_as_they_run():
    done = threading.Event()
    running = run(Repeat("r"), "direct://in-a-thread", done_cb=done.set)
    assert not done.is_set()
    assert running.stop(10)
    assert done.is_set()
    assert running.code == 0
    assert running.stop(10), "once more does no harm"


def test_run_with_a_callback_raises_what_keeps_them_from_running():
    with pytest.raises(UnknownPort):
        run(Repeat("r"), "direct://x", done_cb=lambda: None, iips={"nothing": 1})
    with pytest.raises(ConfigurationError, match="no broker is named"):
        run(Repeat("r"), "", done_cb=lambda: None)


# Programs.

FILE = """
import asyncio, sys, time
from pathlib import Path
import msgflo
from msgflo import Context

@msgflo.component
async def work(x: object, ctx: Context) -> object:
    match x:
        case "slow":
            say("begun")
            while not Path(__file__).with_suffix(".go").exists():
                await asyncio.sleep(0.01)
        case "thread":
            say("begun")
            await asyncio.to_thread(time.sleep, 600)
        case "stubborn":
            say("begun")
            while True:
                try:
                    await asyncio.sleep(600)
                except asyncio.CancelledError:
                    pass
        case "exit":
            sys.exit(9)
        case "attempt":
            say(f"attempt {ctx.attempt}")
            if ctx.attempt == 1:
                await asyncio.sleep(600)
        case "instance":
            say(f"instance {ctx.instance}")
    return x

def say(text):
    print(text, flush=True)

if __name__ == "__main__":
    msgflo.main(work)
"""

CLASSIC = """
import msgflo

class Repeat(msgflo.Participant):
    def __init__(self, role):
        d = {
            'component': 'PythonRepeat',
            'label': 'Repeat input data without change',
        }
        msgflo.Participant.__init__(self, d, role)

    def process(self, inport, msg):
        self.send('out', msg.data)
        self.ack(msg)

if __name__ == '__main__':
    msgflo.main(Repeat)
"""

MSGFLO_PYTHON = "import msgflo.participant as it; it.msgflo_python()"


class Program:
    """A participant in a process of its own, on a real broker."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.process: asyncio.subprocess.Process
        self.broker: Broker = transport.broker(url)
        self.heard: list[Any] = []
        self.client = transport.client(url)
        self.collected: list[Any] = []

    async def __aenter__(self) -> "Program":
        await self.broker.connect()
        await self.broker.listen(lambda said: self.heard.append(msgspec.json.decode(said)))
        await self.client.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()
        await self.client.close()
        await self.broker.close()

    async def run(
        self, *command: object, stderr: int = asyncio.subprocess.PIPE, **environment: str
    ) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *map(str, command),
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "MSGFLO_BROKER": self.url, **environment},
        )

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 30)).decode().rstrip()

    async def put(self, value: Any, queue: str = "work.IN") -> None:
        body = msgspec.json.encode(value)
        await self.broker.enqueue(queue, body, {MESSAGE_ID: os.urandom(8).hex()})

    async def collect(self, source: str = "work.OUT") -> None:
        inlet = Inlet(f"collected.{source}", 1)

        def deliver(delivery: Delivery) -> None:
            self.collected.append(msgspec.json.decode(delivery.body))
            self.client.settle(delivery)

        await self.client.declare([inlet], [source])
        await self.broker.bind(Binding(Kind.ROUNDROBIN, source, inlet.queue))
        await self.client.consume(inlet, 10, deliver)

    async def stops(self) -> None:
        """Wait until it has noticed that it is to stop: it takes nothing any more."""
        async with asyncio.timeout(20):
            while any(stats.consumers for stats in await self.broker.queues(["work.IN"])):
                await asyncio.sleep(0.01)

    async def ended(self) -> tuple[int, str]:
        """Wait for its end; return its exit code and what it wrote on standard error."""
        stdout, stderr = await asyncio.wait_for(self.process.communicate(), 40)
        assert self.process.returncode is not None
        return self.process.returncode, (stdout if stderr is None else stderr).decode()


@pytest.fixture
async def program(nats_server: str) -> AsyncIterator[Program]:
    async with Program(nats_server) as program:
        yield program


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "work.py"
    path.write_text(FILE)
    return path


WAYS: dict[str, Callable[[Path, str], list[object]]] = {
    "main": lambda file, role: [file, role],
    "msgflo-python": lambda file, role: ["-c", MSGFLO_PYTHON, file, role],
    "msgflo participant": lambda file, role: ["-m", "msgflo", "participant", file, role],
}


@pytest.mark.parametrize("way", WAYS)
async def test_every_client_library_passes_this_and_so_does_the_classic_participant(
    program, tmp_path, way
):
    """The conformance test that all participants of the original system share."""
    file = tmp_path / "repeat.py"
    file.write_text(CLASSIC)
    await program.run(*WAYS[way](file, "repeating"))
    # The first line on stdout says that it has started. Anything on stderr before is a failure.
    line = await program.line()
    assert line == "repeating(PythonRepeat) running on nats://127.0.0.1"
    await until(lambda: program.heard)
    said = program.heard[0]
    assert (said["protocol"], said["command"]) == ("discovery", "participant")
    definition = said["payload"]
    assert sorted(definition) == [
        "component",
        "icon",
        "id",
        "inports",
        "label",
        "outports",
        "role",
    ]
    assert definition["component"] == "PythonRepeat"
    ports = {port["id"]: port for port in definition["inports"] + definition["outports"]}
    await program.collect(ports["out"]["queue"])
    await program.put({"bar": "foo"}, ports["in"]["queue"])
    await until(lambda: program.collected == [{"bar": "foo"}])
    program.process.send_signal(signal.SIGTERM)
    assert await program.ended() == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_it_finish_what_is_in_work_say_goodbye_and_exit_0(
    program, file, number
):
    await program.run(file)
    await program.line()
    await program.collect()
    await program.put("slow")
    await program.put("after")
    assert await program.line() == "begun"
    program.process.send_signal(number)
    await program.stops()
    file.with_suffix(".go").touch()
    assert await program.ended() == (0, "")
    await until(lambda: program.collected == ["slow"])
    await until(lambda: program.heard[-1]["command"] == "goodbye")
    # What it had not begun waits for a successor.
    await program.run(file)
    await program.line()
    await until(lambda: program.collected == ["slow", "after"])


@pytest.mark.parametrize("what", ["slow", "thread", "stubborn"])
async def test_it_exits_0_after_the_grace_whatever_its_handler_does(program, file, what):
    await program.run(file, "--grace", "0.2")
    await program.line()
    await program.put(what)
    assert await program.line() == "begun"
    program.process.send_signal(signal.SIGTERM)
    code, stderr = await program.ended()
    assert code == 0
    assert "stopped before these were done, they come again: 1 at in" in stderr
    (stats,) = [it for it in await program.broker.queues(["work.IN"]) if it.queue == "work.IN"]
    assert stats.waiting == 1


async def test_a_second_signal_ends_it_at_once(program, file):
    await program.run(file, "--grace", "600")
    await program.line()
    await program.put("slow")
    await program.line()
    program.process.send_signal(signal.SIGTERM)
    await program.stops()
    program.process.send_signal(signal.SIGTERM)
    assert await program.ended() == (128 + signal.SIGTERM, "")


async def test_a_program_that_is_killed_in_the_middle_of_a_message_loses_it_not(program, file):
    await program.run(file)
    await program.line()
    await program.collect()
    await program.put("attempt")
    assert await program.line() == "attempt 1"
    program.process.kill()
    await program.ended()
    await program.run(file)
    await program.line()
    assert await program.line() == "attempt 2"
    await until(lambda: program.collected == ["attempt"])


async def test_a_handler_may_end_the_program(program, file):
    await program.run(file)
    await program.line()
    await program.put("exit")
    code, stderr = await program.ended()
    assert code == 9
    assert "SystemExit: 9" in stderr


async def test_the_instance_comes_from_outside(program, file):
    await program.run(file, "--instance", "4", "work", MSGFLO_INSTANCE="7")
    await program.line()
    await until(lambda: program.heard)
    assert program.heard[0]["msgflo"]["instance"] == 4
    await program.put("instance", "work.IN@4")
    assert await program.line() == "instance 4"


async def test_several_participants_in_one_program(program, file, tmp_path):
    several = tmp_path / "several.py"
    several.write_text(
        "import msgflo, work\nmsgflo.run({'a': work.work, 'b': work.work}, instances=2)\n"
    )
    await program.run(several)
    lines = [await program.line() for _ in range(4)]
    assert lines == [f"{role}(work) running on nats://127.0.0.1" for role in "aabb"]
    await until(lambda: len(program.heard) >= 4)
    told = {(it["payload"]["role"], it["msgflo"]["instance"]) for it in program.heard}
    assert told == {("a", 1), ("a", 2), ("b", 1), ("b", 2)}
    program.process.send_signal(signal.SIGTERM)
    assert await program.ended() == (0, "")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--instance", "0"], 2, "error: instance is 0 and instances 1; expected numbers from 1"),
        (["-i", "{"], 2, "error: --iips is '{', which is not JSON"),
        (["-i", '{"out": 1}'], 1, "inport 'out'"),
        (["--broker", "nat://x"], 2, "Did you mean 'nats'"),
        (["--broker", ""], 2, "error: no broker is named"),
        (["--wrong"], 2, "unrecognized arguments: --wrong"),
        (["a", "b"], 2, "unrecognized arguments: b"),
    ],
)
async def test_what_is_wrong_is_one_line_and_an_exit_code(program, file, arguments, code, said):
    await program.run(file, *arguments, MSGFLO_BROKER="" if "" in arguments else program.url)
    assert await program.line() == ""
    ended, stderr = await program.ended()
    assert ended == code
    assert said in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        (None, 2, "error: there is no file"),
        ("x = 1\n", 1, "defines no component; expected a function decorated"),
        ("import nothing_like_this\n", 1, "ModuleNotFoundError: No module named 'nothing_like"),
        ("x = (\n", 1, "SyntaxError: '(' was never closed"),
        (
            "import msgflo\n@msgflo.component\ndef f(a, b): ...\n",
            1,
            "error: {file}:2: f: two plain parameters, 'a' and 'b'",
        ),
        (
            "import msgflo\n@msgflo.component\ndef f(a): ...\n@msgflo.component\ndef g(a): ...\n",
            1,
            "defines several components: f, g; say which one with --component",
        ),
    ],
)
async def test_a_file_that_cannot_be_run_says_why(program, tmp_path, source, code, said):
    file = tmp_path / "wrong.py"
    if source is not None:
        file.write_text(source)
    await program.run("-c", MSGFLO_PYTHON, file, "r")
    ended, stderr = await program.ended()
    assert ended == code
    assert said.format(file=file) in stderr


async def test_nothing_is_on_stderr_before_it_runs_not_even_a_warning(program, tmp_path):
    file = tmp_path / "noisy.py"
    file.write_text(
        "import logging, warnings, msgflo\n"
        "warnings.warn('old ways')\n"
        "class Noisy(msgflo.Component):\n"
        "    def start(self):\n"
        "        logging.getLogger('noisy').warning('it starts')\n"
        "        self.context.log.info('here')\n"
        "    @msgflo.inport\n"
        "    def handle(self, x: int): ...\n"
    )
    # Both into one pipe, so that the order can be seen.
    await program.run("-c", MSGFLO_PYTHON, file, "noisy", stderr=asyncio.subprocess.STDOUT)
    assert await program.line() == "noisy(Noisy) running on nats://127.0.0.1"
    program.process.send_signal(signal.SIGTERM)
    code, rest = await program.ended()
    assert code == 0
    assert "UserWarning: old ways\n" in rest
    assert "W it starts\n" in rest
    assert "I noisy.1: here\n" in rest


async def test_a_broker_that_cannot_be_reached_is_told_without_its_password(program, file):
    await program.run(file, "--broker", "nats://user:secret@127.0.0.1:1")
    code, stderr = await program.ended()
    assert code == 1
    assert stderr.startswith("error: ")
    assert "127.0.0.1:1" in stderr
    assert "secret" not in stderr


async def test_a_signal_while_it_still_waits_for_the_broker_ends_it_as_well(program, file):
    await program.run("-X", "importtime", file, "--broker", "nats://127.0.0.1:1")
    assert program.process.stderr is not None
    # When it loads the broker's library, the signals are heard.
    while b"nats.aio.client" not in await program.process.stderr.readline():
        pass
    program.process.send_signal(signal.SIGTERM)
    code, _ = await program.ended()
    assert code == 0
