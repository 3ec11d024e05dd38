"""The report in a browser: wide and narrow, light and dark, and printed. It needs playwright and a Chromium."""

import shutil

import pytest

import kdtool

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture(scope="module")
def report(teacher_path, exported_study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    student = kdtool.distill(teacher_path, method="ikd", iters=2, epochs=2, output=folder / "student.pt").path
    return kdtool.report(teacher_path, student, exported_study, output=folder / "report.html", per_class=True)


def luminance(colour):
    """Return the relative luminance of ``rgb(r, g, b)`` (WCAG 2.2)."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a, b):
    """Return the contrast of two colours, from 1 to 21 (WCAG 2.2)."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_page_can_be_read_wide_and_narrow_light_and_dark(report, tmp_path):
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        backgrounds = {}
        for width in (1280, 390):
            for scheme in ("light", "dark"):
                context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
                page = context.new_page()
                requests = []
                page.on("request", lambda request, seen=requests: seen.append(request.url))
                page.goto(report.as_uri())
                # Nothing is wider than the window; wide tables scroll by themselves.
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (width, scheme)
                assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
                colours = "e => { const s = getComputedStyle(e); return [s.color, s.fill, s.fontSize] }"
                background = page.evaluate("getComputedStyle(document.body).backgroundColor")
                for chosen in ("h2", "td", "th", "figcaption", "small", "a", "pre"):
                    colour, _, size = page.locator(chosen).first.evaluate(colours)
                    assert contrast(colour, background) >= 4.5, (chosen, scheme)
                    assert float(size.removesuffix("px")) >= 12, chosen
                _, fill, _ = page.locator("figure svg text").first.evaluate(colours)
                assert contrast(fill, background) >= 4.5, scheme
                # The text of charts is not shrunk below what can be read.
                height = page.locator("figure svg text").first.evaluate("e => e.getBoundingClientRect().height")
                assert height >= 8
                # The numbers in a confusion matrix have the colour that their cell was given, not that of the page.
                cells = page.locator('figure[aria-label^="Confusion"] svg text')
                styled = "es => es.map(e => [e.getAttribute('style'), getComputedStyle(e).fill])"
                for style, seen in cells.evaluate_all(styled):
                    for given in ("#fefefe", "#010101"):
                        if f"fill: {given}" in style:
                            assert seen == f"rgb({int(given[1:3], 16)}, {int(given[3:5], 16)}, {int(given[5:], 16)})"
                assert cells.count() > 20
                # The panels of a chart stand in the window, below each other where it is narrow.
                panels = page.locator('figure[aria-label^="test accuracy against costs"] svg')
                boxes = [panels.nth(number).bounding_box() for number in range(3)]
                assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
                assert len({round(box["y"]) for box in boxes}) == (3 if width == 390 else 1)
                backgrounds[scheme] = background
                page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
                context.close()
        assert backgrounds["light"] == "rgb(255, 255, 255)"
        assert luminance(backgrounds["dark"]) < 0.02
        page = browser.new_context(color_scheme="dark").new_page()
        page.goto(report.as_uri())
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.pdf(format="A4").startswith(b"%PDF")
        browser.close()
