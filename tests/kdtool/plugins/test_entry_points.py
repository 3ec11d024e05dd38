from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import kdtool
from kdtool import LossDistiller
from kdtool.errors import UsageError
from kdtool.plugins import entry_points, registry
from kdtool.testing import check_distiller

SUB_PACKAGES = (
    "data",
    "distillation",
    "exporting",
    "features",
    "models",
    "plotting",
    "plugins",
    "pruning",
    "surgery",
    "testing",
    "training",
    "utils",
)

GOOD = '''
from kdtool import Distiller

class {title}(Distiller):
    """Do it."""
'''

OLD_FORM = '''
from kdtool import Distiller, hookimpl, option

class {title}(Distiller):
    """Do it."""
    factor: float = option(2.0, help="factor")

    def loss(self, step):
        return self.factor * step.cross_entropy()

@hookimpl
def distillers():
    return [{title}]
'''


class Site:
    """A directory on the path, in which plugins are installed by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that sees this directory."""
        return {**os.environ, "PYTHONPATH": str(self.path)}

    def install(
        self,
        name: str,
        code: str | None,
        *,
        kind: str = "distillers",
        distribution: str = "",
        version: str = "1.0",
        names_class: bool = True,
    ) -> str:
        """Install a plugin of one module with one entry point, as an installer would; return the module's name.

        The entry point names the class ``FirstBorn`` for ``first-born``, unless ``names_class`` is False.
        """
        group = f"kdtool.{kind}" if kind else "kdtool"
        distribution = distribution or f"kdtool-{name}"
        module = f"{distribution}_{name}_{version}".replace("-", "_").replace(".", "_")
        about = self.path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        value = f"{module}:{title(name)}" if kind and names_class else module
        (about / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
        if code is not None:
            (self.path / f"{module}.py").write_text(code)
        return module


def title(name: str) -> str:
    return name.title().replace("-", "")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    caches = (
        entry_points.installed,
        entry_points.register,
        entry_points.manager,
        registry._combined,
        registry._from_hook,
    )
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    for cache in caches:
        cache.cache_clear()
    yield Site(tmp_path)
    for cache in caches:
        cache.cache_clear()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def broken(kind: str, name: str) -> str:
    with pytest.raises(entry_points.BrokenPlugin) as caught:
        registry.method_class(kind, name)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_builtin_methods_are_plugins_of_kdtool_itself() -> None:
    found = {(plugin.kind, plugin.name) for plugin in entry_points.installed() if plugin.builtin}

    assert {("teachers", "timm"), ("refiners", "halve"), ("distillers", "ikd"), ("datasets", "digits")} <= found
    assert {"filter-l1", "magnitude"} <= set(entry_points.names("pruners"))


@pytest.mark.parametrize(
    "plugin",
    [plugin for plugin in entry_points.installed() if plugin.builtin],
    ids=lambda plugin: f"{plugin.kind}-{plugin.name}",
)
def test_every_builtin_brings_what_its_entry_point_says(plugin: entry_points.Plugin) -> None:
    cls = registry.load(plugin)

    assert (cls.kind, cls.name) == (plugin.kind, plugin.name)


def test_a_plugin_is_listed_from_its_metadata_without_being_imported(site: Site) -> None:
    module = site.install("soft", "raise SystemExit('imported')", version="2.3")

    plugin = next(found for found in entry_points.installed() if found.name == "soft")

    assert plugin == entry_points.Plugin("distillers", "soft", module, "kdtool-soft", "2.3", "Soft")
    assert not plugin.builtin
    assert module not in sys.modules
    assert "soft" in entry_points.names("distillers")


def test_a_method_is_imported_when_it_is_used(site: Site) -> None:
    module = site.install("first-born", GOOD.format(title="FirstBorn"))

    assert registry.method_class("distillers", "first-born").name == "first-born"
    assert module in sys.modules


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("raises", "raise RuntimeError('no licence\\nfound')", "{module}:Raises: RuntimeError: no licence found"),
        ("leaves", "raise SystemExit(3)", "{module}:Leaves: SystemExit: 3"),
        ("gone", None, "{module}:Gone: ModuleNotFoundError: No module named '{module}'"),
        ("typo", "def x(:", "{module}:Typo: SyntaxError: "),
        ("absent", GOOD.format(title="Another"), "{module}:Absent: AttributeError: module '{module}' has no attribute"),
        ("text", "Text = 'x'", "{module}:Text: is no method, but str; name a class derived from kdtool's"),
        ("strange", "class Strange: pass", "{module}:Strange: is no method, but type; name a class derived from"),
        (
            "shrink",
            "from kdtool import Refiner\nclass Shrink(Refiner): pass",
            "{module}:Shrink: shrink is one of the refiners, not of the distillers",
        ),
        (
            "mapped",
            "from kdtool import Distiller, option\nclass Mapped(Distiller):\n    x: dict = option(None, help='x')\n",
            "{module}:Mapped: TypeError: option x: <class 'dict'> is none of ",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalpha() else "",
)
def test_a_broken_plugin_tells_why_and_hurts_nobody_else(site: Site, name: str, code: str | None, reason: str) -> None:
    module = site.install(name, code, version="0.2")
    site.install("works", GOOD.format(title="Works"))

    expected = f"plugin {name!r} of kdtool-{name} 0.2 is broken: {reason.format(module=module)}"
    assert broken("distillers", name).startswith(expected)
    assert broken("distillers", name).startswith(expected)  # and again: nothing of it was left behind
    assert registry.method_class("distillers", "works").name == "works"
    assert registry.method_class("distillers", "kd").name == "kd"


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("hookless", "x = 1", "{module}: name the class, as in hookless = '{module}:CLASS'"),
        ("nothing", "def distillers(): return []", "{module}: brings nothing, not 'nothing'"),
        ("nothing", "def distillers(): pass", "{module}: TypeError: 'NoneType' object is not iterable"),
        ("text", "def distillers(): return ['x']", "{module}: AttributeError: "),
        ("other", OLD_FORM.format(title="Another"), "{module}: brings another, not 'other'"),
        ("leaves", "def distillers(): raise SystemExit(3)", "{module}: SystemExit: 3"),
    ],
)
def test_a_broken_plugin_of_the_old_form_tells_why(site: Site, name: str, code: str, reason: str) -> None:
    module = site.install(name, code, version="0.2", names_class=False)

    expected = f"plugin {name!r} of kdtool-{name} 0.2 is broken: {reason.format(module=module)}"
    assert broken("distillers", name).startswith(expected)


def test_a_plugin_of_the_old_form_works_with_a_warning_of_one_line(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    module = site.install("first-born", OLD_FORM.format(title="FirstBorn"), names_class=False)

    cls = registry.method_class("distillers", "first-born")
    again = registry.method_class("distillers", "first-born")

    assert again is cls
    assert capsys.readouterr().err == (
        "kdtool-first-born 1.0: entry point 'first-born' names a module; the next release of kdtool wants the class: "
        f'first-born = "{module}:FirstBorn"\n'
    )
    assert issubclass(cls, LossDistiller)  # it can be an objective and a term of a sum, as it could before
    assert cls(factor=3).as_data() == {"factor": 3.0}
    summed = kdtool.make("distillers", "first-born:0.5+none:1")
    assert summed.factors == {"first_born": 0.5, "none": 1.0}
    check_distiller(cls)


def test_an_unknown_name_tells_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no pruner is called 'magnitud'; did you mean magnitude\?"):
        registry.method_class("pruners", "magnitud")
    with pytest.raises(UsageError, match="no data set is called 'q'; there are cifar10, "):
        registry.method_class("datasets", "q")


def test_one_name_in_two_distributions_is_refused_with_both(site: Site) -> None:
    site.install("twin", GOOD.format(title="Twin"), distribution="kdtool-a")
    site.install("twin", GOOD.format(title="Twin"), distribution="kdtool-b")

    with pytest.raises(
        entry_points.BrokenPlugin, match=r"distiller 'twin' comes from kdtool-. and kdtool-.: uninstall one"
    ):
        registry.method_class("distillers", "twin")


def test_of_two_versions_of_a_distribution_the_first_on_the_path_counts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    Site(site.path / "older").install("soft", GOOD.format(title="Soft"), version="1.0")
    Site(site.path / "newer").install("soft", GOOD.format(title="Soft"), version="2.0")
    monkeypatch.syspath_prepend(site.path / "older")
    monkeypatch.syspath_prepend(site.path / "newer")

    found = [plugin for plugin in entry_points.installed() if plugin.name == "soft"]

    assert [plugin.version for plugin in found] == ["2.0"]
    assert registry.method_class("distillers", "soft").name == "soft"


def test_damaged_metadata_of_another_package_is_passed_over(site: Site) -> None:
    site.install("works", GOOD.format(title="Works"))
    about = site.path / "damaged-1.0.dist-info"
    about.mkdir()
    (about / "entry_points.txt").write_bytes(b"[kdtool.distillers]\nno equals sign \xff\n")

    assert registry.method_class("distillers", "works").name == "works"


def test_a_plugin_whose_distribution_lost_its_metadata_is_listed_still(site: Site) -> None:
    site.install("bare", GOOD.format(title="Bare"))
    (site.path / "kdtool_bare-1.0.dist-info" / "METADATA").unlink()

    (plugin,) = (found for found in entry_points.installed() if found.name == "bare")

    assert (plugin.distribution, plugin.version) == ("unknown", "unknown")
    assert registry.method_class("distillers", "bare").name == "bare"


def test_always_on_plugins_listen_and_a_broken_one_is_told(site: Site) -> None:
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
        "[load(plugin).describe() for plugin in installed() if plugin.builtin]"
    )

    assert {"kdtool_distillers", "kdtool_teachers", "kdtool_exporters"} <= imported
    assert not imported & HEAVY


def test_the_public_names_are_there_and_none_is_a_module() -> None:
    # `kdtool.utils.progress` would be the function or the module, whichever came last.
    odd = {name for name in kdtool.__all__ if isinstance(getattr(kdtool, name, None), ModuleType | None)}

    assert odd == set(SUB_PACKAGES)


@pytest.mark.parametrize("package", SUB_PACKAGES)
def test_the_names_of_every_public_package_are_there(package: str) -> None:
    module = importlib.import_module(f"kdtool.{package}")

    assert module.__all__
    assert all(getattr(module, name, None) is not None for name in module.__all__)


def test_no_package_bears_the_name_of_a_public_function() -> None:
    functions = {name for name in kdtool.__all__ if inspect.isroutine(getattr(kdtool, name))}
    root = Path(kdtool.__file__).parent

    assert {"distill", "export", "report"} <= functions
    assert not functions & {path.stem for path in root.iterdir()}


def test_the_command_lists_broken_plugins_with_their_reasons(site: Site) -> None:
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


def test_the_command_line_works_beside_a_broken_plugin(site: Site) -> None:
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
