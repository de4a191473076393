"""A real ``msgflo run`` for tests: started in a folder, met over the FBP protocol, ended."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

__all__ = ["COMPONENTS", "Run"]

WAIT = 60.0

COMPONENTS = {
    "Repeat.py": """
import msgflo
from typing import Any


@msgflo.component("Repeat", icon="forward")
async def repeat(packet: Any) -> Any:
    "Repeats what it gets."
    return packet
""",
    "Drop.py": """
import msgflo
from typing import Any


@msgflo.component("Drop")
async def drop(packet: Any) -> None:
    "Drops what it gets."
""",
}
"""What fbp-test and fbp-spec need."""


class Run:
    """``msgflo run`` as a process of its own, listening at a free port.

    Args:
        folder: the project; made, with the components, where it is missing.
        arguments: of ``msgflo run``, a graph's file among them if there is one.
        environment: variables beside ours.
        components: the files of the components.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        components: Mapping[str, str] = COMPONENTS,
        namespace: str = "core",
    ) -> None:
        self.folder = folder
        (folder / "components").mkdir(parents=True, exist_ok=True)
        for name, code in components.items():
            (folder / "components" / name).write_text(code)
        (folder / "msgflo.json").write_text(f'{{"namespace": "{namespace}"}}')
        self.log = folder / "run.log"
        program = [sys.executable, "-m", "msgflo", "run", "--port", "0", "--project", str(folder)]
        self.began = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*program, *arguments],
                cwd=folder,
                env={**os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        found = self.said(r"FBP protocol at (ws://127\.0\.0\.1:(\d+))")
        self.url, self.port = found[1], int(found[2])
        self.listening_after = time.monotonic() - self.began

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def said(self, pattern: str) -> re.Match[str]:
        """Wait until it has printed something like this."""
        end = time.monotonic() + WAIT
        while True:
            text = self.log.read_text(errors="replace")
            found = re.search(pattern, text)
            if found:
                return found
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"msgflo run has not said {pattern!r}:\n{text[-3000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(WAIT)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(WAIT)
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def memory(self) -> int:
        """Bytes of memory that the process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024
