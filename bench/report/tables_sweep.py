"""Tables of many samplers: guidance tuned on one half of the seeds and scored on the other, and how probable drawn tokens are."""

from __future__ import annotations

import pandas as pd

from .analysis import (
    NOISE,
    Results,
    after_holm,
    bias_words,
    claim,
    edges,
    estimate,
    gain_words,
    half_words,
    judged,
    noise_words,
    paired,
    reference_words,
    rst,
    seeds_words,
    tuned_to,
)
from .cells import Cell, frame, number, spread


def edge_words(results: Results, suite: str) -> str:
    """Which groups are at their best at the edge of what was tried, where the best may lie beyond;
    empty where none is."""
    metric, found = results.score_name("fid"), []
    for group in results.groups(suite):
        best = results.tuned(group, suite, metric)
        if best is not None and (words := edges(results, suite, group, best)):
            found.append(f"{rst(group)} is at its best {words}")
    return f"{'; '.join(found)}: the best may lie beyond." if found else ""


def _unguided(results: Results, suite: str, variant: str, best: str) -> bool:
    """Whether a variant is the best one of its group without guidance, all else equal."""
    mine, other = (
        {key: value for key, value in results.sampler(name, suite).items() if key != "cfg_ramp"}
        for name in (variant, best)
    )
    return mine == {**other, "cfg_scale": 1.0}


def table_guidance(results: Results, suite: str) -> tuple[pd.DataFrame, str]:
    """Every group at the setting that is best on the first half of the sample seeds, scored on the
    second, and without guidance."""
    metric, (first, second), rows = f"fid_{results.extractor}", results.halves, []
    for group, members in results.groups(suite).items():
        best = results.tuned(group, suite, metric)
        off = next((v for v in members if best and _unguided(results, suite, v, best)), None)
        row: dict[str, str] = {"Group": group, "Settings tried": number(len(members))}
        if best is None:
            rows.append(row | {"Status": "no scores on halves"})
            continue
        row["Tuned"] = tuned_to(results, suite, group, best)
        row["At an edge"] = "yes" if edges(results, suite, group, best) else "no"
        for name in ("FID", "IS", "Precision", "Recall"):
            key = f"{name.lower()}_{results.extractor}"
            row[f"{results.label(name)} tuned, second half"] = spread(estimate(results.of(best, suite, key, second)))
        row["FID on the first half"] = spread(estimate(results.of(best, suite, metric, first)))
        if off is not None:
            row["FID at w = 1, second half"] = spread(estimate(results.of(off, suite, metric, second)))
            gain = paired(results.of(off, suite, metric, second), results.of(best, suite, metric, second))
            row["Tuned minus w = 1, paired"] = spread(gain, difference=True)
        rows.append(row | {"Status": "ok"})
    held = results.rows_of("half_reference_images")["value"].dropna()
    half = bias_words(results, second[1] - second[0] + 1, int(held.min()) if len(held) else None)
    half = "" if half == bias_words(results) else half
    caption = (
        f"{claim(results, suite)} Tuned: the setting with the lowest mean FID on sample seeds {first[0]} to {first[1]}, scored on seeds "
        f"{second[0]} to {second[1]}{half_words(results, suite)}: N = {second[1] - second[0] + 1} each, not comparable with scores of "
        f"other N. {noise_words(results, suite)} {edge_words(results, suite)} {reference_words(results, suite)}{half} {seeds_words(results, suite)}"
    )
    return frame(rows), " ".join(caption.split())


def table_sampling_probability(results: Results, suite: str) -> tuple[pd.DataFrame, str]:
    """Quantiles of the probability of drawn tokens, and the share below each threshold, per scale, for samplers of one pass."""
    thresholds, rows = results.suite(suite)["sweep"]["thresholds"], []
    columns = {f"q{q}": f"drawn_probability_q{q}" for q in (10, 50, 90)}
    columns |= {f"Share below {p:g}": f"drawn_below_{p:g}" for p in thresholds}
    for variant, names in results.variants(suite).items():
        found = {title: results.select(variant, suite, metric) for title, metric in columns.items()}
        if not any(len(part) for part in found.values()):
            continue  # refined samplers draw a token more than once
        for k, side in enumerate(names["patch_nums"]):
            row: dict[str, str] = {"Variant": variant, "Scale": Cell(str(k), value=k), "Grid": f"{side}x{side}"}
            for title, part in found.items():
                row[title] = spread(estimate(part.loc[part["scale"] == k, "value"]))
            rows.append(row)
    counts = results.metrics.loc[results.metrics["metric"].str.startswith("drawn_below_"), "num_images"].dropna()
    drawn = f"the first {int(counts.iloc[0])} generated pictures" if len(counts) else "generated pictures"
    caption = (
        f"{claim(results, suite)} Probability that a drawn token had under the guided distribution that it was drawn from, on "
        f"{drawn} of each training seed: quantiles over tokens, and the share that a threshold of p_resample would redraw. "
        f"{seeds_words(results, suite)}"
    )
    return frame(rows or [{"Variant": "none", "Status": "no sampler of one pass, or no thresholds"}]), caption


def _sides(results: Results, suite: str, one: dict) -> list[str]:
    """Variants that a claim compares: those of a group where it names groups."""
    groups = results.groups(suite)
    return [name for key in ("variant", "against") for name in (one[key], *groups.get(one[key], ()))]


def table_claims(results: Results, suite: str) -> tuple[pd.DataFrame, str]:
    """Every claim of every suite of these results, whether it holds here, and whether it does when
    all are tested together."""
    rows, seeds = [], set()
    for name, about in results.about["suites"].items():
        for one in about["claims"]:
            found = judged(results, name, one)
            words = gain_words(results, name, _sides(results, name, one), doubts=True)
            rows.append(
                {"Claim": one["text"], "Of": {"paper": "the paper, in our words", "ours": "us"}[one["origin"]], "Suite": name}
            )
            rows[-1] |= {"Holds here": found[0], "After Holm": after_holm(results, name, one, found) or "no p-value"}
            rows[-1]["Because"] = f"{found[1]}. {words}" if words else found[1]
            seeds.add(len(about["train_seeds"]))
    few = " Fewer than three training seeds: no verdict." if seeds and min(seeds) < 3 else ""
    caption = (
        "What these results say of each claim. Scores and steps: yes or no when the 95 % t-interval of the paired difference over "
        f"training seeds excludes 0, at every target where there are several, else not decided.{few} Times: the interval of the log "
        "ratio over paired rounds, at every batch size. After Holm: the same when all claims with a p-value of a t-test are tested "
        f"together at 5 %; bytes and identities have none. {NOISE} {reference_words(results)} Of the SRDD paper only the "
        "beginning of the text was seen by us; no number of it stands here."
    )
    return frame(rows or [{"Claim": "none", "Holds here": "-", "After Holm": "-"}]), caption
