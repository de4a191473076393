"""``msgflo register``: participants that cannot announce themselves."""

import signal
from pathlib import Path

from programs import msgflo, program

LAMP = """\
component: home/Lamp
label: a lamp
inports:
  on: {queue: "home/#ROLE/on", type: boolean}
"""


def test_a_definition_is_announced_for_each_role_until_it_is_stopped(
    tmp_path: Path, nats_server: str
):
    (tmp_path / "lamp.yml").write_text(LAMP)
    roles = ("--role", "hall:lamp.yml", "--role", "attic:lamp.yml")
    broker = ("--broker", nats_server)
    with program("msgflo", "register", *roles, *broker, cwd=tmp_path) as register:
        register.until("Sent discovery message for attic")
        assert register.lines[0] == "Sent discovery message for hall"
        # Whoever asks later hears it too.
        assert msgflo("send", "hall", "true", *broker, cwd=tmp_path).stderr == (
            "sent 1 message to home/hall/on\n"
        )
        assert register.end(signal.SIGINT) == 0


def test_what_is_announced_once_is_not_waited_for(tmp_path: Path, nats_server: str):
    (tmp_path / "lamp.yml").write_text(LAMP + "role: hall\n")
    done = msgflo("register", "lamp.yml", "--once", "--broker", nats_server, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "Sent discovery message for hall\n")


def test_a_file_or_a_role_that_is_missing_is_said(tmp_path: Path, nats_server: str):
    (tmp_path / "lamp.yml").write_text(LAMP)

    def refused(*arguments: str) -> tuple[int, str]:
        done = msgflo("register", *arguments, "--broker", nats_server, cwd=tmp_path)
        return done.returncode, done.stderr

    status, text = refused("lamp.yml")
    assert status == 1
    assert "names no role" in text
    assert refused("--role", "hall:no.yml")[0] == 1
    status, text = refused("--role", "hall")
    assert status == 2
    assert "expected ROLE:FILE" in text
    assert refused()[0] == 2
