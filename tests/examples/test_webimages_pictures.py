import io
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from webimages.messages import Spec
from webimages.pictures import NotAnImage, analyse, resize

MOST = 40_000_000


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def bomb(side: int) -> bytes:
    """A valid PNG of side × side black pixels, one bit each."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        )

    squeezer = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    lines = b"".join(squeezer.compress(row) for _ in range(side)) + squeezer.flush()
    head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
@pytest.mark.parametrize(
    "photo", ["rocket.jpg", "chelsea.png", "coffee.webp", "camera.png", "hubble.webp"]
)
def test_real_photographs_become_any_format(photos: Path, photo: str, kind: str) -> None:
    data, width, height = resize(
        (photos / photo).read_bytes(),
        Spec(200, 150, kind, "fit"),  # type: ignore[arg-type]
        most_pixels=MOST,
    )

    image = opened(data)
    assert image.format == kind.upper()
    assert image.size == (width, height)
    assert width == 200 or height == 150
    assert width <= 200
    assert height <= 150


def test_fit_keeps_the_whole_and_its_proportions(photos: Path) -> None:
    rocket = (photos / "rocket.jpg").read_bytes()  # 640 × 427

    assert resize(rocket, Spec(320, 320), most_pixels=MOST)[1:] == (320, 214)
    assert resize(rocket, Spec(0, 100), most_pixels=MOST)[1:] == (150, 100)
    assert resize(rocket, Spec(64), most_pixels=MOST)[1:] == (64, 43)


def test_fit_never_enlarges(photos: Path) -> None:
    rocket = (photos / "rocket.jpg").read_bytes()

    assert resize(rocket, Spec(4000, 4000), most_pixels=MOST)[1:] == (640, 427)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.integers(1, 60))
def test_crop_fills_the_box_exactly_and_fit_stays_within(
    width: int, height: int, wide: int, high: int
) -> None:
    data = saved(Image.new("RGB", (width, height), "red"), "PNG")

    assert resize(data, Spec(wide, high, "png", "crop"), most_pixels=MOST)[1:] == (wide, high)
    _, fit_wide, fit_high = resize(data, Spec(wide, high, "png", "fit"), most_pixels=MOST)
    assert 1 <= fit_wide <= min(wide, width)
    assert 1 <= fit_high <= min(high, height)


def test_a_side_that_is_free_stays_within_what_can_be_written() -> None:
    thread = saved(Image.new("L", (2, 60_000)), "PNG")

    _, width, height = resize(thread, Spec(width=2, format="webp"), most_pixels=MOST)

    assert (width, height) == (1, 4096)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("policy", ["fit", "crop"])
def test_a_photograph_comes_out_upright_whatever_its_camera_said(
    orientation: int, policy: str
) -> None:
    # Upright: 800 × 400, the left half red, the right half blue.
    upright = Image.new("RGB", (800, 400), "blue")
    upright.paste("red", (0, 0, 400, 400))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    taken = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Camera"
    data = saved(taken, "JPEG", exif=exif)

    small, width, height = resize(
        data,
        Spec(100, 50, "png", policy),  # type: ignore[arg-type]
        most_pixels=MOST,
    )

    image = opened(small).convert("RGB")
    assert (width, height) == (100, 50)
    left, right = image.getpixel((20, 25)), image.getpixel((80, 25))
    assert left[0] > 200 > 60 > left[2]  # type: ignore[index]
    assert right[2] > 200 > 60 > right[0]  # type: ignore[index]
    assert not image.getexif()


def test_a_decompression_bomb_is_refused_before_it_goes_off() -> None:
    data = bomb(20_000)
    assert len(data) < 100_000

    with pytest.raises(NotAnImage, match="too many pixels: 20000 × 20000 is 400 million"):
        resize(data, Spec(100), most_pixels=MOST)
    with pytest.raises(NotAnImage, match="too many pixels"):
        analyse(data, most_pixels=MOST)


@pytest.mark.parametrize("part", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("photo", ["rocket.jpg", "chelsea.png", "coffee.webp"])
def test_a_truncated_photograph_is_broken(photos: Path, photo: str, part: float) -> None:
    data = (photos / photo).read_bytes()

    with pytest.raises(NotAnImage, match=r"broken|not a JPEG, PNG or WebP"):
        resize(data[: int(len(data) * part)], Spec(4096, 4096, "png"), most_pixels=MOST)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "begins with nothing"),
        (b"Dear reader,\nthis is no picture", "'Dear reader,"),
        (b"<!doctype html>", "<!doctype html>"),
        (b"GIF89a\1\0\1\0\0\0\0;", "a GIF image"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\0\1\2\3", "the bytes 00 01 02 03"),
    ],
)
def test_other_files_are_refused_by_what_they_begin_with(data: bytes, said: str) -> None:
    with pytest.raises(NotAnImage, match="not a JPEG, PNG or WebP image") as refused:
        resize(data, Spec(100), most_pixels=MOST)

    assert said in str(refused.value)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"]))
def test_no_bytes_whatever_do_more_than_be_refused(rest: bytes, magic: bytes) -> None:
    with pytest.raises(NotAnImage):
        resize(magic + rest, Spec(10), most_pixels=MOST)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_every_kind_of_pixel_can_become_every_format(mode: str, kind: str) -> None:
    if mode == "I;16":
        image = Image.new("I;16", (64, 64), 200 * 256)
    else:
        image = Image.new("L", (64, 64), 200)
        # Black and white without dithering: all of it is white.
        image = image.convert(mode, dither=Image.Dither.NONE)
    data = saved(image, "JPEG" if mode == "CMYK" else "PNG")

    small, _, _ = resize(data, Spec(32, format=kind), most_pixels=MOST)  # type: ignore[arg-type]

    grey = opened(small).convert("L").getpixel((16, 16))
    assert grey == pytest.approx(255 if mode == "1" else 200, abs=6)


def test_what_was_transparent_is_white_in_a_jpeg_and_stays_so_elsewhere() -> None:
    data = saved(Image.new("RGBA", (10, 10), (255, 0, 0, 0)), "PNG")

    assert opened(resize(data, Spec(5), most_pixels=MOST)[0]).getpixel((2, 2)) == (255, 255, 255)
    webp = opened(resize(data, Spec(5, format="webp"), most_pixels=MOST)[0])
    assert webp.getpixel((2, 2))[3] == 0  # type: ignore[index]


def test_the_same_image_gives_the_same_bytes(photos: Path) -> None:
    data = (photos / "coffee.webp").read_bytes()
    spec = Spec(300, 300, "webp", "crop")

    assert resize(data, spec, most_pixels=MOST) == resize(data, spec, most_pixels=MOST)


def test_the_palette_has_the_colours_and_their_shares() -> None:
    image = Image.new("RGB", (100, 100), "#204060")
    image.paste("#e0a030", (0, 0, 100, 25))

    palette = analyse(saved(image, "PNG"), most_pixels=MOST).palette

    assert [shade.colour for shade in palette[:2]] == ["#204060", "#e0a030"]
    assert [shade.share for shade in palette[:2]] == [0.75, 0.25]


def test_a_blurred_photograph_is_less_sharp(photos: Path) -> None:
    sharp = analyse((photos / "brick.png").read_bytes(), most_pixels=MOST).sharpness
    blurred = analyse((photos / "clock.png").read_bytes(), most_pixels=MOST).sharpness

    assert sharp > 100 > blurred


def test_images_that_look_alike_have_hashes_that_are_near(photos: Path) -> None:
    def bits(data: bytes) -> int:
        return int(analyse(data, most_pixels=MOST).hash, 16)

    coffee = (photos / "coffee.webp").read_bytes()
    small = resize(coffee, Spec(120), most_pixels=MOST)[0]
    rocket = (photos / "rocket.jpg").read_bytes()

    assert (bits(coffee) ^ bits(small)).bit_count() <= 3
    assert (bits(coffee) ^ bits(rocket)).bit_count() >= 12


def test_an_image_of_one_pixel_can_be_analysed() -> None:
    analysis = analyse(saved(Image.new("RGB", (1, 1), "red"), "PNG"), most_pixels=MOST)

    assert analysis.sharpness == 0
    assert analysis.palette[0].colour == "#ff0000"
