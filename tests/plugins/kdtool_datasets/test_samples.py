"""Labels of images from tables and tars: in which order their classes are."""

import pytest

from kdtool_datasets.samples import Sample, raw_data


@pytest.mark.parametrize("kind", [int, str])
def test_whole_numbers_are_in_their_order_also_as_text(tmp_path, kind):
    samples = [Sample(tmp_path / f"{number}.png", f"{number}.png", kind(number)) for number in range(11, -1, -1)]
    raw = raw_data("data", {"train": samples}, None, "data", whole=True)
    assert raw.classes == tuple(map(str, range(12)))
    assert raw.train.labels.tolist() == list(range(11, -1, -1))


def test_other_text_is_in_the_order_of_its_characters(tmp_path):
    samples = [Sample(tmp_path / f"{label}.png", label, label) for label in ("b10", "b9", "a", "10", "9")]
    assert raw_data("data", {"train": samples}, None, "data", whole=True).classes == ("10", "9", "a", "b10", "b9")
