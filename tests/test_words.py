"""What readers meet in words: plain terms of the field, and sentences that are short."""

import io
import re
import tokenize
from itertools import chain
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from small_study import build

from bench.experiments.error_propagation.show import error_details
from bench.report.results import Results
from bench.report.view import View
from bench.study import escaping, rooms

ROOT = Path(__file__).resolve().parent.parent
TEXTS = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "workflows").rglob("*.yaml")]
SOURCES = sorted([*(ROOT / "srdd").rglob("*.py"), *(ROOT / "bench").rglob("*.py")])
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# of a page: code, places that results fill, tables, headings and lines of HTML
NO_PROSE = re.compile(
    r"^ *```.*?^ *```$|<!-- published.*?<!-- /published -->|^ {4,}.*?$|^[|#<].*?$",
    re.DOTALL | re.MULTILINE,
)
# a word, whatever it holds; of a link only its words are read
CODE_SPAN, COMMENT = re.compile(r"`[^`]*`"), re.compile(r"<!--.*?-->")
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
BEGINNING = re.compile(r"\n\s*\n|\n(?= *(?:[-*]|\d+\.) )")
PROSE = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
# what stands there instead of which plain word
UNPLAIN = {
    r"pictures?": "image",
    r"(?:a|an|the|one|each|every|another|first|last) looks?": "evaluation",
    r"(?:rival|opponent|contender)s?": "baseline",
    r"(?:is|are|or) no numbers?(?! of)": "not a finite number",
}
MOST_WORDS_OF_SENTENCE = 25
SHOWN = [(what, name) for what in ("figures", "tables") for name in rooms.shows(what)]


def prose_of(path):
    """Text for readers by line: all of a document, strings and comments of a module."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in PROSE:
            yield token.start[0], " ".join(token.string.split())


@pytest.mark.parametrize("word, plain", UNPLAIN.items())
def test_words_are_those_of_the_field(word, plain):
    """Catches a word that only we use where readers know another."""
    pattern, wrong = re.compile(rf"\b{word}\b", re.IGNORECASE), []
    for path in (*SOURCES, *TEXTS):
        for line, text in prose_of(path):
            if match := pattern.search(text):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {match[0]!r}; write {plain!r}")
    assert not wrong, "\n".join(wrong)


def test_errors_are_held_against_what_all_scores_are(tmp_path):
    """Catches a caption that names the held-out split, where FID is held against a file."""
    features = {"kind": "inception", "name": "x8", "dim": 8, "reference": "files/adm.npz"}
    results = Results.load(build(tmp_path, ["a", "b"], features=features))
    results.about["suites"]["s"]["error_propagation"] = {"shares": [0.1]}
    said = " ".join(error_details(View(results, "s")))
    assert "Reference: the statistics of features.reference adm.npz for FID" in said
    assert "reference: the held-out split" not in said


def paragraphs(page):
    """Paragraphs and items of lists of a page, in plain words."""
    text = COMMENT.sub("", NO_PROSE.sub("\n\n", page.read_text(encoding="utf-8")))
    for paragraph in BEGINNING.split(text):
        plain = LINK.sub(r"\1", CODE_SPAN.sub("Code", " ".join(paragraph.split())))
        yield re.sub(r"[*_]", "", plain)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_sentences_of_pages_are_short(page):
    """Catches a sentence that is a paragraph, or a list that is written as one sentence."""
    long = []
    for words in chain.from_iterable(map(sentences, paragraphs(page))):
        if len(words) > MOST_WORDS_OF_SENTENCE:
            long.append(f"{len(words)} words: {' '.join(words)}")
    assert not long, "\n".join(long)


def sentences(words):
    """Sentences of a page or caption, as lists of words; signs such as + and = are none."""
    for sentence in re.split(r"(?<=[.!?])\s+(?=\W*[A-Z0-9])", escaping.plain(words)):
        yield [word for word in sentence.split() if re.search(r"\w", word)]


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    """A small study whose suite was told the defaults of every room."""
    view = View(Results.load(build(tmp_path_factory.mktemp("words"), ["a", "b"])), "s")
    for room, settings in rooms.with_settings().items():
        view.about[room] = settings().model_dump(mode="json")
    return view


@pytest.mark.parametrize("what, name", SHOWN)
def test_sentences_of_captions_are_short(view, what, name):
    """Catches a sentence that nobody can read aloud."""
    _, caption = rooms.function_of(what, name)(view)
    plt.close("all")
    for part in (caption.text, *caption.details):
        for words in sentences(part):
            assert len(words) <= MOST_WORDS_OF_SENTENCE, " ".join(words)
