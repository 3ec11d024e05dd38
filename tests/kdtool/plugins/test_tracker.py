"""Trackers are told by the hooks; one that is missing or cannot write ends a command before it trains."""

import types
from pathlib import Path

import pytest

import kdtool
from kdtool.plugins import tracker as module
from kdtool.plugins.entry_points import Plugin, manager
from kdtool.plugins.tracker import Tracked, Tracker, flat, trackers


class Fake(Tracker):
    """Keeps what it is told."""

    made: list["Fake"] = []  # noqa: RUF012

    def __init__(self, place=""):
        super().__init__(place)
        self.rows, self.texts, self.ended = [], {}, None
        Fake.made.append(self)

    def start(self, tracked):
        self.tracked = tracked
        if self.place == "full":
            raise OSError(28, "No space left on device")

    def numbers(self, values, step):
        if self.place == "breaks":
            raise ConnectionError("the server is gone")
        self.rows.append((step, dict(values)))

    def facts(self, values):
        self.texts |= values

    def finish(self, failed):
        self.ended = failed


@pytest.fixture
def fake(monkeypatch):
    Fake.made.clear()
    plugin = Plugin("trackers", "fake", "nowhere", "kdtool", "0", "Fake")
    other = Plugin("trackers", "absent", "nowhere", "kdtool", "0", "Fake")
    monkeypatch.setattr(module, "installed", lambda: (plugin, other))

    def loaded(found):
        attributes = {"name": found.name}
        if found.name == "absent":
            attributes |= {"needs": "no_such_module_x", "install": "pip install 'kdtool[absent]'"}
        return type(found.name, (Fake,), attributes)

    monkeypatch.setattr(module, "tracker_class", loaded)
    return Fake.made


def test_a_run_tells_its_trackers_all_epochs_and_scores(fake, teacher_path, tmp_path):
    made = kdtool.distill(
        teacher_path, method="kd", refiner="halve", epochs=2, output=tmp_path / "s.pt", track="fake:x"
    )

    (told,) = fake
    assert (told.place, told.tracked.name, told.tracked.directory) == ("x", "s", tmp_path / "s.run")
    assert told.tracked.parameters["training.epochs"] == 2
    assert told.tracked.parameters["method"] == "kd"
    steps = [step for step, values in told.rows if "kd/val_accuracy" in values]
    assert steps == [1, 2]
    losses = [values["kd/loss"] for _, values in told.rows if "kd/loss" in values]
    assert losses
    assert all(isinstance(loss, float) for loss in losses)
    assert (0, {"s/test/accuracy": made.metric("test", "accuracy"), "s/test/loss": made.metric("test", "loss")}) in (
        told.rows
    )
    assert told.texts == {"s/checkpoint": str(tmp_path / "s.pt")}
    assert told.ended is False
    # It listens to this run alone.
    assert told not in manager().get_plugins()


def test_the_trials_of_a_search_are_not_mixed_with_the_training(fake, teacher_path, tmp_path):
    options = {"refiner": "halve", "epochs": 2, "search": "temperature=1,2", "output": tmp_path / "s.pt"}
    kdtool.distill(teacher_path, method="kd", **options, track="fake")
    names = {name for _, values in fake[0].rows for name in values if name.endswith("val_loss")}
    assert "kd/val_loss" in names
    assert len(names) > 2
    assert all(name.split("/")[-2] == "kd" for name in names)


def test_a_tracker_that_fails_does_not_end_the_training(fake, teacher_path, tmp_path, capsys):
    kdtool.prune(teacher_path, epochs=2, output=tmp_path / "s.pt", track="fake:breaks")
    assert (tmp_path / "s.pt").exists()
    said = capsys.readouterr().err
    assert said.count("--track fake: ConnectionError: the server is gone; the training goes on without it") == 1


def test_a_tracker_that_cannot_write_ends_the_command_before_it_trains(fake, teacher_path, tmp_path):
    with pytest.raises(kdtool.UsageError, match=r"--track fake: OSError: .*No space left on device; or leave --track"):
        kdtool.prune(teacher_path, epochs=2, output=tmp_path / "s.pt", track="fake:full")
    assert not (tmp_path / "s.pt").exists()
    assert not (tmp_path / "s.run").exists()


def test_a_training_that_fails_is_marked_as_failed(fake, teacher_path, tmp_path):
    with pytest.raises(kdtool.Error, match="not finite"):
        kdtool.prune(teacher_path, epochs=1, lr=1e30, optimizer="sgd", output=tmp_path / "s.pt", track="fake")
    assert fake[0].ended is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fakee", "--track fakee: there is no such tracker; did you mean fake?"),
        ("aim", "--track aim: there is no such tracker; the trackers are absent, fake"),
        ("absent", "--track absent: no_such_module_x is not installed; pip install 'kdtool[absent]'"),
        ("fake,fake:x", "--track: fake is named twice; leave one out"),
        ("", "--track : there is no such tracker; the trackers are absent, fake"),
    ],
)
def test_what_cannot_be_tracked_is_one_line(fake, text, message):
    with pytest.raises(kdtool.UsageError) as error:
        trackers(text)
    assert str(error.value) == message


def test_places_may_hold_colons_and_commas(fake):
    made = trackers("fake:http://host:5000/a,b")
    assert [tracker.place for tracker in made] == ["http://host:5000/a,b"]


def test_numbers_that_are_not_finite_are_left_out(fake, tmp_path):
    (tracker,) = trackers("fake")
    tracker.open(Tracked("s", tmp_path, tmp_path / "s.pt", {}, resumed=False))
    run = types.SimpleNamespace(directory=tmp_path)
    tracker.epoch_ended(run, "kd", 3, {"phase": "kd", "epoch": 3, "loss": float("nan"), "lr": 0.1, "averaged": True})
    assert tracker.rows == [(3, {"kd/lr": 0.1})]


def test_options_become_flat():
    data = {"training": {"epochs": 3, "clip": None}, "objective": {"name": "kd", "of": [1, 2]}, "x": Path("a"), "e": []}
    assert flat(data) == {"training.epochs": 3, "objective.name": "kd", "objective.of": "[1, 2]", "x": "a"}


def test_the_command_line_checks_the_name_before_torch_is_imported(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from kdtool.cli.main import cli

    result = CliRunner().invoke(cli, ["prune", "s.pt", "--track", "tensorbord"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: --track tensorbord: there is no such tracker; did you mean tensorboard?\n"
    monkeypatch.setenv("KDTOOL_TRACK", "wandbb")
    assert "Error: KDTOOL_TRACK wandbb: there is no" in CliRunner().invoke(cli, ["prune", "s.pt"]).stderr


def test_the_variable_holds_for_commands_that_train_nothing_but_the_option_is_refused(fake, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from kdtool.cli.main import cli

    words = ["teacher", "kdtool:lenet-300-100", "-o", str(tmp_path / "t.pt")]
    assert "--track: nothing is trained" in CliRunner().invoke(cli, [*words, "--track", "fake"]).stderr
    monkeypatch.setenv("KDTOOL_TRACK", "fake")
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "t.pt").exists()
