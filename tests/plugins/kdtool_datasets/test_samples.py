"""Labels of images from tables and tars: in which order their classes are."""

from pathlib import Path

import pytest

from kdtool.errors import Error
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


def of(*labels):
    return {"train": [Sample(Path(f"{number}.png"), f"{number}.png", label) for number, label in enumerate(labels)]}


def test_whole_numbers_with_a_point_are_in_their_order():
    """Pandas writes the numbers of a column so in which one is missing."""
    assert raw_data("data", of("10.0", "2.0", "1.0"), None, "data", whole=True).classes == ("1.0", "2.0", "10.0")


@pytest.mark.parametrize("nothing", ["NaN", "nan", "None", "null", "<NA>"])
def test_no_label_written_as_text_is_no_class_among_numbers(nothing):
    for labels in (("0", "1.0", nothing), (0, 1, nothing)):
        with pytest.raises(Error, match=r"1 of 3 images of the train split has no label \(such as 2.png\); remove it"):
            raw_data("data", of(*labels), None, "data", whole=True)
    assert nothing in raw_data("data", of("cat", "dog", nothing), None, "data", whole=True).classes


def test_a_class_below_zero_is_said():
    for labels in (("-1", "0", "1"), (-1, 0, 1)):
        (note,) = raw_data("data", of(*labels), None, "data", whole=True).notes
        assert note == "-1 is a class, the first one; if it stands for no label, remove its images"
    assert raw_data("data", of("-2", "-1"), None, "data", whole=True).notes == ()
