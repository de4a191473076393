"""What files a Python file is made of."""

from pathlib import Path

from msgflo.processes.imports import files_of


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def names(root: Path, component: str) -> list[str]:
    return sorted(str(it.relative_to(root)) for it in files_of(root / component, root))


def test_a_file_is_made_of_itself_and_what_it_imports_from_its_folder_and_the_projects(tmp_path):
    write(
        tmp_path,
        {
            "components/A.py": "import json, beside\nfrom own.deep import thing, word\n",
            "components/beside.py": "def late():\n    import below\n",
            "components/other.py": "",
            "below.py": "import components.other",
            "own/__init__.py": "",
            "own/deep/__init__.py": "from . import side\nfrom .. import up\n",
            "own/deep/word.py": "from .side import x",
            "own/deep/side.py": "",
            "own/up.py": "",
            "own/unused.py": "",
        },
    )
    assert names(tmp_path, "components/A.py") == [
        "below.py",
        "components/A.py",
        "components/beside.py",
        "components/other.py",
        "own/__init__.py",
        "own/deep/__init__.py",
        "own/deep/side.py",
        "own/deep/word.py",
        "own/up.py",
    ]


def test_files_that_import_each_other_have_an_end(tmp_path):
    write(tmp_path, {"a.py": "import b", "b.py": "import a"})
    assert names(tmp_path, "a.py") == ["a.py", "b.py"]


def test_of_a_half_written_file_only_itself_is_known(tmp_path):
    write(tmp_path, {"a.py": "import b\nimport (", "b.py": ""})
    assert names(tmp_path, "a.py") == ["a.py"]
    assert files_of(tmp_path / "gone.py", tmp_path) == set()


def test_what_is_beside_a_component_wins_over_the_projects(tmp_path):
    write(tmp_path, {"components/a.py": "import b", "components/b.py": "", "b.py": ""})
    assert names(tmp_path, "components/a.py") == ["components/a.py", "components/b.py"]
