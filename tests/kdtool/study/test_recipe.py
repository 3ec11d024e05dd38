import pytest

from kdtool.errors import UsageError
from kdtool.study.recipe import Comparison, read_recipe

STUDY = """
[matrix]
seed = [0, 1]
ratio = [0.5, 0.8]

[[step]]
name = "teacher"
run = "teacher kdtool:lenet-5 --seed {seed}"

[[step]]
name = "small"
from = "teacher"
run = "refine --times 2"

[[step]]
name = "distilled"
from = "teacher"
run = "distill --student {small}"

[[step]]
name = "pruned"
from = "distilled"
run = "prune --ratio {ratio} --method 'a b'"

[[compare]]
of = ["teacher", "pruned"]
"""


def written(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


def test_a_step_is_run_for_what_it_and_its_sources_use(tmp_path):
    recipe = read_recipe(written(tmp_path, STUDY))
    assert [command.name for command in recipe.commands] == [
        "teacher_seed=0",
        "teacher_seed=1",
        "small_seed=0",
        "small_seed=1",
        "distilled_seed=0",
        "distilled_seed=1",
        "pruned_seed=0_ratio=0.5",
        "pruned_seed=0_ratio=0.8",
        "pruned_seed=1_ratio=0.5",
        "pruned_seed=1_ratio=0.8",
    ]
    assert recipe.directory == tmp_path / "recipe.study"
    assert recipe.comparisons == (Comparison(("teacher", "pruned")),)


def test_the_words_of_a_command(tmp_path):
    recipe = read_recipe(written(tmp_path, STUDY), tmp_path / "out")
    words = {command.name: command.words(recipe.directory) for command in recipe.commands}
    out = str(tmp_path / "out")
    assert words["teacher_seed=1"] == ["teacher", "kdtool:lenet-5", "--seed", "1"]
    assert words["distilled_seed=1"] == [
        "distill", f"{out}/teacher_seed=1.pt", "--student", f"{out}/small_seed=1.pt"
    ]  # fmt: skip
    assert words["pruned_seed=1_ratio=0.8"] == [
        "prune", f"{out}/distilled_seed=1.pt", "--ratio", "0.8", "--method", "a b"
    ]  # fmt: skip


def test_the_recipe_names_its_directory(tmp_path):
    recipe = read_recipe(written(tmp_path, '[study]\nname = "mine"\noutput = "here"' + STUDY))
    assert (recipe.name, recipe.directory) == ("mine", tmp_path / "here")


ONE = '[[step]]\nname = "one"\nrun = "teacher timm:x"\n'


KEYS = """
[matrix]
method = ["kd", "at"]
seed = [0, 1]
lr = [0.1]
[[step]]
name = "one"
run = "distill t.pt --method {method} --seed {seed} --lr {lr}"
[[step]]
name = "two"
run = "distill t.pt --seed {seed}"
"""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[step", "is not valid TOML: "),
        ("", "has no [[step]]"),
        ("[steps]", "the recipe: unknown key 'steps'; did you mean step?"),
        ("step = 1", "step: must be written as [[step]]"),
        ("matrix = 1", "[matrix]: must be a table"),
        ("[study]\noutput = 1", "[study]: output must be a text, not 1"),
        ("[study]\ndirectory = 'x'", "[study]: unknown key 'directory'; "),
        ("[matrix]\nseed = 1", "[matrix] seed: must be a list of values"),
        ("[matrix]\nseed = []", "[matrix] seed: must be a list of values"),
        ("[matrix]\nseed = [true]", "[matrix] seed: a value must be a number or a text, not True"),
        ("[matrix]\nseed = [1, '1']", "[matrix] seed: 1 does not give a file name of its own"),
        ("[matrix]\nseed = ['/']", "[matrix] seed: '/' does not give a file name of its own"),
        ("[matrix]\nseed = [1]\n" + ONE, "[matrix]: no step uses {seed}"),
        ("[matrix]\n" + "".join(f"{key} = ['{'x' * 60}']\n" for key in "abcd")
         + "[[step]]\nname = 'one'\nrun = 'teacher {a} {b} {c} {d}'",
         "step 'one': its files get names of more than 240 bytes; use shorter values"),
        ("[[step]]\nrun = 'x'", "[[step]] number 1: name is missing"),
        ("[[step]]\nname = '../x'\nrun = 'x'", "step '../x': '../x' is not a valid name"),
        ("[[step]]\nname = 'one'", "step 'one': run is missing"),
        ("[[step]]\nname = 'one'\nrun = ' '", "step 'one': run is empty"),
        ("[[step]]\nname = 'one'\nrun = '\"x'", "step 'one': run: No closing quotation"),
        ("[[step]]\nname = 'one'\nrun = 'x'\nform = 'y'", "step 'one': unknown key 'form'; did you mean from?"),
        (ONE + ONE, "step 'one': the name is taken"),
        ("[matrix]\none = [1]\n" + ONE, "step 'one': the name is taken"),
        (ONE.replace("one", "study"), "step 'study': the study itself has files of this name (study, results, lock)"),
        (ONE.replace("one", "Results"), "step 'Results': the study itself has files of this name"),
        (ONE + "[[step]]\nname = 'b'\nfrom = 'ome'\nrun = 'x'", "step 'b': from: 'ome' is no step; did you mean one?"),
        ("[[step]]\nname = 'two'\nfrom = 'one'\nrun = 'x'\n" + ONE, "step 'two': from: 'one' is not above this step"),
        ("[[step]]\nname = 'one'\nfrom = 'one'\nrun = 'x'", "step 'one': from: 'one' is not above this step"),
        (
            "[matrix]\nratio = [1]\n[[step]]\nname = 'one'\nrun = 'x {rato}'",
            "step 'one': run: {rato}: 'rato' is neither a key of [matrix] nor a step; did you mean ratio?",
        ),
        (
            "[[step]]\nname = 'one'\nrun = 'export x.pt'\n[[step]]\nname = 'b'\nfrom = 'one'\nrun = 'prune'",
            "step 'b': 'one' is an export, which makes no checkpoint for other steps",
        ),
        (ONE + "[[compare]]\nof = ['one']", "[[compare]] number 1: of must be a list of at least two steps"),
        (ONE + "[[compare]]\nof = ['one', 'two']", "[[compare]] number 1: of: 'two' is no step"),
        (ONE + "[[compare]]\nof = ['one', 'one']", "[[compare]] number 1: of: 'one' is listed twice"),
        (ONE + "[[compare]]\nof = ['one']\nlong = 'a'", "[[compare]] number 1: unknown key 'long'; did you mean"),
        (ONE + "[[compare]]\nof = ['one']\nalong = 1", "[[compare]] number 1: along must be a text, not 1"),
        (ONE + "[[compare]]\nof = ['one']\nalong = 'a'", "[[compare]] number 1: along: 'a' is no key of [matrix]"),
        (KEYS + "[[compare]]\nof = ['one']\nalong = 'metod'",
         "[[compare]] number 1: along: 'metod' is no key of [matrix]; did you mean method?"),
        (KEYS + "[[compare]]\nof = ['one']\nalong = 'seed'",
         "[[compare]] number 1: along: results are averaged over 'seed', so its values are not compared"),
        (KEYS + "[[compare]]\nof = ['one']\nalong = 'lr'", "[[compare]] number 1: along: 'lr' has one value"),
        (KEYS + "[[compare]]\nof = []\nalong = 'method'", "[[compare]] number 1: of must be a list of at least one"),
        (KEYS + "[[compare]]\nof = ['two']\nalong = 'method'",
         "[[compare]] number 1: along: step 'two' does not depend on {method}; leave it out of of"),
        (f"[matrix]\na = {list(range(200))}\nb = {list(range(200))}\n"
         "[[step]]\nname = 'one'\nrun = '{a} {b}'", "[matrix]: makes 40,000 commands"),
        (f"[matrix]\nseed = {list(range(20_000))}\n", "[matrix] seed: has 20,000 values; at most 10,000"),
        ("[matrix]\n" + "".join(f"k{number} = [1]\n" for number in range(65)), "[matrix]: has 65 keys; at most 64"),
        (f"[matrix]\nseed = {list(range(2000))}\n[[step]]\nname = 'one'\nrun = 'x {'{seed}' * 9000}'",
         "makes command lines of 180,004,000 characters in all; at most 5,000,000 are allowed"),
        # A short reference may stand for much.
        (f"[matrix]\na = ['{'!' * 50_000}b']\n[[step]]\nname = 'one'\nrun = 'x {'{a}' * 200}'",
         "makes command lines of 10,000,802 characters in all"),
        (f"[[step]]\nname = 'one'\nrun = '{'x' * 100_000}'", "step 'one': run has 100,000 characters; at most 65,536"),
        ("[[step]]\nname = 'one'\nrun = 'x'\n" * 10_001, "has 10,001 steps; at most 10,000 are allowed"),
    ],
)  # fmt: skip
def test_a_bad_recipe_is_refused_in_one_line(tmp_path, text, says):
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(f"{path}: {says}")
    assert "\n" not in str(caught.value)


def test_a_recipe_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not valid TOML"):
        read_recipe(tmp_path / "binary.toml")


def test_numbers_that_differ_in_their_sign_are_different_values(tmp_path):
    recipe = read_recipe(written(tmp_path, "[matrix]\nw = [-1, 1, -0.5]\n" + ONE.replace("timm:x", "timm:x --w={w}")))
    assert [command.name for command in recipe.commands] == ["one_w=-1", "one_w=1", "one_w=-0.5"]


def test_a_command_may_go_on_in_the_next_line_and_a_placeholder_may_have_spaces(tmp_path):
    text = "\ufeff[matrix]\nseed = [0]\n[[step]]\nname = 'one'\nrun = '''teacher timm:x \\\n  --seed { seed }'''\n"
    (command,) = read_recipe(written(tmp_path, text)).commands
    assert command.words(tmp_path) == ["teacher", "timm:x", "--seed", "0"]
