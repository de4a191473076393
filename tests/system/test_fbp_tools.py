"""What others wrote to measure FBP runtimes with, against a real ``msgflo run``: npm's fbp-test of
fbp-protocol, fbp-protocol-healthcheck, and the example suites of fbp-spec."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fbpschema import NPM
from npm import installed, node
from running import COMPONENTS, Run

WAIT = 300


@pytest.fixture(scope="module")
def modules() -> Path:
    return installed(NPM, "npm-fbp-protocol")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, modules: Path) -> Iterator[Run]:
    components = {
        **COMPONENTS,
        "DummyComponent.py": COMPONENTS["Repeat.py"].replace("Repeat", "DummyComponent"),
    }
    with Run(tmp_path_factory.mktemp("tools"), components=components) as made:
        yield made


def tool(modules: Path, name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [node(), str(modules / ".bin" / name), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=WAIT,
    )


def fbp_test(modules: Path, run: Run, folder: Path) -> str:
    """Run fbp-test, whose own two seconds for each test are for machines that are not busy."""
    folder.mkdir(exist_ok=True)
    (folder / "fbp-config.json").write_text(
        json.dumps(
            {
                "name": "msgflo",
                "command": None,
                "host": "127.0.0.1",
                "port": run.port,
                "collection": "core",
                "version": "0.7",
            }
        )
    )
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(modules)
    return tool(modules, "fbp-test", "--timeout", "30000", cwd=folder).stdout


@pytest.mark.timeout(WAIT)
def test_fbp_test_passes_whole(modules, run, tmp_path):
    said = fbp_test(modules, run, tmp_path / "once")
    assert "22 passing" in said, said
    assert "failing" not in said, said


@pytest.mark.timeout(WAIT)
def test_fbp_test_passes_again_on_the_same_runtime(modules, run, tmp_path):
    said = fbp_test(modules, run, tmp_path / "again")
    assert "22 passing" in said, said


@pytest.mark.timeout(WAIT)
def test_fbp_test_passes_whole_on_rabbitmq(modules, tmp_path, rabbitmq):
    with Run(tmp_path / "project", "--broker", rabbitmq) as run:
        run.said("all running")
        said = fbp_test(modules, run, tmp_path / "rabbitmq")
    assert "22 passing" in said, said
    assert "failing" not in said, said


@pytest.mark.timeout(WAIT)
def test_the_healthcheck_is_content(modules, run):
    done = tool(modules, "fbp-protocol-healthcheck", run.url, cwd=run.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OK" in done.stdout


SUITES = {
    "simple-passing": 2,
    "simple-failing": 2,
    "nofixture": 2,
    "jsonpath": 4,
    "sequences": 6,
    "predicates": 10,
    "multisuite-failandpass": 4,
}
"""So many cases each has."""


@pytest.mark.timeout(WAIT)
@pytest.mark.parametrize(("suite", "cases"), SUITES.items())
def test_fbp_specs_own_suites_are_judged_as_their_authors_meant(modules, run, suite, cases):
    file = modules / "fbp-spec" / "examples" / f"{suite}.yaml"
    text = re.sub(r"(?m)^(\s*)timeout:.*$", "", file.read_text())
    text = text.replace('topic: "DummyComponent"', 'topic: "core/DummyComponent"')
    copy = run.folder / f"{suite}.yaml"
    # Its two seconds for a case are for machines that are not busy.
    copy.write_text(re.sub(r"(?m)^(topic:.*)$", r"\1\ntimeout: 20000", text))
    done = tool(
        modules,
        "fbp-spec",
        *("--address", run.url, "--command-timeout", "20", "--start-timeout", "30"),
        str(copy),
        cwd=run.folder,
    )
    said = done.stdout + done.stderr
    verdicts = re.findall(r"(?m)^\s*(.*): (✓|✗)", said)
    assert len(verdicts) == cases, said
    # Each case says in its name what is to become of it.
    wrong = [name for name, mark in verdicts if ("fail" in name) != (mark == "✗")]
    assert not wrong, said
    failing = any(mark == "✗" for _, mark in verdicts)
    assert done.returncode == (2 if failing else 0), said


@pytest.mark.timeout(WAIT)
def test_fbp_spec_starts_the_runtime_itself(modules, tmp_path):
    """``--command``: it connects as soon as something is printed, and knows the ports at once."""
    with Run(tmp_path / "project"):
        pass  # makes the folder, and stops again
    file = modules / "fbp-spec" / "examples" / "simple-passing.yaml"
    command = f"{sys.executable} -m msgflo run --port 39571 --project {tmp_path / 'project'}"
    done = subprocess.run(
        [
            node(),
            str(modules / ".bin" / "fbp-spec"),
            *("--address", "ws://localhost:39571", "--command", command),
            *("--start-timeout", "30", "--command-timeout", "20"),
            str(file),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
