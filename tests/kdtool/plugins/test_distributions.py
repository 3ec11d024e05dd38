"""A history names the distributions of all plugins that took part, and a missing one is asked for by that name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kdtool
from kdtool.plugins import entry_points
from kdtool.plugins.distributions import comes_with, plugins_in, versions_of
from kdtool.plugins.registry import make

LOSS = '''
from kdtool import LossDistiller

class Own(LossDistiller):
    """Copy the teacher."""

    def loss(self, step):
        return step.cross_entropy() + (step.student - step.teacher).square().mean()
'''

STRIPES = '''
import torch
from kdtool import Dataset
from kdtool.data import RawData, RawSplit

class Stripes(Dataset):
    """Draw stripes."""

    def load(self, argument, root):
        labels = torch.arange(40) % 2
        images = (labels.view(-1, 1, 1, 1) * 100 + torch.arange(40).view(-1, 1, 1, 1)).expand(40, 1, 8, 8)
        split = RawSplit(images.to(torch.uint8), labels)
        return RawData(split, None, split, ("one", "two"), channels=1, image_size=8)
'''

REFINER = '''
from kdtool import Refiner
from kdtool.surgery import halve_widths

class Fit(Refiner):
    """Halve all widths."""

    def refine(self, network):
        return halve_widths(network, init=self.init)
'''


def uninstalled(site: Any, name: str) -> None:
    """Remove a plugin that a test installed."""
    (about,) = site.path.glob(f"kdtool_{name}-*.dist-info")
    (about / "entry_points.txt").unlink()
    (about / "METADATA").unlink()
    about.rmdir()
    entry_points.installed.cache_clear()


def test_a_method_and_those_in_its_roles_count(site: Any) -> None:
    site.install("own", LOSS, version="0.3")
    site.install("fit", REFINER, kind="refiners", version="2.0")

    ikd = make("distillers", "ikd", objective="kd+own:0.2", refiner="fit")

    assert versions_of(plugins_in(ikd, None)) == {"kdtool-own": "0.3", "kdtool-fit": "2.0"}
    assert versions_of(plugins_in(make("pruners", "magnitude"))) == {}


def test_a_checkpoint_records_them_and_asks_for_the_one_that_is_gone(site: Any, tmp_path: Path) -> None:
    site.install("stripes", STRIPES, kind="datasets", version="1.2")
    site.install("own", LOSS, version="0.3")
    site.install("fit", REFINER, kind="refiners", version="2.0")
    fast: dict[str, Any] = {"device": "cpu", "epochs": 0, "force": True}
    teacher = kdtool.teacher("kdtool:lenet-5", data="stripes", image_size=28, output=tmp_path / "t.pt", **fast)
    student = kdtool.distill(teacher, "kd+own:0.2", refiner="fit", output=tmp_path / "s.pt", **fast)
    pruned = kdtool.prune(student, objective="own", output=tmp_path / "p.pt", **fast)

    versions = [{**entry["versions"]} for entry in pruned.history]
    for entry in versions:
        assert entry.pop("kdtool")
        assert entry.pop("torch")

    assert versions == [
        {"kdtool-stripes": "1.2"},
        {"kdtool-stripes": "1.2", "kdtool-own": "0.3", "kdtool-fit": "2.0"},
        {"kdtool-stripes": "1.2", "kdtool-own": "0.3"},
    ]
    uninstalled(site, "stripes")
    with pytest.raises(kdtool.Error, match=r"no data set is called 'stripes'; .*; it comes with kdtool-stripes 1.2: "):
        kdtool.evaluate(tmp_path / "p.pt", device="cpu")


def test_the_message_says_what_is_known(site: Any) -> None:
    site.install("own", LOSS)
    made = {"method": "kd", "data": {"name": "gone:here"}, "versions": {"kdtool": "1", "a": "1.0", "kdtool-own": "1.0"}}
    other = {"method": "other", "data": {}, "versions": {"kdtool": "1", "b": "2.0"}}

    assert comes_with("datasets", "gone", [other, made]) == "; it comes with a 1.0: install that"
    assert comes_with("teachers", "unknown", [other, made]) == "; it comes with b 2.0 or a 1.0: install that"
    assert comes_with("datasets", "gone", [{"method": "kd", "versions": {"kdtool": "1"}}]) == ""
    assert comes_with("datasets", "digits", [other]) == ""
    assert comes_with("datasets", "gone", []) == ""
