"""What the tests of the site share: the site of what is committed, and its pages as a reader of
HTML sees them."""

import fcntl
import os
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from selectolax.lexbor import LexborHTMLParser

from bench.site.build import make_site

ROOT = Path(__file__).resolve().parent.parent


def committed_site(tmp_path_factory):
    """The site of what is committed, to read: made once for all processes of the tests."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    site = folder / "committed" / "site"
    site.parent.mkdir(exist_ok=True)
    with open(site.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not site.exists():  # it takes its place when it is whole
            make_site(ROOT / "results", site)
    return site.resolve()


@cache
def tree_of(path):
    return LexborHTMLParser(path.read_text(encoding="utf-8"))


def pages_of(site):
    """All pages, as paths under the site."""
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))


def tables_of(path):
    """Tables of a page by the id of their block: titles, and rows of cells."""
    tables = {}
    for block in tree_of(path).css("div.results-table[id]"):
        titles = [head.text(strip=True) for head in block.css("thead th")]
        tables[block.id] = titles, [row.css("td") for row in block.css("tbody tr")]
    return tables


def links_of(path):
    """Whatever a page loads or links to."""
    for node in tree_of(path).css("[href], [src]"):
        yield node.attributes.get("href") or node.attributes.get("src") or ""


def is_dead(site, page, link):
    """Whether a link of a page leads nowhere in the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc or not link:
        return False
    target = (site / page).parent / unquote(parts.path) if parts.path else site / page
    if not target.exists():
        return True
    part = unquote(parts.fragment)
    if not part or target.suffix != ".html" or part.startswith("__"):
        return False
    return not any(node.id == part for node in tree_of(target.resolve()).css("[id]"))
