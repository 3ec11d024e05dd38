import pytest
import torch

from kdtool import Budget, Error, UsageError
from kdtool.models.architecture import Architecture, build
from kdtool.models.options import NetworkOptions
from kdtool.models.size import measure
from kdtool.models.sources import create
from kdtool.plugins.budget import short
from kdtool.surgery import compound, drop_blocks, reach_budget
from kdtool.surgery.depth.stages import stages_of


def network(spec, side):
    return create(spec, options=NetworkOptions(classes=10, image_size=side), data=None)


@pytest.fixture(scope="module")
def resnet():
    return network("torchvision:resnet34", 32)


@pytest.fixture(scope="module")
def lenet():
    return network("kdtool:lenet-300-100", 28)


QUARTER = Budget(0.25, relative=True)


@pytest.fixture(scope="module")
def quarter(resnet):
    """A network with a quarter of the MACs and inherited weights, and the messages that were printed."""
    with pytest.MonkeyPatch.context() as patched:
        messages = []
        patched.setattr(compound, "say", messages.append)
        return reach_budget(resnet, QUARTER, init="inherit"), messages


def blocks(net):
    return [len(stage.blocks) for stage in stages_of(net)]


def first_width(net):
    return net.module.conv1.out_channels


def linear_widths(net):
    return [layer.out_features for layer in net.module.modules() if isinstance(layer, torch.nn.Linear)]


def test_a_budget_is_met_from_below_within_two_percent(resnet, quarter):
    reached = measure(quarter[0])["macs"] / measure(resnet)["macs"]
    assert 0.98 * 0.25 <= reached <= 0.25


def test_depth_and_width_each_bring_half_of_the_reduction(resnet, quarter):
    # There are 3, 4, 6, 3 blocks of nearly equal cost; sqrt(1/4) of 16 is 8.
    assert blocks(quarter[0]) == [2, 2, 2, 2]
    # The width brings the rest; the cost is proportional to its square: 64 * sqrt(1/2) = 45.3.
    assert first_width(quarter[0]) == pytest.approx(45, abs=1.5)


def test_what_it_made_is_said(quarter):
    (message,) = quarter[1]
    assert message.startswith("torchvision:resnet34: blocks 2,2,2,2, widths x 0.")
    assert message.endswith("M of 74.8M MACs (0.248x)")


def test_inherited_weights_are_part_of_the_old_ones(resnet, quarter):
    new, old = quarter[0].module.conv1.weight, resnet.module.conv1.weight
    assert all(any(torch.equal(kernel, old_kernel) for old_kernel in old) for kernel in new)


def test_the_result_is_rebuilt_from_plain_data(quarter):
    small = quarter[0]
    again = build(Architecture.from_data(small.architecture.as_data()), small.module.state_dict())
    images = torch.rand(2, *small.architecture.input)
    with torch.no_grad():
        assert torch.equal(small.module(images), again(images))


def test_parameters_are_counted_where_they_are_asked_for(lenet):
    # 784a + ab + 10b weights and a + b + 10 biases: 82 and 28 would be 66,984 parameters, above a quarter of 266,610.
    small = reach_budget(lenet, QUARTER, count="parameters")
    assert linear_widths(small) == [81, 27, 10]


def test_a_network_without_stages_is_made_narrower_alone(lenet, capsys):
    reach_budget(lenet, QUARTER)
    printed = capsys.readouterr().err
    assert printed.startswith("kdtool:lenet-300-100: has no stages of residual or dense blocks")
    assert "; only its widths change\nkdtool:lenet-300-100: all blocks, widths x 0.2" in printed


@pytest.mark.slow
def test_the_share_of_depth_goes_from_none_to_all(resnet):
    half = Budget(0.5, relative=True)
    wide = reach_budget(resnet, half, depth_share=1)
    assert first_width(wide) == 64
    # It has as many blocks as the budget allows: one more is above it.
    limit = half.limit(measure(resnet)["macs"])
    assert measure(wide)["macs"] <= limit < measure(drop_blocks(resnet, blocks=sum(blocks(wide)) + 1))["macs"]
    deep = reach_budget(resnet, half, depth_share=0)
    assert blocks(deep) == [3, 4, 6, 3]
    assert first_width(deep) == pytest.approx(45, abs=1.5)


@pytest.mark.slow
def test_dense_blocks_bring_their_share_too():
    dense = network("kdtool:densenet-bc-100-12", 8)
    small = reach_budget(dense, QUARTER, depth_share=0.9)
    whole = measure(dense)["macs"]
    # Each layer adds 12 channels, so a step of one channel is 8 % of the width.
    assert 0.9 * 0.25 * whole <= measure(small)["macs"] <= 0.25 * whole
    assert sum(blocks(small)) < 24


def test_widths_round_to_a_multiple_and_stay_within_the_budget(lenet):
    small = reach_budget(lenet, QUARTER, round_to=16)
    # Of 266,200 MACs, 64 and 32 would leave 52,544, and 80 and 32 leave 65,600.
    assert linear_widths(small) == [80, 32, 10]


@pytest.mark.parametrize("budget", ["74900k", "1G"])
def test_a_budget_of_no_less_than_there_is_is_refused(resnet, budget):
    with pytest.raises(
        UsageError, match=r"--target-macs .*: torchvision:resnet34 has 74\.8M MACs; give less than that"
    ):
        reach_budget(resnet, Budget.parse(budget))


def test_a_budget_below_the_smallest_structure_is_refused_with_the_range(lenet):
    # A hundredth of 300 and of 100 channels: 784 * 3 + 3 * 1 + 1 * 10 = 2,365.
    with pytest.raises(
        UsageError, match=r"--target-macs 500: .* from 266k MACs down to 2\.3[67]k this way, and 500 is below"
    ):
        reach_budget(lenet, Budget(500))
    # 784 * 32 + 32 * 32 + 32 * 10 = 26,432.
    with pytest.raises(UsageError, match=r"down to 26\.4k this way, and 9k is below"):
        reach_budget(lenet, Budget(9000), round_to=32)


@pytest.mark.slow
def test_a_budget_below_the_fewest_blocks_is_refused_where_depth_is_alone(resnet):
    fewest = measure(drop_blocks(resnet, blocks=4))["macs"]
    with pytest.raises(UsageError, match=f"down to {short(fewest)} this way, and 1M is below"):
        reach_budget(resnet, Budget.parse("1M"), depth_share=1)


def test_a_width_that_does_not_run_is_passed_over(lenet, monkeypatch):
    tried = []
    halve = compound.halve_widths

    def picky(net, *, ratio, **options):
        tried.append(ratio)
        if len(tried) == 1:
            raise Error("an odd width")
        return halve(net, ratio=ratio, **options)

    monkeypatch.setattr(compound, "halve_widths", picky)
    small = reach_budget(lenet, QUARTER)
    assert tried[1] < tried[0]
    assert measure(small)["macs"] <= 0.25 * measure(lenet)["macs"]


def test_widths_that_never_run_are_told_as_halve_tells_them(lenet, monkeypatch):
    def refuse(*args, ratio, **options):
        raise Error(f"widths x {ratio:.2f} do not run")

    monkeypatch.setattr(compound, "halve_widths", refuse)
    with pytest.raises(Error, match=r"^widths x 0\.50 do not run$"):
        reach_budget(lenet, QUARTER)
