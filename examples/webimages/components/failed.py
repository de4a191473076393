"""Records what could not be processed, and why, so that somebody can look at it and put it back."""

import time
from typing import Any

from webimages.failures import reason_of, task_of
from webimages.jobs import Jobs, UnknownImage
from webimages.messages import Outcome
from webimages.settings import Settings

import msgflo
from msgflo import Context, Reject, Retry
from msgflo.transport.contract import Death

JOBS = Jobs(Settings.read().database)


@msgflo.component(
    "webimages/failed",
    icon="exclamation-triangle",
    retry=Retry(attempts=10, delay=0.5, backoff=2.0, longest=30.0),
)
def failed(letter: Any, ctx: Context) -> Outcome:
    """Record a dead letter as the failure of its image."""
    task = task_of(letter)
    if task is None:
        # Somebody sent us something else. It stays in the dead letters of this role.
        raise Reject("this is not about an image of a job")
    death = Death.from_headers(ctx.headers) or Death(queue="")
    reason = reason_of(death.error, death.text, death.attempts)
    try:
        JOBS.fail(task, death.role or "unknown", reason, time.time())
    except UnknownImage as unknown:
        raise Reject(str(unknown)) from None
    ctx.log.info("%s: %s", task.name, reason)
    return Outcome(task.job, task.image, task.round, "failed")


if __name__ == "__main__":
    msgflo.main(failed)
