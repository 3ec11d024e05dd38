import pytest

import kdtool
from kdtool.models.checkpoint import read, write
from kdtool.study.results import means, numbers_of
from kdtool.training.run import Run


def test_means_over_seeds_by_hand():
    rows = [
        {"name": f"pruned_seed={seed}", "step": "pruned", "values": {"seed": seed, "ratio": 0.5}, "error": error,
         "accuracy": None}
        for seed, error in enumerate([0.1, 0.2, 0.3])
    ]  # fmt: skip
    rows.append({"name": "x", "step": "pruned", "values": {"seed": 0, "ratio": 0.8}, "error": 0.4, "accuracy": 0.6})
    first, second = means([*rows, {"name": "y", "step": "y", "values": {"ratio": 1}, "error": 1.0}])
    assert (first["step"], first["values"], first["seeds"]) == ("pruned", {"ratio": 0.5}, 3)
    # t(0.975, 2) = 4.3027, deviation 0.1.
    assert first["error"] == pytest.approx(0.2)
    assert first["error_high"] == pytest.approx(0.2 + 4.3027 * 0.1 / 3**0.5, rel=1e-4)
    assert "accuracy" not in first
    assert (second["seeds"], second["error"], second["error_low"]) == (1, 0.4, None)
    counted = means(
        [{"step": "s", "values": {"seed": s}, "parameters": n, "mcnemar_p": 0.1} for s, n in ((0, 4), (1, 6))]
    )
    assert isinstance(counted[0]["parameters"], int)
    assert counted[0]["parameters"] == 5
    assert "mcnemar_p" not in counted[0]


def test_the_row_of_a_strategy_has_its_models(teacher_path, tmp_path):
    """`ikd` makes several models, `kd` one: the tables of the former need a row for each."""
    student = kdtool.distill(teacher_path, method="ikd", iters=2, epochs=0, device="cpu", output=tmp_path / "s.pt")
    numbers, _ = numbers_of(tmp_path / "s.pt")
    assert [(row["model"], row["taught_by"]) for row in numbers["models"]] == [
        ("M0", "labels"),
        ("M1", "M0"),
        ("M2", "M1"),
    ]
    assert numbers["models"][-1]["error"] == student.metric("test", "error") == numbers["error"]
    assert "models" not in numbers_of(teacher_path)[0]
    # A table is no number, so it has no mean.
    rows = [{"step": "s", "values": {"seed": seed}, **numbers} for seed in (0, 1)]
    assert means(rows)[0].keys() >= {"error", "error_low"}
    assert "models" not in means(rows)[0]


def test_the_row_of_a_search_says_how_it_ended(teacher_path, tmp_path):
    options = {"target_macs": "0.5x", "round_to": 1, "exporter": {"name": "onnx", "latency": False}}
    student = kdtool.distill(
        teacher_path, "gated", search_epochs=3, epochs=1, subset=0.2, output=tmp_path / "s.pt", **options
    )
    numbers, _ = numbers_of(tmp_path / "s.pt")
    search = student.history[-1]["search"]
    assert numbers["search_epochs"] == len(search) == 3
    assert numbers["epochs"] == 3 + 1
    assert numbers["search_kl"] == search[-1]["kl"] > 0
    assert [model["model"] for model in numbers["models"]] == ["teacher", "searched", "student"]


def test_a_search_for_an_option_is_not_one_for_a_structure(teacher_path, tmp_path):
    kdtool.distill(teacher_path, search="temperature=1,2", refiner="halve", epochs=1, output=tmp_path / "s.pt")
    numbers, _ = numbers_of(tmp_path / "s.pt")
    assert "search_epochs" not in numbers
    assert (numbers["epochs"], numbers["trial_epochs"]) == (1, 2)
    assert numbers["chosen"] == read(tmp_path / "s.pt").history[-1]["search"]["chosen"]
    assert numbers["chosen"] in ("temperature=1", "temperature=2")


def test_epochs_are_those_that_were_trained_in_all_phases(teacher_path, tmp_path, monkeypatch):
    """Not those that were asked for, for each phase; and the same where a training was interrupted."""
    options = {"refiner": "halve", "subset": 0.2, "threads": 1}
    early = {**options, "epochs": 9, "patience": 1, "lr": 1e-9}
    for name, method, more in (("early", "kd", early), ("two", "assistant", {**options, "epochs": 2})):
        kdtool.distill(teacher_path, method, output=tmp_path / f"{name}.pt", **more)
    first, two = (numbers_of(tmp_path / f"{name}.pt")[0] for name in ("early", "two"))
    assert (first["epochs"], two["epochs"]) == (2, 4)
    assert (first["training"]["epochs"], two["training"]["epochs"]) == (9, 2)

    written, log = [], Run.log

    def cut(self, row):
        log(self, row)
        written.append(row)
        if len(written) == 3:  # in the second phase, before its state is saved
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "log", cut)
    with pytest.raises(KeyboardInterrupt):
        kdtool.distill(teacher_path, "assistant", output=tmp_path / "cut.pt", epochs=2, **options)
    kdtool.distill(teacher_path, "assistant", output=tmp_path / "cut.pt", resume=True, epochs=2, **options)
    assert len(written) == 3 + 2
    assert numbers_of(tmp_path / "cut.pt")[0]["epochs"] == 4


def test_a_checkpoint_of_an_earlier_release_shows_what_was_asked_for(teacher_path, tmp_path):
    checkpoint = read(teacher_path)
    entry = checkpoint.history[-1]
    assert (numbers_of(teacher_path)[0]["recipe"], entry["training"]["epochs"]) == ("quick", 3)
    del entry["trained_epochs"], entry["training"]["recipe"]
    checkpoint.save(tmp_path / "old.pt")
    old, _ = numbers_of(tmp_path / "old.pt")
    assert (old["epochs"], old["optimizer"], old["batch_size"]) == (3, "adam", 64)
    assert not {"recipe", "trial_epochs", "chosen"} & old.keys()


def test_settings_have_no_mean():
    rows = [
        {"step": "s", "values": {"seed": s}, "recipe": "quick", "batch_size": size} for s, size in ((0, 64), (1, 8))
    ]
    (mean,) = means(rows)
    assert mean == {"step": "s", "values": {}, "seeds": 2, "recipe": "quick"}


def test_a_row_has_the_cpu_seconds_of_its_command(teacher_path):
    numbers, _ = numbers_of(teacher_path)
    entry = read(teacher_path).history[-1]
    assert numbers["cpu_seconds"] == entry["cpu_seconds"]  # 0.0 on a machine that needs less than 0.05 s
    assert numbers["epochs"] == entry["training"]["epochs"] > 0
    # What an earlier version recorded of the other seed has none.
    rows = [{"step": "s", "values": {"seed": 0}, **numbers}, {"step": "s", "values": {"seed": 1}, "accuracy": 0.5}]
    assert "accuracy" in means(rows)[0]
    assert "cpu_seconds" not in means(rows)[0]


def test_the_content_of_what_is_made_again_is_the_same(teacher_path, tmp_path):
    def content(**changes):
        checkpoint = read(teacher_path)
        checkpoint.history[-1] |= changes
        write(tmp_path / "s.pt", checkpoint)
        return numbers_of(tmp_path / "s.pt")[0]["content"]

    same = content()
    assert content(date="2020-01-01", seconds=1.5, cpu_seconds=3.0, versions={}) == same
    assert content(search={"rounds": [{"kept": 1, "seconds": 1}]}) == content(search={"rounds": [{"kept": 1}]}) != same
    assert content(line="kdtool teacher other") != same
