"""What a participant writes for people to read: lines that say which participant it was.

A participant's standard error stays empty until it has said on standard output that it runs:
whoever started it takes an earlier line there for a failure. So a program's log is held back until
then, and written at once if it fails to start.
"""

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

__all__ = ["HeldHandler", "ParticipantLog", "configure"]


class ParticipantLog(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines start with ``role.instance``; in records as ``role``, ``instance``."""

    def __init__(self, role: str, instance: int) -> None:
        super().__init__(
            logging.getLogger("msgflo.component"), {"role": role, "instance": instance}
        )
        self._head = f"{role}.{instance}"

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Put role and instance before the text."""
        given = kwargs.get("extra")
        kwargs["extra"] = {**(self.extra or {}), **(given if isinstance(given, Mapping) else {})}
        return f"{self._head}: {msg}", kwargs


class HeldHandler(logging.StreamHandler[Any]):
    """Writes to standard error, but keeps everything back until :meth:`let_go`."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._held: list[logging.LogRecord] | None = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or keep it."""
        if self._held is None:
            super().emit(record)
        else:
            self._held.append(record)

    def let_go(self) -> None:
        """Write what was kept, and keep nothing from now on. Idempotent."""
        self.acquire()
        try:
            held, self._held = self._held, None
            for record in held or ():
                super().emit(record)
        finally:
            self.release()


def configure(environment: Mapping[str, str] = os.environ) -> HeldHandler | None:
    """Set up the log of a program, warnings included, unless its author has done so. Idempotent.

    The level is that of ``MSGFLO_LOGLEVEL`` (or ``MSGFLO_PYTHON_LOGLEVEL``, its old name), ``INFO``
    if neither is set, or if what is set is no level.

    Returns:
        The handler to let go when the program runs, or fails to; None: the author has one.
    """
    root = logging.getLogger()
    if root.handlers:
        return next((it for it in root.handlers if isinstance(it, HeldHandler)), None)
    name = environment.get("MSGFLO_LOGLEVEL") or environment.get("MSGFLO_PYTHON_LOGLEVEL") or ""
    level = logging.getLevelNamesMapping().get(name.upper(), logging.INFO)
    handler = HeldHandler()
    handler.setFormatter(logging.Formatter("%(levelname).1s %(message)s"))
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    return handler
