"""Data sets in the cache of Hugging Face's datasets, which pyarrow writes here as the library does."""

import contextlib
import io
import json
import socket

import numpy as np
import pytest
from PIL import Image

from kdtool.data.opening import open_data, open_spec
from kdtool.data.options import DataOptions
from kdtool.errors import Error
from kdtool.testing.checks import check_dataset
from kdtool_datasets import hf_datasets
from kdtool_datasets.hf_datasets import HfDatasets

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")

HASH = "0123456789abcdef0123456789abcdef01234567"
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ["cat", "dog", "eel"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache of the library, in a folder of its own; nothing may go to the network."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.setattr("datasets.config.DOWNLOADED_DATASETS_PATH", tmp_path / "hub/downloads")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-files"))

    def refuse(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path / "hub"


def png(gray):
    file = io.BytesIO()
    Image.fromarray(np.full((12, 12), gray, np.uint8)).save(file, "PNG")
    return file.getvalue()


def store(cache, splits, *, name="someone___small_pets", config="default", features=None, **columns):
    """Write a data set as the library keeps it: a stream of batches for each split, and a description."""
    folder = cache / name / config / "0.0.0" / HASH
    folder.mkdir(parents=True)
    label = {"names": NAMES, "_type": "ClassLabel"}
    features = features or {"image": {"_type": "Image"}, "label": label}
    plain = [(key, STRUCT if feature["_type"] == "Image" else pa.int64()) for key, feature in features.items()]
    schema = pa.schema(plain, metadata={"huggingface": json.dumps({"info": {"features": features}})})
    _, _, dataset = name.rpartition("___")
    for split, labels in splits.items():
        rows = [{"bytes": png(80 * max(label, 0) + row % 80), "path": None} for row, label in enumerate(labels)]
        values = columns.get("values", lambda kind, rows, labels: rows if kind == "Image" else labels)
        with pa.ipc.new_stream(folder / f"{dataset}-{split}.arrow", schema) as writer:
            for part in (slice(0, 5), slice(5, None)):
                arrays = [
                    pa.array(values(feature["_type"], rows, labels)[part], field.type)
                    for feature, field in zip(features.values(), schema, strict=True)
                ]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
    sizes = {split: {"name": split, "num_bytes": 1, "num_examples": len(labels), "dataset_name": dataset}
             for split, labels in splits.items()}  # fmt: skip
    version = {"version_str": "0.0.0", "major": 0, "minor": 0, "patch": 0}
    info = {"features": features, "builder_name": "parquet", "dataset_name": dataset, "config_name": config}
    (folder / "dataset_info.json").write_text(json.dumps({**info, "version": version, "splits": sizes}))
    return folder


def opened(name="someone/small_pets", **options):
    return open_data(DataOptions(data=f"hf-datasets:{name}", augment="none", **options))


def error_of(name="someone/small_pets", **options):
    with pytest.raises(Error) as error:
        opened(name, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_data_set_of_the_cache(cache, capfd):
    store(cache, {"train": [0, 1, 2] * 10, "validation": [0, 1, 2], "test": [2, 1, 1, 0]})
    check_dataset(HfDatasets, argument="someone/small_pets")
    data = opened()
    assert data.spec.classes == ("cat", "dog", "eel")
    assert [len(split) for split in (data.train, data.val, data.test)] == [30, 3, 4]
    for split in (data.train, data.val, data.test):
        ((_, images, labels),) = split.batches(100)
        gray = 255 * (images[:, 0, 5, 5] * data.spec.std[0] + data.spec.mean[0])
        assert (gray.round() // 80).long().tolist() == labels.tolist()
    again = open_spec(data.spec)
    assert again.spec.splits == data.spec.splits
    assert not any(capfd.readouterr())


def test_without_a_network_and_not_in_the_cache(monkeypatch):
    where = "hf-datasets: someone/other: is not in the cache of datasets"
    assert error_of("someone/other") == f"{where}; add --download to get it from the Hub"
    offline = f"{where}, and the Hub cannot be reached; is there a network connection?"
    monkeypatch.setattr(hf_datasets, "getproxies", dict)
    assert error_of("someone/other", download=True) == offline
    assert not datasets.config.HF_HUB_OFFLINE


def test_a_cached_data_set_opens_with_download_and_without_a_network(cache, monkeypatch):
    monkeypatch.setattr(hf_datasets, "getproxies", dict)
    store(cache, {"train": [0, 1, 2] * 10})
    assert len(opened(download=True).train) > 15


def test_two_columns_may_be_the_label(cache):
    features = {
        "img": {"_type": "Image"},
        "fine_label": {"names": NAMES, "_type": "ClassLabel"},
        "coarse_label": {"names": NAMES, "_type": "ClassLabel"},
    }
    store(cache, {"train": [0, 1, 2] * 10}, features=features)
    assert error_of().endswith(
        "its columns fine_label and coarse_label may all be the label; choose one, as in "
        "hf-datasets:someone/small_pets,label=fine_label"
    )
    data = opened("someone/small_pets,label=coarse_label")
    assert open_spec(data.spec).spec.splits == data.spec.splits


def test_several_configurations(cache):
    for config in ("small", "large"):
        store(cache, {"train": [0, 1, 2] * 10}, config=config)
    assert "choose one with hf-datasets:someone/small_pets,config=NAME" in error_of()
    assert len(opened("someone/small_pets,config=small").train) > 15
    assert "Available configs in the cache: ['large', 'small']; choose one with" in error_of(
        "someone/small_pets,config=none"
    )


def test_splits_that_mean_nothing_here(cache, caplog):
    store(cache, {"train": [0, 1, 2] * 10, "extra": [0, 1], "test": [-1, -1]})
    assert opened().test is None
    assert "left out the splits extra, being neither train, val nor test" in caplog.text
    assert "left out the test split, whose 2 images have no labels" in caplog.text


def test_images_as_files_are_read_from_the_cache_alone(cache, tmp_path):
    inside = cache / "downloads/extracted/x"
    inside.mkdir(parents=True)
    for row in range(30):
        (inside / f"{row}.png").write_bytes(png(row))

    def values(kind, rows, labels):
        return [{"bytes": None, "path": str(inside / f"{row}.png")} for row in range(30)] if kind == "Image" else labels

    store(cache, {"train": [0, 1, 2] * 10}, values=values)
    raw = HfDatasets().load("someone/small_pets", None)
    assert raw.train.images[7] == inside / "7.png"
    assert raw.train.keys[7] == "train/7.png"
    (inside / "7.png").unlink()
    (tmp_path / "secret.png").write_bytes(png(9))
    (inside / "7.png").symlink_to(tmp_path / "secret.png")
    assert "row 7 of train: has no bytes of an image, and no file in the cache of datasets" in error_of()


@pytest.mark.parametrize("name", ["", "../photos", "a/b/c", "/photos", "a b", "scheme://host/x", "-x"])
def test_what_is_no_name_on_the_hub(name):
    assert "is no name on the Hub, such as uoft-cs/cifar100" in error_of(name)


def test_a_folder_of_that_name_is_not_taken_for_it(tmp_path, monkeypatch):
    (tmp_path / "someone/small_pets").mkdir(parents=True)
    (tmp_path / "someone/small_pets/train.csv").write_text("a,b\n1,2\n")
    monkeypatch.chdir(tmp_path)
    assert "is not in the cache of datasets" in error_of()


def test_a_missing_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert error_of() == "hf-datasets: needs datasets; pip install 'kdtool[datasets]'"


def test_bars_are_off_where_a_program_has_no_stderr(monkeypatch):
    shown = []
    monkeypatch.setattr(datasets, "is_progress_bar_enabled", lambda: True)
    monkeypatch.setattr(datasets, "disable_progress_bars", lambda: shown.append(False))
    monkeypatch.setattr(datasets, "enable_progress_bars", lambda: shown.append(True))
    with contextlib.redirect_stderr(None), hf_datasets._quietly(datasets):
        assert shown == [False]
    assert shown == [False, True]
