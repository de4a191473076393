import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webimages.addresses import AllowList, refusal

NOBODY = AllowList()


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.0.3", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("169.254.169.254", "link-local"),
        ("100.64.0.1", "not public"),
        ("224.0.0.1", "multicast"),
        ("240.0.0.1", "private"),
        ("255.255.255.255", "private"),
        ("192.0.2.7", "private"),
        ("198.18.0.1", "private"),
        ("::1", "loopback"),
        ("::", "unspecified"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fc00::1", "private"),
        ("fec0::1", "private"),
        ("ff02::1", "multicast"),
        ("2001:db8::1", "private"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:10.0.0.1", "private"),
        ("::ffff:169.254.169.254", "link-local"),
        ("::127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a00:1", "private"),
        ("64:ff9b:1::1", "private"),
        ("2002:7f00:1::", "loopback"),
        ("2002:c0a8:101::1", "private"),
        ("2001:0:a00:1::1", "private"),
        ("nonsense", "not an address"),
    ],
)
def test_what_is_not_public_is_refused_with_the_reason(address: str, kind: str) -> None:
    said = refusal(address, 80, NOBODY)

    assert said is not None
    assert kind in said


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "93.184.216.34",
        "2606:2800:220:1:248:1893:25c8:1946",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    ],
)
def test_public_addresses_may_be_fetched_from(address: str) -> None:
    assert refusal(address, 443, NOBODY) is None


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_however_ipv6_writes_it(
    address: ipaddress.IPv4Address,
) -> None:
    alone = refusal(str(address), 80, NOBODY)
    mapped = refusal(f"::ffff:{address}", 80, NOBODY)
    translated = refusal(str(ipaddress.IPv6Address("64:ff9b::") + int(address)), 80, NOBODY)

    assert (alone is None) == (mapped is None) == (translated is None)


@given(st.ip_addresses())
def test_nothing_that_is_not_global_is_ever_let_through(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if refusal(str(address), 80, NOBODY) is None:
        # Newer Pythons know a mapped address for what it maps, and older ones do not.
        mapped = getattr(address, "ipv4_mapped", None)
        nat64 = address in ipaddress.IPv6Network("64:ff9b::/96") if address.version == 6 else False
        assert (mapped or address).is_global or nat64


def test_an_allowed_address_is_allowed_at_its_port_only() -> None:
    allow = AllowList.parse("127.0.0.1:8000")

    assert refusal("127.0.0.1", 8000, allow) is None
    assert refusal("::ffff:127.0.0.1", 8000, allow) is None
    assert refusal("127.0.0.1", 8001, allow) is not None
    assert refusal("127.0.0.2", 8000, allow) is not None


def test_networks_and_ipv6_addresses_can_be_allowed() -> None:
    allow = AllowList.parse("10.1.0.0/16, [::1]:80 fd00::/8")

    assert refusal("10.1.200.3", 9, allow) is None
    assert refusal("10.2.0.1", 9, allow) is not None
    assert refusal("::1", 80, allow) is None
    assert refusal("::1", 81, allow) is not None
    assert refusal("fd12::1", 5, allow) is None


@pytest.mark.parametrize("text", ["localhost", "127.0.0.1:x", "127.0.0.1:0", "10.0.0.0/33", "[::1"])
def test_an_entry_that_cannot_be_understood_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be allowed"):
        AllowList.parse(f"8.8.8.8, {text}")
