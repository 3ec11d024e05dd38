"""Studies whose commands are run by a stand-in for kdtool, which copies a checkpoint."""

import sys

import pytest

import kdtool
from kdtool.study import places

STAND_IN = """
import os, shutil, sys, time
words = sys.argv[1:]
target = words[words.index("-o") + 1]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(" ".join(os.path.basename(word) for word in words) + "\\n")
run = target[:-3] + ".run"
os.makedirs(run, exist_ok=True)
if "fail" in words and not os.path.exists(os.environ["CALLS"] + ".mended"):
    print("a warning", file=sys.stderr)
    sys.exit("Error: out of luck")
if "stale" in words and "--resume" in words:
    sys.exit("Error: x.run: phase 'a' was begun by another release; finish it with that release, or start again with "
             "--force")
if "slow" in words and "--resume" not in words:
    time.sleep(60)
shutil.copy(os.environ["CHECKPOINT"], target)
if "--json" in words:
    print(os.environ["COSTS"])
with open(target, "ab") as file:  # every output has another hash
    file.write(os.urandom(4))
"""


@pytest.fixture
def stand_in(tmp_path, teacher_path, monkeypatch):
    """Run studies with the stand-in; return a function that returns the calls since the last time."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    calls = tmp_path / "calls"
    calls.write_text("")
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setenv("CHECKPOINT", str(teacher_path))
    monkeypatch.setattr(places, "KDTOOL", (sys.executable, "-S", str(script)))

    def since():
        lines = calls.read_text().splitlines()
        calls.write_text("")
        return lines

    return since


@pytest.fixture
def run(tmp_path):
    """Write a recipe and run it."""

    def run_it(text, **options):
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return kdtool.run_study(path, **options)

    return run_it
