"""``--batch-size auto``: a step that is too large for a device is taken in more passes, and nothing else changes."""

import json

import pytest
import torch

import kdtool
from kdtool.commands.inputs import data_for
from kdtool.commands.recipes import settled
from kdtool.training.epochs.learner import Learner
from kdtool.training.loop import Loop
from kdtool.training.memory import passes as memory
from kdtool.training.options import BatchSize, Training
from kdtool.utils.verbosity import announcing

OPTIONS = {"epochs": 2, "subset": 0.2, "views": 2, "precision": "fp32", "optimizer": "sgd", "lr": 0.01}


@pytest.fixture
def small_memory(monkeypatch):
    """A device whose memory holds as many images as the function is told; it returns the sizes that were refused."""
    forward, refused = Learner.forward, []

    def holds(images):
        def limited(self, batch, *arguments):
            if self.training and len(batch.inputs) > images:
                refused.append(len(batch.inputs))
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation")
            return forward(self, batch, *arguments)

        monkeypatch.setattr(Learner, "forward", limited)
        return refused

    monkeypatch.setattr(memory, "is_limited", lambda device: True)
    return holds


def weights(checkpoint):
    return checkpoint.module.state_dict()


def equal(a, b):
    return all(torch.equal(tensor, weights(b)[name]) for name, tensor in weights(a).items())


@pytest.mark.parametrize(
    ("batch_size", "passes", "more"),
    # By hand: at least twice as many, of equal size, with at least two images each.
    [
        (64, 1, 2),
        (64, 2, 4),
        (64, 16, 32),
        (64, 32, None),
        (100, 2, 4),
        (100, 4, 10),
        (6, 1, 2),
        (6, 2, None),
        (5, 1, None),
    ],
)
def test_passes_divide_a_step(batch_size, passes, more):
    assert memory.more_passes(batch_size, passes) == more


def test_a_step_that_is_too_large_is_taken_in_passes(small_memory, teacher_path, tmp_path, capsys):
    asked = kdtool.distill(
        teacher_path, "kd", refiner="halve", batch_size=64, accumulate=4, output=tmp_path / "a.pt", **OPTIONS
    )
    refused = small_memory(20)
    found = kdtool.distill(
        teacher_path, "kd", refiner="halve", batch_size="auto:64", output=tmp_path / "b.pt", **OPTIONS
    )

    assert refused == [64, 32]
    assert equal(asked, found)
    assert found.history[-1]["passes"] == {"kd": 4}
    assert found.history[-1]["training"]["batch_size"] == "auto:64"
    assert "passes" not in asked.history[-1]
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "auto" in line]
    assert said.startswith(
        "--batch-size auto: cpu has no memory for 64 images at once; kd takes a step in 4 passes of 16"
    )


def test_a_resumed_training_takes_the_passes_that_were_found(small_memory, teacher_path, tmp_path, monkeypatch):
    small_memory(20)
    options = {**OPTIONS, "method": "kd", "refiner": "halve", "batch_size": "auto:64", "epochs": 3}
    whole = kdtool.distill(teacher_path, output=tmp_path / "whole.pt", **options)
    log = Loop._one_epoch

    def killed(self, *arguments):
        if self.state.epoch == 2:
            raise KeyboardInterrupt
        log(self, *arguments)

    monkeypatch.setattr(Loop, "_one_epoch", killed)
    monkeypatch.setattr("kdtool.training.phase.SAVING_SHARE", float("inf"))
    with pytest.raises(KeyboardInterrupt):
        kdtool.distill(teacher_path, output=tmp_path / "cut.pt", **options)
    kept = next((tmp_path / "cut.run").rglob(memory.PASSES))
    assert json.loads(kept.read_text()) == {"accumulate": 4}
    monkeypatch.setattr(Loop, "_one_epoch", log)
    # By now the memory would hold all images; the passes stay what they were.
    refused = small_memory(1000)
    refused.clear()
    again = kdtool.distill(teacher_path, output=tmp_path / "cut.pt", resume=True, **options)
    assert equal(whole, again)
    assert refused == []
    assert again.history[-1]["passes"] == {"kd": 4}


def test_the_cpu_takes_the_batch_of_the_recipe(teacher_path, tmp_path, capsys):
    options = {**OPTIONS, "refiner": "halve", "epochs": 1}
    del options["optimizer"], options["lr"]
    plain = kdtool.distill(teacher_path, "kd", recipe="standard", output=tmp_path / "a.pt", **options)
    auto = kdtool.distill(teacher_path, "kd", recipe="standard", batch_size="auto", output=tmp_path / "b.pt", **options)
    assert plain.history[-1]["training"]["batch_size"] == 128
    assert auto.history[-1]["training"]["batch_size"] == "auto:128"
    assert equal(plain, auto)
    assert (
        "--batch-size auto: 128 images per step; on the CPU they are not divided"
        in capsys.readouterr().err.splitlines()
    )
    assert not list((tmp_path / "b.run").rglob(memory.PASSES))


@pytest.mark.parametrize(
    ("given", "images"),
    [
        ({"batch_size": "auto", "recipe": "standard"}, 128),
        ({"batch_size": "auto:32", "recipe": "standard"}, 32),
        ({"batch_size": "auto", "recipe": "quick"}, 64),
        ({"batch_size": "auto", "optimizer": "adam", "epochs": 100}, 64),  # no recipe is chosen then
        ({"batch_size": "auto", "epochs": 100}, 128),
    ],
)
def test_auto_leaves_the_number_of_images_to_the_recipe(given, images, teacher_path, capsys):
    checkpoint = kdtool.load(teacher_path)
    data = data_for(checkpoint, {})
    training, _ = settled(Training(**given), given, data, {}, checkpoint.network, automatic=True, kept=False)
    assert (training.batch_size, training.batch_size.auto) == (images, True)


def test_a_forecast_knows_the_passes(small_memory, teacher_path, tmp_path, capsys):
    refused = small_memory(40)
    with announcing():
        kdtool.distill(teacher_path, "kd", refiner="halve", batch_size="auto:64", output=tmp_path / "s.pt", **OPTIONS)
    assert refused == [64, 64]  # once for the forecast and once for the training
    said = capsys.readouterr().err
    assert "makes s.pt" in said
    assert "out of memory" not in said


def test_the_steps_that_are_tried_share_what_loss_and_callback_share(small_memory, tmp_path):
    # The loss of crd reads and fills a memory of all images, which is a callback too.
    path = tmp_path / "teacher.pt"
    kdtool.teacher("kdtool:lenet-5", data="digits", epochs=0, output=path)
    options = {**OPTIONS, "epochs": 1, "method": "crd", "negatives": 16, "refiner": "halve"}
    refused = small_memory(40)
    found = kdtool.distill(path, batch_size="auto:64", output=tmp_path / "a.pt", **options)
    assert refused == [64]
    asked = kdtool.distill(path, batch_size=64, accumulate=2, output=tmp_path / "b.pt", **options)
    assert equal(asked, found)


@pytest.mark.slow
def test_what_never_fits_is_an_error_of_one_line(small_memory, teacher_path, tmp_path):
    small_memory(1)
    with pytest.raises(
        kdtool.Error, match="does not suffice for 2 images at once.*Tried to allocate 2.00 GiB"
    ) as caught:
        kdtool.distill(teacher_path, "kd", refiner="halve", batch_size="auto:64", output=tmp_path / "s.pt", **OPTIONS)
    assert "\n" not in str(caught.value)


def test_an_error_without_a_message_is_named_by_its_class(teacher_path, tmp_path, monkeypatch):
    def no_memory(*about):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Learner, "forward", no_memory)
    with pytest.raises(kdtool.Error, match=r"64 images at once \(OutOfMemoryError\); try "):
        kdtool.distill(teacher_path, "kd", refiner="halve", batch_size=64, output=tmp_path / "s.pt", **OPTIONS)


def test_without_auto_the_way_out_is_named(small_memory, teacher_path, tmp_path):
    small_memory(20)
    with pytest.raises(kdtool.Error, match="64 images at once.*--batch-size auto:64, --accumulate 2,") as caught:
        kdtool.distill(teacher_path, "kd", refiner="halve", batch_size=64, output=tmp_path / "s.pt", **OPTIONS)
    assert "\n" not in str(caught.value)


def test_another_failure_is_not_taken_for_a_lack_of_memory():
    def fails(plan):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        memory.first_that_fits(None, fails)
    assert memory.is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"))
    assert not memory.is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize(
    ("text", "images", "auto"), [("32", 32, False), ("auto", 64, True), ("auto:256", 256, True), (16, 16, False)]
)
def test_a_batch_size_is_a_number_or_auto(text, images, auto):
    size = Training(batch_size=text).batch_size
    assert (size, size.auto) == (images, auto)
    assert Training(batch_size=str(size)).as_data() == Training(batch_size=size).as_data()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1e3", "expected a whole number or auto, got '1e3'; write 1000"),
        ("big", "expected a whole number or auto, got 'big'"),
        ("auto:x", "expected a whole number or auto, got 'auto:x'"),
        ("0", "0 is out of range"),
        ("auto:0", "auto:0 is out of range"),
    ],
)
def test_other_words_are_refused(text, message):
    with pytest.raises(kdtool.UsageError, match=message):
        Training(batch_size=text)


def test_a_number_is_recorded_as_before():
    assert type(Training(batch_size=BatchSize(32)).as_data()["batch_size"]) is int
