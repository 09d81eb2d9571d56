"""The page in a headless Chromium. SCREENSHOTS=folder saves pictures."""

import os
import re
from pathlib import Path

import pytest

from .conftest import SCRIPT

expect = pytest.importorskip("playwright.sync_api").expect
SIZES = {"desktop": (1200, 860), "phone": (390, 844)}


@pytest.fixture
def page(chromium, url):
    """A page that fails its test after a request to another server or a script error."""
    context = chromium.new_context()
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: (problems.append("a script ran"), dialog.dismiss()))
    page.on(
        "request",
        lambda request: request.url.startswith(url) or problems.append(f"asks {request.url}"),
    )
    page.on(
        "console",
        lambda said: said.type == "error" and problems.append(said.text),
    )
    page.goto(url)
    expect(page.locator("#index-info")).to_contain_text("44 sentences")
    yield page
    context.close()
    assert problems == []


def hits(page):
    return page.locator("#hits li")


def test_hits_appear_while_typing_and_s21_corpus_text_is_text(page):
    page.keyboard.press("/")
    page.keyboard.type(SCRIPT)
    expect(hits(page)).to_have_count(10)
    expect(hits(page).first).to_contain_text("<script>document.title='broken'</script><img src=x")
    expect(hits(page).first).to_contain_text("1.000")
    assert page.title() == "simcse"
    assert page.locator("#hits script, #hits img").count() == 0
    page.fill("#query", "The cat eats.")
    expect(hits(page).first).to_contain_text("The cat eats.")
    page.fill("#query", "")
    expect(hits(page)).to_have_count(0)


def test_the_number_of_hits_and_a_threshold(page):
    page.fill("#query", "The dog runs.")
    page.fill("#k", "3")
    expect(hits(page)).to_have_count(3)
    page.fill("#threshold", "0.9999")
    expect(hits(page)).to_have_count(1)
    expect(page.locator("#search-state")).to_contain_text("1 of 44 rows")


def test_filters_are_chosen_shown_and_removed(page):
    page.fill("#query", "The dog runs.")
    page.select_option("#field", "lang")
    page.select_option("#value", label="en")
    expect(page.locator("#filters button")).to_have_text("lang: en ×")
    expect(hits(page).filter(has_text="lang: de")).to_have_count(0)
    expect(hits(page).locator(".tag.on")).to_have_count(10)
    page.locator("#filters button").click()
    expect(page.locator("#filters li")).to_have_count(0)
    expect(hits(page).filter(has_text="lang: de")).not_to_have_count(0)
    hits(page).first.locator(".tag").first.click()  # a hit's own value becomes a filter
    expect(page.locator("#filters li")).to_have_count(1)


def test_the_keyboard_is_enough(page):
    page.keyboard.press("/")
    with page.expect_response(lambda found: '"query":"dog"' in (found.request.post_data or "")):
        page.keyboard.type("dog")  # what is typed slowly is searched letter by letter
    expect(hits(page)).to_have_count(10)
    page.keyboard.press("ArrowDown")
    expect(hits(page).first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(hits(page).nth(1)).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#query")).to_be_focused()
    page.locator("#tab-search").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#compare")).to_be_visible()
    expect(page.locator("#search")).to_be_hidden()


def test_two_sentences_and_a_list_are_compared(page):
    page.click("#tab-compare")
    page.fill("#first", "The dog runs.")
    page.fill("#second", "the dog runs.")
    expect(page.locator("#cosine")).to_have_text("Cosine 1.0000")
    page.fill("#list", f"The dog runs.\n\n{SCRIPT}\nThe cat eats.")
    expect(page.locator("#heat td")).to_have_count(9)
    expect(page.locator("#heat td").first).to_have_text("1.00")
    expect(page.locator("#heat tbody th").nth(1)).to_contain_text("<script>")


def test_the_map_is_drawn_read_zoomed_and_moved(page):
    page.click("#tab-map")
    expect(page.locator("#map-info")).to_contain_text("44 of 44 rows")
    canvas = page.locator("#map-canvas")
    size = canvas.bounding_box()
    inked = """canvas => canvas.getContext('2d')
        .getImageData(0, 0, canvas.width, canvas.height).data.some(value => value > 0)"""
    assert canvas.evaluate(inked)
    for row in range(0, int(size["height"]), 12):
        for column in range(0, int(size["width"]), 24):
            page.mouse.move(size["x"] + column, size["y"] + row)
        if page.locator("#map-text").inner_text() != "Point at a dot to read it.":
            break
    expect(page.locator("#map-text")).to_contain_text(re.compile("dog|cat|guitar"))
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    canvas.focus()
    for key in ("+", "ArrowLeft"):
        page.keyboard.press(key)
        after = canvas.evaluate("canvas => canvas.toDataURL()")
        assert after != before
        before = after
    page.mouse.wheel(0, -100)
    page.click("#zoom-all")
    assert canvas.evaluate("canvas => canvas.toDataURL()") != before


def test_models_and_routes_are_listed(page):
    page.click("#tab-models")
    expect(page.locator("#model-info")).to_contain_text("tiny: 32 dimensions")
    expect(page.locator("#alignment circle")).to_have_count(2)
    expect(page.locator("#alignment tr").nth(1)).to_have_text("1<b>one</b>0.200-2.500")
    page.click("#tab-api")
    expect(page.locator("#routes")).to_contain_text("POST /v1/search")
    expect(page.locator("#routes")).to_contain_text('"query":"someone makes music"')


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_view_fits_the_screen_in_both_schemes(chromium, url, size, scheme):
    width, height = SIZES[size]
    viewport = {"width": width, "height": height}
    context = chromium.new_context(viewport=viewport, color_scheme=scheme)
    page = context.new_page()
    page.goto(url)
    page.fill("#query", "a dog runs")
    expect(hits(page)).to_have_count(10)
    page.click("#tab-compare")
    page.fill("#list", "The dog runs.\nA cat eats.\nA man plays the guitar.\nThe woman runs.")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light == (scheme == "light")
    for name in ("search", "compare", "map", "models", "api"):
        page.click(f"#tab-{name}")
        expect(page.locator(f"#{name}")).to_be_visible()
        page.wait_for_timeout(400)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        if folder := os.environ.get("SCREENSHOTS"):
            path = Path(folder) / f"{name}-{size}-{scheme}.png"
            page.screenshot(path=path, full_page=name != "api")
    context.close()
