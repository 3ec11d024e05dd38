"""The scripts that start one training in several processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kdtool

SCRIPTS = Path(__file__).parents[2] / "examples" / "cluster"


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shutil.copy(SCRIPTS / script, folder)
    return subprocess.run(
        ["bash", script], cwd=folder, capture_output=True, text=True, timeout=300, env={**os.environ, "PATH": path}
    )


@pytest.mark.slow
def test_two_processes_on_one_machine(tmp_path):
    done = run("one-node.sh", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "teacher.pt\nstudent.pt\n"
    assert "Error" not in done.stderr
    assert kdtool.load(tmp_path / "student.pt").history[-1]["processes"] == 2


@pytest.mark.slow
def test_two_agents_by_loopback_train_what_one_process_trains(tmp_path):
    done = run("two-nodes.sh", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "teacher.pt\n", "one of all processes prints"
    kdtool.teacher("kdtool:lenet-5", data="digits", epochs=3, output=tmp_path / "one.pt")
    one, two = (
        [json.loads(line)["loss"] for line in (tmp_path / f"{name}.run" / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "teacher")
    )
    assert two == pytest.approx(one, rel=1e-4)


def test_the_scripts_are_valid_shell():
    for script in SCRIPTS.iterdir():
        if script.suffix in (".sh", ".slurm"):
            subprocess.run(["bash", "-n", str(script)], check=True)
