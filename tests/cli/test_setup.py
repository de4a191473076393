"""``msgflo setup``: connections from outside, and who stays to look after them."""

import signal
from pathlib import Path

from programs import msgflo, program


def graph_of(project: Path) -> str:
    (project / "share.fbp").write_text(
        "greet(Greet) OUT -> IN share(msgflo/RoundRobin)\n"
        "share OUT -> IN show(Show)\n"
        "share DEADLETTER -> IN log(Show)\n"
        "greet OUT -> IN all(Show)\n"
    )
    return "share.fbp"


PRINTED = """\
Set up participants []
Set up bindings:
 PUBSUB: \t greet.OUT -> all.IN
DEADLETTER:\t show.IN -> log.IN
ROUNDROBIN:\t greet.OUT -> show.IN
"""


def test_what_is_sent_waits_behind_the_connections_for_participants_to_come(
    project: Path, nats_server: str
):
    graph = graph_of(project)
    for _ in range(2):
        done = msgflo("setup", graph, "--broker", nats_server, cwd=project)
        assert (done.returncode, done.stdout, done.stderr) == (0, PRINTED, "")

    def run(role: str, component: str):
        file = f"components/{component}.py"
        return program("msgflo", "participant", file, role, cwd=project, MSGFLO_BROKER=nats_server)

    send = ("send", "greet.IN", "Ada", "--queue", "--broker", nats_server)
    assert msgflo(*send, cwd=project).returncode == 0
    with run("greet", "Greet") as greet:
        greet.until("running on")
        with run("show", "Show") as show, run("all", "Show") as every:
            show.until("Hello, Ada!")
            every.until("Hello, Ada!")


def test_what_cannot_be_connected_has_status_1_and_the_rest_is_connected(
    project: Path, nats_server: str
):
    (project / "g.fbp").write_text("a(A) OUT -> IN b(B)\na OUT -> UP s(msgflo/RoundRobin)\n")
    done = msgflo("setup", "g.fbp", "--broker", nats_server, cwd=project)
    assert done.returncode == 1
    assert "a.OUT -> b.IN" in done.stdout
    assert "'s' (msgflo/RoundRobin) has no inport 'up'" in done.stderr
    assert msgflo("setup", "no.fbp", "--broker", nats_server, cwd=project).returncode == 1
    assert msgflo("setup", cwd=project).returncode == 2


def test_queues_are_those_that_participants_announce_if_asked_for(project: Path, nats_server: str):
    (project / "lamp.yml").write_text(
        "component: Lamp\nrole: lamp\ninports:\n  on: {queue: home/lamp/on}\n"
    )
    (project / "g.fbp").write_text("greet(Greet) OUT -> ON lamp(Lamp)\n")
    broker = ("--broker", nats_server)
    late = msgflo("setup", "g.fbp", "--discover", "--timeout", "0.2", *broker, cwd=project)
    assert late.returncode == 1
    assert "no participant announced greet, lamp within 0.2 s" in late.stderr
    greet = ("msgflo", "participant", "components/Greet.py", "greet", *broker)
    with (
        program("msgflo", "register", "lamp.yml", *broker, cwd=project),
        program(*greet, cwd=project),
    ):
        done = msgflo("setup", "g.fbp", "--discover", *broker, cwd=project)
        assert done.returncode == 0, done.stderr
        assert "PUBSUB: \t greet.OUT -> home/lamp/on" in done.stdout


def test_participants_are_started_and_stay_until_a_signal(project: Path, nats_server: str):
    options = ("--broker", nats_server, "--participants", "--forward", "stdout")
    with program("msgflo", "setup", "hello.fbp", *options, cwd=project) as setup:
        setup.until("--forever enabled, keeping alive")
        assert "Set up participants [ 'greet', 'show' ]" in setup.lines
        assert "PUBSUB: \t greet.OUT -> show.IN" in setup.text
        setup.until("Hello, World!")
        assert setup.end(signal.SIGTERM) == 0


def test_a_participant_that_does_not_come_is_an_error_that_says_why(
    project: Path, nats_server: str
):
    (project / "b.fbp").write_text("greet(Greet) OUT -> IN broken(Broken)\n")
    options = ("--broker", nats_server, "--participants", "--timeout", "4")
    done = msgflo("setup", "b.fbp", *options, cwd=project)
    assert done.returncode == 1
    assert "not set up within 4 s: broken: " in done.stderr


def test_forever_connects_whoever_comes(project: Path, nats_server: str):
    (project / "g.fbp").write_text("greet(Greet) OUT -> ON lamp(Lamp)\n")
    (project / "lamp.yml").write_text("component: Lamp\ninports:\n  on: {queue: its/own}\n")
    broker = ("--broker", nats_server)
    with program("msgflo", "setup", "g.fbp", "--forever", *broker, cwd=project) as setup:
        setup.until("--forever enabled")
        register = ("msgflo", "register", "--role", "lamp:lamp.yml", *broker)
        with (
            program(*register, cwd=project),
            program("msgflo", "participant", "components/Greet.py", "greet", *broker, cwd=project),
            program("msgflo", "take", "its/own", "--queue", "-n1", *broker, cwd=project) as take,
        ):
            while take.runs:
                msgflo("send", "greet", "Ada", *broker, cwd=project)
            assert take.wait() == 0
            assert take.lines == ['"Hello, Ada!"']
        assert setup.end(signal.SIGINT) == 0
