"""Weight sharing: k-means beside scikit-learn, the gradient of a shared value by hand, and weights that stay equal."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.cluster import KMeans
from torch import nn

import kdtool
from kdtool.cli.main import cli
from kdtool.models.checkpoint import read
from kdtool.training.zeros import prunable
from kdtool.utils.files import gzip_bytes
from kdtool_pruners.cluster import SharedValues, bits_of_codes, kmeans


@pytest.mark.parametrize("count", [2, 5, 16])
def test_kmeans_beside_scikit_learn(count):
    values = np.random.default_rng(count).normal(size=500)
    start = np.linspace(values.min(), values.max(), count)[:, None]
    theirs = KMeans(count, init=start, n_init=1, tol=0.0, max_iter=1000).fit(values[:, None])
    centroids, codes = kmeans(values, count)
    np.testing.assert_allclose(centroids, np.sort(theirs.cluster_centers_[:, 0]), atol=1e-9)
    np.testing.assert_allclose(centroids[codes], theirs.cluster_centers_[theirs.labels_, 0], atol=1e-9)


@pytest.mark.parametrize("outlier", [10.0, 50.0, 1e4])
def test_an_outlier_takes_one_value_and_leaves_the_others(outlier):
    values = np.append(np.random.default_rng(0).normal(size=20_000), outlier)
    theirs = KMeans(16, n_init=3, random_state=0).fit(values[:, None])
    centroids, codes = kmeans(values, 16)
    assert len(centroids) == 16
    assert centroids.tolist() == sorted(centroids)
    assert np.square(values - centroids[codes]).sum() < 1.05 * theirs.inertia_


@pytest.mark.parametrize("seed", range(8))
def test_numbers_that_differ_by_less_than_their_sums_are_rounded(seed):
    random = np.random.default_rng(seed)
    values = 1e8 + random.choice(1e-6 * random.normal(size=40), 200)
    values[0] += 1
    centroids, codes = kmeans(values, 16)
    assert len(centroids) <= 16
    assert (np.diff(centroids) > 0).all()
    assert np.abs(values - centroids[codes]).max() < 1e-5


def test_as_many_values_as_there_are_stay_as_they_are():
    values = np.append(np.random.default_rng(0).normal(size=90), 20.0)
    for count in (91, 256):
        centroids, codes = kmeans(values, count)
        assert centroids[codes].tolist() == values.tolist()
    centroids, codes = kmeans(values, 16)
    again, codes = kmeans(centroids[codes], 16)
    assert again.tolist() == centroids.tolist()
    # Many equal numbers: a cluster of them cannot be split.
    centroids, codes = kmeans(np.repeat([0.0, 1.0, 2.0, 1e6], 50), 3)
    assert len(centroids) == 3


def test_kmeans_of_few_values():
    centroids, codes = kmeans(np.array([3.0, 1.0, 3.0]), 8)
    assert centroids.tolist() == [1.0, 3.0]
    assert codes.tolist() == [1, 0, 1]
    assert len(kmeans(np.zeros(0), 4)[0]) == 0
    assert kmeans(np.full(4, 0.5), 4)[0].tolist() == [0.5]


@pytest.mark.parametrize(
    ("places", "length", "bits"),
    [
        # Codes of 4 bits with distances of 3 bits, as in figure 2 of the paper: 1 to 8.
        ([0, 2, 7], 8, 3 * (4 + 3)),
        ([7], 8, 4 + 3),
        ([8], 9, 2 * (4 + 3)),
        ([0, 17], 18, 4 * (4 + 3)),
        ([], 8, 0),
        # All codes, of 5 bits if zero is a 17th value.
        ([*range(8)], 8, 8 * 4),
        ([*range(7)], 8, 8 * 5),
    ],
)
def test_the_bits_of_codes_by_hand(places, length, bits):
    kept = np.zeros(length, bool)
    kept[places] = True
    assert bits_of_codes(kept, 16, 3) == bits


def test_the_gradient_of_a_value_is_the_sum_over_its_weights():
    layer, inputs = nn.Linear(2, 2, bias=False), torch.tensor([[1.0, 10.0]])
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, 0.5], [-1.0, 0.5]]))
    shared = SharedValues(["weight"])
    shared.begin(layer, 1, 1)
    layer(inputs).sum().backward()
    shared.before_step(layer)
    # Each row has the gradient [1, 10]; 0.5 stands at three places: 1 + 10 + 10.
    assert layer.weight.grad.tolist() == [[21.0, 21.0], [1.0, 21.0]]


@pytest.mark.parametrize(("weights", "expected"), [([0.0, 0.5, 0.0], [0, 10, 0]), ([0.0, 0.0, 0.0], [111, 111, 111])])
def test_zeros_of_a_pruned_layer_have_no_gradient(weights, expected):
    layer = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weights]))
    shared = SharedValues(["weight"])
    shared.begin(layer, 1, 1)
    layer(torch.tensor([[1.0, 10.0, 100.0]])).sum().backward()
    shared.before_step(layer)
    assert layer.weight.grad.tolist() == [expected]


def test_what_an_optimiser_moves_apart_becomes_the_mean():
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    shared = SharedValues(["weight"])
    shared.begin(layer, 1, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0]]))
    shared.after_step(layer, None)
    assert layer.weight.tolist() == [[1.5, 1.5]]


def test_equal_weights_of_a_layer_that_stays_learn_alone(teacher_path, tmp_path):
    teacher = read(teacher_path)
    paths = [name.removesuffix(".weight") for name in prunable(teacher.module)]
    # As in a file of bf16: many weights of the layers that stay are equal by chance.
    for name in paths[1:]:
        weight = teacher.module.get_parameter(f"{name}.weight")
        weight.data = weight.detach().bfloat16().float()
    shared = kdtool.prune(teacher, "cluster", only=[paths[0]], linear_bits=2, epochs=1, output=tmp_path / "shared.pt")
    first, second, _ = prunable(shared.module).values()
    assert len(first.unique()) <= 4
    before = len(prunable(teacher.module)[f"{paths[1]}.weight"].unique())
    assert len(second.unique()) > 2 * before


@pytest.mark.parametrize("optimizer", ["adam", "sgd", pytest.param("muon", marks=pytest.mark.slow)])
def test_layers_have_few_values_after_the_retraining_too(teacher_path, tmp_path, optimizer):
    options = {"conv_bits": 4, "linear_bits": 2, "epochs": 1, "optimizer": optimizer}
    shared = kdtool.prune(teacher_path, "cluster", output=tmp_path / "shared.pt", **options)
    plain = kdtool.prune(teacher_path, "cluster", output=tmp_path / "plain.pt", **{**options, "epochs": 0})
    stored = 0
    for name, weight in prunable(shared.module).items():
        bits = 4 if weight.ndim > 2 else 2
        values = len(weight.unique())
        assert 1 < values <= 2**bits
        assert not torch.equal(weight, prunable(plain.module)[name])
        stored += weight.numel() * bits + 32 * len(prunable(plain.module)[name].unique())
    assert plain.history[-1]["shared_values"]["bytes"] == stored // 8


def test_convolutions_have_a_number_of_values_of_their_own(tmp_path):
    network = kdtool.teacher("kdtool:lenet-5", classes=10, output=tmp_path / "lenet.pt")
    shared = kdtool.prune(network, "cluster", conv_bits=3, linear_bits=6, epochs=0, output=tmp_path / "shared.pt")
    counts = {name: len(weight.unique()) for name, weight in prunable(shared.module).items()}
    assert {name: count for name, count in counts.items() if count > 8} == {"fc1.weight": 64, "fc2.weight": 64}


def test_zeros_stay_zero_and_take_the_bits_of_their_places(teacher_path, tmp_path):
    sparse = kdtool.prune(teacher_path, "magnitude", ratio=0.9, epochs=0, output=tmp_path / "sparse.pt")
    shared = kdtool.prune(sparse, "cluster", epochs=1, output=tmp_path / "shared.pt")
    for name, weight in prunable(sparse.module).items():
        assert torch.equal(prunable(shared.module)[name] == 0, weight == 0)
    dense = kdtool.prune(teacher_path, "cluster", epochs=0, output=tmp_path / "dense.pt")
    facts = [checkpoint.history[-1]["shared_values"]["bytes"] for checkpoint in (shared, dense)]
    left = sum(int((weight != 0).sum()) for weight in prunable(sparse.module).values())
    # At least a code of 4 bits and a distance of 5 for each weight that is left.
    assert left * 9 / 8 < facts[0] < 0.5 * facts[1]


def test_a_few_zeros_among_small_weights_share_no_value(teacher_path, tmp_path):
    sparse = kdtool.prune(teacher_path, "magnitude", ratio=0.3, epochs=0, output=tmp_path / "sparse.pt")
    shared = kdtool.prune(sparse, "cluster", linear_bits=2, epochs=0, output=tmp_path / "shared.pt")
    for name, weight in prunable(sparse.module).items():
        assert torch.equal(prunable(shared.module)[name] == 0, weight == 0)


def test_a_cut_retraining_goes_on_bit_for_bit(teacher_path, tmp_path, cut_after):
    options = {"linear_bits": 3, "epochs": 3}
    whole = kdtool.prune(teacher_path, "cluster", output=tmp_path / "whole.pt", **options)
    with cut_after("retrain", 1):
        kdtool.prune(teacher_path, "cluster", output=tmp_path / "cut.pt", **options)
    cut = kdtool.prune(teacher_path, "cluster", output=tmp_path / "cut.pt", resume=True, **options)
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, cut.module.state_dict()[name]), name


def test_what_clustering_saves_is_shown(tmp_path):
    teacher, small = tmp_path / "t.pt", tmp_path / "s.pt"
    kdtool.teacher("kdtool:lenet-300-100", data="digits", epochs=0, output=teacher)
    words = ["prune", str(teacher), "--method", "cluster", "--epochs", "0", "-o", str(small)]
    shown = CliRunner().invoke(cli, words).stderr
    before, after = (
        line.split()[-1].replace(",", "") for line in shown.splitlines() if line.startswith(("t.pt", "s.pt"))
    )
    assert int(before) == gzip_bytes(teacher) > 2 * gzip_bytes(small) == 2 * int(after)
    shared = kdtool.inspect(small)["history"][-1]["shared_values"]
    text = CliRunner().invoke(cli, ["inspect", str(small)]).stdout
    assert f"3 layers with few different values, {shared['bytes']:,} bytes by the paper's count\n" in text
    assert f"gzip bytes   {gzip_bytes(small):,}\n" in text
