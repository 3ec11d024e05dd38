"""Tables of image files and labels."""

import pytest

from kdtool.data.opening import open_data, open_spec
from kdtool.data.options import DataOptions
from kdtool.errors import Error, UsageError
from kdtool.testing.checks import check_dataset
from kdtool_datasets.csv_file import Csv


@pytest.fixture
def table(tmp_path):
    import numpy as np
    from PIL import Image

    (tmp_path / "images").mkdir()
    lines = ["photo,breed,kind,fold"]
    for row in range(40):
        Image.fromarray(np.full((8, 8), row, np.uint8)).save(tmp_path / f"images/{row}.png")
        lines.append(f"images/{row}.png,{('corgi', 'pug', 'tabby')[row % 3]},{('dog', 'cat')[row % 2]},"
                     f"{'test' if row % 5 == 0 else 'train'}")  # fmt: skip
    path = tmp_path / "pets.csv"
    path.write_text("\n".join(lines))
    return path


def opened(data):
    return open_data(DataOptions(data=data))


def test_columns_of_any_name_are_chosen(table):
    with pytest.raises(Error, match="cannot be known which of its columns"):
        opened(f"csv:{table}")
    data = opened(f"csv:{table},file=photo,label=breed,split=fold")
    assert data.spec.classes == ("corgi", "pug", "tabby")
    assert len(data.test) == 8
    assert open_spec(data.spec).spec.splits == data.spec.splits
    assert opened(f"csv:{table},file=photo,label=kind").spec.classes == ("cat", "dog")
    check_dataset(Csv, argument=f"{table},file=photo,label=kind")


def test_two_columns_may_be_the_label(table):
    table.write_text(table.read_text().replace("photo,breed,kind", "file,class,category"))
    with pytest.raises(Error, match=r"class and category may both be the label; .* csv:.*pets.csv,label=class"):
        opened(f"csv:{table}")
    assert opened(f"csv:{table},label=class").spec.classes == ("corgi", "pug", "tabby")


def test_what_cannot_be_chosen(table):
    with pytest.raises(Error, match="pets.csv: has no column colour"):
        opened(f"csv:{table},label=colour")
    with pytest.raises(UsageError, match="needs the path of a table; write csv:FILE"):
        opened("csv:")
    with pytest.raises(UsageError, match="there is no labels= in the name of this data set, only file, label, split"):
        opened(f"csv:{table},labels=breed")
    with pytest.raises(UsageError, match="label= needs one value"):
        opened(f"csv:{table},label=")
    with pytest.raises(Error, match="there is no file .*none.csv"):
        opened(f"csv:{table.parent}/none.csv")


def test_a_table_gives_images_without_labels(table):
    data = open_data(DataOptions(data="digits", unlabelled=f"csv:{table},file=photo,label=kind"), image_size=8)
    assert data.train.unlabelled == 40


def test_images_lie_beside_a_link_to_the_table(table):
    store = table.parent / "store"
    store.mkdir()
    table.rename(store / "0a1b2c")
    table.symlink_to(store / "0a1b2c")
    assert opened(f"csv:{table},file=photo,label=kind").spec.classes == ("cat", "dog")


def test_images_lie_beside_the_table_itself(table, tmp_path_factory):
    link = tmp_path_factory.mktemp("project") / "photos.csv"
    link.symlink_to(table)
    data = opened(f"csv:{link},file=photo,label=kind")
    assert data.spec.name == f"csv:{table},file=photo,label=kind"  # as in checkpoints of earlier releases
    assert data.spec.classes == ("cat", "dog")
