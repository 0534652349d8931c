"""Claims over all studies: the committed page and table follow from the published results, and say
where extractors differ."""

import csv
import io
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
from small_study import SEEDS, build
from test_two_extractors import OTHER, TRAINED, agreeing, asked, differing, made

from bench.report.all_claims import PAGE, TABLE, csv_of, page_of, published, rulings, write
from bench.report.claims import judged
from bench.report.results import Results
from bench.report.view import View
from bench.runtime.verbs import PROGRAMS
from bench.study.escaping import rst

ROOT = Path(__file__).resolve().parent.parent


def project(folder, **studies):
    """A folder of published studies; of each the results that were made elsewhere."""
    for name, results in studies.items():
        shutil.copytree(results, folder / "results" / name / "published")
    (folder / "docs").mkdir()
    return folder


def rows_of(folder):
    return list(csv.DictReader(io.StringIO((folder / TABLE).read_text(encoding="utf-8"))))


@pytest.fixture(scope="module")
def committed():
    """The committed studies and what they rule: R* of repetitions is fitted thousands of times."""
    studies = published(ROOT)
    return studies, rulings(studies)


def test_page_and_table_follow_from_what_is_published(committed):
    """Catches a verdict that was typed, and a study published without them."""
    studies, found = committed
    again = "run `python -m bench claims --write`"
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page_of(found, studies), again
    assert (ROOT / TABLE).read_text(encoding="utf-8") == csv_of(found), again


def test_captions_say_of_a_claim_what_the_table_says():
    """Catches a figure of some variants that judges a claim by these alone, and captions that stay
    when a study's verdicts are published anew."""
    rows = [row for row in csv.DictReader((ROOT / TABLE).open(encoding="utf-8"))
            if row["first"] == "True"]  # fmt: skip
    seen = 0
    for row in rows:
        word, after = row["verdict"], row["after_holm"]
        said = f"{word}, after Holm {after}" if after and word in ("yes", "no") else word
        claim = re.escape(rst(row["claim"]))
        asked = re.compile(rf"[:;] {claim}: ((?:yes|no(?:t decided)?)\b(?:, after Holm [a-z ]+)?)")
        folder = ROOT / "results" / row["study"] / "published"
        for caption in folder.glob(f"*/{row['suite']}_*.rst"):
            for found in asked.findall(caption.read_text(encoding="utf-8")):
                assert found.strip() == said, f"{caption}: {row['claim']}"
                seen += 1
    assert seen > 500


def test_times_rest_on_no_training_seed():
    """Catches seeds beside what no training was made for."""
    rows = list(csv.DictReader((ROOT / TABLE).open(encoding="utf-8")))
    timed = [row for row in rows if row["suite"].startswith("latency")]
    assert len(timed) > 5 and not any(row["train_seeds"] for row in timed)
    assert all(row["train_seeds"] for row in rows if row not in timed)


def test_a_claim_by_a_rule_that_names_no_metric_says_its_images():
    """Catches a blank where the number behind a verdict is of so many held-out images."""
    rows = pd.read_csv(ROOT / TABLE)
    asked = rows["suite"].isin(["classify", "equivalence", "representation"])
    assert asked.sum() > 20 and rows.loc[asked, "num_images"].notna().all()


def test_the_program_prints_the_page(committed, monkeypatch, capsys):
    """Catches a program that is not listed, and one that prints another page."""
    program = import_module(PROGRAMS["claims"])
    rulings_of = {tuple(committed[0]): committed[1]}
    monkeypatch.setattr(program, "rulings", lambda studies: rulings_of[tuple(studies)])
    monkeypatch.setattr(sys, "argv", ["bench claims"])
    program.main()
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == page.strip()
    words = [sys.executable, "-m", "bench", "claims", "--wirte"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "unrecognized arguments: --wirte" in done.stderr


def test_one_claim_is_one_line_with_every_study(tmp_path):
    """Catches a yes of one extractor that hides the no of another, and a claim that stands twice
    because two studies ask it."""
    claims = [asked(), asked(rule="latency", text="b is faster")]
    one = differing(tmp_path / "one", claims=claims).folder
    two = agreeing(tmp_path / "two", claims=claims[:1]).folder
    small = build(tmp_path / "small", ["a", "b"], claims[:1], reduced="one training")
    folder = project(tmp_path / "all", one=one, two=two, abridged=small)
    write(folder)
    page = (folder / PAGE).read_text(encoding="utf-8")
    assert "| Claim | one | two | abridged (reduced) |" in page
    assert "| b beats a | no; by lite yes | no; by lite no | no |" in page
    assert "| b is faster | no |  |  |" in page
    assert "| one | x8, lite | 200 | 0, 1, 2 | 0 / 1 / 0 | 1 |" in page
    assert "| two | x8, lite | 200 | 0, 1, 2 | 0 / 1 / 0 | 0 |" in page
    assert "ask 3 claims. 3 of them have a p-value. Of these 3 are yes or no alone, and 3" in page
    rows = rows_of(folder)
    assert [(row["study"], row["extractor"], row["verdict"]) for row in rows] == [
        ("one", "x8", "no"), ("one", "lite", "yes"), ("one", "", "no"),
        ("two", "x8", "no"), ("two", "lite", "no"), ("abridged", "x8", "no"),
    ]  # fmt: skip
    assert {row["after_holm_all_studies"] for row in rows if row["reduced"] == "True"} == {""}
    assert "the evaluators differ" in rows[0]["because"] and rows[1]["p"] != ""


def test_a_claim_says_how_many_images_it_rests_on(tmp_path):
    """Catches the study's number of generated images beside a claim on held-out ones, or on
    times."""
    own = {"metric": "inpaint_psnr_unknown", "seed_first": 900, "seed_last": 919, "num_images": 20}
    claims = [
        asked(),
        {**asked("inpaint_psnr_unknown", rule="value", text="b fills better"), "better": "higher"},
        asked(rule="latency", text="b is faster"),
    ]
    bare = View(Results.load(build(tmp_path / "bare", ["a", "b"], claims)), "s")
    more = [
        {"study": "x", "unit": "dB", **own, "train_seed": seed, "value": 10.0 + i + 0.1 * seed,
         "run_id": f"sample/v{i}-{seed}", **{key: names[key] for key in ("tokenizer", "model")}}
        for i, names in enumerate(bare.variants.values())
        for seed in SEEDS
    ]  # fmt: skip
    folder = project(tmp_path / "all", one=build(tmp_path / "one", ["a", "b"], claims, more=more))
    write(folder)
    counts = {row["claim"]: row["num_images"] for row in rows_of(folder)}
    assert counts == {"b beats a": "200", "b fills better": "20", "b is faster": ""}


def test_what_was_tuned_on_a_half_rests_on_the_other(tmp_path):
    """Catches all images beside a difference of the half that chose nothing."""
    bare = View(Results.load(build(tmp_path / "bare", ["a", "b"])), "s")
    more = [
        {"study": "x", "metric": "fid_x8", "unit": "score", "train_seed": seed, "num_images": 100,
         "seed_first": first, "seed_last": first + 99, "value": 5.0 + i + 0.1 * (i + 1) * seed,
         "run_id": f"sample/v{i}-{seed}",
         **{key: names[key] for key in ("tokenizer", "model", "sampler")}}
        for i, names in enumerate(bare.variants.values())
        for seed in SEEDS
        for first in (0, 100)
    ]  # fmt: skip
    claims = [asked(), asked(rule="tuned", text="b tuned beats a tuned")]
    folder = project(tmp_path / "all", one=build(tmp_path / "one", ["a", "b"], claims, more=more))
    write(folder)
    rows = {row["claim"]: row for row in rows_of(folder)}
    tuned = rows["b tuned beats a tuned"]
    assert tuned["verdict"] == "no" and tuned["num_images"] == "100"
    assert rows["b beats a"]["num_images"] == "200"


def test_holm_over_all_studies_is_stricter(tmp_path):
    """Catches a correction over the claims of one study, or of one extractor's twice."""
    close = {"fid_a": [3.0, 3.1, 3.2], "fid_b": [2.8, 2.85, 3.05]}
    lone = made(tmp_path / "a", **close, claims=[asked()], features=[OTHER, TRAINED]).folder
    level = [asked("fid_pixels", text=f"{i}") for i in range(60)]
    many = made(tmp_path / "b", **close, claims=level).folder
    folder = project(tmp_path / "all", lone=lone, many=many)
    write(folder)
    row = next(row for row in rows_of(folder) if row["extractor"] == "lite")
    words = row["verdict"], row["after_holm"], row["after_holm_all_studies"]
    assert words == ("yes", "yes", "not decided")
    page = (folder / PAGE).read_text(encoding="utf-8")
    assert "ask 61 claims. 61 of them have a p-value. Of these 1 are yes or no alone, and 0" in page


def test_holm_over_all_studies_is_as_strict_by_a_second_extractor(tmp_path):
    """Catches a verdict of a second extractor that falls among the claims of its study and stands
    among those of all."""
    close = {"fid_a": [3.0, 3.1, 3.2], "fid_b": [2.8, 2.85, 3.05]}
    level = [asked("fid_pixels", text=f"{i}") for i in range(60)]
    one = made(tmp_path / "a", **close, claims=[asked(), *level]).folder
    folder = project(tmp_path / "all", one=one)
    write(folder)
    for row in rows_of(folder):
        words = row["verdict"], row["after_holm"], row["after_holm_all_studies"]
        assert words[1] == words[2], row
        if row["extractor"] == "lite":
            assert words == ("yes", "not decided", "not decided")


def test_suites_that_ask_the_same_are_told_apart(tmp_path):
    """Catches the verdict of one suite alone where two suites of a study ask the same."""
    results = differing(tmp_path / "one", claims=[asked()])
    about = results.about["suites"]
    about["t"] = {**about["s"], "claims": [{**asked(), "variant": "a", "against": "b"}]}
    results.variants_of["t"] = results.variants_of["s"]
    page = page_of(rulings({"one": results}), {"one": results})
    assert "| b beats a | s: no; by lite yes. t: yes; by lite no |" in page


@pytest.mark.parametrize("lost", ["runs.csv", "metrics.csv"])
def test_no_study_and_a_damaged_one(tmp_path, lost):
    """Catches a traceback where nothing is published yet, and a page that leaves out what it cannot
    read."""
    assert "No study with a claim is published" in page_of([], published(tmp_path))
    folder = project(tmp_path / "all", one=build(tmp_path / "one", ["a", "b"], [asked()]))
    (folder / f"results/one/published/{lost}").unlink()
    with pytest.raises(ValueError, match=f"results/one/published/{lost}: is not there"):
        write(folder)
    assert not (folder / PAGE).exists()


def test_a_verdict_says_which_training_seeds_it_is_without(tmp_path):
    """Catches a claim of five seeds that rests on three: rows of trainings that diverged, or of a
    file that was cut off, are not there."""
    folder = build(tmp_path / "one", ["a", "b"], [asked(), asked(rule="latency", text="faster")])
    names = View(Results.load(folder), "s").variants["b"]
    rows = pd.read_csv(folder / "metrics.csv", dtype=str, keep_default_na=False)
    lost = (rows["model"] == names["model"]) & (rows["train_seed"] == "1")
    rows = rows[~(lost & rows["metric"].str.startswith("fid"))]
    rows.to_csv(folder / "metrics.csv", index=False)
    view = View(Results.load(folder), "s")
    word, reason = judged(view, view.about["claims"][0])
    assert word == "not decided" and "; over 2 of 3 training seeds: seed 1 " in reason
    ruled = list(rulings({"one": view.results}))
    assert [ruling.train_seeds for ruling in ruled] == ["0 2", ""]
    assert "over 2 of 3" in ruled[0].because and "training seeds:" not in ruled[1].because


def test_a_copy_of_a_study_is_refused(tmp_path):
    """Catches a backup that counts as if somebody had measured it again."""
    one = build(tmp_path / "one", ["a", "b"], [asked()])
    folder = project(tmp_path / "all", one=one, backup=one)
    with pytest.raises(ValueError, match="published: is a copy of results/backup/published"):
        published(folder)
