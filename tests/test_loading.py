"""A Python file, and the components that are in it."""

import subprocess
import sys
from pathlib import Path

import pytest

from msgflo.declaration import declared
from msgflo.errors import (
    ComponentError,
    ConfigurationError,
    DefinitionError,
    UnknownComponent,
)
from msgflo.loading import choose, find, load_components, load_file, reference, resolve

FILE = """
from __future__ import annotations
import dataclasses
import msgflo
from msgflo import Component, Out, Participant, inport

@dataclasses.dataclass
class Image:
    url: str

@msgflo.component("images/Resize")
def resize(image: Image) -> str:
    return image.url

class Base(Component):
    @inport
    def one(self, x: int): ...

class Better(Base):
    pass

class Old(Participant):
    def __init__(self, role):
        Participant.__init__(self, {"component": "OldOne"}, role)
    def process(self, inport, msg): ...

def helper(): ...

if __name__ == "__main__":
    raise SystemExit("it was run, and not imported")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some-components.py"
    path.write_text(FILE)
    return path


def test_a_files_components_are_its_own_and_no_bases_of_others(file):
    names = [thing.__name__ for thing in load_components(file)]
    assert names == ["resize", "Better", "Old"]


def test_types_of_the_file_are_found_and_it_is_loaded_once(file):
    resize = load_components(file)[0]
    assert declared(resize).definition("r").inports[0].type == "object"
    assert load_components(file)[0] is resize
    assert load_file(file) is load_file(file)


def test_an_object_stands_for_its_class(tmp_path):
    path = tmp_path / "made.py"
    path.write_text(FILE + "\nold = Old('fixed')\n")
    things = load_components(path)
    assert [getattr(it, "__name__", it) for it in things][:2] == ["resize", "Better"]
    assert len(things) == 3, "the class Old is left out"
    assert things[2].role == "fixed"


def test_files_beside_it_can_be_imported(tmp_path):
    (tmp_path / "beside_loading.py").write_text("VALUE = 7\n")
    path = tmp_path / "imports.py"
    path.write_text(
        "import msgflo\nfrom beside_loading import VALUE\n"
        "@msgflo.component\ndef f(x: int) -> int: return VALUE\n"
    )
    (component,) = load_components(path)
    assert component(1) == 7


def test_two_files_of_one_name_are_two(tmp_path):
    values = []
    for folder in ("a", "b"):
        path = tmp_path / folder / "same.py"
        path.parent.mkdir()
        path.write_text(f"VALUE = {folder!r}\n")
        values.append(load_file(path).VALUE)
    assert values == ["a", "b"]


def test_a_file_that_is_broken_is_not_half_there_at_the_second_try(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("VALUE = 1\nraise ValueError('no')\n")
    with pytest.raises(ValueError, match="no"):
        load_file(path)
    path.write_text("VALUE = 2\n")
    assert load_file(path).VALUE == 2


def test_one_of_several_is_chosen_by_its_component_or_its_own_name(file):
    things = load_components(file)
    assert choose(things, file, "images/Resize") is things[0]
    assert choose(things, file, "resize") is things[0]
    assert choose(things[:1], file) is things[0]
    assert find(things, "Better") is things[1]


def test_what_cannot_be_chosen_says_what_there_is(file):
    things = load_components(file)
    with pytest.raises(ComponentError, match="several components: resize, Better, Old; say which"):
        choose(things, file)
    with pytest.raises(UnknownComponent, match="images/Resize"):
        choose(things, file, "images/Resiz")
    with pytest.raises(ComponentError, match=r"defines no component; expected a function decorat"):
        choose([], file)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no file"):
        load_components(tmp_path / "gone.py")


def test_a_file_that_runs_itself_on_import_is_told_what_to_do(tmp_path):
    path = tmp_path / "eager.py"
    path.write_text(
        "import msgflo\n@msgflo.component\ndef f(x: int): ...\nmsgflo.run(f, 'direct://x')\n"
    )
    with pytest.raises(ConfigurationError, match="runs itself when it is imported; put that under"):
        load_components(path)


def test_a_function_is_found_again_in_another_process(file):
    resize = load_components(file)[0]
    where = reference(resize)
    code = f"from msgflo.loading import resolve; print(resolve(*{where!r}).__msgflo__ is not None)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "True\n"
    assert resolve(*where) is resize


def test_a_function_that_has_no_name_to_be_found_by_is_refused():
    def local(x: int): ...

    with pytest.raises(DefinitionError, match="cannot be found by its name"):
        reference(local)
