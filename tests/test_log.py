"""What a participant writes, and when."""

import logging
import subprocess
import sys

import pytest

from msgflo.log import ParticipantLog


def test_lines_and_records_say_which_participant_it_was(caplog):
    with caplog.at_level(logging.INFO, "msgflo.component"):
        ParticipantLog("resize", 2).info("attempt %d", 3, extra={"job": 7})
    (record,) = caplog.records
    assert record.getMessage() == "resize.2: attempt 3"
    assert (record.role, record.instance, record.job) == ("resize", 2, 7)


def stderr_of(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env=environment,
    )
    return done.stderr


def test_a_programs_log_is_held_back_until_it_is_let_go_and_loses_no_line():
    code = """
import logging, sys, warnings
from msgflo.log import configure
held = configure()
assert configure() is held
logging.info("early")
warnings.warn("a warning")
sys.stderr.write("--- here it runs\\n")
held.let_go()
held.let_go()
logging.warning("late")
"""
    lines = stderr_of(code).splitlines()
    assert lines[:2] == ["--- here it runs", "I early"]
    assert any("UserWarning: a warning" in line for line in lines[2:-1])
    assert lines[-1] == "W late"


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({}, ["I info", "E error"]),
        ({"MSGFLO_LOGLEVEL": "error"}, ["E error"]),
        ({"MSGFLO_PYTHON_LOGLEVEL": "ERROR"}, ["E error"]),
        ({"MSGFLO_LOGLEVEL": "DEBUG", "MSGFLO_PYTHON_LOGLEVEL": "ERROR"}, None),
        ({"MSGFLO_LOGLEVEL": "chatty"}, ["I info", "E error"]),
    ],
)
def test_the_level_comes_from_the_environment(environment, shown):
    code = """
import logging
from msgflo.log import configure
configure().let_go()
for level in ("debug", "info", "error"):
    getattr(logging, level)(level)
"""
    lines = stderr_of(code, **environment).splitlines()
    assert lines == (["D debug", "I info", "E error"] if shown is None else shown)


def test_a_log_that_the_author_has_set_up_is_left_alone():
    code = """
import logging
from msgflo.log import configure
logging.basicConfig(format="mine: %(message)s")
assert configure() is None
logging.warning("hello")
"""
    assert stderr_of(code) == "mine: hello\n"
