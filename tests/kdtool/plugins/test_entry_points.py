"""Listing the installed plugins, and the plugins that are always on."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from kdtool.plugins import entry_points, registry

GOOD = '''
from kdtool import Distiller

class {title}(Distiller):
    """Do it."""
'''


def test_the_builtin_methods_are_plugins_of_kdtool_itself() -> None:
    builtin = {(plugin.kind, plugin.name) for plugin in entry_points.installed() if plugin.builtin}

    assert {("teachers", "timm"), ("refiners", "halve"), ("distillers", "ikd"), ("datasets", "digits")} <= builtin
    assert {"filter-l1", "magnitude"} <= set(entry_points.names("pruners"))


def test_a_plugin_is_listed_from_its_metadata_without_being_imported(site: Any) -> None:
    module = site.install("soft", "raise SystemExit('imported')", version="2.3")

    plugin = next(plugin for plugin in entry_points.installed() if plugin.name == "soft")

    assert plugin == entry_points.Plugin("distillers", "soft", module, "kdtool-soft", "2.3", "Soft")
    assert not plugin.builtin
    assert module not in sys.modules
    assert "soft" in entry_points.names("distillers")


def test_of_two_versions_of_a_distribution_the_first_on_the_path_counts(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory, version in (("older", "1.0"), ("newer", "2.0")):
        type(site)(site.path / directory).install("soft", GOOD.format(title="Soft"), version=version)
    monkeypatch.syspath_prepend(site.path / "older")
    monkeypatch.syspath_prepend(site.path / "newer")

    plugins = [plugin for plugin in entry_points.installed() if plugin.name == "soft"]

    assert [plugin.version for plugin in plugins] == ["2.0"]
    assert registry.method_class("distillers", "soft").name == "soft"


def test_damaged_metadata_of_another_package_is_passed_over(site: Any) -> None:
    site.install("works", GOOD.format(title="Works"))
    about = site.path / "damaged-1.0.dist-info"
    about.mkdir()
    (about / "entry_points.txt").write_bytes(b"[kdtool.distillers]\nno equals sign \xff\n")

    assert registry.method_class("distillers", "works").name == "works"


def test_a_plugin_whose_distribution_lost_its_metadata_is_listed_still(site: Any) -> None:
    site.install("bare", GOOD.format(title="Bare"))
    (site.path / "kdtool_bare-1.0.dist-info" / "METADATA").unlink()

    (plugin,) = (plugin for plugin in entry_points.installed() if plugin.name == "bare")

    assert (plugin.distribution, plugin.version) == ("unknown", "unknown")
    assert registry.method_class("distillers", "bare").name == "bare"


def test_always_on_plugins_listen_and_a_broken_one_is_told(site: Any) -> None:
    listens = "from kdtool import hookimpl\nheard = []\n@hookimpl\ndef checkpoint_saved(path): heard.append(path)\n"
    module = site.install("tracker", listens, kind="")
    site.install("wreck", "1 / 0", kind="")

    errors = entry_points.always_on()
    entry_points.manager().hook.checkpoint_saved(path="a.pt")

    assert [str(error).partition(" is broken: ")[0] for error in errors] == ["plugin 'wreck' of kdtool-wreck 1.0"]
    assert "ZeroDivisionError" in str(errors[0])
    assert sys.modules[module].heard == ["a.pt"]


HEAVY = {"torch", "torchvision", "timm", "onnx", "onnxruntime", "sklearn", "accelerate", "numpy"}


def imported_by(code: str) -> set[str]:
    code += "; import sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_listing_imports_no_plugin_and_no_torch() -> None:
    imported = imported_by("from kdtool.plugins.entry_points import installed, names; installed(); names('distillers')")

    assert "pluggy" in imported
    assert not imported & HEAVY
    assert not [name for name in imported if name.startswith("kdtool_")]


def test_a_builtin_method_and_its_options_need_no_torch() -> None:
    imported = imported_by(
        "from kdtool.plugins.registry import installed, load; "
        "[load(plugin).describe() for plugin in installed() if plugin.builtin and plugin.kind != 'trackers']"
    )

    assert {"kdtool_distillers", "kdtool_teachers", "kdtool_exporters"} <= imported
    assert not imported & HEAVY


def test_the_command_lists_broken_plugins_with_their_reasons(site: Any) -> None:
    site.install("works", GOOD.format(title="Works"))
    raises = site.install("raises", "raise RuntimeError('no licence found')")
    gone = site.install("gone", None)
    absent = site.install("absent", GOOD.format(title="Another"))
    command = [sys.executable, "-m", "kdtool"]

    done = subprocess.run(
        [*command, "plugins", "--json"], capture_output=True, text=True, check=True, env=site.environment()
    )

    rows = {row["name"]: row for row in json.loads(done.stdout) if row["kind"] == "distillers"}
    broken = {"raises", "gone", "absent"}
    assert {name for name, row in rows.items() if row["status"] == "broken"} == broken
    assert {name for name, row in rows.items() if row["status"] == "ok"} >= {"ikd", "kd", "works"}
    assert rows["works"]["reason"] is None
    assert f"{raises}:Raises: RuntimeError: no licence found" in rows["raises"]["reason"]
    assert f"{gone}:Gone: ModuleNotFoundError" in rows["gone"]["reason"]
    assert f"{absent}:Absent: AttributeError" in rows["absent"]["reason"]


def test_the_command_line_works_beside_a_broken_plugin(site: Any) -> None:
    site.install("raises", "raise RuntimeError('no licence found')")
    site.install("works", GOOD.format(title="Works"))

    def distill(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kdtool", "distill", "--method", name, *words]
        return subprocess.run(command, capture_output=True, text=True, env=site.environment())

    good, bad = distill("works", "--help"), distill("raises", "t.pt")

    assert (good.returncode, good.stderr) == (0, "")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert "plugin 'raises' of kdtool-raises 1.0 is broken" in bad.stderr
    assert "Traceback" not in bad.stderr
