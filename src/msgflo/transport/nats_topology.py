"""What the NATS transport calls things, and which messages belong to whom. Nothing here does I/O.

One JetStream stream per namespace holds everything that is under way, with *interest retention*:
a message stays until each durable consumer whose filters match it has acknowledged it, and one
that matches no filter is not stored at all. The subjects of a namespace ``ns``::

    ns.out.SOURCE     what an outport sent
    ns.in.QUEUE       what was put into a work queue directly
    ns.in.QUEUE@2     what was put into a place directly
    ns.dead.QUEUE     what the inport's role could not process
    ns.kept.QUEUE     dead letters from before DEADLETTER was routed elsewhere

There is one durable pull consumer per work queue and per place. Its filters are its own direct
subject and one subject for each binding that leads there, so that a queue has one order, the
stream's. A third kind, the *keeper*, is read by nobody: it only keeps dead letters from vanishing.

A filter has no notion of time, so each binding has a record that says between which sequence
numbers of the stream it was in force (its *spans*). What a consumer gets from outside these spans
is acknowledged and dropped at receipt: it was sent before the binding was made, and is only still
there for others, or after it was removed, while the filter has to stay until everything that was
sent before is processed.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from msgflo.errors import ConfigurationError
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import queue_of_place

__all__ = [
    "Address",
    "Names",
    "Record",
    "Sieve",
    "consumer_config",
    "filters_of",
    "is_drained",
    "leads_to_place",
    "read_ack",
    "subject_part",
    "token",
]

DEFAULT_PORT = 4222

DUPLICATE_WINDOW = 120.0
"""Seconds in which the broker recognises a message's id."""

MAX_ACK_PENDING = 100_000
"""So many messages of one queue may be in flight; the bound that matters is each prefetch."""

MAX_WAITING = 4096
"""Pull requests of all participants of one queue; it cannot be changed later."""

_LONGEST_NAME = 120
"""Longer consumer names are cut and hashed: the server makes a folder of each name, and file
systems allow 255 bytes."""

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_PLAIN_IN_SUBJECT = frozenset(range(0x21, 0x7F)) - frozenset(b"*>=.")


def token(name: str) -> str:
    """Return a name as one token of letters, digits, ``_``, ``-`` and ``=``; injective.

    It can be a subject's token, a consumer's name and a key: whatever else is in the name becomes
    ``=`` and two hexadecimal digits for each of its bytes.
    """
    if not name:
        return "="
    return "".join(
        chr(byte) if byte in _PLAIN else f"={byte:02X}"
        for byte in name.encode("utf-8", "surrogatepass")
    )


def subject_part(name: str) -> str:
    """Return a name as one or more tokens of a subject; injective, and plain names stay readable.

    Dots stay where no token gets empty by them.
    """
    if not name:
        return "="
    data = name.encode("utf-8", "surrogatepass")
    parts = []
    for at, byte in enumerate(data):
        if byte in _PLAIN_IN_SUBJECT or (
            byte == 0x2E
            and 0 < at < len(data) - 1
            and data[at - 1] != 0x2E
            and data[at + 1] != 0x2E
        ):
            parts.append(chr(byte))
        else:
            parts.append(f"={byte:02X}")
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class Address:
    """What a broker URL says.

    ``nats://[user:password@ or token@]host[:port][,host2[:port]][/namespace][?option=value]``

    Attributes:
        servers: ``host:port``, at least one.
        tls: whether the connection must be encrypted (``tls://``).
        user, password, token: ``""`` if none.
        namespace: which of many networks on one broker.
        replicas: on how many servers of a cluster messages are stored, 1 to 5.
        redelivery: seconds after which a message is delivered again whose participant vanished.
        ca: a file of certificates to trust; ``""``: the system's.
    """

    servers: tuple[str, ...]
    tls: bool = False
    user: str = ""
    password: str = ""
    token: str = ""
    namespace: str = "msgflo"
    replicas: int = 1
    redelivery: float = 10.0
    ca: str = ""

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Read a URL.

        Raises:
            ConfigurationError: what is wrong with it; its password is not shown.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ConfigurationError("the nats:// URL cannot be read") from None
        login, at, hosts = parts.netloc.rpartition("@")
        user, colon, password = login.partition(":")
        namespace = unquote(parts.path.strip("/")) or "msgflo"
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", namespace):
            raise ConfigurationError(
                f"the namespace {namespace!r} of a nats:// URL (what stands behind the host) is "
                f"not made of 1 to 64 letters, digits, '_' and '-'"
            )
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        replicas = _number(options.pop("replicas", "1"), "replicas", 1, 5)
        redelivery = _number(options.pop("redelivery", "10"), "redelivery", 1, 86400)
        ca = options.pop("ca", "")
        if options:
            raise ConfigurationError(
                f"a nats:// URL has the option {sorted(options)[0]!r}; "
                f"there are: ca, redelivery, replicas"
            )
        return cls(
            servers=tuple(_server(host) for host in hosts.split(",")),
            tls=parts.scheme == "tls",
            user=unquote(user) if at and colon else "",
            password=unquote(password) if at and colon else "",
            token=unquote(user) if at and not colon else "",
            namespace=namespace,
            replicas=int(replicas),
            redelivery=redelivery,
            ca=ca,
        )


def _server(host: str) -> str:
    name, colon, port = host.rpartition(":")
    if not colon or name.endswith(":") or (host.startswith("[") and host.endswith("]")):
        name, port = host, str(DEFAULT_PORT)
    if not name:
        name = "localhost"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigurationError(
            f"a nats:// URL names the port {port!r}; expected a number from 1 to 65535"
        )
    return f"{name}:{port}"


def _number(text: str, name: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise ConfigurationError(
            f"a nats:// URL has {name}={text!r}; expected a number from {least} to {most}"
        )
    return value


@dataclass(frozen=True, slots=True)
class Names:
    """What everything of a namespace is called on the server."""

    namespace: str

    @property
    def stream(self) -> str:
        """The stream that holds the messages."""
        return self.namespace

    @property
    def wiring(self) -> str:
        """The key-value bucket of binding records, locks and claimed instance numbers."""
        return f"{self.namespace}-wiring"

    @property
    def attempts(self) -> str:
        """The key-value bucket of how often messages were tried that were given back."""
        return f"{self.namespace}-attempts"

    @property
    def discovery(self) -> str:
        """Where announcements are published."""
        return f"{self.namespace}.fbp"

    @property
    def telling(self) -> str:
        """Where coordinators ask who is there."""
        return f"{self.namespace}.fbp-ask"

    @property
    def census(self) -> str:
        """Where clients are asked what they hold."""
        return f"{self.namespace}.census"

    @property
    def rewired(self) -> str:
        """Where the server tells of binding records that have changed; key follows."""
        return f"{self.namespace}.rewired"

    @property
    def subjects(self) -> list[str]:
        """What the stream stores."""
        return [f"{self.namespace}.{kind}.>" for kind in ("out", "in", "dead", "kept")]

    def out(self, source: str) -> str:
        """The subject of what an outport sends."""
        return f"{self.namespace}.out.{subject_part(source)}"

    def direct(self, queue: str) -> str:
        """The subject of what is put into a work queue or place directly."""
        return f"{self.namespace}.in.{subject_part(queue)}"

    def dead(self, queue: str) -> str:
        """The subject of an inport's dead letters."""
        return f"{self.namespace}.dead.{subject_part(queue)}"

    def kept(self, queue: str) -> str:
        """The subject of dead letters that were there before others were routed elsewhere."""
        return f"{self.namespace}.kept.{subject_part(queue)}"

    def consumer(self, queue: str) -> str:
        """The consumer of a work queue or a place; a place's is the work queue's and ``@N``."""
        name, instance = queue_of_place(queue)
        if instance is None:
            return "in-" + _bounded(token(queue))
        return f"in-{_bounded(token(name))}@{instance}"

    def keeper(self, queue: str, *, kept: bool = False) -> str:
        """The consumer that keeps an inport's dead letters."""
        return ("kept-" if kept else "dead-") + _bounded(token(queue))

    def record(self, binding: Binding) -> str:
        """The key of a binding's record."""
        return f"binding.{binding.kind}.{token(binding.source)}.{token(binding.target)}"

    def lock(self, queue: str) -> str:
        """The key that whoever changes the consumers of an inport holds meanwhile."""
        return f"lock.{token(queue)}"

    def claim(self, role: str, instance: int) -> str:
        """The key that says who claimed an instance number."""
        return f"instance.{token(role)}.{instance}"

    def holder(self, role: str, instance: int) -> str:
        """The subject at which the holder of an instance number answers."""
        return f"{self.namespace}.instance.{token(role)}.{instance}"

    def source(self, binding: Binding) -> str:
        """The subject of the messages that a binding carries."""
        if binding.kind is Kind.DEADLETTER:
            return self.dead(binding.source)
        return self.out(binding.source)


def _bounded(name: str) -> str:
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:24]
    return f"{name[: _LONGEST_NAME - 26]}=-{digest}"


def leads_to_place(binding: Binding) -> bool:
    """Tell whether a binding leads into the places of its target, not into its work queue."""
    return binding.kind is Kind.PUBSUB


class _Stored(msgspec.Struct):
    kind: str
    source: str
    target: str
    epoch: str
    spans: list[tuple[int, int | None]]


@dataclass(frozen=True, slots=True)
class Record:
    """When a binding was in force, in sequence numbers of the stream.

    Attributes:
        binding: whose record this is.
        epoch: which stream the numbers are of (its time of creation). Those of a stream that was
            deleted say nothing about its successor.
        spans: from the first number (inclusive) to the last (inclusive), in order; the last number
            is ``None`` while the binding is in force.
    """

    binding: Binding
    epoch: str
    spans: tuple[tuple[int, int | None], ...] = ()

    @property
    def open(self) -> bool:
        """Whether the binding is in force."""
        return bool(self.spans) and self.spans[-1][1] is None

    @property
    def last(self) -> int:
        """The last number that belongs to it, once it is closed; 0 if there is none."""
        return (self.spans[-1][1] or 0) if self.spans else 0

    def opened(self, first: int) -> "Record":
        """Return the record in force, from this number on if it was not."""
        if self.open:
            return self
        return replace(self, spans=(*self.spans, (first, None)))

    def closed(self, last: int) -> "Record":
        """Return the record not in force any more: this number is the last that belongs to it."""
        if not self.open:
            return self
        first = self.spans[-1][0]
        ended = ((first, last),) if last >= first else ()
        return replace(self, spans=(*self.spans[:-1], *ended))

    def wants(self, sequence: int) -> bool:
        """Tell whether the message of this number travels by the binding."""
        return any(
            first <= sequence and (last is None or sequence <= last) for first, last in self.spans
        )

    def in_epoch(self, epoch: str) -> "Record":
        """Return the record as it is to be read for a stream of this epoch."""
        if epoch == self.epoch:
            return self
        return Record(self.binding, epoch, ((0, None),) if self.open else ())

    def encode(self) -> bytes:
        """Return what is stored."""
        return msgspec.json.encode(
            _Stored(
                self.binding.kind.value,
                self.binding.source,
                self.binding.target,
                self.epoch,
                list(self.spans),
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> "Record | None":
        """Read what :meth:`encode` wrote; ``None`` for anything else, an emptied key included."""
        try:
            stored = msgspec.json.decode(data, type=_Stored)
            kind = Kind(stored.kind)
        except (msgspec.MsgspecError, ValueError):
            return None
        return cls(Binding(kind, stored.source, stored.target), stored.epoch, tuple(stored.spans))


def filters_of(
    names: Names, queue: str, records: Iterable[Record], drained: Iterable[str] = ()
) -> list[str]:
    """Return the filters that the consumer of a work queue or place should have, sorted.

    Args:
        names: the namespace's.
        queue: the work queue or place.
        records: all that are known.
        drained: subjects of which nothing waits in this queue that was sent before their binding
            was removed; their filters can go.
    """
    target, instance = queue_of_place(queue)
    gone = set(drained)
    found = {names.direct(queue)}
    for record in records:
        binding = record.binding
        if binding.target == target and leads_to_place(binding) == (instance is not None):
            subject = names.source(binding)
            if record.open or (record.spans and subject not in gone):
                found.add(subject)
    return sorted(found)


class Sieve:
    """Which messages belong to a work queue or place, by subject and sequence number.

    Built from the records as they are; rebuilt when one changes.
    """

    def __init__(self, names: Names, queue: str, records: Iterable[Record]) -> None:
        target, instance = queue_of_place(queue)
        self._records: dict[str, Record | None] = {names.direct(queue): None}
        # The usual case, a binding in force that was made once, is one comparison; by subjects
        # as they are on the wire, which need not be decoded for that.
        self.since: dict[bytes, int] = {names.direct(queue).encode(): 0}
        for record in records:
            binding = record.binding
            if binding.target == target and leads_to_place(binding) == (instance is not None):
                subject = names.source(binding)
                self._records[subject] = record
                if record.open and len(record.spans) == 1:
                    self.since[subject.encode()] = record.spans[0][0]

    def knows(self, subject: str) -> bool:
        """Tell whether anything is known of this subject."""
        return subject in self._records

    def admit(self, subject: str) -> None:
        """Let everything of a subject pass of which nothing is known."""
        self._records[subject] = None
        self.since[subject.encode()] = 0

    def passes(self, subject: str, sequence: int) -> bool:
        """Tell whether a message is this queue's. One of an unknown subject is: nothing is lost."""
        since = self.since.get(subject.encode())
        if since is not None:
            return sequence >= since
        record = self._records.get(subject)
        return record is None or record.wants(sequence)


def consumer_config(
    name: str,
    queue: str,
    filters: list[str],
    *,
    redelivery: float,
    replicas: int,
    inactive: float = 0.0,
    retention: float = 0.0,
) -> dict[str, Any]:
    """Return how a consumer is made: from now on, each message until it is acknowledged.

    Args:
        name: the consumer's.
        queue: what it is to people, for listings.
        filters: its subjects.
        redelivery: seconds.
        replicas: of its state.
        inactive: seconds without a participant after which it is deleted; 0: never.
        retention: the same, as it was asked for, kept for when a binding is removed.
    """
    config: dict[str, Any] = {
        "name": name,
        "durable_name": name,
        "description": queue[:1024],
        "deliver_policy": "new",
        "ack_policy": "explicit",
        "ack_wait": int(redelivery * 1e9),
        "max_deliver": -1,
        "max_ack_pending": MAX_ACK_PENDING,
        "max_waiting": MAX_WAITING,
        "replay_policy": "instant",
        "filter_subjects": filters,
        "num_replicas": replicas,
        "metadata": {"msgflo.queue": queue, "msgflo.retention": str(retention)},
    }
    if inactive > 0:
        config["inactive_threshold"] = int(inactive * 1e9)
    return config


def is_drained(info: Mapping[str, Any], last: int) -> bool:
    """Tell from a consumer's state whether all that it has up to this number is acknowledged."""
    if not info.get("num_pending") and not info.get("num_ack_pending"):
        return True
    return int(info.get("ack_floor", {}).get("stream_seq", 0)) >= last


def read_ack(reply: bytes) -> tuple[int, int, int]:
    """Read the subject at which a delivery is acknowledged.

    ``$JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.CONSUMER-SEQUENCE.TIME.PENDING``, with a domain
    and an account before the stream, and perhaps more behind, where a server is part of several.

    Returns:
        How often it was delivered, from 1; its number in the stream; when it was stored, in
        nanoseconds since 1970.
    """
    parts = reply.split(b".")
    if len(parts) == 9:
        return int(parts[4]), int(parts[5]), int(parts[7])
    return int(parts[6]), int(parts[7]), int(parts[9])
