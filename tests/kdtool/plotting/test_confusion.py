import re

import numpy as np
import pytest

from kdtool.plotting.confusion import confusion_svg


@pytest.mark.parametrize(("count", "size"), [(7, 6), (98_765, 4.4)])
def test_the_numbers_of_cells_beside_each_other_do_not_touch(count, size):
    classes = 60
    svg = confusion_svg(np.diag(np.full(classes, count)), [f"class {number}" for number in range(classes)], "t")
    found = re.findall(rf"font(?:-size)?: ([\d.]+)px[^>]*>{count}</text>", svg)
    assert [float(shown) for shown in found] == pytest.approx([size] * classes, abs=0.1)
