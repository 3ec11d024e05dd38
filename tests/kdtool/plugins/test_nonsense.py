"""Methods of other packages that return what their kind does not: one line names the method, and nothing is written."""

import re

import pytest

import kdtool
from kdtool import Error

PLUGIN = '''
import kdtool
import torch
from kdtool import {kind}

class Odd({kind}):
    """Do it."""
    {more}

    def {function}:
        return {value}
'''

QUICK = {"epochs": 1, "subset": 0.2, "device": "cpu"}

KINDS = {
    "distillers": ("LossDistiller", "loss(self, step)", ""),
    "refiners": ("Refiner", "refine(self, network)", ""),
    "pruners": ("MaskPruner", "scores(self, *args, **kwargs)", ""),
    "channels": ("ChannelPruner", "importance(self, run, network)", ""),
    "exporters": ("Exporter", "export(self, *args, **kwargs)", "suffix = '.odd'"),
    "datasets": ("Dataset", "load(self, argument, root)", ""),
    "teachers": ("Source", "build(self, *args, **kwargs)", "def defaults(self, network): return {}"),
}

CALLS = {
    "distillers": lambda t, o: kdtool.distill(t, "odd", student="kdtool:lenet-300-100", **QUICK, output=o),
    "refiners": lambda t, o: kdtool.refine(t, "odd", output=o),
    "pruners": lambda t, o: kdtool.prune(t, "odd", ratio=0.5, **QUICK, output=o),
    "channels": lambda t, o: kdtool.prune(t, "odd", ratio=0.5, **QUICK, output=o),
    "exporters": lambda t, o: kdtool.export(t, "odd", output=o.with_suffix(".odd")),
    "datasets": lambda t, o: kdtool.teacher("kdtool:lenet-300-100", data="odd", **QUICK, output=o),
    "teachers": lambda t, o: kdtool.teacher("odd:net", classes=10, in_channels=1, image_size=8, output=o),
}


def cases():
    """Each kind with a value or two; slow: with each."""
    for kind in KINDS:
        for value in ("None", "'text'", "torch.ones(3)", "{}", "{'fc1.weight': 3}"):
            quick = value == "None" or (kind in ("distillers", "pruners") and value != "'text'")
            if (kind, value[:1]) != ("exporters", "{") and (kind, value) != ("pruners", "{}"):
                yield pytest.param(kind, value, marks=[] if quick else pytest.mark.slow)


@pytest.mark.parametrize(("kind", "value"), list(cases()))
def test_what_a_method_returns_is_looked_at(site, teacher_path, tmp_path, kind, value):
    name, function, more = KINDS[kind]
    code = PLUGIN.format(kind=name, function=function, value=value, more=more)
    site.install("odd", code, kind="pruners" if kind == "channels" else kind)
    with pytest.raises(Error) as error:
        CALLS[kind](teacher_path, tmp_path / "o.pt")
    assert re.search(r"\bodd of kdtool-odd 1\.0 returned ", str(error.value))
    assert str(error.value).isprintable()
    assert not (tmp_path / "o.pt").exists()
