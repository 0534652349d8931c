"""A results folder of a small study as collect writes one: any variants, three training seeds,
scores, losses, times and images."""

import json

import numpy as np

from bench.runtime.rows import write_metrics, write_runs
from bench.runtime.variants_file import write_variants
from bench.study.names import config_hash

SEEDS, SIDES = (0, 1, 2), (1, 2, 4)
SAMPLER = {
    "name": "var", "cfg_scale": 1.0, "cfg_ramp": "linear", "temperature": 1.0, "top_k": None,
    "top_p": 1.0, "sr_steps": 0, "refine_steps": 0, "p_resample": 0.1,
    "select": {"name": "threshold", "p_resample": 0.1}, "refine_scales": None,
}  # fmt: skip
TOKENIZER = "v8-" + config_hash({"dataset": {}, "tokenizer": {}})
GRID = ".".join(map(str, SIDES))
FIGURES = ["samples", "growth", "fid", "per_scale", "code_usage", "latency"]


def config_of(i, **more):
    return {"dataset": {}, "tokenizer": {}, "model": {"i": i}, "training": {}, **more}


def variant(i, name):
    """Names and settings of a variant, with the runs behind it."""
    jobs = {"": ["encode/g-1"], **{str(seed): [f"sample/v{i}-{seed}"] for seed in SEEDS}}
    sampler = {**SAMPLER, "cfg_scale": 1.0}
    return {
        "timed": f"t-{i}", "tokenizer": TOKENIZER, "model": f"m-{config_hash(config_of(i))}",
        "sampler": f"s-{config_hash(sampler)}", "history": 0, "mask": None, "depth": 1,
        "patch_nums": list(SIDES), "group": name, "grid": {}, "jobs": jobs,
        "settings": {"sampler": sampler, "model": {"patch_nums": list(SIDES), "num_classes": 3},
                     "training": {"steps": 10, "batch_size": 4}},
    }  # fmt: skip


def rows_of(i, names, seed, run):
    """Metrics of one variant and training seed."""
    head = {"study": "x", "dataset": "d", "train_seed": seed, "run_id": run, "unit": "score"}
    head |= {key: names[key] for key in ("tokenizer", "model")}
    scored = {
        **head,
        "sampler": names["sampler"],
        "seed_first": 0,
        "seed_last": 199,
        "num_images": 200,
    }
    scores = {
        # differences of variants are not equal in every seed, or nothing could be decided
        "fid": 5 + 0.1 * i + 0.001 * i * seed,
        "is": 2 + 0.1 * i + 0.001 * i * seed,
        "precision": 0.5,
        "recall": 0.6,
        "class_agreement": 0.9,
    }
    rows = [
        {**scored, "metric": f"{name}_x8", "value": value + 0.01 * seed}
        for name, value in scores.items()
    ]
    rows.append({**head, "metric": "kept_step", "value": 10})
    for k in range(len(SIDES)):
        rows.append(
            {**head, "metric": "loss_test_scale", "scale": k, "step": 10, "value": 2 + 0.1 * i + k}
        )
        rows.append(
            {
                **head,
                "metric": "token_accuracy_test_scale",
                "scale": k,
                "step": 10,
                "value": 0.1 + 0.1 * k,
            }
        )
    return rows


def times_of(i, names):
    """Rows of a latency run for one variant."""
    head = {
        "study": "x",
        "model": names["timed"],
        "sampler": names["sampler"],
        "run_id": "latency/s-1",
        "unit": "s",
    }
    rows = []
    for batch in (1, 8):
        for repeat in range(2):
            value = (1 + 0.1 * i) * batch * (1 + 0.01 * repeat + 0.001 * i * repeat)
            rows.append(
                {
                    **head,
                    "metric": "latency_s",
                    "num_images": batch,
                    "repeat": repeat,
                    "value": value,
                }
            )
        rows.append(
            {**head, "metric": "peak_memory_bytes", "num_images": batch, "value": 100.0 * batch}
        )
    return rows


def shared_rows():
    """What the jobs before any training report."""
    head = {"study": "x", "dataset": "d", "unit": "score"}
    grid = {**head, "tokenizer": TOKENIZER, "model": GRID}
    rows = [{**head, "metric": "num_test", "value": 300, "run_id": "prepare/d-1"}]
    rows += [{**grid, "metric": f"{line}_fid_x8", "value": 1.5, "num_images": 200,
            "run_id": "baselines/g-1"}
             for line in ("floor", "reconstruction")]  # fmt: skip
    for k in range(len(SIDES)):
        for metric, value in (("code_perplexity", 4), ("codes_usable", 8), ("scale_collapsed", 0)):
            rows.append(
                {**grid, "metric": metric, "scale": k, "value": value, "run_id": "encode/g-1"}
            )
    return rows


def build(
    folder, names, claims=(), tables=("scores",), figures=FIGURES, images=None, more=(), **about
):
    """Write metrics.csv, runs.csv, variants.csv and images.npz. images: arrays beside or instead of
    the usual ones; more: further rows;
    about: settings of the study's row to replace."""
    variants = {name: variant(i, name) for i, name in enumerate(names)}
    rows, runs, arrays = (
        shared_rows(),
        ["prepare/d-1", "baselines/g-1", "encode/g-1", "latency/s-1"],
        {},
    )
    found = [
        {"run_id": run, "stage": run.split("/")[0], "status": "ok", "config_json": "{}"}
        for run in runs
    ]
    for i, (_, settings) in enumerate(variants.items()):
        rows += times_of(i, settings)
        for seed in SEEDS:
            run = f"sample/v{i}-{seed}"
            config = config_of(
                i, sampler=settings["settings"]["sampler"], train_seed=seed, patch_nums=list(SIDES)
            )
            found.append(
                {
                    "run_id": run,
                    "stage": "sample",
                    "status": "ok",
                    "config_json": json.dumps(config),
                }
            )
            runs.append(run)
            rows += rows_of(i, settings, seed, run)
        shade = (np.arange(12) * 20)[:, None, None, None].astype(np.uint8)
        arrays[f"sample/v{i}-0/images"] = shade * np.ones((1, 1, 4, 4), np.uint8)
        arrays[f"sample/v{i}-0/strip"] = np.zeros((4, len(SIDES), 1, 4, 4), np.uint8)
    arrays["real/images"] = np.zeros((12, 1, 4, 4), np.uint8)
    suite = {
        "claim": "what is asked", "claims": list(claims), "measure": ["scores", "latency"],
        "figures": list(figures), "tables": list(tables), "train_seeds": list(SEEDS), "runs": runs,
        "published": [], "sweep": {"thresholds": [0.1]},
    }  # fmt: skip
    study = {
        "study": "x", "scope": None, "reduced": None, "suites": {"s": suite},
        "train_seeds": list(SEEDS), "latency": {},
        "evaluation": {"num_images": 200, "first_seed": 0},
        "features": {"kind": "trained", "name": "x8", "dim": 8},
        "dataset": {"name": "d", "num_classes": 3}, **about,
    }  # fmt: skip
    found.append(
        {"run_id": "study/x", "stage": "study", "status": "ok", "config_json": json.dumps(study)}
    )
    write_metrics(folder / "metrics.csv", [*rows, *more])
    write_runs(folder / "runs.csv", found)
    write_variants(folder / "variants.csv", {"s": variants})
    np.savez(folder / "images.npz", **{**arrays, **(images or {})})
    return folder
