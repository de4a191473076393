"""What processes have printed is kept, within limits."""

import itertools
from pathlib import Path

import pytest

from msgflo.processes.journal import Journal


@pytest.fixture
def clock():
    return map(float, itertools.count(1_700_000_000)).__next__


@pytest.fixture
def journal(tmp_path, clock):
    kept = Journal(tmp_path / "logs", clock=clock)
    yield kept
    kept.close()


def texts(journal: Journal, *of: tuple[str, int], lines: int = 100) -> list[str]:
    return [line.text for line in journal.last(of, lines)]


def test_lines_of_several_instances_come_back_in_their_order(journal):
    assert journal.add("a", 1, "stdout", "one").time == 1_700_000_000
    journal.add("a", 2, "stderr", "two  spaces, and ünïcode")
    journal.add("b", 1, "stdout", "")
    journal.add("a", 1, "stdout", "four")
    found = journal.last([("a", 1), ("a", 2), ("b", 1)], 3)
    assert [(line.role, line.instance, line.stream, line.text) for line in found] == [
        ("a", 2, "stderr", "two  spaces, and ünïcode"),
        ("b", 1, "stdout", ""),
        ("a", 1, "stdout", "four"),
    ]
    assert found[0].time == pytest.approx(1_700_000_001)
    assert journal.last([("a", 1)], 0) == []
    assert journal.last([("nobody", 1)], 9) == []


def test_it_is_there_after_a_restart(tmp_path, clock):
    first = Journal(tmp_path, clock=clock)
    first.add("a", 1, "stdout", "before")
    first.close()
    second = Journal(tmp_path, clock=clock)
    second.add("a", 1, "stdout", "after")
    assert texts(second, ("a", 1)) == ["before", "after"]
    second.close()
    first.add("a", 1, "stdout", "closed, and open again")
    assert texts(second, ("a", 1))[-1] == "closed, and open again"
    first.close()


def test_files_do_not_grow_beyond_their_limit_and_the_last_lines_stay(tmp_path, clock):
    journal = Journal(tmp_path, largest=2000, clock=clock)
    for number in range(500):
        journal.add("a", 1, "stdout", f"line {number}")
    journal.close()
    sizes = [it.stat().st_size for it in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= 2000
    assert texts(journal, ("a", 1), lines=40) == [f"line {n}" for n in range(460, 500)]


def test_a_large_file_is_read_from_its_end(journal):
    for number in range(5000):
        journal.add("a", 1, "stdout", f"{number} {'x' * 150}")
    found = texts(journal, ("a", 1), lines=1000)
    assert [text.split()[0] for text in found] == [str(n) for n in range(4000, 5000)]


def test_a_role_of_any_name_has_files_within_the_folder(tmp_path, journal):
    roles = ["../../etc/passwd", "a/b", "ä ö", "x" * 300, "x" * 299 + "y", "."]
    for role in roles:
        journal.add(role, 1, "stdout", role)
    assert {it.name for it in tmp_path.iterdir()} == {"logs"}
    assert len(list((tmp_path / "logs").iterdir())) == len(roles)
    for role in roles:
        assert texts(journal, (role, 1)) == [role]
        assert journal.instances(role) == [1]


def test_instances_are_those_of_the_role_alone(tmp_path, journal):
    for role, instance in (("a", 2), ("a", 11), ("a.1", 3), ("b", 1)):
        journal.add(role, instance, "stdout", "")
    assert journal.instances("a") == [2, 11]
    assert journal.instances("a.1") == [3]
    assert Journal(tmp_path / "nothing").instances("a") == []


def test_a_folder_that_cannot_be_written_stops_nothing_and_is_told_once(tmp_path, journal, caplog):
    (tmp_path / "logs").write_text("a file")
    journal.add("a", 1, "stdout", "x")
    journal.add("a", 1, "stdout", "y")
    assert caplog.text.count("what processes print is not kept") == 1
    (tmp_path / "logs").unlink()
    journal.add("a", 1, "stdout", "z")
    assert texts(journal, ("a", 1)) == ["z"]


def test_lines_of_another_form_are_passed_over(tmp_path: Path, journal):
    journal.add("a", 1, "stdout", "mine")
    with (tmp_path / "logs" / "a.1.log").open("ab") as file:
        file.write(b"\xff\xfe no time\n\n")
    assert texts(journal, ("a", 1)) == ["mine"]
