"""A Python file, and the components that are in it."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from msgflo.declaration import Declaration, declared
from msgflo.errors import ComponentError, ConfigurationError, DefinitionError, UnknownComponent

__all__ = ["choose", "find", "is_loading", "load_components", "load_file", "reference"]

_PREFIX = "msgflo_file_"

_loading = threading.local()


def is_loading() -> str:
    """Return the file that is being loaded in this thread; ``""``: none."""
    path: str = getattr(_loading, "path", "")
    return path


def load_file(path: str | Path) -> ModuleType:
    """Import a Python file under a name of its own, its folder on the path for its imports.

    The name is not ``__main__``, so what a file does as a program it does not do here. A file that
    was loaded before is not loaded again.

    Raises:
        ConfigurationError: there is no such file, or it is no Python file.
        Exception: whatever importing it raises.
    """
    file = Path(path).absolute()
    if not file.is_file():
        raise ConfigurationError(f"there is no file {str(path)!r}; expected a Python file")
    digest = hashlib.blake2b(str(file).encode(), digest_size=6).hexdigest()
    name = f"{_PREFIX}{''.join(c if c.isalnum() else '_' for c in file.stem)}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    folder = str(file.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(
        name, file, loader=importlib.machinery.SourceFileLoader(name, str(file))
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where type hints and dataclasses of the file look for its names.
    sys.modules[name] = module
    outer = is_loading()
    _loading.path = str(path)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        _loading.path = outer
    return module


def load_components(path: str | Path) -> list[Any]:
    """Import a Python file and return the components that it defines, in their order.

    Those are decorated functions, subclasses of Component and of the classic Participant, and
    objects of such classes. What it imports from elsewhere is not its own, and a class is left out
    of which another one, or an object, is there: that is what is meant.

    Raises:
        ConfigurationError: there is no such file.
        DefinitionError: one of them is wrong.
        Exception: whatever importing it raises.
    """
    module = load_file(path)
    found: dict[int, Any] = {}
    for value in vars(module).values():
        if getattr(value, "__msgflo__", None) is None:
            continue
        owner = value if isinstance(value, type) or inspect.isfunction(value) else type(value)
        if owner.__module__ == module.__name__:
            found[id(value)] = value
    things = list(found.values())

    def is_meant(thing: Any) -> bool:
        return not isinstance(thing, type) or not any(
            other is not thing
            and issubclass(other if isinstance(other, type) else type(other), thing)
            for other in things
        )

    return [thing for thing in things if is_meant(thing)]


def choose(things: Sequence[Any], path: str | Path, name: str = "") -> Any:
    """Return the one component of a file that is meant.

    Args:
        things: what :func:`load_components` returned.
        path: the file, for the error message.
        name: the component's name, or that of the function or class; ``""``: the only one.

    Raises:
        UnknownComponent: none has this name.
        ComponentError: there is none at all, or there are several and no name.
    """
    if not things:
        raise ComponentError(
            f"{path} defines no component; expected a function decorated with @msgflo.component or "
            f"@msgflo.source, or a class made from msgflo.Component or msgflo.Participant"
        )
    if name:
        return find(things, name, str(path))
    if len(things) > 1:
        raise ComponentError(
            f"{path} defines several components: {', '.join(_name(thing) for thing in things)}; "
            f"say which one with --component"
        )
    return things[0]


def find(things: Sequence[Any], name: str, where: str = "") -> Any:
    """Return the component of this name, or the function or class of this name.

    Raises:
        UnknownComponent: there is none.
    """
    for key in (_component, _name):
        for thing in things:
            if key(thing) == name:
                return thing
    raise UnknownComponent(
        name,
        [known for thing in things for known in (_component(thing), _name(thing)) if known],
        f"(looked in {where})" if where else "",
    )


def _component(thing: Any) -> str:
    try:
        found: Declaration = declared(thing)
    except DefinitionError:
        return ""
    return found.component


def _name(thing: Any) -> str:
    name: str = getattr(thing, "__name__", type(thing).__name__)
    return name


def reference(function: Callable[..., Any]) -> tuple[str, str, str]:
    """Return how another process finds a function: its module or else its file, and its name.

    Raises:
        DefinitionError: it cannot be found by name.
    """
    module = sys.modules.get(function.__module__)
    name = function.__qualname__
    here: Any = module
    for part in name.split("."):
        here = getattr(here, part, None)
    if here is not function:
        raise DefinitionError(
            f"{function.__module__}.{name} cannot be found by its name, which executor='process' "
            f"needs; expected a function at the top level of its file"
        )
    assert module is not None
    spec = getattr(module, "__spec__", None)
    if module.__name__ == "__main__" and spec is not None:
        return spec.name, "", name
    if module.__name__ == "__main__" or module.__name__.startswith(_PREFIX):
        return "", str(Path(module.__file__ or "").absolute()), name
    return module.__name__, "", name


def resolve(module: str, file: str, name: str) -> Any:
    """Return what :func:`reference` named, in this process."""
    here: Any = importlib.import_module(module) if module else load_file(file)
    for part in name.split("."):
        here = getattr(here, part)
    return here
