"""The components that clients are shown: those of the library, and what their ports are.

A component's ports are known from its file, as far as that can be read; from a definition; and best
from a participant that announced itself.
"""

from collections.abc import Iterable
from pathlib import Path

from msgflo.errors import ComponentError, MsgFloError
from msgflo.flow.discovery import Definition
from msgflo.flow.discovery import Port as Announced
from msgflo.flow.wiring import PUBSUB, ROUNDROBIN
from msgflo.processes.library import VIRTUAL, Component, Library
from msgflo.processes.ports import Shape, shapes_in
from msgflo.protocol.workspace import Kind, Port, Source

__all__ = ["Catalogue"]

_IN, _OUT, _DEAD = Port("in"), Port("out"), Port("deadletter")
_ICONS = {PUBSUB: "share-alt", ROUNDROBIN: "random"}


class Catalogue:
    """The components of a library, as clients are told of them.

    Args:
        library: read again when something is written into it.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self._announced: dict[str, Definition] = {}
        self._read: dict[str, tuple[float, Shape | None]] = {}

    @property
    def namespace(self) -> str:
        """The namespace of the library; ``msgflo`` for one that has none: clients want one."""
        return self.library.namespace or "msgflo"

    def kinds(self) -> list[Kind]:
        """Return all components, those that were only heard of among them."""
        listed = {component.name: self._kind(component) for component in self.library.components()}
        for name in VIRTUAL:
            listed[name] = self.kind(name)
        for name in self._announced:
            if name not in listed and self._known(name) is None:
                listed[name] = self.kind(name)
        return list(listed.values())

    def kind(self, name: str) -> Kind:
        """Return what is known of a component, whether or not it is in the library."""
        if name in VIRTUAL:
            outports = (_OUT, _DEAD) if name == ROUNDROBIN else (_OUT,)
            return Kind(name, (_IN,), outports, VIRTUAL[name], _ICONS[name])
        known = self._known(name)
        if known is not None:
            return self._kind(known)
        heard = self._announced.get(name)
        return _of(name, heard) if heard else Kind(name)

    def port(self, component: str, name: str, inward: bool) -> Port | None:
        """Return a port of a component, if it is known; case does not matter."""
        kind = self.kind(component)
        ports = kind.inports if inward else kind.outports
        folded = name.casefold()
        return next((port for port in ports if port.id.casefold() == folded), None)

    def heard(self, definition: Definition, component: str) -> Kind | None:
        """Learn what a participant has announced.

        Args:
            definition: what it said.
            component: the component of its node, which is what clients know it by.

        Returns:
            The component, if that changes what clients were told of it.
        """
        before = self.kind(component)
        self._announced[component] = definition
        after = self.kind(component)
        return after if after != before else None

    def source(self, name: str) -> Source:
        """Return a component's code, or the definition of one that was only heard of.

        Raises:
            MsgFloError: there is none.
        """
        try:
            found = self.library.source(name)
        except MsgFloError:
            heard = self._announced.get(name)
            if heard is None:
                raise
            library, _, base = name.rpartition("/")
            return Source(base, library or self.namespace, "discovery", _described(heard))
        library = found.library or self.namespace
        return Source(found.name, library, found.language, found.code, found.tests)

    def write(self, name: str, library: str, language: str, code: str) -> Kind:
        """Write a component's code.

        Raises:
            MsgFloError: it cannot be written, or must not.
        """
        own = self.library.namespace
        base = name.removeprefix(f"{library}/") if library else name
        # A client knows the components of a library without a namespace under the one it is told.
        full = base if not own and library in ("", self.namespace) else f"{library or own}/{base}"
        component = self.library.write(full.removeprefix("/"), language, code)
        if component.path is not None and _is_python(component.path, code):
            # What was heard is of the code before; half-finished code keeps the ports it had.
            self._announced.pop(component.name, None)
        return self._kind(component)

    def _known(self, name: str) -> Component | None:
        try:
            return self.library.get(name)
        except ComponentError:
            return None

    def _kind(self, component: Component) -> Kind:
        heard = self._announced.get(component.name)
        if heard is not None:
            return _of(component.name, heard)
        if component.foreign is not None:
            return _of(component.name, component.foreign.definition("role"))
        shape = self._shape(component)
        if shape is None:
            return Kind(component.name, description=component.description)
        return Kind(
            component.name,
            tuple(map(_port, shape.inports)),
            tuple(map(_port, shape.outports)),
            shape.label or component.description,
            shape.icon,
        )

    def _shape(self, component: Component) -> Shape | None:
        """Return what a component's file draws, read again when the file was changed."""
        if component.path is None or component.path.suffix.lower() != ".py":
            return None
        try:
            path = self.library.root / component.path
            changed = path.stat().st_mtime
            known = self._read.get(component.name)
            if known is not None and known[0] == changed:
                return known[1]
            shapes = shapes_in(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            known = self._read.get(component.name)
            return known[1] if known else None  # half-finished code keeps the ports it had
        shape = _which(shapes, component)
        self._read[component.name] = (changed, shape)
        return shape


def _is_python(path: Path, code: str) -> bool:
    if path.suffix.lower() != ".py":
        return True
    try:
        return bool(shapes_in(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _which(shapes: list[Shape], component: Component) -> Shape | None:
    base = component.name.rpartition("/")[2].casefold()
    for shape in shapes:
        if shape.name.rpartition("/")[2].casefold() == base:
            return shape
    return shapes[0] if shapes else None


def _port(port: Announced) -> Port:
    return Port(port.id, port.type, port.description)


def _ports(ports: Iterable[Announced]) -> tuple[Port, ...]:
    return tuple(_port(port) for port in ports if port.queue and not port.hidden)


def _of(name: str, definition: Definition) -> Kind:
    return Kind(
        name,
        _ports(definition.inports),
        _ports(definition.outports),
        definition.label,
        definition.icon,
    )


def _described(definition: Definition) -> str:
    """Return what a participant said of itself, as the YAML that describes foreign ones."""
    lines = [f"component: {definition.component}"]
    if definition.label:
        lines.append(f"label: {definition.label!r}")
    lines.append(f"icon: {definition.icon}")
    for direction, ports in (("inports", definition.inports), ("outports", definition.outports)):
        lines.append(f"{direction}:" if ports else f"{direction}: {{}}")
        for port in ports:
            lines += [f"  {port.id}:", f"    type: {port.type}"]
    return "\n".join(lines) + "\n"
