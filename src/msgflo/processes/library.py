"""The components that a network can be made of, and what starts one of each.

A component comes from a file in a components folder (``components/Resize.py`` is ``Resize``, or
``images/Resize`` in the namespace ``images``), or from a command in a configuration file
(:mod:`msgflo.processes.configuration` has the files, the keys and which one wins). A configured
command wins over a file of the same name; of two files of one name, the one in the folder that is
named first, and in it the one whose extension comes first in the alphabet. What loses is reported
in :attr:`Library.problems`, as is every file that cannot be understood: nothing of this stops the
others. Folders are not read recursively; names that begin with ``.`` or ``_`` are no components.

``msgflo/RoundRobin`` and ``msgflo/PubSub`` are in every graph's reach but in no library: no process
runs for them.
"""

import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from msgflo.errors import (
    ComponentError,
    ConfigurationError,
    DefinitionError,
    InvalidName,
    MsgFloError,
    UnknownComponent,
)
from msgflo.flow.wiring import PUBSUB, ROUNDROBIN
from msgflo.processes.command import PYTHON_RUNNER, Command, Template, fill, search_path, words_of
from msgflo.processes.configuration import Configuration, read_configuration
from msgflo.processes.foreign import Foreign, read_foreign
from msgflo.processes.naming import (
    LANGUAGES,
    check_basename,
    check_inside,
    declared_in,
    extension_of,
    python_problem,
    split_name,
)

__all__ = ["HANDLERS", "VIRTUAL", "Component", "Library", "Source"]

HANDLERS: Mapping[str, Template | None] = {
    ".py": PYTHON_RUNNER,
    ".js": "msgflo-nodejs --name #ROLE #FILENAME",
    ".coffee": "msgflo-nodejs --name #ROLE #FILENAME",
    ".json": "noflo-runtime-msgflo --name #ROLE --graph #COMPONENT --iips #IIPS",
    ".fbp": "noflo-runtime-msgflo --name #ROLE --graph #COMPONENT --iips #IIPS",
    # Foreign participants run somewhere else: there is nothing to start.
    ".yml": None,
    ".yaml": None,
}
"""What starts a file, by its extension, unless a configuration says otherwise."""

VIRTUAL = {
    ROUNDROBIN: "Gives each message to one participant, the next one with free capacity",
    PUBSUB: "Gives each message to every participant",
}
"""The components for which no process runs, and what they are for."""

_CLIENTS = ("msgflo", "noflo", "python", "node", "coffee")

_LARGEST = 4 * 1024 * 1024


@dataclass(frozen=True)
class Component:
    """A kind of node.

    Attributes:
        name: as the library lists it, its namespace included.
        namespace: the part of the name before the first ``/``; ``""`` without one.
        language: such as ``"python"``; ``""`` where only a command is known.
        path: its file, where there is one; relative if the library's root is.
        command: what starts it, as its author wrote it; ``""`` if nothing is started.
        description: a line for people, from the file's docstring or label.
        virtual: it is carried out by the broker; no process runs for it.
        foreign: the definition in its file, for a participant that runs somewhere else.
        declares: the names that its file gives to the components in it.
        origin: where its command comes from: a configuration file, or the file itself.
    """

    name: str
    namespace: str = ""
    language: str = ""
    path: Path | None = None
    command: str = ""
    description: str = ""
    virtual: bool = False
    foreign: Foreign | None = None
    declares: tuple[str, ...] = ()
    origin: Path | None = None

    @property
    def client(self) -> bool:
        """Whether it is started by what runs our participants, or those of the Node.js client.

        These declare alike. A program of any other kind may declare in a way of its own.
        """
        program = PurePath(next(iter(self.command.split()), "")).name
        return program.startswith(_CLIENTS)

    @property
    def starts(self) -> bool:
        """Whether a process is started for it; if not, it is ready when it is announced."""
        return bool(self.command)


@dataclass(frozen=True)
class Source:
    """The code of a component.

    Attributes:
        name: without its namespace.
        library: its namespace, or ``""``.
        language: such as ``"python"``.
        code: the text of its file.
        path: its file.
        tests: the text of the suite of tests in ``spec/`` that is called like it; ``""``: none.
    """

    name: str
    library: str
    language: str
    code: str
    path: Path
    tests: str = ""


@dataclass
class _Shelf:
    """What was found at one reading; replaced as a whole by the next."""

    configuration: Configuration
    folders: tuple[Path, ...]
    handlers: dict[str, Template | None]
    components: dict[str, Component] = field(default_factory=dict)
    templates: dict[str, tuple[str, ...]] = field(default_factory=dict)
    declared: dict[str, list[str]] = field(default_factory=dict)
    unhandled: dict[str, Path] = field(default_factory=dict)
    problems: list[MsgFloError] = field(default_factory=list)


class Library:
    """The components of a project. Make one with :meth:`load`.

    It shows the files as they were at the last :meth:`load`, :meth:`refresh` or :meth:`write`.
    """

    def __init__(
        self,
        root: Path,
        component_dirs: Sequence[Path] | None,
        config: Path | None,
    ) -> None:
        self._root = root
        self._dirs = component_dirs
        self._config = config
        self._shelf = self._read()

    @classmethod
    def load(
        cls,
        root: Path,
        *,
        component_dirs: Sequence[Path] | None = None,
        config: Path | None = None,
    ) -> "Library":
        """Read the library of a project.

        Args:
            root: the project's folder. Commands start in it, and relative names of files mean it.
            component_dirs: the folders of components, instead of those that a configuration or
                the default (``components``, and ``participants`` if it exists) names. A folder
                that is not there is no error.
            config: the only configuration file to read; ``None``: the usual ones, as far as there.

        Raises:
            ConfigurationError: a configuration file cannot be understood.
        """
        return cls(root, component_dirs, config)

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self._root

    @property
    def namespace(self) -> str:
        """The first part of the names of the folder's components; ``""`` for none."""
        return self._shelf.configuration.namespace

    @property
    def repository(self) -> str:
        """Where the project's source lives, for people; ``""`` if nobody says."""
        return self._shelf.configuration.repository

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of components, whether or not they exist; new code goes into the first."""
        return self._shelf.folders

    @property
    def problems(self) -> tuple[MsgFloError, ...]:
        """What was passed over at the last reading, and why."""
        return tuple(self._shelf.problems)

    def refresh(self) -> None:
        """Read everything again.

        Raises:
            ConfigurationError: a configuration file cannot be understood; the library stays as it
                was.
        """
        self._shelf = self._read()

    def components(self) -> list[Component]:
        """Return every component, by name; the virtual ones are not among them."""
        return [component for _, component in sorted(self._shelf.components.items())]

    def get(self, name: str) -> Component:
        """Find the component that a graph means by a name.

        It is looked up as it is, then without its namespace, then in the library's own namespace,
        and at last among the names that files themselves give to the components in them.

        Returns:
            The component; for a virtual one, one that says so.

        Raises:
            UnknownComponent: there is none; the error says what is near and where was looked.
        """
        if name in VIRTUAL:
            return Component(name=name, namespace="msgflo", virtual=True, description=VIRTUAL[name])
        shelf = self._shelf
        tried = [name, name.rpartition("/")[2]]
        if "/" not in name and self.namespace:
            tried.append(f"{self.namespace}/{name}")
        for candidate in tried:
            found = shelf.components.get(candidate)
            if found is not None:
                return found
        holders = shelf.declared.get(name, [])
        if len(holders) == 1:
            return shelf.components[holders[0]]
        known = [*shelf.components, *shelf.declared, *VIRTUAL]
        namespace, slash, _ = name.rpartition("/")
        # A name without a namespace is found under any.
        known += [f"{namespace}/{base}" for base in shelf.components if slash and "/" not in base]
        raise UnknownComponent(name, known, self._hint(name, holders))

    def command(
        self, component: str, role: str, iips: Mapping[str, Any] | None = None
    ) -> Command | None:
        """Return what starts a participant.

        Args:
            component: its name, as a graph has it.
            role: the node of the graph.
            iips: initial packets by port, for commands with ``#IIPS``; JSON values.

        Returns:
            The command, to be run in the project's folder; ``None`` where nothing is to be
            started: the component is virtual, or runs somewhere else.

        Raises:
            UnknownComponent: there is no such component.
            InvalidName: the role is not safe to be given to a program.
        """
        found = self.get(component)
        words = self._shelf.templates.get(found.name)
        if words is None:
            return None
        name = found.name
        if found.path is not None and found.origin == found.path and self.namespace:
            # To a handler, a component of the folder is named without the library's namespace.
            name = name.removeprefix(f"{self.namespace}/")
        argv = fill(
            words,
            filename=str(self._as_given(found.path)) if found.path else "",
            component=name,
            role=role,
            iips=iips,
        )
        if words == PYTHON_RUNNER:
            argv = (*argv, *_which(found, component))
        root = self._root.absolute()
        return Command(argv, {"PATH": search_path(root), "PYTHONUNBUFFERED": "1"}, root)

    def source(self, name: str) -> Source:
        """Return a component's code.

        Raises:
            UnknownComponent: there is no such component.
            ComponentError: it has no file here, or the file cannot be read as text.
            InvalidName: its file leads out of its folder.
        """
        found = self.get(name)
        if found.path is None:
            why = "it has no process" if found.virtual else f"it is the command: {found.command}"
            raise ComponentError(f"component {found.name!r} has no source here; {why}")
        check_inside(found.path, found.path.parent)
        try:
            size = found.path.stat().st_size
            if size > _LARGEST:
                raise ComponentError(f"{found.path} has {size} bytes; expected at most {_LARGEST}")
            code = found.path.read_bytes().decode()
        except OSError as error:
            raise ComponentError(
                f"{found.path} cannot be read: {error.strerror or error}"
            ) from None
        except UnicodeDecodeError as error:
            raise ComponentError(f"{found.path} is not UTF-8: {error}") from None
        namespace, base = split_name(found.name)
        return Source(base, namespace, found.language, code, found.path, self._tests(base))

    def _tests(self, base: str) -> str:
        folder = self._root / "spec"
        for path in (folder / f"{base}.yaml", folder / f"{base}.yml"):
            with contextlib.suppress(ComponentError, OSError, UnicodeDecodeError):
                check_inside(path, folder)
                if path.stat().st_size <= _LARGEST:
                    return path.read_text("utf-8")
        return ""

    def write(self, name: str, language: str, code: str) -> Component:
        """Write a component's code: a new file, or over that of the component of this name.

        The file is replaced as a whole or not at all, and the folder is made if need be. The code
        is not judged: half-finished code is stored too, and reported in :attr:`problems`.

        Args:
            name: with the library's namespace or without; a library that has none takes any, and
                leaves it out.
            language: such as ``"python"``, or an extension without its dot.
            code: the text of the file.

        Raises:
            InvalidName: the name or the language is not safe to be that of a file.
            ComponentError: the component is of another language, is a configured command, nothing
                handles the language, or the file cannot be written.
        """
        namespace, base = split_name(name)
        check_basename(base)
        if name in VIRTUAL or self._named(base) in VIRTUAL:
            raise InvalidName(f"{name!r} is no process, and cannot be replaced by one")
        if name != base:
            check_basename(namespace)
        if namespace and self.namespace and namespace != self.namespace:
            raise InvalidName(
                f"{name!r} is in a namespace that is not this library's; "
                f"expected {self._named(base)!r}"
            )
        path = self._path_to_write(base, extension_of(language))
        _write_whole(path, code)
        shelf = self._shelf
        self._shelf = self._filled(shelf.configuration, shelf.folders, shelf.handlers)
        return self._shelf.components[self._named(base)]

    def _path_to_write(self, base: str, extension: str) -> Path:
        shelf = self._shelf
        existing = shelf.components.get(self._named(base)) or shelf.components.get(base)
        if existing is not None and existing.origin != existing.path:
            raise ComponentError(
                f"component {existing.name!r} is the command {existing.command!r} in "
                f"{existing.origin}; its code cannot be written here"
            )
        if extension not in shelf.handlers:
            known = ", ".join(sorted(shelf.handlers))
            raise ComponentError(
                f"nothing runs {extension} files (there are handlers for: {known}); "
                f"add one under handlers in the configuration"
            )
        folder = shelf.folders[0]
        path = folder / f"{base}{extension}"
        if existing is not None and existing.path is not None:
            same = LANGUAGES.get(existing.path.suffix.lower()) == LANGUAGES.get(extension, "")
            if not same and existing.path.suffix.lower() != extension:
                raise ComponentError(
                    f"component {existing.name!r} is written in {existing.language} "
                    f"({existing.path}); remove that file first"
                )
            path = existing.path
            folder = path.parent
        if path.is_symlink():
            check_inside(path, folder)
        return path

    def _as_given(self, path: Path) -> Path:
        # Commands start in the root, so that a file is named from there.
        try:
            return path.relative_to(self._root)
        except ValueError:
            return path.absolute()

    def _named(self, base: str) -> str:
        return f"{self.namespace}/{base}" if self.namespace else base

    def _hint(self, name: str, holders: Sequence[str]) -> str:
        shelf = self._shelf
        looked = [f"{folder}/" for folder in shelf.folders if folder.is_dir()]
        looked += [str(file) for file in shelf.configuration.files]
        hints = [f"Looked in: {', '.join(looked)}." if looked else self._nothing()]
        base = name.rpartition("/")[2]
        if base in shelf.unhandled:
            path = shelf.unhandled[base]
            hints.append(f"{path} is there, but nothing handles {path.suffix} files.")
        if holders:
            hints.append(f"Several files declare it: {', '.join(sorted(holders))}.")
        hints += [f"Passed over: {said}" for p in shelf.problems if base in (said := str(p))][:1]
        return " ".join(hints)

    def _nothing(self) -> str:
        folders = ", ".join(f"{folder}/" for folder in self._shelf.folders)
        return f"There is no folder {folders} and no configuration in {self._root}."

    def _read(self) -> _Shelf:
        configuration = read_configuration(self._root, self._config)
        handlers = {**HANDLERS, **configuration.handlers}
        if self._dirs is not None:
            folders = tuple(self._root / folder for folder in self._dirs)
        elif configuration.component_dirs is not None:
            folders = tuple(self._root / folder for folder in configuration.component_dirs)
        else:
            folders = (self._root / "components",)
            if (self._root / "participants").is_dir():
                folders = (*folders, self._root / "participants")
        return self._filled(configuration, folders or (self._root / "components",), handlers)

    def _filled(
        self,
        configuration: Configuration,
        folders: tuple[Path, ...],
        handlers: dict[str, Template | None],
    ) -> _Shelf:
        shelf = _Shelf(configuration, folders, handlers, problems=list(configuration.problems))
        for folder in folders:
            self._add_folder(shelf, folder)
        for name, template in configuration.components.items():
            self._add_command(shelf, name, template)
        for component in shelf.components.values():
            for declared in component.declares:
                shelf.declared.setdefault(declared, []).append(component.name)
        return shelf

    def _add_folder(self, shelf: _Shelf, folder: Path) -> None:
        try:
            paths = sorted(path for path in folder.iterdir() if path.is_file())
        except FileNotFoundError:
            return
        except OSError as error:
            shelf.problems.append(
                ConfigurationError(f"{folder} cannot be read: {error.strerror or error}")
            )
            return
        for path in paths:
            if not path.name.startswith((".", "_")):
                self._add_file(shelf, path)

    def _add_file(self, shelf: _Shelf, path: Path) -> None:
        extension = path.suffix.lower()
        if extension not in shelf.handlers:
            shelf.unhandled[path.stem] = path
            return
        try:
            name = self._name_of(shelf, path)
        except InvalidName as error:
            shelf.problems.append(InvalidName(f"{path} is passed over: {error}"))
            return
        before = shelf.components.get(name)
        if before is not None:
            shelf.problems.append(
                ConfigurationError(f"{path} is passed over: {name!r} is {before.path} already")
            )
            return
        template = shelf.handlers[extension]
        try:
            words = None
            if template is not None:
                words = words_of(template, shelf.configuration.variables)
        except ValueError as error:
            shelf.problems.append(
                ConfigurationError(f"{path} is passed over: its handler {template!r}: {error}")
            )
            return
        description, declares, foreign = self._look_into(shelf, path, started=words is not None)
        if words is not None:
            shelf.templates[name] = words
        shelf.components[name] = Component(
            name=name,
            namespace=split_name(name)[0],
            language=LANGUAGES.get(extension, extension.lstrip(".")),
            path=path,
            command=_shown(template),
            description=description,
            foreign=foreign,
            declares=declares,
            origin=path,
        )

    def _name_of(self, shelf: _Shelf, path: Path) -> str:
        namespace = shelf.configuration.namespace
        base = check_basename(path.stem)
        name = f"{namespace}/{base}" if namespace else base
        if name in VIRTUAL:
            raise InvalidName(f"{name!r} is no process, and cannot be replaced by one")
        return name

    def _look_into(
        self, shelf: _Shelf, path: Path, *, started: bool
    ) -> tuple[str, tuple[str, ...], Foreign | None]:
        """Return description, declared names and definition; what fails becomes a problem."""
        if path.suffix.lower() == ".py":
            try:
                return (*declared_in(path), None)
            except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
                shelf.problems.append(DefinitionError(python_problem(path, error)))
        elif path.suffix.lower() in {".yml", ".yaml"}:
            try:
                foreign = read_foreign(path)
            except DefinitionError as error:
                # A configured handler may read YAML of another kind.
                if not started:
                    shelf.problems.append(error)
            else:
                return foreign.label, (foreign.component,), None if started else foreign
        return "", (), None

    def _add_command(self, shelf: _Shelf, name: str, template: Template) -> None:
        origin = shelf.configuration.origins[name]
        where = f"{origin}, components, {name!r}"
        if name in VIRTUAL:
            shelf.problems.append(
                ConfigurationError(f"{where}: it is no process, and cannot be replaced by one")
            )
            return
        if not name or not name.isprintable():
            shelf.problems.append(ConfigurationError(f"{where}: is no name of a component"))
            return
        try:
            words = words_of(template, shelf.configuration.variables)
        except ValueError as error:
            shelf.problems.append(ConfigurationError(f"{where}: {_shown(template)!r}: {error}"))
            return
        # Known without the namespace in one place and with it in the other, it is still one.
        own = f"{shelf.configuration.namespace}/"
        for same in (name, name.removeprefix(own), own + name):
            file = shelf.components.get(same)
            if file is not None and file.origin == file.path:
                del shelf.components[same]
                shelf.templates.pop(same, None)
                break
        else:
            file = None
        shelf.templates[name] = words
        shelf.components[name] = Component(
            name=name,
            namespace=split_name(name)[0],
            language=file.language if file else "",
            path=file.path if file else None,
            command=_shown(template),
            description=file.description if file else "",
            declares=file.declares if file else (),
            origin=origin,
        )


def _shown(template: Template | None) -> str:
    if template is None:
        return ""
    return template if isinstance(template, str) else " ".join(template)


def _which(component: Component, asked: str) -> tuple[str, ...]:
    """Return what says which component of a Python file is meant, if there are several in it."""
    if len(component.declares) < 2:
        return ()
    base = component.name.rpartition("/")[2]
    for name in (asked, asked.rpartition("/")[2], base):
        for declared in component.declares:
            if name in (declared, declared.rpartition("/")[2]):
                return "--component", declared
    return ()


def _write_whole(path: Path, code: str) -> None:
    """Write a file so that a reader, or a power cut, meets the old text or the new one."""
    try:
        data = code.encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}"
        # Exclusive: never through a link that somebody left under this name.
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                with contextlib.suppress(FileNotFoundError):
                    os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ComponentError(f"{path} cannot be written: {error.strerror or error}") from None
    except UnicodeEncodeError as error:
        raise ComponentError(f"{path} cannot be written: its code is no text ({error})") from None
