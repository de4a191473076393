import pytest

from msgflo.protocol.access import Access, Level, is_loopback, may_connect


def test_without_secrets_everybody_may_do_everything():
    assert Access().level("") is Level.CODE
    assert not Access().guarded


def test_a_secret_opens_its_level_and_no_other_text_does():
    access = Access({"r": Level.READ, "w": Level.REWIRE, "ü": Level.CODE})
    assert [access.level(s) for s in ("r", "w", "ü")] == [Level.READ, Level.REWIRE, Level.CODE]
    for wrong in ("", "rr", "u", "\ud800"):
        assert access.level(wrong) is Level.NONE


@pytest.mark.parametrize(
    ("origin", "host", "listening", "may"),
    [
        (None, "localhost:3569", "127.0.0.1", True),
        (None, "127.0.0.1:3569", "127.0.0.1", True),
        (None, "[::1]:3569", "::1", True),
        ("http://localhost:8000", "localhost:3569", "127.0.0.1", True),
        ("http://127.0.0.1", "localhost:3569", "127.0.0.1", True),
        ("https://evil.example", "localhost:3569", "127.0.0.1", False),
        ("https://localhost.evil.example", "localhost:3569", "127.0.0.1", False),
        ("null", "localhost:3569", "127.0.0.1", False),
        ("http://[", "localhost:3569", "127.0.0.1", False),
        # A name of the attacker's that leads to this machine.
        ("http://evil.example:3569", "evil.example:3569", "127.0.0.1", False),
        (None, "evil.example:3569", "127.0.0.1", False),
        (None, None, "127.0.0.1", False),
        ("http://here.example", "here.example", "0.0.0.0", True),
        ("http://evil.example", "here.example", "0.0.0.0", False),
        (None, "here.example", "0.0.0.0", True),
    ],
)
def test_a_page_from_elsewhere_may_not_connect(origin, host, listening, may):
    assert may_connect(origin, host, listening) is may


def test_pages_that_are_named_may_connect():
    allowed = {"https://app.flowhub.io"}
    assert may_connect("https://app.flowhub.io", "localhost", "127.0.0.1", allowed)
    assert not may_connect("https://app.flowhub.io.evil", "localhost", "127.0.0.1", allowed)
    assert may_connect("https://any.example", "localhost", "127.0.0.1", {"*"})


def test_this_machine_alone():
    for host in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "a.localhost"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.example", ""):
        assert not is_loopback(host)
