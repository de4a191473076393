"""Says of a finished image what its colours are, how sharp it is, and what it looks like."""

from webimages.blobs import BlobMissing, Blobs
from webimages.messages import Analysed, Resized
from webimages.pictures import NotAnImage
from webimages.pictures import analyse as analysed
from webimages.settings import Settings

import msgflo
from msgflo import Param, Reject

BLOBS = Blobs(Settings.read().data / "blobs")


@msgflo.component("webimages/analyse", icon="eyedropper", prefetch=2)
def analyse(resized: Resized, most_pixels: Param[int] = 40_000_000) -> Analysed:
    """Find an image's palette, sharpness and average hash."""
    try:
        analysis = analysed(BLOBS.read(resized.result.digest), most_pixels=most_pixels)
    except (NotAnImage, BlobMissing) as reason:
        raise Reject(str(reason)) from None
    return Analysed(resized.task, resized.original, resized.result, analysis)


if __name__ == "__main__":
    msgflo.main(analyse)
