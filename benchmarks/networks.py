"""Whole networks: how long they take to start and to change, and what their parts weigh."""

import asyncio
import re
import sys
import time
from pathlib import Path

from benchmarks.processes import Worker
from msgflo import transport
from msgflo.coordinator.coordinator import Coordinator
from msgflo.flow.fbp import parse_fbp
from msgflo.flow.graph import Endpoint
from msgflo.flow.wiring import by_convention
from msgflo.transport.contract import MESSAGE_ID, Delivery, Inlet

COMPONENT = """
import msgflo


@msgflo.component("Node")
async def node(value: int) -> int:
    return value
"""


def chain(roles: int) -> str:
    """Return a graph of so many roles, each connected to the next, and every other one back."""
    lines = [f"node{n}(Node) OUT -> IN node{n + 1}(Node)" for n in range(roles - 1)]
    lines += [f"node{n + 2} OUT -> IN node{n}" for n in range(0, roles - 2, 2)]
    return "\n".join(lines) + "\n"


def start_time(folder: Path, roles: int) -> float:
    """Return seconds from the command to a network of which every role is live."""
    (folder / "components").mkdir(exist_ok=True)
    (folder / "components" / "node.py").write_text(COMPONENT)
    (folder / "graph.fbp").write_text(chain(roles))
    start = time.perf_counter()
    words = [sys.executable, "-m", "msgflo", "run", str(folder / "graph.fbp")]
    with Worker(words, {}) as worker:
        worker.wait_for("all running", timeout=300)
        taken = time.perf_counter() - start
        assert re.search(r"all running after", worker.said)
    return taken


def idle_memory(url: str) -> tuple[float, float]:
    """Return megabytes of an idle participant: resident, and its share of what is shared."""
    with Worker.python("msgflo_repeat.py", "any_value", "work", MSGFLO_BROKER=url) as worker:
        worker.wait_for("running")
        time.sleep(1.0)
        return worker.resident, worker.memory


def coordinator_load(url: str, folder: Path, roles: int, participants: int) -> tuple[float, float]:
    """Return megabytes resident, and percent of a core, of a coordinator that many announce to."""
    graph = folder / f"chain{roles}.fbp"
    graph.write_text(chain(roles))
    words = ("coordinator.py", str(graph), str(folder / "memory.json"))
    crowd = ("crowd.py", str(roles), str(participants // roles))
    with (
        Worker.python(*words, MSGFLO_BROKER=url) as coordinator,
        Worker.python(*crowd, MSGFLO_BROKER=url) as announcers,
    ):
        announcers.wait_for("running")
        coordinator.wait_for("complete", timeout=120)
        cpu, start = coordinator.cpu, time.perf_counter()
        time.sleep(30)  # a whole round of announcements
        used = (coordinator.cpu - cpu) / (time.perf_counter() - start) * 100
        return coordinator.resident, used


async def rewire_time(url: str) -> float:
    """Return milliseconds from a change of the graph to the first message on its new way."""
    graph = parse_fbp("a(Node) OUT -> IN b(Node)\nc(Node)\n")
    broker, client = transport.broker(url), transport.client(url)
    await broker.connect()
    await client.connect()
    ports = by_convention(parse_fbp("a(Node) OUT -> IN b(Node)\na OUT -> IN c(Node)\n"))
    coordinator = Coordinator(broker, graph, assumed=ports)
    await coordinator.start()
    await client.declare([Inlet("b.IN", 1), Inlet("c.IN", 1)], ["a.OUT"])
    await coordinator.until(lambda status: not any(edge.reason for edge in status.edges), 10)
    arrived = asyncio.Event()

    def take(delivery: Delivery) -> None:
        client.settle(delivery)
        if delivery.inlet.queue == "c.IN":
            arrived.set()

    for queue in ("b.IN", "c.IN"):
        await client.consume(Inlet(queue, 1), 100, take)
    start = time.perf_counter()
    edge = graph.edges[0]
    graph.remove_edge(edge.src, edge.tgt)
    graph.add_edge(edge.src, Endpoint("c", "in"))
    coordinator.change_graph(graph)
    number = 0
    while not arrived.is_set():
        number += 1
        headers = {MESSAGE_ID: f"{url}-{number}", "Content-Type": "application/json"}
        client.send("a.OUT", b"1", headers, lambda _: None)
        await asyncio.sleep(0.002)
        if time.perf_counter() - start > 30:
            raise RuntimeError("the change was not carried out within 30 s")
    taken = (time.perf_counter() - start) * 1e3
    await coordinator.close()
    await client.close()
    await broker.close()
    return taken
