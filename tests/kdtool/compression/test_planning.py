"""Who is trained and for how long is found in one process, also where several would train."""

import os

import pytest

import kdtool
from kdtool.compression import planning


def test_of_several_processes_the_first_measures_also_in_a_dry_run(teacher_path, tmp_path, monkeypatch, in_processes):
    def measured(*about):
        (tmp_path / os.environ["RANK"]).touch()
        raise kdtool.Error("nothing meets the budget")

    monkeypatch.setattr(planning, "propose", measured)

    def compress():
        with pytest.raises(kdtool.Error, match="nothing meets the budget"):
            kdtool.compress(teacher_path, max_macs="0.3x", device="cpu", output=tmp_path / "s.pt", dry_run=True)

    assert in_processes(compress) == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
