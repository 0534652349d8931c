"""What the tests of the site share: the pages as a reader of HTML sees them."""

from functools import cache
from urllib.parse import unquote, urlsplit

from selectolax.lexbor import LexborHTMLParser


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
