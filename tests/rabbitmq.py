"""A real RabbitMQ for tests: a node of its own, treated badly."""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["RabbitMQ", "rabbitmq_cluster"]

Cluster = TypeVar("Cluster", bound="RabbitMQ")


class RabbitMQ:
    """A RabbitMQ node with ports, folders, and a port mapper (epmd) of its own.

    Killed or stopped and started again, it has the same ports and the same store. Its management
    API is there for tests only: to make virtual hosts quickly, and to look from outside.
    """

    MOST_BYTES = 8_000_000
    """What it takes as one message."""

    def __init__(
        self, folder: Path, more: str = "", epmd: int = 0, certificates: Path | None = None
    ) -> None:
        """Prepare one.

        Args:
            folder: its own.
            more: more lines of its configuration.
            epmd: the port of the port mapper; 0: one of its own.
            certificates: a folder of them (``ca.pem``, ``broker.test.pem`` and ``.key``), if it is
                to listen for encrypted connections too.
        """
        self.folder = folder
        self.log = folder / "output"
        self.port, self.tls_port, self._api, own, self._dist = _free_ports(5)
        self._epmd = epmd or own
        self.node = f"msgflo-test-{self.port}@localhost"
        self._process: subprocess.Popen[bytes] | None = None
        self._vhosts = 0
        if certificates is not None:
            more += f"""
            listeners.ssl.1 = 127.0.0.1:{self.tls_port}
            ssl_options.cacertfile = {certificates / "ca.pem"}
            ssl_options.certfile = {certificates / "broker.test.pem"}
            ssl_options.keyfile = {certificates / "broker.test.key"}
            ssl_options.verify = verify_peer
            ssl_options.fail_if_no_peer_cert = true
            """
        (folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (folder / "rabbitmq.conf").write_text(
            f"""
            listeners.tcp.1 = 127.0.0.1:{self.port}
            management.tcp.ip = 127.0.0.1
            management.tcp.port = {self._api}
            management.rates_mode = basic
            collect_statistics_interval = 5000
            max_message_size = {self.MOST_BYTES}
            disk_free_limit.absolute = 50MB
            vm_memory_high_watermark.relative = 0.6
            loopback_users.guest = true
            log.console.level = warning
            log.file.level = warning
            {more}
            """.replace("            ", "")
        )

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_"))},
            "HOME": str(folder),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_BASE": str(folder),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_PLUGINS_EXPAND_DIR": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "store"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none"
            ),
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the virtual machine itself, which a shell script starts."""
        return int((self.folder / "pid").read_text())

    @property
    def running(self) -> bool:
        return self._process is not None and self._answers()

    def vhost(self) -> str:
        """Make a virtual host; returns the URL of it."""
        self._vhosts += 1
        name = f"test{self._vhosts}"
        self.api("PUT", f"vhosts/{name}", {})
        self.api(
            "PUT", f"permissions/{name}/guest", {"configure": ".*", "write": ".*", "read": ".*"}
        )
        return f"{self.url}/{name}"

    def drop_vhost(self, url: str) -> None:
        self.api("DELETE", f"vhosts/{url.rpartition('/')[2]}")

    def api(self, method: str, path: str, body: object = None) -> Any:
        """Ask the management API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._api}/api/{path}",
            None if body is None else json.dumps(body).encode(),
            {
                "Content-Type": "application/json",
                "Authorization": "Basic " + base64.b64encode(b"guest:guest").decode(),
            },
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            said = response.read()
        return json.loads(said) if said else None

    def control(self, *words: str) -> None:
        """Have rabbitmqctl do something: it takes a second or two."""
        done = subprocess.run(
            [Path(_rabbitmq_program()).with_name("rabbitmqctl"), "-n", self.node, *words],
            env=self._environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stderr + done.stdout

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [_rabbitmq_program()],
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + 90
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"RabbitMQ did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        """Whether both the AMQP listener and the API are there."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"AMQP\0\0\x09\x01")
                if not connection.recv(1):
                    return False
            self.api("GET", "whoami")
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End it without a word, as a power cut would but for the disk's cache."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)
        self._end_epmd()

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            for pid in (self.pid, self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)
                    os.kill(pid, signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(15)
            self._process = None

    def _end_epmd(self) -> None:
        """End the port mapper, which outlives the node that started it and served nobody else."""
        with contextlib.suppress(OSError):
            # It refuses as long as it has not noticed that the node is gone.
            for _ in range(50):
                with socket.create_connection(("127.0.0.1", self._epmd), 5) as connection:
                    connection.sendall(b"\0\x01k")  # its protocol's word for: end
                    connection.recv(2)
                time.sleep(0.1)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


def rabbitmq_cluster(make: type[Cluster], folder: Path, count: int = 3) -> list[Cluster]:
    """Prepare nodes that find each other when they start; the first is to be started first."""
    (epmd,) = _free_ports(1)
    nodes: list[Cluster] = []
    for number in range(1, count + 1):
        place = folder / f"n{number}"
        place.mkdir()
        (place / ".erlang.cookie").write_text("msgflotest")
        (place / ".erlang.cookie").chmod(0o400)
        nodes.append(make(place, epmd=epmd))
    names = "".join(
        f"cluster_formation.classic_config.nodes.{number} = {node.node}\n"
        for number, node in enumerate(nodes, start=1)
    )
    for node in nodes:
        with (node.folder / "rabbitmq.conf").open("a") as conf:
            conf.write("cluster_formation.peer_discovery_backend = classic_config\n")
            conf.write("cluster_partition_handling = pause_minority\n" + names)
    return nodes


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as probes:
        found = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in found:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in found]


def _rabbitmq_program() -> str:
    found = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))
    program = str(found[-1]) if found else shutil.which("rabbitmq-server")
    if program is None:
        raise RuntimeError("there is no rabbitmq-server; install the package rabbitmq-server")
    return program
