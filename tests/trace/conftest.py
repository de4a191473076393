"""The tools of npm flowtrace."""

from pathlib import Path

import pytest

import npm


@pytest.fixture(scope="session")
def flowtrace_tools() -> Path:
    """The folder of the npm package ``flowtrace``."""
    return npm.installed(Path(__file__).parent / "npm", "npm-flowtrace") / "flowtrace"
