from kdtool.testing import check_dataset
from kdtool_stripes import Stripes


def test_stripes():
    check_dataset(Stripes)
