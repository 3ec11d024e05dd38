"""Two networks meet that were trained with another normalisation and another order of classes."""

import dataclasses

import pytest
import torch

import kdtool
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

NETWORK = "timm:test_resnet"
FAST = {"epochs": 1, "device": "cpu", "precision": "fp32"}

# Options with which a method trains fewer phases, or learns in more ways.
OPTIONS = {
    "born-again": {"generations": 2},
    "mutual": {"teacher_learns": True},
    "assistant": {"refiner": {"name": "halve", "init": "inherit"}},
}
NAMED = [name for name in entry_points.names("distillers") if not method_class("distillers", name).makes_student]


def test_the_teacher_is_wrong_if_it_is_fed_as_the_student_is(teacher, student, score):
    spec = read(student).data
    odd = read(teacher)
    odd.data = spec
    assert kdtool.evaluate(odd, split="val")[0]["accuracy"] < 0.5 < score(teacher)["accuracy"]


# A loss, and several teachers.
QUICK = ("kd", "ensemble")


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        *((name, 0) for name in QUICK),
        *(pytest.param(name, 0, marks=pytest.mark.slow) for name in ("assistant", "simkd")),
        *(pytest.param(name, 1, marks=pytest.mark.slow) for name in NAMED),
    ],
)
def test_what_is_saved_is_what_was_measured(name, epochs, teacher, student, small, tmp_path, score, recorded):
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


@pytest.mark.slow
def test_rows_of_teachers_are_what_evaluate_says(teacher, student, tmp_path, row, row_of):
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


def test_a_teacher_that_learns_too_keeps_its_convention(teacher, student, tmp_path, score, recorded):
    kdtool.distill(teacher, "mutual", student=student, teacher_learns=True, **FAST, output=tmp_path / "m.pt")
    kept = read(tmp_path / "m.run" / "teacher.pt")
    assert (kept.data.std, kept.data.classes[0]) == ((0.05,), "3")
    assert recorded(kept)["accuracy"] == score(kept.path)["accuracy"] > 0.7


@pytest.mark.slow
def test_an_assistant_with_inherited_weights_sees_what_its_teacher_sees(
    teacher, student, small, tmp_path, score, recorded
):
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
                # A teacher that is cut at its stages goes on from maps in float16, whose rounding its layers enlarge.
                least = 1e-2 if plan.pairs else 1e-3
                torch.testing.assert_close(torch.cat(logits), expected, rtol=1e-3, atol=least)
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


@pytest.mark.slow
def test_a_search_and_a_resumed_run_convert_too(teacher, student, tmp_path, score, recorded):
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
