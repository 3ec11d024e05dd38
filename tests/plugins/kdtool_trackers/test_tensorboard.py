"""What TensorBoard itself reads of a training."""

import types

import pytest

from kdtool.plugins.registry import load
from kdtool.plugins.tracker import Tracked, trackers
from kdtool.testing import check_tracker
from kdtool_trackers.tensorboard import TensorBoard

pytest.importorskip("tensorboard")


def test_tensorboard_reads_what_was_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tracker,) = trackers(f"tensorboard:{tmp_path / 'logs'}")
    tracker.open(Tracked("student", tmp_path, tmp_path / "student.pt", {"training.epochs": 2}, resumed=False))
    run = types.SimpleNamespace(directory=tmp_path)
    tracker.epoch_ended(run, "M1 from M0", 1, {"phase": "M1 from M0", "epoch": 1, "loss": 0.5, "val_accuracy": 0.25})
    tracker.epoch_ended(run, "M1 from M0", 2, {"phase": "M1 from M0", "epoch": 2, "loss": 0.25, "val_accuracy": 0.75})
    tracker.phase_ended(run, "M1 from M0", {"accuracy": 0.75, "loss": 1.0, "best_epoch": 2})
    tracker.checkpoint_saved("out/student.pt", [{"split": "test", "accuracy": 0.5, "loss": 2.0, "images": 9}])
    tracker.close(failed=False)

    events = EventAccumulator(str(tmp_path / "logs" / "student"))
    events.Reload()
    scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert scalars == {
        "M1 from M0/loss": [(1, 0.5), (2, 0.25)],
        "M1 from M0/val_accuracy": [(1, 0.25), (2, 0.75)],
        "M1 from M0/kept/accuracy": [(2, 0.75)],
        "M1 from M0/kept/loss": [(2, 1.0)],
        "student/test/accuracy": [(0, 0.5)],
        "student/test/loss": [(0, 2.0)],
    }
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert "| training.epochs | 2 |" in texts["options/text_summary"]
    assert texts["student/checkpoint/text_summary"] == "out/student.pt"


def test_files_go_beside_the_output_unless_a_directory_is_named(tmp_path):
    (tracker,) = trackers("tensorboard")
    tracker.open(Tracked("student", tmp_path, tmp_path / "student.pt", {}, resumed=False))
    tracker.close(failed=False)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert len([*(tmp_path / "runs" / "student").iterdir()]) == 1


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path):
    import kdtool

    (tmp_path / "file").write_text("")
    (tracker,) = trackers(f"tensorboard:{tmp_path / 'file'}")
    with pytest.raises(kdtool.UsageError, match=r"^--track tensorboard: NotADirectoryError: .*; or leave --track "):
        tracker.open(Tracked("student", tmp_path, tmp_path / "student.pt", {}, resumed=False))


def test_every_tracker_says_how_it_is_installed():
    from kdtool.plugins.entry_points import installed

    found = [load(plugin) for plugin in installed() if plugin.kind == "trackers" and plugin.builtin]
    assert {cls.name for cls in found} == {"tensorboard", "mlflow", "wandb"}
    assert all(f"kdtool[{cls.name}]" in cls.install and cls.needs for cls in found)


def test_it_keeps_the_contract():
    check_tracker(TensorBoard)
