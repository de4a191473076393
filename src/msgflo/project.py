"""A project: the folder that a network lives in, and the files that MsgFlo keeps there.

::

    my-project/
      pyproject.toml     [tool.msgflo], or msgflo.json, or package.json with the key msgflo
      components/        one file, one component
      graphs/main.fbp
      .msgflo/           what a run leaves behind: the embedded broker's store, what was bound
"""

import contextlib
import os
import tempfile
from pathlib import Path

from msgflo.errors import ConfigurationError, GraphError
from msgflo.flow.graph import Graph
from msgflo.flow.text import dump, parse

__all__ = ["STATE", "find_root", "load_graph", "save_graph", "state_folder", "write_atomically"]

STATE = ".msgflo"
"""The folder for what a run leaves behind; nothing in it is worth committing."""

_SIGNS = ("msgflo.json", "components", "participants", "pyproject.toml", "package.json", STATE)


def find_root(start: Path) -> Path:
    """Return the project's folder for a graph file or a folder.

    It is the nearest folder, from there upwards to at most two levels, that holds a components
    folder, a configuration file or an earlier run; without any, the folder itself. (Graphs are
    usually in the project's folder or in ``graphs/`` below it; what lies further up is somebody
    else's.)
    """
    folder = start.absolute()
    if not folder.is_dir():
        folder = folder.parent
    for candidate in (folder, *folder.parents[:2]):
        if any((candidate / sign).exists() for sign in _SIGNS):
            return candidate
    return folder


def state_folder(root: Path) -> Path:
    """Return the folder for what a run leaves behind, made where it is missing.

    Raises:
        ConfigurationError: it cannot be made or written to.
    """
    folder = root / STATE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "it is not writable")
        ignore = folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
    except OSError as error:
        raise ConfigurationError(
            f"cannot keep state in {folder}: {error.strerror or error}; "
            f"choose another folder with --project"
        ) from None
    return folder


def load_graph(path: Path) -> Graph:
    """Read a graph file, ``.fbp`` or ``.json``.

    Raises:
        GraphError: it is not there, cannot be read, or is not a graph (with line and column).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise GraphError(f"there is no graph file {path}.{_beside(path)}") from None
    except IsADirectoryError:
        raise GraphError(f"{path} is a folder; expected a graph file.{_graphs_in(path)}") from None
    except UnicodeDecodeError as error:
        raise GraphError(
            f"{path} is not text in UTF-8 (byte {error.start} is {error.object[error.start]:#04x})"
        ) from None
    except OSError as error:
        raise GraphError(f"cannot read {path}: {error.strerror}") from None
    return parse(text, str(path))


def save_graph(graph: Graph, path: Path) -> None:
    """Write a graph file in a stable order, so that whoever reads it sees it whole.

    Raises:
        GraphError: the language cannot say it, or the file cannot be written.
    """
    text = dump(graph, str(path))
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise GraphError(f"cannot write {path}: {error.strerror}") from None


def write_atomically(file: Path, data: bytes) -> None:
    """Replace a file so that whoever reads it sees the old content or the new, whole.

    The folder must be there; the mode of a file that is there is kept.

    Raises:
        OSError: nothing was changed.
    """
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileNotFoundError):
            Path(name).chmod(file.stat().st_mode & 0o7777)
        Path(name).replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _beside(path: Path) -> str:
    return _graphs_in(path.parent) if path.parent.is_dir() else ""


def _graphs_in(folder: Path) -> str:
    found = sorted(p.name for p in folder.iterdir() if p.suffix in {".fbp", ".json"})[:8]
    return f" Graphs there: {', '.join(found)}" if found else ""
