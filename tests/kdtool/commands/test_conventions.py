"""Two networks meet that were trained with another normalisation and another order of classes."""

import dataclasses
import json

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import kdtool
from kdtool.cli.main import cli
from kdtool.data.opening import open_spec
from kdtool.features.segments import Segment
from kdtool.models.checkpoint import read
from kdtool.models.conversion import seen_in
from kdtool.plugins import entry_points
from kdtool.plugins.registry import method_class
from kdtool.training.engine import engine_for
from kdtool.training.options import Training
from kdtool.training.output_cache import Cache
from kdtool.training.plan import FitPlan

ORDER = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
NETWORK = "timm:test_resnet"
IMAGES = {"data": "digits", "subset": 0.2, "image_size": 16, "augment": "none", "device": "cpu"}
TRAINED = {**IMAGES, "lr": 1e-2, "batch_size": 32, "epochs": 5}
FAST = {"epochs": 1, "device": "cpu", "precision": "fp32"}

# Options with which a method trains fewer phases, or learns in more ways.
OPTIONS = {
    "born-again": {"generations": 2},
    "mutual": {"teacher_learns": True},
    "assistant": {"refiner": {"name": "halve", "init": "inherit"}},
}
NAMED = [name for name in entry_points.names("distillers") if not method_class("distillers", name).makes_student]


def reordered(path, to):
    """Write a copy of a checkpoint with its classes, and the rows of its classifier, in another order."""
    checkpoint = read(path)
    last = [module for module in checkpoint.module.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.copy_(last.weight[ORDER])
        last.bias.copy_(last.bias[ORDER])
    classes = tuple(checkpoint.data.classes[index] for index in ORDER)
    checkpoint.data = dataclasses.replace(checkpoint.data, classes=classes)
    return checkpoint.save(to).path


def score(path, split="val", **options):
    (row,) = kdtool.evaluate(path, split=split, device="cpu", **options)
    return {key: row[key] for key in ("split", "accuracy", "error", "images")}


def recorded(checkpoint, split="val"):
    (row,) = [row for row in checkpoint.metrics if row["split"] == split]
    return {key: row[key] for key in ("split", "accuracy", "error", "images")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("conventions")


@pytest.fixture(scope="module")
def teacher(folder):
    """A teacher whose images are dark and whose classes are shuffled."""
    kdtool.teacher(NETWORK, **TRAINED, mean=(0.0,), std=(0.05,), output=folder / "plain.pt")
    path = reordered(folder / "plain.pt", folder / "teacher.pt")
    assert score(path) == score(folder / "plain.pt")
    return path


@pytest.fixture(scope="module")
def student(folder):
    """A student with the normalisation and the order of classes of the data set."""
    kdtool.teacher(NETWORK, **TRAINED, seed=1, output=folder / "student.pt")
    return folder / "student.pt"


@pytest.fixture(scope="module")
def small(folder, student):
    """A student that is smaller than an assistant."""
    return kdtool.refine(student, "halve", times=2, init="inherit", output=folder / "small.pt").path


def test_the_teacher_is_wrong_if_it_is_fed_as_the_student_is(teacher, student):
    spec = read(student).data
    odd = read(teacher)
    odd.data = spec
    assert kdtool.evaluate(odd, split="val")[0]["accuracy"] < 0.5 < score(teacher)["accuracy"]


QUICK = ("assistant", "born-again", "ensemble", "kd", "mutual", "simkd", "stagewise")


@pytest.mark.parametrize(
    ("name", "epochs"),
    [*((name, 0) for name in QUICK), *(pytest.param(name, 1, marks=pytest.mark.slow) for name in NAMED)],
)
def test_what_is_saved_is_what_was_measured(name, epochs, teacher, student, small, tmp_path):
    method = method_class("distillers", name)
    teachers = [teacher, student] if method.several_teachers else teacher
    named = small if name == "assistant" else student
    options = {**FAST, "epochs": epochs, **OPTIONS.get(name, {})}
    result = kdtool.distill(teachers, name, student=named, **options, output=tmp_path / "s.pt")
    own, known = read(tmp_path / "s.pt").data, read(student).data
    assert (own.mean, own.std, own.classes) == (known.mean, known.std, known.classes)
    for split in ("val", "test"):
        assert score(tmp_path / "s.pt", split) == recorded(result, split)
    kept = sorted((tmp_path / "s.run").glob("*.pt"))
    for path in kept:
        assert score(path) == recorded(read(path)), path.name
    if epochs == 0 and name not in ("simkd", "born-again"):  # which change or choose weights before any training
        assert recorded(result) == score(named)


def row(checkpoint, model):
    (found,) = [row for row in checkpoint.history[-1]["rows"] if row["model"] == model]
    return {"accuracy": found["val_accuracy"], "error": found["error"]}


def row_of(path):
    return {"accuracy": score(path)["accuracy"], "error": score(path, "test")["error"]}


def test_rows_of_teachers_are_what_evaluate_says(teacher, student, tmp_path):
    result = kdtool.distill(
        [teacher, student], "ensemble", student=student, **{**FAST, "epochs": 0}, output=tmp_path / "e.pt"
    )
    assert row(result, "teacher 1") == row_of(teacher)
    assert row(result, "teacher 2") == row_of(student)
    # Both are right on most images, so that their mean is, if their classes are in one order.
    assert row(result, "all teachers")["accuracy"] > 0.8
    result = kdtool.distill(
        teacher, "mutual", student=student, teacher_learns=True, **{**FAST, "epochs": 0}, output=tmp_path / "m.pt"
    )
    assert row(result, "teacher") == row_of(teacher)
    assert row_of(tmp_path / "m.run" / "teacher.pt") == row_of(teacher)
    assert read(tmp_path / "m.run" / "teacher.pt").data.classes == read(teacher).data.classes


def test_a_teacher_that_learns_too_keeps_its_convention(teacher, student, tmp_path):
    kdtool.distill(teacher, "mutual", student=student, teacher_learns=True, **FAST, output=tmp_path / "m.pt")
    kept = read(tmp_path / "m.run" / "teacher.pt")
    assert (kept.data.std, kept.data.classes[0]) == ((0.05,), "3")
    assert recorded(kept)["accuracy"] == score(kept.path)["accuracy"] > 0.7


def test_an_assistant_with_inherited_weights_sees_what_its_teacher_sees(teacher, student, small, tmp_path):
    kdtool.distill(
        teacher,
        "assistant",
        student=small,
        refiner={"name": "halve", "ratio": 0.9, "init": "inherit"},
        **{**FAST, "epochs": 0},
        output=tmp_path / "a.pt",
    )
    kept, alone = read(tmp_path / "a.run" / "assistant-1.pt"), tmp_path / "alone.pt"
    assert (kept.data.std, kept.data.classes[0]) == ((0.05,), "3")
    kdtool.refine(teacher, "halve", ratio=0.9, init="inherit", output=alone)
    assert recorded(kept) == score(alone)


def test_the_batches_of_a_phase_hold_the_teachers_own_answers(teacher, student, tmp_path):
    """Logits and maps, computed from the images, from a cached map and read from the cache."""
    origin, own = read(student), read(teacher)
    data, own_data = open_spec(origin.data), open_spec(own.data)
    with torch.no_grad():
        images = next(own_data.val.batches(1000))[1]
        place = {name: index for index, name in enumerate(own.data.classes)}
        expected = own.module(images)[:, [place[name] for name in origin.data.classes]]
    training = Training(**{**FAST, "cache": "on"})
    cache = Cache(tmp_path / "cache", 10**9)
    for objective in ("kd", "simultaneous", "kd:1+simultaneous:1"):
        for _ in range(2):  # the second time, all is read
            loss = kdtool.make("distillers", objective)
            taught_by = seen_in(own, data.spec).network
            plan = FitPlan("phase", origin.network, taught_by, loss, None, None, training)
            engine = engine_for(training, 16, *plan.networks)
            batches, _ = plan.batches(data, engine, cache)
            batches.split = data.val
            logits, maps = [], []
            for batch in batches.batches(64):
                logits.append(batch.teacher)
                maps.append(batch.maps)
            if loss.logits:
                torch.testing.assert_close(torch.cat(logits), expected, rtol=1e-3, atol=1e-3)
            for index, pair in enumerate(plan.pairs):
                with torch.no_grad():
                    _, direct = Segment().run(own.module, images, [pair.teacher])
                of_pair = torch.cat([rows[index] for rows in maps])
                torch.testing.assert_close(of_pair, direct[pair.teacher.path], rtol=2e-2, atol=2e-2)


def test_another_convention_has_another_key(teacher, student):
    own, spec = read(teacher), read(student).data
    keys = set()
    for changed in (spec, dataclasses.replace(spec, std=(0.9,)), dataclasses.replace(spec, classes=own.data.classes)):
        network = seen_in(own, changed).network
        plan = FitPlan("p", read(student).network, network, kdtool.make("distillers", "kd"), None, None, Training())
        frozen = plan._frozen_teacher(engine_for(Training(device="cpu"), 4, network), None)
        keys.add((plan.key, frozen.keys["logits"]))
    assert len({key for key, _ in keys}) == len({key for _, key in keys}) == 3


def test_a_search_and_a_resumed_run_convert_too(teacher, student, tmp_path):
    result = kdtool.distill(
        teacher, "kd", student=student, search="temperature=1,4", **{**FAST, "epochs": 2}, output=tmp_path / "s.pt"
    )
    assert recorded(result) == score(tmp_path / "s.pt")
    first = result.history[-1]["search"]["rounds"][0]["results"]
    assert min(setting["accuracy"] for setting in first) > 0.5
    again = kdtool.distill(
        teacher,
        "kd",
        student=student,
        search="temperature=1,4",
        **{**FAST, "epochs": 2},
        output=tmp_path / "s.pt",
        resume=True,
    )
    assert again.metrics == result.metrics


def test_a_run_is_not_resumed_with_a_teacher_that_is_said_to_see_otherwise(teacher, student, tmp_path):
    told = {"student": student, **{**FAST, "epochs": 0}, "output": tmp_path / "s.pt"}
    kdtool.distill(teacher, "kd", **told)
    odd = read(teacher)
    odd.data = dataclasses.replace(odd.data, std=(0.1,))
    odd.save(tmp_path / "odd.pt")
    with pytest.raises(kdtool.UsageError, match="--resume needs the same command: teachers was"):
        kdtool.distill(odd.path, "kd", **told, resume=True)


def test_weights_that_go_on_keep_their_convention_and_it_is_said(teacher, tmp_path, caplog):
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


def test_a_teacher_that_is_pruned_at_once_keeps_its_convention(teacher, tmp_path):
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


def test_a_new_student_takes_the_convention_of_its_teacher(teacher, tmp_path):
    result = kdtool.distill(teacher, "kd", student=NETWORK, **FAST, output=tmp_path / "s.pt")
    assert (result.data.std, result.data.classes[0]) == ((0.05,), "3")
    assert recorded(result) == score(tmp_path / "s.pt")


def test_chosen_mean_and_std_are_those_of_the_student_alone(teacher, tmp_path, caplog):
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


def test_a_pruned_network_is_retrained_by_a_teacher_that_sees_its_own_images(teacher, tmp_path, monkeypatch):
    seen = []
    fit = kdtool.Run.fit

    def watched(self, name, student, *, teacher=None, **options):
        seen.append(self.evaluate(teacher)["accuracy"])
        return fit(self, name, student, teacher=teacher, **options)

    monkeypatch.setattr(kdtool.Run, "fit", watched)
    kdtool.prune(teacher, ratio=0.5, **FAST, mean=(0.5,), std=(0.5,), output=tmp_path / "p.pt")
    assert seen == [score(teacher)["accuracy"]]


def test_networks_of_two_conventions_are_compared_by_name(teacher, student, folder, tmp_path):
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


def test_what_is_taken_for_granted_is_said(teacher, student, tmp_path, caplog):
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
        "10 in all; its images are normalised by mean 0 and std 0.05"
    ) in caplog.text
    assert recorded(result) == score(tmp_path / "s.pt")
    caplog.clear()
    kdtool.distill([student, unknown], "ensemble", student=NETWORK, **{**FAST, "epochs": 0}, output=tmp_path / "e.pt")
    assert "unknown.pt: records no data; its outputs are taken for the classes of digits in this order: 0, 1, 2" in (
        caplog.text
    )


def test_a_chain_of_commands(teacher, student, tmp_path, monkeypatch):
    line = f"distill {teacher} --student {student} --epochs 0 prune --ratio 0.2 --epochs 0 -o p.pt"
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, line.split())
    assert result.exit_code == 0, result.output
    rows = json.loads(CliRunner().invoke(cli, ["evaluate", "p.pt", "--split", "val", "--json"]).stdout)
    assert rows[0]["accuracy"] == recorded(read(tmp_path / "p.pt"))["accuracy"] > 0.5
