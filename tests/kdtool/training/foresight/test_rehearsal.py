"""What a command will do is known before it trains, and knowing it changes nothing."""

import json
import logging
import time
from collections import Counter

import pytest
import torch

import kdtool
from kdtool.commands.foresight import dry_run
from kdtool.commands.inputs import data_for
from kdtool.training.foresight import rehearsal
from kdtool.training.foresight.forecast import read_forecast
from kdtool.training.history_entry import HistoryEntry
from kdtool.training.options import Training
from kdtool.training.run import Run
from kdtool.utils.verbosity import announcing

COMMANDS = {
    "kd": ("distill", {"method": "kd", "refiner": "halve", "epochs": 2}),
    "ikd": ("distill", {"method": "ikd", "iters": 2, "teachers": "ancestral", "epochs": 2}),
    "search": ("distill", {"method": "kd", "refiner": "halve", "search": "temperature=1,2", "epochs": 2}),
    "born-again": ("distill", {"method": "born-again", "epochs": 1}),
    "magnitude": ("prune", {"method": "magnitude", "steps": 2, "epochs": 1, "ratio": 0.5}),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "born-again" else []) for name in COMMANDS]
)
def test_the_phases_that_are_foreseen_are_those_that_run(name, teacher_path, tmp_path):
    command, options = COMMANDS[name]
    with announcing():
        made = getattr(kdtool, command)(teacher_path, **options, subset=0.3, output=tmp_path / "s.pt")

    forecast = read_forecast(tmp_path / "s.run")
    assert forecast is not None
    logs = (tmp_path / "s.run").rglob("metrics.jsonl")
    rows = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    # The trials of a search lie in directories that are gone.
    foreseen = Counter({phase.name: 0 for phase in forecast.phases})
    for phase in forecast.phases:
        foreseen[phase.name] += phase.epochs
    if name == "search":
        assert foreseen == {"kd": made.history[-1]["search"]["epochs"] + 2}
    else:
        assert foreseen == Counter(row["phase"] for row in rows)
    assert forecast.cost.cpu_seconds > 0
    assert forecast.memory_bytes > 50_000_000
    assert forecast.disk_bytes > (tmp_path / "s.pt").stat().st_size / 2
    assert forecast.reason == ""


def test_a_rehearsal_changes_no_bit_and_no_random_number(teacher_path, tmp_path, capsys):
    options = {"method": "ikd", "iters": 2, "epochs": 2}
    alone = kdtool.distill(teacher_path, **options, output=tmp_path / "alone.pt")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with announcing():
        foreseen = kdtool.distill(teacher_path, **options, output=tmp_path / "foreseen.pt")

    assert torch.equal(state, torch.get_rng_state())
    for name, tensor in alone.module.state_dict().items():
        assert torch.equal(tensor, foreseen.module.state_dict()[name]), name
    said = capsys.readouterr().err
    # Of the 1797 digits 359 are for the test and 143 for the validation: 1295 are 21 batches of 64.
    assert "makes foreseen.pt in 2 phases of 2 epochs, 84 steps in all\n" in said
    assert "makes alone.pt" not in said
    rows = [[row for row in made.history[-1]["rows"]] for made in (alone, foreseen)]
    assert rows[0] == rows[1]


def test_a_dry_run_writes_nothing_and_returns_the_structure(teacher_path, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = []
    monkeypatch.setattr("kdtool.models.checkpoint.write", lambda *about, **more: told.append(about))

    made = kdtool.distill(teacher_path, method="kd", refiner="halve", epochs=7, output="s.pt", dry_run=True)

    assert [*tmp_path.iterdir()] == []
    assert told == []
    parent = kdtool.load(teacher_path)
    forecast = made.history[-1]["forecast"]
    assert [(phase["name"], phase["epochs"]) for phase in forecast["phases"]] == [("kd", 7)]
    assert forecast["steps"] == 7 * forecast["phases"][0]["steps"]
    assert made.history[-1]["size"]["parameters"] < parent.history[0]["size"]["parameters"]
    assert made.metrics == []
    assert "makes s.pt by 7 epochs of" in capsys.readouterr().err


def test_a_dry_run_reports_what_cannot_be_trained(teacher_path, tmp_path):
    with pytest.raises(kdtool.UsageError, match="lottery: every round is a training"):
        kdtool.prune(teacher_path, method="lottery", epochs=0, output=tmp_path / "s.pt", dry_run=True)


def test_a_method_that_needs_a_result_is_foreseen_up_to_there(teacher_path, tmp_path, capsys):
    parent = kdtool.load(teacher_path)

    def work(run):
        run.fit("search", parent.network)
        raise KeyError("gates")

    entry = HistoryEntry("distill", "kdtool distill", "needs", {}, {}, {}, [], "s.pt", {}, "")
    made = dry_run(
        work, tmp_path / "s.pt", data=data_for(parent, {}), training=Training(epochs=3), parent=parent, entry=entry
    )

    said = capsys.readouterr().err
    assert "then come phases that cannot be foreseen (they depend on the result of search)" in said
    assert "at least " in said
    assert made.history[-1]["forecast"]["reason"]


def test_frozen_networks_run_only_until_their_outputs_can_be_read_back(teacher_path, tmp_path):
    often = {"method": "kd", "refiner": "halve", "epochs": 40, "dry_run": True}
    kept = kdtool.distill(teacher_path, **often, output=tmp_path / "a.pt").history[-1]["forecast"]
    never = kdtool.distill(teacher_path, **often, cache="off", output=tmp_path / "b.pt").history[-1]["forecast"]
    assert kept["disk_bytes"] > never["disk_bytes"]


def test_the_steps_of_a_phase_are_those_of_its_images(tmp_path):
    """A phase without a teacher leaves out the images that have no label."""
    options = {"data": "digits", "subset": 0.1, "image_size": 8}
    teacher = kdtool.teacher("timm:test_resnet", epochs=0, output=tmp_path / "t.pt", **options)
    told = {"sparse_epochs": 1, "unlabelled": "digits", "epochs": 1, "dry_run": True}
    forecast = kdtool.prune(teacher, "bn-scale", **told, output=tmp_path / "p.pt").history[-1]["forecast"]
    sparse, retrain = (phase["steps"] for phase in forecast["phases"])
    assert sparse < retrain / 5


def test_one_image_that_is_left_over_is_foreseen_as_no_step(teacher_path, tmp_path):
    size = kdtool.load(teacher_path).data.splits["train"]["images"] - 1
    options = {"batch_size": size, "epochs": 1, "dry_run": True, "output": tmp_path / "s.pt"}
    (phase,) = kdtool.prune(teacher_path, **options).history[-1]["forecast"]["phases"]
    assert phase["steps"] == 1


def test_patience_makes_the_estimate_an_upper_bound(teacher_path, tmp_path, capsys):
    kdtool.prune(teacher_path, epochs=30, patience=2, output=tmp_path / "s.pt", dry_run=True)
    assert "at most " in capsys.readouterr().err


@pytest.mark.slow
def test_a_forecast_does_not_warn_of_what_the_result_will_be(teacher_path, tmp_path, caplog):
    """After a few steps no gate is closed; the search that follows meets its budget."""
    options = {"target_macs": "0.5x", "round_to": 1, "exporter": {"name": "onnx", "latency": False}}
    with announcing():
        kdtool.distill(
            teacher_path, "gated", search_epochs=8, epochs=1, subset=0.2, output=tmp_path / "s.pt", **options
        )
    assert "was not met" not in caplog.text
    logging.getLogger("kdtool").warning("a later one")
    assert "a later one" in caplog.text


def test_what_is_done_with_the_file_of_the_result_is_foreseen(teacher_path, tmp_path, monkeypatch):
    sizes = []

    def slow(path):
        sizes.append(path.stat().st_size)
        time.sleep(0.3)

    monkeypatch.setattr("kdtool.training.foresight.rehearsal.SAMPLE_BYTES", 20_000)
    monkeypatch.setattr("kdtool.commands.prune.gzip_bytes", slow)
    made = kdtool.prune(teacher_path, method="magnitude", steps=1, epochs=0, dry_run=True)
    # A sample of the weights is compressed, and its time stands for all of them.
    whole = sum(tensor.nbytes for tensor in made.module.state_dict().values())
    assert len(sizes) == 1
    assert made.history[-1]["forecast"]["cost"]["seconds"] > 0.3 * whole / sizes[0] > 0.3


IN_A_STEP = [kdtool.Error("a/1.jpg: cannot be read as an image"), ValueError("of a layer"), OSError("a/1.jpg")]


@pytest.fixture
def untrained(teacher_path, tmp_path):
    """A run of one epoch."""
    parent = kdtool.load(teacher_path)
    return Run(
        tmp_path, data=data_for(parent, {}), training=Training(epochs=1), parent=parent,
        entry=HistoryEntry("distill", "kdtool distill", "kd", {}, {}, {}, [], "s.pt", {}, ""),
    )  # fmt: skip


@pytest.mark.parametrize("processes", [1, 2])
def test_what_one_process_alone_may_meet_ends_them_all(processes, untrained, monkeypatch):
    """The others would wait for it in the next step; of one process the forecast is only cut."""

    def work(run):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(rehearsal, "count", lambda: processes)
    if processes == 1:
        assert rehearsal.rehearse(work, untrained)[0].reason == "OutOfMemoryError"
    else:
        with pytest.raises(torch.OutOfMemoryError):
            rehearsal.rehearse(work, untrained)


@pytest.mark.parametrize("error", IN_A_STEP, ids=lambda error: type(error).__name__)
def test_so_does_any_error_of_a_step_where_the_others_wait(error, untrained, monkeypatch):
    def failing(*arguments):
        raise error

    monkeypatch.setattr(rehearsal, "time_phase", failing)
    monkeypatch.setattr(rehearsal, "count", lambda: 2)
    with pytest.raises(type(error)):
        rehearsal.rehearse(lambda run: run.fit("kd", run.parent.network).network, untrained)


@pytest.mark.parametrize("in_step", [False, True])
def test_what_all_processes_meet_only_cuts_the_forecast(in_step, untrained, monkeypatch):
    def failing(*arguments):
        raise kdtool.UsageError("too small") if in_step else KeyError("gates")

    def work(run):
        run.fit("search", run.parent.network)
        return failing()

    monkeypatch.setattr(rehearsal, "count", lambda: 2)
    if in_step:
        monkeypatch.setattr(rehearsal, "time_phase", failing)
    forecast, network = rehearsal.rehearse(work, untrained)
    assert network is None
    assert forecast.reason == "too small" if in_step else forecast.reason.endswith("the result of search")
