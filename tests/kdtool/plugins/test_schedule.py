"""Numbers that change in the course of a phase."""

import pytest
import torch

import kdtool
from kdtool.plugins.schedule import Schedule, number_or_schedule
from kdtool.training.step import Step


def test_it_goes_evenly_from_the_first_epoch_to_the_last():
    schedule = Schedule.parse("4->1")
    assert [schedule.at(epoch, 4) for epoch in range(4)] == [4.0, 3.0, 2.0, 1.0]
    assert schedule.at(0, 1) == 4.0
    assert Schedule.parse(str(Schedule(0.1, 1e-6))) == Schedule(0.1, 1e-6)


@pytest.mark.parametrize("text", ["warm", "4->", "->1", "4->1->2", "4-"])
def test_what_is_none_is_refused(text):
    with pytest.raises(kdtool.UsageError, match="schedule"):
        number_or_schedule(text)


def test_what_the_shell_left_of_one_is_recognised():
    with pytest.raises(kdtool.UsageError, match=r"quote a schedule, '4->1'"):
        kdtool.make("distillers", "kd", temperature="4-")


@pytest.mark.parametrize("value", ["4->0", "0->4", 0, Schedule(1.0, -1.0)])
def test_both_ends_are_within_the_bounds(value):
    with pytest.raises(kdtool.UsageError, match="--temperature: .* out of range"):
        kdtool.make("distillers", "kd", temperature=value)


def test_an_option_takes_a_number_or_a_schedule():
    assert kdtool.make("distillers", "kd", temperature=4).temperature == 4.0
    assert kdtool.make("distillers", "kd", temperature="4").temperature == 4.0
    kd = kdtool.make("distillers", "kd", temperature="4->1")
    assert kd.temperature == Schedule(4.0, 1.0)
    assert kd.as_data()["temperature"] == "4.0->1.0"
    assert kdtool.make("distillers", "kd", **kd.as_data()) == kd


def test_a_loss_follows_it():
    student, teacher = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    for epoch, temperature in enumerate((4.0, 2.5, 1.0)):
        step = Step(student, torch.tensor([0, 1, 2, 0]), torch.zeros(4), teacher, epoch=epoch, epochs=3)
        moving = kdtool.make("distillers", "kd", temperature="4->1", alpha="0.9->0.5").loss(step)
        alpha = 0.9 - 0.2 * epoch
        fixed = kdtool.make("distillers", "kd", temperature=temperature, alpha=alpha).loss(step)
        assert torch.equal(moving, fixed) or moving.item() == pytest.approx(fixed.item(), rel=1e-6)
