"""The file: what goes in comes out, and nothing else is believed."""

import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

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


def test_a_history_without_sizes_is_shown(teacher_path):
    checkpoint = read(teacher_path)
    del checkpoint.history[0]["size"]
    assert checkpoint.compression(10) == 1.0


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
    content.pop("fingerprint")  # as in files of older releases
    change(content)
    path = teacher_path.with_name("damaged.pt")
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.update(version=99), "version 99"),
        (lambda c: c.update(extra=1), "unknown entries extra"),
        (lambda c: c.update(version="\x1b[2J\n"), r"version \?\[2J\?, this"),
        (lambda c: c["architecture"].update({"\x1b[\n": 1}), r"unknown entries \?\["),
        (lambda c: c["history"][-1].update(line=3), "history: entry 1.line is missing or malformed"),
        (lambda c: c["history"][-1].pop("line"), "history: entry 1.line is missing or malformed"),
        (lambda c: c["metrics"][0].update(accuracy=[1]), "metrics: entry 1.accuracy is missing or malformed"),
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


def first_of(weights):
    return next(iter(weights.values()))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: first_of(c["weights"]).view(-1)[7:8].add_(1e-6), "the weights are not those that were written"),
        (lambda c: first_of(c["early"]["weights"]).neg_(), "the early are not those"),
        (lambda c: c.update(fingerprint=None), "the fingerprints of the weights are missing or malformed"),
        (lambda c: c["fingerprint"].pop("early"), "the fingerprints of the weights are missing or malformed"),
    ],
)
def test_weights_that_are_not_those_that_were_written_are_refused(teacher_path, tmp_path, change, says):
    first = read(teacher_path)
    first.early = Early(0, weights_of(first.module))
    path = tmp_path / "changed.pt"
    first.save(path)
    content = torch.load(path, weights_only=True)
    assert content["fingerprint"]["weights"] == fingerprint(content["weights"])
    change(content)
    torch.save(content, path)
    with pytest.raises(kdtool.Error, match=f"changed.pt: damaged checkpoint: {says}"):
        read(path)


def outcome(path):
    """Return the fingerprint of the weights that are read, or the message of the refusal."""
    try:
        return fingerprint(read(path).module.state_dict())
    except kdtool.Error as error:
        return str(error)


def test_no_flipped_bit_is_read(teacher_path, tmp_path):
    """Of a byte in each record, and of the archive's own headers, one bit is flipped."""
    whole = teacher_path.read_bytes()
    path = tmp_path / "flipped.pt"
    path.write_bytes(whole)
    meant, refused = outcome(path), 0
    with zipfile.ZipFile(teacher_path) as archive:
        places = [entry.header_offset + shift for entry in archive.infolist() for shift in (40, 200)]
    for place in (*places, len(whole) - 40, len(whole) - 200):
        flipped = bytearray(whole)
        flipped[min(place, len(whole) - 1)] ^= 0x40
        path.write_bytes(flipped)
        told = outcome(path)
        # What is not refused is padding, or a name that nobody reads.
        assert told == meant or (told.startswith(f"{path}: ") and "damaged" in told)
        refused += told != meant
    assert refused > len(places) / 2


def test_the_record_that_is_damaged_is_named(teacher_path, tmp_path):
    whole = bytearray(teacher_path.read_bytes())
    with zipfile.ZipFile(teacher_path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    whole[largest.header_offset + 1000] ^= 1
    (tmp_path / "flipped.pt").write_bytes(whole)
    with pytest.raises(kdtool.Error, match=f"flipped.pt: damaged: the record {largest.filename} does not match"):
        read(tmp_path / "flipped.pt")


def test_a_file_may_be_overwritten_after_it_was_read(teacher_path, tmp_path):
    path = tmp_path / "s.pt"
    path.write_bytes(teacher_path.read_bytes())
    checkpoint = read(path)
    before = fingerprint(checkpoint.module.state_dict())
    path.write_bytes(bytes(path.stat().st_size))
    assert fingerprint(checkpoint.module.state_dict()) == before
    assert str(path) not in Path("/proc/self/maps").read_text()


GIANT = """
import resource, sys
from kdtool.models.checkpoint import read
from kdtool import Error
import timm, torchvision  # their own memory does not count
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read(sys.argv[1])
except Error as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def giant(path, **changes):
    options = {"classes": 10, "in_channels": 3, "image_size": 224, "stem": "default"}
    architecture = {
        "source": "timm", "name": "vit_giant_patch14_clip_224", "options": options, "dropped": (), "attributes": {},
        "buffers": {}, "selects": {}, "projectors": {}, **changes,
    }  # fmt: skip
    torch.save({"format": "kdtool", "version": 1, "architecture": architecture, "weights": {}, "data": None,
                "metrics": [], "history": []}, path)  # fmt: skip
    return path


MISSING = "timm:vit_giant_patch14_clip_224: the weights do not fit the network: 489 missing (cls_token"


def test_a_small_file_that_names_a_giant_is_refused_by_the_names_of_its_weights(tmp_path):
    file = giant(tmp_path / "giant.pt")
    assert file.stat().st_size < 2500
    assert outcome(file).startswith(f"{file}: {MISSING}")


def test_a_projector_of_millions_is_refused_by_the_names_of_its_weights(tmp_path):
    form = {"conv1": [64, 5000, 64]}  # 226 million weights
    file = giant(tmp_path / "wide.pt", source="torchvision", name="resnet18", projectors=form)
    assert "missing (conv1.layer.weight" in outcome(file)


@pytest.mark.slow  # it starts a process
def test_a_small_file_that_names_a_giant_takes_little_memory(tmp_path):
    file = giant(tmp_path / "giant.pt")
    told = subprocess.run([sys.executable, "-c", GIANT, file], capture_output=True, text=True, check=True).stdout
    message, megabytes = told.splitlines()
    assert message.startswith(f"{file}: {MISSING}")
    assert int(megabytes) < 300  # the network has 4 GB


def test_a_missing_plugin_is_named_with_its_distribution(teacher_path, tmp_path):
    content = torch.load(teacher_path, weights_only=True)
    content["architecture"]["source"] = content["history"][0]["method"] = "gone"
    content["history"][0]["versions"]["kdtool-gone"] = "1.2"
    torch.save(content, tmp_path / "s.pt")
    with pytest.raises(kdtool.Error, match=r"no teacher source is called 'gone'.*it comes with kdtool-gone 1.2: inst"):
        read(tmp_path / "s.pt")


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


def test_fingerprint_sees_every_value_and_shape():
    weights = weights_of(torch.nn.Linear(3, 2))
    changed = {name: tensor.clone() for name, tensor in weights.items()}
    assert fingerprint(changed) == fingerprint(weights)
    changed["bias"][0] += 1e-6
    assert fingerprint(changed) != fingerprint(weights) != fingerprint({**weights, "bias": weights["bias"][None]})
