"""The file: what goes in comes out, and nothing else is believed."""

import pickle

import pytest
import torch

import kdtool
from kdtool.models.checkpoint import Early, fingerprint, read, weights_of, write


def test_round_trip_gives_the_same_outputs(teacher_path, tmp_path):
    first = read(teacher_path)
    first.save(tmp_path / "again.pt")
    again = read(tmp_path / "again.pt")
    images = torch.randn(4, *first.architecture.input)
    assert torch.equal(first.module(images), again.module(images))
    assert again.metrics == first.metrics
    assert again.history == first.history
    assert again.data == first.data
    assert not again.module.training


def test_early_weights_come_back(teacher_path, tmp_path):
    first = read(teacher_path)
    assert first.early is None
    first.early = Early(3, {name: torch.rand_like(one) for name, one in first.module.state_dict().items()})
    first.save(tmp_path / "again.pt")
    again = read(tmp_path / "again.pt")
    assert again.early is not None
    assert again.early.epoch == 3
    assert all(torch.equal(one, first.early.weights[name]) for name, one in again.early.weights.items())


@pytest.mark.parametrize(
    "early",
    [[], {"epoch": 1}, {"epoch": "1", "weights": {}}, {"epoch": -1, "weights": {}}, {"epoch": 0, "weights": {}}],
)
def test_early_weights_that_are_none_are_damage(teacher_path, tmp_path, early):
    content = torch.load(teacher_path, weights_only=True)
    torch.save({**content, "early": early}, tmp_path / "bad.pt")
    with pytest.raises(kdtool.Error, match="bad.pt: damaged checkpoint: the early weights"):
        read(tmp_path / "bad.pt")


def test_a_pickle_is_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Bad:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    path = tmp_path / "bad.pt"
    path.write_bytes(pickle.dumps(Bad()))
    with pytest.raises(kdtool.Error):
        read(path)
    torch.save({"format": "kdtool", "weights": Bad()}, path)
    with pytest.raises(kdtool.Error):
        read(path)
    assert not marker.exists()


def test_a_plain_state_dict_is_told(tmp_path):
    path = tmp_path / "student.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(kdtool.Error, match=r"student.pt: not a kdtool checkpoint \(a plain state_dict\). Import it"):
        read(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"hello world, this is text", "not"),
        (b"PK\x03\x04 half a zip", "truncated|not"),
    ],
)
def test_other_files(tmp_path, content, says):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(kdtool.Error, match=says):
        read(path)


def test_half_a_checkpoint(teacher_path, tmp_path):
    content = teacher_path.read_bytes()
    path = tmp_path / "half.pt"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(kdtool.Error, match="half.pt"):
        read(path)


def damaged(teacher_path, change):
    content = torch.load(teacher_path, weights_only=True)
    change(content)
    path = teacher_path.with_name("damaged.pt")
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.update(version=99), "version 99"),
        (lambda c: c.update(extra=1), "unknown entries extra"),
        (lambda c: c.pop("history"), "unknown entries history"),
        (lambda c: c.update(weights=[1, 2]), "weights"),
        (lambda c: c.update(metrics={"a": 1}), "metrics"),
        (lambda c: c["weights"].popitem(), "."),
        (lambda c: c["weights"].update(other=torch.zeros(1)), "other"),
        (lambda c: c["architecture"].update(source="hub"), "hub"),
        (lambda c: c["architecture"].update(name="nothing"), "nothing"),
        (lambda c: c["architecture"]["options"].update(checkpoint_path="x"), "checkpoint_path"),
        (lambda c: c["architecture"].update(attributes={"": {"forward": 1}}), "forward"),
        (lambda c: c["architecture"].update(attributes={"no.such": {"x": 1}}), "no.such"),
        (lambda c: c["architecture"].update(dropped=("no.such",)), "do not fit"),
        (lambda c: c["data"].update(mean="x"), "."),
        (lambda c: c["data"].update(image_size=9), "damaged"),
    ],
)
def test_damaged_checkpoints_are_refused(teacher_path, change, says):
    path = damaged(teacher_path, change)
    with pytest.raises(kdtool.Error, match=says) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_the_old_file(teacher_path, tmp_path, monkeypatch):
    checkpoint = read(teacher_path)
    path = tmp_path / "kept.pt"
    checkpoint.save(path)
    before = path.read_bytes()

    def full(content, file):  # as torch's writer does
        file.write(b"half")
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:672]")  # noqa: B904

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(kdtool.Error, match="No space left"):
        write(path, checkpoint)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.pt"]


def test_fingerprint_sees_every_value():
    weights = weights_of(torch.nn.Linear(3, 2))
    assert fingerprint(weights) == fingerprint({name: tensor.clone() for name, tensor in weights.items()})
    changed = {name: tensor.clone() for name, tensor in weights.items()}
    changed["bias"][0] += 1e-6
    assert fingerprint(changed) != fingerprint(weights)
