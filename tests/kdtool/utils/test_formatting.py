import pytest

from kdtool.utils.formatting import (
    markdown_code,
    markdown_text,
    printable,
    printable_lines,
    shown_interval,
    shown_value,
)


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("parameters", 21549642, "21,549,642"),
        ("macs", 296_000_000, "296 M"),
        ("macs", 999_600_000, "1,000 M"),
        ("macs", 417_000, "0.417 M"),
        ("compression", 50.0, "50.00x"),
        ("latency_ratio", 0.004, "0.004x"),
        ("latency_ratio", 0.0567, "0.06x"),
        ("latency_ms", 0.12345, "0.123"),
        ("latency_ms", 1234.5, "1,234"),
        ("error", 0.03456, "0.0346"),
        ("seconds", 1234.56, "1,234.6"),
        ("l2", 1.5e-7, "1.5e-07"),
        ("loss", 1e300, "1e+300"),
        ("parameters", 2e300, "2e+300"),
        ("loss", 123456.7, "123,457"),
        ("kept", True, "yes"),
        ("split", None, ""),
    ],
)
def test_a_number_is_shown_as_a_person_reads_it(key: str, value: object, shown: str) -> None:
    assert shown_value(key, value) == shown


def test_the_half_of_an_interval_is_never_shown_as_zero():
    assert shown_interval("accuracy", 0.5, 0.48, 0.52) == "0.500 ± 0.020"
    assert shown_interval("accuracy", 0.5, 0.499998, 0.500002) == "0.500000 ± 0.000002"
    assert shown_interval("accuracy", 0.5, 0.5 - 3e-8, 0.5 + 3e-8) == "0.5 ± 3e-08"
    assert shown_interval("loss", 2e300, 1e300, 3e300) == "2e+300 ± 1e+300"


def test_control_characters_do_not_reach_the_terminal():
    assert printable("a\x1b[2J\x07\u202e\nb", 6) == "a?[2J?"
    assert printable_lines("a\x1b[2J\nb\u202ec\td") == "a?[2J\nb?c?d"
    assert printable_lines("x" * 5000) == "x" * 4000
    assert printable_lines("x" * 5000, None) == "x" * 5000
    # The byte of a file name that is no UTF-8 goes through a pipe as it is.
    assert printable_lines("caf\udce9.pt\x1b") == "caf\udce9.pt?"
    assert shown_value("class", "\x1b]0;title\x07" + "x" * 1000) == "?]0;title?" + "x" * 390


def test_markdown_shows_a_text_as_it_is():
    assert markdown_text("<script>\x1b[31m\n# a_b|c") == r"\<script\>?\[31m?\# a\_b\|c"
    assert markdown_code("a\n````\n\x1b", "console") == "`````console\na\n````\n?\n`````"
