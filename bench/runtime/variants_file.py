"""variants.csv: what each variant of a suite is called in the other tables, its settings,
and the runs behind it.

The planner knows these names, the report looks them up: nothing is hashed again. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .rows import VARIANT_COLUMNS, VARIANT_KEY, brief, parse_json, read_rows, write_in_order
from .study_row import Record, check_variant

NAME = "variants.csv"
AS_JSON = ("grid", "patch_nums", "settings", "jobs")
AS_NUMBER = ("history", "depth")

Variants = dict[str, dict[str, Record]]  # by suite and name, both in the order of the study


def write_variants(
    path: Path, variants: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> dict[str, Any]:
    """One row a suite and variant, in the order of the study; returns their `content`."""
    rows = []
    for suite, names_by_variant in variants.items():
        for variant, names in names_by_variant.items():
            cells = {column: names[column] for column in VARIANT_COLUMNS if column in names}
            cells |= {column: json.dumps(names[column], allow_nan=False) for column in AS_JSON}
            rows.append({"suite": suite, "variant": variant, **cells})
    return write_in_order(path, rows, VARIANT_COLUMNS, VARIANT_KEY)


def read_variants(path: Path, runs: Mapping[str, set[str]]) -> Variants:
    """The variants of every suite, as `variants_in` gives them."""
    return variants_in(read_rows(path, VARIANT_COLUMNS), path, runs)


def variants_in(rows: list[dict[str, str]], path: Path, runs: Mapping[str, set[str]]) -> Variants:
    """The variants of every suite from the rows of a file. runs: the runs that are there, by suite.
    Raises ValueError for a row of another suite, a damaged cell or a run that is not there,
    and for a suite without variants."""
    variants: Variants = {suite: {} for suite in runs}
    for row in rows:
        suite, variant = row["suite"], row["variant"]
        where = f"{path}: suite {brief(suite)}, variant {brief(variant)}"
        if suite not in variants:
            raise ValueError(
                f"{where}: the study has no such suite (there are: {', '.join(variants)}); "
                "collect again"
            )
        names = _names_of(row, where)
        check_variant(names, where)
        _check_runs(names, runs[suite], where)
        variants[suite][variant] = names
    for suite, names_by_variant in variants.items():
        if not names_by_variant:
            raise ValueError(f"{path}: suite {suite!r}: has no variant; collect again")
    return variants


def _names_of(row: dict[str, str], where: str) -> Record:
    """The cells of a row as what they stand for; an empty one is null."""
    names = Record()
    for column in VARIANT_COLUMNS[2:]:
        cell = row[column]
        if column in AS_JSON:
            names[column] = parse_json(cell, f"{where}: {column}", Record)
        elif column in AS_NUMBER:
            names[column] = int(cell) if cell else None
        else:
            names[column] = cell or None
    return names


def _check_runs(names: Record, there: set[str], where: str) -> None:
    for run_ids in names["jobs"].values():
        for run_id in run_ids:
            if run_id not in there:
                raise ValueError(
                    f"{where}: jobs: {brief(run_id)}: runs.csv has no such run of this suite; "
                    "collect again"
                )
