"""The project's documents as pages: the same text, and the files that they link to."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import unquote

from ..runtime.rows import write_text

# a link or an image of markdown: its words and its target
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
OUTSIDE = re.compile(r"[a-z][a-z0-9+.\-]*:|#|/")


def documents(root: Path) -> list[Path]:
    """The pages beside the results: docs/ in the order in which the README names them, how to
    contribute, what changed."""
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""

    def place(page: Path) -> tuple[int, str]:
        first = text.find(f"](docs/{page.name}")
        return (first if first >= 0 else len(text)), page.name

    pages = sorted((root / "docs").glob("*.md"), key=place)
    return pages + [root / name for name in ("CONTRIBUTING.md", "CHANGELOG.md")]


def stage_documents(root: Path, staged: Path) -> list[str]:
    """Copy the documents to the places that they have in the project; returns their paths."""
    paths = [path.relative_to(root) for path in documents(root) if path.is_file()]
    pages = {path.as_posix() for path in paths} | {"index.md"}
    for path in paths:
        text = (root / path).read_text(encoding="utf-8")
        write_text(staged / path, linked(text, root, path, staged, pages))
    return [path.as_posix() for path in paths]


def linked(text: str, root: Path, page: Path, staged: Path, pages: set[str]) -> str:
    """The text of a document whose links hold on the site: a file of the project that is linked to
    is copied beside, the README becomes the front page, a folder loses its link."""

    def hold(match: re.Match[str]) -> str:
        image, words, link = match.groups()
        name, _, part = link.partition("#")
        if OUTSIDE.match(link):
            return match[0]
        target = (root / page.parent / unquote(name)).resolve()
        if target == root / "README.md":
            return f"[{words}]({'../' * (len(page.parts) - 1)}index.md)"
        if not target.is_file() or not target.is_relative_to(root):
            return match[0] if not target.is_dir() else words
        place = target.relative_to(root)
        if place.as_posix() not in pages and not (staged / place).exists():
            (staged / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(target, staged / place)
        return match[0]

    return LINK.sub(hold, text)
