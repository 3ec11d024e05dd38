"""The example plugin, installed like a third party's and used from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import kdtool
from kdtool.cli.main import cli
from kdtool.plugins import entry_points
from kdtool.plugins.registry import method_class
from kdtool.testing import check_distiller

EXAMPLE = Path(__file__).parents[2] / "examples" / "kdtool-logit-mse"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which only the plugin is installed."""
    directory = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(directory), str(EXAMPLE)], check=True, capture_output=True, text=True)
    return directory


@pytest.fixture
def run(site: Path, tmp_path: Path) -> Run:
    def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"}
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def here(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Result]]:
    """Return a function that runs a command line in this process, in which the plugin is installed too."""
    monkeypatch.syspath_prepend(site)
    entry_points.installed.cache_clear()
    yield lambda line: CliRunner().invoke(cli, line.split(), terminal_width=200)
    entry_points.installed.cache_clear()


@pytest.mark.slow
def test_it_is_listed_with_its_distribution(run: Run) -> None:
    rows = json.loads(run("kdtool", "plugins", "--json").stdout)

    (row,) = (row for row in rows if row["name"] == "logit-mse")
    assert (row["kind"], row["distribution"], row["version"]) == ("distillers", "kdtool-logit-mse", "0.1.0")
    assert (row["status"], row["reason"]) == ("ok", None)


def test_its_option_is_in_the_help_and_its_alone(here: Callable[[str], Result]) -> None:
    help_text = here("distill --method logit-mse --help").stdout

    assert "--weight" in help_text
    assert "weight of the teacher's term" in help_text
    assert "--temperature" not in help_text


def test_its_option_is_checked_and_refused_elsewhere(here: Callable[[str], Result]) -> None:
    low = here("distill x.pt --method logit-mse --weight -1")
    elsewhere = here("distill x.pt --method kd --weight 1")

    assert low.exit_code == elsewhere.exit_code == 2
    assert "--weight" in low.stderr
    assert "--weight is an option of" in elsewhere.stderr


@pytest.mark.slow
def test_it_distils_and_the_checkpoint_tells_how(run: Run, tmp_path: Path) -> None:
    # One chained command line is one process, which imports torch only once.
    teacher = "teacher kdtool:lenet-300-100 --data digits --epochs 1 -o t.pt"
    distill = "distill --student kdtool:lenet-300-100 --method logit-mse --weight 0.5 --epochs 1"
    printed = run("kdtool", *teacher.split(), *distill.split()).stdout

    assert printed == "t-logit-mse.pt\n"
    student = kdtool.load(tmp_path / "t-logit-mse.pt")
    assert (student.history[-1]["method"], student.history[-1]["options"]) == ("logit-mse", {"weight": 0.5})
    assert "--method logit-mse" in student.history[-1]["line"]
    assert "--weight 0.5" in student.history[-1]["line"]
    before = kdtool.load(tmp_path / "t.pt").module.state_dict()
    assert any(not torch.equal(before[name], tensor) for name, tensor in student.module.state_dict().items())


def test_it_keeps_the_contract(here: Callable[[str], Result]) -> None:
    check_distiller(method_class("distillers", "logit-mse"))


@pytest.mark.slow
def test_its_own_test_passes(run: Run) -> None:
    assert "1 passed" in run("pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE)).stdout


@pytest.mark.slow
def test_one_package_of_each_kind_in_one_chain(tmp_path: Path) -> None:
    names = ("plain", "fit", "logit-mse", "relative", "weights", "stripes", "lines")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    packages = [str(EXAMPLE.with_name(f"kdtool-{name}")) for name in names]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), *packages], check=True, capture_output=True, text=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "COLUMNS": "200"}

    def run(line: str) -> str:
        command = [sys.executable, "-m", "kdtool", *line.split()]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    rows = {row["name"]: row for row in json.loads(run("plugins --json"))}
    assert {name: (rows[name]["distribution"], rows[name]["status"]) for name in names} == {
        name: (f"kdtool-{name}", "ok") for name in names
    }
    steps = [
        "teacher plain:one-hidden --data stripes --epochs 1 --track lines:numbers.txt -o t.pt",
        "distill --method logit-mse --refiner fit --parameters 9000 --epochs 1 -o s.pt",
        "prune --method relative --ratio 0.5 --epochs 1 -o p.pt",
        "export --method weights",
    ]
    assert run(" ".join(steps)) == "p.safetensors\n"
    assert "teacher/val_accuracy" in (tmp_path / "numbers.txt").read_text()
    history = json.loads(run("inspect p.pt --json"))["history"]
    assert [entry["method"] for entry in history] == ["plain", "logit-mse", "relative"]
