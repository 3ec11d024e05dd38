"""Every built-in method passes the check of its kind."""

from __future__ import annotations

from typing import Any

import pytest

from kdtool.plugins import entry_points, registry
from kdtool.testing import checks

CHECKS: dict[str, Any] = {
    "datasets": checks.check_dataset,
    "distillers": checks.check_distiller,
    "exporters": checks.check_exporter,
    "pruners": checks.check_pruner,
    "refiners": checks.check_refiner,
    "teachers": checks.check_source,
}
# The options of methods that cannot be checked with their defaults.
OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("distillers", "gated"): {
        "target_macs": "0.5x",
        "round_to": 2,
        "search_epochs": 1,
        "force_target": True,
        "exporter": {"name": "onnx", "latency": False},
    },
    ("refiners", "like"): {"arch": "kdtool:lenet-300-100"},
    ("refiners", "width-depth"): {"target_macs": "0.5x"},
}
# The arguments of a check: a network that the method accepts, or a small one.
ARGUMENTS: dict[tuple[str, str], dict[str, Any]] = {
    ("distillers", "simkd"): {"network": "kdtool:wrn-16-1", "image_size": 8},
    ("pruners", "bn-scale"): {"network": "kdtool:wrn-16-1", "image_size": 8},
    ("refiners", "depth"): {"network": "kdtool:resnet20", "image_size": 8},
    ("teachers", "timm"): {"network": "test_resnet"},
    ("teachers", "torchvision"): {"network": "squeezenet1_1"},
}
# Other quick tests train or run these as a command does; of their contract only the options are checked quickly.
SLOW = {
    *(("distillers", name) for name in ("born-again", "ensemble", "gated", "ikd", "self", "simkd", "stagewise")),
    *(("pruners", name) for name in ("bn-scale", "group-taylor", "isomorphic")),
    *(("refiners", name) for name in ("depth", "width-depth")),
    *(("exporters", name) for name in ("onnx", "pt2")),
}
# These need files; tests/plugins/kdtool_datasets checks them with small files.
NEED_FILES = {("datasets", name) for name in entry_points.names("datasets")} - {("datasets", "digits")}
# These have no names of their own: any function is a network, and the Hub has the others. See kdtool_teachers.
NEED_CODE = {("teachers", "python"), ("teachers", "hf")}
# A tracker is no method: it has no options. tests/plugins/kdtool_trackers runs each with the library that it is for.
BUILTIN = [
    plugin
    for plugin in entry_points.installed()
    if plugin.builtin and plugin.kind != "trackers" and (plugin.kind, plugin.name) not in NEED_FILES | NEED_CODE
]


@pytest.mark.parametrize(
    "plugin",
    [
        pytest.param(plugin, marks=[pytest.mark.slow] if (plugin.kind, plugin.name) in SLOW else [])
        for plugin in BUILTIN
    ],
    ids=lambda plugin: f"{plugin.kind}-{plugin.name}",
)
def test_a_builtin_method_keeps_the_contract_of_its_kind(plugin: entry_points.Plugin) -> None:
    cls, key = registry.load(plugin), (plugin.kind, plugin.name)
    if getattr(cls, "needs", ""):
        pytest.importorskip(cls.needs)
    CHECKS[plugin.kind](cls(**OPTIONS[key]) if key in OPTIONS else cls, **ARGUMENTS.get(key, {}))


@pytest.mark.parametrize(("kind", "name"), sorted(SLOW))
def test_the_options_of_a_method_are_plain_data(kind: str, name: str) -> None:
    cls = registry.method_class(kind, name)
    checks.check_options(cls(**OPTIONS.get((kind, name), {})), cls)


@pytest.mark.parametrize("name", entry_points.names("datasets"))
def test_a_data_set_keeps_what_every_method_promises(name: str) -> None:
    checks.check_options(registry.method_class("datasets", name), registry.method_class("datasets", name))


@pytest.mark.parametrize(
    "plugin", [method for method in BUILTIN if method.kind == "distillers"], ids=lambda plugin: plugin.name
)
def test_the_help_says_when_a_distiller_fits(plugin: entry_points.Plugin) -> None:
    fits = registry.load(plugin).fits
    assert fits.startswith("Fits ")
    assert fits.endswith(".")
    # It fits into two lines next to the names.
    assert len(fits) <= 128
