"""The original MsgFlo and its clients, from npm, beside ours in one project."""

from pathlib import Path

import pytest

from interop.mixed import HERE, make_mixed
from npm import installed


@pytest.fixture(scope="session")
def modules() -> Path:
    """The folder ``node_modules`` with all of the original."""
    return installed(HERE / "npm", "npm-interop")


@pytest.fixture
def mixed(tmp_path: Path, modules: Path) -> Path:
    return make_mixed(tmp_path / "mixed", modules)
