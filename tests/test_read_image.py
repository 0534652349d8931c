"""One image, whatever mode it was written in: what a viewer shows, or a refusal by name."""

import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from bench.pipeline.read_image import read_image, to_eight_bits, upright_size
from workflow import ROOT

RAMP = np.tile(np.linspace(0, 255, 32).round().astype(np.uint8), (32, 1))


def saved(tmp_path, image, name="a.png", **more):
    image.save(tmp_path / name, **more)
    return tmp_path / name


def read(path, size=16, channels=1, **more):
    return read_image(path, size, channels, **more).astype(int)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled(tmp_path, channels):
    """Catches a 16-bit image that becomes white because its upper byte is cut off."""
    deep = saved(tmp_path, Image.fromarray(RAMP.astype(np.uint16) * 257))
    plain = saved(tmp_path, Image.fromarray(RAMP), "b.png")
    assert np.abs(read(deep, channels=channels) - read(plain, channels=channels)).max() <= 1
    dark = saved(tmp_path, Image.fromarray(np.full((8, 8), 300, np.uint16)), "dark.png")
    assert read(dark).max() == 1


def test_a_transparent_level_of_sixteen_bits_shows_the_background(tmp_path):
    """Catches the sibling of an alpha channel: a PNG that calls one grey level transparent."""
    levels = np.full((16, 16), 30000, np.uint16)
    levels[:, 8:] = 500
    path = saved(tmp_path, Image.fromarray(levels), transparency=500)
    pixels = read(path, background=200)[0]
    assert pixels[8, 2] == round(30000 / 257) and pixels[8, -2] == 200


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
@pytest.mark.parametrize("background", [255, 0, (10, 20, 30)])
def test_alpha_shows_the_background(tmp_path, mode, background):
    """Catches cut-outs that become black, or that show the noise hidden below their transparent
    pixels."""
    rng = np.random.default_rng(0)
    rgba = np.dstack([rng.integers(0, 255, (16, 16, 3)), np.zeros((16, 16))]).astype(np.uint8)
    rgba[:, 8:] = (90, 90, 90, 255)
    image = Image.fromarray(rgba)
    if mode == "LA":
        image = image.convert("LA")
    if mode in ("P", "PA"):
        image = Image.fromarray((rgba[..., 3] > 0).astype(np.uint8), "L").convert("P")
        image.putpalette([7, 7, 7, 90, 90, 90])
    more = {"transparency": 0} if mode in ("P", "PA") else {}
    path = saved(
        tmp_path,
        image,
        "a.webp" if mode == "RGBA" else "a.png",
        **({"lossless": True} if mode == "RGBA" else more),
    )
    pixels = read_image(path, 16, 3, background=background, crop=False)
    wanted = background if isinstance(background, tuple) else (background,) * 3
    assert tuple(pixels[:, 8, 1]) == wanted
    assert np.abs(pixels[:, 8, -2].astype(int) - 90).max() <= 1


def test_colour_that_a_png_calls_transparent(tmp_path):
    """Catches tRNS of an RGB image, which Pillow keeps apart from the mode."""
    rgb = np.full((16, 16, 3), 80, np.uint8)
    rgb[:, :8] = (1, 2, 3)
    path = saved(tmp_path, Image.fromarray(rgb), transparency=(1, 2, 3))
    assert read_image(path, 16, 3, crop=False)[:, 8, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path, orientation):
    """Catches photographs of a phone that lie on their side: all eight orientations,
    as ImageOps shows them."""
    rng = np.random.default_rng(1)
    upright = Image.fromarray(
        np.kron(rng.integers(0, 255, (4, 4)), np.ones((8, 8))).astype(np.uint8)
    )
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, stored, "a.png", exif=exif)
    assert np.array_equal(read(path, crop=False, size=32)[0], np.asarray(upright))


def exif_of(*entries):
    """EXIF notes of some entries (tag, type, count, bytes), as a camera would never write them."""
    body, later = struct.pack("<H", len(entries)), b""
    for tag, kind, count, value in sorted(entries):
        if len(value) > 4:
            value, later = struct.pack("<I", 14 + 12 * len(entries) + len(later)), later + value
        body += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + body + bytes(4) + later


ON_ITS_SIDE = (274, 3, 1, struct.pack("<H", 6))
ODD_NOTES = {
    "text for a resolution": exif_of(ON_ITS_SIDE, (282, 2, 3, b"72\0")),
    "text for a unit": exif_of(ON_ITS_SIDE, (296, 2, 2, b"2\0")),
    "a fraction for a width": exif_of(ON_ITS_SIDE, (256, 5, 1, struct.pack("<II", 3, 2))),
    "a negative unit": exif_of(ON_ITS_SIDE, (296, 6, 1, b"\xff")),
}


@pytest.mark.parametrize("notes", ODD_NOTES.values(), ids=ODD_NOTES)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_odd_notes_do_not_matter(tmp_path, notes, suffix):
    """Catches a sound photograph that ends a study, since its notes cannot be written anew."""
    image = Image.fromarray(np.tile(np.arange(0, 240, 8, dtype=np.uint8), (20, 1)))
    plain = saved(tmp_path, image.transpose(Image.Transpose.ROTATE_270), f"plain.{suffix}")
    path = saved(tmp_path, image, f"a.{suffix}", exif=notes)
    assert upright_size(path) == (20, 30)
    apart = read(path).astype(int) - read(plain)
    assert abs(apart).max() < 20  # JPEG and WEBP lose a little, by the direction


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_notes_that_are_no_notes_do_not_matter(tmp_path, suffix):
    """Catches pixels called damaged for what stands beside them."""
    path = saved(tmp_path, Image.new("L", (30, 20), 90), f"a.{suffix}", exif=b"Exif\0\0II*\0\x08")
    assert upright_size(path) == (30, 20)
    assert abs(read(path).astype(int) - 90).max() < 3


def test_a_long_text_in_a_png_does_not_matter(tmp_path):
    """Catches a PNG that is called damaged for a text of two megabytes that an editor left."""
    notes = PngImagePlugin.PngInfo()
    notes.add_text("history", "a" * 2_000_000, zip=True)
    path = saved(tmp_path, Image.new("L", (30, 20), 90), "a.png", pnginfo=notes)
    assert (read(path) == 90).all()


@pytest.mark.parametrize("error", [struct.error("short"), TypeError("odd"), KeyError("lost")])
def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch, error):
    """Catches a traceback of Pillow after which nobody knows which of 50 000 images it was."""
    path = saved(tmp_path, Image.new("L", (30, 20)), "a.png")

    def fails(*_):
        raise error

    monkeypatch.setattr(Image.Image, "convert", fails)
    with pytest.raises(ValueError, match="a.png: damaged image"):
        read(path)


@pytest.mark.parametrize("mode", ["F", "I", "LAB", "HSV"])
def test_other_modes_are_refused_by_name(tmp_path, mode):
    """Catches a range that nobody stated: floats of 0 to 1 that become black."""
    image = (
        Image.fromarray((RAMP / 255).astype(np.float32))
        if mode == "F"
        else Image.new(mode, (20, 20))
    )
    path = saved(tmp_path, image, "a.tif") if mode != "HSV" else None
    if path is None:
        from bench.pipeline.read_image import to_eight_bits

        with pytest.raises(ValueError, match="mode HSV is not read"):
            to_eight_bits(image, 0)
        return
    with pytest.raises(ValueError, match=rf"a\.tif: mode {mode} is not read .there are: 1, L"):
        read(path)


@pytest.mark.parametrize("mode", ["1", "CMYK", "YCbCr"])
def test_modes_with_an_agreed_range_are_read(tmp_path, mode):
    """Catches a refusal of what ImageNet holds, such as CMYK."""
    name = {"YCbCr": "a.tif", "CMYK": "a.jpg"}.get(mode, "a.png")
    path = saved(tmp_path, Image.fromarray(RAMP).convert("RGB").convert(mode), name)
    assert read(path, channels=3).max() > 200


@pytest.mark.parametrize("shape", [(30_000, 1), (1, 30_000)])
def test_a_thin_strip_takes_no_memory(tmp_path, shape):
    """Catches an image that is enlarged to gigabytes before all but a square of it is thrown
    away."""
    path = saved(tmp_path, Image.fromarray(np.zeros(shape, np.uint8)))
    code = f"""
import resource
import struct
from pathlib import Path
from bench.pipeline.read_image import read_image
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
print(read_image(Path({str(path)!r}), 512, 3).shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.strip() == "(3, 512, 512)", done.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 4 << 20


def test_the_cut_is_that_of_a_whole_resize(tmp_path):
    """Catches a shifted or squeezed cut: resizing the part equals resizing the whole, up to the
    rounding of two passes."""
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(60, 190, (9, 14)), np.ones((7, 7))).astype(np.uint8)
    path = saved(tmp_path, Image.fromarray(smooth))
    whole = Image.fromarray(smooth).resize((56, 36), Image.Resampling.LANCZOS)
    assert (
        np.abs(np.asarray(whole.crop((12, 2, 44, 34))).astype(int) - read(path, 32)[0]).max() <= 2
    )


def test_the_borders_can_be_kept(tmp_path):
    """Catches the 5.5 % of each border that are always lost:
    without the cut a square image is all there."""
    image = np.full((32, 32), 90, np.uint8)
    image[0] = image[-1] = image[:, 0] = image[:, -1] = 255
    path = saved(tmp_path, Image.fromarray(image))
    assert np.array_equal(read(path, 32, crop=False)[0], image)
    assert read(path, 32)[0].max() < 130


def packed_png(path, levels, bits, colour, hole):
    """A PNG of few or many bits whose tRNS calls one colour transparent; levels of shape (side,
    values of a row)."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in levels]
    else:
        places = np.arange(bits - 1, -1, -1)
        rows = [np.packbits((row[:, None] >> places) & 1).tobytes() for row in levels]
    head = struct.pack(">IIBBBBB", len(levels), len(levels), bits, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = (
        (b"IHDR", head),
        (b"tRNS", struct.pack(f">{len(hole)}H", *hole)),
        (b"IDAT", body),
        (b"IEND", b""),
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_level_is_that_of_the_file(tmp_path, bits):
    """Catches hidden pixels that show because Pillow spreads the bits of the pixels, and not those
    of the transparent level."""
    most = 2**bits - 1
    levels = np.full((16, 16), most)
    levels[:, 8:] = 0
    for hole, seen in ((most, 0), (0, 255)):
        pixels = read(
            packed_png(tmp_path / "a.png", levels, bits, 0, (hole,)), background=100, crop=False
        )[0]
        assert pixels[8, 1 if hole else -2] == 100 and pixels[8, -2 if hole else 1] == seen


def test_a_transparent_colour_of_sixteen_bits_shows_the_background(tmp_path):
    """Catches the sibling for colours: Pillow keeps one byte of the pixel and compares it with
    both."""
    levels = np.zeros((16, 16, 3), int)
    levels[:, :8] = (40000, 300, 65535)
    path = packed_png(tmp_path / "a.png", levels.reshape(16, -1), 16, 2, (40000, 300, 65535))
    pixels = read(path, channels=3, background=100, crop=False)
    assert (pixels[:, 8, 1] == 100).all() and (pixels[:, 8, -2] == 0).all()


def test_an_image_too_large_is_not_called_damaged(tmp_path, monkeypatch, recwarn):
    """Catches a panorama called damaged, and the words of a warning about bombs for a photograph
    that is read."""
    path = saved(tmp_path, Image.fromarray(RAMP))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    assert read(path).shape == (1, 16, 16)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(
        ValueError,
        match="a.png: has more than 200 pixels, which is the most that is read; make it smaller",
    ):
        read(path)


@pytest.mark.parametrize("suffix", ("jpg", "png", "tif", "webp"))
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_image(tmp_path, orientation, suffix):
    """Catches a size as it is stored, and one turned twice: Pillow turns a TIFF's by itself."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.new("RGB", (40, 30)), f"a.{suffix}", exif=exif)
    with Image.open(path) as file:
        assert upright_size(path) == to_eight_bits(file, 255).size
    assert upright_size(path) == ((30, 40) if orientation > 4 else (40, 30))
