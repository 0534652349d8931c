"""Tables of VAR as a discrete diffusion."""

from __future__ import annotations

import pandas as pd

from .analysis import GAP_CLOSED, Results, by_reason, claim, held_out, reach, rst, seeds_words
from .cells import Cell, frame, number, spread


def _largest(results: Results, variant: str, suite: str, metric: str) -> float | None:
    """The largest value over the training seeds."""
    found = results.of(variant, suite, metric)
    return float(found.max()) if len(found) else None


def _closed(gap: float | None, missing: bool) -> str:
    """Whether a gap is 0 up to rounding in every training seed."""
    return "-" if gap is None else "not decided" if missing else "yes" if gap <= GAP_CLOSED else "no"


def _equivalence_row(results: Results, suite: str, variant: str) -> dict[str, str]:
    seeds = results.suite(suite)["train_seeds"]
    gap, missing = _largest(results, variant, suite, "elbo_relative_gap"), results.missing(variant, suite, "elbo_relative_gap")
    ending = f"{results.suite(suite)['equivalence']['corruptions'][0]}_eps0"
    row: dict[str, str] = {"Variant": variant, "Seeds": Cell(f"{len(seeds) - len(missing)} of {len(seeds)}")}
    row["Cross-entropy (nats/token)"] = spread(results.estimate(variant, suite, "elbo_cross_entropy"))
    row["ELBO at eps 0 (nats/token)"] = spread(results.estimate(variant, suite, f"elbo_{ending}"))
    row["Largest relative gap"] = number(gap)
    row["Distance of the two states"] = spread(results.estimate(variant, suite, "path_distance"))
    row["Path KL, own states (nats/token)"] = spread(results.estimate(variant, suite, "path_kl"))
    row["Path KL, equal state (nats/token)"] = spread(results.estimate(variant, suite, "path_kl_equal_state"))
    row["Equal (an identity of chains)"] = _closed(gap, bool(missing))
    apart = _largest(results, variant, suite, "path_kl_equal_state")
    row["Chain in f_hat"] = _closed(apart, bool(results.missing(variant, suite, "path_kl_equal_state")))
    row["Status"] = by_reason(missing) or "ok"
    return row


def table_equivalence(results: Results, suite: str) -> tuple[pd.DataFrame, str]:
    """Cross-entropy, ELBO without noise, the gap between them and the dependence on the path, for every variant."""
    rows = [_equivalence_row(results, suite, variant) for variant in results.variants(suite)]
    first = next(iter(results.variants(suite)))
    asked = results.select(first, suite, "elbo_cross_entropy")["num_images"].dropna()
    count = f"{int(asked.iloc[0])} pictures" if len(asked) else "pictures"
    caption = (
        f"{claim(results, suite)} In float64 on the tokens of {count} of {held_out(results)}. Cross-entropy: teacher-forced, as in "
        "training. ELBO: of the discrete diffusion without noise, every scale from the state f_hat alone. Largest relative gap: "
        "of ELBO and cross-entropy, over scales and training seeds; equal: at most 1e-10 in every seed. For a chain the equality is an "
        "identity, true of any Markov hierarchy without noise; what could fail, and makes it one, is the last path column: 0. Path "
        "columns, from the third scale on: two token paths towards the same latent, the relative distance of the states that they lead to, and "
        "KL of the model's distributions when each path has its own state, and when both have exactly the same. Above 0 there, "
        f"the conditional depends on the path and {rst('f_hat')} is no state of a chain. {seeds_words(results, suite)} {reach(results, suite)}"
    )
    return frame(rows), " ".join(caption.split())
