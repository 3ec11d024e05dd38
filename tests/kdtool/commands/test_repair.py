"""``--repair``: what it changes, where it needs images, and that it can be repeated."""

import pytest
import torch

import kdtool
from kdtool.models.checkpoint import read

PRUNED = {"ratio": 0.6, "round_to": 1, "device": "cpu"}


def accuracy(path):
    return kdtool.evaluate(path, split="test", device="cpu")[0]["accuracy"]


def same(one, other):
    one, other = (read(path).module.state_dict() for path in (one, other))
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    path = tmp_path_factory.mktemp("untrained") / "net.pt"
    kdtool.teacher("kdtool:lenet-300-100", classes=10, image_size=8, in_channels=1, output=path)
    return path


@pytest.mark.parametrize("method", ["statistics", "least-squares"])
def test_accuracy_without_training_rises(teacher_path, tmp_path, method):
    for repair in ("none", method):
        options = {"repair": repair, "repair_images": 400}
        kdtool.prune(teacher_path, "filter-l1", **PRUNED, epochs=0, **options, output=tmp_path / f"pruned-{repair}.pt")
        kdtool.refine(
            teacher_path, "halve", times=2, init="inherit", **options, output=tmp_path / f"halved-{repair}.pt"
        )
    for edit in ("pruned", "halved"):
        assert accuracy(tmp_path / f"{edit}-{method}.pt") > accuracy(tmp_path / f"{edit}-none.pt")
        assert "repair" not in read(tmp_path / f"{edit}-none.pt").history[-1]
        (about,) = read(tmp_path / f"{edit}-{method}.pt").history[-1]["repair"]
        assert (about["method"], about["images"], about["left"]) == (method, 400, {})
        assert about["logits_error"]["after"] < about["logits_error"]["before"]


def test_a_student_is_repaired_before_it_learns(teacher_path, tmp_path, capsys):
    refiner = {"name": "halve", "init": "inherit", "repair": "least-squares"}
    made = kdtool.distill(teacher_path, "kd", refiner=refiner, epochs=1, device="cpu", output=tmp_path / "s.pt")
    (about,) = made.history[-1]["repair"]
    assert about["layers"] == 2
    assert "repaired 2 layers (least-squares, 256 images)" in capsys.readouterr().err


def test_every_step_of_a_pruner_repairs(teacher_path, tmp_path):
    options = {**PRUNED, "steps": 2, "epochs": 1, "repair": "least-squares"}
    made = kdtool.prune(teacher_path, "filter-l1", **options, output=tmp_path / "p.pt")
    assert len(made.history[-1]["repair"]) == 2


def test_a_resumed_run_gives_the_same_bits(teacher_path, tmp_path, monkeypatch):
    options = {**PRUNED, "steps": 2, "epochs": 1, "repair": "least-squares"}
    kdtool.prune(teacher_path, "filter-l1", **options, output=tmp_path / "whole.pt")
    retrain = kdtool.ChannelPruner.retrain

    def killed(self, run, pruned, teacher, name="retrain"):
        if name.startswith("retrain 2"):
            raise KeyboardInterrupt
        return retrain(self, run, pruned, teacher, name)

    monkeypatch.setattr(kdtool.ChannelPruner, "retrain", killed)
    with pytest.raises(KeyboardInterrupt):
        kdtool.prune(teacher_path, "filter-l1", **options, output=tmp_path / "cut.pt")
    monkeypatch.setattr(kdtool.ChannelPruner, "retrain", retrain)
    kdtool.prune(teacher_path, "filter-l1", **options, output=tmp_path / "cut.pt", resume=True)
    assert same(tmp_path / "whole.pt", tmp_path / "cut.pt")


def test_the_seed_draws_the_images(teacher_path, tmp_path):
    options = {"init": "inherit", "repair": "least-squares"}
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        kdtool.refine(teacher_path, "halve", **options, seed=seed, output=tmp_path / f"{name}.pt")
    assert same(tmp_path / "one.pt", tmp_path / "again.pt")
    assert not same(tmp_path / "one.pt", tmp_path / "other.pt")


def test_without_data_it_is_refused_and_nothing_is_written(untrained, tmp_path):
    for command, method, options in (
        (kdtool.refine, "halve", {"init": "inherit"}),
        (kdtool.prune, "filter-l1", {**PRUNED, "epochs": 0}),
    ):
        with pytest.raises(kdtool.UsageError, match="^--repair needs images; name them with --data$"):
            command(untrained, method, **options, repair="statistics", output=tmp_path / "small.pt")
    assert not list(tmp_path.iterdir())
    made = kdtool.refine(
        untrained, "halve", init="inherit", repair="statistics", data="digits", output=tmp_path / "small.pt"
    )
    assert made.history[-1]["data"]["name"] == "digits"


def test_fresh_weights_have_nothing_to_repair(teacher_path, tmp_path):
    for method, options in (("halve", {}), ("depth", {}), ("width-depth", {"target_macs": "0.5x"})):
        with pytest.raises(kdtool.UsageError, match="--repair statistics: fresh weights .*; add --init inherit"):
            kdtool.refine(teacher_path, method, **options, repair="statistics", output=tmp_path / "small.pt")


def test_data_that_no_repair_uses_are_refused(teacher_path, tmp_path):
    with pytest.raises(kdtool.UsageError, match="--data: only --repair uses images here; leave it out"):
        kdtool.refine(teacher_path, "halve", data="digits", output=tmp_path / "small.pt")
    repair = {"init": "inherit", "repair": "statistics"}
    for name, value in (("augment", "rand"), ("erase", 0.5)):
        with pytest.raises(kdtool.UsageError, match=f"^--{name}: a repair takes images without augmentation; leave it"):
            kdtool.refine(teacher_path, "halve", **repair, **{name: value}, output=tmp_path / "small.pt")
    for command, method in ((kdtool.refine, "halve"), (kdtool.prune, "filter-l1")):
        with pytest.raises(kdtool.UsageError, match="^--repair-images: belongs to --repair; give that too, or leave i"):
            command(teacher_path, method, repair_images=64, output=tmp_path / "small.pt")
    with pytest.raises(kdtool.UsageError, match="^--repair-images: belongs to --repair; give that too, or leave it ou"):
        kdtool.distill(teacher_path, refiner="halve", repair_images=64, output=tmp_path / "small.pt")


@pytest.mark.slow
def test_an_assistant_is_repaired_with_what_its_teacher_sees(teacher, student, small, tmp_path, recorded, score):
    """All images are used, in another order."""
    own = {"init": "inherit", "ratio": 0.75, "repair": "statistics", "repair_images": 100_000}
    refiner = {"name": "halve", **own}
    options = {"data": "digits", "subset": 0.2, "augment": "none", "device": "cpu", "epochs": 0}
    kdtool.distill(teacher, "assistant", student=small, refiner=refiner, **options, output=tmp_path / "a.pt")
    alone = kdtool.refine(teacher, "halve", **own, output=tmp_path / "alone.pt")
    kept = read(tmp_path / "a.run" / "assistant-1.pt")
    (about,) = kept.history[-1]["repair"]
    assert about["logits_error"]["after"] == pytest.approx(
        alone.history[-1]["repair"][0]["logits_error"]["after"], rel=1e-3
    )
    assert recorded(kept)["accuracy"] == pytest.approx(score(tmp_path / "alone.pt")["accuracy"], abs=0.03)
