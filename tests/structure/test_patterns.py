"""Which indices of a dimension stay."""

from torch import nn

from kdtool.structure.patterns import told


class Gated(nn.Module):
    """A layer whose output is split into two widths and a gate for each of three levels."""

    def __init__(self):
        super().__init__()
        self.stem, self.mix = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 19, 1)
        self.split_sizes = [8, 8, 3]
        self.out, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 10)

    def forward(self, x):
        query, context, gates = self.mix(self.stem(x)).split(self.split_sizes, 1)
        return self.head(self.out(query + context * gates[:, :1] * gates[:, 1:2] * gates[:, 2:]).mean((2, 3)))


def test_what_is_split_off_as_gates_stays():
    kept = told(Gated(), 0.5)["", 19]
    assert kept.tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 17, 18]
