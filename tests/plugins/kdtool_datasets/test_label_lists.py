"""Lists of files and labels as people write them."""

import json
import os

import pytest

from kdtool.errors import Error
from kdtool_datasets.folder import Folder

CATS = ("a.png", "sub/b.png")
DOGS = ("c.png", "sub/d e.png")
ROWS = [(name, "cat") for name in CATS] + [(name, "dog") for name in DOGS]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in (*CATS, *DOGS):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def table(separator=",", header="file,label", rows=ROWS):
    lines = [header.replace(",", separator)] if header else []
    return "\n".join(lines + [separator.join(row) for row in rows]) + "\n"


def write(folder, content, name="labels.csv"):
    data = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(data)
    return folder


def found(raw, part="train"):
    split = getattr(raw, part)
    return dict(zip(split.keys, (raw.classes[label] for label in split.labels.tolist()), strict=True))


def load(path):
    return Folder().load(str(path), None)


EXPECTED = dict(ROWS)


@pytest.mark.parametrize(
    "content",
    [
        table(),
        table(header=None),
        table(";"),
        table("\t"),
        table(header="Filename,Class"),
        table(header="image_path,target"),
        table(header="label,file", rows=[row[::-1] for row in ROWS]),
        table(header=None, rows=[row[::-1] for row in ROWS]),
        table(header="id,breed"),
        table().replace("\n", "\r\n"),
        table().replace(",", " , "),
        "\ufeff" + table(),
        table().encode("utf-16"),
        table() + "\n  \n",
        table(rows=[(f'"{name}"', label) for name, label in ROWS]),
        table(rows=[(f"./{name}", label) for name, label in ROWS]),
        table(rows=[(name.replace("/", "\\"), label) for name, label in ROWS]),
    ],
)
def test_tables_of_files_and_labels(folder, content):
    raw = load(write(folder, content))
    assert found(raw) == EXPECTED
    assert (raw.classes, raw.val, raw.test, raw.test_fraction) == (("cat", "dog"), None, None, 0.2)
    assert "classes are read from labels.csv" in raw.notes


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.tsv", table("\t")),
        ("Labels.CSV", table()),
        ("labels.json", json.dumps([{"file": name, "label": label} for name, label in ROWS])),
        ("labels.json", json.dumps(EXPECTED)),
        ("labels.jsonl", "\n".join(json.dumps({"class": label, "path": name}) for name, label in ROWS)),
    ],
)
def test_other_forms(folder, name, content):
    assert found(load(write(folder, content, name))) == EXPECTED


@pytest.mark.parametrize("name", ["mine.csv", "mine.json"])
def test_the_path_may_be_that_of_the_list(folder, name):
    content = table() if name.endswith("csv") else json.dumps(EXPECTED)
    raw = load(write(folder, content, name) / name)
    assert found(raw) == EXPECTED
    assert raw.argument == str(folder / name)


def test_whole_numbers_are_names_of_classes(folder):
    content = json.dumps([{"file": name, "label": len(label) + (label == "dog")} for name, label in ROWS])
    assert load(write(folder, content, "labels.json")).classes == ("3", "4")


def listed(labels, kind):
    """Return the content of a list in which each of the labels has an image."""
    rows = [(f"{number}.png", label) for number, label in enumerate(labels)]
    if kind in ("csv", "tsv"):
        return table({"csv": ",", "tsv": "\t"}[kind], rows=[(file, str(label)) for file, label in rows])
    entries = [{"file": file, "label": label} for file, label in rows]
    return json.dumps(entries) if kind == "json" else "\n".join(map(json.dumps, entries))


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
def test_classes_that_are_whole_numbers_are_in_their_order(tmp_path, kind):
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(b"%d" % number)

    def classes(labels):
        return load(write(tmp_path, listed(labels, kind), f"labels.{kind}")).classes

    assert classes(range(11, -1, -1)) == tuple(map(str, range(12)))
    assert classes([10, -2, 9, 0]) == ("-2", "0", "9", "10")
    for text in ("cat", "09", "+9", "9.5", "\u0669"):  # one that is no whole number
        assert classes([2, 10, text]) == tuple(sorted(("2", "10", text)))


def test_a_column_of_splits(folder):
    splits = ("Training", "valid", "train", "VAL")
    raw = load(write(folder, table(header="file,label,set", rows=[(*r, s) for r, s in zip(ROWS, splits, strict=True)])))
    assert (found(raw), found(raw, "val")) == (
        {"a.png": "cat", "c.png": "dog"},
        {"sub/b.png": "cat", "sub/d e.png": "dog"},
    )
    assert (raw.test, raw.test_fraction) == (None, None)
    raw = load(write(folder, table(header="file,label,split", rows=[(*row, "train") for row in ROWS])))
    assert raw.test_fraction is None


def test_the_list_decides_where_there_are_folders_too_and_what_it_does_not_list_is_counted(folder):
    (folder / "sub/more.png").touch()
    (folder / "new.jpg").touch()
    raw = load(write(folder, table()))
    assert found(raw) == EXPECTED
    assert "left out 2 images that labels.csv does not list (new.jpg, sub/more.png)" in raw.notes


def test_other_columns_are_named(folder):
    content = table(header=",file,label,width", rows=[(str(n), *row, "12") for n, row in enumerate(ROWS)])
    assert "left out 1 column of the list (width)" in load(write(folder, content)).notes


def test_what_was_guessed_is_said(folder):
    assert "labels are read from the column diagnosis" in load(write(folder, table(header="image,diagnosis"))).notes
    notes = load(write(folder, table(header="id,breed"))).notes
    assert "files are read from the column id, labels from breed" in notes


def test_a_file_that_is_listed_twice_counts_once(folder):
    raw = load(write(folder, table(rows=[*ROWS, ("./a.png", "cat")])))
    assert found(raw) == EXPECTED
    assert "labels.csv lists 1 file more than once (a.png)" in raw.notes


def test_links_in_a_list(folder, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    (store / "x.png").touch()
    (folder / "x.png").symlink_to(store / "x.png")
    raw = load(write(folder, table(rows=[*ROWS, ("x.png", "dog")])))
    assert any("followed 1 link out of the folder (such as x.png to " in note for note in raw.notes)
    (folder / "y.png").symlink_to("a.png")
    with pytest.raises(Error, match=r"a\.png and y\.png are the same file in two classes"):
        load(write(folder, table(rows=[*ROWS, ("y.png", "dog")])))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "lists no files; write lines of file,label, or move it elsewhere to read class folders"),
        ("file,label\n", "lists no files"),
        ("only\nnames\n", "has one column only"),
        (table(rows=[*ROWS, ("gone.png", "cat")]), "line 6: there is no file gone.png in the folder of the list"),
        (table(rows=[("a", "cat")]), "line 2: there is no file a in the folder of the list; a name needs its suffix"),
        (table(rows=[*ROWS, ("sub", "cat")]), "line 6: sub is no regular file"),
        (table(rows=[*ROWS, ("", "cat")]), "line 6 names no file"),
        (table(rows=[*ROWS, ("../x.png", "cat")]), r"line 6: ../x.png leads out of the folder of the list; move"),
        (table(rows=[*ROWS, ("/etc/passwd", "cat")]), "line 6: /etc/passwd leads out of the folder"),
        (table(rows=[*ROWS, ("a.png", "dog")]), r"a.png has two labels, 'cat' and 'dog' \(line 2 and line 6\)"),
        (table(rows=[*ROWS, ("a.png", "")]), "line 6 has no label for a.png"),
        (table(rows=[*ROWS, ("a.png", "cat", "x")]), "line 6 has 3 columns, the first line 2; put names with"),
        (table(header="file,label,split", rows=[("a.png", "cat", "fold1")]), "line 2 has the split 'fold1'; write"),
        (table(header="file,label,split", rows=[("a.png", "cat", "test")]), "lists no files of the train split"),
        (table(header="image,cat,dog", rows=[("a.png", "1", "0")]), r"its columns \(image, cat, dog\) are the file"),
        (table(header="x,y,z", rows=[("1", "2", "3")]), r"its columns \(x, y, z\) are the file and the label"),
        (table(header="file,class,target", rows=[("a.png", "1", "0")]), "class and target may both be the label"),
        (table().encode() + b"caf\xe9.png,cat\n", "line 6 is not in UTF-8; save the list as UTF-8"),
        (b"file,label\na.png\0,cat\n", "is no text"),
        ('file,label\n"a.png,cat\n', "is no table of text"),
        (table(rows=[*ROWS, ("new.png", "Cat\u0301"), ("new.png", "Cat\u0301")]), "no file new.png"),
    ],
)
def test_lists_that_are_refused(folder, content, message):
    write(folder, content)
    with pytest.raises(Error, match=rf"^[^\n]*labels\.csv: [^\n]*{message}[^\n]*$"):
        load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no list in JSON"),
        ("3", "is no list in JSON"),
        ("[" * 100_000, "is no list in JSON"),
        ('["a.png"]', "entry 1 is no object"),
        (
            '[{"file": "a.png", "label": "cat"}, {"file": "c.png"}]',
            "entry 2 does not have the names of the first one, file, l",
        ),
        ('[{"file": "a.png", "label": ["cat"]}]', "entry 1 has a label that is neither text nor a whole number"),
        ('[{"file": "a.png", "label": null}]', "entry 1 has no label for a.png"),
        ('{"a.png": "cat", "a.png": "dog"}', r"a.png has two labels, 'cat' and 'dog' \(entry 1 and entry 2\)"),
        ('{"images": [], "annotations": []}', "entry 1 has a label that is neither text nor"),
        ('[{"file": "a.png", "file": "c.png", "label": "cat"}]', "entry 1 does not have the names of the first one"),
    ],
)
def test_json_that_is_refused(folder, content, message):
    write(folder, content, "labels.json")
    with pytest.raises(Error, match=rf"^[^\n]*labels\.json: [^\n]*{message}[^\n]*$"):
        load(folder)


def test_two_lists_are_refused(folder):
    write(write(folder, table()), "[]", "labels.json")
    with pytest.raises(Error, match=r"has labels\.csv and labels\.json; keep one of them"):
        load(folder)


def test_names_of_classes_that_look_alike_are_refused(folder):
    rows = [("a.png", "caf\u00e9"), ("c.png", "cafe\u0301")]
    with pytest.raises(Error, match="two classes have the same name .*another Unicode form"):
        load(write(folder, table(rows=rows)))


def test_a_list_that_is_too_long_is_refused(folder, monkeypatch):
    monkeypatch.setattr("kdtool_datasets.tables.LONGEST", 20)
    with pytest.raises(Error, match=r"labels\.csv: is longer than"):
        load(write(folder, table()))


def test_images_without_labels_may_be_those_of_a_list(folder):
    write(folder, table(rows=ROWS[:3]), "some.csv")
    assert [path.name for path in Folder().images(str(folder / "some.csv"), None)] == ["a.png", "b.png", "c.png"]
    assert len(Folder().images(str(folder), None)) == 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in the file system")
@pytest.mark.parametrize("name", ["labels.csv", "labels.json"])
def test_a_pipe_is_not_opened(folder, name):
    os.mkfifo(folder / name)
    with pytest.raises(Error, match=rf"^[^\n]*{name}: is no regular file; remove or replace it$"):
        load(folder)


def test_a_line_of_very_many_columns_is_no_list(folder):
    write(folder, "train," * 10_000 + "a.png,cat\n")
    with pytest.raises(Error, match="labels.csv: has more than 10,000 columns; write lines of file,label"):
        load(folder)


def test_no_label_written_as_text_is_no_class_among_numbers(folder):
    rows = [(name, str(number)) for number, name in enumerate((*CATS, DOGS[0]))]
    with pytest.raises(Error, match=r"line 5 has no label \(NaN\) for sub/d e.png; add one, or remove it"):
        load(write(folder, table(rows=[*rows, (DOGS[1], "NaN")])))
    raw = load(write(folder, table(rows=[*rows, (DOGS[1], "-1")])))
    assert raw.classes == ("-1", "0", "1", "2")
    assert "-1 is a class, the first one; if it stands for no label, remove its images" in raw.notes
