"""The clipping of gradients: to a number, and to a percentile of the norms so far."""

import numpy as np
import pytest
import torch

import kdtool
from kdtool import UsageError
from kdtool.training.optimization.clipping import Clipping
from kdtool.training.options import Clip, Training


def clipped(clipping, gradient):
    parameter = torch.zeros(len(gradient), requires_grad=True)
    parameter.grad = torch.tensor(gradient)
    clipping([parameter])
    return parameter.grad


def test_to_a_number():
    torch.testing.assert_close(clipped(Clipping(Clip(1.0)), [3.0, 4.0]), torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(clipped(Clipping(Clip(9.0)), [3.0, 4.0]), torch.tensor([3.0, 4.0]))


def test_auto_is_numpys_percentile_of_all_norms_so_far():
    clipping, norms = Clipping(Clip.parse("auto")), []
    for norm in torch.rand(40, generator=torch.Generator().manual_seed(0)).tolist():
        norms.append(norm)
        assert clipping.limit(torch.tensor(norm)) == pytest.approx(np.percentile(norms, 10), rel=1e-6)
    gone_on = Clipping(Clip.parse("auto"))
    gone_on.load(clipping.state())
    assert gone_on.limit(torch.tensor(0.01)) == clipping.limit(torch.tensor(0.01))
    before = list(clipping.norms)
    clipping.limit(torch.tensor(torch.inf))
    assert clipping.norms == before


def test_off_wins_over_a_recipe(teacher_path, tmp_path):
    options = {"ratio": 0.5, "method": "filter-l1", "epochs": 1, "recipe": "standard"}
    made = [
        kdtool.prune(teacher_path, output=tmp_path / f"{number}.pt", **options, **more)
        for number, more in enumerate([{"clip": "off"}, {"clip": 1e9}, {"clip": "auto"}])
    ]
    assert [one.history[-1]["training"]["clip"] for one in made] == ["off", "1e+09", "auto"]
    off, huge, auto = ([*one.module.state_dict().values()] for one in made)
    assert all(map(torch.equal, off, huge))
    assert not all(map(torch.equal, off, auto))


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "much"])
def test_what_it_refuses(text):
    with pytest.raises(UsageError, match="--clip"):
        Training(clip=text)


def test_as_plain_data():
    assert Training(clip="auto").as_data()["clip"] == "auto"
    assert Training(clip=5).as_data()["clip"] == "5"
    assert Training(**Training(clip=0.5).as_data()) == Training(clip=0.5)
