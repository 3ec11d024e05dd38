import pytest
import torch
from torch import nn

from kdtool.surgery.depth.verify import equals_identity_blocks, inseparable_stages


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return x + self.conv(x)


class Rows(nn.Module):
    """Two rows of blocks; ``between`` is what the network does behind each block of the second row."""

    def __init__(self, between=lambda i, x: x):
        super().__init__()
        self.first = nn.ModuleList([Block() for _ in range(4)])
        self.second = nn.ModuleList([Block() for _ in range(4)])
        self.between = between

    def forward(self, x):
        for block in self.first:
            x = block(x)
        for i, block in enumerate(self.second):
            x = self.between(i, block(x))
        return x


FIRST, SECOND = [("first.0", "first.1"), ("first.2", "first.3")], [("second.0", "second.1", "second.2")]


def test_blocks_that_are_only_run_can_go():
    assert equals_identity_blocks(Rows(), (3, 4, 4), FIRST + SECOND)
    assert inseparable_stages(Rows(), (3, 4, 4), {"first": FIRST, "second": SECOND}) == set()


@pytest.mark.parametrize(
    "between",
    [lambda i, x: x + 1, lambda i, x: x.flip(1) if i == 2 else x],
    ids=["an operation behind each block", "an operation behind one block"],
)
def test_a_stage_that_the_network_counts_is_named(between):
    assert inseparable_stages(Rows(between), (3, 4, 4), {"first": FIRST, "second": SECOND}) == {"second"}


def test_what_a_block_returns_beyond_its_input_is_that_of_the_block_before():
    class Two(Block):
        def forward(self, x):
            return super().forward(x), x.mean()

    class Network(Rows):
        def forward(self, x):
            for block in self.first:
                x, beside = block(x)
            return x + beside

    module = Network()
    module.first = nn.ModuleList([Two() for _ in range(4)])
    assert equals_identity_blocks(module, (3, 4, 4), FIRST)


def test_a_network_that_fails_without_blocks_cannot_do_without_them():
    class ByNumber(Rows):
        def forward(self, x):
            return self.first[3](self.first[0](x))

    assert not equals_identity_blocks(ByNumber(), (3, 4, 4), [("first.0", "first.1")])


def test_looking_changes_nothing():
    module = Rows().train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    equals_identity_blocks(module, (3, 4, 4), FIRST)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert len(module.first) == 4
    assert all(part.training and "forward" not in vars(part) for part in module.modules())


def test_what_a_network_remembers_of_its_weights_stays_true():
    class Remembers(Block):
        def forward(self, x):
            if not hasattr(self, "gain"):
                self.gain = self.scale.exp()
            return x + self.gain * self.conv(x)

    module = Rows()
    for row in (module.first, module.second):
        for i in range(4):
            row[i] = Remembers()
            row[i].scale = nn.Parameter(torch.rand(1))
    assert equals_identity_blocks(module, (3, 4, 4), FIRST)
    assert not any(hasattr(block, "gain") for block in module.first)
