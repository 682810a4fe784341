"""What strangers write is text in the viewer, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Error, Page

from tests.gateway.conftest import Stack
from tests.security.raw import PATIENCE_S

RUN = "window.run = true"
PROMPTS = [
    f'<img src=x onerror="{RUN}">',
    f"<script>{RUN}</script>",
    f'"\'><svg/onload="{RUN}">',
    f"javascript:{RUN}",
    f"</title><script>{RUN}</script>",
    "{{constructor.constructor('window.run = true')()}}",
    "\u202ereversed\u0000 [link](javascript:1)",
]


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.set_default_timeout(1000 * PATIENCE_S)
    yield page
    page.close()


def test_prompt_is_text_wherever_it_is_shown(stack: Stack, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: asked.append(f"dialog {dialog.message}"))
    with stack.client() as client:
        for number, prompt in enumerate(PROMPTS):
            wish = {"world": "planet", "seed": 900 + number, "prompt": prompt}
            made = client.post("/canvases", json=wish)
            assert made.status_code == 201, made.text
        secret = client.cookies["handscroll_owner"]
    page.context.add_cookies([{"name": "handscroll_owner", "value": secret, "url": stack.url}])
    page.goto(stack.url)
    page.wait_for_selector("#worlds label", state="attached")
    page.eval_on_selector("#seal", "seal => seal.click()")  # the picture may lie over it
    page.wait_for_function(
        "(count) => document.querySelectorAll('#own li').length === count", arg=len(PROMPTS)
    )
    shown = page.eval_on_selector_all("#own .name", "all => all.map(one => one.textContent)")
    assert sorted(shown) == sorted(PROMPTS)
    for number, prompt in enumerate(shown):
        row = page.locator("#own li").nth(number)
        told = row.locator("button").first.get_attribute("aria-label")
        assert told == f"Delete {prompt}"
        href = row.locator("a").first.get_attribute("href")
        page.evaluate("(hash) => { location.hash = hash; }", href)
        page.wait_for_function(
            "(told) => document.getElementById('title').textContent === told", arg=prompt
        )
    for odd in ("#<img src=x onerror=run=1>", f"#javascript:{RUN}", "#" + "0" * 64 + "/1/<b>/2"):
        page.evaluate("(hash) => { location.hash = hash; }", odd)
        page.wait_for_selector("#lost:not([hidden])")
    assert page.evaluate("window.run") is None
    assert not page.query_selector_all("img[src=x], svg[onload], #panel script, #own b")
    assert not [
        url for url in asked if not url.startswith((stack.url, f"blob:{stack.url}", "data:"))
    ]


def test_page_runs_no_script_that_is_not_ours(stack: Stack, page: Page) -> None:
    """Should text ever get into the page as more than text, the policy stops it."""
    page.goto(stack.url)
    page.evaluate(
        """() => {
            const broken = document.createElement("div");
            broken.innerHTML = '<img src=x onerror="window.run = true">';
            const inline = document.createElement("script");
            inline.textContent = "window.run = true";
            const foreign = document.createElement("script");
            foreign.src = "data:text/javascript,window.run = true";
            document.body.append(broken, inline, foreign);
        }"""
    )
    with pytest.raises(Error, match="Content Security Policy|CSP|unsafe-eval"):
        page.add_script_tag(content="window.run = true")
    page.wait_for_timeout(500)
    assert page.evaluate("window.run") is None
