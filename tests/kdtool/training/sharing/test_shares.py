"""How the images of a step are shared by processes and passes."""

from __future__ import annotations

import math

import pytest

from kdtool.errors import UsageError
from kdtool.training.sharing.shares import Pass, check_shares, even, shares, spans
from kdtool.utils import processes


@pytest.fixture
def two(monkeypatch):
    """This process as the second of two that work together, without a connection."""
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    token = processes._joined.set(True)
    yield
    processes._joined.reset(token)


def test_even_parts_are_next_to_each_other_and_the_larger_ones_come_first():
    assert even(3, 10, 3) == [(3, 6), (6, 8), (8, 10)]
    assert even(0, 2, 2) == [(0, 1), (1, 2)]


def test_one_process_takes_whole_batches():
    assert shares(10, 4, 1, 0, 1) == [[Pass(0, 4, 1.0)], [Pass(4, 8, 1.0)], [Pass(8, 10, 1.0)]]


def test_two_processes_take_parts_of_each_batch():
    assert shares(9, 8, 1, 0, 2) == [[Pass(0, 4, 0.5)], [Pass(8, 9, 0.5)]]
    assert shares(9, 8, 1, 1, 2) == [[Pass(4, 8, 0.5)], [Pass(8, 9, 0.5)]]


def test_an_uneven_batch_counts_by_its_images():
    # 5 images: 3 and 2. A mean of the means would count the last two too much.
    assert [shares(5, 5, 1, rank, 2) for rank in (0, 1)] == [[[Pass(0, 3, 0.6)]], [[Pass(3, 5, 0.4)]]]


def test_a_batch_of_few_images_is_taken_whole_by_every_process():
    # Batch-norm and losses of pairs have no meaning for one image.
    assert shares(3, 3, 1, 1, 2) == [[Pass(0, 3, 0.5)]]


def test_passes_divide_a_batch():
    assert shares(8, 8, 2, 0, 1) == [[Pass(0, 4, 0.5), Pass(4, 8, 0.5)]]
    assert shares(8, 8, 2, 1, 2) == [[Pass(2, 4, 0.25), Pass(6, 8, 0.25)]]


@pytest.mark.parametrize("images", [1, 2, 3, 5, 31, 32, 33, 63, 100])
@pytest.mark.parametrize(("count", "accumulate"), [(1, 1), (1, 4), (2, 1), (3, 2), (4, 4)])
def test_every_image_is_taken_and_the_weights_add_up_to_1(images, count, accumulate):
    of_ranks = [shares(images, 32, accumulate, rank, count) for rank in range(count)]
    taken = []
    for number, steps in enumerate(zip(*of_ranks, strict=True)):
        passes = [single for own in steps for single in own]
        assert math.isclose(sum(single.weight for single in passes), 1)
        assert len({len(own) for own in steps}) == 1, "the processes would wait for each other for ever"
        places = {place for single in passes for place in range(single.start, single.stop)}
        assert places == set(range(number * 32, min((number + 1) * 32, images)))
        sizes = [single.stop - single.start for single in passes]
        assert min(sizes) >= min(2, len(places))
        taken += places
    assert sorted(taken) == list(range(images))


def test_passes_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(UsageError, match=r"--accumulate 3: does not divide --batch-size 64"):
        check_shares(64, 3)
    with pytest.raises(UsageError, match=r"--batch-size 4 in 4 passes: a pass needs 2 images"):
        check_shares(4, 4)
    check_shares(1, 1)


def test_a_batch_smaller_than_the_processes_is_refused(two):
    with pytest.raises(UsageError, match=r"--batch-size 3: 2 processes need 4 images in each pass, 2 each"):
        check_shares(3, 1)
    with pytest.raises(UsageError, match=r"--batch-size 8 in 4 passes: 2 processes need 4 images"):
        check_shares(8, 4)
    check_shares(8, 2)


def test_processes_measure_equally_many_batches(two, monkeypatch):
    # 257 images: 129 and 128, which one process alone would measure in 2 and in 1 batch.
    assert spans(257, 128) == (129, [64, 64])
    monkeypatch.setenv("RANK", "0")
    assert spans(257, 128) == (0, [65, 64])
    assert spans(3, 128) == (0, [3]), "too few to share"


def test_one_process_measures_all():
    assert spans(257, 128) == (0, [128, 128, 1])
