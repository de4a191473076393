"""The HTTP side: jobs in, states and images out, and a page to look at them."""

import asyncio
import ipaddress
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct
from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webimages.blobs import BlobMissing, Blobs, BlobTooLarge
from webimages.download import url_problem
from webimages.jobs import Image, Jobs, UnknownImage
from webimages.messages import Format, Outcome, Policy, Side, Spec

__all__ = ["Site"]

T = TypeVar("T")

_PAGE = Path(__file__).parent / "page"
_MOST_IMAGES = 500
_MOST_UPLOADS = 50
_MOST_JSON = 1_000_000
_MOST_FILE = 20_000_000
_MOST_BODY = 200_000_000
_BACKLOG = 1000
_KEEPALIVE = 15.0
_MEDIA = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"))
_POLICY = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"


class _NewImage(Struct, forbid_unknown_fields=True):
    url: str
    width: Side = 0
    height: Side = 0
    format: Format = "jpeg"
    policy: Policy = "fit"

    def spec(self) -> Spec:
        return Spec(self.width, self.height, self.format, self.policy)


class _NewJob(Struct, forbid_unknown_fields=True):
    images: list[_NewImage]


class Site:
    """The web site.

    Args:
        jobs: the database.
        blobs: the image files.
        work: called when there is something to send.
        names: host names that it answers to, besides localhost and plain addresses.

    Attributes:
        app: the ASGI application.
    """

    def __init__(
        self,
        jobs: Jobs,
        blobs: Blobs,
        work: Callable[[], None],
        names: frozenset[str] = frozenset(),
    ) -> None:
        self._jobs = jobs
        self._blobs = blobs
        self._work = work
        self._listeners: dict[str, set[asyncio.Queue[int | None]]] = {}
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/health", self._health),
                Route("/jobs", self._submit, methods=["POST"]),
                Route("/jobs", self._latest),
                Route("/jobs/{job}", self._job),
                Route("/jobs/{job}/events", self._events),
                Route("/jobs/{job}/retry", self._put_back, methods=["POST"]),
                Route("/jobs/{job}/images/{image:int}/retry", self._put_back, methods=["POST"]),
                Route("/failed", self._failures),
                Route("/images/{digest}", self._image),
                Mount("/page", StaticFiles(directory=_PAGE)),
            ],
            middleware=[Middleware(_Guard, names=names)],
            exception_handlers={
                HTTPException: _http_error,
                UnknownImage: _not_found,
                Exception: _server_error,
            },
        )

    def heard(self, outcome: Outcome) -> None:
        """Tell those who watch a job that the state of an image has changed."""
        for queue in self._listeners.get(outcome.job, ()):
            if queue.qsize() < _BACKLOG:
                queue.put_nowait(outcome.image)

    def close(self) -> None:
        """End the event streams; their readers come back, to whoever answers then."""
        for queues in self._listeners.values():
            for queue in queues:
                queue.put_nowait(None)

    # New work.

    async def _submit(self, request: Request) -> Response:
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            images = await self._named(request)
        elif kind == "multipart/form-data":
            images = await self._uploaded(request)
        else:
            raise HTTPException(
                415,
                f"the content type is {kind or 'missing'}; expected application/json with URLs, "
                f"or multipart/form-data with files",
            )
        job = uuid.uuid4().hex
        # The rows are there before any message is: a result cannot come too early.
        await _blocking(self._jobs.create, job, images, time.time())
        self._work()
        address = f"/jobs/{job}"
        return JSONResponse(
            {"id": job, "url": address, "total": len(images)}, 202, {"Location": address}
        )

    async def _named(self, request: Request) -> list[Image]:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_JSON:
                raise HTTPException(413, f"the job has more than {_MOST_JSON} bytes")
        try:
            wanted = msgspec.json.decode(body, type=_NewJob).images
        except msgspec.ValidationError as error:
            raise HTTPException(422, str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HTTPException(400, f"not JSON: {error}") from None
        _count(len(wanted), _MOST_IMAGES)
        images = []
        for number, image in enumerate(wanted):
            problem = url_problem(image.url) or image.spec().problem()
            if problem:
                raise HTTPException(422, f"{problem} - at `$.images[{number}]`")
            images.append(Image(_name(urlsplit(image.url).path), image.spec(), url=image.url))
        return images

    async def _uploaded(self, request: Request) -> list[Image]:
        async with request.form(max_files=_MOST_UPLOADS, max_fields=10) as form:
            spec = _spec(form)
            # A form in which no file was chosen sends one without name and content.
            files = [
                file
                for file in form.getlist("images")
                if isinstance(file, UploadFile) and (file.filename or file.size)
            ]
            _count(len(files), _MOST_UPLOADS)
            return [await self._keep(file, spec) for file in files]

    async def _keep(self, file: UploadFile, spec: Spec) -> Image:
        name = _name(file.filename or "")
        try:
            with self._blobs.incoming(_MOST_FILE) as incoming:
                while chunk := await file.read(1 << 20):
                    incoming.write(chunk)
                digest = await _blocking(incoming.keep)
        except BlobTooLarge as reason:
            raise HTTPException(413, f"{name}: {reason}") from None
        return Image(name, spec, original=digest)

    async def _put_back(self, request: Request) -> Response:
        job = request.path_params["job"]
        image = request.path_params.get("image")
        images = await _blocking(self._jobs.put_back, job, image, time.time())
        self._work()
        for number in images:
            self.heard(Outcome(job, number, 0, "waiting"))
        return JSONResponse({"put_back": images}, 202)

    # Looking at it.

    async def _job(self, request: Request) -> Response:
        if "text/html" in request.headers.get("Accept", ""):
            return await self._page(request)
        state = await _blocking(self._jobs.job, request.path_params["job"])
        return _json(state | {"images": [_addressed(image) for image in state["images"]]})

    async def _latest(self, _request: Request) -> Response:
        return _json({"jobs": await _blocking(self._jobs.latest)})

    async def _failures(self, _request: Request) -> Response:
        return _json({"images": await _blocking(self._jobs.failures)})

    async def _events(self, request: Request) -> Response:
        job = request.path_params["job"]
        await _blocking(self._jobs.image, job, 0)
        return StreamingResponse(
            self._stream(job),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def _stream(self, job: str) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[int | None] = asyncio.Queue()
        # Listen first and then look: nothing falls in between.
        self._listeners.setdefault(job, set()).add(queue)
        try:
            state = await _blocking(self._jobs.job, job)
            state["images"] = [_addressed(image) for image in state["images"]]
            yield _event("job", state)
            while True:
                try:
                    image = await asyncio.wait_for(queue.get(), _KEEPALIVE)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if image is None:
                    return
                state = await _blocking(self._jobs.image, job, image)
                yield _event("image", state | {"image": _addressed(state["image"])})
        finally:
            self._listeners[job].discard(queue)
            if not self._listeners[job]:
                del self._listeners[job]

    async def _image(self, request: Request) -> Response:
        digest = request.path_params["digest"].partition(".")[0]
        try:
            path = self._blobs.path(digest)
            media = await _blocking(_media, path)
        except (BlobMissing, FileNotFoundError):
            raise HTTPException(404, "there is no such image") from None
        if media is None:
            raise HTTPException(404, "this file is not an image")
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return FileResponse(path, media_type=media, headers=headers)

    async def _page(self, _request: Request) -> Response:
        headers = {"Cache-Control": "no-cache", "Vary": "Accept"}
        return FileResponse(_PAGE / "index.html", headers=headers)

    async def _health(self, _request: Request) -> Response:
        await _blocking(self._jobs.latest, 1)
        return JSONResponse({"ok": True})


class _Guard:
    """Around everything: who may ask, who may post, how much, and what browsers may do with it."""

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app = app
        self._names = names | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if not self._answers_to(host := request.headers.get("Host", "")):
            # A page elsewhere whose name was made to mean our address would be of our origin.
            unknown = JSONResponse(
                {"error": f"nobody called {host!r} is here; WEBIMAGES_NAMES may allow it"}, 421
            )
            await unknown(scope, receive, send)
            return
        origin = request.headers.get("Origin")
        foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("Host")
        if request.method == "POST" and foreign:
            # Another site's page must not post here in its reader's name.
            refused = JSONResponse({"error": f"posts from {origin} are not taken"}, 403)
            await refused(scope, receive, send)
            return
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > _MOST_BODY:
                raise HTTPException(413, f"the request has more than {_MOST_BODY} bytes")
            return message

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"x-content-type-options", b"nosniff"),
                    (b"content-security-policy", _POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self._app(scope, limited, hardened)

    def _answers_to(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in self._names:
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


async def _blocking(function: Callable[..., T], *args: object) -> T:
    return await asyncio.to_thread(function, *args)


def _json(value: Any) -> Response:
    return JSONResponse(value, headers={"Cache-Control": "no-store", "Vary": "Accept"})


def _event(kind: str, data: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(data))


def _addressed(image: dict[str, Any]) -> dict[str, Any]:
    """Say where the result can be had."""
    result = image["result"]
    if result is None:
        return image
    return image | {"result": result | {"url": f"/images/{result['digest']}.{result['format']}"}}


def _count(count: int, most: int) -> None:
    if not 0 < count <= most:
        raise HTTPException(422, f"the job has {count} images; expected 1 to {most}")


def _spec(form: FormData) -> Spec:
    given = {key: value for key, value in form.items() if key != "images" and value != ""}
    try:
        spec = msgspec.convert(given, Spec, strict=False)
    except msgspec.ValidationError as error:
        raise HTTPException(422, str(error)) from None
    if problem := spec.problem():
        raise HTTPException(422, problem)
    return spec


def _name(path: str) -> str:
    """Return what to call an image: the last part of its path, for people only."""
    name = re.split(r"[/\\]", unquote(path).rstrip("/"))[-1]
    return "".join(c for c in name if c.isprintable())[-120:] or "image"


def _media(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return "image/webp"
    return next((media for magic, media in _MEDIA if head.startswith(magic)), None)


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _not_found(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 404)


async def _server_error(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"this did not work: {type(error).__name__}"}, 500)
