"""Which transport serves a URL."""

import sys
from pathlib import Path

import pytest

from msgflo import transport
from msgflo.errors import ConfigurationError, UnknownScheme
from msgflo.transport import direct, nats


def test_the_scheme_of_a_url_names_its_transport():
    assert isinstance(transport.client("direct://x"), direct.Client)
    assert isinstance(transport.broker("DIRECT://x"), direct.Broker)
    for url in ("nats://localhost", "tls://localhost"):
        assert isinstance(transport.client(url), nats.Client)
        assert isinstance(transport.broker(url), nats.Broker)
    assert {"direct", "nats", "tls"} <= set(transport.schemes())
    assert list(transport.schemes()) == sorted(transport.schemes())


def test_an_unknown_scheme_says_which_are_known():
    with pytest.raises(UnknownScheme) as raised:
        transport.client("nat://me:secret@localhost")
    assert "nats" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["localhost:4222", "localhost", "", "//localhost"])
def test_what_is_no_url_is_told_what_one_looks_like(url):
    with pytest.raises((ConfigurationError, UnknownScheme), match=r"nats"):
        transport.broker(url)


def test_a_scheme_can_be_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "pigeon_transport.py").write_text(
        "from msgflo.transport.direct import Client, Broker\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    transport.register("Pigeon", "pigeon_transport")
    assert "pigeon" in transport.schemes()
    assert "pigeon_transport" not in sys.modules, "imported when it is used"
    assert isinstance(transport.client("pigeon://x"), direct.Client)


def test_a_package_that_is_installed_can_bring_a_scheme(tmp_path: Path, monkeypatch):
    (tmp_path / "raven_transport.py").write_text(
        "from msgflo.transport.direct import Client, Broker\n"
    )
    info = tmp_path / "raven-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: raven\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[msgflo.transports]\nraven = raven_transport\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "raven" in transport.schemes()
    assert isinstance(transport.broker("raven://x"), direct.Broker)
