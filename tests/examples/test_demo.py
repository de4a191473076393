"""The demo, as its users run it: real processes, a real broker, real and broken images."""

import re
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from readmes import EXAMPLES, Running, copied

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The command that script/demo ends in, on a copy of the example, on free ports."""
    monkeypatch.setenv("WEBIMAGES_PORT", "0")
    monkeypatch.delenv("MSGFLO_BROKER", raising=False)
    return f"{sys.executable} {copied('webimages', tmp_path) / 'demo.py'}"


def states(folder: Path) -> dict[str, int]:
    database = sqlite3.connect(folder / "examples/webimages/.webimages/jobs.sqlite3")
    try:
        return dict(database.execute("SELECT state, count(*) FROM images GROUP BY state"))
    finally:
        database.close()


def test_once_accounts_for_every_image_and_ends(
    demo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        taken = somebody.getsockname()[1]
        monkeypatch.setenv("WEBIMAGES_PORT", str(taken))
        with Running(f"{demo} --once --verbose", tmp_path) as running:
            assert running.end() == 0, "\n".join(running.lines)
            printed = "\n".join(running.lines)

    assert f"port {taken} is in use by something else; taking a free one" in printed
    assert states(tmp_path) == {"completed": 39, "failed": 11}
    assert "50 images in" in printed
    assert "a second" in printed
    assert re.search(r"bomb.png +resize +too many pixels", printed)
    assert re.search(r"cloud.jpg +fetch +not allowed: the link-local address", printed)
    assert re.search(r"down.jpg +fetch +.*503.*tried 3 times", printed)
    assert "late.jpg is there by now. Put back, it was completed." in printed
    (results,) = re.findall(r"Results: +39 files in (.*)", printed)
    assert len(list(Path(results).iterdir())) == 39


def test_a_worker_that_is_killed_amid_the_job_loses_no_image(demo: str, tmp_path: Path) -> None:
    with Running(f"{demo} --once --kill", tmp_path) as running:
        assert running.end() == 0, "\n".join(running.lines)
        printed = "\n".join(running.lines)

    assert "kill -9" in printed
    assert states(tmp_path) == {"completed": 39, "failed": 11}


def test_it_stays_up_until_ctrl_c_and_a_second_one_says_who_is_there(
    demo: str, tmp_path: Path
) -> None:
    with Running(demo, tmp_path) as running:
        running.until(lambda lines: any("Ctrl-C stops it" in line for line in lines))
        with Running(f"{demo} --once", tmp_path) as second:
            assert second.end() == 1
            assert any("runs in" in line and "already" in line for line in second.lines)
        assert running.stop() == 0

    assert not (tmp_path / "examples/webimages/.webimages/web-1.url").exists()


def test_stopped_amid_the_job_it_says_so_by_its_exit_status_and_leaves_nobody(
    demo: str, tmp_path: Path
) -> None:
    with Running(demo, tmp_path) as running:
        lines = running.until(lambda lines: any("A job of" in line for line in lines))
        assert running.stop() == 130, "\n".join(lines)

    # Nobody listens any longer: a second demo can have the folder.
    with Running(f"{demo} --once", tmp_path) as second:
        assert second.end() == 0, "\n".join(second.lines)


@pytest.mark.timeout(600)  # two runs, and the packages are fetched before the first
def test_a_fresh_clone_needs_one_command(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    where = EXAMPLES.parent
    cloned = subprocess.run(
        ["git", "clone", "--quiet", where, tmp_path / "fresh"],
        check=False,
        capture_output=True,
        text=True,
    )
    if cloned.returncode:
        pytest.skip(f"this is not a checkout: {cloned.stderr}")
    command = f"env -u VIRTUAL_ENV HOME={home} WEBIMAGES_PORT=0 {tmp_path}/fresh/script/demo --once"
    with Running(command, tmp_path) as first:
        assert first.end() == 0, "\n".join(first.lines)
    with Running(command, tmp_path) as again:
        assert again.end() == 0, "\n".join(again.lines)

    assert any("Making a private Python environment" in line for line in first.lines)
    assert not any("Installing" in line for line in again.lines)


def test_a_wrong_option_is_told() -> None:
    with Running(f"{sys.executable} {EXAMPLES}/webimages/demo.py --scale 0", EXAMPLES) as running:
        assert running.end() == 2
    assert "expected 1 or more" in "\n".join(running.lines)
