"""What the files of a project say of its components.

Three files in the root folder are read, as far as they are there: ``package.json`` (its key
``msgflo``; its ``name`` and ``repository`` count too, as existing projects rely on),
``pyproject.toml`` (its table ``tool.msgflo``) and ``msgflo.json``. **Where two say something
different, the one that is more about MsgFlo wins: msgflo.json over pyproject.toml over
package.json.** Components, variables and handlers are taken together name by name, and a name that
two files give differently is reported as a problem. A file that is named explicitly is the only one
read; its settings may then be at its top level too.

The keys, each of them optional::

    [tool.msgflo]
    namespace = "images"              # default: the project's name
    repository = "https://..."        # default: the project's
    component-dirs = ["components"]   # default: components, and participants if it exists
    [tool.msgflo.components]          # a name and the command that starts it
    "images/Resize" = "python -m resize #ROLE"
    Crop = ["./crop", "--role", "#ROLE"]      # or its words, which are not split
    [tool.msgflo.variables]
    NOFLO = "noflo-runtime-msgflo --name #ROLE --graph #COMPONENT"
    [tool.msgflo.handlers]            # a command for each file of an extension
    ".rs" = "cargo run --bin #COMPONENTNAME #ROLE"
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgflo.errors import ConfigurationError, MsgFloError, near
from msgflo.processes.command import Template

__all__ = ["FILES", "Configuration", "read_configuration"]

FILES = ("package.json", "pyproject.toml", "msgflo.json")
"""The files that are read; a later one wins over an earlier one."""

KEYS = (
    "namespace",
    "repository",
    "component-dirs",
    "components",
    "variables",
    "handlers",
)

_LARGEST = 4 * 1024 * 1024


@dataclass
class Configuration:
    """What was read, in the order in which the files have it.

    Attributes:
        namespace: the first part of the names of the folder's components; ``""`` for none.
        repository: where the source lives, for people; ``""`` if nobody says.
        component_dirs: the folders of components; ``None``: nobody says.
        components: names and the templates of their commands.
        variables: names and texts, for the templates.
        handlers: extensions, with their dot and in lower case, and templates.
        origins: which file a component's command comes from.
        files: the files that had something to say.
        problems: what was passed over, and why.
    """

    namespace: str = ""
    repository: str = ""
    component_dirs: tuple[str, ...] | None = None
    components: dict[str, Template] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    handlers: dict[str, Template] = field(default_factory=dict)
    origins: dict[str, Path] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    problems: list[MsgFloError] = field(default_factory=list)


def read_configuration(root: Path, explicit: Path | None = None) -> Configuration:
    """Read what the files of a folder say, or what one file says.

    Args:
        root: the project's folder.
        explicit: the only file to read, relative to ``root`` or absolute; it must be there.

    Raises:
        ConfigurationError: a file cannot be read or understood, or one of its keys has the wrong
            type. A single component, variable or handler that is wrong is left out and reported in
            ``problems`` instead.
    """
    read = Configuration()
    if explicit is not None:
        path = root / explicit
        if not path.is_file():
            raise ConfigurationError(f"{path} is no file; expected a library configuration")
        _take(read, path, _load(path), explicit=True)
        return read
    for name in FILES:
        path = root / name
        if path.is_file():
            _take(read, path, _load(path), explicit=False)
    return read


def _load(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise ConfigurationError(
                f"{path} has {path.stat().st_size} bytes; expected at most {_LARGEST}"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        text = data.decode("utf-8-sig")
        loaded = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8: {error}") from None
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from None
    except RecursionError:
        raise ConfigurationError(f"{path} is nested too deeply") from None
    if not isinstance(loaded, dict):
        raise ConfigurationError(f"{path} holds {_kind(loaded)}; expected an object")
    return loaded


def _take(read: Configuration, path: Path, loaded: Mapping[str, Any], *, explicit: bool) -> None:
    project: Mapping[str, Any] = {}
    judged = True
    if path.suffix == ".toml":
        tool = loaded.get("tool")
        settings = tool.get("msgflo") if isinstance(tool, dict) else None
        if settings is None and explicit and path.name != "pyproject.toml":
            settings = loaded
        if settings is None:
            # A Python project that says nothing of MsgFlo: its name is no namespace.
            return
        found = loaded.get("project")
        project = found if isinstance(found, dict) else {}
    else:
        project = loaded
        settings = loaded.get("msgflo")
        if settings is None and (explicit or path.name == "msgflo.json"):
            settings = loaded
            # At the top level of a package.json, most keys are others' business.
            judged = path.name == "msgflo.json"
    where = f"{path}, [tool.msgflo]" if path.suffix == ".toml" else f"{path}, msgflo"
    if settings is loaded:
        where = str(path)
    if settings is not None and not isinstance(settings, dict):
        raise ConfigurationError(f"{where}: holds {_kind(settings)}; expected an object")
    read.files.append(path)
    namespace = _text(settings or {}, "namespace", where)
    if namespace is None:
        name = project.get("name")
        # The scope of an npm package ("@scope/name") is no part of its components' names.
        namespace = name.rpartition("/")[2] if isinstance(name, str) else None
    if namespace is not None:
        read.namespace = _namespace(namespace, where)
    repository = _text(settings or {}, "repository", where, optional=True) or _repository(project)
    if repository:
        read.repository = repository
    if settings is None:
        return
    if judged:
        _misspelt_keys(read, settings, where)
    folders = settings.get("component-dirs")
    if folders is not None:
        read.component_dirs = _folders(folders, where)
    _take_components(read, settings, path, where)
    _take_variables(read, settings, where)
    _take_handlers(read, settings, where)


def _take_components(
    read: Configuration, settings: Mapping[str, Any], path: Path, where: str
) -> None:
    for name, value in _table(settings, "components", where).items():
        template = _template(read, value, f"{where}, components, {name!r}")
        if template is None:
            continue
        if read.components.get(name, template) != template:
            read.problems.append(
                ConfigurationError(
                    f"{where}: component {name!r} has another command in {read.origins[name]}; "
                    f"this one is taken"
                )
            )
        read.components[name] = template
        read.origins[name] = path


def _take_variables(read: Configuration, settings: Mapping[str, Any], where: str) -> None:
    for name, value in _table(settings, "variables", where).items():
        if not isinstance(value, str):
            read.problems.append(
                ConfigurationError(
                    f"{where}, variables, {name!r}: holds {_kind(value)}; expected a text"
                )
            )
        elif not name:
            read.problems.append(ConfigurationError(f"{where}: a variable has no name"))
        else:
            if read.variables.get(name, value) != value:
                read.problems.append(
                    ConfigurationError(
                        f"{where}: variable {name!r} has another text in a file before; "
                        f"this one is taken"
                    )
                )
            read.variables[name] = value


def _take_handlers(read: Configuration, settings: Mapping[str, Any], where: str) -> None:
    for extension, value in _table(settings, "handlers", where).items():
        if not extension.startswith(".") or len(extension) < 2 or "/" in extension:
            read.problems.append(
                ConfigurationError(
                    f"{where}, handlers: {extension!r} is no extension; "
                    f"expected one with its dot, such as '.py'"
                )
            )
            continue
        template = _template(read, value, f"{where}, handlers, {extension!r}")
        if template is not None:
            read.handlers[extension.lower()] = template


def _misspelt_keys(read: Configuration, settings: Mapping[str, Any], where: str) -> None:
    # Other parts of MsgFlo, and other tools, may have keys in the same place: a key that is like
    # none of ours is theirs.
    for key in settings:
        if key not in KEYS and (meant := near(key, KEYS)):
            read.problems.append(ConfigurationError(f"{where}: unknown key {key!r}.{meant}"))


def _template(read: Configuration, value: Any, where: str) -> Template | None:
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return tuple(value)
    problem = "is empty" if value in ("", []) else f"holds {_kind(value)}"
    read.problems.append(
        ConfigurationError(f"{where}: {problem}; expected a command, as a text or a list of words")
    )
    return None


def _table(settings: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = settings.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where}, {key}: holds {_kind(value)}; expected an object")
    return value


def _text(
    settings: Mapping[str, Any], key: str, where: str, *, optional: bool = False
) -> str | None:
    value = settings.get(key)
    if value is None or isinstance(value, str):
        return value
    if optional:
        return None
    raise ConfigurationError(f"{where}, {key}: holds {_kind(value)}; expected a text")


def _repository(project: Mapping[str, Any]) -> str:
    value = project.get("repository")
    if isinstance(value, dict):
        value = value.get("url")
    if value is None and isinstance(urls := project.get("urls"), dict):
        value = next((urls[key] for key in urls if key.lower() in {"repository", "source"}), None)
    return value if isinstance(value, str) else ""


def _namespace(namespace: str, where: str) -> str:
    if "/" in namespace or not namespace.isprintable():
        raise ConfigurationError(
            f"{where}, namespace: {namespace!r} cannot be the first part of a name; "
            f"expected a text without '/'"
        )
    return namespace


def _folders(value: Any, where: str) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(f, str) and f for f in listed):
        raise ConfigurationError(
            f"{where}, component-dirs: holds {_kind(value)}; expected a folder or a list of folders"
        )
    return tuple(listed)


def _kind(value: Any) -> str:
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
