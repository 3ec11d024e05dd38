from kdtool.testing import check_refiner
from kdtool_fit import Fit


def test_fit():
    check_refiner(Fit)
