"""Options of a training that follow from others."""

import pytest

from kdtool import UsageError
from kdtool.training.options import Training


@pytest.mark.parametrize(("epochs", "views"), [(0, 2), (6, 2), (20, 5), (30, 7), (100, 8)])
def test_the_views_that_recur_follow_from_the_epochs(epochs, views):
    assert Training(epochs=epochs).recurring_views == views
    assert Training(epochs=epochs, views=3).recurring_views == 3
    assert Training(epochs=epochs, views=0).recurring_views == 0


def test_a_cache_is_refused_where_no_image_recurs():
    for name, value in (("cutmix", 1.0), ("sampling", "balanced")):
        with pytest.raises(UsageError, match=f"^--cache on: with --{name} .*; leave --cache on out$"):
            Training(cache="on", **{name: value})
    assert Training(cache="on", views=0).cache == "on"  # images that are not augmented recur
