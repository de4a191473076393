"""``msgflo export``: networks for other tools, from the command line."""

from pathlib import Path

import nats as nats_py

from msgflo.flow.yamltext import load_yaml, load_yaml_documents
from programs import msgflo

GRAPH = "greet(Greet:instances=2) OUT -> IN share(msgflo/RoundRobin) OUT -> IN show(Show)\n"


def test_each_format_is_written_for_the_graph_and_its_project(project: Path):
    (project / "graphs").mkdir()
    (project / "graphs" / "share.fbp").write_text(GRAPH)

    def export(kind: str, *options: str) -> str:
        done = msgflo("export", kind, "share.fbp", *options, cwd=project / "graphs")
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    several = msgflo("export", "procfile", "share.fbp", cwd=project / "graphs")
    assert "start -m all=1,greet=2" in several.stderr
    procfile = export("procfile", "-s", "greet=1")
    assert "show: msgflo participant components/Show.py show\n" in procfile
    composed = load_yaml(export("compose", "--broker", "amqp://", "-s", "show=3"), "c")
    assert composed["services"]["greet"]["deploy"] == {"replicas": 2}
    assert composed["services"]["setup"]["command"] == ["msgflo", "setup", "graphs/share.fbp"]
    assert composed["services"]["broker"]["image"].startswith("rabbitmq")
    assert composed["services"]["show"]["deploy"] == {"replicas": 3}
    text = export("kubernetes", "--broker", "amqp://me:secret@rabbit.example/v", "--name", "net")
    assert "secret@" not in text
    kinds = [it.value["kind"] for it in load_yaml_documents(text, "k")]
    assert kinds == ["TriggerAuthentication", "Deployment", "Deployment", "ScaledObject"]
    units = export("systemd")
    assert f"WorkingDirectory={project}\n" in units
    assert "EnvironmentFile=/etc/msgflo/share.env\n" in units


def test_files_are_written_where_they_are_asked_for(project: Path):
    done = msgflo("export", "systemd", "hello.fbp", "-o", "units", cwd=project)
    assert (done.returncode, done.stdout) == (0, "")
    names = sorted(path.name for path in (project / "units").iterdir())
    assert names == [
        *("hello-greet@.service", "hello-setup.service", "hello-show@.service", "hello.target"),
    ]
    msgflo("export", "procfile", "hello.fbp", "-o", "Procfile", cwd=project)
    text = (project / "Procfile").read_text()
    assert text.startswith('greet: MSGFLO_IIPS=\'{"in": "World"}\' msgflo participant ')
    assert msgflo("export", "compose", "hello.fbp", "-o", "no/x", cwd=project).returncode == 2


def test_what_is_wrong_is_said(project: Path):
    (project / "bad.fbp").write_text("a(Grete) OUT -> IN show(Show)\n")
    done = msgflo("export", "compose", "bad.fbp", cwd=project)
    assert done.returncode == 1
    assert "No component Grete defined for role a" in done.stderr
    assert done.stdout == ""
    done = msgflo("export", "compose", "hello.fbp", "--broker", "mqtt://", cwd=project)
    assert done.returncode == 2
    assert msgflo("export", "procfile", "hello.fbp", "-s", "no=2", cwd=project).returncode == 2
    assert msgflo("export", "heroku", "hello.fbp", cwd=project).returncode == 2


async def test_the_queue_that_keda_is_told_of_is_there_once_the_network_is_set_up(
    project: Path, nats_server: str
):
    (project / "share.fbp").write_text(GRAPH)
    broker = ("--broker", nats_server)
    text = msgflo("export", "kubernetes", "share.fbp", *broker, cwd=project).stdout
    [scaled] = [
        it.value for it in load_yaml_documents(text, "k") if it.value["kind"] == "ScaledObject"
    ]
    told = scaled["spec"]["triggers"][0]["metadata"]
    assert told["natsServerMonitoringEndpoint"] == "127.0.0.1:8222"

    assert msgflo("setup", "share.fbp", *broker, cwd=project).returncode == 0
    for _ in range(2):
        sent = msgflo("send", "show.IN", "x", "--queue", *broker, cwd=project)
        assert sent.returncode == 0
    connection = await nats_py.connect(nats_server.rpartition("/")[0])
    info = await connection.jetstream().consumer_info(told["stream"], told["consumer"])
    await connection.close()
    assert info.num_pending == 2
