"""The network of webimages with several front ends, on PostgreSQL: real processes, real broker."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from msgflo.project import load_graph
from msgflo.runtime import Runtime
from readmes import Running, commands, copied

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(
    tmp_path_factory: pytest.TempPathFactory, postgres
) -> AsyncIterator[tuple[Runtime, list[httpx.AsyncClient]]]:
    """Two instances of web and of resize, and a client of each web; for all tests of this file."""
    tmp_path = tmp_path_factory.mktemp("webimages")
    folder = copied("webimages", tmp_path)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WEBIMAGES_DATABASE", postgres.url)
        environment.setenv("WEBIMAGES_DATA", str(tmp_path / "data"))
        environment.setenv("WEBIMAGES_PORT", "0")
        environment.delenv("WEBIMAGES_ALLOW", raising=False)
        runtime = Runtime(
            load_graph(folder / "webimages.fbp"), root=folder, scale={"web": 2, "resize": 2}
        )
        async with runtime:
            await runtime.until_complete(60)
            clients = [
                httpx.AsyncClient(
                    base_url=(tmp_path / "data" / f"web-{number}.url").read_text().strip(),
                    trust_env=False,
                    timeout=60,
                )
                for number in (1, 2)
            ]
            yield runtime, clients
            for client in clients:
                await client.aclose()


async def finished(web: httpx.AsyncClient, job: str, seen: list[dict[str, Any]]) -> dict[str, Any]:
    """Follow a job's events until it is finished, as the page does; return its state then."""
    async with web.stream("GET", f"/jobs/{job}/events") as events:
        async for line in events.aiter_lines():
            if not line.startswith("data: "):
                continue
            event = json.loads(line.removeprefix("data: "))
            seen.append(event)
            if event.get("job", event)["finished"]:
                break
    return (await web.get(f"/jobs/{job}")).json()


async def test_uploads_are_worked_on_and_every_front_end_hears_of_it(network, photos: Path) -> None:
    _, (first, second) = network
    files = [("images", (path.name, path.read_bytes())) for path in sorted(photos.glob("*.jpg"))]
    files.append(("images", ("broken.jpg", files[0][1][1][:5000])))

    form = {"width": "200", "height": "200", "format": "webp", "policy": "crop"}
    answer = await first.post("/jobs", data=form, files=files)
    job = answer.json()["id"]
    heard: list[list[dict[str, Any]]] = [[], []]
    states = await asyncio.gather(finished(first, job, heard[0]), finished(second, job, heard[1]))

    assert states[0] == states[1]
    assert states[0]["counts"] == {"waiting": 0, "completed": 3, "failed": 1}
    for web, image in ((web, image) for web in (first, second) for image in states[0]["images"]):
        if image["name"] == "broken.jpg":
            assert image["failure"]["role"] == "resize"
            assert "broken" in image["failure"]["reason"]
            continue
        result = image["result"]
        assert (result["width"], result["height"]) == (200, 200)
        assert len(result["analysis"]["hash"]) == 16
        picture = await web.get(result["url"])
        assert picture.headers["Content-Type"] == "image/webp"
    for events in heard:
        # More than the state at the beginning: both were told when something had changed.
        assert len(events) >= 2, events

    # Put back at the other front end, it is tried again, and fails again.
    assert (await second.post(f"/jobs/{job}/retry")).json() == {"put_back": [3]}
    state = await finished(first, job, [])
    assert state["images"][3]["round"] == 2
    assert state["counts"]["failed"] == 1


async def test_addresses_that_are_not_public_are_not_fetched_from(network) -> None:
    _, (web, _) = network
    inside = [str(web.base_url), "http://169.254.169.254/", "http://[::1]/", "http://10.0.0.1/"]

    images = [{"url": url, "width": 10} for url in inside]
    job = (await web.post("/jobs", json={"images": images})).json()["id"]
    state = await finished(web, job, [])

    assert state["counts"]["failed"] == len(inside)
    for image in state["images"]:
        assert image["failure"]["role"] == "fetch"
        assert "not allowed" in image["failure"]["reason"]


async def test_the_command_of_the_readme_starts_it_on_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = copied("webimages", tmp_path) / "README.md"
    [(run, [printed])] = [shown for shown in commands(readme) if shown[0].startswith("msgflo")]
    opened = printed.partition("| ")[2].partition("http")[0]
    monkeypatch.setenv("WEBIMAGES_PORT", "0")
    for name in ("WEBIMAGES_DATABASE", "WEBIMAGES_DATA"):
        monkeypatch.delenv(name, raising=False)

    def start() -> int:
        with Running(run, tmp_path) as running:
            lines = running.until(lambda lines: "all running" in lines[-1] if lines else False)
            (address,) = (line.partition(opened)[2] for line in lines if opened in line)
            assert httpx.get(f"{address}/health", trust_env=False).json() == {"ok": True}
            return running.stop()

    assert await asyncio.to_thread(start) == 0
    assert (readme.parent / ".webimages" / "jobs.sqlite3").exists()


# The last of this file: the front end that comes back has another address.
async def test_a_front_end_that_is_killed_amid_a_job_loses_none_of_it(
    network, photos: Path
) -> None:
    runtime, (first, second) = network
    files = [
        ("images", (f"{n}-{path.name}", path.read_bytes()))
        for n in range(5)
        for path in sorted(photos.glob("*.jpg"))
    ]
    answer = await first.post("/jobs", data={"width": "300", "format": "png"}, files=files)
    job = answer.json()["id"]

    (role,) = (role for role in runtime.status().roles if role.network.role == "web")
    for instance in role.instances:
        if instance.instance == 1:
            os.kill(instance.process.pid, signal.SIGKILL)
    state = await finished(second, job, [])

    assert state["counts"] == {"waiting": 0, "completed": 15, "failed": 0}
