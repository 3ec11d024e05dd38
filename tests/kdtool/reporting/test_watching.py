"""How far another process is, from what it has written."""

import fcntl
import json
import multiprocessing
import os
import time

import filelock
import pytest
from click.testing import CliRunner

import kdtool
from kdtool.cli.commands import watch as command
from kdtool.cli.main import cli
from kdtool.study.record import FORMAT
from kdtool.training.foresight.forecast import Cost, Forecast, ForeseenPhase, write_forecast


def begin(directory, *, finished=False, epochs=10):
    directory.mkdir()
    (directory / "run.json").write_text(json.dumps({"training": {"epochs": epochs}, "finished": finished}))


def log(directory, phase, *epochs, seconds=2.0):
    with open(directory / "metrics.jsonl", "a") as lines:
        for epoch in epochs:
            row = {"phase": phase, "epoch": epoch, "loss": 1.0, "val_accuracy": 0.5 + epoch / 100, "seconds": seconds}
            lines.write(json.dumps(row) + "\n")


def test_the_time_left_follows_the_phases_that_were_foreseen(tmp_path):
    directory = tmp_path / "student.run"
    begin(directory)
    # The first phase was foreseen as 10 s and took 20 s; so the 30 s of the second one will take 60 s, and the 5 s of
    # the measurements after it are as foreseen.
    phases = [ForeseenPhase("first", 10, 5, Cost(10, 10)), ForeseenPhase("second", 10, 5, Cost(30, 30))]
    write_forecast(directory, Forecast(phases, Cost(45, 45)))
    log(directory, "first", *range(1, 11))

    with filelock.FileLock(directory / "lock"):
        state = kdtool.watch(directory)

    assert state["state"] == "running"
    assert (state["phase"], state["epoch"], state["epochs"], state["phases"]) == ("first", 10, 10, 2)
    assert state["best_accuracy"] == pytest.approx(0.6)
    assert state["fraction"] == pytest.approx(10 / 45)
    assert state["seconds_left"] == pytest.approx(65)

    log(directory, "second", 1, 2, 3, 4, 5, seconds=6.0)
    state = kdtool.watch(directory)
    # 25 s of the forecast took 50 s.
    assert (state["state"], state["epoch"], state["seconds_left"]) == ("stopped", 5, pytest.approx(15 * 2 + 5))
    assert command.lines(state) == [
        "student.run: stopped, second epoch 5/10, validation accuracy 0.55, best 0.55, about 35 s left"
    ]


def test_a_run_of_an_earlier_release_has_no_forecast(tmp_path):
    begin(tmp_path / "s.run", epochs=8)
    log(tmp_path / "s.run", "kd", 1, 2)
    state = kdtool.watch(tmp_path / "s.pt")
    assert (state["epochs"], state["seconds_left"], state["fraction"]) == (8, 12.0, None)


def test_the_best_of_a_phase_is_not_that_of_a_trial(tmp_path):
    trial = tmp_path / "s.run" / "phases" / "search"
    begin(tmp_path / "s.run")
    trial.mkdir(parents=True)
    log(trial, "kd", 30, seconds=90.0)
    os.utime(trial / "metrics.jsonl", (1, 1))
    log(tmp_path / "s.run", "kd", 1)
    state = kdtool.watch(tmp_path / "s.run")
    assert (state["epoch"], state["best_accuracy"], state["seconds_left"]) == (1, 0.51, 9 * 2)


def test_a_finished_run_and_one_that_has_just_begun(tmp_path):
    begin(tmp_path / "a.run", finished=True)
    log(tmp_path / "a.run", "kd", 1)
    assert kdtool.watch(tmp_path / "a.run") | {"state": "finished", "fraction": 1.0} == kdtool.watch(tmp_path / "a.run")
    begin(tmp_path / "b.run")
    assert command.lines(kdtool.watch(tmp_path / "b.run")) == ["b.run: stopped"]


def test_a_line_that_is_being_written_is_no_error(tmp_path):
    begin(tmp_path / "s.run")
    log(tmp_path / "s.run", "kd", 1)
    with open(tmp_path / "s.run" / "metrics.jsonl", "a") as lines:
        lines.write('{"phase": "kd", "epo')
    assert kdtool.watch(tmp_path / "s.run")["epoch"] == 1


def test_a_study_has_its_commands(tmp_path):
    study = tmp_path / "r.study"
    study.mkdir()
    statuses = {"teacher": "done", "kd_seed=0": "failed", "kd_seed=1": "begun"}
    commands = {name: {"status": status} for name, status in statuses.items()}
    (study / "study.json").write_text(json.dumps({"format": FORMAT, "commands": commands, "comparisons": {}}))
    begin(study / "kd_seed=1.run")
    log(study / "kd_seed=1.run", "kd", 1)
    with filelock.FileLock(study / "lock"):
        state = kdtool.watch(study)
    assert (state["state"], state["done"], state["failed"]) == ("running", ["teacher"], ["kd_seed=0"])
    assert command.lines(state)[0] == "r.study: running, 1 done, 1 failed, 1 begun"
    assert command.lines(state)[1].startswith("  kd_seed=1.run: stopped, kd epoch 1/10, validation accuracy 0.51")


def test_a_study_counts_the_commands_of_its_recipe_alone(tmp_path):
    statuses = {"teacher": "done", "kd": "failed", "half": "begun", "before": "begun", "older": "done"}
    commands = {name: {"status": status} for name, status in statuses.items()}
    (tmp_path / "study.json").write_text(json.dumps({"format": FORMAT, "commands": commands, "comparisons": {}}))
    rows = {"rows": [{"name": "teacher", "step": "teacher", "values": {}}], "failed": [{"name": "kd"}]}
    results = {**rows, **{key: [] for key in ("means", "comparisons", "comparison_means")}, "not_run": ["half"]}
    (tmp_path / "results.json").write_text(json.dumps(results))
    state = kdtool.watch(tmp_path)
    keys = ("state", "planned", "done", "failed", "begun")
    assert [state[key] for key in keys] == ["stopped", 3, ["teacher"], ["kd"], ["half"]]
    (tmp_path / "results.json").write_text(json.dumps(results | {"not_run": []}))
    assert kdtool.watch(tmp_path)["state"] == "finished"
    (tmp_path / "results.json").write_text("{")
    state = kdtool.watch(tmp_path)
    assert (state["planned"], state["begun"]) == (None, ["half", "before"])


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(kdtool.UsageError, match="there is no such run"):
        kdtool.watch(tmp_path / "none.run")
    with pytest.raises(kdtool.UsageError, match="is not the directory of a run or a study"):
        kdtool.watch(tmp_path)
    begin(tmp_path / "s.run")
    (tmp_path / "s.run" / "run.json").write_text("{")
    with pytest.raises(kdtool.UsageError, match=r"run\.json: is damaged"):
        kdtool.watch(tmp_path / "s.run")


def _train(directory):
    with filelock.FileLock(directory / "lock"):
        for epoch in (1, 2, 3):
            time.sleep(0.2)
            log(directory, "kd", epoch)
        (directory / "run.json").write_text(json.dumps({"training": {"epochs": 3}, "finished": True}))


def test_watch_follows_until_the_run_ends(tmp_path, monkeypatch, capsys):
    begin(tmp_path / "s.run", epochs=3)
    monkeypatch.setattr(command, "SECONDS", 0.05)
    process = multiprocessing.get_context("fork").Process(target=_train, args=(tmp_path / "s.run",))
    process.start()
    while not (tmp_path / "s.run" / "metrics.jsonl").exists():
        time.sleep(0.01)
    result = CliRunner().invoke(cli, ["watch", str(tmp_path / "s.run"), "-v"])
    process.join()

    assert result.exit_code == 0, result.stderr
    assert result.stdout == "s.run: finished, kd epoch 3/3, validation accuracy 0.53, best 0.53\n"
    assert "s.run: running, kd epoch 1/3" in result.stderr

    once = CliRunner().invoke(cli, ["watch", str(tmp_path / "s.run"), "--json"])
    assert json.loads(once.stdout)["state"] == "finished"


@pytest.mark.parametrize(("words", "last"), [(["--json"], "finished"), (["--once", "--json"], "running")])
def test_watch_prints_the_last_state_as_json_or_that_of_now(tmp_path, monkeypatch, words, last):
    begin(tmp_path / "s.run")
    log(tmp_path / "s.run", "kd", 1)
    state = kdtool.watch(tmp_path / "s.run")
    states = iter([state | {"state": "running"}, state | {"state": "finished"}])
    monkeypatch.setattr("kdtool.api.watch", lambda _: next(states))
    monkeypatch.setattr(command, "SECONDS", 0.0)

    result = CliRunner().invoke(cli, ["watch", str(tmp_path / "s.run"), *words])

    assert (result.exit_code, json.loads(result.stdout)["state"]) == (0, last)


def test_watch_says_how_a_run_that_was_killed_goes_on(tmp_path):
    begin(tmp_path / "s.run")
    result = CliRunner().invoke(cli, ["watch", str(tmp_path / "s.run")])
    assert (result.exit_code, result.stdout) == (1, "s.run: stopped\n")
    assert result.stderr == (
        "Error: s.run: no process works there, and it is not finished; run the same command again with --resume to "
        "continue\n"
    )
    as_data = CliRunner().invoke(cli, ["watch", str(tmp_path / "s.run"), "--json"])
    assert (as_data.exit_code, as_data.stderr) == (1, result.stderr)
    assert json.loads(as_data.stdout)["state"] == "stopped"


def test_a_run_of_somebody_else_can_be_read_and_is_not_held(tmp_path, monkeypatch):
    begin(tmp_path / "s.run")
    lock = filelock.FileLock(tmp_path / "s.run" / "lock")
    with lock:
        pass
    open_file = os.open

    def read_only(path, flags, *more, **options):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError
        return open_file(path, flags, *more, **options)

    with lock, monkeypatch.context() as patched:
        patched.setattr(os, "open", read_only)
        assert kdtool.watch(tmp_path / "s.run")["state"] == "running"
    descriptor = os.open(tmp_path / "s.run" / "lock", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # of another who looks on
    monkeypatch.setattr(os, "open", read_only)
    assert kdtool.watch(tmp_path / "s.run")["state"] == "stopped"
    os.close(descriptor)


def test_watch_does_not_wait_where_it_cannot_see_whether_a_process_works(tmp_path, monkeypatch):
    begin(tmp_path / "s.run")
    monkeypatch.setattr("kdtool.reporting.watching._works", lambda directory: None)
    result = CliRunner().invoke(cli, ["watch", str(tmp_path / "s.run")])
    assert (result.exit_code, result.stdout) == (1, "s.run: unknown\n")
    assert "Error: s.run: it cannot be seen whether a process works there; ask its owner" in result.stderr


COST = {"seconds": 1.0, "cpu_seconds": 1.0}
PHASE = {"name": "kd", "epochs": 3, "steps": 1, "cost": COST}


@pytest.mark.parametrize(
    "forecast",
    [
        {"phases": [PHASE | {"epochs": "x"}], "cost": COST},
        {"phases": [PHASE | {"name": ["kd"]}], "cost": COST},
        {"phases": [PHASE], "cost": {"seconds": "x", "cpu_seconds": 1}},
        {"phases": [PHASE], "cost": COST | {"seconds": 1e308}},
        {"phases": [PHASE], "cost": COST, "newer": 1},
    ],
)
def test_a_forecast_that_cannot_be_read_is_none(tmp_path, forecast):
    begin(tmp_path / "s.run", epochs=3)
    log(tmp_path / "s.run", "kd", 1)
    (tmp_path / "s.run" / "forecast.json").write_text(json.dumps(forecast))
    state = kdtool.watch(tmp_path / "s.run")
    assert (state["epochs"], state["phases"], state["fraction"], state["seconds_left"]) == (3, None, None, 4.0)


def test_a_forecast_of_less_than_nothing_gives_no_negative_part_or_time(tmp_path):
    begin(tmp_path / "s.run")
    log(tmp_path / "s.run", "kd", 1)
    phases = [PHASE | {"cost": COST | {"seconds": -100}}]
    (tmp_path / "s.run" / "forecast.json").write_text(json.dumps({"phases": phases, "cost": COST}))
    state = kdtool.watch(tmp_path / "s.run")
    assert state["fraction"] == 0.0
    assert state["seconds_left"] >= 0.0


@pytest.mark.parametrize(("file", "text"), [
    ("run.json", '{"finished": false, "training": {"epochs": "zz"}}'),
    ("metrics.jsonl", '{"phase": "kd", "epoch": 1, "val_accuracy": "zz"}'),
    ("metrics.jsonl", '{"phase": "kd", "epoch": 1, "seconds": 1e308}'),
    ("study.json", json.dumps({"format": FORMAT, "commands": {"c": 3}, "comparisons": {}})),
    ("study.json", json.dumps({"format": FORMAT, "commands": {"c": {"status": ["begun"]}}, "comparisons": {}})),
])  # fmt: skip
def test_what_was_damaged_is_refused_in_one_line(tmp_path, file, text):
    begin(tmp_path / "s.run")
    (tmp_path / "s.run" / file).write_text(text)
    with pytest.raises(kdtool.Error, match=rf"s\.run/{file}: is damaged") as caught:
        kdtool.watch(tmp_path / "s.run")
    assert "\n" not in str(caught.value)


def test_a_study_shows_only_the_runs_inside_it(tmp_path):
    study = tmp_path / "s.run"
    begin(study)
    begin(tmp_path / "outside.run")
    begin(study / "a.run")
    names = ["a", "../s", "../outside", "b\0", "c" * 300, "itself"]
    (study / "itself.run").symlink_to(study)
    commands = {name: {"status": "begun"} for name in names}
    (study / "study.json").write_text(json.dumps({"format": FORMAT, "commands": commands, "comparisons": {}}))
    state = kdtool.watch(study)
    assert [run["name"] for run in state["runs"]] == ["a.run", "itself.run"]
    assert all("runs" not in run for run in state["runs"])


def test_the_name_of_a_phase_stays_in_its_line(tmp_path):
    begin(tmp_path / "s.run")
    log(tmp_path / "s.run", "a\nb\x1b[31m", 1)
    (line,) = command.lines(kdtool.watch(tmp_path / "s.run"))
    assert line.startswith("s.run: stopped, a?b?[31m epoch 1/10")
