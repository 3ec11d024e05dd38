"""Which convention goes on with which weights, what is compared by name, and what is said of it."""

import dataclasses
import json

import pytest
import torch
from click.testing import CliRunner

import kdtool
from kdtool.cli.main import cli
from kdtool.models.checkpoint import read

NETWORK = "timm:test_resnet"
FAST = {"epochs": 1, "device": "cpu", "precision": "fp32"}


def test_weights_that_go_on_keep_their_convention_and_it_is_said(teacher, tmp_path, caplog, score, recorded):
    made = kdtool.distill(
        teacher,
        "ikd",
        iters=1,
        refiner={"name": "halve", "init": "inherit"},
        **{**FAST, "epochs": 0},
        mean=(0.5,),
        std=(0.5,),
        output=tmp_path / "i.pt",
    )
    assert (made.data.mean, made.data.std) == ((0.0,), (0.05,))
    assert recorded(made) == score(tmp_path / "i.pt")
    assert "i.pt: goes on with weights of its teacher, and keeps the teacher's mean 0 and std 0.05" in caplog.text
    assert torch.equal(made.module(torch.zeros(1, 1, 16, 16)), read(made.path).module(torch.zeros(1, 1, 16, 16)))


def test_a_teacher_that_is_pruned_at_once_keeps_its_convention(teacher, tmp_path, score, recorded):
    """With no tolerance M1 is not kept, and the teacher itself is pruned."""
    made = kdtool.distill(
        teacher,
        "ikd",
        iters=1,
        tolerance=0.0,
        pruner={"name": "magnitude", "ratio": 0.1},
        **{**FAST, "epochs": 0},
        mean=(0.5,),
        std=(0.5,),
        output=tmp_path / "i.pt",
    )
    assert (made.data.mean, made.data.std) == ((0.0,), (0.05,))
    assert recorded(made) == score(tmp_path / "i.pt")


def test_a_new_student_takes_the_convention_of_its_teacher(teacher, tmp_path, score, recorded):
    result = kdtool.distill(teacher, "kd", student=NETWORK, **FAST, output=tmp_path / "s.pt")
    assert (result.data.std, result.data.classes[0]) == ((0.05,), "3")
    assert recorded(result) == score(tmp_path / "s.pt")


def test_chosen_mean_and_std_are_those_of_the_student_alone(teacher, tmp_path, caplog, score, recorded, row, row_of):
    given = {"mean": (0.5,), "std": (0.5,)}
    made = kdtool.distill(teacher, "ikd", iters=1, **FAST, **given, output=tmp_path / "i.pt")
    assert (made.data.mean, made.data.std) == ((0.5,), (0.5,))
    assert recorded(made) == score(tmp_path / "i.pt")
    assert row(made, "M0") == row_of(teacher) == row_of(tmp_path / "i.run" / "M0.pt")
    assert "now sees images normalised by" not in caplog.text
    pruned = kdtool.prune(teacher, ratio=0.5, **{**FAST, "epochs": 0}, **given, output=tmp_path / "p.pt")
    assert recorded(pruned) == score(tmp_path / "p.pt")
    expected = "teacher.pt: was trained with mean 0 and std 0.05; it now sees images normalised by mean 0.5 and std 0.5"
    assert expected in caplog.text
    with pytest.raises(kdtool.UsageError, match="--mean, --std: the student is searched in .*; leave both out"):
        kdtool.distill(teacher, "gated", target_macs="0.5x", **FAST, **given, output=tmp_path / "g.pt")
    assert not (tmp_path / "g.pt").exists()


def test_a_pruned_network_is_retrained_by_a_teacher_that_sees_its_own_images(teacher, tmp_path, monkeypatch, score):
    seen = []
    fit = kdtool.Run.fit

    def watched(self, name, student, *, teacher=None, **options):
        seen.append(self.evaluate(teacher)["accuracy"])
        return fit(self, name, student, teacher=teacher, **options)

    monkeypatch.setattr(kdtool.Run, "fit", watched)
    kdtool.prune(teacher, ratio=0.5, **FAST, mean=(0.5,), std=(0.5,), output=tmp_path / "p.pt")
    assert seen == [score(teacher)["accuracy"]]


def test_networks_of_two_conventions_are_compared_by_name(teacher, student, folder, tmp_path, score, monkeypatch):
    monkeypatch.setattr("kdtool.commands.compare.MAX_IMAGES", 4)
    same = kdtool.compare(folder / "plain.pt", teacher)
    assert (same["classified_differently"], same["l2_sum"]) == (0, pytest.approx(0, abs=1e-2))
    assert same["a"]["accuracy"] == same["b"]["accuracy"] == score(teacher, "test")["accuracy"]
    both = kdtool.compare(student, teacher, data="digits", picture=tmp_path / "p.png")
    for key, path in (("a", student), ("b", teacher)):
        assert both[key]["accuracy"] == score(path, "test")["accuracy"]
    assert both["agreement"] > 0.7


def test_other_names_are_refused_with_the_differences(teacher, student, tmp_path):
    odd = read(student)
    odd.data = dataclasses.replace(odd.data, classes=("Null", *odd.data.classes[1:]))
    odd.save(tmp_path / "odd.pt")
    says = r"odd.pt: its classes are not those of .*: it lacks '0'.* it adds 'Null'"
    for act in (
        lambda: kdtool.distill(teacher, "kd", student=odd.path, **FAST, output=tmp_path / "s.pt"),
        lambda: kdtool.distill([teacher, odd.path], "ensemble", student=student, **FAST, output=tmp_path / "s.pt"),
        lambda: kdtool.compare(teacher, odd.path),
    ):
        with pytest.raises(kdtool.Error, match=says):
            act()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["odd.pt"]


@pytest.mark.slow
def test_what_is_taken_for_granted_is_said(teacher, student, tmp_path, caplog, score, recorded):
    weights = tmp_path / "w.pth"
    torch.save(read(student).module.state_dict(), weights)
    known = kdtool.make("teachers", "timm").defaults("test_resnet")
    shape = {"classes": 10, "in_channels": 3, "image_size": 16}
    with pytest.raises(kdtool.Error):
        kdtool.teacher(NETWORK, weights=weights, **shape, output=tmp_path / "no.pt")
    shape["in_channels"] = 1
    unknown = kdtool.teacher(NETWORK, weights=weights, **shape, output=tmp_path / "unknown.pt").path
    assert len(known["mean"]) == 3
    result = kdtool.distill(teacher, "kd", student=unknown, **{**FAST, "epochs": 0}, output=tmp_path / "s.pt")
    assert (
        "unknown.pt: records no data; its outputs are taken for the classes of digits in this order: 3, 1, 4, 0, ... "
        "10 in all (timm would sort them 0, 1, 2, 3, ... 10 in all); its images are normalised by mean 0 and std 0.05"
    ) in caplog.text
    assert recorded(result) == score(tmp_path / "s.pt")
    caplog.clear()
    kdtool.distill([student, unknown], "ensemble", student=NETWORK, **{**FAST, "epochs": 0}, output=tmp_path / "e.pt")
    assert "unknown.pt: records no data; its outputs are taken for the classes of digits in this order: 0, 1, 2" in (
        caplog.text
    )


@pytest.mark.slow
def test_a_chain_of_commands(teacher, student, tmp_path, monkeypatch, recorded):
    line = f"distill {teacher} --student {student} --epochs 0 prune --ratio 0.2 --epochs 0 -o p.pt"
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, line.split())
    assert result.exit_code == 0, result.output
    rows = json.loads(CliRunner().invoke(cli, ["evaluate", "p.pt", "--split", "val", "--json"]).stdout)
    assert rows[0]["accuracy"] == recorded(read(tmp_path / "p.pt"))["accuracy"] > 0.5
