"""A connection to an AMQP broker that mends itself: the one file that knows the client library.

The library (pika) connects, authenticates, encrypts, keeps the heartbeat, and knows the rarer
methods. What is on top of it here is what it lacks for our load: frames of the hot path are read
and written in bulk (:mod:`msgflo.transport.amqp_frames`), everything that is written within one
turn of the event loop leaves in one write, and a channel is a plain object whose calls can be
awaited and fail when the channel does.
"""

import asyncio
import logging
import random
import ssl
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import pika
import pika.data
import pika.exceptions
import pika.frame
import pika.spec
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from msgflo.errors import ConfigurationError, ConnectFailed, ConnectionLost, TransportError
from msgflo.transport.amqp_frames import (
    FRAME,
    Content,
    destination,
    publication,
    read_content,
    write_content,
)
from msgflo.transport.amqp_topology import Address

__all__ = ["PUBLISHING", "Arrived", "Channel", "Gone", "Link", "Refused", "spec"]

log = logging.getLogger("msgflo.transport.amqp")
# What it has to say is said by our errors, in our words.
logging.getLogger("pika").setLevel(logging.CRITICAL)

spec = pika.spec
"""The broker's methods, by name."""

PUBLISHING = 1
"""The number of the channel for publishing: always the same, so that what is not confirmed can be
written again as it stands."""

_LONGEST_PAUSE = 2.0
_CALL_TIMEOUT = 20.0
_READY_TIMEOUT = 10.0
_RECEIVE = 65536

_INDEX = struct.Struct(">HH")
_TAG = struct.Struct(">Q")
_CONFIRM = struct.Struct(">QB")
_SIZE = struct.Struct(">Q")

_DELIVER, _RETURN, _ACK, _NACK = (60, 60), (60, 50), (60, 80), (60, 120)
_GET_OK, _GET_EMPTY = (60, 71), (60, 72)


class Refused(TransportError):
    """The broker refused a method, and closed its channel.

    Attributes:
        code: AMQP's, such as 404 (not there), 405 (somebody else's), 406 (declared otherwise).
        text: the broker's reason.
    """

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text
        super().__init__(f"the broker refused it: {text} ({code})")


class Gone(ConnectionLost):
    """The channel, or its connection, ended before there was an answer."""


class Arrived:
    """A message that came in.

    Attributes:
        tag: its number within the channel; 0 if it was returned.
        redelivered: whether the broker delivered it before, to whomever.
        exchange: where it was published.
        key: the routing key with which it was published.
        body: the payload.
        content: what came with it.
        code, text: why it was returned; ``""`` if it was not.
    """

    __slots__ = ("body", "code", "content", "exchange", "key", "redelivered", "tag", "text")

    def __init__(
        self,
        tag: int,
        redelivered: bool,
        exchange: str,
        key: str,
    ) -> None:
        self.tag = tag
        self.redelivered = redelivered
        self.exchange = exchange
        self.key = key
        self.code = 0
        self.text = ""
        self.body = b""
        self.content: Content = _NO_CONTENT


_NO_CONTENT = Content()


class Channel:
    """A channel of one connection, from its opening to its end. It ends with the connection."""

    def __init__(self, wire: "_Wire", number: int) -> None:
        self._wire = wire
        self.number = number
        self.open = True
        self.consumers: dict[bytes, Callable[[Arrived], None]] = {}
        self.cancelled: Callable[[str], None] | None = None
        """Called with a consumer's tag when the broker ended it."""
        self.confirmed: Callable[[int, bool, bool], None] | None = None
        """Called with number, whether all up to it are meant, and whether it has them."""
        self.returned: Callable[[Arrived], None] | None = None
        self.ended: Callable[[Exception], None] | None = None
        """Called once when the channel ended, unless by :meth:`close`."""
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._arriving: Arrived | None = None
        self._receiver: Callable[[Arrived], None] | None = None
        self._missing = 0
        self._pieces: list[bytes] = []

    def __repr__(self) -> str:
        return f"<Channel {self.number}{'' if self.open else ', closed'}>"

    @property
    def most(self) -> int:
        """Bytes of a frame."""
        return self._wire.most

    def write(self, data: bytes) -> None:
        """Write with all else of this turn of the loop; nothing if the channel has ended."""
        if self.open:
            self._wire.put(data)

    def tell(self, method: Any) -> None:
        """Have the broker do something that is not answered."""
        if self.open:
            self._wire.put(pika.frame.Method(self.number, method).marshal())

    def publish(
        self, exchange: str, key: str, body: bytes, *, expires: float = 0.0, reply_to: str = ""
    ) -> None:
        """Publish a JSON message of no more than passing interest, which may get lost."""
        content = write_content(
            len(body),
            {"Content-Type": "application/json"},
            time.time(),
            lasting=False,
            expires=expires,
            reply_to=reply_to,
        )
        where = destination(exchange, key, mandatory=False)
        self.write(publication(self.number, where, content, body, self.most))

    def ask(self, method: Any) -> "asyncio.Future[Any]":
        """Have the broker do something, and return its answer to come. Answers keep the order."""
        future: asyncio.Future[Any] = self._wire.loop.create_future()
        if not self.open:
            return _failed(future, Gone("the channel to the broker is closed"))
        try:
            data = pika.frame.Method(self.number, method).marshal()
        except (pika.exceptions.AMQPError, struct.error, UnicodeError) as error:
            problem = TransportError(f"cannot be said to an AMQP broker: {error}")
            return _failed(future, problem)
        self._waiting.append(future)
        self._wire.put(data)
        return future

    async def call(self, method: Any, timeout: float = _CALL_TIMEOUT) -> Any:
        """Have the broker do something, and return its answer.

        Raises:
            Refused: it will not; the channel is closed.
            ConnectionLost: no answer in this time; the channel is of no use any more.
        """
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self.ask(method))
        except TimeoutError:
            self.tell(spec.Channel.Close(200, "", 0, 0))
            self.abandon(Gone("given up"))
            raise ConnectionLost(
                f"the broker did not answer within {timeout:g} s"
                + (f": {self._wire.blocked}" if self._wire.blocked else "")
            ) from None

    async def close(self) -> None:
        """End the channel; what was delivered on it and not settled waits again. Idempotent."""
        if not self.open:
            return
        self.ended = None
        try:
            await self.call(spec.Channel.Close(200, "", 0, 0))
        finally:
            self.abandon(Gone("the channel was closed"))

    def abandon(self, reason: Exception) -> None:
        """Note that the channel has ended."""
        if not self.open:
            return
        self.open = False
        self._wire.forget(self)
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                _failed(future, reason)
        if self.ended is not None:
            self.ended(reason)

    # What comes in.

    def method(self, payload: bytes) -> None:
        """Take a method frame."""
        index = _INDEX.unpack_from(payload)
        if index == _DELIVER:
            at = 5 + payload[4]
            receiver = self.consumers.get(payload[5:at])
            (tag,) = _TAG.unpack_from(payload, at)
            redelivered = payload[at + 8] & 1
            at += 9
            end = at + 1 + payload[at]
            exchange = payload[at + 1 : end].decode("utf-8", "replace")
            key = payload[end + 1 : end + 1 + payload[end]].decode("utf-8", "replace")
            self._arriving = Arrived(tag, redelivered == 1, exchange, key)
            self._receiver = receiver
        elif index in {_ACK, _NACK}:
            number, flags = _CONFIRM.unpack_from(payload, 4)
            if self.confirmed is not None:
                self.confirmed(number, bool(flags & 1), index == _ACK)
        else:
            self._rare(index, payload)

    def _rare(self, index: tuple[int, int], payload: bytes) -> None:
        if index == _GET_EMPTY:
            self._answer(None)
            return
        method = spec.methods[index[0] << 16 | index[1]]()
        method.decode(payload, 4)
        if index == _GET_OK:
            self._arriving = Arrived(
                method.delivery_tag, method.redelivered, method.exchange, method.routing_key
            )
            self._receiver = self._answer
        elif index == _RETURN:
            self._arriving = Arrived(0, False, method.exchange, method.routing_key)
            self._arriving.code = method.reply_code
            self._arriving.text = method.reply_text
            self._receiver = self.returned
        elif isinstance(method, spec.Channel.Close):
            self._wire.put(pika.frame.Method(self.number, spec.Channel.CloseOk()).marshal())
            self.abandon(Refused(method.reply_code, method.reply_text))
        elif isinstance(method, spec.Basic.Cancel):
            if self.consumers.pop(method.consumer_tag.encode(), None) is not None:
                if not method.nowait:
                    self.tell(spec.Basic.CancelOk(method.consumer_tag))
                if self.cancelled is not None:
                    self.cancelled(method.consumer_tag)
        elif isinstance(method, spec.Channel.Flow):
            self.tell(spec.Channel.FlowOk(method.active))
        else:
            self._answer(method)

    def _answer(self, answer: Any) -> None:
        if self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(answer)

    def header(self, payload: bytes) -> None:
        """Take a content header frame."""
        arriving = self._arriving
        if arriving is None:
            return
        arriving.content = read_content(payload, pika.data.decode_table)
        (self._missing,) = _SIZE.unpack_from(payload, 4)
        if not self._missing:
            self._complete(arriving)

    def piece(self, payload: bytes) -> None:
        """Take a body frame."""
        arriving = self._arriving
        if arriving is None:
            return
        self._missing -= len(payload)
        if self._missing <= 0:
            if self._pieces:
                self._pieces.append(payload)
                payload = b"".join(self._pieces)
                self._pieces.clear()
            arriving.body = payload
            self._complete(arriving)
        else:
            self._pieces.append(payload)

    def _complete(self, arrived: Arrived) -> None:
        receiver, self._receiver, self._arriving = self._receiver, None, None
        if receiver is not None:
            try:
                receiver(arrived)
            except Exception:
                # What comes behind it must be read all the same.
                log.exception("a message from %r could not be handled", arrived.exchange)


class _Wire(AsyncioConnection):  # type: ignore[misc]  # the library has no types
    """One connection of the library, with its reading and writing replaced."""

    def __init__(self, loop: asyncio.AbstractEventLoop, parameters: Any, *calls: Any) -> None:
        self.loop = loop
        self.blocked = ""
        self.most = 131072
        self.channels: dict[int, Channel] = {}
        self._rest = b""
        self._out: list[bytes] = []
        self._write_due = False
        super().__init__(parameters, *calls, custom_ioloop=loop)

    # Writing: everything of one turn of the loop at once.

    def put(self, data: bytes) -> None:
        self._out.append(data)
        if not self._write_due:
            self._write_due = True
            self.loop.call_soon(self.write_out)

    def write_out(self) -> None:
        self._write_due = False
        if self._out and self._transport is not None:
            data = b"".join(self._out) if len(self._out) > 1 else self._out[0]
            self._out.clear()
            self.bytes_sent += len(data)
            self._adapter_emit_data(data)

    def _output_marshaled_frames(self, marshaled_frames: Any) -> None:
        for data in marshaled_frames:
            self.put(data)

    # Reading: frames of our channels without the library's objects.

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = _RECEIVE
        super()._proto_connection_made(transport)

    def _on_data_available(self, data_in: bytes) -> None:
        data = self._rest + data_in if self._rest else data_in
        at, size = 0, len(data)
        if data[:4] == b"AMQP":  # it speaks another version, and says so
            super()._on_data_available(data)
            return
        while size - at >= 8:
            kind, number, length = FRAME.unpack_from(data, at)
            start = at + 7
            end = start + length
            if end >= size:
                break
            if data[end] != 0xCE:
                self._terminate_stream(pika.exceptions.InvalidFrameError("a frame has no end"))
                return
            channel = self.channels.get(number)
            if channel is not None and number:
                if kind == 1:
                    channel.method(data[start:end])
                elif kind == 2:
                    channel.header(data[start:end])
                else:
                    channel.piece(data[start:end])
            elif not number:
                _, frame = pika.frame.decode_frame(data[at : end + 1])
                self._process_frame(frame)
            elif kind == 1 and _INDEX.unpack_from(data, start) == (20, 40):
                # A channel that we gave up; the broker waits for this before its number is free.
                self.put(pika.frame.Method(number, spec.Channel.CloseOk()).marshal())
            at = end + 1
        self.bytes_received += at
        self._rest = data[at:]

    def forget(self, channel: Channel) -> None:
        if self.channels.get(channel.number) is channel:
            del self.channels[channel.number]

    def abort(self) -> None:
        """Break the connection without a word."""
        self._out.clear()
        if not self.is_closed:
            self._terminate_stream(pika.exceptions.StreamLostError("broken off"))


class Link:
    """A connection, and channels on it.

    Args:
        address: where to.
        shown: the URL without its password, for errors.
        name: how the connection is called in the broker's listings.
    """

    def __init__(self, address: Address, shown: str, name: str) -> None:
        self.address = address
        self.shown = shown
        self._name = address.name or name
        self._wire: _Wire | None = None
        self._up = False
        self._closed = False
        self._mender: asyncio.Task[None] | None = None
        self._control: Channel | None = None
        self._controlling = asyncio.Lock()
        self._numbers = PUBLISHING
        self._tries = 0
        self._problem = ""
        self._told = False
        self._changed = asyncio.Event()
        self.lost: Callable[[str], None] | None = None
        """Called with the reason when the connection broke."""
        self.restoring: Callable[[], Awaitable[None]] | None = None
        """Does after each reconnect what has to be done before it works again."""
        self.restored: Callable[[], None] | None = None
        """Called when it works again."""
        self.unblocked: Callable[[], None] | None = None
        """Called when the broker takes messages again after it had none to spare for them."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._up

    @property
    def closed(self) -> bool:
        """Whether it was closed for good."""
        return self._closed

    @property
    def blocked(self) -> str:
        """Why the broker takes no messages now (memory, disk); ``""`` if it does."""
        return self._wire.blocked if self._wire is not None and self._up else ""

    @property
    def most(self) -> int:
        """Bytes of a frame."""
        return self._wire.most if self._wire is not None else 131072

    # Connecting.

    async def connect(self, timeout: float) -> None:
        """Connect, trying again until the time is over.

        Raises:
            ConnectFailed: says why.
        """
        if self._closed:
            raise ConnectFailed(self.shown, "this connection was closed; make a new one")
        if self._up:
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        pause = 0.05
        while True:
            left = end - loop.time()
            if left > 0:
                try:
                    await self._open(left)
                except TimeoutError:
                    self._problem = self._problem or "it does not answer"
                else:
                    self._told = True
                    return
            if loop.time() + pause >= end:
                raise ConnectFailed(self.shown, f"{self._problem} (tried for {timeout:g} s)")
            if self._problem.startswith("refused"):
                raise ConnectFailed(self.shown, self._problem)
            await asyncio.sleep(pause)
            pause = min(pause * 1.6, _LONGEST_PAUSE)

    async def _open(self, timeout: float) -> None:
        """Try once. Leaves the reason in ``_problem`` and raises TimeoutError if it fails."""
        self._problem = ""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()

        def ready(_wire: _Wire) -> None:
            if not opened.done():
                opened.set_result(None)

        def failed(_wire: _Wire, error: BaseException) -> None:
            self._problem = _reason(error)
            if not opened.done():
                opened.set_exception(TimeoutError())

        def broken(wire: _Wire, error: BaseException) -> None:
            was_up = self._wire is wire and self._up
            if was_up:
                self._up = False
            for channel in list(wire.channels.values()):
                channel.abandon(Gone(f"the connection broke: {_reason(error)}"))
            if was_up:
                self._lose(_reason(error))

        wire = _Wire(loop, self._parameters(), ready, failed, broken)
        try:
            async with asyncio.timeout(timeout):
                await opened
        except BaseException:
            wire.abort()
            raise
        wire.most = wire.params.frame_max or 131072
        wire.add_on_connection_blocked_callback(self._on_blocked)
        wire.add_on_connection_unblocked_callback(self._on_unblocked)
        self._wire = wire
        self._control = None
        self._up = True
        self._changed.set()

    def _parameters(self) -> Any:
        address = self.address
        # Another node of a cluster each time: the last one may be the one that is gone.
        host, port = address.servers[self._tries % len(address.servers)]
        self._tries += 1
        return pika.ConnectionParameters(
            host=host,
            port=port,
            virtual_host=address.vhost,
            credentials=pika.PlainCredentials(address.user, address.password),
            ssl_options=self._tls(host),
            heartbeat=address.heartbeat,
            frame_max=131072,
            connection_attempts=1,
            socket_timeout=5,
            stack_timeout=8,
            client_properties={"product": "msgflo", "connection_name": self._name},
        )

    def _tls(self, host: str) -> Any:
        address = self.address
        if not address.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=address.ca or None)
        except OSError as error:
            raise ConfigurationError(
                f"the certificates in {address.ca} cannot be read: {error}"
            ) from None
        if address.cert:
            try:
                context.load_cert_chain(address.cert, address.key)
            except OSError as error:
                raise ConfigurationError(
                    f"the certificate {address.cert} with the key {address.key} cannot be used: "
                    f"{error}"
                ) from None
        return pika.SSLOptions(context, address.sni or host)

    def _on_blocked(self, wire: _Wire, frame: Any) -> None:
        wire.blocked = f"it takes no messages now: {frame.method.reason}"
        log.warning("the broker at %s takes no messages now: %s", self.shown, frame.method.reason)

    def _on_unblocked(self, wire: _Wire, _frame: Any) -> None:
        wire.blocked = ""
        log.warning("the broker at %s takes messages again", self.shown)
        if self.unblocked is not None:
            self.unblocked()

    def _lose(self, reason: str) -> None:
        self._up = False
        self._changed.clear()
        if self._closed:
            return
        if self._told:
            self._told = False
            _call(self.lost, reason)
        if self._mender is None or self._mender.done():
            self._mender = asyncio.get_running_loop().create_task(
                self._mend(), name="msgflo amqp reconnect"
            )

    async def _mend(self) -> None:
        pause = 0.02
        while not self._closed:
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311 - not for secrecy
            pause = min(pause * 1.6, _LONGEST_PAUSE)
            try:
                await self._open(10.0)
            except TimeoutError:
                log.debug("reconnecting to %s: %s", self.shown, self._problem)
                continue
            except ConfigurationError as error:
                self._problem = str(error)  # a file of certificates that is being replaced
                log.warning("reconnecting to %s: %s", self.shown, error)
                continue
            if self.restoring is not None:
                try:
                    await self.restoring()
                except Exception as error:
                    known = isinstance(error, TransportError)
                    log.warning("after reconnecting: %s", error, exc_info=None if known else error)
                    self._drop()
                    continue
            if self._up:
                self._told = True
                _call(self.restored)
                return

    def _drop(self) -> None:
        """Break the connection off, and tell nobody."""
        wire, self._wire = self._wire, None
        self._up = False
        self._changed.clear()
        if wire is not None:
            wire.abort()

    async def close(self) -> None:
        """Write what is to be written and disconnect for good. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._mender is not None:
            self._mender.cancel()
            await asyncio.gather(self._mender, return_exceptions=True)
        wire, self._wire = self._wire, None
        if wire is not None and self._up:
            ended = asyncio.Event()
            wire.add_on_close_callback(lambda *_: ended.set())
            try:
                wire.close()
                async with asyncio.timeout(3):
                    await ended.wait()
            except (TimeoutError, pika.exceptions.AMQPError) as error:
                log.debug("closing a connection: %s", error)
                wire.abort()
        elif wire is not None:
            wire.abort()
        self._up = False
        self._changed.set()

    async def abandon(self) -> None:
        """Break off for good without a word to the broker, as if the process had died."""
        self._closed = True
        self._drop()
        if self._mender is not None:
            self._mender.cancel()
            await asyncio.gather(self._mender, return_exceptions=True)
        await asyncio.sleep(0)  # the library closes the socket in the next turn of the loop
        self._changed.set()

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

    # Channels.

    async def channel(self, number: int = 0) -> Channel:
        """Open a channel, when there is a connection again at the latest.

        Args:
            number: one that is free; 0: any.

        Raises:
            ConnectionLost: there is no connection for too long, or it broke.
        """
        await self.ready(_READY_TIMEOUT)
        wire = self._wire
        if wire is None or not self._up:
            raise Gone(f"no connection to the broker at {self.shown}")
        if not number:
            number = self._numbers + 1
            while number in wire.channels:
                number += 1
            self._numbers = number % 1000 + PUBLISHING
        channel = wire.channels[number] = Channel(wire, number)
        await channel.call(spec.Channel.Open())
        return channel

    async def call(self, method: Any, timeout: float = _CALL_TIMEOUT) -> Any:
        """Have the broker do something on a channel that is kept for that; returns its answer.

        Raises:
            Refused: it will not.
            ConnectionLost: there is no connection, or no answer.
        """
        async with self._controlling:
            if self._control is None or not self._control.open:
                self._control = await self.channel()
            return await self._control.call(method, timeout)


def _failed(future: "asyncio.Future[Any]", error: Exception) -> "asyncio.Future[Any]":
    future.set_exception(error)
    future.exception()  # whoever asked may not want to know
    return future


def _call(call: Callable[..., None] | None, *arguments: str) -> None:
    if call is not None:
        try:
            call(*arguments)
        except Exception:
            log.exception("whoever was told of the connection failed")


def _cause(error: BaseException) -> BaseException:
    """Find what the library wrapped."""
    while True:
        inner = getattr(error, "exceptions", None) or [getattr(error, "exception", None)]
        if not isinstance(inner[-1], BaseException):
            first = error.args[0] if error.args else None
            if isinstance(first, AMQPConnectorException):
                error = first
                continue
            return error
        error = inner[-1]


def _reason(error: BaseException) -> str:
    """Say in our words what the library reports."""
    error = _cause(error)
    text = str(error) or type(error).__name__
    if "ACCESS_REFUSED" in text or isinstance(error, pika.exceptions.ProbableAuthenticationError):
        return "refused: the user or password in the URL is wrong or missing"
    if "not found" in text and "vhost" in text:
        return "refused: the virtual host in the URL does not exist there"
    if "vhost" in text and "refused" in text:
        return "refused: this user may not use the virtual host in the URL"
    if isinstance(error, pika.exceptions.ProbableAccessDeniedError):
        return "refused: this user may not use the virtual host in the URL"
    if isinstance(error, pika.exceptions.IncompatibleProtocolError):
        return "refused: what listens there does not speak AMQP 0-9-1"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"refused: its certificate is not to be trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"refused: the encrypted connection failed ({error.reason or text})"
    if isinstance(error, pika.exceptions.AMQPHeartbeatTimeout):
        return "the broker stopped answering"
    if isinstance(error, pika.exceptions.ConnectionClosedByBroker):
        return f"the broker closed it: {error.reply_text} ({error.reply_code})"
    if isinstance(error, pika.exceptions.StreamLostError):
        return "the broker closed the connection"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there (connection refused)"
    if isinstance(error, TimeoutError) or "timed out" in text.lower() or "timeout" in text.lower():
        return "it does not answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    return text
