"""Fetches the images that jobs name by URL."""

import logging

from webimages.addresses import AllowList
from webimages.blobs import Blobs
from webimages.download import CannotFetch, download
from webimages.messages import Fetched, Wanted
from webimages.settings import Settings

import msgflo
from msgflo import Context, Param, Reject, Retry

SETTINGS = Settings.read()
BLOBS = Blobs(SETTINGS.data / "blobs")

# A line for each request is too much, and a URL may hold what is nobody else's business.
logging.getLogger("httpx").setLevel(logging.WARNING)


@msgflo.component(
    "webimages/fetch",
    icon="download",
    concurrency=8,
    retry=Retry(attempts=3, delay=0.5, backoff=3.0),
)
async def fetch(
    wanted: Wanted,
    ctx: Context,
    allow: Param[str] = SETTINGS.allow,
    most_bytes: Param[int] = 20_000_000,
    timeout: Param[float] = 20.0,
) -> Fetched:
    """Fetch an image, from public addresses and those that are allowed."""
    try:
        digest = await download(
            wanted.url, BLOBS, AllowList.parse(allow), most=most_bytes, timeout=timeout
        )
    except CannotFetch as reason:
        raise Reject(str(reason)) from None
    ctx.log.debug("%s is %s", wanted.url, digest)
    return Fetched(wanted.task, digest)


if __name__ == "__main__":
    msgflo.main(fetch)
