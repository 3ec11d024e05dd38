"""The log of a run's epochs, which a kill may have cut anywhere."""

import json

import pytest

from kdtool import Error
from kdtool.training.phase import LOG, Phase, count_epochs, read_epochs

ROWS = [{"phase": "a", "epoch": 1, "loss": 0.5}, {"phase": "b", "epoch": 1, "loss": 0.25}]


def logged(directory, tail=""):
    (directory / LOG).write_text("".join(json.dumps(row) + "\n" for row in ROWS) + tail)
    return directory


def test_a_log_is_read_without_the_line_that_a_kill_cut(tmp_path):
    assert read_epochs(tmp_path) == []
    assert read_epochs(logged(tmp_path)) == ROWS
    assert read_epochs(logged(tmp_path, '{"phase": "b", "epo')) == ROWS
    # Python reads no number of so many digits.
    assert read_epochs(logged(tmp_path, f'{{"phase": "b", "epoch": {"1" * 5000}}}')) == ROWS


def test_what_is_no_epoch_is_said_in_one_line(tmp_path):
    with pytest.raises(Error, match=r"metrics\.jsonl: is damaged: '\[1\]' is not the metrics of an epoch"):
        read_epochs(logged(tmp_path, "[1]\n"))


def test_the_epochs_of_a_run_are_counted_apart_from_those_of_runs_inside_it(tmp_path):
    assert count_epochs(tmp_path) == {"trained_epochs": 0}
    trial = tmp_path / "phases" / "search-a"
    (trial / "phases" / "b").mkdir(parents=True)
    logged(tmp_path, '{"phase": "b", "epo')
    assert count_epochs(tmp_path) == {"trained_epochs": 2}
    logged(trial)
    logged(trial / "phases" / "b")
    assert count_epochs(tmp_path) == {"trained_epochs": 2, "trial_epochs": 4}
    # The result of a compression is that of one of them.
    assert count_epochs(tmp_path, trial) == {"trained_epochs": 2, "trial_epochs": 4}
    assert count_epochs(tmp_path, tmp_path / "phases" / "untrained") == {"trained_epochs": 0, "trial_epochs": 6}
    logged(trial, "[1]\n")
    assert count_epochs(tmp_path) == {}


def test_a_resumed_phase_forgets_its_own_epochs_after_the_saved_one_alone(tmp_path):
    rows = [{"phase": name, "epoch": epoch, "loss": 0.5} for name in ("a", "b") for epoch in (1, 2, 3)]
    (tmp_path / LOG).write_text("".join(json.dumps(row) + "\n" for row in rows))
    phase = Phase(tmp_path, "b", "key", lambda row: None)
    phase.save(lambda: {"state": {"epoch": 2}})
    assert phase.load()["state"] == {"epoch": 2}
    assert read_epochs(tmp_path) == rows[:5]
