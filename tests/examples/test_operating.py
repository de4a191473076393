"""Every operating command as somebody new would try it, on the network of webimages."""

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from programs import WAIT, Program, msgflo, program
from readmes import copied

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied("webimages", tmp_path_factory.mktemp("operating"))


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Program]:
    arguments = ["--watch", "--port", "0"]
    with program(
        "msgflo", "run", "webimages.fbp", *arguments, cwd=folder, WEBIMAGES_PORT="0"
    ) as run:
        run.until("all running")
        yield run


@pytest.fixture(scope="module")
def web(running: Program) -> Iterator[httpx.Client]:
    address = running.until("open http://").rpartition("open ")[2]
    with httpx.Client(base_url=address, trust_env=False, timeout=WAIT) as client:
        yield client


def job(web: httpx.Client, photos: Path, *broken: bytes) -> dict[str, Any]:
    """Give the network a job of three photographs and these, and return what became of it."""
    files = [("images", (path.name, path.read_bytes())) for path in sorted(photos.glob("*.jpg"))]
    files += [("images", (f"broken-{n}.jpg", content)) for n, content in enumerate(broken)]
    made = web.post("/jobs", data={"width": "100", "format": "png"}, files=files).json()
    return until(
        lambda: web.get(f"/jobs/{made['id']}", headers={"Accept": "application/json"}).json(),
        lambda state: state["finished"],
    )


def until(look: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    end = time.monotonic() + WAIT
    while not enough(found := look()):
        assert time.monotonic() < end, found
    return found


def test_the_second_day(running: Program, folder: Path, web: httpx.Client, photos: Path):
    def do(*arguments: str, code: int = 0, **options: Any) -> str:
        done = msgflo(*arguments, cwd=folder, **options)
        assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def said(*arguments: str) -> Any:
        return json.loads(msgflo(*arguments, "--json", cwd=folder).stdout)

    graph = folder / "webimages.fbp"

    # How is it?
    assert "webimages: complete, for " in do("status")
    assert "6 of 6 roles live" in do("status")
    assert "nothing is wrong" in do("doctor")
    assert "nothing is wrong" in do("doctor", "resize")
    assert "resize.IN" in do("queues")
    bound = [it for it in said("bindings") if it["state"] == "bound"]
    assert {"roundrobin"} <= {it["kind"] for it in bound}
    assert re.search(r"^resize +1 live", do("top", "--once"), re.M)
    assert "open http://" in do("logs", "web")

    # Work, and more hands for it.
    assert "resize: 1 -> 3 instances" in do("scale", "resize=3")
    assert "resize(webimages/resize:instances=3)" in graph.read_text()
    saved = graph.read_text()
    assert "# A job's images are work" in saved
    state = job(web, photos)
    assert state["counts"] == {"waiting": 0, "completed": 3, "failed": 0}
    assert "resize.2: restarted" in do("restart", "resize.2")
    assert "store: 1 instance restarted" in do("restart", "store")

    # A role beside the others, that sees what resize sends; and back again.
    assert "added copies" in do("add", "copies", "webimages/failed", "--no-wait")
    assert "no component" in do("add", "more", "webimages/faild", code=1)
    do("connect", "resize.out -> copies.in")
    assert "resize OUT -> IN copies" in graph.read_text()
    do("disconnect", "resize.out -> copies.in")
    assert "connected resize.out -> copies.in" in do("undo")
    assert "disconnected resize.out -> copies.in" in do("redo")
    assert "removed copies" in do("remove", "copies")

    # What cannot be processed. Its letters are the graph's own business until nobody takes them.
    do("disconnect", "resizing.deadletter -> failed.in")
    do("send", "resize", '{"nonsense": true}')
    (letter,) = until(lambda: said("deadletters", "list", "resize"), lambda found: len(found) == 1)
    assert "resize.in" in do("deadletters", "list")
    assert "PayloadError" in do("deadletters", "show", letter["message"])
    assert "1 dead letter put back" in do("deadletters", "requeue", "resize", "--error", "payload")
    (again,) = until(
        lambda: said("deadletters", "list", "resize"),
        lambda found: [it["headers"].get("Msgflo-Requeued") for it in found] == ["1"],
    )
    assert again["message"] == letter["message"]
    assert "was put back once before" in do("deadletters", "show", letter["message"])
    do("deadletters", "edit", letter["message"], "--data", '{"still": "nonsense"}')
    until(
        lambda: said("deadletters", "list", "resize"),
        lambda found: [it["data"] for it in found] == [{"still": "nonsense"}],
    )
    assert "1 message of resize could not be processed" in do("doctor", code=1)
    do("deadletters", "export", "-o", "dead.jsonl")
    assert json.loads((folder / "dead.jsonl").read_text())["message"] == letter["message"]
    assert "1 dead letter deleted" in do("deadletters", "purge", "resize", "--yes")
    assert "connected resizing.deadletter" in do("undo")

    # Code that changes: its role alone is started anew, and goes on with the work.
    code = folder / "components" / "analyse.py"
    code.write_text(code.read_text() + "\n# changed\n")
    running.until("analyse started anew")
    state = job(web, photos, b"this is no image")
    assert state["counts"] == {"waiting": 0, "completed": 3, "failed": 1}

    # After all these edits and their undoing the file is as it was saved first, line for line.
    assert "resize: 3 -> 1 instance" in do("scale", "resize=1")
    assert graph.read_text().replace("instances=1", "instances=3") == saved
    with program("msgflo", "logs", "-f", "-n", "1", cwd=folder) as following:
        following.until("|")
        job(web, photos)
        following.end(signal.SIGINT)
    assert "webimages: complete" in do("status")
    assert running.end() == 0
    assert "no network runs in" in do("status", code=2)
