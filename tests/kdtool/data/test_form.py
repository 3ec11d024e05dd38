"""Channels, size and white of image files."""

import pytest

from kdtool.data.file_index import FileInfo
from kdtool.data.form import form_of
from kdtool.errors import Error


def infos(*headers):
    return [
        FileInfo(bytes(16), width, height, mode, values[-1] if values else None, "", low=values[0] if values else None)
        for width, height, mode, *values in headers
    ]


def test_all_files_decide_whether_images_are_in_colour():
    gray, colour = (32, 32, "L"), (32, 32, "RGB")
    assert form_of(infos(*[gray] * 9)).channels == 1
    mixed = form_of(infos(*[gray] * 9, colour))
    assert mixed.channels == 3
    assert mixed.choices == ("9 of 10 images are gray; all are read in colour (--in-channels 1: all in gray)",)
    assert form_of(infos(colour, colour)).choices == ()
    assert form_of(infos((8, 8, "I;16", 9), (8, 8, "1"), (8, 8, "LA"))).channels == 1
    assert form_of(infos((8, 8, "P"), (8, 8, "L"))).channels == 3


def test_the_size_is_that_of_all_files_if_it_is_one_small_square():
    assert form_of(infos((32, 32, "L"), (32, 32, "L"))).size == 32
    assert form_of(infos((224, 224, "L"))).choices == ()
    for headers in ([(32, 32, "L"), (33, 32, "L")], [(65, 65, "L")], [(20, 32, "L")]):
        form = form_of(infos(*headers))
        assert form.size == 224
        assert "read at 224 pixels (choose with --image-size)" in form.choices[0]


def test_images_that_are_not_square_are_said():
    form = form_of(infos((20, 32, "L"), (32, 32, "L")))
    assert form.notes == (
        "1 of 2 images are not square; of each the centre square is used, or as much of it as --crop says",
    )
    assert form_of(infos((32, 32, "L"), (40, 40, "L"))).notes == ()


def test_what_the_data_set_says_is_not_looked_for():
    form = form_of([], channels=3, size=28)
    assert (form.channels, form.size, form.white, form.choices, form.notes) == (3, 28, None, (), ())
    form = form_of(infos((20, 30, "L"), (20, 30, "RGB")), channels=1, size=64)
    assert (form.choices, form.notes) == ((), ())


@pytest.mark.parametrize(
    ("peak", "white"), [(0, 255), (255, 255), (256, 1023), (4095, 4095), (4096, 16383), (16384, 65535), (65535, 65535)]
)
def test_white_is_the_next_full_number_of_bits(peak, white):
    form = form_of(infos((8, 8, "I;16", 0), (8, 8, "I;16", peak)))
    assert form.white == white
    assert bool(form.notes) == (white < 65535)


def test_few_levels_of_gray_are_said():
    form = form_of(infos((8, 8, "I;16", 31_000, 32_000), (8, 8, "I;16", 30_000, 31_000)))
    assert form.notes == (
        "2 images of more than 8 bits have values from 30000 to 32000, which are 9 of the 256 levels between 0 and "
        "65535; rescale the images to use all of them",
    )
    assert form_of(infos((8, 8, "I;16", 0, 16_384))).notes == ()


def test_more_than_16_bits_are_refused():
    with pytest.raises(Error, match="70000, more than 16 bits; convert"):
        form_of(infos((8, 8, "I", 70_000)))
    assert form_of(infos((8, 8, "L"))).white is None


def test_transparency_turns_and_frames_are_said():
    [entry] = infos((8, 8, "PA"))
    form = form_of([entry, entry._replace(mode="RGB", frames=2, turned=True)])
    assert form.notes == (
        "1 of 2 images have transparency; it is read as white",
        "1 of 2 images are turned or mirrored as their EXIF says",
        "1 of 2 images have several frames or pages; the first of each is read",
    )


@pytest.mark.parametrize(("peaks", "white"), [((0, 1), 1), ((1, 255), 255), ((3, 129), 255)])
def test_the_white_of_floating_point_numbers_is_1_or_255(peaks, white):
    form = form_of(infos(*[(8, 8, "F", peak) for peak in peaks]))
    assert (form.channels, form.white) == (1, white)
    assert f"{white} is read as white" in form.notes[0]


@pytest.mark.parametrize("peak", [2, 127, 256, 70_000])
def test_floating_point_numbers_of_another_scale_are_refused(peak):
    with pytest.raises(Error, match=f"up to {peak}, neither 0 to 1 nor 0 to 255; scale them"):
        form_of(infos((8, 8, "F", peak), (8, 8, "F", 1)))


def test_floating_point_numbers_and_integers_have_no_common_white():
    with pytest.raises(Error, match="1 images hold floating-point numbers and 2 integers of more than 8 bits"):
        form_of(infos((8, 8, "F", 1), (8, 8, "I", 9), (8, 8, "I;16", 9)))
