"""The whole example by one command: a network, a job of good and bad images, and what became of it.

The network is run as ``msgflo run`` runs it, with two instances of ``resize``; the job goes in by
HTTP, as anybody's would.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from exhibits import EXHIBITS, LATE, Exhibition, problems

from msgflo.coordinator.network import Event, Life
from msgflo.errors import MsgFloError
from msgflo.project import load_graph
from msgflo.runtime import Runtime, RuntimeStatus

HERE = Path(__file__).resolve().parent

STARTING = 60.0
"""Seconds for all roles to be there. Two or three are usual; a cold disk takes longer."""

SILENCE = 60.0
"""Seconds without any progress after which the job is given up."""

EXHIBITION_PORT = 8079
"""Tried first, so that what failed in an earlier demo can be put back in the next one."""


class Failed(Exception):
    """The demo did not get to its end. The text says why."""


class Screen:
    """What is printed: our lines, one line of progress, and if wanted what the roles print."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._live = sys.stdout.isatty()
        self._shown = ""
        self._tenth = -1

    def say(self, text: str = "") -> None:
        if self._shown:
            print()
            self._shown = ""
        print(text, flush=True)

    def progress(self, job: dict[str, Any], seconds: float) -> None:
        done, failed = job["counts"]["completed"], job["counts"]["failed"]
        over, total = done + failed, job["total"]
        line = f"{over} of {total}: {done} done, {failed} failed, {seconds:.1f} s"
        if self._live:
            full = 30 * over // max(1, total)
            bar = "█" * full + "░" * (30 - full)
            print(f"\r  {bar}  {line}\x1b[K", end="", flush=True)
            self._shown = line
        elif (tenth := 10 * over // max(1, total)) != self._tenth:
            self._tenth = tenth
            print(f"  {line}", flush=True)

    def output(self, role: str, instance: int, _stream: str, line: str) -> None:
        if self._verbose:
            self.say(f"{role}.{instance} | {line}")

    def told(self, event: Event) -> None:
        if event.kind in {"lost", "failed", "wrong", "broker"}:
            self.say(f"  {event.text}")


def main() -> int:
    """Run the demo.

    Returns:
        The exit status: 0 if every image is accounted for.
    """
    parser = argparse.ArgumentParser(prog="script/demo", description=__doc__.split("\n")[0])
    parser.add_argument("--once", action="store_true", help="end when the job has ended")
    parser.add_argument("--kill", action="store_true", help="kill -9 a worker amid the job")
    parser.add_argument("--scale", type=int, default=2, metavar="N", help="instances of resize")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the roles print")
    options = parser.parse_args()
    if options.scale < 1:
        parser.error(f"--scale is {options.scale}; expected 1 or more")
    screen = Screen(options.verbose)
    try:
        return asyncio.run(_until_stopped(options, screen))
    except httpx.HTTPError as error:
        screen.say(f"demo: the web role does not answer: {error or type(error).__name__}")
        return 1
    except (Failed, MsgFloError) as error:
        screen.say(f"demo: {error}")
        return 1


async def _until_stopped(options: argparse.Namespace, screen: Screen) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait())
    with Exhibition(EXHIBITION_PORT) as exhibition:
        demo = asyncio.create_task(_demo(options, screen, exhibition))
        await asyncio.wait({demo, stopping}, return_when=asyncio.FIRST_COMPLETED)
        # A second signal ends us at once; the supervisor's watchdog ends the processes then.
        for number in signals:
            loop.remove_signal_handler(number)
        stopping.cancel()
        if not demo.done():
            screen.say("stopping ...")
            demo.cancel()
        try:
            return await demo
        except asyncio.CancelledError:
            return 130


def _data_folder() -> Path:
    return Path(os.environ.get("WEBIMAGES_DATA") or HERE / ".webimages").resolve()


async def _demo(options: argparse.Namespace, screen: Screen, exhibition: Exhibition) -> int:
    data = _data_folder()
    os.environ["WEBIMAGES_DATA"] = str(data)
    # The exhibits are on loopback, where nothing is fetched from unless it is allowed.
    allowed = (os.environ.get("WEBIMAGES_ALLOW", ""), exhibition.address)
    os.environ["WEBIMAGES_ALLOW"] = ", ".join(entry for entry in allowed if entry)
    runtime = Runtime(
        load_graph(HERE / "webimages.fbp"),
        root=HERE,
        broker=os.environ.get("MSGFLO_BROKER") or None,
        scale={"resize": options.scale},
        output=screen.output,
        told=screen.told,
    )
    screen.say("Starting the network of examples/webimages/webimages.fbp ...")
    began = time.monotonic()
    async with runtime:
        try:
            status = await runtime.until_complete(STARTING)
        except TimeoutError:
            raise Failed(_pending(runtime.status())) from None
        processes = sum(len(role.instances) for role in status.roles)
        address = (data / "web-1.url").read_text().strip()
        screen.say(
            f"{processes} processes and a broker are up after {time.monotonic() - began:.1f} s, "
            f"{options.scale} of them instances of resize.\n"
        )
        async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=20) as web:
            wrong = await _job(options, screen, exhibition, runtime, web, data)
        if wrong:
            screen.say("\nNot as it has to be:")
            for problem in wrong:
                screen.say(f"  {problem}")
        if not options.once:
            screen.say("\nIt stays up for you to look at. Ctrl-C stops it.")
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
    return 1 if wrong else 0


async def _job(
    options: argparse.Namespace,
    screen: Screen,
    exhibition: Exhibition,
    runtime: Runtime,
    web: httpx.AsyncClient,
    data: Path,
) -> list[str]:
    """Give the network its job, and tell what becomes of it; return what is wrong with that."""
    images = [{"url": exhibition.url(exhibit), **exhibit.shape} for exhibit in EXHIBITS]
    began = time.monotonic()
    answer = (await web.post("/jobs", json={"images": images})).raise_for_status().json()
    page = f"{web.base_url}".rstrip("/") + answer["url"]
    screen.say(f"A job of {answer['total']} images: {page}")
    victim = runtime if options.kill else None
    job = await _finished(screen, web, answer["url"], began, victim)
    seconds = time.monotonic() - began
    folder = data / "results" / answer["id"][:8]
    saved, wrong = await _save(web, job, folder)
    wrong += problems(job["images"])
    _report(screen, job, seconds)

    late = next(image for image in job["images"] if image["name"] == LATE)
    exhibition.deliver_late()
    (await web.post(f"{answer['url']}/images/{late['image']}/retry")).raise_for_status()
    job = await _finished(screen, web, answer["url"], time.monotonic(), None, quiet=True)
    again, more = await _save(web, job, folder)
    wrong += more + [p for p in problems(job["images"], frozenset({LATE})) if p not in wrong]
    if again > saved:
        screen.say(f"\n{LATE} is there by now. Put back, it was completed.")
    screen.say(f"\nResults:   {again} files in {folder}")
    if not options.once:
        screen.say(f"To look:   {page}")
    if not wrong:
        counts = job["counts"]
        screen.say(
            f"Every image is accounted for: {job['total']} given, {counts['completed']} completed, "
            f"{counts['failed']} failed as they had to, 0 lost."
        )
    return wrong


async def _finished(
    screen: Screen,
    web: httpx.AsyncClient,
    path: str,
    began: float,
    victim: Runtime | None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Return the job when nothing of it waits any longer, showing how far it is."""
    waiting, heard = -1, time.monotonic()
    while True:
        job = (await web.get(path)).raise_for_status().json()
        now = time.monotonic()
        if not quiet:
            screen.progress(job, now - began)
        if job["finished"]:
            return job
        if job["counts"]["waiting"] != waiting:
            waiting, heard = job["counts"]["waiting"], now
        if now - heard > SILENCE:
            raise Failed(f"nothing has moved for {SILENCE:g} s; {waiting} images are waiting")
        if victim is not None and waiting < job["total"] * 3 // 4:
            _kill_one(victim, screen)
            victim = None
        await asyncio.sleep(0.1)


def _kill_one(runtime: Runtime, screen: Screen) -> None:
    """Kill an instance of resize, as the kernel does when memory runs out: it can do nothing."""
    (role,) = (role for role in runtime.status().roles if role.network.role == "resize")
    for instance in role.instances:
        if instance.process is not None and instance.process.pid is not None:
            os.kill(instance.process.pid, signal.SIGKILL)
            screen.say(f"  kill -9 {instance.process.pid}: that was resize.{instance.instance}")
            return
    raise Failed("there is no instance of resize to kill")


async def _save(web: httpx.AsyncClient, job: dict[str, Any], folder: Path) -> tuple[int, list[str]]:
    """Keep the results as files with names; return how many, and what is wrong with them."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    saved, wrong = 0, []
    for image in job["images"]:
        result = image["result"]
        if result is None:
            continue
        answer = await web.get(result["url"])
        if answer.status_code != 200 or len(answer.content) != result["bytes"]:
            wrong.append(f"the result of {image['name']} cannot be had: {answer.status_code}")
            continue
        name = f"{image['image']:02d}-{Path(image['name']).stem}.{result['format']}"
        (folder / name).write_bytes(answer.content)
        saved += 1
    return saved, wrong


def _report(screen: Screen, job: dict[str, Any], seconds: float) -> None:
    counts = job["counts"]
    made = Counter(image["result"]["by"] for image in job["images"] if image["result"])
    shares = ", ".join(f"resize.{instance} made {made[instance]}" for instance in sorted(made))
    screen.say(f"\n{job['total']} images in {seconds:.1f} s: {job['total'] / seconds:.1f} a second")
    screen.say(f"{counts['completed']} completed: {shares}")
    screen.say(f"{counts['failed']} failed:")
    failures = [image for image in job["images"] if image["failure"]]
    width = max((len(image["name"]) for image in failures), default=0)
    for image in failures:
        failure = image["failure"]
        screen.say(f"  {image['name']:<{width}}  {failure['role']:<6}  {failure['reason']}")


def _pending(status: RuntimeStatus) -> str:
    lines = [f"not all of the network was up within {STARTING:g} s:"]
    for role in status.roles:
        if role.reason and role.network.life is not Life.VIRTUAL:
            lines.append(f"  {role.network.role}: {role.reason}")
        for instance in role.instances:
            if instance.process is not None and instance.state != Life.LIVE:
                lines += [f"    {line}" for line in instance.process.last_lines[-5:]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
