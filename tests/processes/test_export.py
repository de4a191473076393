"""What other tools are given to run a network, judged by their own schemas and parsers."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from msgflo.errors import ComponentError, ConfigurationError
from msgflo.flow.fbp import parse_fbp
from msgflo.flow.yamltext import load_yaml, load_yaml_documents
from msgflo.processes import export
from msgflo.processes.export import Plan, plan
from msgflo.processes.library import Library
from npm import installed, node

HERE = Path(__file__).parent

GRAPH = r"""
'it\'s 50% of $5 and $(more)' -> TITLE web(Web)
web JOB -> IN share(msgflo/RoundRobin) OUT -> IN resize(Resize)
share DEADLETTER -> IN failed(Failed)
resize OUT -> IN Store_1(Store)
lamp(Lamp) ON -> IN Store_1
"""

COMPONENTS = {
    "Web.py": 'import msgflo\n\n\n@msgflo.component("Web")\ndef web(x: str) -> str: ...\n',
    "Failed.js": "",
    "Store.py": "",
    "Lamp.yml": "component: Lamp\noutports:\n  on: {queue: 'home/#ROLE/on', type: boolean}\n",
}


@pytest.fixture
def library(tmp_path: Path) -> Library:
    (tmp_path / "components").mkdir()
    for name, code in COMPONENTS.items():
        (tmp_path / "components" / name).write_text(code)
    (tmp_path / "msgflo.json").write_text(
        '{"components": {"Resize": "sleep 1000 \'a b\' #ROLE #IIPS"}}'
    )
    return Library.load(tmp_path)


@pytest.fixture
def planned(library: Library) -> Plan:
    return plan(
        parse_fbp(GRAPH), library, name="Web images!", file="graphs/main.fbp", scale={"Store_1": 2}
    )


def judged(kind: str, text: str) -> list[str]:
    modules = installed(HERE / "npm", "npm-processes")
    done = subprocess.run(
        [node(), HERE / "npm" / "validate.mjs", modules, kind],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    wrong: list[str] = json.loads(done.stdout)
    return wrong


def test_a_plan_says_how_each_role_is_started_and_what_it_takes_from(planned: Plan):
    roles = {it.role: it for it in planned.roles}

    assert planned.name == "web-images"
    assert planned.setup == ("msgflo", "setup", "graphs/main.fbp")
    assert planned.warnings == ()
    assert list(roles) == ["web", "resize", "failed", "Store_1", "lamp"]
    assert roles["web"].argv == ("msgflo", "participant", "components/Web.py", "web")
    assert json.loads(roles["web"].env["MSGFLO_IIPS"]) == {"title": "it's 50% of $5 and $(more)"}
    assert roles["resize"].argv == ("sleep", "1000", "a b", "resize", "{}")
    assert roles["failed"].argv[0] == "msgflo-nodejs"
    assert roles["lamp"].argv == ("msgflo", "register", "--role", "lamp:components/Lamp.yml")
    assert (roles["Store_1"].name, roles["Store_1"].instances) == ("store-1", 2)
    assert [it.role for it in planned.roles if it.shared] == ["resize"]
    assert roles["resize"].shared == ("resize.IN",)
    assert [it.role for it in planned.roles if it.copies] == ["Store_1"]


def test_initial_packets_that_a_command_has_among_its_words_are_not_said_twice(library: Library):
    [web, resize] = plan(
        parse_fbp("'x' -> SIZE resize(Resize) OUT -> IN web(Web)\n'a' -> B web, 'c' -> B web"),
        library,
        name="n",
        file="g.fbp",
    ).roles[::-1]
    assert resize.argv[-1] == '{"size": "x"}'
    assert resize.env == {}
    assert web.env == {}


def test_what_will_not_be_as_drawn_is_said(library: Library):
    graph = parse_fbp("'a' -> B web(Web)\n'c' -> B web\nweb OUT -> IN p(msgflo/PubSub)")
    warnings = plan(graph, library, name="n", file="g.fbp", ignore=["wbe"]).warnings
    assert len(warnings) == 3
    assert "Did you mean 'web'?" in warnings[0]
    assert any("nothing leads on from 'p'" in text for text in warnings)
    assert any("web B has 2 initial packets" in text for text in warnings)


def test_roles_that_differ_only_in_what_a_tool_does_not_take_have_two_names(library: Library):
    graph = parse_fbp("setup(Web) OUT -> IN a_b(Web)\na-b(Web) OUT -> IN A_B(Web)")
    names = [it.name for it in plan(graph, library, name="3d", file="g.fbp").roles]
    assert len({*names, "setup", "broker"}) == 6
    assert plan(graph, library, name="3d", file="g.fbp").name == "n3d"


def test_a_component_that_is_not_there_is_said_as_the_original_does(library: Library):
    graph = parse_fbp("a(Wep) OUT -> IN b(Web)")
    with pytest.raises(ComponentError, match="No component Wep defined for role a") as raised:
        plan(graph, library, name="n", file="g.fbp")
    assert "Did you mean 'Web'?" in str(raised.value)
    assert len(plan(graph, library, name="n", file="g.fbp", ignore=["a"]).roles) == 1
    with pytest.raises(ConfigurationError, match="no role 'c'"):
        plan(graph, library, name="n", file="g.fbp", scale={"c": 2})


def test_a_procfile_has_a_line_for_each_role_that_a_shell_reads_back(planned: Plan):
    text = export.procfile(planned, ["web2: node it.js"])
    lines = dict(line.split(": ", 1) for line in text.splitlines())
    assert list(lines) == ["web", "resize", "failed", "Store_1", "lamp", "web2"]
    assert shlex.split(lines["resize"])[2] == "a b"
    said = subprocess.run(
        ["sh", "-c", lines["web"].split("msgflo ")[0] + "printenv MSGFLO_IIPS"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert json.loads(said) == {"title": "it's 50% of $5 and $(more)"}


@pytest.mark.parametrize(("scheme", "own"), [("nats", True), ("amqp", True), ("amqps", False)])
def test_compose_is_as_its_schema_has_it(planned: Plan, scheme: str, own: bool):
    text = export.compose(
        planned, scheme=scheme, own_broker=own, image="", requirement="msgflo>=1.0"
    )
    assert judged("compose", text) == []


def test_compose_starts_the_connections_before_the_participants_and_the_broker_before_all(
    planned: Plan,
):
    text = export.compose(planned, scheme="nats", own_broker=True, image="", requirement="msgflo")
    services = load_yaml(text, "compose.yaml")["services"]
    assert list(services) == ["broker", "setup", "web", "resize", "failed", "store-1", "lamp"]
    assert services["setup"]["depends_on"] == {"broker": {"condition": "service_healthy"}}
    done = {"setup": {"condition": "service_completed_successfully"}}
    assert all(services[it.name]["depends_on"] == done for it in planned.roles)
    assert services["store-1"]["deploy"] == {"replicas": 2}
    # What Compose puts variables into is read back as it was.
    said = services["web"]["environment"]["MSGFLO_IIPS"].replace("$$", "$")
    assert json.loads(said) == {"title": "it's 50% of $5 and $(more)"}
    assert "ports" not in services["broker"]


def test_compose_without_a_broker_asks_for_its_url_and_writes_no_secret(planned: Plan):
    text = export.compose(planned, scheme="amqp", own_broker=False, image="i:1", requirement="")
    services = load_yaml(text, "compose.yaml")["services"]
    assert "broker" not in services
    assert {it["environment"]["MSGFLO_BROKER"] for it in services.values()} == {
        "${MSGFLO_BROKER:?the URL of the broker}"
    }
    with pytest.raises(ConfigurationError, match="no broker for mqtt://"):
        export.compose(planned, scheme="mqtt", own_broker=True, image="", requirement="")


@pytest.mark.parametrize("scheme", ["nats", "amqp", "mqtt"])
def test_manifests_are_as_the_schemas_of_kubernetes_and_keda_have_them(planned: Plan, scheme: str):
    text = export.kubernetes(
        planned,
        scheme=scheme,
        image="i:1",
        backlog=lambda queue: {"queue": queue, "stream": "msgflo", "consumer": f"in-{queue}"},
    )
    assert judged("kubernetes", text) == []


def test_the_schemas_are_no_rubber_stamps(planned: Plan):
    text = export.kubernetes(planned, scheme="amqp", image="i:1")
    assert judged("kubernetes", text.replace("name: participant", "nam: participant"))
    assert judged("kubernetes", text.replace("type: rabbitmq", "type: 1"))
    text = export.compose(planned, scheme="nats", own_broker=True, image="", requirement="msgflo")
    assert judged("compose", text.replace("command:", "comand:"))


def test_a_shared_queue_is_scaled_by_what_waits_in_it_on_rabbitmq_and_nats(planned: Plan):
    def objects(scheme: str) -> dict[str, list[dict]]:
        text = export.kubernetes(
            planned,
            scheme=scheme,
            image="i:1",
            monitoring="there:8222",
            backlog=lambda queue: {"queue": queue, "stream": "S", "consumer": f"in-{queue}"},
        )
        found: dict[str, list[dict]] = {}
        for document in load_yaml_documents(text, "k.yaml"):
            found.setdefault(document.value["kind"], []).append(document.value)
        return found

    rabbit = objects("amqp")
    [scaled] = rabbit["ScaledObject"]
    [trigger] = scaled["spec"]["triggers"]
    assert scaled["spec"]["scaleTargetRef"]["name"] == "web-images-resize"
    assert trigger["type"] == "rabbitmq"
    assert trigger["metadata"]["queueName"] == "resize.IN"
    [authentication] = rabbit["TriggerAuthentication"]
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    [reference] = authentication["spec"]["secretTargetRef"]
    assert reference == {"parameter": "host", "name": "web-images-broker", "key": "url"}

    [scaled] = objects("nats")["ScaledObject"]
    [trigger] = scaled["spec"]["triggers"]
    assert trigger["type"] == "nats-jetstream"
    assert trigger["metadata"]["stream"] == "S"
    assert trigger["metadata"]["consumer"] == "in-resize.IN"
    assert trigger["metadata"]["natsServerMonitoringEndpoint"] == "there:8222"
    assert "ScaledObject" not in objects("mqtt")

    # Whoever gets copies keeps its number; who is scaled does not say how many it is.
    kinds = {it["metadata"]["name"]: it for it in rabbit["Deployment"] + rabbit["StatefulSet"]}
    assert kinds["web-images-store-1"]["kind"] == "StatefulSet"
    assert kinds["web-images-store-1"]["spec"]["replicas"] == 2
    assert kinds["web-images-resize"]["kind"] == "Deployment"
    assert "replicas" not in kinds["web-images-resize"]["spec"]
    web = kinds["web-images-web"]["spec"]["template"]["spec"]["containers"][0]["env"][1]
    assert json.loads(web["value"].replace("$$", "$"))["title"].endswith("$5 and $(more)")


def test_units_are_as_systemd_reads_them(planned: Plan, tmp_path: Path):
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not here")
    units = export.systemd(
        planned,
        folder=str(tmp_path),
        environment_file=str(tmp_path / "broker.env"),
        program=lambda _: sys.executable,
    )
    (tmp_path / "broker.env").write_text("MSGFLO_BROKER=nats://localhost\n")
    folder = tmp_path / "units"
    folder.mkdir()
    for name, text in units.items():
        (folder / name).write_text(text)
    assert [*units][:2] == ["web-images.target", "web-images-setup.service"]
    assert "Wants=web-images-store-1@2.service" in units["web-images.target"]
    instances = [folder / name.replace("@.", "@1.") for name in units]
    done = subprocess.run(
        [verify, "verify", "--man=no", *map(str, instances)],
        capture_output=True,
        text=True,
        check=False,
        env={"SYSTEMD_UNIT_PATH": f"{folder}:", "PATH": "/usr/bin:/bin"},
    )
    ours = [line for line in done.stderr.splitlines() if "web-images" in line]
    assert ours == []
    (folder / "web-images-web@.service").write_text(
        units["web-images-web@.service"].replace("ExecStart=", "ExecStrat=")
    )
    done = subprocess.run(
        [verify, "verify", "--man=no", str(folder / "web-images-web@1.service")],
        capture_output=True,
        text=True,
        check=False,
        env={"SYSTEMD_UNIT_PATH": f"{folder}:", "PATH": "/usr/bin:/bin"},
    )
    assert "ExecStrat" in done.stderr


def test_words_of_a_unit_keep_blanks_quotes_percent_and_dollars(planned: Plan):
    units = export.systemd(
        planned, folder="/srv/50%", environment_file="/e", program=lambda name: f"/bin/{name}"
    )
    resize = units["web-images-resize@.service"]
    assert 'ExecStart=/bin/sleep 1000 "a b" resize "{}"' in resize
    assert "WorkingDirectory=/srv/50%%" in resize
    web = units["web-images-web@.service"]
    assert "it's 50%% of $5 and $(more)" in web
