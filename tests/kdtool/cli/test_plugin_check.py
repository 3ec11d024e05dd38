from __future__ import annotations

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


def test_two_of_one_name_are_both_told() -> None:
    builtin = next(plugin for plugin in installed() if plugin.name == "kd")
    twin = Plugin("distillers", "kd", builtin.module, "kdtool-twin", "1.0", builtin.attribute)

    reasons = plugin_check.check([builtin, twin])

    assert reasons[builtin] == "kdtool-twin has a method of the same name: uninstall one of the two"
    assert reasons[twin] == "kdtool has a method of the same name: uninstall one of the two"
