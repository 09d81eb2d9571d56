"""The page: escaping, policy, self-containment."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from simcse.report import html
from simcse.report.tables import Column, Spread, Table

HOSTILE = "<script>alert('x')</script> & \"quoted\""
ESCAPED = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &#34;quoted&#34;"


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed."""

    VOID = ("meta", "img")

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], "", []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page():
    table = Table(HOSTILE, (Column(HOSTILE), Column("n", best="highest")), ((HOSTILE, 1), ("b", 2)))
    return html.page(
        HOSTILE,
        HOSTILE,
        html.section(HOSTILE, HOSTILE, html.table(table), html.code(HOSTILE)),
        html.details(HOSTILE, html.gallery(html.figure(b"png", HOSTILE, HOSTILE))),
    )


def test_all_text_is_escaped_everywhere(page):
    reader = Reader(page)
    assert "script" not in reader.tags
    assert page.count(ESCAPED) == 13
    assert ("alt", HOSTILE) in reader.attributes
    assert reader.text.count(HOSTILE) == 11


def test_page_needs_no_network_and_no_script(page):
    reader = Reader(page)
    sources = [value for name, value in reader.attributes if name in ("src", "href")]
    assert sources == ["data:image/png;base64," + base64.b64encode(b"png").decode()]
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name == "style"]
    assert "url(" not in page
    assert "@import" not in page


def test_policy_allows_exactly_the_page_style(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_plain_strings_are_paragraphs_and_markup_is_kept():
    assert html.section("a", "b < c", html.code("d\n  e")) == (
        "<section>\n<h2>a</h2>\n<p>b &lt; c</p>\n<pre><code>d\n  e</code></pre>\n</section>\n"
    )


def test_table_marks_numbers_and_best():
    columns = (Column("name"), Column("x", 1, best="highest"))
    markup = html.table(Table("t", columns, (("a", 1.0), ("b", 2.0), ("c", None))))
    assert '<th>name</th><th class="number">x</th>' in markup
    assert '<tr><td>a</td><td class="number">1.0</td></tr>' in markup
    assert '<tr><td>b</td><td class="number"><strong>2.0</strong></td></tr>' in markup
    assert '<tr><td>c</td><td class="number">–</td></tr>' in markup


def test_the_margin_of_a_best_value_is_not_marked():
    columns = (Column("name"), Column("x", 1, best="highest"))
    markup = html.table(Table("t", columns, (("a", Spread(1.0, 0.5)), ("b", 0.5))))
    assert '<td class="number"><strong>1.0</strong> <small>± 0.5</small></td>' in markup
    assert '<td class="number">0.5</td>' in markup


def test_same_content_gives_the_same_page(page):
    assert html.page("t", "a", html.code("b")) == html.page("t", "a", html.code("b"))
