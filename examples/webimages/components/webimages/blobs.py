"""Image files, each named by the SHA-256 of its bytes.

No name comes from outside, writing the same bytes twice changes nothing, and a file is either
there completely or not at all. That is what makes it safe to do any of this again.
"""

import hashlib
import os
import re
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

__all__ = ["BlobMissing", "BlobTooLarge", "Blobs", "Incoming"]

_DIGEST = re.compile(r"[0-9a-f]{64}")


class BlobMissing(Exception):
    """There is no file of this digest."""


class BlobTooLarge(Exception):
    """More bytes came than are allowed."""


class Blobs:
    """A folder of such files.

    Args:
        folder: made if it is not there. Several processes, and several machines that share the
            folder, may use it at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Return where the file of a digest is, or would be.

        Raises:
            BlobMissing: this is no digest; nothing else can be a name.
        """
        if not _DIGEST.fullmatch(digest):
            raise BlobMissing(f"{digest!r} is not the digest of a file")
        return self.folder / digest[:2] / digest[2:]

    def read(self, digest: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            BlobMissing: there is none.
        """
        try:
            return self.path(digest).read_bytes()
        except FileNotFoundError:
            raise BlobMissing(
                f"the file {digest[:12]}… is not in {self.folder}; do all machines share that "
                f"folder?"
            ) from None

    def put(self, data: bytes) -> str:
        """Keep these bytes, and return their digest."""
        with self.incoming(len(data)) as incoming:
            incoming.write(data)
            return incoming.keep()

    def incoming(self, most: int) -> "Incoming":
        """Begin a file whose bytes come bit by bit; at most ``most`` of them."""
        return Incoming(self, most)


class Incoming:
    """A file that is being written. Use it with ``with``: what is not kept, vanishes."""

    def __init__(self, blobs: Blobs, most: int) -> None:
        self._blobs = blobs
        self._most = most
        self._hash = hashlib.sha256()
        self._file: IO[bytes] | None = None
        self.size = 0

    def __enter__(self) -> "Incoming":
        self._file = tempfile.NamedTemporaryFile(
            dir=self._blobs.folder, prefix="incoming-", delete=False
        )
        return self

    def write(self, data: bytes) -> None:
        """Add bytes.

        Raises:
            BlobTooLarge: these are more than allowed.
        """
        assert self._file is not None
        self.size += len(data)
        if self.size > self._most:
            raise BlobTooLarge(f"more than {megabytes(self._most)}")
        self._hash.update(data)
        self._file.write(data)

    def keep(self) -> str:
        """Make it a file of its own, safe from a power cut, and return its digest."""
        assert self._file is not None
        digest = self._hash.hexdigest()
        path = self._blobs.path(digest)
        self._file.flush()
        os.fsync(self._file.fileno())
        path.parent.mkdir(exist_ok=True)
        Path(self._file.name).chmod(0o644)
        Path(self._file.name).replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return digest

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._file is not None
        self._file.close()
        Path(self._file.name).unlink(missing_ok=True)


def megabytes(size: int) -> str:
    """Say a size for people."""
    return f"{size / 1e6:.3g} MB"
