"""Convolutions of small maps: which weights meet the image. The products of matrices: test_fast_convolutions.py."""

import pytest

from kdtool.training.optimization.small_maps import part_that_meets


@pytest.mark.parametrize(
    ("size", "kernel", "padding", "stride", "dilation", "part"),
    [
        (1, 3, 1, 1, 1, (slice(1, 2), 0)),  # the middle of three
        (2, 3, 1, 2, 1, (slice(1, 3), 0)),  # one output, which begins in the padding
        (2, 3, 1, 1, 1, None),  # the first output meets the last two, the second one the first two
        (2, 5, 2, 1, 1, (slice(1, 4), 1)),
        (1, 7, 3, 2, 1, (slice(3, 4), 0)),
        (2, 3, 2, 1, 2, (slice(1, 2), 0)),  # with gaps of one, the outer two fall outside of two pixels
        (8, 3, 1, 1, 1, None),
        (4, 1, 2, 1, 1, None),  # one weight, which meets padding in some outputs and the image in others
    ],
)
def test_the_part_that_meets_the_image_by_hand(size, kernel, padding, stride, dilation, part):
    assert part_that_meets(size, kernel, padding, stride, dilation) == part
