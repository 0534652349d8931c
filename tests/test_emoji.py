"""Emoji: classes from Unicode's list, drawings from packages, a split by concept, and one line for
whatever is missing. The real packages are looked at where they are."""

import hashlib
import io
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from fontTools.fontBuilder import FontBuilder
from fontTools.ttLib import newTable
from fontTools.ttLib.tables.BitmapGlyphMetrics import BigGlyphMetrics
from fontTools.ttLib.tables.C_B_D_T_ import cbdt_bitmap_format_18
from PIL import Image

from bench.pipeline import emoji, fetch_emoji
from bench.pipeline.prepare import load
from bench.study import emoji_files
from bench.study.before import missing_files
from bench.study.emoji_files import FLUENT, FONT, LIST, SIZES, SOURCES, TWITTER
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from bench.study.settings import DatasetConfig

ROOT = Path(__file__).resolve().parent.parent
FARMER, WOMAN_FARMER = (0x1F9D1, 0x200D, 0x1F33E), (0x1F469, 0x200D, 0x1F33E)
TEXT = """
# group: People & Body
# subgroup: person-role
1F9D1 200D 1F33E ; fully-qualified # farmer
1F469 200D 1F33E ; fully-qualified # woman farmer
1F9D1 1F3FB 200D 1F33E ; fully-qualified # farmer: light skin tone
# subgroup: family
1F46A ; fully-qualified # family
# group: Symbols
# subgroup: arrow
2B06 FE0F ; fully-qualified # up arrow
2B06 ; unqualified # up arrow
# group: Food & Drink
1F34E ; fully-qualified # red apple
1F34F ; fully-qualified # green apple
"""


def config(**changes) -> DatasetConfig:
    return DatasetConfig(
        **{"name": "emoji", "image_size": 32, "channels": 3, "num_classes": 9, **changes}
    )


def picture(colour, ending="PNG", size=(40, 30)) -> bytes:
    """An image file of one colour, on nothing."""
    buffer = io.BytesIO()
    Image.new("RGBA", size, colour).save(buffer, ending)
    return buffer.getvalue()


def archive(files: dict[str, bytes]) -> bytes:
    """A .tgz as npm packs it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def font() -> bytes:
    """A colour bitmap font of a person, a woman, a plant and a farmer, who is drawn by joining
    person, joiner and plant."""
    glyphs = {0x1F9D1: "person", 0x1F469: "woman", 0x200D: "joiner", 0x1F33E: "plant"}
    builder = FontBuilder(1024, isTTF=True)
    order = [".notdef", *glyphs.values(), "farmer"]
    builder.setupGlyphOrder(order)
    builder.setupCharacterMap(glyphs)
    builder.setupGlyf({name: _empty() for name in order})
    builder.setupHorizontalMetrics({name: (1024, 0) for name in order})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupPost()
    builder.addOpenTypeFeatures("feature ccmp { sub person joiner plant by farmer; } ccmp;")
    drawn = {"person": (255, 0, 0, 255), "farmer": (0, 0, 255, 255)}
    _add_bitmaps(builder.font, {name: picture(colour) for name, colour in drawn.items()})
    buffer = io.BytesIO()
    builder.save(buffer)
    return buffer.getvalue()


def _empty():
    from fontTools.ttLib.tables._g_l_y_f import Glyph

    return Glyph()


def _add_bitmaps(font, pictures):
    from fontTools.ttLib.tables.E_B_L_C_ import (
        BitmapSizeTable,
        SbitLineMetrics,
        Strike,
        eblc_index_sub_table_1,
    )

    font["CBDT"], font["CBLC"] = newTable("CBDT"), newTable("CBLC")
    font["CBDT"].version = font["CBLC"].version = 3.0
    bitmaps = {}
    for name, data in pictures.items():
        bitmap = bitmaps[name] = cbdt_bitmap_format_18(b"", font)
        bitmap.metrics, bitmap.imageData = BigGlyphMetrics(), data
        for key in ("height", "width", "horiBearingX", "horiBearingY", "horiAdvance"):
            setattr(bitmap.metrics, key, 30)
        for key in ("vertBearingX", "vertBearingY", "vertAdvance"):
            setattr(bitmap.metrics, key, 0)
    font["CBDT"].strikeData = [bitmaps]
    table = eblc_index_sub_table_1(b"", font)
    table.names, table.indexFormat, table.imageFormat = list(bitmaps), 1, 18
    table.firstGlyphIndex = min(map(font.getGlyphID, bitmaps))
    table.lastGlyphIndex = max(map(font.getGlyphID, bitmaps))
    strike = Strike()
    strike.indexSubTables, strike.bitmapSizeTable = [table], BitmapSizeTable()
    font["CBLC"].strikes = [strike]
    size = strike.bitmapSizeTable
    size.hori, size.vert = SbitLineMetrics(), SbitLineMetrics()
    for line in (size.hori, size.vert):
        for key in ("ascender", "descender", "widthMax", "caretSlopeNumerator"):
            setattr(line, key, 0)
        for key in ("caretSlopeDenominator", "caretOffset", "minOriginSB", "minAdvanceSB"):
            setattr(line, key, 0)
        for key in ("maxBeforeBL", "minAfterBL", "pad1", "pad2"):
            setattr(line, key, 0)
    size.colorRef, size.flags, size.bitDepth, size.ppemX, size.ppemY = 0, 1, 32, 30, 30
    size.startGlyphIndex, size.endGlyphIndex = table.firstGlyphIndex, table.lastGlyphIndex


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Four small files of the same layout in the cache, whose sums are the ones asked for; nothing
    of Debian, an empty PATH."""
    monkeypatch.setenv("SRDD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))
    monkeypatch.setattr(fetch_emoji, "ROOT", tmp_path / "no Debian")
    fluent = {f"package/assets/{code}.webp": picture((9, 9, 9, 255), "WEBP") for code in ("2b06",)}
    twitter = {
        "package/img/twitter/64/1f34e.png": picture((200, 0, 0, 255)),
        "package/img/twitter/64/1f34f.png": picture((0, 200, 0, 255)),
        "package/img/twitter/64/sheet.png": b"no image of an emoji",
        "package/img/twitter/other/1f33e.png": b"elsewhere",
    }
    content = {
        LIST: TEXT.encode(),
        FONT: font(),
        FLUENT: archive(fluent),
        TWITTER: archive(twitter),
    }
    folder = emoji_files.packages_folder()
    folder.mkdir(parents=True)
    sources = []
    for source in SOURCES:
        (folder / source.name).write_bytes(content[source])
        sha256 = hashlib.sha256(content[source]).hexdigest()
        monkeypatch.setitem(source.__dict__, "sha256", sha256)
        sources.append(source)
    files = {source: folder / source.name for source in sources}
    sums = {size: emoji.content_of(parts) for size, parts in emoji.arrays(files).items()}
    monkeypatch.setattr(emoji, "CONTENT", sums)
    return files


# ---------------------------------------------------------------- parsing


def test_classes_come_from_the_groups_of_unicode():
    """Catches skin tones, families and unqualified spellings that come in, and a mark of colour
    that makes two emoji of one."""
    assert emoji.listed(TEXT) == {
        FARMER: "People & Body",
        WOMAN_FARMER: "People & Body",
        (0x2B06,): "Symbols",
        (0x1F34E,): "Food & Drink",
        (0x1F34F,): "Food & Drink",
    }


def test_a_font_gives_single_and_joined_glyphs():
    """Catches a joined emoji that is not found, and glyphs without a drawing that are."""
    drawn = emoji.of_font(font())
    assert set(drawn) == {(0x1F9D1,), FARMER}
    assert emoji.draw(drawn[FARMER], 32)[16, 16].tolist() == [0, 0, 255]


def test_an_archive_gives_what_is_named_by_code_points_in_one_folder():
    """Catches images of other folders, and the plain spelling that loses to the marked one."""
    files = {f"a/{name}.png": name.encode() for name in ("2b06-fe0f", "2b06", "sheet", "x/2b06")}
    files |= {"a/2b06.webp": b"", "../a/2b07.png": b"", "b/2b08.png": b""}
    assert emoji.of_archive(archive(files), "a", ".png") == {(0x2B06,): b"2b06"}


def test_drawing_is_on_white_and_whole():
    """Catches a crop, black corners, and an image that is stretched to a square."""
    image = emoji.draw(picture((0, 0, 0, 255), size=(64, 32)), 32)
    assert image.shape == (32, 32, 3)
    assert (image[:4] == 255).all() and (image[-4:] == 255).all() and (image[12:20] == 0).all()
    assert (emoji.draw(picture((0, 0, 0, 0)), 32) == 255).all()


# ---------------------------------------------------------------- split


def test_a_concept_is_one_for_all_genders():
    """Catches a woman farmer in training beside a held-out farmer."""
    man = (0x1F468, 0x200D, 0x1F33E)
    runner, her = (0x1F3C3,), (0x1F3C3, 0x200D, 0x2640)
    assert emoji.concept(FARMER) == emoji.concept(WOMAN_FARMER) == emoji.concept(man)
    assert emoji.concept(runner) == emoji.concept(her) != emoji.concept(FARMER)


def test_shares_of_the_sides():
    """Catches a hash that is not read as a share."""
    keys = [(0x1F300 + i,) for i in range(4000)]
    counts = Counter(map(emoji.side_of, keys))
    assert abs(counts["test"] / 4000 - 0.2) < 0.02
    assert abs(counts["val"] / 4000 - 0.04) < 0.01


def test_a_test_image_near_a_trained_one_is_dropped():
    """Catches the same drawing under two code points on two sides, and one that is merely like
    another."""
    small = np.full((5, 768), 100, np.uint8)
    small[1], small[2], small[3] = 109, 200, 111  # 9, 100 and 11 from the first
    sides = np.array([0, 2, 2, 2, 1], np.uint8)
    assert emoji.without_near(sides, small).tolist() == [0, 3, 2, 2, 1]


# ---------------------------------------------------------------- the verb


def test_packages_that_are_there_are_drawn_without_any_tool(packages, monkeypatch):
    """Catches a download of what lies here, labels out of step with images, a damaged file of
    images that is read."""
    paths = fetch_emoji.make_emoji()
    assert [path.name for path in paths] == ["emoji_32.safetensors", "emoji_64.safetensors"]
    for size in SIZES:
        assert emoji_files.absent(size) is None
        parts = emoji.read_emoji(size)
        assert sum(len(labels) for _, labels in parts.values()) == 4
        for images, labels in parts.values():
            middle = images[:, :, size // 2, size // 2].tolist()
            names = [list(emoji.CLASSES.values())[label] for label in labels]
            expected = {"People": [0, 0, 255], "Symbols": [9, 9, 9]}
            apples = ([200, 0, 0], [0, 200, 0])
            for name, colour in zip(names, middle):
                assert colour == expected.get(name, colour) and (name != "Food" or colour in apples)
    assert not list(paths[0].parent.glob(".*"))
    paths[0].write_bytes(paths[0].read_bytes()[:-1])
    with pytest.raises(ConfigError, match="emoji_32.safetensors is damaged; run `./run"):
        load(config())


def test_images_that_come_out_other_are_not_kept(packages, monkeypatch):
    """Catches a set that follows from the version of a library and has the name of another."""
    monkeypatch.setattr(emoji, "CONTENT", {32: "0" * 64, 64: "0" * 64})
    with pytest.raises(ConfigError, match="come out other than they should"):
        fetch_emoji.make_emoji()
    assert emoji_files.absent(32)


def test_missing_tools_are_named_with_the_commands(packages):
    """Catches a traceback, and a line that does not say what to type and where to put it."""
    packages[TWITTER].unlink()
    with pytest.raises(ConfigError) as error:
        fetch_emoji.make_emoji()
    assert "npm: not installed" in str(error.value)
    assert "`npm pack emoji-datasource-twitter@16.0.0`" in str(error.value)
    assert "apt-get" not in str(error.value) and str(packages[TWITTER].parent) in str(error.value)
    packages[FONT].write_bytes(b"another release")
    with pytest.raises(ConfigError) as error:
        fetch_emoji.make_emoji()
    text = str(error.value)
    assert "apt-get and dpkg-deb and npm: not installed" in text and "\n" not in text
    assert "apt-get download fonts-noto-color-emoji &&" in text


@pytest.fixture
def tools(packages, tmp_path, monkeypatch):
    """An npm that packs what lies in a folder, and an apt-get that fails."""
    place, store = tmp_path / "bin", tmp_path / "store"
    place.mkdir()
    store.mkdir()
    scripts = {
        "npm": f'for last; do :; done; echo "$last" >> {store}/asked; cp {store}/*.tgz .',
        "apt-get": "echo 'E: Unable to locate package' >&2; exit 100",
        "dpkg-deb": "exit 1",
    }
    for name, script in scripts.items():
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")
    return store


def test_a_package_is_fetched_once_and_checked(packages, tools):
    """Catches a package of another content that is used or kept, and a second download."""
    whole = packages[FLUENT].read_bytes()
    packages[FLUENT].rename(tools / FLUENT.name)
    fetch_emoji.make_emoji()
    fetch_emoji.make_emoji()
    assert (tools / "asked").read_text().split() == [FLUENT.package]
    assert packages[FLUENT].read_bytes() == whole
    packages[FLUENT].unlink()
    (tools / FLUENT.name).write_bytes(whole + b"x")
    with pytest.raises(ConfigError, match=f"another content .*{FLUENT.sha256}"):
        fetch_emoji.make_emoji()
    assert sorted(path.name for path in packages[LIST].parent.iterdir()) == sorted(
        path.name for path in packages.values() if path != packages[FLUENT]
    )


def test_a_tool_that_fails_is_quoted(packages, tools):
    """Catches a failure of apt-get that is told as a wrong sum."""
    packages[LIST].unlink()
    with pytest.raises(ConfigError, match="unicode-data: E: Unable to locate .*; run `apt-get"):
        fetch_emoji.make_emoji()


@pytest.mark.skipif(not Path("/usr/bin/dpkg-deb").is_file(), reason="no dpkg-deb")
def test_one_file_is_taken_out_of_a_debian_package(packages, tools, tmp_path):
    """Catches a package that is unpacked under another name, and one that lacks the file."""
    root = tmp_path / "root"
    file = root / LIST.installed
    file.parent.mkdir(parents=True)
    (root / "DEBIAN").mkdir()
    control = (
        "Package: unicode-data\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
    )
    (root / "DEBIAN" / "control").write_text(control)
    file.write_bytes(packages[LIST].read_bytes())
    deb = tools / "unicode-data.deb"
    build = ["/usr/bin/dpkg-deb", "--root-owner-group", "-b", str(root), str(deb)]
    subprocess.run(build, check=True, capture_output=True)
    bin_folder = tmp_path / "bin"
    (bin_folder / "dpkg-deb").unlink()
    (bin_folder / "apt-get").write_text(f"#!/bin/sh\ncp {deb} .\n")
    packages[LIST].unlink()
    fetch_emoji.make_emoji()
    assert packages[LIST].read_text() == TEXT
    packages[FONT].unlink()
    with pytest.raises(ConfigError, match="unicode-data.deb: holds no .*NotoColorEmoji.ttf"):
        fetch_emoji.make_emoji()


def test_the_verb_is_one_line_of_bad_input(tmp_path):
    """Catches a traceback for a set that is none, and a name that is passed on unread."""
    for words, expected in ((["emojy"], "did you mean 'emoji'"), ([], "give one set of images")):
        done = subprocess.run(
            [sys.executable, "-m", "bench", "data", *words],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 1 and expected in done.stderr
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_help_of_the_verb_is_a_command():
    """Catches half of a quotation mark in what a user copies."""
    command = [sys.executable, "-m", "bench", "data", "-h"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "./run data NAME (there are: emoji, cifar10)\n" and not done.returncode


# ---------------------------------------------------------------- the study


def test_a_study_without_its_emoji_says_what_to_run(tmp_path, monkeypatch):
    """Catches a run whose first job fails, or a plan that wants the images."""
    monkeypatch.setenv("SRDD_CACHE", str(tmp_path))
    plan = load_study(ROOT / "workflows" / "config" / "emoji.yaml")
    problem, *_ = missing_files(plan)
    assert problem.startswith("dataset.name: emoji: ") and "run `./run data emoji` once" in problem
    with pytest.raises(ConfigError, match="run `./run data emoji` once"):
        load(config())


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"image_size": 128}, "dataset.image_size: 128: emoji are drawn at 32 and 64"),
        ({"channels": 1}, "dataset.channels: 1: emoji has 3"),
        ({"num_classes": 8}, "dataset.num_classes: 8 does not fit emoji, which has 9 classes"),
    ],
)
def test_what_emoji_are_is_known_at_planning(changes, words, tmp_path):
    """Catches a size at which nothing is drawn that fails after the first trainings."""
    dataset = {"name": "emoji", "image_size": 32, "channels": 3, "num_classes": 9, **changes}
    study = {"study": "mine", "like": "emoji", "dataset": dataset, "features": {"name": "mine"}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**study, "reduced": "a test"}))
    with pytest.raises(ConfigError, match=words):
        load_study(path)


# ---------------------------------------------------------------- the real ones


@pytest.mark.skipif(emoji_files.absent(64) is not None, reason="`./run data emoji` was not run")
def test_the_real_emoji():
    """Catches another set of images under the name that results are published with."""
    splits = load(config(image_size=64))
    assert [len(splits[name]) for name in ("train", "val", "test")] == [3918, 205, 1111]
    for images in splits.values():
        assert set(images.labels_N.tolist()) == set(range(9))
    few = load(config(image_size=64, train_images=500))
    assert len(few["train"]) == 500
    assert np.array_equal(few["test"].images_NCHW, splits["test"].images_NCHW)
