"""A project's folder and its files."""

import os
from pathlib import Path

import pytest

from msgflo.errors import ConfigurationError, GraphError, GraphSyntaxError
from msgflo.project import find_root, load_graph, save_graph, state_folder, write_atomically

# The folder


@pytest.mark.parametrize(
    "sign", ["msgflo.json", "pyproject.toml", "package.json", "components/", "participants/"]
)
def test_the_root_is_the_nearest_folder_with_a_sign_of_a_project(tmp_path: Path, sign: str):
    root = tmp_path / "a" / "project"
    graphs = root / "graphs"
    graphs.mkdir(parents=True)
    if sign.endswith("/"):
        (root / sign).mkdir()
    else:
        (root / sign).write_text("{}")
    (tmp_path / "components").mkdir()  # somebody else's, further up
    assert find_root(graphs / "main.fbp") == root
    assert find_root(graphs) == root
    assert find_root(root) == root


def test_an_earlier_run_makes_a_folder_a_project(tmp_path: Path):
    (tmp_path / ".msgflo").mkdir()
    (tmp_path / "graphs").mkdir()
    assert find_root(tmp_path / "graphs" / "main.fbp") == tmp_path


def test_a_sign_more_than_two_levels_up_is_somebody_elses(tmp_path: Path):
    deep = tmp_path / "x" / "y" / "z"
    deep.mkdir(parents=True)
    (tmp_path / "components").mkdir()
    assert find_root(deep / "main.fbp") == deep
    assert find_root(deep.parent / "main.fbp") == tmp_path


def test_a_relative_name_has_an_absolute_root(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_root(Path("main.fbp")) == tmp_path


# State


def test_the_state_folder_is_made_and_keeps_itself_out_of_git(tmp_path: Path):
    folder = state_folder(tmp_path / "new")
    assert folder == tmp_path / "new" / ".msgflo"
    assert (folder / ".gitignore").read_text() == "*\n"
    (folder / ".gitignore").write_text("mine")
    assert state_folder(tmp_path / "new") == folder
    assert (folder / ".gitignore").read_text() == "mine"


def test_a_state_folder_that_cannot_be_made_says_why_and_what_to_do(tmp_path: Path):
    (tmp_path / ".msgflo").write_text("a file")
    with pytest.raises(
        ConfigurationError, match=r"cannot keep state in .*File exists; .*--project"
    ):
        state_folder(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_state_folder_that_cannot_be_written_says_so(tmp_path: Path):
    (tmp_path / ".msgflo").mkdir(mode=0o500)
    with pytest.raises(ConfigurationError, match="not writable"):
        state_folder(tmp_path)


# Graph files


def test_graphs_are_read_by_their_ending_and_written_back_the_same(tmp_path: Path):
    (tmp_path / "a.fbp").write_text("'x' -> IN a(A) OUT -> IN b(B)\n")
    graph = load_graph(tmp_path / "a.fbp")
    assert list(graph.nodes) == ["a", "b"]
    save_graph(graph, tmp_path / "a.json")
    again = load_graph(tmp_path / "a.json")
    save_graph(again, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert list(again.nodes) == ["a", "b"]


def test_a_graph_with_a_mistake_says_where(tmp_path: Path):
    file = tmp_path / "a.fbp"
    file.write_text("a(A) OUT -> IN b(B)\nb OUT ->\n")
    with pytest.raises(GraphSyntaxError) as caught:
        load_graph(file)
    assert caught.value.line >= 2
    assert str(caught.value).startswith(f"{file}:")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, r"there is no graph file .*a\.fbp\. Graphs there: other\.fbp"),
        (lambda path: path.mkdir(), "is a folder; expected a graph file"),
        (lambda path: path.write_bytes(b"a \xff"), r"not text in UTF-8 \(byte 2 is 0xff\)"),
        (lambda path: path.symlink_to(path.name), "cannot read"),
    ],
)
def test_a_file_that_is_no_graph_says_what_it_is(tmp_path: Path, make, expected):
    (tmp_path / "other.fbp").write_text("")
    make(tmp_path / "a.fbp")
    with pytest.raises(GraphError, match=expected):
        load_graph(tmp_path / "a.fbp")


def test_a_graph_in_a_folder_that_is_not_there_says_so(tmp_path: Path):
    with pytest.raises(GraphError, match="there is no graph file"):
        load_graph(tmp_path / "no" / "a.fbp")


def test_a_graph_file_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(GraphError, match=r"ends in \.fbp or \.json"):
        load_graph(tmp_path / "a.txt")


def test_a_graph_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path):
    (tmp_path / "a.json").write_text('{"groups": [{"name": "g", "nodes": []}]}')
    graph = load_graph(tmp_path / "a.json")
    (tmp_path / "a.fbp").write_text("old")
    with pytest.raises(GraphError):
        save_graph(graph, tmp_path / "a.fbp")
    assert (tmp_path / "a.fbp").read_text() == "old"
    with pytest.raises(GraphError, match="cannot write"):
        save_graph(graph, tmp_path / "no" / "a.json")


# Writing


def test_a_file_is_replaced_whole_with_its_mode_kept_and_nothing_left(tmp_path: Path):
    file = tmp_path / "a"
    write_atomically(file, b"one")
    file.chmod(0o640)
    reader = file.open("rb")
    write_atomically(file, b"two")
    with reader:
        assert reader.read() == b"one"
    assert file.read_bytes() == b"two"
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_cannot_be_replaced_leaves_nothing(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "inner").touch()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "a", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
