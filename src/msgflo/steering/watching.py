"""Code that changes while its network runs: each role whose code it is, is started anew.

Files are looked at a few times a second: of the few dozens of a project that costs nothing, and it
works on every file system, with every editor. A change counts when the files have come to rest; and
what cannot be loaded is told, and left until it can: what runs goes on with the code before.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from msgflo.errors import ComponentError, ConfigurationError, MsgFloError
from msgflo.flow.wiring import is_virtual
from msgflo.live import LiveNetwork
from msgflo.processes.command import PYTHON_RUNNER, Command
from msgflo.processes.configuration import FILES
from msgflo.processes.imports import files_of
from msgflo.runtime import Runtime

__all__ = ["Watching"]

EVERY = 0.25
"""Seconds between looks."""

TRIAL = 30.0
"""Seconds that code has to be loaded when it is tried."""

SHOWN = 8
"""Lines of what went wrong that are told."""

Stamp = tuple[int, int, int]


class Watching:
    """Watches the files that the components of a runtime are made of.

    Args:
        runtime: started before :meth:`start`.
        tell: called with what people should hear.
    """

    def __init__(self, runtime: Runtime, tell: Callable[[str], None]) -> None:
        self._runtime = runtime
        self._tell = tell
        self._task: asyncio.Task[None] | None = None
        self._files: dict[Path, set[Path]] = {}  # of each component's file, what it is made of
        self._stamps: dict[Path, Stamp] = {}
        self._complaints: dict[Path, str] = {}

    def start(self) -> None:
        """Begin; changes from now on count."""
        self._look()
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="watch code")

    async def close(self) -> None:
        """Watch no more. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _watch(self) -> None:
        waiting: dict[Path, Stamp] = {}
        while True:
            await asyncio.sleep(EVERY)
            found = await asyncio.to_thread(_stamps, self._wanted())
            # A file that is gone may be on its way to be replaced; what runs does not need it.
            changed = {path: it for path, it in found.items() if self._stamps.get(path) != it}
            resting = {path: it for path, it in changed.items() if waiting.get(path) == it}
            waiting = changed
            if not resting:
                continue
            self._stamps |= resting
            try:
                await self._take(set(resting))
            except MsgFloError as error:
                self._tell(f"{_named(resting)} changed, and cannot be used: {error}")

    def _wanted(self) -> set[Path]:
        """Return all files that matter."""
        root = self._runtime.root
        wanted = {root / name for name in FILES}
        for folder in self._runtime.library.folders:
            with contextlib.suppress(OSError):
                wanted.update(it for it in folder.iterdir() if it.name[0] not in "._")
        for files in self._files.values():
            wanted |= files
        return wanted

    def _look(self) -> None:
        """Learn what components are made of, and how their files are."""
        self._files = {path: files_of(path, self._runtime.root) for path in self._paths()}
        self._stamps |= {
            path: stamp
            for path, stamp in _stamps(self._wanted()).items()
            if path not in self._stamps
        }

    def _paths(self) -> set[Path]:
        library = self._runtime.library
        paths = {component.path for component in library.components()}
        return {path for path in paths if path is not None}

    async def _take(self, changed: set[Path]) -> None:
        """Start those roles anew whose code has changed, if it can be loaded."""
        before = {
            role: command
            for network in self._runtime.networks.values()
            for role in network.graph.nodes
            if (command := self._command(network, role)) is not None
        }
        self._runtime.library.refresh()
        touched = {path for path, files in self._files.items() if files & changed}
        touched |= changed & self._paths()
        self._look()
        tried: dict[tuple[str, ...], bool] = {}
        restarted: list[str] = []
        for network in self._runtime.networks.values():
            for role, node in network.graph.nodes.items():
                command = self._command(network, role)
                if command is None:
                    continue
                try:
                    path = self._runtime.library.get(node.component).path
                except ComponentError:
                    continue
                if path not in touched and before.get(role) == command:
                    continue
                what = tuple(word for word in command.argv if word != role)
                if what not in tried:
                    tried[what] = await self._loads(path, command)
                if tried[what]:
                    # One that could not be started for want of it is, with this.
                    network.component_written(self._runtime.library.get(node.component).name)
                    with contextlib.suppress(ComponentError):  # it is not started here
                        network.restart(role)
                        restarted.append(role)
        if restarted:
            self._tell(f"{_named(changed)} changed: {', '.join(restarted)} started anew")

    def _command(self, network: LiveNetwork, role: str) -> Command | None:
        node = network.graph.nodes[role]
        if is_virtual(node.component):
            return None
        try:
            return self._runtime.library.command(node.component, role)
        except (ComponentError, ConfigurationError):
            return None

    async def _loads(self, path: Path | None, command: Command) -> bool:
        """Tell whether code can be loaded, as far as that can be tried; tell people if not."""
        if path is None or command.argv[:4] != PYTHON_RUNNER[:4]:
            return True
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            "--check",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=command.cwd,
            env={**os.environ, **command.env},
        )
        try:
            async with asyncio.timeout(TRIAL):
                output, _ = await process.communicate()
            text = output.decode("utf-8", "replace").strip()
        except TimeoutError:
            text = f"it was not loaded within {TRIAL:g} s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode == 0:
            self._complaints.pop(path, None)
            return True
        if self._complaints.get(path) != text:
            self._complaints[path] = text
            self._tell(f"{_named([path])} cannot be used; what runs goes on with the code before:")
            for line in text.splitlines()[-SHOWN:]:
                self._tell(f"  {line}")
        return False


def _stamps(paths: Iterable[Path]) -> dict[Path, Stamp]:
    """Return how files are, those that are there."""
    found = {}
    for path in paths:
        with contextlib.suppress(OSError):
            it = path.stat()
            found[path] = (it.st_mtime_ns, it.st_size, it.st_ino)
    return found


def _named(paths: Iterable[Path]) -> str:
    """Return paths as short as they can be said from the working folder."""
    names = []
    for path in sorted(paths):
        with contextlib.suppress(ValueError):
            path = path.absolute().relative_to(Path.cwd())
        names.append(str(path))
    return ", ".join(names)
