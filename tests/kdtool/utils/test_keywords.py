"""Arguments as text are plain values, never code."""

import pytest

from kdtool import UsageError
from kdtool.utils import as_keywords, read_keywords


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("width=32", {"width": 32}),
        ("width=32,depths=(2,2),act=relu", {"width": 32, "depths": (2, 2), "act": "relu"}),
        ("depths=2,2,bias=False", {"depths": (2, 2), "bias": False}),
        ("drop-rate=1e-3, name='a, b'", {"drop_rate": 1e-3, "name": "a, b"}),
        ("norm=None,path=a/b.pth", {"norm": None, "path": "a/b.pth"}),
        ("x=__import__('os').system('true')", {"x": "__import__('os').system('true')"}),
        ("x=1e999", {"x": "1e999"}),
        ("x=" + "(" * 5000, {"x": "(" * 5000}),
    ],
)
def test_values(text, values):
    assert read_keywords(text) == values
    assert read_keywords(as_keywords(values)) == values


@pytest.mark.parametrize("text", ["width", "=3", "1=2", "a b=3", "x=1" + "0" * 10_000])
def test_what_is_no_assignment_is_refused(text):
    with pytest.raises(UsageError, match=r"is not of the form option=value|more than 10,000 characters"):
        read_keywords(text)
