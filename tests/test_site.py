"""The site of published results: its numbers, its links, what damaged results get."""

import csv
import json
import os
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest
from site_pages import committed_site, is_dead, links_of, pages_of, tables_of, tree_of
from small_study import build
from test_two_extractors import asked, differing

from bench.report.caption import Caption
from bench.report.cells import number, write_table
from bench.report.cells import shown as showing
from bench.report.drawing import write_figure
from bench.report.making import run_verb
from bench.site.build import MARK, main, make_site
from bench.site.tables import read_table

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = sorted((ROOT / "results").glob("*/published"))
STUDIES = [folder.parent.name for folder in PUBLISHED]
NUMBER = re.compile(r"[+-]?[0-9][0-9,]*\.?[0-9]*(e[+-]?[0-9]+)?")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of what is committed."""
    return committed_site(tmp_path_factory)


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def behind(row, title):
    """The number of a csv that a cell under a title stands for, as text."""
    return next(row[name] for name in (title, f"{title} mean", f"{title} low") if name in row)


def rounds_to(text, value):
    """Whether a number as it is written is a value rounded."""
    match = NUMBER.match(text)
    digits = match[0].replace(",", "")
    mantissa, _, exponent = digits.partition("e")
    places = len(mantissa.partition(".")[2])
    return abs(float(digits) - value) <= 0.5001 * 10.0 ** (int(exponent or 0) - places)


@pytest.mark.parametrize("study", STUDIES)
def test_every_number_of_a_table_stands_in_its_csv(site, study):
    """Catches a number that was rounded wrongly, moved to another row or column, or left out."""
    shown = tables_of(site / "results" / study / "index.html")
    files = sorted((ROOT / "results" / study / "published" / "tables").glob("*.csv"))
    left_out = [path for path in files if path.stem not in shown]
    for path in left_out:  # suites ask for the same claims
        twins = [other for other in files if other.read_bytes() == path.read_bytes()]
        assert {other.stem for other in twins} & set(shown) and path.stem.endswith("_claims"), path
    for path in (path for path in files if path not in left_out):
        titles, cells = shown[path.stem]
        rows = rows_of(path)
        assert len(rows) == len(cells)
        columns = {re.sub(" (mean|half|low|high)$", "", name) for name in rows[0]}
        assert columns == set(titles), path
        for row, line in zip(rows, cells):
            for title, cell in zip(titles, line):
                text, number = cell.text(strip=True), behind(row, title)
                if "data-order" in cell.attributes:
                    assert float(cell.attributes["data-order"]) == float(number)
                    assert rounds_to(text, float(number)), f"{path}: {title}: {text}, {number}"
                else:
                    assert text == number.strip(), f"{path}: {title}"


@pytest.mark.parametrize("study", STUDIES)
def test_scores_beside_images_stand_in_the_metrics(site, study):
    """Catches a score of another variant or training seed beside the images."""
    page = site / "results" / study / "walls" / "compare.js"
    published = ROOT / "results" / study / "published"
    if not page.is_file():
        assert not (site / "results" / study / "images.html").exists()
        return
    text = page.read_text(encoding="utf-8")
    suites = json.loads(text.removeprefix("window.COMPARED = ").rstrip().removesuffix(";"))
    variants = {(row["suite"], row["variant"]): row for row in rows_of(published / "variants.csv")}
    values_of = defaultdict(set)
    for row in rows_of(published / "metrics.csv"):
        if row["value"] and not row["step"]:
            values_of[row["metric"], row["run_id"]].add(float(row["value"]))
    count = 0
    for suite, by_variant in suites.items():
        for variant, entry in by_variant.items():
            names = variants[suite, variant]
            for seed, of_seed in entry["seeds"].items():
                jobs = json.loads(names["jobs"])[seed]
                for metric, shown in of_seed["scores"].items():
                    values = set().union(*(values_of[metric, job] for job in jobs))
                    assert any(rounds_to(shown, value) for value in values), (variant, metric)
                    count += 1
    assert count


def test_no_link_leads_nowhere(site):
    """Catches a page that was renamed, a figure that was not copied and a heading that is gone."""
    pages = pages_of(site)
    assert {f"results/{study}/index.html" for study in STUDIES} <= set(pages)
    assert "docs/extending.html" in pages
    dead = [
        f"{page}: {link}"
        for page in pages
        for link in links_of(site / page)
        if page != "404.html" and is_dead(site, page, link)
    ]
    assert not dead


def test_claims_of_all_studies_stand_on_the_front_page(site):
    """Catches a claim or an extractor that is left out, and a verdict under another study."""
    table = tree_of(site / "index.html").css_first("table#claims")
    titles = [head.text(strip=True).split(" (")[0] for head in table.css("thead th")]
    shown = {}
    for row in table.css("tbody tr"):
        cells = [" ".join(cell.text(separator=" ").split()) for cell in row.css("td")]
        shown[cells[0]] = dict(zip(titles, cells))
    rows = rows_of(ROOT / "results" / "claims.csv")
    assert {row["claim"] for row in rows} == set(shown)
    for row in rows:
        first = row["first"] == "True"
        words = row["verdict"] if first else f"by {row['extractor']}: {row['verdict']}"
        assert words in shown[row["claim"]][row["study"]]
    for folder in PUBLISHED:
        for path in folder.glob("tables/*_claims.csv"):
            for row in rows_of(path):
                assert row["Holds here"] in shown[row["Claim"]][folder.parent.name]


# ---------------------------------------------------------------- bad input

DAMAGE = {
    "no metrics": ("metrics.csv", None),
    "half of the runs": ("runs.csv", 3000),
    "half of the images": ("images.npz", 5000),
    "no images": ("images.npz", None),
    "no variants": ("variants.csv", None),
    "no figure": ("figures/main_fid.png", None),
    "half a figure": ("figures/main_fid.png", 2000),
    "no svg": ("figures/main_fid.svg", None),
    "no caption": ("figures/main_fid.rst", None),
    "empty table": ("tables/main_scores.csv", 0),
    "half a header": ("tables/main_scores.csv", 400),
    "half a row": ("tables/main_scores.csv", 1000),
    "no markdown": ("tables/main_scores.md", None),
}


def said(capsys, *words):
    """The one line that the command ends with."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    assert not capsys.readouterr().err
    line = str(ended.value)
    assert line.startswith("error: ") and "\n" not in line
    return line


@pytest.fixture
def copied(tmp_path):
    """A folder of results with one published study."""
    folder = tmp_path / "results" / "fashion8" / "published"
    shutil.copytree(ROOT / "results" / "fashion8" / "published", folder)
    return folder


@pytest.mark.parametrize("file, kept", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_study_is_one_line(copied, tmp_path, capsys, file, kept):
    """Catches a traceback, a page without its numbers, and half a site."""
    path = copied / file
    data = path.read_bytes()
    path.unlink() if kept is None else path.write_bytes(data[:kept])
    line = said(capsys, tmp_path / "site", "--results", tmp_path / "results")
    assert str(path) in line
    assert not (tmp_path / "site").exists()


def test_a_table_that_lost_whole_rows_is_named(copied, tmp_path, capsys):
    """Catches a csv that was cut at the end of a line, and a page with half of its rows."""
    path = copied / "tables" / "main_scores.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]))
    line = said(capsys, tmp_path / "site", "--results", tmp_path / "results")
    assert str(path) in line and f"{len(lines) - 3} rows" in line and str(len(lines) - 1) in line


def test_a_row_that_markdown_leaves_out_is_on_the_page(tmp_path):
    """Catches a whole table that is called cut off: a row of which the shown columns are empty
    stands in the csv alone, as real images without classes do."""
    numbers = [number(0.5), number(None), number(0.25)]
    values = {"Variant": ["a", "b", "c"], "FID": numbers, "Recall": [number(x) for x in (1, 2, 3)]}
    table = showing(pd.DataFrame(values), "Variant", "FID")
    write_table(tmp_path / "s_scores", table, Caption("Scores."))
    path = tmp_path / "s_scores.csv"
    assert "| b |" not in path.with_suffix(".md").read_text()
    assert [row[0].text for row in read_table(path, "scores").rows] == ["a", "b", "c"]
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match="has 2 rows, its .md 2 and leaves out 1; publish"):
        read_table(path, "scores")


def test_words_that_are_no_utf8_are_named(copied, tmp_path, capsys):
    """Catches an error that does not say which of a hundred files to look at."""
    path = copied / "tables" / "main_scores.rst"
    path.write_bytes(b"\xff\xfe")
    assert str(path) in said(capsys, tmp_path / "site", "--results", tmp_path / "results")
    path.write_text(".. figure::\n\n   x\n")
    assert str(path) in said(capsys, tmp_path / "site", "--results", tmp_path / "results")


def test_nothing_published_is_one_line(tmp_path, capsys):
    """Catches an empty site."""
    assert "publish" in said(capsys, tmp_path / "site", "--results", tmp_path)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_site_is_never_replaced(tmp_path, capsys, kind):
    """Catches `./run site ~` that removes what lies there."""
    target = tmp_path / "mine"
    note = target / "note.txt" if kind == "folder" else target
    note.parent.mkdir(exist_ok=True)
    note.write_text("keep")
    assert str(target) in said(capsys, target)
    assert note.read_text() == "keep"


def test_an_old_site_stays_until_the_new_one_is_whole(copied, tmp_path, monkeypatch):
    """Catches a site that is lost when its successor cannot take its place, pages of the old one
    beside the new, and folders that are left behind."""
    target = tmp_path / "site"
    target.mkdir()
    (target / MARK).touch()
    (target / "old.html").touch()
    monkeypatch.setattr("os.rename", refusing(os.rename, "new"))
    with pytest.raises(OSError):
        make_site(tmp_path / "results", target)
    assert (target / "old.html").is_file()
    monkeypatch.undo()
    make_site(tmp_path / "results", target)
    assert (target / "index.html").is_file() and not (target / "old.html").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"results", "site"}


def refusing(rename, ending):
    """A rename that fails for names with an ending."""

    def refuse(origin, target):
        if str(origin).endswith(ending):
            raise OSError(28, "No space left on device", str(origin))
        rename(origin, target)

    return refuse


# ---------------------------------------------------------------- names

NAMES = [
    '<b>bold</b> & "q" | *x* é 東京',
    "<script>document.title='ran'</script>",
    "{{ y }} $a$ `c`",
]


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """A site of a study whose names hold whatever HTML, markdown or a template could read."""
    results = tmp_path_factory.mktemp("strange") / "results"
    folder = results / "it's #1 & é" / "published"
    folder.mkdir(parents=True)
    build(folder, NAMES, tables=("scores", "latency"), figures=("fid",))
    run_verb("tables", write_table, [str(folder), str(folder / "tables")])
    run_verb("figures", write_figure, [str(folder), str(folder / "figures")])
    make_site(results, results.parent / "site")
    return (results.parent / "site").resolve()


def test_names_are_shown_as_they_are(strange):
    """Catches a name that becomes markup, and a site that an older one stays in."""
    assert (strange / MARK).is_file()
    folder = strange / "results" / "it's #1 & é"
    _, rows = tables_of(folder / "index.html")["s_scores"]
    assert [row[0].text(strip=True) for row in rows][: len(NAMES)] == NAMES
    for page in ("index", "images", "variants"):
        tree = tree_of(folder / f"{page}.html")
        assert not any("document.title" in node.text() for node in tree.css("script:not([src])"))
        assert not [node for node in tree.css(".md-content b")]
    headings = [node.text(strip=True) for node in tree_of(folder / "images.html").css("h3")]
    assert [heading.rstrip("¶") for heading in headings] == NAMES
    dead = [
        link
        for page in pages_of(strange)
        for link in links_of(strange / page)
        if page != "404.html" and is_dead(strange, page, link)
    ]
    assert not dead


# ---------------------------------------------------------------- several extractors


def test_another_extractor_stands_beside_the_first(tmp_path):
    """Catches a yes of one extractor that hides the no of another."""
    results = differing(tmp_path / "made", claims=[asked()])
    folder = shutil.copytree(results.folder, tmp_path / "results" / "two" / "published")
    run_verb("tables", write_table, [str(folder), str(folder / "tables")])
    for name in results.suite("s")["figures"]:
        for path in (PUBLISHED[0] / "figures").glob("main_fid.*"):
            (folder / "figures").mkdir(exist_ok=True)
            shutil.copy2(path, folder / "figures" / f"s_{name}{path.suffix}")
    make_site(tmp_path / "results", tmp_path / "site")
    row = tree_of(tmp_path / "site" / "index.html").css_first("table#claims tbody tr")
    words = " ".join(row.text(separator=" ").split())
    assert words.startswith("b beats a ours no") and "by lite: yes" in words
    study = tree_of(tmp_path / "site" / "results" / "two" / "index.html")
    assert "x8, lite" in study.css_first("dl.facts").text()
