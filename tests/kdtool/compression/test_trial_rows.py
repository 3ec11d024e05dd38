"""How long later trainings of a candidate take, by those that are done."""

from kdtool.compression.candidates import TEACHER, Candidate
from kdtool.compression.trial_rows import epoch_seconds, known_row, last_row, logged_seconds, row_of

TEACHER_MACS = 30e6


def row(name, epochs, seconds, *, full=False, macs=1e7):
    return {"setting": name, "epochs": epochs, "seconds": seconds, "full": full, "cost": {"macs": macs}}


HALVE, GATED = Candidate("refiners", "halve", {}), Candidate("distillers", "gated", {})


def test_the_last_training_of_a_candidate_tells_and_else_the_last_of_all():
    assert epoch_seconds([], HALVE, TEACHER_MACS) == 0.0
    assert epoch_seconds([row("depth", 2, 6.0)], HALVE, TEACHER_MACS) == 3.0
    assert epoch_seconds([row("halve", 1, 5.0), row("halve", 2, 8.0), row("depth", 2, 6.0)], HALVE, TEACHER_MACS) == 4.0


def test_what_is_not_trained_takes_no_time():
    rows = [row("depth", 2, 6.0), row("teacher int8", 0, 2.0)]
    assert epoch_seconds(rows, Candidate(TEACHER, TEACHER, {}, "int8"), TEACHER_MACS) == 0.0
    assert epoch_seconds(rows, HALVE, TEACHER_MACS) == 3.0


def test_a_search_says_little_of_the_trainings_behind_it():
    rows = [row("depth", 1, 2.0), row("halve", 1, 3.0), row("gated", 1, 25.0)]
    assert epoch_seconds(rows, GATED, TEACHER_MACS) == 3.0
    assert epoch_seconds(rows[2:], GATED, TEACHER_MACS) == 25.0
    assert epoch_seconds([*rows, row("gated", 3, 12.0)], GATED, TEACHER_MACS) == 4.0


def test_a_search_is_expected_to_take_as_long_as_training_the_teacher_does():
    rows = [row("depth", 1, 2.0, macs=5e6), row("halve", 1, 3.0, macs=1e7)]
    # By hand: two epochs of search in the teacher, three times as large, and one of training: (2 * 3 + 1) * 3 s.
    assert epoch_seconds(rows, GATED, TEACHER_MACS) == 21.0


def test_rows_are_found_by_their_training():
    rows = [row("halve", 1, 5.0), row("halve", 4, 8.0, full=True), row("depth", 1, 6.0)]
    assert last_row(rows, "halve") is rows[1]
    assert last_row(rows, "gated") is None
    assert row_of(rows, "halve", 4, full=True) is rows[1]
    assert row_of(rows, "halve", 4) is None


def test_what_is_known_of_a_candidate_is_from_its_trials():
    rows = [row("halve", 1, 5.0), row("halve", 4, 8.0, full=True)]
    assert known_row(rows, HALVE) is rows[0]
    assert known_row(rows[1:], HALVE) is None


def test_the_epochs_before_a_kill_are_counted_from_the_log(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "seconds": 2.5}\n{"epoch": 2, "seconds": 3.0}\n')
    (tmp_path / "inner" / "metrics.jsonl").write_text('{"epoch": 1, "seconds": 4.0}\n{"epoch": 2, "sec')
    assert logged_seconds(tmp_path) == 9.5
    assert logged_seconds(tmp_path / "not there") == 0.0
