"""README and docs: their numbers come from committed results, their links lead somewhere, and what
newcomers copy from them works."""

import csv
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench.report import pages
from bench.runtime.rows import RUN_COLUMNS, write_rows
from bench.speed import benchmark_start
from bench.speed.growing import COLUMNS, KEY
from bench.study.plan import load_study

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*pages.pages(), ROOT / "CONTRIBUTING.md"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
TABLE = """\
| Variant | FID, paired | a \\| b |
| --- | --- | --- |
| VAR | 1.0 ± 0.1 | 2 |
| SDD | 3.0 ± 0.1 | 4 |
| SRDD | 5.0 ± 0.1 | 2 |

First of 5 % words. Second. Third.

<details><summary>Details</summary>

- Much more.

</details>
"""


def fill(root, place):
    """What a page with one place becomes."""
    (root / "README.md").write_text(place, encoding="utf-8")
    return pages.filled(root / "README.md", root)


@pytest.fixture
def published(tmp_path):
    """A project with one published table and three jobs."""
    folder = tmp_path / "results" / "mine" / "published"
    (folder / "tables").mkdir(parents=True)
    (folder / "tables" / "main_scores.md").write_text(TABLE, encoding="utf-8")
    jobs = (("a", "12:00:00", 120), ("b", "12:01:00", 120), ("c", "15:00:00", 60))
    with open(folder / "runs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, RUN_COLUMNS)
        writer.writeheader()
        for name, time, wall_s in jobs:
            row = {"run_id": f"train/{name}", "stage": "train", "status": "ok"}
            row |= {"started_at": f"2026-01-01T{time}+00:00", "wall_s": wall_s}
            row |= {"config_json": "{}", "config_hash": "0", "source_hash": "0", "dirty": "False"}
            writer.writerow(row)
    return tmp_path


def test_numbers_of_the_pages_are_those_of_the_committed_results():
    """Catches a number that no committed result stands behind, a place that was left empty, and
    results that were published while a page kept the old ones."""
    for page in pages.pages():
        text = page.read_text(encoding="utf-8")
        assert text == pages.filled(page), f"{page.name}: run `python -m bench pages --write`"
        assert pages.NOT_YET not in text
    assert "<!-- published " in (ROOT / "README.md").read_text(encoding="utf-8")


def test_minutes_of_core_suites_are_those_of_a_reproduction(published):
    """Catches a time of every suite that stands for that of the core ones alone."""
    config = published / "workflows" / "config"
    (config / "suites").mkdir(parents=True)
    (config / "suites" / "shared.yaml").write_text("core: false\n")
    (config / "mine.yaml").write_text("like: ./above.yaml\n")
    (config / "above.yaml").write_text(
        "take: [shared]\nsuites: {turned: {core: false}, shared: {core: true}}\n"
    )
    suites = {"turned": ["train/a"], "shared": ["train/b"], "usual": ["train/b"]}
    about = {"suites": {name: {"runs": jobs} for name, jobs in suites.items()}}
    with open(published / "results" / "mine" / "published" / "runs.csv", "a", newline="") as file:
        row = {"run_id": "study/mine", "stage": "study", "status": "ok"}
        row |= {"config_hash": "0", "source_hash": "0", "dirty": "False"}
        writer = csv.DictWriter(file, RUN_COLUMNS)
        writer.writerow({**row, "config_json": json.dumps(about)})
    place = "<!-- minutes mine{} -->7<!-- /minutes -->"
    assert fill(published, place.format(" core")).endswith(">2<!-- /minutes -->")
    assert fill(published, place.format("")).endswith(">4<!-- /minutes -->")
    with pytest.raises(ValueError, match="give STUDY, then core"):
        fill(published, place.format(" cor"))
    # beside one that published another suite: in one column, the first study's numbers first
    (config / "suites" / "shared.yaml").write_text("core: false\nclaim: is it so\n")
    (config / "suites" / "turned.yaml").write_text("claim: is it not\n")
    again = published / "results" / "again" / "published" / "runs.csv"
    again.parent.mkdir(parents=True)
    rows = (published / "results" / "mine" / "published" / "runs.csv").read_text()
    again.write_text(rows.replace("usual", "other").replace(",120,", ",600,"))
    (config / "suites" / "other.yaml").write_text("claim: is it else\n")
    table = fill(published, "<!-- suites mine+again -->\n<!-- /suites -->")
    assert "| `shared` | is it so | 2 |" in table and "| `other` | is it else | 10 |" in table
    assert "| What it asks | mine, minutes |" in table and "two jobs at a time | 4 + 12 |" in table


def test_the_readme_is_short():
    """Catches a README that grows: what it says at length belongs into docs."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 135


def test_what_is_asked_of_a_table_stands_in_any_order(published):
    """Catches an order that the words of the usage do not name, and a place that fails because of
    it."""
    parts = ("columns: Variant", "where: a \\| b = 2", "note: 1")
    shown = set()
    for order in itertools.permutations(parts):
        asked = f"mine/main_scores {' '.join(order)}"
        shown.add(
            fill(published, f"<!-- published {asked} -->\n<!-- /published -->").split("\n", 1)[1]
        )
    assert shown == {
        "| Variant |\n| --- |\n| VAR |\n| SRDD |\n\nFirst of 5 % words.\n<!-- /published -->"
    }


@pytest.mark.parametrize(
    "asked,words",
    [
        ("note: two", "note: 'two' is no number"),
        ("where: Variant", "where: 'Variant' names no value"),
        ("note: 1 note: 2", "note, note: one stands twice"),
        ("column: Variant", "'mine/main_scores column: Variant': give STUDY/TABLE"),
    ],
)
def test_what_cannot_be_asked_of_a_table_is_said(published, asked, words):
    """Catches a usage without the word that is wrong."""
    with pytest.raises(ValueError, match=words):
        fill(published, f"<!-- published mine/main_scores {asked} -->\n<!-- /published -->")


def test_a_table_can_be_shown_in_short(published):
    """Catches a column that moves its numbers, and a caption that is cut at a number."""
    asked = "mine/main_scores columns: a \\| b | Variant note: 2"
    place = f"<!-- published {asked} -->\n<!-- /published -->"
    shown = fill(published, place).splitlines()[1:-1]
    assert shown == [
        "| a \\| b | Variant |",
        "| --- | --- |",
        "| 2 | VAR |",
        "| 4 | SDD |",
        "| 2 | SRDD |",
        "",
        "First of 5 % words. Second.",
    ]


def test_a_row_without_anything_in_the_columns_that_are_shown_is_left_out(published):
    """Catches a row of dashes, whose only number stands in a column that is not shown."""
    table = published / "results" / "mine" / "published" / "tables" / "main_scores.md"
    table.write_text(
        "| Variant | FID | IS |\n| --- | --- | --- |\n| VAR | 2 | - |\n| Floor | - | 3 |\n"
    )
    place = "<!-- published mine/main_scores columns: Variant | FID -->\n<!-- /published -->"
    assert fill(published, place).splitlines()[3:-1] == ["| VAR | 2 |"]


def test_a_row_of_what_failed_stays_in_a_table_in_short(published):
    """Catches a variant that diverged, of which a page then says nothing."""
    table = published / "results" / "mine" / "published" / "tables" / "main_scores.md"
    rows = ["| VAR | 2 | 3 | ok |", "| SDD | - | - | seed 0 diverged |", "| Floor | - | 3 | ok |"]
    table.write_text(
        "\n".join(["| Variant | FID | IS | Status |", "| --- | --- | --- | --- |", *rows])
    )
    place = "<!-- published mine/main_scores columns: Variant | FID -->\n<!-- /published -->"
    assert fill(published, place).splitlines()[3:-1] == ["| VAR | 2 |", "| SDD | - |"]


@pytest.mark.parametrize(
    "asked, cell",
    [
        ("mine/main_scores: SDD | FID, paired", "3.0 ± 0.1"),
        ("mine/main_scores: SRDD | a \\| b", "2"),
        ("theirs/main_scores: SDD | FID, paired", pages.NOT_YET),
    ],
)
def test_one_cell_of_a_table_stands_in_a_sentence(published, asked, cell):
    """Catches a number in prose of another row or column than it says."""
    filled = fill(published, f"FID <!-- cell {asked} -->9<!-- /cell --> here.")
    assert filled == f"FID <!-- cell {asked} -->{cell}<!-- /cell --> here."


@pytest.mark.parametrize(
    "asked, left", [("Variant = SDD", ["SDD"]), ("a \\| b = 4 | 2", ["VAR", "SDD", "SRDD"]),
                    ("a \\| b = 2", ["VAR", "SRDD"])]
)  # fmt: skip
def test_a_table_can_be_shown_by_row(published, asked, left):
    """Catches rows of another suite beside those that are asked for, and a head that is lost."""
    place = f"<!-- published mine/main_scores where: {asked} note: 1 -->\n<!-- /published -->"
    head, _, *rows = fill(published, place).splitlines()[1:-3]
    assert head == "| Variant | FID, paired | a \\| b |"
    assert [row.split()[1] for row in rows] == left


def test_a_table_is_shown_whole_and_twice_the_same(published):
    """Catches a page that changes each time it is filled."""
    place = "before\n<!-- published mine/main_scores -->\nold\n<!-- /published -->\nafter\n"
    once = fill(published, place)
    assert TABLE.strip().replace("<details>", pages.DETAILS) in once
    assert fill(published, once) == once


def test_minutes_count_no_pause_and_no_job_twice(published):
    """Catches jobs side by side counted twice, and the night between two runs counted."""
    place = "takes <!-- minutes mine -->7<!-- /minutes --> minutes"
    assert fill(published, place) == "takes <!-- minutes mine -->4<!-- /minutes --> minutes"


@pytest.mark.parametrize(
    "place, words",
    [
        ("<!-- published mine/main_scores columns: FID -->\n<!-- /published -->", "column 'FID'"),
        (
            "<!-- published mine/main_scores where: Variant = SD -->\n<!-- /published -->",
            "Variant 'SD'; did you mean 'SDD'",
        ),
        (
            "<!-- published mine/main_scores where: Suite = SDD -->\n<!-- /published -->",
            "column 'Suite'",
        ),
        ("<!-- published main_scores -->\n<!-- /published -->", "give STUDY/TABLE"),
        ("<!-- cell mine/main_scores: SD | a -->4<!-- /cell -->", "Variant 'SD'; did you mean"),
        ("<!-- cell mine/main_scores: SDD | b -->4<!-- /cell -->", "column 'b'"),
        ("<!-- cell mine/main_scores: SDD -->4<!-- /cell -->", "give STUDY/TABLE: ROW | COLUMN"),
        ("<!-- minute mine -->4<!-- /minute -->", "did you mean 'minutes'"),
        ("<!-- minutes mine -->4", "1 opened, 0 closed"),
    ],
)
def test_a_place_that_cannot_be_filled_is_named(published, place, words):
    """Catches a misspelt place that stays as it is and is never compared again."""
    with pytest.raises(ValueError, match=rf"^README.md: <!-- .*{re.escape(words)}") as error:
        fill(published, place)
    assert "\n" not in str(error.value)


def test_the_program_names_what_is_not_current(published, monkeypatch, capsys):
    """Catches a check that passes over old numbers, and a writing that leaves them."""
    (published / "README.md").write_text("<!-- minutes mine -->7<!-- /minutes -->")
    monkeypatch.setattr(pages, "ROOT", published)
    for words, status, said in (([], 1, "not current: README.md"), (["--write"], 0, "filled")):
        monkeypatch.setattr(sys, "argv", ["pages", *words])
        with pytest.raises(SystemExit) as ended:
            pages.main()
        assert int(ended.value.code) == status and said in capsys.readouterr().out
    assert (published / "README.md").read_text() == "<!-- minutes mine -->4<!-- /minutes -->"


# ---------------------------------------------------------------- links


def anchors(page):
    """The headings of a page, as a code host names them."""
    text = CODE.sub(lambda match: match[0].strip("`\n").replace("#", ""), page.read_text("utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    """Catches a link to a page, a heading, a picture or a file that is not there."""
    for target in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        place = page.parent / file if file else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def test_every_page_of_the_docs_is_reached_from_the_readme():
    """Catches a page that a reader can only find by listing the folder."""
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        reached.add(page)
        links = LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))
        files = {(page.parent / link.partition("#")[0]).resolve() for link in links}
        left += [file for file in files if file.suffix == ".md" and file not in reached]
    assert set((ROOT / "docs").glob("*.md")) <= reached


# ---------------------------------------------------------------- what newcomers copy


def blocks(page, language):
    """The pieces of code of a page, in their order."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_study_of_own_images_can_be_planned(tmp_path):
    """Catches a page that newcomers copy, and whose study is refused; and a quick trial that
    changes nothing."""
    whole, trial, no_classes = blocks("own-images.md", "yaml")
    example = ROOT / "workflows" / "config" / "examples" / "own_images.yaml"
    assert yaml.safe_load(whole) == yaml.safe_load(example.read_text(encoding="utf-8"))
    (tmp_path / "photos.yaml").write_text(whole.replace("~/photos", str(tmp_path)))
    (tmp_path / "trial.yaml").write_text((tmp_path / "photos.yaml").read_text() + trial)
    plans = [load_study(tmp_path / name) for name in ("photos.yaml", "trial.yaml")]
    assert {"VAR", "SDD", "SRDD"} <= set(plans[0].study.suites["main"].variants)
    trained = [
        {job.config["training"]["steps"] for job in plan.jobs.values() if job.stage == "train"}
        for plan in plans
    ]
    assert trained[1] == {30} != trained[0]
    kept = [
        line for line in whole.splitlines() if line.split(":")[0] in ("study", "like", "reduced")
    ]
    text = "\n".join([*kept, no_classes]).replace("~/photos", str(tmp_path))
    (tmp_path / "no_classes.yaml").write_text(text)
    suites = load_study(tmp_path / "no_classes.yaml").study.suites
    assert set(suites["main_unconditional"].variants) == {"VAR", "SDD", "SRDD"}


def test_the_mask_of_the_docs_is_complete(tmp_path):
    """Catches a page that newcomers follow word by word, and whose mask is then refused."""
    for name in ("srdd", "bench", "workflows"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "srdd" / "masks.py", "a", encoding="utf-8") as file:
        file.write(f"\n\n{blocks('own-variants.md', 'python')[0]}")
    (tmp_path / "mask.yaml").write_text(blocks("own-variants.md", "yaml")[1])
    words = [sys.executable, "-B", "-m", "bench", "plan", "mask.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "train/first_and_own-" in done.stdout, done.stderr


# ---------------------------------------------------------------- benchmarks


def test_memory_of_many_images_goes_on_as_it_grew(tmp_path):
    """Catches peaks of one side under another, and a slope of other images than were measured."""
    peaks = {("images", 600): 100, ("images", 2400): 101, ("images", 300): 99}
    peaks |= {("memory", 500): 200, ("memory", 2000): 215}
    rows = [
        {"against": against, "variant": "encode", "size": size, "peak_bytes": peak * 2**20}
        for (against, size), peak in peaks.items()
    ]
    rows += [{"against": "depth", "variant": "VAR", "size": 2}]
    rows += [{**row, "variant": "sample", "peak_bytes": 7 * 2**20} for row in rows[:-1]]
    folder = tmp_path / "results" / "benchmarks"
    write_rows(folder / "growth_cpu.csv", rows, COLUMNS, KEY)
    text = fill(tmp_path, "<!-- peaks -->\n<!-- /peaks -->")
    head, _, encode, sample = [line.split(" | ") for line in text.splitlines()[1:-1]]
    assert head[1:5] == ["600 of 64 px", "2400 of 64 px", "500 of 256 px", "2000 of 256 px"]
    # 15 MiB for 1 500 images are 10 KiB each, and 480 MiB more for 48 000 more
    assert encode[1:] == ["100", "101", "200", "215", "10.2", "695 |"]
    assert sample[1:] == ["7", "7", "7", "7", "0.0", "7 |"]


@pytest.mark.parametrize("other, named", [("H100", "H100"), ("H200", "H100 and H200")])
def test_times_are_those_of_the_devices_of_their_rows(tmp_path, other, named):
    """Catches times of another GPU, or of two, below the name of one that was written by hand."""
    folder = tmp_path / "results" / "benchmarks"
    for name, device in (("gpu_cuda", "H100"), ("public_cuda", other)):
        rows = [{"what": what, "device": device} for what in ("sampling", "training")]
        write_rows(folder / f"{name}.csv", rows, ["what", "device"], ["what"])
    text = fill(tmp_path, "<!-- device gpu_cuda public_cuda --><!-- /device -->")
    assert f"-->{named}<!--" in text


def test_what_planning_costs_stands_with_its_jobs_and_its_spread(tmp_path):
    """Catches a time without its range, and one of a study whose size nobody knows."""
    folder = tmp_path / "results" / "benchmarks"
    row = {"jobs": 128, "cpu_s": 2.0, "cpu_low_s": 1.9, "cpu_high_s": 2.25}
    rows = [{"what": "planning", **row}, {"what": "torch", **row, "jobs": None}]
    write_rows(folder / "start_cpu.csv", rows, benchmark_start.COLUMNS, benchmark_start.KEY)
    text = fill(tmp_path, "<!-- start -->\n<!-- /start -->")
    assert "| planning | 128 | 2.00 (1.90 to 2.25) |" in text
    assert "| torch | - | 2.00 (1.90 to 2.25) |" in text
