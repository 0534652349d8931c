"""Where the emoji lie, and what their packages hold, by sha256. Imports neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .contents import cache_folder

SIZES = (32, 64)  # sides in pixels: what is drawn keeps its lines at 32, and 64 is the native limit
COMMAND = "./run data emoji"
CREDIT = (
    "drawn, no photographs, resized from Noto Color Emoji (Google, SIL OFL 1.1), Fluent Emoji 3D "
    "(Microsoft, MIT) and Twemoji graphics (Twitter, Inc. and other contributors, CC BY 4.0)"
)


@dataclass(frozen=True)
class Source:
    """A file of drawings or classes, the package that brings it, and where Debian installs it.

    package: as apt-get or npm name it; installed: below the root of a Debian package, None for npm.
    """

    name: str
    sha256: str
    package: str
    installed: str | None = None


FONT = Source(
    "NotoColorEmoji.ttf",
    "e5899ed38b8ed83e08bd3ac5de09791e9d19d288333a796de1d35ad17396f1ec",
    "fonts-noto-color-emoji",
    "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",
)
LIST = Source(
    "emoji-test.txt",
    "8445f23ac8388e096be19d0262e14fceff856ff52093f2356dc89485f1a853db",
    "unicode-data",
    "usr/share/unicode/emoji/emoji-test.txt",
)
FLUENT = Source(
    "lobehub-fluent-emoji-3d-1.1.0.tgz",
    "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    "@lobehub/fluent-emoji-3d@1.1.0",
)
TWITTER = Source(
    "emoji-datasource-twitter-16.0.0.tgz",
    "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    "emoji-datasource-twitter@16.0.0",
)
SOURCES = (FONT, LIST, FLUENT, TWITTER)


def packages_folder() -> Path:
    """Where the four files are kept."""
    return cache_folder() / "emoji" / "packages"


def images_file(size: int) -> Path:
    """The drawn images of one size."""
    return cache_folder() / "emoji" / f"emoji_{size}.safetensors"


def absent(size: int) -> str | None:
    """Why the emoji cannot be read now, with the command that mends it; None where they can."""
    file = images_file(size)
    if file.is_file():
        return None
    return f"the emoji are not drawn yet (no file {file}); run `{COMMAND}` once"
