"""The front end: takes jobs by HTTP, hears what becomes of their images, and shows it."""

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Iterator

import uvicorn
from webimages.blobs import Blobs
from webimages.jobs import Jobs
from webimages.messages import Fetched, Outcome, Wanted
from webimages.settings import Settings
from webimages.site import Site

import msgflo
from msgflo import Out


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # SIGTERM and SIGINT are the participant's, which calls stop()


class Web(msgflo.Component, name="webimages/web", icon="globe"):
    """Take image jobs by HTTP, and show what becomes of them."""

    wanted = Out(Wanted, description="An image that has to be fetched")
    uploaded = Out(Fetched, description="An image that came with the job")

    async def start(self) -> None:
        """Listen, before the first message comes."""
        self.settings = Settings.read()
        self.jobs = Jobs(self.settings.database)
        self.due = asyncio.Event()
        blobs = Blobs(self.settings.data / "blobs")
        self.site = Site(self.jobs, blobs, self.due.set, self.settings.names)
        listener = self._listen()
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{port}"
        self.server = _Server(
            uvicorn.Config(
                self.site.app,
                log_level="warning",
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=3,
            )
        )
        self.serving = asyncio.create_task(self.server.serve(sockets=[listener]))
        self.note = self.settings.data / f"web-{self.context.instance}.url"
        self.note.write_text(f"{self.address}\n")
        self.context.log.info("open %s", self.address)

    async def stop(self) -> None:
        """Let answers that have begun be finished, and listen no more."""
        self.note.unlink(missing_ok=True)
        self.site.close()
        self.server.should_exit = True
        await self.serving
        await asyncio.to_thread(self.jobs.close)

    @msgflo.inport
    async def outcome(self, outcome: Outcome):
        """Tell those who watch. The database knows it already."""
        self.site.heard(outcome)

    @msgflo.source
    async def send(self):
        """Send the images that are due: new ones, those put back, those of which nothing is heard.

        Not where a job is taken: what is in the table is sent even if whoever took it has died.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.due.wait(), 2.0)
        self.due.clear()
        resend = self.settings.resend
        while found := await asyncio.to_thread(self.jobs.claim, time.time(), resend):
            for due in found:
                if due.original:
                    await self.uploaded(Fetched(due.task, due.original))
                else:
                    await self.wanted(Wanted(due.task, due.url))
                await asyncio.to_thread(self.jobs.sent, due, time.time(), resend)

    def _listen(self) -> socket.socket:
        """Return a socket that listens on this instance's port, or else on a free one."""
        wanted = self.settings.port and self.settings.port + self.context.instance - 1
        family = socket.AF_INET6 if ":" in self.settings.host else socket.AF_INET
        try:
            return socket.create_server((self.settings.host, wanted), family=family)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not wanted:
                raise
        self.context.log.warning("port %d is in use by something else; taking a free one", wanted)
        return socket.create_server((self.settings.host, 0), family=family)


if __name__ == "__main__":
    msgflo.main(Web)
