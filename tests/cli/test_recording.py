"""``msgflo test --record`` beside a network that runs, and what it wrote run again."""

import os
import subprocess
import sys

import pytest

COMPONENT = """
import msgflo
from msgflo import Param


@msgflo.component("Greet")
def greet(name: str, greeting: Param[str] = "Hello") -> str:
    return f"{greeting}, {name}!"
"""

GRAPH = """
'Servus' -> GREETING greet(Greet)
greet OUT -> IN again(Greet)
"""


def msgflo(*arguments, cwd, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "msgflo", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture
def network(tmp_path):
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "Greet.py").write_text(COMPONENT)
    (tmp_path / "main.fbp").write_text(GRAPH)
    with subprocess.Popen(
        [sys.executable, "-m", "msgflo", "run", "--port", "0", "main.fbp"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if "all running" in line:
                break
        else:
            pytest.fail("the network did not start")
        yield tmp_path
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.timeout(150)
def test_live_traffic_becomes_a_regression_test_in_one_command(network):
    with subprocess.Popen(
        [sys.executable, "-m", "msgflo", "test", "--record", "greet", "-n", "2",
         "--timeout", "40", "--graph", "main.fbp"],
        cwd=network,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as recording:  # fmt: skip
        assert recording.stderr
        assert "recording greet" in recording.stderr.readline()
        for name in ("Ada", "Bob"):
            msgflo("send", "greet.in", name, cwd=network)
        out, err = recording.communicate(timeout=60)
    assert recording.returncode == 0, err
    assert out == "wrote spec/greet.yaml; run it with: msgflo test spec/greet.yaml\n"
    assert "greet: 2 cases" in err
    text = (network / "spec" / "greet.yaml").read_text()
    assert "Servus, Ada!" in text
    done = msgflo("test", "spec/greet.yaml", cwd=network)
    assert done.stdout.count("✓") == 2

    component = network / "components" / "Greet.py"
    component.write_text(component.read_text().replace("!", "?"))
    done = msgflo("test", "spec/greet.yaml", cwd=network, check=False)
    assert done.returncode == 2
    assert 'expected "Servus, Ada?" to equal "Servus, Ada!"' in done.stdout

    done = msgflo("test", "--record", "greet", cwd=network, check=False)
    assert done.returncode == 1
    assert "is there already" in done.stderr
    done = msgflo("test", "--record", "greed", cwd=network, check=False)
    assert done.returncode == 2
    assert "Did you mean 'greet'?" in done.stderr
    done = msgflo(
        "test",
        "--record",
        "again",
        "--timeout",
        "0.1",
        "--into",
        "a.yaml",
        cwd=network,
        check=False,
    )
    assert done.returncode == 1
    assert "again: nothing that was sent to it was answered" in done.stderr
    assert not (network / "a.yaml").exists()
