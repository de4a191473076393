"""The files of a project that a Python file is made of: itself, and what it imports of its own."""

import ast
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

__all__ = ["files_of"]

MOST = 1000
"""So many files are looked at, of one component."""


def files_of(path: Path, root: Path) -> set[Path]:
    """Return a Python file and the files that it imports, and they, as far as they are in ``root``.

    Nothing is run. Imports inside functions count too; what is imported by a name that is made up
    at run time is not seen. Of a file that cannot be understood, only the file itself is known.

    Args:
        path: the file; its folder is where its imports are looked for first.
        root: the project's folder, where they are looked for next.
    """
    folders = (path.parent, root)
    found: set[Path] = set()
    ahead = [path]
    while ahead and len(found) < MOST:
        file = ahead.pop()
        if file not in found and file.is_file():
            found.add(file)
            ahead += _imported(file, folders)
    return found


def _imported(file: Path, folders: Sequence[Path]) -> Iterator[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _modules(alias.name, folders)
        elif isinstance(node, ast.ImportFrom):
            where: Iterable[Path] = folders
            if node.level:
                folder = file.parent
                for _ in range(node.level - 1):
                    folder = folder.parent
                where = (folder,)
            for alias in node.names:
                yield from _modules(".".join(filter(None, (node.module, alias.name))), where)


def _modules(name: str, folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the files that are loaded for a dotted name, whose last part may be no module."""
    parts = name.split(".")
    for folder in folders:
        here = folder
        known = False
        for part in parts:
            package, module = here / part / "__init__.py", here / f"{part}.py"
            if package.is_file():
                yield package
                known = True
            elif module.is_file():
                yield module
                known = True
                break
            elif not (here / part).is_dir():
                break
            here = here / part
        if known:
            return
