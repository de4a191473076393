"""``msgflo components``."""

import json
from pathlib import Path

from programs import msgflo


def test_components_are_listed_by_name_with_what_they_say_of_themselves(project: Path):
    done = msgflo("components", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["Broken", "Greet", "Show"]
    assert all("python" in line for line in done.stdout.splitlines())


def test_the_list_as_json_has_all_that_is_known(project: Path):
    (project / "msgflo.json").write_text('{"components": {"Other": "node other.js"}}')
    listed = json.loads(msgflo("components", "--json", cwd=project).stdout)
    assert [it["name"] for it in listed] == ["Broken", "Greet", "Other", "Show"]
    assert listed[1]["language"] == "python"
    assert listed[1]["path"].endswith("components/Greet.py")
    assert listed[2] == {
        "name": "Other",
        "description": "",
        "language": "",
        "path": None,
        "command": "node other.js",
        "virtual": False,
        "foreign": False,
    }


def test_one_of_them_is_told_of_by_name_virtual_ones_included(project: Path):
    done = msgflo("components", "Greet", cwd=project)
    assert done.returncode == 0
    assert "name:        Greet\n" in done.stdout
    (virtual,) = json.loads(msgflo("components", "msgflo/RoundRobin", "--json", cwd=project).stdout)
    assert virtual["virtual"] is True
    done = msgflo("components", "Grete", cwd=project)
    assert done.returncode == 1
    assert "Did you mean 'Greet'?" in done.stderr


def test_what_cannot_be_understood_is_reported_and_hides_nothing(project: Path):
    (project / "components" / "Wrong.py").write_text("def (:\n")
    done = msgflo("components", cwd=project)
    assert done.returncode == 1
    assert "problem: " in done.stderr
    assert "Wrong.py" in done.stderr
    assert "Greet" in done.stdout


def test_another_project_can_be_named_and_an_empty_one_says_where_was_looked(
    project: Path, tmp_path: Path
):
    assert "Greet" in msgflo("components", "--project", str(project), cwd=tmp_path).stdout
    empty = tmp_path / "empty"
    empty.mkdir()
    done = msgflo("components", "--project", str(empty), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"no components in {empty}/components\n"


def test_a_configuration_that_is_no_json_is_wrong_use_with_its_place(project: Path):
    (project / "msgflo.json").write_text('{"components": }')
    done = msgflo("components", cwd=project)
    assert done.returncode == 2
    assert "msgflo.json" in done.stderr
    assert "Traceback" not in done.stderr
