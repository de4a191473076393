"""A connection to a NATS server that mends itself: the one file that knows the client library.

The library connects, authenticates, encrypts and parses. What is on top of it here is what it
lacks for our load: messages are handed on at once, without a task and a queue for each
subscription, and everything that is written within one turn of the event loop leaves in one write.

The library's own reconnecting is switched off: it writes what was pending before what is older,
gives up on some errors, and waits in whole seconds. A broken connection is replaced by a new one
with the same subscriptions.
"""

import asyncio
import contextlib
import json
import logging
import random
import re
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import quote

import nats.aio.client
import nats.errors

from msgflo.errors import ConfigurationError, ConnectFailed, ConnectionLost, TransportError
from msgflo.transport.nats_topology import Address

__all__ = ["ApiError", "Link", "NoResponders", "Reply", "Subscription", "read_headers", "status_of"]

log = logging.getLogger("msgflo.transport.nats")

Handler = Callable[[bytes, bytes, bytes, bytes], None]
"""Called with subject, reply subject, payload and the undecoded header block (may be empty)."""

LEAST_VERSION = (2, 11)
"""Servers from here on can read many messages at once and let keys expire."""

_HEADER_START = b"NATS/1.0\r\n"
_KEY = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LONGEST_PAUSE = 2.0


class ApiError(TransportError):
    """The server refused a request of the JetStream API.

    Attributes:
        code: as in HTTP.
        number: JetStream's own number of the error.
        description: JetStream's text.
    """

    def __init__(self, what: str, error: Mapping[str, Any]) -> None:
        self.code = int(error.get("code", 0))
        self.number = int(error.get("err_code", 0))
        self.description = str(error.get("description", "unknown error"))
        super().__init__(f"the broker refused {what}: {self.description} ({self.number})")


class NoResponders(TransportError):
    """Nobody listens at the subject of a request."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request: its payload and headers."""

    body: bytes
    headers: Mapping[str, str]
    status: int


@dataclass(slots=True, eq=False)
class Subscription:
    """A subscription that lasts over reconnects, until it is cancelled."""

    number: int
    subject: str
    handler: Handler


def encode_headers(headers: Mapping[str, str], more: str = "") -> bytes:
    """Return a header block.

    Line breaks within values become blanks: a header is one line.

    Args:
        headers: names and values.
        more: further lines, ready made, each with its line end.

    Raises:
        TransportError: a name cannot be one; says which.
    """
    lines = []
    for key, value in headers.items():
        if key not in _good_keys:
            if not _KEY.fullmatch(key):
                raise TransportError(
                    f"{key!r} cannot be the name of a header; expected letters, digits and '-'"
                )
            if len(_good_keys) < 1000:
                _good_keys.add(key)
        lines.append(f"{key}: {value}\r\n")
    text = "".join(lines)
    if text.count("\n") != len(lines) or text.count("\r") != len(lines):
        lines = [f"{key}: {value.translate(_NO_BREAKS)}\r\n" for key, value in headers.items()]
        text = "".join(lines)
    return f"NATS/1.0\r\n{text}{more}\r\n".encode("utf-8", "replace")


_good_keys: set[str] = set()
_NO_BREAKS = str.maketrans({"\r": " ", "\n": " "})


def read_headers(block: bytes) -> dict[str, str]:
    """Read a header block; a status line is left out."""
    headers = {}
    for line in block.decode("utf-8", "replace").split("\r\n")[1:]:
        key, colon, value = line.partition(":")
        if colon:
            headers[key] = value.strip()
    return headers


def status_of(block: bytes) -> tuple[int, str]:
    """Return the status and its description, ``(0, "")`` for a message that has none."""
    if not block or block.startswith(_HEADER_START):
        return 0, ""
    line = block[8 : block.find(b"\r\n")].decode("utf-8", "replace").strip()
    code, _, text = line.partition(" ")
    return (int(code), text) if code.isdigit() else (0, "")


def publication(subject: str, reply: str, body: bytes, headers: bytes = b"") -> bytes:
    """Return a message as it goes over the wire."""
    if headers:
        size = len(headers)
        start = f"HPUB {subject} {reply} {size} {size + len(body)}\r\n".encode()
        return b"".join((start, headers, body, b"\r\n"))
    return b"".join((f"PUB {subject} {reply} {len(body)}\r\n".encode(), body, b"\r\n"))


class _Wire(nats.aio.client.Client):
    """One connection of the library, with its dispatching replaced."""

    def __init__(self, dispatch: Mapping[int, Subscription], encrypted: bool) -> None:
        super().__init__()
        self._dispatch = dispatch
        self._encrypted = encrypted
        self.version = ""

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        found = self._dispatch.get(sid)
        if found is None:
            return
        try:
            found.handler(subject, reply, data, headers or b"")
        except Exception:
            # The library would stop reading for ever.
            log.exception("a message at %s could not be handled", found.subject)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection:
            self.version = str(info.get("version", ""))
            # Before anything secret is sent.
            if self._encrypted and not info.get("tls_required"):
                raise nats.errors.Error("no encryption")
        await super()._process_info(info, initial_connection)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            # uvloop raises where asyncio is silent, when the connection has ended and we were not
            # told yet. It is as if the data were on its way: not confirmed, and so sent again.
            with contextlib.suppress(RuntimeError):
                self._transport.write(data)

    @property
    def jetstream_offered(self) -> bool:
        return bool(self._server_info.get("jetstream"))


class Link:
    """A connection, its subscriptions, and requests over it.

    Args:
        address: where to.
        shown: the URL without its password, for errors.
        name: how the connection is called in the server's listings.
    """

    def __init__(self, address: Address, shown: str, name: str) -> None:
        self.address = address
        self.shown = shown
        self._name = name
        self._wire: _Wire | None = None
        self._tls: ssl.SSLContext | None = None
        self._up = False
        self._closed = False
        self._subscriptions: dict[int, Subscription] = {}
        self._next = 0
        self._out: list[bytes] = []
        self._write_due = False
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._inbox = f"_INBOX.{random.getrandbits(96):024x}"
        self._mender: asyncio.Task[None] | None = None
        self._problem = ""
        self._changed = asyncio.Event()
        self.max_payload = 1024 * 1024
        self.opened = 0
        """How often a connection was made."""
        self.lost: Callable[[str], None] | None = None
        """Called with the reason when the connection broke; then not again until it is restored."""
        self.restoring: Callable[[], Awaitable[None]] | None = None
        """Does after each reconnect what has to be done before it works again. It is cancelled if
        the connection breaks meanwhile, and called again after the next."""
        self.restored: Callable[[], None] | None = None
        """Called when it works again."""
        self._answers = self.subscribe(f"{self._inbox}.r.*", self._answered)

    @property
    def inbox(self) -> str:
        """A prefix of subjects that only this link uses; ``.r`` is taken."""
        return self._inbox

    @property
    def nowhere(self) -> str:
        """Where answers go that nobody wants."""
        return f"{self._inbox}.r.0"

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._up

    @property
    def closed(self) -> bool:
        """Whether it was closed for good."""
        return self._closed

    # Connecting.

    async def connect(self, timeout: float) -> None:
        """Connect, trying again until the time is over.

        Raises:
            ConnectFailed: says why.
            ConfigurationError: there is no such file of certificates.
        """
        if self._closed:
            raise ConnectFailed(self.shown, "this connection was closed; make a new one")
        if self._up:
            return
        self._tls = _tls(self.address)
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        pause = 0.05
        while True:
            left = end - loop.time()
            if left > 0:
                try:
                    async with asyncio.timeout(left):
                        await self._open()
                except TimeoutError:
                    self._problem = self._problem or "it does not answer"
                else:
                    return
            if loop.time() + pause >= end:
                raise ConnectFailed(self.shown, f"{self._problem} (tried for {timeout:g} s)")
            if self._problem.startswith("refused"):
                raise ConnectFailed(self.shown, self._problem)
            await asyncio.sleep(pause)
            pause = min(pause * 1.6, _LONGEST_PAUSE)

    async def _open(self) -> None:
        """Try once. Leaves the reason in ``_problem`` and raises TimeoutError if it fails."""
        wire = _Wire(self._subscriptions, self.address.tls)
        self._problem = ""
        problems: list[Exception] = []

        async def note(error: Exception) -> None:
            problems.append(error)
            del problems[:-5]

        async def broken() -> None:
            if self._wire is wire and self._up:
                said = problems[-1] if problems else wire.last_error
                self._lose(_reason(said) if said is not None else "the broker closed it")

        try:
            await wire.connect(
                servers=[_server_url(self.address, server) for server in self.address.servers],
                name=self._name,
                user=self.address.user or None,
                password=self.address.password if self.address.user else None,
                token=self.address.token or None,
                tls=self._tls,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=3,
                # A server that hangs is noticed within 15 s.
                ping_interval=5,
                max_outstanding_pings=2,
                error_cb=note,
                disconnected_cb=broken,
                closed_cb=broken,
            )
        except Exception as error:
            said = next((e for e in reversed(problems) if _tells(e)), error)
            self._problem = _reason(said)
            await _discard(wire)
            raise TimeoutError from None
        except BaseException:
            await _discard(wire)
            raise
        problem = _unfit(wire)
        if problem:
            self._problem = problem
            await _discard(wire)
            raise TimeoutError
        self._wire = wire
        self.max_payload = wire.max_payload
        self.opened += 1
        self._up = True
        self._out.clear()
        for found in self._subscriptions.values():
            self.write(f"SUB {found.subject}  {found.number}\r\n".encode())
        self._changed.set()

    def _lose(self, reason: str) -> None:
        self._fall(f"the connection broke: {reason}")
        if not self._closed and (self._mender is None or self._mender.done()):
            _call(self.lost, reason)
            self._mender = asyncio.get_running_loop().create_task(
                self._mend(), name="msgflo nats reconnect"
            )

    def _fall(self, reason: str) -> None:
        """Be without a connection: nobody needs to wait for an answer any more."""
        self._up = False
        self._changed.clear()
        self._out.clear()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(ConnectionLost(reason))

    async def _mend(self) -> None:
        pause = 0.02
        while not self._closed:
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311 - not for secrecy
            pause = min(pause * 1.6, _LONGEST_PAUSE)
            old, self._wire = self._wire, None
            if old is not None:
                await _discard(old)
            try:
                async with asyncio.timeout(5):
                    await self._open()
            except TimeoutError:
                continue
            if await self._restored():
                _call(self.restored)
                return

    async def _restored(self) -> bool:
        """Do what has to be done after a reconnect; ``False`` if that must begin anew."""
        if self.restoring is None:
            return self._up
        work = asyncio.ensure_future(self.restoring())
        try:
            with self.awaiting() as (_, broken):
                await asyncio.wait({work, broken}, return_when=asyncio.FIRST_COMPLETED)
                if broken.done():
                    log.info("after reconnecting: %s", broken.exception())
                    return False
            work.result()
        except Exception as error:
            known = isinstance(error, TransportError)
            log.warning("after reconnecting: %s", error, exc_info=None if known else error)
            self._fall(f"the connection was of no use: {error}")
            return False
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        return self._up

    async def close(self) -> None:
        """Write what is to be written and disconnect for good. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._write_out()
        await self.disconnect()
        self._changed.set()

    async def disconnect(self) -> None:
        """Disconnect, and do not connect again unless asked to. Idempotent."""
        self._up = False
        if self._mender is not None:
            self._mender.cancel()
            await asyncio.gather(self._mender, return_exceptions=True)
        self._fall("the connection was closed")
        wire, self._wire = self._wire, None
        if wire is not None:
            await _discard(wire)

    async def abandon(self) -> None:
        """Break off for good without a word to the server, as if the process had died."""
        self._out.clear()
        self._up = False
        await self.close()

    async def ready(self, timeout: float) -> None:
        """Wait until there is a connection.

        Raises:
            ConnectionLost: not in this time.
        """
        if self._up:
            return
        try:
            async with asyncio.timeout(timeout):
                while not self._up and not self._closed:
                    await self._changed.wait()
        except TimeoutError:
            raise ConnectionLost(
                f"no connection to the broker at {self.shown} for {timeout:g} s"
                + (f": {self._problem}" if self._problem else "")
            ) from None
        if self._closed:
            raise ConnectionLost("the connection was closed")

    # Writing.

    def write(self, data: bytes) -> bool:
        """Write with all else of this turn of the loop; ``False`` if there is no connection."""
        if not self._up:
            return False
        self._out.append(data)
        if not self._write_due:
            self._write_due = True
            asyncio.get_running_loop().call_soon(self._write_out)
        return True

    def _write_out(self) -> None:
        self._write_due = False
        if self._out and self._wire is not None and self._up:
            data = b"".join(self._out)
            self._out.clear()
            self._wire.write(data)

    def publish(self, subject: str, body: bytes, reply: str = "", headers: bytes = b"") -> bool:
        """Publish a message; ``False`` if there is no connection."""
        return self.write(publication(subject, reply, body, headers))

    # Subscribing.

    def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Have ``handler`` called for each message of a subject (wildcards allowed)."""
        self._next += 1
        made = Subscription(self._next, subject, handler)
        self._subscriptions[made.number] = made
        self.write(f"SUB {subject}  {made.number}\r\n".encode())
        return made

    def silence(self, subscription: Subscription) -> None:
        """Tell the server to send no more; what is on its way still arrives until cancelled."""
        self.write(f"UNSUB {subscription.number}\r\n".encode())

    def cancel(self, subscription: Subscription) -> None:
        """End a subscription. Idempotent."""
        if self._subscriptions.pop(subscription.number, None) is not None:
            self.silence(subscription)

    # Asking.

    async def request(
        self, subject: str, body: bytes = b"", timeout: float = 5.0, headers: bytes = b""
    ) -> Reply:
        """Publish a message and return the answer.

        Raises:
            NoResponders: nobody listens there.
            ConnectionLost: no answer in this time, or the connection broke.
        """
        with self.awaiting() as (number, answer):
            if not self.publish(subject, body, f"{self._inbox}.r.{number}", headers):
                raise ConnectionLost(f"no connection to the broker at {self.shown}")
            try:
                async with asyncio.timeout(timeout):
                    reply: Reply = await answer
            except TimeoutError:
                raise ConnectionLost(f"no answer from {subject} within {timeout:g} s") from None
        if reply.status == 503:
            raise NoResponders(f"nobody answers at {subject}")
        return reply

    @contextlib.contextmanager
    def awaiting(self) -> Iterator[tuple[int, asyncio.Future[Any]]]:
        """Give a number and a future for an answer; it fails if the connection breaks before."""
        self._next += 1
        number = self._next
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            yield number, future
        finally:
            self._waiting.pop(number, None)

    async def ask(self, subject: str, body: bytes = b"", timeout: float = 15.0) -> Reply:
        """Make a request that can be made again, over reconnects too.

        Args:
            subject: whom.
            body: the request.
            timeout: seconds for all tries.

        Raises:
            NoResponders: nobody listens there, at the last try.
            ConnectionLost: no answer in this time.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            await self.ready(max(0.01, end - loop.time()))
            try:
                return await self.request(subject, body, max(0.01, min(5.0, end - loop.time())))
            except (ConnectionLost, NoResponders):
                if loop.time() + 0.1 >= end or self._closed:
                    raise
            await asyncio.sleep(0.1)

    def _answered(self, subject: bytes, _reply: bytes, body: bytes, block: bytes) -> None:
        future = self._waiting.get(int(subject[subject.rfind(b".") + 1 :]))
        if future is not None and not future.done():
            headers = read_headers(block) if block else {}
            future.set_result(Reply(body, headers, status_of(block)[0]))

    async def api(
        self, what: str, body: Mapping[str, Any] | None = None, timeout: float = 15.0
    ) -> dict[str, Any]:
        """Make a request of the JetStream API, over reconnects too.

        Args:
            what: the subject without its start, such as ``STREAM.INFO.NAME``.
            body: the request.
            timeout: seconds for all tries.

        Raises:
            ApiError: it was refused.
            ConnectionLost: no answer in this time.
        """
        data = json.dumps(body).encode() if body else b""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            try:
                reply = await self.ask(f"$JS.API.{what}", data, end - loop.time())
            except NoResponders:
                raise ConnectionLost(
                    f"the broker at {self.shown} has JetStream not enabled, or not ready; "
                    f"start it with: nats-server -js"
                ) from None
            answer: dict[str, Any] = json.loads(reply.body)
            error_part = answer.get("error")
            if error_part is None:
                return answer
            refused = ApiError(what, error_part)
            # 10008: temporarily unavailable, while a server or a cluster's leader starts.
            if refused.number != 10008 or loop.time() + 0.2 >= end:
                raise refused
            await asyncio.sleep(0.2)

    async def barrier(self, timeout: float = 5.0) -> None:
        """Return when the server has taken everything that was written before.

        Raises:
            ConnectionLost: not in this time.
        """
        with self.awaiting() as (number, back):
            # Sent to ourselves: it comes back behind all that was on its way to us.
            if not self.publish(f"{self._inbox}.r.{number}", b""):
                raise ConnectionLost(f"no connection to the broker at {self.shown}")
            try:
                async with asyncio.timeout(timeout):
                    await back
            except TimeoutError:
                raise ConnectionLost(f"the broker did not answer within {timeout:g} s") from None


def _call(call: Callable[..., None] | None, *arguments: str) -> None:
    if call is not None:
        try:
            call(*arguments)
        except Exception:
            log.exception("whoever was told of the connection failed")


async def _discard(wire: _Wire) -> None:
    try:
        async with asyncio.timeout(2):
            await wire.close()
    except Exception as error:
        log.debug("closing a connection: %s", error)


def _server_url(address: Address, server: str) -> str:
    return f"{'tls' if address.tls else 'nats'}://{quote(server, safe=':[]')}"


def _tls(address: Address) -> ssl.SSLContext | None:
    if not address.ca:
        return None
    try:
        return ssl.create_default_context(cafile=address.ca)
    except OSError as error:
        _wrong_ca(address.ca, error)


def _wrong_ca(path: str, error: OSError) -> NoReturn:
    raise ConfigurationError(f"the certificates in {path} cannot be read: {error}") from None


def _tells(error: Exception) -> bool:
    """Tell whether an error says more than that there was one."""
    return not isinstance(error, nats.errors.NoServersError | nats.errors.UnexpectedEOF)


def _reason(error: Exception) -> str:
    """Say in our words what the library reports."""
    text = str(error)
    lower = text.lower()
    if isinstance(error, ConnectionRefusedError) or "connect call failed" in lower:
        return "nobody listens there (connection refused)"
    if "authorization violation" in lower or "authentication" in lower:
        return "refused: the user, password or token in the URL is wrong or missing"
    if "no encryption" in lower:
        return "refused: tls:// was asked for, and the server offers no encryption"
    if isinstance(error, ssl.SSLError):
        return f"refused: the encrypted connection failed ({error.reason or text})"
    if isinstance(error, TimeoutError | nats.errors.TimeoutError):
        return "it does not answer"
    if isinstance(error, nats.errors.StaleConnectionError):
        return "the broker stopped answering"
    if isinstance(error, nats.errors.UnexpectedEOF | ConnectionResetError | BrokenPipeError):
        return "the broker closed the connection"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    return text.removeprefix("nats: ") or type(error).__name__


def _unfit(wire: _Wire) -> str:
    """Say why a server cannot be used; ``""`` if it can."""
    found = re.match(r"v?(\d+)\.(\d+)", wire.version)
    if found and (int(found[1]), int(found[2])) < LEAST_VERSION:
        wanted = ".".join(map(str, LEAST_VERSION))
        return f"refused: nats-server {wire.version} is too old; {wanted} or later is needed"
    if not wire.jetstream_offered:
        return "refused: the server has JetStream not enabled; start it with: nats-server -js"
    return ""
