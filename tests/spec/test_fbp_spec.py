"""The reference itself, npm fbp-spec, with its own examples on our runtime, and beside us."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import npm
from msgflo.protocol.client import Client
from msgflo.spec.files import load_suites
from msgflo.spec.remote import Remote
from msgflo.spec.runner import run_suites

COMPONENT = """
import msgflo


@msgflo.component("{0}")
def repeat(value: object) -> object:
    return value
"""


@pytest.fixture
def examples():
    return npm.installed(Path(__file__).parent / "npm", "npm-spec") / "fbp-spec" / "examples"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "components").mkdir()
    for name in ("core/Repeat", "DummyComponent"):
        path = tmp_path / "components" / f"{name.rpartition('/')[2]}.py"
        path.write_text(COMPONENT.format(name))
    return tmp_path


@pytest.fixture
def address(folder):
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        port = it.getsockname()[1]
    with (
        (folder / "run.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "msgflo", "run", "--port", str(port), "--project", folder],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        yield f"ws://127.0.0.1:{port}"
        process.terminate()
        process.wait(30)


def run(*command, cwd):
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )


def without_reasons(text):
    return re.sub("✗ Error: .*", "✗", text).strip().splitlines()


@pytest.mark.long
@pytest.mark.timeout(200)
def test_the_reference_has_the_verdicts_of_its_examples_on_our_runtime_and_we_have_the_same(
    examples, folder, address
):
    ours = run(sys.executable, "-m", "msgflo", "test", "--project", folder, examples, cwd=folder)
    program = examples.parent / "bin" / "fbp-spec"
    theirs = run(npm.node(), program, "--address", address, "--start-timeout", 60, examples,
                 cwd=folder)  # fmt: skip
    # As many as it starts with: the 30 cases, with the titles of their suites.
    lines = without_reasons(theirs.stdout)
    assert len([line for line in lines if line.startswith("    ")]) == 30, theirs.stderr
    for line in lines:
        if "should fail" in line:
            assert line.endswith("✗")
        elif line.startswith("    "):
            assert line.endswith("✓")
    assert without_reasons(ours.stdout) == lines
    assert (theirs.returncode, ours.returncode) == (2, 2)


@pytest.mark.timeout(100)
async def test_our_runtime_is_left_without_a_trace_of_the_fixtures(folder, address):
    (folder / "one.yaml").write_text(
        "topic: DummyComponent\ntimeout: 20000\n"
        "cases: [{name: n, assertion: a, inputs: {in: 1}, expect: {out: {equals: 1}}}]"
    )
    runtime = await Remote.open(address, start_timeout=60)
    results = await run_suites(runtime, load_suites(str(folder / "one.yaml")))
    assert [case.error for result in results for case in result.cases] == [""]
    await runtime.close()
    async with Client(address) as client:
        names = [kind["name"] for kind in await client.command("component", "list")]
    assert "DummyComponent" in names
    assert not [name for name in names if name.startswith("fixture.")]
