"""Text from a study comes out of every markup as it was written."""

import html
import re

import jinja2
import pytest
from docutils.core import publish_parts
from hypothesis import given
from hypothesis import strategies as st

from bench.report.caption import Caption
from bench.report.cells import frame, write_table
from bench.study import escaping

pytestmark = pytest.mark.filterwarnings("ignore:.*writer:")

NASTY = [
    ".. a comment", ".. image:: http://example.org/x.png", ".. raw:: html", ".. _target: x",
    "__ http://example.org", "..", "...", "- item", "* item", "+ item", "• item", "1. one", "1.",
    "(a) one", "a) one", "#. one", "iv. four", "A. Person", "i.", ":field: body", ":role:`text`",
    "`text`:role:", "-a option", "--long option", "/V option", ">>> 1 + 1", "| line", "|x|",
    "a |x| b", "=====", "-----", "+---+", "===  ===", "::", "text::", "text ::", "a :: b", "a:::",
    "``x``", "`x`_", "`x <y>`__", "x_", "x__ y", "_x", "_`x`", "[1]_", "[#]_", "[CIT2002]_", "*x*",
    "**x**", "a*b*c", "\\", "x\\", "\\\\", "a \\ b", "\\x", "{{ 7 * 7 }}", "{% raw %}",
    "{# hidden #}", "{", "}", "{{", "%}", "http://example.org/a_b", "me@example.org",
    "mailto:me@example.org", "<b>bold</b>", "&amp; & &lt;", "a\nb", "a\r\n\r\nb", "  indented",
    "\ttab", "a\x00b", "\x07", "\ufeffbom", "\u202eabc", "\ud800", "# title", "%x", "$a$", "~~x~~",
    "!", "?", "a_b_c", "__init__", "é_", "中文_", "'", '"', "1.2.3", "(", "[x]: y", "[x](y)",
    "![x](y)", "x^2_3",
]  # fmt: skip


def shown(caption):
    """A caption as the HTML report shows it, and what docutils complained of."""
    source = jinja2.Environment().from_string(caption + "\n").render()
    parts = publish_parts(
        source, writer_name="html", settings_overrides={"report_level": 1, "warning_stream": False}
    )
    body = parts["body"]
    assert body.count("<") == 2 and body.startswith("<p>"), body
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", body)).split())


@pytest.mark.parametrize("text", NASTY)
def test_nasty_text_comes_out_of_a_caption(text):
    """Catches a claim that vanishes as a comment, or is rendered as a list, a title, a link or a
    formula."""
    assert shown(escaping.rst(text)) == escaping.visible(text)
    assert shown(
        f"{escaping.rst(text)} and {escaping.rst(text)}: {escaping.rst(text)}"
    ) == "{0} and {0}: {0}".format(escaping.visible(text))
    assert escaping.plain(escaping.rst(text)) == escaping.visible(text)


@pytest.mark.parametrize("text", NASTY)
def test_nasty_text_comes_out_of_a_detail(text):
    """Catches a detail that is a list of its own, ends the folded part, or is lost from it."""
    caption = Caption("What is drawn.", (escaping.rst(text), f"Then {escaping.rst(text)}."))
    source = jinja2.Environment().from_string(caption.rst()).render()
    settings = {"report_level": 1, "warning_stream": False}
    body = publish_parts(source, writer_name="html", settings_overrides=settings)["body"]
    folded = re.fullmatch(
        r"<p>What is drawn.</p>\s<details><summary>Details</summary><ul[^>]*>(.*)</ul>\s</details>",
        body.strip(),
        re.DOTALL,
    )
    items = re.findall(r"<li>(?:<p>)?(.*?)(?:</p>)?</li>", folded[1], re.DOTALL)
    shown_items = [" ".join(html.unescape(item).split()) for item in items]
    assert shown_items == [escaping.visible(text), f"Then {escaping.visible(text)}."]


def test_details_are_folded_in_markdown(tmp_path):
    """Catches details that stand unfolded under a table, are said twice, or swallow the text."""
    caption = Caption("What is shown.", ("* One.", "", "Two.", "Two."))
    table = frame([{f"c{i}": "x" for i in range(9)}])
    write_table(tmp_path / "t", table, caption)
    under = (tmp_path / "t.md").read_text().split("\n\n", 1)[1]
    assert under == (
        "What is shown.\n\n<details><summary>Details</summary>\n\n"
        "- \\* One.\n- Two.\n- 2 more columns in the csv.\n\n</details>\n"
    )
    assert (tmp_path / "t.csv").read_text().count("c8") == 1


@given(
    st.text(st.characters(codec=None), min_size=1)
    | st.text("\\*`_|:.-=+#{}%<>()[]1ai &@~\n", min_size=1, max_size=12)
)
def test_any_text_comes_out_of_a_caption(text):
    """Catches markup that no list of examples names."""
    if escaping.visible(text):
        assert shown(escaping.rst(text)) == escaping.visible(text)


@given(st.text("\\*`_|:.-=1ai ?!", max_size=8))
def test_a_sentence_has_one_full_stop(text):
    """Catches a claim `1` whose full stop makes a list of the caption, and a stop cut off from its
    backslash."""
    bare = escaping.visible(text).rstrip(".")
    end = "" if bare.endswith(("?", "!")) else "."
    assert shown(escaping.sentence(text)) == bare + end


@pytest.mark.parametrize("text", NASTY)
def test_nasty_text_stays_in_its_cell(tmp_path, text):
    """Catches a name that ends a row or a cell of a table, or that is markup in one."""
    table = frame([{"Variant": text, "Of": "us"}])
    write_table(tmp_path / "t", table, escaping.rst(text))
    lines = (tmp_path / "t.md").read_text(encoding="utf-8").split("\n")
    cells = re.split(r"(?<!\\)(?:\\\\)*\|", lines[2])
    assert len(lines) == 6 and len(cells) == 4 and cells[2] == " us "
    for place in (cells[1].strip(), lines[4]):
        assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", place) == escaping.visible(text)
        assert not re.search(r"(?<!\\)[<`*$]", place)
    assert not re.match(r"([#>+\-=]|[0-9]+[.)])(\s|$)", lines[4])
