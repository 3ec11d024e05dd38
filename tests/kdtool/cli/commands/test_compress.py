"""``kdtool compress`` on the command line: alone, in a chain, as JSON, and its exit codes."""

import json
import shutil

import pytest
from click.testing import CliRunner

import kdtool
from kdtool.cli.completion import Zsh
from kdtool.cli.main import cli

QUICK = ["--candidates", "halve", "--no-quantised", "--epochs", "1", "--max-macs", "0.3x"]


def run(*words):
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.mark.slow
def test_a_chain_goes_on_with_the_student(teacher_path, tmp_path):
    result = run("compress", teacher_path, *QUICK, "-o", tmp_path / "s.pt", "evaluate", "--json")
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)
    assert "s.pt" in json.dumps(scores)
    assert "test accuracy: student" in result.stderr
    assert "compress: 1 candidates" not in result.stdout


def test_json_is_what_was_tried_and_a_loss_that_is_too_large_is_exit_code_1(teacher_path, tmp_path):
    result = run(
        *("compress", teacher_path, *QUICK, "--max-macs", "0.02x", "--lr", "1e-9", "--max-drop", "0.5%"),
        *("--subset", "0.2", "--json", "-o", tmp_path / "s.pt"),
    )
    assert result.exit_code == 1
    results = json.loads(result.stdout)
    assert results["met"] is False
    assert results["winner"].startswith("halve ratio=")
    assert {"rows", "trials", "limits", "device", "metrics", "teacher_metrics"} <= results.keys()
    assert "nothing met --max-macs 0.02x --max-drop 0.5%: nearest was halve" in result.stderr
    assert (tmp_path / "s.pt").exists()


def test_in_a_chain_the_last_step_alone_prints_json(teacher_path, tmp_path, monkeypatch):
    results = {"rows": [], "metrics": [], "teacher_metrics": [], "quantised_file": None}

    def compress(teacher, method, output, **options):
        shutil.copy(teacher, output)
        return kdtool.load(output)

    monkeypatch.setattr("kdtool.api.compress", compress)
    monkeypatch.setattr("kdtool.compression.record.results_of", lambda checkpoint: results)
    words = ("compress", teacher_path, "--max-macs", "0.3x", "--json", "-o")
    assert json.loads(run(*words, tmp_path / "a.pt").stdout) == results
    assert json.loads(run(*words, tmp_path / "b.pt", "inspect", "--json").stdout)["path"].endswith("b.pt")


def test_the_help_offers_what_compress_takes():
    offered = run("compress", "--help").stdout
    assert "  kd " in offered
    assert not {"ikd", "gated", "ensemble"} & {line.split()[0] for line in offered.splitlines() if line.strip()}
    assert "N|auto" not in offered
    complete = Zsh(cli, {}, "kdtool", "_KDTOOL_COMPLETE").get_completions
    assert "gated" in [item.value for item in complete(["distill", "--method"], "")]
    assert "gated" not in [item.value for item in complete(["compress", "--method"], "")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "compress needs a budget"),
        (["--max-latency", "5"], "is not a budget"),
        (["--max-macs", "0.3x", "--candidates", "halfe"], "did you mean halve"),
        (["--max-macs", "0.3x", "--method", "gated"], "--method gated: makes its student itself; compress needs one"),
        (["--max-macs", "0.3x", "--method", "ensemble"], "--method ensemble: learns from several teachers; compress"),
        (["--max-macs", "0.3x", "--epochs", "0"], "--epochs 0: compress trains its candidates; give 1 or more"),
        (["--max-macs", "0.3x", "--processes", "auto"], "compress times its trainings itself; give a number"),
        (["--max-latency", "0.4x", "--latency-from", "x.json"], "--latency-from"),
    ],
)
def test_a_wrong_budget_is_one_line_and_exit_code_2(teacher_path, tmp_path, words, message):
    result = run("compress", teacher_path, *words, "-o", tmp_path / "s.pt")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not [*tmp_path.iterdir()]
