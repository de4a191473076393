"""Makes images that have the size and the format that the job wants."""

from webimages.blobs import BlobMissing, Blobs
from webimages.messages import Fetched, Picture, Resized
from webimages.pictures import NotAnImage
from webimages.pictures import resize as resized
from webimages.settings import Settings

import msgflo
from msgflo import Context, Param, Reject

BLOBS = Blobs(Settings.read().data / "blobs")


# A plain function runs in a thread, and Pillow lets go of the interpreter while it works. The next
# image is taken while this one is in work, so that no time is lost on the way; more than one would
# wait here while another instance is idle.
@msgflo.component("webimages/resize", icon="compress", prefetch=2)
def resize(fetched: Fetched, ctx: Context, most_pixels: Param[int] = 40_000_000) -> Resized:
    """Resize an image, upright, to JPEG, PNG or WebP."""
    spec = fetched.task.spec
    try:
        data, width, height = resized(BLOBS.read(fetched.original), spec, most_pixels=most_pixels)
    except (NotAnImage, BlobMissing) as reason:
        raise Reject(str(reason)) from None
    picture = Picture(BLOBS.put(data), spec.format, width, height, len(data), ctx.instance)
    return Resized(fetched.task, fetched.original, picture)


if __name__ == "__main__":
    msgflo.main(resize)
