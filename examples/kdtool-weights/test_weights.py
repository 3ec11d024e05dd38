from kdtool.testing import check_exporter
from kdtool_weights import Weights


def test_weights():
    check_exporter(Weights)
