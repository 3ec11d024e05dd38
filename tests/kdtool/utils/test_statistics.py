import numpy as np
import pytest
import scipy.stats

from kdtool.utils.statistics import calibration_error, mcnemar, mean_interval, wilson


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (1, 20), (17, 20), (20, 20), (9841, 10_000)])
def test_wilson_is_scipys(successes, trials):
    expected = scipy.stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 5), (3, 3), (7, 17), (12, 12)])
def test_few_discordant_pairs_are_tested_exactly(first, second):
    result = mcnemar(first, second)
    expected = scipy.stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert result["p"] == pytest.approx(expected)
    assert (result["test"], result["statistic"]) == ("exact", None)


@pytest.mark.parametrize(("first", "second"), [(5, 20), (30, 30), (59, 121), (0, 400)])
def test_many_discordant_pairs_are_tested_by_chi_square(first, second):
    result = mcnemar(first, second)
    assert result["test"] == "chi-square"
    assert result["p"] == pytest.approx(scipy.stats.chi2.sf(result["statistic"], 1))


def test_the_example_of_textbooks():
    # 59 and 121 discordant pairs: (|59 - 121| - 1)^2 / 180.
    assert mcnemar(59, 121)["statistic"] == pytest.approx(20.672, abs=1e-3)
    assert mcnemar(121, 59) == mcnemar(59, 121)


def test_the_mean_of_seeds_by_hand():
    # Mean 3, deviation sqrt(2.5), t(0.975, 4) = 2.7764.
    mean, low, high = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3
    assert high - 3 == pytest.approx(2.7764 * (2.5 / 5) ** 0.5, rel=1e-4)
    assert low == pytest.approx(6 - high)
    assert mean_interval([1.0]) is None


def test_calibration_by_hand():
    # Four images at 0.9, of which two are correct, and one correct at 0.5: (4 * 0.4 + 1 * 0.5) / 5.
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.5])
    correct = np.array([True, True, False, False, True])
    assert calibration_error(confidence, correct) == pytest.approx((4 * 0.4 + 0.5) / 5)
    assert calibration_error(np.ones(3), np.ones(3, dtype=bool)) == 0


def test_a_confidence_on_a_border_is_in_the_lower_bin():
    # With two bins, 0.5 and 0.4 share one: |(1 - 0.5) + (0 - 0.4)| / 2. In different bins the result would be 0.45.
    assert calibration_error(np.array([0.5, 0.4]), np.array([True, False]), bins=2) == pytest.approx(0.05)
