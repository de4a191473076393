"""``msgflo graph``: what can be done with a graph file alone.

Each command imports what it needs when it runs: help has to answer at once.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msgflo.errors import GraphError, GraphSyntaxError, MsgFloError, UnknownComponent

if TYPE_CHECKING:
    from msgflo.flow.graph import Graph

__all__ = ["graph"]


@click.group()
def graph() -> None:
    """Check, convert and draw graph files (.fbp and .json)."""


@graph.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--no-library", is_flag=True, help="Do not look the components up.")
def check(files: tuple[Path, ...], as_json: bool, no_library: bool) -> int:
    """Say what is wrong with graph files, without running anything.

    Errors are what can never work: exit status 1. Warnings are what may be meant, such as a
    component that the project's library does not have (somebody may announce it).
    """
    from msgflo.project import load_graph

    findings = []
    for file in files:
        findings += _findings(file, library=not no_library)
    if as_json:
        click.echo(json.dumps(findings, indent=2))
    else:
        for found in findings:
            click.echo(f"{found['severity']}: {found['text']}", err=found["severity"] == "error")
        for file in files:
            if not any(f["file"] == str(file) and f["severity"] == "error" for f in findings):
                click.echo(f"{file}: {_counted(load_graph(file))}")
    return 1 if any(found["severity"] == "error" for found in findings) else 0


def _findings(file: Path, *, library: bool) -> list[dict[str, Any]]:
    from msgflo.flow.wiring import by_convention, is_virtual, wire
    from msgflo.processes.library import Library
    from msgflo.project import find_root, load_graph

    found: list[dict[str, Any]] = []

    def note(severity: str, text: str, **more: Any) -> None:
        found.append({"file": str(file), "severity": severity, "text": text, **more})

    try:
        loaded = load_graph(file)
    except GraphSyntaxError as error:
        note("error", str(error), line=error.line, column=error.column)
        return found
    except GraphError as error:
        note("error", str(error))
        return found
    wiring = wire(loaded, by_convention(loaded))
    for edge in wiring.edges:
        if edge.reason:
            src, tgt = edge.edge.src, edge.edge.tgt
            name = f"{src.node} {src.port.upper()} -> {tgt.port.upper()} {tgt.node}"
            note("error", f"{file}: {name}: {edge.reason}")
    for initial in wiring.initials:
        if initial.reason:
            note("error", f"{file}: initial packet of {initial.role}: {initial.reason}")
    if library:
        shelf = Library.load(find_root(file))
        for problem in shelf.problems:
            note("warning", str(problem))
        for node in loaded.nodes.values():
            if is_virtual(node.component):
                continue
            try:
                shelf.get(node.component)
            except UnknownComponent as error:
                note("warning", f"{file}: {node.id}: {error}")
    return found


def _counted(loaded: "Graph") -> str:
    def count(number: int, noun: str) -> str:
        return f"{number} {noun}" + ("" if number == 1 else "s")

    return ", ".join(
        (
            count(len(loaded.nodes), "node"),
            count(len(loaded.edges), "connection"),
            count(len(loaded.initials), "initial packet"),
        )
    )


@graph.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", required=False, type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(["fbp", "json"]), help="The language to print it in.")
def convert(source: Path, target: Path | None, to: str | None) -> None:
    """Write a graph in the other language, to TARGET or to the terminal.

    What .fbp cannot say (such as groups) is named, and nothing is written.
    """
    from msgflo.flow.text import dump
    from msgflo.project import load_graph, write_atomically

    loaded = load_graph(source)
    if target is None:
        language = to or ("fbp" if source.suffix == ".json" else "json")
        click.echo(dump(loaded, f"graph.{language}"), nl=False)
        return
    text = dump(loaded, str(target.with_suffix(f".{to}")) if to else str(target))
    try:
        write_atomically(target, text.encode())
    except OSError as error:
        raise GraphError(f"cannot write {target}: {error.strerror}") from None


@graph.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "-f",
    "language",
    type=click.Choice(["text", "svg", "mermaid", "json"]),
    help="What to draw it as. [default: text, or what the output file is named]",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write it to a file.")
def show(file: Path, language: str | None, as_json: bool, output: Path | None) -> None:
    """Draw a graph."""
    from msgflo.flow.drawing import draw_mermaid, draw_svg, draw_text
    from msgflo.flow.text import dump
    from msgflo.processes.output import wants_colour
    from msgflo.project import load_graph, write_atomically

    loaded = load_graph(file)
    named = {".svg": "svg", ".mmd": "mermaid", ".mermaid": "mermaid", ".json": "json"}
    if as_json:
        language = "json"
    elif language is None:
        language = named.get(output.suffix, "text") if output else "text"
    match language:
        case "svg":
            drawn = draw_svg(loaded)
        case "mermaid":
            drawn = draw_mermaid(loaded)
        case "json":
            drawn = dump(loaded, "graph.json")
        case _:
            colour = output is None and wants_colour(sys.stdout, os.environ)
            drawn = draw_text(loaded, width=shutil.get_terminal_size().columns, color=colour)
    if not drawn.endswith("\n"):
        drawn += "\n"
    if output is None:
        click.echo(drawn, nl=False, color=True)
        return
    try:
        write_atomically(output, drawn.encode())
    except OSError as error:
        raise MsgFloError(f"cannot write {output}: {error.strerror}") from None
