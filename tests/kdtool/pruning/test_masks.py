"""The masks against torch.nn.utils.prune, a second library, and numbers written out."""

import copy

import pytest
import torch
from timm.layers import StdConv2d
from torch import nn
from torch.nn.utils import prune

from kdtool import Error, make
from kdtool.models.architecture import Architecture, Network
from kdtool.pruning.masks import Masking, apply_masks, cubic, cubic_at, dense_layers, lowest_scores, masking
from kdtool.training.zeros import HoldZeros, prunable, sparsity


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))


def magnitudes(module):
    return {name: weight.abs() for name, weight in prunable(module).items()}


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.8])
def test_masks_equal_global_unstructured(ratio):
    module = network()
    masks = lowest_scores(magnitudes(module), ratio).masks
    other = copy.deepcopy(module)
    layers = [(other[0], "weight"), (other[4], "weight")]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=ratio)
    torch.testing.assert_close(masks["0.weight"].float(), other[0].weight_mask)
    torch.testing.assert_close(masks["4.weight"].float(), other[4].weight_mask)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.9])
def test_the_scope_of_a_layer_equals_l1_unstructured_of_each(ratio):
    module = network()
    masks = lowest_scores(magnitudes(module), ratio, "layer").masks
    for path in ("0", "4"):
        other = prune.l1_unstructured(copy.deepcopy(module.get_submodule(path)), "weight", amount=ratio)
        torch.testing.assert_close(masks[f"{path}.weight"].float(), other.weight_mask)


def test_biases_and_norms_are_left_alone():
    assert set(prunable(network())) == {"0.weight", "4.weight"}


@pytest.mark.parametrize("ratio", [0.3, 0.7])
def test_ties_are_cut_at_the_exact_count_and_the_first_go(ratio):
    mask = lowest_scores({"w": torch.ones(10)}, ratio).masks["w"]
    # The highest score is the first of all equal ones, and stays.
    assert mask.tolist() == [True, *[False] * round(10 * ratio), *[True] * (9 - round(10 * ratio))]


def test_a_layer_keeps_its_best_weight_and_it_is_said():
    scores = {"small.weight": torch.tensor([1.0, 3.0, 2.0]), "large.weight": torch.arange(10.0, 17.0)}
    chosen = lowest_scores(scores, 0.5)
    assert chosen.masks["small.weight"].tolist() == [False, True, False]
    assert chosen.masks["large.weight"].tolist() == [False] * 3 + [True] * 4
    assert chosen.capped == ["small.weight"]
    assert chosen.as_data(0.5) == {
        "of": "weights",
        "asked": 0.5,
        "removed": 0.5,
        "capped": "small would be emptied: one weight stays in each",
    }


def test_where_all_would_go_one_of_each_layer_stays():
    chosen = lowest_scores({"a.weight": torch.tensor([1.0, 2.0]), "b.weight": torch.tensor([4.0, 3.0])}, 0.99)
    assert [mask.tolist() for mask in chosen.masks.values()] == [[False, True], [True, False]]
    assert chosen.removed == 0.5
    assert "capped" in chosen.as_data(0.99)


def test_what_is_capped_nowhere_is_not_said_to_be():
    assert "capped" not in Masking({"w": torch.tensor([True, False])}).as_data(0.5)


# What a pruner returns


def masked(found, module=None, layers=("0", "4"), ratio=0.5, scope="global"):
    """Return the masks of what a pruner returns for the network with 36 and 80 weights."""
    architecture = Architecture("test", "net", {"classes": 5, "in_channels": 1, "image_size": 4})
    net = Network(architecture, module or network())
    options = {"layers": layers, "dense": None, "asked": ratio, "scope": scope}
    return masking(make("pruners", "magnitude"), net, found, ratio, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: {**found, "0.weight": found["0.weight"] * float("nan")}, "scores for 0.weight that are NaN"),
        (lambda found: {"0": found["0.weight"]}, "scores of '0', which is no weight that masks are for"),
        (lambda found: {**found, "1.weight": torch.ones(4)}, "scores of '1.weight', which is no weight"),
        (lambda found: {}, "no scores of 0, 4, which may be pruned"),
        (lambda found: {"0.weight": found["0.weight"]}, r"31\.0% of the weights, less than the 50\.0% to .* none of 4"),
    ],
)
def test_scores_without_a_meaning_are_refused(change, message):
    with pytest.raises(Error, match=f"^pruner magnitude returned .*{message}"):
        masked(change(magnitudes(network())))


def test_a_network_that_holds_nan_is_refused():
    module = network()
    with torch.no_grad():
        module[4].weight[0, 0] = float("nan")
    with pytest.raises(Error, match=r"^4\.weight: has weights that are NaN"):
        masked(magnitudes(module), module)


def test_scores_of_zeros_may_be_nan_and_scores_may_be_integers():
    module = network()
    with torch.no_grad():
        module[0].weight[0] = 0
    found = {name: weight / weight for name, weight in prunable(module).items()}
    for scores in (found, {name: score.nan_to_num(0).int() for name, score in found.items()}):
        chosen = masked(scores, module)
        assert chosen.removed == 0.5
        assert not chosen.masks["0.weight"][0].any()


def test_weights_without_a_score_stay_and_count():
    found = {"4.weight": magnitudes(network())["4.weight"]}
    chosen = masked(found)
    assert int((~chosen.masks["4.weight"]).count_nonzero()) == 58  # half of all 116
    assert chosen.as_data(0.5) == {"of": "weights", "asked": 0.5, "removed": 0.5}
    chosen = masked(found, scope="layer")
    assert chosen.as_data(0.5) == {
        "of": "weights",
        "asked": 0.5,
        "removed": round(40 / 116, 4),
        "capped": "the method gives no scores to 0",
    }
    # With --only the ratio is of the weights of the chosen layers.
    assert masked(found, layers=("4",)).as_data(0.5) == {"of": "weights", "asked": 0.5, "removed": 0.5, "left": "0"}


def test_other_names_of_a_shared_weight_are_left_out():
    class Tied(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Flatten(), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 5))
            self[2].weight = self[1].weight

    module = Tied()
    found = {f"{path}.weight": layer.weight.detach() for path, layer in module.named_children() if path != "0"}
    assert set(masked(found, module, layers=("1", "3")).masks) == {"1.weight", "3.weight"}


def test_the_ratio_may_be_all_that_can_be_masked_and_no_more():
    module = nn.Sequential(nn.Linear(4, 4), StdConv2d(2, 3, 1))  # 16 weights, and 6 that are computed
    whole = Network(Architecture("test", "net", {"classes": 3, "in_channels": 1, "image_size": 4}), module)
    assert dense_layers(whole, 0.72).weights == 6
    with pytest.raises(Error, match=r"the others have 72\.7% of the weights, less than the 73\.0% to remove"):
        dense_layers(whole, 0.73)


def test_the_cubic_schedule_by_hand():
    # 0.8 (1 - (1 - t/4)^3): 1 - 27/64, 1 - 1/8, 1 - 1/64 of 0.8.
    assert cubic(0.0, 0.8, 4) == pytest.approx([0.4625, 0.7, 0.7875, 0.8])
    # From 0.5 on: 0.8 - 0.3 / 8.
    assert cubic(0.5, 0.8, 2) == pytest.approx([0.7625, 0.8])
    assert cubic(0.3, 0.9, 1) == [0.9]
    # Of a cost: 40 + 60 (1 - p)^3
    assert [cubic_at(100, 40, p) for p in (0, 0.25, 0.5, 1, 2)] == pytest.approx([100, 65.3125, 47.5, 40, 40])


def test_a_masked_copy_leaves_the_network_alone():
    module = network()
    before = copy.deepcopy(module.state_dict())
    architecture = Architecture("test", "net", {"classes": 5, "in_channels": 1, "image_size": 4})
    made = apply_masks(Network(architecture, module), lowest_scores(magnitudes(module), 0.5).masks)
    assert sparsity(made.module) == pytest.approx(58 / 116)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_zeros_are_held_and_a_layer_that_began_as_zero_learns():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
        module[1].weight.zero_()
    zeros = HoldZeros()
    zeros.begin(module, steps=1, epochs=1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    zeros.after_step(module, step=None)
    assert module[0].weight.tolist() == [[0.0, 2.0], [3.0, 0.0]]
    assert module[1].weight.tolist() == [[1.0, 1.0], [1.0, 1.0]]
