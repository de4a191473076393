"""The component library: names, lookup, commands, and code that is read and written safely."""

import contextlib
import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msgflo.errors import ComponentError, ConfigurationError, InvalidName, UnknownComponent
from msgflo.processes.library import Component, Library


@pytest.fixture
def project(tmp_path: Path):
    """Make a project of files: names to text, or to an object for JSON."""

    def make(files: dict[str, object], **options: object) -> Library:
        for name, said in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(said if isinstance(said, str) else json.dumps(said))
        return Library.load(tmp_path, **options)

    return make


def names(library: Library) -> list[str]:
    return [component.name for component in library.components()]


# Names


def test_a_project_without_anything_has_an_empty_library(project):
    library = project({})
    assert library.components() == []
    assert library.problems == ()
    with pytest.raises(UnknownComponent, match=r"There is no folder .*components/ and no conf"):
        library.get("Upper")


def test_files_of_the_folder_are_components_named_after_them(project):
    library = project(
        {
            "components/Upper.py": "",
            "components/Old.coffee": "",
            "components/Node.js": "",
            "components/Graph.fbp": "",
            "components/Sub.json": "{}",
            "components/Lamp.yml": "component: my/Lamp",
            "components/README.md": "",
            "components/_shared.py": "",
            "components/.hidden.py": "",
            "components/deeper/Below.py": "",
        }
    )
    assert names(library) == ["Graph", "Lamp", "Node", "Old", "Sub", "Upper"]
    assert [library.get(name).language for name in names(library)] == [
        "fbp",
        "yaml",
        "javascript",
        "coffeescript",
        "json",
        "python",
    ]
    assert library.problems == ()


def test_the_namespace_comes_before_the_names_of_files_alone(project):
    library = project(
        {
            "msgflo.json": {"namespace": "text", "components": {"Bare": "bare", "a/B": "b"}},
            "components/Upper.py": "",
        }
    )
    assert names(library) == ["Bare", "a/B", "text/Upper"]
    assert library.get("text/Upper").namespace == "text"
    assert library.namespace == "text"


def test_the_folder_participants_counts_where_it_exists(project, tmp_path):
    library = project({"components/A.py": "", "participants/B.py": ""})
    assert names(library) == ["A", "B"]
    assert library.folders == (tmp_path / "components", tmp_path / "participants")


def test_folders_can_be_configured_and_given(project, tmp_path):
    library = project(
        {
            "msgflo.json": {"component-dirs": ["x", "y"]},
            "x/A.py": "",
            "y/B.py": "",
            "z/C.py": "",
            "components/D.py": "",
        }
    )
    assert names(library) == ["A", "B"]
    assert names(Library.load(tmp_path, component_dirs=[Path("z"), tmp_path / "x"])) == ["A", "C"]


def test_of_two_files_of_one_name_the_first_is_taken_and_the_other_reported(project):
    library = project({"components/A.py": "", "components/A.js": "", "participants/A.py": ""})
    assert names(library) == ["A"]
    assert library.get("A").language == "javascript"
    assert len(library.problems) == 2
    assert "A.py is passed over" in str(library.problems[0])


def test_a_configured_command_wins_over_a_file_and_keeps_its_source(project, tmp_path):
    library = project(
        {
            "msgflo.json": {"namespace": "n", "components": {"A": "mine #ROLE"}},
            "components/A.py": '"""What it does."""',
        }
    )
    assert names(library) == ["A"]
    assert library.command("n/A", "r").argv == ("mine", "r")
    assert library.source("A").path == tmp_path / "components" / "A.py"
    assert library.get("A").description == "What it does."


def test_a_name_is_found_as_it_is_then_without_and_then_with_the_namespace(project):
    library = project(
        {
            "msgflo.json": {"namespace": "c", "components": {"Door": "door", "x/Door": "xdoor"}},
            "components/Lamp.py": "",
        }
    )
    assert library.get("Door").name == "Door"
    assert library.get("x/Door").name == "x/Door"
    assert library.get("y/Door").name == "Door"
    assert library.get("Lamp").name == "c/Lamp"
    assert library.get("c/Lamp").name == "c/Lamp"
    with pytest.raises(UnknownComponent):
        library.get("y/Lamp")


def test_a_name_that_one_file_alone_gives_its_component_is_found_at_last(project):
    library = project(
        {
            "components/resize.py": (
                "import msgflo\n@msgflo.component('images/Resize')\n"
                "def resize(i: bytes) -> bytes:\n    '''Shrink an image.'''\n"
            ),
            "components/vac.yml": "component: home/Vacuum\nlabel: cleans",
        }
    )
    assert library.get("images/Resize").name == "resize"
    assert library.get("images/Resize").description == "Shrink an image."
    assert library.get("home/Vacuum").name == "vac"
    assert "--component" not in library.command("images/Resize", "r").argv


def test_of_several_components_in_a_file_the_one_that_is_asked_for_is_run(project):
    library = project(
        {
            "components/text.py": (
                "import msgflo\nfrom msgflo import component\n"
                "@component('a/One')\ndef one(x): ...\n"
                "@msgflo.component(concurrency=2)\nasync def two(x): ...\n"
                "@msgflo.source(name='Three', every='1s')\ndef three(): ...\n"
                "class Four(msgflo.Participant): ...\n"
                "@other\ndef no_component(): ...\n"
            ),
            "components/Main.py": (
                "from msgflo import component\n"
                "@component('x/Main')\ndef main(x): ...\n@component\ndef extra(x): ...\n"
            ),
        }
    )
    assert library.get("text").declares == ("a/One", "two", "Three", "Four")
    for name in ("a/One", "two", "Three", "Four"):
        assert library.get(name).name == "text"
        assert library.command(name, "r").argv[-3:] == ("r", "--component", name)
    assert library.command("Main", "r").argv[-2:] == ("--component", "x/Main")
    assert library.command("text", "r").argv[-1] == "r"
    with pytest.raises(UnknownComponent):
        library.get("no_component")


def test_what_several_files_declare_is_not_guessed(project):
    library = project(
        {"components/a.yml": "component: x/Lamp", "components/b.yml": "component: x/Lamp"}
    )
    with pytest.raises(UnknownComponent, match="Several files declare it: a, b"):
        library.get("x/Lamp")


def test_virtual_components_are_found_but_not_listed_and_cannot_be_replaced(project):
    library = project(
        {
            "msgflo.json": {"namespace": "msgflo", "components": {"msgflo/PubSub": "evil"}},
            "components/RoundRobin.py": "",
        }
    )
    assert library.components() == []
    assert len(library.problems) == 2
    for name in ("msgflo/RoundRobin", "msgflo/PubSub"):
        assert library.get(name).virtual
        assert not library.get(name).starts
        assert library.command(name, "rr") is None
        with pytest.raises(ComponentError, match="has no source"):
            library.source(name)
        with pytest.raises(InvalidName, match="no process"):
            library.write(name, "python", "")


def test_an_unknown_component_says_what_is_near_and_where_was_looked(project, tmp_path):
    library = project({"msgflo.json": {"namespace": "text"}, "components/Upper.py": ""})
    with pytest.raises(UnknownComponent) as caught:
        library.get("text/Uper")
    text = str(caught.value)
    assert "Did you mean 'text/Upper'?" in text
    assert f"Looked in: {tmp_path / 'components'}/, {tmp_path / 'msgflo.json'}." in text


def test_a_near_name_is_said_in_the_namespace_that_was_asked_for(project):
    library = project({"components/Upper.py": ""})
    with pytest.raises(UnknownComponent, match=r"Did you mean 'text/Upper'\?"):
        library.get("text/Uper")


def test_an_unknown_component_says_if_its_file_has_no_handler(project):
    library = project({"components/Fast.rs": "fn main() {}"})
    with pytest.raises(UnknownComponent, match=r"Fast\.rs is there, but nothing handles \.rs"):
        library.get("Fast")


def test_an_unknown_component_says_why_it_was_passed_over(project):
    library = project({"msgflo.json": {"components": {"Broken": "run 'open"}}})
    with pytest.raises(UnknownComponent, match=r"Passed over: .*'Broken'.*No closing quotation"):
        library.get("Broken")


# What is wrong stops nothing else


def test_one_bad_file_does_not_stop_the_others(project):
    library = project(
        {
            "components/Good.py": "",
            "components/Half.py": "def half(:",
            "components/Bad.yml": "component: [",
            "components/bad name.py": "",
            "msgflo.json": {"components": {"Open": "'", "Fine": "fine"}},
        }
    )
    assert names(library) == ["Bad", "Fine", "Good", "Half"]
    said = "\n".join(str(problem) for problem in library.problems)
    assert len(library.problems) == 4
    assert "Half.py:1:10: not Python" in said
    assert "Bad.yml" in said
    assert "bad name.py is passed over" in said
    assert "'Open'" in said


def test_python_files_that_cannot_even_be_decoded_are_reported(project, tmp_path):
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "A.py").write_bytes(b"\xff\xfe")
    (tmp_path / "components" / "B.py").write_bytes(b"x = '\0'")
    library = project({"components/C.py": ""})
    assert names(library) == ["A", "B", "C"]
    assert len(library.problems) == 2


def test_refresh_shows_what_changed_and_a_broken_configuration_changes_nothing(project, tmp_path):
    library = project({"components/A.py": ""})
    (tmp_path / "components" / "B.py").write_text("")
    assert names(library) == ["A"]
    library.refresh()
    assert names(library) == ["A", "B"]
    (tmp_path / "msgflo.json").write_text("{")
    with pytest.raises(ConfigurationError):
        library.refresh()
    assert names(library) == ["A", "B"]


# Commands


def test_a_python_file_is_run_by_our_own_interpreter_in_the_projects_folder(project, tmp_path):
    command = project({"components/Upper.py": ""}).command("Upper", "up")
    assert command.argv == (
        sys.executable,
        "-m",
        "msgflo",
        "participant",
        str(Path("components/Upper.py")),
        "up",
    )
    assert command.cwd == tmp_path
    assert command.env["PYTHONUNBUFFERED"] == "1"
    assert command.env["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_other_files_are_run_as_they_always_were(project):
    library = project(
        {
            "msgflo.json": {"namespace": "n"},
            "components/Node.js": "",
            "components/Old.coffee": "",
            "components/Sub.fbp": "",
            "components/Main.json": "{}",
        }
    )
    assert library.command("Node", "r").argv == (
        "msgflo-nodejs",
        "--name",
        "r",
        "components/Node.js",
    )
    assert library.command("Old", "r").argv[0] == "msgflo-nodejs"
    for name in ("Sub", "Main"):
        assert library.command(f"n/{name}", "r", {"in": [1]}).argv == (
            "noflo-runtime-msgflo",
            "--name",
            "r",
            "--graph",
            name,
            "--iips",
            '{"in": [1]}',
        )


def test_a_foreign_definition_starts_nothing_and_says_its_ports(project):
    library = project({"components/Lamp.yml": "component: x/Lamp\ninports: {on: {queue: l/#ROLE}}"})
    lamp = library.get("Lamp")
    assert not lamp.starts
    assert library.command("Lamp", "l1") is None
    assert lamp.foreign.definition("l1").inports[0].queue == "l/l1"


def test_handlers_can_be_replaced_and_added_and_know_the_variables(project):
    library = project(
        {
            "msgflo.json": {
                "variables": {"RUN": "my-runner --role #ROLE"},
                "handlers": {
                    ".yml": "msgflo-register --role #ROLE:#FILENAME",
                    ".rs": "cargo run --bin #COMPONENTNAME",
                    ".py": "#RUN #FILENAME",
                },
            },
            "components/Lamp.yml": "component: x/Lamp",
            "components/Fast.rs": "",
            "components/Upper.py": "",
        }
    )
    assert library.command("Lamp", "r").argv == (
        "msgflo-register",
        "--role",
        "r:components/Lamp.yml",
    )
    assert library.command("Fast", "r").argv == ("cargo", "run", "--bin", "Fast")
    assert library.get("Fast").language == "rust"
    assert library.command("Upper", "r").argv == (
        "my-runner",
        "--role",
        "r",
        "components/Upper.py",
    )


def test_commands_with_variables_as_existing_projects_have_them(project, tmp_path):
    library = project(
        {
            "package.json": {
                "name": "api",
                "msgflo": {
                    "variables": {
                        "PREFETCH": "--prefetch=1",
                        "NOFLO": "noflo-runtime-msgflo --name #ROLE --graph #COMPONENT",
                        "DEAD": "--deadletter in",
                    },
                    "components": {
                        "api/Convert": "#NOFLO #PREFETCH --deadletter=in",
                        "api/Router": "#NOFLO #PREFETCH #DEAD",
                        "Drop": "./node_modules/.bin/coffee parts.coffee #COMPONENT #ROLE",
                    },
                },
            }
        }
    )
    assert library.command("api/Convert", "c").argv == (
        "noflo-runtime-msgflo",
        "--name",
        "c",
        "--graph",
        "api/Convert",
        "--prefetch=1",
        "--deadletter=in",
    )
    assert library.command("Router", "x").argv[-3:] == ("--prefetch=1", "--deadletter", "in")
    assert library.command("api/Drop", "d").argv[2:] == ("Drop", "d")


def test_a_configuration_that_is_only_a_name_makes_all_files_of_that_namespace(project, tmp_path):
    library = project(
        {"lib.json": {"name": "handlers"}, "components/A.js": ""}, config=Path("lib.json")
    )
    assert names(library) == ["handlers/A"]


def test_a_role_that_a_program_could_misread_is_refused(project):
    library = project({"components/Upper.py": ""})
    with pytest.raises(InvalidName):
        library.command("Upper", "--broker=elsewhere")


# Source


def test_source_is_the_text_of_the_file(project, tmp_path):
    library = project({"msgflo.json": {"namespace": "text"}, "components/Upper.py": "# größe\n"})
    source = library.source("Upper")
    assert (source.name, source.library, source.language) == ("Upper", "text", "python")
    assert source.code == "# größe\n"
    assert source.path == tmp_path / "components" / "Upper.py"


def test_source_has_the_suite_of_tests_that_is_called_like_it(project, tmp_path):
    library = project(
        {"components/A.py": "", "spec/A.yaml": "topic: A", "components/B.py": "", "c.yaml": "x"}
    )
    (tmp_path / "spec" / "B.yaml").symlink_to(tmp_path / "c.yaml")
    assert library.source("A").tests == "topic: A"
    assert library.source("B").tests == "", "what leads out of the folder is not read"


def test_a_command_has_no_source(project):
    library = project({"msgflo.json": {"components": {"A": "run a"}}})
    with pytest.raises(ComponentError, match="it is the command: run a"):
        library.source("A")


def test_source_outside_of_the_folder_is_not_read(project, tmp_path):
    library = project({"components/x": ""})
    (tmp_path / "secret.py").write_text("password")
    (tmp_path / "components" / "Link.py").symlink_to(tmp_path / "secret.py")
    library.refresh()
    with pytest.raises(InvalidName, match="leads out of its folder"):
        library.source("Link")


def test_source_that_is_no_text_is_an_error(project, tmp_path):
    library = project({"components/A.py": ""})
    (tmp_path / "components" / "A.py").write_bytes(b"\xff")
    with pytest.raises(ComponentError, match="not UTF-8"):
        library.source("A")
    (tmp_path / "components" / "A.py").unlink()
    with pytest.raises(ComponentError, match="cannot be read"):
        library.source("A")


def test_new_code_makes_folder_and_file_and_the_component_is_there(project, tmp_path):
    library = project({"msgflo.json": {"namespace": "text"}})
    component = library.write("text/Upper", "python", '"""Upper case."""\n')
    assert component.name == "text/Upper"
    assert component.description == "Upper case."
    assert (tmp_path / "components" / "Upper.py").read_text() == '"""Upper case."""\n'
    assert names(library) == ["text/Upper"]
    assert [path.name for path in (tmp_path / "components").iterdir()] == ["Upper.py"]


def test_code_is_replaced_where_its_file_is_with_its_mode(project, tmp_path):
    library = project({"components/A.py": "", "participants/B.py": "old"})
    path = tmp_path / "participants" / "B.py"
    path.chmod(0o750)
    library.write("B", "python", "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o750
    assert not (tmp_path / "components" / "B.py").exists()


def test_half_finished_code_is_stored(project):
    library = project({})
    library.write("A", "python", "def a(")
    assert library.source("A").code == "def a("
    assert len(library.problems) == 1


def test_a_library_without_namespace_takes_any_and_leaves_it_out(project):
    library = project({})
    assert library.write("demo/A", "python", "").name == "A"
    assert library.get("demo/A").name == "A"


@pytest.mark.parametrize(
    "name",
    [
        "../Evil",
        "/etc/Evil",
        "/Evil",
        "a/../../Evil",
        "other/Evil",
        "..",
        "text/..",
        "text/../Evil",
        ".Evil",
        "-Evil",
        "Ev\0il",
        "Ev\\il",
        "con",
        "__init__",
        "",
        "text/",
    ],
)
@pytest.mark.parametrize("namespace", ["text", ""])
def test_a_name_never_leaves_its_folder(project, tmp_path, name, namespace):
    project({"p/msgflo.json": {"namespace": namespace}, "p/components/A.py": ""})
    library = Library.load(tmp_path / "p")
    if name == "other/Evil" and not namespace:
        return
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidName):
        library.write(name, "python", "evil")
    assert sorted(tmp_path.rglob("*")) == before


@given(name=st.text(), language=st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_whatever_the_name_only_the_folder_is_written_to(tmp_path, name, language):
    root = tmp_path / "a" / "b" / "project"
    (root / "components").mkdir(parents=True, exist_ok=True)
    library = Library.load(root)
    with contextlib.suppress(ComponentError):
        library.write(name, language, "x")
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.parent == root / "components" for path in found)


def test_code_is_not_written_through_a_link_out_of_the_folder(project, tmp_path):
    library = project({"components/A.py": "", "victim": "kept"})
    (tmp_path / "components" / "Link.py").symlink_to(tmp_path / "victim")
    with pytest.raises(InvalidName, match="leads out"):
        library.write("Link", "python", "evil")
    library.refresh()
    with pytest.raises(InvalidName, match="leads out"):
        library.write("Link", "python", "evil")
    assert (tmp_path / "victim").read_text() == "kept"


def test_code_of_a_language_that_nothing_runs_is_refused(project):
    library = project({})
    with pytest.raises(ComponentError, match=r"nothing runs \.rs files"):
        library.write("A", "rust", "")
    with pytest.raises(InvalidName):
        library.write("A", "../py", "")


def test_code_in_another_language_does_not_shadow_what_is_there(project, tmp_path):
    library = project({"components/A.py": "", "components/Y.yaml": "component: y"})
    with pytest.raises(ComponentError, match="is written in python"):
        library.write("A", "javascript", "")
    library.write("Y", "yaml", "component: z")
    assert (tmp_path / "components" / "Y.yaml").read_text() == "component: z"


def test_a_configured_command_cannot_be_written(project):
    library = project({"msgflo.json": {"components": {"A": "run a"}}})
    with pytest.raises(ComponentError, match=r"is the command 'run a' in .*msgflo\.json"):
        library.write("A", "python", "")


def test_a_folder_that_cannot_be_made_is_an_error_and_leaves_nothing(project, tmp_path):
    library = project({"components": "a file"})
    with pytest.raises(ComponentError, match="cannot be written"):
        library.write("A", "python", "")
    assert [path.name for path in tmp_path.iterdir()] == ["components"]


def test_a_failed_write_leaves_the_old_code_and_nothing_else(project, tmp_path):
    library = project({"components/A.py": "old"})
    with pytest.raises(ComponentError, match="no text"):
        library.write("A", "python", "\ud800")
    assert [path.name for path in (tmp_path / "components").iterdir()] == ["A.py"]
    assert library.source("A").code == "old"


@pytest.mark.parametrize(
    ("command", "known"),
    [
        ("msgflo-nodejs --name #ROLE #FILENAME", True),
        ("/usr/bin/python3.11 -m msgflo participant #FILENAME #ROLE", True),
        ("noflo-runtime-msgflo --name #ROLE", True),
        ("node build/worker.js #ROLE", True),
        ("./build/worker #ROLE", False),
        ("dlock13 #ROLE #ROLE.gpio", False),
        ("", False),
    ],
)
def test_programs_that_declare_as_ours_do_are_known_by_what_starts_them(command: str, known: bool):
    assert Component("x", command=command).client is known
