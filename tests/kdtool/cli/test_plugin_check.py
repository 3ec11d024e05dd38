from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from kdtool.cli import plugin_check
from kdtool.plugins.entry_points import Plugin, installed

GOOD = '''
from kdtool import Distiller
print("a plugin prints")

class Good(Distiller):
    """Do it."""
'''


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Import no torch in the processes: these plugins need none, and it takes seconds."""
    monkeypatch.setattr(plugin_check, "FIRST", "")


def test_a_plugin_that_is_slow_crashes_or_leaves_hurts_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugin_check, "LIMIT", 2.0)
    codes = {
        "good": GOOD,
        "raises": "1 / 0",
        "leaves": "import os; os._exit(3)",
        "crashes": "import os; os.kill(os.getpid(), 11)",
        "aborts": "import posix; posix._exit(4)",
        "slow": "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)",
    }
    plugins = []
    for name, code in codes.items():
        (tmp_path / f"the_{name}.py").write_text(code)
        plugins.append(Plugin("distillers", name, f"the_{name}", f"kdtool-{name}", "1.0", name.title()))

    reasons = {plugin.name: reason for plugin, reason in plugin_check.check(plugins).items()}

    assert reasons["good"] is None
    assert "ZeroDivisionError: division by zero" in str(reasons["raises"])
    assert str(reasons["leaves"]).endswith("ProcessExit: os._exit(3) was called")
    assert reasons["aborts"] == "its import ended the process (exit code 4)"
    assert reasons["crashes"] == "its import ended the process (signal SIGSEGV)"
    assert reasons["slow"] == "its import takes longer than 2 s"


def test_a_slow_import_of_the_first_module_is_not_said_of_a_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugin_check, "LIMIT_OF_FIRST", 0.5)
    monkeypatch.setattr(plugin_check, "FIRST", "slow_first")
    (tmp_path / "slow_first.py").write_text("import time; time.sleep(60)")
    (tmp_path / "the_good.py").write_text(GOOD)
    plugin = Plugin("distillers", "good", "the_good", "kdtool-good", "1.0", "Good")

    reason = plugin_check.check([plugin])[plugin]

    assert reason == "the import of slow_first, which comes first, takes longer than 0.5 s"


def test_the_plugins_of_a_distribution_share_a_process_and_one_that_ends_it_hurts_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    started: list[int] = []
    load_in_subprocess = plugin_check._load_in_subprocess

    def counting(plugins: Sequence[Plugin]) -> tuple[list[str | None], str]:
        started.append(len(plugins))
        return load_in_subprocess(plugins)

    monkeypatch.setattr(plugin_check, "_load_in_subprocess", counting)
    plugins = []
    for name in ("one", "two", "dies", "three"):
        code = GOOD if name != "dies" else "import posix; posix._exit(4)"
        (tmp_path / f"its_{name}.py").write_text(code)
        plugins.append(Plugin("distillers", name, f"its_{name}", "kdtool-its", "1.0", "Good"))

    reasons = {plugin.name: reason for plugin, reason in plugin_check.check(plugins).items()}

    assert reasons == {"one": None, "two": None, "dies": "its import ended the process (exit code 4)", "three": None}
    assert started == [4, 2, 1]  # all; those that were left, which begin with the one; what was left then


def test_a_name_that_hides_an_option_of_kdtool_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    options = '\n    seed: int = option(3, help="a seed of its own")\n'
    (tmp_path / "hiding.py").write_text(f"from kdtool import option{GOOD}{options}")
    plugin = Plugin("distillers", "hiding", "hiding", "kdtool-hiding", "1.0", "Good")

    (reason,) = plugin_check.check([plugin]).values()

    assert reason == "hiding: its option --seed would hide kdtool's own; the plugin must choose another name"


def test_two_of_one_name_are_both_told() -> None:
    builtin = next(plugin for plugin in installed() if plugin.name == "kd")
    twin = Plugin("distillers", "kd", builtin.module, "kdtool-twin", "1.0", builtin.attribute)

    reasons = plugin_check.check([builtin, twin])

    assert reasons[builtin] == "kdtool-twin has a method of the same name: uninstall one of the two"
    assert reasons[twin] == "kdtool has a method of the same name: uninstall one of the two"
