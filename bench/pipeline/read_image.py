"""One image file as an array of 8-bit pixels, whatever mode it was written in."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin

from ..study.errors import ConfigError, shown

# 1.125 of the size before the crop, as VAR prepares its images (arXiv 2404.02905)
MARGIN = 1.125
OPAQUE = ("1", "L", "P", "RGB", "CMYK", "YCbCr")
WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
# what a PNG's transparent level is multiplied by when Pillow spreads its few bits over eight
SPREAD = {"L;2": 85, "L;4": 17}
DEEP = (
    "RGB;16B",
)  # of these Pillow keeps the upper byte of a pixel, and both of the transparent colour
DAMAGE = (  # what Pillow raises of it
    OSError, SyntaxError, EOFError, ValueError, TypeError, LookupError, ArithmeticError,
    struct.error,
)  # fmt: skip
# how an image that a camera stored turned is turned back, by its orientation
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Background = int | tuple[int, int, int]

# each names a file that is read all the same: a large photograph, or one whose notes are damaged
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
# notes and colour profiles of a PNG, on which no pixel depends: Pillow refuses more than 1 MB
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**26


class UnknownMode(ValueError):
    """A mode that has no agreed range."""


def _mend_transparency(image: Image.Image) -> None:
    """The transparent colour of a PNG in the levels of its pixels: Pillow leaves it as the file has
    it."""
    hole, tile = image.info.get("transparency"), getattr(image, "tile", [])
    packed = tile[0][3] if tile else None
    if isinstance(packed, tuple):
        packed = packed[0]
    if isinstance(hole, int) and packed in SPREAD:
        image.info["transparency"] = hole * SPREAD[packed]
    if isinstance(hole, tuple) and packed in DEEP:
        image.info["transparency"] = tuple(level >> 8 for level in hole)


def _sixteen_bits(image: Image.Image, background: Background) -> Image.Image:
    """16-bit grey scaled to 8 bits, 65535 to 255; the level that a PNG calls transparent becomes
    background."""
    levels = np.asarray(image).astype(np.uint16)
    grey = Image.fromarray(np.rint(levels / 257.0).astype(np.uint8))
    hole = image.info.get("transparency")
    if not isinstance(hole, int):
        return grey
    alpha = Image.fromarray(np.where(levels == hole, 0, 255).astype(np.uint8))
    return _composited(Image.merge("LA", (grey, alpha)), background)


def _composited(image: Image.Image, background: Background) -> Image.Image:
    """What is transparent shows the background."""
    colour = (background,) * 3 if isinstance(background, int) else tuple(background)
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (*colour, 255)), image).convert(
        "RGB"
    )


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How an image must be turned to stand upright; None where its notes are damaged or do not say:
    pixels are sound all the same."""
    # notes of a PNG may stand behind its pixels, and a TIFF is turned while it is read
    if image.format in ("PNG", "TIFF"):
        image.load()
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except DAMAGE:
        return None


def to_eight_bits(image: Image.Image, background: Background) -> Image.Image:
    """An opened image as L or RGB of 8 bits, upright.

    Raises UnknownMode for one without an agreed range, such as floats.
    """
    _mend_transparency(image)
    turn = _turn(image)
    image = image if turn is None else image.transpose(turn)
    if image.mode in SIXTEEN:
        return _sixteen_bits(image, background)
    if image.mode == "1" and "transparency" in image.info:  # Pillow composites no single bits
        hole, image = image.info["transparency"], image.convert("L")
        image.info["transparency"] = hole
    if image.mode in WITH_ALPHA or (image.mode in OPAQUE and "transparency" in image.info):
        return _composited(image, background)
    if image.mode not in OPAQUE:
        raise UnknownMode(
            f"mode {image.mode} is not read (there are: "
            f"{', '.join((*OPAQUE, *WITH_ALPHA, 'I;16'))}); convert it to 8 bits"
        )
    return image


def _damaged(path: Path, error: Exception) -> str:
    return f"{shown(path)}: damaged image ({error}); repair or remove it"


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file as `read_image` sees it: a camera may store it on its side.

    Raises ConfigError naming a file that cannot be read.
    """
    try:
        with Image.open(path) as file:
            if file.width == file.height:  # however it is turned; of a PNG to ask means to decode
                return file.size
            quarter = _turn(file) in {TURNS[orientation] for orientation in (5, 6, 7, 8)}
            return (file.height, file.width) if quarter else file.size
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise ConfigError(_damaged(path, error)) from None


def read_image(
    path: Path,
    size: int,
    channels: int,
    crop_seed: int | None = None,
    index: int = 0,
    crop: bool = True,
    background: Background = 255,
) -> np.ndarray:
    """Decode, turn upright, resize the short side (LANCZOS), cut out a square: uint8 of shape
    (channels, size, size).

    crop: the short side becomes 1.125 x size before the cut, as VAR does; else size itself.
    crop_seed: a random place instead of the centre. background: what shows through alpha, a grey
    level or three. Of an animation the first frame is read. Raises ValueError naming a damaged
    file, and a mode that is not read.
    """
    try:
        with Image.open(path) as file:
            image = to_eight_bits(file, background)
            image = image.convert("L" if channels == 1 else "RGB")
    except UnknownMode as error:
        raise ValueError(f"{shown(path)}: {error}") from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow refuses twice what it warns of
        raise ValueError(
            f"{shown(path)}: has more than {most} pixels, which is the most that is read; make it "
            "smaller"
        ) from None
    except DAMAGE as error:
        raise ValueError(_damaged(path, error)) from None
    short = round(MARGIN * size) if crop else size
    scale = short / min(image.size)
    width, height = (max(short, round(side * scale)) for side in image.size)
    if crop_seed is None:
        left, top = (width - size) // 2, (height - size) // 2
    else:
        rng = np.random.default_rng((crop_seed, index))
        left, top = int(rng.integers(width - size + 1)), int(rng.integers(height - size + 1))
    # only what the cut needs is resized: a thin strip would otherwise grow to gigabytes
    across, down = image.width / width, image.height / height
    box = (
        left * across,
        top * down,
        min((left + size) * across, image.width),
        min((top + size) * down, image.height),
    )
    pixels = np.asarray(
        image.resize((size, size), Image.Resampling.LANCZOS, box=box), dtype=np.uint8
    )
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1).copy()
