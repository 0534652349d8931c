"""Known tokens, zero-shot tasks, error propagation: by hand on small cases, then the verbs, figures
and tables on the smoke study."""

import importlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from bench.experiments.error_propagation import show as errors_show
from bench.experiments.error_propagation.verb import drift
from bench.experiments.zero_shot import show as zero_shot_show
from bench.experiments.zero_shot import verb as zero_shot
from bench.experiments.zero_shot.plan import Settings as ZeroShotConfig
from bench.experiments.zero_shot.verb import (
    area_reduce,
    enlarge,
    nearest_fill,
    psnr,
    reduced_side,
    tasks_of,
)
from bench.pipeline import collect, evaluators
from bench.pipeline.likeness import ssim, window_side
from bench.pipeline.metrics import score
from bench.report.completion import along_scales
from bench.report.results import Results
from bench.report.view import View
from bench.runtime.rows import METRIC_COLUMNS, read_rows
from bench.runtime.verb import main
from bench.runtime.verbs import stages
from bench.study import rooms
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from bench.study.variants import variants_of
from oracle import FALSE_ALARM, chi_square
from srdd import sampling
from srdd import select as rules
from srdd.config import SamplerConfig
from srdd.lookup import names_in
from srdd.noise import generator
from srdd.sampling import Known, generate
from srdd.schedule import ScaleSchedule
from srdd.zero_shot import (
    box_mask,
    known_in_box,
    known_prefix,
    known_scales,
    replace_tokens,
    replaced_count,
)
from workflow import sign

ROOT = Path(__file__).resolve().parent.parent
SMOKE = ROOT / "tests" / "studies" / "smoke.yaml"
SCHEDULE = ScaleSchedule((1, 2, 3, 4))
CENTRE = (0.25, 0.25, 0.75, 0.75)
SAMPLERS = [SamplerConfig(name="var", cfg_scale=1.7)] + [
    SamplerConfig(
        name=name, cfg_scale=1.7, sr_steps=1, refine_steps=2, select=select, p_resample=0.4
    )
    for name in names_in(Path(sampling.__file__), "sample")
    if name not in ("var", "gauss")  # gauss draws no tokens, and each scale once
    for select in names_in(Path(rules.__file__), "select")
]


def tokens_like(schedule, batch=5, codebook_size=7, name="tokens"):
    return torch.randint(codebook_size, (batch, schedule.seq_len), generator=generator(name))


# ---------------------------------------------------------------- what is known


@pytest.mark.parametrize("history", [None, 0])
@pytest.mark.parametrize(
    "config", SAMPLERS, ids=lambda config: f"{config.name}-{config.select.name}"
)
def test_every_sampler_keeps_known_tokens(make_model, make_ladder, config, history):
    """Catches a sampler, a redraw or a selection rule that touches a given token, a state that does
    not follow from the tokens, and a mask that makes everything known."""
    model = make_model(patch_nums=(1, 2, 3, 4), history=history, mask_prob=0.5)
    ladder, truth_BL = make_ladder(SCHEDULE), tokens_like(SCHEDULE)
    mask_BL = torch.rand(truth_BL.shape, generator=generator("mask")) < 0.5
    found_BL, f_hat_BChw = generate(
        model, ladder, torch.arange(5) % 3, range(5), config, Known(truth_BL, mask_BL)
    )
    assert torch.equal(found_BL[mask_BL], truth_BL[mask_BL])
    assert (found_BL[~mask_BL] != truth_BL[~mask_BL]).any()
    torch.testing.assert_close(f_hat_BChw, ladder.decode(found_BL))


def grids(known, schedule):
    """The mask of the first image, scale by scale, as lists of rows."""
    pairs = zip(schedule.slices, schedule.patch_nums)
    return [known.mask_BL[0, where].view(side, side).int().tolist() for where, side in pairs]


def test_vars_protocol_by_hand():
    """Catches another interpolation, a threshold that takes equality, an inverted box,
    and coarse scales that are drawn."""
    tokens_BL = tokens_like(SCHEDULE)
    inside_hw = box_mask(CENTRE, 4)
    assert inside_hw.int().tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    # a token of the 2x2 grid stands for 4 cells of which 3 are known; of the 3x3 grid only the
    # middle one is hidden
    assert grids(known_in_box(SCHEDULE, inside_hw, tokens_BL), SCHEDULE) == [
        [[1]],
        [[1, 1], [1, 1]],
        [[1, 1, 1], [1, 0, 1], [1, 1, 1]],
        [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]],
    ]
    assert grids(known_in_box(SCHEDULE, ~inside_hw, tokens_BL), SCHEDULE) == [
        [[1]],
        [[0, 0], [0, 0]],
        [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]],
    ]
    # the left half hidden: the middle column of 3 is known by exactly one half, which does not
    # exceed 0.5
    half = known_in_box(SCHEDULE, box_mask((0, 0, 1, 0.5), 4), tokens_BL)
    assert grids(half, SCHEDULE)[2] == [[0, 0, 1]] * 3


def test_scales_of_few_tokens_are_all_truth():
    """Catches the rule of at most 3 tokens tied to the first scale or to the side: 1x1 is forced,
    2x2 has 4 tokens and is not."""
    tokens_BL = tokens_like(SCHEDULE)
    all_but_one_hw = torch.ones(4, 4, dtype=torch.bool)
    all_but_one_hw[0, 0] = False
    masks = grids(known_in_box(SCHEDULE, all_but_one_hw, tokens_BL), SCHEDULE)
    assert masks[0] == [[1]] and masks[1] == [[0, 0], [0, 0]]
    assert grids(
        known_in_box(ScaleSchedule((2, 4)), all_but_one_hw, tokens_like(ScaleSchedule((2, 4)))),
        ScaleSchedule((2, 4)),
    )[0] == [[0, 0], [0, 0]]


@pytest.mark.parametrize("box", [CENTRE, (0, 0, 0.5, 1), (0.1, 0.3, 0.6, 0.9)])
def test_outpainting_hides_what_inpainting_keeps(box):
    """Catches two boxes that are rounded apart: on the finest grid every token is hidden by one of
    the tasks."""
    schedule = ScaleSchedule((1, 3, 8))
    inside_hw, tokens_BL = box_mask(box, 8), tokens_like(schedule)
    inner, outer = (
        known_in_box(schedule, unknown_hw, tokens_BL).mask_BL
        for unknown_hw in (inside_hw, ~inside_hw)
    )
    last = schedule.slices[-1]
    assert torch.equal(inner[:, last], ~outer[:, last])
    assert torch.equal(~inner[0, last].view(8, 8), inside_hw)


def test_boxes_that_hide_nothing_or_all_are_refused(tmp_path):
    """Catches a task without a hidden token, a box outside of the image that starts work,
    and an error without the key."""
    with pytest.raises(ValueError, match="no cell of the 4x4 grid"):
        box_mask((0.0, 0.0, 0.1, 0.1), 4)
    with pytest.raises(ValueError, match="all cells of the 4x4 grid"):
        box_mask((0.0, 0.0, 0.95, 0.95), 4)
    with pytest.raises(ValueError, match=r"\[0, 0, 1.2, 1\]"):
        box_mask((0, 0, 1.2, 1), 4)
    with pytest.raises(ValueError, match=r"unknown_hw \(3, 3\)"):
        known_in_box(SCHEDULE, torch.ones(3, 3, dtype=torch.bool), tokens_like(SCHEDULE))
    config = ZeroShotConfig(inpaint=(0.0, 0.0, 0.05, 0.05))
    with pytest.raises(ConfigError, match="zero_shot.inpaint.*no cell"):
        images = np.zeros((5, 1, 8, 8), np.uint8)
        next(tasks_of(config, SCHEDULE, tokens_like(SCHEDULE), images, tmp_path))
    study = yaml.safe_load(SMOKE.read_text())
    study["suites"]["zero_shot"]["zero_shot"]["outpaint"] = [0.2, 0.2, 1.3, 0.8]
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(study))
    with pytest.raises(ConfigError) as error:
        load_study(tmp_path / "bad.yaml")
    text = str(error.value)
    assert "\n" not in text and "outpaint" in text and "1.3" in text and "suites.zero_shot" in text


def test_claims_on_completions_are_known_beforehand(tmp_path):
    """Catches a warning at a claim of what is measured, and one of a task that is not asked for,
    which nothing decides after hours."""
    study = yaml.safe_load(SMOKE.read_text())
    suite = study["suites"]["zero_shot"]
    variant, against, *_ = suite["variants"]
    claim = {"text": "t", "rule": "value", "metric": "inpaint_psnr_unknown"}
    suite["claims"] = [{**claim, "variant": variant, "against": against}]
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(study))
    assert not load_study(tmp_path / "good.yaml").warnings
    suite["zero_shot"]["inpaint"] = None
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(study))
    with pytest.raises(ConfigError, match=r"claims\.metric: 'inpaint_.* does not report it"):
        load_study(tmp_path / "bad.yaml")


def test_super_resolution_keeps_the_first_scales():
    """Catches an m that is off by one, and one that leaves nothing known or nothing to draw."""
    tokens_BL = tokens_like(SCHEDULE)
    for m in range(1, 4):
        mask_BL = known_scales(SCHEDULE, m, tokens_BL).mask_BL
        assert mask_BL.shape == tokens_BL.shape
        assert [bool(mask_BL[:, where].all()) for where in SCHEDULE.slices] == [
            k < m for k in range(4)
        ]
        assert mask_BL.sum(1).tolist() == [sum(SCHEDULE.lengths[:m])] * 5
    last = known_scales(SCHEDULE, 3, tokens_BL).mask_BL
    assert not last[:, SCHEDULE.slices[3]].any()
    for m in (0, 4, -1):
        with pytest.raises(ValueError, match=rf"m {m}: .*1 to 3"):
            known_scales(SCHEDULE, m, tokens_BL)


# ---------------------------------------------------------------- baselines and likeness


def test_nearest_fill_by_hand():
    """Catches a fill that takes one of several nearest pixels, counts diagonals as near,
    or touches what is known."""
    image = np.array([[1, 20, 3], [40, 99, 60], [7, 80, 9]], np.uint8)[None, None]
    centre = np.zeros((3, 3), bool)
    centre[1, 1] = True
    filled = nearest_fill(image, centre)
    assert filled[0, 0, 1, 1] == (20 + 40 + 60 + 80) / 4
    assert np.array_equal(filled[0, 0][~centre], image[0, 0][~centre])
    # a hidden right column and a hidden corner: the nearest of the corner are two, both at distance
    # sqrt(1)
    hidden = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 1]], bool)
    assert nearest_fill(image, hidden)[0, 0, :, 2].tolist() == [20, 99, 80]
    corner = np.array([[0, 0, 0], [0, 1, 1], [0, 1, 1]], bool)
    # the last pixel: (0, 2) and (2, 0) are 2 away, (0, 0) further
    assert nearest_fill(image, corner)[0, 0].tolist() == [[1, 20, 3], [40, 30, 3], [7, 7, 5]]


def test_bicubic_baseline_sees_only_the_small_image():
    """Catches a baseline that is given more pixels than the true scales stand for,
    and a resize that loses the mean."""
    schedule = ScaleSchedule((1, 2, 3, 4))
    assert [reduced_side(schedule, m, 8) for m in (1, 2, 3)] == [2, 4, 6]
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    small = area_reduce(images, 2)
    blocks = images.reshape(3, 1, 2, 4, 2, 4).mean((3, 5))
    assert np.abs(small - blocks).max() <= 0.5
    changed = images.copy()
    changed[:, :, 0, 0], changed[:, :, 0, 1] = images[:, :, 0, 1], images[:, :, 0, 0]
    assert not np.array_equal(changed, images)
    assert np.array_equal(
        enlarge(area_reduce(changed, 2), 8, "bicubic"), enlarge(small, 8, "bicubic")
    )
    assert (enlarge(np.full((1, 1, 2, 2), 77, np.uint8), 8, "bicubic") == 77).all()


def test_likeness_on_a_region_and_whole():
    """Catches an error averaged over the wrong pixels, another formula than scikit-image's,
    and an infinite PSNR."""
    rng = np.random.default_rng(1)
    true = rng.integers(20, 200, (2, 3, 16, 16), dtype=np.uint8)
    region = np.zeros((16, 16), bool)
    region[4:12, 4:12] = True
    found = true.copy()
    found[:, :, region] += 10
    assert psnr(true, found, region) == pytest.approx([20 * math.log10(25.5)] * 2)
    # a quarter of the pixels
    assert psnr(true, found) == pytest.approx([20 * math.log10(25.5) + 10 * math.log10(4)] * 2)
    assert psnr(true, found)[0] == pytest.approx(
        peak_signal_noise_ratio(true[0], found[0], data_range=255)
    )
    assert psnr(true, found, ~region) == pytest.approx([10 * math.log10(255**2 * 12)] * 2)
    assert ssim(true, found)[1] == pytest.approx(
        structural_similarity(true[1], found[1], data_range=255, channel_axis=0, win_size=7)
    )
    spoilt = true.copy()
    spoilt[:, :, 0, 0] = 255 - spoilt[:, :, 0, 0]
    # a window of 7 does not reach from (4, 4) to (0, 0)
    assert ssim(true, spoilt, region) == pytest.approx([1.0] * 2)
    assert (ssim(true, spoilt, ~region) < 0.999).all() and (ssim(true, found, region) < 1).all()
    assert [window_side(side) for side in (4, 8, 10, 14, 28, 256)] == [3, 3, 5, 7, 7, 7]
    assert ssim(true[:, :1, :8, :8], true[:, :1, :8, :8]) == pytest.approx([1.0] * 2)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("k", range(4))
def test_replaced_tokens_are_exactly_so_many_and_all_others(k):
    """Catches a share that is a chance, a replacement by the same code, a touched neighbour scale,
    or a share that replaces nothing."""
    tokens_BL, length = tokens_like(SCHEDULE, 40, 3), SCHEDULE.lengths[k]
    for share in (0.01, 0.1, 0.25, 0.5, 1.0):
        changed_BL = replace_tokens(tokens_BL, SCHEDULE, k, share, range(40), 3) != tokens_BL
        count = replaced_count(length, share)
        assert count == max(1, round(share * length))
        assert changed_BL[:, SCHEDULE.slices[k]].sum(1).tolist() == [count] * 40
        assert changed_BL.sum() == 40 * count
    two = torch.zeros(3, SCHEDULE.seq_len, dtype=torch.long)
    assert (replace_tokens(two, SCHEDULE, k, 1.0, range(3), 2)[:, SCHEDULE.slices[k]] == 1).all()


def test_errors_belong_to_the_image_and_not_to_the_model():
    """Catches errors that differ between two variants, depend on the batch,
    or do not grow with the share."""
    first_BL, second_BL = tokens_like(SCHEDULE, 60), tokens_like(SCHEDULE, 60, name="other model")
    k, where = 2, SCHEDULE.slices[2]
    wrong = [
        replace_tokens(tokens, SCHEDULE, k, 0.5, range(60), 7) for tokens in (first_BL, second_BL)
    ]
    places = [found != tokens for found, tokens in zip(wrong, (first_BL, second_BL))]
    assert torch.equal(*places)
    # one code for both, except where that code stood there already in one of them: 2 of 7 codes
    same = (wrong[0] == wrong[1])[places[0]].float().mean()
    assert 0.6 < same < 0.85
    assert len({tuple(row) for row in places[0][:, where].tolist()}) > 30
    alone = replace_tokens(first_BL[7:8], SCHEDULE, k, 0.5, [7], 7)
    assert torch.equal(alone[0], wrong[0][7])
    fewer = replace_tokens(first_BL, SCHEDULE, k, 0.25, range(60), 7) != first_BL
    assert (fewer <= places[0]).all() and fewer.sum() < places[0].sum()


def test_other_codes_are_equally_likely():
    """Catches a favourite code among the others; false alarm 1e-4, seeds fixed."""
    tokens_BL = torch.full((1500, 1), 2)
    wrong_BL = replace_tokens(tokens_BL, ScaleSchedule((1,)), 0, 1.0, range(1500), 5)
    counts = torch.bincount(wrong_BL.flatten(), minlength=5)
    assert chi_square(counts, [0.25, 0.25, 0.0, 0.25, 0.25]) > FALSE_ALARM
    assert chi_square(counts, [0.4, 0.2, 0.0, 0.2, 0.2]) < FALSE_ALARM, (
        "the test must be able to fail"
    )


@pytest.mark.parametrize("history, name", [(None, "var"), (0, "var"), (2, "var"), (0, "srdd")])
def test_own_prefix_gives_the_clean_sample_bit_by_bit(make_model, make_ladder, history, name):
    """Catches random numbers that shift when a prefix is given,
    and a drift that is there without any error."""
    more = {"sr_steps": 1, "refine_steps": 2, "p_resample": 0.4} if name == "srdd" else {}
    config = SamplerConfig(name=name, cfg_scale=1.7, **more)
    model, ladder = (
        make_model(patch_nums=(1, 2, 3, 4), history=history, mask_prob=0.5),
        make_ladder(SCHEDULE),
    )
    labels_B = torch.arange(6) % 3
    clean_BL, clean_BChw = generate(model, ladder, labels_B, range(6), config)
    for count in range(5):
        again_BL, again_BChw = generate(
            model, ladder, labels_B, range(6), config, known_prefix(SCHEDULE, count, clean_BL)
        )
        assert torch.equal(again_BL, clean_BL) and torch.equal(again_BChw, clean_BChw)
    wrong_BL = replace_tokens(clean_BL, SCHEDULE, 0, 1.0, range(6), 7)
    gone_BL, gone_BChw = generate(
        model, ladder, labels_B, range(6), config, known_prefix(SCHEDULE, 1, wrong_BL)
    )
    assert (gone_BL[:, 1:] != clean_BL[:, 1:]).any() and (drift(clean_BChw, gone_BChw) > 0).all()


def test_drift_by_hand():
    """Catches a norm over one channel, a mean of squares, or a share of the wrong latent."""
    clean = torch.tensor([3.0, 0.0, 0.0, 4.0]).view(1, 2, 1, 2).repeat(2, 1, 1, 1)
    other = clean.clone()
    other[0, 1, 0, 0] += 2.5
    assert drift(clean, other).tolist() == [0.5, 0.0]


# ---------------------------------------------------------------- the verbs


class Made:
    """The smoke study's two suites in a folder: every job once,
    what comes before the tested verbs in this process."""

    def __init__(self, root):
        self.root, self.plan = root, load_study(SMOKE)
        self.suites = ("zero_shot", "error_propagation")
        wanted = set().union(*(self.plan.suites[suite] for suite in self.suites))
        self.folders = {
            run_id: root / run_id for run_id in wanted if not run_id.startswith("baselines/")
        }
        for stage in (
            "prepare",
            "features",
            "tokenizer",
            "encode",
            "train",
            "zero_shot",
            "error_propagation",
        ):
            for run_id in sorted(
                run_id for run_id in self.folders if run_id.startswith(f"{stage}/")
            ):
                assert self.run(run_id) == 0

    def words(self, run_id, out=None, **inputs):
        job, path = self.plan.jobs[run_id], self.root / "configs" / f"{run_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {
            "study": "smoke",
            "run_id": run_id,
            "identity": job.identity,
            "inputs": job.inputs,
            "config": job.config,
        }
        path.write_text(json.dumps(about))
        given = {role: self.root / needed for role, needed in job.inputs.items()} | inputs
        words = [
            path,
            out or self.folders[run_id],
            *(w for role, folder in given.items() for w in (f"--{role}", folder)),
        ]
        return [*map(str, words), "--threads", "1", "--device", "cpu"]

    def run(self, run_id, out=None, **inputs):
        """What the verb exits with."""
        stage = run_id.split("/")[0]
        module = importlib.import_module(stages()[stage].module)
        with pytest.raises(SystemExit) as left:
            main(
                stages()[stage].name,
                module.work,
                tuple(self.plan.jobs[run_id].inputs),
                self.words(run_id, out, **inputs),
            )
        return left.value.code

    def of(self, stage):
        return sorted(run_id for run_id in self.folders if run_id.startswith(f"{stage}/"))

    def rows(self, run_id):
        rows = read_rows(self.folders[run_id] / "metrics.csv", METRIC_COLUMNS)
        return {(row["metric"], row["scale"]): row for row in rows}

    def variants(self, suite):
        """The variants of a suite without the baselines behind them, which are not run here."""
        variants = variants_of(self.plan, suite)
        for about in variants.values():
            for seed, run_ids in about["jobs"].items():
                about["jobs"][seed] = [run_id for run_id in run_ids if run_id in self.folders]
        return variants

    def collect(self, out):
        """metrics.csv, runs.csv, images.npz of both suites,
        as the workflow's plan asks for them."""
        study = json.loads(self.plan.study.model_dump_json())
        keys = ("claim", "claims", "measure", "figures", "tables", "zero_shot", "error_propagation")
        suites = {
            suite: {
                **{key: study["suites"][suite][key] for key in keys},
                "train_seeds": study["suites"][suite]["train_seeds"],
                "variants": self.variants(suite),
                "runs": [run for run in self.plan.jobs_of(suite) if run in self.folders],
            }
            for suite in self.suites
        }
        shared = {
            key: study[key]
            for key in (
                "reduced",
                "evaluation",
                "features",
                "dataset",
                "train_seeds",
                "tokenizer_seed",
                "latency",
            )
        }
        plan = {"study": "smoke", "scope": None, "suites": suites, **shared}
        out.mkdir(exist_ok=True)
        (out / "plan.json").write_text(
            json.dumps({**plan, "folders": {run: str(path) for run, path in self.folders.items()}})
        )
        collect.collect(out / "plan.json", out)
        return Results.load(out)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("zero_shot"))


def test_zero_shot_verb_reports_every_task(made):
    """Catches a task, a baseline or a ceiling without a number, a baseline that depends on the
    model, and a fill that is scored on the wrong pixels."""
    first, second = (made.rows(run_id) for run_id in made.of("zero_shot"))
    likeness = {
        f"{measure}_{place}" for measure in ("psnr", "ssim") for place in ("unknown", "whole")
    }
    scores = {
        f"{name}_digits16"
        for name in (
            "fid",
            "kid",
            "is",
            "precision",
            "recall",
            "class_agreement",
            "feature_distance",
        )
    }
    for task in ("inpaint", "outpaint"):
        for name in likeness | scores:
            assert (f"{task}_{name}", "") in first and (f"nearest_fill_{task}_{name}", "") in first
        assert (f"ceiling_{task}_psnr_unknown", "") in first
    for m in ("1", "2"):
        for name in scores | {"psnr_whole", "ssim_whole"}:
            assert (f"super_resolution_{name}", m) in first and (
                f"bicubic_super_resolution_{name}",
                m,
            ) in first
    assert ("super_resolution_psnr_whole", "3") not in first and (
        "super_resolution_psnr_unknown",
        "1",
    ) not in first
    assert first.keys() == second.keys()
    for key in first:
        fixed = key[0].startswith(("bicubic_", "nearest_fill_", "ceiling_"))
        assert not fixed or first[key]["value"] == second[key]["value"]
        assert (
            first[key]["num_images"] == "100"
            and first[key]["seed_last"] == "99"
            and first[key]["value"]
        )
    drawn = [
        key
        for key in first
        if key[0].endswith(("psnr_whole", "psnr_unknown"))
        and not key[0].startswith(("b", "n", "c"))
    ]
    assert all(first[key]["value"] != second[key]["value"] for key in drawn)
    # the fill keeps known pixels: a quarter of the image is wrong, hence the whole is 10 log10(4)
    # dB better, but for the mean of logs
    whole, unknown = (
        float(first[f"nearest_fill_inpaint_psnr_{place}", ""]["value"])
        for place in ("whole", "unknown")
    )
    assert whole - unknown == pytest.approx(10 * math.log10(4), abs=1e-6)


def test_a_metric_of_ones_own_may_not_replace_a_likeness(monkeypatch):
    """Catches a metric of the set that overwrites what the task itself measures under the same
    name."""
    extractor = SimpleNamespace(classifier=None, config=SimpleNamespace(name="tiny6"))
    images = np.random.default_rng(0).integers(0, 255, (2, 1, 8, 8), np.uint8)
    monkeypatch.setattr(evaluators, "score", lambda scored, names: {"psnr_whole": (1.0, "score")})
    with pytest.raises(
        ValueError, match="a metric returns psnr_whole, which zero_shot measures itself"
    ):
        asked = [evaluators.Evaluator(extractor, images, ("mine",))]
        zero_shot.Likeness(images, None, asked).to(images, None)


def test_held_out_images_are_of_every_class(made, tmp_path, monkeypatch):
    """Catches the first images of a folder, which are those of its first classes,
    taken for all of it."""
    run_id = made.of("zero_shot")[0]
    data = made.root / made.plan.jobs[run_id].inputs["data"]
    shutil.copytree(data, tmp_path / "data")
    labels = np.load(data / "test_labels.npy")
    order = np.argsort(labels, kind="stable")
    for name in ("images", "labels"):
        np.save(tmp_path / "data" / f"test_{name}.npy", np.load(data / f"test_{name}.npy")[order])
    sign(tmp_path / "data")
    seen = []
    monkeypatch.setattr(
        evaluators, "score", lambda scored, names: seen.append(scored.labels_N) or {}
    )
    assert made.run(run_id, tmp_path / "out", data=tmp_path / "data") == 0
    shares = np.bincount(labels, minlength=10) / len(labels)
    assert len(labels) > 300 and len(seen[0]) == 100
    assert (np.abs(np.bincount(seen[0], minlength=10) - 100 * shares) < 1.01).all()


def test_strips_show_what_each_task_knows(made):
    """Catches a strip whose input shows hidden pixels, whose baseline changed known ones, or that
    collect does not gather."""
    run_id = made.of("zero_shot")[0]
    found = collect.sample_images({run_id: made.folders[run_id]})
    original, hidden = found[f"{run_id}/original"], np.zeros((8, 8), bool)
    hidden[2:6, 2:6] = True
    assert original.shape == (6, 1, 8, 8) and found[f"{run_id}/ceiling"].shape == original.shape
    for task, region in (("inpaint", hidden), ("outpaint", ~hidden)):
        shown, filled = found[f"{run_id}/{task}_input"], found[f"{run_id}/{task}_baseline"]
        assert (shown[:, :, region] == 128).all()
        assert np.array_equal(shown[:, :, ~region], original[:, :, ~region])
        assert np.array_equal(
            filled[:, :, ~region], original[:, :, ~region]
        ) and not np.array_equal(filled, original)
    assert {f"{run_id}/super_resolution_{m}_completed" for m in (1, 2)} <= found.keys()


def test_error_propagation_verb(made):
    """Catches a share without a row, a last scale that something later repairs,
    and errors that change nothing."""
    for run_id in made.of("error_propagation"):
        rows = made.rows(run_id)
        value = {key: float(row["value"]) for key, row in rows.items()}
        for k, length in enumerate((1, 4, 16)):
            for p, share in (("0.1", 0.1), ("1", 1.0)):
                assert value[f"tokens_replaced_p{p}", str(k)] == max(1, round(share * length))
                assert value[f"drift_p{p}", str(k)] > 0
                ratio = value[f"drift_p{p}", str(k)] / value[f"direct_drift_p{p}", str(k)]
                assert value[f"repair_ratio_p{p}", str(k)] == pytest.approx(ratio)
                assert {
                    (f"{name}_change_p{p}_digits16", str(k)) for name in ("fid", "class_agreement")
                } <= rows.keys()
            assert value["direct_drift_p1", str(k)] >= value["direct_drift_p0.1", str(k)]
        assert value["repair_ratio_p0.1", "2"] == value["repair_ratio_p1", "2"] == 1
        assert value["drift_p0.1", "0"] == value["drift_p1", "0"]  # one token either way
        assert value["drift_unrelated", ""] > value["drift_p0.1", "2"]
        assert ("clean_fid_digits16", "") in rows


def test_every_score_that_is_measured_has_its_change(made, tmp_path, monkeypatch):
    """Catches a FID whose fall is read without what falls beside it,
    and a name with the wrong ending."""
    levels = []

    def with_more(scored, metrics):
        levels.append(scored.generated.mean() / 255)
        return {
            **score(scored, metrics),
            "coverage_digits16": (levels[-1], "share"),
            "fid_pixels": (3 * levels[-1], "distance"),
        }

    monkeypatch.setattr(evaluators, "score", with_more)
    run_id = next(run for run in made.of("error_propagation") if "hNone" in run)
    assert made.run(run_id, tmp_path / "out") == 0
    rows = {
        (row["metric"], row["scale"]): row
        for row in read_rows(tmp_path / "out" / "metrics.csv", METRIC_COLUMNS)
    }
    change = float(rows["coverage_change_p1_digits16", "2"]["value"])
    assert change == pytest.approx(levels[-1] - levels[0]) and change != 0
    assert float(rows["fid_pixels_change_p1", "2"]["value"]) == pytest.approx(3 * change)
    assert {("clean_fid_pixels", ""), ("clean_coverage_digits16", "")} <= rows.keys()


@pytest.mark.parametrize("stage", ["zero_shot", "error_propagation"])
def test_too_few_held_out_images_are_one_line(made, tmp_path, stage):
    """Catches a FID of a handful of images, and an error that does not name the setting."""
    run_id = made.of(stage)[0]
    data = made.root / made.plan.jobs[run_id].inputs["data"]
    shutil.copytree(data, tmp_path / "data")
    for name in ("images", "labels"):
        np.save(tmp_path / "data" / f"test_{name}.npy", np.load(data / f"test_{name}.npy")[:99])
    sign(tmp_path / "data")
    error = made.run(run_id, tmp_path / "out", data=tmp_path / "data")
    assert (
        isinstance(error, str)
        and "\n" not in error
        and "dataset.test_share" in error
        and "99" in error
    )
    assert not (tmp_path / "out" / "row.json").exists()


@pytest.mark.parametrize("stage", ["zero_shot", "error_propagation"])
def test_verbs_run_by_hand(made, tmp_path, stage):
    """Catches a command line that lacks an input, and numbers that are not the same when the job
    runs again."""
    run_id = made.of(stage)[0]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bench", stage, *made.words(run_id, tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "metrics.csv").read_bytes() == (
        made.folders[run_id] / "metrics.csv"
    ).read_bytes()


# ---------------------------------------------------------------- figures and tables


def words_of(figure):
    return " ".join(
        text.get_text() for text in figure.findobj(lambda part: hasattr(part, "get_text"))
    ).replace("\n", " ")


def test_figures_and_tables_show_what_was_measured(made, tmp_path):
    """Catches a number that does not reach its table, a panel without a unit,
    and a caption without N, extractor or seeds."""
    results = made.collect(tmp_path)
    table, caption = zero_shot_show.table_zero_shot(View(results, "zero_shot"))
    assert (table["Status"] == "ok").all() and len(table) == 4 * 4
    run_id = next(run for run in made.of("zero_shot") if "hNone" in run)
    value = float(made.rows(run_id)["outpaint_psnr_unknown", ""]["value"])
    cell = table[(table["Task"] == "out-painting") & (table["Variant"] == "VAR")][
        "PSNR unknown (dB)"
    ].iloc[0]
    assert cell.numbers["mean"] == pytest.approx(value)
    assert (
        "must not be compared" in caption
        and "N = 100" in caption
        and "digits16" in caption
        and "seed (0)" in caption
    )
    table, caption = errors_show.table_error_propagation(View(results, "error_propagation"))
    assert (table["Status"] == "ok").all() and table["Tokens replaced"].tolist() == [
        "1",
        "1",
        "4",
        "2",
        "16",
    ] * 2
    assert table["Shares"].tolist()[0] == "0.1, 1" and "N = 100" in caption
    assert "FID rewards the noise" in caption and "Change of FID (digits16)" in table.columns
    assert sum("coverage" in title or "pixels" in title for title in table.columns) == 2
    figures = {
        name: rooms.function_of("figures", name)(View(results, suite))
        for suite, name in (
            ("zero_shot", "zero_shot"),
            ("zero_shot", "zero_shot_strips"),
            ("error_propagation", "error_propagation"),
        )
    }
    for name, (figure, caption) in figures.items():
        text = words_of(figure)
        assert "missing" not in text and "not measured" not in text and "seed" in caption
        for variant in results.variants(
            "error_propagation" if name == "error_propagation" else "zero_shot"
        ):
            assert variant in text
    assert {"PSNR (dB)", "SSIM (1 = equal)"} <= {
        axes.get_ylabel() for axes in figures["zero_shot"][0].axes
    }
    assert figures["zero_shot_strips"][0].axes[0].get_images()


def test_super_resolution_alone_speaks_of_no_unknown_part(made, tmp_path):
    """Catches columns without one number, and captions that explain them."""
    results = made.collect(tmp_path)
    results.about["suites"]["zero_shot"]["zero_shot"] |= {"inpaint": None, "outpaint": None}
    view = View(results, "zero_shot")
    table, caption = zero_shot_show.table_zero_shot(view)
    assert not [title for title in table if "unknown" in title] and "unknown" not in caption
    assert (table["PSNR whole (dB)"] != "").all() and len(table) == 2 * 4
    assert "unknown" not in zero_shot_show.figure_zero_shot(view)[1]


def test_models_of_one_scale_have_no_super_resolution(made, tmp_path):
    """Catches a panel and words of a task for which there is no scale to keep."""
    results = made.collect(tmp_path)
    for names in results.variants("zero_shot").values():
        names["patch_nums"] = names["patch_nums"][-1:]
    view = View(results, "zero_shot")
    for name in ("zero_shot", "zero_shot_strips"):
        figure, caption = rooms.function_of("figures", name)(view)
        assert "uper-resolution" not in words_of(figure) and "uper-resolution" not in caption
    table, _ = zero_shot_show.table_zero_shot(view)
    assert not any("uper" in str(cell) for cell in table["Task"])


def test_images_without_classes_have_no_words_on_them(made, tmp_path):
    """Catches true classes, and a class that was asked for, where the models know none."""
    results = made.collect(tmp_path)
    view = View(results, "zero_shot")
    assert "their true classes" in zero_shot_show.table_zero_shot(view)[1]
    errors = View(results, "error_propagation")
    assert "samples of one class" in errors_show.table_error_propagation(errors)[1]
    for suite in ("zero_shot", "error_propagation"):
        for names in results.variants(suite).values():
            names["settings"]["model"]["num_classes"] = 0
    words = zero_shot_show.table_zero_shot(view)[1]
    assert "of the true one, which no model is told" in words and "asked for" not in words
    assert "of one class" not in errors_show.table_error_propagation(errors)[1]
    figure, caption = errors_show.figure_error_propagation(errors)
    assert "of one class" not in caption and "of one class" not in words_of(figure)
    results.about["dataset"]["num_classes"] = 0
    results.metrics = results.metrics[~results.metrics["metric"].str.contains("class_agreement")]
    results.known.clear()
    table, caption = zero_shot_show.table_zero_shot(view)
    assert "true classes" not in caption and "Class:" not in caption
    assert not [title for title in table if "Class" in title]


def test_missing_numbers_are_named(made, tmp_path):
    """Catches a failed job that is drawn as nothing, as 0, or as the other variant's number."""
    results = made.collect(tmp_path)
    for suite, stage in (("zero_shot", "zero_shot"), ("error_propagation", "error_propagation")):
        run_id = next(run for run in made.of(stage) if "/h0" in run)
        lost = results.runs["run_id"] == run_id
        results.runs.loc[lost, ["status", "reason"]] = "oom", "not enough of it"
        results.metrics = results.metrics[results.metrics["run_id"] != run_id]
        vars(results).pop("_runs_by_id", None)  # read again from the changed rows
        images = results.images.items()
        results.known["images"] = {k: one for k, one in images if not k.startswith(run_id)}
        variant = next(
            name for name, names in results.variants(suite).items() if names["history"] == 0
        )
        table, _ = rooms.function_of("tables", suite)(View(results, suite))
        mine = table[table["Variant"] == variant]
        assert len(mine) and all("oom (not enough of it)" in status for status in mine["Status"])
        assert "oom" in words_of(rooms.function_of("figures", suite)(View(results, suite))[0])
        assert not len(along_scales(View(results, suite), variant, "super_resolution_psnr_whole"))
    strips, _ = zero_shot_show.figure_zero_shot_strips(View(results, "zero_shot"))
    assert "SRDD: missing" in words_of(strips) and "oom" in words_of(strips)
