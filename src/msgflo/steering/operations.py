"""The protocol ``msgflo``: how the network is, and what operating it takes. docs/protocol.md.

Each command is a coroutine from its payload to its answer; it may take as long as the broker does,
and holds up nothing else.
"""

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

import msgspec

from msgflo import __version__
from msgflo.coordinator.network import EdgeStatus
from msgflo.errors import ConfigurationError, MsgFloError, near
from msgflo.flow.discovery import queue_of_place
from msgflo.flow.telemetry import BUCKETS
from msgflo.live import INSTANCES, InstanceStatus, LiveNetwork, RoleView
from msgflo.processes.journal import Line
from msgflo.processes.usage import usage_of
from msgflo.protocol.workspace import Sheet, Workspace
from msgflo.runtime import Runtime
from msgflo.transport.contract import DeadLetter, QueueStats

__all__ = [
    "MOST_LETTERS",
    "Operations",
    "letter_json",
    "line_json",
    "queues_json",
    "status_json",
]

MOST_LETTERS = 1000
"""So many dead letters are listed, and requeued or purged by one command."""

MOST_LINES = 10_000
"""So many lines of what processes have printed are told at once."""

PATIENCE = 15.0
"""Seconds that the broker has for a command."""

_SHOWN = 2000
"""Characters of a payload in a listing."""

_BINDING = ("kind", "source", "target")

Answer = Callable[[dict[str, Any] | MsgFloError], None]
Operation = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


class Operations:
    """Carries out the commands that need the network or the broker.

    Args:
        workspace: the graphs.
        runtime: what runs them.
        network: returns what runs of a graph; ``None``: nothing does.
    """

    def __init__(
        self,
        workspace: Workspace,
        runtime: Runtime,
        network: Callable[[Sheet], LiveNetwork | None],
    ) -> None:
        self._workspace = workspace
        self._runtime = runtime
        self._network = network
        self._tasks: set[asyncio.Task[None]] = set()
        self._commands: dict[str, Operation] = {
            "status": self._status,
            "queues": self._queues,
            "figures": self._figures,
            "logs": self._logs,
            "unbind": self._unbind,
            "scale": self._scale,
            "restart": self._restart,
            "deadletters:list": self._list,
            "deadletters:show": self._show,
            "deadletters:export": self._export,
            "deadletters:requeue": self._requeue,
            "deadletters:edit": self._edit,
            "deadletters:purge": self._purge,
        }

    def ask(self, command: str, payload: Mapping[str, Any], answer: Answer) -> None:
        """Carry out a command, and answer once.

        Raises:
            MsgFloError: there is no such command.
        """
        operation = self._commands.get(command)
        if operation is None:
            raise ConfigurationError(
                f"there is no command {command!r}.{near(command, self._commands)}"
            )
        task = asyncio.get_running_loop().create_task(
            self._do(operation, payload, answer), name=f"msgflo:{command}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up what is not done. Idempotent."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _do(self, operation: Operation, payload: Mapping[str, Any], answer: Answer) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                answer(await operation(payload))
        except MsgFloError as error:
            answer(error)
        except TimeoutError:
            answer(ConfigurationError(f"the broker has not answered in {PATIENCE:g} s"))

    # What is meant.

    def _sheet(self, payload: Mapping[str, Any]) -> Sheet:
        return self._workspace.sheet(payload.get("graph", self._workspace.main.id))

    def _live(self, payload: Mapping[str, Any]) -> tuple[Sheet, LiveNetwork]:
        sheet = self._sheet(payload)
        network = self._network(sheet)
        if network is None:
            raise ConfigurationError(f"the network of graph {sheet.id!r} does not run")
        return sheet, network

    def _role(self, sheet: Sheet, network: LiveNetwork, payload: Mapping[str, Any]) -> str:
        node = payload.get("node")
        if not isinstance(node, str) or node not in sheet.graph.nodes:
            raise ConfigurationError(
                f"graph {sheet.id!r} has no node {node!r}.{near(str(node), sheet.graph.nodes)}"
            )
        return network.scope + node

    def _inport(self, payload: Mapping[str, Any]) -> str:
        """Return the queue that is meant: by its name, or as a node's inport."""
        queue = payload.get("queue")
        if isinstance(queue, str) and queue:
            return queue_of_place(queue)[0].removeprefix("dead-")
        sheet, network = self._live(payload)
        role = self._role(sheet, network, payload)
        port = payload.get("port", "in")
        definition = network.definition(role)
        found = definition.inport(str(port)) if definition is not None else None
        if found is None or not found.queue:
            known = [p.id for p in definition.inports] if definition is not None else []
            raise ConfigurationError(
                f"{payload['node']} has no inport {port!r}; it has: {', '.join(known) or 'none'}"
            )
        return found.queue

    # How it is.

    async def _status(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        sheet = self._sheet(payload)
        return status_json(sheet, self._network(sheet), self._runtime, self._workspace)

    async def _queues(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        sheet, network = self._live(payload)
        stats = await self._runtime.broker.queues(network.queues())
        return queues_json(sheet, network, stats)

    async def _figures(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        sheet, network = self._live(payload)
        owners = {
            one.process.pid: (role.network.role, one.instance)
            for role in network.status().roles
            for one in role.instances
            if one.process is not None and one.process.pid is not None
        }
        used = await asyncio.to_thread(usage_of, list(owners))
        processes = [
            {
                "node": owners[pid][0].removeprefix(network.scope),
                "instance": owners[pid][1],
                "pid": pid,
                **asdict(usage),
            }
            for pid, usage in used.items()
        ]
        ports = [
            {
                "node": it.role.removeprefix(network.scope),
                "instance": it.instance,
                "port": port,
                **msgspec.structs.asdict(said),
            }
            for it in self._runtime.figures()
            if it.role in network.graph.nodes
            for port, said in it.ins.items()
        ]
        return {
            "graph": sheet.id,
            "time": time.time(),
            "buckets": list(BUCKETS),
            "processes": sorted(processes, key=lambda it: (it["node"], it["instance"])),
            "ports": ports,
        }

    async def _logs(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        sheet, network = self._live(payload)
        lines, instance = payload.get("lines", 100), payload.get("instance")
        if type(lines) is not int or not 0 <= lines <= MOST_LINES:
            raise ConfigurationError(f"lines is {lines!r}; expected a number to {MOST_LINES}")
        if instance is not None and type(instance) is not int:
            raise ConfigurationError(f"instance is {instance!r}; expected a number, or nothing")
        journal = self._runtime.journal
        if "node" in payload:
            roles = [self._role(sheet, network, payload)]
        else:
            roles = list(network.graph.nodes)

        def read() -> list[Line]:
            of = [
                (role, number)
                for role in roles
                for number in journal.instances(role)
                if instance in (None, number)
            ]
            return journal.last(of, lines)

        found = [
            {"node": line.role.removeprefix(network.scope), **line_json(line)}
            for line in await asyncio.to_thread(read)
        ]
        return {"graph": sheet.id, "lines": found}

    # Doing.

    async def _unbind(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Remove bindings that the graph does not ask for, and no others."""
        sheet, network = self._live(payload)
        asked = payload.get("bindings")
        if not isinstance(asked, list):
            raise ConfigurationError(f"bindings is {asked!r}; expected a list of those in found")
        found = {
            (str(one.kind), one.source, one.target): one for one in network.status().network.found
        }
        removed = []
        for one in asked:
            key = tuple(one.get(k) for k in _BINDING) if isinstance(one, Mapping) else ()
            if key not in found:
                raise ConfigurationError(
                    f"{one!r} is not bound, or the graph asks for it; nothing more was removed"
                )
            await self._runtime.broker.unbind(found[key])
            removed.append(dict(zip(_BINDING, key, strict=True)))
        return {"graph": sheet.id, "removed": removed}

    async def _scale(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        sheet, network = self._live(payload)
        role = self._role(sheet, network, payload)
        wanted = payload.get("instances")
        if type(wanted) is not int or not 0 <= wanted <= 1000:
            raise ConfigurationError(f"instances is {wanted!r}; expected a number from 0 to 1000")
        network.scale(role, wanted)
        # Part of the graph, so that it is saved with it, and can be undone.
        node = str(payload["node"])
        self._workspace.edit(sheet, lambda graph: graph.change_node(node, {INSTANCES: str(wanted)}))
        return {"graph": sheet.id, "node": payload["node"], "instances": wanted}

    async def _restart(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        sheet, network = self._live(payload)
        role = self._role(sheet, network, payload)
        instance = payload.get("instance")
        if instance is not None and type(instance) is not int:
            raise ConfigurationError(f"instance is {instance!r}; expected a number, or nothing")
        network.restart(role, instance)
        return {"graph": sheet.id, "node": payload["node"], "instance": instance}

    # Dead letters.

    async def _list(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        limit = payload.get("limit", 100)
        if type(limit) is not int or not 1 <= limit <= MOST_LETTERS:
            raise ConfigurationError(f"limit is {limit!r}; expected a number to {MOST_LETTERS}")
        after = payload.get("after", "")
        if "queue" in payload or "node" in payload:
            queue = self._inport(payload)
            letters = await self._runtime.broker.dead_letters(queue, limit, str(after))
            return {"queue": queue, "letters": [letter_json(one, cut=True) for one in letters]}
        sheet, network = self._live(payload)
        found: list[dict[str, Any]] = []
        for queue in sorted(network.queues()):
            if len(found) < limit:
                letters = await self._runtime.broker.dead_letters(queue, limit - len(found))
                found += [letter_json(one, cut=True) for one in letters]
        return {"graph": sheet.id, "letters": found}

    async def _show(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        queue = self._inport(payload)
        return {"letter": letter_json(await self._letter(queue, payload))}

    async def _export(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        queue, after = self._inport(payload), payload.get("after", "")
        letters = await self._runtime.broker.dead_letters(queue, 100, str(after))
        whole = [letter_json(one) for one in letters]
        return {"queue": queue, "letters": whole, "more": len(letters) == 100}

    async def _requeue(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        queue = self._inport(payload)
        keys = await self._keys(queue, payload)
        return {"queue": queue, "requeued": await self._runtime.broker.requeue(queue, keys)}

    async def _edit(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Put a dead letter back with another payload."""
        queue = self._inport(payload)
        letter = await self._letter(queue, payload)
        body = _body(payload)
        done = await self._runtime.broker.requeue(queue, [letter.key], body)
        return {"queue": queue, "requeued": done}

    async def _purge(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        queue = self._inport(payload)
        keys = await self._keys(queue, payload)
        return {"queue": queue, "purged": await self._runtime.broker.discard(queue, keys)}

    async def _letter(self, queue: str, payload: Mapping[str, Any]) -> DeadLetter:
        key = payload.get("key")
        after = ""
        while letters := await self._runtime.broker.dead_letters(queue, 100, after):
            for letter in letters:
                if key in (letter.key, letter.id):
                    return letter
            after = letters[-1].key
        raise ConfigurationError(f"there is no dead letter {key!r} of {queue}")

    async def _keys(self, queue: str, payload: Mapping[str, Any]) -> list[str]:
        """Return the keys that are meant: those that are named, or all."""
        keys = payload.get("keys")
        if isinstance(keys, list) and all(isinstance(key, str) for key in keys):
            return keys[:MOST_LETTERS]
        if keys is not None or payload.get("all") is not True:
            raise ConfigurationError(
                "which dead letters are meant? expected keys, a list, or all, which is true"
            )
        letters = await self._runtime.broker.dead_letters(queue, MOST_LETTERS)
        return [letter.key for letter in letters]


def line_json(line: Line) -> dict[str, Any]:
    """Return a line that a process has printed as clients are told of it, but for its node."""
    said = asdict(line)
    del said["role"]
    return said


def _body(payload: Mapping[str, Any]) -> bytes:
    if "base64" in payload:
        try:
            return base64.b64decode(payload["base64"], validate=True)
        except (ValueError, TypeError):
            raise ConfigurationError("base64 is not base64") from None
    if "data" not in payload:
        raise ConfigurationError("a new payload is missing; expected data, or base64")
    return msgspec.json.encode(payload["data"])


def letter_json(letter: DeadLetter, *, cut: bool = False) -> dict[str, Any]:
    """Return a dead letter as clients are told of it.

    Args:
        letter: which.
        cut: leave out the end of a long payload, and the traceback.
    """
    death = asdict(letter.death)
    said: dict[str, Any] = {
        "key": letter.key,
        "queue": letter.queue,
        "message": letter.id,
        "size": len(letter.body),
        "headers": dict(letter.headers),
        "death": death,
    }
    try:
        if cut and len(letter.body) > _SHOWN:
            said["start"] = letter.body[:_SHOWN].decode("utf-8", "replace")
        else:
            said["data"] = msgspec.json.decode(letter.body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        said["base64"] = base64.b64encode(letter.body[: _SHOWN if cut else None]).decode()
    if cut:
        del death["traceback"]
    return said


def status_json(
    sheet: Sheet, network: LiveNetwork | None, runtime: Runtime, workspace: Workspace
) -> dict[str, Any]:
    """Return how a graph's network is, whether it runs or not."""
    said: dict[str, Any] = {
        "graph": sheet.id,
        "main": sheet.main,
        "graphs": list(workspace.sheets),
        "version": __version__,
        "time": time.time(),
        "started": sheet.started,
        "running": sheet.started and workspace.desk.busy(sheet),
        "uptime": workspace.uptime(sheet),
        "broker": {
            "url": runtime.address,
            "embedded": runtime.embedded,
            "connected": network is not None and runtime.broker.connected,
        },
        "complete": False,
        "nodes": [],
        "edges": [],
        "pending": [],
        "found": [],
    }
    if network is None:
        return said
    status = network.status()
    said["complete"] = status.complete
    said["nodes"] = [_node(role, network) for role in status.roles]
    said["edges"] = [_edge(edge, network.scope) for edge in status.network.edges]
    said["pending"] = list(status.network.initials)
    said["found"] = [
        {"kind": str(one.kind), "source": one.source, "target": one.target}
        for one in status.network.found
    ]
    return said


def _node(role: RoleView, network: LiveNetwork) -> dict[str, Any]:
    announced = network.coordinator.network.definition(role.network.role)
    said = {
        "node": role.network.role.removeprefix(network.scope),
        "component": role.network.component,
        "state": str(role.network.life),
        "in_graph": role.network.wanted,
        "started_here": role.started_here,
        "wanted": role.wanted,
        "reason": role.reason,
        "instances": [_instance(one) for one in role.instances],
    }
    if announced is not None:
        for key, ports in (("inports", announced.inports), ("outports", announced.outports)):
            said[key] = [{"id": it.id, "type": it.type} for it in ports if it.queue]
    return said


def _instance(one: InstanceStatus) -> dict[str, Any]:
    said: dict[str, Any] = {
        "instance": one.instance,
        "state": str(one.state),
        "reason": one.reason,
        "paused": one.paused,
    }
    if one.process is not None:
        said |= {
            "pid": one.process.pid,
            "restarts": one.process.restarts,
            "ready_in": one.process.ready_in,
            "exit": str(one.process.exit) if one.process.exit is not None else None,
            "last_lines": list(one.process.last_lines),
        }
    return said


def _edge(edge: EdgeStatus, scope: str) -> dict[str, Any]:
    src, tgt = edge.edge.src.payload(), edge.edge.tgt.payload()
    for end in (src, tgt):
        end["node"] = end["node"].removeprefix(scope)
    return {
        "src": src,
        "tgt": tgt,
        "state": "wrong" if edge.wrong else "pending" if edge.reason else "bound",
        "reason": edge.reason,
        "bindings": [
            {"kind": str(one.kind), "source": one.source, "target": one.target}
            for one in edge.bindings
        ],
    }


def queues_json(sheet: Sheet, network: LiveNetwork, stats: list[QueueStats]) -> dict[str, Any]:
    """Return how the queues of a network are, each with the node and port that it belongs to."""
    owners: dict[str, tuple[str, str]] = {}
    for role in network.graph.nodes:
        definition = network.definition(role)
        for port in definition.inports if definition is not None else ():
            if port.queue:
                owners[port.queue] = (role.removeprefix(network.scope), port.id)
    found = []
    for one in stats:
        dead = one.queue.startswith("dead-") and one.queue.removeprefix("dead-") in owners
        queue, instance = queue_of_place(one.queue.removeprefix("dead-") if dead else one.queue)
        node, port_id = owners.get(queue, ("", ""))
        kind = "dead" if dead else "work" if instance is None else "place"
        found.append(
            {**asdict(one), "node": node, "port": port_id, "kind": kind, "instance": instance}
        )
    return {"graph": sheet.id, "time": time.time(), "queues": found}
