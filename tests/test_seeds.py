"""What training seeds change: tokenizer, weights and samples; and what intervals then cover."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from small_study import GRID, TOKENIZER, build
from test_config import SMOKE, edited

import bench.experiments.adaptation.verb as adaptation
import bench.experiments.classify.verb as classify
import bench.experiments.error_propagation.verb as error_propagation
from bench.experiments.restoration.verb import Restoration
from bench.pipeline.labels import first_sample
from bench.pipeline.tokenizer_trainer import first_tokenizer, seed_of
from bench.pipeline.trainer import Trainer
from bench.pipeline.training import Average
from bench.report.claims import claim_details
from bench.report.results import Results
from bench.report.view import View
from bench.report.words import samplers, seeds_details
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from bench.study.settings import EvaluationConfig
from bench.study.tokenizer_settings import TokenizerTraining
from srdd import heads, tokenizer
from srdd.config import ModelConfig, SamplerConfig, TokenizerConfig
from srdd.noise import generator, truncated_normal_
from srdd.tokenizer import Codec

ROOMS = [(adaptation, "adaptation"), (error_propagation, "error_propagation")]


def of_stage(plan, stage):
    return [job for run_id, job in plan.jobs.items() if run_id.startswith(f"{stage}/")]


def test_each_training_seed_has_a_tokenizer_that_its_jobs_read():
    """Catches intervals of one tokenizer given out as those of the method."""
    plan = load_study(SMOKE)
    assert sorted(job.config["tokenizer_seed"] for job in of_stage(plan, "tokenizer")) == [0, 1]
    assert len({job.identity["tokenizer"] for job in of_stage(plan, "tokenizer")}) == 1
    for stage in ("train", "sample", "evaluate"):
        for job in of_stage(plan, stage):
            assert job.config["tokenizer_seed"] == job.config["train_seed"]
    for job in of_stage(plan, "train"):
        for role in ("tokenizer", "tokens"):
            read = plan.jobs[job.inputs[role]]
            assert read.config["tokenizer_seed"] == job.config["train_seed"]


def test_a_shared_tokenizer_is_one_job_and_no_result_is_mixed_with_the_others(tmp_path):
    """Catches weights of another tokenizer taken for those of the shared one."""
    own, shared = load_study(SMOKE), load_study(edited(tmp_path, tokenizer_seed="shared"))
    assert len(of_stage(shared, "tokenizer")) == 1
    assert not {*shared.jobs} & {j.run_id for s in ("tokenizer", "train") for j in of_stage(own, s)}


def test_the_seed_of_a_tokenizer_follows_from_both_of_its_seeds():
    """Catches training seeds that all train one tokenizer under another name."""
    mine, other = TokenizerTraining(seed=0), TokenizerTraining(seed=1)
    seeds = [seed_of(config, seed) for config in (mine, other) for seed in (None, 0, 1, 2)]
    assert len(set(seeds)) == 8 and seeds[0] == 0 and seeds[4] == 1


@pytest.mark.parametrize("num_images, first", [(100, 0), (1280, 7)])
def test_no_two_trainings_draw_one_sample_seed(num_images, first):
    """Catches samples that all trainings share, whose noise an interval over trainings lacks."""
    evaluation = EvaluationConfig(num_images=num_images, first_seed=first)
    begins = [first_sample(evaluation, seed) for seed in (0, 1, 5)]
    assert begins[0] == first == first_sample(evaluation, None)
    assert all(np.diff(begins) >= num_images)


@pytest.mark.parametrize("room, about", ROOMS)
@pytest.mark.parametrize("num_images", [100, 300])
def test_rooms_that_draw_more_than_an_evaluation_share_no_sample_seed(
    monkeypatch, room, about, num_images
):
    """Catches a room whose own number of images reaches into the samples of the next training."""
    asked, settings = [], room.Settings(num_images=num_images)
    given = {
        "images": EvaluationConfig(num_images=200),
        "evaluation": EvaluationConfig(num_images=200),
    }
    given |= {about: settings, "sampler": SamplerConfig()}
    held = SimpleNamespace(reference=SimpleNamespace(images=range(200)), name="one")
    monkeypatch.setattr(room, "open_evaluators", lambda *_: [held], raising=False)
    for name in ("open_tokenizer", "open_model", "made_ready", "model_identity"):
        monkeypatch.setattr(room, name, MagicMock(), raising=False)
    monkeypatch.setattr(room, "asked_labels", lambda _, classes, seeds, rule: asked.append(seeds))
    for train_seed in (0, 1, 2):
        run = MagicMock(config={"train_seed": train_seed})
        run.settings = lambda name, kind: given[name]
        (room.Errors if about == "error_propagation" else room.Probe)(run)
    drawn = [seed for seeds in asked for seed in seeds]
    assert len(drawn) == len(set(drawn)) == 3 * num_images
    assert [seeds[0] for seeds in asked] == [k * max(200, num_images) for k in range(3)]


def test_restored_images_are_drawn_with_other_numbers_in_every_training():
    """Catches drawn restorations whose noise all trainings share, and an interval that lacks it."""
    split, drawn = range(5), []
    parts = list(torch.zeros(3, 1, 2, 2, dtype=torch.uint8).split(2))
    clean = SimpleNamespace(
        split=split, parts=lambda _: parts, batches=lambda: [[0, 3], [4]], on_disk=list
    )
    for train_seed in (0, 1, 2):
        restoration = object.__new__(Restoration)
        run = SimpleNamespace(config={"train_seed": train_seed}, device=torch.device("cpu"))
        restoration.run, restoration.clean = run, clean
        restoration.tokenizer = SimpleNamespace(to_image=lambda f_hat_BChw: f_hat_BChw)
        restoration.degraded = {"noise": None}

        def states(images_BCHW, seeds):
            drawn.extend(seeds)
            return images_BCHW

        restoration.images(states, "noise")
    assert drawn == [0, 3, 4, 5, 8, 9, 10, 13, 14]


def test_noisy_copies_are_drawn_with_other_numbers_in_every_training(monkeypatch):
    """Catches smoothed likelihoods and masked bounds whose noise all trainings share."""
    asked = []

    def drawn(ladder, latent_BChw, noise, seeds, count):
        asked.extend(seeds)
        return torch.zeros(count, len(seeds), 3)

    monkeypatch.setattr(classify, "smoothed_tokens", drawn)
    for train_seed in (0, 1, 2):
        held = object.__new__(classify.HeldOut)
        held.split_size, held.rows_N, held.together = 50, np.array([2, 9, 11]), 2
        held.device, held.ladder, held.latent_std = torch.device("cpu"), None, 1.0
        held.run = SimpleNamespace(out=None, config={"train_seed": train_seed})
        monkeypatch.setattr(classify, "on_disk", lambda out, parts: torch.cat(list(parts)))
        assert held.copies(torch.zeros(3, 1), 0.5, 2).shape == (2, 3, 3)
    assert asked == [2, 9, 11, 52, 59, 61, 102, 109, 111]


def test_sample_seeds_that_no_table_can_show_are_refused(tmp_path):
    """Catches a seed that a float rounds to that of another training."""
    evaluation = {"num_images": 10**7, "metrics": ["fidelity"], "batch_size": 100}
    with pytest.raises(
        ConfigError, match="train_seeds: 2147483647: .* give a seed below 900,719,925"
    ):
        load_study(edited(tmp_path, train_seeds=[0, 2**31 - 1], evaluation=evaluation))
    load_study(edited(tmp_path, train_seeds=[0, 9 * 10**8], evaluation=evaluation))


def test_a_setting_is_not_scored_on_the_seeds_that_tuned_it(tmp_path):
    """Catches the best of many settings scored by the numbers that made it the best."""
    words = {"suites/main/tuned_on": "guidance", "suites/guidance/train_seeds": [1, 5]}
    with pytest.raises(
        ConfigError, match=r"main.tuned_on: 'guidance' .*\[1, 5\].*\[0, 1\]; seed 1"
    ):
        load_study(edited(tmp_path, **words))
    load_study(edited(tmp_path, **{**words, "suites/guidance/train_seeds": [5, 6]}))
    with pytest.raises(ConfigError, match="tuned_on: .*tune"):
        load_study(edited(tmp_path, **{"suites/main/tuned_on": "tune"}))
    only_timed = {**words, "suites/main/tuned_on": "latency", "suites/latency/train_seeds": [5, 6]}
    with pytest.raises(
        ConfigError, match="main.tuned_on: 'latency' measures latency, which scores nothing"
    ):
        load_study(edited(tmp_path, **only_timed))


@pytest.mark.parametrize(
    "seeds, words",
    [("train_seed", "each with a tokenizer of its own"), ("shared", "conditional on the one")],
)
def test_captions_say_what_intervals_cover(tmp_path, seeds, words):
    """Catches an interval of one tokenizer that is read as one over tokenizers."""
    results = Results.load(build(tmp_path, ["a"], tokenizer_seed=seeds))
    assert words in " ".join(seeds_details(View(results, "s")))


def test_scores_of_each_training_are_those_of_its_own_sample_seeds(tmp_path):
    """Catches a training whose scores are missing, or another part of its images taken for all."""
    results = Results.load(build(tmp_path, ["a"], tokenizer_seed="train_seed"))
    assert results.of("a", "s", "fid_x8").index.tolist() == [0], "seed 1 drew seeds 200 to 399"
    path = tmp_path / "metrics.csv"
    rows = pd.read_csv(path, dtype=str)
    second = (rows["train_seed"] == "1") & rows["seed_first"].notna()
    rows.loc[second, ["seed_first", "seed_last"]] = ["200", "399"]
    rows.to_csv(path, index=False)
    assert Results.load(tmp_path).of("a", "s", "fid_x8").index.tolist() == [0, 1]


def test_floors_of_several_tokenizers_are_a_mean_and_two_of_one_are_refused(tmp_path):
    """Catches the floor of one tokenizer drawn for all, and one tokenizer with two floors."""
    about = {"study": "x", "metric": "floor_fid_x8", "unit": "score", "run_id": "baselines/g-1"}
    grid = {**about, "tokenizer": TOKENIZER, "model": GRID}
    more = [{**grid, "train_seed": seed, "value": value} for seed, value in ((0, 2.5), (1, 3.5))]
    results = Results.load(build(tmp_path, ["a"], more=more))
    found = results.grid_estimate(results.variants("s")["a"], "floor_fid_x8")
    assert (found.mean, found.count) == (pytest.approx(2.5), 3)  # 1.5 of no seed, 2.5, 3.5
    more.append({**grid, "train_seed": 1, "value": 3.0, "num_images": 7})
    results = Results.load(build(tmp_path, ["a"], more=more))
    with pytest.raises(ValueError, match="two values, 3.5 and 3"):
        results.grid_value(results.variants("s")["a"], "floor_fid_x8")


def test_a_caption_does_not_list_the_samplers_of_a_sweep(tmp_path):
    """Catches a caption of a thousand words: what differs already stands in the variants' names."""
    results = Results.load(build(tmp_path, [f"w {i}" for i in range(9)]))
    assert "All variants" in samplers(View(results, "s"))
    for i, names in enumerate(results.variants("s").values()):
        names["settings"]["sampler"]["cfg_scale"] = 1.5 + i
    few, many = samplers(View(results.only("s", ["w 0", "w 1"]), "s")), samplers(View(results, "s"))
    assert "w = 1.5" in few and "w = 2.5" in few
    assert "w = 1.5" not in many and "temperature 1" in many and "names of the variants" in many


def test_a_caption_says_what_the_entries_of_a_sweep_share(tmp_path):
    """Catches a rule of refinement that neither caption nor names of variants say, and parts of a
    rule cut at the commas in its brackets."""
    results = Results.load(build(tmp_path, [f"{i}" for i in range(9)]))
    for i, names in enumerate(results.variants("s").values()):
        names["group"] = "SRDD" if i < 5 else "SDD"
        more = (
            {
                "name": "srdd",
                "refine_steps": 1 + i,
                "select": {"name": "static", "confidence": "peak"},
            }
            if i < 5
            else {"top_p": 0.1 * i}
        )
        names["settings"]["sampler"] |= more
    found = samplers(View(results, "s"))
    assert "SRDD: sampler srdd, top-p 1, select static (quota, ranked by peak)" in found
    assert (
        "SDD: sampler var" in found
        and "further" not in found
        and "All samplers: guidance off" in found
    )
    assert len(found) < 400


def test_who_chose_must_have_scored_and_not_be_chosen_for(tmp_path):
    """Catches tuning by a suite that scores nothing, in a circle,
    or on seeds of who chose first."""
    words = {"suites/main/tuned_on": "latency", "suites/latency/train_seeds": [7]}
    with pytest.raises(
        ConfigError, match="tuned_on: 'latency' measures latency, which scores nothing"
    ):
        load_study(edited(tmp_path, **words))
    words = {"suites/main/tuned_on": "guidance", "suites/guidance/train_seeds": [7]}
    load_study(edited(tmp_path, **words))
    with pytest.raises(ConfigError, match="in a circle"):
        load_study(edited(tmp_path, **words, **{"suites/guidance/tuned_on": "main"}))
    guidance = yaml.safe_load(SMOKE.read_text())["suites"]["guidance"]
    words |= {"suites/guidance/tuned_on": "first", "suites/first": {**guidance, "train_seeds": [1]}}
    with pytest.raises(
        ConfigError, match=r"tuned_on: 'first' chose settings on training seeds \[1\]"
    ):
        load_study(edited(tmp_path, **words))


def test_captions_leave_the_reasons_of_claims_to_their_table(tmp_path):
    """Catches every caption of a study repeating what one table says, and one that says nothing."""
    asked = {
        "text": "b beats a",
        "origin": "ours",
        "rule": "score",
        "variant": "b",
        "against": "a",
        "metric": "fid",
        "better": "lower",
    }
    with_table = Results.load(build(tmp_path / "t", ["a", "b"], claims=[asked], tables=["claims"]))
    alone = Results.load(build(tmp_path / "a", ["a", "b"], claims=[asked]))
    short, long = (
        " ".join(claim_details(View(with_table, "s"))),
        " ".join(claim_details(View(alone, "s"))),
    )
    assert "b beats a: no" in short and "b beats a: no" in long
    assert "paired by training seed" in long and "paired by training seed" not in short
    assert "table claims" in short


def _bits(module):
    return torch.cat([value.flatten().double() for value in module.state_dict().values()])


def _own_codec(config):
    """A codec with what the project does not draw: a transposed convolution, no bias, counts."""
    C, cell = config.codebook_dim, config.downsampling
    into = torch.nn.Conv2d(config.in_channels, C, cell, stride=cell, bias=False)
    back = torch.nn.ConvTranspose2d(C, config.in_channels, cell, stride=cell)
    return Codec(into, torch.nn.BatchNorm2d(C), torch.nn.Identity(), back)


class _OwnHead(torch.nn.Linear):
    def __init__(self, width, codes):
        super().__init__(width, codes)
        self.scale = torch.nn.Parameter(torch.rand(3))


def test_own_layers_start_from_the_seed(monkeypatch):
    """Catches first weights of a codec or head of one's own that no seed repeats: torch's own
    generator drew what `init_weights` leaves as it is."""
    monkeypatch.setattr(tokenizer, "codec_mine", _own_codec, raising=False)
    monkeypatch.setattr(heads, "head_mine", lambda c: _OwnHead(c.width, c.codebook_size),
        raising=False)  # fmt: skip
    sizes = TokenizerConfig(patch_nums=(1, 2, 4), image_size=8, in_channels=1, channels=8,
        norm_groups=8, channel_multipliers=(1, 2), codebook_size=7, codebook_dim=4,
        codec="mine")  # fmt: skip
    config = ModelConfig(patch_nums=(1, 2), codebook_size=7, codebook_dim=4, depth=1, width=8,
        heads=1, head="mine")  # fmt: skip
    made = {}
    for seed, chance in ((0, 1), (0, 2), (1, 3)):
        torch.manual_seed(chance)
        before = torch.get_rng_state()
        trainer = Trainer.__new__(Trainer)
        trainer.model_config, trainer.seed = config, seed
        own = first_tokenizer(sizes, seed)
        made[chance] = _bits(trainer.first_model()), _bits(own)
        assert torch.equal(before, torch.get_rng_state()), "moves a generator that others read"
    for ours, again, other in zip(*made.values()):
        assert torch.equal(ours, again) and not torch.equal(ours, other)
    average = Average(own, 0.9)
    own.train().to_latent(torch.rand(2, 1, 8, 8))
    average.update(own, 0)
    assert average.weights["pre_quant.num_batches_tracked"] == 1


def test_first_weights_are_those_of_every_release_of_torch():
    """Catches weights that another release of torch draws otherwise from the same seed, and numbers
    beyond the bound."""
    weight = truncated_normal_(torch.empty(6), 1.5, generator("t"))
    wanted = [0.8241534, 1.0264472, 1.434216, 0.3636471, 0.8960108, -1.3511189]
    assert weight.tolist() == pytest.approx(wanted, rel=1e-6)
    many = truncated_normal_(torch.empty(20_000), 1.5, generator("many"))
    assert many.abs().max() <= 2.0
    # sigma 1.5 cut at 2: scipy.stats.truncnorm(-4 / 3, 4 / 3, scale=1.5).std()
    assert many.std() == pytest.approx(1.0229, abs=0.02)
