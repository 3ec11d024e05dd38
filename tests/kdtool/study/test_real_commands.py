"""A study of real commands, from the recipe to the results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_study_of_real_commands(tmp_path):
    """Run a study of the digits on the command line, with a comparison and a step that fails while it runs."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("""
        [matrix]
        seed = [3]
        [[step]]
        name = "teacher"
        run = "teacher kdtool:lenet-300-100 --data digits --epochs 1 --seed {seed}"
        [[step]]
        name = "small"
        from = "teacher"
        run = "refine"
        [[step]]
        name = "distilled"
        from = "teacher"
        run = "distill --student {small} --epochs 1 --seed {seed}"
        [[step]]
        name = "exploded"
        from = "teacher"
        run = "distill --refiner halve --epochs 1 --lr 1e30 --optimizer sgd"
        [[step]]
        name = "pruned"
        from = "exploded"
        run = "prune"
        [[step]]
        name = "file"
        from = "distilled"
        run = "export --int8 --calibration minmax --pairs 2 --latency-seconds 0.5"
        [[compare]]
        of = ["teacher", "distilled", "file"]
    """)
    line = [Path(sys.executable).with_name("kdtool"), "run", recipe, "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert done.returncode == 1, done.stderr
    assert "Error: 1 failed, 1 not run; run the same command to try them again" in done.stderr
    result = json.loads(done.stdout)
    assert [row["name"] for row in result["failed"]] == ["exploded_seed=3"]
    assert "not finite" in result["failed"][0]["error"]
    assert [row["step"] for row in result["means"]] == ["teacher", "small", "distilled", "file"]
    assert result["rows"][-1]["latency_ratio"] > 0
    assert len(result["comparisons"]) == 3
    assert result["comparisons"][0]["classified_differently"] > 0

    again = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert json.loads(again.stdout)["rows"] == result["rows"]
