"""The tools under the names that the original's have, called as scripts call them."""

import re
import shlex
import signal
import subprocess
from pathlib import Path

import pika
import pytest

from msgflo.cli.existing import plain_arguments
from programs import environment, program


def call(*arguments: str, cwd: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        arguments, cwd=cwd, env=environment(**env), capture_output=True, text=True, check=False
    )


def test_switches_may_have_a_value_with_or_without_an_equals_sign():
    def plain(text: str) -> str:
        return shlex.join(plain_arguments(shlex.split(text), ["forever", "discover"]))

    assert plain("--forever g.fbp") == "--forever g.fbp"
    assert plain("g.fbp --forever") == "g.fbp --forever"
    assert plain("--forever true g.fbp --discover false") == "--forever g.fbp"
    assert plain("--forever=false --discover=true g") == "--discover g"
    assert plain("--forever --discover") == "--forever --discover"
    assert plain("--only true") == "--only true"


def test_setup_takes_the_options_and_prints_the_lines_of_the_original(
    project: Path, nats_server: str
):
    done = call(
        *shlex.split("msgflo-setup hello.fbp --participants=false --forever=false --ignore a,b"),
        *("--componentdir", "components", "--discover", "false", "--only", ""),
        *("--shell", "/bin/sh"),
        cwd=project,
        MSGFLO_BROKER=nats_server,
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "Set up participants []\nSet up bindings:\n PUBSUB: \t greet.OUT -> show.IN\n",
        "",
    )


def test_setup_starts_participants_of_the_working_folder(project: Path, nats_server: str):
    (project / "graphs" / "deep").mkdir(parents=True)
    graph = (project / "hello.fbp").rename(project / "graphs" / "deep" / "hello.fbp")
    name = str(graph.relative_to(project))
    options = ("--participants", "true", "--forever", name, "--forward", "stderr,stdout")
    with program("msgflo-setup", *options, cwd=project, MSGFLO_BROKER=nats_server) as setup:
        setup.until("Hello, World!")
        setup.until("--forever enabled, keeping alive")
        assert setup.end(signal.SIGTERM) == 0


def test_procfile_is_one_of_the_working_folder(project: Path):
    done = call(
        "msgflo-procfile", "hello.fbp", "--ignore", "show", "--include", "web: x", cwd=project
    )
    assert done.returncode == 0
    name, _, command = done.stdout.splitlines()[0].partition(": ")
    assert name == "greet"
    assert command.endswith("msgflo participant components/Greet.py greet")
    assert done.stdout.splitlines()[1:] == ["web: x"]
    (project / "bad.fbp").write_text("a(Nope) OUT -> IN greet(Greet)\n")
    done = call("msgflo-procfile", "bad.fbp", cwd=project)
    assert done.returncode == 1
    assert "No component Nope defined for role a" in done.stderr


def test_a_message_is_sent_to_a_queue_and_dumped_from_it(tmp_path: Path, nats_server: str):
    broker = ("--broker", nats_server)
    for data in ('{"a": 1}', "2", "null", '"x"'):
        done = call("msgflo-send-message", "--queue", "q", "--json", data, *broker, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    done = call("msgflo-dump-message", "--queue", "q", *broker, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, '{"a":1}\n')
    done = call("msgflo-dump-message", "--queue=q", "--amount", "3", *broker, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, '[2,null,"x"]\n')


def test_on_rabbitmq_messages_of_any_queue_are_dumped_whoever_declared_it(
    tmp_path: Path, rabbitmq: str
):
    with pika.BlockingConnection(pika.URLParameters(rabbitmq)) as connection:
        channel = connection.channel()
        channel.queue_declare("test.RECEIVE", durable=True)
        for body in (b'{"bar":"foo"}', b"no JSON"):
            channel.basic_publish("", "test.RECEIVE", body)
        send = ("msgflo-send-message", "--queue", "test.RECEIVE", "--json", "0")
        assert call(*send, cwd=tmp_path, CLOUDAMQP_URL=rabbitmq).returncode == 0
        dump = ("msgflo-dump-message", "--queue", "test.RECEIVE", "--amount")
        done = call(*dump, "1", cwd=tmp_path, MSGFLO_BROKER=rabbitmq)
        assert (done.returncode, done.stdout) == (0, '{"bar":"foo"}\n'), done.stderr
        done = call(*dump, "2", cwd=tmp_path, MSGFLO_BROKER=rabbitmq)
        assert (done.returncode, done.stdout) == (0, '["no JSON",0]\n'), done.stderr
        counted = channel.queue_declare("test.RECEIVE", durable=True, passive=True)
        assert counted.method.message_count == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--queue q --json nope", "Invalid JSON: "),
        ("--queue q", "Missing message payload (--json)"),
        ("--json 1", "Missing queue to send to (--queue)"),
    ],
)
def test_what_cannot_be_sent_is_said_on_the_standard_output(
    tmp_path: Path, arguments: str, said: str
):
    done = call("msgflo-send-message", *arguments.split(), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith(said)


def test_register_runs_until_it_is_told_not_to(tmp_path: Path, nats_server: str):
    (tmp_path / "lamp.yml").write_text("component: Lamp\ninports:\n  on: {queue: '#ROLE/on'}\n")
    broker = ("--broker", nats_server)
    role = ("--role", "hall:lamp.yml")
    for off in (["--forever=false"], ["--forever", "false"]):
        done = call("msgflo-register", *role, *off, *broker, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, "Sent discovery message for hall\n")
    with program("msgflo-register", *role, "--interval", "1", *broker, cwd=tmp_path) as register:
        register.until("Sent discovery message for hall")
        assert register.end(signal.SIGTERM) == 0
    assert call("msgflo-register", "--role", "a:no.yml", *broker, cwd=tmp_path).returncode == 1


def test_register_foreign_announces_once_and_says_what_to_use(tmp_path: Path, nats_server: str):
    (tmp_path / "lamp.yml").write_text("component: Lamp\nrole: hall\n")
    done = call("msgflo-register-foreign", "lamp.yml", cwd=tmp_path, MSGFLO_BROKER=nats_server)
    assert (done.returncode, done.stdout) == (0, "Sent discovery message for hall\n")
    assert done.stderr.startswith("DEPRECATED: Instead use msgflo-register --role ")
    done = call(
        *("msgflo-register-foreign", "lamp.yml", "--role", "x", "--broker", nats_server),
        cwd=tmp_path,
    )
    assert done.stdout == "Sent discovery message for x\n"


def test_each_has_help_and_its_broker_is_in_the_environment_else_amqp_on_this_machine(
    tmp_path: Path,
):
    for name in ("setup", "procfile", "send-message", "dump-message", "register"):
        done = call(f"msgflo-{name}", "--help", cwd=tmp_path)
        assert done.returncode == 0
        assert done.stdout.startswith(f"Usage: msgflo-{name} ")
    for name in ("MSGFLO_BROKER", "CLOUDAMQP_URL"):
        done = call(
            *("msgflo-send-message", "--queue", "q", "--json", "1"),
            cwd=tmp_path,
            **{name: "gopher://nowhere"},
        )
        assert done.returncode == 1
        assert re.search("gopher", done.stderr)
