"""``python -m msgflo``: the same as the command ``msgflo``."""

from msgflo.cli import main

main()
