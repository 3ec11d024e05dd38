"""Which folders are splits and which are classes, by examples of what people have; no image is opened."""

import re

import pytest

from kdtool.errors import Error
from kdtool_datasets.folder import Folder

USUAL = ("cat", "dog")


def touch(root, *patterns):
    """Make files with a content each: ``train/cat*2`` are two images in ``train/cat``, ``cat/`` is empty."""
    for pattern in patterns:
        folder, _, number = pattern.partition("*")
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(int(number or 0)):
            (root / folder / f"{index}.png").write_bytes(f"{folder} {index}".encode())
    return root


def split(name, *classes):
    return [f"{name}/{label}*2" for label in classes or USUAL]


def loaded(root):
    raw = Folder().load(str(root), None)
    found = {
        name: {raw.classes[label]: (part.labels == label).sum().item() for label in part.labels.unique().tolist()}
        for name, part in (("train", raw.train), ("val", raw.val), ("test", raw.test))
        if part is not None
    }
    for part in (raw.train, raw.val, raw.test):
        assert part is None or [str(path) for path in part.images] == [f"{root}/{key}" for key in part.keys]
    return raw, found


TWO = {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    ("layout", "expected", "says"),
    [
        ([*split("train"), *split("test")], {"train": TWO, "test": TWO}, []),
        ([*split("train"), *split("val")], {"train": TWO, "val": TWO}, []),
        ([*split("train")], {"train": TWO}, []),
        ([*split("Train"), *split("TEST")], {"train": TWO, "test": TWO}, ["read TEST as test, Train as train"]),
        (
            [*split("training_set"), *split("dev-set"), *split("Test Images")],
            {"train": TWO, "val": TWO, "test": TWO},
            ["read Test Images as test, dev-set as val, training_set as train"],
        ),
        (
            [*split("seg_train/seg_train"), *split("seg_test/seg_test"), "seg_pred/seg_pred*3"],
            {"train": TWO, "test": TWO},
            [
                "left out seg_pred with 3 images, being neither a split nor a class",
                "read seg_test as test, seg_train as train",
                "classes are read 2 folders deep: cat, dog",
            ],
        ),
        (
            [*split("data/pets/train"), *split("data/pets/test")],
            {"train": TWO, "test": TWO},
            ["read data/pets, the only folder there"],
        ),
        (["pets/cat*2", "pets/dog*2"], {"train": TWO}, ["read pets, the only folder there"]),
        (["train/train*2", "train/cat*2"], {"train": {"cat": 2, "train": 2}}, []),
        (
            ["train*2", "plane*2"],
            {"train": {"plane": 2, "train": 2}},
            ["read train as a class, since it has images but no class folders"],
        ),
        (
            [*split("train"), *split("val"), "extra*2", "doc/"],
            {"train": TWO, "val": TWO},
            ["left out extra with 2 images, being neither a split nor a class"],
        ),
        (
            [*split("train"), "train*3"],
            {"train": TWO},
            ["left out 3 images in train outside the class folders (train/0.png, train/1.png, train/2.png)"],
        ),
        (
            ["cat*2", "dog*2", "*1"],
            {"train": TWO},
            ["left out 1 image in the folder outside the class folders (0.png)"],
        ),
        (
            ["train/animal/cat*2", "train/thing/car*2", "val/animal/cat*1", "val/thing/car*1"],
            {"train": {"animal/cat": 2, "thing/car": 2}, "val": {"animal/cat": 1, "thing/car": 1}},
            ["classes are read 2 folders deep: animal/cat, thing/car"],
        ),
        (
            ["animal/cat*2", "animal/dog*2", "thing/car*2"],
            {"train": {"animal/cat": 2, "animal/dog": 2, "thing/car": 2}},
            ["classes are read 2 folders deep: animal/cat, animal/dog, thing/car"],
        ),
        (
            ["train/cat/images*2", "train/dog/images*2", "val/cat*1", "val/dog*1"],
            {"train": TWO, "val": {"cat": 1, "dog": 1}},
            ["classes are read 2 folders deep: cat, dog"],
        ),
        (
            ["cat*1", "cat/indoors*1", "dog*2"],
            {"train": TWO},
            ["1 image in sub-folders of classes counted to the class (cat/indoors)"],
        ),
        (
            [*split("train"), "test/cat*1", "test/dog/"],
            {"train": TWO, "test": {"cat": 1}},
            ["the test split has no images of 1 class (dog)"],
        ),
        (["A*2", "a*2"], {"train": {"A": 2, "a": 2}}, ["classes that differ in case only are different ones (A, a)"]),
    ],
    ids=lambda value: "-".join(value).replace("/", ":") if isinstance(value, list) and value else None,
)
def test_layouts_that_are_known(tmp_path, layout, expected, says):
    raw, found = loaded(touch(tmp_path, *layout))
    assert found == expected
    # Other classes than those with images are none.
    assert list(raw.classes) == sorted(expected["train"])
    assert list(raw.notes) == says
    # Without a folder of splits, a part is held out for test.
    splits = any(re.match(r"(?i)train|seg_|data/", pattern) and "/" in pattern for pattern in layout)
    assert raw.test_fraction == (None if splits else 0.2)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ([*split("test")], "has no class folders in a train folder, only test; make .*/train/CLASS"),
        ([*split("val"), *split("test")], "has no class folders in a train folder, only test, val;"),
        (["cat*2", "dog*2", *split("test")], "no class folders in a train folder, only test beside cat, dog"),
        (["train*3", "test*2"], "has no class folders in a train folder"),
        ([*split("train"), *split("val"), *split("valid")], "val and valid both mean val; keep one"),
        ([*split("train"), *split("Train")], "Train and train both mean train; keep one"),
        ([*split("train"), "test*3"], "test has 3 images but no class folders; put them into class folders, or move"),
        ([*split("train"), *split("val"), "test/"], "test has no images; remove the folder, or fill it"),
        (["cat*2", "dog*2", "test*2"], "test may be a split or a class beside cat, dog"),
        ([*split("train"), *split("prueba")], "prueba beside train is not known as a split or a class; name it val"),
        ([*split("train", "steam", "diesel"), *split("plane", "jet", "prop")], "plane beside train is not known"),
        ([*split("Treino"), *split("Teste")], "Teste and Treino both have the folder cat; if they are splits, name"),
        (["cat*2", "dog/photos*2"], r"different depths, .*cat/0.png and dog/photos/0.png\); put the images of each"),
        (["train/a/b*2", "train/c/d/e*2"], r"different depths, .*train/a/b/0.png and train/c/d/e/0.png\)"),
        (
            [*split("train"), *split("test", "cat", "dog", "cow")],
            "classes of test are not those of train: it adds 'cow'",
        ),
        ([*split("train"), *split("test", "cat")], "classes of test are not those of train: it lacks 'dog'"),
        ([*split("train"), *split("val", "Cat", "dog")], "of val are .* it has 'Cat' for 'cat' \\(another case\\)"),
        (
            [*split("train", "caf\u00e9", "bar"), *split("val", "cafe\u0301", "bar")],
            "'cafe\\\\u0301' for 'caf\\\\xe9' \\(the same characters in another Unicode form\\)",
        ),
        (["caf\u00e9*2", "cafe\u0301*2"], "two classes have the same name .*another Unicode form"),
        (["cat*2", "cat *2"], "two classes have the same name .*other spaces"),
        (["cat*2", "dog*2", "cow/", "hen/"], "the train split has no image of class 'cow', 'hen'; add some, or remove"),
        (["*3"], "has no class folders, only 3 images"),
        (["cat/", "dog/"], "no images"),
        (["cat*3"], r"1 class \(cat\)"),
        (["train/train*3"], r"1 class \(train\)"),
    ],
    ids=lambda value: "-".join(value).replace("/", ":") if isinstance(value, list) else None,
)
def test_layouts_that_are_refused(tmp_path, layout, message):
    touch(tmp_path, *layout)
    with pytest.raises(Error, match=rf"^[^\n]*{message}[^\n]*$"):
        Folder().load(str(tmp_path), None)


def test_files_that_are_not_read_are_named_where_there_are_no_others(tmp_path):
    for name in USUAL:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.heic").touch()
    with pytest.raises(
        Error, match=r"no images .*left out 2 files of a form that is not read \(.heic 2\); convert them"
    ):
        Folder().load(str(tmp_path), None)
