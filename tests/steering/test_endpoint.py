"""Where a runtime listens, written down for its owner alone."""

import os
import stat
import subprocess
import sys

import pytest

from msgflo.errors import ConfigurationError
from msgflo.protocol.access import Level
from msgflo.steering.endpoint import (
    Endpoint,
    forget_endpoint,
    read_endpoint,
    read_secrets,
    write_endpoint,
)

ENDPOINT = Endpoint("ws://127.0.0.1:3569", "an-id", os.getpid(), "hush", "nats://x")


def test_what_is_written_is_read_until_it_is_forgotten(tmp_path):
    assert read_endpoint(tmp_path) is None
    write_endpoint(tmp_path, ENDPOINT)
    assert read_endpoint(tmp_path) == ENDPOINT
    forget_endpoint(tmp_path, ENDPOINT)
    assert read_endpoint(tmp_path) is None
    forget_endpoint(tmp_path, ENDPOINT)


def test_nobody_else_may_read_it_even_where_the_file_was_open_to_all(tmp_path):
    write_endpoint(tmp_path, ENDPOINT)
    file = tmp_path / ".msgflo" / "endpoint.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    write_endpoint(tmp_path, ENDPOINT)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_a_later_run_has_written_is_not_forgotten_by_an_earlier_one(tmp_path):
    write_endpoint(tmp_path, ENDPOINT)
    later = Endpoint("ws://127.0.0.1:3570", "an-id", os.getpid())
    write_endpoint(tmp_path, later)
    forget_endpoint(tmp_path, ENDPOINT)
    assert read_endpoint(tmp_path) == later


@pytest.mark.parametrize("text", ["", "{", "[]", '{"address": 1}', '{"pid": "x"}'])
def test_a_file_that_is_none_is_as_if_it_were_not_there(tmp_path, text):
    write_endpoint(tmp_path, ENDPOINT)
    (tmp_path / ".msgflo" / "endpoint.json").write_text(text)
    assert read_endpoint(tmp_path) is None


def test_it_is_alive_while_its_process_is():
    assert ENDPOINT.alive
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert not Endpoint("ws://x", "id", ended.pid).alive


def test_secrets_come_from_the_environment_and_from_a_file(tmp_path):
    file = tmp_path / "secrets"
    file.write_text("# for the tests\nread r2\nrewire w2\n\nall2\n")
    assert read_secrets(file, {"MSGFLO_SECRET": "all", "MSGFLO_SECRET_READ": "r"}) == {
        "all": Level.CODE,
        "r": Level.READ,
        "r2": Level.READ,
        "w2": Level.REWIRE,
        "all2": Level.CODE,
    }
    file.write_text("admin x\n")
    with pytest.raises(ConfigurationError, match="secrets:1: expected a level"):
        read_secrets(file, {})
    with pytest.raises(ConfigurationError, match="nothing"):
        read_secrets(tmp_path / "nothing", {})
