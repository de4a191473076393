"""Keeps the results."""

import time

from webimages.jobs import Jobs, UnknownImage
from webimages.messages import Analysed, Outcome
from webimages.settings import Settings

import msgflo
from msgflo import Reject, Retry

JOBS = Jobs(Settings.read().database)


# A database that is away for a minute or two is waited for; then the dead letters have it.
@msgflo.component(
    "webimages/store",
    icon="database",
    concurrency=4,
    retry=Retry(attempts=10, delay=0.5, backoff=2.0, longest=30.0),
)
def store(analysed: Analysed) -> Outcome:
    """Store a result; the same one again changes nothing."""
    task = analysed.task
    try:
        JOBS.complete(task, analysed.result, analysed.analysis, time.time())
    except UnknownImage as reason:
        raise Reject(str(reason)) from None
    # Told even if it is no news: whoever stored it first may have died before telling.
    return Outcome(task.job, task.image, task.round, "completed")


if __name__ == "__main__":
    msgflo.main(store)
