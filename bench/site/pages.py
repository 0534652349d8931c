"""The pages of the site as markdown with tables and figures in HTML. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from srdd.config import SamplerConfig

from ..report.all_claims import Ruling, rulings
from ..report.estimate import show
from ..study import escaping
from ..study.names import idle_settings
from .published import Published
from .walls import Wall, by_class, sampled

TEMPLATES = Path(__file__).parent / "templates"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(words=words, url=quote, markdown=literal, show=show)
    return environment


def render(template: str, **values: Any) -> str:
    """A page from a template of this folder; what stands in HTML is escaped."""
    return _environment().get_template(f"{template}.md.j2").render(**values)


def words(name: str) -> str:
    """The name of a figure or table as words."""
    if len(name) <= 3:  # fid, snr: an abbreviation
        return name.upper()
    return name.replace("_", " ").capitalize()


def literal(text: Any) -> Markup:
    """Text as it is written wherever markdown is read: of mkdocs' markdown a backslash escapes some
    characters alone, an entity all."""
    signs = re.sub(r"[^\w\s]|_", lambda match: f"&#{ord(match[0])};", escaping.visible(text))
    return Markup(signs)


def flat(settings: Any, before: str = "") -> dict[str, str]:
    """Settings as dotted keys and JSON values."""
    if not isinstance(settings, dict) or not settings:
        return {before: json.dumps(settings, ensure_ascii=False)}
    merged: dict[str, str] = {}
    for key, value in settings.items():
        merged |= flat(value, f"{before}.{key}" if before else str(key))
    return merged


def differing(settings: Iterable[dict[str, str]]) -> list[str]:
    """Keys that not all of several settings have with the same value, in their order."""
    settings = list(settings)
    differ = []
    for key in dict.fromkeys(key for each in settings for key in each):
        if len({each.get(key) for each in settings}) > 1:
            differ.append(key)
    return differ


Rulings = dict[tuple[str, str], dict[str, dict[str, list[Ruling]]]]


def front_page(studies: list[Published], facts: dict[str, dict[str, str]]) -> str:
    """Claims over all studies, and what each study is."""
    claims: Rulings = {}
    for ruling in rulings({study.name: study.results for study in studies}):
        by_study = claims.setdefault((ruling.claim, ruling.of), {})
        by_suite = by_study.setdefault(ruling.study, {})
        by_suite.setdefault(ruling.suite, []).append(ruling)
    return render("index", studies=studies, facts=facts, claims=claims)


def variants_page(published: Published) -> str:
    """The settings of every variant: those that differ in a suite as a table, all folded."""
    suites = []
    for suite in published.suites:
        variants = published.results.variants(suite.name)
        settings = {name: flat(_read(names["settings"])) for name, names in variants.items()}
        whole = {name: _pretty(names["settings"]) for name, names in variants.items()}
        keys = differing(settings.values())
        suites.append({"name": suite.name, "keys": keys, "settings": settings, "whole": whole})
    return render("variants", study=published, suites=suites)


def _read(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a variant without those of its sampler that nothing reads, such as the rule
    of one that refines nothing."""
    try:
        idle = idle_settings(SamplerConfig(**settings["sampler"]))
    except (KeyError, TypeError, ValueError):  # as another version wrote them
        return settings
    sampler = {key: value for key, value in settings["sampler"].items() if key not in idle}
    return {**settings, "sampler": sampler}


def _pretty(settings: dict[str, Any]) -> str:
    return json.dumps(settings, indent=1, ensure_ascii=False)


def scores_of(published: Published, variant: str, suite: str, seed: int) -> dict[str, str]:
    """The scores of a variant and training seed, by metric."""
    results = published.results
    rows = results.once("scores", lambda: _scored(published))
    scores = {}
    for metric in rows:
        values = results.of(variant, suite, metric)
        if seed in values.index:
            scores[metric] = show(values[seed], 4)
    return scores


def _scored(published: Published) -> list[str]:
    """Names of the metrics that come from generated images."""
    metrics = published.results.metrics
    stages = metrics["run_id"].str.partition("/")[0]
    return sorted(metrics.loc[stages == "evaluate", "metric"].unique())


def compared(published: Published, walls: dict[str, Wall]) -> dict[str, Any]:
    """What the page of images picks from: walls, scores and settings by suite, variant and
    seed."""
    suites: dict[str, Any] = {}
    for suite in published.suites:
        variants = suites.setdefault(suite.name, {})
        for variant, seed, run in sampled(published.results, suite.name):
            names = published.results.variants(suite.name)[variant]
            entry = variants.setdefault(variant, {"settings": flat(names["settings"]), "seeds": {}})
            entry["seeds"][seed] = {
                "images": walls[run].images,
                "strip": walls[run].strip,
                "scores": scores_of(published, variant, suite.name, seed),
            }
    return {name: variants for name, variants in suites.items() if variants}


def images_page(published: Published, walls: dict[str, Wall], suites: dict[str, Any]) -> str:
    """Two variants side by side by seed, and every wall."""
    images = published.results.images
    classes = images["real/classes"].tolist() if "real/classes" in images else []
    first = next((run for run in walls if run != "real"), None)
    columns = first is not None and by_class(
        images.get(f"{first}/labels"), len(images[f"{first}/images"])
    )
    return render(
        "images",
        study=published,
        suites=suites,
        real=walls.get("real"),
        classes=classes,
        columns=columns,
    )
