"""The numbers of a measurement are checked as on the command line."""

import pytest

import kdtool


@pytest.mark.parametrize(
    ("name", "value"), [("threads", 0), ("batch", -1), ("pairs", 0), ("seconds", 0), ("batch", "1")]
)
def test_numbers_out_of_bounds_are_refused(name, value):
    with pytest.raises(kdtool.UsageError, match=f"^--{name}: "):
        kdtool.measure("a.onnx", **{name: value})


def test_unknown_options_are_refused():
    with pytest.raises(kdtool.UsageError, match="there is no option 'thread'; did you mean threads"):
        kdtool.measure("a.onnx", thread=1)


def test_compare_checks_them_too(teacher_path):
    for name, value in (("threads", 0), ("batch", "1"), ("provider", None)):
        with pytest.raises(kdtool.UsageError, match=f"^--{name}: "):
            kdtool.compare(teacher_path, teacher_path, latency=True, **{name: value})


def test_a_study_checks_its_jobs():
    for jobs in (0, "2", None):
        with pytest.raises(kdtool.UsageError, match="^--jobs: "):
            kdtool.run_study("study.toml", jobs=jobs)
