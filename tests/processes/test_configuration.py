"""What configuration files say, and what they get for saying it wrong."""

import json
from pathlib import Path

import pytest

from msgflo.errors import ConfigurationError
from msgflo.processes.configuration import read_configuration


def write(folder: Path, name: str, said: object) -> Path:
    path = folder / name
    path.write_text(said if isinstance(said, str) else json.dumps(said))
    return path


def test_a_folder_without_files_says_nothing(tmp_path):
    read = read_configuration(tmp_path)
    assert read.files == []
    assert read.namespace == ""
    assert read.component_dirs is None
    assert not read.components


def test_a_pyproject_has_its_settings_in_tool_msgflo(tmp_path):
    write(
        tmp_path,
        "pyproject.toml",
        """
        [project]
        name = "my-images"
        [project.urls]
        Repository = "https://example.org/images"
        [tool.msgflo]
        component-dirs = "parts"
        [tool.msgflo.components]
        "text/Upper" = "python -m my.upper #ROLE"
        Crop = ["./crop", "--role", "#ROLE"]
        [tool.msgflo.variables]
        X = "1"
        [tool.msgflo.handlers]
        ".RS" = "cargo run"
        """,
    )
    read = read_configuration(tmp_path)
    assert read.namespace == "my-images"
    assert read.repository == "https://example.org/images"
    assert read.component_dirs == ("parts",)
    assert read.components == {
        "text/Upper": "python -m my.upper #ROLE",
        "Crop": ("./crop", "--role", "#ROLE"),
    }
    assert read.variables == {"X": "1"}
    assert read.handlers == {".rs": "cargo run"}
    assert read.problems == []


def test_a_python_project_that_says_nothing_of_msgflo_names_no_namespace(tmp_path):
    write(tmp_path, "pyproject.toml", '[project]\nname = "other"')
    assert read_configuration(tmp_path).namespace == ""


def test_a_package_json_gives_its_name_and_repository_even_without_settings(tmp_path):
    write(
        tmp_path,
        "package.json",
        {"name": "@me/c-flo", "repository": {"type": "git", "url": "git://x"}, "version": "1"},
    )
    read = read_configuration(tmp_path)
    assert read.namespace == "c-flo"
    assert read.repository == "git://x"


def test_a_package_json_is_not_searched_for_settings_at_its_top_level_unless_named(tmp_path):
    path = write(tmp_path, "package.json", {"name": "n", "components": {"A": "a"}})
    assert read_configuration(tmp_path).components == {}
    assert read_configuration(tmp_path, path).components == {"A": "a"}


def test_an_empty_namespace_is_none(tmp_path):
    write(tmp_path, "package.json", {"name": "n", "msgflo": {"namespace": ""}})
    assert read_configuration(tmp_path).namespace == ""


def test_a_named_file_is_the_only_one_read(tmp_path):
    write(tmp_path, "msgflo.json", {"namespace": "a"})
    other = write(tmp_path, "other.json", {"msgflo": {"components": {"B": "b"}}})
    read = read_configuration(tmp_path, Path("other.json"))
    assert read.namespace == ""
    assert read.components == {"B": "b"}
    assert read.files == [other]


def test_the_file_that_is_more_about_msgflo_wins_and_what_loses_is_said(tmp_path):
    write(
        tmp_path,
        "package.json",
        {"name": "p", "msgflo": {"components": {"A": "1", "B": "1"}, "variables": {"V": "1"}}},
    )
    write(
        tmp_path,
        "pyproject.toml",
        '[tool.msgflo]\nnamespace = "q"\n[tool.msgflo.components]\nA = "2"\nC = "2"',
    )
    write(tmp_path, "msgflo.json", {"components": {"A": "3", "B": "1"}, "variables": {"V": "3"}})
    read = read_configuration(tmp_path)
    assert read.namespace == "q"
    assert read.components == {"A": "3", "B": "1", "C": "2"}
    assert read.variables == {"V": "3"}
    assert read.origins["A"] == tmp_path / "msgflo.json"
    said = [str(problem) for problem in read.problems]
    assert len(said) == 3
    assert "'A'" in said[0]
    assert "pyproject.toml" in said[0]
    assert "'A'" in said[1]
    assert "msgflo.json" in said[1]
    assert "'V'" in said[2]


def test_a_misspelt_key_is_said_and_others_keys_are_left_alone(tmp_path):
    write(tmp_path, "msgflo.json", {"component": {}, "scaling": {}, "namespace": "a"})
    read = read_configuration(tmp_path)
    assert read.namespace == "a"
    assert [str(problem) for problem in read.problems] == [
        f"{tmp_path / 'msgflo.json'}: unknown key 'component'. Did you mean 'components'?"
    ]


def test_single_wrong_entries_are_left_out_and_said(tmp_path):
    write(
        tmp_path,
        "msgflo.json",
        {
            "components": {"A": 1, "B": "", "C": ["x", 2], "D": "good", "E": []},
            "variables": {"V": 1, "": "x", "W": "good"},
            "handlers": {"py": "x", ".x": "good", ".": "x", "./y": "x"},
        },
    )
    read = read_configuration(tmp_path)
    assert read.components == {"D": "good"}
    assert read.variables == {"W": "good"}
    assert read.handlers == {".x": "good"}
    assert len(read.problems) == 9
    assert "holds a number; expected a command" in str(read.problems[0])


@pytest.mark.parametrize(
    ("name", "said", "expected"),
    [
        ("msgflo.json", '{"a": ', r"msgflo.json:1:7: not JSON"),
        ("msgflo.json", "[1]", r"holds a list; expected an object"),
        ("msgflo.json", "[" * 100_000, r"nested too deeply"),
        ("pyproject.toml", "[tool.msgflo", r"not TOML: Expected"),
        ("msgflo.json", {"components": ["a"]}, r"components: holds a list; expected an object"),
        ("msgflo.json", {"variables": "a"}, r"variables: holds a text; expected an object"),
        ("msgflo.json", {"namespace": 1}, r"namespace: holds a number; expected a text"),
        ("msgflo.json", {"namespace": "a/b"}, r"'a/b' cannot be the first part"),
        ("msgflo.json", {"component-dirs": {}}, r"expected a folder or a list of folders"),
        ("msgflo.json", {"component-dirs": [""]}, r"expected a folder or a list of folders"),
        ("package.json", {"msgflo": []}, r"msgflo: holds a list; expected an object"),
    ],
)
def test_a_file_that_cannot_be_understood_is_an_error_that_names_it(tmp_path, name, said, expected):
    write(tmp_path, name, said)
    with pytest.raises(ConfigurationError, match=expected) as caught:
        read_configuration(tmp_path)
    assert str(tmp_path / name) in str(caught.value)


def test_a_file_that_is_not_utf8_is_an_error(tmp_path):
    (tmp_path / "msgflo.json").write_bytes(b'{"namespace": "\xff"}')
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_configuration(tmp_path)


def test_a_named_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match="is no file"):
        read_configuration(tmp_path, Path("nope.json"))
