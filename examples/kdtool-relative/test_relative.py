from kdtool.testing import check_pruner
from kdtool_relative import Relative


def test_relative():
    check_pruner(Relative)
