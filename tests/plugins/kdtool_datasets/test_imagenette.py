"""Imagenette's folders and editions."""

import numpy as np
import pytest
from PIL import Image

from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.errors import Error, UsageError
from kdtool.testing.checks import check_dataset
from kdtool_datasets.imagenette import Imagenette, Imagewoof


def make(folder, wnids):
    for part, count in (("train", 4), ("val", 2)):
        for number, wnid in enumerate(wnids):
            (folder / part / wnid).mkdir(parents=True)
            for index in range(count):
                pixels = np.full((24, 20, 3), 20 * number + index, np.uint8)
                Image.fromarray(pixels).save(folder / part / wnid / f"{wnid}_{index}.JPEG")


@pytest.mark.parametrize("dataset", [Imagenette, Imagewoof])
def test_its_val_is_the_test_split(tmp_path, dataset):
    make(tmp_path / f"{dataset.folder}-160", dataset.names)
    check_dataset(dataset, argument="160", root=tmp_path)
    data = dataset().load("160", tmp_path)
    assert (len(data.train), data.val, len(data.test)) == (40, None, 20)
    assert all("/val/" in path.as_posix() for path in data.test.images)
    assert data.classes == tuple(dataset.names[wnid] for wnid in sorted(dataset.names))
    assert len(data.classes) == 10


def test_images_are_read_and_split(tmp_path):
    make(tmp_path / "imagenette2-160", Imagenette.names)
    data = open_data(DataOptions(data="imagenette", data_dir=tmp_path))
    assert data.spec.image_size == 128
    assert data.spec.name == "imagenette"
    assert len(data.train) + len(data.val) == 40
    _, images, labels = next(data.train.batches(40, view=0))
    assert images.shape == (len(data.train), 3, 128, 128)
    # Every image has one shade of gray, which encodes its class.
    gray = images[:, 0].flatten(1).mean(1) * data.spec.std[0] + data.spec.mean[0]
    assert (255 * gray / 20).add(0.1).long().tolist() == labels.tolist()


@pytest.mark.parametrize(("argument", "folder"), [("", "imagewoof2-160"), ("320", "-320"), ("full", "imagewoof2;")])
def test_missing_editions_tell_their_folder(tmp_path, argument, folder):
    with pytest.raises(Error, match=f"there is no .*{folder}.*--data-dir"):
        Imagewoof().load(argument, tmp_path)


def test_other_editions_and_half_a_data_set(tmp_path):
    with pytest.raises(UsageError, match="no edition '224'; write imagewoof:160, :320 or :full"):
        Imagewoof().load("224", tmp_path)
    (tmp_path / "imagewoof2-160/train").mkdir(parents=True)
    with pytest.raises(Error, match=r"there is no .*imagewoof2-160/val"):
        Imagewoof().load("160", tmp_path)


def test_download_unpacks_the_archive_of_the_edition(tmp_path, monkeypatch):
    urls = []

    def download(url, root, remove_finished):
        urls.append(url)
        make(tmp_path / "imagenette2-320", Imagenette.names)

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", download)
    for _ in range(2):
        assert Imagenette(download=True).load("320", tmp_path).image_size == 224
    assert urls == ["https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz"]
