"""``msgflo take``: messages out of an inport's queue."""

from pathlib import Path

from programs import msgflo, program


def test_messages_are_printed_as_lines_of_json_and_are_gone(project: Path, nats_server: str):
    broker = ("--broker", nats_server)
    sent = msgflo(
        "send", "q", "-f", "-", "--lines", "--queue", *broker, cwd=project, stdin="1\nä\n"
    )
    assert sent.returncode == 0
    msgflo("send", "q", "-f", "-", "--queue", *broker, cwd=project, stdin=b"\xff{")
    done = msgflo("take", "q", "--queue", "-n", "3", *broker, cwd=project)
    assert (done.returncode, done.stdout) == (0, '1\n"ä"\n"\ufffd{"\n')
    done = msgflo("take", "q", "--queue", "-n", "1", "--timeout", "0.3", *broker, cwd=project)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_port_is_found_by_its_role_and_no_more_is_taken_than_asked_for(
    project: Path, nats_server: str
):
    broker = ("--broker", nats_server)
    with program("msgflo", "run", "hello.fbp", "--only", "greet", *broker, cwd=project) as run:
        run.until("show: ")
        (project / "show.yml").write_text(
            "component: Show\nrole: show\ninports:\n  in: {queue: show.IN}\n"
        )
        with program("msgflo", "register", "show.yml", *broker, cwd=project) as register:
            register.until("Sent")
            for name in ("A", "B"):
                assert msgflo("send", "show", name, *broker, cwd=project).returncode == 0
            for name in ("A", "B"):
                done = msgflo("take", "show", "-n", "1", *broker, cwd=project)
                assert (done.returncode, done.stdout) == (0, f'"{name}"\n')
    assert msgflo("take", "nobody", *broker, cwd=project).returncode == 2
