"""The site from published results: `python -m bench site [TARGET] [--results FOLDER]`.

Pages are written beside copies of the published files, in the places that they have in the
project, so that links between documents hold. mkdocs makes the site of them. Imports no torch.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import itables
import yaml
from mkdocs.commands.build import build
from mkdocs.config import load_config

from ..report.published import published_folders, weight
from ..runtime.rows import write_text
from .documents import stage_documents
from .pages import compared, front_page, images_page, render, variants_page
from .published import Published, read_published
from .walls import write_walls

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MARK = ".srdd_site"  # in every site that was made here: nothing else is ever replaced
EXPORT = re.compile(r"export\{[^}]*?(\w+) as default[^}]*\};")


def main(argv: list[str] | None = None) -> None:
    """Make the site; an error is one line."""
    parser = argparse.ArgumentParser(prog="python -m bench site")
    parser.add_argument(
        "target", nargs="?", type=Path, default=ROOT / "site", help="folder of the site"
    )
    parser.add_argument(
        "--results", type=Path, default=ROOT / "results", help="holds <study>/published"
    )
    options = parser.parse_args(argv)
    try:
        make_site(options.results, options.target)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    print(options.target / "index.html")


def make_site(results: Path, target: Path) -> None:
    """Write the site of all published studies under a folder of results, whole or not at all.

    Raises ValueError for results that are damaged, and for a target that holds something else.
    """
    _check_target(target)
    studies = [read_published(folder) for folder in published_folders(results)]
    if not studies:
        raise ValueError(f"{results}: holds no published study; run `./run publish` first")
    studies.sort(key=lambda study: weight(study.results.about))
    with tempfile.TemporaryDirectory(prefix="srdd-site-") as folder:
        staged, fresh = Path(folder, "pages"), Path(folder, "site")
        pages = _stage(studies, staged)
        _generate(staged, fresh, pages)
        (fresh / MARK).touch()
        _replace(fresh, target)


def _check_target(target: Path) -> None:
    filled = target.exists() and (not target.is_dir() or any(target.iterdir()))
    if filled and not (target / MARK).is_file():
        raise ValueError(
            f"{target}: holds something that is no site of this project; "
            "name another folder, or remove it"
        )


def _replace(fresh: Path, target: Path) -> None:
    """Put a new folder in the place of an old one, at once; where that fails the old one stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new, old = (target.with_name(f".{target.name}.{os.getpid()}.{end}") for end in ("new", "old"))
    try:
        shutil.copytree(fresh, new)
        if target.is_dir():
            os.rename(target, old)
        os.rename(new, target)
    finally:
        if old.is_dir() and not target.exists():
            os.rename(old, target)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


# ------------------------------------------------------------------ pages


def _stage(studies: list[Published], staged: Path) -> list[Any]:
    """Write all that mkdocs reads; returns the navigation."""
    _stage_assets(staged / "assets")
    facts = {study.name: _facts(study) for study in studies}
    write_text(staged / "index.md", front_page(studies, facts))
    menus = [{study.name: _stage_study(study, facts[study.name], staged)} for study in studies]
    documents = stage_documents(ROOT, staged)
    return [{"Claims": "index.md"}, {"Studies": menus}, {"Documents": documents}]


def _stage_study(study: Published, facts: dict[str, str], staged: Path) -> list[str]:
    """Write the pages of one study; returns their menu."""
    folder = staged / "results" / study.name
    # a table's markdown and a caption are no pages of their own
    others = shutil.ignore_patterns("*.md", "*.rst")
    shutil.copytree(study.folder, folder / "published", ignore=others)
    walls = write_walls(study.results, folder / "walls", "walls/")
    suites = compared(study, walls)
    pages = {"index": render("study", study=study, facts=facts, has_images=bool(suites))}
    if suites:
        pages["images"] = images_page(study, walls, suites)
        text = f"window.COMPARED = {json.dumps(suites, allow_nan=False)};\n"
        write_text(folder / "walls" / "compare.js", text)
    pages |= {"variants": variants_page(study), "jobs": render("jobs", study=study)}
    for name, text in pages.items():
        write_text(folder / f"{name}.md", text)
    return [f"results/{study.name}/{name}.md" for name in pages]


def _facts(study: Published) -> dict[str, str]:
    """What a study is, in a few words each."""
    about, runs = study.results.about, study.results.runs
    commits = sorted({str(commit)[:10] for commit in runs["commit"].dropna()})
    return {
        "Images": f"{about['dataset']['name']}, {about['dataset']['num_classes']} classes",
        "Scored": f"{about['evaluation']['num_images']:,} images a training seed, "
        f"by {', '.join(study.results.extractors)}",
        "Training seeds": ", ".join(map(str, about["train_seeds"])),
        "Machine": "; ".join(sorted(set(runs["device"].dropna()))),
        "Commit": ", ".join(commits),
    }


# ------------------------------------------------------------------ mkdocs


def _stage_assets(folder: Path) -> None:
    """Scripts and styles of ours, and DataTables as a script that a page opened as a file may
    load."""
    shutil.copytree(HERE / "assets", folder)
    bundle = Path(itables.__file__).parent / "html"
    code = (bundle / "dt_bundle.js").read_text(encoding="utf-8")
    # browsers load no modules from files: the bundle's one export becomes a global name
    code, count = EXPORT.subn(r"window.DataTable=\1;", code)
    if count != 1:
        told = "exports no DataTable; install the itables that requirements.txt names"
        raise ValueError(f"{bundle / 'dt_bundle.js'}: {told}")
    write_text(folder / "datatables.js", f"(()=>{{{code}\n}})();\n")
    shutil.copy2(bundle / "dt_bundle.css", folder / "datatables.css")


def _generate(staged: Path, fresh: Path, pages: list[Any]) -> None:
    """Run mkdocs. Raises ValueError with its first warning."""
    told = yaml.safe_load((HERE / "mkdocs.yml").read_text(encoding="utf-8"))
    told |= {"docs_dir": str(staged), "site_dir": str(fresh), "nav": pages}
    file = staged.parent / "mkdocs.yml"
    write_text(file, yaml.safe_dump(told, allow_unicode=True))
    heard = _Warnings()
    logger = logging.getLogger("mkdocs")
    logger.addHandler(heard)
    try:
        build(load_config(str(file)))
    finally:
        logger.removeHandler(heard)
    if heard.lines:
        raise ValueError(f"mkdocs: {heard.lines[0]}")


class _Warnings(logging.Handler):
    """Keeps what mkdocs warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
