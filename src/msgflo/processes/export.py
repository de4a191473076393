"""From graph and library to what other tools run: Procfile, Compose, Kubernetes, systemd. Pure.

Whatever runs the processes, the network is the same: ``msgflo setup GRAPH`` makes its connections
before its participants start, and as it can be done again without harm, it is done at each start.
The broker's URL is named, and nothing of it is written: what may be a secret comes from the
environment, from an environment file or from a Secret, and is nobody's argument.

A role behind a RoundRobin shares a work queue, so that how many run is for the queue's length to
say (KEDA). Any other takes its copy at a place that belongs to an instance, so that in Kubernetes
it is a StatefulSet, whose pods keep their numbers.
"""

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from msgflo.errors import ComponentError, ConfigurationError, UnknownComponent, near
from msgflo.flow.binding import Kind
from msgflo.flow.discovery import Definition
from msgflo.flow.graph import Graph
from msgflo.flow.wiring import by_convention, is_virtual, wire
from msgflo.flow.yamltext import dump_yaml
from msgflo.processes.library import Library

__all__ = ["Exported", "Plan", "assumed", "compose", "kubernetes", "plan", "procfile", "systemd"]

BROKER = "MSGFLO_BROKER"

MOST_INSTANCES = 10
"""So many of a role KEDA starts at most, and so many waiting messages are work for one of them."""

_OURS = (sys.executable, "-m", "msgflo")


@dataclass(frozen=True)
class Exported:
    """A role, as other tools start it.

    Attributes:
        role: the node of the graph.
        name: the same for tools that take fewer characters, different for each role.
        argv: the words of its command; the program as it is found on a PATH.
        env: what it is told in its environment beside the broker: its initial packets.
        instances: how many are to run.
        shared: the work queues of its inports that are behind a RoundRobin.
        copies: whether it has an inport of which each instance gets its own copy.
    """

    role: str
    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    instances: int = 1
    shared: tuple[str, ...] = ()
    copies: bool = False


@dataclass(frozen=True)
class Plan:
    """What is to be exported.

    Attributes:
        name: the network's, in small letters, digits and dashes.
        graph: the graph's file, as it is named from the project's folder.
        roles: what is to be started.
        warnings: what will not be as the graph says, in sentences.
    """

    name: str
    graph: str
    roles: tuple[Exported, ...]
    warnings: tuple[str, ...] = ()

    @property
    def setup(self) -> tuple[str, ...]:
        """The words of the command that makes the connections."""
        return ("msgflo", "setup", self.graph)


def assumed(graph: Graph, library: Library) -> dict[str, Definition]:
    """Return what the roles of a graph are taken to be, without hearing them.

    A role's queues are named by convention, unless the library has a definition of it.
    """
    found = by_convention(graph)
    for role in found:
        try:
            foreign = library.get(graph.nodes[role].component).foreign
        except ComponentError:
            continue  # somebody else's
        if foreign is not None:
            found[role] = foreign.definition(role)
    return found


def plan(
    graph: Graph,
    library: Library,
    *,
    name: str,
    file: str,
    ignore: Iterable[str] = (),
    scale: Mapping[str, int] | None = None,
) -> Plan:
    """Work out what is to be exported.

    Args:
        graph: the network.
        library: its components; commands are to be run in its folder.
        name: what the network is called.
        file: the graph's file, as it is named from the project's folder.
        ignore: roles that are started by somebody else.
        scale: how many instances of a role, where it is not one.

    Raises:
        ComponentError: the library has no component of a role.
        ConfigurationError: a role is named that the graph does not have.
    """
    roles = [node.id for node in graph.nodes.values() if not is_virtual(node.component)]
    ignored, scaled = frozenset(ignore), dict(scale or {})
    warnings = []
    for role in (*ignored, *scaled):
        if role not in graph.nodes:
            said = f"the graph has no role {role!r}; its roles are: {', '.join(roles) or 'none'}"
            said += f".{near(role, roles)}"
            if role in scaled:
                raise ConfigurationError(said)
            warnings.append(said)
    definitions = assumed(graph, library)
    kinds: dict[str, set[Kind]] = {}
    for wired in wire(graph, definitions).edges:
        for binding in wired.bindings:
            kinds.setdefault(binding.target, set()).add(binding.kind)
        if wired.reason:
            src, tgt = wired.edge.src, wired.edge.tgt
            warnings.append(
                f"{src.node} {src.port.upper()} -> {tgt.port.upper()} {tgt.node}: {wired.reason}"
            )
    exported: list[Exported] = []
    taken = {"broker", "setup"}
    for role in roles:
        if role in ignored:
            continue
        packets, more = _initials(graph, role)
        warnings += more
        argv, env = _command(graph, library, role, packets)
        queues = [port.queue for port in definitions[role].inports if port.queue]
        exported.append(
            Exported(
                role,
                _free_name(role, taken),
                argv,
                env,
                scaled.get(role, 1),
                tuple(sorted({q for q in queues if Kind.ROUNDROBIN in kinds.get(q, ())})),
                any(Kind.PUBSUB in kinds.get(queue, ()) for queue in queues),
            )
        )
    return Plan(_plain(name), file, tuple(exported), tuple(warnings))


def _command(
    graph: Graph, library: Library, role: str, packets: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the words that start a role, and what they are told in the environment."""
    component = graph.nodes[role].component
    try:
        found = library.get(component)
        command = library.command(component, role, packets)
        without = library.command(component, role)
    except UnknownComponent as error:
        raise ComponentError(f"No component {component} defined for role {role}: {error}") from None
    if command is None or without is None:
        if found.foreign is None or found.path is None:
            raise ComponentError(f"No component {component} defined for role {role}: no command")
        return ("msgflo", "register", "--role", f"{role}:{_near(found.path, library)}"), {}
    argv = command.argv
    if argv[: len(_OURS)] == _OURS:
        argv = ("msgflo", *argv[len(_OURS) :])
    if not packets or command.argv != without.argv:  # which it is given in its words
        return argv, {}
    return argv, {"MSGFLO_IIPS": json.dumps(dict(packets), ensure_ascii=False)}


def _near(path: PurePath, library: Library) -> str:
    return str(path.relative_to(library.root) if path.is_relative_to(library.root) else path)


def _initials(graph: Graph, role: str) -> tuple[dict[str, Any], list[str]]:
    """Return initial packets of ports that have just one; and sentences on the others."""
    packets: dict[str, list[Any]] = {}
    for initial in graph.initials:
        if initial.tgt.node == role:
            packets.setdefault(initial.tgt.port, []).append(initial.data)
    return (
        {port: data[0] for port, data in packets.items() if len(data) == 1},
        [
            f"{role} {port.upper()} has {len(data)} initial packets: only a coordinator "
            f"(msgflo run) sends more than one"
            for port, data in packets.items()
            if len(data) > 1
        ],
    )


def _plain(name: str) -> str:
    """Return a name in small letters, digits and single dashes, at most 40, a letter first."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    return plain if plain[:1].isalpha() else f"n{plain}"


def _free_name(role: str, taken: set[str]) -> str:
    name, number = _plain(role), 1
    while name in taken:
        number += 1
        name = f"{_plain(role)[:36]}-{number}"
    taken.add(name)
    return name


# A Procfile, for foreman, honcho and Heroku.


def procfile(plan: Plan, include: Sequence[str] = ()) -> str:
    """Return a Procfile: a line a role in the graph's order, then what is to be included."""
    lines = []
    for it in plan.roles:
        settings = [f"{name}={shlex.quote(value)}" for name, value in it.env.items()]
        lines.append(f"{it.role}: {' '.join([*settings, shlex.join(it.argv)])}\n")
    return "".join([*lines, *(f"{text}\n" for text in include)])


# Compose.

_IMAGES: Mapping[str, Mapping[str, Any]] = {
    "nats": {
        "image": "nats:2-alpine",
        "command": ["-js", "-sd", "/data", "-m", "8222"],
        "healthcheck": {
            "test": ["CMD", "wget", "-q", "--spider", "http://127.0.0.1:8222/healthz"],
            "interval": "2s",
            "timeout": "5s",
            "retries": 30,
        },
        "volumes": ["broker:/data"],
    },
    "amqp": {
        "image": "rabbitmq:4",
        "hostname": "broker",  # the name under which it keeps its store
        "environment": {
            "RABBITMQ_DEFAULT_USER": "msgflo",
            "RABBITMQ_DEFAULT_PASS": "${MSGFLO_BROKER_PASSWORD:-msgflo}",
        },
        "healthcheck": {
            "test": ["CMD", "rabbitmq-diagnostics", "-q", "check_port_connectivity"],
            "interval": "5s",
            "timeout": "20s",
            "retries": 30,
        },
        "volumes": ["broker:/var/lib/rabbitmq"],
    },
}
_THERE = {
    "nats": "nats://broker",
    "amqp": "amqp://msgflo:${MSGFLO_BROKER_PASSWORD:-msgflo}@broker",
}


def compose(plan: Plan, *, scheme: str, own_broker: bool, image: str, requirement: str) -> str:
    """Return a file for ``docker compose up``, which builds, connects and starts all.

    Args:
        plan: what is to run.
        scheme: of the broker's URL.
        own_broker: whether a broker comes with it, which nobody else can reach; otherwise its URL
            is taken from ``MSGFLO_BROKER`` where Compose is started.
        image: an image with the project in ``/app`` and msgflo installed; ``""``: it is built from
            the project's folder.
        requirement: how pip is asked for msgflo when it is built.

    Raises:
        ConfigurationError: no broker of this scheme can come with it.
    """
    if own_broker and scheme not in _IMAGES:
        raise ConfigurationError(
            f"no broker for {scheme}:// comes with it; there are: {', '.join(_IMAGES)}"
        )
    shared: dict[str, Any] = {"image": image or f"{plan.name}:latest"}
    if not image:
        shared["build"] = {
            "context": ".",
            "args": {"MSGFLO": f"${{MSGFLO:-{requirement}}}"},
            "dockerfile_inline": _dockerfile(),
        }
    shared["init"] = True
    url = _THERE[scheme] if own_broker else "${MSGFLO_BROKER:?the URL of the broker}"
    services: dict[str, Any] = {}
    if own_broker:
        services["broker"] = {**_IMAGES[scheme], "restart": "unless-stopped"}
    services["setup"] = {
        _MERGE: "participant",
        "command": _dollars(plan.setup),
        "environment": {BROKER: url},
        **({"depends_on": {"broker": {"condition": "service_healthy"}}} if own_broker else {}),
        "restart": "on-failure",
    }
    for it in plan.roles:
        services[it.name] = {
            _MERGE: "participant",
            "command": _dollars(it.argv),
            "environment": {
                BROKER: url,
                **{name: value.replace("$", "$$") for name, value in it.env.items()},
            },
            "depends_on": {"setup": {"condition": "service_completed_successfully"}},
            "restart": "unless-stopped",
            "stop_grace_period": "15s",
            "deploy": {"replicas": it.instances},
        }
    told: dict[str, Any] = {"name": plan.name, "x-participant": shared, "services": services}
    if own_broker:
        told["volumes"] = {"broker": {}}
    # What all have in common is written once.
    text = re.sub(r"^x-participant:$", "x-participant: &participant", dump_yaml([told]), flags=re.M)
    return re.sub(rf"^    {_MERGE}: participant$", "    <<: *participant", text, flags=re.M)


_MERGE = "x-merge"


def _dollars(words: Sequence[str]) -> list[str]:
    return [word.replace("$", "$$") for word in words]


def _dockerfile() -> str:
    return (
        "FROM python:3.13-slim\n"
        "ARG MSGFLO\n"
        'RUN pip install --no-cache-dir "$$MSGFLO"\n'
        "WORKDIR /app\n"
        "COPY . .\n"
        "RUN if [ -f requirements.txt ]; then pip install --no-cache-dir -r requirements.txt; fi\n"
        "USER nobody\n"
    )


# Kubernetes.


def kubernetes(
    plan: Plan,
    *,
    scheme: str,
    image: str,
    monitoring: str = "",
    backlog: Callable[[str], Mapping[str, str]] = lambda queue: {"queue": queue},
) -> str:
    """Return manifests for ``kubectl apply -f``, with a KEDA ScaledObject for each shared queue.

    The broker's URL is that of the key ``url`` of the Secret ``NAME-broker``, which is not made
    here.

    Args:
        plan: what is to run.
        scheme: of the broker's URL; without one that KEDA knows nothing is scaled.
        image: an image with the project as its working folder and msgflo installed.
        monitoring: where KEDA reaches the monitoring port of NATS, as ``host:port``.
        backlog: says under which names the broker has a work queue.
    """
    secret = f"{plan.name}-broker"
    documents: list[dict[str, Any]] = []
    trigger = _TRIGGERS.get(scheme)
    if trigger == "rabbitmq" and any(it.shared for it in plan.roles):
        documents.append(
            {
                **_head("keda.sh/v1alpha1", "TriggerAuthentication", secret, plan),
                "spec": {
                    "secretTargetRef": [{"parameter": "host", "name": secret, "key": "url"}],
                },
            }
        )
    for it in plan.roles:
        documents += _workload(plan, it, image, secret)
        if it.shared and trigger is not None:
            triggers = [
                _trigger(trigger, backlog(queue), monitoring, secret) for queue in it.shared
            ]
            documents.append(_scaled(plan, it, triggers))
    intro = (
        f"# The network {plan.name}. Before it is applied, tell it where its broker is:\n"
        f"#   kubectl create secret generic {secret} --from-file=url=FILE\n"
        f"# FILE holds the broker's URL, without a line break.\n"
    )
    return intro + dump_yaml(documents)


_TRIGGERS = {"nats": "nats-jetstream", "tls": "nats-jetstream", "amqp": "rabbitmq"}
_TRIGGERS["amqps"] = _TRIGGERS["amqp"]


def _head(version: str, kind: str, name: str, plan: Plan, role: str = "") -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": plan.name, "app.kubernetes.io/managed-by": "msgflo"}
    if role:
        labels["app.kubernetes.io/name"] = role
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}}


def _workload(plan: Plan, it: Exported, image: str, secret: str) -> list[dict[str, Any]]:
    name = f"{plan.name}-{it.name}"
    selector = {"app.kubernetes.io/part-of": plan.name, "app.kubernetes.io/name": it.name}
    where = {"name": BROKER, "valueFrom": {"secretKeyRef": {"name": secret, "key": "url"}}}
    # To Kubernetes too, $(NAME) in a command or a value is a variable, and two dollars are one.
    words = _dollars(it.argv)
    env = [where, *({"name": n, "value": v.replace("$", "$$")} for n, v in it.env.items())]
    safe = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod = {
        "terminationGracePeriodSeconds": 30,
        "initContainers": [
            {
                "name": "setup",
                "image": image,
                "command": _dollars(plan.setup),
                "env": [where],
                "securityContext": safe,
            }
        ],
        "containers": [
            {
                "name": "participant",
                "image": image,
                "command": words,
                "env": env,
                "securityContext": safe,
            }
        ],
    }
    spec: dict[str, Any] = {
        "selector": {"matchLabels": selector},
        "template": {"metadata": {"labels": selector}, "spec": pod},
    }
    if not it.shared:
        spec = {"replicas": it.instances, **spec}  # else the length of the queue says how many
    if not it.copies:
        return [{**_head("apps/v1", "Deployment", name, plan, it.name), "spec": spec}]
    spec = {**spec, "serviceName": name, "podManagementPolicy": "Parallel"}
    return [
        {
            **_head("v1", "Service", name, plan, it.name),
            "spec": {"clusterIP": "None", "selector": selector},
        },
        {**_head("apps/v1", "StatefulSet", name, plan, it.name), "spec": spec},
    ]


def _scaled(plan: Plan, it: Exported, triggers: list[dict[str, Any]]) -> dict[str, Any]:
    name = f"{plan.name}-{it.name}"
    return {
        **_head("keda.sh/v1alpha1", "ScaledObject", name, plan, it.name),
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "StatefulSet" if it.copies else "Deployment",
                "name": name,
            },
            "minReplicaCount": it.instances,
            "maxReplicaCount": max(MOST_INSTANCES, it.instances),
            "triggers": triggers,
        },
    }


def _trigger(kind: str, names: Mapping[str, str], monitoring: str, secret: str) -> dict[str, Any]:
    if kind == "rabbitmq":
        about = {
            "protocol": "amqp",
            "mode": "QueueLength",
            "value": str(MOST_INSTANCES),
            "queueName": names["queue"],
        }
        return {"type": kind, "metadata": about, "authenticationRef": {"name": secret}}
    return {
        "type": kind,
        "metadata": {
            "natsServerMonitoringEndpoint": monitoring or "nats:8222",
            "account": "$G",
            "stream": names["stream"],
            "consumer": names["consumer"],
            "lagThreshold": str(MOST_INSTANCES),
        },
    }


# systemd.


def systemd(
    plan: Plan, *, folder: str, environment_file: str, program: Callable[[str], str]
) -> dict[str, str]:
    """Return units by the names of their files: a target, its setup, and a template a role.

    Args:
        plan: what is to run.
        folder: the project's folder on that machine.
        environment_file: holds ``MSGFLO_BROKER=URL``, and can be read by root alone.
        program: says where a program is on that machine.
    """

    def words(argv: Sequence[str]) -> str:
        # Here, unlike in a setting, $ is the beginning of a variable.
        return " ".join(
            [_unit_word(program(argv[0])), *(_unit_word(it).replace("$", "$$") for it in argv[1:])]
        )

    target, setup = f"{plan.name}.target", f"{plan.name}-setup.service"
    run = (
        f"WorkingDirectory={folder.replace('%', '%%')}\n"
        f"EnvironmentFile={environment_file.replace('%', '%%')}\n"
        f"NoNewPrivileges=yes\n"
        f"PrivateTmp=yes\n"
    )
    wanted = [
        f"{plan.name}-{it.name}@{number}.service"
        for it in plan.roles
        for number in range(1, it.instances + 1)
    ]
    files = {
        target: (
            f"[Unit]\nDescription=The network {plan.name}\n"
            + "".join(f"Wants={unit}\n" for unit in wanted)
            + "\n[Install]\nWantedBy=multi-user.target\n"
        ),
        setup: (
            f"[Unit]\nDescription=The connections of {plan.name}\n"
            f"After=network-online.target\nWants=network-online.target\nPartOf={target}\n\n"
            f"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={words(plan.setup)}\n{run}"
        ),
    }
    for it in plan.roles:
        settings = "".join(
            f"Environment={_unit_word(f'{name}={value}')}\n" for name, value in it.env.items()
        )
        files[f"{plan.name}-{it.name}@.service"] = (
            f"[Unit]\nDescription={it.name} %i of {plan.name}\n"
            f"Requires={setup}\nAfter={setup}\nPartOf={target}\n\n"
            f"[Service]\nExecStart={words(it.argv)}\nEnvironment=MSGFLO_INSTANCE=%i\n{settings}{run}"
            f"Restart=on-failure\nRestartSec=1\nTimeoutStopSec=15\n"
        )
    return files


def _unit_word(word: str) -> str:
    """Return a word as systemd reads it back: blanks, % and quotes mean something to it."""
    if re.fullmatch(r"[\w@:,./=+-]+", word, re.ASCII):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'.replace("%", "%%")
