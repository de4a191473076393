"""Names of components: which are safe to become a file's, and which a file declares itself."""

import ast
import re
from pathlib import Path

from msgflo.errors import InvalidName

__all__ = [
    "EXTENSIONS",
    "LANGUAGES",
    "check_basename",
    "check_inside",
    "extension_of",
    "split_name",
]

LANGUAGES = {
    ".py": "python",
    ".coffee": "coffeescript",
    ".js": "javascript",
    ".cpp": "c++",
    ".rs": "rust",
    ".yml": "yaml",
    ".yaml": "yaml",
    ".json": "json",
    ".fbp": "fbp",
}
"""The language of a file, as protocol clients call it, by its extension."""

EXTENSIONS = {
    "python": ".py",
    "coffeescript": ".coffee",
    "javascript": ".js",
    "c++": ".cpp",
    "rust": ".rs",
    "yaml": ".yml",
}
"""The extension of a new file by its language; any other language is its own extension."""

_BASENAME = re.compile(r"[^\W_][\w.+-]*")
# What makes a component of a function or a class, whatever the module is called there.
_DECORATORS = frozenset({"component", "source"})
_BASES = frozenset({"Component", "Participant"})
_EXTENSION = re.compile(r"[a-z0-9+]{1,16}")
# Devices of Windows, which shares and archives of a checkout may meet, with any extension.
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul"}
    | {f"{device}{number}" for device in ("com", "lpt") for number in range(1, 10)}
)
# File systems allow 255 bytes; room is left for an extension and for the temporary file's suffix.
_LONGEST = 180


def split_name(name: str) -> tuple[str, str]:
    """Split a component's name at its first ``/`` into namespace (or ``""``) and the rest."""
    namespace, slash, rest = name.partition("/")
    return (namespace, rest) if slash else ("", name)


def check_basename(name: str) -> str:
    """Return a component's name without namespace, if it can be that of a file.

    Letters, digits, ``_``, ``-``, ``+`` and ``.`` are allowed, with a letter or digit first.

    Raises:
        InvalidName: saying what of it is not safe.
    """
    if not name:
        raise InvalidName("a component has no name; expected a text that is not empty")
    if "\0" in name:
        raise InvalidName(f"{name!r} is no name of a component: it holds a NUL character")
    if "/" in name or "\\" in name:
        raise InvalidName(
            f"{name!r} is no name of a component: it would lead to another folder; "
            f"expected a name, or a namespace, one '/', and a name"
        )
    if name[0] in ".-_":
        raise InvalidName(
            f"{name!r} is no name of a component: it begins with {name[0]!r}; "
            f"expected a letter or a digit first"
        )
    if not _BASENAME.fullmatch(name) or name.endswith("."):
        raise InvalidName(
            f"{name!r} is no name of a component: expected letters, digits, '_', '-', '+' and '.', "
            f"and no '.' at the end"
        )
    if name.partition(".")[0].casefold() in _RESERVED:
        raise InvalidName(f"{name!r} is no name of a component: it is reserved by the system")
    if len(name.encode()) > _LONGEST:
        raise InvalidName(
            f"{name[:40]!r}... is no name of a component: it has {len(name.encode())} bytes, "
            f"at most {_LONGEST} can be stored"
        )
    return name


def extension_of(language: str) -> str:
    """Return the extension of a new file in a language, such as ``".py"`` for ``"python"``.

    Raises:
        InvalidName: the language could not be an extension.
    """
    folded = language.casefold()
    known = EXTENSIONS.get(folded)
    if known is not None:
        return known
    if not _EXTENSION.fullmatch(folded):
        raise InvalidName(
            f"{language!r} is no language: expected one of {', '.join(EXTENSIONS)}, "
            f"or an extension without its dot"
        )
    return f".{folded}"


def check_inside(path: Path, folder: Path) -> None:
    """Make sure that a file, symbolic links followed, is in a folder.

    Raises:
        InvalidName: it is not.
    """
    real = path.resolve()
    if real.parent != folder.resolve():
        raise InvalidName(f"{path} leads out of its folder, to {real}: it is not touched")


def declared_in(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return what a Python file says of itself, without running it.

    Returns:
        The first line of its docstring, or of its first component's; and the names of its
        components: what ``@msgflo.component("images/Resize")`` says, or else the name of the
        function or class.

    Raises:
        OSError: it cannot be read.
        SyntaxError: it is not Python. Strange input may raise ValueError, RecursionError or
            MemoryError too.
    """
    tree = ast.parse(path.read_bytes(), str(path))
    declared = []
    lines = [ast.get_docstring(tree)]
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        name = next((_said(d) for d in node.decorator_list if _called(d) in _DECORATORS), None)
        bases = node.bases if isinstance(node, ast.ClassDef) else []
        if name is None and any(_called(base) in _BASES for base in bases):
            name = ""
        if name is not None:
            declared.append(name or node.name)
            lines.append(ast.get_docstring(node))
    described = next((line.strip().splitlines()[0] for line in lines if line and line.strip()), "")
    return described, tuple(declared)


def _called(expression: ast.expr) -> str:
    """Return the last part of what is named or called, such as ``component``."""
    named = expression.func if isinstance(expression, ast.Call) else expression
    if isinstance(named, ast.Attribute):
        return named.attr
    return named.id if isinstance(named, ast.Name) else ""


def _said(decorator: ast.expr) -> str:
    """Return the name that a decorator is given, or ``""``."""
    if isinstance(decorator, ast.Call):
        named = [keyword.value for keyword in decorator.keywords if keyword.arg == "name"]
        for said in [*decorator.args[:1], *named]:
            if isinstance(said, ast.Constant) and isinstance(said.value, str):
                return said.value
    return ""


def python_problem(path: Path, error: BaseException) -> str:
    """Return a sentence for what :func:`declared_in` raised."""
    if isinstance(error, SyntaxError):
        return f"{path}:{error.lineno or 1}:{error.offset or 1}: not Python: {error.msg}"
    if isinstance(error, OSError):
        return f"{path} cannot be read: {error.strerror or error}"
    return f"{path}: not Python: {error}"
