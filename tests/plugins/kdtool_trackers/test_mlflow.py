"""What MLflow itself reads of a training, from a database in a directory."""

import logging
import types

import pytest

from kdtool.plugins.tracker import Tracked, trackers

pytest.importorskip("mlflow")


@pytest.mark.slow
def test_mlflow_reads_what_was_written_and_a_resumed_run_goes_on(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)  # where MLflow would put files of its own
    run = types.SimpleNamespace(directory=tmp_path)
    told = {"training.epochs": 2, "method": "kd:0.9+at:1000", "objective.weights": "[1, 2]"}
    for epoch, resumed in ((1, False), (2, True)):
        (tracker,) = trackers("mlflow:store")
        tracker.open(Tracked("student", tmp_path, tmp_path / "student.pt", told, resumed))
        tracker.epoch_ended(run, "temperature=4", epoch, {"loss": 0.5 / epoch, "val_accuracy": 0.25})
        tracker.close(failed=not resumed)
    # Its failures are told in one line, and not in tracebacks.
    assert not logging.getLogger("mlflow.store.db.utils").isEnabledFor(logging.ERROR)
    client = MlflowClient(f"sqlite:///{tmp_path}/store/mlflow.db")
    experiment = client.get_experiment_by_name("kdtool")
    (record,) = client.search_runs([experiment.experiment_id])
    assert (record.info.run_name, record.info.status) == ("student", "FINISHED")
    assert record.data.params == {key: str(value) for key, value in told.items()}
    history = client.get_metric_history(record.info.run_id, "temperature_4/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.25)]


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    import kdtool

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    (tracker,) = trackers("mlflow:http://127.0.0.1:9")
    with pytest.raises(kdtool.UsageError, match=r"^--track mlflow: .*127\.0\.0\.1"):
        tracker.open(Tracked("student", tmp_path, tmp_path / "student.pt", {}, resumed=False))
