import pytest

from kdtool.utils.formatting import shown_value


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("parameters", 21549642, "21,549,642"),
        ("macs", 296_000_000, "296 M"),
        ("compression", 50.0, "50.00x"),
        ("error", 0.03456, "0.0346"),
        ("seconds", 1234.56, "1,234.6"),
        ("l2", 1.5e-7, "1.5e-07"),
        ("kept", True, "yes"),
        ("split", None, ""),
    ],
)
def test_a_number_is_shown_as_a_person_reads_it(key: str, value: object, shown: str) -> None:
    assert shown_value(key, value) == shown
