"""Words of captions: which sampler, which images, how many seeds, how scores were made. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .escaping import rst

if TYPE_CHECKING:
    from .analysis import Results

EXTRACTORS = {"trained": "a classifier trained on the training split", "inception": "Inception-v3"}


def sampler_words(settings: dict[str, Any]) -> str:
    """A sampler's settings in the project's words."""
    w, ramp = settings["cfg_scale"], settings["cfg_ramp"]
    words = [f"sampler {settings['name']}"]
    words.append("guidance off (w = 1)" if w == 1 else f"cfg_scale w = {w:g} in u + w (c - u) with ramp {ramp}")
    words.append(f"top-k {settings['top_k'] or 'off'}, top-p {settings['top_p']:g}, temperature {settings['temperature']:g}")
    sr, mr, chance = settings["sr_steps"], settings["refine_steps"], f"p_resample {settings['p_resample']:g}"
    words += [f"SR {sr} redraws below {chance}"] if sr else []
    rule = {
        "threshold": chance,
        "lowest": f"fraction {settings['resample_fraction']:g}",
        "random": f"fraction {settings['resample_fraction']:g}",
        "dynamic": f"above {settings['commit_above']:g}",
        "entropy": f"bound {settings['entropy_bound']:g} nats",
    }
    words += (
        [f"MR {mr} further passes, select {settings['select']} ({rule.get(settings['select'], 'its own rule')})"] if mr else []
    )
    if (sr or mr) and settings["refine_scales"] is not None:
        words.append(f"at scales {', '.join(map(str, settings['refine_scales']))}")
    return ", ".join(words)


def samplers(results: Results, suite: str) -> str:
    """One sentence for a sampler that all share, else one part a variant."""
    words = {name: sampler_words(names["settings"]["sampler"]) for name, names in results.variants(suite).items()}
    if len(set(words.values())) == 1:
        return rst(f"All variants: {next(iter(words.values()))}.")
    return rst("; ".join(f"{name}: {text}" for name, text in words.items()) + ".")


def held_out(results: Results) -> str:
    """The held-out split, with its size where it is known."""
    found = results.rows_of("num_test")["value"].dropna()
    size = f" ({int(found.iloc[0])} pictures)" if len(found) else ""
    return f"the held-out split{size}"


def held_against(results: Results) -> str:
    """What generated pictures are compared with: held-out pictures, or what the study's file of statistics holds."""
    given = results.about["features"].get("reference")
    if not given:
        return f"{held_out(results)}, no training picture"
    found = results.rows_of("reference_images")["value"].dropna()
    file = f"features.reference {rst(Path(given).name)}"
    if len(found) and found.iloc[0]:
        return f"{file}, its statistics for FID and its {int(found.iloc[0])} pictures for KID, precision and recall"
    return f"the statistics of {file} for FID, {held_out(results)} for KID, precision and recall"


def seeds_words(results: Results, suite: str) -> str:
    """How many trainings stand behind a mean."""
    seeds = results.suite(suite)["train_seeds"]
    if len(seeds) == 1:
        return f"One training seed ({seeds[0]}), no interval."
    return f"Mean and 95 % t-interval over the training seeds {', '.join(map(str, seeds))}."


def reference_words(results: Results) -> str:
    """How scores were made: N, extractor, reference."""
    kind = EXTRACTORS[results.about["features"]["kind"]]
    count = results.about["evaluation"]["num_images"]
    return (
        f"Scores: N = {count} generated pictures per training seed, picture i with seed i in every variant; extractor "
        f"{results.extractor} ({kind}); reference: {held_against(results)}."
    )


def made_by(results: Results, suite: str, sampler: bool = True) -> str:
    """How a suite's scores were made: N, extractor, reference, seeds and, where not the sampler is what varies, the sampler."""
    words = samplers(results, suite) if sampler else ""
    return f"{reference_words(results)} {seeds_words(results, suite)} {imported_words(results, suite)}{words}".strip()


def imported_words(results: Results, suite: str) -> str:
    """Which variants were not trained here, and what their weights are known by."""
    found = {name: names["settings"].get("weights") for name, names in results.variants(suite).items()}
    known = {name: about["sha256"] or Path(about["file"]).name for name, about in found.items() if about}
    return "".join(f"{rst(name)}: imported weights {rst(by[:12])}, not trained here. " for name, by in known.items())
