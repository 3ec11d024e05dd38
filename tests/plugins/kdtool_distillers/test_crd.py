"""CRD against the authors' memory and loss, in numpy; what is drawn, and what a killed run remembers."""

import numpy as np
import pytest
import torch

import kdtool
from kdtool import Error, UsageError
from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.models.checkpoint import read
from kdtool_distillers.contrast import Embeddings, Memory
from kdtool_distillers.crd import CRD, CRDLoss, contrastive

LABELS = torch.tensor([2, 0, 1, 0, 2, 2, 0, 1])


class Authors:
    """The memory and the loss of the authors' repository."""

    def __init__(self, banks, temperature, momentum):
        self.banks, self.temperature, self.momentum = [bank.copy() for bank in banks], temperature, momentum
        self.scales = [None, None]

    def loss(self, embeddings, rows, indices):
        total, images = 0.0, len(self.banks[0])
        for number in range(2):
            taken = self.banks[1 - number][indices]
            raw = np.exp(np.einsum("bkd,bd->bk", taken, embeddings[number]) / self.temperature)
            if self.scales[number] is None:
                self.scales[number] = raw.mean() * images
            score, noise = raw / self.scales[number], (indices.shape[1] - 1) / images
            hits = np.log(score[:, 0] / (score[:, 0] + noise + 1e-7))
            misses = np.log(noise / (score[:, 1:] + noise + 1e-7))
            total += -(hits.sum() + misses.sum()) / len(rows)
        for bank, own in zip(self.banks, embeddings, strict=True):
            moved = self.momentum * bank[rows] + (1 - self.momentum) * own
            bank[rows] = moved / np.sqrt((moved**2).sum(axis=1, keepdims=True))
        return total


@pytest.fixture
def memory():
    torch.manual_seed(0)
    memory = Memory(LABELS, size=6, momentum=0.5)
    memory.banks = [bank.double() for bank in memory.banks]
    memory.begin(torch.nn.Linear(1, 1), steps=1, epochs=2)
    return memory


def test_two_steps_are_the_authors(numbers, step_of, memory):
    torch.manual_seed(1)
    options = CRD(negatives=20, temperature=0.2, weight=0.8, size=6)
    theirs = Authors([bank.numpy() for bank in memory.banks], 0.2, 0.5)
    layers = Embeddings((3, 4), 6).double()
    for rows in ([3, 0, 6], [7, 3, 4]):
        maps = [(numbers(3, 3, 2, 2), numbers(3, 4, 1, 1))]
        step = step_of(maps, target=LABELS[rows] % 3, auxiliary=layers(torch.zeros(3), []), indices=torch.tensor(rows))
        with torch.random.fork_rng():
            drawn = memory.negatives(step.target, 20)
        loss = CRDLoss(options, memory).loss(step)
        embeddings = []
        for features, layer in zip(maps[0], layers.layers, strict=True):
            weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
            raw = features.numpy().mean(axis=(2, 3)) @ weight.T + bias
            embeddings.append(raw / np.sqrt((raw**2).sum(axis=1, keepdims=True)))
        indices = np.concatenate([np.array(rows)[:, None], drawn.numpy()], axis=1)
        expected = theirs.loss(embeddings, np.array(rows), indices)
        assert loss.item() - step.cross_entropy().item() == pytest.approx(0.8 * expected, rel=1e-9)
        loss.backward()
        memory.after_step(layers, step)
        for ours, bank in zip(memory.banks, theirs.banks, strict=True):
            np.testing.assert_allclose(ours.numpy(), bank, rtol=1e-10)
    assert all(parameter.grad.abs().sum() > 0 for parameter in layers.parameters())


def test_negatives_are_all_images_of_other_classes_alike(memory):
    torch.manual_seed(0)
    for label in range(3):
        drawn = memory.negatives(torch.full((4,), label), 5000)
        assert drawn.shape == (4, 5000)
        others = (label != LABELS).nonzero().flatten()
        counts = drawn.flatten().bincount(minlength=len(LABELS))
        assert counts[label == LABELS].sum() == 0
        # 20000 draws: the standard deviation of a share of 1/6 to 1/5 is less than 0.003.
        np.testing.assert_allclose(counts[others] / 20000, np.full(len(others), 1 / len(others)), atol=0.015)


def test_the_loss_by_hand():
    # Two negatives of four images: the noise is 1/2, and every score is 1/2.
    loss = contrastive(torch.full((3, 3), 0.5, dtype=torch.float64), 4)
    assert loss.item() == pytest.approx(3 * np.log(2), rel=1e-6)


def test_gradient(numbers):
    scores = numbers(3, 5).exp().requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: contrastive(rows, 9), scores)


def test_the_first_scores_are_one_of_all_images_on_average(numbers, memory):
    embeddings = [torch.nn.functional.normalize(numbers(4, 6)) for _ in range(2)]
    indices = torch.randint(8, (4, 30))
    for scores in memory.scores(embeddings, indices, 0.5):
        assert scores.mean().item() == pytest.approx(1 / 8)


def test_what_is_remembered_goes_through_the_state(memory):
    memory.scores([torch.ones(2, 6).double()] * 2, torch.zeros(2, 3, dtype=torch.long), 0.5)
    other = Memory(LABELS, size=6, momentum=0.5)
    other.load(memory.state())
    assert all(torch.equal(*banks) for banks in zip(other.banks, memory.banks, strict=True))
    assert other.scales == memory.scales
    memory.after_epoch(torch.nn.Identity(), 1)
    assert len(memory.banks) == 2
    memory.after_epoch(torch.nn.Identity(), 2)
    assert memory.state()["banks"] == []


def test_a_cut_run_goes_on_bit_for_bit(tmp_path, cut_after):
    short = {"epochs": 3, "subset": 0.05, "device": "cpu", "precision": "fp32", "negatives": 50}
    kdtool.teacher("kdtool:lenet-5", data="digits", epochs=0, output=tmp_path / "t.pt")
    whole = kdtool.distill(tmp_path / "t.pt", "crd", refiner="halve", output=tmp_path / "whole.pt", **short)
    with cut_after("crd", 3):
        kdtool.distill(tmp_path / "t.pt", "crd", refiner="halve", output=tmp_path / "cut.pt", **short)
    kdtool.distill(tmp_path / "t.pt", "crd", refiner="halve", output=tmp_path / "cut.pt", resume=True, **short)
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, read(tmp_path / "cut.pt").module.state_dict()[name]), name


def test_data_of_one_class_are_refused(tmp_path, monkeypatch):
    teacher = kdtool.teacher("kdtool:lenet-5", data="digits", epochs=0, output=tmp_path / "t.pt")
    data = open_data(DataOptions(data="digits"), image_size=28, in_channels=1)
    monkeypatch.setattr(kdtool.Run, "data", data)
    data.train.labels[:] = 3
    run = kdtool.Run.__new__(kdtool.Run)
    with pytest.raises(Error, match="all images of the train split are of one class"):
        CRD().distill(run, teacher.network, teacher.network)


def test_it_compares_one_pair_of_layers(tmp_path):
    teacher = kdtool.teacher("kdtool:lenet-5", data="digits", epochs=0, output=tmp_path / "t.pt").network
    with pytest.raises(UsageError, match="compares one pair of layers, and this names 2"):
        CRD(taps=("conv1", "conv2")).pairs(teacher, teacher)


def test_it_has_one_view_of_each_image(tmp_path):
    teacher = kdtool.teacher("kdtool:lenet-5", data="digits", epochs=0, output=tmp_path / "t.pt")
    with pytest.raises(UsageError, match="--objective crld: needs two views of every image, which crd does not have"):
        kdtool.distill(teacher, "crd", student="kdtool:lenet-5", objective="crld", output=tmp_path / "s.pt")


def test_its_objective_is_not_given_the_maps_of_the_contrast(tmp_path):
    teacher = kdtool.teacher("kdtool:lenet-5", data="digits", epochs=0, output=tmp_path / "t.pt")
    told = {"student": "kdtool:conv4-fc2", "objective": "wkd", "subset": 0.03, "epochs": 1, "negatives": 9}
    assert kdtool.distill(teacher, "crd", output=tmp_path / "s.pt", **told).metrics
