import io
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from webimages.blobs import Blobs
from webimages.jobs import Jobs
from webimages.messages import Analysis, Picture, Spec, Task
from webimages.site import Site

URL = "http://example.org/photos/a%20b.jpg"
ANALYSIS = Analysis([], 1.0, "0" * 16)


class Front:
    """A site with a database and files of its own, and what was in the database when it called."""

    def __init__(self, folder: Path) -> None:
        self.jobs = Jobs(f"sqlite:///{folder / 'jobs.sqlite3'}")
        self.blobs = Blobs(folder / "blobs")
        self.rows_at_call: list[int] = []
        self.site = Site(self.jobs, self.blobs, self.called, frozenset({"images.example.org"}))
        self.web = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.site.app), base_url="http://127.0.0.1:8080"
        )

    def called(self) -> None:
        self.rows_at_call.append(sum(job["total"] for job in self.jobs.latest()))

    async def submit(self, *images: dict[str, object]) -> httpx.Response:
        return await self.web.post("/jobs", json={"images": list(images)})


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    front = Front(tmp_path)
    async with front.web:
        yield front
    front.jobs.close()


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    return out.getvalue()


async def test_the_rows_of_a_job_are_there_before_anything_is_sent(front: Front) -> None:
    answer = await front.submit({"url": URL, "width": 100}, {"url": URL, "height": 50})

    assert answer.status_code == 202
    assert front.rows_at_call == [2]
    job = (await front.web.get(answer.headers["Location"])).json()
    assert job["id"] == answer.json()["id"]
    assert [image["state"] for image in job["images"]] == ["waiting", "waiting"]
    assert job["images"][0]["name"] == "a b.jpg"
    assert job["images"][0]["spec"] == {
        "width": 100,
        "height": 0,
        "format": "jpeg",
        "policy": "fit",
    }


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ({"width": 5}, "missing required field `url`"),
        ({"url": "ftp://example.org/", "width": 5}, "scheme is 'ftp'"),
        ({"url": URL}, "give a width or a height"),
        ({"url": URL, "width": 5, "policy": "crop"}, "both a width and a height"),
        ({"url": URL, "width": 5000}, "<= 4096"),
        ({"url": URL, "width": -1}, ">= 0"),
        ({"url": URL, "width": 5, "format": "gif"}, "Invalid enum value 'gif'"),
        ({"url": URL, "width": 5, "hieght": 5}, "unknown field `hieght`"),
    ],
)
async def test_an_image_that_is_wanted_wrongly_is_refused_with_its_place(
    front: Front, image: dict[str, object], said: str
) -> None:
    answer = await front.submit({"url": URL, "width": 5}, image)

    assert answer.status_code == 422
    assert said in answer.json()["error"]
    assert "images[1]" in answer.json()["error"]
    assert front.rows_at_call == []
    assert front.jobs.latest() == []


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[]", "application/json", 422),
        (b'{"images": []}', "application/json", 422),
        (b" " * 1_000_001, "application/json", 413),
        (b"hello", "text/plain", 415),
    ],
)
async def test_what_is_no_job_is_refused(
    front: Front, content: bytes, kind: str, status: int
) -> None:
    answer = await front.web.post("/jobs", content=content, headers={"Content-Type": kind})

    assert answer.status_code == status
    assert answer.json()["error"]
    assert front.jobs.latest() == []


async def test_a_job_has_at_most_500_images(front: Front) -> None:
    assert (await front.submit(*[{"url": URL, "width": 5}] * 500)).status_code == 202
    assert (await front.submit(*[{"url": URL, "width": 5}] * 501)).status_code == 422


async def test_files_can_be_uploaded(front: Front) -> None:
    data = png()
    answer = await front.web.post(
        "/jobs",
        data={"width": "10", "height": "10", "format": "webp", "policy": "crop"},
        files=[("images", ("../../etc/a.png", data)), ("images", ("b.png", b"not an image"))],
    )

    assert answer.status_code == 202
    first, second = front.jobs.job(answer.json()["id"])["images"]
    assert first["name"] == "a.png"
    assert front.blobs.read(first["original"]) == data
    assert first["spec"]["format"] == "webp"
    assert second["state"] == "waiting"  # whether it is an image is for resize to say


@pytest.mark.parametrize(
    ("data", "files", "said"),
    [
        ({"width": "10"}, [], "0 images"),
        ({}, [("images", ("a.png", b"x"))], "give a width or a height"),
        ({"width": "wide"}, [("images", ("a.png", b"x"))], "width"),
        ({"width": "10", "colour": "red"}, [("images", ("a.png", b"x"))], "colour"),
    ],
)
async def test_a_form_that_is_filled_in_wrongly_is_refused(
    front: Front, data: dict[str, str], files: list[tuple[str, tuple[str, bytes]]], said: str
) -> None:
    answer = await front.web.post("/jobs", data=data, files=files or [("other", ("", b""))])

    assert answer.status_code == 422
    assert said in answer.json()["error"]


async def test_other_sites_must_not_post_in_their_readers_name(front: Front) -> None:
    body = {"images": [{"url": URL, "width": 5}]}

    foreign = await front.web.post("/jobs", json=body, headers={"Origin": "http://evil.test"})
    own = await front.web.post("/jobs", json=body, headers={"Origin": "http://127.0.0.1:8080"})

    assert foreign.status_code == 403
    assert own.status_code == 202
    assert len(front.jobs.latest()) == 1


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("localhost:8080", 200),
        ("Images.example.org", 200),
        ("evil.test:8080", 421),
        ("127.0.0.1.evil.test", 421),
        ("[", 421),
        ("", 421),
    ],
)
async def test_a_name_that_was_made_to_mean_our_address_gets_no_answer(
    front: Front, host: str, status: int
) -> None:
    answer = await front.web.get("/jobs", headers={"Host": host})

    assert answer.status_code == status
    assert (status == 200) != ("WEBIMAGES_NAMES" in answer.text)


async def test_failures_are_listed_and_put_back(front: Front) -> None:
    job = (await front.submit({"url": URL, "width": 5})).json()["id"]
    task = Task(job, 0, 1, "a b.jpg", Spec(5))
    front.jobs.fail(task, "fetch", "the server answers 404", 1.0)

    (failure,) = (await front.web.get("/failed")).json()["images"]
    put_back = await front.web.post(f"/jobs/{job}/images/0/retry")

    assert failure["failure"] == {"role": "fetch", "reason": "the server answers 404"}
    assert put_back.json() == {"put_back": [0]}
    assert front.rows_at_call == [1, 1]
    assert (await front.web.get("/failed")).json() == {"images": []}
    assert (await front.web.post(f"/jobs/{job}/retry")).json() == {"put_back": []}


async def test_a_result_can_be_had_and_nothing_that_is_not_an_image(front: Front) -> None:
    job = (await front.submit({"url": URL, "width": 5})).json()["id"]
    data = png()
    digest = front.blobs.put(data)
    result = Picture(digest, "png", 8, 8, len(data))
    front.jobs.complete(Task(job, 0, 1, "a", Spec(5)), result, ANALYSIS, 1.0)
    script = front.blobs.put(b"<script>alert(1)</script>")

    (image,) = (await front.web.get(f"/jobs/{job}")).json()["images"]
    answer = await front.web.get(image["result"]["url"])

    assert answer.content == data
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for path in (script, "a" * 64, "..%2f..%2fetc%2fpasswd", "jobs.sqlite3"):
        assert (await front.web.get(f"/images/{path}")).status_code == 404


async def test_what_is_not_there_is_404_as_json(front: Front) -> None:
    for path in ("/jobs/nothing", f"/jobs/{'a' * 32}", f"/jobs/{'a' * 32}/events", "/no"):
        answer = await front.web.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]
    assert (await front.web.post(f"/jobs/{'a' * 32}/retry")).status_code == 404


async def test_a_browser_gets_the_page_and_all_that_it_names(front: Front) -> None:
    job = (await front.submit({"url": URL, "width": 5})).json()["url"]

    for path in ("/", job):
        page = await front.web.get(path, headers={"Accept": "text/html"})
        assert "<!doctype html>" in page.text
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    for part in ("icon.svg", "style.css", "script.js"):
        assert f"/page/{part}" in page.text
        assert (await front.web.get(f"/page/{part}")).status_code == 200
    assert (await front.web.get("/health")).json() == {"ok": True}
