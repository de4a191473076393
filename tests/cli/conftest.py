"""A small project for the commands to work on."""

from pathlib import Path

import pytest

from hello import make_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with components, and a graph ``hello.fbp``."""
    return make_project(tmp_path / "project")
