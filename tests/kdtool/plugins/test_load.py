"""Loading the class of an installed plugin, in the present form and in that of 0.1."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import kdtool
from kdtool import LossDistiller
from kdtool.errors import UsageError
from kdtool.plugins import Tracker, entry_points, registry
from kdtool.testing import check_distiller

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


def broken(kind: str, name: str) -> str:
    with pytest.raises(entry_points.BrokenPlugin) as caught:
        registry.method_class(kind, name)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "plugin",
    [plugin for plugin in entry_points.installed() if plugin.builtin],
    ids=lambda plugin: f"{plugin.kind}-{plugin.name}",
)
def test_every_builtin_brings_what_its_entry_point_says(plugin: entry_points.Plugin) -> None:
    cls = registry.load(plugin)

    if plugin.kind == "trackers":
        assert issubclass(cls, Tracker)
    else:
        assert (cls.kind, cls.name) == (plugin.kind, plugin.name)


def test_a_method_is_imported_when_it_is_used(site: Any) -> None:
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
        ("text", "Text = 'x'", "{module}:Text: is not a method but str; name a class that derives from kdtool's"),
        (
            "strange",
            "class Strange: pass",
            "{module}:Strange: is not a method but type; name a class that derives from",
        ),
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
def test_a_broken_plugin_tells_why_and_hurts_nobody_else(site: Any, name: str, code: str | None, reason: str) -> None:
    module = site.install(name, code, version="0.2")
    site.install("works", GOOD.format(title="Works"))

    expected = f"plugin {name!r} of kdtool-{name} 0.2 is broken: {reason.format(module=module)}"
    assert broken("distillers", name).startswith(expected)
    assert broken("distillers", name).startswith(expected)  # the second attempt fails in the same way
    assert registry.method_class("distillers", "works").name == "works"
    assert registry.method_class("distillers", "kd").name == "kd"


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("hookless", "x = 1", "{module}: name the class, as in hookless = '{module}:CLASS'"),
        ("nothing", "def distillers(): return []", "{module}: provides nothing, not 'nothing'"),
        ("nothing", "def distillers(): pass", "{module}: TypeError: 'NoneType' object is not iterable"),
        ("text", "def distillers(): return ['x']", "{module}: AttributeError: "),
        ("other", OLD_FORM.format(title="Another"), "{module}: provides another, not 'other'"),
        ("leaves", "def distillers(): raise SystemExit(3)", "{module}: SystemExit: 3"),
    ],
)
def test_a_broken_plugin_of_the_old_form_tells_why(site: Any, name: str, code: str, reason: str) -> None:
    module = site.install(name, code, version="0.2", names_class=False)

    expected = f"plugin {name!r} of kdtool-{name} 0.2 is broken: {reason.format(module=module)}"
    assert broken("distillers", name).startswith(expected)


def test_a_plugin_of_the_old_form_works_with_a_warning_of_one_line(
    site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    module = site.install("first-born", OLD_FORM.format(title="FirstBorn"), names_class=False)

    cls = registry.method_class("distillers", "first-born")
    again = registry.method_class("distillers", "first-born")

    assert again is cls
    assert capsys.readouterr().err == (
        "kdtool-first-born 1.0: entry point 'first-born' names a module; "
        f'the next release of kdtool requires the class: first-born = "{module}:FirstBorn"\n'
    )
    assert issubclass(cls, LossDistiller)  # it can still be an objective and a term of a sum
    assert cls(factor=3).as_data() == {"factor": 3.0}
    summed = kdtool.make("distillers", "first-born:0.5+none:1")
    assert summed.factors == {"first_born": 0.5, "none": 1.0}
    check_distiller(cls)


def test_an_unknown_name_tells_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no pruner is called 'magnitud'; did you mean magnitude\?"):
        registry.method_class("pruners", "magnitud")
    with pytest.raises(UsageError, match="no data set is called 'q'; there are cifar10, "):
        registry.method_class("datasets", "q")


def test_two_names_of_one_class_are_refused(site: Any) -> None:
    module = site.install("twin", GOOD.format(title="Twin"))
    points = site.path / "kdtool_twin-1.0.dist-info" / "entry_points.txt"
    points.write_text(points.read_text() + f"other = {module}:Twin\n")
    entry_points.installed.cache_clear()

    for name in ("twin", "other"):
        with pytest.raises(entry_points.BrokenPlugin, match="Twin: has several names, other and twin; derive a class"):
            registry.method_class("distillers", name)


def test_one_name_in_two_distributions_is_refused_with_both(site: Any) -> None:
    site.install("twin", GOOD.format(title="Twin"), distribution="kdtool-a")
    site.install("twin", GOOD.format(title="Twin"), distribution="kdtool-b")

    with pytest.raises(
        entry_points.BrokenPlugin, match=r"distiller 'twin' comes from kdtool-. and kdtool-.: uninstall one"
    ):
        registry.method_class("distillers", "twin")
