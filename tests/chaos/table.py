"""The table of what became of every message."""

from pathlib import Path

from chaos.scene import Count

__all__ = ["Table", "write"]

_rows: list[tuple[str, str, str, Count]] = []


class Table:
    """Takes the counts of tests down, and fails those that have lost anything."""

    def __init__(self, transport: str) -> None:
        self._transport = transport

    def __call__(self, what: str, count: Count, note: str = "") -> None:
        _rows.append((self._transport, what, note, count))
        assert count.lost == 0, f"{what}: {count}"
        assert count.sent == count.processed + count.dead, f"{what}: {count}"


def write(path: Path) -> None:
    """Write the table, if there is anything in it."""
    if not _rows:
        return
    lines = [
        "# Chaos",
        "",
        "What became of every message while terrible things happened, as `tests/chaos` counted it.",
        "*Dead* are dead letters with their reasons (one in a hundred is rejected on purpose);",
        "*duplicates* came more than once, each with the id that it had the first time.",
        "",
        "| transport | what happens | | sent | processed | duplicates | dead | lost |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {transport} | {what} | {note} | {count.sent} | {count.processed} "
        f"| {count.duplicates} | {count.dead} | {count.lost} |"
        for transport, what, note, count in sorted(_rows)
    ]
    path.write_text("\n".join(lines) + "\n")
