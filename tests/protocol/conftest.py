"""A desk on paper: what clients want is written down, and nothing runs."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest

from fbpschema import Schemas
from msgflo.errors import ComponentError, MsgFloError
from msgflo.flow.graph import Graph
from msgflo.flow.parts import Change, Endpoint
from msgflo.protocol.access import Access, Level
from msgflo.protocol.session import Session
from msgflo.protocol.workspace import Identity, Kind, Port, Sheet, Source, Workspace


@pytest.fixture(scope="session")
def schemas() -> Iterator[Schemas]:
    made = Schemas()
    yield made
    made.close()


class Paper:
    """A desk that carries out nothing but on components, which it keeps in a dict."""

    def __init__(self) -> None:
        self.identity = Identity("f00", "demo", "paper")
        self.components = {
            "demo/Repeat": Kind("demo/Repeat", (Port("in"),), (Port("out", "string"),), icon="x")
        }
        self.code: dict[str, str] = {"demo/Repeat": "pass"}
        self.done: list[tuple[Any, ...]] = []
        self.works = False

    def edited(self, sheet: Sheet, changes: Iterable[Change]) -> None:
        self.done.append(("edited", sheet.id, [change.kind for change in changes]))

    def start(self, sheet: Sheet) -> None:
        self.done.append(("start", sheet.id))

    def stop(self, sheet: Sheet) -> None:
        self.done.append(("stop", sheet.id))

    def busy(self, sheet: Sheet) -> bool:
        return self.works

    def send(self, sheet: Sheet, tgt: Endpoint, data: Any) -> None:
        self.done.append(("send", sheet.id, str(tgt), data))

    def watch(self) -> None:
        pass

    def persist(self) -> None:
        self.done.append(("persist",))

    def kinds(self) -> Iterable[Kind]:
        return self.components.values()

    def port(self, component: str, name: str, inward: bool) -> Port | None:
        kind = self.components.get(component)
        ports = (kind.inports if inward else kind.outports) if kind else ()
        return next((port for port in ports if port.id == name.lower()), None)

    def source(self, name: str) -> Source:
        if name not in self.code:
            raise ComponentError(f"there is no component {name!r}")
        library, _, base = name.rpartition("/")
        return Source(base, library, "python", self.code[name])

    def write(self, name: str, library: str, language: str, code: str) -> Kind:
        full = f"{library}/{name}" if library else name
        self.code[full] = code
        return self.components.setdefault(full, Kind(full))

    def trace(self, command: str, sheet: Sheet, payload: Mapping[str, Any]) -> dict[str, Any]:
        if command == "dump":
            return {"type": "flowtrace.json", "flowtrace": "{}"}
        return {"buffersize": payload.get("buffersize", 400)} if command == "start" else {}

    def forward(self, graph: str, message: Any, reply: Any) -> bool:
        if graph == "entered":
            self.done.append(("forward", message.protocol, message.command, message.payload))
            self.reply = reply
        return graph == "entered"

    def leave(self, reply: Any) -> None:
        pass

    def ask(
        self,
        command: str,
        payload: Mapping[str, Any],
        answer: Callable[[dict[str, Any] | MsgFloError], None],
    ) -> None:
        self.done.append(("ask", command, dict(payload)))
        self.answer = answer


class Talk:
    """A client's side of a session: what it is sent, checked against the schemas."""

    def __init__(self, workspace: Workspace, schemas: Schemas, access: Access) -> None:
        self._schemas = schemas
        self.sent: list[tuple[str, str, Any]] = []
        self.raw: list[dict[str, Any]] = []
        self.session = Session(workspace, access, self)

    def answer(self, message: str) -> None:
        self._schemas.check(message)
        found = json.loads(message)
        self.raw.append(found)
        self.sent.append((found["protocol"], found["command"], found["payload"]))

    push = answer

    def say(self, protocol: str, command: str, /, **payload: Any) -> list[tuple[str, str, Any]]:
        """Send a command; return what came then, as protocol, command and payload."""
        return self.say_text(
            json.dumps({"protocol": protocol, "command": command, "payload": payload})
        )

    def say_text(self, text: str | bytes) -> list[tuple[str, str, Any]]:
        self.sent.clear()
        self.raw.clear()
        self.session.receive(text)
        return list(self.sent)

    def ask(self, protocol: str, command: str, /, **payload: Any) -> Any:
        """Send a command that has one answer of its own name; return its payload."""
        (found,) = [one for one in self.say(protocol, command, **payload) if one[1] == command]
        return found[2]

    def ask_as(self, answer: str, protocol: str, command: str, /, **payload: Any) -> Any:
        """Send a command that is answered by another name; return its payload."""
        (found,) = [one for one in self.say(protocol, command, **payload) if one[1] == answer]
        return found[2]

    def heard(self) -> list[tuple[str, str, Any]]:
        """Return what was pushed since the last command or look."""
        sent = list(self.sent)
        self.sent.clear()
        return sent


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def paper() -> Paper:
    return Paper()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workspace(paper: Paper, clock: Clock) -> Workspace:
    return Workspace("main", Graph("main"), paper, clock)


@pytest.fixture
def connect(workspace: Workspace, schemas: Schemas) -> Callable[..., Talk]:
    def connect(**secrets: Level) -> Talk:
        return Talk(workspace, schemas, Access(secrets))

    return connect


@pytest.fixture
def talk(connect: Callable[..., Talk]) -> Talk:
    return connect()
