"""How a run is served: where it listens, and to whom."""

import socket

from programs import msgflo, program


def test_a_run_says_where_it_listens(project):
    with program("msgflo", "run", "hello.fbp", "--port", "0", cwd=project) as run:
        assert "ws://127.0.0.1:" in run.until("FBP protocol at ")
        assert "address%3Dws" in run.until("open in noflo-ui: ")


def test_the_id_is_the_same_over_runs(project):
    ids = []
    for _ in range(2):
        with program("msgflo", "run", "--port", "0", cwd=project) as run:
            ids.append(run.until("open in noflo-ui: ").partition("id%3D")[2])
            run.until("all running")
    assert ids[0] == ids[1]
    assert ids[0].strip() == (project / ".msgflo" / "runtime-id").read_text().strip()


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(project):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = msgflo("run", "hello.fbp", "--port", str(port), cwd=project)
        assert done.returncode == 2
        assert f"cannot listen at 127.0.0.1, port {port}" in done.stderr


def test_listening_to_others_needs_a_secret(project):
    done = msgflo("run", "hello.fbp", "--host", "0.0.0.0", "--port", "0", cwd=project)
    assert done.returncode == 2
    assert "set a secret" in done.stderr


def test_secrets_can_be_in_a_file(project):
    (project / "secrets").write_text("# of ours\nread abc\n\nghi\n")
    with program("msgflo", "run", "--port", "0", "--secret-file", "secrets", cwd=project) as run:
        assert "secret%3Dghi" in run.until("open in noflo-ui: ")
    (project / "secrets").write_text("raed abc\n")
    done = msgflo("run", "--secret-file", "secrets", cwd=project)
    assert done.returncode == 2
    assert "secrets:1: expected a level" in done.stderr


def test_a_run_can_be_left_alone(project):
    with program("msgflo", "run", "hello.fbp", "--no-serve", cwd=project) as run:
        run.until("all running")
        assert not any("FBP protocol" in line for line in run.lines)
