import pytest

from kdtool.errors import UsageError
from kdtool.utils.patterns import matching

NAMES = ("conv1", "layer1.0.conv1", "layer1.1.conv1", "fc")


def test_a_pattern_chooses_the_layers_that_match_it_or_lie_in_it() -> None:
    assert matching(["layer1"], NAMES, "--skip", "net") == {"layer1.0.conv1", "layer1.1.conv1"}
    assert matching(["layer1.*.conv1", "fc"], NAMES, "--skip", "net") == {*NAMES} - {"conv1"}


def test_blanks_around_a_pattern_are_left_out() -> None:
    assert matching(["conv1", " layer1", "fc "], NAMES, "--skip", "net") == {*NAMES}


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_pattern_is_refused(empty: str) -> None:
    with pytest.raises(UsageError, match=r"^--only: a pattern is empty; write names with commas between them"):
        matching(["conv1", empty], NAMES, "--only", "net")
