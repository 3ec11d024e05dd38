"""Self-distillation against numpy; where the exits are, and that they are gone."""

import numpy as np
import pytest
import torch
from torch import nn

import kdtool
from kdtool.models.checkpoint import read
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool_distillers.exits import Exits, taps_of
from kdtool_distillers.self import Self, SelfLoss
from kdtool_distillers.step_images import StepImages


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def by_hand(final, exits, last, features, target, alpha, beta, temperature):
    rows = np.arange(len(target))
    hard = sum(-log_softmax(logits)[rows, target].mean() for logits in (final, *exits))
    taught = np.exp(log_softmax(final / temperature))
    soft = sum(-(taught * log_softmax(logits / temperature)).sum(axis=1).mean() * temperature**2 for logits in exits)
    hints = sum(((early - last) ** 2).sum() for early in features)
    return (1 - alpha) * hard + alpha * soft + beta * hints


@pytest.fixture
def outputs(numbers):
    final, exits = numbers(5, 4), [numbers(5, 4), numbers(5, 4)]
    last, features = numbers(5, 6), [numbers(5, 6), numbers(5, 6)]
    auxiliary = [last, features[0], exits[0], features[1], exits[1]]
    return final, exits, last, features, auxiliary, torch.tensor([0, 1, 2, 3, 0])


def test_the_loss_is_the_authors(step_of, outputs):
    final, exits, last, features, auxiliary, target = outputs
    arrays = final.numpy(), [logits.numpy() for logits in exits], last.numpy(), [early.numpy() for early in features]
    step = step_of(student=final, target=target, auxiliary=auxiliary)
    assert SelfLoss(Self()).loss(step).item() == pytest.approx(
        by_hand(*arrays, target.numpy(), 0.1, 1e-6, 3.0), rel=1e-12
    )
    options = {"alpha": 0.3, "beta": 0.01, "temperature": 2.0}
    expected = by_hand(*arrays, target.numpy(), **options)
    assert SelfLoss(Self(**options)).loss(step).item() == pytest.approx(expected, rel=1e-12)


def test_the_last_stage_learns_from_the_labels_alone(step_of, outputs):
    final, _, last, _, auxiliary, target = outputs
    final.requires_grad_()
    last.requires_grad_()
    SelfLoss(Self(beta=1.0)).loss(step_of(student=final, target=target, auxiliary=auxiliary)).backward()
    p = np.exp(log_softmax(final.detach().numpy()))
    np.testing.assert_allclose(final.grad.numpy(), 0.9 * (p - np.eye(4)[target.numpy()]) / 5, rtol=1e-10)
    assert last.grad is None


def test_the_passes_of_a_step_add_up_to_its_loss(step_of, outputs):
    final, _, _, _, auxiliary, target = outputs
    loss = SelfLoss(Self(beta=1.0), StepImages(images=12, batch_size=5))

    def part(images):
        few = [rows[images] for rows in auxiliary]
        return loss.loss(step_of(student=final[images], target=target[images], auxiliary=few)).item()

    whole = SelfLoss(Self(beta=1.0)).loss(step_of(student=final, target=target, auxiliary=auxiliary)).item()
    assert part(slice(5)) == whole  # a step of one pass, to the bit
    assert 0.6 * part(slice(3)) + 0.4 * part(slice(3, 5)) == pytest.approx(whole, rel=1e-12)


def test_the_last_step_of_an_epoch_is_known_to_be_smaller():
    images = StepImages(images=12, batch_size=5)
    images.begin(None, steps=3, epochs=2)
    for epoch in (1, 2):
        for count in (5, 5, 2):
            assert images.count == count
            images.after_step(None, None)
        images.after_epoch(None, epoch)
    images.after_step(None, None)
    images.begin(None, steps=3, epochs=2)
    assert images.count == 5
    assert StepImages(images=3, batch_size=5).count == 3


def test_several_passes_learn_what_one_learns(tmp_path, monkeypatch):
    def without_batch_norm(tap, last):
        return nn.Sequential(nn.Conv2d(tap.channels, last.channels, 1), nn.ReLU())

    monkeypatch.setattr("kdtool_distillers.exits._bottleneck", without_batch_norm)
    few = {"epochs": 2, "batch_size": 16, "optimizer": "sgd", "lr": 0.02, "device": "cpu", "precision": "fp32"}
    path = tmp_path / "t.pt"
    # 40 images: the last step of an epoch has 8, in 2 passes, which are as large as the 4 passes of the others.
    kdtool.teacher("kdtool:lenet-5", data="digits", subset=0.03, augment="none", epochs=0, output=path)
    whole, parts = (
        kdtool.distill(path, "self", beta=0.05, accumulate=passes, output=tmp_path / f"{passes}.pt", **few)
        for passes in (1, 4)
    )
    for name, tensor in whole.module.state_dict().items():
        torch.testing.assert_close(parts.module.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def network(spec, size=32):
    return create(spec, options=NetworkOptions(classes=10, in_channels=3, image_size=size), data=None)


def test_exits_stand_behind_all_stages_but_the_last():
    taps = taps_of(network("kdtool:resnet20"), None)
    assert [tap.path for tap in taps] == ["layer1", "layer2", "layer3"]
    exits = Exits(taps, classes=7)
    maps = [torch.randn(2, *tap.shape) for tap in taps]
    outputs = exits(torch.zeros(2, 3, 32, 32), maps)
    assert [tuple(output.shape) for output in outputs] == [(2, 64), (2, 64), (2, 7), (2, 64), (2, 7)]
    torch.testing.assert_close(outputs[0], maps[-1].mean(dim=(2, 3)))


def test_in_a_transformer_they_stand_behind_blocks():
    paths = [tap.path for tap in taps_of(network("timm:test_vit"), None)]
    assert paths[0].startswith("blocks.")
    assert len(paths) > 1


def test_they_can_be_named():
    assert [tap.path for tap in taps_of(network("kdtool:resnet20"), ["layer1"])] == ["layer1", "layer3"]
    with pytest.raises(kdtool.UsageError, match="is the end of the last stage"):
        taps_of(network("kdtool:resnet20"), ["layer3"])
    with pytest.raises(kdtool.Error, match="has no stages.* use a method that compares logits"):
        taps_of(network("kdtool:lenet-300-100"), None)


def test_without_a_student_the_structure_is_trained_anew_and_loses_its_exits(tmp_path):
    teacher = kdtool.teacher("kdtool:resnet20", data="digits", subset=0.03, epochs=1, output=tmp_path / "t.pt")
    result = kdtool.distill(teacher, "self", epochs=1, output=tmp_path / "s.pt")
    assert result.architecture == teacher.architecture
    weights = teacher.module.state_dict()
    assert list(read(tmp_path / "s.pt").module.state_dict()) == list(weights)
    moved = [name for name, tensor in result.module.state_dict().items() if not torch.equal(tensor, weights[name])]
    assert any(name.endswith("weight") for name in moved)
