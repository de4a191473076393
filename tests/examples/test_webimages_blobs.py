import hashlib
from pathlib import Path

import pytest
from webimages.blobs import BlobMissing, Blobs, BlobTooLarge


def test_a_file_is_named_by_its_bytes_and_can_be_put_twice(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")

    digest = blobs.put(b"picture")

    assert digest == hashlib.sha256(b"picture").hexdigest()
    assert blobs.put(b"picture") == digest
    assert blobs.read(digest) == b"picture"
    assert [path for path in blobs.folder.rglob("*") if path.is_file()] == [blobs.path(digest)]


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "a" * 63, "a" * 64 + "\n", "A" * 64, "/" + "a" * 63]
)
def test_nothing_but_a_digest_is_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(BlobMissing):
        Blobs(tmp_path).path(name)


def test_a_file_that_is_not_there_says_what_may_be_wrong(tmp_path: Path) -> None:
    with pytest.raises(BlobMissing, match="share"):
        Blobs(tmp_path).read("a" * 64)


def test_what_is_too_large_or_not_kept_leaves_nothing_behind(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)

    with blobs.incoming(5) as incoming:
        incoming.write(b"123")
        with pytest.raises(BlobTooLarge):
            incoming.write(b"456")
    with blobs.incoming(5) as incoming:
        incoming.write(b"123")

    assert list(tmp_path.iterdir()) == []
