"""Which indices of dimensions with groups or splits stay."""

from torch import nn

from kdtool.surgery.slicing.kept_indices import attribute_splits, uneven, whole_ratios


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
    kept = attribute_splits(Gated(), 0.5)["", 19]
    assert kept.tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 17, 18]


def test_groups_go_as_a_whole_where_rounding_asks_for_it():
    grouped = nn.Sequential(nn.Conv2d(104, 104, 3, groups=13))  # 13 groups of 8; half of the channels are 52
    kept = uneven(grouped, 0.5, round_to=8)["", 104]
    assert [len(kept[kept // 8 == group]) for group in range(13)] == [8, 8, 0] + 5 * [8, 0]
    assert len(uneven(grouped, 0.5, round_to=60)["", 104]) == 104  # no number of whole groups is 60
    assert ("", 104) not in uneven(grouped, 0.5)  # without rounding each group keeps 4


def test_ratios_that_rounding_leaves_alone_come_first():
    # Each width is half of the next: at a ratio of 64 / 116 they become 32, 64 and 128.
    halves = nn.Sequential(*(nn.Conv2d(3, size, 1) for size in (58, 116, 232)))
    assert whole_ratios(halves, 0.5, round_to=8)[0] == 64 / 116
    assert whole_ratios(halves, 0.5) == []
