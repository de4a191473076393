"""Which addresses may be fetched from.

A server that fetches whatever URL it is given can be made to read what only it can reach: its own
loopback services, the private network, the metadata service of its cloud. So only public addresses
are allowed, and those that somebody has explicitly named. It is the *address* that is judged, after
the name was resolved, because a name may mean one thing now and another in a moment.
"""

import ipaddress
from dataclasses import dataclass

__all__ = ["Address", "AllowList", "refusal"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")  # a site's own translator, RFC 8215


@dataclass(frozen=True)
class AllowList:
    """Addresses that are allowed although they are not public.

    Attributes:
        entries: networks, and the one port that is allowed there (None: all).
    """

    entries: tuple[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, int | None], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "AllowList":
        """Read a list such as ``127.0.0.1:8000, 10.1.0.0/16, [::1]:8000``.

        Raises:
            ValueError: an entry is neither an address nor a network, with or without a port.
        """
        entries = []
        for entry in text.replace(",", " ").split():
            host, port = entry, None
            try:
                if entry.startswith("["):
                    host, bracket, rest = entry[1:].partition("]")
                    if not bracket or (rest and not rest.startswith(":")):
                        raise ValueError(entry)
                    port = rest[1:] if rest else None
                elif entry.count(":") == 1:
                    host, _, port = entry.partition(":")
                network = ipaddress.ip_network(host)
                number = None if port is None else int(port)
                if number is not None and not 0 < number < 65536:
                    raise ValueError(number)
            except ValueError:
                raise ValueError(
                    f"{entry!r} cannot be allowed: expected an address or network, and perhaps a "
                    f"port, such as 127.0.0.1:8000 or 10.1.0.0/16"
                ) from None
            entries.append((network, number))
        return cls(tuple(entries))

    def allows(self, address: Address, port: int) -> bool:
        """Tell whether this address and port are on the list."""
        return any(
            address.version == network.version
            and address in network
            and (number is None or number == port)
            for network, number in self.entries
        )


def refusal(text: str, port: int, allow: AllowList) -> str | None:
    """Say why an address must not be connected to, or return None if it may.

    Args:
        text: the address, as the resolver gave it.
        port: the port to connect to.
        allow: what is allowed although it is not public.
    """
    try:
        address: Address = ipaddress.ip_address(text)
    except ValueError:
        return f"{text!r} is not an address"
    if allow.allows(address, port):
        return None
    # An IPv6 address may be another way to write, or a tunnel to, an IPv4 address.
    for inner in _within(address):
        if allow.allows(inner, port):
            return None
        if reason := _refusal(inner):
            return f"{address} leads to {reason}"
    return _refusal(address)


def _within(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    found: list[ipaddress.IPv4Address] = []
    if address.ipv4_mapped is not None:
        found.append(address.ipv4_mapped)
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.extend(address.teredo)
    if address in _NAT64 or (int(address) >> 32 == 0 and int(address) > 1):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return tuple(found)


def _refusal(address: Address) -> str | None:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None or address in _NAT64:
            return None  # judged by what it stands for
        if address.is_site_local or address in _LOCAL_NAT64:
            return f"the private address {address}"
    for kind, applies in (
        ("unspecified", address.is_unspecified),
        ("loopback", address.is_loopback),
        ("link-local", address.is_link_local),
        ("multicast", address.is_multicast),
        ("private", address.is_private),
        ("reserved", address.is_reserved),
        ("not public", not address.is_global),
    ):
        if applies:
            return f"the {kind} address {address}"
    return None
