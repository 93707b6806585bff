"""The page of a report in a real browser: order, filter, enlarging, narrow screens."""

import importlib.util
from pathlib import Path

import pytest
from browser import QUIET, browser_path
from PIL import Image

from ofa.io.image_grid import as_field
from ofa.report.page import ANSWERS, Item, Report, Table, write_report

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser is driven by playwright, which is not installed"
)
SCORES = [0.5, 1.0, 0.0]
IMAGE = as_field(Image.new("RGB", (40, 40), "red"))


@pytest.fixture(scope="module")
def browser():
    path = browser_path()
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=list(QUIET))
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    items = [
        Item(f"question {row}", "yes", image=IMAGE, id=f"id{row}", row=row, scores=[score])
        for row, score in enumerate(SCORES)
    ]
    wide = Table("t", [str(number) for number in range(40)], [["100"] * 40])
    parts = {"score_names": ["score"], "grading": ANSWERS, "tables": [wide]}
    write_report(path, Report("A title", "A subtitle", items=items, **parts))
    return path.as_uri()


@pytest.fixture
def tab(browser, address):
    """The page; an error in it fails the test."""
    errors = []
    page = browser.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    yield page
    page.close()
    assert not errors


def ids(tab) -> list[str]:
    """Of the cards that are shown."""
    return tab.locator(".card:visible .id").all_inner_texts()


def test_the_worst_comes_first_and_the_order_can_be_chosen(tab):
    assert ids(tab) == ["id2", "id0", "id1"]
    tab.select_option("#order", label="best score first")
    assert ids(tab) == ["id1", "id0", "id2"]


def test_a_filter_that_nothing_matches_says_so_and_can_be_undone(tab):
    tab.fill("#filter", "question 1")
    assert ids(tab) == ["id1"] and not tab.get_by_text("Nothing matches").is_visible()
    tab.select_option("#grade", label="only wrong (1)")
    assert ids(tab) == [] and tab.get_by_text("Nothing matches").is_visible()
    tab.get_by_role("button", name="Show all").click()
    assert len(ids(tab)) == 3 and not tab.get_by_text("Nothing matches").is_visible()


def test_an_image_is_enlarged_with_its_text_until_it_is_clicked_again(tab):
    small = tab.locator(".card img").first.bounding_box()["width"]
    tab.locator(".card .frame").first.click()
    assert tab.locator("dialog img").bounding_box()["width"] > 2 * small
    assert "question 2" in tab.locator("dialog").inner_text()
    tab.locator("dialog .frame").click()
    assert not tab.locator("dialog").is_visible()


def test_nothing_is_wider_than_a_phone(tab):
    tab.set_viewport_size({"width": 400, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    assert tab.locator(".controls").evaluate("part => getComputedStyle(part).position") == "static"


@pytest.fixture(scope="module")
def long_address(tmp_path_factory):
    """150 rows with the scores 149, 148, ... 0: the worst is the last row."""
    path = tmp_path_factory.mktemp("long") / "page.html"
    items = [
        Item("", "yes", image=IMAGE, id=f"id{row}", row=row, scores=[149 - row])
        for row in range(150)
    ]
    write_report(path, Report("A title", "", items=items, score_names=["score"]))
    return path.as_uri()


@pytest.fixture
def long_tab(tab, long_address):
    tab.goto(long_address)
    return tab


def test_many_rows_come_in_pages_from_the_worst_on(long_tab):
    count, next_page = long_tab.locator("#count"), long_tab.get_by_role("button", name="Next page")
    assert (len(ids(long_tab)), ids(long_tab)[0]) == (60, "id149")
    assert count.inner_text() == "1 to 60 of 150 images"
    assert long_tab.get_by_role("button", name="Previous page").is_disabled()
    next_page.click()
    next_page.click()
    assert (len(ids(long_tab)), ids(long_tab)[-1]) == (30, "id0") and next_page.is_disabled()
    assert count.inner_text() == "121 to 150 of 150 images"
    long_tab.select_option("#order", label="best score first")  # from its first page
    assert (len(ids(long_tab)), ids(long_tab)[0]) == (60, "id0")


def test_a_filter_looks_at_the_rows_of_all_pages(long_tab):
    long_tab.fill("#filter", "id7")
    assert ids(long_tab) == [f"id{row}" for row in range(79, 69, -1)] + ["id7"]
    assert not long_tab.locator(".pages").is_visible()
    long_tab.fill("#filter", "id1")  # 1, 10 to 19, 100 to 149
    assert long_tab.locator("#count").inner_text() == "1 to 60 of 61 that match, of 150 images"


def test_pages_are_turned_by_keys_unless_they_move_in_a_text(long_tab):
    long_tab.keyboard.press("ArrowRight")
    assert ids(long_tab)[0] == "id89"
    long_tab.keyboard.press("ArrowLeft")
    assert ids(long_tab)[0] == "id149"
    long_tab.locator("#filter").focus()
    long_tab.keyboard.press("ArrowRight")
    assert ids(long_tab)[0] == "id149"


def test_a_page_is_turned_with_a_thumb_and_begins_at_its_top(long_tab):
    long_tab.set_viewport_size({"width": 400, "height": 800})
    button = long_tab.get_by_role("button", name="Next page")
    button.scroll_into_view_if_needed()
    size = button.bounding_box()
    assert size["width"] >= 44 and size["height"] >= 44
    button.click()
    assert long_tab.locator("#filter").bounding_box()["y"] < 400
    assert long_tab.evaluate("document.documentElement.scrollWidth") <= 400


def test_screenshots_for_the_readme_are_made_of_the_pages_of_a_run(browser, tmp_path):
    path = Path(__file__).resolve().parents[2] / "docs/images/make.py"
    spec = importlib.util.spec_from_file_location("make_screenshots", path)
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    (tmp_path / "pages").mkdir()
    for name in ("captions", "boxes"):
        items = [
            Item("", "yes", image=IMAGE, id=f"id{row}", row=row, scores=[row]) for row in (0, 1)
        ]
        page = Report(f"Title of {name}", "", items=items, score_names=["score"])
        write_report(tmp_path / f"pages/{name}.html", page)
    make.shoot_pages(browser, tmp_path, tmp_path).close()
    for name, size in (("report.png", (1100, 700)), ("boxes.png", (1100, 560))):
        image = Image.open(tmp_path / name)
        assert image.size == size and 3 < len(image.getcolors(256)) <= make.COLORS


def test_everything_can_be_read_without_scripts(browser, address):
    page = browser.new_page(java_script_enabled=False)
    page.goto(address)
    assert page.locator(".card").count() == 3 and page.get_by_text("question 1").is_visible()
    page.close()
