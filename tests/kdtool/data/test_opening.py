"""Opening a data set: splits that depend on files alone, classes by name, what a network expects, what is said."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from kdtool.data import checks, image_files, opening
from kdtool.data.dataset import Dataset
from kdtool.data.opening import open_data, open_spec, splits_now
from kdtool.data.options import DataOptions
from kdtool.data.raw import RawData, RawSplit
from kdtool.errors import Error

CLASSES = ("cat", "dog", "fox")


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.setenv("KDTOOL_CACHE", str(tmp_path / "cache"))
    checks._tell.cache_clear()


@pytest.fixture
def folder(tmp_path):
    """Noise in three classes, 40 images each; the mean colour tells the class."""
    draw = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(40):
            pixels = draw.integers(60 * label, 60 * label + 80, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number:02d}.png")
    return tmp_path / "data"


class Files(Dataset):
    """The files of a folder, with its class folders in a given order."""

    kind = "datasets"

    def __init__(self, root, classes=CLASSES, keyed=True):
        object.__setattr__(self, "about", (root, classes, keyed))

    def load(self, argument, root):
        folder, classes, keyed = self.about
        paths = [path for name in classes for path in sorted((folder / name).iterdir())]
        labels = torch.tensor([classes.index(path.parent.name) for path in paths])
        keys = tuple(path.relative_to(folder).as_posix() for path in paths) if keyed else None
        train = RawSplit(tuple(paths), labels, keys)
        return RawData(
            train, None, None, tuple(classes), None, None, padding=None, flip=None, argument="x", test_fraction=0.2
        )


@pytest.fixture
def use(monkeypatch):
    def set_(dataset):
        monkeypatch.setattr(opening, "make", lambda kind, name, **options: dataset)

    return set_


def names(split):
    """The keys of a split, whichever classes they have."""
    images = split._images
    while not hasattr(images, "paths"):
        images = images.plain if hasattr(images, "plain") else images.source
    return [f"{path.parent.name}/{path.name}" for path in images.paths]


def labelled(split):
    return dict(zip(names(split), [split.spec.classes[label] for label in split.labels.tolist()], strict=True))


def test_one_file_less_moves_no_other(folder, use):
    use(Files(folder))
    before = open_data(DataOptions(data="folder:x"))
    (folder / "cat/00.png").unlink()
    after = open_data(DataOptions(data="folder:x"))
    for part in ("train", "val", "test"):
        assert set(names(before.split(part))) - {"cat/00.png"} == set(names(after.split(part)))
    subset = open_data(DataOptions(data="folder:x", subset=0.3))
    assert set(names(subset.train)) < set(names(after.train))
    assert names(subset.val) == names(after.val)


def test_an_older_description_is_split_in_its_order_and_this_is_said(folder, use, caplog):
    use(Files(folder))
    new = open_data(DataOptions(data="folder:x")).spec
    older = dataclasses.replace(new, split_by="order", splits={})
    with caplog.at_level(logging.WARNING, "kdtool"):
        data = open_spec(older)
    assert "of an older release" in caplog.text
    assert len(data.test) == 24  # exactly a fifth of each class
    use(Files(folder, keyed=False))
    plain = open_data(DataOptions(data="folder:x"))
    assert names(plain.test) == names(data.test)
    assert plain.spec.split_by == "order"
    # The same folder named again is split as the checkpoint's was.
    use(Files(folder))
    again = open_data(DataOptions(data="folder:x"), like=older)
    assert names(again.test) == names(data.test)


def test_labels_are_mapped_to_the_classes_of_a_network(folder, use):
    use(Files(folder))
    expected = open_data(DataOptions(data="folder:x"))
    use(Files(folder, ["fox", "cat", "dog"]))
    assert open_data(DataOptions(data="folder:x")).spec.classes == ("fox", "cat", "dog")
    for data in (open_data(DataOptions(data="folder:x"), classes=CLASSES), open_spec(expected.spec)):
        assert data.spec.classes == CLASSES
        for part in ("train", "val", "test"):
            assert labelled(data.split(part)) == labelled(expected.split(part))
            assert data.spec.splits == expected.spec.splits


def test_other_classes_are_refused_with_the_difference(folder, use):
    use(Files(folder))
    for wanted, words in (
        (("cat", "Dog", "fox"), "'dog' for 'Dog' \\(another case\\)"),
        (("cat", "dog"), "adds 'fox'"),
    ):
        with pytest.raises(Error, match=f"classes are not those of the network: .*{words}.*name the right"):
            open_data(DataOptions(data="folder:x"), classes=wanted)


def test_changes_since_a_description_are_said_once(folder, use, caplog):
    use(Files(folder))
    spec = open_data(DataOptions(data="folder:x")).spec
    gone = names(open_spec(spec).train)[3]
    assert caplog.text == ""
    (folder / gone).unlink()
    for _ in range(2):
        open_spec(spec)
    assert [record.getMessage() for record in caplog.records] == [
        f"folder:x: the images changed since the checkpoint was made: train: 1 gone ({gone})"
    ]
    assert splits_now(spec)["train"] != spec.splits["train"]
    assert splits_now(spec)["test"] == spec.splits["test"]
    # Another subset is not a change of the images.
    checks._tell.cache_clear()
    caplog.clear()
    (folder / gone).write_bytes((folder / names(open_spec(spec).train)[0]).read_bytes() + b"x")
    spec = open_spec(spec).spec
    caplog.clear()
    open_data(DataOptions(data="folder:x", subset=0.5), like=spec)
    assert caplog.text == ""


@pytest.mark.parametrize("how", [{"split_seed": 1}, {"validation": 0.2}])
def test_validation_images_in_memory_that_a_checkpoint_was_trained_on_are_said(how, caplog):
    before = open_data(DataOptions(data="digits"))
    data = open_data(DataOptions(data="digits", **how), like=before.spec)
    seen, held_out = (
        [bytes(image.numpy()) for _, images, _ in split.batches(100) for image in images]
        for split in (before.train, data.val)
    )
    both = len(set(seen) & set(held_out))
    assert f"the checkpoint was trained on {both} of the {len(data.val)} images of the val split" in caplog.text
    checks._tell.cache_clear()
    caplog.clear()
    # A smaller subset of the same split holds nothing out that was learned from.
    open_data(DataOptions(data="digits", subset=0.5), like=before.spec)
    assert caplog.text == ""


def test_validation_images_that_a_checkpoint_was_trained_on_are_said(folder, use, caplog):
    use(Files(folder))
    spec = open_data(DataOptions(data="folder:x")).spec
    data = open_data(DataOptions(data="folder:x", split_seed=5), like=spec)
    both = set(names(data.val)) & set(names(open_spec(spec).train))
    assert f"the checkpoint was trained on {len(both)} of the {len(data.val)} images of the val split" in caplog.text
    assert "changed" not in caplog.text
    # The same images under another name of the data set.
    checks._tell.cache_clear()
    caplog.clear()
    open_data(DataOptions(data="folder:x", split_seed=5), like=dataclasses.replace(spec, name="folder:y"))
    assert f"the checkpoint was trained on {len(both)} of" in caplog.text


def test_images_are_decoded_once_for_all_steps_of_a_chain(folder, use, monkeypatch):
    read = []
    real = image_files.read_image
    monkeypatch.setattr(image_files, "read_image", lambda path, *how: read.append(path) or real(path, *how))
    use(Files(folder))
    spec = open_data(DataOptions(data="folder:x", augment="none")).spec
    first = [images.clone() for _, images, _ in open_spec(spec).test.batches(7)]
    before = len(read)
    again = [images for _, images, _ in open_spec(spec).test.batches(7)]
    assert torch.equal(torch.cat(first), torch.cat(again))
    assert len(read) - before <= 8  # a look at two images of each split
    # Another order of the same images, another size and another content are read again.
    use(Files(folder, ["fox", "cat", "dog"]))
    data = open_data(DataOptions(data="folder:x", augment="none"), classes=CLASSES)
    assert data.spec.splits == spec.splits
    colours = torch.cat([images.mean((1, 2, 3)) for _, images, _ in data.test.batches(7)])
    means = [float(colours[data.test.labels == label].mean()) for label in range(3)]
    assert means == sorted(means)  # the classes are brighter in turn, so labels and pixels belong together
    small = open_data(DataOptions(data="folder:x", augment="none"), image_size=4)
    assert next(small.test.batches(2))[1].shape[-1] == 4


def test_one_number_for_three_channels_is_refused(folder, use):
    use(Files(folder))
    with pytest.raises(Error, match="--mean: 1 number for 3 channels; give one for each, such as 0.5,0.5,0.5"):
        open_data(DataOptions(data="folder:x", mean=(0.5,)))


def test_copies_across_splits_are_said(folder, use, caplog):
    use(Files(folder))
    data = open_data(DataOptions(data="folder:x"))
    learned, held_out = names(data.train)[0], names(data.test)[0]
    (folder / held_out).write_bytes((folder / learned).read_bytes())
    open_data(DataOptions(data="folder:x"))
    assert f"1 images of test are in train too, byte for byte (such as {held_out} and {learned})" in caplog.text


def test_images_that_are_all_alike_are_refused(folder, use):
    for path in folder.rglob("*.png"):
        Image.new("RGB", (8, 8), (7, 7, 7)).save(path)
    use(Files(folder))
    with pytest.raises(Error, match=r"all \d+ images of the train split are alike \(every pixel is 7\)"):
        open_data(DataOptions(data="folder:x"))


def test_what_a_network_expects_comes_before_what_the_data_have(folder, use):
    use(Files(folder))
    expects = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop": 0.95, "interpolation": "bicubic"}
    spec = open_data(DataOptions(data="folder:x"), image_size=96, expects=expects).spec
    assert (spec.mean, spec.std, spec.crop, spec.interpolation) == tuple(expects.values())
    chosen = DataOptions(data="folder:x", std=(1.0, 1.0, 1.0), crop=0.5, interpolation="box")
    spec = open_data(chosen, image_size=96, expects=expects).spec
    assert (spec.mean, spec.std, spec.crop, spec.interpolation) == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0), 0.5, "box")
    small = open_data(DataOptions(data="folder:x"), expects=expects).spec
    assert (small.crop, small.interpolation) == (1.0, "bicubic")
    gray = open_data(DataOptions(data="folder:x"), in_channels=1, expects=expects).spec
    assert len(gray.mean) == 1
    assert gray.mean != (0.1,)
    own = open_data(DataOptions(data="folder:x"), image_size=96).spec
    assert (own.crop, own.interpolation) == (0.875, "bilinear")
    again = open_data(DataOptions(data="folder:x"), image_size=96, in_channels=3, like=spec).spec
    assert (again.mean, again.std, again.crop, again.interpolation) == (spec.mean, spec.std, 0.5, "box")


def test_the_crop_of_a_recorded_training_is_kept_for_small_images_too(folder, use):
    use(Files(folder))
    trained = open_data(DataOptions(data="folder:x", crop=0.4)).spec
    again = open_data(DataOptions(data="folder:x"), image_size=8, in_channels=3, like=trained).spec
    assert (trained.crop, again.crop) == (0.4, 0.4)


def test_the_same_data_set_is_split_as_it_was_but_for_what_is_typed(folder, use, caplog):
    use(Files(folder))
    options = {"split_seed": 3, "validation": 0.3, "subset": 0.5, "augment": "none"}
    trained = open_data(DataOptions(data="folder:x", **options)).spec
    with caplog.at_level(logging.WARNING):
        again = open_data(DataOptions(data="folder:x", subset=0.8), like=trained, typed=("data", "subset")).spec
    assert {name: getattr(again, name) for name in options} == {**options, "subset": 0.8}
    assert "folder:x: as in the network's training: --validation 0.3, --split-seed 3, --augment none" in caplog.text
    for other, seed in (({"name": "folder:y"}, 3), ({"name": "folder:y", "splits": {}}, 0), ({"name": "digits"}, 0)):
        like = dataclasses.replace(trained, **other)  # the same images at another place are the same data set
        assert open_data(DataOptions(data="folder:x"), like=like, typed=("data",)).spec.split_seed == seed


@pytest.mark.parametrize(
    ("found", "recorded", "white", "said"),
    [
        (1023, 4095, 4095, ""),  # a darker folder of the same camera
        (16383, 4095, 16383, "16383 is read as white, where the network was trained with 4095"),
        (255, 4095, 255, "255 is read as white"),  # perhaps floating-point numbers
        (1, 255, 1, "1 is read as white"),
        (1023, None, 1023, ""),
        (None, 4095, None, ""),
    ],
)
def test_the_white_of_another_folder_is_that_of_the_training(found, recorded, white, said, folder, use, caplog):
    use(Files(folder))
    spec = dataclasses.replace(open_data(DataOptions(data="folder:x")).spec, white=recorded)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert opening._white(found, spec, "folder:y") == white
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)


def test_images_in_memory_are_never_cropped(digits):
    spec = dataclasses.replace(digits.spec, crop=0.5)
    assert open_spec(spec).spec.crop == 1.0


def test_what_is_cut_off_is_said_for_any_size(folder, caplog):
    Image.new("RGB", (9, 8)).save(folder / "cat" / "oblong.png")
    open_data(DataOptions(data=f"folder:{folder}"), image_size=8)
    assert "1 of 121 images are not square; of each the centre square is used" in caplog.text
    assert "images have sides of" not in caplog.text
