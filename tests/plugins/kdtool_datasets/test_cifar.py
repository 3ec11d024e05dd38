"""CIFAR's files are pickles: their arrays are read, and code in them does not run."""

import os
import pickle
import re

import numpy as np
import pytest
import torch

from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.errors import Error
from kdtool.testing.checks import check_dataset
from kdtool_datasets.cifar import CIFAR10, CIFAR100

FILES = {
    CIFAR10: ("cifar-10-batches-py", [f"data_batch_{number}" for number in range(1, 6)], "test_batch", "batches.meta"),
    CIFAR100: ("cifar-100-python", ["train"], "test", "meta"),
}


def make(root, dataset, protocol=2):
    """Write files of 20 images and 10 classes in CIFAR's format; return the rows and labels by file name."""
    folder, train, test, meta = FILES[dataset]
    (root / folder).mkdir()
    names = [f"class {number}" for number in range(10)]
    (root / folder / meta).write_bytes(pickle.dumps({dataset.names_key: names}, protocol))
    written = {}
    for seed, name in enumerate((*train, test)):
        rows = np.random.default_rng(seed).integers(0, 256, (20, 3072), dtype=np.uint8)
        labels = [(index + seed) % 10 for index in range(20)]
        batch = {"batch_label": name, dataset.labels_key: labels, "data": rows, "filenames": ["x.png"] * 20}
        (root / folder / name).write_bytes(pickle.dumps(batch, protocol))
        written[name] = rows, labels
    return written


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("dataset", [CIFAR10, CIFAR100])
def test_it_reads_what_was_written(tmp_path, dataset, protocol):
    written = make(tmp_path, dataset, protocol)
    check_dataset(dataset, root=tmp_path)
    data = dataset().load("", tmp_path)
    _, train, test, _ = FILES[dataset]
    assert data.classes[1] == "class 1"
    assert data.train.labels.tolist() == [label for name in train for label in written[name][1]]
    assert np.array_equal(data.train.images.flatten(1).numpy(), np.concatenate([written[name][0] for name in train]))
    # A row holds red, then green, then blue, each from left to right and from top to bottom.
    red_second_row = torch.from_numpy(written[test][0][3, 32:64])
    assert torch.equal(data.test.images[3, 0, 1], red_second_row)


def test_files_written_by_python_2(tmp_path):
    make(tmp_path, CIFAR10)
    folder = tmp_path / "cifar-10-batches-py"
    # Python 2 writes texts as byte strings (U), and uses numpy's old module names.
    row = bytes(range(256)) * 12
    old = (
        b"\x80\x02}q\x00(U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04"
        b"U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x01M\x00\x0c\x86q\x08cnumpy\ndtype\nq\tU\x02u1q\nK\x00K\x01\x87q\x0bRq\x0c"
        b"(K\x03U\x01|q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89T\x00\x0c\x00\x00" + row + b"q\x0ftq\x10b"
        b"U\x06labelsq\x11]q\x12K\x07au."
    )
    (folder / "test_batch").write_bytes(old)
    test = CIFAR10().load("", tmp_path).test
    assert test.labels.tolist() == [7]
    assert test.images.flatten().numpy().tobytes() == row


class Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_code_in_a_batch_does_not_run(tmp_path):
    make(tmp_path, CIFAR10)
    target = tmp_path / "attacked"
    for protocol in (0, 2, 4):
        content = pickle.dumps({"data": Attack(target), "labels": []}, protocol)
        (tmp_path / "cifar-10-batches-py/data_batch_2").write_bytes(content)
        message = r"data_batch_2: not a pickle of plain arrays \(it would run (posix|nt).mkdir\)"
        with pytest.raises(Error, match=message):
            CIFAR10().load("", tmp_path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a pickle of plain arrays"),
        (b"\x80\x04\x95\xff\xff", "not a pickle of plain arrays"),
        (b"garbage", "not a pickle of plain arrays"),
        (pickle.dumps([1]), "holds a list, not a batch"),
        (pickle.dumps({}), "has no images of 3x32x32"),
        (pickle.dumps({"data": np.zeros((2, 3071), np.uint8), "labels": [0, 0]}), "has no images of 3x32x32"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.float32), "labels": [0, 0]}), "has no images of 3x32x32"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8)}), "has no labels"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": ["0", 0]}), "has no labels"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]}), "labels 0 to 10, but there are 10"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}), "2 images have 1 labels"),
    ],
)
def test_damaged_batches(tmp_path, content, message):
    make(tmp_path, CIFAR10)
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(content)
    with pytest.raises(Error, match=rf"^cifar10: [^\n]*{message}[^\n]*$"):
        open_data(DataOptions(data="cifar10", data_dir=tmp_path))


def test_a_missing_batch_and_a_missing_folder(tmp_path):
    place = re.escape(str(tmp_path / "cifar-100-python"))
    with pytest.raises(Error, match=f"cifar100: there is no {place}; name the directory"):
        open_data(DataOptions(data="cifar100", data_dir=tmp_path))
    make(tmp_path, CIFAR100)
    (tmp_path / "cifar-100-python/test").unlink()
    with pytest.raises(Error, match=f"cifar100: there is no {place}/test; unpack"):
        open_data(DataOptions(data="cifar100", data_dir=tmp_path))
