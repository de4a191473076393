"""Where things are, from the environment: the same for every role, and different on every site."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What the variables ``WEBIMAGES_*`` say.

    Attributes:
        data: the folder for the image files and the SQLite database (``WEBIMAGES_DATA``, default
            ``.webimages`` in the current folder). On several machines, a folder that they share.
        database: ``sqlite:///PATH`` or ``postgresql://USER@HOST/NAME`` (``WEBIMAGES_DATABASE``,
            default: ``jobs.sqlite3`` in the data folder). May hold a password, and is not shown.
        host: the address that the web role listens on (``WEBIMAGES_HOST``, default 127.0.0.1).
        port: the port of the first instance; the second takes the next one, and so on
            (``WEBIMAGES_PORT``, default 8080; 0 is any free one).
        names: host names that the web role is reached by, besides localhost and plain addresses
            (``WEBIMAGES_NAMES``, such as ``images.example.org``; default: none).
        allow: addresses that may be fetched from although they are not public
            (``WEBIMAGES_ALLOW``, such as ``127.0.0.1:8000, 10.1.0.0/16``; default: none).
        resend: seconds after which an image of which nothing was heard is sent again
            (``WEBIMAGES_RESEND``, default 600).
    """

    data: Path
    database: str
    host: str = "127.0.0.1"
    port: int = 8080
    names: frozenset[str] = frozenset()
    allow: str = ""
    resend: float = 600.0

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings, and make the data folder.

        Raises:
            ValueError: a variable does not hold what it should.
            OSError: the data folder cannot be made.
        """
        data = Path(environment.get("WEBIMAGES_DATA") or ".webimages").resolve()
        data.mkdir(parents=True, exist_ok=True)
        ignore = data / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        return cls(
            data=data,
            database=environment.get("WEBIMAGES_DATABASE") or f"sqlite:///{data / 'jobs.sqlite3'}",
            host=environment.get("WEBIMAGES_HOST") or "127.0.0.1",
            port=int(_number(environment, "WEBIMAGES_PORT", 8080, 65535)),
            names=frozenset(
                environment.get("WEBIMAGES_NAMES", "").lower().replace(",", " ").split()
            ),
            allow=environment.get("WEBIMAGES_ALLOW", ""),
            resend=_number(environment, "WEBIMAGES_RESEND", 600, 7 * 86400),
        )

    def __repr__(self) -> str:
        return f"<Settings data={str(self.data)!r}>"


def _number(environment: Mapping[str, str], name: str, default: float, most: float) -> float:
    text = environment.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise ValueError(f"{name} is {text!r}; expected a number from 0 to {most:g}")
    return value
