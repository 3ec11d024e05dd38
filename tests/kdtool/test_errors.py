import pytest

from kdtool.errors import first_line, nearest, similar

COMMANDS = ["teacher", "refine", "distill", "prune", "export", "evaluate", "inspect", "compare", "report", "run"]
OPTIONS = ["--method", "--output", "--force", "--stem", "--mean", "--std", "--seed", "--lr", "--help", "--temperature"]


@pytest.mark.parametrize(
    ("word", "names", "expected"),
    [
        # The same word.
        ("KD", ["dkd", "kd", "rkd"], ["kd"]),
        ("cifar-10", ["cifar10", "cifar100"], ["cifar10"]),
        ("--batch_size", ["--batch-size", "--batch"], ["--batch-size"]),
        # Typing errors: a letter left out, added, replaced, swapped with its neighbour.
        ("distil", COMMANDS, ["distill"]),
        ("prunes", COMMANDS, ["prune"]),
        ("idk", ["vid", "ikd", "dkd"], ["ikd"]),
        ("mnits", ["mnist", "digits"], ["mnist"]),
        ("resnet81", ["resnet18", "resnet50", "wide_resnet50_2"], ["resnet18"]),
        ("man", ["mean", "max"], ["mean", "max"]),
        # A number that is a little larger or smaller, the nearest first.
        ("resnet19", ["resnet9", "resnet20", "resnet18", "resnet32"], ["resnet20", "resnet18", "resnet9"]),
        ("resnet99", ["resnet50", "resnet101", "resnet110d"], ["resnet101"]),
        ("wrn-16-9", ["wrn-40-2", "wrn-16-10"], ["wrn-16-10"]),
        # One is the beginning of the other, or they differ in their ends.
        ("eval", COMMANDS, ["evaluate"]),
        ("distillation", COMMANDS, ["distill"]),
        ("pruning", COMMANDS, ["prune"]),
        ("half", ["halve", "depth"], ["halve"]),
        ("--temp", OPTIONS, ["--temperature"]),
        # Letters in common are not enough.
        ("train", COMMANDS, []),
        ("test", COMMANDS, []),
        ("plot", COMMANDS, []),
        ("resume", COMMANDS, []),
        ("--name", OPTIONS, []),
        ("--size", OPTIONS, []),
        ("--half", OPTIONS, []),
        ("--kd", OPTIONS, []),
        ("yolov8", ["resnet18", "vit"], []),
        ("l1", ["2:4", "filter-l1"], []),
        ("--", OPTIONS, []),
        ("", OPTIONS, []),
    ],
)
def test_similar_names(word, names, expected):
    assert similar(word, names) == expected


def test_nearest_lists_at_most_that_many():
    names = ["resnet18", "resnet28", "resnet38"]

    assert nearest("resnet8", names, count=2) == "; did you mean resnet18, resnet28?"
    assert nearest("xyz", names) == ""


def test_an_error_of_other_programs_is_one_short_line():
    assert first_line(ValueError("\n  no such\nand more")) == "no such"
    assert first_line(ValueError("x" * 1000)) == "x" * 300
    assert first_line(MemoryError()) == "MemoryError"
