"""The results of a study, without its trainings."""

import json

import pytest

from kdtool.study.record import FORMAT
from kdtool.study.results import means


@pytest.fixture(scope="session")
def exported_study(tmp_path_factory):
    """The directory of a study that exported the students of two methods and two seeds."""
    directory = tmp_path_factory.mktemp("study") / "small.study"
    directory.mkdir()
    teacher = {"name": "teacher", "step": "teacher", "values": {}, "accuracy": 0.95, "seconds": 2.0}
    rows = [
        {
            "name": f"file_seed={seed}_method={method}",
            "step": "file",
            "values": {"seed": seed, "method": method},
            "accuracy": accuracy,
            "macs": 631_616,
            "file_bytes": size,
            "latency_ratio": ratio,
            "seconds": 60.0,
        }
        for seed, method, accuracy, size, ratio in (
            (0, "kd", 0.9, 111_293, 0.7),
            (0, "at", 0.8, 111_292, 0.5),
            (1, "kd", 0.94, 111_293, 0.72),
            (1, "at", 0.82, 111_290, 0.52),
        )
    ]
    empty = {"comparisons": [], "comparison_means": [], "failed": []}
    results = {"rows": [teacher, *rows], "means": means(rows), **empty}
    (directory / "results.json").write_text(json.dumps(results))
    (directory / "study.json").write_text(json.dumps({"format": FORMAT, "commands": {}, "comparisons": {}}))
    return directory
