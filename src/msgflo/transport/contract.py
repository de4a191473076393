"""What every transport does: the two classes that it consists of, and the records they exchange.

The words. An outport sends to a *source*, known by the outport's queue name. An inport has a
*work queue*, known by the inport's queue name, which all participants of its role share, and for
each instance a *place*, ``QUEUE@INSTANCE``, which belongs to that instance alone. A *binding*
(:class:`msgflo.flow.binding.Binding`) says where the messages of a source go:

* ``pubsub``: a copy into each place of the target inport;
* ``roundrobin``: into the target's work queue;
* ``deadletter``: dead letters of one inport into another inport's work queue, in place of its
  dead-letter queue.

A message in a queue is *waiting*, or *in flight* at one participant, or *settled* (gone), or has
become a *dead letter*: always exactly one of the four. Whoever takes a delivery holds the duty to
end it, by exactly one of :meth:`Client.settle`, :meth:`Client.retry` and :meth:`Client.bury`. One
that is never ended, because its participant died or its connection broke, is delivered again.
Ending one that was ended already does nothing.

Messages sent by an outport before a binding is made or after it is removed do not travel by it;
those sent in between do, and removing it takes none of them away.

Nothing here touches a network, and nothing a transport raises comes from outside
:mod:`msgflo.errors`.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from msgflo.flow.binding import Binding
from msgflo.flow.discovery import place_of

__all__ = [
    "CONTENT_TYPE",
    "DEFAULT_RETENTION",
    "MESSAGE_ID",
    "POISON_LIMIT",
    "POSTPONE_LIMIT",
    "REQUEUED",
    "Broker",
    "Client",
    "Confirmed",
    "Connection",
    "DeadLetter",
    "Death",
    "Delivery",
    "Inlet",
    "QueueStats",
    "Retry",
    "Tap",
    "Tapped",
    "redacted",
    "requeued_headers",
]

MESSAGE_ID = "Msgflo-Id"
"""Header: the message's id, stable over redelivery, dead-lettering and requeueing."""

CONTENT_TYPE = "Content-Type"
"""Header: ``application/json`` or ``application/octet-stream``; absent on foreign messages."""

REQUEUED = "Msgflo-Requeued"
"""Header: how often the message was put back from the dead letters."""

_DEATH = "Msgflo-Death-"

DEFAULT_RETENTION = 600.0
"""Seconds that a place outlives its participant, unless said otherwise (the first instance's
place of a bound inport is kept for as long as the binding)."""

POISON_LIMIT = 5
"""So many deliveries beyond a port's attempts, none of them ended, and a message is poison:
its handler kills or hangs the process rather than raising. More than a few rolling restarts in
the middle of the same message are unlikely, and each costs the whole redelivery time."""

POSTPONE_LIMIT = 1000
"""A message that was asked for later so many times is a dead letter: nothing may loop for ever."""

Confirmed = Callable[[Exception | None], None]
"""Called once when the broker has the message (``None``) or will not have it (an error)."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and after what pauses, a message is given to a failing handler again.

    The pause before attempt ``n + 1`` is ``delay * backoff ** (n - 1)``, varied by up to ``jitter``
    of itself in either direction, and at most ``longest``.

    Attributes:
        attempts: how often the handler is tried in all, from 1 (no retry, the default) to 1000.
        delay: seconds before the second attempt, 0 or more.
        backoff: by how much each further pause is longer, 1 or more.
        jitter: 0 (none) to 1.
        longest: seconds; no pause is longer.
    """

    attempts: int = 1
    delay: float = 1.0
    backoff: float = 2.0
    jitter: float = 0.1
    longest: float = 3600.0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("attempts", 1, 1000),
            ("delay", 0, float("inf")),
            ("backoff", 1, float("inf")),
            ("jitter", 0, 1),
            ("longest", 0, float("inf")),
        ):
            value = getattr(self, name)
            if name == "attempts" and type(value) is not int:
                raise ValueError(f"Retry: attempts is {value!r}; expected a whole number")
            if not least <= value <= most:
                raise ValueError(f"Retry: {name} is {value}; expected {least} to {most}")

    def pause(self, attempt: int, chance: float = 0.5) -> float:
        """Return the seconds to wait after ``attempt`` (from 1) failed.

        Args:
            attempt: the attempt that failed.
            chance: a random number from 0 to 1; 0.5 gives the pause without jitter.
        """
        if not self.delay:
            return 0.0
        try:
            grown = self.delay * self.backoff ** (attempt - 1)
        except OverflowError:
            grown = self.longest
        varied = min(grown, self.longest) * (1 + self.jitter * (2 * chance - 1))
        return min(varied, self.longest)


@dataclass(frozen=True, slots=True)
class Inlet:
    """An inport of one participant, as a transport sees it.

    Attributes:
        queue: the inport's queue name: its work queue.
        instance: whose place it also has, from 1.
        retention: seconds that the place outlives its participant.
    """

    queue: str
    instance: int
    retention: float = DEFAULT_RETENTION

    @property
    def place(self) -> str:
        """The name of the instance's own queue."""
        return place_of(self.queue, self.instance)


class Delivery:
    """A message in the hands of a participant, who must end it exactly once.

    Transports make subclasses that carry what they need to end it.

    Attributes:
        inlet: the inport at which it arrived.
        queue: the place or work queue that it waited in.
        body: the payload as it was on the wire.
        headers: the metadata that came with it; empty from foreign senders.
        id: stable over redeliveries. Made up by the transport for a message that has none, in a
            way that a redelivery gets the same.
        attempt: how often it was delivered, from 1. Deliveries that were handed back or postponed
            (``retry(..., counts=False)``) do not count; one that ended with its participant does.
        postponed: how often it was handed back or postponed.
        sent: when the broker got it, in seconds since 1970; 0 if nobody knows.
    """

    __slots__ = ("attempt", "body", "headers", "id", "inlet", "postponed", "queue", "sent")

    def __init__(
        self,
        inlet: Inlet,
        queue: str,
        body: bytes,
        headers: Mapping[str, str],
        id: str,  # noqa: A002 - the word that everybody uses
        attempt: int = 1,
        postponed: int = 0,
        sent: float = 0.0,
    ) -> None:
        self.inlet = inlet
        self.queue = queue
        self.body = body
        self.headers = headers
        self.id = id
        self.attempt = attempt
        self.postponed = postponed
        self.sent = sent

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} at {self.queue}, attempt {self.attempt}>"


@dataclass(frozen=True, slots=True)
class Death:
    """Why, where and when a message became a dead letter; carried in its headers.

    Attributes:
        queue: the place or work queue it was taken from. Requeueing puts it back there.
        role: the role that could not process it.
        instance: which participant of that role.
        attempts: how often that was tried.
        error: the error's type, such as ``ValueError`` or ``Reject``.
        text: what the error said.
        traceback: where it happened; may be empty. Cut to 8 kB, from its start.
        first_seen: when the broker first had the message, seconds since 1970; 0 if unknown.
        died: when it became a dead letter, seconds since 1970.
    """

    queue: str
    role: str = ""
    instance: int = 0
    attempts: int = 1
    error: str = ""
    text: str = ""
    traceback: str = ""
    first_seen: float = 0.0
    died: float = 0.0

    def to_headers(self) -> dict[str, str]:
        """Return the headers that say this.

        Each is a single line of printable ASCII, of at most 8 kB, whatever the error said.
        """
        return {
            f"{_DEATH}Queue": _escape(self.queue),
            f"{_DEATH}Role": _escape(self.role),
            f"{_DEATH}Instance": str(self.instance),
            f"{_DEATH}Attempts": str(self.attempts),
            f"{_DEATH}Error": _escape(self.error),
            f"{_DEATH}Text": _escape(_start(self.text, 2048)),
            f"{_DEATH}Traceback": _escape(_end(self.traceback, 8192)),
            f"{_DEATH}First-Seen": f"{self.first_seen:.3f}",
            f"{_DEATH}Died": f"{self.died:.3f}",
        }

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> "Death | None":
        """Read what :meth:`to_headers` wrote; ``None`` where there is nothing of it."""
        if f"{_DEATH}Queue" not in headers:
            return None

        def text(name: str) -> str:
            return _unescape(headers.get(_DEATH + name, ""))

        def number(name: str) -> float:
            try:
                found = float(headers.get(_DEATH + name, "0"))
            except ValueError:
                return 0.0
            return found if math.isfinite(found) else 0.0

        return cls(
            queue=text("Queue"),
            role=text("Role"),
            instance=int(number("Instance")),
            attempts=int(number("Attempts")),
            error=text("Error"),
            text=text("Text"),
            traceback=text("Traceback"),
            first_seen=number("First-Seen"),
            died=number("Died"),
        )

    @staticmethod
    def strip(headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers without what :meth:`to_headers` adds."""
        return {key: value for key, value in headers.items() if not key.startswith(_DEATH)}


def _escape(text: str) -> str:
    escaped = text.encode("unicode_escape").decode("ascii")
    # Some brokers cut blanks off at the ends of a header.
    if escaped.startswith(" "):
        escaped = "\\x20" + escaped[1:]
    if escaped.endswith(" "):
        escaped = escaped[:-1] + "\\x20"
    return escaped


def _unescape(text: str) -> str:
    # What is no escape of ours was written by somebody else, and stays as it stands.
    return _ESCAPE.sub(_character, text)


_ESCAPE = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U00(?:0[0-9a-f]|10)[0-9a-f]{4}|[nrt\\])")
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}


def _character(escape: re.Match[str]) -> str:
    said = escape[0][1:]
    return _LETTERS.get(said) or chr(int(said[1:], 16))


def _start(text: str, most: int) -> str:
    """Return the start of a text that takes at most so many characters when it is escaped."""
    text = text[:most]
    while len(_escape(text)) > most:
        text = text[: len(text) * most // len(_escape(text))]
    return text


def _end(text: str, most: int) -> str:
    """Return the end of a text, likewise."""
    return _start(text[-most:][::-1], most)[::-1]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that its role could not process, as it waits in a dead-letter queue.

    Attributes:
        key: names it within its dead-letter queue, for requeueing and discarding.
        queue: the inport's queue name, whose dead letters it belongs to.
        id: the message's id.
        body: the original payload.
        headers: the original headers, what :class:`Death` adds left out.
        death: why it is here.
    """

    key: str
    queue: str
    id: str
    body: bytes
    headers: Mapping[str, str]
    death: Death


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How a queue is doing.

    Attributes:
        queue: its name: a work queue, a place, or ``dead-QUEUE``.
        waiting: messages that nobody has taken yet, those that wait for a retry included.
        in_flight: messages that a participant holds.
        consumers: participants that take from it, as far as the broker knows.
        oldest: age in seconds of the oldest message that is waiting or in flight; 0 if none.
        rate_in: messages a second that came in, since the last time this Broker was asked
            (0 the first time).
        rate_out: messages a second that were settled or died, likewise.
    """

    queue: str
    waiting: int = 0
    in_flight: int = 0
    consumers: int = 0
    oldest: float = 0.0
    rate_in: float = 0.0
    rate_out: float = 0.0


@dataclass(frozen=True, slots=True)
class Tapped:
    """A message seen in passing.

    Attributes:
        queue: the source, or the queue, that is tapped.
        body: its payload.
        headers: its metadata.
        time: when it was seen, in seconds since 1970.
    """

    queue: str
    body: bytes
    headers: Mapping[str, str]
    time: float


class Tap(ABC):
    """A look at a connection that lasts until it is closed."""

    @abstractmethod
    async def close(self) -> None:
        """Stop looking. Idempotent."""


@dataclass(slots=True)
class _Listeners:
    lost: list[Callable[[str], None]] = field(default_factory=list)
    restored: list[Callable[[], None]] = field(default_factory=list)


class Connection(ABC):
    """What both sides of a transport have in common: a connection that mends itself.

    A connection that breaks is made again, with growing pauses and for ever, until it is closed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._listeners = _Listeners()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} {redacted(self.url)}>"

    @abstractmethod
    async def connect(self, timeout: float = 10.0) -> None:
        """Connect, trying again until it succeeds or the time is over.

        Args:
            timeout: seconds, more than 0.

        Raises:
            ConnectFailed: not in this time; says why.
        """

    @abstractmethod
    async def close(self) -> None:
        """Disconnect. What is in flight is delivered again, to whoever comes. Idempotent."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether the broker can be reached now."""

    def on_lost(self, call: Callable[[str], None]) -> None:
        """Have ``call`` called, with the reason, each time the connection breaks."""
        self._listeners.lost.append(call)

    def on_restored(self, call: Callable[[], None]) -> None:
        """Have ``call`` called each time the connection works again, all consumers included."""
        self._listeners.restored.append(call)

    def _tell_lost(self, reason: str) -> None:
        for call in self._listeners.lost:
            call(reason)

    def _tell_restored(self) -> None:
        for call in self._listeners.restored:
            call()


class Client(Connection):
    """A participant's side of a broker. One client may serve several participants."""

    @abstractmethod
    async def claim(self, role: str, instance: int | None = None) -> int:
        """Return an instance number of this role, held until the client closes.

        Args:
            role: the node of the graph.
            instance: the number that was assigned from outside, which is simply returned; or
                ``None``: the lowest number from 1 that no living participant holds. Two that ask
                at once get two numbers. One that died holds nothing.
        """

    @abstractmethod
    async def declare(self, inlets: Sequence[Inlet], outports: Sequence[str]) -> None:
        """Make the work queues and places of these inports, and these sources, where missing.

        Places take part in the bindings of their inport from then on. Idempotent.
        """

    @abstractmethod
    async def announce(self, message: bytes) -> None:
        """Publish a message on the discovery channel. While disconnected: does nothing."""

    @abstractmethod
    def on_told(self, call: Callable[[bytes], None]) -> None:
        """Have ``call`` called with each message that a Broker tells all participants.

        It is an instruction (:class:`msgflo.flow.discovery.Instruction`), or empty: a coordinator
        asks who is there. It is called with ``b""`` after each reconnect too, for a coordinator
        may have asked meanwhile. Nothing is kept for clients that are away.
        """

    @abstractmethod
    def send(
        self, outport: str, body: bytes, headers: Mapping[str, str], confirmed: Confirmed
    ) -> None:
        """Send a message to wherever this source is bound; to nobody if it is not.

        Returns at once. The client keeps the message, over lost connections too, until the
        broker has it, and gives it to the broker in the order of the calls. A message whose
        ``Msgflo-Id`` the broker had from this source within the last two minutes counts as
        confirmed and is not delivered again. (Where brokers do not look at ids, as in AMQP, it is
        the participant that drops it; so of two that share a work queue each may get one.)

        Args:
            outport: the outport's queue name.
            body: the payload.
            headers: the metadata; ``Msgflo-Id`` is required.
            confirmed: called exactly once, from the event loop, never from within this call:
                with ``None`` when the broker has stored it for everyone it is bound to, or with a
                SendFailed (too large; refused) or ConnectionLost (the client was closed).
        """

    @property
    @abstractmethod
    def unconfirmed(self) -> int:
        """How many messages were sent and not confirmed yet: the fill of the outbox."""

    @abstractmethod
    async def consume(
        self, inlet: Inlet, prefetch: int, deliver: Callable[[Delivery], None]
    ) -> None:
        """Take messages from an inport's place and work queue, until :meth:`pause`.

        Args:
            inlet: one that was declared.
            prefetch: at most so many deliveries are out, not ended, at a time, 1 or more. From the
                work queue no message is kept waiting here that another participant could have.
            deliver: called for each, from the event loop; must not block.
        """

    @abstractmethod
    async def pause(self, inlet: Inlet) -> None:
        """Take nothing more from this inport; :meth:`consume` takes up again. Idempotent.

        When it returns, ``deliver`` is not called any more. What was delivered is still to be
        ended by whoever has it.
        """

    @abstractmethod
    def settle(self, delivery: Delivery) -> None:
        """End a delivery: it was processed. To be called when all it caused is confirmed."""

    @abstractmethod
    def retry(self, delivery: Delivery, delay: float = 0.0, *, counts: bool = True) -> None:
        """End a delivery: it is to be delivered again, to any participant of the queue.

        Args:
            delivery: what is given back.
            delay: not before so many seconds, 0 or more. The broker waits, no participant does,
                and other messages overtake it.
            counts: whether this was an attempt. A message that is handed back untouched, or
                postponed, says False, and its next delivery has the same ``attempt``.
        """

    @abstractmethod
    def bury(self, delivery: Delivery, death: Death) -> None:
        """End a delivery: it is a dead letter. It is settled once the dead letter is confirmed."""

    @abstractmethod
    async def is_bound(self, outport: str) -> bool:
        """Tell whether any connection leads away from this source."""

    @abstractmethod
    async def flush(self, timeout: float = 10.0) -> None:
        """Wait until all that was sent is confirmed and all that was ended has left this process.

        Raises:
            ConnectionLost: not in this time (seconds).
        """


class Broker(Connection):
    """The coordinator's and the tools' side of a broker."""

    exacting: bool = False
    """Whether a client is refused that declares a queue in another way than it was made. What
    participants of unknown kind call their own is then not to be made before them."""

    @abstractmethod
    async def listen(self, heard: Callable[[bytes], None]) -> None:
        """Have ``heard`` called for each message on the discovery channel, and ask who is there.

        Any number of Brokers can listen. Asks again after each reconnect.
        """

    @abstractmethod
    async def tell(self, message: bytes) -> None:
        """Tell something to all participants that are connected now.

        To tell ``b""`` is to ask who is there. Nothing is kept for participants that are away, and
        nothing says who has heard it; those who have say so on the discovery channel, if at all.

        Args:
            message: at most 8 kB.

        Raises:
            ConnectionLost: nobody knows whether it was told.
        """

    @abstractmethod
    async def bind(self, binding: Binding) -> None:
        """Carry out a connection. Idempotent.

        Neither side needs to exist: queues are made where missing, with the first instance's place
        for a pubsub binding, so that what is sent waits for a participant to come. What is sent
        after this returns travels by the binding. Source and target may have one name (a role with
        an inport and an outport of one name, joined to itself): to a broker for which both are
        one thing, such as a topic, this is carried out already, and it must not forward in a ring.

        Raises:
            UnsupportedBinding: this broker cannot do it. Nothing was changed.
        """

    @abstractmethod
    async def unbind(self, binding: Binding) -> None:
        """Remove a connection. Idempotent.

        What was sent before still arrives; what is sent after this returns does not travel by it.
        """

    @abstractmethod
    async def bindings(self) -> list[Binding]:
        """Return all that is bound, whoever bound it, sorted."""

    @abstractmethod
    async def enqueue(self, queue: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Put a message into a work queue or a place (made where missing), and wait until it is in.

        One whose ``Msgflo-Id`` was put into this queue within the last two minutes counts as in.

        Raises:
            SendFailed: the broker refused it.
            ConnectionLost: nobody knows whether it is in.
        """

    @abstractmethod
    async def tap(self, source: str, seen: Callable[[Tapped], None]) -> Tap:
        """Look at what passes a source, without touching its traffic; nothing is kept for a tap.

        Args:
            source: an outport's queue name. An inport's (work queue or place): what is enqueued
                to it directly; its connections are seen at their sources.
            seen: called for each message, from the event loop; must not block. A tap that cannot
                keep up misses messages.
        """

    @abstractmethod
    async def queues(self, names: Iterable[str] | None = None) -> list[QueueStats]:
        """Return how queues are doing, sorted by name.

        Args:
            names: work queues (their places and dead letters are included); ``None``: all.
        """

    @abstractmethod
    async def dead_letters(self, queue: str, limit: int = 100, after: str = "") -> list[DeadLetter]:
        """Return dead letters of an inport, oldest first.

        Args:
            queue: the inport's queue name.
            limit: at most so many, 1 or more.
            after: only those behind this key, for reading on; ``""``: from the first.
        """

    @abstractmethod
    async def requeue(self, queue: str, keys: Iterable[str], body: bytes | None = None) -> int:
        """Put dead letters back where they died; their ids stay, ``Msgflo-Requeued`` counts.

        A dead letter leaves the dead-letter queue after it is confirmed back in its queue.

        Args:
            queue: the inport's queue name.
            keys: which; those that are not there (any more) are passed over.
            body: another payload for them; ``None``: their own.

        Returns:
            How many were put back.
        """

    @abstractmethod
    async def discard(self, queue: str, keys: Iterable[str]) -> int:
        """Delete dead letters for good. Returns how many."""


def requeued_headers(letter: DeadLetter) -> dict[str, str]:
    """Return the headers with which a dead letter goes back into its queue."""
    headers = dict(letter.headers)
    try:
        times = int(headers.get(REQUEUED, "0"))
    except ValueError:
        times = 0
    headers[REQUEUED] = str(times + 1)
    headers[MESSAGE_ID] = letter.id
    return headers


def redacted(url: str) -> str:
    """Return the URL with its passwords and tokens replaced, for showing and logging.

    Where it cannot be told what is a password, more is replaced.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url if "@" not in url else f"***@{url.rpartition('@')[2]}"
    end = next((at for at, character in enumerate(rest) if character in "/?#"), len(rest))
    address, tail = rest[:end], rest[end:]
    if "@" in tail:
        # A password with a slash in it that was not escaped, most likely.
        return f"{scheme}://***@{tail.rpartition('@')[2]}"
    tail = _SECRET_OPTION.sub(r"\1***", tail)
    user, at, hosts = address.rpartition("@")
    if not at:
        known = _PORT.search(address) is None
        return f"{scheme}://{address if known else '***'}{tail}"
    if "@" in user:
        user = "***"
    elif ":" in user:
        user = f"{user.partition(':')[0]}:***"
    elif scheme.lower() in {"nats", "tls"}:
        user = "***"  # a token
    return f"{scheme}://{user}@{hosts}{tail}"


_SECRET_OPTION = re.compile(
    r"((?:[?&;])[^=&;]*(?:pass|secret|token|key|jwt|credential)[^=&;]*=)[^&;#]*", re.I
)
_PORT = re.compile(r":(?!\d{1,5}(?:,|$))[^\]]*$")  # what is no port may be a password
