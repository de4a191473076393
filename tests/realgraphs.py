"""Graphs found in practice: too many, and of too many owners, to be a part of this repository."""

import os
from pathlib import Path

__all__ = ["WHY_NOT", "real_graphs"]

WHY_NOT = "neither MSGFLO_REAL_GRAPHS nor ../shared/real-graphs is a folder"


def real_graphs(pattern: str) -> list[Path]:
    """Return the files, in the folder that MSGFLO_REAL_GRAPHS names, or in one beside the checkout.

    Raises:
        FileNotFoundError: the folder that was named is not there, or holds none.
    """
    named = os.environ.get("MSGFLO_REAL_GRAPHS")
    folder = Path(named or Path(__file__).parents[2] / "shared" / "real-graphs")
    found = sorted(folder.rglob(pattern))
    if named and not found:
        raise FileNotFoundError(f"MSGFLO_REAL_GRAPHS is {named!r}, where there is no {pattern}")
    return found
