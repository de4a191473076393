"""What is done to an image, and what can be said of it. Pure: bytes in, bytes and facts out."""

import io

from PIL import ExifTags, Image, ImageFilter, ImageOps, ImageStat

from webimages.messages import LARGEST_SIDE, Analysis, Format, Shade, Spec

__all__ = ["NotAnImage", "analyse", "resize"]

_READ = ("JPEG", "PNG", "WEBP")
_QUALITY = 85
_SHADES = 5

# Pillow's own limit, which is one for the whole process, would speak before ours and say less.
# Ours is checked in the one place that opens images here, before anything of one is decoded.
Image.MAX_IMAGE_PIXELS = None


class NotAnImage(Exception):
    """These bytes are not an image that can be worked with. The text says why."""


def resize(data: bytes, spec: Spec, *, most_pixels: int) -> tuple[bytes, int, int]:
    """Make an image that is as the spec wants it.

    The result is upright whatever its EXIF data said, keeps its colour profile, and carries nothing
    else of what was in the file (no place, no camera, no owner).

    Args:
        data: a JPEG, PNG or WebP file.
        spec: what is wanted.
        most_pixels: an image of more pixels is refused before any of it is decoded.

    Returns:
        The new file, its width, its height.

    Raises:
        NotAnImage: the bytes are something else, are broken, or would become too large.
    """
    image = _open(data, most_pixels)
    try:
        _draft(image, spec)
        profile = image.info.get("icc_profile") if image.mode != "CMYK" else None
        image = _shaped(_plain(ImageOps.exif_transpose(image)), spec)
        return _save(image, spec.format, profile), image.width, image.height
    except Exception as error:
        raise _broken(error) from error


def _draft(image: Image.Image, spec: Spec) -> None:
    """Let the decoder of a JPEG leave out what will not be seen: several times faster."""
    if image.format not in ("JPEG", "MPO"):
        return
    lies = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # on its side
    upright = (image.height, image.width) if lies else image.size
    scale = _scale(upright, spec)
    # Twice the size that is wanted keeps the quality of the resampling that follows.
    image.draft(None, (round(2 * scale * image.width) + 1, round(2 * scale * image.height) + 1))


def _scale(size: tuple[int, int], spec: Spec) -> float:
    wide = (spec.width or LARGEST_SIDE) / size[0]
    high = (spec.height or LARGEST_SIDE) / size[1]
    return max(wide, high) if spec.policy == "crop" else min(1.0, wide, high)


def _open(data: bytes, most_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=_READ)
    except Image.UnidentifiedImageError:
        raise NotAnImage(
            f"not a JPEG, PNG or WebP image: it begins with {_beginning(data)}"
        ) from None
    except Exception as error:
        raise _broken(error) from error
    if image.width * image.height > most_pixels:
        raise NotAnImage(
            f"too many pixels: {image.width} × {image.height} is "
            f"{image.width * image.height / 1e6:.0f} million, at most {most_pixels / 1e6:g} go"
        )
    return image


def _beginning(data: bytes) -> str:
    for magic, name in (
        (b"GIF8", "the mark of a GIF image"),
        (b"%PDF", "the mark of a PDF document"),
        (b"BM", "the mark of a BMP image"),
        (b"II*\0", "the mark of a TIFF image"),
        (b"MM\0*", "the mark of a TIFF image"),
        (b"<", repr(data[:16].decode("latin-1"))),
    ):
        if data.startswith(magic):
            return name
    text = data[:24]
    if text and all(32 <= byte < 127 or byte in b"\r\n\t" for byte in text):
        return repr(text.decode())
    return f"the bytes {data[:8].hex(' ')}" if data else "nothing"


def _broken(error: Exception) -> NotAnImage:
    return NotAnImage(f"the image is broken: {error or type(error).__name__}")


def _plain(image: Image.Image) -> Image.Image:
    """Return the image in a mode that all three formats begin from: L, LA, RGB or RGBA."""
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        if "transparency" in image.info:
            return image.convert("RGBA")
        image.load()
        return image
    if image.mode == "P":
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode.startswith("I") or image.mode == "F":
        # 16 bits of grey; a plain conversion would cut off everything above 255.
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    return image.convert("L" if image.mode == "1" else "RGB")


def _shaped(image: Image.Image, spec: Spec) -> Image.Image:
    if spec.policy == "crop":
        return ImageOps.fit(image, (spec.width, spec.height), Image.Resampling.LANCZOS)
    scale = _scale(image.size, spec)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if size == image.size:
        return image
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _save(image: Image.Image, format: Format, profile: bytes | None) -> bytes:  # noqa: A002
    out = io.BytesIO()
    extra = {"icc_profile": profile} if profile else {}
    if format == "jpeg":
        if image.mode in ("LA", "RGBA"):
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
        image.save(out, "JPEG", quality=_QUALITY, optimize=True, progressive=True, **extra)
    elif format == "png":
        image.save(out, "PNG", optimize=True, **extra)
    else:
        image.convert("RGBA" if image.mode in ("LA", "RGBA") else "RGB").save(
            out, "WEBP", quality=_QUALITY, method=4, **extra
        )
    return out.getvalue()


def analyse(data: bytes, *, most_pixels: int) -> Analysis:
    """Say something of an image: its main colours, how sharp it is, what it looks like.

    Raises:
        NotAnImage: the bytes are something else.
    """
    image = _open(data, most_pixels)
    try:
        image.load()
    except Exception as error:
        raise _broken(error) from error
    rgba = image.convert("RGBA")
    seen = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return Analysis(_palette(seen), _sharpness(seen), _hash(seen))


def _palette(image: Image.Image) -> list[Shade]:
    small = image.copy()
    small.thumbnail((128, 128))
    reduced = small.quantize(_SHADES, Image.Quantize.MEDIANCUT, kmeans=1)
    colours = reduced.getpalette() or []
    total = small.width * small.height
    shades = [
        Shade(f"#{bytes(colours[3 * index : 3 * index + 3]).hex()}", round(count / total, 3))
        for count, index in sorted(reduced.getcolors(256) or [], reverse=True)
    ]
    return shades[:_SHADES]


def _sharpness(image: Image.Image) -> float:
    grey = image.convert("L")
    grey.thumbnail((512, 512))
    if min(grey.size) < 3:
        return 0.0
    # The Laplacian is negative where an image darkens: moved up, not to be cut off at 0.
    laplacian = grey.filter(
        ImageFilter.Kernel((3, 3), (0, 1, 0, 1, -4, 1, 0, 1, 0), scale=1, offset=128)
    )
    inner = laplacian.crop((1, 1, grey.width - 1, grey.height - 1))
    return round(ImageStat.Stat(inner).var[0], 1)


def _hash(image: Image.Image) -> str:
    tiny = image.convert("L").resize((8, 8), Image.Resampling.BOX)
    values = tiny.tobytes()
    mean = sum(values) / 64
    bits = sum((value > mean) << (63 - place) for place, value in enumerate(values))
    return f"{bits:016x}"
