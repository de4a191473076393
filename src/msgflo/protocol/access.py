"""Who may do what: secrets and what they open, and which web pages may connect. Pure."""

import hmac
import ipaddress
from collections.abc import Collection, Mapping
from enum import IntEnum
from urllib.parse import urlsplit

__all__ = ["Access", "Level", "is_loopback", "may_connect"]


class Level(IntEnum):
    """What a client may do. Each level includes those before it."""

    NONE = 0
    READ = 1
    REWIRE = 2
    CODE = 3

    def __str__(self) -> str:
        return self.name.lower()


class Access:
    """The secrets of a runtime.

    Args:
        secrets: what each secret opens; none: everybody may do everything, which is for runtimes
            that listen on loopback alone.
    """

    def __init__(self, secrets: Mapping[str, Level] | None = None) -> None:
        self._secrets = dict(secrets or {})

    @property
    def guarded(self) -> bool:
        """Whether a secret is needed."""
        return bool(self._secrets)

    def level(self, secret: str) -> Level:
        """Return what a secret opens. How long that takes tells nothing about the secrets."""
        if not self._secrets:
            return Level.CODE
        shown = secret.encode("utf-8", "surrogatepass")
        found = Level.NONE
        for known, level in self._secrets.items():
            if hmac.compare_digest(shown, known.encode("utf-8", "surrogatepass")):
                found = max(found, level)
        return found


def may_connect(
    origin: str | None, host: str | None, listening: str, allowed: Collection[str] = ()
) -> bool:
    """Tell whether a web page may connect. Programs that are no browsers say no origin.

    A page from anywhere could otherwise reach a runtime on the loopback of whoever looks at it.

    Args:
        origin: the header Origin, if there is one.
        host: the header Host.
        listening: the address that the server listens at.
        allowed: origins that may, such as ``https://app.flowhub.io``; ``*``: all.
    """
    if is_loopback(listening) and not is_loopback(_hostname(f"//{host}") if host else ""):
        return False  # some other name that leads here: a page plays with the name service
    if origin is None or "*" in allowed or origin.rstrip("/") in allowed:
        return True
    page = _hostname(origin)
    if is_loopback(listening):
        return is_loopback(page)
    return bool(host) and urlsplit(origin).netloc.lower() == (host or "").lower()


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Tell whether a host's name or address means this machine alone."""
    if host.lower() in {"localhost", "ip6-localhost"} or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
