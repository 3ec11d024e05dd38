"""Losses of accuracy are read as points or fractions."""

import pytest

from kdtool.errors import UsageError
from kdtool.plugins.points import Points


@pytest.mark.parametrize(
    ("text", "fraction"), [("1%", 0.01), ("0.5%", 0.005), ("0.01", 0.01), ("0", 0.0), (".25", 0.25), ("100%", 1.0)]
)
def test_points_and_fractions(text, fraction):
    assert Points.parse(text).fraction == pytest.approx(fraction)
    assert Points.parse(str(Points.parse(text))) == Points.parse(text)


@pytest.mark.parametrize("text", ["1", "2", "101%", "-1%", "%", "one", "", "1e-2"])
def test_what_is_ambiguous_or_no_number_is_refused(text):
    with pytest.raises(UsageError, match="write points, such as 1%$"):
        Points.parse(text)
