"""Which sizes stand between teacher and student, and who teaches whom."""

import pytest

import kdtool


def rows(checkpoint):
    return [(row["model"], row["taught_by"], row["parameters"]) for row in checkpoint.history[-1]["rows"]]


def lenet(first, second):
    """The parameters of a network of 64 inputs, two hidden layers and 10 classes."""
    return 64 * first + first + first * second + second + second * 10 + 10


def test_assistants_are_halved_and_teach_the_next(teacher_path, tmp_path):
    student = kdtool.distill(teacher_path, "assistant", assistants=2, epochs=1, output=tmp_path / "s.pt")
    assert rows(student) == [
        ("assistant 1", "teacher", lenet(150, 50)),
        ("assistant 2", "assistant 1", lenet(75, 25)),
        ("student", "assistant 2", lenet(38, 13)),
    ]


def test_a_student_that_was_named(teacher_path, tmp_path):
    kdtool.refine(teacher_path, "halve", times=3, output=tmp_path / "small.pt")
    student = kdtool.distill(
        teacher_path, "assistant", student=tmp_path / "small.pt", objective="dist", epochs=1, output=tmp_path / "s.pt"
    )
    assert rows(student) == [("assistant 1", "teacher", lenet(150, 50)), ("student", "assistant 1", lenet(38, 13))]


def test_a_student_as_large_as_the_assistant_is_refused(teacher_path, tmp_path):
    with pytest.raises(kdtool.Error, match="no gap to bridge; ask for fewer --assistants"):
        kdtool.distill(teacher_path, "assistant", student="kdtool:lenet-300-100", epochs=1, output=tmp_path / "s.pt")
    assert not (tmp_path / "s.run").exists()


def test_an_assistant_that_cannot_be_made_is_named(teacher_path, tmp_path):
    with pytest.raises(kdtool.Error, match=r"--assistants 30: assistant \d+ cannot be made: .*halve"):
        kdtool.distill(teacher_path, "assistant", assistants=30, epochs=1, output=tmp_path / "s.pt")
