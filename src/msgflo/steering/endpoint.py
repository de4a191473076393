"""Where a runtime listens and what opens it, written down for its owner's commands.

The file is ``.msgflo/endpoint.json`` of the project, readable by its owner alone. The secret in it
was made up for this run: none that somebody has chosen is written anywhere.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from msgflo.errors import ConfigurationError
from msgflo.project import STATE, state_folder, write_atomically
from msgflo.protocol.access import Level

__all__ = ["Endpoint", "forget_endpoint", "read_endpoint", "read_secrets", "write_endpoint"]

_FILE = "endpoint.json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a runtime listens.

    Attributes:
        address: a WebSocket URL.
        id: the runtime's.
        pid: its process.
        secret: what opens all of it; ``""``: no secret is needed.
        broker: the URL of the broker that it was told to use, with its password; ``""``: it has
            one of its own.
    """

    address: str
    id: str
    pid: int
    secret: str = ""
    broker: str = ""

    @property
    def alive(self) -> bool:
        """Whether its process is there, as far as can be told."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # it is somebody else's
        return True


def write_endpoint(root: Path, endpoint: Endpoint) -> None:
    """Write down where the runtime of a project listens.

    Raises:
        ConfigurationError: it cannot be written.
    """
    file = state_folder(root) / _FILE
    try:
        # A new file belongs to its owner alone; one that is there would keep its mode.
        file.unlink(missing_ok=True)
        write_atomically(file, f"{json.dumps(asdict(endpoint))}\n".encode())
    except OSError as error:
        raise ConfigurationError(f"cannot write {file}: {error.strerror or error}") from None


def read_endpoint(root: Path) -> Endpoint | None:
    """Return where the runtime of a project listens; ``None``: nobody has written it down.

    What a run that was killed has left behind is returned too: see :attr:`Endpoint.alive`.
    """
    try:
        found = json.loads((root / STATE / _FILE).read_text())
        return Endpoint(
            str(found["address"]),
            str(found["id"]),
            int(found["pid"]),
            str(found["secret"]),
            str(found.get("broker", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def forget_endpoint(root: Path, endpoint: Endpoint) -> None:
    """Take back what :func:`write_endpoint` has written, unless somebody else has since."""
    if read_endpoint(root) == endpoint:
        with contextlib.suppress(OSError):
            (root / STATE / _FILE).unlink(missing_ok=True)


def read_secrets(
    file: Path | None, environment: Mapping[str, str], given: str = ""
) -> dict[str, Level]:
    """Return the secrets of a runtime, and what each opens.

    ``MSGFLO_SECRET`` opens all; ``MSGFLO_SECRET_REWIRE`` all but code; ``MSGFLO_SECRET_READ``
    looking. A file has one on each line, behind its level: ``read abc``, ``rewire def``, ``code
    ghi``; or one alone, which opens all. A line that begins with ``#`` is a comment.

    Raises:
        ConfigurationError: the file cannot be read, or a line is none of these.
    """
    secrets: dict[str, Level] = {given: Level.CODE} if given else {}
    for name, level in (
        ("MSGFLO_SECRET", Level.CODE),
        ("MSGFLO_SECRET_REWIRE", Level.REWIRE),
        ("MSGFLO_SECRET_READ", Level.READ),
    ):
        if environment.get(name):
            secrets.setdefault(environment[name], level)
    if file is None:
        return secrets
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the secrets in {file}: {error}") from None
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        named = words[0].upper() if len(words) == 2 else "CODE"
        if len(words) > 2 or named not in ("READ", "REWIRE", "CODE"):
            raise ConfigurationError(
                f"{file}:{number}: expected a level (read, rewire, code) and a secret, or a secret"
            )
        secrets[words[-1]] = Level[named]
    return secrets
