"""What W&B writes of a training in its offline mode, which ``wandb sync`` sends later."""

import struct
import types

import pytest

from kdtool import UsageError
from kdtool.plugins.tracker import Tracked, trackers

pytest.importorskip("wandb")


def records(content):
    """Yield the records of a file in the format of LevelDB's log, which W&B writes after a header of 7 bytes.

    A record is cut into parts, each behind its checksum (4 bytes), length (2) and type (1: whole, 2: first, 3: middle,
    4: last); none of them crosses a multiple of 32 KiB.
    """
    at, record = 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def test_without_an_account_the_way_out_is_said(tmp_path, monkeypatch):
    import wandb

    def init(**_):
        raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", init)
    (tracker,) = trackers("wandb")
    with pytest.raises(UsageError, match=r"^--track wandb: No API key .* log in, or write .* WANDB_MODE=offline$"):
        tracker.open(Tracked("student", tmp_path, tmp_path / "student.pt", {}, resumed=False))


@pytest.mark.slow
def test_wandb_writes_offline_what_its_own_reader_finds(tmp_path, monkeypatch):
    import wandb
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run = types.SimpleNamespace(directory=tmp_path)
    (tracker,) = trackers("wandb:digits")
    tracker.open(Tracked("student", tmp_path, tmp_path / "student.pt", {"training.epochs": 2}, resumed=False))
    number = tracker.run.id
    assert (tmp_path / "wandb-run").read_text() == number
    tracker.epoch_ended(run, "kd", 1, {"phase": "kd", "epoch": 1, "loss": 0.5})
    tracker.checkpoint_saved("student.pt", [{"split": "test", "accuracy": 0.75, "loss": 1.0}])
    tracker.close(failed=False)
    wandb.teardown()  # its own process writes the rest of the file, as at the end of the command

    (file,) = tmp_path.glob(f"wandb/offline-run-*/run-{number}.wandb")
    written = []
    for data in records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        written.append(record)
    about = next(record.run for record in written if record.WhichOneof("record_type") == "run")
    assert (about.project, about.display_name) == ("digits", "student")
    assert '"training.epochs"' in str(about.config) or "training.epochs" in str(about.config)
    rows = [
        {(item.key or "/".join(item.nested_key)): item.value_json for item in record.history.item}
        for record in written
        if record.WhichOneof("record_type") == "history"
    ]
    assert {"kd/loss": "0.5", "epoch": "1"}.items() <= rows[0].items()
    assert {"student/test/accuracy": "0.75", "student/test/loss": "1"}.items() <= rows[1].items() or {
        "student/test/accuracy": "0.75",
        "student/test/loss": "1.0",
    }.items() <= rows[1].items()


@pytest.mark.slow
def test_without_an_account_it_is_one_line(tmp_path, monkeypatch):
    import wandb

    import kdtool

    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    (tracker,) = trackers("wandb")
    with pytest.raises(kdtool.UsageError, match=r"^--track wandb: .*API key"):
        tracker.open(Tracked("student", tmp_path, tmp_path / "student.pt", {}, resumed=False))
