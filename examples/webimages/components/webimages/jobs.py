"""The state of every job, in SQLite or PostgreSQL: the one place that everybody can rely on.

Messages may come twice, late, or in another order, and any process may die at any point. So every
change here is one transaction that can be repeated, and an image's state moves by these rules only:

* ``waiting`` → ``completed``, by a result. Nothing changes a completed image.
* ``waiting`` → ``failed``, by a failure of the same round.
* ``failed`` → ``completed``, by a result that was late.
* ``failed`` → ``waiting``, when it is put back; that begins its next round.

The same table is the outbox: an image that waits has a time at which it is due to be sent. It is
inserted as due; whoever sends it claims it for a moment, and then puts the time off. If that
process dies before, the time comes and somebody else sends it. A broker loses nothing that it has;
but a message may not have got there, or have been sent before the graph was wired, or have been
purged. So an image that was sent is due again after a while in which nothing was heard of *any*
image, and then after twice that while: a backlog, however long, is not sent twice.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from msgspec import to_builtins

from webimages.messages import Analysis, Picture, Spec, State, Task

__all__ = ["Due", "Image", "Jobs", "UnknownImage"]

T = TypeVar("T")

CLAIM = 10.0
"""Seconds for which an image is left to the process that is sending it."""

PATIENCE = 20
"""While other images do get somewhere, one of which nothing is heard is given so many times as
long: it is more likely to wait its turn than to be lost."""

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS jobs (
        id TEXT PRIMARY KEY,
        created DOUBLE PRECISION NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS images (
        job TEXT NOT NULL REFERENCES jobs (id),
        image INTEGER NOT NULL,
        name TEXT NOT NULL,
        url TEXT NOT NULL,
        original TEXT NOT NULL,
        spec TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'completed', 'failed')),
        round INTEGER NOT NULL,
        sends INTEGER NOT NULL,
        due DOUBLE PRECISION NOT NULL,
        changed DOUBLE PRECISION NOT NULL,
        role TEXT NOT NULL,
        reason TEXT NOT NULL,
        result TEXT NOT NULL,
        PRIMARY KEY (job, image)
    )""",
    "CREATE INDEX IF NOT EXISTS images_due ON images (due) WHERE state = 'waiting'",
    "CREATE INDEX IF NOT EXISTS images_failed ON images (changed) WHERE state = 'failed'",
    "CREATE INDEX IF NOT EXISTS jobs_created ON jobs (created)",
)
_COLUMNS = "job, image, name, url, original, spec, state, round, changed, role, reason, result"


class UnknownImage(Exception):
    """The database has no such job, or the job has no such image."""


@dataclass(frozen=True)
class Image:
    """One image of a new job: it has a URL, or a file that was uploaded."""

    name: str
    spec: Spec
    url: str = ""
    original: str = ""


@dataclass(frozen=True)
class Due:
    """An image that is to be sent, to be fetched (``url``) or at once (``original``)."""

    task: Task
    url: str
    original: str
    sends: int = 0


class Jobs:
    """The database. Its methods block; call them in a thread. Any thread may.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://…``. Tables are made where they are missing.

    Raises:
        ValueError: the URL is of neither kind.
    """

    def __init__(self, url: str) -> None:
        self._connect: Callable[[], Any]
        self._broken: type[Exception]
        scheme = urlsplit(url).scheme
        self._mark = "?"
        if scheme == "sqlite":
            path = unquote(url.removeprefix("sqlite:///"))
            self._connect = lambda: _sqlite(path)
            self._broken = sqlite3.OperationalError
        elif scheme in ("postgresql", "postgres"):
            import psycopg

            self._connect = lambda: psycopg.connect(url, connect_timeout=10)
            self._broken = psycopg.OperationalError
            self._mark = "%s"
        else:
            raise ValueError(
                f"no database speaks {scheme or 'nothing'}://; expected sqlite:///PATH or "
                f"postgresql://USER@HOST/NAME"
            )
        self._connection: Any = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        with self._lock:
            self._drop()

    # New work.

    def create(self, job: str, images: Sequence[Image], now: float) -> None:
        """Insert a job and its images, all of them due. Doing it again changes nothing."""

        def work(do: "_Do") -> None:
            if not do("INSERT INTO jobs VALUES (?, ?) ON CONFLICT DO NOTHING", job, now).rowcount:
                return
            for number, image in enumerate(images):
                do(
                    "INSERT INTO images VALUES "
                    "(?, ?, ?, ?, ?, ?, 'waiting', 1, 0, ?, ?, '', '', '')",
                    job, number, image.name, image.url, image.original,
                    json.dumps(to_builtins(image.spec)), now, now,
                )  # fmt: skip

        self._transaction(work)

    def claim(self, now: float, resend: float, limit: int = 100) -> list[Due]:
        """Take images that are due, for :data:`CLAIM` seconds; nobody else gets them meanwhile.

        Args:
            now: seconds since 1970.
            resend: seconds of silence after which what was sent counts as lost.
            limit: how many at most.
        """

        def work(do: "_Do") -> list[Due]:
            heard = do("SELECT MAX(changed) FROM images WHERE state <> 'waiting'").fetchone()[0]
            silent = heard is None or heard <= now - resend
            rows = do(
                f"UPDATE images SET due = ? WHERE state = 'waiting' AND due <= ? "
                f"AND (job, image) IN (SELECT job, image FROM images WHERE state = 'waiting' "
                f"AND ((sends = 0 AND due <= ?) OR (sends > 0 AND due <= ?)) "
                f"ORDER BY due, job, image LIMIT {limit:d}) "
                f"RETURNING job, image, round, name, spec, url, original, sends",
                now + CLAIM, now, now, now if silent else now - PATIENCE * resend,
            ).fetchall()  # fmt: skip
            return [
                Due(Task(job, image, round_, name, Spec(**json.loads(spec))), url, original, sends)
                for job, image, round_, name, spec, url, original, sends in sorted(rows)
            ]

        return self._transaction(work)

    def sent(self, due: Due, now: float, resend: float) -> None:
        """Note that an image was sent, and when it is due again if nothing is heard of it."""
        task = due.task
        self._transaction(
            lambda do: do(
                "UPDATE images SET due = ?, sends = sends + 1 "
                "WHERE job = ? AND image = ? AND round = ? AND state = 'waiting'",
                now + resend * 2 ** min(due.sends, 10), task.job, task.image, task.round,
            )
        )  # fmt: skip

    # What became of it.

    def complete(self, task: Task, result: Picture, analysis: Analysis, now: float) -> bool:
        """Note a result. Returns whether that was news.

        Raises:
            UnknownImage: there is no such image.
        """
        stored = json.dumps({**to_builtins(result), "analysis": to_builtins(analysis)})

        def work(do: "_Do") -> bool:
            news = do(
                "UPDATE images SET state = 'completed', result = ?, changed = ?, "
                "role = '', reason = '' WHERE job = ? AND image = ? AND state <> 'completed'",
                stored, now, task.job, task.image,
            ).rowcount  # fmt: skip
            if not news:
                _must_exist(do, task.job, task.image)
            return bool(news)

        return self._transaction(work)

    def fail(self, task: Task, role: str, reason: str, now: float) -> bool:
        """Note a failure. Returns whether that was news: a late or repeated one is not.

        Raises:
            UnknownImage: there is no such image.
        """

        def work(do: "_Do") -> bool:
            news = do(
                "UPDATE images SET state = 'failed', role = ?, reason = ?, changed = ? "
                "WHERE job = ? AND image = ? AND round = ? AND state = 'waiting'",
                role, _text(reason), now, task.job, task.image, task.round,
            ).rowcount  # fmt: skip
            if not news:
                _must_exist(do, task.job, task.image)
            return bool(news)

        return self._transaction(work)

    def put_back(self, job: str, image: int | None, now: float) -> list[int]:
        """Make failed images wait again: one, or all of a job. Returns which.

        An image that is not failed is left alone, so doing it twice does it once.

        Raises:
            UnknownImage: there is no such job or image.
        """

        def work(do: "_Do") -> list[int]:
            _must_exist(do, job, image)
            rows = do(
                "UPDATE images SET state = 'waiting', round = round + 1, sends = 0, due = ?, "
                "changed = ?, role = '', reason = '' WHERE job = ? AND state = 'failed' "
                "AND (image = ? OR ? < 0) RETURNING image",
                now, now, job, -1 if image is None else image, -1 if image is None else image,
            ).fetchall()  # fmt: skip
            return sorted(row[0] for row in rows)

        return self._transaction(work)

    # Looking at it.

    def job(self, job: str) -> dict[str, Any]:
        """Return the state of a job and of each of its images.

        Raises:
            UnknownImage: there is no such job.
        """

        def work(do: "_Do") -> dict[str, Any]:
            found = do("SELECT created FROM jobs WHERE id = ?", job).fetchone()
            if found is None:
                raise UnknownImage(f"there is no job {job!r}")
            rows = do(f"SELECT {_COLUMNS} FROM images WHERE job = ? ORDER BY image", job).fetchall()
            images = [_shown(row) for row in rows]
            counts = dict.fromkeys(("waiting", "completed", "failed"), 0)
            for image in images:
                counts[image["state"]] += 1
            return _summary(job, found[0], counts) | {"images": images}

        return self._transaction(work)

    def image(self, job: str, image: int) -> dict[str, Any]:
        """Return the state of one image, and of its job without the others.

        Raises:
            UnknownImage: there is no such image.
        """

        def work(do: "_Do") -> dict[str, Any]:
            row = do(
                f"SELECT {_COLUMNS} FROM images WHERE job = ? AND image = ?", job, image
            ).fetchone()
            if row is None:
                raise UnknownImage(f"there is no image {image} of a job {job!r}")
            return {"job": _summaries(do, "WHERE id = ?", job)[0], "image": _shown(row)}

        return self._transaction(work)

    def latest(self, limit: int = 50) -> list[dict[str, Any]]:
        """Return the latest jobs, newest first, without their images."""
        return self._transaction(
            lambda do: _summaries(do, f"ORDER BY created DESC LIMIT {limit:d}")
        )

    def failures(self, limit: int = 200) -> list[dict[str, Any]]:
        """Return the images that failed, of all jobs, newest first."""
        return self._transaction(
            lambda do: [
                _shown(row)
                for row in do(
                    f"SELECT {_COLUMNS} FROM images WHERE state = 'failed' "
                    f"ORDER BY changed DESC LIMIT {limit:d}"
                ).fetchall()
            ]
        )

    # The connection.

    def _transaction(self, work: Callable[["_Do"], T]) -> T:
        with self._lock:
            for again in (True, False):
                fresh = self._connection is None
                try:
                    with self._open() as do:
                        return work(do)
                except self._broken:
                    self._drop()
                    # A connection that was open may have died long ago, with its server. All that
                    # is done here may be done twice, so try once more; a new one tells the truth.
                    if fresh or not again:
                        raise
        raise AssertionError("unreachable")

    @contextmanager
    def _open(self) -> Iterator["_Do"]:
        if self._connection is None:
            connection = self._connect()
            try:
                _make_tables(_Do(connection, self._mark))
                connection.commit()
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        try:
            if self._mark == "?":
                self._connection.execute("BEGIN IMMEDIATE")
            yield _Do(self._connection, self._mark)
            self._connection.commit()
        except self._broken:
            raise
        except BaseException:
            self._connection.rollback()
            raise

    def _drop(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()


class _Do:
    """Executes one statement, written with ``?`` for its values."""

    def __init__(self, connection: Any, mark: str) -> None:
        self._connection = connection
        self._mark = mark

    def __call__(self, statement: str, *values: object) -> Any:
        return self._connection.execute(statement.replace("?", self._mark), values)


def _sqlite(path: str) -> sqlite3.Connection:
    # isolation_level None: transactions begin where we say so, not at the first change.
    connection = sqlite3.connect(path, timeout=20, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _make_tables(do: _Do) -> None:
    if do("SELECT 1").fetchone() and do._mark == "%s":
        # Two processes that make the same table at the same moment collide in PostgreSQL.
        do("SELECT pg_advisory_xact_lock(7367711)")
    for statement in _SCHEMA:
        do(statement)


def _must_exist(do: _Do, job: str, image: int | None) -> None:
    if image is None:
        if do("SELECT 1 FROM jobs WHERE id = ?", job).fetchone() is None:
            raise UnknownImage(f"there is no job {job!r}")
    elif do("SELECT 1 FROM images WHERE job = ? AND image = ?", job, image).fetchone() is None:
        raise UnknownImage(f"there is no image {image} of a job {job!r}")


def _summaries(do: _Do, which: str, *values: object) -> list[dict[str, Any]]:
    rows = do(
        f"SELECT j.id, j.created, "
        f"SUM(CASE WHEN i.state = 'waiting' THEN 1 ELSE 0 END), "
        f"SUM(CASE WHEN i.state = 'completed' THEN 1 ELSE 0 END), "
        f"SUM(CASE WHEN i.state = 'failed' THEN 1 ELSE 0 END) "
        f"FROM (SELECT id, created FROM jobs {which}) j JOIN images i ON i.job = j.id "
        f"GROUP BY j.id, j.created ORDER BY j.created DESC",
        *values,
    ).fetchall()
    return [
        _summary(job, created, {"waiting": waiting, "completed": completed, "failed": failed})
        for job, created, waiting, completed, failed in rows
    ]


def _summary(job: str, created: float, counts: dict[str, int]) -> dict[str, Any]:
    counts = {state: int(count) for state, count in counts.items()}
    return {
        "id": job,
        "created": created,
        "counts": counts,
        "total": sum(counts.values()),
        "finished": counts["waiting"] == 0,
    }


def _shown(row: Sequence[Any]) -> dict[str, Any]:
    job, image, name, url, original, spec, state, round_, changed, role, reason, result = row
    shown_state: State = state
    return {
        "job": job,
        "image": image,
        "name": name,
        "url": url or None,
        "original": original or None,
        "spec": json.loads(spec),
        "state": shown_state,
        "round": round_,
        "changed": changed,
        "failure": {"role": role, "reason": reason} if state == "failed" else None,
        "result": json.loads(result) if result else None,
    }


def _text(reason: str) -> str:
    # PostgreSQL's text cannot hold a NUL.
    return reason.replace("\0", "\N{REPLACEMENT CHARACTER}")[:2000]
