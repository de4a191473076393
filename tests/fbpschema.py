"""Whether messages fit the schemas of the FBP protocol: those of npm fbp-protocol."""

import json
import subprocess
from pathlib import Path
from typing import Any

from npm import installed, node

__all__ = ["NPM", "Schemas"]

NPM = Path(__file__).parent / "protocol" / "npm"

# Answers that clients wait for though the schemas leave them out.
_WITHOUT = {("network", "debug"), ("network", "persist")}


class Schemas:
    """Judges messages that a runtime has sent. One process for all of them."""

    def __init__(self) -> None:
        modules = installed(NPM, "npm-fbp-protocol")
        self._process = subprocess.Popen(
            [node(), str(NPM / "check.js"), str(modules)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self.checked = 0
        self._fit: set[str] = set()

    def check(self, text: str) -> None:
        """Fail if a message does not fit, or says a secret."""
        message = json.loads(text)
        kind = (message["protocol"], message["command"])
        if kind[0] == "msgflo" or kind in _WITHOUT:
            return
        shape = json.dumps([kind, _shape(message["payload"], "")])
        if shape in self._fit:
            return  # the schemas judge keys and types; one more of the same fits too
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        wrong = json.loads(self._process.stdout.readline())
        assert wrong is None, f"{wrong}: {text[:500]}"
        self.checked += 1
        self._fit.add(shape)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)
        assert self._process.stdout
        self._process.stdout.close()


def _shape(value: Any, key: str) -> Any:
    """Return what is left of a value without what the schemas do not look at."""
    if isinstance(value, dict):
        return {name: _shape(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return sorted({json.dumps(_shape(item, key)) for item in value})
    if isinstance(value, str) and key in ("event", "type", "time", "url", "schema"):
        return value
    return type(value).__name__
