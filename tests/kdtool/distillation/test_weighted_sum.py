"""Sums of losses."""

import dataclasses

import pytest
import torch

import kdtool
from kdtool.data.raw import UNLABELLED
from kdtool.models.checkpoint import read
from kdtool.plugins.schedule import Schedule
from kdtool.testing.samples import sample_step


def terms_apart(names, step, owners):
    """Yield the teacher's terms of several losses, each computed by the loss itself on its own maps."""
    for name, options in names.items():
        maps = [pair for pair, owner in zip(step.maps, owners, strict=True) if owner == name.replace("-", "_")]
        unknown = torch.full_like(step.target, UNLABELLED)
        part = dataclasses.replace(step, target=unknown, unlabelled=True, maps=maps, owners=())
        yield kdtool.make("distillers", name, **options).loss(part)


@pytest.mark.parametrize("student", ["convnet", "vit"])
def test_the_labels_count_once_and_every_teachers_term_with_its_weight(student):
    text = "kd:0.7+at:500+dist:3+reviewkd"
    step, module = sample_step(kdtool.make("distillers", text), per_class=3, epoch=0, student=student)
    kd, at, dist, review = terms_apart(
        {"kd": {"alpha": 0.7}, "at": {"weight": 500.0}, "dist": {}, "reviewkd": {}}, step, step.owners
    )
    cross_entropy = torch.nn.functional.cross_entropy(step.student, step.target)
    expected = cross_entropy + kd + at + 3 * dist + review
    loss = kdtool.make("distillers", text).loss(step)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    assert all(torch.isfinite(weight.grad).all() for weight in module.parameters())


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ("kd:0.9", 0.1),
        ("kd:0.9+logit-std", 0.1),
        ("kd:0.9+at:1000", 1.0),
        ("none:0.1+kd:0.9+at:1000", 0.1),
        ("none:1+kd:1", 1.0),
        ("at+none", 1.0),
    ],
)
def test_how_much_the_labels_weigh(text, weight):
    distiller = kdtool.make("distillers", text)
    step, _ = sample_step(distiller, per_class=1, epoch=0)
    unknown = torch.full_like(step.target, UNLABELLED)
    without = distiller.loss(dataclasses.replace(step, target=unknown, unlabelled=True))
    assert (distiller.loss(step) - without).item() == pytest.approx(weight * step.cross_entropy().item(), rel=1e-3)


def test_its_numbers_are_options_or_factors():
    made = kdtool.make("distillers", "kd:0.9->0.5+at:1e+3+rkd:2+cc")
    assert made.kd.alpha == Schedule(0.9, 0.5)
    assert (made.at.weight, made.cc.weight) == (1000.0, 100.0)
    assert made.factors == {"kd": 1.0, "at": 1.0, "rkd": 2.0, "cc": 1.0}
    again = kdtool.make("distillers", made.name, **made.as_data())
    assert again == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kd+kd", "kd occurs twice"),
        ("simkd:1", "simkd is a strategy and has no loss"),
        ("kd+att:1", "no distiller is called 'att'"),
        ("at:-1", "is no weight"),
        ("at:nan", "is no weight"),
        ("at:much", "is neither a number"),
        ("kd:0.9+", "is neither a number"),
        ("+kd", r"\+kd: the first term has no name"),
        ("kd:2", "kd:2 is no term of a sum: --alpha: 2.0 is out of range"),
        ("at:1+kd:0.5->2", r"at:1\+kd:0.5->2: kd:0.5->2 is no term of a sum: --alpha: 2.0 is out of range"),
    ],
)
def test_what_is_no_sum_is_refused(text, message):
    with pytest.raises(kdtool.UsageError, match=message):
        kdtool.make("distillers", text)


def test_a_sum_is_an_objective_and_a_method(teacher_path, tmp_path):
    options = {"student": "kdtool:lenet-300-100", "epochs": 1, "device": "cpu"}
    plain = kdtool.distill(teacher_path, output=tmp_path / "kd.pt", alpha=0.5, **options)
    summed = kdtool.distill(teacher_path, "kd:0.5", output=tmp_path / "sum.pt", **options)
    # The phases have different names, and so different random numbers; only the recorded options can be compared.
    assert summed.history[-1]["options"] == {"kd": {"name": "kd", **plain.history[-1]["options"]}}
    kdtool.distill(teacher_path, "ikd", iters=1, epochs=1, objective="kd:0.9+dist", output=tmp_path / "ikd.pt")
    assert read(tmp_path / "ikd.pt").history[-1]["options"]["objective"]["name"] == "kd:0.9+dist"


def test_options_of_its_losses_are_options_of_the_command_line():
    from click.testing import CliRunner

    from kdtool.cli.main import cli

    text = CliRunner().invoke(cli, ["distill", "--method", "kd:0.9+at:1000", "--help"]).stdout
    assert "\n  --kd-temperature, --temperature NUMBER|A->B" in text
    assert "\n  --at-weight, --weight NUMBER|A->B" in text
    assert "[default: 1000; 0 <= x]" in " ".join(text.split())
    assert "--kd NAME" not in text
