"""Names from outside never lead out of their folder."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.errors import InvalidName
from msgflo.processes.naming import check_basename, check_inside, extension_of, split_name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "...",
        ".hidden",
        "-option",
        "_private",
        "a/b",
        "/etc/passwd",
        "../a",
        "a\\b",
        "a\0b",
        "a\nb",
        "a b",
        "a;b",
        "$a",
        "a'",
        "C:",
        "name.",
        "con",
        "NUL.py",
        "com1",
        "a" * 181,
        "ä" * 91,
    ],
)
def test_names_that_are_no_plain_files_are_refused(name):
    with pytest.raises(InvalidName):
        check_basename(name)


@pytest.mark.parametrize("name", ["Upper", "c-beam-viewer", "c_out", "v1.2", "C++", "Größe", "1st"])
def test_usual_names_are_allowed(name):
    assert check_basename(name) == name


@given(st.text())
def test_every_allowed_name_is_a_file_directly_in_its_folder(name):
    try:
        check_basename(name)
    except InvalidName:
        return
    path = Path("/folder") / f"{name}.py"
    assert path.parent == Path("/folder")
    assert path.resolve().parent == Path("/folder")
    assert not path.name.startswith((".", "-"))


def test_a_name_is_split_at_its_first_slash():
    assert split_name("a/b") == ("a", "b")
    assert split_name("a") == ("", "a")
    assert split_name("a/b/c") == ("a", "b/c")


def test_languages_have_their_extension_and_others_are_one():
    assert extension_of("Python") == ".py"
    assert extension_of("coffeescript") == ".coffee"
    assert extension_of("lua") == ".lua"


@pytest.mark.parametrize("language", ["", "../x", "a b", "py\0", ".py", "x" * 17])
def test_a_language_that_could_be_a_path_is_refused(language):
    with pytest.raises(InvalidName):
        extension_of(language)


def test_a_link_out_of_the_folder_is_found(tmp_path):
    folder = tmp_path / "components"
    folder.mkdir()
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "file").write_text("y")
    (folder / "alias").symlink_to("file")
    check_inside(folder / "file", folder)
    check_inside(folder / "alias", folder)
    with pytest.raises(InvalidName, match="leads out"):
        check_inside(folder / "link", folder)
