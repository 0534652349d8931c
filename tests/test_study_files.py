"""A study of several files: suites that it takes, a study that it is like, and whose fault an
error is."""

from pathlib import Path

import pytest
import yaml

from bench.study.errors import ConfigError
from bench.study.load import CONFIG, compose, differ
from bench.study.merging import merged
from bench.study.plan import load_study
from bench.study.study_file import _StrictLoader

ROOT = Path(__file__).resolve().parent.parent
SMOKE = yaml.safe_load((ROOT / "tests" / "studies" / "smoke.yaml").read_text(encoding="utf-8"))
HEAD = {key: value for key, value in SMOKE.items() if key != "suites"}
MAIN = SMOKE["suites"]["main"]
OWN_IMAGES = CONFIG / "examples" / "own_images.yaml"
PHOTOS = {
    "name": "image_folder",
    "path": "nowhere",
    "image_size": 64,
    "channels": 3,
    "num_classes": 3,
}


def write(path, data):
    """A YAML file, its folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def study(folder, suite=MAIN, name="study.yaml", **keys):
    """The smoke study with one suite in a file of its own, and other keys."""
    write(folder / "suites" / "small.yaml", suite)
    return write(folder / name, {**HEAD, "take": ["small"], **keys})


def like(folder, **keys):
    """A study that is like the one of `study`."""
    return write(folder / "like.yaml", {"study": "mine", "like": "study.yaml", **keys})


def refused(path):
    """The line that a study is refused with."""
    with pytest.raises(ConfigError) as error:
        load_study(path)
    text = str(error.value)
    assert "\n" not in text
    return text


# ---------------------------------------------------------------- suites


def test_a_taken_suite_is_as_if_it_were_written_out(tmp_path):
    """Catches a suite file that means something else than the same words in a study."""
    taken = study(tmp_path)
    written = write(tmp_path / "written.yaml", {**HEAD, "suites": {"small": MAIN}})
    assert load_study(taken).described() == load_study(written).described()


def test_copies_that_name_other_files_differ(tmp_path):
    """Catches two studies of one name that are taken for one, because their own words are equal."""
    study(tmp_path)
    mine, copied = like(tmp_path), tmp_path / "b" / "like.yaml"
    study(tmp_path / "b")
    copied.write_bytes(mine.read_bytes())
    assert not differ(mine, copied)
    study(tmp_path / "b", train_seeds=[7])
    assert differ(mine, copied)


def test_changes_merge_deeply_and_null_removes_a_variant(tmp_path):
    """Catches a change that replaces its neighbours, a list that grows, a variant that stays or
    moves."""
    mine = {"base": "var", "delta": {"model.history": 1}}
    change = {"variants": {"VAR": None, "SDD": {"delta": {"sampler.top_p": 0.9}}, "mine": mine}}
    change |= {"claims": [], "figures": ["fid"], "core": False}
    suite = load_study(study(tmp_path, suites={"small": change})).study.suites["small"]
    assert list(suite.variants) == ["SDD", "mine"]
    assert suite.variants["SDD"].delta == {"model.history": 0, "sampler.top_p": 0.9}
    assert suite.figures == ("fid",) and suite.tables == tuple(MAIN["tables"])
    assert not suite.core and suite.claim == MAIN["claim"]


def test_order_is_that_of_take(tmp_path):
    """Catches suites in the order of the folder or of the changes."""
    write(tmp_path / "suites" / "other.yaml", MAIN)
    own = {"mine": MAIN, "small": {"core": False}}
    plan = load_study(study(tmp_path, take=["other", "small"], suites=own))
    assert list(plan.study.suites) == ["other", "small", "mine"]


def test_a_change_in_a_suite_file_changes_the_plan(tmp_path):
    """Catches a plan from memory, and a plan that does not say which files it comes from."""
    path = study(tmp_path)
    before = load_study(path)
    assert before.files == ["study.yaml", "small.yaml"]
    longer = {
        **MAIN,
        "variants": {**MAIN["variants"], "mine": {"base": "var", "delta": {"model.history": 1}}},
    }
    assert set(before.jobs) < set(load_study(study(tmp_path, longer)).jobs)
    assert load_study(CONFIG / "latency_d16.yaml").files == ["workflows/config/latency_d16.yaml"]
    names = load_study(CONFIG / "fashion_reduced.yaml").files
    assert names == [
        f"workflows/config/{name}.yaml"
        for name in ("fashion_reduced", "suites/latency", "suites/main")
    ]


def changed_variant(**entry):
    return {"small": {"variants": {"SDD": entry}}}


IN_THE_STUDY = {
    "unknown suite": (
        {"take": ["smal"]},
        ["take: unknown suite 'smal'; did you mean 'small'?", "main"],
    ),
    "a path": ({"take": ["suites/small.yaml"]}, ["take[0]"]),
    "no list": ({"take": "small"}, ["take: "]),
    "twice": ({"take": ["small", "small"]}, ["small stands twice"]),
    "unknown key": (
        {"suites": {"small": {"figure": []}}},
        ["suites.small.figure: unknown key 'figure'; did you mean 'figures'?"],
    ),
    "a room's settings": (
        {"suites": {"small": {"latency": {"round": 3}}}},
        ["suites.small.latency.round: unknown key"],
    ),
    "unknown variant": (
        {"suites": {"small": {"variants": {"SD": None}}}},
        ["suites.small.variants.SD: null removes", "'SDD'"],
    ),
    "delta": (
        {"suites": changed_variant(delta={"sampler.top_p": 2.0})},
        ["suites.small.variants.SDD", "top_p", "2.0"],
    ),
    "base": (
        {"suites": changed_variant(base="vra")},
        ["suites.small.variants.SDD.base: unknown base 'vra'"],
    ),
    "not taken": (
        {"suites": {"small": {"core": False}}, "take": ["main"], "evaluation": {}},
        ["add small to take"],
    ),
    "nothing": ({"take": []}, ["suites: is missing", "take: [main]", "small"]),
    "a needed key misspelt": (
        {"dataset": {"name": "digits", "image_sise": 8, "channels": 1, "num_classes": 10}},
        ["dataset.image_sise: unknown key 'image_sise'; did you mean 'image_size'?"],
    ),
    "a dotted key": (
        {"bases.var.training.steps": 9},
        ["write bases: {var: {training: {steps: ...}}}"],
    ),
    "no mapping": ({"suites": 3}, ["suites: "]),
    "no suite": ({"suites": {"small": 3}}, ["suites.small: "]),
    "a base": (
        {"bases": {"var": {**HEAD["bases"]["var"], "sampler": {"top_p": 2.0}}}},
        ["variants.VAR", "top_p", "2.0"],
    ),
}


@pytest.mark.parametrize("case", IN_THE_STUDY)
def test_what_the_study_says_wrong_is_said_of_the_study(case, tmp_path):
    """Catches an error that sends the user to a file that is right."""
    keys, words = IN_THE_STUDY[case]
    path = study(tmp_path, **keys)
    text = refused(path)
    assert text.startswith(f"{path}: "), text
    assert all(word in text for word in words), text


IN_THE_SUITE = {
    "unknown key": ({"figure": []}, "figure: unknown key 'figure'"),
    "no claim": ({"claim": ""}, "claim: "),
    "unknown base": (
        {"variants": {"VAR": {"base": "vra"}, "SDD": {"base": "var"}}},
        "variants.VAR.base: unknown base",
    ),
    "delta": (
        {
            "variants": {
                "VAR": {"base": "var", "delta": {"sampler.top_p": 2.0}},
                "SDD": {"base": "var"},
            }
        },
        "variants.VAR (delta and base).sampler.top_p: ",
    ),
    "grid": (
        {
            "variants": {
                "VAR": {"base": "var", "grid": {"sampler.top_p": [2.0]}},
                "SDD": {"base": "var"},
            }
        },
        "variants.VAR, top_p 2.0 (delta and base).sampler.top_p: ",
    ),
    "a figure": ({"figures": ["fids"]}, "figures: unknown name 'fids'"),
    "a measure": ({"measure": ["score"]}, "measure: unknown measure 'score'"),
}


@pytest.mark.parametrize("case", IN_THE_SUITE)
def test_what_a_suite_file_says_wrong_is_said_of_it(case, tmp_path, monkeypatch):
    """Catches an error that names the study where the suite's file is wrong."""
    change, words = IN_THE_SUITE[case]
    path = study(tmp_path, {**MAIN, "claims": [], **change}, suites={"small": {"core": False}})
    file = tmp_path / "suites" / "small.yaml"
    assert refused(path).startswith(f"{file}: {words}"), refused(path)
    assert f"(read for {path})" in refused(path)
    monkeypatch.chdir(tmp_path)
    assert refused(path).startswith(f"suites/small.yaml: {words}")


@pytest.mark.parametrize("key, value, words", [
    ("training.warmup", 5000, "training: warmup 5000"),
    ("model.heads", 3, "model: width 16 is not a multiple of heads 3"),
    ("tokenizer.config.channel_multipliers", [1], "tokenizer.config: patch_nums [1, 2, 4] must"),
])  # fmt: skip
def test_a_check_of_several_settings_is_said_of_the_file_that_set_one(tmp_path, key, value, words):
    """Catches a base's file that is blamed for what a variant of another file changes."""
    study(tmp_path)
    suite = {"claim": "c", "figures": [], "variants": {"A": {"base": "var", "delta": {key: value}}}}
    path = like(tmp_path, take=[], suites={"own": suite})
    said = refused(path)
    assert said.startswith(f"{path}: suites.own.variants.A (delta and base).{words}"), said


@pytest.mark.parametrize("number", ["010", "-07", "1:30", "1_0", "0x10", "0b1", "1_0.0", "0:0.9"])
def test_a_number_that_yaml_reads_otherwise_is_refused(tmp_path, number):
    """Catches octal, sexagesimal and underscored numbers of YAML 1.1 that nobody meant."""
    path = study(tmp_path, train_seeds=["here"])
    path.write_text(path.read_text().replace("here", number))
    assert f"'{number}': YAML would read another number" in refused(path)


KINDS = [("yes", "a truth value"), ("1.0", "a number"), ("null", "null")]


@pytest.mark.parametrize("key, kind", KINDS)
def test_a_key_that_yaml_reads_as_no_word_is_refused(tmp_path, key, kind):
    """Catches a variant called `yes` that everywhere else is called True, or 1.0."""
    path = study(tmp_path, train_seeds=["here"])
    path.write_text(path.read_text().replace("here", f"{{{key}: 1}}"))
    assert f"line 19: the key '{key}' is no text but {kind}; write it in quotes" in refused(path)
    path.write_text(path.read_text().replace(f"{{{key}: 1}}", f"{{'{key}': 1}}"))
    assert "is no text" not in refused(path)


@pytest.mark.parametrize("number, is_read", [("0", 0), ("-3", -3), ("0.5", 0.5), ("1e-3", 1e-3)])
def test_plain_numbers_are_read_as_ever(tmp_path, number, is_read):
    """Catches a refusal of zero, of a sign or of a fraction."""
    path = tmp_path / "number.yaml"
    path.write_text(f"x: {number}\n")
    assert yaml.load(path.read_text(), _StrictLoader) == {"x": is_read}


def test_a_sum_of_no_files_is_refused(tmp_path):
    """Catches a sum that is never compared, as of digits, which lie in a package."""
    dataset = {**HEAD["dataset"], "content": "a" * 64}
    assert "dataset.path names none; remove it" in refused(study(tmp_path, dataset=dataset))


def test_a_suite_file_that_cannot_be_read_is_named(tmp_path):
    """Catches a YAML error without the file that holds it."""
    path = study(tmp_path)
    (tmp_path / "suites" / "small.yaml").write_text("claim: [")
    assert refused(path).startswith(f"{tmp_path}/suites/small.yaml: not readable as YAML")


def test_every_suite_file_of_the_project_is_taken():
    """Catches a file that no study checks."""
    taken = set()
    for path in CONFIG.glob("*.yaml"):
        taken |= set(compose(path).files)
    files = {f"workflows/config/suites/{path.name}" for path in (CONFIG / "suites").glob("*.yaml")}
    assert files <= taken


# ---------------------------------------------------------------- a study like another


def test_a_study_like_another_says_only_what_differs(tmp_path):
    """Catches settings that are lost, or taken from the other study where this one has its own."""
    other = load_study(study(tmp_path))
    plan = load_study(
        like(
            tmp_path,
            bases={"var": {"training": {"steps": 13}}},
            evaluation={"batch_size": 40},
            train_seeds=[3],
        )
    )
    assert plan.study.study == "mine" and plan.study.train_seeds == (3,)
    assert plan.study.evaluation == other.study.evaluation.model_copy(update={"batch_size": 40})
    training = HEAD["bases"]["var"]["training"]
    assert plan.study.bases["var"]["training"] == {**training, "steps": 13}
    assert plan.study.suites == other.study.suites and plan.study.dataset == other.study.dataset
    assert plan.files == ["like.yaml", "study.yaml", "small.yaml"]


def test_bases_of_another_study_are_not_said_to_be_unread(tmp_path):
    """Catches a warning of what the author of a study did not write, and one that is lost."""
    base = HEAD["bases"]["var"]
    study(tmp_path, bases={**HEAD["bases"], "spare": base})
    assert not any("not read" in words for words in load_study(like(tmp_path)).warnings)
    for path in (tmp_path / "study.yaml", like(tmp_path, bases={"spare": {"sampler": {}}})):
        words = "bases.spare: is not read, no variant names it (in use: "
        assert [line[: len(words)] for line in load_study(path).warnings].count(words) == 1


def test_take_of_a_study_like_another(tmp_path):
    """Catches suites of the other study that stay, and changes of its that get lost."""
    write(tmp_path / "suites" / "new.yaml", MAIN)
    study(tmp_path, suites={"small": {"core": False}, "own": MAIN})
    suites = load_study(like(tmp_path, take=["new", "small"])).study.suites
    assert list(suites) == ["new", "small"] and not suites["small"].core
    assert list(load_study(like(tmp_path, take=["own"])).study.suites) == ["own"]
    suites = load_study(like(tmp_path, suites={"own": {"core": False}})).study.suites
    assert list(suites) == ["small", "own"] and not suites["own"].core
    assert "unknown suite 'owns'; did you mean 'own'?" in refused(like(tmp_path, take=["owns"]))


def test_a_name_is_a_study_of_the_project(tmp_path):
    """Catches a name that is looked for elsewhere, and one that is not refused with the names
    there are."""
    plan = load_study(
        write(
            tmp_path / "digits.yaml",
            {"study": "mine", "like": "digits", "take": ["main", "tuning"]},
        )
    )
    assert plan.files[:2] == ["digits.yaml", "workflows/config/digits.yaml"]
    assert "like: unknown study 'digit'; did you mean 'digits'?" in refused(
        like(tmp_path, like="digit")
    )
    assert "like: no file at none.yaml" in refused(like(tmp_path, like="none.yaml"))


def test_chains_and_cycles(tmp_path):
    """Catches a study that is read for ever."""
    study(tmp_path)
    for i in range(6):
        below = "study.yaml" if i == 0 else f"{i - 1}.yaml"
        write(tmp_path / f"{i}.yaml", {"study": f"s{i}", "like": below})
    assert load_study(tmp_path / "2.yaml").study.study == "s2"
    assert "in a row are the most" in refused(tmp_path / "5.yaml")
    write(tmp_path / "a.yaml", {"study": "a", "like": "./b.yaml"})
    write(tmp_path / "b.yaml", {"study": "b", "like": "a.yaml"})
    assert refused(tmp_path / "a.yaml").startswith(
        f"{tmp_path}/b.yaml: like: 'a.yaml': a study that starts from this one"
    )
    assert "starts from this one" in refused(like(tmp_path, like="like.yaml"))


def test_other_data_has_its_own_extractor_and_its_own_words(tmp_path):
    """Catches scores of two extractors under one name, and a table that says what was cut of
    other data."""
    study(tmp_path)
    assert "features.name: is missing" in refused(like(tmp_path, dataset=PHOTOS))
    named = {"dataset": PHOTOS, "features": {"name": "photos"}}
    plan = load_study(like(tmp_path, **named))
    assert plan.study.dataset.val_share == 0.05 and plan.study.dataset.train_images is None, (
        "replaced whole"
    )
    assert plan.study.extractor.dim == HEAD["features"]["dim"], "as the other study's"
    study(tmp_path, reduced="a few digits")
    assert "reduced: is missing" in refused(like(tmp_path, **named))
    assert load_study(like(tmp_path, **named, reduced=None)).study.reduced is None
    inception = {
        "dataset": PHOTOS,
        "features": {"name": "inc", "kind": "inception"},
        "reduced": "x",
    }
    assert load_study(like(tmp_path, **inception)).study.extractor.dim == 2048


def test_tokenizers_get_the_levels_that_an_image_size_needs(tmp_path):
    """Catches a tokenizer that does not fit, one that is changed against its study's words, and
    one that is changed silently."""
    study(tmp_path)
    keys = {"features": {"name": "photos"}}

    def levels(side, **more):
        plan = load_study(like(tmp_path, dataset={**PHOTOS, "image_size": side}, **keys, **more))
        said = [line for line in plan.warnings if line.startswith("dataset.image_size")]
        return plan.study.bases["var"]["tokenizer"]["config"]["channel_multipliers"], said

    assert levels(8) == ([1, 1], [])
    assert levels(4)[0] == [1] and levels(16)[0] == [1, 1, 1] and levels(64)[0] == [1, 1, 1, 1, 1]
    assert "channel_multipliers [1, 1, 1]" in levels(16)[1][0]
    given = {"tokenizer": {"config": {"channel_multipliers": [1, 2, 3]}}}
    assert levels(16, bases={"var": given}) == ([1, 2, 3], [])
    for side in (2, 12, 100):
        text = refused(like(tmp_path, dataset={**PHOTOS, "image_size": side}, **keys))
        assert f"dataset.image_size: {side}" in text and "take 8, 16, 32, 64, 128" in text, text


def test_an_error_of_the_other_study_names_it(tmp_path):
    """Catches an error that sends the user to a study of a dozen right lines."""
    other = study(tmp_path, bases={"var": {**HEAD["bases"]["var"], "sampler": {"top_p": 2.0}}})
    text = refused(like(tmp_path))
    assert (
        text.startswith(f"{other}: suites.small.variants.VAR (delta and base).sampler.top_p: ")
        and "(read for" in text
    )
    text = refused(like(tmp_path, bases={"var": {"sampler": {"top_p": 3.0}}}))
    assert text.startswith(f"{tmp_path}/like.yaml: ")


def test_what_a_study_leaves_out_of_another_is_said_of_it(tmp_path):
    """Catches an error that sends the user to a claim of a study that is right."""
    chosen = {**MAIN, "tuned_on": "small", "train_seeds": [7]}
    other = study(tmp_path, suites={"small": {}, "main": chosen})
    own = tmp_path / "like.yaml"
    places = {"small": tmp_path / "suites" / "small.yaml", "main": other}
    for suite, place in places.items():
        text = refused(like(tmp_path, suites={suite: {"variants": {"VAR": None}}}))
        assert text.startswith(f"{own}: suites.{suite}.claims.against: unknown variant 'VAR'")
        assert text.endswith(f"(that stands in {place})"), text
    text = refused(like(tmp_path, take=["main"]))
    assert text.startswith(f"{own}: suites.main.tuned_on: ") and text.endswith(f"in {other})")


def test_the_example_of_own_images_plans():
    """Catches an example in the project that its own checks refuse."""
    plan = load_study(OWN_IMAGES)
    assert len(OWN_IMAGES.read_text().split("study: ")[1].splitlines()) <= 12
    assert {run.split("/")[0] for run in plan.jobs} == {
        "prepare", "features", "tokenizer", "encode", "baselines", "train", "sample", "evaluate"
    }  # fmt: skip
    assert list(plan.study.suites) == ["main"]


def test_merging_leaves_what_is_merged_alone():
    """Catches a study that changes another one which is read after it."""
    below = {"a": {"b": 1, "c": [1]}}
    assert merged(below, {"a": {"c": [2], "d": None}}) == {"a": {"b": 1, "c": [2], "d": None}}
    assert below == {"a": {"b": 1, "c": [1]}}


def test_variants_that_own_bases_make_alike_are_said_of_the_own_file(tmp_path):
    """Catches advice to edit a file of the project for what a study of one's own changed."""
    path = tmp_path / "mine.yaml"
    alone = "{training: {patience: null}}"
    path.write_text(
        f"study: mine\nlike: digits\ntake: [main]\nbases: {{sdd: {alone}, var: {alone}}}\n"
        "suites: {main: {tuned_on: null}}\n"
    )
    with pytest.raises(ConfigError) as error:
        load_study(path)
    said = str(error.value)
    assert said.startswith(f"{path}: suites.main.variants.SDD, as long: has the same settings")
    assert said.endswith("(that stands in workflows/config/digits.yaml)")
