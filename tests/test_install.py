"""The package, built and installed into an environment where nothing else is."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hello import make_project
from programs import program

CHECKOUT = Path(__file__).parents[1]


def call(*argv: str, cwd: Path) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MSGFLO", "PYTHON"))}
    done = subprocess.run(
        argv, cwd=cwd, env=kept, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_wheel_is_built_and_runs_a_network_in_an_empty_environment(tmp_path: Path):
    pip = ("-m", "pip", "--disable-pip-version-check", "--quiet")
    call(
        *(sys.executable, *pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)),
        str(CHECKOUT),
        cwd=tmp_path,
    )
    (wheel,) = tmp_path.glob("msgflo-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    sources = {
        str(path.relative_to(CHECKOUT / "src"))
        for path in (CHECKOUT / "src" / "msgflo").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources <= set(names)
    assert not [n for n in names if not n.startswith("msgflo/") and ".dist-info/" not in n]

    call(sys.executable, "-m", "venv", str(tmp_path / "env"), cwd=tmp_path)
    its = tmp_path / "env" / "bin"
    call(str(its / "python"), *pip, "install", str(wheel), cwd=tmp_path)
    assert call(str(its / "msgflo"), "--version", cwd=tmp_path).startswith("msgflo ")
    assert call(str(its / "python"), *pip, "check", cwd=tmp_path) == ""

    project = make_project(tmp_path / "project")
    with program(str(its / "msgflo"), "run", "hello.fbp", cwd=project) as run:
        run.until("Hello, World!")
        run.until("all running")
        call(str(its / "msgflo"), "send", "greet", "Ada", cwd=project)
        run.until("Hello, Ada!")
        assert run.end() == 0
