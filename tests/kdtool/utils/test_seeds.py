"""Seeded blocks: they draw what their seed says, and give the global random state back."""

import torch

from kdtool.utils.seeds import derive, seeded, set_seed


def test_a_seed_depends_on_every_part():
    assert derive(0, "a") == derive(0, "a")
    assert len({derive(0, "a"), derive(1, "a"), derive(0, "b"), derive("0", "a")}) == 4
    assert 0 <= derive("x") < 2**63


def test_a_block_draws_from_its_own_seed_and_leaves_the_state():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeded(0, "here"):
        first = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    torch.rand(5)
    with seeded(0, "here"):
        assert torch.equal(torch.rand(2), first)


def test_on_the_cpu_it_is_torchs_own_seed():
    with seeded("keep"):
        set_seed(7)
        ours = torch.rand(4)
        torch.manual_seed(7)
        assert torch.equal(torch.rand(4), ours)
