"""Methods of other packages that return what their kind does not: one line names the method, and nothing is written."""

import re

import pytest

import kdtool
from kdtool import Error

BODY = '''
import kdtool
import kdtool.training
import torch
from kdtool import {kind}

class Odd({kind}):
    """Do it."""
    {more}

    def {function}:
        {code}
'''

KIND = {"channels": "pruners", "others": "pruners"}

QUICK = {"epochs": 1, "subset": 0.2, "device": "cpu"}

KINDS = {
    "distillers": ("LossDistiller", "loss(self, step)", ""),
    "refiners": ("Refiner", "refine(self, network)", ""),
    "pruners": ("MaskPruner", "scores(self, *args, **kwargs)", ""),
    "channels": ("ChannelPruner", "importance(self, run, network)", ""),
    "others": ("Pruner", "prune(self, run, network, teacher)", ""),
    "exporters": ("Exporter", "export(self, *args, **kwargs)", "suffix = '.odd'"),
    "datasets": ("Dataset", "load(self, argument, root)", ""),
    "teachers": ("Source", "build(self, *args, **kwargs)", "def defaults(self, network): return {}"),
}

CALLS = {
    "distillers": lambda t, o: kdtool.distill(t, "odd", student="kdtool:lenet-300-100", **QUICK, output=o),
    "refiners": lambda t, o: kdtool.refine(t, "odd", output=o),
    "pruners": lambda t, o: kdtool.prune(t, "odd", ratio=0.5, **QUICK, output=o),
    "channels": lambda t, o: kdtool.prune(t, "odd", ratio=0.5, **QUICK, output=o),
    "others": lambda t, o: kdtool.prune(t, "odd", **QUICK, output=o),
    "exporters": lambda t, o: kdtool.export(t, "odd", output=o.with_suffix(".odd")),
    "datasets": lambda t, o: kdtool.teacher("kdtool:lenet-300-100", data="odd", **QUICK, output=o),
    "teachers": lambda t, o: kdtool.teacher("odd:net", classes=10, in_channels=1, image_size=8, output=o),
}


def cases():
    """Each kind with a value or two; slow: with each."""
    for kind in KINDS:
        for value in ("None", "'text'", "torch.ones(3)", "{}", "{'fc1.weight': 3}"):
            quick = value == "None" or (kind in ("distillers", "pruners") and value != "'text'")
            if (kind, value[:1]) != ("exporters", "{"):
                yield pytest.param(kind, value, marks=[] if quick else pytest.mark.slow)


@pytest.mark.parametrize(("kind", "value"), list(cases()))
def test_what_a_method_returns_is_looked_at(site, teacher_path, tmp_path, kind, value):
    name, function, more = KINDS[kind]
    code = BODY.format(kind=name, function=function, code=f"return {value}", more=more)
    site.install("odd", code, kind=KIND.get(kind, kind))
    with pytest.raises(Error) as error:
        CALLS[kind](teacher_path, tmp_path / "o.pt")
    assert re.search(r"\bodd of kdtool-odd 1\.0 returned ", str(error.value))
    assert str(error.value).isprintable()
    assert not (tmp_path / "o.pt").exists()


MISTAKES = {
    "channels": (
        "return lambda group: torch.ones(3)",
        r": importance gave a tensor \[3\] for the \d+ channels of \w+; it gives a tensor \[channels\], or None",
    ),
    "pruners": (
        "return {name: weight * float('nan') for name, weight in kdtool.training.prunable(args[1].module).items()}",
        " returned scores for [a-z0-9.]+ that are NaN, so that its weights cannot be ranked",
    ),
    "exporters": ("return {}", r" returned without writing \S+o\.odd"),
    "distillers": ("return super().loss(step)", r": Odd\.loss\(\) is not implemented"),
    "refiners": (
        "return kdtool.Network(network.module, network.architecture)",
        r": Network\(architecture, module\) got \w+ and Architecture; give an Architecture and a torch\.nn\.Module",
    ),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes_that_are_found_later_name_the_method_too(site, teacher_path, tmp_path, kind):
    name, function, more = KINDS[kind]
    code, message = MISTAKES[kind]
    site.install("odd", BODY.format(kind=name, function=function, code=code, more=more), kind=KIND.get(kind, kind))
    with pytest.raises(Error, match=rf"^\w+ odd of kdtool-odd 1\.0{message}"):
        CALLS[kind](teacher_path, tmp_path / "o.pt")


STRATEGY = '''
import kdtool

class Log(kdtool.Callback):
    def after_epoch(self, module, epoch):
        return {{"epoch": 77}}

class Odd(kdtool.Distiller):
    """Do it."""

    def distill(self, run, teacher, student):
        return run.fit("a", run.fit("a", student{more}).network).network
'''


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("", r"run\.fit\('a'\): another phase has this name; give each a name of its own$"),
        (", callbacks=[Log()]", r"Log\.after_epoch\(\) returned epoch, which kdtool logs itself; choose other names$"),
    ],
)
def test_a_strategy_is_named_with_its_package(site, teacher_path, tmp_path, more, message):
    site.install("odd", STRATEGY.format(more=more))
    with pytest.raises(Error, match=rf"^distiller odd of kdtool-odd 1\.0: {message}"):
        CALLS["distillers"](teacher_path, tmp_path / "o.pt")
