"""The bounded memory of a process."""

from kdtool.utils.memory import Recent


def test_the_values_that_came_last_are_kept():
    kept = Recent[str, int](2)
    for number, key in enumerate("abc"):
        kept[key] = number
    assert kept == {"b": 1, "c": 2}


def test_a_new_value_of_a_key_takes_no_room():
    kept = Recent[str, int](2)
    for number, key in enumerate("abb"):
        kept[key] = number
    assert kept == {"a": 0, "b": 2}
