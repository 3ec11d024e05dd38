import base64
import re

from kdtool.reporting.blocks import Heading, Table
from kdtool.reporting.html import STYLE, commands, facts, page, picture, render_all, table


def test_a_table_has_a_column_for_what_is_plain_and_shows_intervals():
    rows = [
        {"error": 0.25, "error_low": 0.2, "error_high": 0.3, "nested": {"a": 1}, "macs": 90_000_000, "left": 1},
        {"error": 0.5, "error_low": None, "error_high": None, "macs": None, "kept": True},
    ]

    text = table(rows, leave_out=["left"])

    assert text.count("<th") - text.count("<thead") == 3
    assert '<th class="number">error</th><th class="number">MACs</th><th>kept</th>' in text
    assert '<td class="number">0.250 ± 0.050</td>' in text
    assert '<td class="number">0.5000</td>' in text
    assert "90 M" in text


def test_nothing_that_is_told_becomes_html():
    odd = "<script>alert('x')</script>"

    text = page(odd, [facts([(odd, odd), ("empty", None)]), table([{odd: odd}]), commands([(odd, odd)])])

    assert "<script" not in text
    assert "empty" not in text


def test_no_control_character_is_in_a_page():
    odd = "a\x1b[31m\x0b\u202e"
    parts = [facts([(odd, odd)]), table([{odd: odd}]), commands([(odd, odd)]), picture(b"", odd)]
    text = page(odd, parts)
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "<pre>a?[31m??</pre>" in text
    assert "default-src 'none'" in text


def test_a_picture_of_a_run_is_an_image_so_that_nothing_in_it_runs():
    svg = b"<svg><script>alert(1)</script></svg>"

    text = picture(svg, 'drop "ratio".svg')

    assert "<script" not in text
    assert base64.b64encode(svg).decode() in text
    assert "drop &quot;ratio&quot;.svg" in text


def test_a_table_is_called_what_the_heading_above_it_says():
    rows = [{"a": 1}]
    text = "".join(render_all([Table(rows), Heading("Scores <1>"), Table(rows)]))
    assert re.findall(r'aria-label="(.*?)"', text) == ["table", "Scores &lt;1&gt;"]


def test_what_is_folded_is_printed():
    # A browser that does not know the name drops the whole rule, so that it has no other selector.
    assert re.search(
        r"@media print \{.*\}\s+details::details-content \{[^}]*content-visibility: visible", STYLE, re.DOTALL
    )
