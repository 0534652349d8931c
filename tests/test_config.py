"""Studies: what is refused, in which words; what follows from a study."""

import copy
from pathlib import Path

import pytest
import yaml

from bench.study.before import missing_files
from bench.study.entries import entries_of
from bench.study.errors import ConfigError
from bench.study.names import canonical_sampler
from bench.study.plan import load_study
from srdd.config import SamplerConfig

ROOT = Path(__file__).resolve().parent.parent
SMOKE = ROOT / "tests" / "studies" / "smoke.yaml"
STUDIES = sorted((ROOT / "workflows" / "config").glob("*.yaml"))


def edited(tmp_path, **changes):
    """The smoke study with dotted keys changed; a value of ... removes the key."""
    data = yaml.safe_load(SMOKE.read_text().replace("3e-3", "3.0e-3"))
    data = copy.deepcopy(data)
    for dotted, value in changes.items():
        *parents, last = dotted.split("/")
        node = data
        for part in parents:
            node = node[part]
        if value is ...:
            del node[last]
        else:
            node[last] = value
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def refined(mask_prob=None, **sampler):
    """Changes that add a variant SRDD to the smoke study: two passes of MR,
    and what else is given."""
    delta = {
        "sampler.name": "srdd",
        "sampler.refine_steps": 2,
        **{f"sampler.{key}": value for key, value in sampler.items()},
    }
    delta |= {} if mask_prob is None else {"model.mask_prob": mask_prob}
    return {"suites/main/variants/SRDD": {"base": "var", "delta": delta}}


def ruled(name, **knobs):
    """The same, refined by a rule with some of its settings."""
    return refined(mask_prob=0.5, select={"name": name, **knobs})


def claim(**keys):
    return {"suites/main/claims": [{"text": "one is better", **keys}]}


def grid(values):
    """Changes that turn the variant SDD of the smoke study into a grid;
    the suite's claim is about SDD as one variant."""
    return {
        "suites/main/variants/SDD": {"base": "var", "delta": {"model.history": 0}, "grid": values},
        "suites/main/claims": [],
    }


# changes that leave of the suite main what any measure can feed
BARE = {"suites/main/figures": [], "suites/main/tables": [], "suites/main/claims": []}


SUM = "a" * 64


def imported(file="v.pth", sha256=SUM, suite="main", **more):
    """Changes that give a variant of the smoke study weights that exist."""
    entry = {"base": "var", "delta": {"weights": {"file": file, "sha256": sha256}, **more}}
    return {f"suites/{suite}/variants/VAR": entry, f"suites/{suite}/train_seeds": [0]}


def student_of(teacher, arm="real", **more):
    """Changes that add a student of a teacher with such a delta."""
    distill = {"arm": arm, "teacher": {"base": "var", "delta": teacher}}
    return {"suites/main/variants/student": {"base": "var", "delta": {"distill": distill, **more}}}


def published(**keys):
    return {
        "suites/main/published": [
            {"variant": "VAR", "metric": "fid", "value": 1.0, "source": "somebody", **keys}
        ]
    }


WEIGHTS = {"weights": {"file": "v.pth", "sha256": SUM}}
BAD = {
    "misspelt key": ({"evaluation/num_imges": 100}, ["evaluation.num_imges", "num_images"]),
    "misspelt key in a base": ({"bases/var/model/hisory": 1}, ["hisory", "history"]),
    "misspelt key in a delta": (
        {"suites/main/variants/SDD/delta": {"model.histroy": 0}},
        ["SDD", "histroy", "history"],
    ),
    "wrong type": ({"bases/var/training/steps": "many"}, ["training.steps", "many"]),
    "a number as text": ({"evaluation/num_images": "100"}, ["evaluation.num_images"]),
    "value out of range": ({"evaluation/num_images": 3}, ["evaluation.num_images", "100", "3"]),
    "schedule does not grow": (
        {"bases/var/model/patch_nums": [1, 3, 2, 4]},
        ["patch_nums", "[1, 3, 2, 4]", "smaller"],
    ),
    "schedule does not end at the latent": (
        {"bases/var/model/patch_nums": [1, 2, 3]},
        ["patch_nums", "[1, 2, 3]", "4"],
    ),
    "tokenizer schedule does not end": (
        {"bases/var/tokenizer/config/patch_nums": [1, 2]},
        ["patch_nums", "latent size 4"],
    ),
    "cfg_scale below 0": ({"bases/var/sampler/cfg_scale": -0.5}, ["cfg_scale", "-0.5", "0"]),
    "guidance without class dropout": (
        {"bases/var/model/class_dropout": 0.0},
        ["cfg_scale", "class_dropout"],
    ),
    "missing base": ({"suites/main/variants/SDD/base": "vra"}, ["SDD.base", "'vra'", "'var'"]),
    "class count": ({"bases/var/model/num_classes": 7}, ["num_classes", "7", "10"]),
    "codebook does not fit": ({"bases/var/model/codebook_size": 32}, ["codebook_size", "32", "16"]),
    "unknown figure": ({"suites/main/figures": ["fidd"]}, ["figures", "fidd", "fid"]),
    "unknown table": ({"suites/main/tables": ["score"]}, ["tables", "scores"]),
    "unknown metric": ({"evaluation/metrics": ["fid"]}, ["metrics", "fid", "fidelity"]),
    "unknown dataset": ({"dataset/name": "digit"}, ["dataset.name", "digit", "digits"]),
    "unknown sampler": ({"bases/var/sampler/name": "vra"}, ["sampler.name", "var"]),
    "unknown ramp": ({"bases/var/sampler/cfg_ramp": "cosine"}, ["cfg_ramp", "cosine", "linear"]),
    "unknown mask": ({"bases/var/model/mask": "windows"}, ["model.mask", "windows"]),
    "width and heads": ({"bases/var/model/heads": 3}, ["width 16", "heads 3"]),
    "suite named as a rule": (
        {"suites/figures": {"claim": "x", "variants": {"a": {"base": "var"}}}},
        ["suites.figures"],
    ),
    "suite named as what is collected": (
        {"suites/study": {"claim": "x", "variants": {"a": {"base": "var"}}}},
        ["suites.study"],
    ),
    "suite named as what is published": (
        {"suites/published": {"claim": "x", "variants": {"a": {"base": "var"}}}},
        ["suites.published"],
    ),
    "same settings twice": (
        {"suites/main/variants/twin": {"base": "var"}},
        ["twin", "same settings", "VAR"],
    ),
    "timed twice": (
        {"suites/latency/variants/SDD/delta": {"training.steps": 13}},
        ["latency", "SDD", "same settings", "VAR"],
    ),
    "same seed twice": ({"train_seeds": [1, 1]}, ["train_seeds", "[1, 1]"]),
    "features without classes": ({"dataset/num_classes": 0}, ["features.kind", "inception"]),
    "missing key": ({"dataset": ...}, ["dataset", "missing"]),
    "delta through a value": (
        {"suites/main/variants/SDD/delta": {"model.depth.x": 1}},
        ["model.depth"],
    ),
    "top_k above the codes": ({"bases/var/sampler/top_k": 17}, ["top_k", "17", "16"]),
    "refined without masks": (
        refined(),
        ["SRDD (delta and base).sampler.refine_steps 2", "mask_prob > 0"],
    ),
    "VAR that refines": (
        {"bases/var/sampler/refine_steps": 2},
        ["sampler var", "refine_steps 2", "name srdd"],
    ),
    "VAR that resamples": (
        {"bases/var/sampler/sr_steps": 3},
        ["sampler var", "sr_steps 3", "name srdd"],
    ),
    "p_resample 0": (
        refined(mask_prob=0.5, p_resample=0),
        ["sampler.p_resample", "greater than 0", "got 0"],
    ),
    "p_resample 1": (
        refined(mask_prob=0.5, p_resample=1.0),
        ["sampler.p_resample", "less than 1", "got 1.0"],
    ),
    "p_resample above 1": (
        refined(mask_prob=0.5, p_resample=1.5),
        ["sampler.p_resample", "less than 1", "got 1.5"],
    ),
    "commit_above 1": (
        ruled("dynamic", commit_above=1.0),
        ["sampler.select.commit_above", "less than 1", "got 1.0"],
    ),
    "resample_fraction 0": (
        ruled("lowest", resample_fraction=0.0),
        ["sampler.select.resample_fraction", "greater than 0"],
    ),
    "entropy_bound without end": (
        ruled("entropy", entropy_bound=float("inf")),
        ["sampler.select.entropy_bound", "finite", "inf"],
    ),
    "negative steps": (
        refined(mask_prob=0.5, sr_steps=-1),
        ["sampler.sr_steps", "greater than or equal to 0", "-1"],
    ),
    "p_resample of a rule": (
        ruled("threshold", p_resample=2.0),
        ["sampler.select.p_resample", "less than 1"],
    ),
    "misspelt setting of a rule": (
        ruled("threshold", p_resmple=0.2),
        [
            "sampler.select",
            "unknown setting of select threshold 'p_resmple'",
            "did you mean 'p_resample'",
        ],
    ),
    "setting of another rule": (
        refined(mask_prob=0.5, **{"select": "shuffled", "select.p_resample": 0.2}),
        ["sampler.select", "unknown setting of select shuffled 'p_resample' (there are: none)"],
    ),
    "setting of an unknown rule": (
        ruled("treshold", p_resample=0.2),
        ["sampler.select", "'treshold'", "did you mean 'threshold'"],
    ),
    "unknown confidence": (
        ruled("static", confidence="peek"),
        ["sampler.select.confidence", "'peek'", "did you mean 'peak'"],
    ),
    "no rule": (
        refined(mask_prob=0.5, select=3),
        ["sampler.select", "name of a select_<name>", "3"],
    ),
    "unknown rule": (
        refined(mask_prob=0.5, select="treshold"),
        ["sampler.select", "'treshold'", "did you mean 'threshold'", "entropy"],
    ),
    "scales beyond the last": (
        refined(mask_prob=0.5, refine_scales=[1, 3]),
        ["sampler.refine_scales [1, 3]", "0 to 2"],
    ),
    "scales below the first": (
        refined(mask_prob=0.5, refine_scales=[-1]),
        ["refine_scales [-1]", "from 0"],
    ),
    "mask_prob above 1": (
        refined(mask_prob=1.5),
        ["model.mask_prob", "less than or equal to 1", "1.5"],
    ),
    "micro-batches of other sizes": (
        {"bases/var/training/accumulate": 3},
        ["training", "accumulate 3", "batch_size 16"],
    ),
    "no micro-batch": (
        {"bases/var/training/accumulate": 0},
        ["training.accumulate", "greater than or equal to 1", "0"],
    ),
    "corruption without noise": (
        {"bases/var/training/corruption": "uniform"},
        ["training", "'uniform'", "eps 0.0", "both"],
    ),
    "noise without a corruption": (
        {"bases/var/training/eps": 0.1},
        ["training", "'none'", "eps 0.1", "both"],
    ),
    "unknown corruption": (
        {"bases/var/training/corruption": "unifrom", "bases/var/training/eps": 0.1},
        ["training.corruption", "'unifrom'", "did you mean 'uniform'", "absorb"],
    ),
    "weights of masked tokens without masks": (
        {"bases/var/training/mask_weight": "elbo"},
        ["training.mask_weight", "'elbo'", "model.mask_prob is 0", "count"],
    ),
    "unknown weight": (
        {"bases/var/training/mask_weight": "elb"},
        ["training.mask_weight", "'elb'", "did you mean 'elbo'", "count"],
    ),
    "no test image": (
        {"bases/var/training/eval_images": 0},
        ["training.eval_images", "greater than or equal to 1", "0"],
    ),
    "corruption of a probe": (
        {"suites/main/equivalence": {"corruptions": ["absorbed"]}},
        ["equivalence.corruptions", "'absorb'"],
    ),
    "sweep and scores": (
        {"suites/main/measure": ["scores", "sweep"]},
        ["suites.main.measure", "scores and sweep", "name one"],
    ),
    "unknown measure": (
        {"suites/main/measure": ["score"]},
        ["suites.main.measure", "'scores'", "'score'"],
    ),
    "claim of nobody": (
        claim(variant="SRDD", against="VAR"),
        ["suites.main.claims.variant", "'SRDD'", "'SDD'", "VAR"],
    ),
    "claim against nobody": (
        claim(variant="SDD", against="VRA"),
        ["suites.main.claims.against", "'VRA'", "'VAR'"],
    ),
    "claim by no rule": (
        claim(variant="SDD", against="VAR", rule="scorn"),
        ["suites.main.claims.rule", "unknown name 'scorn'"],
    ),
    "box outside the image": (
        {"suites/main/zero_shot": {"inpaint": [0.25, 0.25, 1.5, 0.75]}},
        ["zero_shot", "inpaint [0.25, 0.25, 1.5, 0.75]", "0 <= top < bottom <= 1"],
    ),
    "box upside down": (
        {"suites/main/zero_shot": {"outpaint": [0.75, 0.25, 0.25, 0.75]}},
        ["outpaint [0.75, 0.25, 0.25, 0.75]"],
    ),
    "box of everything": (
        {"suites/main/zero_shot": {"inpaint": [0.0, 0.0, 1.0, 1.0]}},
        ["inpaint", "whole image"],
    ),
    "grid without values": (
        grid({"sampler.cfg_scale": []}),
        ["SDD.grid.sampler.cfg_scale", "at least 1"],
    ),
    "grid of one value": (
        grid({"sampler.cfg_scale": 2.0}),
        ["SDD.grid.sampler.cfg_scale", "must be a list", "2.0"],
    ),
    "misspelt key in a grid": (
        grid({"model.histroy": [0, 1]}),
        ["SDD, histroy 0", "histroy", "history"],
    ),
    "wrong value in a grid": (
        grid({"sampler.cfg_scale": [2.0, -0.5]}),
        ["SDD, cfg_scale -0.5", "sampler.cfg_scale", "got -0.5"],
    ),
    "a name that a grid gives too": (
        {
            **grid({"sampler.cfg_scale": [2.0]}),
            "suites/main/variants/SDD, cfg_scale 2.0": {"base": "var", "delta": {"model.depth": 1}},
        },
        ["variants.SDD, cfg_scale 2.0", "two different variants"],
    ),
    "a name in other capitals": (
        {"suites/main/variants/sDd": {"base": "var", "delta": {"model.depth": 1}}},
        ["variants.sDd", "differs from 'SDD' in capitals"],
    ),
    "a name in other characters": (
        {"suites/main/variants/\uff33DD\u00a0": {"base": "var", "delta": {"model.depth": 1}}},
        ["variants.", "differs from 'SDD' in capitals, blanks"],
    ),
    "weights of no kind": (imported("v.ckpt"), ["weights.file", "neither .pth", "'v.ckpt'"]),
    "weights of no hub": (
        imported("hf://owner/v.pth"),
        ["weights.file", "hf://OWNER/REPO/FILE", "'hf://owner/v.pth'"],
    ),
    "weights with half a sum": (imported(sha256="abc"), ["weights.sha256", "'abc'"]),
    "tokenizer of no kind": (
        {"bases/var/tokenizer/weights": "t.bin"},
        ["tokenizer.weights", "neither .pth", "'t.bin'"],
    ),
    "official weights with masks": (
        imported(**{"model.mask_prob": 0.5}),
        ["VAR", "model.mask_prob", "0.5", "know no masks"],
    ),
    "imported for several seeds": (
        {**imported(), "suites/main/train_seeds": [0, 1]},
        ["suites.main.train_seeds", "[0, 1]", "'VAR' is imported", "one seed"],
    ),
    "convergence of imported weights": (
        imported(suite="convergence"),
        ["suites.convergence.measure", "'VAR'", "imported"],
    ),
    "as many tokens as nobody counted": (
        student_of(WEIGHTS, "scratch"),
        ["distill.arm", "'scratch'", "'var' is imported", "logit"],
    ),
    "other weights than the teacher's": (
        student_of(WEIGHTS, **{"weights": {"file": "w.pth", "sha256": "b" * 64}}),
        ["student", "weights: 'w.pth' beside distill", "leave one out"],
    ),
    "weights beside a trained teacher": (
        student_of({}, **WEIGHTS),
        ["student", "weights: 'v.pth' beside distill"],
    ),
    "student of other sizes than official": (
        student_of(WEIGHTS, **{"model.depth": 3}),
        ["model.depth 3", "the teacher's is 2"],
    ),
    "two claims of one text": (
        {
            "suites/main/claims": [
                {"text": "one is better", "variant": "VAR", "against": "SDD"},
                {"text": "one is better.", "variant": "SDD", "against": "VAR"},
            ]
        },
        ["suites.main.claims.text", "'one is better' stands twice"],
    ),
    "published of nobody": (
        published(variant="VRA"),
        ["suites.main.published.variant", "'VRA'", "'VAR'"],
    ),
    "published without a source": (published(source=""), ["suites.main.published", "source"]),
    "published of no score": (
        published(metric="nfe"),
        ["suites.main.published", "metric", "'nfe'"],
    ),
    "published twice": (
        {"suites/main/published": 2 * published()["suites/main/published"]},
        ["suites.main", "published: fid of 'VAR' stands twice"],
    ),
    "reference without Inception": (
        {"features/reference": "r.npz"},
        ["features.reference", "kind: inception"],
    ),
    "teacher with a grid": (
        {
            "bases/var/distill": {
                "arm": "scratch",
                "teacher": {"base": "var", "grid": {"model.depth": [1, 2]}},
            }
        },
        ["distill", "teacher.grid ['model.depth']", "delta"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_study_is_one_line_with_key_value_and_remedy(case, tmp_path):
    """Catches a wrong setting that would start work, or an error that does not say which file, key,
    value and what is legal."""
    changes, words = BAD[case]
    path = edited(tmp_path, **changes)
    with pytest.raises(ConfigError) as error:
        load_study(path)
    text = str(error.value)
    assert "\n" not in text and str(path) in text
    for word in words:
        assert word in text, text


def test_two_variants_of_one_name(tmp_path):
    """Catches YAML's habit of silently keeping the last of two equal keys."""
    path = tmp_path / "twice.yaml"
    path.write_text(SMOKE.read_text().replace("      SDD: {base", "      VAR: {base", 1))
    with pytest.raises(ConfigError, match=r"'VAR' stands twice"):
        load_study(path)


def test_missing_and_unreadable_files(tmp_path):
    """Catches a traceback where a path is wrong or a file is no YAML."""
    with pytest.raises(ConfigError, match="no such file"):
        load_study(tmp_path / "none.yaml")
    for text in ("a: [1", "- 1\n- 2\n", ""):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ConfigError):
            load_study(tmp_path / "bad.yaml")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_published_studies_are_sound(path):
    """Catches a study in the project that its own checks refuse; each suite has a claim."""
    plan = load_study(path)
    assert plan.study.study == path.stem
    assert all(suite.claim for suite in plan.study.suites.values())


def test_suites_share_trainings():
    """Catches a model that is trained twice because two suites name it differently."""
    plan = load_study(ROOT / "workflows" / "config" / "digits.yaml")
    train = {
        suite: {run for run in runs if run.startswith("train/")}
        for suite, runs in plan.suites.items()
    }
    assert (
        train["convergence"]
        == train["ablation_guidance"]
        == train["main"] & train["ablation_history"]
    )
    # main trains some for longer too
    assert train["ablation_components"] | train["convergence"] < train["main"]
    # one more schedule, of three training seeds
    assert len(train["ablation_schedule"] - train["ablation_refinement"]) == 3
    assert train["refinement_heat_maps"] < train["main"]
    assert not train["latency"] and not train["main"] & train["main_unconditional"]


def test_a_setting_changes_only_what_depends_on_it(tmp_path):
    """Catches a hash that leaves something out (stale results) or takes too much in (needless
    trainings)."""
    before = set(load_study(edited(tmp_path)).jobs)
    guided = set(load_study(edited(tmp_path, **{"bases/var/sampler/cfg_scale": 2.0})).jobs)
    stages = {run.split("/")[0] for run in before ^ guided}
    # a student learns from samples that are drawn without guidance
    assert stages == {"sample", "evaluate", "latency", "sweep", "zero_shot", "error_propagation"}
    place = "suites/distillation/variants/SDD sequence/delta"
    plain = {f"{place}/sampler.cfg_scale": 1.0, f"{place}/distill.guided": True}
    before_it, after = (
        set(load_study(edited(tmp_path, **plain, **{"bases/var/sampler/cfg_scale": scale})).jobs)
        for scale in (1.5, 2.0)
    )
    assert "distill" in {run.split("/")[0] for run in before_it ^ after}, (
        "but where it is told to learn from guided ones"
    )
    longer = set(load_study(edited(tmp_path, **{"bases/var/training/steps": 13})).jobs)
    stages = {run.split("/")[0] for run in before ^ longer}
    assert stages == {
        "train",
        "sample",
        "evaluate",
        "sweep",
        "equivalence",
        "distill",
        "zero_shot",
        "error_propagation",
    }
    claim = set(load_study(edited(tmp_path, **{"suites/main/claim": "other words"})).jobs)
    assert claim == before


def test_adding_a_variant_is_one_line(tmp_path):
    """Catches an expansion that touches the baselines when a user adds a variant."""
    before = load_study(edited(tmp_path))
    entry = {"base": "var", "delta": {"model.history": 1}}
    after = load_study(edited(tmp_path, **{"suites/main/variants/mine": entry}))
    new = set(after.jobs) - set(before.jobs)
    assert set(before.jobs) < set(after.jobs)
    assert (
        sorted(run.split("/")[0] for run in new)
        == ["evaluate"] * 2 + ["sample"] * 2 + ["train"] * 2
    )
    assert after.identities["main"]["mine"]["history"] == 1


def test_the_refined_variant_itself_is_sound(tmp_path):
    """Catches cases above that are refused for another reason than theirs."""
    plan = load_study(
        edited(tmp_path, **refined(mask_prob=0.5, p_resample=0.3, refine_scales=[1, 2]))
    )
    assert set(plan.identities["main"]) == {"VAR", "SDD", "SRDD"}
    plan = load_study(
        edited(tmp_path, **{"suites/main/measure": ["sweep"], "suites/main/figures": ["fid"]})
    )
    assert any(run.startswith("sweep/") for run in plan.suites["main"])
    corrupted = {"bases/var/training/corruption": "uniform", "bases/var/training/eps": 0.1}
    assert load_study(edited(tmp_path, **corrupted)).jobs


@pytest.mark.parametrize("base", ["threshold", {"name": "threshold", "p_resample": 0.4}, None])
def test_settings_of_a_rule_are_reached_by_dotted_keys(tmp_path, base):
    """Catches a grid over a setting of a rule that the base names by a word, or leaves to the
    default; and a rule that is changed after its settings in the text alone."""
    given = {} if base is None else {"bases/var/sampler/select": base}
    delta = {
        "model.history": 0,
        "model.mask_prob": 0.5,
        "sampler.name": "srdd",
        "sampler.refine_steps": 1,
    }
    values = {"sampler.select.p_resample": [0.2, 0.3]}
    entry = {"base": "var", "delta": delta, "grid": values}
    # the setting stands before the rule
    other = {
        "base": "var",
        "delta": {**delta, "sampler.select.commit_above": 0.3, "sampler.select": "dynamic"},
    }
    changes = {"suites/main/variants/MR": entry, "suites/main/variants/other": other}
    plan = load_study(edited(tmp_path, **given, **changes))
    rules = {
        name: about["settings"]["sampler"]["select"]
        for name, about in plan.identities["main"].items()
    }
    assert rules["MR, p_resample 0.2"] == {"name": "threshold", "p_resample": 0.2}
    assert rules["MR, p_resample 0.3"] == {"name": "threshold", "p_resample": 0.3}
    assert rules["other"] == {"name": "dynamic", "commit_above": 0.3, "confidence": "peak"}


def test_grid_is_every_combination_by_name(tmp_path):
    """Catches a combination that is lost, named unclearly,
    or run with other values than its name says."""
    plan = load_study(
        edited(tmp_path, **grid({"model.history": [0, 1], "sampler.cfg_scale": [2.0, 3.0]}))
    )
    names = [
        "SDD, history 0, cfg_scale 2.0",
        "SDD, history 0, cfg_scale 3.0",
        "SDD, history 1, cfg_scale 2.0",
    ]
    names.append("SDD, history 1, cfg_scale 3.0")
    assert list(plan.identities["main"]) == ["VAR", *names]
    for name in names:
        found = plan.identities["main"][name]
        history, w = found["grid"]["model.history"], found["grid"]["sampler.cfg_scale"]
        assert name == f"SDD, history {history}, cfg_scale {w}" and found["group"] == "SDD"
        assert found["history"] == history and found["settings"]["sampler"]["cfg_scale"] == w
    trained = {run for run in plan.suites["main"] if run.startswith("train/")}
    assert len(trained) == 3 * 2, "guidance must not train a model anew"
    assert list(entries_of(plan.study.suites["main"])) == ["VAR", *names]


def test_settings_of_one_last_word_have_names_of_their_own(tmp_path):
    """Catches `steps 5, steps 10`, of which nobody knows which steps are which."""
    values = {"training.steps": [5, 10], "tokenizer.training.steps": [5, 10], "model.depth": [1]}
    plan = load_study(edited(tmp_path, **grid(values)))
    assert list(plan.identities["main"])[1:] == [
        f"SDD, training.steps {mine}, tokenizer.training.steps {other}, depth 1"
        for mine in (5, 10)
        for other in (5, 10)
    ]


def test_grid_meets_itself_silently(tmp_path):
    """Catches a setting that is run twice under two names, or a grid refused because a value does
    not matter: the ramp at w = 1. Outside of a grid, equal settings are an error."""
    values = {"sampler.cfg_scale": [1.0, 2.0], "sampler.cfg_ramp": ["linear", "constant"]}
    plan = load_study(edited(tmp_path, **grid(values)))
    assert list(plan.identities["main"]) == [
        "VAR",
        "SDD, cfg_scale 1.0, cfg_ramp linear",
        "SDD, cfg_scale 2.0, cfg_ramp linear",
        "SDD, cfg_scale 2.0, cfg_ramp constant",
    ]
    twice = load_study(edited(tmp_path, **grid({"sampler.cfg_scale": [2.0, 2.0]})))
    assert list(twice.identities["main"]) == ["VAR", "SDD, cfg_scale 2.0"]
    for ramp in ("linear", "constant"):
        alone = {
            "base": "var",
            "delta": {"model.history": 0, "sampler.cfg_scale": 1.0, "sampler.cfg_ramp": ramp},
        }
        with pytest.raises(
            ConfigError, match="twin.*same settings as 'SDD, cfg_scale 1.0, cfg_ramp linear'"
        ):
            load_study(edited(tmp_path, **{**grid(values), "suites/main/variants/twin": alone}))


SR, MR = {"sr_steps": 1}, {"refine_steps": 1}


def mr(rule, **knobs):
    return {"refine_steps": 1, "select": {"name": rule, **knobs}}


IDLE = {
    "ramp at w 1": ({}, {"cfg_ramp": "constant"}),
    "threshold without steps": ({}, {"p_resample": 0.3}),
    "scales without steps": ({}, {"refine_scales": (0,)}),
    "rule without MR": (SR, {"select": {"name": "lowest", "resample_fraction": 0.2}}),
    "threshold of SR without SR": (MR, {"p_resample": 0.3}),
    "the rule's name alone": (mr("static"), {"select": "static"}),
    "the rule's own confidence": (mr("static"), mr("static", confidence="peak")),
    "the own confidence of lowest": (mr("lowest"), mr("lowest", confidence="drawn")),
}
LIVE = {
    "ramp": ({"cfg_scale": 2.0}, {"cfg_ramp": "constant"}),
    "threshold of SR": (SR, {"p_resample": 0.3}),
    "threshold of MR": (MR, mr("threshold", p_resample=0.3)),
    "threshold of SR beside lowest": ({**SR, **mr("lowest")}, {"p_resample": 0.3}),
    "fraction of lowest": (mr("lowest"), mr("lowest", resample_fraction=0.2)),
    "fraction of random": (mr("random"), mr("random", resample_fraction=0.2)),
    "bound of dynamic": (mr("dynamic"), mr("dynamic", commit_above=0.5)),
    "bound of entropy": (mr("entropy"), mr("entropy", entropy_bound=2.0)),
    "rule": (MR, {"select": "lowest"}),
    "confidence of static": (mr("static"), mr("static", confidence="drawn")),
    "confidence of lowest": (mr("lowest"), mr("lowest", confidence="peak")),
    "scales of SR": (SR, {"refine_scales": (0,)}),
    "scales of MR": (MR, {"refine_scales": (0,)}),
    "steps": (MR, {"refine_steps": 2}),
    "SR beside MR": (MR, SR),
    "temperature": ({}, {"temperature": 0.9}),
    "top-k": ({}, {"top_k": 3}),
    "top-p": ({}, {"top_p": 0.9}),
}


@pytest.mark.parametrize("case", [*IDLE, *LIVE])
def test_equal_samplers_have_one_name(case):
    """Catches a setting that cannot matter but makes another job of it (work twice, a bogus
    comparison), and one that matters but is dropped from the name (a stale result). The canonical
    settings must be legal and canonical themselves."""
    base, change = (IDLE | LIVE)[case]
    before, after = (
        canonical_sampler(SamplerConfig(name="srdd", **{**base, **more})) for more in ({}, change)
    )
    assert (before == after) == (case in IDLE)
    for found in (before, after):
        assert canonical_sampler(SamplerConfig(**found)) == found


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"dataset/path": "/nowhere/images"},
            ["dataset.path", "/nowhere/images", "change the path"],
        ),
        (
            {"bases/var/tokenizer/weights": "/nowhere/t.safetensors"},
            ["tokenizer.weights", "/nowhere/t.safetensors"],
        ),
        (
            {"dataset/name": "image_folder", "dataset/path": __file__},
            ["dataset.path", __file__, "is a file; give the folder"],
        ),
    ],
)
def test_missing_files_are_named_before_any_job_and_not_when_planning(tmp_path, changes, words):
    """Catches a run that starts, and trains for a while,
    before it asks for a file that is not there."""
    plan = load_study(edited(tmp_path, **changes))
    missing = missing_files(plan)
    assert missing and all(word in missing[0] for word in words)
    assert missing_files(plan, [run for run in plan.jobs if run.startswith("latency/")]) == [], (
        "timing reads no file"
    )
    assert missing_files(load_study(edited(tmp_path))) == []


def test_imported_weights_are_one_job_and_no_training(tmp_path):
    """Catches an imported model that is trained, or imported once for every seed of its students;
    or sound cases above that are refused for another reason than theirs."""
    before = load_study(edited(tmp_path))
    plan = load_study(
        edited(tmp_path, **imported(), **student_of(WEIGHTS, **{"model.history": 0}), **published())
    )
    new = sorted(run.split("/")[0] for run in plan.suites["main"] - set(before.jobs))
    # imported weights know one tokenizer, which no training seed changes
    tokenizer = [
        "baselines",
        "distill",
        "encode",
        "evaluate",
        "evaluate",
        "import_model",
        "sample",
        "sample",
        "tokenizer",
    ]
    assert new == tokenizer
    longer = load_study(edited(tmp_path, **imported(**{"training.steps": 99})))
    assert [run for run in longer.jobs if run.startswith("import_model/")] == [
        run for run in plan.jobs if run.startswith("import_model/")
    ]
    several = load_study(edited(tmp_path, **student_of(WEIGHTS)))
    assert (
        sum(run.startswith("import_model/") for run in several.jobs) == 1
        and len(several.study.train_seeds) == 2
    )
    both = load_study(edited(tmp_path, **imported(), **student_of(WEIGHTS, **WEIGHTS)))
    alone = load_study(edited(tmp_path, **imported(), **student_of(WEIGHTS)))
    assert set(both.jobs) == set(alone.jobs), "weights of a base that is the teacher's too"


@pytest.mark.parametrize(
    "measure", ["sweep", "zero_shot", "error_propagation", "equivalence", "latency"]
)
def test_all_but_convergence_can_be_asked_of_imported_weights(tmp_path, measure):
    """Catches a measure whose jobs do not find the imported model; time needs no weights at all."""
    plan = load_study(edited(tmp_path, **imported(), **BARE, **{"suites/main/measure": [measure]}))
    jobs = [plan.jobs[run] for run in plan.suites["main"] if run.startswith(f"{measure}/")]
    assert jobs and all(set(job.inputs.values()) <= plan.suites["main"] for job in jobs)
    assert any(run.startswith("import_model/") for run in plan.suites["main"]) == (
        measure != "latency"
    )
