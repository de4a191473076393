from pathlib import Path

import pytest
from webimages.failures import reason_of, task_of
from webimages.messages import Spec, Task, Wanted
from webimages.settings import Settings

from msgflo.payload import encode, plain


def test_without_variables_everything_is_in_a_folder_that_git_does_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    settings = Settings.read({})

    assert settings.data == tmp_path / ".webimages"
    assert settings.database == f"sqlite:///{tmp_path}/.webimages/jobs.sqlite3"
    assert (settings.host, settings.port, settings.allow) == ("127.0.0.1", 8080, "")
    assert (settings.data / ".gitignore").read_text() == "*\n"


def test_the_variables_say_otherwise(tmp_path: Path) -> None:
    settings = Settings.read(
        {
            "WEBIMAGES_DATA": str(tmp_path / "shared"),
            "WEBIMAGES_DATABASE": "postgresql://me:secret@host/name",
            "WEBIMAGES_PORT": "0",
            "WEBIMAGES_NAMES": "Images.example.org, photos",
            "WEBIMAGES_RESEND": "1.5",
        }
    )

    assert settings.data == tmp_path / "shared"
    assert settings.port == 0
    assert settings.names == {"images.example.org", "photos"}
    assert settings.resend == 1.5
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [("WEBIMAGES_PORT", "web"), ("WEBIMAGES_PORT", "65536"), ("WEBIMAGES_RESEND", "-1")],
)
def test_a_variable_that_is_no_number_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is '{value}'; expected a number from 0 to"):
        Settings.read({"WEBIMAGES_DATA": str(tmp_path), name: value})


def test_a_dead_letter_of_any_role_names_its_task() -> None:
    task = Task("a" * 32, 3, 1, "cat.jpg", Spec(100))
    letter = plain(encode(Wanted(task, "http://example.org/"))[0], {})

    assert task_of(letter) == task
    for other in (None, 5, "text", [], {}, {"task": 1}, {"task": {"job": "x"}}):
        assert task_of(other) is None


def test_a_reason_is_a_sentence() -> None:
    assert reason_of("Reject", "the image is broken") == "the image is broken"
    assert reason_of("OSError", "disk full") == "OSError: disk full"
    assert reason_of("TryAgain", "no answer", 3) == "no answer (tried 3 times)"
    assert reason_of("", "") == "nobody said why"
