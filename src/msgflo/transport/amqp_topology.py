"""What the AMQP transport calls things, and how they are declared. Nothing here does I/O.

For an inport whose queue is ``Q``, as the Node.js client of old declares it too:

=================== ====================================================================
queue ``Q``         durable, dead-letter exchange ``dead-Q``: the work queue
exchange ``Q``      durable fanout: where the copies of publish-subscribe bindings arrive
queue ``Q@2``       an instance's place: durable, bound to exchange ``Q``; expires after its
                    retention, but for the first instance's
``dead-Q``          exchange (durable fanout) and queue: dead letters wait here
=================== ====================================================================

An outport ``S`` is a durable fanout exchange ``S``. A pubsub binding joins exchange ``S`` to
exchange ``Q`` (to queue ``Q`` if the target's participants say that they have no places), a
roundrobin binding to queue ``Q``; a deadletter binding joins exchange ``dead-Q`` to the other
inport's queue, in place of queue ``dead-Q``.

What is the transport's own starts with ``.msgflo``. A broker cannot tell what is bound to what, so
queue ``.msgflo-record`` holds one message that does (:class:`Record`), changed only by who holds
an exclusive queue as a lock.

A classic queue does not count how often a message was delivered. So what is given back is
published anew, with its counts in headers, and confirmed before the old one is settled; and so is
what comes marked as redelivered, before anybody gets it. It goes behind what waits already.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from msgflo.errors import ConfigurationError, TransportError, near
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import place_of, queue_of_place
from msgflo.transport.contract import CONTENT_TYPE, DEFAULT_RETENTION, MESSAGE_ID, REQUEUED

__all__ = [
    "ATTEMPTS",
    "DISCOVERY",
    "DUE",
    "LETTER",
    "POSTPONED",
    "RECORD",
    "SEEN",
    "SOURCE",
    "TELLING",
    "Address",
    "Record",
    "Way",
    "checked_name",
    "claim_lock",
    "claim_marker",
    "dead",
    "delay_arguments",
    "delay_leg",
    "delay_level",
    "delay_queue",
    "identity",
    "is_bound_marker",
    "kept_arguments",
    "lock_queue",
    "place_arguments",
    "queue_arguments",
    "ways_of",
]

DISCOVERY = "fbp"
"""Exchange (ours) and queue (everybody's) of announcements."""

TELLING = ".msgflo-tell"
"""Fanout exchange of what coordinators tell and ask all clients."""

SEEN = ".msgflo-seen"
"""Direct exchange that gets a copy of what is enqueued directly, for taps alone."""

RECORD = ".msgflo-record"
"""Queue of one message: what is bound, and which inports there are."""

ATTEMPTS = "Msgflo-Attempts"
"""Header: how often the message was tried before it was given back."""

POSTPONED = "Msgflo-Postponed"
"""Header: how often it was handed back or postponed."""

DUE = "Msgflo-Due"
"""Header: not before this time, in milliseconds since 1970, is the message to be delivered."""

SOURCE = "Msgflo-Source"
"""Header: the exchange that a message came from, which publishing it anew would hide."""

LETTER = "Msgflo-Death-Key"
"""Header of a dead letter: names it, and sorts by time."""

_MOST_BYTES_OF_A_NAME = 255
_LONGEST_PREFIX = len(".msgflo-instance-marker.") + 8
_NO_LIMIT = 1_000_000_000

_STEPS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
_SHORTEST_DELAY = 10
_LONGEST_DELAY = 2_000_000_000
"""Milliseconds, 23 days: the broker has 32 bits for them."""

OPTIONS = ("ca", "cert", "heartbeat", "key", "name", "queues", "sni")


@dataclass(frozen=True, slots=True)
class Address:
    """What a broker URL says.

    ``amqp[s]://[user[:password]@][host][:port][,host2[:port]][/vhost][?option=value]``

    Attributes:
        servers: host and port of the broker, or of each node of a cluster, any of which will do.
        vhost: ``/`` if the URL names none (no path, ``/`` or ``/%2f``).
        user, password: ``guest`` both, unless said otherwise.
        tls: whether the connection is encrypted (``amqps://``).
        ca: a file of certificates to trust; ``""``: the system's.
        cert, key: files of our own certificate and its key; ``""``: none.
        sni: the name that the broker's certificate must have; ``""``: the host that is asked.
        heartbeat: seconds after which a silent connection counts as broken; 0: never.
        name: how the connection is called in the broker's listings; ``""``: by what it is.
        quorum: whether queues that are missing are made as quorum queues.
    """

    servers: tuple[tuple[str, int], ...] = (("localhost", 5672),)
    vhost: str = "/"
    user: str = "guest"
    password: str = "guest"  # noqa: S105 - what every broker has on loopback
    tls: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""
    sni: str = ""
    heartbeat: int = 15
    name: str = ""
    quorum: bool = False

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Read a URL.

        Raises:
            ConfigurationError: what is wrong with it; its password is not shown.
        """
        try:
            parts = urlsplit(url)
            tls = parts.scheme.lower() == "amqps"
            hosts = parts.netloc.rpartition("@")[2].split(",")
            servers = tuple(_server(host, 5671 if tls else 5672) for host in hosts)
        except ValueError:
            raise ConfigurationError(
                "an amqp:// URL cannot be read; expected amqp://user:password@host:5672/vhost"
            ) from None
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        for option in options:
            if option not in OPTIONS:
                raise ConfigurationError(
                    f"an amqp:// URL has the option {option!r}; there are: {', '.join(OPTIONS)}."
                    f"{near(option, OPTIONS)}"
                )
        if bool(options.get("cert")) != bool(options.get("key")):
            raise ConfigurationError("an amqp:// URL needs both options, cert and key, or none")
        if not tls and (given := sorted({"ca", "cert", "key", "sni"} & options.keys())):
            raise ConfigurationError(
                f"an amqp:// URL has the option {given[0]!r}, which needs amqps://"
            )
        queues = options.get("queues", "classic")
        if queues not in {"classic", "quorum"}:
            raise ConfigurationError(
                f"an amqp:// URL has queues={queues!r}; expected classic or quorum"
            )
        path = parts.path.removeprefix("/")
        if path.endswith("/"):
            path = path[:-1]
        if "/" in path:
            raise ConfigurationError(
                f"an amqp:// URL has the path /{path}; expected one virtual host, in which a "
                f"slash is written %2f"
            )
        return cls(
            servers=servers,
            vhost=unquote(path) or "/",
            user=unquote(parts.username) if parts.username else "guest",
            password=unquote(parts.password) if parts.password is not None else "guest",
            tls=tls,
            ca=options.get("ca", ""),
            cert=options.get("cert", ""),
            key=options.get("key", ""),
            sni=options.get("sni", ""),
            heartbeat=_whole(options.get("heartbeat", "15"), "heartbeat", 0, 3600),
            name=options.get("name", ""),
            quorum=queues == "quorum",
        )


def _server(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "localhost", parts.port or port


def _whole(text: str, name: str, least: int, most: int) -> int:
    value = int(text) if text.isascii() and text.isdecimal() else -1
    if not least <= value <= most:
        raise ConfigurationError(
            f"an amqp:// URL has {name}={text!r}; expected a number from {least} to {most}"
        )
    return value


# Names.


def checked_name(name: str) -> str:
    """Return a queue's name, if a broker can have it with all that belongs to it.

    Raises:
        TransportError: it is too long, empty, or reserved by the broker.
    """
    size = len(name.encode("utf-8", "replace"))
    most = _MOST_BYTES_OF_A_NAME - _LONGEST_PREFIX
    if size > most:
        raise TransportError(f"the queue name {name[:60]!r}... has {size} bytes; at most {most}")
    if not name or name.startswith("amq."):
        raise TransportError(
            f"{name!r} cannot be a queue's name on an AMQP broker: it is empty, or starts with "
            f"'amq.', which is reserved"
        )
    if "\r" in name or "\n" in name:
        raise TransportError(f"the queue name {name!r} has a line break, which brokers take away")
    return name


def dead(queue: str) -> str:
    """Return the exchange and queue of an inport's dead letters."""
    return f"dead-{queue}"


def lock_queue(what: str) -> str:
    """Return the exclusive queue that whoever changes something holds meanwhile."""
    return f".msgflo-lock.{what}"


def claim_lock(role: str, instance: int) -> str:
    """Return the exclusive queue that the holder of an instance number has."""
    return f".msgflo-instance.{_bounded(role)}.{instance}"


def claim_marker(role: str, instance: int) -> str:
    """Return the durable queue that says, over a restart, that an instance number is held."""
    return f".msgflo-instance-marker.{_bounded(role)}.{instance}"


def is_bound_marker(source: str) -> str:
    """Return the exchange that is there while any connection leads away from a source."""
    return f".msgflo-bound.{_bounded(source)}"


def _bounded(name: str) -> str:
    data = name.encode("utf-8", "replace")
    if len(data) <= 200:
        return name
    return f"{data[:150].decode('utf-8', 'ignore')}-{hashlib.sha256(data).hexdigest()[:32]}"


# Delays.


def delay_level(seconds: float) -> int:
    """Return for how many milliseconds a message is to wait that must wait so long at least.

    A broker needs a queue for each delay, so there are ten a decade.
    """
    wanted = min(max(seconds * 1000.0, _SHORTEST_DELAY), _LONGEST_DELAY)
    decade = 10
    while decade * 10 <= wanted:
        decade *= 10
    for step in (*_STEPS, 10.0):
        level = round(decade * step)
        if level >= wanted:
            return level
    raise AssertionError("the last step is the next decade")


def delay_leg(seconds: float, place_lives: float) -> tuple[int, bool]:
    """Return how many milliseconds a message is to wait first, and whether that is all.

    Args:
        seconds: that it is to wait at least.
        place_lives: seconds that its queue outlives whoever uses it; 0: it stays for ever.
    """
    level = delay_level(seconds)
    longest = min(place_lives * 500.0 or _LONGEST_DELAY, _LONGEST_DELAY)
    if level <= longest or level == _SHORTEST_DELAY:
        return level, seconds * 1000.0 <= level
    below = _SHORTEST_DELAY
    decade = _SHORTEST_DELAY
    while below <= longest:
        for step in _STEPS:
            if decade * step <= longest:
                below = round(decade * step)
        decade *= 10
        if decade > longest:
            break
    return below, False


def delay_queue(level: int) -> str:
    """Return the exchange and queue in which messages wait for so many milliseconds."""
    return f".msgflo-delay.{level}"


def delay_arguments(level: int) -> dict[str, Any]:
    """Return how a delay queue is declared.

    It is a quorum queue on any broker: only these pass messages on safely, so that one is removed
    here when it has arrived there. What nobody takes there stays, and after 32 of them the whole
    queue stands still; so nothing may wait for a place longer than the place is sure to live.
    """
    return {
        "x-queue-type": "quorum",
        "x-message-ttl": level,
        "x-dead-letter-exchange": "",  # to the queue that the routing key names
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": _NO_LIMIT,
    }


# Queues.


def queue_arguments(queue: str, *, quorum: bool) -> dict[str, Any]:
    """Return how a work queue is declared; as the Node.js client does it, unless quorum."""
    arguments: dict[str, Any] = {"x-dead-letter-exchange": dead(queue)}
    if quorum:
        arguments |= _QUORUM | {"x-delivery-limit": 100}
    return arguments


def place_arguments(
    queue: str, instance: int, retention: float = DEFAULT_RETENTION, *, quorum: bool
) -> dict[str, Any]:
    """Return how a place is declared. The first instance's stays."""
    arguments = queue_arguments(queue, quorum=quorum)
    if instance != 1:
        arguments["x-expires"] = max(1, min(round(retention * 1000), _LONGEST_DELAY))
    return arguments


def kept_arguments(*, quorum: bool) -> dict[str, Any]:
    """Return how a queue is declared that is looked through again and again."""
    # Each look is a delivery to a quorum queue, and after 20 a message would be dropped.
    return _QUORUM | {"x-delivery-limit": _NO_LIMIT} if quorum else {}


_QUORUM = {
    "x-queue-type": "quorum",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """A binding of the broker's: from an exchange to an exchange or a queue."""

    source: str
    target: str
    to_queue: bool


def ways_of(binding: Binding, *, places: bool) -> list[Way]:
    """Return the broker's bindings that carry out one of ours.

    Args:
        binding: what is to be carried out.
        places: whether the target's participants have places.
    """
    if binding.kind is Kind.DEADLETTER:
        return [Way(dead(binding.source), binding.target, to_queue=True)]
    if binding.kind is Kind.ROUNDROBIN or not places:
        return [Way(binding.source, binding.target, to_queue=True)]
    if binding.source == binding.target:
        return []  # one exchange is both: what is sent arrives already
    return [Way(binding.source, binding.target, to_queue=False)]


# The record.


class _StoredBinding(msgspec.Struct, array_like=True):
    kind: str
    source: str
    target: str
    places: bool = True


class _Stored(msgspec.Struct):
    version: int = 0
    bindings: list[_StoredBinding] = []
    inports: dict[str, dict[int, float]] = {}


@dataclass(frozen=True, slots=True)
class Record:
    """What is bound, and which inports there are.

    Attributes:
        version: counts its changes.
        bindings: all that is bound, and whether the target's participants have places.
        inports: the queues of inports, each with the instances that ever had a place there, and
            for how many seconds it outlives them (the first: once nothing is bound to it).
    """

    version: int = 0
    bindings: Mapping[Binding, bool] = field(default_factory=dict)
    inports: Mapping[str, Mapping[int, float]] = field(default_factory=dict)

    def bound(self, binding: Binding, *, places: bool) -> "Record":
        """Return the record with a binding in it."""
        return replace(self, bindings={**self.bindings, binding: places})

    def unbound(self, binding: Binding) -> "Record":
        """Return the record without a binding."""
        return replace(
            self, bindings={it: how for it, how in self.bindings.items() if it != binding}
        )

    def with_place(self, queue: str, retention: float = DEFAULT_RETENTION) -> "Record":
        """Return the record with the inport of a work queue or place."""
        name, instance = queue_of_place(queue)
        places = dict(self.inports.get(name, {}))
        if instance is not None:
            places[instance] = retention
        if name in self.inports and self.inports[name] == places:
            return self
        return replace(self, inports={**self.inports, name: places})

    def ways(self) -> set[Way]:
        """Return all the broker's bindings that are wanted."""
        return {
            way
            for binding, places in self.bindings.items()
            for way in ways_of(binding, places=places)
        }

    def is_source(self, name: str) -> bool:
        """Tell whether any connection leads away from a source."""
        return any(it.source == name and it.kind is not Kind.DEADLETTER for it in self.bindings)

    def is_routed(self, queue: str) -> bool:
        """Tell whether an inport's dead letters go to another one."""
        return any(it.source == queue and it.kind is Kind.DEADLETTER for it in self.bindings)

    def has_copies(self, queue: str) -> bool:
        """Tell whether anything leads into the places of an inport."""
        return any(
            it.target == queue and it.kind is Kind.PUBSUB and places
            for it, places in self.bindings.items()
        )

    def has_places(self, queue: str) -> bool:
        """Tell whether an inport's participants have places, as far as it is known."""
        known = {
            places
            for it, places in self.bindings.items()
            if it.target == queue and it.kind is Kind.PUBSUB
        }
        return True in known or not known

    def queues(self, names: Iterable[str] | None = None) -> list[str]:
        """Return work queues, possible places, and dead letters, of all or some inports."""
        wanted = None if names is None else {queue_of_place(name)[0] for name in names}
        found = []
        for queue, places in self.inports.items():
            if wanted is None or queue in wanted:
                found += [queue, dead(queue)]
                found += [place_of(queue, instance) for instance in places]
        return found

    def retention(self, queue: str) -> float:
        """Return for how many seconds a place outlives its participant; 0: for ever, or none."""
        name, instance = queue_of_place(queue)
        if instance == 1 and self.has_copies(name):
            return 0.0
        return self.inports.get(name, {}).get(instance or 0, 0.0)

    def encode(self) -> bytes:
        """Return what is stored."""
        return msgspec.json.encode(
            _Stored(
                self.version,
                [
                    _StoredBinding(it.kind.value, it.source, it.target, places)
                    for it, places in sorted(self.bindings.items())
                ],
                {queue: dict(places) for queue, places in sorted(self.inports.items())},
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> "Record | None":
        """Read what :meth:`encode` wrote; ``None`` for anything else."""
        try:
            stored = msgspec.json.decode(data, type=_Stored)
            bindings = {
                Binding(Kind(it.kind), it.source, it.target): it.places for it in stored.bindings
            }
        except (msgspec.MsgspecError, ValueError):
            return None
        return cls(stored.version, bindings, dict(stored.inports))


# Messages.


def identity(
    exchange: str, headers: Mapping[str, str], id_: str, *, ours: bool
) -> tuple[str, ...] | None:
    """Return what tells a message from all others that come to one queue.

    Args:
        exchange: by which it came.
        headers: its headers.
        id_: its id.
        ours: whether whoever sent it promises that its id is its own.

    Returns:
        ``None`` if it cannot be told.
    """
    if not ours or not id_:
        return None
    if len(headers) <= 2 and headers.keys() <= _PLAIN:
        return (exchange, id_)
    return (
        headers.get(SOURCE, exchange),
        id_,
        headers.get(REQUEUED, ""),
        headers.get(ATTEMPTS, ""),
        headers.get(POSTPONED, ""),
    )


_PLAIN = frozenset((CONTENT_TYPE, MESSAGE_ID))
