"""Who teaches whom, which candidate is kept, when it stops."""

import json
from types import SimpleNamespace

import pytest

import kdtool
from kdtool.models.checkpoint import read


def distil(teacher_path, output, **options):
    return kdtool.distill(
        teacher_path, method="ikd", output=output, **{"epochs": 1, "lr": 3e-3, "device": "cpu", **options}
    )


def rows(checkpoint):
    return {row["model"]: row for row in checkpoint.history[-1]["rows"]}


def test_parental_writes_every_model(teacher_path, tmp_path):
    student = distil(teacher_path, tmp_path / "s.pt", iters=3)
    table = rows(student)
    assert [(model, row["taught_by"]) for model, row in table.items()] == [
        ("M0", "labels"),
        ("M1", "M0"),
        ("M2", "M1"),
        ("M3", "M2"),
    ]
    # Halving 64-300-100-10: 64-150-50-10, 64-75-25-10, 64-38-13-10 (every second index is kept).
    assert [row["parameters"] for row in table.values()] == [
        64 * a + a + a * b + b + b * 10 + 10 for a, b in ((300, 100), (150, 50), (75, 25), (38, 13))
    ]
    for model, row in table.items():
        written = read(tmp_path / "s.run" / f"{model}.pt")
        assert written.metric("test", "error") == row["error"]
        assert row["compression"] == table["M0"]["parameters"] / row["parameters"]
    assert student.metric("test", "error") == table["M3"]["error"]


def phases(directory):
    return {json.loads(line)["phase"] for line in (directory / "metrics.jsonl").read_text().splitlines()}


def test_ancestral_keeps_the_candidate_with_the_least_validation_loss(teacher_path, tmp_path):
    distil(teacher_path, tmp_path / "s.pt", iters=2, teachers="ancestral", epochs=2)
    assert phases(tmp_path / "s.run") == {"M1 from M0", "M2 from M0", "M2 from M1"}
    lines = [json.loads(line) for line in (tmp_path / "s.run" / "metrics.jsonl").read_text().splitlines()]
    best = {}
    for phase in ("M2 from M0", "M2 from M1"):
        _, loss = max((row["val_accuracy"], -row["val_loss"]) for row in lines if row["phase"] == phase)
        best[phase] = -loss
    table = rows(read(tmp_path / "s.run" / "M2.pt"))
    chosen, other = sorted(best, key=best.get)
    assert table["M2"]["taught_by"] == chosen.removeprefix("M2 from ")
    # The table has the candidate that was not chosen too.
    assert list(table) == ["M0", "M1", other, "M2"]
    assert (table[other]["taught_by"], table[other]["kept"]) == (other.removeprefix("M2 from "), False)
    assert table[other]["parameters"] == table["M2"]["parameters"]
    assert table[other]["error"] != table["M2"]["error"]


def test_tolerance_stops_and_returns_the_last_acceptable(teacher_path, tmp_path):
    # No epochs at all: M1 is untrained, far below its teacher.
    student = distil(teacher_path, tmp_path / "s.pt", iters=3, tolerance=0.05, epochs=0)
    table = rows(student)
    assert list(table) == ["M0", "M1"]
    assert table["M1"]["kept"] is False
    assert student.architecture == read(teacher_path).architecture


def test_a_loose_tolerance_never_stops(teacher_path, tmp_path):
    student = distil(teacher_path, tmp_path / "s.pt", iters=2, tolerance=1.0, epochs=0)
    assert list(rows(student)) == ["M0", "M1", "M2"]


def test_the_last_model_is_pruned_where_a_pruner_is_given(teacher_path, tmp_path):
    student = distil(teacher_path, tmp_path / "s.pt", iters=1, pruner={"name": "magnitude", "ratio": 0.5})
    assert list(rows(student)) == ["M0", "M1", "M1 pruned"]
    weights = 64 * 150 + 150 * 50 + 50 * 10
    biases = 150 + 50 + 10
    size = kdtool.inspect(student)
    assert size["parameters"] == weights + biases
    assert size["nonzero"] <= weights / 2 + biases


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_pruner_that_needs_early_weights_is_refused_before_any_training(teacher_path, tmp_path, dry_run):
    with pytest.raises(kdtool.UsageError, match=r"--pruner lottery: goes back to early weights, .* such as magnitude$"):
        distil(teacher_path, tmp_path / "s.pt", iters=1, pruner="lottery", dry_run=dry_run)
    assert not list(tmp_path.iterdir())


def test_defaults_are_the_papers():
    ikd = kdtool.make("distillers", "ikd")
    assert (ikd.objective.temperature, ikd.objective.alpha) == (20.0, 0.7)
    assert kdtool.make("distillers", "kd").temperature == 4.0


def test_a_structure_that_cannot_be_made_fails_before_training(teacher_path, tmp_path):
    with pytest.raises(kdtool.Error, match=r"--iters 12: M\d+ cannot be made"):
        distil(teacher_path, tmp_path / "s.pt", iters=12)
    assert not (tmp_path / "s.pt").exists()
    assert not phases(tmp_path / "s.run") if (tmp_path / "s.run" / "metrics.jsonl").exists() else True


def test_a_student_makes_no_sense(teacher_path, tmp_path):
    with pytest.raises(kdtool.UsageError, match="makes its students itself"):
        distil(teacher_path, tmp_path / "s.pt", student="kdtool:lenet-5")


@pytest.mark.parametrize(
    ("options", "accuracies", "kept"),
    [
        ({"tolerance": 0.021}, [0.84, 0.82, 0.80, 0.78, 0.60], 3),
        ({"tolerance": 0.021, "drop_from": "best"}, [0.84, 0.82, 0.80, 0.78, 0.60], 1),
        # A gain never stops it, and the next model is compared with the gain.
        ({"tolerance": 0.021}, [0.70, 0.90, 0.885, 0.86, 0.85], 2),
        ({"tolerance": 0.021, "drop_from": "best"}, [0.70, 0.90, 0.885, 0.88, 0.85], 3),
        # As a float, 0.84 - 0.82 is more than 0.02.
        ({"tolerance": 0.02}, [0.84, 0.82, 0.70, 0.70, 0.70], 1),
        ({}, [0.84, 0.1, 0.1, 0.1, 0.1], 4),
    ],
)
@pytest.mark.parametrize("balanced", [False, True])
def test_algorithm_2_returns_the_last_accepted_model(options, accuracies, kept, balanced):
    class Trained:
        """A run in which M_i has the i-th accuracy; if it is the balanced one, the plain one is the same for all."""

        def __init__(self):
            self.rows = {}

        def refine(self, name, refiner, network):
            return name

        def fit(self, name, network, **_):
            return SimpleNamespace(network=network)

        def each(self, tasks):
            return {name: task(self) for name, task in tasks.items()}

        def evaluate(self, network):
            accuracy = accuracies[int(network[1:])]
            measured = {"accuracy": 0.5, "balanced_accuracy": accuracy} if balanced else {"accuracy": accuracy}
            return {**measured, "loss": 1.0}

        def keep(self, name, network, *, taught_by, kept):
            self.rows[name] = kept

    run = Trained()
    assert kdtool.make("distillers", "ikd", iters=4, **options).distill(run, "M0", None) == f"M{kept}"
    assert [name for name, accepted in run.rows.items() if accepted] == [f"M{number}" for number in range(kept + 1)]


def test_without_a_tolerance_nothing_is_compared():
    with pytest.raises(kdtool.UsageError, match="--drop-from: belongs to --tolerance; give that"):
        kdtool.make("distillers", "ikd", drop_from="best")
