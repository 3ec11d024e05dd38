"""The words and the arithmetic of a forecast."""

from pathlib import Path

import pytest

from kdtool.training.foresight.forecast import Cost, Forecast, ForeseenPhase, read_forecast, write_forecast
from kdtool.training.foresight.stopwatch import Timing


def test_the_words_of_one_phase_and_of_several():
    one = Forecast([ForeseenPhase("kd", 20, 23, Cost(40, 80))], Cost(45, 90), 620_000_000, 0, 3_100_000, timed_steps=30)
    assert one.lines(Path("student.pt")) == [
        "makes student.pt by 20 epochs of 23 steps",
        "about 45 s, 620 MB of memory, 3.1 MB of disk (from 30 timed steps)",
    ]
    phases = [ForeseenPhase("search", 5, 100), ForeseenPhase("distil", 20, 100)]
    several = Forecast(phases, Cost(7200, 7200), 2_000_000_000, 5_000_000_000, 30, at_most=True, timed_steps=1)
    assert several.lines(Path("student.pt")) == [
        "makes student.pt in 2 phases of 5 to 20 epochs, 2,500 steps in all",
        "at most 2.0 h, 2 GB of memory, 5 GB of the GPU's, 30 bytes of disk (from 1 timed step)",
    ]
    assert Forecast([], Cost()).lines(Path("s.pt")) == ["makes s.pt without training"]
    assert Forecast([ForeseenPhase("kd", 0, 23)], Cost(), timed_steps=8).lines(Path("s.pt")) == [
        "makes s.pt without training (--epochs 0): its weights are those that it begins with"
    ]


def test_a_disk_that_is_too_small_is_named(tmp_path):
    forecast = Forecast([ForeseenPhase("kd", 1, 1)], Cost(), disk_bytes=5_000_000, timed_steps=2)
    assert forecast.lines(tmp_path / "s.pt", free_bytes=1_000_000)[-1] == f"note: only 1 MB are free in {tmp_path}"
    assert "free" not in forecast.lines(tmp_path / "s.pt", free_bytes=6_000_000)[-1]


def test_a_forecast_is_read_as_it_was_written(tmp_path):
    forecast = Forecast([ForeseenPhase("kd", 3, 4, Cost(1.5, 1))], Cost(2, 3), 4, 5, 6, True, 7, "why")
    write_forecast(tmp_path, forecast)
    assert read_forecast(tmp_path) == forecast
    (tmp_path / "forecast.json").write_text('{"phases": 3}')
    assert read_forecast(tmp_path) is None
    assert read_forecast(tmp_path / "none") is None


@pytest.mark.parametrize(("kept_in", "seconds"), [(0, 1000.0), (2, 680.0), (1, 640.0), (20, 1000.0)])
def test_the_time_of_a_phase(kept_in, seconds):
    # 10 epochs of 10 steps of 6 s, and of 4 s more while the frozen network runs in them; 0 s of validation.
    timing = Timing(Cost(10, 10), Cost(4, 4), Cost(), kept_in, 5, 0, 0)
    assert timing.epochs(10, 10).seconds == pytest.approx(seconds)
    with_validation = Timing(Cost(10, 10), Cost(4, 4), Cost(7, 7), kept_in, 5, 0, 0)
    assert with_validation.epochs(10, 10).seconds == pytest.approx(seconds + 70)
