import shutil

import kdtool
from kdtool.reporting.sources import read_sources


def test_files_of_one_name_have_the_directories_that_tell_them_apart(teacher_path, tmp_path, monkeypatch):
    for place in ("a/x", "b/x", "b/y"):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(teacher_path, tmp_path / place / "s.pt")
    shutil.copy(teacher_path, tmp_path / "alone.pt")
    monkeypatch.chdir(tmp_path / "b")

    def names(*paths):
        return [source.name for source in read_sources([tmp_path / "b" / path for path in paths])]

    assert names("x/s.pt", "y/s.pt", "../alone.pt") == ["x/s.pt", "y/s.pt", "alone.pt"]
    assert names("x/s.pt", "../a/x/s.pt") == ["b/x/s.pt", "a/x/s.pt"]
    assert names("x/s.pt", "../b/x/s.pt") == ["s.pt"]
    assert [source.name for source in read_sources([tmp_path / "a/x/s.pt", *map(type(tmp_path), ["x/s.pt"])])] == [
        "a/x/s.pt",
        "b/x/s.pt",
    ]
    text = kdtool.report("x/s.pt", "y/s.pt", output=tmp_path / "r.csv").read_text()
    assert [line.split(",")[0] for line in text.splitlines()] == ["checkpoint", "x/s.pt", "y/s.pt"]
