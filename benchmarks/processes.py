"""Workers as processes, and what they use."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
WORKERS = Path(__file__).parent / "workers"


class Worker:
    """A process that works until it is stopped; for use in a ``with``."""

    def __init__(self, words: list[str], env: Mapping[str, str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self.process = subprocess.Popen(
            words,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @classmethod
    def python(cls, name: str, *words: str, **env: str) -> "Worker":
        """Run a file of the folder ``workers``."""
        return cls([sys.executable, str(WORKERS / name), *words], env)

    @property
    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / TICKS

    @property
    def memory(self) -> float:
        """Megabytes that it has resident and shares with nobody, and its part of the shared."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
        return int(line.split()[1]) / 1000

    @property
    def resident(self) -> float:
        """Megabytes that it has resident, as ``ps`` shows it."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE / 1e6

    @property
    def said(self) -> str:
        """What it has printed."""
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")

    def wait_for(self, text: str, timeout: float = 60.0) -> None:
        """Wait until it prints this."""
        end = time.monotonic() + timeout
        while text not in self.said:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.process.args} does not say {text!r}:\n{self.said}")
            time.sleep(0.01)

    def check(self) -> None:
        """Raise if it has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.process.args} has ended:\n{self.said}")

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.thaw()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
