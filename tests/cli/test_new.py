"""``msgflo new`` makes a project that runs and tests itself."""

import sys
from pathlib import Path

from programs import msgflo, program


def test_it_runs_and_its_two_suites_of_tests_pass(tmp_path: Path):
    done = msgflo("new", "my-words", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "msgflo run my-words.fbp" in done.stdout
    folder = tmp_path / "my-words"
    tested = msgflo("test", cwd=folder)
    assert tested.returncode == 0, tested.stdout
    assert "2 cases: 2 passed" in tested.stdout + tested.stderr
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    with program(*command, cwd=folder) as tests:
        assert tests.wait() == 0, tests.text
        assert "4 passed" in tests.text
    assert msgflo("graph", "check", "my-words.fbp", cwd=folder).returncode == 0
    with program("msgflo", "run", "my-words.fbp", "--port", "0", cwd=folder) as run:
        run.until("all running")
        for word in ("A!", "NETWORK!", "OF!", "PROCESSES!"):
            run.until(f"| {word}")
        assert "shout  Shout              2 live" in run.text
        assert msgflo("send", "words", "and what else", cwd=folder).returncode == 0
        run.until("ELSE!")
        assert run.end() == 0


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    done = msgflo("new", "mine", cwd=tmp_path)
    assert done.returncode == 2
    assert "is there already, and not empty" in done.stderr
    assert [it.name for it in (tmp_path / "mine").iterdir()] == ["file"]
    (tmp_path / "empty").mkdir()
    assert msgflo("new", "empty", cwd=tmp_path).returncode == 0


def test_a_name_that_is_none_is_refused(tmp_path: Path):
    for name in ("-x", "a\nb", "..", "é"):
        assert msgflo("new", "--", name, cwd=tmp_path).returncode == 2, name
    assert list(tmp_path.iterdir()) == []
