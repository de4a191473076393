"""A small project, for whatever test needs one."""

from pathlib import Path

__all__ = ["make_project"]

COMPONENTS = {
    "Greet": """
        @msgflo.component("Greet")
        def greet(name: str) -> str:
            "Says hello."
            return f"Hello, {name}!"
    """,
    "Show": """
        @msgflo.component("Show")
        def show(text: str) -> None:
            print(text)
    """,
    "Broken": """
        print("about to import")
        import no_such_module

        @msgflo.component("Broken")
        def broken(text: str) -> None: ...
    """,
}


def make_project(folder: Path) -> Path:
    """Make a folder with components, and a graph ``hello.fbp``; return it."""
    (folder / "components").mkdir(parents=True)
    for name, code in COMPONENTS.items():
        lines = [line[8:] for line in code.strip("\n").splitlines()]
        text = "\n".join(["import msgflo", "", "", *lines, ""])
        (folder / "components" / f"{name}.py").write_text(text)
    (folder / "hello.fbp").write_text("'World' -> IN greet(Greet) OUT -> IN show(Show)\n")
    return folder
