"""The Python API: what its functions return, store in checkpoints, and refuse."""

import os
import time

import pytest
import torch

import kdtool
from kdtool.models.checkpoint import read


def test_a_teacher_without_data_is_only_built(tmp_path):
    built = kdtool.teacher("kdtool:lenet-5", classes=7, image_size=28, output=tmp_path / "t.pt")
    assert built.metrics == []
    assert built.data is None
    assert built.module(torch.zeros(2, 1, 28, 28)).shape == (2, 7)
    assert list(tmp_path.iterdir()) == [tmp_path / "t.pt"]


def test_training_options_without_data_are_refused(tmp_path):
    with pytest.raises(kdtool.UsageError, match="--epochs: nothing is trained without --data"):
        kdtool.teacher("kdtool:lenet-5", epochs=3, output=tmp_path / "t.pt")
    with pytest.raises(kdtool.UsageError, match="--track: nothing is trained without --data"):
        kdtool.teacher("kdtool:lenet-5", track="tensorboard", output=tmp_path / "t.pt")


def test_a_teacher_is_trained_and_measured_on_both_splits(teacher_path):
    teacher = read(teacher_path)
    assert [entry["split"] for entry in teacher.metrics] == ["val", "test"]
    assert teacher.metric("test", "accuracy") > 0.5
    assert teacher.data.classes == tuple("0123456789")


def test_inspect_has_the_promised_keys(teacher_path):
    facts = kdtool.inspect(teacher_path)
    keys = {"parameters", "nonzero", "macs", "classes", "input", "architecture", "data", "metrics", "history"}
    assert keys <= set(facts)
    assert facts["parameters"] == 64 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10
    assert facts["macs"] == 64 * 300 + 300 * 100 + 100 * 10
    assert facts["input"] == [1, 8, 8]
    assert facts["history"][0]["line"].startswith("kdtool teacher kdtool:lenet-300-100 --data digits --epochs 3 -o ")


def test_history_grows_and_its_lines_can_be_run(teacher_path, tmp_path):
    student = kdtool.distill(
        teacher_path, student="kdtool:lenet-300-100", refiner=None, epochs=1, output=tmp_path / "s.pt"
    )
    pruned = kdtool.prune(student, ratio=0.5, epochs=1, teacher=False, output=tmp_path / "p.pt")
    lines = [entry["line"] for entry in pruned.history]
    assert lines[1:] == [
        f"kdtool distill {teacher_path} --method kd --student kdtool:lenet-300-100 --epochs 1 -o {tmp_path}/s.pt",
        f"kdtool prune {tmp_path}/s.pt --method magnitude --ratio 0.5 --epochs 1 --no-teacher -o {tmp_path}/p.pt",
    ]


def test_pruning_holds_its_zeros_through_retraining(teacher_path, tmp_path):
    pruned = kdtool.prune(teacher_path, ratio=0.8, epochs=2, output=tmp_path / "p.pt")
    weights = 64 * 300 + 300 * 100 + 100 * 10
    biases = 300 + 100 + 10
    assert kdtool.inspect(pruned)["nonzero"] == weights - round(0.8 * weights) + biases
    before, after = read(teacher_path).module.state_dict(), pruned.module.state_dict()
    assert any(not torch.equal(before[name][after[name] != 0], after[name][after[name] != 0]) for name in before)


def test_pruning_without_retraining_needs_no_data(tmp_path):
    built = kdtool.teacher("kdtool:lenet-300-100", output=tmp_path / "t.pt")
    with pytest.raises(kdtool.UsageError, match="remembers no data set"):
        kdtool.prune(built, ratio=0.5)
    pruned = kdtool.prune(built, ratio=0.5, epochs=0, output=tmp_path / "p.pt")
    assert kdtool.inspect(pruned)["nonzero"] < 0.6 * kdtool.inspect(built)["parameters"]


def test_refine_then_distil_from_a_file(teacher_path, tmp_path):
    small = kdtool.refine(teacher_path, method="halve", init="inherit", output=tmp_path / "small.pt")
    assert small.history[-1]["line"].startswith(f"kdtool refine {teacher_path} --method halve --init inherit")
    student = kdtool.distill(teacher_path, student=tmp_path / "small.pt", epochs=1, output=tmp_path / "s.pt")
    roles = {source["role"]: source for source in student.history[-1]["inputs"]}
    assert roles["student"]["path"] == str(tmp_path / "small.pt")
    assert kdtool.inspect(student)["parameters"] == kdtool.inspect(small)["parameters"]


def test_a_student_of_other_classes_or_input_is_refused(teacher_path, tmp_path):
    for shape, says in (({"classes": 7, "image_size": 8}, "classes"), ({"image_size": 16}, "images")):
        other = kdtool.teacher("kdtool:lenet-300-100", **shape, output=tmp_path / "o.pt", force=True)
        with pytest.raises(kdtool.Error, match=says):
            kdtool.distill(teacher_path, student=other.path, output=tmp_path / "s.pt")
    assert not (tmp_path / "s.pt").exists()
    assert not (tmp_path / "s.run").exists()


def test_evaluate_looks_at_the_split_that_is_named(teacher_path):
    (test,) = kdtool.evaluate(teacher_path)
    (val,) = kdtool.evaluate([teacher_path], split="val")
    teacher = read(teacher_path)
    assert test["split"] == "test"
    assert test["accuracy"] == pytest.approx(teacher.metric("test", "accuracy"))
    assert val["accuracy"] == pytest.approx(teacher.metric("val", "accuracy"))
    assert test["images"] + val["images"] < 1797


def test_compare_by_hand(teacher_path, tmp_path):
    same = kdtool.compare(teacher_path, teacher_path)
    assert (same["classified_differently"], same["agreement"], same["l2"]) == (0, 1.0, 0.0)
    shifted = read(teacher_path)
    with torch.no_grad():
        last = [module for module in shifted.module.modules() if isinstance(module, torch.nn.Linear)][-1]
        last.bias += torch.tensor([3.0, 4.0] + [0.0] * 8)
    shifted.save(tmp_path / "shifted.pt")
    result = kdtool.compare(teacher_path, tmp_path / "shifted.pt")
    assert result["l2"] == pytest.approx(5.0, rel=1e-5)
    assert result["l2_sum"] == pytest.approx(5.0 * result["images"], rel=1e-5)
    assert result["classified_differently"] > 0
    assert result["agreement"] == 1 - result["classified_differently"] / result["images"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda t: kdtool.distill(t, method="idk"), "did you mean ikd?"),
        (lambda t: kdtool.distill(t, method="ikd", itters=4), "did you mean iters"),
        (lambda t: kdtool.prune(t, ratio=1.5), "--ratio: 1.5 is out of range"),
        (lambda t: kdtool.teacher("timm:resnet81"), "did you mean resnet18"),
        (lambda t: kdtool.teacher("resnet18"), "timm:NAME"),
        (lambda t: kdtool.teacher("kdtool:lenet-5", data="digitz"), "did you mean digits"),
        (lambda t: kdtool.distill(t, method="ikd", output="no/such/dir/x.pt"), "no directory"),
        (lambda t: kdtool.distill(t, method="ikd", device="cuda:77"), "no such device"),
        (lambda t: kdtool.load("missing.pt"), "missing.pt"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(teacher_path, tmp_path, monkeypatch, call, says):
    monkeypatch.chdir(tmp_path)
    before = set(teacher_path.parent.iterdir())
    with pytest.raises(kdtool.Error, match=says) as caught:
        call(teacher_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert set(teacher_path.parent.iterdir()) == before


def test_importing_kdtool_imports_no_torch():
    import subprocess
    import sys

    code = "import kdtool, kdtool.training.options, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_script_of_several_processes_makes_a_file_once(teacher_path, tmp_path, in_processes):
    def work():
        from kdtool.utils import decided, together

        if os.environ["RANK"] == "1":
            time.sleep(0.5)
        with together("cpu"):
            path = decided(lambda: kdtool.refine(teacher_path, output=tmp_path / "small.pt").path)
        assert kdtool.load(path).history[-1]["command"] == "refine"

    assert in_processes(work) == [0, 0]
