from kdtool.testing import check_tracker
from kdtool_lines import Lines


def test_lines():
    check_tracker(Lines)
