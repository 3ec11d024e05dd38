"""How long candidates and the winner train within a number of hours."""

import pytest

from kdtool import UsageError
from kdtool.compression.candidates import Candidate
from kdtool.compression.epoch_times import Times
from kdtool.compression.schedule import Schedule, paced, plan
from kdtool.training.options import Training

CANDIDATES = [Candidate("refiners", f"r{number}", {}) for number in range(8)]
TIMES = Times({candidate.name: 10.0 for candidate in CANDIDATES}, teacher=5.0)


def planned(hours=None, *, epochs=20, given=False, spent=0.0, candidates=CANDIDATES, times=TIMES, steps=10):
    return plan(candidates, times, Training(epochs=epochs), hours=hours, spent=spent, given=given, steps=steps)


def test_epochs_without_hours_are_those_of_the_winner_and_about_as_many_for_trials():
    schedule = planned(epochs=24)
    assert schedule.epochs == 24
    assert schedule.lengths == (1, 2, 4)
    # By hand: 8 * 1 + 4 * 2 + 2 * 4 epochs of 10 s, the winner's 24, and the teacher on 6 views of each image.
    assert schedule.seconds == pytest.approx(240 + 240 + 6 * 5)
    assert schedule.deadline is None


@pytest.mark.parametrize("hours", [0.2, 0.5, 1.0])
def test_hours_bound_everything(hours):
    schedule = planned(hours, spent=60.0)
    assert schedule.seconds <= 0.9 * (hours * 3600 - 60)
    longer = planned(hours * 1.5, spent=60.0)
    assert longer.epochs > schedule.epochs
    assert schedule.deadline == pytest.approx(0.55 * 0.9 * (hours * 3600 - 60))


def test_the_winner_trains_for_what_is_left():
    assert planned(0.5, spent=60.0).seconds == pytest.approx(0.9 * (0.5 * 3600 - 60))
    # Given epochs are all that it trains for.
    given = planned(5.0, epochs=12, given=True)
    assert given.seconds == planned(epochs=12).seconds


def test_a_search_costs_trainings_of_the_teacher_and_the_winner_is_trained_as_the_others():
    searched = Candidate("distillers", "gated", {})
    # By hand: two epochs in which the teacher learns, three times its forward pass each, and one of a student.
    assert TIMES.of(searched) == 2 * 3 * 5 + 10
    assert TIMES.longest([*CANDIDATES, searched]) == 10
    assert TIMES.longest([searched]) == 40


def test_with_hours_trials_take_as_long_by_the_clock():
    times = Times({"r0": 10.0, "r1": 4.0, "r2": 1.0, "r3": 8.0}, teacher=5.0)
    searched = Candidate("distillers", "gated", {})
    schedule = planned(0.5, candidates=[*CANDIDATES[:4], searched], times=times)
    assert schedule.paces == {"r0": 1.0, "r1": 2.5, "r2": 4.0, "r3": 1.25}
    assert [paced(2, schedule.paces, name) for name in ("r0", "r1", "r2", "r3", "gated")] == [2, 5, 8, 2, 2]
    # By hand: 99 s are planned. Of 4 epochs and two candidates, one round of 2 epochs of 10 s and of 5 of 4 s, the
    # winner's 4 epochs of the slowest, and two views for the teacher: 90 s; of 5 epochs it would be 100 s.
    short = planned(110 / 3600, candidates=CANDIDATES[:2], times=times)
    assert (short.epochs, short.lengths) == (4, (2,))
    assert short.deadline == pytest.approx(0.55 * 0.9 * 110)
    assert planned(0.5, epochs=4, given=True).paces == {}
    assert planned(epochs=4).paces == {}


def test_with_little_time_fewer_candidates_train():
    schedule = planned(150 / 3600)
    assert 1 <= len(schedule.names) < 8
    assert schedule.names == tuple(candidate.name for candidate in CANDIDATES[: len(schedule.names)])


def test_with_little_time_trials_have_a_part_of_the_images():
    # By hand: 135 s are planned, 74 of them for trials; eight epochs of 10 s are too long. Of half the images they take
    # 40 s, where 40.5 may be taken.
    # The winner's 4 epochs are 8 of half the images, for which trials have one length; with 5 there would be two.
    schedule = planned(150 / 3600, steps=800)
    assert (len(schedule.names), schedule.part, schedule.lengths, schedule.epochs) == (8, 0.5, (1,), 4)
    assert planned(75 / 3600, steps=800).part == 0.25
    assert planned(75 / 3600, steps=100).part == 0.5  # a quarter would be 25 steps: fewer candidates train instead
    assert len(planned(75 / 3600, steps=100).names) < 8
    assert planned(1.0, steps=800).part == 1


def test_given_epochs_limit_what_hours_allow():
    assert planned(5.0, epochs=12, given=True).epochs == 12
    assert planned(5.0, epochs=12).epochs > 12


def test_too_little_time_is_refused_with_what_it_takes():
    with pytest.raises(UsageError, match=r"--hours 0.001: an epoch of the smallest plan takes about 15 s"):
        planned(0.001)


def test_one_candidate_needs_no_trials():
    schedule = planned(epochs=10, candidates=CANDIDATES[:1])
    assert schedule.lengths == ()
    assert schedule.seconds == pytest.approx(10 * 10 + 2 * 5)


def test_a_schedule_is_plain_data():
    schedule = planned(1.0)
    assert Schedule.from_data(schedule.as_data()) == schedule
