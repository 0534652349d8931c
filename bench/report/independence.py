"""Which extractors a tokenizer has seen in its training: of its reconstruction they are no
independent evaluators. Imports no torch."""

from __future__ import annotations

import json

from ..runtime.study_row import check_job
from ..study.escaping import rst
from .view import View


def taught_by(view: View, extractor: str) -> list[str]:
    """Variants whose tokenizer was trained with a perceptual loss on the network of an extractor,
    in the study's order."""
    network = view.results.features[extractor].get("network")
    if network is None:
        return []
    key = "taught by", network, view.suite, *view.variants
    return view.results.once(
        key, lambda: [name for name in view.variants if network in _teachers(view, name)]
    )


def _teachers(view: View, variant: str) -> set[str]:
    """Networks whose activations the tokenizers of a variant were trained on."""
    teachers = set()
    runs = view.results.runs_behind(view.variants[variant], "tokenizer")
    for row in runs.to_dict("records"):
        where = f"{view.results.folder / 'runs.csv'}: {row['run_id']}: config_json"
        tokenizer = check_job(json.loads(row["config_json"] or "{}"), where).tokenizer
        # weights that were given say nothing of their training
        if tokenizer.training.perceptual and not tokenizer.weights:
            teachers.add(tokenizer.training.perceptual_network)
    return teachers


def taught_words(view: View) -> str:
    """A sentence on every extractor that a tokenizer of the suite was trained on; empty where none
    was."""
    sentences = []
    for extractor in view.results.extractors:
        taught = taught_by(view, extractor)
        if taught:
            whose = "all variants" if len(taught) == len(view.variants) else ", ".join(taught)
            sentences.append(
                f"Tokenizers of {rst(whose)} were trained with a perceptual loss on the network of "
                f"{rst(extractor)}, which is no independent evaluator of their reconstruction."
            )
    return " ".join(sentences)
