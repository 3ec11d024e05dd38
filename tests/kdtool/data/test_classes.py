"""Classes are matched by name, and differences between names are told apart."""

import pytest

from kdtool.data.classes import difference, natural_order, outputs_of, positions
from kdtool.errors import Error


def test_equal_lists_need_no_mapping():
    assert positions(["a", "b"], ("a", "b"), "data", "the network") is None


def test_the_natural_order_is_that_of_timm():
    names = ("a/10", "a/9", "Zebra", "apple", "img12b", "img2", "2", "x")
    assert natural_order(names) == (
        "2",
        "a/9",
        "a/10",
        "apple",
        "img2",
        "img12b",
        "x",
        "Zebra",
    )  # by timm.utils.natural_key
    assert natural_order(("0", "1", "10", "2")) == ("0", "1", "2", "10")


def test_ascending_numbers_count_only_where_the_data_set_has_them():
    own, numbers = ("0", "1", "10", "2"), ("0", "1", "2", "10")
    assert outputs_of(own, numbers, natural=False) == numbers
    assert outputs_of(("Cat", "dog", "bee"), ("0", "1", "2"), natural=False) == ("Cat", "dog", "bee")
    assert outputs_of(("Cat", "dog", "bee"), ("0", "1", "2"), natural=True) == ("bee", "Cat", "dog")
    assert outputs_of(("cat", "dog"), ("dog", "fox"), natural=True) == ("dog", "fox")  # refused later
    assert outputs_of(own, None, natural=True) == numbers


def test_another_order_is_mapped_by_name():
    assert positions(["cherry", "apple", "berry"], ["apple", "berry", "cherry"], "data", "the network") == [2, 0, 1]


@pytest.mark.parametrize(
    ("names", "reference", "words"),
    [
        (["a", "b"], ["a", "b", "c"], ["lacks 'c'", "2 and 3 classes"]),
        (["a", "x", "y"], ["a", "b", "c"], ["lacks 'b', 'c'", "adds 'x', 'y'"]),
        (["a", "Berry"], ["a", "berry"], ["'Berry' for 'berry' (another case)"]),
        (["caf\u00e9", "b"], ["cafe\u0301", "b"], [r"'caf\xe9' for 'cafe\u0301'", "another Unicode form"]),
        (["a b", "c"], ["a\u00a0b", "c"], [r"'a b' for 'a\xa0b'", "other spaces"]),
        (["a", "a"], ["a", "b"], ["lacks 'b'"]),
        (["a", "a"], ["a", "a"], []),
        (["Berry", "berry ", "c"], ["berry", "c"], ["has 'Berry' for 'berry' (another case)", "adds 'berry '"]),
    ],
)
def test_differences_are_named(names, reference, words):
    if not words:
        assert positions(names, reference, "x", "y") is None
        return
    with pytest.raises(Error) as caught:
        positions(names, reference, "folder:C", "the network", "rename them")
    text = str(caught.value)
    assert text.startswith("folder:C: its classes are not those of the network: ")
    assert text.endswith("; rename them")
    assert "\n" not in text
    for word in words:
        assert word in text


def test_long_lists_are_shortened_and_control_characters_do_not_reach_the_terminal():
    text = difference([f"new{number}" for number in range(1000)], ["a\x1b[31m", "b"])
    assert "and 996 more" in text
    assert "\x1b" not in text
    assert len(text) < 300


def test_each_name_is_looked_at_a_few_times_however_many_there_are():
    """A data set may have 20,000 classes: to look through all of them for each one took a minute and a half."""
    looks = 0

    class Name(str):
        def __hash__(self):
            nonlocal looks
            looks += 1
            return super().__hash__()

        def __eq__(self, other):
            nonlocal looks
            looks += 1
            return super().__eq__(other)

    names = [Name(f"class {number}") for number in range(300)]
    capitals = [Name(f"Class {number}") for number in range(300)]
    for changed, words in (([*names[:-1], Name("new")], "it lacks 'class 299', it adds 'new'"), (capitals, "296 more")):
        looks = 0
        assert words in difference(changed, names[::-1])
        assert looks < 30 * 300
