import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from webimages.addresses import AllowList
from webimages.blobs import Blobs
from webimages.download import CannotFetch, TryAgain, download, url_problem

PICTURE = b"\x89PNG" + bytes(100_000)


class Server:
    """A real web server on loopback; notes what it was asked for, and as whom."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.asked.append((self.headers["Host"], self.path))
                answer = getattr(server, f"answer_{self.path.strip('/').split('?')[0]}", None)
                if answer is None:
                    self.send_error(404)
                else:
                    answer(self)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @staticmethod
    def _send(to, status: int, body: bytes = b"", **headers: str) -> None:
        to.send_response(status)
        headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            if value:
                to.send_header(name.replace("_", "-"), value)
        to.end_headers()
        with suppress(ConnectionError):
            to.wfile.write(body)

    def answer_picture(self, to) -> None:
        self._send(to, 200, PICTURE)

    def answer_empty(self, to) -> None:
        self._send(to, 200)

    def answer_endless(self, to) -> None:
        self._send(to, 200, bytes(5_000_000), **{"Content-Length": ""})

    def answer_squeezed(self, to) -> None:
        self._send(to, 200, b"xx", Content_Encoding="gzip")

    def answer_down(self, to) -> None:
        self._send(to, 503)

    def answer_near(self, to) -> None:
        self._send(to, 302, Location="/picture")

    def answer_round(self, to) -> None:
        self._send(to, 302, Location="/round")

    def answer_inside(self, to) -> None:
        self._send(to, 302, Location="http://10.0.0.1/secret")

    def answer_file(self, to) -> None:
        self._send(to, 302, Location="file:///etc/passwd")

    def answer_named(self, to) -> None:
        self._send(to, 302, Location=f"http://other.test:{self.port}/picture")


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


@pytest.fixture
def get(server: Server, blobs: Blobs) -> Callable:
    async def get(url: str, allow: str | None = None, **options: object) -> str:
        list_ = AllowList.parse(f"127.0.0.1:{server.port}" if allow is None else allow)
        options = {"most": 1_000_000, "timeout": 20.0, **options}
        url = url if "://" in url else f"http://127.0.0.1:{server.port}{url}"
        return await download(url, blobs, list_, **options)  # type: ignore[arg-type]

    return get


def nothing_is_left(blobs: Blobs) -> bool:
    return not [path for path in blobs.folder.rglob("*") if path.is_file()]


async def test_what_is_fetched_is_a_file_named_by_its_bytes(get: Callable, blobs: Blobs) -> None:
    assert blobs.read(await get("/picture")) == PICTURE


async def test_loopback_is_not_fetched_from_unless_it_is_allowed(
    get: Callable, server: Server, blobs: Blobs
) -> None:
    for host in ("127.0.0.1", "localhost", "127.1", "0x7f.0.0.1", "[::ffff:127.0.0.1]"):
        with pytest.raises(CannotFetch, match="not allowed"):
            await get(f"http://{host}:{server.port}/picture", allow="")

    assert server.asked == []
    assert nothing_is_left(blobs)


async def test_a_relative_redirect_keeps_the_name(
    get: Callable, server: Server, blobs: Blobs
) -> None:
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    digest = await get(f"http://photos.test:{server.port}/near", resolve=resolve)

    assert blobs.read(digest) == PICTURE
    name = f"photos.test:{server.port}"
    assert server.asked == [(name, "/near"), (name, "/picture")]
    assert asked == ["photos.test", "photos.test"]


async def test_a_name_that_changes_its_meaning_gets_nowhere(get: Callable, server: Server) -> None:
    """The address that was judged is the one that is connected to; a redirect is judged anew."""
    meanings = iter([["127.0.0.1"], ["10.0.0.1"], ["127.0.0.1"]])

    async def resolve(host: str, port: int) -> list[str]:
        return next(meanings)

    with pytest.raises(CannotFetch, match=r"photos.test is the private address 10\.0\.0\.1"):
        await get(f"http://photos.test:{server.port}/near", resolve=resolve)

    assert [path for _, path in server.asked] == ["/near"]
    assert next(meanings) == ["127.0.0.1"]


async def test_a_redirect_to_another_name_goes_there_by_its_own_name(
    get: Callable, server: Server, blobs: Blobs
) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    digest = await get(f"http://photos.test:{server.port}/named", resolve=resolve)

    assert blobs.read(digest) == PICTURE
    assert server.asked[-1] == (f"other.test:{server.port}", "/picture")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/missing", "404 Not Found"),
        ("/empty", "empty"),
        ("/squeezed", "compresses"),
        ("/round", "more than 5 redirects"),
        ("/inside", "not allowed: the private address 10.0.0.1"),
        ("/file", "expected http or https|not a URL to fetch"),
    ],
)
async def test_what_cannot_be_fetched_says_why_and_leaves_nothing(
    get: Callable, blobs: Blobs, path: str, said: str
) -> None:
    with pytest.raises(CannotFetch, match=said):
        await get(path)

    assert nothing_is_left(blobs)


@pytest.mark.parametrize("path", ["/picture", "/endless"])
async def test_no_more_is_taken_than_is_allowed_said_or_unsaid(
    get: Callable, blobs: Blobs, path: str
) -> None:
    with pytest.raises(CannotFetch, match=r"at most 0\.05 MB|larger than 0\.05 MB"):
        await get(path, most=50_000)

    assert nothing_is_left(blobs)


async def test_a_server_in_trouble_is_tried_again(get: Callable) -> None:
    with pytest.raises(TryAgain, match="503"):
        await get("/down")


@asynccontextmanager
async def silent_server(first: bytes) -> AsyncIterator[int]:
    """A server that says so much, and then nothing."""
    writers = []

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        writers.append(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for writer in writers:
            writer.close()
        server.close()


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"])
async def test_a_server_that_falls_silent_is_given_up(
    get: Callable, blobs: Blobs, first: bytes
) -> None:
    async with silent_server(first) as port:
        with pytest.raises(TryAgain, match=r"longer than|in time"):
            await get(f"http://127.0.0.1:{port}/", allow=f"127.0.0.1:{port}", timeout=0.3)

    assert nothing_is_left(blobs)


async def test_a_server_that_hangs_up_amid_the_image_is_tried_again(
    get: Callable, blobs: Blobs
) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(TryAgain, match="the connection failed"):
            await get(f"http://127.0.0.1:{port}/", allow="127.0.0.1")

    assert nothing_is_left(blobs)


async def test_a_port_where_nobody_listens_is_tried_again(get: Callable) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with pytest.raises(TryAgain, match="the connection failed"):
            await get(f"http://127.0.0.1:{port}/", allow="127.0.0.1")


async def test_a_name_that_nobody_has_cannot_be_fetched_and_one_unknown_for_now_may_be(
    get: Callable,
) -> None:
    def failing(error: int):
        async def resolve(host: str, port: int) -> list[str]:
            raise socket.gaierror(error, "said the resolver")

        return resolve

    with pytest.raises(CannotFetch, match=r"there is no host 'nowhere\.test'"):
        await get("http://nowhere.test/", resolve=failing(socket.EAI_NONAME))
    with pytest.raises(TryAgain, match="cannot be resolved now"):
        await get("http://nowhere.test/", resolve=failing(socket.EAI_AGAIN))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://example.org/a.jpg", "'ftp'"),
        ("/a.jpg", "'missing'"),
        ("http:///a.jpg", "no host"),
        ("http://me:secret@example.org/", "user name or password"),
        ("http://example.org:port/", "not a URL"),
        ("http://[::1/", "not a URL"),
    ],
)
def test_a_url_that_is_not_one_to_fetch_says_why(url: str, said: str) -> None:
    assert said in (url_problem(url) or "")


def test_a_usual_url_has_no_problem() -> None:
    assert url_problem("https://example.org:8443/a%20b.jpg?x=1#y") is None
