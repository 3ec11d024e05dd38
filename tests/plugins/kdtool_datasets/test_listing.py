"""What is below a folder: images, what is left out, and links."""

import os
import socket
import sys

import pytest

from kdtool.errors import Error
from kdtool_datasets.listing import WAYS, list_images


def touch(root, *keys):
    for key in keys:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(key.encode())
    return root


def keys(listing):
    return [entry.key for entry in listing.images]


def test_images_come_in_a_fixed_order_those_of_a_folder_before_those_of_its_sub_folders(tmp_path):
    touch(tmp_path, "b/2.png", "b/10.JPG", "b/a/1.tif", "a/z.webp", "b.avif")
    assert keys(list_images(tmp_path)) == ["b.avif", "a/z.webp", "b/10.JPG", "b/2.png", "b/a/1.tif"]
    assert list_images(tmp_path).folders == ["a", "b", "b/a"]
    assert list_images(tmp_path).notes() == []


def test_what_is_left_out_is_counted_by_kind(tmp_path):
    touch(
        tmp_path, "a/1.png", "a/1.txt", "a/2.txt", "a/Thumbs.db", "a/._1.png", "__MACOSX/x.png", ".git/y.png", "README"
    )
    touch(tmp_path, "a/1.heic", "a/2.HEIC", "a/3.exr", "list.db")
    listing = list_images(tmp_path)
    assert keys(listing) == ["a/1.png"]
    assert listing.notes() == [
        "left out 3 files of a form that is not read (.heic 2, .exr 1); convert them to JPEG or PNG",
        "left out 4 files, no images (.txt 2, without suffix 1, .db 1)",
        "left out 4 entries, hidden or of the system (such as .git, __MACOSX, a/._1.png)",
    ]


def test_pipes_and_sockets_are_left_out(tmp_path, monkeypatch):
    touch(tmp_path, "1.png")
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        (tmp_path / "zero.png").symlink_to("/dev/zero")
        (tmp_path / "gone.png").symlink_to("nothing")
        listing = list_images(tmp_path)
    assert keys(listing) == ["1.png"]
    assert listing.notes()[:2] == [
        "left out 3 entries, no regular files (pipe.png, socket.png, zero.png)",
        "left out 1 entry, links to nothing (gone.png)",
    ]


@pytest.mark.parametrize("target", ["..", ".", "../..", "/"])
def test_a_link_to_a_folder_above_is_not_followed(tmp_path, target):
    root = touch(tmp_path / "d", "a/1.png", "b/2.png")
    (root / "a/up").symlink_to(target)
    listing = list_images(root)
    assert keys(listing) == ["a/1.png", "b/2.png"]
    assert "did not follow 1 link to a folder above (a/up)" in listing.notes()


def test_links_in_a_circle_end(tmp_path):
    touch(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a/b").symlink_to("../b")
    (tmp_path / "b/a").symlink_to("../a")
    listing = list_images(tmp_path)
    assert keys(listing) == ["a/1.png", "a/b/2.png", "b/2.png", "b/a/1.png"]
    assert listing.loops == ["a/b/a", "b/a/b"]
    assert {(entry.device, entry.number) for entry in listing.images[:2]} == {
        (entry.device, entry.number) for entry in listing.images[2:]
    }


def test_many_links_among_folders_do_not_multiply_without_end(tmp_path):
    for name in range(9):
        touch(tmp_path, f"{name}/1.png")
        for other in range(9):
            if other != name:
                (tmp_path / f"{name}/to{other}").symlink_to(f"../{other}")
    with pytest.raises(Error, match=f"links lead to this folder in more than {WAYS} ways"):
        list_images(tmp_path)


def test_links_out_of_the_folder_are_followed_and_named(tmp_path):
    touch(tmp_path / "store", "x.png", "more/y.png")
    root = touch(tmp_path / "d", "a/1.png")
    (root / "a/x.png").symlink_to(tmp_path / "store/x.png")
    (root / "b").symlink_to("../store/more")
    (root / "a/inside.png").symlink_to("1.png")
    listing = list_images(root)
    assert keys(listing) == ["a/1.png", "a/inside.png", "a/x.png", "b/y.png"]
    assert [entry.link for entry in listing.images] == [False, True, True, True]
    assert len(listing.notes()) == 1
    assert "followed 2 links out of the folder (such as a/x.png to " in listing.notes()[0]


def test_names_with_any_character(tmp_path):
    names = ["写真\u3000二.png", "a\u00a0b.png", "new\nline.png", "\x1b[31m.png", "\u202egnp.png"]
    touch(tmp_path, *names, "ti\x07tle/note.t\nxt")
    listing = list_images(tmp_path)
    assert sorted(keys(listing)) == sorted(names)
    assert all(line.isprintable() for line in listing.notes())


@pytest.mark.skipif(sys.platform != "linux", reason="names of other systems are Unicode")
def test_a_name_that_is_no_unicode(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    with open(path, "wb"):
        pass
    listing = list_images(tmp_path)
    assert os.fsencode(listing.path(listing.images[0].key)) == path


def test_deep_folders_need_no_recursion(tmp_path):
    previous = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
        assert len(list_images(tmp_path).folders) == 1200
    finally:
        # Python's own removal is recursive.
        while os.getcwd() != str(tmp_path):
            os.chdir("..")
            os.rmdir("d")
        os.chdir(previous)


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.png")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(Error, match="a: cannot be listed: Permission denied"):
        list_images(tmp_path)
