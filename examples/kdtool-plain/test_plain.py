from kdtool.testing import check_source
from kdtool_plain import Plain


def test_plain():
    check_source(Plain)
