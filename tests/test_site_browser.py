"""The site in a real browser, opened as files: what a reader sees and can do."""

import contextlib

import pytest
from browser import complaints, opened, show, until
from site_pages import committed_site, pages_of

STUDY = "results/digits"  # one with images of several training seeds


@pytest.fixture(scope="module")
def browser():
    with opened() as driver:
        yield driver


@pytest.fixture(scope="module")
def site(browser, tmp_path_factory):
    """The site of what is committed."""
    return committed_site(tmp_path_factory)


def all_of(browser, selector):
    return browser.find_elements("css selector", selector)


def one(browser, selector):
    return browser.find_element("css selector", selector)


def click(browser, element):
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    until(lambda: all(element.rect[side] for side in ("width", "height")))  # images load when seen
    element.click()


def choose(browser, selector, text):
    """Pick an entry of a list by what it says."""
    for entry in all_of(browser, f"{selector} option"):
        if entry.text == text:
            return entry.click()
    raise AssertionError(f"{selector} offers no {text}")


def test_complaints_are_heard(browser, tmp_path):
    """Catches a check that no page can fail."""
    page = tmp_path / "page.html"
    page.write_text("<script>throw Error('loud')</script><img src=none.png>"
                    "<script src=https://elsewhere.invalid/x.js></script>")  # fmt: skip
    said = "\n".join(complaints(browser, page))
    assert "loud" in said and "none.png" in said and "https://elsewhere.invalid/x.js" in said


LINES = """
const range = document.createRange();
const lines = (element) => {
  range.selectNodeContents(element);
  return new Set([...range.getClientRects()].map((line) => line.top)).size;
};
return [...document.querySelectorAll(arguments[0])].map(lines);
"""


def test_names_of_files_and_studies_are_read_whole(browser, site):
    """Catches a name that breaks in the middle of a word at a phone's width."""
    with phone(browser):
        show(browser, site / "docs" / "running.html")
        lines = browser.execute_script(LINES, "td:first-child > code")
    assert len(lines) > 10 and set(lines) == {1}


@pytest.mark.parametrize("width", [500, 1280])
def test_claims_over_all_studies_are_read_in_few_lines(browser, site, width):
    """Catches claims of a word a line beside wide blank columns."""
    browser.set_window_size(width, 1000)
    show(browser, site / "index.html")
    lines = browser.execute_script(LINES, "#claims tbody td:first-child")
    browser.set_window_size(1300, 1000)
    assert len(lines) > 40 and sorted(lines)[len(lines) // 2] <= 3 and max(lines) <= 5


@pytest.fixture(scope="module")
def seen(browser, site):
    """What every page says and how wide it is on a phone, loaded once."""
    return {
        page: (complaints(browser, site / page), phone_width(browser)) for page in pages_of(site)
    }


@contextlib.contextmanager
def phone(browser):
    """The window of a phone, 390 pixels wide."""
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def phone_width(browser):
    """Pixels that a page takes when its window becomes a phone of 390."""
    with phone(browser):
        return browser.execute_script("return document.documentElement.scrollWidth")


def test_every_page_loads_alone(seen):
    """Catches an error in a script, an image that is not there, and anything fetched from
    elsewhere: a reader without a network sees all."""
    said = {page: words for page, (words, _) in seen.items() if page != "404.html"}
    assert len(said) > 10
    assert not {page: words for page, words in said.items() if words}


def test_width_is_seen(browser, tmp_path):
    """Catches a measure that no page can fail."""
    page = tmp_path / "page.html"
    for width, wanted in ((500, 500), (100, 390)):
        page.write_text(
            "<meta name=viewport content='width=device-width, initial-scale=1'>"
            f"<body style='margin:0'><div style='width:{width}px'>wide</div>"
        )
        show(browser, page)
        assert phone_width(browser) == wanted


def test_no_page_is_wider_than_a_phone(seen):
    """Catches a table or figure that makes all of a page scroll sideways."""
    assert not [page for page, (_, width) in seen.items() if width > 390]


def column(browser, place):
    """What a column of the table of scores shows, from top to bottom."""
    cells = f"document.querySelectorAll('#main_scores tbody tr td:nth-child({place})')"
    return browser.execute_script(f"return [...{cells}].map((cell) => cell.innerText)")


def value(text):
    """The number that a cell begins with; what has none stands last."""
    return float(text.split()[0]) if text else None


def test_a_table_sorts_by_number(browser, site):
    """Catches a table that sorts 10 before 9, one that does not sort,
    and one that begins with what has no number."""
    show(browser, site / STUDY / "index.html")
    titles = [head.text for head in all_of(browser, "#main_scores thead th")]
    place = 1 + next(i for i, title in enumerate(titles) if title.startswith("FID"))
    values = [value(text) for text in column(browser, place)]
    numbers = [number for number in values if number is not None]
    blank = [None] * (len(values) - len(numbers))
    assert len(numbers) > 5 and values != sorted(numbers) + blank and blank
    head = all_of(browser, "#main_scores thead th .dt-column-title")[place - 1]
    for backwards in (False, True):
        click(browser, head)
        wanted = sorted(numbers, reverse=backwards) + blank
        until(lambda wanted=wanted: list(map(value, column(browser, place))) == wanted)


def test_a_table_filters(browser, site):
    """Catches a filter of all columns or of one that leaves other rows, or none."""
    show(browser, site / STUDY / "index.html")
    assert "SDD top-p" in column(browser, 1) and len(column(browser, 1)) > 5
    one(browser, "#main_scores .dt-search input").send_keys("top-p")
    until(lambda: column(browser, 1) == ["SDD top-p"])
    show(browser, site / STUDY / "index.html")
    click(browser, one(browser, "#main_scores .dtcc-button_dropdown"))
    one(browser, ".dtcc-dropdown input").send_keys("SDD top")
    until(lambda: column(browser, 1) == ["SDD top-p"])


def test_more_columns_are_a_click_away(browser, site):
    """Catches numbers of a csv that no reader can reach."""
    show(browser, site / STUDY / "index.html")
    few = len(all_of(browser, "#main_scores thead th"))
    click(browser, one(browser, "#main_scores .dt-buttons button"))
    entry = until(lambda: all_of(browser, ".dt-button-collection button:not(.dt-button-active)"))
    until(entry[0].is_displayed)
    browser.execute_script("arguments[0].click()", entry[0])  # while it still moves
    assert len(all_of(browser, "#main_scores thead th")) == few + 1


def test_details_are_folded(browser, site):
    """Catches a caption of a page's length before anybody asked, and one that stays shut."""
    show(browser, site / STUDY / "index.html")
    details = one(browser, "#main_fid + .caption details")
    entry = details.find_element("css selector", "li")
    assert not entry.is_displayed()
    click(browser, details.find_element("css selector", "summary"))
    assert until(entry.is_displayed)


@pytest.mark.parametrize("page, image", [("index", "#main_fid img"), ("images", ".walls img")])
def test_an_image_enlarges(browser, site, page, image):
    """Catches a figure or a wall of samples that nobody can see from nearby."""
    show(browser, site / STUDY / f"{page}.html")
    small = one(browser, image)
    file = small.get_attribute("src")
    click(browser, small)
    large = until(lambda: all_of(browser, ".gslide.current .gslide-image img"))[0]
    assert until(lambda: large.get_attribute("naturalWidth") != "0" and large.is_displayed())
    assert large.get_attribute("src") == file


def test_variants_stand_side_by_side(browser, site):
    """Catches the images, scores or settings of another variant or training seed."""
    show(browser, site / STUDY / "images.html")
    suites = browser.execute_script("return window.COMPARED")
    variants = next(variants for variants in suites.values() if len(variants) > 2)
    left, right = list(variants)[0], list(variants)[2]
    seed = list(variants[left]["seeds"])[-1]
    choose(browser, "select[data-side=left]", left)
    choose(browser, "select[data-side=right]", right)
    choose(browser, "select[data-what=seed]", seed)
    for view, words in (("images", "final images"), ("strip", "scale by scale")):
        choose(browser, "select[data-what=view]", words)
        for side, name in (("left", left), ("right", right)):
            file = variants[name]["seeds"][seed][view]
            figure = f"figure[data-side={side}]"
            assert one(browser, f"{figure} img").get_attribute("src").endswith(file)
            assert one(browser, f"{figure} a").get_attribute("href").endswith(file)
            assert name in one(browser, f"{figure} figcaption").text
    for row in all_of(browser, "table[data-what=scores] tbody tr"):
        metric, *shown = [cell.text for cell in row.find_elements("css selector", "td")]
        assert shown == [variants[name]["seeds"][seed]["scores"][metric] for name in (left, right)]
    differ = {
        key
        for key, value in variants[left]["settings"].items()
        if variants[right]["settings"].get(key) != value
    }
    rows = all_of(browser, "table[data-what=settings] tbody tr td:first-child")
    assert differ and {row.text for row in rows} >= differ
    click(browser, one(browser, "figure[data-side=right] img"))
    large = until(lambda: all_of(browser, ".gslide.current .gslide-image img"))[0]
    assert large.get_attribute("src").endswith(variants[right]["seeds"][seed]["strip"])


def test_words_are_found(browser, site):
    """Catches a search that needs a server or a network."""
    show(browser, site / "index.html")
    field = one(browser, ".md-search__input")
    field.click()
    field.send_keys("image_folder")
    links = "return [...document.querySelectorAll('.md-search-result__link')].map((a) => a.href)"
    until(lambda: any("docs/images.html" in link for link in browser.execute_script(links)))
