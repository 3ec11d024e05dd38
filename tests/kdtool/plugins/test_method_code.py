"""Plugins of other packages, installed, that fail in their own code: it hurts only themselves."""

import importlib.metadata
import os
import subprocess
import sys
import time

import pytest

import kdtool
from kdtool import Error
from kdtool.cli import always_on
from kdtool.plugins import containment, entry_points, registry
from kdtool.plugins.containment import TooLong, limited

LOSS = '''
import sys
from kdtool import LossDistiller

class {title}(LossDistiller):
    """Do it."""

    def loss(self, step):
        {code}
        return step.cross_entropy()
'''

REFINER = '''
from kdtool import Refiner

class {title}(Refiner):
    """Do it."""

    def refine(self, network):
        {code}
        return network
'''

SCRIPT = """
import kdtool
options = {{"student": "kdtool:lenet-300-100", "epochs": 1, "subset": 0.2, "device": "cpu"}}
kdtool.distill({teacher!r}, {method!r}, **options, output={output!r})
"""


def distilled(method, teacher_path, output):
    options = {"student": "kdtool:lenet-300-100", "epochs": 1, "subset": 0.2, "device": "cpu"}
    return kdtool.distill(teacher_path, method, **options, output=output)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("sys.exit(0)", r"its code called sys\.exit\(0\)$"),
        ("sys.exit()", r"its code called sys\.exit\(None\)$"),
        ("import os; os._exit(7)", r"its code called os\._exit\(7\)$"),
        ("raise GeneratorExit", r"its code raised GeneratorExit, which is no Exception$"),
        ("1 / 0", "failed: ZeroDivisionError: division by zero; run again with --debug for the traceback$"),
        ("step.nothing", "failed: AttributeError: .*nothing.*; run again with --debug"),
        ("raise ValueError('two\\nlines')", "failed: ValueError: two lines; run again with"),
    ],
)
def test_a_loss_that_fails_is_named_with_its_package(site, teacher_path, tmp_path, code, reason):
    site.install("fails", LOSS.format(title="Fails", code=code.replace("\n", "\\n")), version="0.3")
    with pytest.raises(Error, match=rf"^distiller fails of kdtool-fails 0\.3:? {reason}"):
        distilled("fails", teacher_path, tmp_path / "o.pt")
    assert not (tmp_path / "o.pt").exists()


@pytest.mark.parametrize(
    "code", ["raise OSError(28, 'No space left on device')", "raise MemoryError", "raise KeyError"]
)
def test_errors_that_are_not_mistakes_of_the_plugin_stay(site, teacher_path, tmp_path, code):
    """A full disk and too little memory have lines of their own; a mistake in a library is no plugin's."""
    elsewhere = "import json; json.loads('x')" if code == "raise KeyError" else code
    site.install("fails", REFINER.format(title="Fails", code=elsewhere), kind="refiners")
    expected = {"raise MemoryError": MemoryError, "raise KeyError": Error}.get(code, OSError)
    with pytest.raises(expected):
        kdtool.refine(teacher_path, "fails", output=tmp_path / "o.pt")


def run(*words, **options):
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_script_whose_loss_exits_does_not_end_in_success(site, teacher_path, tmp_path):
    site.install("leaves", LOSS.format(title="Leaves", code="sys.exit(0)"))
    script = SCRIPT.format(teacher=str(teacher_path), method="leaves", output=str(tmp_path / "o.pt"))
    code, _, said = run(sys.executable, "-c", script, env=site.environment())
    assert code == 1
    assert said.endswith("distiller leaves of kdtool-leaves 1.0: its code called sys.exit(0)\n")


PRINTS = """
import os
print('at import', flush=True)
os.write(1, b'past Python\\n')
""" + REFINER.format(title="Prints", code="print('while it works')")


def test_what_a_plugin_prints_when_it_is_imported_is_no_result(site):
    site.install("prints", PRINTS, kind="refiners")
    words = ("refine", "--method", "prints", "--help")
    code, out, said = run(sys.executable, "-m", "kdtool", *words, env=site.environment())
    assert (code, said) == (0, "at import\npast Python\n")
    assert out.startswith("Usage: ")


@pytest.mark.slow
def test_what_a_plugin_prints_while_it_works_is_no_result(site, teacher_path, tmp_path):
    """stdout has one line, which a pipe reads."""
    site.install("prints", PRINTS, kind="refiners")
    words = ("refine", teacher_path, "--method", "prints", "-o", tmp_path / "o.pt")
    code, out, said = run(sys.executable, "-m", "kdtool", *words, env=site.environment())
    assert (code, out) == (1, "")  # it makes the network no smaller
    assert said.startswith("at import\npast Python\nwhile it works\nError: ")


HANGS = "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except Exception:\n        pass\n"


def test_an_import_that_hangs_is_ended(site, monkeypatch):
    monkeypatch.setattr(containment, "IMPORT_LIMIT", 0.2)
    site.install("hangs", HANGS)
    site.install("listens", HANGS, kind="")
    started = time.monotonic()
    with pytest.raises(entry_points.BrokenPlugin, match=r"plugin 'hangs' .*: its import takes longer than 0\.2 s$"):
        registry.method_class("distillers", "hangs")
    (broken,) = entry_points.always_on()
    assert str(broken).endswith("its import takes longer than 0.2 s")
    assert time.monotonic() - started < 5
    assert registry.method_class("distillers", "kd").name == "kd"


def test_an_import_that_raises_no_exception_is_broken(site):
    site.install("odd", "class Odd(BaseException): pass\nraise Odd('so')")
    with pytest.raises(entry_points.BrokenPlugin, match=r"Odd: RuntimeError: Odd: so$"):
        registry.method_class("distillers", "odd")


def test_the_limit_comes_again_if_it_is_ignored():
    seen = []

    def ignores():
        for _ in range(2):
            try:
                time.sleep(30)
            except BaseException as error:
                seen.append(type(error))
        time.sleep(30)

    started = time.monotonic()
    with pytest.raises(TooLong), limited(0.1):
        ignores()
    assert seen == [TooLong, TooLong]
    assert time.monotonic() - started < 10


STRANGE = ["na\x1b[2Jme", "x" * 5000, "-m", "a+b", "a,b", ".", "a b", "ünï"]


def test_names_that_nobody_can_type_are_broken_and_shown_without_control_characters(site, capsys):
    about = site.path / "kdtool_strange-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\x1b[31m\nVersion: 1\x07\n")
    points = "\n".join(f"{name} = the_strange:Strange" for name in STRANGE)
    (about / "entry_points.txt").write_text(f"[kdtool.distillers]\n{points}\ngood = the_strange:Good\n")
    (site.path / "the_strange.py").write_text("from kdtool import Distiller\nclass Good(Distiller): 'Do it.'\n")
    entry_points.installed.cache_clear()
    found = [plugin for plugin in entry_points.installed() if plugin.module == "the_strange"]
    assert len(found) == len(STRANGE) + 1
    names = entry_points.names("distillers")
    assert "good" in names
    assert not {*names} & {*STRANGE}
    for plugin in found:
        assert plugin.distribution.isprintable()
        assert plugin.version.isprintable()
        if plugin.name == "good":
            registry.load(plugin)
            continue
        with pytest.raises(entry_points.BrokenPlugin) as caught:
            registry.load(plugin)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300
    code, out, _ = run(sys.executable, "-m", "kdtool", "plugins", env=site.environment())
    assert code == 0
    assert all(line.isprintable() for line in out.splitlines())
    assert max(map(len, out.splitlines())) < 500


def test_a_command_of_a_plugin_that_hangs_takes_a_name_or_exits(site, monkeypatch, capsys):
    start = "import click, sys, time\nfrom kdtool import hookimpl\n@hookimpl\ndef commands(cli):\n    "
    site.install("hangs", start + "time.sleep(60)", kind="")
    site.install("leaves", start + "sys.exit(0)", kind="")
    site.install("takes", start + "cli.add_command(click.Command('distill'))", kind="")
    site.install("escapes", start + "cli.add_command(click.Command('a\\x1b[2J'))", kind="")
    site.install("works", start + "cli.add_command(click.Command('works'))", kind="")
    monkeypatch.setattr(always_on, "LIMIT", 0.2)
    from kdtool.cli.main import Commands

    group = Commands("kdtool")
    always_on.load_always_on(group)
    said = capsys.readouterr().err
    assert said.isascii()
    assert said.count("warning: plugin ") == 4
    assert "takes longer than 0.2 s" in said
    assert "'distill' is a command of kdtool itself" in said
    assert sorted(group.commands) == ["works"]


def test_the_environment_of_these_tests_is_that_of_an_installed_package(site):
    site.install("works", LOSS.format(title="Works", code="pass"), version="2.0")
    code = "import importlib.metadata; print(importlib.metadata.version('kdtool-works'))"
    assert run(sys.executable, "-c", code, env=site.environment())[1] == "2.0\n"
    assert importlib.metadata.version("kdtool-works") == "2.0"
    assert os.environ.get("PYTHONPATH") != str(site.path)
