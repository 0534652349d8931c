"""docs/settings.md: made from the schema, current, and complete."""

import re
import subprocess
import sys
from pathlib import Path

from bench.study import rooms, settings_page
from bench.study.plan import load_study

ROOT = Path(__file__).resolve().parent.parent
# their descriptions stand in srdd/config.py
LIBRARY = ("Sizes of the tokenizer", "Model", "Sampler")


def test_the_page_is_current():
    """Catches a setting whose page says something else than the schema."""
    current = settings_page.PAGE.read_text(encoding="utf-8") == settings_page.page()
    assert current, "docs/settings.md is not current: run `python -m bench settings --write`"


def test_the_program_prints_the_page():
    """Catches a program that is not listed, or prints something else."""
    words = [sys.executable, "-m", "bench", "settings"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == settings_page.page(), done.stderr


def test_every_room_has_a_section_and_every_key_a_meaning():
    """Catches a room, or a key of the schema, that the page passes over."""
    page = settings_page.page()
    sections = re.split(r"^##+ ", page, flags=re.M)
    titles = {section.splitlines()[0] for section in sections if section}
    assert set(rooms.names()) <= titles
    for section in sections:
        if section.splitlines()[:1] and section.splitlines()[0] not in LIBRARY:
            assert "|  |" not in section, section
    assert "`dataset`" in page and "`max_rounds`" in page and "<name>` in" in page


def test_words_for_what_is_legal():
    """Catches limits that are lost between the schema and the page."""
    page = settings_page.page()
    for row in (
        "| `channels` | `1`, `3` | *needed* |",
        "| `val_share` | number above 0 below 0.5 | `0.05` |",
        "| `name` | small letters, digits and _ | *needed* |",
        "| `history` | whole number from 0 to 1 000, or null | `null` |",
        "| `warmup` | whole number from 0 to 1 000 000 000 | *follows* |",
        "| `variants` | mapping: [a variant](#a-variant) | *needed* |",
    ):
        assert row in page, row


def test_knobs_of_a_function_are_its_keyword_only_parameters(tmp_path):
    """Catches a setting of a rule that the page does not list."""
    file = tmp_path / "rules.py"
    file.write_text(
        'def select_mine(drawn, *, share: Share = 0.5, many: int = 3):\n    """Mine."""\n'
    )
    knobs = list(settings_page._knobs(settings_page._definition(file, "select_mine")))
    assert knobs == [
        "`share`: number from 0 to 1, default `0.5`",
        "`many`: whole number, default `3`",
    ]


def test_no_word_is_broken():
    """Catches a name that was quoted in its middle, and one that a line break cut."""
    page = settings_page.page()
    assert not re.search(r"`\w`\w|\w- \w+\(", page) and "super- " not in page


def test_the_study_at_its_head_can_be_planned(tmp_path):
    """Catches an example that is refused as it stands."""
    text = re.search(r"```yaml\n(.*?)```", settings_page.page(), re.S)[1]
    for name in ("a", "b"):  # of its folder of images; which are looked at by a job
        (tmp_path / "photos" / name).mkdir(parents=True)
    path = tmp_path / "photos.yaml"
    path.write_text(text.replace("~/photos", str(tmp_path / "photos")), encoding="utf-8")
    variants = load_study(path).study.suites["main"].variants
    assert "SDD, w 2" in variants and "SRDD threshold" not in variants
