"""Words of captions: which sampler, which images, how many seeds, how scores were made. Imports no
torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srdd.lookup import is_own

from ..study.escaping import rst
from .estimate import show
from .gain import ranked_by, rule_truncates
from .independence import taught_words
from .view import View

if TYPE_CHECKING:
    from .results import Results

EXTRACTORS = {
    "trained": "a classifier trained on the training split",
    "inception": "Inception-v3",
    "pretrained": "trained on ImageNet, not by this study",
}
NETWORKS = {"efficientnet_lite0": "EfficientNet-Lite0"}


MOST_SAMPLERS = 6  # described one by one in a caption


def sampler_parts(settings: dict[str, Any]) -> list[str]:
    """A sampler's settings in the project's words, one part for each."""
    w, ramp = settings["cfg_scale"], settings["cfg_ramp"]
    words = [f"sampler {settings['name']}"]
    words.append(
        "guidance off (w = 1)"
        if w == 1
        else f"cfg_scale w = {w:g} in u + w (c - u) with ramp {ramp}"
    )
    words += [f"top-k {settings['top_k'] or 'off'}", f"top-p {settings['top_p']:g}"]
    words.append(f"temperature {settings['temperature']:g}")
    sr, mr, chance = (
        settings["sr_steps"],
        settings["refine_steps"],
        f"p_resample {settings['p_resample']:g}",
    )
    if sr:
        words.append(f"SR {sr} redraws below {chance} (truncates)")
    if mr:
        words += [f"MR {mr} further {'pass' if mr == 1 else 'passes'}", _rule_words(settings)]
    if (sr or mr) and settings["refine_scales"] is not None:
        words.append(f"at scales {', '.join(map(str, settings['refine_scales']))}")
    return words + _spectrum_words(settings) + _detail_words(settings)


def _spectrum_words(settings: dict[str, Any]) -> list[str]:
    """How a sampler reshapes the spectra of early scales; nothing in results of older versions."""
    betas = {key: settings.get(key) or 0.0 for key in ("svd_in", "svd_out")}
    if not any(betas.values()):
        return []
    scales = settings["svd_scales"]
    where = "of the first half" if scales is None else ", ".join(map(str, scales))
    strengths = [f"{key} {beta:g}" for key, beta in betas.items() if beta]
    return [*strengths, f"spectra at scales {where} (norm {settings['svd_norm']})"]


def _detail_words(settings: dict[str, Any]) -> list[str]:
    """How a sampler pushes logits from the scale before; nothing in results of older versions."""
    beta = settings.get("detail_scale") or 0.0
    if not beta:
        return []
    return [f"detail {beta:g} ({settings['detail_ramp']}, prior {settings['detail_prior']})"]


# bounds of rules; those without one commit a quota
BOUNDS = {
    "p_resample": "p_resample {:g}",
    "resample_fraction": "fraction {:g}",
    "commit_above": "above {:g}",
    "entropy_bound": "bound {:g} nats",
}


def _rule_words(settings: dict[str, Any]) -> str:
    """A rule of mask resampling: what it goes by, and whether it bends the distribution of
    tokens."""
    rule = settings["select"]
    name, knobs = rule["name"], [key for key in rule if key != "name"]
    if is_own("select", name):
        return f"select {name} ({', '.join(['its own rule', *(f'{k} {rule[k]}' for k in knobs)])})"
    bounds = [BOUNDS[key].format(rule[key]) for key in knobs if key in BOUNDS]
    words, by = bounds or ["quota"], ranked_by(settings)
    if by:
        words.append(f"ranked by {by}")
    if rule_truncates(settings):
        words.append("truncates")
    elif by is None:
        words.append("unbiased but for parallel draws")
    return f"select {name} ({', '.join(words)})"


def samplers(view: View) -> str:
    """One sentence for a sampler that all share; else what all share, and the rest of each: of many
    samplers by the entry of the suite that they come from."""
    variants = view.variants
    parts = {name: sampler_parts(names["settings"]["sampler"]) for name, names in variants.items()}
    different = set(map(tuple, parts.values()))
    if len(different) == 1:
        return rst(f"All variants: {', '.join(next(iter(parts.values())))}.")
    many = len(different) > MOST_SAMPLERS
    shared = _common(parts.values())
    owners = view.groups() if many else {name: [name] for name in parts}
    users: dict[str, list[str]] = {}
    for owner, members in owners.items():
        common = _common([parts[name] for name in members])
        own = ", ".join(part for part in common if part not in shared)
        users.setdefault(own, []).append(owner)
    words = [f"All samplers: {', '.join(shared)}"] if shared else []
    if not many or len(users) < len(parts):  # of entries without grids the names have to say it
        words += [f"{', '.join(names)}: {text}" for text, names in users.items() if text]
    words += ["else as the names of the variants say, in full in runs.csv"] if many else []
    sentence = "; ".join(words)
    return rst(f"{sentence[0].upper()}{sentence[1:]}.")


def _common(samplers: Iterable[list[str]]) -> list[str]:
    """Parts that several samplers share."""
    first, *others = samplers
    shared = set(first).intersection(*others)
    return [part for part in first if part in shared]


def _count(results: Results, metric: str) -> int | None:
    """A number that a job reported once of the data; None in rows of older versions."""
    values = results.rows_of(metric)["value"].dropna()
    return int(values.iloc[0]) if len(values) else None


def copies(results: Results) -> int:
    """How many held-out images are exact copies of training images; 0 where nobody counted."""
    return _count(results, "test_copies_of_train") or 0


def held_out(results: Results) -> str:
    """The held-out split, with its size where it is known, and how many of its images are training
    images too."""
    size, same = _count(results, "num_test"), copies(results)
    words = [f"{size} images"] if size is not None else []
    if same:
        words.append(f"{same} of them exact copies of training images")
    return f"the held-out split ({', '.join(words)})" if words else "the held-out split"


def credit_words(results: Results) -> str:
    """Whose the real images are that a figure shows; empty where nobody has to be named."""
    credit = results.about["dataset"].get("credit")
    return f"Real images: {rst(credit)}." if credit else ""


def given_images(results: Results) -> int:
    """How many images the features.reference of the extractor that is asked holds; 0 where its
    file has none, or there is no file."""
    rows = results.rows_of("reference_images")
    # each extractor has a job of its name
    mine = rows["run_id"].str.rsplit("-", n=1).str[0] == f"features/{results.extractor}"
    counts = rows.loc[mine, "value"].dropna()
    return int(counts.iloc[0]) if len(counts) else 0


def held_against(results: Results) -> str:
    """What generated images are compared with: held-out images, or what the study's file of
    statistics holds."""
    given = results.features[results.extractor].get("reference")
    if not given:
        return held_out(results) if copies(results) else f"{held_out(results)}, no training image"
    images = given_images(results)
    file = f"features.reference {rst(Path(given).name)}"
    if images:
        return f"{file}, its statistics for FID and its {images} images for other scores"
    return f"the statistics of {file} for FID, {held_out(results)} for other scores"


def extractor_kind(results: Results) -> str:
    """What the feature extractor is; of networks that others trained also how many features they
    give, which decides every distance."""
    features = results.features[results.extractor]
    words, dim = EXTRACTORS[features["kind"]], features.get("dim")
    network = features.get("network")
    if network and features["kind"] == "pretrained":
        words = f"{NETWORKS.get(network, rst(network))}, {words}"
    return f"{words}, {dim} dimensions" if features["kind"] != "trained" and dim else words


def extractors_words(results: Results) -> str:
    """Every extractor's name and kind, the one that is asked first."""
    names = (results.extractor, *results.others)
    said = [f"{name} ({extractor_kind(results.by(name))})" for name in names]
    first = f"{said[0]}, of all scores that name no other" if len(said) > 1 else said[0]
    if results.extractor_of("cas") != results.extractor and "cas" in _taken_once(results):
        first += f" (of CAS {results.extractor_of('cas')})"
    return f"Extractor{'s' * (len(said) > 1)}: {'; '.join([first, *said[1:]])}."


def reference_words(results: Results) -> str:
    """What generated images are compared with, by each extractor where they differ."""
    held = {name: held_against(results.by(name)) for name in (results.extractor, *results.others)}
    if len(set(held.values())) == 1:
        return f"Reference: {held[results.extractor]}."
    parts = [f"by {name} {words}" for name, words in held.items()]
    if once := _taken_once(results):
        parts.append(f"of {' and '.join(once.values())} as by {results.extractor_of('cas')}")
    return f"Reference: {'; '.join(parts)}."


def _taken_once(results: Results) -> dict[str, str]:
    """Scores that one of several extractors takes for all and whose columns do not name it."""
    metrics = results.about["evaluation"].get("metrics", ())
    names = {"classification_accuracy": ("cas", "CAS"), "pixels": ("pixels", "pixels")}
    return dict(names[metric] for metric in names if metric in metrics)


def bias_words(results: Results, count: int | None = None, held: int | None = None) -> str:
    """Says by which extractors a side of a score has fewer images than features have dimensions;
    empty where none has. count: generated images, instead of all that the study draws; held: those
    that they are held against, instead of all."""
    names = (results.extractor, *results.others)
    said = {name: _bias_of(results.by(name), count, held) for name in names}
    parts = [f"{words} of {name}" for name, words in said.items() if words]
    if len(names) == 1:
        parts = [f"{words} of the features" for words in said.values() if words]
    return f"{'; '.join(parts)}: FID is dominated by bias." if parts else ""


def _bias_of(results: Results, count: int | None, held: int | None) -> str:
    """Which side has fewer images than one extractor's features have dimensions."""
    features = results.features[results.extractor]
    dim, count = features.get("dim") or 0, count or results.about["evaluation"]["num_images"]
    held = (held or _count(results, "num_test")) if not features.get("reference") else None
    few = [f"N = {count}"] if count < dim else []
    if held is not None and held < dim:
        few.append(f"the number of held-out images, {held},")
    if not few:
        return ""
    first = few[0][0].upper() + few[0][1:]
    both = " and ".join([first, *few[1:]])
    return f"{both} {'are' if len(few) > 1 else 'is'} below the {dim} dimensions"


# ---------------------------------------------------------------- labels

LABELS = {
    "training": "drawn from its seed, in the shares of the training split",
    "balanced": "every class equally often",
    None: "its seed modulo classes, whatever the shares of the training split",
}


def with_classes(view: View) -> bool:
    """Whether a variant of the suite is asked for classes."""
    settings = [names["settings"].get("model") or {} for names in view.variants.values()]
    data = view.results.about["dataset"]["num_classes"]
    return any(model.get("num_classes", data) for model in settings) and data > 1


def without_classes(view: View) -> list[str]:
    """Variants that know no classes, where the images have some."""
    if not view.results.about["dataset"]["num_classes"]:
        return []
    models = {name: names["settings"].get("model") or {} for name, names in view.variants.items()}
    return [name for name, model in models.items() if model.get("num_classes") == 0]


def labels_words(view: View) -> str:
    """Which classes were asked for; empty where none were."""
    if not with_classes(view):
        return ""
    how = view.results.about["evaluation"].get("labels")
    return f"Label of an image: {LABELS.get(how, rst(how))}."


def score_words(scores: Iterable[str]) -> str:
    """Names of scores in a sentence."""
    return " and ".join(score.replace("_", " ") for score in scores)


def floor_has_labels(view: View) -> bool:
    """Whether the floor was drawn with the labels that the variants were asked for, so that a
    perfect generator scores it. One without classes draws them in the shares of its training
    images."""
    about, how = view.results.about, view.results.about["evaluation"].get("labels")
    if with_classes(view):
        return how is not None
    return how == "training" or about["dataset"]["num_classes"] < 2


# ---------------------------------------------------------------- scores


def seeds_details(view: View, interval: bool = True) -> tuple[str, ...]:
    """Details of a caption: how many trainings stand behind a mean, and on which seeds settings
    were tuned. interval: whether the mean is shown with its own."""
    seeds = view.about["train_seeds"]
    if len(seeds) == 1:
        return f"One training seed ({seeds[0]}), no interval.", tuning_words(view)
    what = "Mean and 95 % t-interval" if interval else "Mean, no interval,"
    shown = f"{what} over the training seeds {', '.join(map(str, seeds))}"
    return f"{shown}{tokenizer_words(view)}.", tuning_words(view)


def tokenizers_words(view: View) -> str:
    """How many trainings of a tokenizer stand behind a number of tokenizers."""
    seeds, some = view.about["train_seeds"], _shared(view)
    if shares_tokenizer(view) or len(seeds) == 1:
        return "One tokenizer training, no interval."
    but = f"; of {_listed(some)} one tokenizer, no interval" if some else ""
    return f"Means over the tokenizers of the training seeds {', '.join(map(str, seeds))}{but}."


def tuning_words(view: View) -> str:
    """Where settings that were tuned come from; empty where none were."""
    about = view.about
    other = about.get("tuned_on")
    if not other:
        return ""
    seeds = (view.results.about["suites"].get(other) or {}).get("train_seeds", ())
    on = f"training seeds {', '.join(map(str, seeds))}" if seeds else "other training seeds"
    return f"Settings were chosen by suite {other}, on {on}."


def _shared(view: View) -> list[str]:
    """Variants whose trainings all read one tokenizer, such as an imported one."""
    variants = view.variants
    if view.results.about.get("tokenizer_seed") != "train_seed":
        return list(variants)
    rows = view.results.rows_of("reconstruction_mse_test")
    without_seed = set(rows.loc[rows["train_seed"].isna(), "tokenizer"])
    return [name for name, names in variants.items() if names["tokenizer"] in without_seed]


def shares_tokenizer(view: View) -> bool:
    """Whether every variant of a suite has one tokenizer for all of its trainings, so that
    intervals are narrower than those of the whole method."""
    return len(_shared(view)) == len(view.variants)


def _listed(names: list[str]) -> str:
    return rst(", ".join(names))


def tokenizer_words(view: View) -> str:
    """What intervals cover: the tokenizer too, or not."""
    if shares_tokenizer(view):
        several = len({names["tokenizer"] for names in view.variants.values()}) > 1
        owners = "trainings of a variant " if several else ""
        return f", conditional on the one tokenizer that all {owners}share"
    some = _shared(view)
    but = f", but for {_listed(some)}: conditional on the one tokenizer that its trainings share"
    return f", each with a tokenizer of its own{but if some else ''}"


def reference_details(results: Results, view: View | None = None) -> tuple[str, ...]:
    """Details of a caption: how scores were made: N, extractor, reference, what biases them, and
    the labels that a suite asks for."""
    count = results.about["evaluation"]["num_images"]
    precision = results.about["evaluation"].get("precision", "float32")
    drawn = f", drawn in {rst(precision)}" if precision != "float32" else ""
    return (
        f"Scores: N = {count} generated images per training seed{drawn}, {sample_words(results)}.",
        extractors_words(results),
        reference_words(results),
        bias_words(results),
        agreement_words(results),
        taught_words(view) if view else "",
        labels_words(view) if view else "",
    )


def agreement_words(results: Results) -> str:
    """How many real held-out images the extractor takes for their own class, without which a class
    agreement says little; empty where none was measured."""
    real = held_out_agreement(results)
    measured = results.rows_of(results.score_name("class_agreement"))
    if real is None or not len(measured):
        return ""
    return f"Class agreement of real held-out images: {show(real)}."


def held_out_agreement(results: Results) -> float | None:
    """The share of real held-out images that the extractor takes for their own class; None where
    nobody measured it."""
    name = results.extractor_of("class_agreement")
    values = results.rows_of(f"class_accuracy_test_{name}")["value"].dropna()
    return float(values.iloc[0]) if len(values) else None


def sample_words(results: Results) -> str:
    """Which sample seeds a training draws."""
    if results.about.get("tokenizer_seed") is None:
        return "image i with sample seed i in every variant and training"
    return "the same sample seeds in every variant, others in every training"


def score_details(view: View, sampler: bool = True, interval: bool = True) -> tuple[str, ...]:
    """Details of a caption: how a suite's scores were made: N, extractor, reference, seeds and,
    unless the sampler is what varies, the sampler. interval: whether means have theirs."""
    return (
        *reference_details(view.results, view),
        *seeds_details(view, interval),
        *imported_details(view),
        samplers(view) if sampler else "",
    )


def imported_details(view: View) -> tuple[str, ...]:
    """Details of a caption: which variants were not trained here, and what their weights are known
    by."""
    details = []
    for name, names in view.variants.items():
        about = names["settings"].get("weights")
        if about:
            known_by = (about["sha256"] or Path(about["file"]).name)[:12]
            details.append(f"{rst(name)}: imported weights {rst(known_by)}, not trained here.")
    return tuple(details)
