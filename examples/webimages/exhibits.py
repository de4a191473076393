"""What the demo gives to its network: photographs, and everything that can be wrong with one.

The photographs lie in ``photos``. What is wrong is made here, so that no broken file, no bomb and
nothing that is huge has to lie in the repository. A small web server on loopback shows it all.
"""

import contextlib
import functools
import io
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

__all__ = ["EXHIBITS", "LATE", "SHAPES", "Exhibit", "Exhibition", "problems"]

PHOTOS = Path(__file__).parent / "photos"

SHAPES: tuple[dict[str, Any], ...] = (
    {"width": 640, "height": 480, "format": "webp", "policy": "fit"},
    {"width": 256, "height": 256, "format": "jpeg", "policy": "crop"},
    {"width": 900, "format": "jpeg", "policy": "fit"},
    {"width": 160, "height": 90, "format": "png", "policy": "crop"},
)


@dataclass(frozen=True)
class Answer:
    """What the server says to one request."""

    body: bytes = b""
    status: int = 200
    location: str = ""


@dataclass(frozen=True)
class Exhibit:
    """An image of the job.

    Attributes:
        name: its file name.
        answer: what the server says, to the first request, the second, and so on.
        shape: how it is wanted.
        role: who has to refuse it; ``""`` if it has to come out well.
        reason: what is said then; a part of it.
        url: where it is, if not at the server.
    """

    name: str
    answer: Callable[[int], Answer]
    shape: dict[str, Any]
    role: str = ""
    reason: str = ""
    url: str = ""


LATE = "late.jpg"
"""Missing until the demo says otherwise; then it can be put back."""


def _photo(name: str) -> bytes:
    return (PHOTOS / name).read_bytes()


def _truncated() -> bytes:
    whole = _photo("rocket.jpg")
    return whole[: len(whole) // 2]


def _damaged() -> bytes:
    data = bytearray(_photo("chelsea.png"))
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    return bytes(data)


def _sideways() -> bytes:
    """Return a photograph as a camera held on its side writes it."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned to the right
    out = io.BytesIO()
    with Image.open(PHOTOS / "coffee.webp") as image:
        turned = image.convert("RGB").transpose(Image.Transpose.ROTATE_90)
        turned.save(out, "JPEG", exif=exif)
    return out.getvalue()


@functools.cache
def _bomb() -> bytes:
    """Return a PNG of a few kilobytes that would unfold to 400 million pixels."""
    side = 20_000

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return len(data).to_bytes(4, "big") + kind + data + check.to_bytes(4, "big")

    squeezer = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    lines = b"".join(squeezer.compress(row) for _ in range(side)) + squeezer.flush()
    head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def _animation() -> bytes:
    out = io.BytesIO()
    frames = [Image.new("P", (32, 32), shade) for shade in (0, 1, 2)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


def _always(make: Callable[[], bytes]) -> Callable[[int], Answer]:
    return lambda _: Answer(make())


def _says(status: int, location: str = "") -> Callable[[int], Answer]:
    return lambda _: Answer(status=status, location=location)


def _busy_at_first(number: int) -> Answer:
    return Answer(status=503) if number == 1 else Answer(_photo("astronaut.jpg"))


def _good() -> list[Exhibit]:
    photos = sorted(p.name for p in PHOTOS.iterdir() if p.suffix in (".jpg", ".png", ".webp"))
    made = [
        Exhibit(name, _always(functools.partial(_photo, name)), shape)
        for shape in SHAPES
        for name in photos
    ]
    made.append(Exhibit("sideways.jpg", _always(_sideways), SHAPES[0]))
    made.append(Exhibit("busy.jpg", _busy_at_first, SHAPES[0]))
    return made


def _bad() -> list[Exhibit]:
    shape = SHAPES[0]
    cloud = "http://169.254.169.254/latest/meta-data/"
    router = "http://192.168.1.1/router.jpg"
    refused = "not a JPEG, PNG or WebP"
    return [
        Exhibit("truncated.jpg", _always(_truncated), shape, "resize", "broken"),
        Exhibit("damaged.png", _always(_damaged), shape, "resize", "broken"),
        Exhibit("bomb.png", _always(_bomb), shape, "resize", "too many pixels"),
        Exhibit("animation.gif", _always(_animation), shape, "resize", refused),
        Exhibit("letter.jpg", _always(lambda: b"Dear reader,\n"), shape, "resize", refused),
        Exhibit("huge.jpg", _always(lambda: bytes(25_000_000)), shape, "fetch", "at most 20 MB"),
        Exhibit("empty.jpg", _always(bytes), shape, "fetch", "empty"),
        Exhibit("missing.jpg", _says(404), shape, "fetch", "404"),
        Exhibit("down.jpg", _says(503), shape, "fetch", "503"),
        Exhibit("cloud.jpg", _says(302, cloud), shape, "fetch", "not allowed"),
        Exhibit("router.jpg", _says(404), shape, "fetch", "not allowed", url=router),
        Exhibit(LATE, _says(404), shape, "fetch", "404"),
    ]


def _mixed(good: list[Exhibit], bad: list[Exhibit]) -> tuple[Exhibit, ...]:
    """Return all of them, the bad ones spread among the good."""
    mixed = list(good)
    step = max(1, len(good) // len(bad))
    for number, exhibit in enumerate(bad):
        mixed.insert(number * (step + 1) + 1, exhibit)
    return tuple(mixed)


EXHIBITS = _mixed(_good(), _bad())


class Exhibition:
    """A web server that shows the exhibits, on loopback, in a thread of its own. Use with ``with``.

    Args:
        port: where to listen; if that is taken, and for 0, any free port.
    """

    def __init__(self, port: int = 0) -> None:
        self._exhibits = {exhibit.name: exhibit for exhibit in EXHIBITS}
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._come = threading.Event()
        handler = functools.partial(_Handler, self._answer)
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        except OSError:
            self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "Exhibition":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, exhibit: Exhibit) -> str:
        """Return where an exhibit is."""
        return exhibit.url or f"http://{self.address}/{exhibit.name}"

    def deliver_late(self) -> None:
        """From now on, what was late is there."""
        self._come.set()

    def _answer(self, path: str) -> Answer:
        name = path.removeprefix("/")
        exhibit = self._exhibits.get(name)
        if exhibit is None:
            return Answer(status=404)
        if name == LATE and self._come.is_set():
            return Answer(_photo("rocket.jpg"))
        with self._lock:
            self._asked[name] += 1
            number = self._asked[name]
        return exhibit.answer(number)


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, answer: Callable[[str], Answer], *args: Any) -> None:
        self._answer = answer
        super().__init__(*args)

    def do_GET(self) -> None:
        answer = self._answer(self.path)
        # Who has seen enough hangs up: that is what the huge one is for.
        with contextlib.suppress(ConnectionError):
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(answer.body)))
            if answer.location:
                self.send_header("Location", answer.location)
            self.end_headers()
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: the demo's own output is what is to be read."""


def problems(images: Sequence[dict[str, Any]], arrived: frozenset[str] = frozenset()) -> list[str]:
    """Say what is not as it has to be when the job is finished; nothing if all is.

    Args:
        images: the job's images, as the web role gives them, in the order of :data:`EXHIBITS`.
        arrived: those that are good by now although they were not at first.
    """
    if len(images) != len(EXHIBITS):
        return [f"the job has {len(images)} images, {len(EXHIBITS)} were given to it"]
    found = []
    for exhibit, image in zip(EXHIBITS, images, strict=True):
        bad = exhibit.role and exhibit.name not in arrived
        wanted = "failed" if bad else "completed"
        failure = image["failure"] or {"role": "", "reason": ""}
        said = f"{image['state']} {failure['role']} {failure['reason']}".strip()
        if image["state"] != wanted:
            found.append(f"{exhibit.name} should have {wanted}; it is: {said}")
        elif bad and (failure["role"] != exhibit.role or exhibit.reason not in failure["reason"]):
            found.append(
                f"{exhibit.name} should have failed at {exhibit.role} ({exhibit.reason}); "
                f"it is: {said}"
            )
    return found
