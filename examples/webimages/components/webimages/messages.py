"""What the roles say to one another.

Every message is small: an image's bytes stay in a file (:mod:`webimages.blobs`), and the message
names them by their digest. What a role found out is added, and goes on with the task.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = [
    "LARGEST_SIDE",
    "Analysed",
    "Analysis",
    "Digest",
    "Fetched",
    "Format",
    "Outcome",
    "Picture",
    "Policy",
    "Resized",
    "Shade",
    "Spec",
    "State",
    "Task",
    "Wanted",
]

LARGEST_SIDE = 4096
"""Pixels: what a result may measure at most, either way."""

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="SHA-256 of a file's bytes")]
JobId = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Side = Annotated[int, Meta(ge=0, le=LARGEST_SIDE)]
Format = Literal["jpeg", "png", "webp"]
Policy = Literal["fit", "crop"]
State = Literal["waiting", "completed", "failed"]


class Spec(Struct, frozen=True, forbid_unknown_fields=True):
    """How an image is wanted.

    ``fit`` keeps the whole image within the box and never enlarges it; a side of 0 is free.
    ``crop`` fills the box exactly, and cuts off what stands out.
    """

    width: Side = 0
    height: Side = 0
    format: Format = "jpeg"
    policy: Policy = "fit"

    def problem(self) -> str | None:
        """Say what is wrong with it, or None."""
        if not self.width and not self.height:
            return "give a width or a height"
        if self.policy == "crop" and not (self.width and self.height):
            return "the policy crop needs both a width and a height"
        return None


class Task(Struct, frozen=True):
    """One image of one job, on its way.

    ``round`` counts how often it was put back by hand, from 1: what is heard of an earlier round
    cannot fail a later one.
    """

    job: JobId
    image: Annotated[int, Meta(ge=0)]
    round: Annotated[int, Meta(ge=1)]
    name: str
    spec: Spec


class Wanted(Struct, frozen=True):
    """An image that has to be fetched first."""

    task: Task
    url: str


class Fetched(Struct, frozen=True):
    """An image whose bytes are here."""

    task: Task
    original: Digest


class Picture(Struct, frozen=True):
    """A finished image; ``by`` is the instance of resize that made it."""

    digest: Digest
    format: Format
    width: int
    height: int
    bytes: int
    by: int = 1


class Resized(Struct, frozen=True):
    """An image that has its size."""

    task: Task
    original: Digest
    result: Picture


class Shade(Struct, frozen=True):
    """One of an image's main colours, and how much of it that colour covers (0 to 1)."""

    colour: Annotated[str, Meta(pattern="^#[0-9a-f]{6}$")]
    share: float


class Analysis(Struct, frozen=True):
    """What can be said of an image.

    ``sharpness`` is the variance of its Laplacian: below about 100 it looks blurred. ``hash`` is
    its average hash, 16 hexadecimal digits: images that look alike differ in few bits.
    """

    palette: list[Shade]
    sharpness: float
    hash: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]


class Analysed(Struct, frozen=True):
    """An image with everything that is to be stored."""

    task: Task
    original: Digest
    result: Picture
    analysis: Analysis


class Outcome(Struct, frozen=True):
    """The state of an image has changed; the database has it already."""

    job: JobId
    image: int
    round: int
    state: State
