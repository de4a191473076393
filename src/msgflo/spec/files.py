"""The files that suites are in."""

import urllib.request
from collections.abc import Iterable
from pathlib import Path

from msgflo.errors import SpecError
from msgflo.spec.suite import Suite, parse_suites

__all__ = ["SUFFIXES", "load_suites", "suite_files"]

SUFFIXES = (".yaml", ".yml")

_LARGEST = 16 * 1024 * 1024
_PATIENCE = 30.0


def suite_files(folder: Path) -> list[Path]:
    """Return the files of a folder that may be suites, by name; none if there is no folder.

    Folders in it are not looked into.
    """
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())


def load_suites(*names: str) -> list[Suite]:
    """Read suites from files, folders and ``http(s)://`` addresses, in this order.

    Of a folder that has none, the folder ``spec`` in it is meant.

    Raises:
        SpecError: one of them cannot be read, or is no suite; or a folder has none.
    """
    return [suite for name in names for suite in _load(name)]


def _load(name: str) -> Iterable[Suite]:
    if name.startswith(("http://", "https://")):
        return parse_suites(_fetch(name), name)
    path = Path(name)
    if path.is_dir():
        files = suite_files(path) or suite_files(path / "spec")
        if not files:
            raise SpecError(
                f"there are no suites in {path}; expected files *.yaml or *.yml in it, or in its "
                f"folder spec"
            )
        return [suite for file in files for suite in parse_suites(_read(file), str(file))]
    return parse_suites(_read(path), name)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise SpecError(f"{path} is larger than {_LARGEST} bytes; expected a suite")
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8: {error}") from None


def _fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:  # noqa: S310 - http(s) only
            found: bytes = answer.read(_LARGEST)
        return found.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise SpecError(f"cannot read {url}: {error}") from None
