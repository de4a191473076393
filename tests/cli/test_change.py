"""Commands that change a network while it runs."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hello import make_project
from msgflo.project import load_graph
from programs import Program, msgflo, program


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("change") / "project")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Program]:
    """``msgflo run`` of one network, for all tests here; each leaves it as it was."""
    with program("msgflo", "run", "hello.fbp", "--port", "0", cwd=folder) as run:
        run.until("all running")
        yield run


def done(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run a command that has this exit status; return all that it printed."""
    ended = msgflo(*arguments, cwd=folder)
    assert ended.returncode == code, ended.stderr + ended.stdout
    assert not ended.stderr.startswith("Traceback")  # ours; a component's is shown, indented
    return ended.stdout + ended.stderr


def heard(running: Program, instance: str, text: str) -> None:
    """Wait until an instance has printed a text, alone on a line."""
    running.until_line(rf"{re.escape(instance)} +\| {re.escape(text)}")


def graph(folder: Path) -> str:
    return (folder / "hello.fbp").read_text()


@pytest.fixture(autouse=True)
def as_it_was(running: Program, folder: Path) -> Iterator[None]:
    before = graph(folder)
    yield
    assert graph(folder) == before


def test_a_role_is_scaled_and_its_graph_says_so_until_that_is_undone(
    running: Program, folder: Path
):
    before = graph(folder)
    said = done(folder, "scale", "show=2", "greet=2")
    assert "show: 1 -> 2 instances" in said
    assert re.search(r"^show: 2 instances live after \d", said, re.M)
    assert "Show:instances=2" in graph(folder)
    # Both run: what greet sends is for each of them.
    done(folder, "send", "greet.in", "Ada")
    running.until("Hello, Ada!", times=2)
    done(folder, "undo", "-n", "2")
    assert graph(folder) == before
    said = done(folder, "scale", "show=0")
    assert "show: 1 -> 0 instances" in said
    done(folder, "undo")
    running.until("show(Show) running on", times=3)


def test_a_restarted_instance_is_another_process_and_takes_what_was_sent_meanwhile(
    running: Program, folder: Path
):
    code = folder / "components" / "Show.py"
    before = code.read_text()
    try:
        code.write_text(before.replace("print(text)", 'print(f"<{text}>")'))
        assert done(folder, "restart", "show", "--no-wait") == "restarting show\n"
        done(folder, "send", "show.in", "during")
        running.until("<during>")
    finally:
        code.write_text(before)
    assert re.fullmatch(r"show\.1: restarted after .* s\n", done(folder, "restart", "show.1"))
    done(folder, "send", "show.in", "after")
    running.until("| after")
    assert "has no instance 7" in done(folder, "restart", "show.7", code=1)
    assert "Did you mean 'show'?" in done(folder, "restart", "shwo", code=1)


def test_a_role_is_added_connected_disconnected_and_removed_and_nothing_sent_is_lost(
    running: Program, folder: Path
):
    said = done(folder, "add", "other", "Show", "--instances", "1")
    assert "added other, a Show" in said
    assert "other: 1 instance live" in said
    assert done(folder, "connect", "greet.out -> other.in") == "connected greet.out -> other.in\n"
    assert "greet OUT -> IN other(Show:instances=1)" in graph(folder)
    assert "is there already" in done(folder, "connect", "greet OUT -> IN other")
    done(folder, "send", "greet", "Bo")
    heard(running, "other.1", "Hello, Bo!")
    heard(running, "show.1", "Hello, Bo!")
    said = done(folder, "disconnect", "greet->other")
    assert "what was sent before still arrives" in said
    done(folder, "send", "greet", "Cy")
    done(folder, "send", "other", "the end")
    heard(running, "other.1", "the end")
    heard(running, "show.1", "Hello, Cy!")
    assert not re.search(r"other\.1 +\| Hello, Cy!", running.text)
    assert "removed other and 0 connections of it" in done(folder, "remove", "other")
    assert load_graph(folder / "hello.fbp").nodes.keys() == {"greet", "show"}


def test_undo_and_redo_say_what_they_do(running: Program, folder: Path):
    done(folder, "add", "other", "Show", "--no-wait")
    done(folder, "connect", "greet -> other", "--no-wait")
    assert "disconnected greet.out -> other.in\n" in done(folder, "undo")
    assert "connected greet.out -> other.in\n" in done(folder, "redo")
    assert "removed other\n" in done(folder, "undo", "-n", "2")
    while "nothing to undo" not in (said := msgflo("undo", cwd=folder).stderr):
        assert "can be undone" in said
    done(folder, "redo", "-n", "1")
    while "nothing to redo" not in msgflo("redo", cwd=folder).stderr:
        pass
    done(folder, "undo", "-n", "2")


def test_an_initial_packet_is_added_with_a_role(running: Program, folder: Path):
    done(folder, "add", "other", "Show", "--initial", "in=5 is the number", "--no-save")
    heard(running, "other.1", "5 is the number")
    assert "other" not in graph(folder)
    done(folder, "remove", "other")


def test_what_cannot_be_is_refused_and_leaves_the_graph_alone(running: Program, folder: Path):
    assert "greet has no outport 'ouch'; it has: out." in done(
        folder, "connect", "greet.ouch -> show.in", code=1
    )
    assert "no node 'shwo'" in done(folder, "connect", "greet -> shwo", code=1)
    assert "there is no connection show.out -> greet.in" in done(
        folder, "disconnect", "show -> greet", code=1
    )
    said = done(folder, "add", "x", "Shwo", code=1)
    assert "no component 'Shwo'" in said
    assert "say --elsewhere" in said
    assert "added x, a Shwo" in done(folder, "add", "x", "Shwo", "--elsewhere")
    assert "removed x" in done(folder, "remove", "x")
    assert "has a node 'show' already" in done(folder, "add", "show", "Show", code=1)
    assert "no node 'x'" in done(folder, "remove", "x", code=1)
    assert "no node 'x'" in done(folder, "scale", "x=2", code=1)


def test_a_role_that_does_not_start_is_told_with_its_last_lines(running: Program, folder: Path):
    said = done(folder, "add", "bad", "Broken", code=1)
    assert "bad.1 failed: exited with status 1" in said
    assert "ModuleNotFoundError: No module named 'no_such_module'" in said
    done(folder, "undo")


def test_what_a_file_cannot_say_is_told_and_the_network_is_changed_all_the_same(
    running: Program, folder: Path
):
    said = done(folder, "add", "2nd", "Show", code=1)
    assert "the network is changed, but hello.fbp is not saved: " in said
    assert "node '2nd': names start with a letter" in said
    assert "2nd: 1 instance live" in said
    done(folder, "remove", "2nd")


def test_the_network_is_found_by_its_folder_its_address_or_the_environment(
    running: Program, folder: Path, tmp_path: Path
):
    address = running.until("FBP protocol at").rpartition(" ")[2]
    for arguments in (["--project", str(folder)], ["--address", address]):
        assert "no node 'x'" in done(tmp_path, "restart", "x", *arguments, code=1)
    assert "no node 'x'" in msgflo("restart", "x", cwd=tmp_path, MSGFLO_ADDRESS=address).stderr
    said = done(tmp_path, "restart", "x", code=2)
    assert f"no network runs in {tmp_path}" in said
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nowhere = f"ws://127.0.0.1:{probe.getsockname()[1]}"
    assert nowhere in done(tmp_path, "restart", "x", "--address", nowhere, code=1)


def test_a_guarded_network_lets_its_owner_in_and_others_by_their_secret(tmp_path: Path):
    folder = make_project(tmp_path / "guarded")
    secrets = tmp_path / "secrets"
    secrets.write_text("read lookonly\n")
    arguments = ["--port", "0", "--secret-file", str(secrets), "--only", "show"]
    with program("msgflo", "run", "hello.fbp", *arguments, cwd=folder) as run:
        address = run.until("FBP protocol at").rpartition(" ")[2]
        run.until("ROLE ")
        assert "show: 1 -> 2" in done(folder, "scale", "show=2", "--no-wait")
        # Nobody's secret is in the file, and it is not in the address that is shown.
        assert "lookonly" not in (folder / ".msgflo" / "endpoint.json").read_text()
        told = ["restart", "show", "--address", address]
        assert "not allowed" in done(tmp_path, *told, code=1)
        said = done(tmp_path, *told, "--secret-file", str(secrets), code=1)
        assert "needs a secret of the level rewire" in said
    assert not (folder / ".msgflo" / "endpoint.json").exists()
