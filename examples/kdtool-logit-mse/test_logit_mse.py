from kdtool.testing import check_distiller
from kdtool_logit_mse import LogitMSE


def test_logit_mse():
    check_distiller(LogitMSE)
