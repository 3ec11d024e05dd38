import torch
from torch import nn

from kdtool.surgery.depth.observe import observe, output_shapes


class Branch(nn.Module):
    """``x + scale * branch(x)``."""

    def __init__(self, *branch, skip=1.0):
        super().__init__()
        self.branch = nn.Sequential(*branch)
        self.gamma = nn.Parameter(torch.ones(4, 1, 1))
        self.skip = skip

    def forward(self, x):
        return self.skip * x + self.gamma * self.branch(x)


class Less(nn.Module):
    """Return the pooled input minus the input, so that ``x + less(x)`` is only a pool."""

    def forward(self, x):
        return nn.functional.avg_pool2d(x, 3, 1, 1) - x


def test_the_output_follows_the_input_where_there_is_a_way_around():
    blocks = nn.Sequential(
        Branch(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)),
        Branch(nn.BatchNorm2d(4), nn.AvgPool2d(3, 1, 1)),
        Branch(Less()),
        Branch(nn.Conv2d(4, 4, 3, padding=1), skip=0.0),
        Branch(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), skip=0.0),
    )
    seen = observe(blocks.eval(), (4, 8, 8))
    assert [seen[str(i)].correlation > 0.9 for i in range(5)] == [True, True, True, False, False]
    assert all(seen[str(i)].calls == 1 for i in range(5))
    assert tuple(seen["0"].inputs.shape) == tuple(seen["0"].output.shape) == (1, 4, 8, 8)


class Wider(nn.Module):
    """Add a branch to the input, and concatenate more channels to the sum."""

    def __init__(self, skip):
        super().__init__()
        self.branch, self.more, self.skip = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1), skip

    def forward(self, x):
        return torch.cat([self.skip * x + self.branch(x), self.more(x)], 1)


def test_blocks_that_add_and_put_channels_beside_it_are_seen():
    assert observe(nn.Sequential(Wider(1.0)).eval(), (4, 8, 8))["0"].grows
    assert not observe(nn.Sequential(Wider(0.0)).eval(), (4, 8, 8))["0"].grows


def test_what_is_no_tensor_stays_what_it_is():
    class Sized(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 4))

        def forward(self, x, size):
            assert size == [8, 8]
            return x + self.inner(x), size

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Sized()

        def forward(self, x):
            return self.block(x, [8, 8])[0]

    assert observe(Network().eval(), (4, 8, 4))["block"].correlation > 0.9


def test_shapes_of_what_modules_return():
    module = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.Flatten(), nn.ModuleList([nn.ReLU()]))
    module.forward = lambda x: module[1](module[0](x))
    assert output_shapes(module, (3, 9, 7), ["0", "1", "2"]) == {"0": [5, 4, 3], "1": [60]}
