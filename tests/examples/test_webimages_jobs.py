"""The database, on SQLite and on a real PostgreSQL: the same rules on both."""

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from webimages.jobs import CLAIM, PATIENCE, Due, Image, Jobs, UnknownImage
from webimages.messages import Analysis, Picture, Shade, Spec, Task

JOB = "a" * 32
SPEC = Spec(64, 64, "webp", "crop")
RESULT = Picture("b" * 64, "webp", 64, 64, 999, 2)
ANALYSIS = Analysis([Shade("#aabbcc", 1.0)], 12.5, "0" * 16)
RESEND = 600.0


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
    server = request.getfixturevalue("postgres")
    with psycopg.connect(server.url) as connection:
        connection.execute("DROP TABLE IF EXISTS images, jobs")
    return server.url


@pytest.fixture
def jobs(url: str) -> Iterator[Jobs]:
    jobs = Jobs(url)
    yield jobs
    jobs.close()


def images(count: int) -> list[Image]:
    return [Image(f"{n}.jpg", SPEC, url=f"http://example.org/{n}.jpg") for n in range(count)]


def sent(jobs: Jobs, now: float) -> list[Due]:
    """Send what is due, as the web role does."""
    due = jobs.claim(now, RESEND)
    for image in due:
        jobs.sent(image, now, RESEND)
    return due


def task(image: int = 0, round_: int = 1) -> Task:
    return Task(JOB, image, round_, f"{image}.jpg", SPEC)


def state(jobs: Jobs, image: int = 0) -> str:
    return jobs.image(JOB, image)["image"]["state"]


def test_a_new_job_waits_and_is_due_at_once(jobs: Jobs) -> None:
    jobs.create(JOB, [*images(2), Image("up.png", SPEC, original="c" * 64)], 100.0)

    due = jobs.claim(100.0, RESEND)

    assert [d.task for d in due[:2]] == [task(0), task(1)]
    assert [d.url for d in due] == ["http://example.org/0.jpg", "http://example.org/1.jpg", ""]
    assert due[2].original == "c" * 64
    assert jobs.job(JOB)["counts"] == {"waiting": 3, "completed": 0, "failed": 0}
    assert not jobs.job(JOB)["finished"]


def test_creating_it_again_changes_nothing(jobs: Jobs) -> None:
    jobs.create(JOB, images(2), 100.0)
    jobs.create(JOB, images(5), 200.0)

    assert jobs.job(JOB)["total"] == 2
    assert jobs.job(JOB)["created"] == 100.0


def test_what_was_claimed_by_one_that_died_is_due_again(jobs: Jobs) -> None:
    jobs.create(JOB, images(1), 100.0)
    assert len(jobs.claim(100.0, RESEND)) == 1

    assert jobs.claim(100.0 + CLAIM - 1, RESEND) == []
    assert len(jobs.claim(100.0 + CLAIM, RESEND)) == 1


def test_two_that_send_never_get_the_same_image(url: str, jobs: Jobs) -> None:
    jobs.create(JOB, images(200), 100.0)
    got: list[list[int]] = []

    def send() -> None:
        mine = Jobs(url)
        found: list[int] = []
        while due := mine.claim(101.0, RESEND, 7):
            found += [d.task.image for d in due]
        mine.close()
        got.append(found)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(got) == 4
    assert sorted(image for found in got for image in found) == list(range(200))


def test_silence_sends_again_and_then_after_twice_the_time(jobs: Jobs) -> None:
    jobs.create(JOB, images(1), 0.0)
    assert len(sent(jobs, 0.0)) == 1

    assert sent(jobs, RESEND - 1) == []
    assert len(sent(jobs, RESEND)) == 1
    assert sent(jobs, 2 * RESEND) == []
    assert len(sent(jobs, 3 * RESEND)) == 1


def test_an_image_that_waits_its_turn_is_not_sent_twice(jobs: Jobs) -> None:
    jobs.create(JOB, images(2), 0.0)
    sent(jobs, 0.0)

    jobs.complete(task(0), RESULT, ANALYSIS, RESEND - 1)

    assert sent(jobs, RESEND + 1) == []
    jobs.fail(task(0), "x", "x", 0.0)
    assert len(sent(jobs, (PATIENCE + 1) * RESEND)) == 1


def test_a_result_completes_an_image_once_and_for_all(jobs: Jobs) -> None:
    jobs.create(JOB, images(1), 0.0)

    assert jobs.complete(task(), RESULT, ANALYSIS, 1.0)
    assert not jobs.complete(task(), RESULT, ANALYSIS, 2.0)
    assert not jobs.fail(task(), "resize", "late", 3.0)

    shown = jobs.image(JOB, 0)["image"]
    assert shown["state"] == "completed"
    assert shown["failure"] is None
    assert shown["result"]["digest"] == RESULT.digest
    assert shown["result"]["by"] == 2
    assert shown["result"]["analysis"]["palette"] == [{"colour": "#aabbcc", "share": 1.0}]
    assert jobs.job(JOB)["finished"]
    assert jobs.put_back(JOB, 0, 4.0) == []


def test_a_failure_is_kept_with_role_and_reason(jobs: Jobs) -> None:
    jobs.create(JOB, images(2), 0.0)

    assert jobs.fail(task(1), "fetch", "not\0found", 1.0)
    assert not jobs.fail(task(1), "fetch", "again", 2.0)

    (failure,) = jobs.failures()
    assert failure["image"] == 1
    assert failure["failure"] == {"role": "fetch", "reason": "not\N{REPLACEMENT CHARACTER}found"}


def test_what_is_put_back_is_due_in_a_new_round(jobs: Jobs) -> None:
    jobs.create(JOB, images(3), 0.0)
    sent(jobs, 0.0)
    jobs.fail(task(0), "fetch", "gone", 1.0)
    jobs.fail(task(2), "fetch", "gone", 1.0)

    assert jobs.put_back(JOB, None, 2.0) == [0, 2]
    assert jobs.put_back(JOB, None, 2.0) == []

    due = sent(jobs, 2.0)
    assert [(d.task.image, d.task.round) for d in due] == [(0, 2), (2, 2)]
    # What is heard of the earlier round cannot fail this one; a late result completes it.
    assert not jobs.fail(task(0, 1), "fetch", "late", 3.0)
    assert state(jobs) == "waiting"
    assert jobs.complete(task(0, 1), RESULT, ANALYSIS, 4.0)
    assert state(jobs) == "completed"


def test_a_result_that_was_late_completes_what_had_failed(jobs: Jobs) -> None:
    jobs.create(JOB, images(1), 0.0)
    jobs.fail(task(), "store", "too slow", 1.0)

    assert jobs.complete(task(), RESULT, ANALYSIS, 2.0)
    assert jobs.failures() == []


def test_what_is_not_there_is_told(jobs: Jobs) -> None:
    jobs.create(JOB, images(1), 0.0)

    for attempt in (
        lambda: jobs.job("b" * 32),
        lambda: jobs.image(JOB, 1),
        lambda: jobs.complete(task(7), RESULT, ANALYSIS, 1.0),
        lambda: jobs.fail(task(7), "x", "x", 1.0),
        lambda: jobs.put_back(JOB, 7, 1.0),
        lambda: jobs.put_back("b" * 32, None, 1.0),
    ):
        with pytest.raises(UnknownImage, match="there is no"):
            attempt()
    assert state(jobs) == "waiting"


def test_the_latest_jobs_come_first(jobs: Jobs) -> None:
    for number in range(3):
        jobs.create(f"{number}" * 32, images(number + 1), float(number))

    assert [job["total"] for job in jobs.latest()] == [3, 2, 1]
    assert [job["total"] for job in jobs.latest(1)] == [3]


def test_processes_that_make_the_tables_at_once_do_not_collide(url: str) -> None:
    made = [Jobs(url) for _ in range(8)]
    errors: list[BaseException] = []

    def look(jobs: Jobs) -> None:
        try:
            jobs.latest()
        except BaseException as error:
            errors.append(error)
        finally:
            jobs.close()

    threads = [threading.Thread(target=look, args=(jobs,)) for jobs in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []


def test_a_database_that_was_started_again_is_found_again(postgres) -> None:
    with psycopg.connect(postgres.url) as connection:
        connection.execute("DROP TABLE IF EXISTS images, jobs")
    jobs = Jobs(postgres.url)
    jobs.create(JOB, images(1), 0.0)

    postgres.stop()
    with pytest.raises(psycopg.OperationalError):
        jobs.latest()
    postgres.start()

    assert jobs.job(JOB)["total"] == 1
    postgres.stop()
    postgres.start()
    # The connection is dead, and nobody has noticed yet.
    assert jobs.complete(task(), RESULT, ANALYSIS, 1.0)
    jobs.close()


def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(ValueError, match="mysql://; expected sqlite:///PATH or postgresql"):
        Jobs("mysql://me:secret@host/db")
